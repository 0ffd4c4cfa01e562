"""From which k on a trained model is no longer above its base."""

import dataclasses

import numpy as np

from rlvr_jax.eval.intervals import RESAMPLES, resample_weights

EVERY_K = 4096  # up to here every k is looked at
ROUNDING = 1e-12  # a mean difference of float64 pass@k below this is zero


@dataclasses.dataclass(frozen=True)
class Crossover:
  """Crossover k with its paired-bootstrap interval, all in [1, n].

  value is None when there is no crossing by n. low and high are percentiles over resampled
  problems; a resample without crossing counts as beyond n, and an end beyond n is given as n with
  its flag set. share_no_crossing is the share of such resamples, median is None if beyond n.
  """

  value: float | None
  low: float
  high: float
  low_beyond: bool
  high_beyond: bool
  median: float | None
  share_no_crossing: float
  n: int


def grid(n: int) -> np.ndarray:
  """The ks at which curves are looked at for a crossing: all up to EVERY_K, then 0.1% apart."""
  every = np.arange(1, min(n, EVERY_K) + 1)
  if n <= EVERY_K:
    return every
  more = EVERY_K * np.exp(np.arange(1, int(1000 * np.log(n / EVERY_K)) + 1) / 1000)
  return np.unique(np.concatenate([every, np.round(more).astype(np.int64), [n]]))


def crossing_points(means: np.ndarray, ks: np.ndarray | None = None) -> np.ndarray:
  """First k from which every later mean difference is <= 0, per row: f64[R, K] -> f64[R].

  ks: i64[K] ascending from 1 (default 1..K). Between the last positive k and the next one the zero
  is interpolated linearly in log k; 1 where no difference is positive, inf where the last one is.
  """
  means = np.atleast_2d(means)
  rows, n = means.shape
  positive = means > ROUNDING
  last = n - 1 - np.argmax(positive[:, ::-1], axis=1)
  ks = np.arange(1, n + 1) if ks is None else np.asarray(ks)
  after = np.minimum(last + 1, n - 1)
  above = means[np.arange(rows), last]
  below = np.minimum(means[np.arange(rows), after], 0.0)
  share = above / np.maximum(above - below, ROUNDING)
  points = np.exp(np.log(ks[last]) + share * np.log(ks[after] / ks[last]))
  points = np.where(last == n - 1, np.inf, points)
  return np.where(positive.any(axis=1), points, 1.0)


def crossover(
  differences: np.ndarray,
  *,
  ks: np.ndarray | None = None,
  level: float = 0.95,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> Crossover:
  """Crossover of f64[P, K] per-problem differences pass@k(RL) - pass@k(base) at ks (1..K)."""
  differences = np.asarray(differences, np.float64)
  problems = len(differences)
  ks = np.arange(1, differences.shape[1] + 1) if ks is None else np.asarray(ks)
  n = int(ks[-1])
  value = crossing_points(differences.mean(axis=0), ks)[0]
  points = np.concatenate(
    [
      crossing_points(weight @ differences, ks)
      for weight in resample_weights(problems, resamples, seed)
    ]
  )
  tail = (1 - level) / 2
  # an order statistic, not an average of two, since points may be infinite
  low, median, high = np.quantile(points, [tail, 0.5, 1 - tail], method='inverted_cdf')
  return Crossover(
    value=float(value) if np.isfinite(value) else None,
    low=float(min(low, n)),
    high=float(min(high, n)),
    low_beyond=bool(np.isinf(low)),
    high_beyond=bool(np.isinf(high)),
    median=float(median) if np.isfinite(median) else None,
    share_no_crossing=float(np.isinf(points).mean()),
    n=n,
  )
