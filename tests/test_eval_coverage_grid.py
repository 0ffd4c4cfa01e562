"""Intervals hold the truth in at least 93 of 100 data sets, all over the grid.

The short form has one cell of each kind; the whole grid is bench/intervals.py, run by `check`.
"""

import numpy as np
import pytest

from bench import intervals as simulation
from rlvr_jax.eval import pass_at_k

RUNS = 1500
# a share of 1500 runs has a standard deviation of 0.0066: a true 0.95 falls below once in 1000
FLOOR = simulation.FLOOR


@pytest.mark.parametrize(
  ('problems', 'k', 'truth', 'a'),
  [
    (30, 1, 0.5, 0.3),
    (30, 1024, 0.999, 0.3),
    (100, 128, 0.2, 0.3),
    (100, 1024, 0.95, 2.0),
    (500, 1, 0.02, 2.0),
    (500, 128, 0.999, 0.3),
  ],
)
def test_mean_interval_holds_the_truth(problems, k, truth, a):
  assert simulation.cover_mean(problems, k, truth, a, runs=RUNS) >= FLOOR


@pytest.mark.parametrize(
  ('problems', 'k', 'pair'),
  [(30, 1024, 7), (30, 1, 1), (100, 128, 8), (100, 1024, 6), (500, 128, 5), (500, 1, 4)],
)
def test_difference_interval_holds_the_truth(problems, k, pair):
  pair = simulation.PAIRS[pair]
  assert simulation.cover_difference(problems, k, pair, runs=RUNS) >= FLOOR


@pytest.mark.parametrize('k', [1, 128, 1024])
@pytest.mark.parametrize('truth', [0.02, 0.5, 0.999])
def test_the_population_has_the_mean_that_is_called_the_truth(k, truth):
  b = simulation.scale(0.3, k, truth)
  p = np.random.default_rng(0).beta(0.3, b, 200_000)
  value = pass_at_k.exact(p, [k])[:, 0]
  assert abs(value.mean() - truth) < 5 * value.std() / np.sqrt(len(p)) + 1e-9


@pytest.mark.check
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('part', ['mean', 'difference', 'all_bands'])
def test_the_whole_grid(part):
  gates = getattr(simulation, part)()
  short = [(gate['gate'], gate['value']) for gate in gates if not gate['holds']]
  assert not short
