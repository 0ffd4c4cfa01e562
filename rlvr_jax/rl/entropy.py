"""An entropy coefficient that works towards a target (Skywork-OR1, He et al. 2025, 2505.22312).

It is part of the train state: no host waits for it, and a run that goes on goes on with it.
"""

import flax.struct
import jax
import jax.numpy as jnp

from rlvr_jax.rl.algorithms import Algorithm


class EntropyControl(flax.struct.PyTreeNode):
  """coef f32[]: the coefficient; entropy f32[]: nats a token of the policy before the last step."""

  coef: jax.Array
  entropy: jax.Array


def start(algorithm: Algorithm) -> EntropyControl | None:
  """Before the first step, with the bonus on; None where the coefficient is fixed."""
  if not algorithm.entropy_target:
    return None
  return EntropyControl(jnp.float32(algorithm.entropy_coef), jnp.float32(0))


def coefficient(algorithm: Algorithm, control: EntropyControl | None) -> jax.Array | None:
  """What this step's mean entropy is multiplied by: the coefficient, 0 above the target.

  None where it is fixed.
  """
  if not algorithm.entropy_target:
    return None
  assert control is not None, 'the state of an entropy target is made by learner.start_state'
  return jnp.where(control.entropy <= algorithm.entropy_target, control.coef, 0.0)


def adapted(
  algorithm: Algorithm, control: EntropyControl, entropy: jax.Array, counts: jax.Array
) -> EntropyControl:
  """After a step over tokens of this mean entropy f[]; unchanged where counts bool[] is false.

  coef + delta below the target, else coef - delta, within 0 and train.entropy_most.
  """
  delta = jnp.where(entropy < algorithm.entropy_target, 1.0, -1.0) * algorithm.entropy_delta
  coef = jnp.clip(control.coef + delta, 0.0, algorithm.entropy_most)
  new = EntropyControl(coef.astype(jnp.float32), entropy.astype(jnp.float32))
  return jax.tree.map(lambda a, b: jnp.where(counts, a, b), new, control)
