"""How small a difference a study can show: problems, samples and training seeds against power.

The variance of a mean paired difference of pass@k has three parts,

  between / P + (sampling_a(n) + sampling_b(n) / S) / P + seed_sd^2 / S,

over P problems, n samples and S training seeds (of b): how differently problems respond, the noise
of n samples, and training. Only the first part that is large is worth money.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from rlvr_jax.eval import exact, extrapolate, pass_at_k
from rlvr_jax.eval.counts import Counts, align

GRID = 400  # quantiles that stand for a population of solve rates


@dataclasses.dataclass(frozen=True)
class Pilot:
  """What is known or assumed of two models: solve rates f64[Q] of each on like problems, paired.

  between: variance over problems of the true difference of pass@k, by k; None takes it from the
  paired rates, which are then taken as exact.
  """

  a: np.ndarray
  b: np.ndarray
  between: dict[int, float] | None = None

  def variance_between(self, k: int) -> float:
    """Variance over problems of the true difference of pass@k."""
    if self.between is not None and k in self.between:
      return self.between[k]
    return float(np.var(pass_at_k.exact(self.b, [k]) - pass_at_k.exact(self.a, [k])))

  def sampling(self, n: int, k: int) -> tuple[float, float]:
    """Mean variance of a problem's estimate from n samples, of either model."""
    return (
      float(exact.sampling_variance(n, self.a, k).mean()),
      float(exact.sampling_variance(n, self.b, k).mean()),
    )


def pilot_of_counts(a: Counts, b: Counts, ks: Sequence[int]) -> Pilot:
  """A pilot from measured counts of the same problems, at ks up to their n.

  between: the variance of the estimated differences less what sampling put into it. Rates are the
  posterior means of extrapolate's fit.
  """
  a, b = align(a, b)
  rates = [extrapolate.rates(extrapolate.fit(m.n, m.c), m.n, m.c)[0] for m in (a, b)]
  between = {}
  for k in ks:
    difference = pass_at_k.estimate(b.n, b.c, [k]) - pass_at_k.estimate(a.n, a.c, [k])
    noise = sum(exact.sampling_sd(m.n, p, [k])[0] ** 2 for m, p in zip((a, b), rates, strict=True))
    between[int(k)] = max(0.0, float(difference.var(ddof=1)) - noise * len(a))
  return Pilot(rates[0], rates[1], between)


def pilot_of_betas(
  a: tuple[float, float], b: tuple[float, float], *, agreement: float = 1.0
) -> Pilot:
  """A pilot from two assumed Betas of solve rates, without any data.

  agreement: 1 if the models order problems alike (quantile by quantile), 0 if they have nothing in
  common; in between that share of problems is ordered alike.
  """
  if not 0 <= agreement <= 1:
    raise ValueError(f'agreement={agreement} must lie in [0, 1]')
  q = (np.arange(GRID) + 0.5) / GRID
  first, second = stats.beta.ppf(q, *a), stats.beta.ppf(q, *b)
  shuffled = second[np.random.default_rng(0).permutation(GRID)]
  alike = (np.arange(GRID) * 0.6180339887) % 1 < agreement  # spread evenly over the quantiles
  return Pilot(first, np.where(alike, second, shuffled))


@dataclasses.dataclass(frozen=True)
class Plan:
  """One line of a plan. detectable: the true difference of pass@k that an interval at `level`
  excludes zero for with chance `power`; error: the standard error of the measured difference.
  """

  problems: int
  n: int
  k: int
  seeds: int
  error: float
  detectable: float


def standard_error(
  pilot: Pilot, problems: int, n: int, k: int, *, seeds: int = 1, seed_sd: float = 0.0
) -> float:
  """Standard error of the mean paired difference of pass@k."""
  if min(problems, n, k, seeds) < 1 or k > n:
    raise ValueError(
      f'problems={problems}, n={n}, k={k}, seeds={seeds}: all are positive and k is at most n'
    )
  of_a, of_b = pilot.sampling(n, k)
  over_problems = (pilot.variance_between(k) + of_a + of_b / seeds) / problems
  return float(np.sqrt(over_problems + seed_sd**2 / seeds))


def detectable(
  pilot: Pilot,
  problems: int,
  n: int,
  k: int,
  *,
  seeds: int = 1,
  seed_sd: float = 0.0,
  level: float = 0.95,
  power: float = 0.8,
) -> Plan:
  """The smallest difference that is shown with the wished power (two-sided, normal errors).

  seed_sd: standard deviation of pass@k over training seeds; with it at least 2 seeds are needed and
  Student's t of seeds - 1 stands for the normal where training is the larger part of the error.
  Near 0 and 1 intervals are wider than normal ones, so that this is then a lower bound.
  """
  if seed_sd > 0 and seeds < 2:
    raise ValueError(f'seeds={seeds}: what one seed shows says nothing of others; at least 2')
  error = standard_error(pilot, problems, n, k, seeds=seeds, seed_sd=seed_sd)
  share = seed_sd**2 / seeds / error**2 if error else 0.0
  # Satterthwaite: only the seeds' part has few degrees of freedom
  freedom = (seeds - 1) / share**2 if share else np.inf
  upper = (1 + level) / 2
  critical, reach = (
    (stats.norm.ppf(upper), stats.norm.ppf(power))
    if np.isinf(freedom)
    else (stats.t.ppf(upper, freedom), stats.t.ppf(power, freedom))
  )
  return Plan(problems, n, k, seeds, error, float((critical + reach) * error))


def plan(
  pilot: Pilot,
  problems: Sequence[int],
  ns: Sequence[int],
  ks: Sequence[int],
  *,
  seeds: Sequence[int] = (1,),
  seed_sd: float = 0.0,
  level: float = 0.95,
  power: float = 0.8,
) -> list[Plan]:
  """Every combination that makes sense (k at most n)."""
  return [
    detectable(pilot, p, n, k, seeds=s, seed_sd=seed_sd, level=level, power=power)
    for k in ks
    for p in problems
    for n in ns
    for s in seeds
    if k <= n
  ]


def problems_needed(error: float, problems: int, wanted: float) -> int:
  """Problems that bring an error measured on `problems` down to `wanted` (both positive)."""
  return int(np.ceil(problems * (error / wanted) ** 2))
