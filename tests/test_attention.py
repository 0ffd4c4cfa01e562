"""Causal attention by blocks of queries is the attention of the whole row, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.models import attention
from rlvr_jax.models.attention import causal_attention

B, T, N, K, H = 2, 50, 4, 2, 8


@pytest.fixture
def wide():
  with jax.enable_x64(True):
    yield


def arrays(dtype, seed=0):
  keys = jax.random.split(jax.random.key(seed), 3)
  shapes = (B, T, N, H), (B, T, K, H), (B, T, K, H)
  return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


def segments():
  """Two packed rollouts in the first row, with padding; one in the second."""
  first = np.repeat([1, 2, 0], [19, 24, T - 43])
  return jnp.asarray(np.stack([first, np.ones(T, int)]), jnp.int32)


def by_hand(q, k, v, seg):
  """The formula, a query and head at a time, in float64."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  out = np.zeros_like(q)
  for b in range(B):
    for t in range(T):
      seen = np.arange(T) <= t
      if seg is not None:
        seen &= np.asarray(seg)[b] == np.asarray(seg)[b, t]
      for n in range(N):
        z = k[b, seen, n // (N // K)] @ q[b, t, n] / np.sqrt(H)
        weights = np.exp(z - z.max())
        out[b, t, n] = weights / weights.sum() @ v[b, seen, n // (N // K)]
  return out


@pytest.mark.usefixtures('wide')
@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('block', [T, 16, 25, 49, 6, 5])
def test_every_block_size_gives_the_formula(block, packed):
  q, k, v = arrays('float64')
  seg = segments() if packed else None
  found = causal_attention(q, k, v, seg, block=block)
  np.testing.assert_allclose(found, by_hand(q, k, v, seg), rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures('wide')
@pytest.mark.parametrize('block', [16, pytest.param(6, marks=pytest.mark.check)])
def test_gradients_do_not_depend_on_the_block(block):
  qkv, seg = arrays('float64'), segments()
  target = jax.random.normal(jax.random.key(9), (B, T, N, H), 'float64')

  def loss(size):
    return lambda q, k, v: jnp.vdot(causal_attention(q, k, v, seg, block=size), target)

  whole = jax.grad(loss(T), argnums=(0, 1, 2))(*qkv)
  parts = jax.grad(loss(block), argnums=(0, 1, 2))(*qkv)
  for a, b in zip(whole, parts, strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


def test_a_row_that_is_no_longer_than_a_block_is_attended_at_once():
  qkv = arrays('float32')
  text = jax.jit(lambda q, k, v: causal_attention(q, k, v, None)).lower(*qkv).as_text()
  assert text.count('dot_general') == 2


def test_blocks_hold_their_own_scores_only():
  """All [T,T] scores are never there at once, where a whole row has them twice, backwards."""
  long = 2048
  q = jax.ShapeDtypeStruct((1, long, 2, 16), jnp.float32)
  k = jax.ShapeDtypeStruct((1, long, 1, 16), jnp.float32)

  def temporaries(block):
    def loss(q, k, v):
      return causal_attention(q, k, v, None, block=block).sum()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, k).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  scores = 4 * 2 * long * long
  assert temporaries(long) > 2 * scores
  assert temporaries(256) < scores


@pytest.mark.parametrize('blocks', [1, 2, 3, 4, 5, 8, 12, 31])
def test_bands_cover_every_block_once_and_leave_later_keys_out(blocks):
  bands = attention._bands(blocks)
  assert [b for first, count in bands for b in range(first, first + count)] == list(range(blocks))
  products = sum(count * (first + count) for first, count in bands)
  if blocks % attention.BANDS == 0:
    assert products / blocks**2 == 5 / 8
  assert products >= blocks * (blocks + 1) / 2
