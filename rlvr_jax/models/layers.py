"""The parts of a decoder block that do not look across tokens.

Axes, here and in all of models/: B batch, T query length, S key length, L layers, D embed, F mlp,
N query heads, K kv heads, G queries per kv head, H head dim, V vocab.
"""

import math

import jax
import jax.numpy as jnp

from rlvr_jax.models.config import ModelConfig


def dot(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """Einsum with the precision said aloud: float32 in is float32 throughout (also on TPU)."""
  full = a.dtype in (jnp.float32, jnp.float64)
  precision = jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT
  return jnp.einsum(spec, a, b, precision=precision, preferred_element_type=a.dtype)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
  """Root-mean-square norm over the last axis, float32 at least (Zhang & Sennrich 2019, eq. 4)."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  variance = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
  return (wide * jax.lax.rsqrt(variance + eps)).astype(x.dtype) * scale


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
  """cos and sin f32[B,T,H/2] for positions i32[B,T]."""
  angles = positions.astype(jnp.float32)[..., None] * rope_frequencies(config)
  return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates x[B,T,N,H]; the halves of H pair up (HF's convention). float32 inside."""
  dtype = x.dtype
  wide = jnp.promote_types(dtype, jnp.float32)
  first, second = jnp.split(x.astype(wide), 2, axis=-1)
  cos, sin = cos[:, :, None, :].astype(wide), sin[:, :, None, :].astype(wide)
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(rotated, axis=-1).astype(dtype)
