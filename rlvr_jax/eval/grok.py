"""Staged rewards on problems that the base does not solve: which seeds grok, when, what transfers.

After Sun et al. 2025 (arXiv 2509.21016): a run groks if its solve rate, long near zero, ends above
one half. Both are of held-out problems like those trained on: the rate in training is of whatever
an arm trains on, easier problems too. No jax.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax.eval.algorithms import seeds_interval
from rlvr_jax.eval.findings import percent
from rlvr_jax.eval.intervals import clopper_pearson, zero_upper_bound
from rlvr_jax.eval.report import Section
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.tables import Table

PART = 'staged'  # of study.arms
GROKKED = 0.5  # solve rate
TRAINED = 'hard'  # the held-out split that is like the problems trained on


@dataclasses.dataclass(frozen=True)
class Run:
  """Training of one arm and seed, with that of the arms it goes on from before it.

  iterations: of all of them; training: the last one's share of right completions, of what the arm
  trains on (None before there is one). looks: (iterations, pass@1 on held-out problems) when one
  was taken; none where training asks in another way than the model was measured.
  """

  model: ModelResult
  iterations: int
  training: float | None
  looks: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True)
class ZeroSet:
  """Draws of the base on problems to be trained on; exact: its chance of each, None if unknown."""

  arm: str
  problem_ids: tuple[str, ...]
  n: np.ndarray
  c: np.ndarray
  exact: np.ndarray | None = None


def first_above(values: Sequence[float], steps: Sequence[int]) -> int | None:
  """The first of the steps whose value is above GROKKED; None if there is none."""
  return next((int(s) for v, s in zip(values, steps, strict=True) if v > GROKKED), None)


def spliced(
  parts: Sequence[tuple[Sequence[Mapping[str, Any]], int]],
) -> tuple[list[float], tuple[tuple[int, float], ...]]:
  """(share of right completions in each iteration, looks) of runs that go on from each other.

  parts: (metrics rows, iterations) of each.
  """
  rates: list[float] = []
  looks: list[tuple[int, float]] = []
  for rows, length in parts:
    begun = len(rates)
    for row in rows:
      if row['step'] < length and 'pass@1' in row:
        rates.append(float(row['pass@1']))
      if row['step'] <= length and 'eval/pass@1' in row:
        looks.append((begun + int(row['step']), float(row['eval/pass@1'])))
  return rates, tuple(looks)


def rates_by_split(model: ModelResult, splits: Mapping[str, str]) -> dict[str, np.ndarray]:
  """c / n of the problems of each split, in the order in which the splits come."""
  found: dict[str, list[float]] = {}
  for problem, rate in zip(model.counts.problem_ids, model.counts.rates, strict=True):
    found.setdefault(splits[problem], []).append(float(rate))
  return {split: np.array(rates) for split, rates in found.items()}


def analyse(
  base: ModelResult,
  runs: Sequence[Run],
  splits: Mapping[str, str],
  zero: ZeroSet | None,
  level: float = 0.95,
) -> dict[str, Any]:
  """results.json["staged"]; runs with one label are seeds of one arm. splits: of problem ids."""
  arms: dict[str, list[Run]] = {}
  for run in runs:
    arms.setdefault(run.model.label or run.model.name, []).append(run)
  return {
    'grokked_above': GROKKED,
    'zero_set': _zero_entry(zero, level) if zero else None,
    'base': _transfer([base], splits, level),
    'arms': {name: _arm(own, splits, level) for name, own in arms.items()},
  }


def _arm(runs: Sequence[Run], splits: Mapping[str, str], level: float) -> dict[str, Any]:
  seeds = []
  for run in runs:
    held_out = float(rates_by_split(run.model, splits)[TRAINED].mean())
    seeds.append(
      {
        'model': run.model.name,
        'seed': run.model.seed,
        'held_out': held_out,
        'training': run.training,
        'grokked': held_out > GROKKED,
        'iterations': run.iterations,
        'passed_held_out': first_above([v for _, v in run.looks], [s for s, _ in run.looks]),
      }
    )
  count = sum(seed['grokked'] for seed in seeds)
  low, high = clopper_pearson(count, len(seeds), level)
  share = [count / len(seeds), float(low), float(high)]
  transfer = _transfer([run.model for run in runs], splits, level)
  return {'seeds': seeds, 'grokked': count, 'of': len(seeds), 'share': share, 'transfer': transfer}


def _transfer(
  models: Sequence[ModelResult], splits: Mapping[str, str], level: float
) -> dict[str, Any]:
  """Per split pass@1 [value, low, high], over problems and seeds, and the seeds' values."""
  each = [rates_by_split(model, splits) for model in models]
  found = {}
  for split in each[0]:
    rates = np.array([one[split] for one in each])
    band = seeds_interval(rates[:, :, None], level=level)
    found[split] = {'pass@1': list(band.at(0)), 'seeds': rates.mean(axis=1).tolist()}
  return found


def _zero_entry(zero: ZeroSet, level: float) -> dict[str, Any]:
  unsolved = zero.c == 0
  entry = {
    'arm': zero.arm,
    'problems': len(zero.problem_ids),
    'draws': int(zero.n.min()),
    'unsolved': int(unsolved.sum()),
    'solved': {p: int(c) for p, c in zip(zero.problem_ids, zero.c, strict=True) if c},
    'level': level,
    # of one problem's solve rate, with zero of `draws`
    'upper_bound': float(zero_upper_bound(int(zero.n.min()), level)),
    'rule_of_three': 3 / int(zero.n.min()),
  }
  if zero.exact is not None:
    entry['exact'] = {
      'smallest': float(zero.exact.min()),
      'median': float(np.median(zero.exact)),
      'largest': float(zero.exact.max()),
      'expected_in_draws': float((zero.exact * zero.n).sum()),
    }
  return entry


def section(found: Mapping[str, Any]) -> Section:
  """The report's section of analyse's entry."""
  splits = list(found['base'])
  rows = [('base', *(_of(found['base'][split]) for split in splits))]
  for name, arm in found['arms'].items():
    rows.append((name, *(_of(arm['transfer'][split]) for split in splits)))
  return Section(
    'Staged rewards where the base solves nothing',
    [*_zero_text(found['zero_set']), _rule_text(found)],
    [],
    [
      Table(
        'Seeds that grok',
        ('arm', 'seeds that grok', 'share', 'iterations to it', 'end', 'end, in training'),
        [
          _grok_row(name, arm)
          for name, arm in found['arms'].items()
          if any(seed['iterations'] for seed in arm['seeds'])  # not the base asked once more
        ],
        'Share: with its Clopper-Pearson interval over seeds. Iterations: by seed, those of an '
        'earlier stage included; a dash where no look passed, or none was taken in this way of '
        f'asking. End: pass@1 on held-out {TRAINED} problems, by seed. In training: the share of '
        'right completions in the last iteration, of what the arm trains on.',
      ),
      Table(
        'Transfer: pass@1 by split',
        ('model', *splits),
        rows,
        'Mean over seeds, with the interval over problems and seeds; in brackets the lowest and '
        'the highest seed.',
      ),
    ],
  )


def _of(entry: Mapping[str, Any]) -> str:
  value, low, high = entry['pass@1']
  seeds = entry['seeds']
  text = f'{percent(value)} ({percent(low)} to {percent(high)})'
  return text if len(seeds) == 1 else f'{text} [{percent(min(seeds))}, {percent(max(seeds))}]'


def _grok_row(name: str, arm: Mapping[str, Any]) -> tuple[str, ...]:
  value, low, high = arm['share']

  def shares(key: str) -> str:
    return ', '.join('-' if s[key] is None else percent(s[key]) for s in arm['seeds'])

  passed = [s['passed_held_out'] for s in arm['seeds']]
  return (
    name,
    f'{arm["grokked"]} of {arm["of"]}',
    f'{percent(value)} ({percent(low)} to {percent(high)})',
    ', '.join('-' if step is None else str(step) for step in passed),
    shares('held_out'),
    shares('training'),
  )


def _zero_text(zero: Mapping[str, Any] | None) -> list[str]:
  if zero is None:
    return ['The base was not drawn on the problems trained on, so what it solves is not known.']
  text = (
    f'Of {zero["problems"]} problems trained on, the base solved {zero["unsolved"]} in none of '
    f'{zero["draws"]:,} draws each, so that its solve rate there is at most '
    f'{zero["upper_bound"]:.1e} ({zero["level"]:.0%} bound for one problem; 3/n is '
    f'{zero["rule_of_three"]:.1e}).'
  )
  if zero['solved']:
    text += f' The others: {", ".join(f"{p} ({c})" for p, c in zero["solved"].items())}.'
  if exact := zero.get('exact'):
    text += (
      f' Its exact chances, sums over all right programs: median {exact["median"]:.1e}, at most '
      f'{exact["largest"]:.1e}; {exact["expected_in_draws"]:.2g} right completions are to be '
      'expected in all draws.'
    )
  return [text]


def _rule_text(found: Mapping[str, Any]) -> str:
  return (
    f'A seed groks if pass@1 on held-out {TRAINED} problems ends above {found["grokked_above"]:g}. '
    f'Time to it: the iteration of the first look at held-out {TRAINED} problems while training '
    'where pass@1 is above that.'
  )
