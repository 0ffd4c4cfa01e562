"""Distillation's losses against plain float64: forward KL, its gradient, reverse KL on samples."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from rlvr_jax.models.characters import char_tokenizer
from rlvr_jax.models.transformer import forward
from rlvr_jax.rl import distill_losses, losses, rollout
from rlvr_jax.rl.learner import start_state
from rlvr_jax.rl.losses import Denominators


@pytest.fixture(autouse=True)
def x64():
  with jax.enable_x64(True):
    yield


def heads(seed, N=7, D=5, E=4, V=13):
  rng = np.random.default_rng(seed)
  return (
    rng.normal(0, 1, (V, D)),
    rng.normal(0, 1, (N, D)),
    rng.normal(0, 1, (V + 3, E)),  # padded, as some models' are
    rng.normal(0, 1, (N, E)),
  )


def softmax(z):
  e = np.exp(z - z.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize('chunk', [1, 3, 7, 100])
def test_forward_kl_and_its_gradient_are_those_of_the_formula(chunk):
  W, h, U, g = heads(0)
  weight = np.random.default_rng(1).normal(0, 1, len(h))

  def total(W, h):
    kl = distill_losses.forward_kl(
      {'head': W}, h, {'head': U}, jnp.asarray(g), vocabulary=13, chunk=chunk
    )
    return jnp.sum(weight * kl), kl

  (_, kl), (dW, dh) = jax.value_and_grad(total, (0, 1), has_aux=True)(
    jnp.asarray(W), jnp.asarray(h)
  )
  p, q = softmax(g @ U[:13].T), softmax(h @ W.T)
  np.testing.assert_allclose(kl, (p * (np.log(p) - np.log(q))).sum(axis=1), rtol=1e-12)
  dz = (q - p) * weight[:, None]
  np.testing.assert_allclose(dW, dz.T @ h, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(dh, dz @ W, rtol=1e-9, atol=1e-12)


def test_no_gradient_flows_to_the_teacher():
  W, h, U, g = heads(0)

  def total(U, g):
    return distill_losses.forward_kl(
      {'head': W}, jnp.asarray(h), {'head': U}, g, vocabulary=13, chunk=3
    ).sum()

  for gradient in jax.grad(total, (0, 1))(jnp.asarray(U), jnp.asarray(g)):
    assert not np.any(gradient)


def test_the_logits_of_all_tokens_never_exist_at_once():
  N, D, V, chunk = 512, 8, 1000, 32
  shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((V, D), (N, D), (V, D), (N, D))]

  def total(W, h, U, g):
    return distill_losses.forward_kl(
      {'head': W}, h, {'head': U}, g, vocabulary=V, chunk=chunk
    ).sum()

  compiled = jax.jit(jax.grad(total, (0, 1))).lower(*shapes).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < N * V * 4 / 2


def test_the_expected_step_on_samples_is_down_the_reverse_kl():
  """Two tokens from V = 4: all 16 completions, weighted by their probability."""
  V = 4
  rng = np.random.default_rng(3)
  z0, z1 = rng.normal(0, 1, V), rng.normal(0, 1, (V, V))  # the second token depends on the first
  t0, t1 = softmax(rng.normal(0, 1, V)), softmax(rng.normal(0, 1, (V, V)))
  p0, p1 = softmax(z0), softmax(z1)

  def exact(z):
    first, second = jax.nn.log_softmax(z[0]), jax.nn.log_softmax(z[1:], axis=-1)
    kl = jnp.sum(jnp.exp(first) * (first - np.log(t0)))
    later = jnp.sum(jnp.exp(second) * (second - np.log(t1)), axis=-1)
    return kl + jnp.sum(p0 * later)  # prefixes as drawn: no gradient through how often

  z = jnp.asarray(np.concatenate([z0[None], z1]))
  wanted = jax.grad(exact)(z)
  total = np.zeros_like(z)
  for a in range(V):
    for b in range(V):
      chance = p0[a] * p1[a, b]
      mine = np.log(np.array([[p0[a], p1[a, b]]]))
      its = np.log(np.array([[t0[a], t1[a, b]]]))
      mask = np.ones((1, 2), bool)
      advantages = distill_losses.reverse_kl_advantages(mine, its, mask)
      np.testing.assert_allclose(advantages, its - mine, rtol=1e-6)

      def loss(z, a=a, b=b, advantages=its - mine):
        logp = jnp.stack([jax.nn.log_softmax(z[0])[a], jax.nn.log_softmax(z[1 + a])[b]])
        each = -jnp.asarray(advantages[0]) * logp
        one = Denominators(jnp.asarray(1.0), jnp.asarray(1.0), jnp.asarray(2.0))
        numbers = jnp.zeros(2, jnp.int32)
        return losses.reduce(each, jnp.ones(2, bool), numbers, 1, 'token_sum', one)

      total += chance * np.asarray(jax.grad(loss)(z))
  np.testing.assert_allclose(total, wanted, rtol=1e-9, atol=1e-12)


def test_masked_tokens_have_no_advantage():
  mask = np.array([[False, True]])
  found = distill_losses.reverse_kl_advantages(
    np.array([[np.nan, -1.0]]), np.array([[0.0, -3.0]]), mask
  )
  np.testing.assert_array_equal(found, np.float32([[0, -2]]))
  assert found.dtype == np.float32


def rollouts():
  rng = np.random.default_rng(5)
  lengths = (3, 9, 5, 2)
  prompts = [rng.integers(0, 400, 4).tolist() for _ in lengths]
  return rollout.assemble(prompts, [rng.integers(0, 400, n).astype(np.int32) for n in lengths])


def wide(params):
  return jax.tree.map(lambda x: x.astype(jnp.float64), params)


TEACHER = {'seed': 1, 'embed_dim': 48, 'num_layers': 1}


@functools.cache
def step(packing, micro_tokens):
  """(metrics, the step's change of params) of one step of plain gradient descent."""
  config, params = tiny.make(num_layers=1)
  teacher_config, teacher = tiny.make(**TEACHER)
  params, teacher = wide(params), wide(teacher)
  optimizer = optax.sgd(1.0)
  update = distill_losses.make_logit_update(
    config,
    teacher_config,
    optimizer,
    vocabulary=400,
    compute_dtype='float64',
    remat='none',
    chunk=7,
  )
  state = start_state(optimizer, None, params)
  batch = rollouts()
  layout = rollout.layout_of(batch, micro_tokens=micro_tokens, packing=packing)
  rows = rollout.micro_batches(batch, None, layout)
  before = jax.tree.map(np.asarray, params)
  state, metrics = update(state, rows, teacher)
  return metrics, jax.tree.map(lambda new, old: np.asarray(new) - old, state.params, before)


@pytest.mark.check
@pytest.mark.parametrize(('packing', 'micro_tokens'), [(True, 10_000), (False, 16)])
def test_packing_and_micro_batches_change_neither_loss_nor_step(packing, micro_tokens):
  metrics, change = step(False, 10_000)
  assert int(metrics['skipped']) == 0
  assert float(metrics['tokens']) == 3 + 9 + 5 + 2
  other, its = step(packing, micro_tokens)
  np.testing.assert_allclose(other['loss'], metrics['loss'], rtol=1e-10)
  for a, b in zip(jax.tree.leaves(change), jax.tree.leaves(its), strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-10)


def test_the_loss_is_the_mean_over_completion_tokens():
  batch = rollouts()
  metrics, _ = step(False, 10_000)
  tokens = jnp.asarray(batch.tokens)
  positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
  logp = []
  for config, params in (tiny.make(num_layers=1), tiny.make(**TEACHER)):
    run = jax.jit(forward, static_argnames='config')
    hidden, _ = run(wide(params), tokens, positions, config=config)
    logp.append(np.log(softmax(np.asarray(hidden) @ np.asarray(params['head'], np.float64).T)))
  mine, its = logp
  kl = (np.exp(its) * (its - mine)).sum(axis=-1)
  wanted = kl[:, :-1][batch.completion_mask[:, 1:]].mean()
  np.testing.assert_allclose(metrics['loss'], wanted, rtol=1e-9)


def test_another_tokenizer_is_refused():
  mine = char_tokenizer('0123')
  distill_losses.check_tokenizers(mine, char_tokenizer('0123'), 'x')
  with pytest.raises(ValueError, match=r"'x' has another tokenizer.*2 tokens differ"):
    distill_losses.check_tokenizers(mine, char_tokenizer('0132'), 'x')
  other = dataclasses.replace(char_tokenizer('0123'), eos_ids=(0,))
  with pytest.raises(ValueError, match='stops at token ids'):
    distill_losses.check_tokenizers(mine, other, 'x')
