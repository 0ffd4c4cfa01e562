"""Entropy with its error bar, the search for a temperature, envelopes without peeking."""

import numpy as np
import pyarrow as pa
import pytest

from rlvr_jax.eval import temperature as lib
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.temperature import Draws, Entropy, entropy_of, envelope, match_temperature

PROBLEMS = 12


class World:
  """Completions whose mean entropy a token at temperature t is curve(t), exactly and by problem."""

  def __init__(self, curve, spread=0.3, seed=0):
    self.curve, self.spread = curve, spread
    self.seed, self.asked = seed, []

  def __call__(self, t, samples, first):
    self.asked.append((t, samples, first))
    problem = np.tile(np.arange(PROBLEMS), samples)
    share = 0.5 + np.arange(PROBLEMS) / (PROBLEMS - 1)  # some problems have more entropy
    entropy, tokens = [], []
    for sample in range(first, first + samples):
      rng = np.random.default_rng([self.seed, int(1e6 * t), sample])
      tokens.append(rng.integers(20, 60, PROBLEMS))
      per_token = self.curve(t) * share + rng.normal(0, self.spread, PROBLEMS)
      entropy.append(per_token * tokens[-1])
    return Draws(problem, np.concatenate(entropy), np.concatenate(tokens))


def test_error_bar_is_that_of_drawing_again():
  """Over 400 repeats the standard deviation is the mean error, and the interval covers."""
  found = [entropy_of(World(lambda t: t, seed=s)(0.6, 6, 0)) for s in range(400)]
  values = np.array([e.value for e in found])
  assert abs(values.mean() - 0.6) < 4 * values.std() / 20
  assert 0.85 < np.mean([e.error for e in found]) / values.std(ddof=1) < 1.15
  covered = np.mean([low <= 0.6 <= high for low, high in (e.interval() for e in found)])
  assert covered > 0.91


def test_differences_between_problems_are_no_error():
  draws = Draws(np.array([0, 0, 1, 1]), np.array([1.0, 1.0, 9.0, 9.0]), np.array([2, 2, 3, 3]))
  assert entropy_of(draws) == Entropy(2.0, pytest.approx(0.0, abs=1e-12), 4, 10)
  with pytest.raises(ValueError, match='two of each problem'):
    entropy_of(Draws(np.array([0, 0, 1]), np.ones(3), np.ones(3)))


@pytest.mark.parametrize('wanted', [0.45, 0.85, 1.31])
def test_finds_the_temperature_and_its_bracket_holds(wanted):
  def curve(t):
    return 0.3 * t + 0.4 * t**2

  held = 0
  for seed in range(8):
    target = Entropy(curve(wanted), 0.001, 1000, 40_000)
    world = World(curve, spread=0.15, seed=seed)
    match = match_temperature(world, target, problems=PROBLEMS, tolerance=0.04, budget=100_000)
    assert match.reason == 'matched'
    assert match.high - match.low <= 0.04
    assert match.low <= match.temperature <= match.high
    held += match.low <= wanted <= match.high
    assert abs(match.temperature - wanted) < 0.04
    assert match.completions == sum(samples * PROBLEMS for _, samples, _ in world.asked)
  assert held >= 7


def test_no_completion_is_drawn_twice():
  world = World(lambda t: t)
  match_temperature(world, Entropy(0.8, 0.001, 1000, 40_000), problems=PROBLEMS)
  drawn = [(t, s) for t, samples, first in world.asked for s in range(first, first + samples)]
  assert len(set(drawn)) == len(drawn)


def test_ends_honestly():
  # what cannot be told apart is not: the target is known to 0.2 only
  vague = match_temperature(World(lambda t: t), Entropy(0.8, 0.1, 10, 100), problems=PROBLEMS)
  assert vague.reason == 'budget'
  assert vague.high - vague.low > 0.02
  assert vague.low < 0.8 < vague.high
  assert 64 * PROBLEMS * 4 <= vague.completions < 130 * PROBLEMS * 4
  for target in (0.05, 3.0):
    away = match_temperature(World(lambda t: t), Entropy(target, 0.001, 9, 9), problems=PROBLEMS)
    assert away.reason == 'not bracketed'
    assert away.temperature is None
  with pytest.raises(ValueError, match='temperatures ascend'):
    match_temperature(World(lambda t: t), Entropy(1, 0, 9, 9), problems=1, low=1.0, high=0.5)


def counts(rates, n=64, seed=0):
  c = np.random.default_rng(seed).binomial(n, rates)
  return Counts([f'p{i}' for i in range(len(rates))], np.full(len(rates), n), c)


def test_envelope_chooses_on_one_half_and_reports_on_the_other():
  rng = np.random.default_rng(0)
  rates = rng.uniform(0, 0.4, 200)
  by = {t: counts(rates * scale) for t, scale in ((0.6, 0.5), (0.9, 1.0), (1.2, 0.25))}
  found = envelope(by, [1, 4, 16], seed=5)
  assert found.chosen.tolist() == [0.9] * 3
  assert not set(found.problem_ids) & set(found.chosen_on)
  assert len(found.problem_ids) == len(found.chosen_on) == 100
  reported = by[0.9].select(found.problem_ids)
  np.testing.assert_allclose(found.band.value[0], reported.rates.mean())
  # the split is of the seed, not of the order in which ids come
  assert lib.split_half(list(found.problem_ids + found.chosen_on)[::-1], 5) == (
    found.chosen_on,
    found.problem_ids,
  )
  assert lib.split_half(by[0.9].problem_ids, 6)[0] != found.chosen_on


def test_envelope_of_equal_temperatures_is_not_lifted_by_choosing():
  """Twenty temperatures of the same rates: the best on one half is no better on the other."""
  rates = np.full(60, 0.2)
  excess, naive = [], []
  for seed in range(30):
    by = {0.1 * t: counts(rates, 16, seed=100 * seed + t) for t in range(1, 21)}
    excess.append(envelope(by, [1], seed=seed).band.value[0] - 0.2)
    naive.append(max(c.rates.mean() for c in by.values()) - 0.2)
  error = np.std(excess) / np.sqrt(len(excess))
  assert abs(np.mean(excess)) < 4 * error
  assert np.mean(naive) > 4 * error


def test_paired_envelopes_need_one_split():
  a, b = ({0.6: counts(np.full(40, p), seed=s)} for p, s in ((0.2, 1), (0.6, 2)))
  one, two = envelope(a, [1], seed=1), envelope(b, [1], seed=1)
  band = lib.envelope_difference(one, two)
  assert band.low[0] > 0
  assert band.value[0] == pytest.approx(two.band.value[0] - one.band.value[0])
  with pytest.raises(ValueError, match='one split'):
    lib.envelope_difference(one, envelope(b, [1], seed=2))


def test_entropy_of_stored_extras():
  from rlvr_jax.eval.entropy import entropy_of_store

  rows = pa.table(
    {
      'problem_id': ['a', 'a', 'b', 'b'],
      'length': [2, 3, 1, 4],
      'entropies': [[1.0, 2.0], [0.0, 0.0, 3.0], [1.0], [0.0, 0.0, 5.0, 0.0]],
      'sampled': [None, None, None, [True, False, True, False]],
    }
  )
  assert entropy_of_store(rows).value == pytest.approx(12 / 8)
  with pytest.raises(ValueError, match='1 of 4 samples have no entropies'):
    entropy_of_store(rows.set_column(2, 'entropies', pa.array([[1.0], None, [1.0], [1.0]])))


def test_an_engines_entropies_are_those_of_its_completions(request):
  """Against the plain forward: the tempered distribution's entropy, summed over a completion."""
  import jax
  import tiny
  from exactness import log_softmax, plain_logits

  from rlvr_jax.eval.entropy import measure_with, sweep
  from rlvr_jax.sampling.engine import Engine
  from rlvr_jax.sampling.layout import hand_over
  from rlvr_jax.sampling.types import Item, Sampling
  from rlvr_jax.tasks.problem import Problem

  quick_programs = 'jax_disable_most_optimizations'
  jax.config.update(quick_programs, True)
  request.addfinalizer(lambda: jax.config.update(quick_programs, False))
  config, params = tiny.make(num_layers=1)
  sizes = {'slots': 4, 'bank_rows': 4, 'prompt_capacity': 32, 'completion_capacity': 6}
  engine = Engine(hand_over(None, params), config, steps=4, **sizes)
  problems = [Problem(f'p{i}', 't', '', '') for i in range(3)]
  encoded = [(1, 2, 3), (40,), (5, 200)]
  sampling = Sampling(1.0, top_p=0.9, stop_ids=tuple(range(0, 400, 50)), max_tokens=6)
  measure = measure_with(engine, problems, encoded, sampling, model_uid=7)
  draws = measure(0.7, 3, 2)
  assert draws.problem.tolist() == [0, 1, 2] * 3
  items = [Item(i, problems[i].uid, 0, s, encoded[i]) for s in (2, 3, 4) for i in range(3)]
  again = Sampling(0.7, 0.9, 0, sampling.stop_ids, 6)
  drawn = engine.run(items, again, stream='probe', model_uid=7)
  same = {(c.item.sample, c.item.problem): c for c in drawn}
  for place, key in enumerate(sorted(same)):
    logp = log_softmax(plain_logits(params, config, same[key]) / 0.7)
    assert draws.tokens[place] == len(same[key].tokens)
    expected = -(np.exp(logp) * logp).sum()
    assert draws.entropy[place] == pytest.approx(expected, abs=1e-3)
  grid = sweep(measure, (0.3, 1.5), 4)
  assert [t for t, _ in grid] == [0.3, 1.5]
  assert grid[0][1].value + 5 * grid[0][1].error < grid[1][1].value
