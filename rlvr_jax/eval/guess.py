"""Lucky guesses: coverage corrected for what answering without reasoning would reach.

At k tries a per-try hit rate q alone solves 1 - (1 - q)^k: q = 0.1% is 12% at k = 128 and 64% at
k = 1024. The guess rate of a problem is measured by samples that must answer at once, without a
chain of thought (arXiv 2504.13837, App. D.2), as another model of the store.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlvr_jax.eval import pass_at_k
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.intervals import Band, beta_interval, difference_interval, mean_interval

GUESSED = 0.5  # chance of k guesses beyond which a problem says nothing about reasoning


@dataclasses.dataclass(frozen=True)
class GuessRates:
  """Per problem: guesses n, hits c (i64[P]), rate c/n and its Jeffreys interval (f64[P])."""

  problem_ids: tuple[str, ...]
  n: np.ndarray
  c: np.ndarray
  rate: np.ndarray
  low: np.ndarray
  high: np.ndarray


def guess_rates(guesses: Counts, level: float = 0.95) -> GuessRates:
  """The guess rates from counts of answers without reasoning."""
  low, high = beta_interval(guesses.n, guesses.c, level)
  return GuessRates(guesses.problem_ids, guesses.n, guesses.c, guesses.rates, low, high)


def guessable(guesses: Counts, *, hits: int = 1, rate: float = 0.0) -> tuple[str, ...]:
  """Problems to be dropped before a correct answer is taken for reasoning, in the counts' order.

  Those with at least `hits` hits, at a rate of at least `rate`. The paper drops problems that were
  answered without a chain of thought at a low, non-zero rate: hits=1.
  """
  if hits < 1 or not 0 <= rate <= 1:
    raise ValueError(f'hits={hits} must be at least 1 and rate={rate} lie in [0, 1]')
  drop = (guesses.c >= hits) & (guesses.rates >= rate)
  return tuple(problem for problem, out in zip(guesses.problem_ids, drop, strict=True) if out)


@dataclasses.dataclass(frozen=True)
class Filtered:
  """The counts without guessable problems, and the ids that were dropped."""

  counts: Counts
  dropped: tuple[str, ...]


def drop_guessable(counts: Counts, guesses: Counts, **rule: Any) -> Filtered:
  """Leaves out the guessable problems; rule: see guessable. ValueError if none would be left."""
  counts, guesses = align(counts, guesses)
  dropped = guessable(guesses, **rule)
  kept = [problem for problem in counts.problem_ids if problem not in set(dropped)]
  if not kept:
    raise ValueError(
      f'all {len(dropped)} problems were guessed at least once; ask for more hits, or a higher rate'
    )
  return Filtered(counts.select(kept), dropped)


@dataclasses.dataclass(frozen=True)
class Corrected:
  """Mean pass@k as measured, by guessing alone, and beyond guessing: Bands over ks.

  cautious: the last with every guess rate at the upper end of its Jeffreys interval, so that zero
  hits of few guesses do not pass for "cannot be guessed". undecidable: f64[K], share of problems
  that guessing alone solves more often than not, which count as not solved beyond it.
  """

  ks: np.ndarray
  measured: Band
  guessing: Band
  corrected: Band
  cautious: Band
  undecidable: np.ndarray


def beyond_guessing(failure: np.ndarray, rate: np.ndarray, ks: np.ndarray) -> np.ndarray:
  """Per problem 1 - P(k tries fail) / P(k guesses fail): f64[P, K] in [-1, 1].

  Abbott's formula (1925): if a try succeeds by reasoning or, independently, by a guess of rate g,
  then (1 - p) = (1 - r)(1 - g) and 1 - (1 - r)^k = (pass@k - g_k) / (1 - g_k) with
  g_k = 1 - (1 - g)^k. failure f64[P, K] estimates (1 - p)^k, rate f64[P] is g. Unbiased where
  failure is: a problem may come out below zero, their mean may not be cut there. 0 where
  g_k > GUESSED: dividing by little would only blow up noise.
  """
  missed = 1.0 - pass_at_k.exact(rate, ks)
  return np.where(missed >= 1 - GUESSED, 1.0 - failure / np.maximum(missed, 1 - GUESSED), 0.0)


def corrected_pass_at_k(
  counts: Counts,
  guesses: Counts,
  ks: Sequence[int] | np.ndarray,
  *,
  level: float = 0.95,
  **options: Any,
) -> Corrected:
  """pass@k of the counts with the guesses' rates taken out; options: resamples, seed.

  The two must be of the same problems. Intervals are over problems; the noise of a problem's own
  guess rate is in `cautious`.
  """
  counts, guesses = align(counts, guesses)
  ks = pass_at_k.check_ks(ks, counts.smallest_n)
  solved = pass_at_k.estimate(counts.n, counts.c, ks)
  found = guess_rates(guesses, level)
  options = {'level': level, **options}
  by_guess = pass_at_k.exact(found.rate, ks)
  beyond = beyond_guessing(1 - solved, found.rate, ks)
  least = np.minimum(beyond, beyond_guessing(1 - solved, found.high, ks))
  return Corrected(
    ks,
    mean_interval(solved, **options),
    mean_interval(by_guess, **options),
    _above_zero(difference_interval(beyond, **options)),
    _above_zero(difference_interval(least, **options)),
    (by_guess > GUESSED).mean(axis=0),
  )


def _above_zero(band: Band) -> Band:
  value, low, high = (np.maximum(x, 0.0) for x in (band.value, band.low, band.high))
  return Band(value, low, high, band.method)
