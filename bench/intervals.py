"""make bench BENCH=intervals: how often intervals and bands hold the truth, by simulation.

Problems are drawn from a population of solve rates, n samples from each problem, and the interval
of the mean over problems is asked whether it holds the population's mean, which is known exactly.
BENCH_PARTS chooses parts by name (a list with commas; all if unset):

  mean        mean pass@k, P in {30, 100, 500}, k in {1, 128, 1024}, true values up to 0.999
  difference  paired differences on the same grid, no effect near 1 among them
  bands       simultaneous bands of a curve and of a difference over k
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from bench._measure import at_least, run_parts
from rlvr_jax.eval import bands, intervals, pass_at_k

Gates = list[dict[str, Any]]
PROBLEMS, KS, N = (30, 100, 500), (1, 128, 1024), 4096
TRUTHS = (0.02, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)
SHAPES = (0.3, 2.0)  # a of Beta(a, b): many hopeless problems, or none
PAIRS = (  # true pass@k of base and trained model, and whether problems are ordered alike
  (0.5, 0.5, False),
  (0.2, 0.4, True),
  (0.05, 0.2, False),
  (0.95, 0.9, True),
  (0.97, 0.999, True),
  (0.95, 0.95, False),
  (0.99, 0.99, True),
  (0.999, 0.999, True),
  (0.999, 0.99, False),
)
FLOOR = 0.93


def scale(a: float, k: int, truth: float) -> float:
  """b such that the mean of 1 - (1 - p)^k over p ~ Beta(a, b) is `truth`."""

  def excess(log_b: float) -> float:
    b = np.exp(log_b)
    return float(special.betaln(a, b + k) - special.betaln(a, b) - np.log1p(-truth))

  found: Any = optimize.brentq(excess, -30.0, 30.0)
  return float(np.exp(found))


def estimates(p: np.ndarray, n: int, k: int, rng: np.random.Generator) -> np.ndarray:
  """Unbiased pass@k from n samples of every solve rate, in p's shape."""
  table = pass_at_k.estimate(np.full(n + 1, n), np.arange(n + 1), [k])[:, 0]
  return table[rng.binomial(n, p)]


def cover_mean(
  problems: int, k: int, truth: float, a: float, *, runs: int, n: int = N, seed: int = 0
) -> float:
  """Share of `runs` data sets whose interval of mean pass@k holds the truth."""
  rng = np.random.default_rng([seed, problems, k, int(1e4 * truth), int(10 * a)])
  p = rng.beta(a, scale(a, k, truth), (problems, runs))
  band = intervals.mean_interval(estimates(p, n, k, rng), resamples=1000)
  assert (band.high > band.low).all()
  return float(np.mean((band.low <= truth) & (truth <= band.high)))


def cover_difference(
  problems: int,
  k: int,
  pair: tuple[float, float, bool],
  *,
  a: float = 0.3,
  runs: int,
  n: int = N,
  seed: int = 0,
) -> float:
  """Share of data sets whose interval of the paired difference holds the truth."""
  first, second, alike = pair
  rng = np.random.default_rng([seed, problems, k, int(1e4 * first), int(1e4 * second)])
  u = rng.uniform(size=(problems, runs))
  v = u if alike else rng.uniform(size=u.shape)
  x = estimates(stats.beta.ppf(u, a, scale(a, k, first)), n, k, rng)
  y = estimates(stats.beta.ppf(v, a, scale(a, k, second)), n, k, rng)
  band = intervals.difference_interval(y - x, resamples=1000)
  assert (band.high > band.low).all()
  truth = second - first
  return float(np.mean((band.low <= truth) & (truth <= band.high)))


def cover_band(
  problems: int,
  base: tuple[float, float],
  trained: tuple[float, float] | None,
  *,
  runs: int,
  n: int = 256,
  resamples: int = 500,
  seed: int = 0,
) -> float:
  """Share of data sets whose band holds the true curve at every k of the grid up to n.

  base, trained: Beta(a, b) of the solve rates, ordered alike; trained None: the band of the base's
  own curve instead of the difference.
  """
  rng = np.random.default_rng([seed, problems])
  ks = pass_at_k.k_grid(n, 24)

  def curve(shape: tuple[float, float]) -> np.ndarray:
    a, b = shape
    return -np.expm1(special.betaln(a, b + ks) - special.betaln(a, b))

  truth = curve(base) if trained is None else curve(trained) - curve(base)
  table = pass_at_k.estimate(np.full(n + 1, n), np.arange(n + 1), ks)
  held = 0
  for _ in range(runs):
    u = rng.uniform(size=problems)
    values = table[rng.binomial(n, stats.beta.ppf(u, *base))]
    if trained is None:
      band = bands.simultaneous_mean(values, resamples=resamples)
    else:
      values = table[rng.binomial(n, stats.beta.ppf(u, *trained))] - values
      band = bands.simultaneous_difference(values, resamples=resamples)
    held += bool(((band.low <= truth) & (truth <= band.high)).all())
  return held / runs


BANDS: Sequence[tuple[str, tuple[float, float], tuple[float, float] | None]] = (
  ('a curve through the middle', (0.3, 2.0), None),
  ('a curve that saturates', (1.0, 1.0), None),
  ('a difference that changes sign', (0.3, 2.0), (0.15, 0.5)),
  ('no difference', (0.5, 1.0), (0.5, 1.0)),
  ('no difference, all near one', (2.0, 0.5), (2.0, 0.5)),
)


def _gate(name: str, value: float, how: str) -> dict[str, Any]:
  return at_least(name, value, FLOOR, 'share', how)


def mean(runs: int = 4000) -> Gates:
  """Every cell of the grid of means."""
  return [
    _gate(
      f'mean P={problems} k={k} truth={truth:g} a={a:g}',
      cover_mean(problems, k, truth, a, runs=runs),
      f'{runs} data sets, n = {N}, solve rates Beta(a, b)',
    )
    for problems, k, a, truth in itertools.product(PROBLEMS, KS, SHAPES, TRUTHS)
  ]


def difference(runs: int = 4000) -> Gates:
  """Every cell of the grid of paired differences."""
  return [
    _gate(
      f'difference P={problems} k={k} {pair[0]:g} -> {pair[1]:g}' + (' alike' if pair[2] else ''),
      cover_difference(problems, k, pair, runs=runs),
      f'{runs} data sets, n = {N}, solve rates Beta(0.3, b) of both models',
    )
    for problems, k, pair in itertools.product(PROBLEMS, KS, PAIRS)
  ]


def all_bands(runs: int = 400) -> Gates:
  """Simultaneous bands."""
  return [
    _gate(
      f'band P={problems}, {name}',
      cover_band(problems, base, trained, runs=runs),
      f'{runs} data sets, n = 256, about 24 values of k',
    )
    for problems, (name, base, trained) in itertools.product((30, 100, 500), BANDS)
  ]


def main() -> Gates:
  return run_parts({'mean': mean, 'difference': difference, 'bands': all_bands})
