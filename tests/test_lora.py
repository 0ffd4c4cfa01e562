"""Adapters: at the start the base to the bit, merged the same model, the only thing that trains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rlvr_jax import sharding
from rlvr_jax.models import lora, rules
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.transformer import forward, unstack
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling

ADAPTER = lora.Adapter(rank=4, alpha=8.0)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 400, (2, 9)), jnp.int32)


@pytest.fixture(scope='module', autouse=True)
def quick():
  """Programs that compile fast: what they compute is the same to rounding."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def factors_of(config, adapter=ADAPTER, dtype='float32'):
  """Factors with a B that is not zero."""
  factors = lora.init_lora(jax.random.key(1), config, adapter)
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: jnp.asarray(np.asarray(x) + rng.normal(0, 0.05, x.shape), dtype), factors
  )


def hidden(params, config, tokens=TOKENS):
  positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
  return np.asarray(jax.jit(lambda p: forward(p, tokens, positions, config=config)[0])(params))


@pytest.mark.parametrize('form', ['stacked', 'list'])
def test_at_the_start_the_model_is_the_base_to_the_bit(strict, form):
  config, params = tiny.make()
  attached = lora.attach(params, lora.init_lora(jax.random.key(0), config, ADAPTER), ADAPTER)
  if form == 'list':
    params, attached = unstack(params), unstack(attached)
  np.testing.assert_array_equal(hidden(attached, config), hidden(params, config))


@pytest.mark.parametrize('targets', [lora.TARGETS, ('v', 'o', 'down')])
def test_branch_and_merged_weights_are_one_model(strict, targets):
  adapter = dataclasses.replace(ADAPTER, targets=targets)
  with jax.enable_x64():
    config, params = tiny.make()
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    attached = lora.attach(params, factors_of(config, adapter, 'float64'), adapter)
    branch, merged = hidden(attached, config), hidden(lora.merge(attached), config)
    base = hidden(params, config)
  assert np.abs(branch - base).max() > 0.02, 'the adapter does too little to be tested'
  np.testing.assert_allclose(branch, merged, rtol=0, atol=1e-12)


def test_merged_is_weight_plus_scaled_product(strict):
  config, params = tiny.make()
  factors = factors_of(config)
  merged = lora.merge(lora.attach(params, factors, ADAPTER))
  for name, (inputs, outputs) in lora.shapes(config).items():
    a, b = (np.asarray(factors['layers'][f'{name}_{s}'], np.float64) for s in 'ab')
    for layer in range(config.num_layers):
      product = a[layer].reshape(-1, 4) @ b[layer].reshape(4, -1) * 2.0
      expected = np.asarray(params['layers'][name][layer], np.float64) + product.reshape(
        *inputs, *outputs
      )
      np.testing.assert_allclose(merged['layers'][name][layer], expected, rtol=0, atol=1e-6)
  assert jax.tree.structure(merged) == jax.tree.structure(params)


def test_the_hand_over_gives_the_sampler_merged_weights(strict):
  config, params = tiny.make()
  attached = lora.attach(params, factors_of(config), ADAPTER)
  first = hand_over(None, attached)
  expected = unstack(lora.merge(attached))
  assert jax.tree.structure(first) == jax.tree.structure(expected)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), first, expected)
  assert sum(x.size for x in jax.tree.leaves(first)) == sum(x.size for x in jax.tree.leaves(params))
  again = hand_over(hand_over(None, params), attached)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), again, expected)


def test_in_bfloat16_the_sampler_keeps_the_branch():
  """A product under half a bit of the weights would vanish in the sum; it has to move the model."""
  config, params = tiny.make()
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  factors = jax.tree.map(lambda x: 0.02 * x, factors_of(config))
  factors = jax.tree.map(lambda x: x.astype(jnp.bfloat16), factors)
  attached = lora.attach(params, factors, ADAPTER)
  merged = lora.merge(attached)['layers']['gate']
  assert float((merged == params['layers']['gate']).mean()) > 0.9, 'the product is too large'
  handed = hand_over(None, attached)
  again = hand_over(handed, jax.tree.map(lambda x: x, attached))
  expected = unstack(attached)
  assert jax.tree.structure(again) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, again, expected)


@pytest.mark.check
def test_over_a_mesh_the_branch_is_handed_over_too():
  config, params = tiny.make()
  attached = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), lora.attach(params, factors_of(config), ADAPTER)
  )
  mesh = sharding.make_mesh(2, 2, 2)
  over = hand_over(None, attached, mesh)
  np.testing.assert_allclose(
    hidden(over, config).astype('f4'), hidden(attached, config).astype('f4'), rtol=0, atol=0.2
  )


def test_the_sampler_draws_from_the_branch_as_the_learner_scores_it():
  """Through prefill and decode; in float32, where both agree closely, so not merged on purpose."""
  config, params = tiny.make()
  attached = lora.attach(params, factors_of(config), ADAPTER)
  sizes = {'slots': 2, 'bank_rows': 2, 'prompt_capacity': 8, 'completion_capacity': 8, 'steps': 4}
  engine = Engine(unstack(attached), config, **sizes)
  items = [Item(i, i, 0, 0, tuple(range(3 + i, 8 + i))) for i in range(3)]
  for done in engine.run(items, Sampling(max_tokens=8), stream='eval'):
    tokens = jnp.asarray([[*done.item.prompt_ids, *done.tokens.tolist()]], jnp.int32)
    scored, plain = (
      np.asarray(sequence_logprobs(p, tokens, config=config)[0])[0, 5:] for p in (attached, params)
    )
    np.testing.assert_allclose(done.logprobs, scored, rtol=0, atol=1e-4)
    assert np.abs(scored - plain).max() > 0.01


def test_gradients_are_those_of_the_merged_weights(strict):
  """dA = s dW B^T and dB = s A^T dW with dW the gradient of the merged matrix, in float64."""
  with jax.enable_x64():
    config, params = tiny.make()
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    factors = factors_of(config, dtype='float64')

    def total(params):
      return sequence_logprobs(params, TOKENS, config=config, chunk=16)[0].sum()

    found = jax.jit(jax.grad(lambda f: total(lora.attach(params, f, ADAPTER))))(factors)
    whole = jax.jit(jax.grad(total))(lora.merge(lora.attach(params, factors, ADAPTER)))
    for name in lora.TARGETS:
      a, b = (np.asarray(factors['layers'][f'{name}_{s}']) for s in 'ab')
      for layer in range(config.num_layers):
        left, right = a[layer].reshape(-1, 4), b[layer].reshape(4, -1)
        dw = np.asarray(whole['layers'][name][layer]).reshape(left.shape[0], right.shape[1])
        da, db = 2.0 * dw @ right.T, 2.0 * left.T @ dw
        np.testing.assert_allclose(
          found['layers'][f'{name}_a'][layer].reshape(da.shape), da, rtol=1e-9, atol=1e-10
        )
        np.testing.assert_allclose(
          found['layers'][f'{name}_b'][layer].reshape(db.shape), db, rtol=1e-9, atol=1e-10
        )


def test_factors_lie_on_the_mesh_as_their_weights_do():
  config, params = tiny.make()
  mesh = sharding.make_mesh(1, 4, 2)
  attached = lora.attach(params, factors_of(config), ADAPTER)
  placed = sharding.shardings(attached, rules.TRAIN_RULES, mesh)
  on = jax.device_put(attached, placed)
  np.testing.assert_allclose(hidden(on, config), hidden(attached, config), rtol=0, atol=1e-4)
  assert placed['layers']['q_a'].spec[1] == placed['layers']['q'].spec[1] == 'fsdp'
  assert placed['layers']['q_b'].spec[2] == placed['layers']['q'].spec[2] == 'tensor'
  whole = sharding.shardings(attached, rules.TRAIN_RULES, mesh, replicate=rules.KV_PATHS)
  assert set(whole['layers']['k_b'].spec) == {None}
  assert 'tensor' in whole['layers']['q_b'].spec


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'targets': ('q', 'qkv')}, r"lora\.targets=\('q', 'qkv'\): qkv; known are q, k"),
    ({'targets': ()}, 'empty; known are'),
    ({'rank': 0}, r'lora\.rank=0, lora\.alpha=8\.0: both must be positive'),
  ],
)
def test_refusals(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(ADAPTER, **change)
