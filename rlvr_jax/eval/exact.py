"""Sampled numbers against exactly known solve probabilities: the instrument's calibration."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from rlvr_jax.eval import coverage, pass_at_k


def sampling_sd(n: np.ndarray, p: np.ndarray, ks: Sequence[int] | np.ndarray) -> np.ndarray:
  """Standard deviation of the mean unbiased pass@k over P fixed problems: f64[K].

  c_i ~ Binomial(n_i, p_i) independently; the variance of each estimate is summed exactly over c.
  """
  n, p = np.asarray(n, np.int64), np.asarray(p, np.float64)
  ks = pass_at_k.check_ks(ks, int(n.min()))
  variance = np.zeros(len(ks))
  for total in np.unique(n):
    c = np.arange(total + 1)
    values = 1.0 - pass_at_k.failure_table(int(total), c)[:, ks - 1]
    chance = stats.binom.pmf(c, total, p[n == total][:, None])
    mean = chance @ values
    # sum over c of chance * (value - mean)^2, expanded; small negative remainders are rounding
    variance += np.clip(chance @ values**2 - mean**2, 0.0, None).sum(axis=0)
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
