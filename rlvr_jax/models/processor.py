"""Pixels for Qwen2.5-VL without torch: a file's bytes to the patches of images.py.

What HF's Qwen2VLImageProcessor does (resize, cut; the tower normalises), on 8-bit numbers and one
frame instead of two floats, an eighth of the memory. Files come from anywhere: what is damaged,
far too large or of a kind we do not read is refused with a ValueError, and nothing is decoded
before its header was looked at.
"""

import io
import math
import os
import pathlib
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps

from rlvr_jax.models.config import VisionConfig
from rlvr_jax.models.images import Image

Source = bytes | str | os.PathLike[str] | np.ndarray
MAX_BYTES = 1 << 26  # of a file
MAX_SOURCE_PIXELS = 1 << 26  # of a decoded image: at most 450 MB while it is converted
MIN_SIDE = 8  # pixels; what is smaller shows nothing
MAX_RATIO = 200  # of the sides, as HF
FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP')
# one byte a channel; others (16 bits, floats) have no agreed way to 8 bits
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'La', 'RGBa')
_DAMAGED = (
  OSError,
  SyntaxError,  # of a broken PNG
  ValueError,
  EOFError,
  OverflowError,
  struct.error,
  zlib.error,
)


def load_image(
  source: Source,
  vision: VisionConfig,
  *,
  min_pixels: int = 0,
  max_pixels: int = 0,
  name: str = '',
) -> Image:
  """The image of a file's bytes, of a path or of pixels u8[H,W,3], resized and cut into patches.

  min_pixels, max_pixels: of the resized image, 0 for the model's own. name: what errors call it.
  ValueError, saying what to do, for an image that cannot be read or used.
  """
  shown = name or (f'image {source}' if isinstance(source, str | os.PathLike) else 'image')
  picture = _open(source, shown)
  low, high = min_pixels or vision.min_pixels, max_pixels or vision.max_pixels
  factor = vision.patch * vision.merge
  if not 0 < low <= high or high < factor**2:
    raise ValueError(
      f'min_pixels={low}, max_pixels={high}: need 0 < min_pixels <= max_pixels, and at least '
      f'{factor**2} (one token)'
    )
  width, height = picture.size
  rows, columns = smart_resize(height, width, factor, low, high)
  resized = picture.resize((columns, rows), PIL.Image.Resampling.BICUBIC)
  return cut(np.asarray(resized), vision)


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


def cut(pixels: np.ndarray, vision: VisionConfig) -> Image:
  """Pixels u8[H,W,C], sides multiples of patch * merge, as patches in HF's order."""
  m, p = vision.merge, vision.patch
  h, w = pixels.shape[0] // p, pixels.shape[1] // p
  assert pixels.shape == (h * p, w * p, vision.channels), pixels.shape
  assert h % m == 0, (h, m)
  assert w % m == 0, (w, m)
  assert pixels.dtype == np.uint8, pixels.dtype
  cells = pixels.reshape(h // m, m, p, w // m, m, p, vision.channels)
  patches = cells.transpose(0, 3, 1, 4, 6, 2, 5).reshape(h * w, vision.patch_values)
  return Image(np.ascontiguousarray(patches), (1, h, w))


def pixel_values(image: Image, vision: VisionConfig) -> np.ndarray:
  """f32[h*w, channels*temporal*patch*patch]: HF's pixel_values of the image."""
  shape = len(image.patches), vision.channels, 1, vision.patch**2
  x = (image.patches.astype(np.float64) * (1 / 255)).astype(np.float32).reshape(shape)
  mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (vision.mean, vision.std))
  return np.repeat((x - mean) / std, vision.temporal, axis=2).reshape(len(x), -1)


def _open(source: Source, name: str) -> PIL.Image.Image:
  """The decoded image in RGB, upright."""
  if isinstance(source, np.ndarray):
    return _from_array(source, name)
  content = source if isinstance(source, bytes) else _read(pathlib.Path(source), name)
  if not 0 < len(content) <= MAX_BYTES:
    raise ValueError(f'{name} has {len(content)} bytes; images have from 1 to {MAX_BYTES}')
  try:
    picture = PIL.Image.open(io.BytesIO(content), formats=FORMATS)
  except PIL.UnidentifiedImageError as error:
    raise ValueError(
      f'{name} is no image, is damaged, or is of a kind that is not read here; known are '
      f'{", ".join(FORMATS)}'
    ) from error
  except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
    raise ValueError(
      f'{name}: {error}; images here have at most {MAX_SOURCE_PIXELS} pixels: scale it down'
    ) from error
  except _DAMAGED as error:
    raise ValueError(_damaged(name, error)) from error
  _check_header(picture, name)
  try:
    # an APNG's or a GIF's frames are counted here, by reading on
    # and a camera's JPEG may hold a preview beside the picture
    frames = 1 if picture.format == 'MPO' else getattr(picture, 'n_frames', 1)
    if frames == 1:
      picture.load()
      picture = PIL.ImageOps.exif_transpose(picture).convert('RGB')
  except _DAMAGED as error:
    raise ValueError(_damaged(name, error)) from error
  if frames != 1:
    raise ValueError(f'{name} has {frames} frames; store the one that counts as an image')
  return picture


def _read(path: pathlib.Path, name: str) -> bytes:
  try:
    with path.open('rb') as f:
      return f.read(MAX_BYTES + 1)
  except OSError as error:
    raise ValueError(f'{name}: {error.strerror or error}; check the path') from error


def _damaged(name: str, error: BaseException) -> str:
  return f'{name} is truncated or damaged ({error}); fetch the file again'


def _check_header(picture: PIL.Image.Image, name: str) -> None:
  width, height = picture.size
  if picture.mode not in MODES:
    raise ValueError(
      f'{name} has pixels of mode {picture.mode}, which has no agreed 8-bit form; save it as 8-bit '
      'RGB or grey'
    )
  _check_size(width, height, name)


def _check_size(width: int, height: int, name: str) -> None:
  if width * height > MAX_SOURCE_PIXELS:
    raise ValueError(
      f'{name} has {width} x {height} pixels, more than the {MAX_SOURCE_PIXELS} that are decoded; '
      'scale it down'
    )
  if min(width, height) < MIN_SIDE:
    raise ValueError(
      f'{name} has {width} x {height} pixels; a side under {MIN_SIDE} shows nothing: scale it up '
      'or drop the problem'
    )
  if max(width, height) > MAX_RATIO * min(width, height):
    raise ValueError(
      f'{name} has {width} x {height} pixels; one side is more than {MAX_RATIO} times the other: '
      'cut it'
    )


def _from_array(pixels: np.ndarray, name: str) -> PIL.Image.Image:
  if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
    raise ValueError(f'{name} is {pixels.dtype}{list(pixels.shape)}; pixels are uint8[H,W,3]')
  _check_size(pixels.shape[1], pixels.shape[0], name)
  return PIL.Image.fromarray(np.ascontiguousarray(pixels))
