"""Rules put every leaf where they say, on 8 simulated devices, and say what does not fit."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.rules import KV_PATHS, TRAIN_RULES
from rlvr_jax.models.transformer import unstack
from rlvr_jax.sampling.layout import decode_shardings, hand_over
from rlvr_jax.sharding import make_mesh, path_name, shardings

HEADS = {'num_heads': 4, 'num_kv_heads': 2}
TRAIN = {
  'embed': P('tensor', 'fsdp'),
  'head': P('tensor', 'fsdp'),
  'final_norm': P(),
  'layers/attn_norm': P(),
  'layers/mlp_norm': P(),
  'layers/q_norm': P(),
  'layers/k_norm': P(),
  'layers/q': P(None, 'fsdp', 'tensor', None),
  'layers/k': P(None, 'fsdp', 'tensor', None),
  'layers/v': P(None, 'fsdp', 'tensor', None),
  'layers/q_bias': P(None, 'tensor', None),
  'layers/k_bias': P(None, 'tensor', None),
  'layers/v_bias': P(None, 'tensor', None),
  'layers/o': P(None, 'tensor', None, 'fsdp'),
  'layers/gate': P(None, 'fsdp', 'tensor'),
  'layers/up': P(None, 'fsdp', 'tensor'),
  'layers/down': P(None, 'tensor', 'fsdp'),
}


@functools.cache
def params():
  """Every parameter there is: biases, qk-norms and an untied head."""
  return tiny.make(qk_norm=True)[1]


def specs(tree):
  return {path_name(p): s.spec for p, s in jax.tree_util.tree_leaves_with_path(tree)}


def test_train_rules_name_every_leaf():
  placed = shardings(params(), TRAIN_RULES, make_mesh(2, 2, 2))
  assert specs(placed) == TRAIN
  # moments of an optimizer have the same paths under a prefix
  nested = shardings({'opt': [{'mu': params()}]}, TRAIN_RULES, make_mesh(2, 2, 2))
  assert specs(nested) == {f'opt/0/mu/{name}': spec for name, spec in TRAIN.items()}


def without(spec, axis):
  return P(*(None if a == axis else a for a in spec))


def test_decode_rules_replicate_over_data_and_fsdp():
  placed = specs(decode_shardings(unstack(params()), make_mesh(2, 2, 2)))
  for name, spec in TRAIN.items():
    for i in (0, 1):
      layered = name.replace('layers/', f'layers/{i}/')
      axes = without(spec, 'fsdp')
      expected = P(*axes[1:]) if 'layers' in name else axes
      assert placed[layered] == expected, layered


def test_kv_is_replicated_where_tensor_does_not_divide_it():
  placed = specs(decode_shardings(unstack(params()), make_mesh(2, 1, 4)))
  for name, spec in placed.items():
    is_kv = re.search(r'/(k|v)(_bias)?$', name)
    assert ('tensor' in spec) == (not is_kv and 'norm' not in name), name
  train = specs(shardings(params(), TRAIN_RULES, make_mesh(1, 2, 4), replicate=KV_PATHS))
  assert train['layers/k'] == P(None, 'fsdp', None, None)
  assert train['layers/q'] == TRAIN['layers/q']
  with pytest.raises(ValueError, match=r'layers/k .*size 2 cannot be split 4 ways'):
    shardings(params(), TRAIN_RULES, make_mesh(1, 2, 4))


def test_leaves_that_do_not_fit_are_named():
  mesh = make_mesh(2, 2, 2)
  with pytest.raises(ValueError, match=r'no sharding rule for layers/mystery \(2, 3\)'):
    shardings({'layers': {'mystery': np.zeros((2, 3))}}, TRAIN_RULES, mesh)
  with pytest.raises(
    ValueError, match=r'embed \(401, 32\): an axis of size 401 .* 2 ways .*tensor'
  ):
    shardings({'embed': np.zeros((401, 32))}, TRAIN_RULES, mesh)
  with pytest.raises(ValueError, match=r'layers/q has shape .* names 4 axes'):
    shardings({'layers': {'q': np.zeros((32, 32))}}, TRAIN_RULES, mesh)
  # scalars need no rule
  assert shardings({'count': np.zeros(())}, TRAIN_RULES, mesh)['count'].spec == P()
  with pytest.raises(ValueError, match=r'layers/0/\w .*size 4 cannot be split 8 ways'):
    decode_shardings(unstack(params()), make_mesh(1, 1, 8))


def test_a_mesh_takes_the_rest():
  assert dict(make_mesh().shape) == {'data': 8, 'fsdp': 1, 'tensor': 1}
  assert dict(make_mesh(2, -1, 2).shape) == {'data': 2, 'fsdp': 2, 'tensor': 2}
  assert dict(make_mesh(-1, devices=jax.devices()[:3]).shape)['data'] == 3


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((3, 1, 1), 'mesh.data=3, mesh.fsdp=1, mesh.tensor=1 does not divide the 8 devices'),
    ((-1, 3, 1), 'mesh.fsdp=3.* does not divide the 8 devices'),
    ((-1, -1, 1), 'at most one may be -1'),
    ((0, 1, 1), 'mesh.data=0.*positive'),
    ((-2, 1, 1), 'mesh.data=-2.*positive'),
    ((16, 1, 1), 'mesh.data=16.* 8 devices'),
    ((2, 2, 1), 'mesh.data=2.* 8 devices'),
  ],
)
def test_a_mesh_that_does_not_fit_is_refused(shape, message):
  with pytest.raises(ValueError, match=message):
    make_mesh(*shape)


def test_eight_devices_score_like_one(strict):
  config, own = tiny.make(seed=2)
  tokens = np.random.default_rng(0).integers(0, 400, (8, 16)).astype(np.int32)
  run = jax.jit(functools.partial(sequence_logprobs, config=config))
  expected, entropy = run(own, tokens)
  mesh = make_mesh(2, 2, 2)
  placed = jax.device_put(own, shardings(own, TRAIN_RULES, mesh))
  rows = jax.device_put(tokens, NamedSharding(mesh, P(('data', 'fsdp'))))
  got = run(placed, rows)
  np.testing.assert_allclose(got[0], expected, rtol=0, atol=1e-5)
  np.testing.assert_allclose(got[1], entropy, rtol=0, atol=1e-5)


@pytest.mark.parametrize('shape', [(2, 2, 2), (2, 1, 4)], ids=str)
def test_hand_over_re_lays_weights_and_keeps_the_layout(shape):
  mesh = make_mesh(*shape)
  own = tiny.make()[1]
  replicate = KV_PATHS if shape[2] == 4 else None
  placed = jax.device_put(own, shardings(own, TRAIN_RULES, mesh, replicate=replicate))
  sampler = hand_over(None, placed, mesh)
  target = decode_shardings(unstack(own), mesh)
  doubled = jax.tree.map(lambda x: x * jnp.asarray(2, x.dtype), placed)
  again = hand_over(sampler, doubled)
  assert all(x.is_deleted() for x in jax.tree.leaves(sampler))
  assert not any(x.is_deleted() for x in jax.tree.leaves((placed, doubled)))
  for leaf, where, value in zip(
    *(jax.tree.leaves(t) for t in (again, target, unstack(own))), strict=True
  ):
    assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
    np.testing.assert_array_equal(leaf, 2 * value)
