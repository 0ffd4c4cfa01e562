"""Reliability, support and guess rates do what their definitions say, counted by brute force."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rlvr_jax.eval import guess, pass_at_k, reliability, support
from rlvr_jax.eval.counts import Counts


def make(n, c, ids=None):
  c = np.asarray(c)
  ids = [f'p{i}' for i in range(len(c))] if ids is None else ids
  return Counts(tuple(ids), np.full(len(c), n), c)


def subsets(n, c, k):
  """Number correct in every subset of k of n samples."""
  flags = [1] * c + [0] * (n - c)
  return np.array([sum(one) for one in itertools.combinations(flags, k)])


@pytest.mark.parametrize('c', [0, 1, 4, 8, 9])
@pytest.mark.parametrize('k', [1, 3, 4, 9])
def test_all_measures_by_counting_subsets(c, k):
  n, counted = 9, subsets(9, c, k)
  one = np.array([n]), np.array([c])
  for tau in (0.0, 0.1, 0.34, 0.5, 0.75, 1.0):
    want = (counted >= max(1, math.ceil(tau * k))).mean()
    assert reliability.g_pass_at_k(*one, k, tau)[0] == pytest.approx(want, abs=1e-9)
  assert reliability.pass_power_k(*one, [k])[0, 0] == pytest.approx(
    (counted == k).mean(), abs=1e-12
  )
  taus = (np.arange(20_000) + 0.5) / 40_000 + 0.5
  integral = np.mean([(counted >= math.ceil(t * k)).mean() for t in taus[::20]])
  assert reliability.mg_pass_at_k(*one, k)[0] == pytest.approx(integral, abs=2e-3)


def test_ends_of_tau_are_pass_at_k_and_pass_power_k():
  n, c = np.full(65, 64), np.arange(65)
  for k in (1, 10, 64):
    solved = pass_at_k.estimate(n, c, [k])[:, 0]
    np.testing.assert_allclose(reliability.g_pass_at_k(n, c, k, 0.0), solved, atol=1e-9)
    every = reliability.pass_power_k(n, c, [k])[:, 0]
    np.testing.assert_allclose(reliability.g_pass_at_k(n, c, k, 1.0), every, atol=1e-9)


@pytest.mark.parametrize(('k', 'tau', 'want'), [(30, 0.1, 3), (10, 0.7, 7), (3, 0.5, 2), (7, 0, 1)])
def test_rounding_does_not_ask_for_one_more(k, tau, want):
  assert reliability.needed(k, tau) == want


def test_cover_counts_problems_at_or_above_tau():
  counts = make(10, [0, 1, 3, 5, 9, 10])
  band = reliability.cover_at(counts, (0.1, 0.3, 0.5, 1.0))
  assert band.value.tolist() == pytest.approx([5 / 6, 4 / 6, 3 / 6, 1 / 6])
  assert (band.high > band.low).all()
  with pytest.raises(ValueError, match='above 0'):
    reliability.cover_at(counts, (0.0,))
  with pytest.raises(ValueError, match='share'):
    reliability.g_pass_at_k(counts.n, counts.c, 2, 1.5)


def test_pass_at_k_is_the_beta_weighted_integral_of_cover():
  """pass@k = integral of Cover@tau k (1 - tau)^(k-1) (arXiv 2510.08325), on the fitted curve."""
  rng = np.random.default_rng(0)
  counts = make(4096, rng.binomial(4096, rng.beta(0.8, 3.0, 300)))
  taus = (np.arange(2000) + 0.5) / 2000
  cover = (counts.rates[:, None] >= taus).mean(axis=0)
  for k in (1, 4, 16):
    got = (cover * k * (1 - taus) ** (k - 1)).mean()
    want = pass_at_k.estimate(counts.n, counts.c, [k]).mean()
    assert got == pytest.approx(want, abs=2e-3)


def test_the_posterior_cover_takes_the_noise_out():
  """Of 8 samples the raw share at a high tau is far too high; the posterior's is close."""
  rng = np.random.default_rng(1)
  p = rng.beta(6.0, 6.0, 3000)
  counts = make(8, rng.binomial(8, p))
  truth = (p >= 0.75).mean()
  raw = reliability.cover_at(counts, (0.75,), resamples=200).at(0)
  fitted = reliability.cover_posterior(counts, (0.75,), resamples=200).at(0)
  assert raw[0] > truth + 0.08
  assert fitted[0] == pytest.approx(truth, abs=0.02)


def test_majority_of_all_is_the_plain_majority():
  answers = [['4', '4', '5'], ['1', '2', '2']]
  correct = [[True, True, False], [True, False, False]]
  got = reliability.majority(answers, correct, [1, 3])
  np.testing.assert_allclose(got, [[2 / 3, 1.0], [1 / 3, 0.0]])


def test_support_shares_are_counted():
  base, rl = make(16, [3, 1, 0, 0, 9, 0]), make(16, [5, 0, 2, 0, 1, 0])
  one = support.support(base, rl, (1, 2), resamples=200)[0]
  assert one.sizes == {'both': 2, 'base_only': 1, 'rl_only': 1, 'neither': 2}
  assert one.retention[0] == pytest.approx(2 / 3)
  assert one.discovery[0] == pytest.approx(1 / 3)
  assert one.new_share[0] == pytest.approx(1 / 3)
  assert one.net[0] == 0
  assert one.net_change == 0
  assert one.balance == pytest.approx(2 * (2 / 3) * (1 / 3) / 1)
  low, high = stats.binomtest(2, 3).proportion_ci(method='exact')
  assert one.retention[1:] == pytest.approx((low, high))
  empty = support.support(make(4, [0, 0]), make(4, [0, 1]), (1,), resamples=50)[0]
  assert empty.retention is None
  assert empty.discovery[0] == 0.5


def test_chance_alone_loses_problems_and_it_is_said():
  """Base against itself: retention below 1, and as predicted."""
  rng = np.random.default_rng(2)
  p = rng.beta(0.3, 6.0, 4000)
  n = 32
  first, second = make(n, rng.binomial(n, p)), make(n, rng.binomial(n, p))
  one = support.support(first, second, (1,), resamples=100)[0]
  assert one.retention[0] < 0.95
  assert one.retention[1] <= one.retention_unchanged <= one.retention[2]
  assert one.discovery[1] <= one.discovery_unchanged <= one.discovery[2]
  assert one.net[1] <= 0 <= one.net[2]


def test_guess_correction_finds_the_reasoning_rate_again():
  """Tries that succeed by reasoning (r) or by a guess (g): the corrected curve is that of r."""
  rng = np.random.default_rng(3)
  problems, n, ks = 400, 256, [1, 16, 64]
  r = rng.beta(0.5, 6.0, problems) * (rng.uniform(size=problems) < 0.6)
  g = rng.uniform(0, 0.009, problems)
  counts = make(n, rng.binomial(n, 1 - (1 - r) * (1 - g)))
  guesses = make(20_000, rng.binomial(20_000, g))
  found = guess.corrected_pass_at_k(counts, guesses, ks, resamples=500)
  truth = pass_at_k.exact(r, ks).mean(axis=0)
  raw_gap, gap = abs(found.measured.value - truth), abs(found.corrected.value - truth)
  assert (gap < raw_gap).all()
  assert raw_gap[2] > 0.1
  assert gap[:2].max() < 0.01
  assert (found.corrected.low <= truth).all()
  assert (truth <= found.corrected.high).all()
  assert (found.undecidable == 0).all()
  assert (found.cautious.value <= found.corrected.value).all()
  np.testing.assert_allclose(
    found.guessing.value, pass_at_k.exact(guesses.rates, ks).mean(axis=0), atol=1e-12
  )


def test_lucky_guesses_reach_what_the_formula_says():
  sure = guess.beyond_guessing(np.array([[0.5], [0.0]]), np.array([0.0, 1.0]), np.array([128]))
  assert sure.ravel().tolist() == [0.5, 0.0]
  for q, k, want in [(0.001, 128, 0.12), (0.001, 1024, 0.64), (0.005, 128, 0.47)]:
    assert pass_at_k.exact(np.array([q]), [k])[0, 0] == pytest.approx(want, abs=0.005)


def test_guessable_problems_are_dropped_by_name():
  guesses = make(100, [0, 2, 60], ids=['a', 'b', 'c'])
  counts = make(8, [1, 2, 3], ids=['c', 'a', 'b'])
  assert guess.guessable(guesses) == ('b', 'c')
  assert guess.guessable(guesses, rate=0.5) == ('c',)
  kept = guess.drop_guessable(counts, guesses)
  assert kept.dropped == ('c', 'b')
  assert kept.counts.problem_ids == ('a',)
  rates = guess.guess_rates(guesses)
  assert rates.low[0] == 0
  assert 0 < rates.high[0] < 0.04
  with pytest.raises(ValueError, match='all 3 problems'):
    guess.drop_guessable(counts, make(4, [1, 1, 1], ids=['a', 'b', 'c']))
  with pytest.raises(ValueError, match='hits=0'):
    guess.guessable(guesses, hits=0)
