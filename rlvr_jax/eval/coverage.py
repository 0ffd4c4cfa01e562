"""Which problems a model solves at all: coverage sets, exact tests, deciding set, histogram."""

import dataclasses

import numpy as np
from scipy import stats

from rlvr_jax.eval.counts import Counts, Reached, align

THRESHOLDS = (1, 2, 3, 5)
SETS = ('both', 'base_only', 'rl_only', 'neither')
DECIDING_MAX = 3  # 0 < c <= 3 in either model: a few samples decide the problem's set
MAX_N_MISMATCH = 0.02


@dataclasses.dataclass(frozen=True)
class CoverageSets:
  """Problem ids by who reached `threshold` correct samples; the exact McNemar p of the split."""

  threshold: int
  both: tuple[str, ...]
  base_only: tuple[str, ...]
  rl_only: tuple[str, ...]
  neither: tuple[str, ...]
  mcnemar_p: float

  def sizes(self) -> dict[str, int]:
    """Number of problems in each set."""
    return {name: len(getattr(self, name)) for name in SETS}


def mcnemar(base_only: int, rl_only: int) -> float:
  """Two-sided exact McNemar p: discordant problems against a fair coin; 1 without any."""
  discordant = base_only + rl_only
  if not discordant:
    return 1.0
  return float(stats.binomtest(base_only, discordant, 0.5).pvalue)


def split(problem_ids, base_has: np.ndarray, rl_has: np.ndarray, threshold: int) -> CoverageSets:
  """Sets from two boolean arrays bool[P]."""
  ids = np.asarray(problem_ids, dtype=object)
  masks = (base_has & rl_has, base_has & ~rl_has, ~base_has & rl_has, ~base_has & ~rl_has)
  both, base_only, rl_only, neither = (tuple(ids[mask]) for mask in masks)
  p = mcnemar(len(base_only), len(rl_only))
  return CoverageSets(threshold, both, base_only, rl_only, neither, p)


def check_same_n(base: Counts, rl: Counts) -> None:
  """Coverage grows with n, so the sample totals may differ by 2% at most (error verdicts)."""
  a, b = int(base.n.sum()), int(rl.n.sum())
  if abs(a - b) > MAX_N_MISMATCH * max(a, b):
    raise ValueError(
      f'coverage compares equal efforts, but the first model has {a} samples and the second {b}; '
      'top up the smaller store, or compare pass@k, which allows for n'
    )


def coverage_sets(base: Counts, rl: Counts, thresholds=THRESHOLDS) -> list[CoverageSets]:
  """Coverage at each threshold of correct samples. ValueError if problems or effort differ."""
  base, rl = align(base, rl)
  check_same_n(base, rl)
  return [split(base.problem_ids, base.c >= t, rl.c >= t, t) for t in thresholds]


def thresholds_of(reached: Reached) -> tuple[int, ...]:
  """The thresholds at which coverage is known where draws were stopped early."""
  return tuple(sorted({*(t for t in THRESHOLDS if t <= reached.most), reached.most}))


def reached_sets(base: Reached, rl: Reached) -> list[CoverageSets]:
  """Coverage at n of two models stopped by one rule. ValueError if problems, n or rule differ."""
  if sorted(base.problem_ids) != sorted(rl.problem_ids) or (base.n, base.most) != (rl.n, rl.most):
    raise ValueError(
      f'coverage compares equal efforts on the same problems: {len(base.problem_ids)} problems, '
      f'n={base.n}, stop_after={base.most} against {len(rl.problem_ids)}, {rl.n}, {rl.most}'
    )
  rl = rl.select(base.problem_ids)
  return [split(base.problem_ids, base.covered(t), rl.covered(t), t) for t in thresholds_of(base)]


def deciding(base: Counts, rl: Counts, most: int = DECIDING_MAX) -> np.ndarray:
  """bool[P]: problems with 0 < c <= most in either model, whose set hangs on a few samples."""
  base, rl = align(base, rl)
  return ((base.c > 0) & (base.c <= most)) | ((rl.c > 0) & (rl.c <= most))


@dataclasses.dataclass(frozen=True)
class ProblemTests:
  """Per problem: Fisher's exact p and its Benjamini-Hochberg adjusted value, f64[P] each.

  better, worse: bool[P], RL's solve rate differs significantly after the false-discovery control.
  """

  p: np.ndarray
  adjusted: np.ndarray
  better: np.ndarray
  worse: np.ndarray
  false_discovery_rate: float


def problem_tests(base: Counts, rl: Counts, false_discovery_rate: float = 0.05) -> ProblemTests:
  """Fisher's exact test of every problem's two solve rates. ValueError for coupled samples."""
  base, rl = align(base, rl)
  if 'common' in (base.coupling, rl.coupling):
    raise ValueError(
      "these samples were drawn with sampling.coupling='common': the models share their random "
      "numbers, and per-problem tests need independent ones; sample with coupling='independent'"
    )
  p = np.array(
    [
      stats.fisher_exact([[bc, bn - bc], [rc, rn - rc]])[1]
      for bn, bc, rn, rc in zip(base.n, base.c, rl.n, rl.c, strict=True)
    ]
  )
  p = np.clip(p.astype(np.float64), 0.0, 1.0)
  adjusted = stats.false_discovery_control(p, method='bh')
  found = adjusted <= false_discovery_rate
  return ProblemTests(
    p, adjusted, found & (rl.rates > base.rates), found & (rl.rates < base.rates),
    false_discovery_rate,
  )  # fmt: skip


BINS = (
  '0',
  *(f'({low / 10:g}, {(low + 1) / 10:g}{")" if low == 9 else "]"}' for low in range(10)),
  '1',
)


def accuracy_histogram(counts: Counts) -> np.ndarray:
  """Problems per accuracy bin, i64[12]: 0, (0, 0.1], ..., (0.8, 0.9], (0.9, 1), 1.

  The bins of arXiv 2504.13837; they are decided in integers, so 3 of 10 falls in (0.2, 0.3].
  """
  index = -(-10 * counts.c // counts.n)  # ceil(10 c / n): 0 for c = 0, 1..10 inside
  index = np.where(counts.c == counts.n, 11, index)
  return np.bincount(index, minlength=12)
