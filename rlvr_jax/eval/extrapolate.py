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
# of logit zero (1e-6 from 0 and 1), and of log a and log b (beyond, the Beta is a spike)
ENDS = np.array([-14.0, -9.0, -9.0]), np.array([14.0, 9.0, 9.0])
SMALL = 1e-7  # a gain in log-likelihood that ends the ascent
STARTS = ((-2.0, -1.0, 0.5), (-1.0, -0.5, 1.5), (-4.0, -1.5, 0.0), (1.0, 0.5, 4.0))


@dataclasses.dataclass(frozen=True)
class Fit:
  """Share `zero` of unsolvable problems, Beta(a, b) of the rest, and the log-likelihood."""

  zero: float
  a: float
  b: float
  log_likelihood: float


def _terms(theta: np.ndarray, n, c) -> tuple[np.ndarray, np.ndarray]:
  """Log-likelihood of each problem (without binomial coefficients) and its gradient.

  theta: f64[R, 3] of (logit zero, log a, log b), n, c: f64[U]. Returns f64[R, U] and f64[R, U, 3].
  """
  logit, a, b = theta[:, :1], np.exp(theta[:, 1:2]), np.exp(theta[:, 2:])
  log_zero, log_rest = -np.logaddexp(0.0, -logit), -np.logaddexp(0.0, logit)
  rest = log_rest + special.betaln(a + c, b + n - c) - special.betaln(a, b)
  total = np.where(c == 0, np.logaddexp(log_zero, rest), rest)
  share = np.exp(rest - total)  # posterior of being solvable
  common = special.digamma(a + b) - special.digamma(a + b + n)
  by_a = special.digamma(a + c) - special.digamma(a) + common
  by_b = special.digamma(b + n - c) - special.digamma(b) + common
  gradient = (1.0 - share - np.exp(log_zero), share * by_a * a, share * by_b * b)
  return total, np.stack(gradient, axis=2)


def _climb(
  theta: np.ndarray, n, c, weight: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
  """Likelihood ascent of R weighted fits at once: theta f64[R, 3], weight f64[R, U].

  Returns theta f64[R, 3] and the log-likelihoods f64[R].

  Damped steps of Berndt, Hall, Hall and Hausman (1974): the outer product of the gradients stands
  for the curvature; a step that does not raise the likelihood is taken back and damped more.
  """
  terms, score = _terms(theta, n, c)
  value, damping = (weight * terms).sum(axis=1), np.full(len(theta), 1e-3)
  for _ in range(steps):
    gradient = np.einsum('ru,rui->ri', weight, score)
    curvature = np.einsum('ru,rui,ruj->rij', weight, score, score)
    size = np.einsum('rii->ri', curvature)
    curvature = curvature + np.eye(3) * (damping[:, None] * size + 1e-9)[:, :, None]
    step = np.clip(np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0], -2.0, 2.0)
    tried = np.clip(theta + step, *ENDS)
    terms, new = _terms(tried, n, c)
    reached = (weight * terms).sum(axis=1)
    gain = reached - value
    up = gain > 0
    theta = np.where(up[:, None], tried, theta)
    score = np.where(up[:, None, None], new, score)
    value = np.where(up, reached, value)
    damping = np.where(up, damping / 8, damping * 8)
    if (np.where(up, gain < SMALL, damping > 1e8)).all():
      break
  return theta, value


def _grouped(n, c) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """n and c of every distinct pair, f64[U], and the pair of each problem, i64[P]."""
  pairs, where = np.unique(np.stack([n, c]), axis=1, return_inverse=True)
  return *pairs.astype(np.float64), where.ravel()


def fit(n: np.ndarray, c: np.ndarray, weight: np.ndarray | None = None) -> Fit:
  """The maximum-likelihood fit to counts i64[P], each counted `weight` times (default 1).

  From several starts, the best of which is brought to the maximum.
  """
  one, right, where = _grouped(np.asarray(n, np.int64), np.asarray(c, np.int64))
  counted = np.bincount(where, np.ones(len(where)) if weight is None else weight)
  starts = np.array(STARTS)
  theta, value = _climb(starts, one, right, np.repeat(counted[None], len(starts), axis=0), 40)

  def negative(x: np.ndarray) -> tuple[float, np.ndarray]:
    terms, score = _terms(x[None], one, right)
    return -float(counted @ terms[0]), -(counted @ score[0])

  best = optimize.minimize(
    negative,
    theta[int(np.argmax(value))],
    jac=True,
    method='L-BFGS-B',
    bounds=list(zip(*ENDS, strict=True)),
  )
  return _fit_of(best.x, -float(best.fun))


def _fit_of(theta: np.ndarray, value: float) -> Fit:
  a, b = np.exp(theta[1:])
  return Fit(float(special.expit(theta[0])), float(a), float(b), float(value))


def fit_again(
  n: np.ndarray, c: np.ndarray, weights: np.ndarray, start: Fit, steps: int = 60
) -> list[Fit]:
  """The fits to R reweightings f64[R, P] of the same counts, all begun at one fit."""
  one, right, where = _grouped(np.asarray(n, np.int64), np.asarray(c, np.int64))
  counted = np.zeros((len(weights), len(one)))
  np.add.at(counted.T, where, np.asarray(weights, np.float64).T)
  theta = np.array([special.logit(start.zero), np.log(start.a), np.log(start.b)])
  theta = np.clip(theta, ENDS[0] + 0.5, ENDS[1] - 0.5)  # a step may leave an end
  thetas, values = _climb(np.repeat(theta[None], len(weights), axis=0), one, right, counted, steps)
  return [_fit_of(theta, value) for theta, value in zip(thetas, values, strict=True)]


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
  weights = rng.multinomial(problems, np.full(problems, 1 / problems), size=refits)
  again = [
    fit_again(counts.n, counts.c, weights, start)
    for counts, start in zip(models, fits, strict=True)
  ]
  return [(w / problems, list(one)) for w, *one in zip(weights, *again, strict=True)]


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
