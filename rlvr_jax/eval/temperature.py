"""Entropy as a function of temperature: the temperature that matches a target, and envelopes.

arXiv 2504.13837, Figures 16 and 17: the RL model's temperature is raised until its generation
entropy is the base's at 0.6. What draws the completions is given as a function (entropy.py makes
one of an engine); nothing here runs a model.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from rlvr_jax.eval import pass_at_k
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.intervals import RESAMPLES, Band, difference_interval, mean_interval


@dataclasses.dataclass(frozen=True)
class Draws:
  """Of N completions: the problem i64[N], the summed entropies of their tokens f64[N] (nats), their
  tokens i64[N]."""

  problem: np.ndarray
  entropy: np.ndarray
  tokens: np.ndarray

  def __len__(self) -> int:
    return len(self.problem)

  def __add__(self, other: 'Draws') -> 'Draws':
    return Draws(
      np.append(self.problem, other.problem),
      np.append(self.entropy, other.entropy),
      np.append(self.tokens, other.tokens),
    )


@dataclasses.dataclass(frozen=True)
class Entropy:
  """Mean entropy of a generated token (nats), over all tokens of all completions.

  error: its standard error with the problems held fixed: that of drawing completions.
  """

  value: float
  error: float
  completions: int
  tokens: int

  def interval(self, level: float = 0.95) -> tuple[float, float]:
    """(low, high)."""
    half = float(stats.norm.ppf((1 + level) / 2)) * self.error
    return self.value - half, self.value + half


def entropy_of(draws: Draws) -> Entropy:
  """The ratio R = sum of entropies / sum of tokens.

  Its variance is that of the residuals e - R * tokens within each problem (linearised ratio,
  completions of a problem independent): sum_p n_p var_p / (sum of tokens)^2. ValueError without two
  completions of every problem.
  """
  problems, where, n = np.unique(draws.problem, return_inverse=True, return_counts=True)
  if not len(problems) or n.min() < 2:
    raise ValueError(
      f'{len(draws)} completions of {len(problems)} problems: an error bar needs at least two of '
      'each problem'
    )
  tokens = float(draws.tokens.sum())
  ratio = float(draws.entropy.sum()) / tokens
  rest = draws.entropy - ratio * draws.tokens
  mean = np.bincount(where, rest) / n
  squares = np.bincount(where, (rest - mean[where]) ** 2)
  variance = float((n * squares / (n - 1)).sum()) / tokens**2
  return Entropy(ratio, float(np.sqrt(variance)), len(draws), int(tokens))


# (temperature, completions of each problem, index of the first) -> their Draws
Measure = Callable[[float, int, int], Draws]
Reason = Literal['matched', 'budget', 'not bracketed']


@dataclasses.dataclass(frozen=True)
class Match:
  """The temperature at which a model's entropy equals a target.

  temperature: where the line between the two measured points around the target meets it. low, high:
  temperatures whose entropies are below and above the target beyond their errors; the target's lies
  between them if entropy rises with temperature. reason: why the search ended. matched: high - low
  is within the tolerance; budget: completions were spent before that, so the answer is only as
  good as low and high; not bracketed: the target is not between the ends of the range (temperature
  None).
  """

  temperature: float | None
  low: float
  high: float
  reason: Reason
  target: Entropy
  points: tuple[tuple[float, Entropy], ...]

  @property
  def completions(self) -> int:
    """Drawn in all."""
    return sum(point.completions for _, point in self.points)


class _Search:
  """The points measured so far; a point grows when it is measured again."""

  def __init__(self, measure: Measure, problems: int, target: Entropy, level: float):
    self._measure, self._problems, self._target = measure, problems, target
    self._z = float(stats.norm.ppf((1 + level) / 2))
    self._draws: dict[float, Draws] = {}

  @property
  def spent(self) -> int:
    return sum(len(draws) for draws in self._draws.values())

  @property
  def points(self) -> list[tuple[float, Entropy]]:
    return [(t, entropy_of(self._draws[t])) for t in sorted(self._draws)]

  def side(self, t: float, samples: int) -> int:
    """-1, 1: the entropy at t is below, above the target beyond errors; 0: that is not told.

    The first time with so many completions of each problem, then with twice what is there.
    """
    if t in self._draws:
      have = len(self._draws[t]) // self._problems
      self._draws[t] = self._draws[t] + self._measure(t, have, have)
    else:
      self._draws[t] = self._measure(t, samples, 0)
    return self.known(t)

  def known(self, t: float) -> int:
    """The same of what is there."""
    found = entropy_of(self._draws[t])
    away = found.value - self._target.value
    return int(np.sign(away)) * (abs(away) > self._z * np.hypot(found.error, self._target.error))


def match_temperature(
  measure: Measure,
  target: Entropy,
  *,
  problems: int,
  low: float = 0.2,
  high: float = 1.6,
  tolerance: float = 0.02,
  samples: int = 4,
  budget: int = 0,
  level: float = 0.99,
) -> Match:
  """Bisection on sampled entropy, by what the errors let one say.

  Between a temperature whose entropy is below the target beyond its error and one above, the middle
  is measured; where the middle cannot be told from the target it is measured on, with doubled
  completions, and then points half a tolerance to either side of the crossing. It ends when the two
  are within `tolerance`, or `budget` completions (0: 64 times problems * samples) are spent. The
  target's own error limits what can be told: a narrow tolerance needs a well measured target.

  Args:
    measure: gives `problems` * count completions at a temperature (of each problem as many).
    target: as measured of the other model, entropy_of at 0.6 for the base.
    low, high: temperatures between which it is looked for.
    samples: completions of each problem at a new temperature, at least 2.
    level: of each decision that a temperature is too low or too high; a search makes a dozen.
  """
  if not 0 < low < high or tolerance <= 0 or samples < 2:
    raise ValueError(
      f'low={low}, high={high}, tolerance={tolerance}, samples={samples}: temperatures ascend from '
      'above 0, tolerance is positive, and an error bar needs 2 samples of each problem'
    )
  budget = budget or 64 * problems * samples
  search = _Search(measure, problems, target, level)

  def ended(reason: Reason, low: float, high: float) -> Match:
    at = None if reason == 'not bracketed' else _crossing(search.points, target.value, low, high)
    return Match(at, low, high, reason, target, tuple(search.points))

  for end, wanted in ((low, -1), (high, 1)):
    side = search.side(end, samples)
    while side == 0 and search.spent < budget:
      side = search.side(end, samples)
    if side != wanted:
      return ended('not bracketed', low, high)
  while high - low > tolerance:
    t = _next(search.points, target.value, low, high, tolerance)
    side = search.side(t, samples)
    if side < 0:
      low = t
    elif side > 0:
      high = t
    if search.spent >= budget and high - low > tolerance:
      return ended('budget', low, high)
  return ended('matched', low, high)


def _next(
  points: Sequence[tuple[float, Entropy]], target: float, low: float, high: float, tolerance: float
) -> float:
  """The temperature to measure (again): the middle, or near the crossing if that is undecided."""
  middle = (low + high) / 2
  inner = [(t, e) for t, e in points if low < t < high]
  if not inner:
    return middle
  at = _crossing(points, target, low, high)
  # what is undecided is close to the target: half a tolerance aside the sides can be told
  wanted = [t for t in (at - 0.45 * tolerance, at + 0.45 * tolerance) if low < t < high]
  best = {t: min((abs(t - p), p) for p, _ in inner) for t in wanted}
  for t in sorted(wanted, key=lambda t: -best[t][0]):
    if best[t][0] > 0.2 * tolerance:
      return t
  near = [best[t][1] for t in wanted] or [t for t, _ in inner]
  counts = {t: e.completions for t, e in inner}
  return min(near, key=lambda t: counts[t])


def _crossing(
  points: Sequence[tuple[float, Entropy]], target: float, low: float, high: float
) -> float:
  """Where the weighted line through the points of [low, high] meets the target, kept inside."""
  inner = [(t, e) for t, e in points if low <= t <= high]
  t = np.array([t for t, _ in inner])
  values = np.array([e.value for _, e in inner])
  if len(inner) <= 3:  # piecewise between the two that enclose it
    order = np.argsort(values, kind='stable')
    return float(np.clip(np.interp(target, values[order], t[order]), low, high))
  weights = 1 / np.maximum([e.error for _, e in inner], 1e-9) ** 2
  middle = np.average(t, weights=weights)
  rise = np.sum(weights * (t - middle) * values) / np.sum(weights * (t - middle) ** 2)
  if rise <= 0:
    return (low + high) / 2
  start = np.average(values, weights=weights)
  return float(np.clip(middle + (target - start) / rise, low, high))


@dataclasses.dataclass(frozen=True)
class Envelope:
  """pass@k at the temperature that is best for it, chosen on other problems than it is given on.

  chosen f64[K]: the temperature of each k; band: over the reporting problems; values f64[P,K]: of
  each of them, for paired differences.
  """

  ks: np.ndarray
  chosen: np.ndarray
  band: Band
  values: np.ndarray
  problem_ids: tuple[str, ...]
  chosen_on: tuple[str, ...]


def split_half(problem_ids: Sequence[str], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """(to choose on, to report on): a function of the set of ids and the seed."""
  ids = sorted(problem_ids)
  if len(ids) < 2:
    raise ValueError(f'{len(ids)} problems cannot be split in halves')
  order = np.random.default_rng([seed, len(ids)]).permutation(len(ids))
  half = len(ids) // 2
  return tuple(ids[i] for i in order[:half]), tuple(ids[i] for i in order[half:])


def envelope(
  by_temperature: Mapping[float, Counts],
  ks: Sequence[int] | np.ndarray,
  *,
  seed: int = 0,
  level: float = 0.95,
) -> Envelope:
  """The Envelope of one model sampled at several temperatures on the same problems.

  Of each k the temperature with the largest mean pass@k on one half of the problems (of equal ones
  the lowest); pass@k there on the other half, which the choice has not seen.
  """
  if not by_temperature:
    raise ValueError('an envelope needs the counts of at least one temperature')
  temperatures = sorted(by_temperature)
  first = by_temperature[temperatures[0]]
  aligned = [align(first, by_temperature[t])[1] for t in temperatures]
  chosen_on, reported = split_half(first.problem_ids, seed)
  ks = np.asarray(ks, np.int64)

  def curves(ids: Sequence[str]) -> np.ndarray:
    picked = [counts.select(ids) for counts in aligned]
    return np.stack([pass_at_k.estimate(c.n, c.c, ks) for c in picked])  # [temperature,P,K]

  best = curves(chosen_on).mean(axis=1).argmax(axis=0)
  values = curves(reported)[best, :, np.arange(len(ks))].T
  band = mean_interval(values, level=level, seed=seed)
  return Envelope(ks, np.array(temperatures)[best], band, values, reported, chosen_on)


def envelope_difference(
  a: Envelope, b: Envelope, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Band:
  """b minus a, each at its own temperatures, paired on the reporting problems."""
  if a.problem_ids != b.problem_ids or not np.array_equal(a.ks, b.ks):
    raise ValueError(
      'two envelopes are compared on one split and one grid of k: give both the same problems, '
      'seed and ks'
    )
  return difference_interval(b.values - a.values, level=level, resamples=resamples, seed=seed)
