"""Decode attention on a GPU: two kernels over the cache of models/cache.py.

One reads every slot's own pages, one reads a prompt's keys once for a tile of the slots that share
it. Both cut a row's keys into `parts` at fixed places, so that what a slot gets depends on nothing
but its own tokens, and leave what they found as Parts in float32, which merge by log-sum-exp.

The kernels are not partitioned by jit: over a mesh call `attend` inside a shard_map, with the
slots, bank rows and heads of one shard.
"""

import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlvr_jax.models.attention import Part, normalise
from rlvr_jax.models.cache import KVCache
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.paged import Slots

BLOCK = 64  # tokens of a bank row are a multiple: what the kernel reads at once
ROWS = 16  # of a matrix product at least
TILE = 4  # slots of one prompt that read its keys together
PROGRAMS = 2048  # parts are made until the kernels have so many programs
MOST_PARTS = 8
LEAST_PART = 256  # tokens


class Plan(NamedTuple):
  """One step's reads and writes, the same for every layer."""

  write_page: jax.Array  # i32[S] page of the new token; no page of the cache where inactive
  write_at: jax.Array  # i32[S] its place in the page
  lengths: jax.Array  # i32[S] sampled tokens with the new one, 0 where the slot is inactive
  table: jax.Array  # i32[S,M] the slots' pages
  order: jax.Array  # i32[S] slots sorted by bank row, inactive ones last
  back: jax.Array  # i32[S] inverse of order
  row: jax.Array  # i32[S] bank row of each, in that order
  prompt: jax.Array  # i32[S] tokens of its prompt, in that order; 0 where inactive
  tile_start: jax.Array  # i32[n] where each tile of slots begins in that order; S where none is
  tile_end: jax.Array  # i32[n]
  read: jax.Array  # i32[] tokens whose keys are read, padding and repetition included
  live: jax.Array  # i32[] tokens that have to be: each prompt in use once, every sampled one


def _kernels() -> Any:
  """The module of the kernels, whose imports only a GPU needs."""
  try:
    return importlib.import_module('rlvr_jax.models.attention_gpu_kernels')
  except ImportError as error:
    raise ValueError(
      f"sampling.decode_impl='pallas_gpu' needs Pallas for GPUs, which jax {jax.__version__} does "
      f"not have ({error}); set sampling.decode_impl='xla_paged'"
    ) from error


def parts_of(programs: int, capacity: int) -> int:
  """Into how many parts rows of up to `capacity` tokens are cut, for so many rows and heads."""
  wanted = -(-PROGRAMS // max(programs, 1))
  return max(1, min(wanted, MOST_PARTS, capacity // LEAST_PART))


def check(config: ModelConfig, page: int, dtype: str | None) -> None:
  """Raises ValueError off a GPU, and for heads, a page or a dtype that are not for the kernels."""
  if jax.default_backend() != 'gpu':
    raise ValueError(
      "sampling.decode_impl='pallas_gpu' is for GPUs; set sampling.decode_impl='xla_paged' here"
    )
  _kernels()
  if page < ROWS or page & (page - 1):
    raise ValueError(
      f'sampling.page={page}: pallas_gpu needs a power of two of at least {ROWS} tokens; '
      'sampling.page=64 is one'
    )
  if dtype not in (None, 'bfloat16', 'float32'):
    raise ValueError(f'model.compute_dtype={dtype!r}: pallas_gpu is for bfloat16 and float32')
  H = config.head_dim
  if H < ROWS or H & (H - 1):
    raise ValueError(
      f'a head dim of {H} is no power of two of at least {ROWS}, which pallas_gpu needs; set '
      "sampling.decode_impl='xla_paged'"
    )


def bank_capacity(capacity: int, page: int) -> int:
  """Tokens of a bank row for prompts of up to `capacity`."""
  del page
  return -(-capacity // BLOCK) * BLOCK


def plan_step(slots: Slots, prompt_lengths: jax.Array, cache: KVCache) -> Plan:
  """The plan for one decode step. prompt_lengths i32[R]: tokens in the bank's rows."""
  S, M = slots.table.shape
  R = prompt_lengths.shape[0]
  page, N = cache.page, cache.page_v[0].shape[0]
  active, tile = slots.active, min(TILE, S)
  index = jnp.arange(S, dtype=jnp.int32)
  lengths = jnp.where(active, slots.lengths + 1, 0)
  row = jnp.where(active, slots.rows, R)
  order = jnp.argsort(row).astype(jnp.int32)
  row = row[order]
  prompt = jnp.where(active, prompt_lengths[slots.rows], 0)[order]
  begin, end = (
    jnp.searchsorted(row, row, side=side, method='compare_all').astype(jnp.int32)
    for side in ('left', 'right')
  )
  first = (row < R) & ((index - begin) % tile == 0)
  tiles = min(S, S // tile + min(R, S))
  start = jnp.sort(jnp.where(first, index, S))[:tiles]
  held = jnp.minimum(start, S - 1)
  at = jnp.minimum(slots.lengths // page, M - 1)
  write_page = jnp.take_along_axis(slots.table, at[:, None], axis=1)[:, 0]
  prompts = jnp.where((row < R) & (index == begin), prompt, 0)
  blocks = -(-prompt // BLOCK) * BLOCK
  return Plan(
    # a place of its own for each that writes nothing, so that no two places are the same
    write_page=jnp.where(active, write_page, N + index),
    write_at=slots.lengths % page,
    lengths=lengths,
    table=slots.table,
    order=order,
    back=jnp.argsort(order).astype(jnp.int32),
    row=jnp.minimum(row, R - 1),
    prompt=prompt,
    tile_start=start,
    tile_end=jnp.where(start < S, jnp.minimum(start + tile, end[held]), S),
    read=jnp.sum(-(-lengths // page) * page) + jnp.sum(jnp.where(first, blocks, 0)),
    live=jnp.sum(lengths) + jnp.sum(prompts),
  )


def _merge(parts: list[Part], active: jax.Array) -> Part:
  """The Part over all of them, each [parts,S,K,G]; where a slot is not active, of no keys."""
  m, l, o = (jnp.concatenate(arrays) for arrays in zip(*parts, strict=True))
  maximum = jnp.max(m, axis=0)
  # a live slot has its own new token at least; what was left unwritten goes
  live = active[None, :, None, None]
  weight = jnp.where(live, jnp.exp(m - maximum), 0.0)
  l, o = jnp.where(live, l, 0.0), jnp.where(live[..., None], o, 0.0)
  return Part(maximum, jnp.sum(weight * l, axis=0), jnp.sum(weight[..., None] * o, axis=0))


def attend(
  q: jax.Array,
  new_k: jax.Array,
  new_v: jax.Array,
  layer: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
  plan: Plan,
  *,
  interpret: bool = False,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array, jax.Array]]:
  """As paged.paged_attention: one query a slot over its prompt and its own tokens, the new one too.

  q [S,N,H]; new_k, new_v [S,K,H]; layer: bank_k [R,K,H,Tp], bank_v [R,K,Tp,H], page_k
  [pages,K,H,page], page_v [pages,K,page,H] of one layer. Returns [S,N,H] and the layer with the new
  token written. Inactive slots get zeros. interpret: run the kernels in JAX's interpreter.
  """
  S, N, H = q.shape
  bank_k, bank_v, page_k, page_v = layer
  K, page, Tp = page_v.shape[1], page_v.shape[2], bank_v.shape[2]
  G, M = N // K, plan.table.shape[1]
  write = {'mode': 'drop', 'unique_indices': True}
  page_k = page_k.at[plan.write_page, :, :, plan.write_at].set(new_k, **write)
  page_v = page_v.at[plan.write_page, :, plan.write_at].set(new_v, **write)
  q = q.reshape(S, K, G, H)
  rows, tile = max(ROWS, 1 << (G - 1).bit_length()), min(TILE, S)

  shape = {'rows': rows, 'interpret': interpret}
  own = _kernels().own_pages(
    q, plan.lengths, plan.table, page_k, page_v, parts=parts_of(S * K, M * page), **shape
  )
  tiles = plan.tile_start, plan.tile_end
  prompt = _kernels().prompts(
    q[plan.order],
    tiles,
    plan.row,
    plan.prompt,
    bank_k,
    bank_v,
    tile=tile,
    parts=parts_of(tiles[0].shape[0] * K, Tp),
    **shape,
  )
  prompt = Part(*(x[:, plan.back] for x in prompt))

  out = normalise(_merge([prompt, own], plan.lengths > 0))
  return out.reshape(S, N, H).astype(q.dtype), (bank_k, bank_v, page_k, page_v)
