"""The optimizer step does not depend on how its batch is cut, ordered or laid over devices."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.transformer import forward, init_params
from rlvr_jax.rl import entropy, losses
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.optimizer import make_optimizer
from rlvr_jax.rl.rollout import assemble, layout_of, micro_batches
from rlvr_jax.rl.types import TrainState
from rlvr_jax.rl.update import make_score, make_update, state_shardings
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.sharding import make_mesh

CONFIG = ModelConfig('qwen2', 12, 8, 16, 2, 4, 2, 4, qkv_bias=True)
B, LONGEST, EOS = 8, 10, 0
ALGORITHM = choose('grpo', kl_coef=0.1, dual_clip=0.0, clip_low=0.9, clip_high=5.0)
SGD = optax.sgd(1.0)  # the step is then the gradient itself


@pytest.fixture(autouse=True)
def quick(strict):
  """Strict dtype promotion in every test; programs that compile fast, for meaning not for speed."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@contextlib.contextmanager
def double():
  """float64; the model asks for the wider of its dtype and float32, which strictness refuses."""
  with jax.enable_x64(True), jax.numpy_dtype_promotion('standard'):
    yield


@functools.cache
def start_params(dtype='float32'):
  """Random in every leaf, biases and norms too; numpy, so that no test donates another's arrays."""
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: (0.4 * rng.normal(size=s.shape)).astype(dtype), shapes)


def new_state(optimizer=SGD, dtype='float32'):
  params = jax.tree.map(jnp.asarray, start_params(dtype))
  return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))


@functools.cache
def batch():
  """Ragged rollouts that end in EOS, whose id is also the padding's."""
  rng = np.random.default_rng(1)
  prompts = [rng.integers(1, 12, rng.integers(1, 6)).tolist() for _ in range(B)]
  completions = [
    np.append(rng.integers(1, 12, rng.integers(0, LONGEST)), EOS).astype(np.int32) for _ in range(B)
  ]
  logprobs = [-rng.exponential(1.0, len(c)).astype(np.float32) for c in completions]
  rollouts = assemble(prompts, completions, sampler_logprobs=logprobs)
  return rollouts, rng.normal(size=B).astype(np.float32)


def cut(rows_each, dtype='float32', order=None, multiple=1):
  """The batch as Rows of at most rows_each rows a micro-batch, off-policy and with a reference."""
  rollouts, advantages = batch()
  rng = np.random.default_rng(2)
  others = [-rng.exponential(1.0, rollouts.tokens.shape) for _ in range(2)]
  if order is not None:
    rollouts, advantages = jax.tree.map(lambda x: x[order], rollouts), advantages[order]
    others = [x[order] for x in others]
  T = rollouts.tokens.shape[1]
  old, ref = others
  layout = layout_of(rollouts, micro_tokens=rows_each * T, multiple=multiple)
  rows = micro_batches(rollouts, advantages, layout, old_logprobs=old, ref_logprobs=ref)
  return jax.tree.map(lambda x: x.astype(dtype) if x.dtype.kind == 'f' else x, rows)


@functools.cache
def sgd_update(algorithm, dtype='float32', mesh=None):
  return make_update(
    CONFIG, algorithm, SGD, longest=LONGEST, compute_dtype=dtype, remat=False, chunk=32, mesh=mesh
  )


@functools.cache
def shared_score():
  return make_score(CONFIG, chunk=32)


def step(rows, dtype='float32', mesh=None):
  """(loss, gradient) of a step on rows."""
  update = sgd_update(ALGORITHM, dtype, mesh)
  state = new_state(dtype=dtype)
  if mesh is not None:
    state = jax.device_put(state, state_shardings(state, CONFIG, mesh))
  after, metrics = update(state, rows, jnp.asarray(0.8, dtype))
  assert int(metrics['skipped']) == 0
  before = start_params(dtype)
  return float(metrics['loss']), jax.tree.map(lambda a, b: a - np.asarray(b), before, after.params)


def assert_same(got, expected, tolerance):
  assert got[0] == pytest.approx(expected[0], rel=tolerance, abs=tolerance)
  for (path, g), e in zip(
    jax.tree.leaves_with_path(got[1]), jax.tree.leaves(expected[1]), strict=True
  ):
    error = np.linalg.norm(g - e) / np.linalg.norm(e)
    assert error < tolerance, f'{path}: {error}'


@functools.cache
def whole():
  return step(cut(B, 'float64'), 'float64')


def test_the_step_in_float64_does_not_depend_on_micro_batches():
  with double():
    assert cut(1).tokens.shape[:2] == (8, 1)
    assert cut(3).tokens.shape[:2] == (3, 3)  # the last row is filling
    order = np.random.default_rng(3).permutation(B)
    for rows in (cut(1, 'float64'), cut(3, 'float64', order)):
      assert_same(step(rows, 'float64'), whole(), 1e-9)
    assert_same(step(cut(B, 'float64', order), 'float64'), whole(), 1e-9)


MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]  # the last: kv heads replicated over tensor


@pytest.mark.parametrize('shape', MESHES, ids=str)
def test_eight_devices_are_one_in_float64(shape):
  with double():
    mesh = make_mesh(*shape)
    rows = cut(4, 'float64', multiple=shape[0] * shape[1])
    got = step(rows, 'float64', mesh)
    assert_same(got, whole(), 1e-9)


def test_float32_agrees_in_norm():
  eight = step(cut(4, multiple=4), mesh=make_mesh(2, 2, 2))
  assert_same(eight, step(cut(B)), 1e-5)


def test_gradient_is_that_of_the_formula():
  """An independent path: logits of the whole row at once, and the loss written another way."""
  rows = jax.tree.map(lambda x: x[0], cut(B, 'float64'))
  T = rows.tokens.shape[1]

  def loss(params):
    positions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), rows.tokens.shape)
    hidden, _ = forward(params, jnp.asarray(rows.tokens), positions, config=CONFIG)
    probability = jax.nn.softmax(logits(params, hidden) / 0.8)[:, :-1]
    chosen = jnp.take_along_axis(probability, rows.tokens[:, 1:, None], axis=2)[..., 0]
    ratio = chosen / np.exp(rows.old_logprobs[:, 1:])
    a = rows.advantages[:, 1:]
    kept = jnp.where(a > 0, a * jnp.minimum(ratio, 6.0), a * jnp.maximum(ratio, 0.1))
    kl = jnp.square(jnp.log(chosen) - rows.ref_logprobs[:, 1:]) / 2  # k3_st has this gradient
    mask = rows.completion_mask
    return jnp.sum(jnp.where(mask[:, 1:], 0.1 * kl - kept, 0.0)) / mask.sum()

  with double():
    grads = jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, start_params('float64')))
    value = whole()[0]
    assert_same(whole(), (value, jax.tree.map(np.asarray, grads)), 1e-9)


def test_no_old_logprobs_is_the_policy_before_the_step():
  """On the first step, recomputing them by the learner's own program changes nothing."""
  rows = cut(4).replace(ref_logprobs=None)
  score = shared_score()
  temperature = jnp.float32(0.8)
  old, _ = score(jax.tree.map(jnp.asarray, start_params()), rows, temperature)
  update = sgd_update(choose('grpo'))
  found = [
    update(new_state(), rows.replace(old_logprobs=given), temperature) for given in (None, old)
  ]
  (implicit, _), (explicit, metrics) = found
  for a, b in zip(*map(jax.tree.leaves, (implicit.params, explicit.params)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  assert float(metrics['kl_old']) < 1e-9
  assert 'kl_ref' not in metrics  # no reference, no KL term, no forward for it


def test_what_is_masked_or_padding_is_invisible():
  """NaN under the mask, other tokens in the padding, more filling: the same step, to the bit."""
  rows = cut(B)
  expected = step(rows)
  mask = rows.completion_mask
  rollouts, _ = batch()
  ends = (rollouts.prompt_lengths + rollouts.completion_lengths)[None, :, None]
  beyond = np.arange(mask.shape[-1])[None, None] >= ends
  hidden = {
    k: np.where(mask, getattr(rows, k), np.float32(np.nan))
    for k in ('advantages', 'sampler_logprobs', 'old_logprobs', 'ref_logprobs')
  }
  hidden['tokens'] = np.where(beyond, 7, rows.tokens).astype(np.int32)
  assert_same(step(rows.replace(**hidden)), expected, 1e-6)


def test_the_stop_token_is_learned_even_when_it_is_the_padding_id():
  rollouts, _ = batch()
  assert rollouts.completion_mask.sum() == rollouts.completion_lengths.sum()
  last = rollouts.prompt_lengths + rollouts.completion_lengths - 1
  rows = np.arange(B)
  assert (rollouts.tokens[rows, last] == EOS).all()
  assert rollouts.completion_mask[rows, last].all()
  assert not rollouts.completion_mask[rows[last < last.max()], last[last < last.max()] + 1].any()
  only_stops = np.zeros_like(rollouts.completion_mask)
  only_stops[rows, last] = True
  T = rollouts.tokens.shape[1]
  stops = rollouts.replace(completion_mask=only_stops)
  layout = layout_of(stops, micro_tokens=4 * T)
  cut_rows = micro_batches(stops, np.ones(B, np.float32), layout)
  score = shared_score()
  stop_logprobs = []
  state = new_state()
  update = sgd_update(choose('grpo'))
  for _ in range(2):
    logprobs = layout.restore(score(state.params, cut_rows, jnp.float32(1))[0])
    stop_logprobs.append(float(logprobs[rows, last].mean()))
    state, _ = update(state, cut_rows, jnp.float32(1))
  assert stop_logprobs[1] > stop_logprobs[0] + 0.01


@functools.cache
def adam_update():
  optimizer = make_optimizer(1e-2)
  return optimizer, make_update(
    CONFIG, choose('grpo'), optimizer, longest=LONGEST, remat=False, chunk=32
  )


@pytest.mark.parametrize('poison', ['loss', 'gradient'])
def test_a_non_finite_step_changes_nothing(poison):
  optimizer, update = adam_update()
  rows = cut(4).replace(ref_logprobs=None, old_logprobs=None)
  temperature = jnp.float32(1)
  with jax.numpy_dtype_promotion('standard'):
    state = new_state(optimizer)
  state, metrics = update(state, rows, temperature)
  assert int(metrics['skipped']) == 0
  before = jax.tree.map(np.asarray, state)
  value = {'loss': np.inf, 'gradient': 3e38}[poison]  # 3e38 in the loss is finite; its square no
  bad = rows.advantages.copy()
  bad[0, 0, np.flatnonzero(rows.completion_mask[0, 0])[0]] = value
  state, metrics = update(state, rows.replace(advantages=bad), temperature)
  assert int(metrics['skipped']) == 1
  assert int(state.step) == 2
  for a, b in zip(
    *map(jax.tree.leaves, ((before.params, before.opt_state), (state.params, state.opt_state))),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  state, metrics = update(state, rows, temperature)
  assert int(metrics['skipped']) == 0
  assert np.any(np.asarray(state.params['embed']) != before.params['embed'])


def test_a_batch_without_a_token_changes_nothing():
  """Not even by momentum, nor an entropy coefficient; and it is no skipped step."""
  optimizer = make_optimizer(1e-2)
  row = choose('adaptive_entropy', entropy_target=0.5, entropy_coef=1e-3)
  update = make_update(CONFIG, row, optimizer, longest=LONGEST, remat=False, chunk=32)
  rows = cut(4).replace(ref_logprobs=None, old_logprobs=None)
  with jax.numpy_dtype_promotion('standard'):
    state = new_state(optimizer).replace(entropy=entropy.start(row))
  state, metrics = update(state, rows, jnp.float32(1))
  assert float(metrics['entropy']) > 0.5
  before = jax.tree.map(np.asarray, state)
  empty = rows.replace(completion_mask=np.zeros_like(rows.completion_mask))
  state, metrics = update(state, empty, jnp.float32(1))
  assert int(metrics['skipped']) == 0
  assert int(state.step) == 2
  jax.tree.map(np.testing.assert_array_equal, before.replace(step=state.step), state)


def test_metrics_are_means_over_all_tokens():
  rows = cut(4).replace(ref_logprobs=None)
  update = sgd_update(choose('grpo'))
  _, metrics = update(new_state(), rows, jnp.float32(0.8))
  mask = rows.completion_mask
  gap = np.abs(rows.sampler_logprobs - rows.old_logprobs)[mask]
  assert float(metrics['tokens']) == mask.sum()
  assert float(metrics['gap/max']) == pytest.approx(gap.max(), rel=1e-6)
  assert float(metrics['gap/mean']) == pytest.approx(gap.mean(), rel=1e-5)
  assert 0 < float(metrics['entropy']) < np.log(12)


@pytest.mark.parametrize('temperature', [0.6, 1.0])
def test_what_the_sampler_recorded_is_what_the_learner_computes(temperature):
  """Through the engine: ragged groups, the gap metrics of the update under 1e-4."""
  params = jax.tree.map(jnp.asarray, start_params())
  with jax.numpy_dtype_promotion('standard'):
    engine = Engine(
      hand_over(None, params), CONFIG, slots=8, bank_rows=4, prompt_capacity=16,
      completion_capacity=LONGEST, steps=8,
    )  # fmt: skip
    prompts = [(3,), (4, 5, 6, 7, 8), (9, 2, 11), (6, 6)]
    items = [Item(i, 100 + i, 0, s, p) for i, p in enumerate(prompts) for s in range(4)]
    sampling = Sampling(temperature, stop_ids=(EOS,), max_tokens=LONGEST)
    drawn = list(engine.run(items, sampling, stream='train'))
  assert len({len(c.tokens) for c in drawn}) > 2
  for half in (drawn[:B], drawn[B:]):
    rollouts = assemble(
      [c.item.prompt_ids for c in half],
      [c.tokens for c in half],
      sampler_logprobs=[c.logprobs for c in half],
    )
    layout = layout_of(rollouts, micro_tokens=4 * rollouts.tokens.shape[1])
    rows = micro_batches(rollouts, np.ones(B, np.float32), layout)
    _, metrics = sgd_update(choose('grpo'))(new_state(), rows, jnp.float32(temperature))
    assert 0 < float(metrics['gap/max']) < 1e-4
    assert float(metrics['gap/mean']) <= float(metrics['gap/max'])


def test_denominators_are_counts():
  mask = np.array([[True, False, True], [False, False, False]])
  found = losses.denominators(jnp.asarray(mask), 3)
  assert (float(found.tokens), float(found.sequences), float(found.longest)) == (2, 1, 3)


def test_gradients_of_bfloat16_params_are_summed_in_float32():
  seen = []

  def keep(updates, state, params=None):
    del params
    seen.append({x.dtype for x in jax.tree.leaves(updates)})
    return jax.tree.map(jnp.zeros_like, updates), state

  optimizer = optax.GradientTransformation(lambda params: (), keep)
  state = new_state(optimizer, 'bfloat16')
  update = make_update(
    CONFIG, choose('grpo'), optimizer, longest=LONGEST, compute_dtype='bfloat16', remat=False
  )
  jax.eval_shape(update, state, cut(3), jnp.float32(1))
  assert seen == [{jnp.dtype('float32')}]
