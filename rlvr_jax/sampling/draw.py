"""Drawing a token per row: two-level inverse CDF, nucleus by rejection, top-k by bisection.

No sort over V, and nothing of size V is written. A row's token depends on its logits and its own
uniforms only, never on its neighbours. Two levels (block, then element) because a one-level float32
CDF over a large vocabulary cannot represent small probabilities and flips tokens at its many
boundaries.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlvr_jax.sampling.blocks import Blocks

TRIALS = 16  # nucleus redraws before bisection takes over
DEPTH = 88.0  # nats below the largest logit at which a float32 weight is 0


class Options(NamedTuple):
  """Sampling settings as traced scalars, so that changing one recompiles nothing."""

  temperature: jax.Array  # f32[]; 0 is greedy
  top_p: jax.Array  # f32[]; 1 is off
  top_k: jax.Array  # i32[]; 0 is off


class Drawn(NamedTuple):
  """A token a row and what was asked to be known of it; log-probs and entropy in nats."""

  token: jax.Array  # i32[S]
  logprob: jax.Array  # f32[S] of the full tempered distribution
  truncated_logprob: jax.Array | None = None  # f32[S] of the one left by top-k and top-p
  entropy: jax.Array | None = None  # f32[S] of the full tempered distribution


@dataclasses.dataclass(frozen=True)
class _Tempered:
  """Rows of logits as unnormalised probabilities, exp((logit - maximum) / temperature)."""

  rows: Blocks
  temperature: jax.Array  # f32[]
  maximum: jax.Array  # f32[S,1]

  def scaled(self, logits: jax.Array) -> jax.Array:
    """Logarithm of the weight of logits f32[S,m]."""
    return logits / self.temperature - self.maximum / self.temperature

  def weight(self, logits: jax.Array) -> jax.Array:
    """In [0,1]; 0 where the logit is more than DEPTH temperatures below the maximum."""
    return jnp.exp(self.scaled(logits))

  def above(self, logits: jax.Array, edge: jax.Array) -> jax.Array:
    """The weight where logits > edge f32[S,1], else 0."""
    # with the maximum, also the exponential depends on the edge: a loop over edges would otherwise
    # compute it for the whole vocabulary ahead of the loop, and write it
    return self.weight(jnp.maximum(logits, edge)) * _step(logits, edge)

  def mass_above(self, edge: jax.Array) -> jax.Array:
    """The sum f32[S] of weights above edge f32[S,1]."""
    return self.rows.total(lambda z: self.above(z, edge))

  def count_above(self, edge: jax.Array) -> jax.Array:
    """How many logits f32[S] are above edge f32[S,1]; exact below 2^24."""
    return self.rows.total(lambda z: _step(z, edge))


def _step(logits: jax.Array, edge: jax.Array) -> jax.Array:
  """1 where logits > edge, else 0, in arithmetic that XLA's CPU reductions fuse (no select)."""
  excess = jnp.maximum(logits, edge) - edge
  return excess / (excess + jnp.finfo(logits.dtype).tiny)


def _pick(w: jax.Array, u: jax.Array) -> jax.Array:
  """Position i32[S] in w f32[S,n] >= 0 by inverting its CDF at u f32[S] in [0,1).

  Zero weights are never taken: a position is taken only when the running sum passes the target by
  its own weight.
  """
  running = jnp.cumsum(w, axis=-1)
  target = u[:, None] * running[:, -1:]
  index = jnp.broadcast_to(jnp.arange(w.shape[-1], dtype=jnp.int32), w.shape)
  positive = w > 0
  # the first crossing, not a count: a parallel cumsum may fall by a rounding at a zero weight
  first = jnp.min(jnp.where(positive & (running > target), index, w.shape[-1]), axis=-1)
  # u * total can round up to total itself: then the last position with any weight
  last = jnp.max(jnp.where(positive, index, 0), axis=-1)
  return jnp.minimum(first, last)


def _two_level(
  sums: jax.Array, fetch: Callable[[jax.Array], jax.Array], uniforms: jax.Array
) -> jax.Array:
  """Index i32[S] drawn in proportion to weights, by block and then by element.

  sums f32[S,blocks] of the weights, fetch(block i32[S]) -> weights f32[S,width] of one block a row;
  uniforms f32[S,2] in [0,1): the block, then the element in the block.
  """
  block = _pick(sums, uniforms[:, 0])
  inside = fetch(block)
  return block * inside.shape[-1] + _pick(inside, uniforms[:, 1])


def _edge(
  tempered: _Tempered, measure: Callable[[jax.Array], jax.Array], least: jax.Array
) -> jax.Array:
  """Edge f32[S,1]: the logits above it measure at least `least` f32[S], and no fewer of them do.

  measure(edge) f32[S] falls as the edge rises. By bisection from the maximum down, to where weights
  are 0 (there if all that weighs anything measures too little); logits whose weights float32
  cannot tell apart count as tied, and ties stay together.
  """
  high = tempered.maximum
  low = high - DEPTH * tempered.temperature

  def halves(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
    middle = low + (high - low) / 2
    wide = high - low > jnp.finfo(jnp.float32).epsneg * tempered.temperature
    return middle, wide & (low < middle) & (middle < high)

  def halve(bounds):
    low, high = bounds
    middle, unsettled = halves(low, high)
    excess = (measure(middle) - least)[:, None]
    # after an exact hit both bounds meet
    return (
      jnp.where(unsettled & (excess >= 0), middle, low),
      jnp.where(unsettled & (excess <= 0), middle, high),
    )

  low, _ = jax.lax.while_loop(lambda bounds: jnp.any(halves(*bounds)[1]), halve, (low, high))
  return low


def _top_k_edge(tempered: _Tempered, k: jax.Array) -> jax.Array:
  """f32[S,1] above which lie the k largest logits of each row, and ties with the k-th."""
  least = jnp.broadcast_to(k.astype(jnp.float32), tempered.maximum.shape[:1])
  return _edge(tempered, tempered.count_above, least)


def _top_p_edge(tempered: _Tempered, least: jax.Array) -> jax.Array:
  """f32[S,1] above which lies the nucleus: logits with less weight above them than f32[S]."""
  return _edge(tempered, tempered.mass_above, least)


def _nucleus(
  tempered: _Tempered,
  first: jax.Array,
  redraw: Callable[[jax.Array], jax.Array],
  mass: jax.Array,
  p: jax.Array,
  settled: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Redraws rows whose token is outside the nucleus; the accepted law is exactly top-p's.

  first i32[S], redraw(trial i32[]) -> i32[S] from weights of f32[S] mass in all. Rows settled
  bool[S] keep what they have. Returns tokens and which rows are settled after TRIALS redraws.
  """

  def inside(token: jax.Array, settled: jax.Array) -> jax.Array:
    logit = tempered.rows.at(token)[:, None]
    # the weight above a token is at most all but its own: most rows need no look at the rest
    settled |= tempered.weight(logit)[:, 0] > (1 - p) * mass
    above = jax.lax.cond(
      jnp.all(settled), lambda: jnp.zeros_like(mass), lambda: tempered.mass_above(logit)
    )
    return settled | (above < p * mass)

  def again(carry):
    trial, token, settled = carry
    token = jnp.where(settled, token, redraw(trial))
    return trial + 1, token, inside(token, settled)

  def unfinished(carry):
    trial, _, settled = carry
    return (trial <= TRIALS) & ~jnp.all(settled)

  carry = (jnp.int32(1), first, inside(first, settled))
  _, token, settled = jax.lax.while_loop(unfinished, again, carry)
  return token, settled


def _fold(keys: jax.Array, data: jax.Array) -> jax.Array:
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, data)


def _uniforms(keys: jax.Array) -> jax.Array:
  return jax.vmap(lambda k: jax.random.uniform(k, (2,)))(keys)


class _Kept(NamedTuple):
  """What top-k and top-p leave: the logits above an edge."""

  edge: jax.Array  # f32[S,1]
  sums: jax.Array  # f32[S,blocks] of their weights


def _from(tempered: _Tempered, kept: _Kept, keys: jax.Array) -> jax.Array:
  """Tokens i32[S] drawn from what is kept."""

  def fetch(block: jax.Array) -> jax.Array:
    logits = tempered.rows.fetch(block)
    return jnp.where(logits > kept.edge, tempered.weight(logits), 0.0)

  return _two_level(kept.sums, fetch, _uniforms(keys))


def _narrowed(tempered: _Tempered, edge: jax.Array) -> _Kept:
  return _Kept(edge, tempered.rows.sums(lambda z: tempered.above(z, edge)))


def _sample(
  tempered: _Tempered,
  everything: _Kept,
  keys: jax.Array,
  options: Options,
  settled: jax.Array,
  truncated: bool,
) -> tuple[jax.Array, _Kept]:
  """Token i32[S] and what it was drawn from: after top-k, with truncated after top-p too."""
  kept = jax.lax.cond(
    options.top_k > 0,
    lambda: _narrowed(tempered, _top_k_edge(tempered, options.top_k)),
    lambda: everything,
  )
  token = _from(tempered, kept, keys)

  def top_p() -> tuple[jax.Array, _Kept]:
    mass = jnp.sum(kept.sums, axis=-1)

    def redraw(trial: jax.Array) -> jax.Array:
      return _from(tempered, kept, _fold(keys, trial))

    inside, good = _nucleus(tempered, token, redraw, mass, options.top_p, settled)

    def bisect() -> tuple[jax.Array, _Kept]:
      edge = _top_p_edge(tempered, options.top_p * mass)
      nucleus = _narrowed(tempered, jnp.maximum(edge, kept.edge))
      again = _from(tempered, nucleus, _fold(keys, jnp.int32(TRIALS + 1)))
      return jnp.where(good, inside, again), nucleus

    return bisect() if truncated else jax.lax.cond(jnp.all(good), lambda: (inside, kept), bisect)

  return jax.lax.cond(options.top_p < 1, top_p, lambda: (token, kept))


def _entropy(tempered: _Tempered, total: jax.Array, active: jax.Array) -> jax.Array:
  """Entropy f32[S] (nats) of the weights, f32[S] in total; 0 where not active."""

  def term(logits: jax.Array) -> jax.Array:
    # finite where the weight is 0, so that their product is 0
    return tempered.scaled(jnp.maximum(logits, -1e30)) * tempered.weight(logits)

  # in a cond the pass stands alone in its computation, as Blocks.sums asks
  sums = jax.lax.cond(
    jnp.any(active), lambda: tempered.rows.total(term), lambda: jnp.zeros_like(total)
  )
  return jnp.where(active, jnp.log(total) - sums / total, 0.0)


def draw(
  logits: jax.Array,
  keys: jax.Array,
  options: Options,
  active: jax.Array,
  *,
  forced: jax.Array | None = None,
  axis: str | None = None,
  entropy: bool = False,
  truncated: bool = False,
) -> Drawn:
  """A token a row with its log-prob, and on request more of the distribution it came from.

  logits f32[S,V]; keys [S] typed keys, one a row and position; active bool[S] (rows not active get
  some token and cost no redraw). Order: temperature, top-k, top-p. At temperature 0 the token is
  the first largest logit, and log-probs and entropy are the untempered distribution's.

  Args:
    forced: i32[S]; a token >= 0 is taken, with its log-probs, instead of drawing.
    axis: a mesh axis of n devices inside shard_map; logits is then this device's contiguous slice
      f32[S,V/n], everything else and the result the same on all n.
    entropy: whether to compute the entropy of the full tempered distribution (another pass).
    truncated: whether to compute the log-prob in the distribution that top-k and top-p leave, -inf
      for a forced token outside of it. With top_p below 1 this bisects for every draw.
  """
  rows = Blocks(logits, axis)
  greedy = options.temperature == 0
  maxima = rows.maxima()
  maximum = jnp.max(maxima, axis=-1, keepdims=True)
  tempered = _Tempered(rows, jnp.where(greedy, 1.0, options.temperature), maximum)
  everything = _Kept(jnp.full_like(maximum, -jnp.inf), rows.sums(tempered.weight))
  settled = ~active if forced is None else ~active | (forced >= 0)

  def first_largest() -> tuple[jax.Array, _Kept]:
    block = jnp.argmax(maxima, axis=-1).astype(jnp.int32)
    inside = jnp.argmax(rows.fetch(block), axis=-1).astype(jnp.int32)
    return block * rows.width + inside, everything

  token, kept = jax.lax.cond(
    greedy,
    first_largest,
    lambda: _sample(tempered, everything, keys, options, settled, truncated),
  )
  if forced is not None:
    token = jnp.where(forced >= 0, forced, token)
  logit = rows.at(token)[:, None]
  scaled = tempered.scaled(logit)[:, 0]
  total = jnp.sum(everything.sums, axis=-1)
  truncated_logprob = None
  if truncated:
    truncated_logprob = scaled - jnp.log(jnp.sum(kept.sums, axis=-1))
    if forced is not None:  # what was drawn is inside, whatever a rounding at the edge says
      outside = (forced >= 0) & (logit <= kept.edge)[:, 0]
      truncated_logprob = jnp.where(outside, -jnp.inf, truncated_logprob)
  return Drawn(
    token,
    scaled - jnp.log(total),
    truncated_logprob,
    _entropy(tempered, total, active) if entropy else None,
  )
