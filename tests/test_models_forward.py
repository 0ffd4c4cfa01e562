"""The forward pass against itself and independent oracles: packing, caches, remat, rope."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rlvr_jax.models import logprobs as logprobs_lib
from rlvr_jax.models import paged, transformer
from rlvr_jax.models.attention import Part, causal_attention, combine, empty_part, normalise
from rlvr_jax.models.cache import cache_bytes, init_cache
from rlvr_jax.models.config import ModelConfig, RopeScaling
from rlvr_jax.models.layers import rope_angles, rope_frequencies
from rlvr_jax.models.transformer import decode_step, init_params, unstack

pytestmark = pytest.mark.usefixtures('strict')
forward = jax.jit(transformer.forward, static_argnames=('config', 'remat', 'keep_kv'))
sequence_logprobs = jax.jit(
  logprobs_lib.sequence_logprobs, static_argnames=('config', 'remat', 'chunk')
)


def rows(lengths, T, V=400, seed=0):
  rng = np.random.default_rng(seed)
  tokens = np.zeros((len(lengths), T), np.int32)
  for row, n in zip(tokens, lengths, strict=True):
    row[:n] = rng.integers(0, V, n)
  return tokens


def positions_of(tokens):
  return np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)


def test_packed_segments_equal_separate_rows():
  config, params = tiny.make()
  lengths = (5, 11, 1, 7)
  apart = rows(lengths, 16)
  expected, _ = forward(params, apart, positions_of(apart), config=config)
  packed, positions, segments = (np.zeros((1, 32), np.int32) for _ in range(3))
  at = 0
  for i, n in enumerate(lengths):
    packed[0, at : at + n] = apart[i, :n]
    positions[0, at : at + n] = np.arange(n)
    segments[0, at : at + n] = i + 1
    at += n
  hidden, _ = forward(params, packed, positions, config=config, segments=segments)
  at = 0
  for i, n in enumerate(lengths):
    np.testing.assert_allclose(hidden[0, at : at + n], expected[i, :n], rtol=0, atol=2e-5)
    at += n
  # log-probs likewise, with 0 at each segment's first token
  separate, _ = sequence_logprobs(params, apart, config=config)
  together, entropy = sequence_logprobs(
    params, packed, config=config, positions=positions, segments=segments
  )
  at = 0
  for i, n in enumerate(lengths):
    np.testing.assert_allclose(together[0, at : at + n], separate[i, :n], rtol=0, atol=2e-5)
    assert together[0, at] == entropy[0, at] == 0
    at += n


def test_what_stands_behind_or_in_other_rows_is_not_seen():
  config, params = tiny.make()
  tokens = rows((9, 16), 16)
  first, _ = forward(params, tokens, positions_of(tokens), config=config)
  changed = tokens.copy()
  changed[0, 9:] = 17
  changed[1] = 3
  second, _ = forward(params, changed, positions_of(tokens), config=config)
  np.testing.assert_array_equal(first[0, :9], second[0, :9])


def test_stacked_and_listed_params_are_one_model():
  config, params = tiny.make()
  tokens = rows((12, 16), 16)
  kwargs = {'config': config, 'keep_kv': True}
  stacked, kv = forward(params, tokens, positions_of(tokens), **kwargs)
  listed, kv_list = forward(unstack(params), tokens, positions_of(tokens), **kwargs)
  np.testing.assert_allclose(stacked, listed, rtol=0, atol=1e-5)
  for i, layer in enumerate(kv_list):
    for a, b in zip(kv, layer, strict=True):
      np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-5)


def test_remat_changes_nothing_but_memory():
  config, params = tiny.make(num_layers=6)
  tokens = np.tile(rows((12, 16), 16), (2, 2))

  def loss(p, remat):
    return jnp.sum(sequence_logprobs(p, tokens, config=config, remat=remat)[0])

  run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
  found, memory = {}, {}
  for remat in ('none', 'dots', 'block'):
    compiled = run.lower(params, remat).compile()
    memory[remat] = compiled.memory_analysis().temp_size_in_bytes
    found[remat] = compiled(params)
  assert memory['none'] > 1.5 * memory['dots'] > 1.5**2 * memory['block']
  value, grads = found.pop('none')
  for other, other_grads in found.values():
    np.testing.assert_allclose(value, other, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(other_grads), strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.linalg.norm(a)))
  with pytest.raises(ValueError, match=r"model.remat='all': known are none"):
    forward(params, tokens, tokens, config=config, remat='all')


def test_decoding_token_by_token_equals_the_forward():
  """Slots over prompts of several lengths (1 leaves the prefix empty), rows given out of order."""
  config, params = tiny.make()
  params = unstack(params)
  prompt_lengths, T = np.array([1, 4, 7]), 12
  tokens = rows((T, T, T), T)
  hidden, kv = forward(params, tokens, positions_of(tokens), config=config, keep_kv=True)
  cache = init_cache(config, bank_rows=5, prompt=8, pages=10, page=4, dtype='float32')
  table = jnp.asarray([[9, 2, 5], [0, 7, 1], [4, 8, 3]], jnp.int32)
  bank_rows = jnp.asarray([4, 0, 2])  # slot -> row
  # the bank's other rows and what stands beyond a prompt hold garbage that must not be seen
  bank_k, bank_v = [], []
  for k, v in kv:
    for bank, new in ((bank_k, jnp.transpose(k, (0, 2, 3, 1))), (bank_v, jnp.swapaxes(v, 1, 2))):
      prompts = new[..., :8] if bank is bank_k else new[:, :, :8]
      bank.append(jnp.full((5, *prompts.shape[1:]), 1e3).at[bank_rows].set(prompts))
  cache = cache.replace(bank_k=bank_k, bank_v=bank_v)
  cached = jnp.zeros(5, jnp.int32).at[bank_rows].set(jnp.asarray(prompt_lengths - 1, jnp.int32))
  step = jax.jit(decode_step, static_argnames=('config',))
  for t in range(T - 7):
    at = prompt_lengths - 1 + t
    slots = paged.Slots(bank_rows, jnp.full(3, t, jnp.int32), table, jnp.ones(3, bool))
    out, cache, _ = step(
      params,
      tokens[np.arange(3), at],
      cache,
      config=config,
      slots=slots,
      prompt_lengths=cached,
    )
    np.testing.assert_allclose(out, hidden[np.arange(3), at], rtol=0, atol=2e-5)


def test_combining_with_an_empty_part_changes_no_bit():
  full = Part(jnp.asarray([2.1]), jnp.asarray([3.3]), jnp.asarray([[6.7, 9.0]]))
  empty = empty_part(jnp.zeros((1, 2)))
  for both in (combine(full, empty), combine(empty, full)):
    for got, expected in zip(both, full, strict=True):
      np.testing.assert_array_equal(got, expected)
  np.testing.assert_array_equal(normalise(combine(empty, empty)), [[0.0, 0.0]])


def reference_attention(q, k, v):
  """float64 softmax attention of one query [N,H] over keys and values [S,K,H]."""
  N, H = q.shape
  repeat = N // k.shape[1]
  out = np.zeros((N, H))
  for n in range(N):
    scores = k[:, n // repeat] @ q[n] / math.sqrt(H)
    weights = np.exp(scores - scores.max())
    out[n] = weights @ v[:, n // repeat] / weights.sum()
  return out


def test_causal_attention_is_the_softmax_over_what_came_before():
  rng = np.random.default_rng(1)
  q, k, v = (rng.normal(size=(1, 6, n, 8)).astype(np.float32) for n in (4, 2, 2))
  out = causal_attention(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), None)
  for t in range(6):
    seen = (q[:, t], k[:, : t + 1], v[:, : t + 1])
    expected = reference_attention(*(x[0].astype(np.float64) for x in seen))
    np.testing.assert_allclose(out[0, t], expected, rtol=0, atol=1e-5)


def llama3_frequencies(theta, head_dim, scaling):
  """One frequency at a time, by the three cases of wavelength, in float64."""
  out = []
  for i in range(head_dim // 2):
    frequency = theta ** (-2 * i / head_dim)
    wavelength = 2 * math.pi / frequency
    longest = scaling.original_max_positions / scaling.low_freq_factor
    shortest = scaling.original_max_positions / scaling.high_freq_factor
    if wavelength > longest:
      frequency /= scaling.factor
    elif wavelength >= shortest:
      rotations = scaling.original_max_positions / wavelength
      share = (rotations - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
      )
      frequency = (1 - share) * frequency / scaling.factor + share * frequency
    out.append(frequency)
  return np.array(out)


@pytest.mark.parametrize(('theta', 'head_dim'), [(500_000.0, 128), (10_000.0, 16)])
def test_llama3_rope_scaling(theta, head_dim):
  scaling = RopeScaling(8.0, 1.0, 4.0, 8192)
  config = dataclasses.replace(
    tiny.CONFIG, rope_theta=theta, head_dim=head_dim, rope_scaling=scaling
  )
  expected = llama3_frequencies(theta, head_dim, scaling)
  plain = llama3_frequencies(theta, head_dim, RopeScaling(1.0, 1.0, 4.0, 8192))
  assert (expected != plain).any()
  np.testing.assert_allclose(rope_frequencies(config), expected, rtol=2e-6)
  unscaled = dataclasses.replace(config, rope_scaling=None)
  np.testing.assert_allclose(rope_frequencies(unscaled), plain, rtol=2e-6)
  cos, sin = rope_angles(jnp.asarray([[0, 3]], jnp.int32), config)
  np.testing.assert_allclose(cos[0, 1], np.cos(3 * expected), rtol=0, atol=1e-5)
  np.testing.assert_allclose(sin[0, 1], np.sin(3 * expected), rtol=0, atol=1e-5)


def test_attention_sees_distances_only():
  """Rotary embeddings: positions shifted by a constant change nothing."""
  config, params = tiny.make()
  tokens = rows((16,), 16)
  base, _ = forward(params, tokens, positions_of(tokens), config=config)
  moved, _ = forward(params, tokens, positions_of(tokens) + np.int32(37), config=config)
  np.testing.assert_allclose(base, moved, rtol=0, atol=1e-4)
  spread, _ = forward(params, tokens, positions_of(tokens) * np.int32(2), config=config)
  assert np.abs(np.asarray(spread - base)).max() > 0.01


def test_init_is_per_layer_and_repeatable():
  config, _ = tiny.make()
  one, two = (tiny.init(jax.random.key(0), config) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, one, two)
  assert not np.array_equal(one['layers']['q'][0], one['layers']['q'][1])
  tied = dataclasses.replace(config, tie_embeddings=True)
  shapes = jax.eval_shape(lambda k: init_params(k, tied, 'bfloat16'), jax.random.key(0))
  assert 'head' not in shapes
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('bfloat16')}


def test_bfloat16_params_give_bfloat16_hidden_states_and_float32_logprobs():
  config, params = tiny.make()
  tokens = rows((12, 16), 16)
  low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  hidden, _ = forward(low, tokens, positions_of(tokens), config=config)
  assert hidden.dtype == jnp.bfloat16
  logprobs, _ = sequence_logprobs(low, tokens, config=config)
  assert logprobs.dtype == jnp.float32
  exact, _ = sequence_logprobs(params, tokens, config=config)
  gap = np.abs(np.asarray(logprobs - exact))
  assert 0 < gap.mean() < 0.1


def test_cache_bytes_are_those_allocated():
  sizes = {'bank_rows': 5, 'prompt': 8, 'pages': 9, 'page': 4, 'dtype': 'bfloat16'}
  cache = init_cache(tiny.CONFIG, **sizes)
  assert cache_bytes(tiny.CONFIG, **sizes) == sum(x.nbytes for x in jax.tree.leaves(cache))


@pytest.mark.parametrize(
  ('change', 'message'),
  [({'num_kv_heads': 3}, 'num_heads=4 .* num_kv_heads=3'), ({'head_dim': 7}, 'head_dim=7 ')],
)
def test_impossible_shapes_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    ModelConfig(**(dataclasses.asdict(tiny.CONFIG) | change))
