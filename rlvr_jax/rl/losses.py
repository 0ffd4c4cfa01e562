"""The policy-gradient core: ratio, surrogate, aggregation; functions of flat tokens.

dtype-generic (float32 in runs, float64 in tests). Masked entries never reach a result: `where`, not
multiplication, so that a NaN under the mask stays there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

RATIO_CLAMP = 20.0


class Denominators(NamedTuple):
  """Counts over the whole optimizer batch, taken before it is cut into micro-batches."""

  tokens: jax.Array  # f[] tokens under the mask
  sequences: jax.Array  # f[] rollouts with at least one such token
  longest: jax.Array  # f[] the constant of seq_mean_token_sum_norm


def denominators(mask: jax.Array, longest: int) -> Denominators:
  """mask bool[B,T] of the whole batch -> its counts (at least 1, so that no division fails)."""
  count = jnp.maximum(jnp.sum(mask), 1)
  sequences = jnp.maximum(jnp.sum(jnp.any(mask, axis=1)), 1)
  as_float = jnp.result_type(float)  # float64 where x64 is enabled
  return Denominators(
    count.astype(as_float), sequences.astype(as_float), jnp.asarray(longest, as_float)
  )


def surrogate(
  logprobs: jax.Array,
  old_logprobs: jax.Array,
  advantages: jax.Array,
  *,
  kind: str,
  clip_low: float,
  clip_high: float,
  dual_clip: float,
) -> tuple[jax.Array, jax.Array]:
  """Per-token loss f[N] (to be minimised) and whether clipping took the gradient away, bool[N].

  ppo_clip: -min(A rho, A clip(rho, 1-low, 1+high)) (Schulman et al. 2017, eq. 7), for A < 0 at most
  -A * dual_clip (Ye et al. 2020, eq. 5; 0 is off), log rho clamped to +-20. reinforce: -A log pi.
  nll: -log pi, whatever the advantage.
  """
  if kind == 'nll':
    return -logprobs, jnp.zeros_like(logprobs, bool)
  if kind == 'reinforce':
    return -advantages * logprobs, jnp.zeros_like(logprobs, bool)
  if kind != 'ppo_clip':
    raise ValueError(f'surrogate {kind!r}: known are ppo_clip, reinforce, nll')
  ratio = jnp.exp(jnp.clip(logprobs - old_logprobs, -RATIO_CLAMP, RATIO_CLAMP))
  free = -advantages * ratio
  clipped = -advantages * jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
  loss = jnp.maximum(free, clipped)
  cut = clipped > free
  if dual_clip:
    bound = -advantages * dual_clip
    negative = advantages < 0
    cut = cut | (negative & (loss > bound))
    loss = jnp.where(negative, jnp.minimum(loss, bound), loss)
  return loss, cut


def reduce(
  loss: jax.Array,
  mask: jax.Array,
  rollout: jax.Array,
  rollouts: int,
  mode: str,
  denominator: Denominators,
) -> jax.Array:
  """Aggregates per-token losses f[N]; the parts of a batch sum to the whole batch's value.

  token_mean: sum / tokens. seq_mean_token_mean: mean over rollouts of their token means.
  seq_mean_token_sum: mean over rollouts of their token sums. seq_mean_token_sum_norm: the same
  over a constant length (Dr.GRPO, Liu et al. 2025). rollout i32[N] in [0, rollouts).
  """
  loss = jnp.where(mask, loss, 0.0)
  if mode == 'token_mean':
    return jnp.sum(loss) / denominator.tokens.astype(loss.dtype)
  if mode == 'seq_mean_token_mean':
    lengths = jax.ops.segment_sum(mask.astype(loss.dtype), rollout, rollouts)
    sums = jax.ops.segment_sum(loss, rollout, rollouts)
    means = sums / jnp.maximum(lengths, 1)
    return jnp.sum(means) / denominator.sequences.astype(loss.dtype)
  total = jnp.sum(loss) / denominator.sequences.astype(loss.dtype)
  if mode == 'seq_mean_token_sum':
    return total
  if mode == 'seq_mean_token_sum_norm':
    return total / denominator.longest.astype(loss.dtype)
  raise ValueError(
    f'train.aggregation={mode!r}: known are token_mean, seq_mean_token_mean, seq_mean_token_sum, '
    'seq_mean_token_sum_norm'
  )
