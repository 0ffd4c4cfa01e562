"""The sampler's memory: prompts' keys and values once each, and pages of sampled tokens.

Per-layer lists, K before T: one buffer a layer stays in place in the decode loop (a stacked cache
carried through a scan is copied). Keys lie transposed, the tokens last: scores are then a plain
matrix product, which a CPU does in half the time. What a completion has written so far lies in
pages from one pool, so that memory follows the tokens there are, not the longest completion there
may be.
"""

import flax.struct
import jax
import jax.numpy as jnp

from rlvr_jax.models.config import ModelConfig


class KVCache(flax.struct.PyTreeNode):
  """R bank rows of Tp prompt tokens, N pages of `page` sampled tokens.

  L arrays each: bank_k [R,K,H,Tp], bank_v [R,K,Tp,H]; page_k [N,K,H,page], page_v [N,K,page,H].
  """

  bank_k: list[jax.Array]
  bank_v: list[jax.Array]
  page_k: list[jax.Array]
  page_v: list[jax.Array]

  @property
  def page(self) -> int:
    """Tokens in a page."""
    return self.page_v[0].shape[2]

  @property
  def dtype(self) -> jnp.dtype:
    """Of keys and values."""
    return self.page_v[0].dtype

  @property
  def layers(self) -> list[tuple[jax.Array, ...]]:
    """(bank_k, bank_v, page_k, page_v) of each layer."""
    return list(zip(self.bank_k, self.bank_v, self.page_k, self.page_v, strict=True))

  def with_layers(self, layers: list[tuple[jax.Array, ...]]) -> 'KVCache':
    """The cache of these layers."""
    return KVCache(*(list(arrays) for arrays in zip(*layers, strict=True)))


def token_bytes(config: ModelConfig, dtype: str) -> int:
  """Bytes of one token's keys and values over all layers."""
  heads = 2 * config.num_layers * config.num_kv_heads
  return heads * config.head_dim * jnp.dtype(dtype).itemsize


def cache_bytes(
  config: ModelConfig, *, bank_rows: int, prompt: int, pages: int, page: int, dtype: str
) -> int:
  """Bytes of the cache that `init_cache` allocates for these capacities (prompt, page: tokens)."""
  return (bank_rows * prompt + pages * page) * token_bytes(config, dtype)


def init_cache(
  config: ModelConfig, *, bank_rows: int, prompt: int, pages: int, page: int, dtype: str
) -> KVCache:
  """Zeros of the given capacities (prompt, page: tokens)."""

  K, H = config.num_kv_heads, config.head_dim

  def zeros(*shape: int) -> list[jax.Array]:
    return [jnp.zeros(shape, dtype) for _ in range(config.num_layers)]

  return KVCache(
    bank_k=zeros(bank_rows, K, H, prompt),
    bank_v=zeros(bank_rows, K, prompt, H),
    page_k=zeros(pages, K, H, page),
    page_v=zeros(pages, K, page, H),
  )


def write_prompts(
  cache: KVCache, kv: list[tuple[jax.Array, jax.Array]], rows: jax.Array
) -> KVCache:
  """Writes prompts, each layer's k, v [B,T,K,H], into bank rows i32[B].

  Rows out of bounds are dropped; what exceeds the bank's capacity is cut.
  """

  size = min(kv[0][0].shape[1], cache.bank_v[0].shape[2])

  def write_k(bank: jax.Array, new: jax.Array) -> jax.Array:  # [B,T,K,H] -> [B,K,H,T]
    new = jnp.transpose(new[:, :size], (0, 2, 3, 1))
    return bank.at[rows, :, :, :size].set(new, mode='drop')

  def write_v(bank: jax.Array, new: jax.Array) -> jax.Array:  # [B,T,K,H] -> [B,K,T,H]
    return bank.at[rows, :, :size].set(jnp.swapaxes(new[:, :size], 1, 2), mode='drop')

  return cache.replace(
    bank_k=[write_k(bank, k) for bank, (k, _) in zip(cache.bank_k, kv, strict=True)],
    bank_v=[write_v(bank, v) for bank, (_, v) in zip(cache.bank_v, kv, strict=True)],
  )
