"""What a sampler needs in memory, and what fits into a budget, before anything is allocated."""

import dataclasses
import functools
import math
from typing import Any

import jax

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.decode import IMPLEMENTATIONS
from rlvr_jax.models.transformer import init_params

# pages a slot should have on average, as a share of those its longest completion takes: lengths
# have long tails, and a slot without a page only sends its item back to the queue
LEAN_SHARE = 1 / 4
BANK_SHARE = 1 / 4  # of what the weights leave: the most that a budget gives the bank
GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Budget:
  """The capacities of an engine and their bytes on one device; slots and pages over all shards."""

  slots: int
  bank_rows: int
  pages: int
  page: int  # tokens
  full_pages: int  # pages with which every slot can be at its longest
  weights: int  # bytes
  bank: int
  pool: int
  workspace: int
  token: int  # bytes of its keys and values, over all layers and kv heads
  decode_impl: str

  @property
  def total(self) -> int:
    """Bytes on one device."""
    return self.weights + self.bank + self.pool + self.workspace


@functools.cache
def weight_bytes(config: ModelConfig, dtype: str, tensor: int = 1) -> int:
  """Bytes of the sampler's weights on one of `tensor` devices that share them; each has a tower."""
  shapes = jax.eval_shape(lambda key: init_params(key, config, dtype), jax.random.key(0))
  tower = _bytes(shapes.pop('vision', {}))
  return _bytes(shapes) // tensor + tower


def _bytes(tree: Any) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def price(
  config: ModelConfig,
  *,
  slots: int,
  bank_rows: int,
  prompt_capacity: int,
  completion_capacity: int,
  page: int,
  pages: int,
  dtype: str,
  shards: int = 1,
  tensor: int = 1,
  decode_impl: str = 'xla_paged',
) -> Budget:
  """The bytes of the given capacities, as Engine allocates them; pages 0 is full size."""
  full = slots * -(-completion_capacity // page)
  pages = pages or full
  heads = tensor if config.num_kv_heads % tensor == 0 else 1
  implementation = IMPLEMENTATIONS[decode_impl]
  token = implementation.token_bytes(config, dtype)
  prompt = implementation.bank_capacity(prompt_capacity, page)
  return Budget(
    slots=slots,
    bank_rows=bank_rows,
    pages=pages,
    page=page,
    full_pages=full,
    weights=weight_bytes(config, dtype, tensor),
    bank=bank_rows * prompt * token // heads,
    pool=pages // shards * page * token // heads,
    # logits and their exponentials, float32
    workspace=2 * 4 * (slots // shards) * config.vocab_size // tensor,
    token=token,
    decode_impl=decode_impl,
  )


def fit(
  config: ModelConfig,
  memory: int,
  *,
  slots: int,
  bank_rows: int,
  prompt_capacity: int,
  completion_capacity: int,
  page: int,
  dtype: str,
  shards: int = 1,
  tensor: int = 1,
  decode_impl: str = 'xla_paged',
) -> Budget:
  """The capacities for `memory` bytes on each device; slots and bank_rows are the most wanted.

  Slots are halved until each has LEAN_SHARE of its longest completion; the bank takes at most
  BANK_SHARE of what the weights leave; pages take the rest, up to full size. ValueError, with what
  would be needed, if not even one slot fits.
  """

  def priced(slots: int, rows: int, pages: int) -> Budget:
    return price(
      config,
      slots=slots,
      bank_rows=rows,
      prompt_capacity=prompt_capacity,
      completion_capacity=completion_capacity,
      page=page,
      pages=pages,
      dtype=dtype,
      shards=shards,
      tensor=tensor,
      decode_impl=decode_impl,
    )

  slot_pages = -(-completion_capacity // page)
  one_page = priced(shards, 1, shards).pool
  one_row = priced(shards, 1, shards).bank
  left = memory - priced(shards, 1, shards).weights
  rows = max(1, min(bank_rows, math.floor(left * BANK_SHARE) // one_row))
  while True:
    room = left - rows * one_row - priced(slots, rows, shards).workspace
    pages = min(room // one_page, slots // shards * slot_pages)
    enough = max(slot_pages, math.ceil(slots // shards * slot_pages * LEAN_SHARE))
    if pages >= enough:
      return priced(slots, rows, pages * shards)
    if slots // 2 < shards:
      least = priced(shards, 1, shards * slot_pages).total
      raise ValueError(
        f'sampling.memory_gb={memory / GIB:.3g} is too little: weights and one completion of '
        f'{completion_capacity} tokens take {least / GIB:.3g} GiB on each device; raise it, lower '
        'sampling.max_tokens, or split the model over mesh.tensor'
      )
    slots = slots // 2 // shards * shards


def describe(budget: Budget) -> str:
  """One line for people: what is held, in GiB, and how long completions may be on average."""
  b = budget
  parts = {'weights': b.weights, 'bank': b.bank, 'pages': b.pool, 'workspace': b.workspace}
  sizes = ', '.join(f'{name} {size / GIB:.2f}' for name, size in parts.items())
  line = (
    f'{b.slots} slots, {b.bank_rows} prompts, {b.pages} pages of {b.page} tokens: {sizes} = '
    f'{b.total / GIB:.2f} GiB on each device ({b.token} bytes a token, {b.decode_impl})'
  )
  if b.pages < b.full_pages:
    mean = b.pages * b.page // b.slots
    line += f'; the pages hold {mean} tokens a slot, beyond that the youngest begin anew later'
  return line
