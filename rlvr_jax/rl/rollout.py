"""Host side of a batch: completions into padded rows, rows into micro-batches of few shapes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlvr_jax.rl.types import Rollouts
from rlvr_jax.rl.update import Rows

MIN_LENGTH = 16


def bucket_length(longest: int) -> int:
  """The row length T >= longest: a power of two or 1.5 times one, so that programs stay few."""
  power = max(MIN_LENGTH, 1 << (longest - 1).bit_length())
  three_quarters = power * 3 // 4
  return three_quarters if MIN_LENGTH <= longest <= three_quarters else power


def assemble(
  prompts: Sequence[Sequence[int]],
  completions: Sequence[np.ndarray],
  *,
  sampler_logprobs: Sequence[np.ndarray] | None = None,
  rewards: Sequence[float] | None = None,
  group: Sequence[int] | None = None,
  truncated: Sequence[bool] | None = None,
) -> Rollouts:
  """Rollouts of numpy arrays: prompt and completion contiguous, padded on the right to a bucket.

  prompts and completions are token ids, sampler_logprobs f32 per completion token; what is not
  given is 0 (a group of its own for each row).
  """
  B = len(prompts)
  prompt_lengths = np.array([len(p) for p in prompts], np.int32)
  completion_lengths = np.array([len(c) for c in completions], np.int32)
  T = bucket_length(int((prompt_lengths + completion_lengths).max()))
  tokens = np.zeros((B, T), np.int32)
  logprobs = np.zeros((B, T), np.float32)
  for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
    begin, end = len(prompt), len(prompt) + len(completion)
    tokens[i, :begin] = prompt
    tokens[i, begin:end] = completion
    if sampler_logprobs is not None:
      logprobs[i, begin:end] = sampler_logprobs[i]
  index = np.arange(T)[None]
  mask = (index >= prompt_lengths[:, None]) & (
    index < (prompt_lengths + completion_lengths)[:, None]
  )
  return Rollouts(
    tokens=tokens,
    prompt_lengths=prompt_lengths,
    completion_lengths=completion_lengths,
    completion_mask=mask,
    sampler_logprobs=logprobs,
    rewards=np.zeros(B, np.float32) if rewards is None else np.asarray(rewards, np.float32),
    group=np.arange(B, dtype=np.int32) if group is None else np.asarray(group, np.int32),
    truncated=np.zeros(B, bool) if truncated is None else np.asarray(truncated, bool),
    valid=np.ones(B, bool),
  )


def rows_per_micro_batch(T: int, micro_tokens: int, multiple: int) -> int:
  """Rows b of a micro-batch of at most micro_tokens tokens, a multiple of the mesh's data parts."""
  return max(multiple, micro_tokens // T // multiple * multiple)


def micro_batches(
  rollouts: Rollouts,
  advantages: np.ndarray,
  *,
  micro_tokens: int,
  multiple: int = 1,
  old_logprobs: np.ndarray | None = None,
  ref_logprobs: np.ndarray | None = None,
) -> Rows:
  """Rows [M,b,T] of rollouts [B,T] and one advantage a rollout f32[B].

  Rows are filled up to M*b with empty ones (their mask is false everywhere); b depends on T and
  micro_tokens only, M on B.
  """
  B, T = rollouts.tokens.shape
  b = min(rows_per_micro_batch(T, micro_tokens, multiple), B + -B % multiple)
  padding = -B % b

  def cut(x: np.ndarray | None) -> Any:  # numpy still; on a device from the step on
    if x is None:
      return None
    return np.pad(x, ((0, padding), (0, 0))).reshape(-1, b, T)

  mask = rollouts.completion_mask & np.asarray(rollouts.valid)[:, None]
  per_token = np.where(mask, np.asarray(advantages, np.float32)[:, None], np.float32(0))
  return Rows(
    tokens=cut(rollouts.tokens),
    completion_mask=cut(mask),
    advantages=cut(per_token),
    sampler_logprobs=cut(rollouts.sampler_logprobs),
    old_logprobs=cut(old_logprobs),
    ref_logprobs=cut(ref_logprobs),
  )
