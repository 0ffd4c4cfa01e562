"""From rewards to advantages: group statistics, baselines, scales. Group ids, no fixed size."""

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

  def std(self, ddof: int) -> jax.Array:
    """Standard deviation [P]; 0 where the count does not exceed ddof."""
    free = self.count - ddof
    return jnp.sqrt(jnp.where(free > 0, self.squares / jnp.maximum(free, 1), 0.0))


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


def baseline(x: jax.Array, stats: GroupStats, group: jax.Array, kind: str) -> jax.Array:
  """What is subtracted from each entry, f[B]: none | group_mean | loo (mean of the others)."""
  if kind == 'none':
    return jnp.zeros_like(x)
  mean, count = stats.mean[group], stats.count[group]
  if kind == 'group_mean':
    return mean
  if kind == 'loo':
    others = (count * mean - x) / jnp.maximum(count - 1, 1)
    return jnp.where(count > 1, others, 0.0)
  raise ValueError(f'baseline {kind!r}: known are none, group_mean, loo')


def scale(stats: GroupStats, group: jax.Array, kind: str, *, ddof: int, eps: float) -> jax.Array:
  """What each entry is divided by, f[B]: none | group_std (std with `ddof`, plus eps).

  Where the count does not exceed ddof there is no deviation to divide by, and it is 1.
  """
  if kind == 'none':
    return jnp.ones_like(stats.mean[group])
  if kind == 'group_std':
    return jnp.where(stats.count > ddof, stats.std(ddof) + eps, 1.0)[group]
  raise ValueError(f'scale {kind!r}: known are none, group_std')


def group_advantages(
  rewards: jax.Array,
  group: jax.Array,
  valid: jax.Array,
  *,
  groups: int,
  baseline_kind: str = 'group_mean',
  scale_kind: str = 'group_std',
  ddof: int = 1,
  eps: float = 1e-6,
) -> jax.Array:
  """One advantage a rollout, f[B]; GRPO's with the defaults (Shao et al. 2024, eq. 4; verl's ddof).

  A group whose rewards are all equal gets exactly 0 whatever rounding leaves of its deviation (with
  a mean or leave-one-out baseline); so does a group of one with a mean baseline. Rows that are not
  valid get 0.
  """
  stats = group_stats(rewards, group, valid, groups)
  centred = rewards - baseline(rewards, stats, group, baseline_kind)
  advantages = centred / scale(stats, group, scale_kind, ddof=ddof, eps=eps)
  if baseline_kind != 'none':
    constant = (stats.largest == stats.smallest)[group]
    single = stats.count[group] == 1
    flat = constant & ~single if baseline_kind == 'loo' else constant
    advantages = jnp.where(flat, 0.0, advantages)
  return jnp.where(valid, advantages, 0.0)
