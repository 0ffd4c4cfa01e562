"""The optimizer is AdamW by the book: a numpy loop with clipping, decay mask and schedules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl.optimizer import make_optimizer, make_schedule, stochastic_round
from rlvr_jax.sharding import make_mesh


def adam_state(state):
  """The part of an optimizer's state that holds both moments."""
  leaves = jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, 'nu'))
  return next(s for s in leaves if hasattr(s, 'nu'))


def rate(step, kind, peak, warmup, total):
  """The schedule in words: up in `warmup` steps, then constant or down to 0 at step `total`."""
  if step < warmup:
    return peak * (step + 1) / warmup
  done = min(1.0, (step - warmup) / max(1, total - warmup))
  return {
    'constant': peak,
    'linear': peak * (1 - done),
    'cosine': peak * 0.5 * (1 + math.cos(math.pi * done)),
  }[kind]


@pytest.mark.parametrize('kind', ['constant', 'linear', 'cosine'])
@pytest.mark.parametrize('warmup', [0, 1, 5])
def test_schedules(kind, warmup):
  schedule = make_schedule(3e-4, kind=kind, warmup_steps=warmup, total_steps=20)
  got = [float(schedule(step)) for step in range(25)]
  expected = [rate(step, kind, 3e-4, warmup, 20) for step in range(25)]
  np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-10)
  assert min(got[:20]) > 0  # no step of the run is lost


@pytest.mark.parametrize('clip_norm', [0.0, 1.0])
def test_a_numpy_loop_agrees(clip_norm):
  rng = np.random.default_rng(0)
  start = {
    'embed': rng.normal(size=(4, 3)),
    'layers': {'q_bias': rng.normal(size=(2, 3)), 'mlp_norm': rng.normal(size=3)},
    'final_norm': rng.normal(size=3),
  }
  decayed = {'embed'}
  b1, b2, eps, decay = 0.9, 0.99, 1e-8, 0.1
  with jax.enable_x64(True):
    optimizer = make_optimizer(
      1e-2,
      schedule='cosine',
      warmup_steps=2,
      total_steps=6,
      b1=b1,
      b2=b2,
      eps=eps,
      weight_decay=decay,
      clip_norm=clip_norm,
      moment_dtype='float64',
    )
    params = jax.tree.map(jnp.asarray, start)
    state = optimizer.init(params)
    flat, structure = jax.tree.flatten_with_path(start)
    names = [str(path[-1].key) for path, _ in flat]
    p = [leaf.copy() for _, leaf in flat]
    m, v = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
    for step in range(6):
      g = [rng.normal(size=x.shape) * (3.0 if step % 2 else 0.05) for x in p]
      updates, state = optimizer.update(
        jax.tree.unflatten(structure, [jnp.asarray(x) for x in g]), state, params
      )
      params = optax.apply_updates(params, updates)
      norm = math.sqrt(sum((x**2).sum() for x in g))
      factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
      for i, x in enumerate(g):
        m[i] = b1 * m[i] + (1 - b1) * factor * x
        v[i] = b2 * v[i] + (1 - b2) * (factor * x) ** 2
        direction = m[i] / (1 - b1 ** (step + 1))
        direction /= np.sqrt(v[i] / (1 - b2 ** (step + 1))) + eps
        if names[i] in decayed:
          direction += decay * p[i]
        p[i] -= rate(step, 'cosine', 1e-2, 2, 6) * direction
    # optax counts and scales in float32
    for got, expected in zip(jax.tree.leaves(params), p, strict=True):
      np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_decay_spares_norms_and_biases_of_a_real_model():
  config = ModelConfig('qwen3', 11, 8, 16, 2, 2, 1, 4, qkv_bias=True, qk_norm=True)
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
  params = jax.tree.map(lambda _: jnp.ones(2), shapes)  # the names are real
  optimizer = make_optimizer(1.0, weight_decay=0.5)
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  moved = {path[-1].key for path, u in jax.tree.leaves_with_path(updates) if np.any(u)}
  assert moved == {'embed', 'q', 'k', 'v', 'o', 'gate', 'up', 'down'}


def test_bfloat16_params_keep_wide_moments_and_tiny_rates_are_refused():
  with pytest.raises(ValueError, match=r"learning_rate=1e-06 with model.dtype='bfloat16'"):
    make_optimizer(1e-6, param_dtype='bfloat16')
  optimizer = make_optimizer(1e-2, param_dtype='bfloat16', b2=0.999)
  params = {'embed': jnp.ones((2, 2), jnp.bfloat16)}
  state = optimizer.init(params)
  assert {x.dtype for x in jax.tree.leaves(state) if x.ndim} == {jnp.dtype('float32')}
  grads = {'embed': jnp.full((2, 2), 0.1, jnp.bfloat16)}
  for _ in range(3):
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  assert params['embed'].dtype == jnp.bfloat16
  adam = adam_state(state)
  square = float(np.float32(jnp.bfloat16(0.1))) ** 2
  np.testing.assert_allclose(adam.nu['embed'], square * (1 - 0.999**3), rtol=1e-5)


def test_first_moment_in_the_dtype_asked_for():
  optimizer = make_optimizer(1e-2, moment_dtype='bfloat16')
  state = optimizer.init({'embed': jnp.ones((2, 2))})
  adam = adam_state(state)
  assert (adam.mu['embed'].dtype, adam.nu['embed'].dtype) == (jnp.bfloat16, jnp.float32)


def test_an_unknown_schedule_is_refused():
  with pytest.raises(ValueError, match=r"optimizer.schedule='step': known are constant, cosine"):
    make_schedule(1.0, kind='step', warmup_steps=0, total_steps=1)


def test_stochastic_rounding_is_to_a_neighbour_and_right_on_average():
  x = jnp.asarray([1.0, 1.0 + 2**-9, -3.3, 1e-30, 0.0, np.inf, -np.inf, 3e38], jnp.float32)
  keys = jax.random.split(jax.random.key(0), 4000)
  drawn = np.asarray(jax.vmap(lambda k: stochastic_round(k, x))(keys).astype(jnp.float32))
  for i, value in enumerate(np.asarray(x)):
    found = np.unique(drawn[:, i])
    if float(jnp.asarray(value, jnp.bfloat16)) == value:
      np.testing.assert_array_equal(found, [value])
      continue
    assert len(found) == 2
    assert found[0] < value < found[1]
    gap = found[1] - found[0]
    assert gap <= abs(value) / 64
    share = (value - found[0]) / gap
    # five standard errors of a share
    assert abs((drawn[:, i] == found[1]).mean() - share) < 5 * math.sqrt(share * (1 - share) / 4000)


def test_bfloat16_params_move_at_a_tiny_rate_only_by_stochastic_rounding():
  params = {'embed': jnp.full((64, 64), 0.5, jnp.bfloat16)}
  grads = {'embed': jnp.ones((64, 64), jnp.bfloat16)}

  def after(rounding, steps=20):
    optimizer = make_optimizer(1e-5, param_dtype='bfloat16', rounding=rounding, clip_norm=0.0)
    p, state = params, optimizer.init(params)
    for _ in range(steps):
      updates, state = jax.jit(optimizer.update)(grads, state, p)
      p = optax.apply_updates(p, updates)
    assert p['embed'].dtype == jnp.bfloat16
    return float(p['embed'].astype(jnp.float32).mean())

  assert after('nearest') == 0.5
  # 20 steps of 1e-5 each; spacing 2**-9 below 0.5: the standard error of the mean is 1e-6 * 10
  assert after('stochastic') == pytest.approx(0.5 - 20e-5, abs=5e-5)
  make_optimizer(1e-6, param_dtype='bfloat16', rounding='stochastic')  # not refused
  with pytest.raises(ValueError, match=r"optimizer.rounding='up': known are nearest, stochastic"):
    make_optimizer(1e-6, rounding='up')


def test_a_narrow_second_moment_follows_the_wide_one():
  rng = np.random.default_rng(0)
  params = {'embed': jnp.zeros((100, 100))}
  found = {}
  for dtype in ('float32', 'bfloat16'):
    rng = np.random.default_rng(0)
    optimizer = make_optimizer(1e-2, second_moment_dtype=dtype, b2=0.999)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(60):
      grads = {'embed': jnp.asarray(rng.normal(size=(100, 100)), jnp.float32)}
      _, state = update(grads, state, params)
    assert adam_state(state).nu['embed'].dtype == dtype
    found[dtype] = np.asarray(adam_state(state).nu['embed'], np.float64)
  ratio = found['bfloat16'] / found['float32']
  # each within a few roundings of 1/256, and the mean right
  assert np.abs(ratio - 1).max() < 0.1
  assert abs(ratio.mean() - 1) < 1e-3


def test_rounding_does_not_depend_on_the_mesh_and_differs_by_step_and_seed():
  x = {'embed': jnp.full((64, 16), 0.5, jnp.bfloat16)}
  grads = jax.tree.map(jnp.ones_like, x)
  split = NamedSharding(make_mesh(2, 2, 2), PartitionSpec('tensor', 'fsdp'))

  def two_steps(params, seed):
    optimizer = make_optimizer(
      1e-4, param_dtype='bfloat16', rounding='stochastic', second_moment_dtype='bfloat16', seed=seed
    )
    state, found = optimizer.init(params), []
    for _ in range(2):
      updates, state = jax.jit(optimizer.update)(grads, state, params)
      found.append(np.asarray(updates['embed'], np.float32))
    return *found, np.asarray(adam_state(state).nu['embed'], np.float32)

  one = two_steps(x, 0)
  jax.tree.map(np.testing.assert_array_equal, two_steps(jax.device_put(x, split), 0), one)
  first, second, _ = one
  assert np.any(first != second)
  assert np.any(first != two_steps(x, 1)[0])
