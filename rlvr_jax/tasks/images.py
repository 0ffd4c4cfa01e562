"""The images of problems: read when they are asked for, looked at before they are decoded.

Everything that can be wrong with one is a ValueError that names the problem, the image and what is
wrong. No image is decoded whose header promises more than MAX_PIXELS, so that memory is bounded by
3 bytes for each of them, whatever the file.
"""

import base64
import hashlib
import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from rlvr_jax.tasks.problem import Image, Problem

FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP')
_MAGIC = (b'\x89PNG', b'\xff\xd8', b'RIFF', b'GIF8', b'BM')  # how they begin
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr')  # 8 bits a channel
MAX_BYTES = 1 << 26  # of a file, 64 MiB
MAX_PIXELS = 1 << 25  # 33.5 million, 96 MiB decoded
MIN_SIDE = 4  # pixels; a smaller one shows nothing
MAX_RATIO = 200  # of the sides; the preprocessing of Qwen2.5-VL takes no longer ones

# What Pillow raises on damaged files of these formats.
_DAMAGED = (
  OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, OverflowError, TypeError,
  struct.error, zlib.error,
)  # fmt: skip


def read(image: Image) -> bytes:
  """The bytes of an image file. ValueError says what is wrong, without naming the problem."""
  if image.data:
    return image.data
  if image.record is not None:
    from rlvr_jax.tasks.datasets import builder  # which reads images too

    return builder.read_image(*image.record)
  if not image.path:
    raise ValueError('neither a file nor bytes are given')
  path = Path(image.path)
  try:
    if image.member:
      with zipfile.ZipFile(path) as archive:
        _check_bytes(archive.getinfo(image.member).file_size)
        return archive.read(image.member)
    _check_bytes(path.stat().st_size)
    return path.read_bytes()
  except FileNotFoundError as error:
    raise ValueError(f'there is no file {path}') from error
  except KeyError as error:
    raise ValueError(f'{path} has no member {image.member}') from error
  except (OSError, zipfile.BadZipFile, EOFError, zlib.error) as error:
    raise ValueError(f'{path} cannot be read ({error})') from error


def open_image(problem: Problem, place: int = 0) -> PIL.Image.Image:
  """The problem's image at `place`, decoded, in RGB; transparency is dropped, as the harnesses do.

  ValueError: not there, of no known format, damaged, too large, too small, too long, animated.
  """
  image = problem.images[place]
  try:
    with _header(read(image)) as found:
      try:
        found.load()
      except _DAMAGED as error:
        raise ValueError(f'the {found.format} data are damaged ({_line(error)})') from error
      if found.mode == 'P' and 'transparency' in found.info:
        return found.convert('RGBA').convert('RGB')  # the same colours, without a warning
      return found.convert('RGB')
  except ValueError as error:
    raise ValueError(_message(problem, image, error)) from error


def pixels(problem: Problem, place: int = 0) -> np.ndarray:
  """u8[H, W, 3] of open_image."""
  return np.asarray(open_image(problem, place))


def sizes(problem: Problem) -> list[tuple[int, int]]:
  """(width, height) of each image, from its header. ValueError as open_image, but for damage."""
  found = []
  for image in problem.images:
    try:
      with _header(read(image)) as header:
        found.append(header.size)
    except ValueError as error:
      raise ValueError(_message(problem, image, error)) from error
  return found


def sha256(problem: Problem, place: int) -> str:
  """Of the image's bytes (64 hex); they are read if it is not known. ValueError as read."""
  image = problem.images[place]
  try:
    return image.sha256 or hashlib.sha256(read(image)).hexdigest()
  except ValueError as error:
    raise ValueError(_message(problem, image, error)) from error


def digest(problem: Problem) -> str:
  """Stands for the bytes of all images of a problem, in order (64 hex); '' if it has none."""
  found = ' '.join(sha256(problem, place) for place in range(len(problem.images)))
  return hashlib.sha256(found.encode()).hexdigest() if found else ''


def thumbnail(problem: Problem, place: int, *, side: int, most_bytes: int) -> str:
  """The image as a data URI of at most `side` pixels a side and about most_bytes, as the model gets
  it. ValueError as open_image."""
  image = open_image(problem, place)
  image.thumbnail((side, side))
  kind, data = 'png', _encoded(image, 'PNG', optimize=True)
  quality = 80
  while len(data) > most_bytes and quality > 20:
    kind, data = 'jpeg', _encoded(image, 'JPEG', quality=quality, optimize=True)
    quality -= 20
    if len(data) > most_bytes:
      image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))
  return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def png(values: np.ndarray) -> bytes:
  """u8[H, W, 3] as a PNG file."""
  assert values.dtype == np.uint8, values.dtype
  assert values.ndim == 3, values.shape
  assert values.shape[2] == 3, values.shape
  return _encoded(PIL.Image.fromarray(values), 'PNG', compress_level=1)


def _encoded(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def _header(data: bytes) -> PIL.Image.Image:
  """The image with only its header read and looked at."""
  _check_bytes(len(data))
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of its own limit of pixels: ours is below
      found = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
  except PIL.UnidentifiedImageError as error:
    if data.startswith(_MAGIC):
      raise ValueError('its header is damaged (of a known format, and not whole)') from error
    begins = data[:8].hex(' ')
    raise ValueError(
      f'no {", ".join(FORMATS[:-1])} or {FORMATS[-1]} (the file begins {begins}); convert it to one'
    ) from error
  except PIL.Image.DecompressionBombError as error:
    raise ValueError(
      f'{_line(error)}; at most {MAX_PIXELS:,} are taken: make it smaller'
    ) from error
  except _DAMAGED as error:
    raise ValueError(f'its header is damaged ({_line(error)})') from error
  if wrong := _refused(found):
    found.close()
    raise ValueError(wrong)
  return found


def _refused(found: PIL.Image.Image) -> str:
  """Why an image is not taken, by its header; '' if it is."""
  width, height = found.size
  if width * height > MAX_PIXELS:
    return f'{width} x {height} pixels, where at most {MAX_PIXELS:,} are taken: make it smaller'
  if min(width, height) < MIN_SIDE:
    return f'{width} x {height} pixels, where a side has at least {MIN_SIDE}'
  if max(width, height) > MAX_RATIO * min(width, height):
    return f'{width} x {height} pixels: one side is over {MAX_RATIO} times the other'
  if found.mode not in MODES:
    return f'its pixels are of the kind {found.mode}; save it with 8 bits a channel'
  try:
    frames = getattr(found, 'n_frames', 1)
  except _DAMAGED as error:
    return f'the {found.format} data are damaged ({_line(error)})'
  if frames > 1 and found.format != 'MPO':  # as some cameras' JPEG files are
    return f'it is animated ({frames} frames); save one of them'
  return ''


def _check_bytes(count: int) -> None:
  if count > MAX_BYTES:
    raise ValueError(f'{count:,} bytes, where a file has at most {MAX_BYTES:,}: make it smaller')
  if not count:
    raise ValueError('the file is empty')


def _message(problem: Problem, image: Image, error: ValueError) -> str:
  return f'problem {problem.task}/{problem.id}, image {image.name!r}: {error}'


def _line(error: BaseException) -> str:
  return (str(error) or type(error).__name__).splitlines()[0]
