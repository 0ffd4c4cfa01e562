"""The exactness contract of docs/design.md on a tiny model, and on a real one (`make check`)."""

import dataclasses
import functools

import numpy as np
import pytest
import tiny
from exactness import (
  assert_equal_up_to_boundaries,
  assert_identical,
  by_item,
  log_softmax,
  on_a_boundary,
  plain_logits,
  two_level_cdf,
)

from rlvr_jax.eval.run import model_uid
from rlvr_jax.models import load
from rlvr_jax.profiling import compilations
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.sharding import make_mesh

LENGTHS = (1, 5, 16, 17, 30)
SAMPLING = Sampling(stop_ids=(7, 11, 200, 301, 399, 42, 99, 150), max_tokens=12)
K = 5


@functools.cache
def model():
  return tiny.make()


def items():
  rng = np.random.default_rng(0)
  prompts = [tuple(rng.integers(0, 400, n).tolist()) for n in LENGTHS]
  return [Item(i, 50 + i, 0, s, p) for i, p in enumerate(prompts) for s in range(K)]


def engine(mesh=None, **changes):
  config, params = model()
  settings = {'slots': 4, 'bank_rows': 6, 'steps': 4, 'completion_capacity': 12}
  return Engine(
    hand_over(None, params, mesh), config, prompt_capacity=32, mesh=mesh, **(settings | changes)
  )


LONG = Sampling(stop_ids=(7, 11, 200), max_tokens=60)


def long_engine(**changes):
  """Completions of up to four pages."""
  return engine(**({'completion_capacity': 60, 'page': 16} | changes))


def run(on, queue):
  return by_item(on.run(queue, SAMPLING))


@functools.cache
def base():
  return run(engine(), items())


def shuffled():
  return [items()[i] for i in np.random.default_rng(1).permutation(len(items()))]


def test_order_and_slot_assignment_change_nothing(strict):
  on = engine()
  for queue in (items()[::-1], shuffled(), shuffled()[::-1]):
    assert_identical(base(), run(on, queue))


def test_chunk_length_and_eviction_change_nothing(strict):
  # five prompts take turns in two rows, in an order that sends each away many times
  assert_identical(base(), run(engine(steps=16, bank_rows=2), shuffled()))


@functools.cache
def roomy():
  """(stats, completions) of an engine with pages for all."""
  on = long_engine(steps=16)
  return on.stats, by_item(on.run(items(), LONG))


@pytest.mark.parametrize('steps', [8, pytest.param(64, marks=pytest.mark.check)])
def test_items_sent_back_for_want_of_pages_draw_the_same_tokens(strict, steps):
  stats, expected = roomy()
  tight = long_engine(steps=steps, pages=7)
  assert_identical(expected, by_item(tight.run(shuffled(), LONG)))
  assert stats.evicted == 0
  assert tight.stats.evicted > 5
  # what was thrown away was decoded, but not delivered
  assert tight.stats.tokens == stats.tokens == stats.live_steps
  assert tight.stats.live_steps > tight.stats.tokens
  state = tight._state
  assert int(state.pool.top[0]) == 7
  assert sorted(np.asarray(state.pool.free).tolist()) == list(range(7))


def test_one_completion_of_full_length_fits_the_smallest_pool(strict):
  tight = long_engine(pages=4)
  alone = by_item(tight.run(items()[:6], LONG))
  assert len(alone) == 6
  assert_identical({item: roomy()[1][item] for item in alone}, alone)
  with pytest.raises(ValueError, match=r'sampling.pages=3 .* at least 4'):
    long_engine(pages=3)


def test_topping_up_changes_nothing(strict):
  on = engine()
  part = [item for item in shuffled() if item.sample % 2]
  rest = [item for item in items() if not item.sample % 2]
  assert_identical(base(), run(on, part) | run(engine(), rest))


def test_more_slots_flip_tokens_on_boundaries_only(strict):
  config, params = model()
  assert_equal_up_to_boundaries(base(), run(engine(slots=16), shuffled()), params, config, SAMPLING)


@pytest.mark.check
def test_64_slots_and_16_flip_tokens_on_boundaries_only(strict):
  """More items than slots either way, and chunks of another length."""
  config, params = model()
  queue = [dataclasses.replace(item, sample=s) for item in items()[::K] for s in range(16)]
  mixed = [queue[i] for i in np.random.default_rng(2).permutation(len(queue))]
  sixteen, many = run(engine(slots=16), queue), run(engine(slots=64, steps=8), mixed)
  assert len(many) == 80
  assert_equal_up_to_boundaries(sixteen, many, params, config, SAMPLING)


def first_tokens(draws, **origin):
  """[problem, sample]: the first tokens of 800 draws of two prompts, by one engine."""
  prompts = [item for item in items() if item.sample == 0][1:3]
  queue = [dataclasses.replace(p, sample=s, **draws) for p in prompts for s in range(800)]
  on = engine(slots=64, steps=8)
  result = by_item(on.run(queue, Sampling(max_tokens=1), **origin))
  return np.array([c.tokens[0] for _, c in sorted(result.items())]).reshape(2, 800)


@pytest.mark.parametrize(
  'what', ['another model', pytest.param('a second visit in training', marks=pytest.mark.check)]
)
def test_draws_of_the_same_distribution_are_independent(strict, what):
  """Sample by sample they agree as often as chance has it, the sum of p^2; coupled ones always."""
  config, params = model()
  if what == 'another model':
    uids = {name: model_uid(name, 'independent') for name in ('base', 'rl')}
    first, second = (first_tokens({}, model_uid=uid) for uid in uids.values())
    assert model_uid('base', 'common') == model_uid('rl', 'common') == 0
    np.testing.assert_array_equal(first, first_tokens({}, model_uid=uids['base']))
  else:
    first, second = (first_tokens({'visit': visit}, stream='train') for visit in (0, 1))
  one = [dataclasses.replace(item, forced=(0,)) for item in items() if item.sample == 0][1:3]
  rows = by_item(engine().run(one, Sampling(max_tokens=1)))
  z = np.stack([plain_logits(params, config, c)[0] for _, c in sorted(rows.items())])
  chance = (np.exp(log_softmax(z)) ** 2).sum(-1)
  expected, spread = 800 * chance.sum(), np.sqrt(800 * (chance * (1 - chance)).sum())
  assert expected > 10
  assert abs((first == second).sum() - expected) < 4 * spread
  # nor is one the other shifted by a sample
  assert abs((first[:, 1:] == second[:, :-1]).sum() - expected) < 4 * spread


@pytest.mark.parametrize(
  'shape', [(2, 2, 2), pytest.param((2, 1, 4), marks=pytest.mark.check)], ids=str
)
def test_eight_devices_flip_tokens_on_boundaries_only(strict, shape):
  # at tensor=4 the two kv heads are replicated
  config, params = model()
  on = engine(make_mesh(*shape))
  result = run(on, shuffled())
  assert_equal_up_to_boundaries(base(), result, params, config, SAMPLING)
  with compilations() as compiled:
    assert_identical(result, run(on, items()))
  assert not compiled
  bank, pages = on._state.cache.bank_k[0], on._state.cache.page_k[0]
  kv = ('tensor',) if shape[2] == 2 else ()
  assert tuple(bank.sharding.spec) == (('data', 'fsdp'), *kv)
  assert tuple(pages.sharding.spec) == (('data', 'fsdp'), *kv)


def test_slots_that_the_mesh_does_not_divide_are_refused():
  with pytest.raises(ValueError, match=r'sampling.slots=12 .* mesh.data \* mesh.fsdp = 8'):
    engine(make_mesh(8, 1, 1), slots=12)


def test_the_check_itself():
  """A flip away from a boundary, a wrong log-prob and another length are all seen."""
  config, params = model()
  first = base()
  key = max(first, key=lambda k: len(first[k].tokens))
  c = first[key]
  z = plain_logits(params, config, c)

  def changed(**changes):
    return {key: dataclasses.replace(c, **changes)}

  tokens = c.tokens.copy()
  tokens[3] = (tokens[3] + 1) % 400
  picked = z - np.log(np.exp(z).sum(-1, keepdims=True))
  logprobs = c.logprobs.copy()
  logprobs[3] = picked[3, tokens[3]]
  cut = {'tokens': tokens[:4], 'logprobs': logprobs[:4]}
  with pytest.raises(AssertionError, match='differs at token 3'):
    assert_equal_up_to_boundaries({key: c}, changed(**cut), params, config, SAMPLING)
  wrong = c.logprobs + np.float32(2e-4)
  with pytest.raises(AssertionError):
    assert_equal_up_to_boundaries({key: c}, changed(logprobs=wrong), params, config, SAMPLING)
  short = {'tokens': c.tokens[:-1], 'logprobs': c.logprobs[:-1]}
  with pytest.raises(AssertionError):
    assert_equal_up_to_boundaries({key: c}, changed(**short), params, config, SAMPLING)

  outer, inside = two_level_cdf(np.exp(z[0]) / np.exp(z[0]).sum())
  assert on_a_boundary(z[0], (outer[0] + 5e-5, 0.5), 1.0)
  assert on_a_boundary(z[0], (outer[0] / 2, inside[0][100] - 5e-5), 1.0)


GSM8K_LIKE = (
  'A baker sells 14 rolls each morning and 9 each afternoon. How many does she sell in 6 days?',
  'Tom has 3 boxes of 24 pencils and gives away a third of them. How many are left?',
  'A train covers 180 km in 2.5 hours. How far does it go in 4 hours at the same speed?',
  'Lena saves $12 a week. After 7 weeks she spends $35. How much money does she have?',
)


@pytest.mark.check
@pytest.mark.timeout(1800)
def test_the_contract_on_the_real_0p5b(capsys):
  path = load.models_dir() / 'qwen2.5-coder-0.5b.gguf'
  if not path.exists():
    pytest.skip(f'{path.name} is not in {load.models_dir()}')
  config, params, tokenizer = load.load_model(path)
  sampling = Sampling(stop_ids=tokenizer.eos_ids, max_tokens=24)
  queue = [
    Item(i, i, 0, s, tuple(tokenizer.encode(f'Question: {text}\nAnswer:')))
    for i, text in enumerate(GSM8K_LIKE)
    for s in range(4)
  ]
  mixed = [queue[i] for i in np.random.default_rng(0).permutation(len(queue))]
  sampler = hand_over(None, params)

  def draw(slots, queue, bank_rows=4, steps=8):
    capacities = {'prompt_capacity': 64, 'completion_capacity': 24}
    on = Engine(sampler, config, slots=slots, bank_rows=bank_rows, steps=steps, **capacities)
    return by_item(on.run(queue, sampling))

  found = {4: draw(4, queue, bank_rows=2)}
  assert_identical(found[4], draw(4, mixed, bank_rows=2))
  found |= {16: draw(16, mixed), 64: draw(64, mixed, steps=64)}
  for few, many in ((4, 16), (16, 64)):
    flips = assert_equal_up_to_boundaries(found[few], found[many], params, config, sampling)
    drawn = sum(len(c.tokens) for c in found[few].values())
    with capsys.disabled():
      print(
        f'\n0.5B, S = {few} and {many}: {flips} of {len(queue)} completions flip ({drawn} tokens)'
      )
