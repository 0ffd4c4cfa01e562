"""Simultaneous bands hold a whole curve, contain the intervals at one k, and have a width."""

import numpy as np
import pytest
from scipy import stats

from bench import intervals as simulation
from rlvr_jax.eval import bands, intervals, pass_at_k


def values(problems=60, n=128, shape=(0.4, 2.0), seed=0):
  rng = np.random.default_rng(seed)
  c = rng.binomial(n, rng.beta(*shape, problems))
  return pass_at_k.estimate(np.full(problems, n), c, pass_at_k.k_grid(n, 16))


@pytest.mark.parametrize('shape', [(0.4, 2.0), (5.0, 1.0), (0.01, 3.0), (30.0, 0.5)])
def test_a_band_holds_every_interval_and_its_value(shape):
  v = values(shape=shape)
  for band, own in (
    (bands.simultaneous_mean(v, resamples=400), intervals.mean_interval(v, resamples=400)),
    (
      bands.simultaneous_difference(v - v[::-1], resamples=400),
      intervals.difference_interval(v - v[::-1], resamples=400),
    ),
  ):
    assert (band.low <= own.low).all()
    assert (band.high >= own.high).all()
    assert (band.high > band.low).all()
    assert ((band.low <= band.value + 1e-12) & (band.value <= band.high + 1e-12)).all()


def test_the_rule_of_every_point_is_named():
  method = bands.simultaneous_mean(values(shape=(1.0, 1.0)), resamples=200).method
  assert 'max-t' in method
  assert 'clopper-pearson, joint' in method


def test_the_joint_level_lies_between_one_point_and_bonferroni():
  rng = np.random.default_rng(3)
  one = rng.normal(size=(200, 1))
  alike = np.repeat(one, 10, axis=1) + 1e-6 * rng.normal(size=(200, 10))
  assert bands.joint_level(alike, 0.95, 20_000) == pytest.approx(0.95, abs=0.004)
  apart = rng.normal(size=(2000, 10))
  sidak = 0.95 ** (1 / 10)
  assert bands.joint_level(apart, 0.95, 20_000) == pytest.approx(sidak, abs=0.001)
  flat = np.ones((50, 10))
  assert bands.joint_level(flat, 0.95) == pytest.approx(0.95)


def test_max_t_of_one_normal_point_is_students():
  """For one point and many problems the critical values are those of the normal."""
  v = np.random.default_rng(1).normal(size=(1000, 1))
  below, above = bands.studentised(v, 0.95, 4000)
  assert (below, above) == pytest.approx((stats.norm.ppf(0.975),) * 2, rel=0.06)


def test_one_column_is_the_interval_and_other_shapes_are_refused():
  v = values()[:, :1]
  band, own = bands.simultaneous_mean(v), intervals.mean_interval(v)
  assert band.at(0) == own.at(0)
  with pytest.raises(ValueError, match='one column a k'):
    bands.simultaneous_mean(v[:, 0])


def test_swapping_the_models_mirrors_the_band():
  d = values() - values(seed=1)
  there = bands.simultaneous_difference(d, resamples=300)
  back = bands.simultaneous_difference(-d, resamples=300)
  np.testing.assert_allclose(there.low, -back.high, atol=1e-12)


@pytest.mark.parametrize('case', [0, 4])
def test_a_band_covers_the_whole_curve(case):
  _, base, trained = simulation.BANDS[case]
  held = simulation.cover_band(60, base, trained, runs=150, resamples=300)
  assert held >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 150)
