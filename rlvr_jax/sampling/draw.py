"""Drawing a token per row: two-level inverse CDF, nucleus by rejection, top-k by bisection.

No sort over V. A row's token depends on its logits and its own uniforms only, never on its
neighbours. Two levels (block, then element) because a one-level float32 CDF over a large vocabulary
cannot represent small probabilities and flips tokens at its many boundaries.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

BLOCK = 384  # elements a block: about 400 blocks at V = 152k
TRIALS = 16  # nucleus draws before bisection takes over


class Options(NamedTuple):
  """Sampling settings as traced scalars, so that changing one recompiles nothing."""

  temperature: jax.Array  # f32[]; 0 is greedy
  top_p: jax.Array  # f32[]; 1 is off
  top_k: jax.Array  # i32[]; 0 is off


def _two_level(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
  """Index i32[S] drawn with probability proportional to weights f32[S,V] >= 0.

  uniforms f32[S,2] in [0,1): the block, then the element in the block. Zero weights are never
  drawn: a position is taken only when the running sum passes the target by its own weight.
  """
  S, V = weights.shape
  size = min(BLOCK, V)
  blocks = jnp.pad(weights, ((0, 0), (0, -V % size))).reshape(S, -1, size)

  def pick(w: jax.Array, u: jax.Array) -> jax.Array:
    running = jnp.cumsum(w, axis=-1)
    target = u[:, None] * running[:, -1:]
    index = jnp.broadcast_to(jnp.arange(w.shape[-1], dtype=jnp.int32), w.shape)
    positive = w > 0
    # the first crossing, not a count: a parallel cumsum may fall by a rounding at a zero weight
    first = jnp.min(jnp.where(positive & (running > target), index, w.shape[-1]), axis=-1)
    # u * total can round up to total itself: then the last position with any weight
    last = jnp.max(jnp.where(positive, index, 0), axis=-1)
    return jnp.minimum(first, last)

  block = pick(jnp.sum(blocks, axis=-1), uniforms[:, 0])
  inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
  return block * size + pick(inside, uniforms[:, 1])


def _threshold(keep: Callable[[jax.Array], jax.Array], weights: jax.Array) -> jax.Array:
  """Largest t f32[S,1] such that keep(t) bool[S,1] holds, by bisection over float bits.

  keep is monotone (true for small t) and true at 0; the 31 steps visit every positive float32.
  """
  S = weights.shape[0]
  low = jnp.zeros((S, 1), jnp.int32)
  high = jax.lax.bitcast_convert_type(jnp.max(weights, axis=-1, keepdims=True), jnp.int32)

  def halve(_, bounds):
    low, high = bounds
    middle = low + (high - low + 1) // 2
    ok = keep(jax.lax.bitcast_convert_type(middle, jnp.float32))
    return jnp.where(ok, middle, low), jnp.where(ok, high, middle - 1)

  low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
  return jax.lax.bitcast_convert_type(low, jnp.float32)


def _keep_top_k(weights: jax.Array, k: jax.Array) -> jax.Array:
  """weights with all but the k largest of each row set to 0 (ties with the k-th stay)."""

  def enough(t: jax.Array) -> jax.Array:
    return jnp.sum((weights >= t).astype(jnp.int32), axis=-1, keepdims=True) >= k

  return jnp.where(weights >= _threshold(enough, weights), weights, 0.0)


def _keep_top_p(weights: jax.Array, p: jax.Array) -> jax.Array:
  """weights outside the nucleus set to 0: kept are those with less than p strictly above them."""
  total = jnp.sum(weights, axis=-1, keepdims=True)

  def outside(t: jax.Array) -> jax.Array:  # mass of weights >= t still reaches p
    return jnp.sum(jnp.where(weights >= t, weights, 0.0), axis=-1, keepdims=True) >= p * total

  return jnp.where(weights >= _threshold(outside, weights), weights, 0.0)


def _nucleus(
  weights: jax.Array, first: jax.Array, keys: jax.Array, p: jax.Array, active: jax.Array
) -> jax.Array:
  """Redraws the rows whose draw fell outside the nucleus; the accepted law is exactly top-p's."""
  total = jnp.sum(weights, axis=-1)

  def inside(token: jax.Array) -> jax.Array:
    own = jnp.take_along_axis(weights, token[:, None], axis=-1)
    above = jnp.sum(jnp.where(weights > own, weights, 0.0), axis=-1)
    return (above < p * total) | ~active

  def again(carry):
    trial, token, good = carry
    redrawn = _two_level(weights, _uniforms(_fold(keys, trial)))
    token = jnp.where(good, token, redrawn)
    return trial + 1, token, inside(token)

  def unfinished(carry):
    trial, _, good = carry
    return (trial <= TRIALS) & ~jnp.all(good)

  start = (jnp.int32(1), first, inside(first))
  _, token, good = jax.lax.while_loop(unfinished, again, start)

  def bisect():
    return _two_level(_keep_top_p(weights, p), _uniforms(_fold(keys, jnp.int32(TRIALS + 1))))

  return jnp.where(good, token, jax.lax.cond(jnp.all(good), lambda: token, bisect))


def _fold(keys: jax.Array, data: jax.Array) -> jax.Array:
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, data)


def _uniforms(keys: jax.Array) -> jax.Array:
  return jax.vmap(lambda k: jax.random.uniform(k, (2,)))(keys)


def draw(
  logits: jax.Array, keys: jax.Array, options: Options, active: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """A token i32[S] a row and its log-prob f32[S] under the full tempered distribution.

  logits f32[S,V]; keys [S] typed keys, one a row and position; active bool[S] (rows not active get
  some token and cost no redraw). Order: temperature, top-k, top-p. At temperature 0 the token is
  the first largest logit and the log-prob is the untempered one.
  """
  greedy = options.temperature == 0
  z = logits / jnp.where(greedy, 1.0, options.temperature)
  maximum = jnp.max(z, axis=-1, keepdims=True)
  weights = jnp.exp(z - maximum)
  log_z = maximum[:, 0] + jnp.log(jnp.sum(weights, axis=-1))

  def sampled() -> jax.Array:
    kept = jax.lax.cond(
      options.top_k > 0, lambda: _keep_top_k(weights, options.top_k), lambda: weights
    )
    token = _two_level(kept, _uniforms(keys))
    return jax.lax.cond(
      options.top_p < 1,
      lambda: _nucleus(kept, token, keys, options.top_p, active),
      lambda: token,
    )

  token = jax.lax.cond(greedy, lambda: jnp.argmax(z, axis=-1).astype(jnp.int32), sampled)
  picked = jnp.take_along_axis(z, token[:, None], axis=-1)[:, 0]
  return token, picked - log_z
