"""What the learner sees: rollouts in rows, tokens laid flat, and the state it updates."""

import dataclasses
from typing import Any

import flax.struct
import jax
import numpy as np


class Rollouts(flax.struct.PyTreeNode):
  """B rollouts in rows of T tokens: prompt, completion, padding on the right; on the host.

  Per-token arrays are indexed by the token they describe (docs/design.md).
  """

  tokens: np.ndarray  # i32[B,T]
  prompt_lengths: np.ndarray  # i32[B]
  completion_lengths: np.ndarray  # i32[B] tokens after the prompt, observations included
  completion_mask: np.ndarray  # bool[B,T] sampled tokens up to and including EOS
  sampler_logprobs: np.ndarray  # f32[B,T]
  rewards: np.ndarray  # f32[B]
  group: np.ndarray  # i32[B]
  truncated: np.ndarray  # bool[B]
  valid: np.ndarray  # bool[B] false on rows that only fill a shape, or that nothing learns from
  forms: np.ndarray  # i32[B] of a group, equal for completions that say the same; else 0
  images: np.ndarray | None = None  # object[B] tuples of models/images.Image; None without any
  # f32[B,T] rewards laid out by turn, each on its turn's last token; None: all on the last token
  turn_rewards: np.ndarray | None = None


class TokenBatch(flax.struct.PyTreeNode):
  """What a loss sees: tokens of many rollouts laid flat; layout and packing are invisible."""

  logprobs: jax.Array  # f[N]
  old_logprobs: jax.Array  # f[N]
  ref_logprobs: jax.Array | None  # f[N]
  sampler_logprobs: jax.Array  # f[N]
  advantages: jax.Array  # f[N]
  mask: jax.Array  # bool[N]
  rollout: jax.Array  # i32[N]
  entropy: jax.Array | None = None  # f[N] of the policy, with its gradient; for an entropy bonus
  keep: jax.Array | None = None  # bool[N] rl/selection.py, taken before the batch is cut
  penalised: jax.Array | None = None  # bool[N] likewise


class TrainState(flax.struct.PyTreeNode):
  """What a checkpoint holds beside the host's JSON. step counts optimizer steps, also skipped."""

  step: jax.Array  # i32[]
  params: Any
  opt_state: Any
  critic: Any = None  # rl/critic.py: CriticState, where one is learnt
  lora: Any = None  # factors of adapters, where they train in place of params (models/lora.py)
  entropy: Any = None  # rl/entropy.py: EntropyControl, where a coefficient adapts
  reference: Any = None  # in a checkpoint only: that of a KL term, where it moves (rl/resets.py)

  def fields(self) -> dict[str, Any]:
    """The state as a checkpoint holds it: without fields that came later where they are None, so
    that checkpoints from before them fit."""
    found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {k: v for k, v in found.items() if v is not None or k not in ('entropy', 'reference')}
