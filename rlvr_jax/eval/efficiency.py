"""What samples cost: the sampling-efficiency gap, pass@k against tokens, and length caps.

Everything is computed again from counts and lengths that are stored; nothing is sampled.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from rlvr_jax.eval import pass_at_k
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.intervals import RESAMPLES, Band, difference_interval, mean_interval


@dataclasses.dataclass(frozen=True)
class Gap:
  """Delta_SE = pass@k(base) - pass@1(RL), arXiv 2504.13837 section 4.3, with its paired interval.

  How much of what the base reaches with k tries the trained model gives at the first. base, rl: the
  two terms with their own intervals; method: of the difference's.
  """

  k: int
  value: float
  low: float
  high: float
  base: tuple[float, float, float]
  rl: tuple[float, float, float]
  method: str


def sampling_efficiency_gap(
  base: Counts,
  rl: Counts,
  k: int = 0,
  *,
  level: float = 0.95,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> Gap:
  """The Gap at k (0: the base's smallest n), paired by problem."""
  base, rl = align(base, rl)
  k = k or base.smallest_n
  options = {'level': level, 'resamples': resamples, 'seed': seed}
  reached = pass_at_k.estimate(base.n, base.c, [k])
  first = rl.rates[:, None]
  band = difference_interval(reached - first, **options)
  return Gap(
    k,
    *band.at(0),
    mean_interval(reached, **options).at(0),
    mean_interval(first, **options).at(0),
    band.method[0],
  )


def mean_tokens(counts: Counts, *, observed: bool = False) -> float:
  """Sampled tokens a completion, over all completions of the store, errors included.

  observed: with those that conversations were told, which are read and not decoded.
  """
  errors = counts.verdicts.get('error')
  drawn = int(counts.n.sum()) + (0 if errors is None else int(np.sum(errors)))
  if not counts.tokens:
    raise ValueError('these counts hold no tokens; take them from a store whose rows have lengths')
  return (counts.tokens + (counts.observed if observed else 0)) / drawn


def at_real_k(counts: Counts, ks: np.ndarray) -> np.ndarray:
  """Unbiased pass@k of each problem at real k >= 1, f64[P,K], linear between whole k."""
  ks = np.asarray(ks, np.float64)
  n = counts.smallest_n
  if not len(ks) or ks.min() < 1 - 1e-9 or ks.max() > n + 1e-9:
    raise ValueError(f'k={ks.tolist()} must lie between 1 and {n}')
  low = np.clip(np.floor(ks + 1e-9).astype(np.int64), 1, n)
  high = np.minimum(low + 1, n)
  share = np.clip(ks - low, 0, 1)
  below = pass_at_k.estimate(counts.n, counts.c, low)
  above = pass_at_k.estimate(counts.n, counts.c, high)
  return (1 - share) * below + share * above


@dataclasses.dataclass(frozen=True)
class TokenCurve:
  """pass@k of one model against the tokens that k completions of a problem take on average."""

  tokens: np.ndarray  # f64[K], k times the mean length
  ks: np.ndarray  # i64[K]
  band: Band
  mean_tokens: float


def token_curve(
  counts: Counts,
  ks: Sequence[int] | np.ndarray | None = None,
  *,
  observed: bool = False,
  level: float = 0.95,
  seed: int = 0,
) -> TokenCurve:
  """pass@k with its interval over problems, on a token axis; observed: see mean_tokens."""
  grid = pass_at_k.k_grid(counts.smallest_n) if ks is None else np.asarray(ks, np.int64)
  band = mean_interval(pass_at_k.estimate(counts.n, counts.c, grid), level=level, seed=seed)
  length = mean_tokens(counts, observed=observed)
  return TokenCurve(grid * length, grid, band, length)


@dataclasses.dataclass(frozen=True)
class TokenComparison:
  """b minus a at equal tokens: budgets f64[K] of a problem, the k each affords, the band."""

  budgets: np.ndarray
  k_a: np.ndarray
  k_b: np.ndarray
  difference: Band


def difference_at_tokens(
  a: Counts,
  b: Counts,
  budgets: Sequence[float] | np.ndarray | None = None,
  *,
  points: int = 24,
  observed: bool = False,
  level: float = 0.95,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> TokenComparison:
  """Paired difference of pass@k where both models may write as many tokens of each problem.

  A budget buys budget / mean length completions, a real number of them. The default budgets go,
  even in the logarithm, from one completion of the longer model to all of the one that has fewer
  tokens.
  The mean lengths (observed: see mean_tokens) are taken as known: their sampling error is small
  beside that of problems.
  """
  a, b = align(a, b)
  cost_a, cost_b = (mean_tokens(one, observed=observed) for one in (a, b))
  least = max(cost_a, cost_b)
  most = min(cost_a * a.smallest_n, cost_b * b.smallest_n)
  if budgets is None:
    if least > most:
      raise ValueError(
        f'one completion of one model takes {least:.0f} tokens, more than all {most:.0f} of the '
        'other: there is no budget at which both have a pass@k; draw more samples'
      )
    budgets = np.geomspace(least, most, points)
  budgets = np.asarray(budgets, np.float64)
  if budgets.min() < least * (1 - 1e-9) or budgets.max() > most * (1 + 1e-9):
    raise ValueError(
      f'budgets of {budgets.min():.0f} to {budgets.max():.0f} tokens: with these samples they may '
      f'go from {least:.0f} to {most:.0f}'
    )
  k_a = np.clip(budgets / cost_a, 1, a.smallest_n)
  k_b = np.clip(budgets / cost_b, 1, b.smallest_n)
  differences = at_real_k(b, k_b) - at_real_k(a, k_a)
  band = difference_interval(differences, level=level, resamples=resamples, seed=seed)
  return TokenComparison(budgets, k_a, k_b, band)


def capped_counts(rows: pa.Table, caps: Sequence[int], *, coupling: str = '') -> dict[int, Counts]:
  """Counts as if completions had been cut at each cap: a longer one is not correct.

  rows: problem_id, verdict, length, finish of a store (SampleStore.read, visit 0); lengths in
  tokens with the stop token. Below the cap that was sampled under this is exact of the same draws,
  where a verdict needs the whole completion: an answer given early in one that runs on does not
  count.
  ValueError for a cap above that at which completions were cut: what it would give was not drawn.
  """
  length = rows['length'].to_numpy()
  if not len(length):
    raise ValueError('no rows: there is nothing to cap')
  cut = np.array(rows['finish'].to_pylist(), object) == 'length'
  for cap in caps:
    if cap < 1 or (cut.any() and cap > length[cut].max()):
      raise ValueError(
        f'cap={cap}: a cap is at least 1 token, and these completions were cut at '
        f'{length[cut].max() if cut.any() else "none"}: what they would have given beyond was not '
        'drawn'
      )
  names = np.array(rows['problem_id'].to_pylist(), object)
  verdict = np.array(rows['verdict'].to_pylist(), object)
  counted = verdict != 'error'
  ids, where = np.unique(names.astype(str), return_inverse=True)
  n = np.bincount(where[counted], minlength=len(ids))
  found = {}
  for cap in caps:
    within = counted & (verdict == 'correct') & (length <= cap)
    found[int(cap)] = Counts(
      tuple(ids.tolist()),
      n,
      np.bincount(where[within], minlength=len(ids)),
      tokens=int(np.minimum(length, cap).sum()),
      truncated=int((length > cap).sum()),
      coupling=coupling or 'independent',
    )
  return found


def cap_grid(rows: pa.Table, points: int = 8) -> list[int]:
  """Caps even in the logarithm, from the shortest correct completion to the longest of all."""
  length = rows['length'].to_numpy()
  right = np.array(rows['verdict'].to_pylist(), object) == 'correct'
  low = int(length[right].min()) if right.any() else int(length.min())
  return sorted(
    {int(cap) for cap in np.geomspace(max(low, 1), max(length.max(), 1), points).round()}
  )


def cap_curves(
  by_cap: Mapping[int, Counts], ks: Sequence[int], *, level: float = 0.95, seed: int = 0
) -> dict[int, Band]:
  """k -> Band over the caps (ascending) of the mean pass@k."""
  caps = sorted(by_cap)
  found = {}
  for k in ks:
    values = np.stack(
      [pass_at_k.estimate(by_cap[c].n, by_cap[c].c, [k])[:, 0] for c in caps], axis=1
    )
    found[int(k)] = mean_interval(values, level=level, seed=seed)
  return found
