"""Small pictures to be read: how many dots, how wide an angle, where a point is.

A picture is drawn by (seed, index) alone, with numpy, and has one right answer: a number of dots,
an angle in degrees or the point's coordinates as 3,1. An answer of the right form that is another
one is wrong, everything else is unparsed; so the set of answers to guess from is finite and known.
"""

import functools
import math
import random
from collections.abc import Sequence

import numpy as np

from rlvr_jax.tasks.images import png
from rlvr_jax.tasks.problem import Image, Problem, Verdict

VERSION = 'shapes-1'
TASK = 'shapes'
KINDS = ('count', 'angle', 'point')
ALPHABET = '0123456789,?acegilnoptu'

SIZE = 56  # pixels a side: 2 x 2 tokens of Qwen2.5-VL, whose images are multiples of 28
LARGEST = 6  # dots
STEP = 30  # degrees between two angles
GRID = 4  # coordinates 0 .. GRID - 1


def answers(kind: str, *, largest: int = LARGEST, step: int = STEP, grid: int = GRID) -> list[str]:
  """Every answer of a kind: what a problem may have, and what counts as an answer."""
  if kind == 'count':
    return [str(n) for n in range(1, largest + 1)]
  if kind == 'angle':
    return [str(degrees) for degrees in range(step, 180, step)]
  return [f'{x},{y}' for x in range(grid) for y in range(grid)]


def verify(problem: Problem, completion: str) -> Verdict:
  """correct (reward 1), wrong (another answer of this kind) or unparsed; rewards 0."""
  if completion == problem.answer:
    return Verdict('correct', 1.0, completion)
  if completion in problem.meta['answers']:
    return Verdict('wrong', 0.0, completion, f'the {problem.meta["kind"]} is another')
  return Verdict('unparsed', 0.0, '', f'no answer to "{problem.prompt}"')


def solutions(problem: Problem) -> tuple[str, ...]:
  """Every correct completion of the problem: there is one."""
  return (problem.answer,)


def make_problems(
  count: int,
  *,
  seed: int,
  kinds: Sequence[str] = KINDS,
  size: int = SIZE,
  largest: int = LARGEST,
  step: int = STEP,
  grid: int = GRID,
  skip: int = 0,
) -> list[Problem]:
  """`count` problems, after the first `skip` of the same seeded order; the kinds take turns.

  size: pixels a side. largest: dots at most, up to 16. step: degrees between two angles. grid:
  coordinates on an axis, up to 10. ValueError names the parameter that does not fit.
  """
  kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
  _check(kinds, size, largest, step, grid)
  every = {kind: answers(kind, largest=largest, step=step, grid=grid) for kind in kinds}
  problems = []
  for index in range(skip, skip + count):
    kind = kinds[index % len(kinds)]
    answer = random.Random(f'{VERSION} {seed} {index} {kind}').choice(every[kind])
    picture = _picture(kind, answer, f'{seed} {index}', size, grid)
    problems.append(
      Problem(
        id=f'{seed}-{index}',
        task=TASK,
        prompt=f'{kind}?',
        answer=answer,
        meta={'kind': kind, 'answers': every[kind]},
        images=(Image(f'{kind} {seed}-{index}', data=picture),),
      )
    )
  return problems


def corpus(problems: list[Problem], *, seed: int, noise: float) -> list[tuple[str, str]]:
  """One (prompt, completion) a problem, in their order: the right answer, or with chance `noise`
  any of its kind."""
  rng = random.Random(f'corpus {seed} {noise}')
  pairs = []
  for problem in problems:
    guess = rng.random() < noise
    answer = rng.choice(problem.meta['answers']) if guess else problem.answer
    pairs.append((str(problem.prompt), answer))
  return pairs


def _check(kinds: Sequence[str], size: int, largest: int, step: int, grid: int) -> None:
  if unknown := sorted(set(kinds) - set(KINDS)):
    raise ValueError(f'task.params.kinds has {unknown}; known are {", ".join(KINDS)}')
  if not kinds:
    raise ValueError(f'task.params.kinds=() is empty; known are {", ".join(KINDS)}')
  for name, value, low, high in (
    ('size', size, 28, 448), ('largest', largest, 2, 16), ('step', step, 5, 60),
    ('grid', grid, 2, 10),
  ):  # fmt: skip
    if not low <= value <= high:
      raise ValueError(f'task.params.{name}={value} must be between {low} and {high}')
  if size % 28:
    raise ValueError(
      f'task.params.size={size} must be a multiple of 28, as the images of Qwen2.5-VL'
    )


# Drawing. A shape is f32[H, W] of signed distances in pixels, below 0 inside it; colours are u8.


@functools.lru_cache(maxsize=16_384)  # a study loads its problems many times
def _picture(kind: str, answer: str, key: str, size: int, grid: int) -> bytes:
  """A PNG file of size x size pixels: the picture whose answer is this one, drawn by the key."""
  rng = random.Random(f'{VERSION} {key} {kind} {size} picture')
  paper = np.full((size, size, 3), float(rng.randint(240, 255)), np.float64)
  ink = np.array([rng.randint(0, 60) for _ in range(3)], np.float64)
  shapes = {'count': _dots, 'angle': _angle}
  made = _point(answer, rng, size, grid) if kind == 'point' else shapes[kind](answer, rng, size)
  for distance, strength in made:
    cover = strength * np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    paper += cover * (ink - paper)
  return png(np.round(paper).astype(np.uint8))


Shapes = list[tuple[np.ndarray, float]]  # distances, and how dark: 0 to 1


@functools.cache
def _grid_of(size: int) -> tuple[np.ndarray, np.ndarray]:
  y, x = np.mgrid[0:size, 0:size].astype(np.float64) + 0.5
  return x, y


def _disc(size: int, x: float, y: float, radius: float) -> np.ndarray:
  across, down = _grid_of(size)
  return np.hypot(across - x, down - y) - radius


def _line(size: int, start: tuple[float, float], end: tuple[float, float], width: float):
  across, down = _grid_of(size)
  dx, dy = end[0] - start[0], end[1] - start[1]
  along = ((across - start[0]) * dx + (down - start[1]) * dy) / (dx * dx + dy * dy)
  along = np.clip(along, 0.0, 1.0)
  return np.hypot(across - start[0] - along * dx, down - start[1] - along * dy) - width / 2


def _dots(answer: str, rng: random.Random, size: int) -> Shapes:
  """Dots in cells of a 4 x 4 grid, so that none touch."""
  cell = size / 4
  radius = 0.24 * cell
  free = cell / 2 - radius - 1.0
  return [
    (
      _disc(
        size,
        (place % 4 + 0.5) * cell + rng.uniform(-free, free),
        (place // 4 + 0.5) * cell + rng.uniform(-free, free),
        radius,
      ),
      1.0,
    )
    for place in rng.sample(range(16), int(answer))
  ]


def _angle(answer: str, rng: random.Random, size: int) -> Shapes:
  """Two rays from near the middle, the first one level or upright."""
  vertex = (size / 2 + rng.uniform(-2, 2), size / 2 + rng.uniform(-2, 2))
  first = math.radians(90 * rng.randrange(4))
  length = 0.42 * size
  rays = []
  for direction in (first, first + math.radians(int(answer))):
    end = vertex[0] + length * math.cos(direction), vertex[1] - length * math.sin(direction)
    rays.append((_line(size, vertex, end, 3.0), 1.0))
  return rays


def _point(answer: str, rng: random.Random, size: int, grid: int) -> Shapes:
  """Axes at the left and below, light lines at every coordinate, and the point; y goes up."""
  x, y = map(int, answer.split(','))
  margin = 0.12 * size
  unit = (size - 2 * margin) / (grid - 1)
  low, high = margin, size - margin
  lines: Shapes = []
  for i in range(grid):
    dark = 0.8 if i == 0 else 0.18
    at = low + i * unit
    lines.append((_line(size, (at, low), (at, high), 1.0), dark))
    lines.append((_line(size, (low, high - i * unit), (high, high - i * unit), 1.0), dark))
  radius = min(0.07 * size, 0.4 * unit) * rng.uniform(0.85, 1.1)
  return [*lines, (_disc(size, low + x * unit, high - y * unit, radius), 1.0)]
