"""A sampler, tokenizer and verifier pool whose every answer is known and whose order is not."""

import pathlib
import random
from concurrent.futures import Future
from typing import Any

import numpy as np
import tiny

from rlvr_jax.eval.fill import Subject, sample_into_store
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.stopping import Rule
from rlvr_jax.sampling.types import Completion, Sampling, Stats
from rlvr_jax.tasks.problem import Problem, Verdict


class Killed(BaseException):
  """What stands for kill -9: nothing may react to it but by unwinding."""


class FakeEngine:
  """Yields completions in an order of its own, looking `ahead` items further than it has yielded.

  The tokens of draw (problem, sample) are [problem, sample]. kill(count) is called before each
  completion with how many were yielded so far.
  """

  def __init__(
    self, rng: random.Random, *, slots: int = 4, ahead: int = 4, kill=lambda count: None
  ):
    self.slots, self.stats, self.prompt_capacity = slots, Stats(), 64
    self.config = tiny.CONFIG
    self.pulled: list[tuple[int, int]] = []
    self._rng, self._ahead, self._kill = rng, ahead, kill

  def run(self, items, sampling, *, stream, model_uid):
    items, live, count = iter(items), [], 0
    while True:
      while len(live) < self.slots + self._ahead and (item := next(items, None)) is not None:
        if item.limit is None:  # not what merely compiles the programs
          self.pulled.append((item.problem, item.sample))
          live.append(item)
      if not live:
        return
      item = live.pop(self._rng.randrange(len(live)))
      self._kill(count)
      count += 1
      self.stats.tokens += 2
      self.stats.steps += 1
      self.stats.slot_steps += self.slots
      self.stats.live_steps += min(len(live) + 1, self.slots)
      tokens = np.array([item.problem, item.sample], np.int32)
      yield Completion(item, tokens, np.zeros(2, np.float32), truncated=False)


class FakeTokenizer:
  """Tokens as words."""

  class hf:
    chat_template = None

  eos_ids = ()

  def decode(self, tokens, skip_special=True):
    return ' '.join(str(int(t)) for t in tokens)


class FakePool:
  """Says of '3 17' what table[3][17] says; late: verdicts are given only when asked for."""

  journal_bytes = 0

  def __init__(self, table, *, late: bool = False):
    self._table, self._late = table, late

  def submit(self, problem: Problem, text: str):
    place, sample = (int(word) for word in text.split() or '00')
    correct = self._table[place][sample]
    verdict = Verdict('correct' if correct else 'wrong', float(correct))
    future: Future = _Late(verdict) if self._late else Future()
    if not self._late:
      future.set_result(verdict)
    return future


class _Late(Future):
  """Not done until somebody waits for it."""

  def __init__(self, verdict):
    super().__init__()
    self._verdict = verdict

  def result(self, timeout=None):
    if not self.done():
      self.set_result(self._verdict)
    return super().result(timeout)


def make_problems(count: int) -> list[Problem]:
  """Problems p0, p1, ... of the task 'sums'."""
  return [Problem(f'p{i}', 'sums', f'{i} + 1?', str(i + 1), {}) for i in range(count)]


def fill(root: pathlib.Path, rule: Rule, table, engine, *, late=False, flush_s=1e9, **options):
  """One run of sampling with everything but the store and its ledger made up; the store.

  table bool[P][n] says which draws are correct.
  """
  prompts = [(i,) for i in range(len(table))]
  tokenizer: Any = FakeTokenizer()
  pool: Any = FakePool(table, late=late)
  store = SampleStore(root)
  sample_into_store(
    store,
    Subject('base', engine, tokenizer, make_problems(len(table)), prompts, 'raw', 'w', 'd'),
    rule,
    Sampling(max_tokens=2),
    pool,
    seed=0,
    coupling='independent',
    flush_s=flush_s,
    **{'show': False, **options},
  )
  return store


def stored(store: SampleStore) -> set[tuple[str, int]]:
  """(problem_id, sample) of every row that `fill` left."""
  table = store.read('base', 'sums', columns=['problem_id', 'sample'])
  return set(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
