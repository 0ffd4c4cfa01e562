"""The engine's device state: slots, the bank of resident prompts, the pool of pages, the queue.

S slots, R bank rows, N pages of which a slot owns up to M, Q queue entries (a ring). Any slot may
serve any prompt. A prompt of P tokens has keys and values of its first P-1 tokens in the bank; its
last token is the first input of every slot that serves it, so that the first sampled token is no
special case. Everything here is one shard's: over a mesh every data shard has a state of its own,
and the leaves are these, concatenated; that is why scalars have an axis of 1.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.decode import IMPLEMENTATIONS
from rlvr_jax.models.transformer import Params, forward
from rlvr_jax.models.vision import Images

IDLE = -1


class Entry(flax.struct.PyTreeNode):
  """What a slot or a queue entry knows of its item; arrays over slots or entries."""

  ident: jax.Array  # i32 the item's id, IDLE if none
  row: jax.Array  # i32 bank row of the prompt
  start: jax.Array  # i32 position of the first sampled token
  limit: jax.Array  # i32 tokens after which the item ends
  key: jax.Array  # key, folded up to the sample index
  forced: jax.Array | None  # i32[...,Tc] tokens to emit instead of sampling, -1 where free


class Slots(flax.struct.PyTreeNode):
  """What each slot is doing."""

  item: Entry  # [S]
  token: jax.Array  # i32[S] next input token
  length: jax.Array  # i32[S] sampled tokens in the pages
  table: jax.Array  # i32[S,M] its pages, in order; ceil(length / page) of them are its own


class Queue(flax.struct.PyTreeNode):
  """Items whose prompt is resident, in a ring; head and tail count up and index modulo Q."""

  item: Entry  # [Q]
  head: jax.Array  # i32[1]
  tail: jax.Array  # i32[1]


class Pool(flax.struct.PyTreeNode):
  """Pages that nobody owns: free[:top], a stack."""

  free: jax.Array  # i32[N]
  top: jax.Array  # i32[1]


class State(flax.struct.PyTreeNode):
  """Everything the decode loop changes; donated from call to call."""

  cache: Any  # of the decode implementation
  bank_lengths: jax.Array  # i32[R] tokens whose keys and values the row holds (P-1)
  bank_last: jax.Array  # i32[R] the prompt's last token
  bank_ahead: jax.Array | None  # i32[R] its next position less its length, where it may have images
  slots: Slots
  queue: Queue
  pool: Pool


def init_state(
  config: ModelConfig,
  *,
  shards: int,
  slots: int,
  bank_rows: int,
  queue: int,
  prompt: int,
  pages: int,
  page: int,
  slot_pages: int,
  completion: int,
  dtype: str,
  forced: bool,
  impl: str = 'xla_paged',
) -> State:
  """An idle engine; counts (slots, rows, entries, pages) are a shard's, lengths are in tokens."""

  def zeros(n: int) -> jax.Array:
    return jnp.zeros((shards * n,), jnp.int32)

  def entries(n: int) -> Entry:
    n *= shards
    key = jax.random.wrap_key_data(jnp.zeros((n, 2), jnp.uint32), impl='threefry2x32')
    force = jnp.full((n, completion), -1, jnp.int32) if forced else None
    i32 = jnp.zeros((n,), jnp.int32)
    return Entry(jnp.full((n,), IDLE, jnp.int32), i32, i32, i32, key, force)

  return State(
    cache=IMPLEMENTATIONS[impl].init_cache(
      config,
      bank_rows=shards * bank_rows,
      prompt=prompt,
      pages=shards * pages,
      page=page,
      dtype=dtype,
    ),
    bank_lengths=zeros(bank_rows),
    bank_last=zeros(bank_rows),
    bank_ahead=None if config.mrope is None else zeros(bank_rows),
    slots=Slots(
      item=entries(slots),
      token=zeros(slots),
      length=zeros(slots),
      table=jnp.zeros((shards * slots, slot_pages), jnp.int32),
    ),
    queue=Queue(item=entries(queue), head=zeros(1), tail=zeros(1)),
    pool=Pool(
      free=jnp.tile(jnp.arange(pages, dtype=jnp.int32), shards),
      top=jnp.full((shards,), pages, jnp.int32),
    ),
  )


def sample_keys(
  seed: jax.Array,
  stream: jax.Array,
  visit: jax.Array,
  model_uid: jax.Array,
  problem_uid: jax.Array,
  sample: jax.Array,
) -> jax.Array:
  """Keys [N] folded as docs/design.md says, all but the position; integers as u32 (seed: a key)."""

  def one(visit, problem, sample):
    key = jax.random.fold_in(seed, stream)
    for part in (visit, model_uid, problem, sample):
      key = jax.random.fold_in(key, part)
    return key

  return jax.vmap(one)(visit, problem_uid, sample)


def prefill(
  params: Params,
  state: State,
  tokens: jax.Array,
  length: jax.Array,
  row: jax.Array,
  images: Images | None = None,
  ahead: jax.Array | None = None,
  *,
  config: ModelConfig,
  impl: str = 'xla_paged',
) -> State:
  """Writes a prompt into a bank row.

  tokens i32[1,Tb], right-padded; length i32[1] the prompt's true length (>= 1); row i32[1], R where
  there is nothing to write. The row then holds length-1 tokens; what padding wrote beyond is never
  looked at. images: the prompt's; ahead i32[1]: what its next position is ahead of its length.
  """
  positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
  _, kv = forward(params, tokens, positions, config=config, keep_kv=True, images=images)
  if ahead is not None:
    assert state.bank_ahead is not None
    ahead = state.bank_ahead.at[row].set(ahead, mode='drop')
  last = jnp.take_along_axis(tokens, length[:, None] - 1, axis=1)[:, 0]
  return state.replace(
    cache=IMPLEMENTATIONS[impl].write_prompts(state.cache, kv, row),
    bank_lengths=state.bank_lengths.at[row].set(length - 1, mode='drop'),
    bank_last=state.bank_last.at[row].set(last, mode='drop'),
    bank_ahead=ahead,
  )


def enqueue(state: State, count: jax.Array, items: Entry) -> State:
  """Appends the first count i32[1] of the given entries [n]; the caller knows there is room."""
  queue = state.queue
  size = queue.item.ident.shape[0]
  index = jnp.arange(items.ident.shape[0], dtype=jnp.int32)
  # entries beyond count are sent out of bounds and dropped
  at = jnp.where(index < count, (queue.tail + index) % size, size)
  rings = jax.tree.map(lambda ring, new: ring.at[at].set(new, mode='drop'), queue.item, items)
  return state.replace(queue=queue.replace(item=rings, tail=queue.tail + count))


def scarce(state: State) -> bool:
  """Whether the pool cannot hold every slot at its longest, so that pages may run out."""
  S, M = state.slots.table.shape
  return state.pool.free.shape[0] < S * M


def refill(state: State) -> State:
  """Gives idle slots the next items of the queue, in slot order, as far as pages allow.

  Where the pool cannot hold every slot at its longest, some pages are left for those that run: a
  quarter of a page a slot, so that new items do not push each other out again.
  """
  slots, queue, pool = state.slots, state.queue, state.pool
  page = state.cache.page
  idle = slots.item.ident == IDLE
  rank = jnp.cumsum(idle.astype(jnp.int32)) - 1
  take = idle & (rank < queue.tail - queue.head)
  if scarce(state):
    live = jnp.sum((~idle).astype(jnp.int32))
    due = jnp.sum((~idle & (slots.length % page == 0)).astype(jnp.int32))
    take &= pool.top - due - rank > (live + rank) // 4
  at = (queue.head + rank) % queue.item.ident.shape[0]

  def new(old: jax.Array, ring: jax.Array) -> jax.Array:
    return jnp.where(take.reshape(-1, *[1] * (old.ndim - 1)), ring[at], old)

  item = jax.tree.map(new, slots.item, queue.item)
  return state.replace(
    slots=slots.replace(
      item=item,
      token=jnp.where(take, state.bank_last[item.row], slots.token),
      length=jnp.where(take, 0, slots.length),
    ),
    queue=queue.replace(head=queue.head + jnp.sum(take.astype(jnp.int32))),
  )


def grant(state: State) -> tuple[State, jax.Array]:
  """A page for every slot whose next token begins one; bool[S] the slots that can go on."""
  slots, pool = state.slots, state.pool
  page, N = state.cache.page, pool.free.shape[0]
  live = slots.item.ident != IDLE
  due = live & (slots.length % page == 0)
  rank = jnp.cumsum(due.astype(jnp.int32)) - 1
  given = due & (rank < pool.top)
  which = pool.free[jnp.clip(pool.top - 1 - rank, 0, N - 1)]
  index = jnp.arange(given.shape[0])
  column = jnp.where(given, slots.length // page, slots.table.shape[1])
  table = slots.table.at[index, column].set(which, mode='drop')
  return state.replace(
    slots=slots.replace(table=table),
    pool=pool.replace(top=pool.top - jnp.sum(given.astype(jnp.int32))),
  ), live & (~due | given)


def release(state: State, leaving: jax.Array) -> State:
  """Empties the slots leaving bool[S] and gives their pages back."""
  slots, pool = state.slots, state.pool
  N = pool.free.shape[0]

  def give_back():
    pages = -(-slots.length // state.cache.page)
    index = jnp.arange(slots.table.shape[1], dtype=jnp.int32)
    mine = (leaving[:, None] & (index[None] < pages[:, None])).reshape(-1)
    at = pool.top + jnp.cumsum(mine.astype(jnp.int32)) - 1
    free = pool.free.at[jnp.where(mine, at, N)].set(slots.table.reshape(-1), mode='drop')
    return pool.replace(free=free, top=pool.top + jnp.sum(mine.astype(jnp.int32)))

  pool = jax.lax.cond(jnp.any(leaving), give_back, lambda: pool)
  item = slots.item.replace(ident=jnp.where(leaving, IDLE, slots.item.ident))
  length = jnp.where(leaving, 0, slots.length)
  return state.replace(slots=slots.replace(item=item, length=length), pool=pool)


def put_back(state: State, waiting: jax.Array) -> tuple[State, jax.Array]:
  """If any slot waits for a page, sends the youngest item back to the head of the queue.

  waiting bool[S]. It will begin again and draw the same tokens. Returns the slots to release
  bool[S]: one, or none.
  """
  if not scarce(state):
    return state, jnp.zeros_like(waiting)
  slots, queue = state.slots, state.queue
  live = slots.item.ident != IDLE
  youngest = jnp.argmin(jnp.where(live, slots.length, jnp.iinfo(jnp.int32).max))
  leaving = jnp.any(waiting) & (jnp.arange(waiting.shape[0]) == youngest)
  count = jnp.any(leaving).astype(jnp.int32)
  size = queue.item.ident.shape[0]
  head = queue.head - count
  at = jnp.where(count > 0, head % size, size)

  def put(ring: jax.Array, old: jax.Array) -> jax.Array:
    return ring.at[at].set(old[youngest][None], mode='drop')

  item = jax.tree.map(put, queue.item, slots.item)
  return state.replace(queue=queue.replace(item=item, head=head)), leaving
