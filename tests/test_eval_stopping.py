"""What is kept of early-stopped draws is a function of the draws, whatever happened on the way."""

import pathlib
import random
import shutil
import tempfile
from typing import Any, cast

import numpy as np
import pytest
from fakes import FakeEngine, FakePool, FakeTokenizer, Killed, make_problems
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.eval import ledger as ledger_lib
from rlvr_jax.eval.fill import Subject, sample_into_store
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.stopping import Draws, Rule, order
from rlvr_jax.sampling.types import Sampling


def kept_of(table: list[list[bool]], rule: Rule) -> set[tuple[str, int]]:
  """The definition, word for word: draws [0, T), T the smallest >= first with enough correct."""
  kept = set()
  for place, row in enumerate(table):
    ends = [
      t for t in range(rule.first, rule.n + 1) if sum(row[:t]) >= rule.stop_after > 0
    ]  # fmt: skip
    kept |= {(f'p{place}', sample) for sample in range(min([*ends, rule.n]))}
  return kept


@st.composite
def cases(draw):
  """(rule, table bool[P][n]) with early stopping on or off."""
  n = draw(st.integers(1, 24))
  stop_after = draw(st.integers(0, min(3, n)))
  first = draw(st.integers(1, n)) if stop_after else 0
  problems = draw(st.integers(1, 4))
  rates = [draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])) for _ in range(problems)]
  rng = random.Random(draw(st.integers(0, 2**32)))
  return Rule(n, first, stop_after), [[rng.random() < r for _ in range(n)] for r in rates]


def fill(root: pathlib.Path, rule: Rule, table, engine, *, late=False, flush_s=1e9, **options):
  """One run of sampling with everything but the ledger made up."""
  problems = make_problems(len(table))
  prompts = [(i,) for i in range(len(table))]
  subject = Subject(
    'base', cast(Any, engine), cast(Any, FakeTokenizer()), problems, prompts, 'raw', 'w', 'd'
  )
  store = SampleStore(root)
  sample_into_store(
    store,
    subject,
    rule,
    Sampling(max_tokens=2),
    cast(Any, FakePool(table, late=late)),
    seed=0,
    coupling='independent',
    flush_s=flush_s,
    show=False,
    **options,
  )
  return store


def stored(store: SampleStore) -> set[tuple[str, int]]:
  table = store.read('base', 'sums', columns=['problem_id', 'sample'])
  return set(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


@given(cases(), st.randoms(use_true_random=False), st.integers(1, 6), st.integers(0, 40), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_stored_depends_on_the_draws_alone(case, rng, slots, ahead, late):
  rule, table = case
  with tempfile.TemporaryDirectory() as folder:
    engine = FakeEngine(rng, slots=slots, ahead=ahead)
    store = fill(pathlib.Path(folder), rule, table, engine, late=late)
    assert stored(store) == kept_of(table, rule)
    assert len(set(engine.pulled)) == len(engine.pulled)  # nothing is drawn twice


@given(cases(), st.randoms(use_true_random=False), st.integers(0, 40), st.data())
@settings(max_examples=40, deadline=None)
def test_kills_at_any_moment_leave_no_trace(case, rng, ahead, data):
  rule, table = case
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder) / 'now'
    for attempt in range(data.draw(st.integers(1, 3))):
      fatal = data.draw(st.integers(0, rule.n * len(table)))
      snapshot = pathlib.Path(folder) / f'disk{attempt}'

      def kill(count, fatal=fatal, snapshot=snapshot, root=root):
        if count == fatal:
          shutil.copytree(root, snapshot)  # what a kill leaves: no buffer is written any more
          raise Killed

      engine = FakeEngine(rng, ahead=ahead, kill=kill)
      try:
        fill(root, rule, table, engine, flush_s=data.draw(st.sampled_from([0.0, 1e9])))
      except Killed:
        root = snapshot
    store = fill(root, rule, table, FakeEngine(rng, ahead=ahead))
    assert stored(store) == kept_of(table, rule)
    assert not (root / 'base' / 'sums' / ledger_lib.SPOOL).exists()


@given(cases(), st.randoms(use_true_random=False), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_topping_up_gives_what_one_run_gives(case, rng, more):
  rule, table = case
  longer = Rule(rule.n + more, rule.first, rule.stop_after)
  table = [[*row, *(rng.random() < 0.3 for _ in range(more))] for row in table]
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    fill(root, rule, table, FakeEngine(rng))
    assert stored(fill(root, longer, table, FakeEngine(rng))) == kept_of(table, longer)
