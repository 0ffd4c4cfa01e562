"""The engine's device state: slots, the bank of resident prompts, the queue of items.

S slots, R bank rows, Q queue entries (a ring). Any slot may serve any prompt. A prompt of P tokens
has keys and values of its first P-1 tokens in the bank; its last token is the first input of every
slot that serves it, so that the first sampled token is no special case.
"""

import flax.struct
import jax
import jax.numpy as jnp

from rlvr_jax.models.cache import KVCache, init_cache
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import Params, forward

IDLE = -1


class Slots(flax.struct.PyTreeNode):
  """What each slot is doing; ident IDLE where nothing."""

  ident: jax.Array  # i32[S] the item's id, IDLE if none
  token: jax.Array  # i32[S] next input token
  length: jax.Array  # i32[S] suffix tokens in the cache
  row: jax.Array  # i32[S] bank row of the prompt
  start: jax.Array  # i32[S] position of the first sampled token
  key: jax.Array  # key[S] folded up to the sample index
  forced: jax.Array | None  # i32[S,Tc] tokens to emit instead of sampling, -1 where free


class Queue(flax.struct.PyTreeNode):
  """Items whose prompt is resident, in a ring; head and tail count up and index modulo Q."""

  ident: jax.Array  # i32[Q]
  row: jax.Array  # i32[Q]
  start: jax.Array  # i32[Q]
  key: jax.Array  # key[Q]
  forced: jax.Array | None  # i32[Q,Tc]
  head: jax.Array  # i32[]
  tail: jax.Array  # i32[]


class State(flax.struct.PyTreeNode):
  """Everything the decode loop changes; donated from call to call."""

  cache: KVCache
  bank_lengths: jax.Array  # i32[R] tokens whose keys and values the row holds (P-1)
  bank_last: jax.Array  # i32[R] the prompt's last token
  slots: Slots
  queue: Queue


def init_state(
  config: ModelConfig,
  *,
  slots: int,
  bank_rows: int,
  queue: int,
  prompt: int,
  completion: int,
  dtype: str,
  forced: bool,
) -> State:
  """An idle engine of the given capacities (slots, rows, entries, tokens, tokens)."""

  def zeros(n: int) -> jax.Array:
    return jnp.zeros((n,), jnp.int32)

  def force(n: int) -> jax.Array | None:
    return jnp.full((n, completion), -1, jnp.int32) if forced else None

  def keys(n: int) -> jax.Array:
    return jax.random.wrap_key_data(jnp.zeros((n, 2), jnp.uint32), impl='threefry2x32')

  return State(
    cache=init_cache(
      config,
      slots=slots,
      bank_rows=bank_rows,
      prompt=prompt,
      completion=completion,
      dtype=dtype,
    ),
    bank_lengths=zeros(bank_rows),
    bank_last=zeros(bank_rows),
    slots=Slots(
      ident=jnp.full((slots,), IDLE, jnp.int32),
      token=zeros(slots),
      length=zeros(slots),
      row=zeros(slots),
      start=zeros(slots),
      key=keys(slots),
      forced=force(slots),
    ),
    queue=Queue(
      ident=zeros(queue),
      row=zeros(queue),
      start=zeros(queue),
      key=keys(queue),
      forced=force(queue),
      head=jnp.zeros((), jnp.int32),
      tail=jnp.zeros((), jnp.int32),
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
  params: Params, state: State, tokens: jax.Array, length: jax.Array, row: jax.Array, *, config
) -> State:
  """Writes a prompt into a bank row.

  tokens i32[Tb], right-padded; length i32[] the prompt's true length (>= 1). The row then holds
  length-1 tokens; what padding wrote beyond is never looked at.
  """
  positions = jnp.arange(tokens.shape[0], dtype=jnp.int32)[None]
  _, kv = forward(params, tokens[None], positions, config=config, keep_kv=True)
  cache = state.cache

  def write(banks: list[jax.Array], which: int) -> list[jax.Array]:
    def one(bank: jax.Array, new: jax.Array) -> jax.Array:  # new [1,Tb,K,H] -> [1,K,Tb,H]
      new = jnp.swapaxes(new, 1, 2)[:, :, : bank.shape[2]]
      return jax.lax.dynamic_update_slice(bank, new, (row, 0, 0, 0))

    return [one(bank, layer[which]) for bank, layer in zip(banks, kv, strict=True)]

  return state.replace(
    cache=cache.replace(bank_k=write(cache.bank_k, 0), bank_v=write(cache.bank_v, 1)),
    bank_lengths=state.bank_lengths.at[row].set(length - 1),
    bank_last=state.bank_last.at[row].set(tokens[length - 1]),
  )


def enqueue(
  state: State,
  count: jax.Array,
  ident: jax.Array,
  row: jax.Array,
  start: jax.Array,
  keys: jax.Array,
  forced: jax.Array | None,
) -> State:
  """Appends the first `count` of N given entries to the ring; the caller knows there is room."""
  queue = state.queue
  size = queue.ident.shape[0]
  index = jnp.arange(ident.shape[0], dtype=jnp.int32)
  # entries beyond count are sent out of bounds and dropped
  at = jnp.where(index < count, (queue.tail + index) % size, size)

  def put(ring: jax.Array, new: jax.Array) -> jax.Array:
    return ring.at[at].set(new, mode='drop')

  return state.replace(
    queue=queue.replace(
      ident=put(queue.ident, ident),
      row=put(queue.row, row),
      start=put(queue.start, start),
      key=put(queue.key, keys),
      forced=None if queue.forced is None or forced is None else put(queue.forced, forced),
      tail=queue.tail + count,
    )
  )


def refill(state: State) -> State:
  """Gives idle slots the next items of the queue, in slot order."""
  slots, queue = state.slots, state.queue
  idle = slots.ident == IDLE
  rank = jnp.cumsum(idle.astype(jnp.int32)) - 1
  take = idle & (rank < queue.tail - queue.head)
  at = (queue.head + rank) % queue.ident.shape[0]

  def new(old: jax.Array, ring: jax.Array) -> jax.Array:
    mask = take.reshape(-1, *[1] * (old.ndim - 1))
    return jnp.where(mask, ring[at], old)

  def forced() -> jax.Array | None:
    if slots.forced is None or queue.forced is None:
      return None
    return new(slots.forced, queue.forced)

  row = new(slots.row, queue.row)
  return state.replace(
    slots=slots.replace(
      ident=new(slots.ident, queue.ident),
      token=jnp.where(take, state.bank_last[row], slots.token),
      length=jnp.where(take, 0, slots.length),
      row=row,
      start=new(slots.start, queue.start),
      key=new(slots.key, queue.key),
      forced=forced(),
    ),
    queue=queue.replace(head=queue.head + jnp.sum(take.astype(jnp.int32))),
  )
