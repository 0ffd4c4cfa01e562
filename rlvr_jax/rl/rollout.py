"""Host side of a batch: completions into padded rollouts, rollouts into micro-batches of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlvr_jax.models.config import VisionConfig
from rlvr_jax.models.images import images_of
from rlvr_jax.rl.packing import Layout, bucket_length, packed_layout, plain_layout
from rlvr_jax.rl.pictures import lay_images
from rlvr_jax.rl.types import Rollouts
from rlvr_jax.rl.update import Rows


def assemble(
  prompts: Sequence[Sequence[int]],
  completions: Sequence[np.ndarray],
  *,
  sampler_logprobs: Sequence[np.ndarray] | None = None,
  rewards: Sequence[float] | None = None,
  group: Sequence[int] | None = None,
  truncated: Sequence[bool] | None = None,
  sampled: Sequence[np.ndarray | None] | None = None,
  turn_rewards: Sequence[Sequence[float]] | None = None,
) -> Rollouts:
  """Rollouts of numpy arrays: prompt and completion contiguous, padded on the right to a bucket.

  prompts and completions are token ids, sampler_logprobs f32 per completion token; what is not
  given is 0 (a group of its own for each row). Prompts may have images (images.Pictured). sampled:
  bool per completion token, false on a conversation's observations, which the mask leaves out; None
  for all. turn_rewards: of each turn of a row, the last one's included.
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
  for i, own in enumerate(sampled or ()):
    if own is not None:
      begin = len(prompts[i])
      mask[i, begin : begin + len(own)] &= own
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
    forms=np.zeros(B, np.int32),
    images=_images(prompts),
    turn_rewards=None if turn_rewards is None else _by_turn(mask, turn_rewards),
  )


def _by_turn(mask: np.ndarray, turn_rewards: Sequence[Sequence[float]]) -> np.ndarray:
  """f32[B,T] the rewards on the last tokens of their turns, the runs under the mask."""
  found = np.zeros(mask.shape, np.float32)
  after = np.pad(mask[:, 1:], ((0, 0), (0, 1)))
  for row, ends, rewards in zip(found, mask & ~after, turn_rewards, strict=True):
    places = np.flatnonzero(ends)
    assert len(places) == len(rewards), (len(places), len(rewards))
    row[places] = rewards
  return found


def _images(prompts: Sequence[Sequence[int]]) -> np.ndarray | None:
  found = np.empty(len(prompts), object)
  found[:] = [images_of(prompt) for prompt in prompts]
  return found if any(found) else None


def layout_of(
  rollouts: Rollouts, *, micro_tokens: int, multiple: int = 1, packing: bool = False
) -> Layout:
  """Where the tokens of rollouts [B,T] go: packed, or one rollout a row."""
  B, T = rollouts.tokens.shape
  if not packing:
    return plain_layout(B, T, micro_tokens=micro_tokens, multiple=multiple)
  lengths = rollouts.prompt_lengths + rollouts.completion_lengths
  return packed_layout(lengths, rollouts.valid, T, micro_tokens=micro_tokens, multiple=multiple)


def micro_batches(
  rollouts: Rollouts,
  advantages: np.ndarray | None,
  layout: Layout,
  *,
  vision: VisionConfig | None = None,
  multiple: int = 1,
  **per_token: np.ndarray | None,
) -> Rows:
  """Rows [M,b,T] of rollouts [B,W] by their layout, numpy still.

  advantages: f32[B], or f32[B,W] where tokens of a rollout differ; None where rows are only scored.
  per_token: old_logprobs, ref_logprobs, keep, penalised [B,W], as in Rows. Rollouts that are not
  valid have no completion mask. vision, multiple: of the model, and of the rows that its tower
  sees, where rollouts have images.
  """
  mask = rollouts.completion_mask & np.asarray(rollouts.valid)[:, None]
  given = np.asarray(0 if advantages is None else advantages, np.float32)
  if given.ndim == 1:
    given = given[:, None]
  packed: dict[str, Any] = {}
  if layout.packed:
    names = ('positions', 'segments', 'rollout')
    packed = {name: getattr(layout, name) for name in names}

  def cut(x: np.ndarray | None) -> Any:  # numpy still; on a device from the step on
    return None if x is None else layout.cut(x)

  return Rows(
    tokens=cut(rollouts.tokens),
    completion_mask=cut(mask),
    advantages=cut(np.where(mask, given, np.float32(0))),
    sampler_logprobs=cut(rollouts.sampler_logprobs),
    images=None if vision is None else lay_images(rollouts, layout, vision, multiple),
    **{name: cut(x) for name, x in per_token.items()},
    **packed,
  )
