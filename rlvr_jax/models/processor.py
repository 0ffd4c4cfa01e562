"""Pixels for Qwen2.5-VL without torch: resized and cut into the patches of images.py.

What HF's Qwen2VLImageProcessor does, on 8-bit numbers and one frame instead of two of floats, an
eighth of the memory; the tower normalises. Files are read by tasks/images.py.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable

import numpy as np
import PIL.Image

from rlvr_jax.models.config import VisionConfig
from rlvr_jax.models.images import Image


def with_bounds(vision: VisionConfig, min_pixels: int, max_pixels: int) -> VisionConfig:
  """vision with other bounds of an image's pixels, 0 for its own; ValueError where none fits."""
  low, high = min_pixels or vision.min_pixels, max_pixels or vision.max_pixels
  token = (vision.patch * vision.merge) ** 2
  if not 0 < low <= high or high < token:
    raise ValueError(
      f'model.min_pixels={low}, model.max_pixels={high}: min_pixels must be positive and at most '
      f'max_pixels, and that at least {token}, which is one token'
    )
  return dataclasses.replace(vision, min_pixels=low, max_pixels=high)


def image_of(
  size: tuple[int, int], sha256: str, pixels: Callable[[], np.ndarray], vision: VisionConfig
) -> Image:
  """The Image of a picture whose pixels u8[H,W,3] are read when they are needed.

  size: its (width, height); sha256: of its bytes.
  """
  v = vision
  rows, columns = smart_resize(size[1], size[0], v.patch * v.merge, v.min_pixels, v.max_pixels)
  what = f'{sha256} {rows} {columns} {v.patch} {v.merge}'

  def load() -> np.ndarray:
    return cut(_resized(pixels(), rows, columns), vision)

  digest = hashlib.sha256(what.encode()).hexdigest()
  return Image((1, rows // v.patch, columns // v.patch), digest, load)


def from_pixels(pixels: np.ndarray, vision: VisionConfig) -> Image:
  """The Image of pixels u8[H,W,3]."""
  digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
  return image_of((pixels.shape[1], pixels.shape[0]), digest, lambda: pixels, vision)


def smart_resize(height: int, width: int, factor: int, low: int, high: int) -> tuple[int, int]:
  """(height, width) nearest in shape that are multiples of factor, of low to high pixels.

  HF's smart_resize: Python's rounding (half to even) of each side, and where that leaves the
  bounds both sides by one factor, downwards or upwards.
  """
  rows, columns = round(height / factor) * factor, round(width / factor) * factor
  if rows * columns > high:
    shrink = math.sqrt(height * width / high)
    rows = max(factor, math.floor(height / shrink / factor) * factor)
    columns = max(factor, math.floor(width / shrink / factor) * factor)
  elif rows * columns < low:
    grow = math.sqrt(low / (height * width))
    rows = math.ceil(height * grow / factor) * factor
    columns = math.ceil(width * grow / factor) * factor
  return rows, columns


def _resized(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
  if pixels.shape[:2] == (rows, columns):
    return pixels
  picture = PIL.Image.fromarray(pixels)
  return np.asarray(picture.resize((columns, rows), PIL.Image.Resampling.BICUBIC))


def cut(pixels: np.ndarray, vision: VisionConfig) -> np.ndarray:
  """Pixels u8[H,W,C], sides multiples of patch * merge, as an Image's patches."""
  m, p = vision.merge, vision.patch
  h, w = pixels.shape[0] // p, pixels.shape[1] // p
  assert pixels.shape == (h * p, w * p, vision.channels), pixels.shape
  assert h % m == 0, (h, m)
  assert w % m == 0, (w, m)
  assert pixels.dtype == np.uint8, pixels.dtype
  cells = pixels.reshape(h // m, m, p, w // m, m, p, vision.channels)
  patches = cells.transpose(0, 3, 1, 4, 6, 2, 5).reshape(h * w, vision.patch_values)
  return np.ascontiguousarray(patches)


def pixel_values(patches: np.ndarray, vision: VisionConfig) -> np.ndarray:
  """f32[h*w, channels*temporal*patch*patch]: HF's pixel_values of an image's patches."""
  shape = len(patches), vision.channels, 1, vision.patch**2
  x = (patches.astype(np.float64) * (1 / 255)).astype(np.float32).reshape(shape)
  mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (vision.mean, vision.std))
  return np.repeat((x - mean) / std, vision.temporal, axis=2).reshape(len(x), -1)
