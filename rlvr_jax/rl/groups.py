"""Statistics within groups of rollouts. Group ids, no fixed size."""

import flax.struct
import jax
import jax.numpy as jnp


class GroupStats(flax.struct.PyTreeNode):
  """Per group [P]: count, mean, sum of squared deviations, largest and smallest."""

  count: jax.Array
  mean: jax.Array
  squares: jax.Array
  largest: jax.Array
  smallest: jax.Array

  @property
  def sum(self) -> jax.Array:
    """Sum of the entries [P]."""
    return self.count * self.mean

  def var(self, ddof: int) -> jax.Array:
    """Variance [P]; 0 where the count does not exceed ddof."""
    free = self.count - ddof
    return jnp.where(free > 0, self.squares / jnp.maximum(free, 1), 0.0)

  def std(self, ddof: int) -> jax.Array:
    """Standard deviation [P]; 0 where the count does not exceed ddof."""
    return jnp.sqrt(self.var(ddof))


def group_stats(x: jax.Array, group: jax.Array, valid: jax.Array, groups: int) -> GroupStats:
  """Statistics of x f[B] over group i32[B] in [0, groups), counting valid bool[B] entries only.

  Deviations are summed after the mean is known (two passes): no cancellation.
  """
  weight = valid.astype(x.dtype)

  def total(values: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(jnp.where(valid, values, 0), group, groups)

  count = total(weight)
  mean = total(x) / jnp.maximum(count, 1)
  largest = jax.ops.segment_max(jnp.where(valid, x, -jnp.inf), group, groups)
  smallest = jax.ops.segment_min(jnp.where(valid, x, jnp.inf), group, groups)
  return GroupStats(count, mean, total(jnp.square(x - mean[group])), largest, smallest)


def places(
  x: jax.Array, group: jax.Array, counted: jax.Array, groups: int
) -> tuple[jax.Array, jax.Array]:
  """Of each entry of x [B], how many counted ones of its group are below it, and how many equal it.

  i32[B] each, itself among the latter; 0 for those that are not counted (bool[B]). group i32[B] in
  [0, groups). By one sort, so that no [B,B] exists.
  """
  n = x.shape[0]
  own = jnp.where(counted, group, groups)
  order = jnp.lexsort((x, own))
  own, x = own[order], x[order]
  place = jnp.arange(n, dtype=jnp.int32)
  first = jnp.ones(1, bool)
  begins = jnp.concatenate([first, (own[1:] != own[:-1]) | (x[1:] != x[:-1])])
  run = jnp.cumsum(begins, dtype=jnp.int32) - 1  # entries of one group with one value
  equal = jax.ops.segment_sum(jnp.ones_like(place), run, n)[run]
  start = jax.ops.segment_min(place, run, n)[run]
  below = start - jax.ops.segment_min(place, own, groups + 1)[own]
  back = jnp.zeros_like(place).at[order].set(place)
  return jnp.where(counted, below[back], 0), jnp.where(counted, equal[back], 0)


def pool(stats: GroupStats) -> GroupStats:
  """The statistics of all groups taken as one, each field [1]."""
  count = jnp.sum(stats.count)
  mean = jnp.sum(stats.sum) / jnp.maximum(count, 1)
  between = stats.count * jnp.square(stats.mean - mean)
  squares = jnp.sum(stats.squares) + jnp.sum(between)
  fields = (count, mean, squares, jnp.max(stats.largest), jnp.min(stats.smallest))
  return GroupStats(*(x[None] for x in fields))
