"""pass@k equals the exact rational estimator, is unbiased, and meets the known solve rates."""

import fractions
import itertools
import math
import tracemalloc

import numpy as np
import pytest
from scipy import special, stats

from rlvr_jax.eval import exact, pass_at_k


def rational(n, c, k):
  return fractions.Fraction(math.comb(n, k) - math.comb(n - c, k), math.comb(n, k))


@pytest.mark.parametrize('n', [1, 2, 7, 64, 257, 1024])
def test_estimate_equals_exact_rationals(n):
  cs = sorted({0, 1, 2, 3, n // 3, n // 2, n - 1, n} & set(range(n + 1)))
  ks = sorted({1, 2, 5, n // 4, n // 2, n - 1, n} & set(range(1, n + 1)))
  got = pass_at_k.estimate(np.full(len(cs), n), np.array(cs), ks)
  want = [[float(rational(n, c, k)) for k in ks] for c in cs]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('n', [16, 100])
def test_every_count_and_every_k_equal_exact_rationals(n):
  c, ks = np.arange(n + 1), np.arange(1, n + 1)
  got = pass_at_k.estimate(np.full(n + 1, n), c, ks)
  want = [[float(rational(n, int(i), int(k))) for k in ks] for i in c]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.check
def test_a_grid_of_every_n_up_to_1024_equals_exact_rationals():
  for n in [*range(1, 65), *range(65, 1025, 41), 1024]:
    cs = np.unique(np.round(np.linspace(0, n, 33)).astype(int))
    ks = np.unique(np.round(np.geomspace(1, n, 33)).astype(int))
    got = pass_at_k.estimate(np.full(len(cs), n), cs, ks)
    want = [[float(rational(n, int(c), int(k))) for k in ks] for c in cs]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_a_hundred_thousand_samples_are_finite_and_right_in_bounded_memory():
  """Of c = 1 it is k / n; others against log-gamma, which is good to 1e-9 there."""
  n = 100_000
  c = np.unique(np.concatenate([[0, 1, n - 1, n], np.geomspace(2, n, 60).astype(np.int64)]))
  ks = pass_at_k.k_grid(n, 24)
  tracemalloc.start()
  got = pass_at_k.estimate(np.full(len(c), n), c, ks)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 300 * 2**20
  assert np.isfinite(got).all()
  np.testing.assert_allclose(got[1], ks / n, rtol=1e-9)
  assert (got[0] == 0).all()
  assert (got[-1] == 1).all()
  left = n - c[:, None] - ks
  log = special.gammaln(n - c[:, None] + 1) + special.gammaln(n - ks + 1)
  log = log - special.gammaln(np.maximum(left, 0) + 1) - special.gammaln(n + 1)
  want = np.where(left >= 0, -np.expm1(np.minimum(log, 0)), 1.0)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-8)


def test_sampling_variance_is_the_sum_over_all_counts():
  for n, k in [(1, 1), (7, 3), (12, 12), (40, 25)]:
    p = np.array([0.0, 0.003, 0.3, 0.9, 1.0])
    c = np.arange(n + 1)
    value = np.array([float(rational(n, int(i), k)) for i in c])
    chance = stats.binom.pmf(c, n, p[:, None])
    want = chance @ value**2 - (chance @ value) ** 2
    np.testing.assert_allclose(exact.sampling_variance(n, p, k), want, rtol=0, atol=1e-12)


def test_sampling_variance_of_many_samples_is_that_of_the_delta_method():
  n, k, p = 100_000, 64, np.array([0.001, 0.02])
  slope = k * (1 - p) ** (k - 1)
  np.testing.assert_allclose(
    exact.sampling_variance(n, p, k), slope**2 * p * (1 - p) / n, rtol=0.03
  )


def test_problems_may_differ_in_n():
  n, c = np.array([8, 5, 8, 13]), np.array([3, 0, 8, 1])
  got = pass_at_k.estimate(n, c, [1, 3, 5])
  for row, (total, solved) in enumerate(zip(n.tolist(), c.tolist(), strict=True)):
    one = pass_at_k.estimate(np.array([total]), np.array([solved]), [1, 3, 5])[0]
    np.testing.assert_array_equal(got[row], one)
    assert got[row, 2] == pytest.approx(float(rational(total, solved, 5)), abs=1e-12)


@pytest.mark.parametrize('k', [0, -1, 6])
def test_k_outside_the_samples_is_refused(k):
  with pytest.raises(ValueError, match='between 1 and 5'):
    pass_at_k.estimate(np.array([9, 5]), np.array([1, 1]), [k])


def test_estimate_is_unbiased_and_its_spread_is_the_stated_one():
  rng = np.random.default_rng(5)
  p, n, ks, draws = np.array([0.002, 0.03, 0.2, 0.7]), 64, [1, 4, 16, 48], 4000
  means = np.array(
    [pass_at_k.estimate(np.full(4, n), rng.binomial(n, p), ks).mean(0) for _ in range(draws)]
  )
  truth = pass_at_k.exact(p, ks).mean(0)
  sd = exact.sampling_sd(np.full(4, n), p, ks)
  assert (abs(means.mean(0) - truth) < 4 * sd / np.sqrt(draws)).all()
  np.testing.assert_allclose(means.std(0), sd, rtol=0.06)  # 4 SDs of an SD from 4000 draws


def test_exact_curve_of_certain_and_tiny_rates():
  got = pass_at_k.exact(np.array([0.0, 1.0, 1e-12]), [1, 1000])
  np.testing.assert_allclose(got, [[0, 0], [1, 1], [1e-12, 1e-9]], rtol=1e-9)
  with pytest.raises(ValueError, match=r'\[0, 1\]'):
    pass_at_k.exact(np.array([1.2]), [1])


def test_sampled_curve_agrees_with_the_exact_one_and_a_wrong_one_is_found():
  rng = np.random.default_rng(1)
  p = rng.beta(0.3, 2.0, 100)
  n = np.full(100, 256)
  c = rng.binomial(n, p)
  ks = [1, 8, 64, 256]
  assert max(abs(row.z) for row in exact.sampled_vs_exact(n, c, p, ks)) < 4
  wrong = exact.sampled_vs_exact(n, c, np.clip(p * 1.3, 0, 1), ks)
  assert max(abs(row.z) for row in wrong) > 6
  certain = exact.sampled_vs_exact(np.array([4]), np.array([3]), np.array([1.0]), [1])
  assert certain[0].z == -np.inf


def test_exact_coverage_names_the_truly_lost():
  sets = exact.exact_coverage(['a', 'b', 'c'], [0.5, 0.01, 0.0], [0.5, 1e-6, 1e-3], [100, 10**7])
  assert sets[0].base_only == ('b',)
  assert sets[0].neither == ('c',)
  assert sets[1].both == ('a', 'b')
  assert sets[1].rl_only == ('c',)


@pytest.mark.parametrize('n', [1, 3, 4, 100, 1024, 1000])
def test_grid_and_headline_stay_inside_n(n):
  grid = pass_at_k.k_grid(n)
  assert grid[0] == 1
  assert grid[-1] == n
  assert (np.diff(grid) > 0).all()
  assert pass_at_k.headline_k(n) <= max(1, n / 4)
  assert pass_at_k.headline_k(n) in grid


def brute_majority(answers, correct, k):
  total = fractions.Fraction(0)
  subsets = list(itertools.combinations(range(len(answers)), k))
  for subset in subsets:
    votes = {}
    for i in subset:
      if answers[i]:
        votes[answers[i]] = votes.get(answers[i], 0) + 1
    if votes:
      top = [a for a, v in votes.items() if v == max(votes.values())]
      good = sum(bool(correct[answers.index(a)]) for a in top)
      total += fractions.Fraction(good, len(top))
  return float(total / len(subsets))


@pytest.mark.parametrize('k', [1, 3, 4, 8])
def test_majority_vote_against_all_subsets(k):
  answers = ['4', '4', '5', '', '5', '5', '7', '4']
  correct = [a == '4' for a in answers]
  got = pass_at_k.maj_at_k(answers, correct, k)
  slack = 0 if k in (1, 8) else 4 * 0.5 / np.sqrt(4096)  # 4 SDs of a mean of 4096 draws
  assert got == pytest.approx(brute_majority(answers, correct, k), abs=slack + 1e-12)


def test_majority_without_any_answer_is_zero():
  assert pass_at_k.maj_at_k(['', ''], [False, False], 2) == 0.0
