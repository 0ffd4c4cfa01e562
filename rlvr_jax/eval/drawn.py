"""Drawn samples of one model and what is made of them, whoever drew them. No jax."""

import contextlib
import dataclasses
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from rlvr_jax import graceful, hosts
from rlvr_jax.config import Config
from rlvr_jax.eval import pass_at_k
from rlvr_jax.eval.counts import Counts, Reached
from rlvr_jax.eval.intervals import mean_interval
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.stopping import Rule
from rlvr_jax.graceful import Stopped
from rlvr_jax.tasks.load import load_problems
from rlvr_jax.tasks.problem import Problem


@dataclasses.dataclass(frozen=True)
class Samples:
  """What lies in a store for one model, some problems and up to k draws of each."""

  store: SampleStore
  model: str
  problems: tuple[Problem, ...]
  rule: Rule

  @property
  def task(self) -> str:
    """The task of the problems."""
    return self.problems[0].task

  def table(self, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows, with the store's columns or some of them, in order of problem and sample."""
    ids = {problem.id: place for place, problem in enumerate(self.problems)}
    table = self.store.read(self.model, self.task)
    keys = zip(
      *(table[name].to_pylist() for name in ('problem_id', 'visit', 'sample')), strict=True
    )
    found = sorted(
      (ids[problem], sample, row)
      for row, (problem, visit, sample) in enumerate(keys)
      if problem in ids and not visit and sample < self.rule.n
    )
    table = table.take([row for _, _, row in found])
    return table if columns is None else table.select(list(columns))

  def counts(self, samples: int | None = None) -> Counts:
    """(n, c) of each problem, of the first `samples` draws; ValueError where none may be counted.

    With early stopping the default is what may: the draws that every problem has.
    """
    samples = samples or self.rule.first or self.rule.n
    ids = [problem.id for problem in self.problems]
    return self.store.counts(self.model, self.task, problem_ids=ids, samples=samples)

  def pass_at_k(self, *ks: int) -> dict[int, tuple[float, float, float]]:
    """(value, low, high) of the mean unbiased pass@k over problems, with its 95% interval."""
    counts = self.counts()
    band = mean_interval(pass_at_k.estimate(counts.n, counts.c, ks))
    return {k: band.at(place) for place, k in enumerate(ks)}

  def reached(self) -> Reached:
    """Coverage at k draws, of samples that were stopped early."""
    ids = [problem.id for problem in self.problems]
    return self.store.reached(self.model, self.task, n=self.rule.n, problem_ids=ids)

  def __len__(self) -> int:
    return len(self.table(['sample']))

  def __repr__(self) -> str:
    table = self.table(['verdict', 'length', 'finish'])
    verdicts = table['verdict'].to_pylist()
    found = ', '.join(f'{verdicts.count(v):,} {v}' for v in dict.fromkeys(sorted(verdicts)))
    cut = table['finish'].to_pylist().count('length')
    return (
      f'{self.model} on {self.task}: {len(table):,} samples of {len(self.problems)} problems '
      f'({found})\n  {sum(table["length"].to_pylist()):,} tokens, {cut:,} cut at the limit; '
      f'in {self.store.root / self.model / self.task}'
    )


def measured(drawn: Samples, role: str, **more: Any) -> ModelResult:
  """The samples as a model of a report; more: its further fields."""
  return ModelResult(
    drawn.model,
    role,
    drawn.counts(),
    settings=drawn.store.settings(drawn.model, drawn.task),
    reached=drawn.reached() if drawn.rule.stop_after else None,
    **more,
  )


@contextlib.contextmanager
def exit_when_stopped() -> Iterator[None]:
  """Turns Stopped into its message and an exit code (graceful.exit_code), as a command ends."""
  try:
    yield
  except Stopped as stopped:
    hosts.say(f'{stopped}\n{graceful.resume_line()}')
    sys.exit(graceful.exit_code())


def store_name(name: str) -> str:
  """A model's name as a folder of the store."""
  return re.sub(r'[^A-Za-z0-9._=+@:-]+', '-', pathlib.Path(name).name).strip('-') or 'model'


def evaluation_problems(config: Config) -> list[Problem]:
  """The held-out problems to measure (all problems where the config holds none out)."""
  train, heldout = load_problems(config.task)
  problems = heldout or train
  wanted = config.evaluate.problems
  if wanted > len(problems):
    raise ValueError(
      f'evaluate.problems={wanted}, but there are {len(problems)}; lower it or raise task.holdout'
    )
  return problems[: wanted or None]
