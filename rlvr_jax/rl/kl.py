"""Estimators of KL(policy || reference) from log-probs of sampled tokens."""

import jax
import jax.numpy as jnp

KINDS = ('k1', 'abs', 'k2', 'k3', 'k3_st', 'ratio_k3')
IN_REWARD = ('k1', 'abs', 'k2', 'k3')  # the other two differ from k3 in their gradient only
CLAMP = 20.0


def absolute(x: jax.Array) -> jax.Array:
  """|x| with derivative 0 at 0 (that of jnp.abs is 1 there, which on-policy is every token)."""
  return x * jax.lax.stop_gradient(jnp.sign(x))


def kl_est(
  logprobs: jax.Array, ref: jax.Array, kind: str, old: jax.Array | None = None
) -> jax.Array:
  """Per-token estimate, same shape as logprobs (nats); source: Schulman, "Approximating KL".

  In a loss, under the policy's own samples, the gradients of these are: k2, k3_st and ratio_k3 the
  KL's own in expectation; k3 and abs a biased one; k1 none at all (its gradient has expectation
  zero), so that k1 is for measuring or for the reward only. ratio_k3 (DeepSeek-V3.2) is rho k3 with
  rho = pi / old, right off-policy too; old None stands for on-policy, rho = 1 with the policy's
  gradient. Differences are clamped to +-20 before exp.
  """
  difference = logprobs - ref
  if kind == 'k1':
    return difference
  if kind == 'abs':
    return absolute(difference)
  k2 = 0.5 * jnp.square(difference)
  if kind == 'k2':
    return k2
  inverse = jnp.clip(-difference, -CLAMP, CLAMP)
  k3 = jnp.exp(inverse) - inverse - 1
  if kind == 'k3':
    return k3
  if kind == 'k3_st':  # value of k3, gradient of k2
    return k2 + jax.lax.stop_gradient(k3 - k2)
  if kind == 'ratio_k3':
    behind = jax.lax.stop_gradient(logprobs if old is None else old)
    return jnp.exp(jnp.clip(logprobs - behind, -CLAMP, CLAMP)) * k3
  raise ValueError(f'train.kl_kind={kind!r}: known are {", ".join(KINDS)}')


def check_kind(kind: str, where: str) -> None:
  """Refuses unknown estimators, and those that do nothing in a loss, or in a reward."""
  if kind not in KINDS:
    raise ValueError(f'train.kl_kind={kind!r}: known are {", ".join(KINDS)}')
  if where == 'loss' and kind == 'k1':
    raise ValueError(
      "train.kl_kind='k1' regularises nothing as a loss: its gradient is zero in expectation; "
      "use k2, k3_st or ratio_k3, or train.kl_in='reward'"
    )
  if where == 'reward' and kind not in IN_REWARD:
    raise ValueError(
      f'train.kl_kind={kind!r} differs from k3 by its gradient, which a reward does not have; '
      "with train.kl_in='reward' use k1 (the one whose policy gradient is that of the KL)"
    )
