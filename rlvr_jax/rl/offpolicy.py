"""Corrections where the sampler is not the policy that learns: weights, and what is left out."""

import jax
import jax.numpy as jnp

from rlvr_jax.rl.algorithms import OFFPOLICY, STATISTICS
from rlvr_jax.rl.kl import kl_est
from rlvr_jax.rl.losses import RATIO_CLAMP, rollout_mean


def offpolicy(
  old_logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  mask: jax.Array,
  kind: str,
  *,
  rollout: jax.Array,
  rollouts: int,
  low: float = 0.0,
  high: float = 2.0,
  stat: str = 'seq_mean_k3',
) -> tuple[jax.Array, jax.Array]:
  """(weight f[N], keep bool[N]) of each token, without gradient; ratio = pi_old / pi_sampler.

  none: 1. tis: min(ratio, high) (Yao et al. 2025). seq_tis: the same of the product over the
  rollout. icepop: the ratio where it lies in [low, high], else left out (Ling team 2025). seq_mask:
  the token's ratio, rollouts left out whose geometric mean of it lies outside [low, high].
  rs: 1, left out where `stat` lies outside [low, high] (nats): one of token, seq_sum, seq_mean,
  seq_max, then _k1, _k2 or _k3, the estimators of KL(sampler || old). What is left out weighs 0.
  """
  if kind == 'none':
    return jnp.ones_like(old_logprobs), jnp.ones_like(mask)
  old = jax.lax.stop_gradient(jnp.where(mask, old_logprobs, 0.0))
  sampler = jax.lax.stop_gradient(jnp.where(mask, sampler_logprobs, 0.0))
  log_ratio = old - sampler
  ratio = jnp.exp(jnp.clip(log_ratio, -RATIO_CLAMP, RATIO_CLAMP))
  if kind == 'tis':
    return jnp.minimum(ratio, high), jnp.ones_like(mask)
  if kind == 'seq_tis':
    total = jax.ops.segment_sum(log_ratio, rollout, rollouts)
    whole = jnp.exp(jnp.clip(total, -RATIO_CLAMP, RATIO_CLAMP))[rollout]
    return jnp.minimum(whole, high), jnp.ones_like(mask)
  if kind == 'icepop':
    keep = (ratio >= low) & (ratio <= high)
    return jnp.where(keep, ratio, 0.0), keep
  if kind == 'seq_mask':
    mean = rollout_mean(log_ratio, mask, rollout, rollouts)
    mean = jnp.exp(jnp.clip(mean, -RATIO_CLAMP, RATIO_CLAMP))[rollout]
    keep = (mean >= low) & (mean <= high)
    return jnp.where(keep, ratio, 0.0), keep
  if kind == 'rs':
    if stat not in STATISTICS:
      raise ValueError(f'train.offpolicy_stat={stat!r}: known are {", ".join(STATISTICS)}')
    level, _, estimator = stat.rpartition('_')
    value = jnp.where(mask, kl_est(sampler, old, estimator), 0.0)
    if level == 'seq_sum':
      value = jax.ops.segment_sum(value, rollout, rollouts)[rollout]
    elif level == 'seq_mean':
      value = rollout_mean(value, mask, rollout, rollouts)[rollout]
    elif level == 'seq_max':
      lowest = jnp.where(mask, value, -jnp.inf)
      value = jax.ops.segment_max(lowest, rollout, rollouts)[rollout]
    keep = (value >= low) & (value <= high)
    return keep.astype(ratio.dtype), keep
  raise ValueError(f'train.offpolicy={kind!r}: known are {", ".join(OFFPOLICY)}')
