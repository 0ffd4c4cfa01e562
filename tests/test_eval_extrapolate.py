"""The fit is the maximum of an independent likelihood; what lies beyond n is named and covered."""

import numpy as np
import pytest
from scipy import stats

from rlvr_jax.eval import extrapolate, pass_at_k
from rlvr_jax.eval.counts import Counts


def draw(rng, problems, n, zero, a, b):
  p = np.where(rng.uniform(size=problems) < zero, 0.0, rng.beta(a, b, problems))
  return p, rng.binomial(n, p)


def make(n, c):
  return Counts(tuple(f'p{i}' for i in range(len(c))), np.full(len(c), n), c)


def log_likelihood(found, n, c):
  """By scipy's own beta-binomial."""
  rest = (1 - found.zero) * stats.betabinom.pmf(c, n, found.a, found.b)
  return np.log(rest + found.zero * (c == 0)).sum()


def test_the_gradient_is_that_of_the_likelihood():
  rng = np.random.default_rng(0)
  n = rng.integers(5, 60, 40).astype(float)
  c = np.floor(rng.uniform(size=40) * (n + 1)) * (rng.uniform(size=40) < 0.6)
  theta = np.array([[-0.7, -0.4, 0.9], [2.0, 1.0, -1.0]])
  terms, gradient = extrapolate._terms(theta, n, c)
  for row, (logit, a, b) in enumerate(theta):
    plain = extrapolate.Fit(1 / (1 + np.exp(-logit)), np.exp(a), np.exp(b), 0.0)
    ways = stats.binom.logpmf(c, n, 0.5) + n * np.log(2)  # log of the binomial coefficients
    assert (terms[row] + ways).sum() == pytest.approx(log_likelihood(plain, n, c), rel=1e-9)
  for i in range(3):
    step = np.zeros(3)
    step[i] = 1e-5
    ends = [extrapolate._terms(theta + s * step, n, c)[0] for s in (1, -1)]
    np.testing.assert_allclose(gradient[:, :, i], (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-7)


def test_no_neighbour_of_the_fit_is_likelier():
  rng = np.random.default_rng(1)
  _, c = draw(rng, 300, 64, 0.25, 0.6, 3.0)
  n = np.full(300, 64)
  found = extrapolate.fit(n, c)
  best = log_likelihood(found, n, c)
  for _ in range(200):
    zero = np.clip(found.zero + rng.normal(0, 0.03), 1e-6, 1 - 1e-6)
    a, b = np.array([found.a, found.b]) * np.exp(rng.normal(0, 0.1, 2))
    assert log_likelihood(extrapolate.Fit(zero, a, b, 0.0), n, c) <= best + 1e-6


def test_a_planted_population_is_found():
  _, c = draw(np.random.default_rng(2), 6000, 256, 0.3, 0.7, 4.0)
  found = extrapolate.fit(np.full(6000, 256), c)
  assert found.zero == pytest.approx(0.3, abs=0.03)
  assert (found.a, found.b) == pytest.approx((0.7, 4.0), rel=0.1)


def test_weights_are_repetitions():
  rng = np.random.default_rng(3)
  _, c = draw(rng, 80, 32, 0.2, 0.5, 2.0)
  times = rng.integers(0, 4, 80)
  n = np.full(80, 32)
  one = extrapolate.fit(n, c, times)
  many = extrapolate.fit(np.repeat(n, times), np.repeat(c, times))
  assert (one.zero, one.a, one.b) == pytest.approx((many.zero, many.a, many.b), rel=1e-3)


@pytest.mark.parametrize(
  'c', [np.zeros(20), np.full(20, 16), np.full(20, 5), np.array([0, 16] * 9)]
)
def test_extreme_counts_give_finite_curves(c):
  found = extrapolate.extrapolate(make(16, c.astype(int)), refits=10)
  assert np.isfinite([found.value, found.low, found.high, found.marginal]).all()
  assert (found.high > found.low).all()
  assert ((found.value >= 0) & (found.value <= 1)).all()


def test_posterior_is_the_mean_over_the_posterior_density():
  found = extrapolate.Fit(0.3, 0.6, 2.5, 0.0)
  p = np.linspace(0, 1, 400_001)[1:-1]
  prior = 0.7 * stats.beta.pdf(p, found.a, found.b)
  for n, c in [(20, 0), (20, 3), (20, 20)]:
    like = stats.binom.pmf(c, n, p) * prior
    spike = 0.3 * (c == 0)
    whole = np.trapezoid(like, p) + spike
    for k in (1, 7, 200):
      want = np.trapezoid(like * -np.expm1(k * np.log1p(-p)), p) / whole
      got = extrapolate.posterior(found, [n], [c], [k])[0, 0]
      assert got == pytest.approx(want, abs=2e-3)
    mean, low, high = extrapolate.rates(found, [n], [c])
    assert mean[0] == pytest.approx(np.trapezoid(like * p, p) / whole, abs=2e-3)
    assert low[0] <= mean[0] <= high[0]


def test_the_spike_holds_what_was_never_solved_back():
  with_spike, without = extrapolate.Fit(0.5, 0.5, 2.0, 0.0), extrapolate.Fit(1e-9, 0.5, 2.0, 0.0)
  assert extrapolate.posterior(without, [64], [0], [10**7])[0, 0] > 0.99
  assert extrapolate.posterior(with_spike, [64], [0], [10**7])[0, 0] < 0.2
  assert extrapolate.unsolvable(with_spike, [64, 64], [0, 1])[1] == 0


def test_beyond_n_is_marked_and_the_raw_estimate_stands_beside():
  rng = np.random.default_rng(4)
  _, c = draw(rng, 60, 64, 0.2, 0.5, 3.0)
  counts = make(64, c)
  found = extrapolate.extrapolate(counts, refits=10)
  assert found.beyond.tolist() == (found.ks > 64).tolist()
  assert found.beyond.any()
  inside = ~found.beyond
  want = pass_at_k.estimate(counts.n, counts.c, found.ks[inside]).mean(axis=0)
  np.testing.assert_allclose(found.raw[inside], want)
  assert np.isnan(found.raw[found.beyond]).all()
  assert (np.diff(found.value) >= -1e-12).all()
  # up to n the model says what was counted
  np.testing.assert_allclose(found.value[inside], want, atol=0.02)


def test_the_interval_beyond_n_holds_the_truth():
  rng = np.random.default_rng(5)
  zero, a, b, n, ks = 0.2, 0.4, 3.0, 64, np.array([1, 64, 1024])
  truth = extrapolate.marginal(extrapolate.Fit(zero, a, b, 0.0), ks)
  held = np.zeros(3)
  runs = 30
  for run in range(runs):
    _, c = draw(rng, 100, n, zero, a, b)
    found = extrapolate.extrapolate(make(n, c), ks, refits=30, seed=run)
    held += (found.low <= truth) & (truth <= found.high)
  assert (held / runs >= 0.83).all()  # 0.95 promised where the form is true; 3 SDs of 30 runs


def test_a_crossing_beyond_n_is_found_and_called_extrapolated():
  rng = np.random.default_rng(6)
  n = 32
  base, _ = draw(rng, 500, n, 0.02, 0.9, 60.0)
  rl = np.where(rng.uniform(size=500) < 0.2, 0.0, np.minimum(1.0, base * 2.5))
  ks = pass_at_k.k_grid(64 * n, 300)
  gap = pass_at_k.exact(rl, ks).mean(0) - pass_at_k.exact(base, ks).mean(0)
  truth = ks[np.flatnonzero(gap > 0)[-1]]
  assert n < truth < 64 * n
  a, b = make(n, rng.binomial(n, base)), make(n, rng.binomial(n, rl))
  found = extrapolate.far_crossover(a, b, refits=40)
  assert found.extrapolated
  assert found.value is not None
  assert found.low <= truth <= found.high
  near = extrapolate.far_crossover(b, a, refits=5)
  assert (near.value is None) or near.value >= 1


def test_an_early_crossing_is_not_extrapolated():
  n = 64
  a, b = make(n, np.array([1] * 30 + [0] * 10)), make(n, np.array([30] * 15 + [0] * 25))
  found = extrapolate.far_crossover(a, b, refits=20)
  assert not found.extrapolated
  assert found.value < n
  with pytest.raises(ValueError, match='positive integer'):
    extrapolate.extrapolate(a, [0])
