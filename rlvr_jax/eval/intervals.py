"""Confidence intervals that hold where reasoning boundaries live: close to 0 and close to 1.

Problems are the sampling unit. Near saturation the percentile bootstrap covers far too rarely, so
it is used only where enough of the mass lies on both sides; elsewhere a mean uses Clopper-Pearson
with fractional successes, and a paired difference combines two of those by MOVER (Zou and Donner
2008, Statistics in Medicine 27:1693).
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy import stats

MASS = 15.0  # what either side must hold before the bootstrap is trusted
RESAMPLES = 4000


@dataclasses.dataclass(frozen=True)
class Band:
  """Estimates and interval ends, f64[K] each; method names the rule used at each point."""

  value: np.ndarray
  low: np.ndarray
  high: np.ndarray
  method: tuple[str, ...]

  def at(self, index: int) -> tuple[float, float, float]:
    """(value, low, high) at one point."""
    return float(self.value[index]), float(self.low[index]), float(self.high[index])


def clopper_pearson(successes, trials, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
  """Low and high ends for a proportion; successes may be fractional, both may be arrays."""
  s, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
  if (s < 0).any() or (s > n).any() or (n <= 0).any():
    raise ValueError(
      'successes must lie between 0 and the number of trials, which must be positive'
    )
  tail = (1 - level) / 2
  low = np.where(s > 0, stats.beta.ppf(tail, np.maximum(s, 1e-300), n - s + 1), 0.0)
  high = np.where(s < n, stats.beta.ppf(1 - tail, s + 1, np.maximum(n - s, 1e-300)), 1.0)
  return low, high


def resample_weights(
  problems: int, resamples: int = RESAMPLES, seed: int = 0, chunk: int = 500
) -> Iterator[np.ndarray]:
  """Bootstrap weights over problems, f64[<=chunk, problems] at a time; each row sums to 1."""
  rng = np.random.default_rng([seed, problems])
  shares = np.full(problems, 1 / problems)
  for start in range(0, resamples, chunk):
    yield rng.multinomial(problems, shares, size=min(chunk, resamples - start)) / problems


def bootstrap_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
  """Means of f64[P, K] over resampled problems: f64[resamples, K]."""
  weights = resample_weights(len(values), resamples, seed)
  return np.concatenate([weight @ values for weight in weights])


def _percentiles(values, level, resamples, seed):
  tail = (1 - level) / 2
  ends = np.quantile(bootstrap_means(values, resamples, seed), [tail, 1 - tail], axis=0)
  return ends[0], ends[1]


def _two_dimensional(values, low: float):
  values = np.asarray(values, np.float64)
  values = values[:, None] if values.ndim == 1 else values
  if values.ndim != 2 or not len(values):
    raise ValueError(f'expected one row a problem, got shape {values.shape}')
  slack = 1e-9
  if not np.isfinite(values).all() or values.min() < low - slack or values.max() > 1 + slack:
    raise ValueError(f'per-problem values must be finite and lie in [{low:g}, 1]')
  return np.clip(values, low, 1.0)


def mean_interval(
  values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Band:
  """Interval of the mean over problems of v in [0, 1]: f64[P] or f64[P, K] -> Band of K points.

  Percentile bootstrap over problems where sum v and sum (1 - v) both reach 15 and the resamples
  differ, else Clopper-Pearson with s = sum v. Never of zero width.
  """
  values = _two_dimensional(values, 0.0)
  problems = len(values)
  value = values.mean(axis=0)
  mass = values.sum(axis=0)
  low, high = clopper_pearson(np.clip(mass, 0, problems), problems, level)
  spread = values.max(axis=0) > values.min(axis=0)
  use = (mass >= MASS) & (problems - mass >= MASS) & spread
  if use.any():
    low[use], high[use] = _percentiles(values[:, use], level, resamples, seed)
  method = tuple('bootstrap' if flag else 'clopper-pearson' for flag in use)
  return Band(value, low, high, method)


def difference_interval(
  differences: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Band:
  """Interval of the mean of paired differences d in [-1, 1]: f64[P] or f64[P, K] -> Band.

  Percentile bootstrap over problems where sum max(d, 0) and sum max(-d, 0) both reach 15, else
  MOVER: with m, l, u the mean and Clopper-Pearson ends of the gains (+) and losses (-),
  low = m+ - m- - sqrt((m+ - l+)^2 + (u- - m-)^2), high likewise. Never of zero width.
  """
  differences = _two_dimensional(differences, -1.0)
  problems = len(differences)
  gain = np.maximum(differences, 0).sum(axis=0)
  loss = np.maximum(-differences, 0).sum(axis=0)
  up, down = gain / problems, loss / problems
  up_low, up_high = clopper_pearson(np.minimum(gain, problems), problems, level)
  down_low, down_high = clopper_pearson(np.minimum(loss, problems), problems, level)
  low = np.maximum(up - down - np.hypot(up - up_low, down_high - down), -1.0)
  high = np.minimum(up - down + np.hypot(up_high - up, down - down_low), 1.0)
  use = (gain >= MASS) & (loss >= MASS)
  if use.any():
    low[use], high[use] = _percentiles(differences[:, use], level, resamples, seed)
  method = tuple('bootstrap' if flag else 'mover' for flag in use)
  return Band(differences.mean(axis=0), low, high, method)


def beta_interval(n, c, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
  """Jeffreys interval of a problem's solve rate, Beta(c + 1/2, n - c + 1/2), arrays allowed.

  As usual for it, the low end is 0 at c = 0 and the high end 1 at c = n.
  """
  n, c = np.broadcast_arrays(np.asarray(n, float), np.asarray(c, float))
  tail = (1 - level) / 2
  low = np.where(c > 0, stats.beta.ppf(tail, c + 0.5, n - c + 0.5), 0.0)
  high = np.where(c < n, stats.beta.ppf(1 - tail, c + 0.5, n - c + 0.5), 1.0)
  return low, high


def zero_upper_bound(n, level: float = 0.95):
  """The solve rate at which zero of n has probability 1 - level: 1 - (1 - level)^(1/n)."""
  return -np.expm1(np.log1p(-level) / np.asarray(n, float))
