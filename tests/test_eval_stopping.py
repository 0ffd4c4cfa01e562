"""What is kept of early-stopped draws is a function of the draws, whatever happened on the way."""

import json
import pathlib
import random
import shutil
import tempfile

import numpy as np
import pytest
from fakes import FakeEngine, Killed, fill, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.eval.ledger import DISCARDED, SPOOL
from rlvr_jax.eval.stopping import Rule


@pytest.fixture(scope='module', autouse=True)
def quick_disk():
  """Nobody pulls the plug of this machine: the kernel's buffers are durable enough."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('os.fsync', lambda handle: None)
    yield


def end_of(row: list[bool], rule: Rule) -> int:
  """The definition, word for word: the smallest T >= first with enough correct draws, else n."""
  ends = [t for t in range(rule.first, rule.n + 1) if sum(row[:t]) >= rule.stop_after > 0]
  return min([*ends, rule.n])


def kept_of(table: list[list[bool]], rule: Rule) -> set[tuple[str, int]]:
  return {(f'p{p}', sample) for p, row in enumerate(table) for sample in range(end_of(row, rule))}


@st.composite
def cases(draw, *, stopping: bool = False):
  """(rule, table bool[P][n]) with early stopping on or off."""
  n = draw(st.integers(1, 24))
  stop_after = draw(st.integers(int(stopping), min(3, n)))
  first = draw(st.integers(1, n)) if stop_after else 0
  problems = draw(st.integers(1, 4))
  rates = [draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])) for _ in range(problems)]
  rng = random.Random(draw(st.integers(0, 2**32)))
  return Rule(n, first, stop_after), [[rng.random() < r for _ in range(n)] for r in rates]


orders = st.randoms(use_true_random=False)


@given(cases(), orders, st.integers(1, 6), st.integers(0, 40), st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_is_stored_depends_on_the_draws_alone(case, rng, slots, ahead, late):
  rule, table = case
  with tempfile.TemporaryDirectory() as folder:
    engine = FakeEngine(rng, slots=slots, ahead=ahead)
    store = fill(pathlib.Path(folder), rule, table, engine, late=late)
    assert stored(store) == kept_of(table, rule)
    assert len(set(engine.pulled)) == len(engine.pulled)  # nothing is drawn twice
    waste = {'completions': 0, 'tokens': 0, 'unfinished': 0}
    if rule.stop_after:
      waste = json.loads((store.root / 'base' / 'sums' / DISCARDED).read_text())
    assert waste['tokens'] == 2 * waste['completions']
    assert len(engine.pulled) == len(stored(store)) + waste['completions'] + waste['unfinished']


@given(cases(), orders, st.integers(0, 40), st.data())
@settings(max_examples=25, deadline=None)
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
    assert not (root / 'base' / 'sums' / SPOOL).exists()


def test_what_waits_for_an_earlier_draw_survives_a_kill(tmp_path):
  """Draw 1 is the last to finish of 24; the others wait for it, and are not drawn again."""
  rule, table = Rule(24, 1, 1), [[False] * 24]

  class LastOne(random.Random):
    def randrange(self, size):
      return size - 1 if size > 1 else 0

  snapshot = tmp_path / 'snapshot'

  def kill(count):
    if count == 22:
      shutil.copytree(tmp_path / 'now', snapshot)
      raise Killed

  with pytest.raises(Killed):
    fill(tmp_path / 'now', rule, table, FakeEngine(LastOne(), ahead=30, kill=kill), flush_s=0.0)
  engine = FakeEngine(random.Random(0))
  store = fill(snapshot, rule, table, engine)
  assert stored(store) == kept_of(table, rule)
  assert len(engine.pulled) < 4
  assert not (snapshot / 'base' / 'sums' / SPOOL).exists()


@given(cases(), orders, st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_topping_up_gives_what_one_run_gives(case, rng, more):
  rule, table = case
  longer = Rule(rule.n + more, rule.first, rule.stop_after)
  table = [[*row, *(rng.random() < 0.3 for _ in range(more))] for row in table]
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    fill(root, rule, table, FakeEngine(rng))
    assert stored(fill(root, longer, table, FakeEngine(rng))) == kept_of(table, longer)


@given(cases(stopping=True), orders)
@settings(max_examples=20, deadline=None)
def test_coverage_is_that_of_all_draws_and_nothing_else_is_said(case, rng):
  rule, table = case
  truth = np.array(table)
  with tempfile.TemporaryDirectory() as folder:
    store = fill(pathlib.Path(folder), rule, table, FakeEngine(rng))
    reached = store.reached('base', 'sums', n=rule.n)
    for threshold in range(1, rule.stop_after + 1):
      np.testing.assert_array_equal(reached.covered(threshold), truth.sum(1) >= threshold)
    with pytest.raises(ValueError, match='is known for 1 to'):
      reached.covered(rule.stop_after + 1)
    counts = store.counts('base', 'sums', samples=rule.first)
    assert counts.n.tolist() == [rule.first] * len(table)
    np.testing.assert_array_equal(counts.c, truth[:, : rule.first].sum(1))
    for samples in (None, rule.first + 1):
      with pytest.raises(ValueError, match=r'stopped early .*so pass@k from .* would be wrong'):
        store.counts('base', 'sums', samples=samples)
    with pytest.raises(ValueError, match='lack draws that n='):
      store.reached('base', 'sums', n=rule.n, problem_ids=['p0', 'p99'])


def test_draws_that_are_not_complete_give_no_coverage(tmp_path):
  rule, table = Rule(20, 2, 1), [[False] * 20]
  store = fill(tmp_path, Rule(10, 2, 1), table, FakeEngine(random.Random(0)))
  with pytest.raises(ValueError, match=r"1 of 1 problems in .* lack draws that n=20 .*'p0'"):
    store.reached('base', 'sums', n=rule.n)
  assert store.reached('base', 'sums', n=10).c.tolist() == [0]


def test_coverage_of_an_ordinary_store_is_refused(tmp_path):
  store = fill(tmp_path, Rule(4), [[True] * 4], FakeEngine(random.Random(0)))
  with pytest.raises(ValueError, match='was not stopped early'):
    store.reached('base', 'sums', n=4)


def test_another_rule_in_the_same_store_is_refused(tmp_path):
  fill(tmp_path, Rule(8, 2, 1), [[True] * 8], FakeEngine(random.Random(0)))
  for rule in (Rule(8), Rule(8, 3, 1), Rule(8, 2, 2)):
    with pytest.raises(ValueError, match=r'differ in (first|stop_after)'):
      fill(tmp_path, rule, [[True] * 8], FakeEngine(random.Random(0)))


def test_draws_are_saved(tmp_path):
  """The point of it: easy problems cost their first draws and little more, hard ones all."""
  rule = Rule(512, 16, 2)
  table = [[True] * 512, [i % 20 == 19 for i in range(512)], [False] * 512]
  engine = FakeEngine(random.Random(0), slots=8, ahead=8)
  store = fill(tmp_path, rule, table, engine)
  assert len(stored(store)) == 16 + 40 + 512
  assert len(engine.pulled) < 16 + 40 + 512 + 2 * 16
