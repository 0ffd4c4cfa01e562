"""Intervals cover what they promise, near the boundary too, and never have zero width."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from rlvr_jax.eval import intervals, pass_at_k

LEVEL = 0.95
RUNS = 3000
# Promised 0.95; the percentile bootstrap itself gives about 0.94 for 100 skewed problems. The SD of
# a share of 3000 runs is 0.004, so 0.93 lies 2.5 SDs under that.
FLOOR = 0.93


def covered(band, truth):
  return float(np.mean((band.low <= truth) & (truth <= band.high)))


def beta_mean_pass(a, b, k):
  """E[1 - (1 - p)^k] for p ~ Beta(a, b)."""
  return -np.expm1(special.betaln(a, b + k) - special.betaln(a, b))


def draw(rng, a, b, problems, n, k):
  p = rng.beta(a, b, (problems, RUNS))
  table = pass_at_k.estimate(np.full(n + 1, n), np.arange(n + 1), [k])[:, 0]
  return table[rng.binomial(n, p)], p


@pytest.mark.parametrize(
  ('a', 'b', 'problems', 'k'),
  [
    (0.3, 2.0, 100, 1),  # a weak model at k = 1
    (0.3, 2.0, 100, 64),
    (0.5, 0.5, 60, 1),  # bootstrap, few problems
    (1.0, 1.0, 30, 4),  # thirty problems, as AIME
    (2.0, 1.0, 100, 64),  # close to 1
    (0.01, 2.0, 100, 4),  # close to 0
    (5.0, 1.0, 200, 64),  # saturated
  ],
)
def test_mean_interval_covers(a, b, problems, k):
  values, _ = draw(np.random.default_rng(7), a, b, problems, 256, k)
  band = intervals.mean_interval(values, level=LEVEL, resamples=1000)
  assert covered(band, beta_mean_pass(a, b, k)) >= FLOOR
  assert (band.high > band.low).all()


@pytest.mark.parametrize(
  ('base', 'trained', 'problems', 'k'),
  [
    ((0.3, 2.0), (0.3, 1.0), 100, 1),  # many gains, few losses
    ((0.5, 0.5), (0.2, 0.2), 200, 64),  # both sides hold mass: bootstrap
    ((0.5, 2.0), (0.2, 0.5), 100, 16),
    ((2.0, 1.0), (1.5, 0.5), 100, 64),  # both close to saturation
    ((3.0, 1.0), (3.0, 1.0), 60, 16),  # no difference at all
    ((0.02, 2.0), (0.02, 2.0), 100, 4),  # both close to zero
  ],
)
def test_difference_interval_covers(base, trained, problems, k):
  rng = np.random.default_rng(11)
  x, _ = draw(rng, *base, problems, 256, k)
  y, _ = draw(rng, *trained, problems, 256, k)
  band = intervals.difference_interval(y - x, level=LEVEL, resamples=1000)
  truth = beta_mean_pass(*trained, k) - beta_mean_pass(*base, k)
  assert covered(band, truth) >= FLOOR
  assert (band.high > band.low).all()


def test_the_rule_follows_the_mass():
  half = np.tile([0.0, 1.0], 20)
  assert intervals.mean_interval(half).method == ('bootstrap',)
  assert intervals.mean_interval(half[:28]).method == ('clopper-pearson',)
  assert intervals.mean_interval(np.full(100, 0.5)).method == ('clopper-pearson',)
  signs = np.tile([-1.0, 1.0, 0.0], 15)
  assert intervals.difference_interval(signs).method == ('bootstrap',)
  assert intervals.difference_interval(np.abs(signs)).method == ('mover',)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.4, 0.0, 1e-9, 0.5, 1.0]), min_size=1, max_size=70))
def test_no_interval_has_zero_width_and_each_holds_its_value(values):
  d = np.array(values)
  for band in (
    intervals.difference_interval(d, resamples=200),
    intervals.mean_interval(np.abs(d), resamples=200),
  ):
    value, low, high = band.at(0)
    assert low < high
    assert low - 1e-12 <= value <= high + 1e-12


def test_clopper_pearson_at_whole_counts_is_scipys():
  for s in (0, 3, 10):
    want = stats.binomtest(s, 10).proportion_ci(0.95, method='exact')
    low, high = intervals.clopper_pearson(s, 10)
    assert (float(low), float(high)) == pytest.approx((want.low, want.high), abs=1e-12)


def test_swapping_the_models_mirrors_the_difference():
  d = np.random.default_rng(0).choice([-1.0, 0.0, 0.3], 40)
  there, back = intervals.difference_interval(d), intervals.difference_interval(-d)
  assert there.low[0] == pytest.approx(-back.high[0], abs=1e-12)


@pytest.mark.parametrize(
  ('n', 'bound'), [(128, 0.023), (256, 0.012), (1024, 0.0029), (2048, 0.0015)]
)
def test_zero_of_n_bounds_the_rate(n, bound):
  upper = intervals.zero_upper_bound(n)
  assert upper == pytest.approx(bound, abs=6e-4)
  assert (1 - upper) ** n == pytest.approx(0.05, rel=1e-9)


def test_beta_interval_covers_and_touches_the_ends():
  rng = np.random.default_rng(3)
  p = rng.uniform(0.02, 0.98, 4000)
  low, high = intervals.beta_interval(64, rng.binomial(64, p))
  assert np.mean((low <= p) & (p <= high)) >= FLOOR
  low, high = intervals.beta_interval([8, 8], [0, 8])
  assert low[0] == 0
  assert high[1] == 1


def test_values_outside_the_unit_interval_are_refused():
  with pytest.raises(ValueError, match='lie in'):
    intervals.mean_interval(np.array([0.5, 1.5]))
  with pytest.raises(ValueError, match='lie in'):
    intervals.mean_interval(np.array([0.5, np.nan]))
