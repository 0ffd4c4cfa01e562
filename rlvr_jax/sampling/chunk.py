"""The jitted decode loop: some steps of every slot, refilled from the queue on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.transformer import Params, decode_step
from rlvr_jax.sampling.draw import Options, draw
from rlvr_jax.sampling.state import IDLE, State, refill


class Emitted(NamedTuple):
  """What a chunk of n steps wrote, time-major; rows of idle slots have ident IDLE."""

  ident: jax.Array  # i32[n,S]
  token: jax.Array  # i32[n,S]
  logprob: jax.Array  # f32[n,S]
  done: jax.Array  # bool[n,S] the item's last token


def _choose(params: Params, state: State, hidden: jax.Array, options: Options):
  """The next token i32[S] of each slot and its log-prob f32[S]."""
  slots = state.slots
  keys = jax.vmap(jax.random.fold_in)(slots.key, slots.start + slots.length)
  z = logits(params, hidden)
  token, logprob = draw(z, keys, options, slots.ident != IDLE)
  if slots.forced is None:
    return token, logprob
  given = jnp.take_along_axis(slots.forced, slots.length[:, None], axis=1)[:, 0]
  tempered = z / jnp.where(options.temperature == 0, 1.0, options.temperature)
  picked = jnp.take_along_axis(tempered, jnp.maximum(given, 0)[:, None], axis=1)[:, 0]
  forced_logprob = picked - jax.nn.logsumexp(tempered, axis=-1)
  force = given >= 0
  return jnp.where(force, given, token), jnp.where(force, forced_logprob, logprob)


def _step(
  params: Params,
  state: State,
  options: Options,
  stop_ids: jax.Array,
  limit: jax.Array,
  config: ModelConfig,
) -> tuple[State, Emitted]:
  state = refill(state)
  slots = state.slots
  hidden, cache = decode_step(
    params,
    slots.token,
    state.cache,
    config=config,
    rows=slots.row,
    bank_lengths=state.bank_lengths,
    lengths=slots.length,
  )
  with jax.named_scope('sample'):
    token, logprob = _choose(params, state, hidden, options)
  live = slots.ident != IDLE
  stopped = jnp.any(token[:, None] == stop_ids[None, :], axis=1)
  done = live & (stopped | (slots.length + 1 >= limit))
  emitted = Emitted(slots.ident, token, logprob, done)
  goes_on = live & ~done
  slots = slots.replace(
    ident=jnp.where(goes_on, slots.ident, IDLE),
    token=token,
    length=jnp.where(goes_on, slots.length + 1, 0),
  )
  return state.replace(cache=cache, slots=slots), emitted


def run_chunk(
  params: Params,
  state: State,
  options: Options,
  stop_ids: jax.Array,
  limit: jax.Array,
  *,
  config: ModelConfig,
  steps: int,
) -> tuple[State, Emitted]:
  """Up to `steps` tokens for every slot; ends early when nothing is live or queued.

  params in the sampler's form; stop_ids i32[E] padded with -1; limit i32[] tokens a completion.
  """
  S = state.slots.ident.shape[0]
  out = Emitted(
    ident=jnp.full((steps, S), IDLE, jnp.int32),
    token=jnp.zeros((steps, S), jnp.int32),
    logprob=jnp.zeros((steps, S), jnp.float32),
    done=jnp.zeros((steps, S), bool),
  )

  def busy(carry) -> jax.Array:
    i, state, _ = carry
    waiting = state.queue.head < state.queue.tail
    return (i < steps) & (waiting | jnp.any(state.slots.ident != IDLE))

  def body(carry):
    i, state, out = carry
    state, emitted = _step(params, state, options, stop_ids, limit, config)
    out = jax.tree.map(lambda buffer, new: buffer.at[i].set(new), out, emitted)
    return i + 1, state, out

  _, state, out = jax.lax.while_loop(busy, body, (jnp.int32(0), state, out))
  return state, out
