"""The parts of a decoder block that do not look across tokens.

Axes, here and in all of models/: B batch, T query length, S key length, L layers, D embed, F mlp,
N query heads, K kv heads, G queries per kv head, H head dim, V vocab.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax.models.config import ModelConfig


def wide(dtype: jnp.dtype) -> jnp.dtype:
  """The dtype for sums over many terms: float64 for float64, else float32."""
  return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def dot(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """Einsum with the precision said aloud: float32 in is float32 throughout (also on TPU).

  A product of activations [B,T,...] and weights goes through one plain matrix product: XLA's CPU
  backend takes the gradients of the einsum itself 1.4 times slower.
  """
  full = a.dtype in (jnp.float32, jnp.float64)
  precision = jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT
  left, _, right = spec.partition('->')[0].partition(',')
  shared = [axis for axis in left if axis in right]
  count = len(shared)
  inner = left[-count:]
  if left[:2] == 'BT' and inner == right[:count] and inner == ''.join(shared):
    flat = (a.reshape(-1, math.prod(a.shape[-count:])), b.reshape(math.prod(b.shape[:count]), -1))
    out = jnp.matmul(*flat, precision=precision, preferred_element_type=a.dtype)
    return out.reshape(*a.shape[:-count], *b.shape[count:])
  return jnp.einsum(spec, a, b, precision=precision, preferred_element_type=a.dtype)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  """Root-mean-square norm over the last axis, float32 at least (Zhang & Sennrich 2019, eq. 4)."""
  y = x.astype(wide(x.dtype))
  variance = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
  return (y * jax.lax.rsqrt(variance + eps)).astype(x.dtype) * scale


def rope_frequencies(config: ModelConfig) -> jax.Array:
  """Angular frequencies f32[H/2]; with LLaMA-3.1's rescaling of the long wavelengths."""
  half = config.head_dim // 2
  exponent = jnp.arange(half, dtype=jnp.float32) / half
  frequency = 1.0 / (config.rope_theta**exponent)
  scaling = config.rope_scaling
  if scaling is None:
    return frequency
  wavelength = 2 * math.pi / frequency
  rotations = scaling.original_max_positions / wavelength
  smooth = (rotations - scaling.low_freq_factor) / (
    scaling.high_freq_factor - scaling.low_freq_factor
  )
  # smooth <= 0: stretched by the whole factor; >= 1: untouched; in between: interpolated
  smooth = jnp.clip(smooth, 0.0, 1.0)
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency


def rope_angles(positions: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
  """cos and sin f32[B,T,H/2] for positions i32[B,T], or i32[3,B,T] of frame, row and column.

  Of three positions each turns its own frequencies (config.mrope), as in Wang et al. 2024, 2.1.
  """
  if positions.ndim == 3:
    assert config.mrope is not None
    whose = np.repeat(np.arange(3), config.mrope)
    angles = jnp.moveaxis(positions[whose], 0, -1).astype(jnp.float32) * rope_frequencies(config)
  else:
    angles = positions.astype(jnp.float32)[..., None] * rope_frequencies(config)
  return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates x[B,T,N,H]; the halves of H pair up (HF's convention). float32 inside."""
  dtype = wide(x.dtype)
  first, second = jnp.split(x.astype(dtype), 2, axis=-1)
  cos, sin = cos[:, :, None, :].astype(dtype), sin[:, :, None, :].astype(dtype)
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
