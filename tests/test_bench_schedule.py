"""The ideal that the occupancy gate is held to, against a simulation step by step."""

import numpy as np
import pytest

from bench import _measure, _schedule


def simulate(lengths, slots):
  """(steps to the end, steps until the queue is empty, most tokens alive) of instant refill."""
  queue, left, written = list(lengths), [0] * slots, [0] * slots
  steps, emptied, peak = 0, 0, 0
  while queue or any(left):
    for s in range(slots):
      if not left[s] and queue:
        left[s], written[s] = queue.pop(0), 0
        emptied = steps
    live = [left[s] > 0 for s in range(slots)]
    written = [w + 1 if alive else 0 for w, alive in zip(written, live, strict=True)]
    peak = max(peak, sum(written))
    left = [max(0, n - 1) for n in left]
    steps += 1
  return steps, emptied, peak


@pytest.mark.parametrize('seed', range(12))
def test_list_scheduling_is_a_queue_simulated_step_by_step(seed):
  rng = np.random.default_rng(seed)
  lengths, slots = rng.integers(1, 12, rng.integers(1, 40)), int(rng.integers(1, 7))
  steps, emptied, peak = simulate(lengths, slots)
  assert _schedule.ideal_steps(lengths, slots) == (steps, emptied)
  assert _schedule.live_peak(lengths, slots) == peak


def test_batches_wait_for_their_slowest():
  assert _schedule.static_steps(np.array([3, 9, 1, 2, 5]), 2) == 9 + 2 + 5


def test_the_long_tail_occupies_slots_as_simulated_before():
  """docs: refill keeps 83% of 256 slots busy under this law, waiting for the slowest 6%."""
  lengths = _schedule.LONG_TAIL.draw(64 * 256, seed=0)
  tokens = int(lengths.sum())
  steps, _ = _schedule.ideal_steps(lengths, 256)
  assert _schedule.occupancy(tokens, 256, steps) == pytest.approx(0.83, abs=0.02)
  static = _schedule.static_steps(lengths, 256)
  assert _schedule.occupancy(tokens, 256, static) == pytest.approx(0.06, abs=0.01)


def test_a_law_is_cut_at_its_cap_and_repeats_itself():
  law = _schedule.LengthLaw(median=30, sigma=0.5, runaway=0.1, cap=100)
  lengths = law.draw(20_000, seed=3)
  assert lengths.min() >= 1
  assert lengths.max() == 100
  assert (lengths == 100).mean() == pytest.approx(0.1 + 0.9 * 0.008, abs=0.01)
  assert np.median(lengths[lengths < 100]) == pytest.approx(30, abs=1)
  np.testing.assert_array_equal(lengths, law.draw(20_000, seed=3))
  assert (lengths != law.draw(20_000, seed=4)).any()


def test_gates_compare_before_they_round():
  assert not _measure.at_most('a', 1.3004, 1.3, 'x', '')['holds']
  assert _measure.at_most('a', 1.3004, 1.3, 'x', '')['value'] == 1.3
  assert not _measure.at_least('a', 0.9496, 0.95, 'x', '')['holds']
  assert _measure.at_least('a', 0.95, 0.95, 'x', '')['holds']
