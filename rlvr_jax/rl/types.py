"""What the learner sees: rollouts in rows, tokens laid flat, and the state it updates."""

from typing import Any

import flax.struct
import jax


class Rollouts(flax.struct.PyTreeNode):
  """B rollouts in rows of T tokens: prompt, completion, padding on the right.

  Per-token arrays are indexed by the token they describe (DESIGN.md 2).
  """

  tokens: jax.Array  # i32[B,T]
  prompt_lengths: jax.Array  # i32[B]
  completion_lengths: jax.Array  # i32[B]
  completion_mask: jax.Array  # bool[B,T] sampled tokens up to and including EOS
  sampler_logprobs: jax.Array  # f32[B,T]
  rewards: jax.Array  # f32[B]
  group: jax.Array  # i32[B]
  truncated: jax.Array  # bool[B]
  valid: jax.Array  # bool[B] false on rows that only fill a shape


class TokenBatch(flax.struct.PyTreeNode):
  """What a loss sees: tokens of many rollouts laid flat; layout and packing are invisible."""

  logprobs: jax.Array  # f[N]
  old_logprobs: jax.Array  # f[N]
  ref_logprobs: jax.Array | None  # f[N]
  sampler_logprobs: jax.Array  # f[N]
  advantages: jax.Array  # f[N]
  mask: jax.Array  # bool[N]
  rollout: jax.Array  # i32[N]


class TrainState(flax.struct.PyTreeNode):
  """What a checkpoint holds beside the host's JSON. step counts optimizer steps, also skipped."""

  step: jax.Array  # i32[]
  params: Any
  opt_state: Any
