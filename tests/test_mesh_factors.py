"""Every way to factor 8 devices into (data, fsdp, tensor) gives what one device gives.

Loss and gradient of the learner (dense, packed, LoRA, critic), and the sampler's tokens by the
exactness contract. At tensor=4 and 8 the two kv heads are replicated.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from exactness import assert_equal_up_to_boundaries, by_item

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.lora import Adapter, attach, init_lora
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl import critic
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.rollout import assemble, layout_of, micro_batches
from rlvr_jax.rl.trained import Trained
from rlvr_jax.rl.types import TrainState
from rlvr_jax.rl.update import make_update, rows_sharding, state_shardings
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.sharding import make_mesh, row_parts

pytestmark = pytest.mark.usefixtures('strict')
SIZES = (1, 2, 4, 8)
FACTORS = [(d, f, t) for d in SIZES for f in SIZES for t in SIZES if d * f * t == 8]
# every axis divides what it splits; 8 query heads over 2 kv heads
CONFIG = ModelConfig('qwen2', 16, 8, 16, 2, 8, 2, 4, qkv_bias=True, tie_embeddings=False)
B, LONGEST, TEMPERATURE = 24, 10, 0.8
GRPO = choose('grpo', kl_coef=0.1, clip_low=0.5, clip_high=0.9)
PPO = choose('ppo')
# keeps the gradient in its state
KEEP = optax.GradientTransformation(
  lambda params: jax.tree.map(jnp.zeros_like, params),
  lambda updates, state, params=None: (updates, updates),
)
ADAPTER = Adapter(4, 8.0, ('q', 'k', 'v', 'o', 'gate', 'up', 'down'))
TRAINED = {
  'dense': Trained(),
  'packed': Trained(),
  'lora': Trained(ADAPTER),
  'critic': Trained(),
}


def few_in_ci(cases, kept):
  """All cases in `make check`, the kept ones in CI too."""
  return [c if c in kept else pytest.param(*c, marks=pytest.mark.check) for c in cases]


@pytest.fixture
def quick():
  """Programs that compile fast."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def noisy(shapes, seed):
  """Random numbers in every leaf, f32: biases, norms and the second factors of adapters too."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda s: (0.4 * rng.normal(size=s.shape)).astype(np.float32), shapes)


def start_params(config=CONFIG):
  return noisy(jax.eval_shape(lambda: init_params(jax.random.key(0), config)), 0)


@functools.cache
def batch():
  """Ragged rollouts, and per-token arrays f32[B,W] of them: off-policy, with a reference."""
  rng = np.random.default_rng(1)
  prompts = [rng.integers(1, 16, rng.integers(1, 6)).tolist() for _ in range(B)]
  completions = [rng.integers(0, 16, rng.integers(1, LONGEST + 1)) for _ in range(B)]
  sampler = [-rng.exponential(1.0, len(c)) for c in completions]
  rollouts = assemble(prompts, completions, sampler_logprobs=sampler)
  shape = rollouts.tokens.shape
  others = [-rng.exponential(1.0, shape).astype(np.float32) for _ in range(2)]
  values = [rng.normal(size=shape).astype(np.float32) for _ in range(2)]
  return rollouts, rng.normal(size=shape).astype(np.float32), others, values


def layout(kind, multiple):
  rollouts = batch()[0]
  width = rollouts.tokens.shape[1]
  # micro-batches of eight rows: three of rollouts, fewer of packed ones
  return layout_of(rollouts, micro_tokens=8 * width, multiple=multiple, packing=kind != 'dense')


def step(kind, mesh=None):
  """(loss, gradient) of one step on eight devices, or on one."""
  rollouts, advantages, (old, ref), values = batch()
  cut = layout(kind, 1 if mesh is None else row_parts(mesh))
  assert cut.used > 1
  parts, common = TRAINED[kind], {'longest': LONGEST, 'compute_dtype': 'float32', 'mesh': mesh}
  state: Any
  rows: Any
  update: Any
  if kind == 'critic':
    update = critic.make_critic_update(CONFIG, PPO, KEEP, remat='block', **common)
    own = {'backbone': start_params(), 'value': noisy(jnp.zeros(CONFIG.embed_dim), 3)}
    del own['backbone']['head']
    state = critic.CriticState(own, KEEP.init(own))
    rows = critic.CriticRows(
      micro_batches(rollouts, None, cut), *(jnp.asarray(cut.cut(x)) for x in values)
    )
  else:
    update = make_update(CONFIG, GRPO, KEEP, chunk=16, trained=parts, **common)
    lora = None
    if parts.adapter is not None:
      shapes = jax.eval_shape(lambda: init_lora(jax.random.key(0), CONFIG, ADAPTER))
      lora = noisy(shapes, 2)
    state = TrainState(jnp.zeros((), jnp.int32), start_params(), None, lora=lora)
    state = state.replace(opt_state=KEEP.init(parts.take(state)))
    rows = micro_batches(rollouts, advantages, cut, old_logprobs=old, ref_logprobs=ref)
  if mesh is not None:
    state = jax.device_put(state, state_shardings(state, CONFIG, mesh))
    rows = jax.device_put(rows, rows_sharding(mesh))
  after, metrics = update(jax.tree.map(jnp.asarray, state), rows, jnp.float32(TEMPERATURE))
  prefix = 'critic/' if kind == 'critic' else ''
  assert int(metrics[f'{prefix}skipped']) == 0
  if mesh is not None:
    for leaf, where in zip(
      *map(jax.tree.leaves, (after, state_shardings(after, CONFIG, mesh))), strict=True
    ):
      assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
  return jax.device_get((metrics[f'{prefix}loss'], after.opt_state))


one_device = functools.cache(step)


@pytest.mark.parametrize(
  ('kind', 'shape'),
  few_in_ci(
    [(kind, shape) for kind in TRAINED for shape in FACTORS],
    [('packed', (1, 2, 4)), ('lora', (1, 1, 8))],
  ),
  ids=str,
)
@pytest.mark.usefixtures('quick')
def test_loss_and_gradient_are_those_of_one_device(kind, shape):
  (expected_loss, expected), (loss, got) = one_device(kind), step(kind, make_mesh(*shape))
  assert loss == pytest.approx(expected_loss, rel=1e-5)
  pairs = zip(jax.tree.leaves_with_path(got), jax.tree.leaves(expected), strict=True)
  for (path, g), e in pairs:
    assert np.linalg.norm(e) > 0, path
    error = np.linalg.norm(g - e) / np.linalg.norm(e)
    assert error < 1e-5, f'{path}: {error}'


SAMPLING = Sampling(stop_ids=(7, 11, 200, 301, 399, 42, 99, 150), max_tokens=12)


@functools.cache
def sampled_model(kind):
  """(config, params with adapters attached where kind asks for them)."""
  config, params = tiny.make(num_heads=8, head_dim=4)
  if kind == 'lora':
    shapes = jax.eval_shape(lambda: init_lora(jax.random.key(0), config, ADAPTER))
    params = attach(params, jax.tree.map(jnp.asarray, noisy(shapes, 4)), ADAPTER)
  return config, params


def items():
  rng = np.random.default_rng(0)
  prompts = [tuple(rng.integers(0, 400, n).tolist()) for n in (1, 5, 16, 17, 30)]
  return [Item(i, 50 + i, 0, s, p) for i, p in enumerate(prompts) for s in range(5)]


def drawn(kind, mesh=None):
  config, params = sampled_model(kind)
  if mesh is not None:
    params = jax.device_put(params, state_shardings(params, config, mesh))
  engine = Engine(
    hand_over(None, params, mesh), config, mesh=mesh, slots=8, bank_rows=6, steps=4,
    prompt_capacity=32, completion_capacity=12,
  )  # fmt: skip
  return by_item(engine.run(items(), SAMPLING))


drawn_by_one = functools.cache(drawn)


@pytest.mark.check  # in CI test_sampling_exactness.py has one
@pytest.mark.parametrize('shape', FACTORS, ids=str)
@pytest.mark.parametrize('kind', ['dense', 'lora'])
@pytest.mark.usefixtures('quick')
def test_tokens_are_those_of_one_device_up_to_boundaries(kind, shape):
  config, params = sampled_model(kind)
  assert_equal_up_to_boundaries(
    drawn_by_one(kind), drawn(kind, make_mesh(*shape)), params, config, SAMPLING
  )
