"""The kernels of models/attention_gpu.py, in Pallas (Triton); imported where they run."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rlvr_jax.models.attention import Part
from rlvr_jax.models.attention_gpu import BLOCK

WARPS, STAGES = 4, 3  # of 2, 4 and 8 warps and 2 to 4 stages the fastest on an H200


def _add(
  carry: tuple[jax.Array, jax.Array, jax.Array],
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: jax.Array,
  scale: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """A Part of queries [n,H] with the keys [H,t] and values [t,H] added that mask bool[t] allows.

  At least one key is allowed.
  """
  maximum, denominator, numerator = carry
  precision = jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None
  z = plgpu.dot(q, k, precision=precision) * scale
  z = jnp.where(mask[None, :], z, -jnp.inf)
  new = jnp.maximum(maximum, jnp.max(z, axis=1))
  old = jnp.exp(maximum - new)
  weights = jnp.exp(z - new[:, None])
  more = plgpu.dot(weights.astype(v.dtype), v, precision=precision)
  return new, old * denominator + jnp.sum(weights, axis=1), old[:, None] * numerator + more


def _nothing(rows: int, H: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  zeros = jnp.zeros((rows,), jnp.float32)
  return zeros - jnp.inf, zeros, jnp.zeros((rows, H), jnp.float32)


def _own(
  q_ref, lengths_ref, table_ref, k_ref, v_ref, m_ref, l_ref, o_ref, *, pages: int, rows: int
):
  """One slot, kv head and part of `pages` pages."""
  slot, head, part = pl.program_id(0), pl.program_id(1), pl.program_id(2)
  G, H = q_ref.shape[2:]
  page = v_ref.shape[2]
  length = lengths_ref[slot]
  first = part * pages
  count = jnp.clip(pl.cdiv(length, page) - first, 0, pages)
  ours = jnp.arange(rows, dtype=jnp.int32) < G
  queries = pl.ds(0, rows)
  q = plgpu.load(q_ref.at[slot, head, queries, :], mask=ours[:, None], other=0.0)
  offsets = jnp.arange(page, dtype=jnp.int32)

  def body(j, carry):
    which = table_ref[slot, first + j]
    k, v = k_ref[which, head, :, :], v_ref[which, head, :, :]
    return _add(carry, q, k, v, (first + j) * page + offsets < length, H**-0.5)

  m, l, o = jax.lax.fori_loop(0, count, body, _nothing(rows, H))
  plgpu.store(m_ref.at[part, slot, head, queries], m, mask=ours)
  plgpu.store(l_ref.at[part, slot, head, queries], l, mask=ours)
  plgpu.store(o_ref.at[part, slot, head, queries, :], o, mask=ours[:, None])


def _prompt(
  q_ref, start_ref, end_ref, row_ref, prompt_ref, k_ref, v_ref, m_ref, l_ref, o_ref, *,
  blocks: int, rows: int, tile: int,
):  # fmt: skip
  """One tile of slots that share a prompt, kv head and part of `blocks` blocks of its keys."""
  t, head, part = pl.program_id(0), pl.program_id(1), pl.program_id(2)
  G, H = q_ref.shape[2:]
  start, end = start_ref[t], end_ref[t]

  @pl.when(start < end)
  def _():
    row, length = row_ref[start], prompt_ref[start]
    first = part * blocks
    count = jnp.clip(pl.cdiv(length, BLOCK) - first, 0, blocks)
    slots, queries = pl.ds(start, tile), pl.ds(0, rows)
    live = start + jnp.arange(tile, dtype=jnp.int32) < end
    ours = live[:, None] & (jnp.arange(rows, dtype=jnp.int32) < G)[None, :]
    q = plgpu.load(q_ref.at[slots, head, queries, :], mask=ours[:, :, None], other=0.0)
    q = q.reshape(tile * rows, H)
    offsets = jnp.arange(BLOCK, dtype=jnp.int32)

    def body(j, carry):
      at = (first + j) * BLOCK
      k, v = k_ref[row, head, :, pl.ds(at, BLOCK)], v_ref[row, head, pl.ds(at, BLOCK), :]
      return _add(carry, q, k, v, at + offsets < length, H**-0.5)

    m, l, o = jax.lax.fori_loop(0, count, body, _nothing(tile * rows, H))
    plgpu.store(m_ref.at[part, slots, head, queries], m.reshape(tile, rows), mask=ours)
    plgpu.store(l_ref.at[part, slots, head, queries], l.reshape(tile, rows), mask=ours)
    o = o.reshape(tile, rows, H)
    plgpu.store(o_ref.at[part, slots, head, queries, :], o, mask=ours[:, :, None])


def _call(
  kernel: functools.partial, grid: tuple, q: jax.Array, args: tuple, interpret: bool
) -> Part:
  """The Parts [parts,S,K,G] that a kernel finds; parts is the grid's last axis."""
  S, K, G, H = q.shape
  shape = (grid[-1], S, K, G)
  one = jax.ShapeDtypeStruct(shape, jnp.float32)
  whole = jax.ShapeDtypeStruct((*shape, H), jnp.float32)
  # weak types of the kernels' constants
  with jax.numpy_dtype_promotion('standard'):
    found = pl.pallas_call(
      kernel,
      out_shape=(one, one, whole),
      grid=grid,
      compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=STAGES),
      interpret=interpret,
    )(q, *args)
  return Part(*found)


def own_pages(
  q: jax.Array,
  lengths: jax.Array,
  table: jax.Array,
  page_k: jax.Array,
  page_v: jax.Array,
  *,
  parts: int,
  rows: int,
  interpret: bool,
) -> Part:
  """Parts [parts,S,K,G] of q [S,K,G,H] over each slot's own pages.

  lengths i32[S], the new token counted; table i32[S,M].
  """
  S, K = q.shape[:2]
  kernel = functools.partial(_own, pages=-(-table.shape[1] // parts), rows=rows)
  return _call(kernel, (S, K, parts), q, (lengths, table, page_k, page_v), interpret)


def prompts(
  q: jax.Array,
  tiles: tuple[jax.Array, jax.Array],
  row: jax.Array,
  lengths: jax.Array,
  bank_k: jax.Array,
  bank_v: jax.Array,
  *,
  tile: int,
  parts: int,
  rows: int,
  interpret: bool,
) -> Part:
  """Parts [parts,S,K,G] of q [S,K,G,H], slots sorted by prompt, over the bank's rows.

  tiles: where each begins and ends, i32[n] each; row and lengths (tokens) i32[S] of each slot's
  prompt. What no tile covers is left unwritten.
  """
  K, Tp = q.shape[1], bank_v.shape[2]
  kernel = functools.partial(_prompt, blocks=-(-Tp // BLOCK // parts), rows=rows, tile=tile)
  grid = tiles[0].shape[0], K, parts
  return _call(kernel, grid, q, (*tiles, row, lengths, bank_k, bank_v), interpret)
