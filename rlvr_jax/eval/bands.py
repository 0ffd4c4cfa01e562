"""Simultaneous bands: with the promised chance the whole curve lies inside, at every k at once.

The interval at one k says nothing of "for every k". Here the widest deviation over all k is held
(max-t; Romano and Wolf 2005, Econometrica 73:1237, bootstrap-t: Hall 1988, Annals of Statistics
16:927). Where the bootstrap does not cover (see intervals), a point keeps Clopper-Pearson or MOVER,
at the level to which the band's width corresponds.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from rlvr_jax.eval import intervals
from rlvr_jax.eval.intervals import RESAMPLES, Band, resample_weights

FLAT = 1e-9  # a standard deviation over problems below this is none


def simultaneous_mean(
  values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Band:
  """Band of the mean over problems of v in [0, 1] that holds at all K points: f64[P, K] -> Band."""
  return _band(intervals.mean_interval, values, level, resamples, seed, (0.0, 1.0))


def simultaneous_difference(
  differences: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Band:
  """Band of the mean paired difference d in [-1, 1] that holds at all K points: f64[P, K]."""
  return _band(intervals.difference_interval, differences, level, resamples, seed, (-1.0, 1.0))


def _band(
  pointwise: Callable[..., Band],
  values: np.ndarray,
  level: float,
  resamples: int,
  seed: int,
  limits: tuple[float, float],
) -> Band:
  values = np.asarray(values, np.float64)
  if values.ndim != 2:
    raise ValueError(f'expected one row a problem and one column a k, got shape {values.shape}')
  own = pointwise(values, level=level, resamples=resamples, seed=seed)
  if values.shape[1] == 1:
    return own
  joint = joint_level(values, level, resamples, seed)
  low, high, method = own.low.copy(), own.high.copy(), [f'{name}, joint' for name in own.method]
  trusted = np.array([name == 'bootstrap' for name in own.method])
  if trusted.any():
    below, above = studentised(values[:, trusted], level, resamples, seed)
    mean, error = own.value[trusted], standard_error(values[:, trusted])
    low[trusted] = np.minimum(mean - above * error, own.low[trusted])
    high[trusted] = np.maximum(mean + below * error, own.high[trusted])
    method = ['max-t' if use else name for use, name in zip(trusted, method, strict=True)]
  if not trusted.all():
    wide = pointwise(values[:, ~trusted], level=joint)  # these rules resample nothing
    low[~trusted] = np.minimum(wide.low, own.low[~trusted])
    high[~trusted] = np.maximum(wide.high, own.high[~trusted])
  return Band(own.value, np.maximum(low, limits[0]), np.minimum(high, limits[1]), tuple(method))


def standard_error(values: np.ndarray) -> np.ndarray:
  """Of the mean over problems, f64[P, K] -> f64[K]."""
  return values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else values[0] * 0


def joint_level(
  values: np.ndarray, level: float, resamples: int = RESAMPLES, seed: int = 0
) -> float:
  """The level of an interval at one point that makes all K hold together at `level`.

  From the largest of K normal variables with the points' correlation over problems, and never more
  than Bonferroni asks for. Points at which all problems have one value err together, and get half
  of what may go wrong.
  """
  spread = values.std(axis=0) > FLAT
  families = 1 + int(not spread.all())
  count = int(spread.sum())
  bonferroni = (1 - level) / max(1, count + families - 1)
  if count < 2 or len(values) < 3:
    return 1 - bonferroni
  correlation = np.corrcoef(values[:, spread], rowvar=False)
  value, vectors = np.linalg.eigh(correlation)
  root = vectors * np.sqrt(np.clip(value, 0, None))
  rng = np.random.default_rng([seed, count])
  drawn = np.abs(rng.standard_normal((resamples, count)) @ root.T).max(axis=1)
  tail = 2 * float(stats.norm.sf(np.quantile(drawn, 1 - (1 - level) / families)))
  return 1 - float(np.clip(tail, bonferroni, 1 - level))


def studentised(
  values: np.ndarray, level: float, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
  """How many standard errors the band reaches above and below the mean: equal-tailed max-t.

  Of every resample of problems t_k = (mean*_k - mean_k) / error*_k. The band is
  [mean - hi error, mean + lo error] with hi the upper percentile of max_k t_k and lo that of
  max_k -t_k, (1 - level) / 2 beyond each. Returns (lo, hi). Resamples in which a point has no
  spread count as infinitely far, so that they can only widen.
  """
  problems = len(values)
  mean = values.mean(axis=0)
  largest, smallest = [], []
  for weight in resample_weights(problems, resamples, seed):
    means = weight @ values
    variance = np.clip(weight @ values**2 - means**2, 0.0, None)
    errors = np.sqrt(variance / max(problems - 1, 1))
    with np.errstate(divide='ignore', invalid='ignore'):
      t = (means - mean) / errors
    t = np.where(errors > FLAT, t, np.where(means > mean, np.inf, -np.inf))
    largest.append(t.max(axis=1))
    smallest.append(-t.min(axis=1))
  tail = 1 - (1 - level) / 2
  hi, lo = (
    float(np.quantile(np.concatenate(ends), tail, method='inverted_cdf'))
    for ends in (largest, smallest)
  )
  normal = float(stats.norm.ppf(tail))
  most = 4 * normal  # a guard: beyond it the trust in the bootstrap was misplaced
  return float(np.clip(lo, normal, most)), float(np.clip(hi, normal, most))
