"""The sampling-efficiency gap, token axes and caps: recomputed by hand from the same counts."""

import numpy as np
import pyarrow as pa
import pytest

from rlvr_jax.eval import efficiency, pass_at_k
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.efficiency import (
  cap_curves,
  cap_grid,
  capped_counts,
  difference_at_tokens,
  sampling_efficiency_gap,
  token_curve,
)

P, N = 200, 32


def counts(rates, length=100, n=N, seed=0):
  c = np.random.default_rng(seed).binomial(n, rates)
  ids = [f'p{i}' for i in range(len(rates))]
  return Counts(ids, np.full(len(rates), n), c, tokens=length * n * len(rates))


@pytest.fixture(scope='module')
def pair():
  rates = np.random.default_rng(1).uniform(0, 0.3, P)
  return counts(rates, 300), counts(np.minimum(2 * rates, 1), 100, seed=2)


def test_gap_is_the_difference_of_its_terms(pair):
  base, rl = pair
  gap = sampling_efficiency_gap(base, rl)
  assert gap.k == N
  assert gap.value == pytest.approx(gap.base[0] - gap.rl[0], abs=1e-12)
  assert gap.base[0] == pytest.approx((base.c > 0).mean())
  assert gap.rl[0] == pytest.approx((rl.c / rl.n).mean())
  assert gap.low < gap.value < gap.high
  assert sampling_efficiency_gap(base, rl, 4).value < gap.value
  # paired by id, not by place
  other = rl.select(rl.problem_ids[::-1])
  assert sampling_efficiency_gap(base, other).low == gap.low


def test_gap_interval_covers():
  """Rates drawn anew: the true gap over the population is inside at least 93% of the time."""
  inside, repeats, k = 0, 150, 16
  grid = np.random.default_rng(0).beta(0.5, 3, 100_000)
  truth = (1 - (1 - grid) ** k).mean() - np.minimum(2 * grid, 1).mean()
  for seed in range(repeats):
    rates = np.random.default_rng([7, seed]).choice(grid, 60)
    base, rl = counts(rates, seed=3 * seed), counts(np.minimum(2 * rates, 1), seed=3 * seed + 1)
    gap = sampling_efficiency_gap(base, rl, k, resamples=500)
    inside += gap.low <= truth <= gap.high
  assert inside / repeats > 0.9


def test_tokens_axis(pair):
  base, rl = pair
  curve = token_curve(base)
  assert curve.mean_tokens == 300
  np.testing.assert_allclose(curve.tokens, 300 * curve.ks)
  found = difference_at_tokens(base, rl, [300, 600, 3200])
  np.testing.assert_allclose(found.k_a, [1, 2, 3200 / 300])
  np.testing.assert_allclose(found.k_b, [3, 6, 32])
  by_hand = pass_at_k.estimate(rl.n, rl.c, [6]) - pass_at_k.estimate(base.n, base.c, [2])
  assert found.difference.value[1] == pytest.approx(by_hand.mean())
  # between whole k on the line
  ten, eleven = (pass_at_k.estimate(base.n, base.c, [k]).mean() for k in (10, 11))
  real = efficiency.at_real_k(base, np.array([3200 / 300])).mean()
  assert real == pytest.approx(ten / 3 + 2 * eleven / 3)
  whole = difference_at_tokens(base, rl)
  assert whole.budgets[0] == pytest.approx(300)
  assert whole.budgets[-1] == pytest.approx(3200)
  assert whole.k_b.max() == pytest.approx(N)
  with pytest.raises(ValueError, match='they may go from 300 to 3200'):
    difference_at_tokens(base, rl, [100, 300])
  with pytest.raises(ValueError, match='there is no budget'):
    difference_at_tokens(counts(np.full(9, 0.1), 10_000), counts(np.full(9, 0.1), 100))


def test_errors_are_drawn_tokens_too():
  ids, n = ['a', 'b'], np.array([9, 10])
  one = Counts(ids, n, n - 9, {'error': np.array([1, 0])}, tokens=2000)
  assert efficiency.mean_tokens(one) == 100
  with pytest.raises(ValueError, match='hold no tokens'):
    efficiency.mean_tokens(Counts(ids, n, n - 9))


def rows():
  return pa.table(
    {
      'problem_id': ['a', 'a', 'a', 'b', 'b', 'b', 'b'],
      'verdict': ['correct', 'correct', 'wrong', 'correct', 'wrong', 'error', 'timeout'],
      'length': [10, 20, 30, 64, 64, 5, 7],
      'finish': ['eos', 'eos', 'eos', 'length', 'length', 'eos', 'eos'],
    }
  )


def test_caps_by_hand():
  found = capped_counts(rows(), [9, 10, 30, 64])
  assert {cap: c.c.tolist() for cap, c in found.items()} == {
    9: [0, 0], 10: [1, 0], 30: [2, 0], 64: [2, 1],
  }  # fmt: skip
  assert all(c.n.tolist() == [3, 3] for c in found.values())
  assert found[30].tokens == 10 + 20 + 30 + 30 + 30 + 5 + 7
  assert found[30].truncated == 2
  curves = cap_curves(found, [1, 3])
  np.testing.assert_allclose(curves[1].value, [0, 1 / 6, 1 / 3, 1 / 2])
  np.testing.assert_allclose(curves[3].value, [0, 0.5, 0.5, 1])
  assert cap_grid(rows())[0] == 10
  assert cap_grid(rows())[-1] == 64
  with pytest.raises(ValueError, match=r'cap=65: .* cut at 64'):
    capped_counts(rows(), [65])
  whole = rows().filter(pa.array([f == 'eos' for f in rows()['finish'].to_pylist()]))
  assert capped_counts(whole, [1000])[1000].c.tolist() == [2, 0]
