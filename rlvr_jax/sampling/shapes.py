"""The shapes that prompts are prefilled in: functions of a prompt alone, never of its company."""

from collections.abc import Sequence

import numpy as np

from rlvr_jax.models.config import VisionConfig
from rlvr_jax.models.images import bucket_windows, images_of, lay_prompts, window_count
from rlvr_jax.models.vision import Images, images_from
from rlvr_jax.sampling.bank import Prompt

MIN_BUCKET = 16  # tokens: the smallest prefill program, and the smallest page


def bucket(length: int, capacity: int) -> int:
  """The prefill size for a prompt of so many tokens."""
  return min(capacity, max(MIN_BUCKET, 1 << (length - 1).bit_length()))


def shape_of(prompt: Prompt, capacity: int, vision: VisionConfig | None) -> tuple[int, int]:
  """(tokens, windows of its images) that are computed for a prompt; no windows without images."""
  size, pictures = bucket(len(prompt), capacity), images_of(prompt)
  if vision is None or not pictures:
    return size, 0
  return size, bucket_windows(sum(window_count(image.grid, vision) for image in pictures))


def images_for(
  prompts: Sequence[Prompt], shape: tuple[int, int], vision: VisionConfig | None
) -> tuple[Images | None, np.ndarray | None]:
  """(images, what positions after it are ahead of its length i32[B]) of prompts of one shape.

  Prompts without images have none; models of text alone have no positions to be ahead either.
  """
  if vision is None:
    return None, None
  size, windows = shape
  if not windows:
    return None, np.zeros(len(prompts), np.int32)
  pictures = [images_of(prompt) for prompt in prompts]
  laid, ahead = lay_prompts(prompts, pictures, vision, length=size, windows=windows)
  # each is computed by a shard of its own, which has one row of windows
  begin = np.arange(len(prompts), dtype=np.int32) * (laid.pixels.shape[1] // vision.unit)
  source = np.where(laid.source >= 0, laid.source - begin[:, None], -1)
  return images_from(laid._replace(source=source)), ahead
