"""CoT validity: how much of pass@k is reasoning, from a random sample of correct completions read.

A correct answer need not come from correct reasoning. cot_pass@k counts a completion only if its
answer is correct and its reasoning valid (arXiv 2506.14245). Problems are sampled within strata of
c (their correct completions), completions within problems; what was read is weighted back by the
inverse of its chance to be read (Horvitz and Thompson 1952).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.intervals import clopper_pearson

LABELS = ('valid', 'invalid', 'unsure')
DRAWS = 2000  # of a judge's error rates


@dataclasses.dataclass(frozen=True)
class Stratum:
  """Problems with low <= c <= high of one model: all of them, and those picked to be read."""

  low: int
  high: int
  problems: tuple[str, ...]
  picked: tuple[str, ...]


def strata_of(counts: Counts) -> list[tuple[int, int]]:
  """Ends of c: 0 (nothing to read), 1 to 3, to 5%, to half, and above, of the samples."""
  n = int(counts.n.max())
  ends = sorted({e for e in (0, 3, n // 20, n // 2, n) if e == 0 or e >= 3} | {n})
  return [(0, 0), *((low + 1, high) for low, high in itertools.pairwise(ends))]


def choose(counts: Counts, *, per_stratum: int, seed: int) -> list[Stratum]:
  """Up to per_stratum problems of every stratum, drawn without replacement.

  The stratum c = 0 is known without reading: all its problems are picked and cost nothing.
  """
  rng = np.random.default_rng([seed, len(counts)])
  made = []
  for low, high in strata_of(counts):
    inside = [p for p, c in zip(counts.problem_ids, counts.c, strict=True) if low <= c <= high]
    if not inside:
      continue
    picked = inside
    if high and len(inside) > per_stratum:
      picked = [inside[at] for at in sorted(rng.choice(len(inside), per_stratum, replace=False))]
    made.append(Stratum(low, high, tuple(inside), tuple(picked)))
  return made


def choose_completions(samples: Sequence[int], most: int, rng: np.random.Generator) -> list[int]:
  """Up to `most` of a problem's correct samples, drawn without replacement, in order."""
  if len(samples) <= most:
    return sorted(samples)
  return sorted(int(one) for one in rng.choice(np.asarray(samples), most, replace=False))


def failure(
  n: int, c: int, valid: Sequence[float], ks: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
  """(most, least) chance that k of n completions hold no valid one: f64[K] each, estimated.

  valid: of m of the c correct completions, drawn at random, 1 or 0 (or an unbiased estimate of it).
  Given that r of k are correct, no valid one is among them with probability e_r(1 - v) / C(m, r),
  e_r the elementary symmetric polynomial, without bias for r <= m. Beyond m that is bounded: by its
  value at r = m from above, by 0 from below. Both agree if all c were read, and where k <= m.
  """
  invalid, m = 1.0 - np.asarray(valid, np.float64), len(valid)
  if not 0 < m <= c <= n:
    raise ValueError(f'read {m} of c={c} correct completions of n={n}: 1 <= m <= c <= n')
  symmetric = np.poly(-invalid)  # prod (x + u_j): coefficients e_0 .. e_m
  empty = symmetric / np.array([math.comb(m, r) for r in range(m + 1)])
  share, beyond = _drawn(n, c, m, tuple(int(k) for k in ks))
  known = empty @ share
  return known + beyond * empty[m], known


@functools.lru_cache(maxsize=4096)
def _drawn(n: int, c: int, m: int, ks: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """Chance that r = 0 .. m of k draws are correct, f64[m + 1, K], and that more are, f64[K]."""
  share = stats.hypergeom.pmf(np.arange(m + 1)[:, None], n, c, np.array(ks))
  beyond = np.clip(1.0 - share.sum(axis=0), 0.0, 1.0)
  return share, np.where(np.minimum(ks, c) <= m, 0.0, beyond)


@dataclasses.dataclass(frozen=True)
class Read:
  """What was read of one problem: n, c, and of m correct completions whether they are valid."""

  problem_id: str
  n: int
  c: int
  valid: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Estimate:
  """cot_pass@k, f64[K] each: value is its lower estimate, upper the other end where more is left
  open (k beyond what was read of a problem); low and high the interval around both.

  validity: [value, low, high] of the share of correct completions that are valid.
  """

  ks: tuple[int, ...]
  value: np.ndarray
  upper: np.ndarray
  low: np.ndarray
  high: np.ndarray
  validity: tuple[float, float, float]
  problems: int
  completions: int


def estimate(
  strata: Sequence[Stratum],
  read: Mapping[str, Read],
  counts: Counts,
  ks: Sequence[int],
  *,
  level: float = 0.95,
  extra: 'Extra | None' = None,
) -> Estimate:
  """cot_pass@k over all problems of counts, with its interval over problems and reading.

  read: by problem id; a picked problem that is not there was not read. extra: further chance, as
  of a judge's error rates. ValueError if a stratum was not read at all.
  """
  ks = tuple(int(k) for k in ks)
  if not ks or min(ks) < 1 or max(ks) > counts.smallest_n:
    raise ValueError(f'k={list(ks)} must lie between 1 and n={counts.smallest_n}')
  groups, rates = _values(strata, read, counts, ks)
  shares = [len(stratum.problems) / len(counts) for stratum in strata]
  ends = []
  for column in (0, 1):  # most failures, fewest failures
    parts = [np.stack([pair[column] for pair in group]) for group in groups]
    ends.append(_interval(parts, shares, len(counts), level))
  lower, upper = ends
  low, high = lower[1], upper[2]
  if extra is not None:
    low, high = np.minimum(low, extra.low), np.maximum(high, extra.high)
  return Estimate(
    ks, lower[0], upper[0], low, high, _validity(rates, shares, level, extra),
    sum(len(one) for one in groups), sum(len(one.valid) for one in read.values()),
  )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Extra:
  """Ends that further chance alone leaves: of cot_pass@k f64[K], and of the validity."""

  low: np.ndarray
  high: np.ndarray
  validity: tuple[float, float]


def _values(strata, read, counts, ks):
  """Per stratum: of each problem read (lowest, highest) pass@k f64[K], and (c / n, valid share)."""
  row = {problem: at for at, problem in enumerate(counts.problem_ids)}
  groups, rates = [], []
  for stratum in strata:
    if not stratum.high:
      nothing = np.zeros(len(ks))
      groups.append([(nothing, nothing)] * len(stratum.problems))
      rates.append(np.zeros((len(stratum.problems), 2)))
      continue
    found = [read[problem] for problem in stratum.picked if problem in read]
    if not found:
      raise ValueError(
        f'nothing was read of the {len(stratum.problems)} problems with {stratum.low} to '
        f'{stratum.high} correct completions; read some of them'
      )
    for one in found:
      at = row[one.problem_id]
      if (one.n, one.c) != (int(counts.n[at]), int(counts.c[at])):
        raise ValueError(
          f'problem {one.problem_id!r} was read with {one.c} of {one.n} correct, and has '
          f'{int(counts.c[at])} of {int(counts.n[at])} now; pick again from the new samples'
        )
    ends = [failure(one.n, one.c, one.valid, ks) for one in found]
    groups.append([(1 - most, 1 - least) for most, least in ends])
    rates.append(np.array([(one.c / one.n, one.c / one.n * np.mean(one.valid)) for one in found]))
  return groups, rates


def _interval(
  parts, shares, problems: int, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(value, low, high) of a stratified mean, f64[K]; parts: per stratum f64[read, K].

  After Korn and Graubard (1998, Survey Methodology 24:193): Clopper-Pearson with the effective
  number of problems, value (1 - value) / variance, at most that of the weights.
  """
  means = [part.mean(axis=0) for part in parts]
  value = sum(share * mean for share, mean in zip(shares, means, strict=True))
  variance = (
    sum(share * (mean - value) ** 2 for share, mean in zip(shares, means, strict=True)) / problems
  )
  for part, share in zip(parts, shares, strict=True):
    # one problem shows no spread: the largest there is
    spread = part.var(axis=0, ddof=1) if len(part) > 1 else np.full(len(value), 0.25)
    variance = variance + share**2 * spread / len(part)
  value = np.clip(value, 0.0, 1.0)
  most = 1.0 / sum(share**2 / len(part) for part, share in zip(parts, shares, strict=True))
  with np.errstate(divide='ignore', invalid='ignore'):
    effective = np.where(variance > 0, value * (1 - value) / variance, most)
  effective = np.clip(np.where((value <= 0) | (value >= 1), most, effective), 1.0, most)
  low, high = clopper_pearson(value * effective, effective, level)
  return value, low, high


def _validity(rates, shares, level, extra) -> tuple[float, float, float]:
  """Share of correct completions that are valid: a ratio of two stratified means, and its ends."""
  right, valid = (
    sum(share * rate[:, column].mean() for share, rate in zip(shares, rates, strict=True))
    for column in (0, 1)
  )
  ratio = min(max(valid / right, 0.0), 1.0) if right else 0.0
  variance = most = 0.0
  for share, rate in zip(shares, rates, strict=True):
    residual = (rate[:, 1] - ratio * rate[:, 0]) / right if right else rate[:, 0]
    spread = residual.var(ddof=1) if len(residual) > 1 else 0.25
    variance += share**2 * spread / len(rate)
    most += (share * rate[:, 0].mean() / right) ** 2 / len(rate) if right else 0.0
  most = 1.0 / most if most else 1.0
  inside = 0 < ratio < 1 and variance > 0
  effective = min(max(ratio * (1 - ratio) / variance, 1.0), most) if inside else most
  low, high = clopper_pearson(ratio * effective, effective, level)
  ends = (float(low), float(high))
  if extra is not None:
    ends = min(ends[0], extra.validity[0]), max(ends[1], extra.validity[1])
  return ratio, *ends


def kappa(first: Sequence[str], second: Sequence[str], *, level: float = 0.95, seed: int = 0):
  """Cohen's kappa of two readers' labels of the same completions: (value, low, high), or None.

  (agreement - chance) / (1 - chance); the interval is a bootstrap over completions. None where
  chance alone would agree always (both used one label only).
  """
  if len(first) != len(second) or not first:
    raise ValueError(f'two readers of the same completions: {len(first)} and {len(second)} labels')
  codes = {label: at for at, label in enumerate(LABELS)}
  pairs = np.array([(codes[a], codes[b]) for a, b in zip(first, second, strict=True)])

  def value(rows: np.ndarray) -> float:
    table = np.zeros((3, 3))
    np.add.at(table, (rows[:, 0], rows[:, 1]), 1 / len(rows))
    chance = float(table.sum(axis=1) @ table.sum(axis=0))
    return (float(np.trace(table)) - chance) / (1 - chance) if chance < 1 else math.nan

  found = value(pairs)
  if math.isnan(found):
    return None
  rng = np.random.default_rng(seed)
  draws = [value(pairs[rng.integers(len(pairs), size=len(pairs))]) for _ in range(DRAWS)]
  tail = (1 - level) / 2
  low, high = np.nanquantile(draws, [tail, 1 - tail])
  return found, float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Calibration:
  """A judge against readers: of `valid` completions readers call valid it called `hits` valid, of
  `invalid` ones it called `rejections` invalid."""

  hits: int
  valid: int
  rejections: int
  invalid: int

  @property
  def sensitivity(self) -> float:
    return self.hits / self.valid

  @property
  def specificity(self) -> float:
    return self.rejections / self.invalid

  def draws(self, seed: int, size: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """(sensitivity, specificity) from their Jeffreys posteriors, f64[size] each."""
    rng = np.random.default_rng([seed, 7])
    return (
      rng.beta(self.hits + 0.5, self.valid - self.hits + 0.5, size),
      rng.beta(self.rejections + 0.5, self.invalid - self.rejections + 0.5, size),
    )


def calibrate(
  judge: Mapping[str, str], readers: Mapping[str, str], *, level: float = 0.95, seed: int = 0
) -> Calibration:
  """Compares a judge's labels with readers', by completion; 'unsure' of readers is left out.

  ValueError without readers' labels of both kinds, and for a judge that is not shown to be better
  than chance: its verdicts then say nothing that could be corrected.
  """
  both = {one: (judge[one], label) for one, label in readers.items() if one in judge}
  valid = [a == 'valid' for a, b in both.values() if b == 'valid']
  invalid = [a != 'valid' for a, b in both.values() if b == 'invalid']
  if not valid or not invalid:
    raise ValueError(
      f"a judge's verdicts are used only when calibrated against readers: they share {len(valid)} "
      f'completions that readers call valid and {len(invalid)} that they call invalid, and both '
      'are needed; have people read more of the page (--config.cot.readers)'
    )
  found = Calibration(sum(valid), len(valid), sum(invalid), len(invalid))
  youden = np.add(*found.draws(seed)) - 1
  if np.quantile(youden, (1 - level) / 2) <= 0:
    raise ValueError(
      f'the judge agrees with readers on {found.hits} of {found.valid} valid and '
      f'{found.rejections} of {found.invalid} invalid completions, which does not show it to be '
      'better than chance; have people read more, or take another judge'
    )
  return found


def corrected(label: bool, sensitivity: float, specificity: float) -> float:
  """An unbiased estimate of a completion's validity from a judge's label (Rogan and Gladen 1978,
  American Journal of Epidemiology 107:71): (label + specificity - 1) / (sensitivity + specificity
  - 1). It lies outside [0, 1]; only means of it are read."""
  return (float(label) + specificity - 1) / (sensitivity + specificity - 1)


def judged_estimate(
  strata: Sequence[Stratum],
  labels: Mapping[str, tuple[int, int, Sequence[bool]]],
  counts: Counts,
  ks: Sequence[int],
  calibration: Calibration,
  *,
  level: float = 0.95,
  seed: int = 0,
  draws: int = 400,
) -> Estimate:
  """cot_pass@k from a judge's labels, corrected for its errors, with their chance in the interval.

  labels: by problem (n, c, labels of m correct completions). The errors of a judge are taken to be
  independent between completions, and as frequent everywhere as where readers looked.
  """

  def read(sensitivity: float, specificity: float) -> dict[str, Read]:
    return {
      problem: Read(problem, n, c, tuple(corrected(one, sensitivity, specificity) for one in found))
      for problem, (n, c, found) in labels.items()
    }

  shares = [len(stratum.problems) / len(counts) for stratum in strata]
  ks = tuple(int(k) for k in ks)
  lows, highs, validity = [], [], []
  for se, sp in zip(*calibration.draws(seed, draws), strict=True):
    if se + sp - 1 <= 0.05:  # no correction is defined there; calibrate() keeps these rare
      continue
    groups, rates = _values(strata, read(se, sp), counts, ks)
    for column, kept in ((0, lows), (1, highs)):
      parts = [np.stack([pair[column] for pair in group]).mean(axis=0) for group in groups]
      kept.append(sum(share * part for share, part in zip(shares, parts, strict=True)))
    right, valid = (
      sum(share * rate[:, column].mean() for share, rate in zip(shares, rates, strict=True))
      for column in (0, 1)
    )
    validity.append(valid / right if right else 0.0)
  tail = (1 - level) / 2
  extra = Extra(
    np.clip(np.quantile(lows, tail, axis=0), 0, 1),
    np.clip(np.quantile(highs, 1 - tail, axis=0), 0, 1),
    tuple(np.clip(np.quantile(validity, [tail, 1 - tail]), 0, 1).tolist()),
  )
  at = read(calibration.sensitivity, calibration.specificity)
  return estimate(strata, at, counts, ks, level=level, extra=extra)
