"""Attention: causal over a row (learner, prefill), and parts that merge (decode: paged.py).

Scores and softmax are float32 at least. A part of an attention is kept as (maximum, denominator,
numerator), so that parts over disjoint keys merge exactly by log-sum-exp.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlvr_jax.models.layers import dot, wide

BLOCK = 1024  # queries attended at once in longer rows
IMPLEMENTATIONS = ('auto', 'einsum', 'cudnn')
BANDS = 4  # more leave out more products, and take longer to compile


class Part(NamedTuple):
  """Unnormalised attention over some keys; all in float32 at least."""

  maximum: jax.Array  # [...,T] largest score, -inf where no key is allowed
  denominator: jax.Array  # [...,T] sum of exp(score - maximum)
  numerator: jax.Array  # [...,T,H] sum of exp(score - maximum) * value


def empty_part(q: jax.Array) -> Part:
  """The part over no keys, for queries [...,H]."""
  dtype = wide(q.dtype)
  zeros = jnp.zeros(q.shape[:-1], dtype)
  return Part(zeros - jnp.inf, zeros, jnp.zeros(q.shape, dtype))


def softmax_part(z: jax.Array, mask: jax.Array, values: jax.Array, spec: str) -> Part:
  """The part over the keys whose scores z [...,S] are; spec multiplies weights and values."""
  z = jnp.where(mask, z, -jnp.inf)
  maximum = jnp.max(z, axis=-1)
  weights = jnp.exp(z - _anchor(maximum)[..., None])
  numerator = jnp.einsum(
    spec,
    weights.astype(values.dtype),
    values,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=z.dtype,
  )
  return Part(maximum, jnp.sum(weights, axis=-1), numerator)


def _anchor(maximum: jax.Array) -> jax.Array:
  # without keys: exp(-inf - 0) = 0, so denominator and numerator are 0
  return jnp.where(jnp.isneginf(maximum), 0.0, maximum)


def combine(first: Part, second: Part) -> Part:
  """The part over the union of two disjoint key sets; merging with an empty one changes no bit."""
  maximum = jnp.maximum(first.maximum, second.maximum)
  a = jnp.exp(first.maximum - _anchor(maximum))
  b = jnp.exp(second.maximum - _anchor(maximum))
  return Part(
    maximum,
    a * first.denominator + b * second.denominator,
    a[..., None] * first.numerator + b[..., None] * second.numerator,
  )


def normalise(part: Part) -> jax.Array:
  """The attention [...,H] of a part; zeros where it has no keys."""
  empty = part.denominator == 0
  return part.numerator / jnp.where(empty, 1.0, part.denominator)[..., None]


def scores(spec: str, q: jax.Array, k: jax.Array) -> jax.Array:
  """q k / sqrt(H), float32 at least."""
  precision, dtype = jax.lax.Precision.HIGHEST, wide(q.dtype)
  z = jnp.einsum(spec, q, k, precision=precision, preferred_element_type=dtype)
  return z * q.shape[-1] ** -0.5


def causal_attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array | None,
  *,
  block: int = BLOCK,
  impl: str = 'einsum',
) -> jax.Array:
  """Attention of each token to itself and to what stands before it in the same segment.

  q [B,T,N,H], k and v [B,T,K,H]; segments i32[B,T] or None (one segment a row). Rows are padded on
  the right, so padding needs no mask: no real token looks at it. Returns [B,T,N,H] in q's dtype.

  Rows longer than `block` are attended a block of queries after the other, so that scores of
  [block,T] are alive at once, in the backward pass too, which computes them again. The blocks stand
  in BANDS bands, each of which sees the keys up to its end: 3/8 of the products, those with later
  keys, are left out.

  impl: a name in IMPLEMENTATIONS; 'auto' is the best that runs here.
  """
  T = q.shape[1]
  if choose(impl, q.dtype, q.shape[-1]) == 'cudnn':
    return _cudnn(q, k, v, segments)
  if block >= T:
    return _attend(jnp.int32(0), q, k, v, segments)
  outs = []
  for first, count in _bands(T // block):
    begin, end = first * block, (first + count) * block
    own = None if segments is None else segments[:, :end]
    outs.append(_band(begin, q[:, begin:end], k[:, :end], v[:, :end], own, block=block))
  if rest := T % block:
    outs.append(jax.checkpoint(_attend)(jnp.int32(T - rest), q[:, T - rest :], k, v, segments))
  return jnp.concatenate(outs, axis=1)


def choose(impl: str, dtype: jnp.dtype, head_dim: int) -> str:
  """The implementation that model.attention_impl names, for arrays of this dtype.

  ValueError for a name that is none, and for cudnn asked for where it cannot run.
  """
  if impl not in IMPLEMENTATIONS:
    raise ValueError(f'model.attention_impl={impl!r}: known are {", ".join(IMPLEMENTATIONS)}')
  fits = dtype == jnp.bfloat16 and head_dim % 8 == 0 and head_dim <= 128
  runs = fits and jax.default_backend() == 'gpu'
  if impl == 'cudnn' and not runs:
    raise ValueError(
      f"model.attention_impl='cudnn' is for GPUs, bfloat16 and head dims of at most 128, not for "
      f"{jax.default_backend()}, {dtype} and {head_dim}; set model.attention_impl='auto'"
    )
  return 'cudnn' if runs and impl != 'einsum' else 'einsum'


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None) -> jax.Array:
  """By cuDNN's flash attention: no scores are kept, in the backward pass neither."""
  mask = None
  if segments is not None:
    mask = (segments[:, :, None] == segments[:, None, :])[:, None]
  with jax.numpy_dtype_promotion('standard'):
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, implementation='cudnn')


def _bands(blocks: int) -> list[tuple[int, int]]:
  """(first block, how many) of each band."""
  ends = [blocks * (i + 1) // BANDS for i in range(BANDS)]
  return [(a, b - a) for a, b in zip([0, *ends], ends, strict=False) if b > a]


def _band(
  begin: int,
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array | None,
  *,
  block: int,
) -> jax.Array:
  """Queries at places begin.. of a row, whole blocks of them, to all of these keys."""
  B, t, N, H = q.shape
  count = t // block
  if count == 1:
    return jax.checkpoint(_attend)(jnp.int32(begin), q, k, v, segments)
  blocks = jnp.moveaxis(q.reshape(B, count, block, N, H), 1, 0)
  places = begin + block * jnp.arange(count, dtype=jnp.int32)
  one = jax.checkpoint(lambda x: _attend(x[0], x[1], k, v, segments), prevent_cse=False)
  out = jax.lax.map(one, (places, blocks))
  return jnp.moveaxis(out, 0, 1).reshape(B, t, N, H)


def _attend(
  begin: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None
) -> jax.Array:
  """Queries [B,t,N,H] at places begin.. of a row to its keys [B,S,K,H]; segments of the keys."""
  B, t, N, H = q.shape
  K, S = k.shape[2], k.shape[1]
  q = q.reshape(B, t, K, N // K, H)
  z = scores('BTKGH,BSKH->BKGTS', q, k)
  places = begin + jnp.arange(t, dtype=jnp.int32)
  mask = places[:, None] >= jnp.arange(S, dtype=jnp.int32)[None, :]
  if segments is not None:
    queries = jax.lax.dynamic_slice_in_dim(segments, begin, t, axis=1)
    same = queries[:, :, None] == segments[:, None, :]
    mask = (mask[None] & same)[:, None, None]
  weights = jax.nn.softmax(jnp.where(mask, z, -jnp.inf), axis=-1).astype(v.dtype)
  out = dot('BKGTS,BSKH->BTKGH', weights, v)
  return out.reshape(B, t, N, H).astype(q.dtype)
