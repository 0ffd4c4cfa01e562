"""A vocabulary in blocks of 384, on one device or in slices over a mesh axis.

The partition is the same however the vocabulary is sliced, so a slice may begin and end within a
block. Devices exchange block sums and single blocks, never logits.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

BLOCK = 384  # elements a block: about 400 blocks at V = 152k


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Logits f32[S,V] seen as blocks.

  With axis, the name of a mesh axis of n devices inside shard_map, logits is the device's own
  contiguous slice f32[S,V/n]; everything returned is the same on all n.
  """

  logits: jax.Array
  axis: str | None = None

  @property
  def size(self) -> int:
    """V, over all devices."""
    local = self.logits.shape[1]
    return local if self.axis is None else local * lax.axis_size(self.axis)

  @property
  def width(self) -> int:
    """Elements of a block; fewer than BLOCK only if the vocabulary is smaller."""
    return min(BLOCK, self.size)

  @property
  def count(self) -> int:
    """Blocks of the whole vocabulary."""
    return -(-self.size // self.width)

  @property
  def begin(self) -> jax.Array | int:
    """Index of this device's first element."""
    return 0 if self.axis is None else lax.axis_index(self.axis) * self.logits.shape[1]

  def maxima(self) -> jax.Array:
    """The largest logit of each block, f32[S,count]."""
    if self.axis is None:
      return _windows(self.logits, self.width, lax.max, -jnp.inf)
    return lax.pmax(self._place(self.logits, lax.max, -jnp.inf), self.axis)

  def sums(self, term: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The sum of term(logits) over each block, f32[S,count]; term is elementwise.

    One pass that writes nothing of size V, provided it stands alone in its computation (the branch
    of a cond, the body of a loop): XLA writes out what two passes share.
    """
    if self.axis is None:
      return _windows(term(self.logits), self.width, lax.add, 0.0)
    return lax.psum(self._place(term(self.logits), lax.add, 0.0), self.axis)

  def total(self, term: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The sum of term(logits) over the vocabulary, f32[S]; as sums, but exchanging scalars."""
    total = jnp.sum(_windows(term(self.logits), self.width, lax.add, 0.0), axis=-1)
    return total if self.axis is None else lax.psum(total, self.axis)

  def fetch(self, block: jax.Array) -> jax.Array:
    """Logits f32[S,width] of one block i32[S] a row, -inf behind the end of the vocabulary."""
    index = block[:, None] * self.width + jnp.arange(self.width, dtype=jnp.int32)
    return jnp.where(index < self.size, self._at(index), -jnp.inf)

  def at(self, token: jax.Array) -> jax.Array:
    """The logit f32[S] of one token i32[S] a row."""
    return self._at(token[:, None])[:, 0]

  def _at(self, index: jax.Array) -> jax.Array:
    """Logits at index i32[S,m]; anything where it is out of range."""
    local = self.logits.shape[1]
    own = index - self.begin
    picked = jnp.take_along_axis(self.logits, jnp.clip(own, 0, local - 1), axis=1)
    if self.axis is None:
      return picked
    return lax.psum(jnp.where((own >= 0) & (own < local), picked, 0.0), self.axis)

  def _place(self, x: jax.Array, combine: Callable, neutral: float) -> jax.Array:
    """This device's part x [S,V/n] combined by block, at its place in [S,count]."""
    S, local = x.shape
    touched = (local + self.width - 2) // self.width + 1  # blocks, wherever the slice begins
    aligned = jnp.full((S, touched * self.width), neutral, x.dtype)
    aligned = lax.dynamic_update_slice(aligned, x, (0, self.begin % self.width))
    parts = _windows(aligned, self.width, combine, neutral)
    whole = jnp.full((S, self.count + touched), neutral, x.dtype)
    placed = lax.dynamic_update_slice(whole, parts, (0, self.begin // self.width))
    return placed[:, : self.count]


def _windows(x: jax.Array, width: int, combine: Callable, neutral: float) -> jax.Array:
  """x [S,N] combined over windows of width: [S,ceil(N/width)]."""

  def by(way: Callable) -> Callable[[jax.Array], jax.Array]:
    return lambda x: way(x, width, combine, neutral)

  # for a reshape XLA's CPU backend copies the array to pad it, others fuse that; a window it fuses
  return lax.platform_dependent(x, cpu=by(_by_window), default=by(_by_shape))


def _by_window(x: jax.Array, width: int, combine: Callable, neutral: float) -> jax.Array:
  start = jnp.asarray(neutral, x.dtype)
  padding = ((0, 0), (0, -x.shape[1] % width))
  return lax.reduce_window(x, start, combine, (1, width), (1, width), padding)


def _by_shape(x: jax.Array, width: int, combine: Callable, neutral: float) -> jax.Array:
  x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % width)), constant_values=neutral)
  return lax.reduce(x.reshape(len(x), -1, width), jnp.asarray(neutral, x.dtype), combine, (2,))
