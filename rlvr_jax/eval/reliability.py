"""How reliably problems are solved: G-pass@k_tau, mG-pass@k, pass^k, Cover@tau, maj@k.

pass@k asks for one success among k tries; these ask for many. All are per problem, to be averaged
over problems with intervals.mean_interval.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from rlvr_jax.eval import extrapolate, pass_at_k
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.intervals import Band, mean_interval

TAUS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
ROUNDING = 1e-9  # tau k and tau n are whole numbers where they are this close to one


def needed(k: int, tau: float) -> int:
  """Successes among k that a share tau asks for: ceil(tau k), at least 1, free of rounding."""
  if not 0 <= tau <= 1:
    raise ValueError(f'tau={tau} is a share: it must lie in [0, 1]')
  return max(1, math.ceil(tau * k - ROUNDING * max(1, k)))


def tails(n: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
  """Chance that i or more of k of a problem's n samples, c of them correct, are: f64[P, k + 1].

  Column i. The unbiased estimate of P(Binomial(k, p) >= i): a hypergeometric tail.
  """
  n, c = np.asarray(n, np.int64), np.asarray(c, np.int64)
  pass_at_k.check_ks([k], int(n.min()))
  pairs, where = np.unique(np.stack([n, c]), axis=1, return_inverse=True)
  total, right = pairs[:, :, None]
  chance = stats.hypergeom.pmf(np.arange(k + 1), total, right, k)
  return np.clip(np.cumsum(chance[:, ::-1], axis=1)[:, ::-1], 0.0, 1.0)[where.ravel()]


def g_pass_at_k(n: np.ndarray, c: np.ndarray, k: int, tau: float) -> np.ndarray:
  """G-pass@k_tau per problem: at least ceil(tau k) of k correct (Liu et al. 2024, 2412.13147).

  tau -> 0 gives pass@k, tau = 1 gives pass^k.
  """
  return tails(n, c, k)[:, needed(k, tau)]


def mg_pass_at_k(n: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
  """mG-pass@k per problem: 2 times the integral of G-pass@k_tau over tau from 1/2 to 1.

  For even k it is the sum 2/k sum_{i > k/2} G-pass@k_{i/k} of arXiv 2412.13147; for odd k the
  middle term has half its weight, as the integral has it.
  """
  i = np.arange(k // 2 + 1, k + 1)
  weight = np.where(2 * i - 1 == k, 0.5, 1.0)
  return tails(n, c, k)[:, i] @ weight * 2 / k


def pass_power_k(n: np.ndarray, c: np.ndarray, ks: Sequence[int] | np.ndarray) -> np.ndarray:
  """pass^k per problem, C(c, k) / C(n, k): all of k tries are correct. f64[P, K]."""
  n, c = np.asarray(n, np.int64), np.asarray(c, np.int64)
  return 1.0 - pass_at_k.estimate(n, n - c, ks)


def covers(counts: Counts, taus: Sequence[float] = TAUS) -> np.ndarray:
  """Whether a problem's raw rate c / n is at least tau, as f64[P, K]."""
  shares = np.asarray([_share(tau) for tau in taus])
  return (counts.c[:, None] >= shares * counts.n[:, None] * (1 - ROUNDING)).astype(np.float64)


def cover_at(
  counts: Counts, taus: Sequence[float] = TAUS, *, level: float = 0.95, **options: Any
) -> Band:
  """Cover@tau: share of problems with a solve rate of at least tau, a Band over taus.

  The rate is the raw c / n (Dragoi et al. 2025, arXiv 2510.08325), so a problem near tau is
  counted by chance; cover_posterior takes that out. options: resamples, seed.
  """
  return mean_interval(covers(counts, taus), level=level, **options)


def cover_chances(
  counts: Counts, found: extrapolate.Fit, taus: Sequence[float] = TAUS[:-1]
) -> np.ndarray:
  """P(solve rate >= tau | c of n correct) of each problem by a fit: f64[P, K]."""
  shares = np.asarray([_share(tau) for tau in taus])
  a, b = (found.a + counts.c)[:, None], (found.b + counts.n - counts.c)[:, None]
  solvable = 1 - extrapolate.unsolvable(found, counts.n, counts.c)
  return solvable[:, None] * stats.beta.sf(shares, a, b)


def cover_posterior(
  counts: Counts, taus: Sequence[float] = TAUS[:-1], *, level: float = 0.95, **options: Any
) -> Band:
  """Cover@tau with the noise of n samples taken out: mean over problems of P(p >= tau | c).

  By the zero-inflated beta-binomial of extrapolate, which gives tau = 1 no chance. options as in
  cover_at.
  """
  found = extrapolate.fit(counts.n, counts.c)
  return mean_interval(cover_chances(counts, found, taus), level=level, **options)


def _share(tau: float) -> float:
  if not 0 < tau <= 1:
    raise ValueError(f'tau={tau} must lie above 0 and be at most 1')
  return float(tau)


def majority(
  answers: Sequence[Sequence[str]],
  correct: Sequence[Sequence[bool]],
  ks: Sequence[int],
  *,
  draws: int = 4096,
  seed: int = 0,
) -> np.ndarray:
  """maj@k of every problem from its samples' extracted answers: f64[P, K] (pass_at_k.maj_at_k)."""
  values = [
    [pass_at_k.maj_at_k(given, right, int(k), draws=draws, seed=seed) for k in ks]
    for given, right in zip(answers, correct, strict=True)
  ]
  return np.array(values, np.float64).reshape(len(values), len(ks))
