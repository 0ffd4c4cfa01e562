"""The jitted decode loop: some steps of every slot, refilled from the queue on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rlvr_jax.models import paged
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.transformer import Params, decode_step
from rlvr_jax.sampling.draw import Drawn, Options, draw
from rlvr_jax.sampling.state import IDLE, State, grant, put_back, refill, release

COUNTERS = ('steps', 'live_steps', 'kv_live', 'kv_read', 'evicted')


class Emitted(NamedTuple):
  """What a chunk of n steps wrote, time-major; ident IDLE where a slot emitted nothing."""

  ident: jax.Array  # i32[n,S]
  token: jax.Array  # i32[n,S]
  logprob: jax.Array  # f32[n,S]
  first: jax.Array  # bool[n,S] the item's first token: what it emitted before was thrown away
  done: jax.Array  # bool[n,S] the item's last token
  counters: jax.Array  # i32[n,len(COUNTERS)], of each step; the axis grows with the shards
  entropy: jax.Array | None = None  # f32[n,S], like the next one if extras are asked for
  truncated_logprob: jax.Array | None = None


def _choose(
  params: Params,
  state: State,
  hidden: jax.Array,
  options: Options,
  active: jax.Array,
  tensor: str | None,
  extras: bool,
) -> Drawn:
  """The next token of each slot, and what is to be known of it."""
  slots = state.slots
  keys = jax.vmap(jax.random.fold_in)(slots.item.key, slots.item.start + slots.length)
  forced = None
  if slots.item.forced is not None:
    forced = jnp.take_along_axis(slots.item.forced, slots.length[:, None], axis=1)[:, 0]

  def drawing(z, keys, options, active, forced):
    more = {'entropy': extras, 'truncated': extras}
    return draw(z, keys, options, active, forced=forced, axis=tensor, **more)

  if tensor is not None:
    whole = PartitionSpec()
    drawing = jax.shard_map(
      drawing,
      in_specs=(PartitionSpec(None, tensor), *(whole,) * 4),
      out_specs=whole,
      axis_names={tensor},
      check_vma=False,
    )
  return drawing(logits(params, hidden), keys, options, active, forced)


def _step(
  params: Params,
  state: State,
  options: Options,
  stop_ids: jax.Array,
  config: ModelConfig,
  tensor: str | None,
  extras: bool,
  impl: str,
) -> tuple[State, Emitted]:
  with jax.named_scope('refill'):
    state, active = grant(refill(state))
  slots = state.slots
  with jax.named_scope('decode'):
    hidden, cache, plan = decode_step(
      params,
      slots.token,
      state.cache,
      config=config,
      slots=paged.Slots(slots.item.row, slots.length, slots.table, active),
      prompt_lengths=state.bank_lengths,
      axis=tensor,
      impl=impl,
      ahead=state.bank_ahead,
    )
  with jax.named_scope('draw'):
    drawn = _choose(params, state, hidden, options, active, tensor, extras)
  stopped = jnp.any(drawn.token[:, None] == stop_ids[None, :], axis=1)
  done = active & (stopped | (slots.length + 1 >= slots.item.limit))
  # an item that ends gives its pages back, so that nobody has to leave
  waiting = (slots.item.ident != IDLE) & ~active & ~jnp.any(done)
  state = state.replace(
    cache=cache,
    slots=slots.replace(
      token=jnp.where(active, drawn.token, slots.token),
      length=slots.length + active.astype(jnp.int32),
    ),
  )
  state, evicted = put_back(state, waiting)
  counters = jnp.stack(
    [jnp.int32(1), _count(active), plan.live, plan.read, _count(evicted)],
  )
  emitted = Emitted(
    jnp.where(active, slots.item.ident, IDLE),
    drawn.token,
    drawn.logprob,
    active & (slots.length == 0),
    done,
    counters,
    drawn.entropy,
    drawn.truncated_logprob,
  )
  return release(state, done | evicted), emitted


def _count(which: jax.Array) -> jax.Array:
  return jnp.sum(which.astype(jnp.int32))


def run_chunk(
  params: Params,
  state: State,
  options: Options,
  stop_ids: jax.Array,
  *,
  config: ModelConfig,
  steps: int,
  extras: bool = False,
  impl: str = 'xla_paged',
  shards: tuple[str, ...] = (),
  tensor: str | None = None,
) -> tuple[State, Emitted]:
  """Up to `steps` tokens for every slot; ends early when nothing is live or queued.

  params in the sampler's form; stop_ids i32[E] padded with -1. extras: whether entropies and
  log-probs after truncation are computed too; impl: what in models.decode the state's cache is of.
  Over a mesh, shards are the axes whose devices have states of their own, and tensor the one that
  splits heads and vocabulary: then all shards take the same number of steps, for what the compiler
  exchanges within a step.
  """
  S = state.slots.token.shape[0]
  more = jnp.zeros((steps, S), jnp.float32) if extras else None
  out = Emitted(
    ident=jnp.full((steps, S), IDLE, jnp.int32),
    token=jnp.zeros((steps, S), jnp.int32),
    logprob=jnp.zeros((steps, S), jnp.float32),
    first=jnp.zeros((steps, S), bool),
    done=jnp.zeros((steps, S), bool),
    counters=jnp.zeros((steps, len(COUNTERS)), jnp.int32),
    entropy=more,
    truncated_logprob=more,
  )

  def busy(carry) -> jax.Array:
    i, state, _ = carry
    waiting = state.queue.head[0] < state.queue.tail[0]
    work = waiting | jnp.any(state.slots.item.ident != IDLE)
    if tensor is not None and shards:
      work = jax.lax.pmax(work.astype(jnp.int32), shards) > 0
    return (i < steps) & work

  def body(carry):
    i, state, out = carry
    state, emitted = _step(params, state, options, stop_ids, config, tensor, extras, impl)
    out = jax.tree.map(lambda buffer, new: buffer.at[i].set(new), out, emitted)
    return i + 1, state, out

  _, state, out = jax.lax.while_loop(busy, body, (jnp.int32(0), state, out))
  return state, out
