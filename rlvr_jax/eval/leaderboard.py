"""Scores of training methods against their base and against GRPO, with nested intervals.

A method is trained from one base with several seeds at one budget of sampled tokens, in several
task families. Its value on a problem is the mean over seeds; every interval covers the choice of
problems and of seeds (algorithms.seeds_interval). Differences are paired by problem, and between
methods by seed too: a seed fixes the order of problems.

  beats    pass@1 above that of the reference (GRPO): the interval of the difference lies above 0
  keeps    not inferior to the base at the large k: the one-sided lower bound of the difference lies
           above -margin
  A family discriminates if the reference itself is shown to be inferior to the base at the large k:
  where nothing is lost, nothing can be said of methods that keep it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax.eval import pass_at_k
from rlvr_jax.eval.algorithms import seeds_difference, seeds_interval
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.intervals import RESAMPLES, Band, mean_interval

Triple = tuple[float, float, float]  # value, low, high


@dataclasses.dataclass(frozen=True)
class Trained:
  """One model of a method: its counts, and the tokens that its training sampled."""

  seed: int
  counts: Counts
  tokens: int


@dataclasses.dataclass(frozen=True)
class Rules:
  """What is asked of a method. k: the large k; margin: share of problems, as 0.02; reference: the
  method to beat at pass@1; level: of two-sided intervals, and of the one-sided bound; tokens: that
  a training is to sample."""

  k: int
  margin: float
  reference: str = 'grpo'
  level: float = 0.95
  resamples: int = RESAMPLES
  seed: int = 0
  tokens: int = 0

  @property
  def options(self) -> dict[str, Any]:
    """Of a two-sided interval."""
    return {'level': self.level, 'resamples': self.resamples, 'seed': self.seed}

  @property
  def one_sided(self) -> dict[str, Any]:
    """Of a two-sided interval whose lower end is the one-sided bound at `level`."""
    return {**self.options, 'level': 2 * self.level - 1}


@dataclasses.dataclass(frozen=True)
class Row:
  """A method in a family; shares of problems, each with its interval.

  area: mean of pass@k over log k from 1 to k; area_gain, area_change: less the reference's (None
  for that itself), less the base's. lost, gained: share of problems that only the base,
  only the method solved in all its draws. short: a training ended before the budget. gain: pass@1
  less the reference's (None for that itself). change: pass@k less the base's; bound: its one-sided
  lower bound.
  """

  method: str
  family: str
  seeds: tuple[int, ...]
  first: Triple
  last: Triple
  area: Triple
  area_gain: Triple | None
  area_change: Triple
  lost: Triple
  gained: Triple
  tokens: float
  short: bool
  gain: Triple | None
  change: Triple
  bound: float
  beats: bool
  keeps: bool


@dataclasses.dataclass(frozen=True)
class Family:
  """A task family: the base's own scores and a row for each method, best area first."""

  name: str
  problems: int
  n: int
  first: Triple
  last: Triple
  area: Triple
  rows: tuple[Row, ...]
  discriminates: bool

  def row(self, method: str) -> Row:
    """The method's row."""
    return next(row for row in self.rows if row.method == method)


def score(
  name: str, base: Counts, methods: Mapping[str, Sequence[Trained]], rules: Rules
) -> Family:
  """A family's rows. ValueError where k is above n, the reference is missing, or seeds differ."""
  _check(name, base, methods, rules)
  ks = pass_at_k.k_grid(rules.k)
  weights = area_weights(ks)
  start = _values(base, ks)
  values = {
    method: np.stack([_values(align(base, one.counts)[1], ks) for one in own])
    for method, own in methods.items()
  }
  reference = values[rules.reference]
  rows = [
    _row(name, method, base, own, values[method], start, reference, weights, rules)
    for method, own in methods.items()
  ]
  change = seeds_difference(reference[:, :, [-1]] - start[None, :, [-1]], **rules.options)
  band, area = (
    mean_interval(start, **rules.options),
    mean_interval(start @ weights, **rules.options),
  )
  return Family(
    name,
    len(base),
    base.smallest_n,
    band.at(0),
    band.at(len(ks) - 1),
    area.at(0),
    tuple(sorted(rows, key=lambda row: -row.area[0])),
    bool(change.high[0] < 0),
  )


def area_weights(ks: np.ndarray) -> np.ndarray:
  """Weights f64[K] of the trapezoid rule over log k, which sum to 1 (one point: itself)."""
  if len(ks) == 1:
    return np.ones(1)
  steps = np.diff(np.log(ks)) / np.log(ks[-1] / ks[0])
  return (np.append(steps, 0) + np.append(0, steps)) / 2


def _values(counts: Counts, ks: np.ndarray) -> np.ndarray:
  return pass_at_k.estimate(counts.n, counts.c, ks)


def _row(
  family: str,
  method: str,
  base: Counts,
  own: Sequence[Trained],
  values: np.ndarray,  # f64[S, P, K]
  start: np.ndarray,  # f64[P, K]
  reference: np.ndarray,  # f64[S, P, K]
  weights: np.ndarray,
  rules: Rules,
) -> Row:
  band: Band = seeds_interval(values, **rules.options)
  areas = (values @ weights)[:, :, None]
  area = seeds_interval(areas, **rules.options)
  area_change = seeds_difference(areas - (start @ weights)[None, :, None], **rules.options).at(0)
  last = values[:, :, [-1]] - start[None, :, [-1]]
  change, bound = (seeds_difference(last, **o) for o in (rules.options, rules.one_sided))
  gain = area_gain = None
  if method != rules.reference:
    others = (reference @ weights)[:, :, None]
    area_gain = seeds_difference(areas - others, **rules.options).at(0)
    gain = seeds_difference(values[:, :, [0]] - reference[:, :, [0]], **rules.options).at(0)
  solved = np.stack([align(base, one.counts)[1].c > 0 for one in own])
  there = base.c > 0
  lost, gained = (
    seeds_interval(part[:, :, None].astype(float), **rules.options).at(0)
    for part in (there & ~solved, ~there & solved)
  )
  return Row(
    method,
    family,
    tuple(one.seed for one in own),
    band.at(0),
    band.at(len(weights) - 1),
    area.at(0),
    area_gain,
    area_change,
    lost,
    gained,
    float(np.mean([one.tokens for one in own])),
    min(one.tokens for one in own) < rules.tokens,
    gain,
    change.at(0),
    float(bound.low[0]),
    gain is not None and gain[1] > 0,
    bool(bound.low[0] > -rules.margin),
  )


def _check(name: str, base: Counts, methods: Mapping[str, Sequence[Trained]], rules: Rules) -> None:
  if rules.reference not in methods:
    raise ValueError(
      f'benchmark.methods has no {rules.reference!r}, against which methods are held; add it'
    )
  seeds = [one.seed for one in methods[rules.reference]]
  for method, own in methods.items():
    if [one.seed for one in own] != seeds:
      raise ValueError(
        f'{name}: {method} has the seeds {[one.seed for one in own]}, {rules.reference} {seeds}; '
        'methods are compared seed by seed'
      )
    smallest = min(one.counts.smallest_n for one in (*own, Trained(0, base, 0)))
    if smallest < rules.k:
      raise ValueError(
        f'benchmark.k={rules.k} is above the {smallest} samples of a problem of {name}; raise '
        'evaluate.n or lower benchmark.k'
      )


def power(family: Family, rules: Rules) -> tuple[float, int]:
  """(the bound of a method that loses no problem, how many lost in every seed cost it `keeps`).

  Of a base that solves all: what so few problems and seeds can show.
  """
  seeds = len(family.rows[0].seeds)

  def bound(lost: int) -> float:
    change = np.zeros((seeds, family.problems, 1))
    change[:, :lost] = -1
    return float(seeds_difference(change, **rules.one_sided).low[0])

  most = range(family.problems + 1)
  return bound(0), next((n for n in most if bound(n) <= -rules.margin), family.problems)


@dataclasses.dataclass(frozen=True)
class Standing:
  """A method over all families that discriminate: where it beats, where it keeps.

  wins: it does both in every one of them.
  """

  method: str
  beats: tuple[str, ...]
  keeps: tuple[str, ...]
  wins: bool


def standings(families: Sequence[Family], rules: Rules) -> list[Standing]:
  """One line a method, winners first, then by mean area; empty where no family discriminates."""
  told = [family for family in families if family.discriminates]
  if not told:
    return []
  found, areas = [], {}
  for method in [row.method for row in told[0].rows]:
    rows = [family.row(method) for family in told]
    beats = tuple(row.family for row in rows if row.beats)
    keeps = tuple(row.family for row in rows if row.keeps)
    wins = method != rules.reference and len(beats) == len(keeps) == len(told)
    found.append(Standing(method, beats, keeps, wins))
    areas[method] = np.mean([row.area[0] for row in rows])
  return sorted(found, key=lambda one: (not one.wins, -areas[one.method]))


def sentence(families: Sequence[Family], rules: Rules) -> str:
  """What the benchmark found, in plain words."""
  told = [family.name for family in families if family.discriminates]
  rest = [family.name for family in families if not family.discriminates]
  silent = ''
  if rest:
    silent = (
      f' {" and ".join(rest)} cannot discriminate: {rules.reference} is not shown to lose anything '
      f'at k = {rules.k:,} there.'
    )
  if not told:
    return f'Nothing can be said of any method.{silent}'
  asked = (
    f'beats {rules.reference} at pass@1 (interval of the difference above 0) and is not inferior '
    f'to the base at pass@{rules.k:,} (one-sided {rules.level:.0%} bound above '
    f'-{100 * rules.margin:g} points) in {"each of " if len(told) > 1 else ""}{" and ".join(told)}'
  )
  winners = [one.method for one in standings(families, rules) if one.wins]
  partly = _partly(families, rules) if len(told) > 1 else ''
  if not winners:
    return f'None of the methods {asked}.{partly}{silent}'
  verb = (
    asked if len(winners) == 1 else asked.replace('beats', 'beat').replace(' is not', ' are not')
  )
  return f'{", ".join(winners)} {verb}.{partly}{silent}'


def _partly(families: Sequence[Family], rules: Rules) -> str:
  """Who does both in some of the families that discriminate, by family."""
  wins = {one.method for one in standings(families, rules) if one.wins}
  found = []
  for family in families:
    names = [
      row.method for row in family.rows if row.beats and row.keeps and row.method not in wins
    ]
    if family.discriminates and names:
      found.append(f' In {family.name} alone: {", ".join(sorted(names))}.')
  return ''.join(found)


def document(
  families: Sequence[Family], rules: Rules, missing: Sequence[str] = ()
) -> dict[str, Any]:
  """results.json of the benchmark; `methods` has a row for each method and family.

  missing: families that are still to be measured.
  """
  rest = f'Not complete: {" and ".join(missing)} is still to be measured. ' if missing else ''
  return {
    'rules': dataclasses.asdict(rules),
    'complete': not missing,
    'missing': list(missing),
    'finding': rest + sentence(families, rules),
    'families': [
      {**dataclasses.asdict(family), 'rows': None} | {'rows': [row.method for row in family.rows]}
      for family in families
    ],
    'methods': [dataclasses.asdict(row) for family in families for row in family.rows],
    'standings': [dataclasses.asdict(one) for one in standings(families, rules)],
  }
