"""Intervals over training seeds and problems."""

import numpy as np

from rlvr_jax.eval.algorithms import gather, seeds_interval
from rlvr_jax.eval.intervals import mean_interval


def test_one_seed_is_the_interval_over_problems():
  values = np.random.default_rng(0).random((1, 50, 3))
  one, problems = seeds_interval(values), mean_interval(values[0])
  np.testing.assert_array_equal([one.low, one.high], [problems.low, problems.high])


def test_equal_seeds_add_nothing_and_other_seeds_widen():
  values = np.random.default_rng(0).random((1, 50, 2))
  same = seeds_interval(np.repeat(values, 3, axis=0))
  problems = mean_interval(values[0])
  np.testing.assert_allclose(same.low, problems.low, rtol=0, atol=1e-12)
  apart = seeds_interval(np.concatenate([values * 0.8, values * 0.9, values]))
  assert np.all(apart.high - apart.low > problems.high - problems.low)


def test_it_covers_the_mean_of_new_seeds_and_new_problems():
  """Random effects of seeds and problems, 3 seeds of 60 problems, 95% nominal."""
  rng = np.random.default_rng(1)
  trials, covered = 400, 0
  for trial in range(trials):
    problems = rng.uniform(0.2, 0.6, 60)
    seeds = rng.normal(0, 0.04, 3)
    values = np.clip(problems[None] + seeds[:, None], 0, 1)[:, :, None]
    band = seeds_interval(values, resamples=400, seed=trial)
    covered += band.low[0] <= 0.4 <= band.high[0]
  assert covered / trials > 0.93


def test_models_of_an_algorithm_are_taken_together():
  ks = np.array([1, 4])
  rng = np.random.default_rng(0)
  models = [(f'{a}-{s}', a, s, rng.random((9, 2))) for a in ('x', 'y') for s in (1, 2, 3)]
  first, second = gather(models, ks)
  assert (first.name, first.seeds, first.models) == ('x', (1, 2, 3), ('x-1', 'x-2', 'x-3'))
  values = np.stack([values for *_, values in models[3:]])
  np.testing.assert_allclose(second.band.value, values.mean(axis=(0, 1)))
  np.testing.assert_allclose(second.spread, values.mean(axis=1).std(axis=0, ddof=1))
