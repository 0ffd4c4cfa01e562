"""The head: log-probs and entropy from hidden states; [B,T,V] never exists at once.

Where there are more tokens than `chunk`, logits are made for all tokens and a part of the
vocabulary at a time. The backward pass makes them again and writes each part of the head's gradient
to its place; chunks of tokens would add to the whole of it chunk after chunk instead. A part takes
the same rows of each of STRIPS equal strips of the head: on a mesh, where `tensor` splits the
vocabulary, every device has its share of every part, and only sums over the vocabulary cross
devices.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.layers import wide
from rlvr_jax.models.transformer import Params, forward
from rlvr_jax.models.vision import Images
from rlvr_jax.sharding import ROWS, constrain, row_parts

STRIPS = 16  # where they divide V; a `tensor` axis that divides them splits the strips
LANES = 128  # rows a strip of a part: a multiple of this, if that many
BLOCK = 8  # neighbours summed first on a CPU


class _Part(NamedTuple):
  """Rows [start, start + size) of every strip."""

  head: jax.Array  # [v,D]
  start: jax.Array | int
  size: int
  columns: jax.Array  # i32[v] their indices in the vocabulary


class _Sums(NamedTuple):
  """What a softmax over some of the vocabulary leaves, f[N] each; z: logits / temperature."""

  maximum: jax.Array  # of z
  total: jax.Array  # sum of exp(z - maximum)
  moment: jax.Array  # sum of exp(z - maximum) * (z - maximum)
  picked: jax.Array  # z of the target; 0 if it is elsewhere


class _Saved(NamedTuple):
  """What the backward pass needs; z only where it was made at once."""

  head: jax.Array  # [V,D]
  hidden: jax.Array  # [N,D]
  targets: jax.Array  # i32[N]
  temperature: jax.Array  # f[]
  log_z: jax.Array  # f[N]
  entropy: jax.Array  # f[N]
  z: jax.Array | None  # f[N,V]


def _head(params: Params) -> jax.Array:
  return params['head'] if 'head' in params else params['embed']


def _product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """Einsum accumulated and given in float32 (or float64)."""
  dtype = wide(a.dtype)
  precision = jax.lax.Precision.HIGHEST if a.dtype == dtype else jax.lax.Precision.DEFAULT
  return jnp.einsum(spec, a, b, precision=precision, preferred_element_type=dtype)


def logits(params: Params, hidden: jax.Array) -> jax.Array:
  """Logits f32[...,V] for hidden [...,D], accumulated in float32 (or float64)."""
  with jax.named_scope('head'):
    return _product('...D,VD->...V', hidden, _head(params))


def token_logprobs(
  params: Params,
  hidden: jax.Array,
  targets: jax.Array,
  *,
  temperature: jax.Array | float = 1.0,
  chunk: int = 1024,
  mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
  """log softmax(logits / temperature)[target] and the entropy of that distribution (nats).

  hidden [N,D], targets i32[N] -> f32[N], f32[N]. About chunk * V logits exist at once at most. Up
  to `chunk` tokens keep theirs for the backward pass, more have them made again. temperature is a
  constant: no gradient flows to it. mesh: tokens are split over its data and fsdp axes, and chunk
  is that of one device.
  """
  devices = row_parts(mesh)
  parts = max(1, -(-hidden.shape[0] // max(1, chunk * devices)))
  hidden = constrain(hidden, mesh, ROWS) if hidden.shape[0] % devices == 0 else hidden
  temperature = jax.lax.stop_gradient(jnp.asarray(temperature, wide(hidden.dtype)))
  return _token_logprobs(parts, mesh, _head(params), hidden, targets, temperature)


@jax.named_scope('head')
def _forward(
  parts: int,
  mesh: Mesh | None,
  head: jax.Array,
  hidden: jax.Array,
  targets: jax.Array,
  temperature: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], _Saved]:
  z = None
  if parts == 1:
    whole = _whole(head)
    z = _product('ND,VD->NV', hidden, whole.head) / temperature
    sums = _sum_up(z, targets, whole)
  else:

    def visit(sums: _Sums, part: _Part) -> _Sums:
      z = _product('ND,VD->NV', hidden, part.head) / temperature
      return _merge(sums, _sum_up(z, targets, part))

    zero = jnp.zeros(hidden.shape[:1], temperature.dtype)
    # the least finite number, not -inf: its distance to another is a number
    lowest = jnp.full_like(zero, jnp.finfo(zero.dtype).min)
    sums = _fold(visit, _Sums(lowest, zero, zero, zero), head, parts, mesh)
  log_total = jnp.log(sums.total)
  log_z = sums.maximum + log_total
  entropy = log_total - sums.moment / sums.total
  saved = _Saved(head, hidden, targets, temperature, log_z, entropy, z)
  return (sums.picked - log_z, entropy), saved


@jax.named_scope('head')
def _backward(
  parts: int, mesh: Mesh | None, saved: _Saved, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array | None, ...]:
  """d logprob / dz = onehot - p and d entropy / dz = -p (log p + entropy), p = softmax(z)."""
  head, hidden, targets, temperature, log_z, entropy, kept = saved
  by_logprob, by_entropy = (x[:, None] for x in cotangents)

  def slopes(z: jax.Array, part: _Part) -> jax.Array:
    log_p = z - log_z[:, None]
    here = jnp.where(part.columns == targets[:, None], by_logprob, 0.0)
    spread = jnp.exp(log_p) * (by_logprob + by_entropy * (log_p + entropy[:, None]))
    return ((here - spread) / temperature).astype(hidden.dtype)

  if kept is not None:
    dz = slopes(kept, _whole(head))
    d_head = _product('NV,ND->VD', dz, hidden)
    d_hidden = _product('NV,VD->ND', dz, head)
    return d_head.astype(head.dtype), d_hidden.astype(hidden.dtype), None, None

  def visit(carry: tuple[jax.Array, jax.Array], part: _Part) -> tuple[jax.Array, jax.Array]:
    d_hidden, d_strips = carry
    dz = slopes(_product('ND,VD->NV', hidden, part.head) / temperature, part)
    d_hidden += _product('NV,VD->ND', dz, part.head)
    rows = _product('NV,ND->VD', dz, hidden).astype(head.dtype)
    rows = rows.reshape(d_strips.shape[0], part.size, -1)
    return d_hidden, jax.lax.dynamic_update_slice_in_dim(d_strips, rows, part.start, axis=1)

  start = jnp.zeros(hidden.shape, temperature.dtype), jnp.zeros_like(_strips(head))
  d_hidden, d_strips = _fold(visit, start, head, parts, mesh)
  return d_strips.reshape(head.shape), d_hidden.astype(hidden.dtype), None, None


def _values(parts: int, mesh: Mesh | None, *args: jax.Array) -> tuple[jax.Array, jax.Array]:
  return _forward(parts, mesh, *args)[0]


_token_logprobs = jax.custom_vjp(_values, nondiff_argnums=(0, 1))
_token_logprobs.defvjp(_forward, _backward)


def _strips(head: jax.Array) -> jax.Array:
  V, D = head.shape
  strips = math.gcd(V, STRIPS)
  return head.reshape(strips, V // strips, D)


def _whole(head: jax.Array) -> _Part:
  V = head.shape[0]
  return _Part(head, 0, V // math.gcd(V, STRIPS), jnp.arange(V, dtype=jnp.int32))


def _fold(
  visit: Callable[[Any, _Part], Any],
  carry: Any,
  head: jax.Array,
  parts: int,
  mesh: Mesh | None,
) -> Any:
  """visit(carry, part) over about `parts` parts that cover the head [V,D] once."""
  strips = _strips(head)
  S, rows, D = strips.shape
  size = max(1, rows // parts)
  step = LANES if size >= LANES else min(BLOCK, size)
  size -= size % step

  def at(carry: Any, start: jax.Array | int, size: int) -> Any:
    part = jax.lax.dynamic_slice_in_dim(strips, start, size, axis=1)
    if mesh is not None and S % mesh.shape['tensor'] == 0:
      # each part is gathered over fsdp in its turn, tokens are not; without the first of the two
      # the compiler gathers the whole head ahead of the loop
      part = constrain(part, mesh, 'tensor', None, 'fsdp')
      part = constrain(part, mesh, 'tensor')
    part = part.reshape(S * size, D)
    offsets = start + jnp.arange(size, dtype=jnp.int32)
    columns = rows * jnp.arange(S, dtype=jnp.int32)[:, None] + offsets
    return visit(carry, _Part(part, start, size, columns.reshape(-1)))

  # the rest comes first: after the loop, what it carries would be copied
  if rest := rows % size:
    carry = at(carry, rows - rest, rest)
  return jax.lax.fori_loop(0, rows // size, lambda i, c: at(c, i * size, size), carry)


def _sum_up(z: jax.Array, targets: jax.Array, part: _Part) -> _Sums:
  """The sums over the part's tempered logits z [N,v]."""
  maximum = jnp.max(z, axis=-1)
  # float32 summed number after number is wrong by 3e-4 over V = 152k: strip by strip, on a CPU also
  # block by block, which it does five times faster
  strips = z.shape[1] // part.size
  block = math.gcd(part.size, BLOCK)

  def add_up(z: jax.Array, maximum: jax.Array, block: int) -> tuple[jax.Array, ...]:
    shape = z.shape[0], strips, part.size // block, block
    z, columns = z.reshape(shape), part.columns.reshape(1, *shape[1:])
    away = z - maximum[:, None, None, None]
    weight = jnp.exp(away)
    # a sum over a mask instead of a gather: the same program works over a sharded vocabulary
    picked = jnp.where(columns == targets[:, None, None, None], z, 0.0)
    terms = weight, weight * away, picked
    sums = jax.lax.reduce(terms, (jnp.zeros((), z.dtype),) * 3, _add, (3,))
    return tuple(jnp.sum(x, axis=(1, 2)) for x in sums)

  by_platform = {
    'cpu': functools.partial(add_up, block=block),
    'default': functools.partial(add_up, block=part.size),
  }
  return _Sums(maximum, *jax.lax.platform_dependent(z, maximum, **by_platform))


def _add(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
  return tuple(x + y for x, y in zip(a, b, strict=True))


def _merge(a: _Sums, b: _Sums) -> _Sums:
  """The sums over both."""
  maximum = jnp.maximum(a.maximum, b.maximum)
  total = moment = jnp.zeros_like(maximum)
  for sums in (a, b):
    shift = sums.maximum - maximum
    scale = jnp.exp(shift)
    total += scale * sums.total
    moment += scale * (sums.moment + shift * sums.total)
  return _Sums(maximum, total, moment, a.picked + b.picked)


def sequence_logprobs(
  params: Params,
  tokens: jax.Array,
  *,
  config: ModelConfig,
  positions: jax.Array | None = None,
  segments: jax.Array | None = None,
  temperature: jax.Array | float = 1.0,
  remat: str | bool = 'none',
  chunk: int = 1024,
  mesh: Mesh | None = None,
  images: Images | None = None,
) -> tuple[jax.Array, jax.Array]:
  """log p(tokens[:, t] | tokens[:, :t]) and the entropy there, f32[B,T] each (nats).

  The project's alignment: an entry describes the token at its own index; column 0, and the first
  token of every further segment, is 0 and has to be masked by the caller like prompt and padding.
  """
  B, T = tokens.shape
  if positions is None:
    positions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  hidden, _ = forward(
    params,
    tokens,
    positions,
    config=config,
    segments=segments,
    remat=remat,
    mesh=mesh,
    images=images,
  )
  predicted = token_logprobs(
    params,
    hidden[:, :-1].reshape(B * (T - 1), hidden.shape[-1]),
    tokens[:, 1:].reshape(-1),
    temperature=temperature,
    chunk=chunk,
    mesh=mesh,
  )
  follows = jnp.ones((B, T - 1), bool)
  if segments is not None:
    follows = segments[:, 1:] == segments[:, :-1]

  def align(x: jax.Array) -> jax.Array:
    return jnp.pad(jnp.where(follows, x.reshape(B, T - 1), 0.0), ((0, 0), (1, 0)))

  return align(predicted[0]), align(predicted[1])
