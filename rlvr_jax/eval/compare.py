"""Two models on the same problems: every paired number the report states."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rlvr_jax.eval import coverage, pass_at_k
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.crossover import Crossover, crossover, grid
from rlvr_jax.eval.intervals import RESAMPLES, Band, difference_interval


@dataclasses.dataclass(frozen=True)
class Comparison:
  """b minus a, on the problems of a, in a's order.

  difference: Band over ks of pass@k(b) - pass@k(a). sets: coverage at each threshold, and
  sets_without_deciding the same without the problems that a few samples decide. deciding: bool[P].
  tests is None for samples that share random numbers, and sets are empty (why_no_sets says why)
  if the two efforts differ.
  """

  problem_ids: tuple[str, ...]
  ks: np.ndarray
  headline_k: int
  difference: Band
  crossover: Crossover
  deciding: np.ndarray
  sets: tuple[coverage.CoverageSets, ...]
  sets_without_deciding: tuple[coverage.CoverageSets, ...]
  tests: coverage.ProblemTests | None
  why_no_sets: str = ''

  def difference_at(self, k: int) -> tuple[float, float, float]:
    """(value, low, high) of the difference at a k of the grid."""
    where = np.flatnonzero(self.ks == k)
    if not len(where):
      raise ValueError(f'k={k} is not among the ks compared: {self.ks.tolist()}')
    return self.difference.at(int(where[0]))


def compare_counts(
  a: Counts,
  b: Counts,
  *,
  ks: Sequence[int] | np.ndarray | None = None,
  headline_k: int | None = None,
  thresholds: Sequence[int] = coverage.THRESHOLDS,
  level: float = 0.95,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> Comparison:
  """Compares model b (trained) with model a (base) from their counts alone.

  ks defaults to a log grid up to the smallest n; headline_k to the largest power of two not above
  n / 4. Raises ValueError when the problems differ or a k exceeds some problem's n.
  """
  a, b = align(a, b)
  n = min(a.smallest_n, b.smallest_n)
  headline_k = pass_at_k.headline_k(n) if headline_k is None else headline_k
  ks = pass_at_k.k_grid(n) if ks is None else np.asarray(ks, np.int64)
  ks = np.unique(np.append(ks, headline_k))
  pass_at_k.check_ks(ks, n)
  fine = np.union1d(grid(n), ks)
  differences = pass_at_k.estimate(b.n, b.c, fine) - pass_at_k.estimate(a.n, a.c, fine)
  shown = np.searchsorted(fine, ks)
  options = {'level': level, 'resamples': resamples, 'seed': seed}
  unsure = coverage.deciding(a, b)
  sets, without, why = (), (), ''
  try:
    coverage.check_same_n(a, b)
  except ValueError as error:
    why = str(error)
  else:
    sets = tuple(coverage.coverage_sets(a, b, thresholds))
    kept = [problem for problem, out in zip(a.problem_ids, unsure, strict=True) if not out]
    if kept:
      without = tuple(coverage.coverage_sets(a.select(kept), b.select(kept), thresholds))
  coupled = 'common' in (a.coupling, b.coupling)
  return Comparison(
    problem_ids=a.problem_ids,
    ks=ks,
    headline_k=headline_k,
    difference=difference_interval(differences[:, shown], **options),
    crossover=crossover(differences, ks=fine, **options),
    deciding=unsure,
    sets=sets,
    sets_without_deciding=without,
    tests=None if coupled else coverage.problem_tests(a, b),
    why_no_sets=why,
  )
