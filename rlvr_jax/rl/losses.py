"""The policy-gradient core: ratio, surrogate, aggregation; functions of flat tokens.

dtype-generic (float32 in runs, float64 in tests). Masked entries never reach a result: `where`, not
multiplication, so that a NaN under the mask stays there. rollout i32[N] in [0, rollouts) says whose
token it is; a rollout is never cut, so what is summed over one is whole in any micro-batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlvr_jax.rl.algorithms import AGGREGATIONS, RATIOS, SURROGATES

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


def rollout_mean(x: jax.Array, mask: jax.Array, rollout: jax.Array, rollouts: int) -> jax.Array:
  """Mean of x f[N] over each rollout's tokens under the mask, f[rollouts]; 0 without any."""
  total = jax.ops.segment_sum(jnp.where(mask, x, 0.0), rollout, rollouts)
  return total / jnp.maximum(jax.ops.segment_sum(mask.astype(x.dtype), rollout, rollouts), 1)


def log_ratio(
  logprobs: jax.Array,
  old_logprobs: jax.Array,
  mask: jax.Array,
  level: str,
  *,
  rollout: jax.Array,
  rollouts: int,
) -> jax.Array:
  """log of the importance ratio of each token, f[N]; not clamped, 0 outside the mask.

  token: log pi - log pi_old. seq_mean: its mean over the rollout (GSPO, Zheng et al. 2025, eq. 7).
  seq_sum: its sum, the ratio of whole completions. seq_mean_token_grad: the value of seq_mean with
  the gradient of the token's own log pi (GSPO-token, eq. 14).
  """
  difference = jnp.where(mask, logprobs - old_logprobs, 0.0)
  if level == 'token':
    return difference
  if level == 'seq_sum':
    total = jax.ops.segment_sum(difference, rollout, rollouts)
    return jnp.where(mask, total[rollout], 0.0)
  mean = rollout_mean(difference, mask, rollout, rollouts)[rollout]
  if level == 'seq_mean':
    return jnp.where(mask, mean, 0.0)
  if level == 'seq_mean_token_grad':
    own = logprobs - jax.lax.stop_gradient(logprobs)
    return jnp.where(mask, jax.lax.stop_gradient(mean) + own, 0.0)
  raise ValueError(f'train.ratio={level!r}: known are {", ".join(RATIOS)}')


def _exp(log: jax.Array) -> jax.Array:
  return jnp.exp(jnp.clip(log, -RATIO_CLAMP, RATIO_CLAMP))


def surrogate(
  log_ratio: jax.Array,
  logprobs: jax.Array,
  advantages: jax.Array,
  kind: str,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  c: float = 0.0,
  tau_positive: float = 1.0,
  tau_negative: float = 1.05,
  beta: float = 0.05,
  mask: jax.Array | None = None,
  rollout: jax.Array | None = None,
  rollouts: int | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Per-token loss f[N] (to be minimised) and whether a bound was reached there, bool[N].

  With rho = exp(log_ratio), log_ratio clamped to +-20, A the advantage, sg stop_gradient:
  ppo_clip: -min(A rho, A clip(rho, 1-low, 1+high)) (Schulman et al. 2017, eq. 7), for A < 0 at most
  -A c (Ye et al. 2020, eq. 5; c 0 is off). reinforce: -A log pi. nll: -log pi.
  cispo: -sg(clip(rho, 1-low, 1+high)) A log pi (MiniMax-M1 2025).
  sapo: -A 4/tau sigmoid(tau (rho - 1)), tau by the sign of A (Gao et al. 2025).
  gmpo: -A exp(mean over the rollout of log rho, each clipped to [-low, high] where that lowers
  A rho) (Zhao et al. 2025), the same at all its tokens, A their mean; needs mask, rollout,
  rollouts and the aggregation seq_mean_token_mean.
  dppo_tv, dppo_kl: -sg(min(rho, c)) A log pi, nothing where the token's own divergence has passed
  high (A > 0) or low (A < 0) in the direction A pushes to; pi - pi_old, or the KL of the two-way
  choice "this token or another" (Qi et al. 2026, eqs. 12-14; c 0 is off).
  dro: -A log pi + beta/2 log_ratio^2 (Richemond et al. 2024, as Kimi k1.5 uses it).
  """
  never = jnp.zeros_like(logprobs, bool)
  if kind == 'nll':
    return -logprobs, never
  if kind == 'reinforce':
    return -advantages * logprobs, never
  if kind == 'dro':
    return 0.5 * beta * jnp.square(log_ratio) - advantages * logprobs, never
  if kind == 'gmpo':
    assert mask is not None
    assert rollout is not None
    assert rollouts is not None
    return _gmpo(log_ratio, advantages, clip_low, clip_high, mask, rollout, rollouts)
  ratio = _exp(log_ratio)
  if kind == 'ppo_clip':
    return _ppo_clip(ratio, advantages, clip_low, clip_high, c)
  if kind == 'cispo':
    bounded = jax.lax.stop_gradient(jnp.clip(ratio, 1 - clip_low, 1 + clip_high))
    return -bounded * advantages * logprobs, bounded != ratio
  if kind == 'sapo':
    tau = jnp.where(advantages > 0, tau_positive, tau_negative).astype(ratio.dtype)
    return -advantages * 4 / tau * jax.nn.sigmoid(tau * (ratio - 1)), never
  if kind in ('dppo_tv', 'dppo_kl'):
    blocked = _dppo_blocked(logprobs, log_ratio, advantages, kind, clip_low, clip_high)
    weight = jax.lax.stop_gradient(jnp.minimum(ratio, c) if c else ratio)
    return jnp.where(blocked, 0.0, -weight * advantages * logprobs), blocked
  raise ValueError(f'train.surrogate={kind!r}: known are {", ".join(SURROGATES)}')


def _ppo_clip(ratio: jax.Array, advantages: jax.Array, low: float, high: float, c: float):
  free = -advantages * ratio
  clipped = -advantages * jnp.clip(ratio, 1 - low, 1 + high)
  loss = jnp.maximum(free, clipped)
  cut = clipped > free
  if c:
    bound = -advantages * c
    negative = advantages < 0
    cut = cut | (negative & (loss > bound))
    loss = jnp.where(negative, jnp.minimum(loss, bound), loss)
  return loss, cut


def _gmpo(
  log_ratio: jax.Array,
  advantages: jax.Array,
  low: float,
  high: float,
  mask: jax.Array,
  rollout: jax.Array,
  rollouts: int,
):
  upper, lower = jnp.minimum(log_ratio, high), jnp.maximum(log_ratio, -low)
  used = jnp.where(advantages > 0, upper, jnp.where(advantages < 0, lower, log_ratio))
  ratio = _exp(rollout_mean(used, mask, rollout, rollouts))[rollout]
  one = rollout_mean(advantages, mask, rollout, rollouts)[rollout]
  return -one * ratio, used != log_ratio


def _dppo_blocked(
  logprobs: jax.Array,
  log_ratio: jax.Array,
  advantages: jax.Array,
  kind: str,
  low: float,
  high: float,
) -> jax.Array:
  """Where the divergence mask takes the token out, bool[N]."""
  logp = jax.lax.stop_gradient(logprobs)
  old = logp - jax.lax.stop_gradient(log_ratio)
  up = jnp.exp(logp) - jnp.exp(old)
  if kind == 'dppo_tv':
    return ((advantages > 0) & (up > high)) | ((advantages < 0) & (up < -low))
  tiny = jnp.finfo(logp.dtype).tiny
  other, other_old = jnp.maximum(-jnp.expm1(logp), tiny), jnp.maximum(-jnp.expm1(old), tiny)
  divergence = jnp.exp(old) * (old - logp) + other_old * jnp.log(other_old / other)
  return ((advantages > 0) & (up > 0) & (divergence > high)) | (
    (advantages < 0) & (up < 0) & (divergence > low)
  )


def value_loss(
  values: jax.Array, old_values: jax.Array, returns: jax.Array, clip: float
) -> tuple[jax.Array, jax.Array]:
  """Per-token 0.5 max((V - R)^2, (clip(V, V_old +- clip) - R)^2) f[N], and where it was clipped.

  Schulman et al.'s implementation of PPO; clip 0: no clipping. Aggregated by `reduce`.
  """
  free = jnp.square(values - returns)
  if not clip:
    return 0.5 * free, jnp.zeros_like(values, bool)
  near = jnp.square(jnp.clip(values, old_values - clip, old_values + clip) - returns)
  return 0.5 * jnp.maximum(free, near), near > free


def reduce(
  loss: jax.Array,
  mask: jax.Array,
  rollout: jax.Array,
  rollouts: int,
  mode: str,
  denominator: Denominators,
) -> jax.Array:
  """Aggregates per-token losses f[N]; the parts of a batch sum to the whole batch's value.

  token_mean: sum / tokens. token_sum: sum. seq_mean_token_mean: mean over rollouts of their token
  means. seq_mean_token_sum: mean over rollouts of their token sums. seq_mean_token_sum_norm: the
  same over a constant length (Dr.GRPO, Liu et al. 2025). rollout i32[N] in [0, rollouts).
  """
  loss = jnp.where(mask, loss, 0.0)
  if mode == 'seq_mean_token_mean':
    means = rollout_mean(loss, mask, rollout, rollouts)
    return jnp.sum(means) / denominator.sequences.astype(loss.dtype)
  total = jnp.sum(loss)
  if mode == 'token_sum':
    return total
  if mode == 'token_mean':
    return total / denominator.tokens.astype(loss.dtype)
  total = total / denominator.sequences.astype(loss.dtype)
  if mode == 'seq_mean_token_sum':
    return total
  if mode == 'seq_mean_token_sum_norm':
    return total / denominator.longest.astype(loss.dtype)
  raise ValueError(f'train.aggregation={mode!r}: known are {", ".join(AGGREGATIONS)}')
