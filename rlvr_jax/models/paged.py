"""Decode attention in plain XLA over a bank of prompts and a pool of pages: reads what is live.

A step's work is cut into units of one page of keys for a tile of slots. Slots are sorted, so that
the slots that have a j-th page are the first ones: unit after unit is a contiguous slice, and the
number of units follows the tokens there are, not the capacity. A prompt's keys are read once for a
tile of slots that share it. Every slot merges its pages in their order, each page of one size, so
that its result has the same bits whatever tile, slot or company it is in.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rlvr_jax.models.attention import Part, combine, empty_part, normalise, scores, softmax_part
from rlvr_jax.models.cache import KVCache

TILE = 8  # slots of a unit at least
UNIT_BYTES = 1 << 18  # of keys in a unit, where that is more slots
SHARED_FROM = 32  # tokens of a bank row from which slots of one prompt read it together
BANK_BLOCK = 128  # tokens of a bank row that one unit reads then


class Slots(NamedTuple):
  """What the slots hold at the start of a step, before their new token is written."""

  rows: jax.Array  # i32[S] bank row of the prompt
  lengths: jax.Array  # i32[S] sampled tokens already in the pages
  table: jax.Array  # i32[S,M] the slot's pages, in order
  active: jax.Array  # bool[S] the others neither read nor write


class Order(NamedTuple):
  """A permutation of the slots, and for each page index how many of the first ones have it."""

  slots: jax.Array  # i32[S]
  lengths: jax.Array  # i32[S] keys of each, in this order
  table: jax.Array  # i32[S,M] pages of each, in this order
  counts: jax.Array  # i32[M+1]; the last is 0


class Plan(NamedTuple):
  """One step's reads and writes, the same for every layer."""

  write_page: jax.Array  # i32[S] page of the new token; N (dropped) where inactive
  write_at: jax.Array  # i32[S] its place in the page
  prefix: Order  # by prompt; table [S,1] is the bank row
  group_end: jax.Array  # i32[S] in prefix order: where the slots of the same prompt end
  suffix: Order  # by number of pages, longest first
  hop: jax.Array  # i32[S] prefix order -> suffix order
  back: jax.Array  # i32[S] suffix order -> slots
  read: jax.Array  # i32[] tokens whose keys are read, padding and repetition included
  live: jax.Array  # i32[] tokens that have to be: each prompt in use once, every sampled one


def plan_step(slots: Slots, prompt_lengths: jax.Array, cache: KVCache) -> Plan:
  """The plan for one decode step. prompt_lengths i32[R]: tokens in the bank's rows."""
  S, M = slots.table.shape
  R, _, Tp, _ = cache.bank_v[0].shape
  page, N = cache.page, cache.page_v[0].shape[0]
  active = slots.active
  lengths = jnp.where(active, slots.lengths + 1, 0)

  def count(pages: jax.Array, most: int) -> jax.Array:
    index = jnp.arange(most + 1, dtype=jnp.int32)
    return jnp.sum((pages[None] > index[:, None]).astype(jnp.int32), axis=1)

  by_row = jnp.argsort(jnp.where(active, slots.rows, R))
  row = jnp.where(active, slots.rows, R)[by_row]
  prefix_lengths = jnp.where(active, prompt_lengths[slots.rows], 0)[by_row]
  group_end = jnp.searchsorted(row, row, side='right').astype(jnp.int32)
  prefix = Order(
    by_row,
    prefix_lengths,
    jnp.minimum(row, R - 1)[:, None],
    count(active.astype(jnp.int32), 1),
  )
  pages = -(-lengths // page)
  by_pages = jnp.argsort(-pages)
  table = slots.table[by_pages]
  suffix = Order(by_pages, lengths[by_pages], table, count(pages, M))
  back = jnp.argsort(by_pages)
  at = jnp.minimum(slots.lengths // page, M - 1)
  write_page = jnp.take_along_axis(slots.table, at[:, None], axis=1)[:, 0]

  first_of_group = active[by_row] & jnp.concatenate([jnp.ones(1, bool), row[1:] != row[:-1]])
  prompts = jnp.where(first_of_group, prefix_lengths, 0)
  read = _tokens_read(suffix, cache.page_v[0])
  if Tp < SHARED_FROM:
    read += _tokens_read(prefix, cache.bank_v[0])
  else:
    block = min(Tp, BANK_BLOCK)
    users = group_end - jnp.arange(S, dtype=jnp.int32)
    tiles = -(-users // min(TILE, S)) * jnp.maximum(-(-prefix_lengths // block), 1)
    read += block * jnp.sum(jnp.where(first_of_group, tiles, 0))
  return Plan(
    write_page=jnp.where(active, write_page, N),
    write_at=slots.lengths % page,
    prefix=prefix,
    group_end=group_end,
    suffix=suffix,
    hop=jnp.argsort(by_row)[by_pages],
    back=back,
    read=read,
    live=jnp.sum(lengths) + jnp.sum(prompts),
  )


def paged_attention(
  q: jax.Array,
  new_k: jax.Array,
  new_v: jax.Array,
  layer: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
  plan: Plan,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """One query a slot over its prompt and its own tokens, the new one included.

  q [S,N,H]; new_k, new_v [S,K,H]; layer: bank_k [R,K,H,Tp], bank_v [R,K,Tp,H], page_k
  [pages,K,H,page], page_v [pages,K,page,H] of one layer. Returns [S,N,H] and the pages with the new
  token written. Inactive slots get zeros.
  """
  S, N, H = q.shape
  bank_k, bank_v, page_k, page_v = layer
  K = page_v.shape[1]
  page_k = page_k.at[plan.write_page, :, :, plan.write_at].set(new_k, mode='drop')
  page_v = page_v.at[plan.write_page, :, plan.write_at].set(new_v, mode='drop')
  q = q.reshape(S, K, N // K, H)
  by_row = q[plan.prefix.slots]
  part = empty_part(by_row)
  if bank_v.shape[2] < SHARED_FROM:
    part = _by_slot(by_row, part, bank_k, bank_v, plan.prefix)
  else:
    part = _by_prompt(by_row, part, bank_k, bank_v, plan.prefix, plan.group_end)
  part = Part(*(x[plan.hop] for x in part))
  part = _by_slot(q[plan.suffix.slots], part, page_k, page_v, plan.suffix)
  out = normalise(Part(*(x[plan.back] for x in part)))
  return out.reshape(S, N, H).astype(q.dtype), (page_k, page_v)


def attention_over(axis: str | None, kv_heads: int) -> Callable:
  """paged_attention with the heads split over a mesh axis; all on every device if it does not
  divide kv_heads, and as it is for None.

  Its loops run as long as a device's own slots need, so nothing in them may be left to the
  compiler to exchange.
  """
  if axis is None:
    return paged_attention
  size = jax.sharding.get_abstract_mesh().shape[axis]
  heads = PartitionSpec(None, axis if kv_heads % size == 0 else None)
  return jax.shard_map(
    paged_attention,
    in_specs=(heads, heads, heads, heads, PartitionSpec()),
    out_specs=heads,
    axis_names={axis},
    check_vma=False,
  )


def unit_slots(pages: jax.Array, slots: int, capacity: int) -> int:
  """Slots of a unit over values in pages [N,K,page,H] of which a slot has up to `capacity`.

  One size for all: a unit of another size is another program, whose sums may round otherwise. Wide
  where few pages a slot leave little to waste, else narrow: each page index ends in half a unit of
  padding.
  """
  own = pages[0].size * pages.dtype.itemsize
  fit = min(max(TILE, UNIT_BYTES // own), max(TILE, slots // capacity))
  return min(1 << (fit.bit_length() - 1), slots)


def _tokens_read(order: Order, pages: jax.Array) -> jax.Array:
  S, M = order.table.shape
  tile = unit_slots(pages, S, M)
  return pages.shape[2] * jnp.sum(-(-order.counts // tile) * tile)


def _slice(x: jax.Array, start: jax.Array, size: int) -> jax.Array:
  return jax.lax.dynamic_slice_in_dim(x, start, size, 0)


def _put(part: Part, new: Part, start: jax.Array, mine: jax.Array) -> Part:
  """part with the tile at `start` merged with `new`; where mine bool[tile] is false it stays."""

  def one(whole: jax.Array, old: jax.Array, merged: jax.Array) -> jax.Array:
    merged = jnp.where(mine.reshape(-1, *[1] * (old.ndim - 1)), merged, old)
    return jax.lax.dynamic_update_slice_in_dim(whole, merged, start, 0)

  old = Part(*(_slice(x, start, new.maximum.shape[0]) for x in part))
  return Part(*map(one, part, old, combine(old, new)))


def _by_slot(
  q: jax.Array, part: Part, pages_k: jax.Array, pages_v: jax.Array, order: Order
) -> Part:
  """Merges every slot's own pages into part; q [S,K,G,H] and part in the order's order."""
  S, M = order.table.shape
  page, tile = pages_v.shape[2], unit_slots(pages_v, S, M)
  offsets = jnp.arange(page, dtype=jnp.int32)

  def unit(part: Part, start: jax.Array, j: jax.Array) -> Part:
    # near the end a slice is moved back to fit: the slots before `start` have had this page
    begin = jnp.minimum(start, S - tile)
    which = jax.lax.dynamic_slice(order.table, (begin, j), (tile, 1))[:, 0]
    keys, values = pages_k[which], pages_v[which]
    mask = (j * page + offsets)[None] < _slice(order.lengths, begin, tile)[:, None]
    z = scores('BKGH,BKHS->BKGS', _slice(q, begin, tile), keys)
    new = softmax_part(z, mask[:, None, None], values, 'BKGS,BKSH->BKGH')
    index = begin + jnp.arange(tile, dtype=jnp.int32)
    return _put(part, new, begin, (index >= start) & (index < order.counts[j]))

  def body(carry):
    j, start, part = carry
    part = unit(part, start, j)
    more = start + tile < order.counts[j]
    return jnp.where(more, j, j + 1), jnp.where(more, start + tile, 0), part

  def unfinished(carry):
    j, start, _ = carry
    return start < order.counts[j]

  return jax.lax.while_loop(unfinished, body, (jnp.int32(0), jnp.int32(0), part))[2]


def _by_prompt(
  q: jax.Array,
  part: Part,
  bank_k: jax.Array,
  bank_v: jax.Array,
  order: Order,
  group_end: jax.Array,
) -> Part:
  """Merges the prompts into part, each read once for a tile of the slots that share it."""
  S, K, G, H = q.shape
  Tp = bank_v.shape[2]
  tile, block = min(TILE, S), min(Tp, BANK_BLOCK)
  live = order.counts[0]
  offsets = jnp.arange(block, dtype=jnp.int32)

  def body(carry):
    start, j, part = carry
    begin = jnp.minimum(start, S - tile)
    row, length = order.table[start, 0], order.lengths[start]
    # the last block is moved back to fit: the keys before j * block have been read
    at = jnp.minimum(j * block, Tp - block)
    keys = jax.lax.dynamic_slice(bank_k, (row, 0, 0, at), (1, K, H, block))[0]
    values = jax.lax.dynamic_slice(bank_v, (row, 0, at, 0), (1, K, block, H))[0]
    together = jnp.swapaxes(_slice(q, begin, tile), 0, 1).reshape(K, tile * G, H)
    z = scores('KBH,KHS->KBS', together, keys)
    mask = ((at + offsets >= j * block) & (at + offsets < length))[None, None]
    new = softmax_part(z, mask, values, 'KBS,KSH->KBH')
    new = Part(*(jnp.swapaxes(x.reshape(K, tile, G, *x.shape[2:]), 0, 1) for x in new))
    index = begin + jnp.arange(tile, dtype=jnp.int32)
    part = _put(part, new, begin, (index >= start) & (index < group_end[start]))
    more = (j + 1) * block < length
    after = jnp.minimum(start + tile, group_end[start])
    return jnp.where(more, start, after), jnp.where(more, j + 1, 0), part

  def unfinished(carry):
    return carry[0] < live

  return jax.lax.while_loop(unfinished, body, (jnp.int32(0), jnp.int32(0), part))[2]
