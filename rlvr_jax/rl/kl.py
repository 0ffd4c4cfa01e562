"""Estimators of KL(policy || reference) from log-probs of sampled tokens."""

import jax
import jax.numpy as jnp

KINDS = ('k1', 'k2', 'k3', 'k3_st', 'ratio_k3')
CLAMP = 20.0


def kl_est(logprobs: jax.Array, ref: jax.Array, kind: str) -> jax.Array:
  """Per-token estimate, same shape as logprobs (nats); source: Schulman, "Approximating KL".

  In a loss, under the policy's own samples, the gradients of these are: k2, k3_st and ratio_k3 the
  KL's own in expectation; k3 a biased one; k1 none at all (its gradient has expectation zero), so
  that k1 is for measuring or for the reward only. Differences are clamped to +-20 before exp.
  """
  difference = logprobs - ref
  if kind == 'k1':
    return difference
  k2 = 0.5 * jnp.square(difference)
  if kind == 'k2':
    return k2
  inverse = jnp.clip(-difference, -CLAMP, CLAMP)
  k3 = jnp.exp(inverse) - inverse - 1
  if kind == 'k3':
    return k3
  if kind == 'k3_st':  # value of k3, gradient of k2
    return k2 + jax.lax.stop_gradient(k3 - k2)
  if kind == 'ratio_k3':  # pi / stop_gradient(pi) = 1, with the policy's gradient
    return jnp.exp(logprobs - jax.lax.stop_gradient(logprobs)) * k3
  raise ValueError(f'train.kl_kind={kind!r}: known are {", ".join(KINDS)}')


def check_loss_kind(kind: str) -> None:
  """Refuses unknown estimators, and the one that does nothing as a loss term."""
  if kind not in KINDS:
    raise ValueError(f'train.kl_kind={kind!r}: known are {", ".join(KINDS)}')
  if kind == 'k1':
    raise ValueError(
      "train.kl_kind='k1' regularises nothing as a loss: its gradient is zero in expectation; "
      'use k2, k3_st or ratio_k3'
    )
