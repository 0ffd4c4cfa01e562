"""Images as the model takes them, on the host: patches in windows, tokens and positions.

An image of h x w patches is h/merge * w/merge tokens. The tower sees patches window by window,
each window filled up to its whole size, so that shapes depend on the count of windows alone and
attention within a window is a reshape. What the tower gives for a window's tokens is then picked
up by the prompt's image tokens, wherever they stand.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rlvr_jax.models.config import VisionConfig

KEPT_BYTES = 1 << 30  # of patches that stay in memory; what is asked for again is cut again


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
  """An image as the model takes it, cut into patches when they are asked for (processor.py).

  grid: (1, h, w) in patches; an image has one frame. digest stands for the patches: images with the
  same one are the same. load gives them, u8[h*w, channels*patch*patch] in HF's order: token by
  token, and within a token row by row.
  """

  grid: tuple[int, int, int]
  digest: str
  load: Callable[[], np.ndarray] = dataclasses.field(repr=False)

  @property
  def patches(self) -> np.ndarray:
    """What load gives; the images looked at last stay in memory (KEPT_BYTES)."""
    return _KEPT.get(self)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Image) and self.digest == other.digest

  def __hash__(self) -> int:
    return hash(self.digest)


class _Kept:
  """Patches by digest, the longest unused first."""

  def __init__(self) -> None:
    self._found: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()
    self._bytes = 0

  def get(self, image: Image) -> np.ndarray:
    if image.digest in self._found:
      self._found.move_to_end(image.digest)
      return self._found[image.digest]
    patches = image.load()
    assert len(patches) == image.grid[1] * image.grid[2], (patches.shape, image.grid)
    self._found[image.digest] = patches
    self._bytes += patches.nbytes
    while self._bytes > KEPT_BYTES and len(self._found) > 1:
      self._bytes -= self._found.popitem(last=False)[1].nbytes
    return patches


_KEPT = _Kept()


class Pictured(tuple[int, ...]):
  """The token ids of a prompt, and the images that its image tokens stand for.

  A prompt without images is a plain tuple. Prompts with other images are other prompts; to cut or
  join one gives plain tuples, whose image tokens then lack their images and are refused.
  """

  images: tuple[Image, ...]

  def __new__(cls, ids: Iterable[int], images: Iterable[Image]) -> 'Pictured':
    self = super().__new__(cls, ids)
    self.images = tuple(images)
    return self

  def __eq__(self, other: object) -> bool:
    return tuple.__eq__(self, other) is True and self.images == images_of(other)

  def __ne__(self, other: object) -> bool:
    return not self == other

  def __hash__(self) -> int:
    own = tuple.__hash__(self)
    return hash((own, self.images)) if self.images else own


def images_of(prompt: object) -> tuple[Image, ...]:
  """A prompt's images; none for plain token ids."""
  return prompt.images if isinstance(prompt, Pictured) else ()


class Laid(NamedTuple):
  """What the forward takes beside tokens (vision.Images has the same fields on a device).

  S patches of W = S / window_patches windows in each of R rows; every window is of one image. B
  rows of T tokens.
  """

  pixels: np.ndarray  # u8[R,S,channels*patch*patch]
  places: np.ndarray  # i32[R,S,2] row and column of the patch in its image, -1 where none is
  owner: np.ndarray  # i32[R,W] number of the window's image, -1 where none is
  source: np.ndarray  # i32[B,T] place of an image token's embedding in the flat [R*S/unit], else -1
  positions: np.ndarray  # i32[B,3,T] frame, row and column


def token_count(grid: Sequence[int], vision: VisionConfig) -> int:
  """Tokens of an image of this grid (frames, rows and columns of patches)."""
  return int(np.prod(grid)) // vision.unit


def window_count(grid: Sequence[int], vision: VisionConfig) -> int:
  """Windows of an image of this grid."""
  side = vision.merge * vision.window_units
  return -(-grid[1] // side) * -(-grid[2] // side)


def bucket_windows(count: int) -> int:
  """Windows that are computed for so many: a power of two or 1.5 times one; programs stay few."""
  power = 1 << (count - 1).bit_length()
  return power * 3 // 4 if power > 2 and count <= power * 3 // 4 else power


def slots(grid: Sequence[int], vision: VisionConfig) -> np.ndarray:
  """The token at each place of an image's windows, i32[windows * window_units**2]; -1 for none."""
  side = vision.window_units
  rows, columns = grid[1] // vision.merge, grid[2] // vision.merge
  down, across = -(-rows // side), -(-columns // side)
  whole = np.full((down * side, across * side), -1, np.int32)
  whole[:rows, :columns] = np.arange(rows * columns).reshape(rows, columns)
  return whole.reshape(down, side, across, side).swapaxes(1, 2).reshape(-1)


def expand(tokens: Sequence[int], images: Sequence[Image], vision: VisionConfig) -> tuple[int, ...]:
  """Prompt tokens with each image token repeated as often as its image has tokens.

  ValueError unless the tokens ask for as many images as there are.
  """
  asked = sum(token == vision.image_id for token in tokens)
  if asked != len(images):
    raise ValueError(
      f'the prompt has {asked} image tokens (id {vision.image_id}) and {len(images)} images; its '
      'template must place one token an image'
    )
  found: list[int] = []
  left = iter(images)
  for token in tokens:
    count = token_count(next(left).grid, vision) if token == vision.image_id else 1
    found += [token] * count
  return tuple(found)


def rope_positions(
  tokens: Sequence[int] | np.ndarray, grids: Sequence[Sequence[int]], vision: VisionConfig
) -> tuple[np.ndarray, int]:
  """(positions i32[3,T] of frame, row and column, the position of the token that follows).

  As HF's get_rope_index: text counts on alike in all three; an image's tokens start where the text
  stands and count their own frame, row and column; text goes on after the longer side. ValueError
  where image tokens and grids do not belong together.
  """
  ids = np.asarray(tokens, np.int64)
  found = np.zeros((3, len(ids)), np.int32)
  at = position = 0
  for grid in grids:
    here = np.flatnonzero(ids[at:] == vision.image_id)
    count = token_count(grid, vision)
    begin = at + int(here[0]) if len(here) else len(ids)
    if len(ids) < begin + count or not (ids[begin : begin + count] == vision.image_id).all():
      raise ValueError(
        f'an image of {grid[1]} x {grid[2]} patches needs {count} image tokens in a row (id '
        f'{vision.image_id}); the prompt has them not: it was cut, or not expanded'
      )
    found[:, at:begin] = position + np.arange(begin - at)
    position += begin - at
    steps = (grid[0], grid[1] // vision.merge, grid[2] // vision.merge)
    found[:, begin : begin + count] = position + np.indices(steps).reshape(3, -1)
    at, position = begin + count, position + max(steps[1:])
  if (ids[at:] == vision.image_id).any():
    raise ValueError(f'the prompt has more image tokens (id {vision.image_id}) than its images')
  found[:, at:] = position + np.arange(len(ids) - at)
  return found, position + len(ids) - at


def lay_rows(
  rows: Sequence[Sequence[Image]], windows: int, vision: VisionConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[np.ndarray]]]:
  """(pixels, places, owner) as in Laid, of `windows` windows a row, and where tokens lie.

  The last has for each image i64[tokens], the places of its embeddings in the flat [R*S/unit].
  """
  R, unit, whole = len(rows), vision.unit, vision.window_patches
  S = windows * whole
  pixels = np.zeros((R, S, vision.patch_values), np.uint8)
  places = np.full((R, S, 2), -1, np.int32)
  owner = np.full((R, windows), -1, np.int32)
  lie: list[list[np.ndarray]] = []
  for r, images in enumerate(rows):
    begin, lies = 0, []
    for number, image in enumerate(images):
      token = slots(image.grid, vision)
      count = len(token) * unit // whole
      assert begin + count <= windows, (begin, count, windows)
      here = np.flatnonzero(token >= 0)
      patch = (token[here, None] * unit + np.arange(unit)).reshape(-1)
      place = begin * whole + (here[:, None] * unit + np.arange(unit)).reshape(-1)
      pixels[r, place] = image.patches[patch]
      places[r, place] = _places(image.grid, vision)[patch]
      owner[r, begin : begin + count] = number
      order = np.empty(len(here), np.int64)
      order[token[here]] = (r * S + begin * whole) // unit + here
      lies.append(order)
      begin += count
    lie.append(lies)
  return pixels, places, owner, lie


def _places(grid: Sequence[int], vision: VisionConfig) -> np.ndarray:
  """Row and column of each patch in HF's order, i32[h*w,2]."""
  _, h, w = grid
  m = vision.merge
  where = np.indices((h, w), np.int32).reshape(2, h // m, m, w // m, m)
  return where.transpose(1, 3, 2, 4, 0).reshape(-1, 2)


def lay_prompts(
  prompts: Sequence[Sequence[int]],
  images: Sequence[Sequence[Image]],
  vision: VisionConfig,
  *,
  length: int,
  windows: int = 0,
) -> tuple[Laid, np.ndarray]:
  """A row of tokens and one of windows for each prompt; and what positions after it are ahead.

  The latter, i32[B], is the next token's position less its index (0 or below). length: tokens of a
  row; windows: of a row, 0 for the bucket of the most. Positions go on through the padding.
  """
  most = max(sum(window_count(i.grid, vision) for i in own) for own in images)
  laid = lay_rows(images, windows or bucket_windows(max(most, 1)), vision)
  source = np.full((len(prompts), length), -1, np.int32)
  positions = np.zeros((len(prompts), 3, length), np.int32)
  ahead = np.zeros(len(prompts), np.int32)
  for b, (tokens, own) in enumerate(zip(prompts, images, strict=True)):
    n = len(tokens)
    positions[b, :, :n], after = rope_positions(tokens, [i.grid for i in own], vision)
    positions[b, :, n:] = after + np.arange(length - n)
    ahead[b] = after - n
    source[b, :n] = source_of(tokens, laid[3][b], vision)
  return Laid(*laid[:3], source, positions), ahead


def source_of(
  tokens: Sequence[int] | np.ndarray, lies: Sequence[np.ndarray], vision: VisionConfig
) -> np.ndarray:
  """Laid.source of one rollout's tokens, i32[T], whose images' embeddings lie at `lies`."""
  here = np.asarray(tokens) == vision.image_id
  found = np.full(len(here), -1, np.int32)
  found[here] = np.concatenate([np.zeros(0, np.int64), *lies])
  return found
