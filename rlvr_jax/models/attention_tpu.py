"""Decode attention on a TPU: tokamax's batched ragged paged attention over bank and pages.

Two calls a layer, merged by log-sum-exp: every slot over its own pages, where the kernel also
writes the new token in place, and every prompt's slots together over its bank row, read once for a
block of them. The second uses the kernel's scope CACHE_ONLY: it has no mask but the causal one, and
under CACHE_ONLY the queries stand behind all cached keys and bring none of their own.

The kernel keeps scores, sums and log-sum-exp in the dtype of the queries, and bfloat16 is too
coarse for all three; so queries go in as float32, over keys and values of the cache's dtype.

The kernel is not partitioned by jit: over a mesh call `attend` inside a shard_map, with the slots,
bank rows and heads of one shard.
"""

import functools
import importlib
import math
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from rlvr_jax.models.attention import Part, combine, normalise
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.paged import Slots

LANES = 128  # head dims are padded to a multiple, key blocks are one
QUERY_BLOCK = 32  # slots of one prompt that read its keys together
KEY_BLOCK = 512  # keys of a block at most
DECODE_BATCH, PREFILL_BATCH, BUFFERS = 8, 2, 3  # tokamax's own defaults
BUFFER_SHARE = 3  # the key buffers take at most 1/3 of the vector memory
BLOCK_PAGES = 8
# of tokamax's schedule: steps that fit the scalar memory at least, and how many times that in all
STEPS, SCHEDULES = 128, 16
SCALAR_RESERVE = 24 << 10


class LayerCache(NamedTuple):
  """One layer's keys and values, interleaved by head as the kernel wants them: k0, v0, k1, v1, ...

  C = 2 K / pack, where pack heads share a 32-bit word (2 in bfloat16, 1 in float32); H' is the head
  dim padded to a multiple of 128.
  """

  bank: jax.Array  # [R,Tp,C,pack,H'] prompts; Tp is a multiple of the page
  pages: jax.Array  # [n_pages,page,C,pack,H'] sampled tokens; page is a power of two


class Cache(flax.struct.PyTreeNode):
  """A LayerCache for each layer."""

  layers: list[LayerCache]

  @property
  def page(self) -> int:
    """Tokens in a page."""
    return self.layers[0].pages.shape[1]

  @property
  def dtype(self) -> Any:
    """Of keys and values."""
    return self.layers[0].pages.dtype

  def with_layers(self, layers: list[LayerCache]) -> 'Cache':
    """The cache of these layers."""
    return self.replace(layers=layers)


class Plan(NamedTuple):
  """One step's work, the same for every layer."""

  lengths: jax.Array  # i32[S] sampled tokens with the new one, 0 where the slot is inactive
  table: jax.Array  # i32[S*M] pages of the slots
  order: jax.Array  # i32[S] slots sorted by bank row, inactive ones last
  back: jax.Array  # i32[S] inverse of order
  starts: jax.Array  # i32[R+1] where each bank row's slots begin in that order
  row_lengths: jax.Array  # i32[R] prompt tokens + slots of the row; 0 where no slot uses it
  read: jax.Array  # i32[] tokens whose keys are read, repetition included
  live: jax.Array  # i32[] tokens that have to be: each prompt in use once, every sampled one


def _pack(dtype: Any) -> int:
  dtype = jnp.dtype(dtype)
  if dtype not in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)):
    raise ValueError(f'cache dtype {dtype}: tokamax_rpa is for bfloat16 and float32')
  return 4 // dtype.itemsize


def _padded(head_dim: int) -> int:
  return -(-head_dim // LANES) * LANES


def token_bytes(config: ModelConfig, dtype: str) -> int:
  """Bytes of a token's keys and values over all layers; a head dim of 64 takes as much as 128."""
  return config.num_layers * _layer_bytes(config.num_kv_heads, config.head_dim, dtype)


def _layer_bytes(num_kv_heads: int, head_dim: int, dtype: str) -> int:
  _pack(dtype)
  return 2 * num_kv_heads * _padded(head_dim) * jnp.dtype(dtype).itemsize


def check(config: ModelConfig, page: int, dtype: str | None) -> None:
  """Raises ValueError without tokamax, off a TPU, and for a page or dtype that is not for it."""
  del config  # the cache pads its heads
  _kernel()
  _check_page(page)
  if dtype is not None:
    _pack(dtype)


def _check_page(page: int) -> None:
  if not (16 <= page <= KEY_BLOCK and page & (page - 1) == 0):
    raise ValueError(
      f'sampling.page={page}: tokamax_rpa needs a power of two from 16 to {KEY_BLOCK} tokens'
    )


def init_cache(config: ModelConfig, **capacities: Any) -> Cache:
  """init_layer for each layer of a model."""
  make = functools.partial(init_layer, config.num_kv_heads, config.head_dim, **capacities)
  return Cache([make() for _ in range(config.num_layers)])


def init_layer(
  num_kv_heads: int,
  head_dim: int,
  *,
  bank_rows: int,
  prompt: int,
  pages: int,
  page: int,
  dtype: str,
) -> LayerCache:
  """Zeros of the given capacities (prompt, page: tokens).

  Raises ValueError for a page that is no power of two of 16 to 512 tokens, a prompt capacity that
  is no multiple of it, or a dtype other than bfloat16 and float32.
  """
  _check_page(page)
  if prompt % page:
    up = -(-prompt // page) * page
    raise ValueError(f'prompt capacity {prompt} is no multiple of page={page}; {up} is')
  pack = _pack(dtype)
  token = (2 * num_kv_heads // pack, pack, _padded(head_dim))
  return LayerCache(
    jnp.zeros((bank_rows, prompt, *token), dtype), jnp.zeros((pages, page, *token), dtype)
  )


def interleave(k: jax.Array, v: jax.Array, dtype: Any) -> jax.Array:
  """Keys and values [...,K,H] as the cache holds them [...,C,pack,H']."""
  *batch, K, H = k.shape
  pack = _pack(dtype)
  kv = jnp.stack([k, v], axis=-2).astype(dtype)
  kv = jnp.pad(kv, [(0, 0)] * (kv.ndim - 1) + [(0, _padded(H) - H)])
  return kv.reshape(*batch, 2 * K // pack, pack, _padded(H))


def write_prompts(cache: LayerCache, k: jax.Array, v: jax.Array, rows: jax.Array) -> LayerCache:
  """Writes prompts k, v [B,T,K,H] into bank rows i32[B]; rows out of bounds are dropped."""
  new = interleave(k, v, cache.bank.dtype)[:, : cache.bank.shape[1]]
  return cache._replace(bank=cache.bank.at[rows, : new.shape[1]].set(new, mode='drop'))


def write_all_prompts(
  cache: Cache, kv: list[tuple[jax.Array, jax.Array]], rows: jax.Array
) -> Cache:
  """write_prompts for each layer."""
  return Cache(
    [write_prompts(layer, k, v, rows) for layer, (k, v) in zip(cache.layers, kv, strict=True)]
  )


def plan_step(slots: Slots, prompt_lengths: jax.Array) -> Plan:
  """The plan for one decode step. prompt_lengths i32[R]: tokens in the bank's rows."""
  R = prompt_lengths.shape[0]
  lengths = jnp.where(slots.active, slots.lengths + 1, 0)
  row = jnp.where(slots.active, slots.rows, R)
  order = jnp.argsort(row).astype(jnp.int32)
  edges = jnp.arange(R + 1, dtype=jnp.int32)
  starts = jnp.searchsorted(row[order], edges, side='left').astype(jnp.int32)
  users = starts[1:] - starts[:-1]
  prompts = jnp.where(users > 0, prompt_lengths, 0)
  return Plan(
    lengths=lengths,
    table=slots.table.reshape(-1),
    order=order,
    back=jnp.argsort(order).astype(jnp.int32),
    starts=starts,
    row_lengths=prompts + users,
    read=jnp.sum(lengths) + jnp.sum(prompts * (-(-users // QUERY_BLOCK))),
    live=jnp.sum(lengths) + jnp.sum(prompts),
  )


def _kernel() -> tuple[Any, Any, Any]:
  """tokamax's operator, its config, and what JAX knows of the TPU that is compiled for."""
  try:
    tpu = importlib.import_module('tokamax.ops.tpu')
    op, config = tpu.BatchedRpa, tpu.BatchedRpaConfig
  except (ImportError, AttributeError) as error:
    raise ValueError(
      "sampling.decode_impl='tokamax_rpa' needs tokamax 0.0.17 or later, which is for Python 3.12 "
      "and later: pip install 'rlvr_jax[tpu]' there, or set sampling.decode_impl='xla_paged'"
    ) from error
  from jax.experimental.pallas import tpu as pltpu

  if not pltpu.is_tpu_device() or pltpu.get_tpu_info().generation < 5:
    raise ValueError(
      "sampling.decode_impl='tokamax_rpa' is for TPU v5e, v5p and later; set "
      "sampling.decode_impl='xla_paged' here"
    )
  return op, config, pltpu.get_tpu_info()


def key_block(token: int, page: int, batch: int, memory: int) -> int:
  """Keys of a block: a power of two, a multiple of the page.

  token: bytes of a token's keys and values; batch: sequences of a block; memory: bytes of vector
  memory. A copy is scheduled for each page of a block, so small pages make small blocks.
  """
  fit = max(memory // BUFFER_SHARE // (BUFFERS * batch * token), 1)
  most = min(1 << int(math.log2(fit)), KEY_BLOCK, BLOCK_PAGES * page)
  return max(most, LANES, page)


def check_scalars(sequences: int, entries: int, steps: int, block: int, page: int, info: Any):
  """Raises ValueError where the kernel's page table or its schedule cannot hold the work.

  sequences, with page table entries over all of them; steps: blocks of keys at most, in batches.
  """
  copies = block // page
  schedule = STEPS * (DECODE_BATCH * 4 * (11 + 3 * copies) + 20)
  scalars = 4 * (entries + 5 * sequences) + schedule + SCALAR_RESERVE
  if scalars > info.smem_capacity_bytes:
    raise ValueError(
      f'{sequences} sequences with {entries // sequences} pages each: page table and schedule '
      f'take {scalars} of {info.smem_capacity_bytes} bytes of scalar memory; use larger pages, '
      "fewer slots, a smaller completion capacity, or sampling.decode_impl='xla_paged'"
    )
  # the schedule's buffer holds SCHEDULES times what fits the scalar memory, and nothing checks it
  if steps > STEPS * SCHEDULES:
    raise ValueError(
      f'{sequences} sequences over {entries} pages of {page} tokens may take {steps} steps of the '
      f'kernel, over its {STEPS * SCHEDULES}; use fewer slots, bank rows or pages, or '
      "sampling.decode_impl='xla_paged'"
    )


def _key_block(
  info: Any, *, queries: int, sequences: int, entries: int, pages: int, page: int, token: int
) -> int:
  """key_block for sequences of one query each (queries 0) or of so many in all; checks scalars.

  entries of their page tables, into `pages` pages of `page` tokens of `token` bytes.
  """
  batch = PREFILL_BATCH if queries else DECODE_BATCH
  block = key_block(token, page, batch, info.vmem_capacity_bytes)
  most = -(-entries // sequences * page // block)  # blocks of one sequence
  if queries:
    blocks = (queries // QUERY_BLOCK + min(sequences, queries)) * most
  else:
    blocks = min(sequences * most, pages * page // block + sequences)
  check_scalars(sequences, entries, -(-blocks // batch), block, page, info)
  return block


def check_sizes(
  config: ModelConfig,
  tensor: int,
  dtype: str,
  *,
  slots: int,
  bank_rows: int,
  prompt: int,
  pages: int,
  page: int,
  slot_pages: int,
) -> None:
  """Raises ValueError where the kernel cannot schedule a shard of these capacities, before any is.

  prompt: tokens of a bank row; pages, of which a slot has up to slot_pages; tensor: devices that
  share the heads, where it divides them.
  """
  *_, info = _kernel()
  heads = config.num_kv_heads // (tensor if config.num_kv_heads % tensor == 0 else 1)
  sizes = {'page': page, 'token': _layer_bytes(heads, config.head_dim, dtype)}
  bank = bank_rows * (prompt // page)
  _key_block(info, queries=0, sequences=slots, entries=slots * slot_pages, pages=pages, **sizes)
  _key_block(info, queries=slots, sequences=bank_rows, entries=bank, pages=bank, **sizes)


def _rpa(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  pages: jax.Array,
  lengths: jax.Array,
  table: jax.Array,
  starts: jax.Array,
  *,
  decode: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Attention f32[S,N,H], the pages, and the log-sum-exp f32[S,N].

  lengths i32[n], table i32[n*m] and starts i32[n+1] are of n sequences. decode: one query each, its
  own key is written and seen; else any number of queries, which see what is cached. Queries of
  sequences without keys come back as they are, with a log-sum-exp of -inf.
  """
  n = lengths.shape[0]
  op, config, info = _kernel()
  block = _key_block(
    info,
    queries=0 if decode else q.shape[0],
    sequences=n,
    entries=table.shape[0],
    pages=pages.shape[0],
    page=pages.shape[1],
    token=math.prod(pages.shape[2:]) * pages.dtype.itemsize,
  )
  sizes = config(
    prefill_bq_sz=QUERY_BLOCK,
    prefill_bq_c_sz=QUERY_BLOCK,
    bkv_sz=block,
    n_buffer=BUFFERS,
    decode_batch_size=DECODE_BATCH if decode else 1,
    prefill_batch_size=PREFILL_BATCH,
  )
  exact = pages.dtype == jnp.float32
  # sequences up to the 1st, 2nd, 3rd count are of one query, of several, of either
  kinds = jnp.array([n, n, n] if decode else [0, n, n], jnp.int32)
  with (
    jax.numpy_dtype_promotion('standard'),
    jax.default_matmul_precision('highest' if exact else 'default'),
  ):
    return op(config=sizes, bypass_device_check=True)(
      q.astype(jnp.float32),
      k.astype(pages.dtype),
      v.astype(pages.dtype),
      pages,
      lengths,
      table,
      starts,
      kinds,
      sm_scale=q.shape[-1] ** -0.5,
      attention_scope='FULL' if decode else 'CACHE_ONLY',
      return_lse=True,
    )


def _part(out: jax.Array, lse: jax.Array) -> Part:
  return Part(lse, jnp.where(jnp.isneginf(lse), 0.0, 1.0), out)


def attend(
  q: jax.Array, new_k: jax.Array, new_v: jax.Array, cache: LayerCache, plan: Plan
) -> tuple[jax.Array, LayerCache]:
  """One query a slot over its prompt and its own tokens, the new one included.

  q [S,N,H]; new_k, new_v [S,K,H]. Returns [S,N,H] in q's dtype and the cache with the new tokens
  written; both of its arrays are the old buffers, so the old cache has to be given up (donated, or
  carried by the loop), bank included. Inactive slots get zeros. Raises ValueError without tokamax
  or off a TPU.
  """
  S = q.shape[0]
  R, Tp, *token = cache.bank.shape
  page = cache.pages.shape[1]
  starts = jnp.arange(S + 1, dtype=jnp.int32)
  own, pages, own_lse = _rpa(
    q, new_k, new_v, cache.pages, plan.lengths, plan.table, starts, decode=True
  )
  bank = cache.bank.reshape(R * Tp // page, page, *token)
  table = jnp.arange(bank.shape[0], dtype=jnp.int32)
  shared, bank, shared_lse = _rpa(
    q[plan.order], new_k, new_v, bank, plan.row_lengths, table, plan.starts, decode=False
  )
  prefix = _part(shared[plan.back], shared_lse[plan.back])
  out = normalise(combine(prefix, _part(own, own_lse)))
  return out.astype(q.dtype), LayerCache(bank.reshape(cache.bank.shape), pages)
