"""Attention: causal over a row (learner, prefill), and prefix + suffix over caches (decode).

Scores and softmax are float32 at least. A part of an attention is kept as (maximum, denominator,
numerator), so that parts over disjoint keys merge exactly by log-sum-exp.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlvr_jax.models.layers import dot, wide


class Part(NamedTuple):
  """Unnormalised attention over some keys; all in float32 at least."""

  maximum: jax.Array  # [...,T] largest score, -inf where no key is allowed
  denominator: jax.Array  # [...,T] sum of exp(score - maximum)
  numerator: jax.Array  # [...,T,H] sum of exp(score - maximum) * value


def _softmax_part(scores: jax.Array, mask: jax.Array, values: jax.Array, spec: str) -> Part:
  scores = jnp.where(mask, scores, -jnp.inf)
  maximum = jnp.max(scores, axis=-1)
  # a row without keys: exp(-inf - 0) = 0, so denominator and numerator are 0
  anchor = jnp.where(jnp.isneginf(maximum), 0.0, maximum)
  weights = jnp.exp(scores - anchor[..., None])
  numerator = jnp.einsum(
    spec,
    weights.astype(values.dtype),
    values,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=scores.dtype,
  )
  return Part(maximum, jnp.sum(weights, axis=-1), numerator)


def merge(first: Part, second: Part) -> jax.Array:
  """Normalised attention over the union of two disjoint key sets; at least one is not empty."""
  maximum = jnp.maximum(first.maximum, second.maximum)
  a = jnp.exp(first.maximum - maximum)
  b = jnp.exp(second.maximum - maximum)
  denominator = a * first.denominator + b * second.denominator
  numerator = a[..., None] * first.numerator + b[..., None] * second.numerator
  return numerator / denominator[..., None]


def _scores(spec: str, q: jax.Array, k: jax.Array) -> jax.Array:
  precision, dtype = jax.lax.Precision.HIGHEST, wide(q.dtype)
  scores = jnp.einsum(spec, q, k, precision=precision, preferred_element_type=dtype)
  return scores * q.shape[-1] ** -0.5


def causal_attention(
  q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None
) -> jax.Array:
  """Attention of each token to itself and to what stands before it in the same segment.

  q [B,T,N,H], k and v [B,T,K,H]; segments i32[B,T] or None (one segment a row). Rows are padded on
  the right, so padding needs no mask: no real token looks at it. Returns [B,T,N,H] in q's dtype.
  """
  B, T, N, H = q.shape
  K = k.shape[2]
  q = q.reshape(B, T, K, N // K, H)
  scores = _scores('BTKGH,BSKH->BKGTS', q, k)
  index = jnp.arange(T)
  mask = index[:, None] >= index[None, :]
  if segments is not None:
    same = segments[:, :, None] == segments[:, None, :]
    mask = (mask[None] & same)[:, None, None]
  weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1).astype(v.dtype)
  out = dot('BKGTS,BSKH->BTKGH', weights, v)
  return out.reshape(B, T, N, H).astype(q.dtype)


def decode_attention(
  q: jax.Array,
  bank: tuple[jax.Array, jax.Array],
  suffix: tuple[jax.Array, jax.Array],
  bank_lengths: jax.Array,
  suffix_lengths: jax.Array,
) -> jax.Array:
  """One query a slot over its prompt's keys and its own suffix, merged by log-sum-exp.

  q [B,1,N,H]; bank k,v [B,K,Tp,H] already gathered by slot, lengths i32[B] (may be 0); suffix k,v
  [B,K,Tc,H], lengths i32[B] (at least 1: the query's own token). Returns [B,1,N,H].
  """
  B, _, N, H = q.shape
  K = suffix[0].shape[1]
  grouped = q.reshape(B, K, N // K, H)

  def part(keys: jax.Array, values: jax.Array, lengths: jax.Array) -> Part:
    mask = jnp.arange(keys.shape[2])[None, :] < lengths[:, None]
    scores = _scores('BKGH,BKSH->BKGS', grouped, keys)
    return _softmax_part(scores, mask[:, None, None], values, 'BKGS,BKSH->BKGH')

  out = merge(part(*bank, bank_lengths), part(*suffix, suffix_lengths))
  return out.reshape(B, 1, N, H).astype(q.dtype)
