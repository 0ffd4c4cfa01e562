"""What training keeps of the base's solved problems, what it loses and what it finds.

After Wu et al. 2025 (arXiv 2507.14843), with problems in place of completions. A problem is held if
at least `threshold` of n samples are correct. Chance alone moves problems in and out: one with a
rate of 1/n is solved again in two of three repetitions. So every share stands beside what a model
of unchanged solve rates would show.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from rlvr_jax.eval import coverage, extrapolate
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.intervals import clopper_pearson, difference_interval

Triple = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Support:
  """Shares with (value, low, high); None where there is nothing to take a share of.

  retention: of the problems the base holds, those that the trained model holds. discovery: of the
  problems the base does not hold, those that the trained model holds. new_share: of the problems
  the trained model holds, those that the base does not. net: (trained only - base only) / P, and
  net_change the same over the problems either holds. balance: harmonic mean of retention and
  new_share. retention_unchanged, discovery_unchanged: what is to be expected if no solve rate had
  changed, from the base's samples.
  """

  threshold: int
  sizes: dict[str, int]
  retention: Triple | None
  discovery: Triple | None
  new_share: Triple | None
  net: Triple
  net_change: float | None
  balance: float | None
  retention_unchanged: float | None
  discovery_unchanged: float | None
  mcnemar_p: float


def support(
  base: Counts,
  trained: Counts,
  thresholds: Sequence[int] = coverage.THRESHOLDS,
  *,
  level: float = 0.95,
  **options,
) -> list[Support]:
  """A Support at each threshold. ValueError if problems or numbers of samples differ.

  Shares have Clopper-Pearson intervals, the net change that of a paired difference (options:
  resamples, seed).
  """
  base, trained = align(base, trained)
  coverage.check_same_n(base, trained)
  found = extrapolate.fit(base.n, base.c)
  made = []
  for threshold in thresholds:
    has, now = base.c >= threshold, trained.c >= threshold
    sets = coverage.split(base.problem_ids, has, now, threshold)
    both, lost, gained, neither = sets.sizes().values()
    gain = now.astype(np.float64) - has
    again = solved_again(found, base, trained.n, threshold)
    retention = _share(both, both + lost, level)
    new_share = _share(gained, both + gained, level)
    balance = None
    if retention and new_share and retention[0] + new_share[0] > 0:
      balance = 2 * retention[0] * new_share[0] / (retention[0] + new_share[0])
    made.append(
      Support(
        threshold=int(threshold),
        sizes=sets.sizes(),
        retention=retention,
        discovery=_share(gained, gained + neither, level),
        new_share=new_share,
        net=difference_interval(gain, level=level, **options).at(0),
        net_change=(gained - lost) / (both + lost + gained) if both + lost + gained else None,
        balance=balance,
        retention_unchanged=float(again[has].mean()) if has.any() else None,
        discovery_unchanged=float(again[~has].mean()) if not has.all() else None,
        mcnemar_p=sets.mcnemar_p,
      )
    )
  return made


def solved_again(
  found: extrapolate.Fit, counts: Counts, n: np.ndarray, threshold: int = 1
) -> np.ndarray:
  """P(at least `threshold` of n fresh samples are correct | the counts) by the fit: f64[P]."""
  a, b = found.a + counts.c, found.b + counts.n - counts.c
  few = stats.betabinom.cdf(threshold - 1, np.asarray(n), a, b)
  return (1 - extrapolate.unsolvable(found, counts.n, counts.c)) * (1 - few)


def _share(part: int, whole: int, level: float) -> Triple | None:
  if not whole:
    return None
  low, high = clopper_pearson(part, whole, level)
  return part / whole, float(low), float(high)
