"""pass@k, avg@k and maj@k from counted samples.

pass@k of a problem with c correct among n samples is 1 - C(n-c, k) / C(n, k) (Chen et al. 2021,
arXiv 2107.03374), the unbiased estimate of 1 - (1 - p)^k. With k = 1..n in one pass it is
1 - cumprod_i (n - c - i) / (n - i), i = 0..k-1, in float64; where n is large, the rows of that
table are made a block at a time and only the columns asked for are kept.
"""

from collections.abc import Sequence

import numpy as np

BLOCK = 4_000_000  # entries of a table that exist at once


def failure_table(n: int, c: np.ndarray, last: int = 0) -> np.ndarray:
  """C(n-c, k) / C(n, k) for every given c and k = 1..last (0: n), f64[len(c), last]."""
  i = np.arange(last or n)
  factors = np.clip((n - np.asarray(c)[:, None] - i) / (n - i), 0.0, None)
  return np.cumprod(factors, axis=1)


def failures(n: int, c: np.ndarray, ks: np.ndarray) -> np.ndarray:
  """C(n-c, k) / C(n, k) for every given c and k, f64[len(c), len(ks)], in bounded memory."""
  ks = np.asarray(ks, np.int64)
  last = int(ks.max())
  c = np.asarray(c, np.int64)
  values = np.empty((len(c), len(ks)))
  rows = max(1, BLOCK // last)
  for start in range(0, len(c), rows):
    block = slice(start, start + rows)
    values[block] = failure_table(n, c[block], last)[:, ks - 1]
  return values


def check_ks(ks: Sequence[int] | np.ndarray, limit: int) -> np.ndarray:
  """ks as i64, refused (ValueError) unless all lie in 1..limit."""
  ks = np.atleast_1d(np.asarray(ks, np.int64))
  if ks.size == 0 or ks.min() < 1 or ks.max() > limit:
    raise ValueError(
      f'k={ks.tolist()} must lie between 1 and {limit}, the smallest number of samples of any '
      'problem; draw more samples or ask for a smaller k'
    )
  return ks


def estimate(n: np.ndarray, c: np.ndarray, ks: Sequence[int] | np.ndarray) -> np.ndarray:
  """Unbiased pass@k per problem: n, c i64[P] -> f64[P, len(ks)]; n may differ between problems."""
  n, c = np.asarray(n, np.int64), np.asarray(c, np.int64)
  ks = check_ks(ks, int(n.min()))
  values = np.empty((len(n), len(ks)))
  for total in np.unique(n):
    rows = np.flatnonzero(n == total)
    distinct, where = np.unique(c[rows], return_inverse=True)
    values[rows] = 1.0 - failures(int(total), distinct, ks)[where]
  return values


def exact(p: np.ndarray, ks: Sequence[int] | np.ndarray) -> np.ndarray:
  """1 - (1 - p)^k for known solve probabilities: p f64[P] -> f64[P, len(ks)]."""
  p = np.asarray(p, np.float64)
  if p.size == 0 or not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1):
    raise ValueError('solve probabilities must be finite and lie in [0, 1]')
  ks = np.atleast_1d(np.asarray(ks, np.int64))
  with np.errstate(divide='ignore'):  # p = 1 gives log 0 = -inf, and expm1(-inf) = -1 is right
    return -np.expm1(np.log1p(-p)[:, None] * ks)


def avg_at_n(n: np.ndarray, c: np.ndarray) -> np.ndarray:
  """Mean accuracy per problem, f64[P]: avg@n, and the expectation of avg@k for every k."""
  return np.asarray(c) / np.asarray(n)


def k_grid(n: int, points: int = 48) -> np.ndarray:
  """About `points` integers from 1 to n, even in log k, powers of two and n among them."""
  powers = 2 ** np.arange(int(np.log2(n)) + 1)
  spread = np.unique(np.round(np.geomspace(1, n, points)).astype(np.int64))
  return np.unique(np.concatenate([spread, powers, [n]]))


def headline_k(n: int) -> int:
  """The largest power of two not above n / 4 (at least 1): where the estimate is still quiet."""
  return max(1, 2 ** int(np.log2(max(n // 4, 1))))


def maj_at_k(
  answers: Sequence[str],
  correct: Sequence[bool],
  k: int,
  *,
  draws: int = 4096,
  seed: int = 0,
) -> float:
  """Expected correctness of the majority answer among k of one problem's samples.

  answers are the extracted answers ('' casts no vote); an answer given with both verdicts counts
  by its share of correct ones. Ties share the credit. Exact for k = 1 and k = n, otherwise the
  mean over `draws` subsets drawn without replacement.
  """
  if len(answers) != len(correct):
    raise ValueError(f'{len(answers)} answers but {len(correct)} verdicts')
  check_ks([k], len(answers))
  names = sorted(set(answers) - {''})
  if not names:
    return 0.0
  index = {name: position for position, name in enumerate(names)}
  votes = np.zeros(len(names) + 1, np.int64)  # the last entry holds the blanks
  right = np.zeros(len(names))
  for answer, good in zip(answers, correct, strict=True):
    votes[index.get(answer, -1)] += 1
    if answer:
      right[index[answer]] += bool(good)
  credit = right / votes[:-1]
  if k == 1:
    return float((votes[:-1] * credit).sum() / len(answers))
  if k == len(answers):
    drawn = votes[None]
  else:
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(
      votes, k, size=draws, method='marginals'
    )
  ballots = drawn[:, :-1]
  most = ballots.max(axis=1, keepdims=True)
  tied = (ballots == most) & (most > 0)
  return float(((tied * credit).sum(1) / np.maximum(tied.sum(1), 1)).mean())
