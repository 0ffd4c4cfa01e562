"""Sampled numbers against exactly known solve probabilities: the instrument's calibration."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from rlvr_jax.eval import coverage, pass_at_k

CHANCE_LEFT_OUT = 1e-30  # overlaps rarer than this add nothing to a variance in float64


def sampling_variance(n: int, p: np.ndarray, k: int) -> np.ndarray:
  """Variance of one problem's unbiased pass@k over n draws of solve rate p: f64[P] -> f64[P].

  The estimate is a U-statistic (Hoeffding 1948): two k-subsets of the draws share J of them, J
  hypergeometric, so its variance is sum_j P(J = j) ((1-p)^(2k-j) - (1-p)^2k). All terms are
  positive, and only those j matter that have a chance.
  """
  j = np.arange(max(0, 2 * k - n), k + 1)
  chance = stats.hypergeom.pmf(j, n, k, k)
  j, chance = j[chance > CHANCE_LEFT_OUT], chance[chance > CHANCE_LEFT_OUT]
  p = np.asarray(p, np.float64)
  with np.errstate(divide='ignore'):
    log_q = np.maximum(np.log1p(-p), -1e300)[:, None]  # p = 1: every power of 1 - p is 0
  variance = np.empty(len(p))
  rows = max(1, pass_at_k.BLOCK // len(j))
  for start in range(0, len(p), rows):
    lq = log_q[start : start + rows]
    terms = np.exp((2 * k - j) * lq) * -np.expm1(j * lq)
    variance[start : start + rows] = terms @ chance
  return variance


def sampling_sd(n: np.ndarray, p: np.ndarray, ks: Sequence[int] | np.ndarray) -> np.ndarray:
  """Standard deviation of the mean unbiased pass@k over P fixed problems: f64[K].

  c_i ~ Binomial(n_i, p_i) independently; see sampling_variance.
  """
  n, p = np.asarray(n, np.int64), np.asarray(p, np.float64)
  ks = pass_at_k.check_ks(ks, int(n.min()))
  variance = [
    sum(sampling_variance(int(total), p[n == total], int(k)).sum() for total in np.unique(n))
    for k in ks
  ]
  return np.sqrt(variance) / len(n)


def posterior_rates(n: np.ndarray, c: np.ndarray) -> np.ndarray:
  """Jeffreys posterior mean (c + 1/2) / (n + 1), f64[P]: a stand-in for p where it is unknown."""
  return (np.asarray(c) + 0.5) / (np.asarray(n) + 1.0)


@dataclasses.dataclass(frozen=True)
class ExactRow:
  """Mean pass@k at one k, sampled and exact; SD of sampling, and their distance in SDs (z)."""

  k: int
  sampled: float
  exact: float
  sd: float
  z: float


def sampled_vs_exact(
  n: np.ndarray, c: np.ndarray, p: np.ndarray, ks: Sequence[int] | np.ndarray
) -> list[ExactRow]:
  """Compares sampled pass@k with the exact curve of the same problems at each k.

  The spread is that of drawing samples, problems held fixed. Where it is zero (all p 0 or 1) z is 0
  if the values agree to 1e-9, else infinite.
  """
  sampled = pass_at_k.estimate(n, c, ks).mean(axis=0)
  truth = pass_at_k.exact(p, ks).mean(axis=0)
  sds = sampling_sd(n, p, ks)
  rows = []
  for k, value, true, sd in zip(np.atleast_1d(ks), sampled, truth, sds, strict=True):
    gap = value - true
    if abs(gap) <= 1e-9:
      z = 0.0
    else:
      z = gap / sd if sd > 0 else float(np.copysign(np.inf, gap))
    rows.append(ExactRow(int(k), float(value), float(true), float(sd), float(z)))
  return rows


def exact_coverage(
  problem_ids: Sequence[str], p_base: np.ndarray, p_rl: np.ndarray, tries: Sequence[float]
) -> list[coverage.CoverageSets]:
  """Coverage by exact solve probability: a model has a problem at `tries` if p >= 1 / tries.

  base_only are the problems truly lost for that many tries; `threshold` of each set holds the
  tries. The McNemar p is not a test here (nothing is sampled but the problems).
  """
  p_base, p_rl = np.asarray(p_base, float), np.asarray(p_rl, float)
  return [
    coverage.split(problem_ids, p_base >= 1 / count, p_rl >= 1 / count, int(count))
    for count in tries
  ]
