"""Coverage sets, exact tests, histogram and crossover do what their definitions say."""

import fractions
import math

import numpy as np
import pytest

from rlvr_jax.eval import compare, coverage, crossover, pass_at_k
from rlvr_jax.eval.counts import Counts, Reached, align


def make(n, c, ids=None, **options):
  c = np.asarray(c)
  ids = [f'p{i}' for i in range(len(c))] if ids is None else ids
  return Counts(tuple(ids), np.full(len(c), n), c, **options)


def test_sets_at_each_threshold():
  base, rl = make(8, [0, 1, 2, 8, 0]), make(8, [0, 0, 3, 1, 5])
  one, two = coverage.coverage_sets(base, rl, (1, 2))
  assert one.sizes() == {'both': 2, 'base_only': 1, 'rl_only': 1, 'neither': 1}
  assert (one.base_only, one.rl_only) == (('p1',), ('p4',))
  assert two.sizes() == {'both': 1, 'base_only': 1, 'rl_only': 1, 'neither': 2}
  assert two.base_only == ('p3',)


def test_the_order_of_the_second_model_does_not_matter():
  base = make(8, [0, 1, 2])
  rl = make(8, [5, 3, 4], ids=['p2', 'p0', 'p1'])
  assert align(base, rl)[1].c.tolist() == [3, 4, 5]
  assert coverage.coverage_sets(base, rl, (1,))[0].rl_only == ('p0',)


def reached(c, n=64, most=2, ids=None):
  c = np.asarray(c)
  ids = tuple(f'p{i}' for i in range(len(c))) if ids is None else ids
  return Reached(ids, n, 8, most, np.minimum(c, most), np.full(len(c), n))


def test_stopped_draws_are_compared_at_the_thresholds_they_reach():
  base, rl = [0, 1, 2, 8, 0], [5, 3, 4, 0, 1]
  ids = ('p4', 'p0', 'p1', 'p2', 'p3')
  one, two = coverage.reached_sets(reached(base), reached(np.roll(rl, 1), ids=ids))
  assert (one, two) == tuple(coverage.coverage_sets(make(64, base), make(64, rl), (1, 2)))
  assert coverage.thresholds_of(reached(base, most=4)) == (1, 2, 3, 4)
  with pytest.raises(ValueError, match='equal efforts on the same problems'):
    coverage.reached_sets(reached(base), reached(rl, n=32))


@pytest.mark.parametrize(('base', 'rl', 'p'), [(4, 0, 0.125), (4, 1, 0.375), (0, 0, 1.0)])
def test_mcnemar_gives_the_papers_tables_their_p(base, rl, p):
  assert coverage.mcnemar(base, rl) == pytest.approx(p, abs=1e-12)


def test_mcnemar_is_the_binomial_tail_in_rationals():
  for b, c in [(3, 12), (9, 9), (1, 6)]:
    tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1))
    want = min(fractions.Fraction(1), 2 * fractions.Fraction(tail, 2 ** (b + c)))
    assert coverage.mcnemar(b, c) == pytest.approx(float(want), abs=1e-12)


def test_different_problems_or_efforts_are_refused():
  with pytest.raises(ValueError, match=r"different problems: 1 only in the first \['p1'\]"):
    align(make(4, [1, 1]), make(4, [1]))
  with pytest.raises(ValueError, match='top up the smaller store'):
    coverage.coverage_sets(make(4, [1, 1]), make(8, [1, 1]))
  uneven = compare.compare_counts(make(4, [1, 1]), make(8, [1, 1]), resamples=50)
  assert uneven.sets == ()
  assert 'top up' in uneven.why_no_sets


def fisher(bc, bn, rc, rn):
  """Two-sided Fisher p by summing hypergeometric probabilities in rationals."""
  total, solved = bn + rn, bc + rc
  ways = {
    x: math.comb(bn, x) * math.comb(rn, solved - x)
    for x in range(max(0, solved - rn), min(bn, solved) + 1)
  }
  assert sum(ways.values()) == math.comb(total, solved)
  tail = sum(way for way in ways.values() if way <= ways[bc])
  return float(fractions.Fraction(tail, math.comb(total, solved)))


def test_problem_tests_are_fishers_with_step_up_control():
  base, rl = make(20, [0, 3, 10, 19, 5]), make(20, [15, 3, 2, 20, 5])
  tests = coverage.problem_tests(base, rl, 0.05)
  want = [fisher(b, 20, r, 20) for b, r in zip(base.c.tolist(), rl.c.tolist(), strict=True)]
  np.testing.assert_allclose(tests.p, want, rtol=1e-9)
  ranked = sorted(want)
  limit = max([p for i, p in enumerate(ranked, 1) if p <= 0.05 * i / 5], default=-1)
  np.testing.assert_array_equal(tests.better | tests.worse, np.array(want) <= limit)
  assert tests.better.tolist() == [True, False, False, False, False]
  assert tests.worse.tolist() == [False, False, True, False, False]


def test_false_discoveries_stay_rare_when_nothing_differs():
  rng = np.random.default_rng(2)
  p = rng.beta(0.5, 1.0, 300)
  a, b = make(64, rng.binomial(64, p)), make(64, rng.binomial(64, p))
  tests = coverage.problem_tests(a, b)
  assert (tests.better | tests.worse).sum() == 0


def test_coupled_samples_get_no_independent_test():
  base, rl = make(4, [1, 2], coupling='common'), make(4, [1, 3], coupling='common')
  with pytest.raises(ValueError, match='share their random numbers'):
    coverage.problem_tests(base, rl)
  assert compare.compare_counts(base, rl, resamples=50).tests is None


def test_deciding_problems_are_left_out_on_request():
  base, rl = make(64, [0, 2, 60, 0]), make(64, [0, 0, 30, 9])
  assert coverage.deciding(base, rl).tolist() == [False, True, False, False]
  result = compare.compare_counts(base, rl, resamples=50)
  assert result.sets[0].base_only == ('p1',)
  assert result.sets_without_deciding[0].base_only == ()
  assert result.sets_without_deciding[0].rl_only == ('p3',)


def test_histogram_bins_are_decided_in_integers():
  counts = make(10, range(11))
  assert coverage.accuracy_histogram(counts).tolist() == [1] + [1] * 9 + [0, 1]
  edges = make(1000, [1, 100, 101, 900, 901, 999, 1000, 0])
  got = dict(zip(coverage.BINS, coverage.accuracy_histogram(edges).tolist(), strict=True))
  assert got['(0, 0.1]'] == 2
  assert got['(0.1, 0.2]'] == 1
  assert got['(0.8, 0.9]'] == 1
  assert got['(0.9, 1)'] == 2
  assert (got['0'], got['1'], len(got)) == (1, 1, 12)


def slow_crossing(row):
  """The definition, read off k by k."""
  n = len(row)
  for k in range(1, n + 1):
    if all(x <= 1e-12 for x in row[k - 1 :]):
      if k == 1:
        return 1.0
      up, down = row[k - 2], min(row[k - 1], 0.0)
      return math.exp(math.log(k - 1) + up / (up - down) * (math.log(k) - math.log(k - 1)))
  return math.inf


def test_crossing_points_follow_the_definition():
  rng = np.random.default_rng(0)
  rows = np.concatenate(
    [
      rng.normal(0, 1, (200, 12)) - np.linspace(-1, 2, 12),
      [np.zeros(12), -np.ones(12), np.ones(12), [1e-14] * 12, [1.0] + [0.0] * 11],
    ]
  )
  got = crossover.crossing_points(rows)
  np.testing.assert_allclose(got, [slow_crossing(row) for row in rows], rtol=1e-9)
  assert len(set(np.round(got, 6))) > 20


def test_crossover_of_known_curves():
  ks = np.arange(1, 257)
  base = pass_at_k.exact(np.full(40, 0.05), ks)
  rl = pass_at_k.exact(np.tile([0.6, 0.0], 20), ks)  # 0.3 at once, never above 0.5
  found = crossover.crossover(rl - base, resamples=400)
  where = math.log(0.5) / math.log(0.95)  # base reaches one half
  assert 1 < found.low <= found.value <= found.high
  assert abs(found.value - where) < 1
  assert not found.high_beyond
  assert found.share_no_crossing == 0


def test_no_crossing_is_said_and_stays_finite():
  never = crossover.crossover(np.full((30, 16), 0.1), resamples=100)
  assert never.value is None
  assert (never.low, never.high, never.low_beyond, never.high_beyond) == (16, 16, True, True)
  assert never.share_no_crossing == 1


def test_crossover_interval_covers_the_truth():
  rng = np.random.default_rng(4)
  ks = np.arange(1, 129)
  pool = rng.beta(0.5, 2.0, 20000)
  p_rl_pool = np.where(rng.uniform(size=20000) < 0.45, 0.0, np.minimum(1, pool * 4))
  gap = pass_at_k.exact(p_rl_pool, ks).mean(0) - pass_at_k.exact(pool, ks).mean(0)
  truth = crossover.crossing_points(gap)[0]
  assert 1 < truth < 128
  held, runs = 0, 100
  for _ in range(runs):
    pick = rng.integers(0, 20000, 100)
    base, rl = rng.binomial(128, pool[pick]), rng.binomial(128, p_rl_pool[pick])
    n = np.full(100, 128)
    d = pass_at_k.estimate(n, rl, ks) - pass_at_k.estimate(n, base, ks)
    found = crossover.crossover(d, resamples=300)
    held += found.low <= truth <= (math.inf if found.high_beyond else found.high)
  assert held / runs >= 0.89  # promised 0.95; 0.06 is 2.7 SDs of a share of 100 runs


def test_the_grid_of_a_large_n_is_dense_and_whole():
  assert crossover.grid(4096).tolist() == list(range(1, 4097))
  far = crossover.grid(100_000)
  assert (far[0], far[-1]) == (1, 100_000)
  steps = np.diff(np.log(far[far > 4096]))
  assert steps.min() > 0
  assert steps.max() < 0.0015


def test_a_crossing_between_grid_points_lies_on_the_straight_line_in_log_k():
  ks = np.array([1, 10, 100, 1000])
  means = 0.5 - 0.2 * np.log(ks)  # zero at e^2.5
  assert crossover.crossing_points(means, ks)[0] == pytest.approx(math.exp(2.5), rel=1e-12)
  thinned = crossover.crossing_points(means[[0, 1, 3]], ks[[0, 1, 3]])[0]
  assert thinned == pytest.approx(math.exp(2.5), rel=1e-12)


def test_a_crossover_at_n_4096_is_the_definition_k_by_k():
  rng = np.random.default_rng(6)
  n = 4096
  base = rng.beta(0.3, 20.0, 60)
  rl = np.where(rng.uniform(size=60) < 0.4, base / 300, np.minimum(1, base * 6))
  a, b = make(n, rng.binomial(n, base)), make(n, rng.binomial(n, rl))
  got = compare.compare_counts(a, b, resamples=50)
  every = np.arange(1, n + 1)
  d = pass_at_k.estimate(b.n, b.c, every) - pass_at_k.estimate(a.n, a.c, every)
  assert got.crossover.value == pytest.approx(slow_crossing(d.mean(axis=0)), rel=1e-9)
  assert got.crossover.n == n
  np.testing.assert_allclose(got.difference.value, d.mean(axis=0)[got.ks - 1], atol=1e-12)


def test_compare_is_antisymmetric():
  rng = np.random.default_rng(9)
  a, b = make(64, rng.binomial(64, 0.1, 30)), make(64, rng.binomial(64, 0.3, 30))
  there = compare.compare_counts(a, b, resamples=100)
  back = compare.compare_counts(b, a, resamples=100)
  np.testing.assert_allclose(there.difference.value, -back.difference.value, atol=1e-12)
  assert there.sets[0].base_only == back.sets[0].rl_only
  assert there.headline_k == 16
  assert there.difference_at(16)[0] == pytest.approx(-back.difference_at(16)[0])


@pytest.mark.parametrize(
  ('ids', 'n', 'c', 'message'),
  [
    (['a', 'a'], [2, 2], [1, 1], 'repeat'),
    (['a'], [0], [0], 'no sample that counts'),
    (['a'], [3], [4], 'c=4'),
    ([], [], [], 'no problems'),
    (['a'], [3, 3], [1, 1], 'one entry'),
  ],
)
def test_impossible_counts_are_refused(ids, n, c, message):
  with pytest.raises(ValueError, match=message):
    Counts(tuple(ids), np.array(n), np.array(c))
