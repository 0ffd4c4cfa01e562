"""The images of a batch's rollouts, laid out for its micro-batches. Host side."""

import numpy as np

from rlvr_jax.models.config import VisionConfig
from rlvr_jax.models.images import (
  Image,
  Laid,
  bucket_windows,
  lay_rows,
  rope_positions,
  source_of,
  window_count,
)
from rlvr_jax.models.vision import Images, images_from
from rlvr_jax.rl.packing import Layout, first_fit_decreasing
from rlvr_jax.rl.types import Rollouts


def lay_images(
  rollouts: Rollouts, layout: Layout, vision: VisionConfig, multiple: int = 1
) -> Images | None:
  """Images [M,...] of rollouts [B,W] in their layout [M,b,T], numpy still; None without any.

  A micro-batch has each image of its rollouts once, however many of them share it. Its rows of
  windows hold several images each; how many there are is a power of two times `multiple`.
  """
  if rollouts.images is None or not any(rollouts.images):
    return None
  B, width = rollouts.tokens.shape
  M = len(layout.source)
  members = [np.unique(part[part >= 0] // width) for part in layout.source]
  owns = [dict.fromkeys(i for b in own for i in rollouts.images[b]) for own in members]
  sizes = {i: window_count(i.grid, vision) for own in owns for i in own}
  windows = bucket_windows(max(sizes.values(), default=1))
  rows = [_rows(list(own), sizes, windows) for own in owns]
  most = -(-max(map(len, rows)) // multiple)
  count = multiple * (1 << (most - 1).bit_length())
  source = np.full((B, width), -1, np.int32)
  positions = np.zeros((B, 3, width), np.int32)
  laid = []
  for own, filled in zip(members, rows, strict=True):
    filled += [[]] * (count - len(filled))
    *arrays, lie = lay_rows(filled, windows, vision)
    laid.append(arrays)
    lies = {
      image: places
      for images, row in zip(filled, lie, strict=True)
      for image, places in zip(images, row, strict=True)
    }
    for b in own:
      images = rollouts.images[b]
      # a completion may hold image tokens, and they are only tokens
      n = int(rollouts.prompt_lengths[b])
      tokens = rollouts.tokens[b]
      source[b, :n] = source_of(tokens[:n], [lies[i] for i in images], vision)
      positions[b, :, :n], after = rope_positions(tokens[:n], [i.grid for i in images], vision)
      positions[b, :, n:] = after + np.arange(width - n)
  assert len(laid) == M
  pixels, places, owner = (np.stack(arrays) for arrays in zip(*laid, strict=True))
  along = np.stack([layout.cut(positions[:, axis]) for axis in range(3)], axis=2)
  return images_from(Laid(pixels, places, owner, layout.cut(source + 1) - 1, along))


def _rows(images: list[Image], sizes: dict[Image, int], windows: int) -> list[list[Image]]:
  counts = np.array([sizes[image] for image in images], np.int64)
  return [[images[i] for i in row] for row in first_fit_decreasing(counts, windows)]
