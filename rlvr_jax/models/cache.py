"""The sampler's memory: prompts' keys and values once each, and a suffix per slot.

Per-layer lists, K before T: one buffer a layer stays in place in the decode loop (a stacked cache
carried through a scan is copied).
"""

import flax.struct
import jax
import jax.numpy as jnp

from rlvr_jax.models.config import ModelConfig


class KVCache(flax.struct.PyTreeNode):
  """R bank rows of Tp prompt tokens, S slots of Tc sampled tokens.

  bank_k, bank_v: L arrays [R,K,Tp,H]; suffix_k, suffix_v: L arrays [S,K,Tc,H].
  """

  bank_k: list[jax.Array]
  bank_v: list[jax.Array]
  suffix_k: list[jax.Array]
  suffix_v: list[jax.Array]


def cache_bytes(
  config: ModelConfig, *, slots: int, bank_rows: int, prompt: int, completion: int, dtype: str
) -> int:
  """Bytes of the cache that `init_cache` allocates for these capacities (tokens)."""
  tokens = bank_rows * prompt + slots * completion
  per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim
  return tokens * per_token * jnp.dtype(dtype).itemsize


def init_cache(
  config: ModelConfig, *, slots: int, bank_rows: int, prompt: int, completion: int, dtype: str
) -> KVCache:
  """Zeros of the given capacities (tokens)."""

  def zeros(rows: int, length: int) -> list[jax.Array]:
    shape = (rows, config.num_kv_heads, length, config.head_dim)
    return [jnp.zeros(shape, dtype) for _ in range(config.num_layers)]

  return KVCache(
    bank_k=zeros(bank_rows, prompt),
    bank_v=zeros(bank_rows, prompt),
    suffix_k=zeros(slots, completion),
    suffix_v=zeros(slots, completion),
  )
