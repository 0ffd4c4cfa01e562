"""A planned difference is found as often as planned; more of everything makes it smaller."""

import numpy as np
import pytest

from rlvr_jax.eval import intervals, pass_at_k, planner
from rlvr_jax.eval.counts import Counts


def test_the_planned_power_is_the_simulated_one():
  """Two like models apart by the detectable difference: 80% of studies exclude zero."""
  rng = np.random.default_rng(0)
  problems, n, k = 150, 64, 8
  base, trained = (2.0, 8.0), (2.0, 6.5)
  pilot = planner.pilot_of_betas(base, trained, agreement=0.0)
  truth = float(np.mean(pass_at_k.exact(pilot.b, [k])) - np.mean(pass_at_k.exact(pilot.a, [k])))
  error = planner.standard_error(pilot, problems, n, k)
  table = pass_at_k.estimate(np.full(n + 1, n), np.arange(n + 1), [k])[:, 0]
  runs = 1500
  x = table[rng.binomial(n, rng.beta(*base, (problems, runs)))]
  y = table[rng.binomial(n, rng.beta(*trained, (problems, runs)))]
  assert (y - x).mean(axis=0).std() == pytest.approx(error, rel=0.06)
  # as many problems as the plan asks for to see this very difference
  plan = planner.detectable(pilot, problems, n, k)
  wanted = planner.problems_needed(plan.detectable, problems, truth)
  assert planner.detectable(pilot, wanted, n, k).detectable == pytest.approx(truth, rel=0.02)
  x = table[rng.binomial(n, rng.beta(*base, (wanted, runs)))]
  y = table[rng.binomial(n, rng.beta(*trained, (wanted, runs)))]
  band = intervals.difference_interval(y - x, resamples=500)
  assert (band.low > 0).mean() == pytest.approx(0.8, abs=0.05)


def test_more_of_everything_shows_smaller_differences():
  pilot = planner.pilot_of_betas((0.5, 2.0), (0.5, 1.0), agreement=0.5)
  first = planner.detectable(pilot, 100, 64, 16, seeds=3, seed_sd=0.02).detectable
  assert planner.detectable(pilot, 400, 64, 16, seeds=3, seed_sd=0.02).detectable < first
  assert planner.detectable(pilot, 100, 256, 16, seeds=3, seed_sd=0.02).detectable < first
  assert planner.detectable(pilot, 100, 64, 16, seeds=6, seed_sd=0.02).detectable < first
  assert planner.detectable(pilot, 100, 64, 16, seeds=3, seed_sd=0.02, power=0.5).detectable < first
  # training alone sets a floor that no number of problems lowers
  floor = planner.detectable(pilot, 10**7, 64, 16, seeds=3, seed_sd=0.02).detectable
  assert floor > 2.8 * 0.02 / np.sqrt(3)


def test_a_pilot_of_counts_knows_the_parts():
  rng = np.random.default_rng(1)
  problems, n, k = 3000, 64, 4
  a = rng.beta(2.0, 5.0, problems)
  b = np.clip(a + rng.normal(0.05, 0.1, problems), 0, 1)
  ids = tuple(map(str, range(problems)))
  first = Counts(ids, np.full(problems, n), rng.binomial(n, a))
  second = Counts(ids, np.full(problems, n), rng.binomial(n, b))
  pilot = planner.pilot_of_counts(first, second, [k])
  want = np.var(pass_at_k.exact(b, [k]) - pass_at_k.exact(a, [k]))
  assert pilot.variance_between(k) == pytest.approx(want, rel=0.1)
  d = pass_at_k.estimate(second.n, second.c, [k]) - pass_at_k.estimate(first.n, first.c, [k])
  got = planner.standard_error(pilot, problems, n, k)
  assert got == pytest.approx(d.std() / np.sqrt(problems), rel=0.03)


def test_a_table_leaves_out_what_cannot_be():
  pilot = planner.pilot_of_betas((1.0, 1.0), (1.0, 1.0))
  rows = planner.plan(pilot, [30, 100], [16, 64], [1, 32])
  assert [(r.problems, r.n, r.k) for r in rows] == [
    (30, 16, 1), (30, 64, 1), (100, 16, 1), (100, 64, 1), (30, 64, 32), (100, 64, 32),
  ]  # fmt: skip
  with pytest.raises(ValueError, match='k is at most n'):
    planner.standard_error(pilot, 10, 4, 8)
  with pytest.raises(ValueError, match='at least 2'):
    planner.detectable(pilot, 10, 4, 2, seed_sd=0.1)
  with pytest.raises(ValueError, match='agreement'):
    planner.pilot_of_betas((1, 1), (1, 1), agreement=2)
