"""pass@k beyond n, from a model of the solve rates; always an extrapolation, and named so.

A share `zero` of problems cannot be solved at all, the rates of the others follow Beta(a, b)
(zero-inflated beta-binomial, maximum likelihood over problems). Without the spike at zero every
problem would be called solvable with enough tries. What the samples cannot tell apart, a spike from
a Beta with much mass near zero, is what decides the curve far beyond n: the interval holds the
error of the fit over problems, not that of the form.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats

from rlvr_jax.eval import crossover, pass_at_k
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.intervals import mean_interval

REFITS = 200  # bootstrap fits of an interval
REACH = 64  # curves are followed up to this multiple of n
LOG_ENDS = (-9.0, 9.0)  # of a and b: beyond, the Beta is a spike at an end
LOGIT_END = 14.0  # of the share of unsolvable problems: 1e-6 from 0 and 1
STARTS = ((-2.0, -1.0, 0.5), (-1.0, -0.5, 1.5), (-4.0, -1.5, 0.0), (1.0, 0.5, 4.0))


@dataclasses.dataclass(frozen=True)
class Fit:
  """Share `zero` of unsolvable problems, Beta(a, b) of the rest, and the log-likelihood."""

  zero: float
  a: float
  b: float
  log_likelihood: float


def _negative(theta: np.ndarray, n, c, weight) -> tuple[float, np.ndarray]:
  """-log-likelihood (without binomial coefficients) at (logit zero, log a, log b), its gradient."""
  logit, a, b = theta[0], np.exp(theta[1]), np.exp(theta[2])
  log_zero, log_rest = -np.logaddexp(0.0, -logit), -np.logaddexp(0.0, logit)
  beta = special.betaln(a + c, b + n - c) - special.betaln(a, b)
  common = special.digamma(a + b) - special.digamma(a + b + n)
  by_a = special.digamma(a + c) - special.digamma(a) + common
  by_b = special.digamma(b + n - c) - special.digamma(b) + common
  never = c == 0
  total = np.where(never, np.logaddexp(log_zero, log_rest + beta), log_rest + beta)
  share = np.where(never, np.exp(log_rest + beta - total), 1.0)  # posterior of being solvable
  zero = np.exp(log_zero)
  gradient = np.array(
    [
      (weight * (1.0 - share - zero)).sum(),
      (weight * share * by_a).sum() * a,
      (weight * share * by_b).sum() * b,
    ]
  )
  return -float((weight * total).sum()), -gradient


def fit(
  n: np.ndarray, c: np.ndarray, weight: np.ndarray | None = None, start: Fit | None = None
) -> Fit:
  """The maximum-likelihood fit to counts i64[P], each counted `weight` times (default 1).

  From several starts, or from one known fit. Problems of equal (n, c) are taken together.
  """
  n, c = np.asarray(n, np.int64), np.asarray(c, np.int64)
  weight = np.ones(len(n)) if weight is None else np.asarray(weight, np.float64)
  pairs, where = np.unique(np.stack([n, c]), axis=1, return_inverse=True)
  weight = np.bincount(where.ravel(), weight)
  kept = weight > 0
  data = (*pairs[:, kept].astype(np.float64), weight[kept])
  starts = STARTS if start is None else (_theta(start),)
  bounds = [(-LOGIT_END, LOGIT_END), LOG_ENDS, LOG_ENDS]
  found = [
    optimize.minimize(_negative, one, data, jac=True, method='L-BFGS-B', bounds=bounds)
    for one in starts
  ]
  best = min(found, key=lambda one: float(one.fun))
  zero, a, b = special.expit(best.x[0]), *np.exp(best.x[1:])
  return Fit(float(zero), float(a), float(b), -float(best.fun))


def _theta(found: Fit) -> tuple[float, float, float]:
  # a hair inside the bounds: a start on one would be kept there
  logit = np.clip(special.logit(found.zero), 1 - LOGIT_END, LOGIT_END - 1)
  a, b = np.clip(np.log([found.a, found.b]), LOG_ENDS[0] + 0.5, LOG_ENDS[1] - 0.5)
  return float(logit), float(a), float(b)


def unsolvable(found: Fit, n, c) -> np.ndarray:
  """The posterior chance that a problem with c of n correct cannot be solved, f64[P]."""
  n, c = np.asarray(n, np.float64), np.asarray(c, np.float64)
  beta = special.betaln(found.a, found.b + n) - special.betaln(found.a, found.b)
  with np.errstate(divide='ignore'):
    log_odds = np.log(found.zero) - np.log1p(-found.zero) - beta
  return np.where(c == 0, special.expit(log_odds), 0.0)


def marginal(found: Fit, ks) -> np.ndarray:
  """pass@k of a problem drawn anew from the fitted population: f64[K]."""
  ks = np.atleast_1d(np.asarray(ks, np.float64))
  gone = special.betaln(found.a, found.b + ks) - special.betaln(found.a, found.b)
  return (1 - found.zero) * -np.expm1(gone)


def posterior(found: Fit, n, c, ks) -> np.ndarray:
  """E[1 - (1-p)^k | c of n correct] per problem: f64[P, K], for any k."""
  n, c = np.asarray(n, np.float64), np.asarray(c, np.float64)
  ks = np.atleast_1d(np.asarray(ks, np.float64))
  a, b = (found.a + c)[:, None], (found.b + n - c)[:, None]
  gone = special.betaln(a, b + ks) - special.betaln(a, b)
  return (1 - unsolvable(found, n, c))[:, None] * -np.expm1(np.minimum(gone, 0.0))


def rates(found: Fit, n, c, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Empirical-Bayes solve rate of each problem: posterior mean and central interval, f64[P] each.

  Beta(a + c, b + n - c), and zero with the chance `unsolvable`. It shrinks exactly the problems
  with c = 0, so it belongs beside the raw c / n, not in its place.
  """
  n, c = np.asarray(n, np.float64), np.asarray(c, np.float64)
  spike = unsolvable(found, n, c)
  a, b = found.a + c, found.b + n - c
  ends = []
  for q in ((1 - level) / 2, (1 + level) / 2):
    rest = np.clip((q - spike) / np.maximum(1 - spike, 1e-300), 0.0, 1.0)
    ends.append(np.where(rest > 0, stats.beta.ppf(rest, a, b), 0.0))
  return (1 - spike) * a / (a + b), ends[0], ends[1]


@dataclasses.dataclass(frozen=True)
class Extrapolation:
  """Mean pass@k over problems by the posterior; the raw estimate beside it up to n.

  ks: i64[K]. value, low, high: f64[K]. raw: f64[K], NaN beyond n, where `beyond` is True: those are
  extrapolated. marginal: of a new problem of the fitted population.
  """

  ks: np.ndarray
  value: np.ndarray
  low: np.ndarray
  high: np.ndarray
  raw: np.ndarray
  marginal: np.ndarray
  beyond: np.ndarray
  fit: Fit
  n: int


Refits = list[tuple[np.ndarray, list[Fit]]]  # (weights over problems f64[P], a fit a model)


def _refits(models: Sequence[Counts], fits: Sequence[Fit], refits: int, seed: int) -> Refits:
  """The models fitted again to resampled problems, the same for all."""
  problems = len(models[0])
  rng = np.random.default_rng([seed, problems, 5])
  found = []
  for _ in range(refits):
    weight = rng.multinomial(problems, np.full(problems, 1 / problems)).astype(np.float64)
    again = [
      fit(counts.n, counts.c, weight, start) for counts, start in zip(models, fits, strict=True)
    ]
    found.append((weight / problems, again))
  return found


def extrapolate(
  counts: Counts,
  ks: Sequence[int] | np.ndarray | None = None,
  *,
  level: float = 0.95,
  refits: int = REFITS,
  seed: int = 0,
) -> Extrapolation:
  """pass@k at ks (default: a log grid up to REACH n), those beyond n by the fitted model.

  The interval is the hull of two: percentiles over resampled problems, each with a fit of its own,
  and mean_interval of the posterior means, which holds near 0 and 1. Never of zero width.
  """
  ks = _checked(ks, counts.smallest_n)
  found = fit(counts.n, counts.c)
  again = [(weight, one) for weight, (one,) in _refits([counts], [found], refits, seed)]
  return _extrapolation(counts, found, again, ks, level)


def _checked(ks: Sequence[int] | np.ndarray | None, n: int) -> np.ndarray:
  ks = pass_at_k.k_grid(REACH * n) if ks is None else np.atleast_1d(np.asarray(ks, np.int64))
  if ks.min() < 1:
    raise ValueError(f'k={ks.tolist()}: each k is a positive integer')
  return ks


def _extrapolation(
  counts: Counts,
  found: Fit,
  again: Sequence[tuple[np.ndarray, Fit]],
  ks: np.ndarray,
  level: float,
) -> Extrapolation:
  n = counts.smallest_n
  band = mean_interval(posterior(found, counts.n, counts.c, ks), level=level)
  low, high = band.low, band.high
  if again:
    curves = [weight @ posterior(one, counts.n, counts.c, ks) for weight, one in again]
    ends = np.quantile(np.array(curves), [(1 - level) / 2, (1 + level) / 2], axis=0)
    low, high = np.minimum(low, ends[0]), np.maximum(high, ends[1])
  raw = np.full(len(ks), np.nan)
  if (ks <= n).any():
    raw[ks <= n] = pass_at_k.estimate(counts.n, counts.c, ks[ks <= n]).mean(axis=0)
  return Extrapolation(ks, band.value, low, high, raw, marginal(found, ks), ks > n, found, n)


@dataclasses.dataclass(frozen=True)
class FarCrossover:
  """Crossover of the posterior curves up to `limit`; extrapolated where it lies beyond n.

  value is None where there is none up to limit; low and high are percentiles over resampled
  problems with fits of their own, an end beyond the limit is given as the limit with its flag set.
  """

  value: float | None
  low: float
  high: float
  low_beyond: bool
  high_beyond: bool
  share_no_crossing: float
  extrapolated: bool
  n: int
  limit: int


def far_crossover(
  a: Counts,
  b: Counts,
  *,
  reach: int = REACH,
  level: float = 0.95,
  refits: int = REFITS,
  seed: int = 0,
) -> FarCrossover:
  """From which k on b is no longer above a, looked for up to reach * n by the fitted models."""
  a, b = align(a, b)
  fits = [fit(a.n, a.c), fit(b.n, b.c)]
  return _crossing(a, b, fits, _refits([a, b], fits, refits, seed), reach, level)


def _crossing(
  a: Counts, b: Counts, fits: Sequence[Fit], again: Refits, reach: int, level: float
) -> FarCrossover:
  n = min(a.smallest_n, b.smallest_n)
  ks = pass_at_k.k_grid(reach * n, 200)

  def mean_difference(weight: np.ndarray, of_a: Fit, of_b: Fit) -> np.ndarray:
    return weight @ (posterior(of_b, b.n, b.c, ks) - posterior(of_a, a.n, a.c, ks))

  value = crossover.crossing_points(mean_difference(np.full(len(a), 1 / len(a)), *fits), ks)[0]
  points = np.array([value])
  if again:
    curves = np.array([mean_difference(weight, *one) for weight, one in again])
    points = crossover.crossing_points(curves, ks)
  ends = [(1 - level) / 2, (1 + level) / 2]
  low, high = np.quantile(points, ends, method='inverted_cdf')
  limit = int(ks[-1])
  return FarCrossover(
    value=float(value) if np.isfinite(value) else None,
    low=float(min(low, limit)),
    high=float(min(high, limit)),
    low_beyond=bool(np.isinf(low)),
    high_beyond=bool(np.isinf(high)),
    share_no_crossing=float(np.isinf(points).mean()),
    extrapolated=bool(value > n),
    n=n,
    limit=limit,
  )


def extrapolate_pair(
  a: Counts,
  b: Counts,
  *,
  level: float = 0.95,
  refits: int = REFITS,
  seed: int = 0,
) -> tuple[Extrapolation, Extrapolation, FarCrossover]:
  """Both curves and their crossover, from one set of resampled problems."""
  a, b = align(a, b)
  fits = [fit(a.n, a.c), fit(b.n, b.c)]
  again = _refits([a, b], fits, refits, seed)
  ks = _checked(None, min(a.smallest_n, b.smallest_n))
  first, second = (
    _extrapolation(counts, fits[i], [(weight, one[i]) for weight, one in again], ks, level)
    for i, counts in enumerate((a, b))
  )
  return first, second, _crossing(a, b, fits, again, REACH, level)
