"""The pilot is a fair 1% of the run, and its price holds what it says."""

import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.eval import preflight
from rlvr_jax.eval.stopping import Draws, Rule


@given(st.integers(1, 10**6), st.integers(1, 4096))
def test_a_pilot_is_one_percent_or_one_a_slot(total, slots):
  size = preflight.pilot_size(total, slots)
  assert min(4, total) <= size <= total
  assert size >= total / 100
  assert size <= max(4, total / 100 + 1, min(slots, total / 10))


@given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 100), st.booleans())
def test_a_pilot_is_spread_over_the_problems(problems, n, size, stopping):
  first = (n + 1) // 2
  draws = [Draws(Rule(n, first, 1) if stopping else Rule(n)) for _ in range(problems)]
  chosen = preflight.choose(draws, size)
  assert len(set(chosen)) == len(chosen) == min(size, problems * (first if stopping else n))
  each = np.bincount([problem for problem, _ in chosen], minlength=problems)
  assert each.max() - each.min() <= 1
  for problem, sample in chosen:
    assert sample < each[problem]


def test_a_pilot_takes_only_draws_that_are_kept():
  draws = Draws(Rule(10, 2, 1))
  for sample in (0, 1, 3):
    draws.add(sample, False, None)
  assert list(draws.certain()) == [2]  # 4 is kept only if 2 is not correct
  draws.add(2, True, None)
  assert draws.settled
  assert list(draws.certain()) == []


def lengths_law(rng, count):
  """Most completions short, one in twenty runs to the limit of 4096: what small pilots miss."""
  short = np.minimum(rng.lognormal(5.5, 0.7, count), 4095)
  return np.where(rng.random(count) < 0.05, 4096, short)


@pytest.mark.parametrize('size', [4, 16, 64, 512])
def test_the_range_of_tokens_holds(size):
  rng = np.random.default_rng(0)
  truth, trials, held = lengths_law(rng, 10**6).mean(), 200 if size < 100 else 50, 0
  for _ in range(trials):
    pilot = preflight.Pilot(lengths_law(rng, size), 4096, 64, 1.0, 1000, 100.0)
    _, low, high = preflight.price(pilot, 5000, 5000).tokens
    held += low <= 5000 * truth <= high
  assert held >= 0.92 * trials


def test_the_price_of_known_lengths():
  pilot = preflight.Pilot(np.full(50, 100.0), 200, 10, 25.0, 50, 1000.0)
  found = preflight.price(pilot, 300, 900)
  assert found.tokens[0] == pytest.approx(900 * 100)
  assert found.seconds[0] == pytest.approx((900 * 100 / 10 + 100) * 0.5)
  assert found.seconds[1] < found.seconds[0] < found.seconds[2]
  assert found.disk == 900 * 1000.0
  text = '\n'.join(preflight.describe(found, times=2, free=2**34))
  assert 'samples  600 to 1,800' in text
  assert 'time     2h31m (' in text
  assert 'at the pace of a pilot of 25 s' in text
  assert '1.72 MiB of 16 GiB free' in text


def test_rates_are_live_and_overall(monkeypatch):
  clock = [0.0]
  stats = types.SimpleNamespace(tokens=7, steps=7, slot_steps=7, live_steps=7)
  monkeypatch.setattr(preflight.time, 'monotonic', lambda: clock[0])
  pace = preflight.Pace(stats)
  for second in range(100):
    clock[0] += 1.0
    stats.tokens += 10 if second < 60 else 1000
    stats.steps += 2
    stats.slot_steps += 8
    stats.live_steps += 6
    pace.look()
  assert pace.rates()['tokens/s'] == pytest.approx(1000, rel=0.05)
  assert pace.rates(overall=True)['tokens/s'] == pytest.approx(406)
  assert pace.rates(overall=True)['occupancy'] == pytest.approx(0.75)
  assert (pace.seconds, pace.steps) == (100.0, 200)
