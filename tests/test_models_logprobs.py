"""Log-probs and entropy: the project's alignment, chunks that change nothing, exact oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rlvr_jax.models import logprobs as logprobs_lib
from rlvr_jax.models.logprobs import logits, token_logprobs
from rlvr_jax.models.transformer import forward

pytestmark = pytest.mark.usefixtures('strict')
B, T = 3, 10
sequence_logprobs = jax.jit(logprobs_lib.sequence_logprobs, static_argnames=('config',))


def tokens():
  return np.random.default_rng(0).integers(0, 400, (B, T)).astype(np.int32)


def reference(params, config, temperature):
  """float64 log-softmax [B,T,V] of the tempered logits after each token."""
  positions = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
  run = jax.jit(forward, static_argnames=('config',))
  hidden, _ = run(params, tokens(), positions, config=config)
  z = np.asarray(logits(params, hidden), np.float64) / temperature
  z -= z.max(-1, keepdims=True)
  return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('temperature', [0.6, 1.0, 2.0])
def test_an_entry_describes_the_token_at_its_own_index(temperature, tied):
  config, params = tiny.make(tie_embeddings=tied)
  log_p = reference(params, config, temperature)
  logprobs, entropy = sequence_logprobs(params, tokens(), config=config, temperature=temperature)
  assert logprobs.shape == entropy.shape == (B, T)
  np.testing.assert_array_equal(logprobs[:, 0], 0)
  np.testing.assert_array_equal(entropy[:, 0], 0)
  rows, columns = np.indices((B, T - 1))
  expected = log_p[rows, columns, tokens()[:, 1:]]
  np.testing.assert_allclose(logprobs[:, 1:], expected, rtol=0, atol=1e-5)
  exact = -np.sum(np.exp(log_p) * log_p, -1)[:, :-1]
  np.testing.assert_allclose(entropy[:, 1:], exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize('chunk', [1, 7, 8, 1000])
def test_chunks_change_neither_values_nor_gradients(chunk):
  config, params = tiny.make()
  head = {'head': params['head']}
  rng = np.random.default_rng(1)
  hidden = jnp.asarray(rng.normal(size=(24, config.embed_dim)), jnp.float32)
  targets = jnp.asarray(rng.integers(0, 400, 24), jnp.int32)
  weights = jnp.asarray(rng.normal(size=(2, 24)), jnp.float32)

  def whole(p, h):
    log_p = jax.nn.log_softmax(logits(p, h) / 0.7, axis=-1)
    picked = jnp.take_along_axis(log_p, targets[:, None], axis=-1)[:, 0]
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    return jnp.sum(weights[0] * picked + weights[1] * entropy), (picked, entropy)

  def chunked(p, h):
    picked, entropy = token_logprobs(p, h, targets, temperature=0.7, chunk=chunk)
    return jnp.sum(weights[0] * picked + weights[1] * entropy), (picked, entropy)

  (_, a), grads = jax.jit(jax.value_and_grad(whole, (0, 1), has_aux=True))(head, hidden)
  (_, b), chunk_grads = jax.jit(jax.value_and_grad(chunked, (0, 1), has_aux=True))(head, hidden)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), a, b)
  for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(chunk_grads), strict=True):
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * float(jnp.linalg.norm(x)))


def test_no_chunk_of_logits_is_larger_than_asked():
  config, params = tiny.make()
  hidden = jax.ShapeDtypeStruct((4096, config.embed_dim), jnp.float32)
  targets = jax.ShapeDtypeStruct((4096,), jnp.int32)

  def loss(p, h, y):
    return jnp.sum(token_logprobs(p, h, y, chunk=64)[0])

  lowered = jax.jit(jax.grad(loss, (0, 1))).lower(params, hidden, targets)
  used = lowered.compile().memory_analysis().temp_size_in_bytes
  assert used < 4096 * config.vocab_size * 4 / 4  # all logits at once would be 6.5 MB


def test_a_row_of_one_token_has_nothing_to_predict():
  config, params = tiny.make()
  logprobs, entropy = sequence_logprobs(params, tokens()[:, :1], config=config)
  np.testing.assert_array_equal(logprobs, np.zeros((B, 1)))
  np.testing.assert_array_equal(entropy, np.zeros((B, 1)))
