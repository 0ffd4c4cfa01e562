"""The loss of flat tokens: the one place where an algorithm's cells are put together."""

import jax
import jax.numpy as jnp

from rlvr_jax.rl import losses
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.kl import absolute, kl_est
from rlvr_jax.rl.offpolicy import offpolicy
from rlvr_jax.rl.types import TokenBatch

Metrics = dict[str, jax.Array]
# metrics that are sums over tokens, to be divided by the token count of the whole batch
PER_TOKEN = (
  'clip_fraction',
  'kl_ref',
  'kl_old',
  'gap/mean',
  'gap/kl',
  'offpolicy/weight',
  'offpolicy/left_out',
)


def policy_loss(
  batch: TokenBatch,
  rollouts: int,
  denominator: losses.Denominators,
  algorithm: Algorithm,
  entropy_coef: jax.Array | None = None,
) -> tuple[jax.Array, Metrics]:
  """Loss f[] of flat tokens (a part of the whole batch's), and sums over tokens for metrics.

  rollouts bounds batch.rollout. Masked tokens are replaced before any arithmetic. What depends on
  the whole batch (advantages, keep, penalised, denominator) is taken before it is cut.
  entropy_coef f[]: in place of the algorithm's, where that adapts (rl/entropy.py).
  """
  mask = batch.mask

  def clean(x: jax.Array) -> jax.Array:
    return jnp.where(mask, x, 0.0)

  logprobs, old, sampler = map(clean, (batch.logprobs, batch.old_logprobs, batch.sampler_logprobs))
  behind = sampler if algorithm.old_policy == 'sampler' else old
  per_token, cut = _surrogate(algorithm, logprobs, behind, clean(batch.advantages), batch, rollouts)
  metrics = {}
  if algorithm.surrogate != 'nll':  # else nobody sampled these tokens
    now, then, drawn = jax.lax.stop_gradient((logprobs, old, sampler))
    gap = jnp.abs(drawn - then)
    metrics = {
      'clip_fraction': jnp.sum(cut & mask).astype(per_token.dtype),
      'kl_old': jnp.sum(kl_est(then, now, 'k3')),
      'gap/mean': jnp.sum(gap),
      'gap/kl': jnp.sum(kl_est(drawn, then, 'k3')),
      'gap/max': jnp.max(gap),
    }
  used, weight = mask, 1.0
  if algorithm.offpolicy != 'none':
    weight, keep = offpolicy(
      old,
      sampler,
      mask,
      algorithm.offpolicy,
      rollout=batch.rollout,
      rollouts=rollouts,
      low=algorithm.offpolicy_low,
      high=algorithm.offpolicy_high,
      stat=algorithm.offpolicy_stat,
    )
    per_token, used = weight * per_token, mask & keep
    metrics['offpolicy/weight'] = jnp.sum(clean(weight))
    metrics['offpolicy/left_out'] = jnp.sum(mask & ~keep).astype(per_token.dtype)
  if batch.ref_logprobs is not None:
    kl = kl_est(logprobs, clean(batch.ref_logprobs), algorithm.kl_kind, behind)
    metrics['kl_ref'] = jnp.sum(jax.lax.stop_gradient(clean(kl)))
    if algorithm.kl_in == 'loss':
      per_token = per_token + weight * algorithm.kl_coef * kl
  bonus = algorithm.entropy_coef if entropy_coef is None else entropy_coef.astype(per_token.dtype)
  if entropy_coef is not None or algorithm.entropy_coef:
    assert batch.entropy is not None, 'an entropy bonus needs the entropies'
    per_token = per_token - bonus * clean(batch.entropy)
  loss = losses.reduce(
    jnp.where(used, per_token, 0.0),
    mask,
    batch.rollout,
    rollouts,
    algorithm.aggregation,
    denominator,
  )
  return loss, metrics


def _surrogate(
  algorithm: Algorithm,
  logprobs: jax.Array,
  old: jax.Array,
  advantages: jax.Array,
  batch: TokenBatch,
  rollouts: int,
) -> tuple[jax.Array, jax.Array]:
  """Policy-gradient loss f[N] of each token after token selection, and where it was cut."""
  ratio = losses.log_ratio(
    logprobs, old, batch.mask, algorithm.ratio, rollout=batch.rollout, rollouts=rollouts
  )
  per_token, cut = losses.surrogate(
    ratio,
    logprobs,
    advantages,
    algorithm.surrogate,
    clip_low=algorithm.clip_low,
    clip_high=algorithm.clip_high,
    c=algorithm.ratio_cap if algorithm.surrogate.startswith('dppo') else algorithm.dual_clip,
    tau_positive=algorithm.tau_positive,
    tau_negative=algorithm.tau_negative,
    beta=algorithm.dro_beta,
    mask=batch.mask,
    rollout=batch.rollout,
    rollouts=rollouts,
  )
  if algorithm.token_select != 'none':
    assert batch.keep is not None, 'token_select is taken over the whole batch, before it is cut'
    assert batch.penalised is not None
    drift = algorithm.select_coef * absolute(logprobs - old)
    per_token = per_token + jnp.where(batch.penalised, drift, 0.0)
    per_token = jnp.where(batch.keep, per_token, 0.0)
  return per_token, cut
