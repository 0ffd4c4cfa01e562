"""A board with walls, a start and a goal: a task whose every correct completion is known.

The cells of a size x size board have letters, row by row: of 3 x 3 the first row is abc. The prompt
'ai#dh:' asks for the way from a to i past the walls d and h. A completion is a string of moves
(U, D, L, R) from the start to the goal that stays on the board, enters no wall and no cell twice,
and has at most `longest` moves. That is a finite set, so a model's exact chance of solving a
problem is a finite sum.
"""

import functools
import random
from collections.abc import Sequence

from rlvr_jax.tasks.problem import Problem, Verdict

VERSION = 'paths-1'
TASK = 'paths'
CELLS = 'abcdefghijklmnopqrstuvwxyz0123456789'  # 6 x 6 at most
MOVES = {'U': (-1, 0), 'D': (1, 0), 'L': (0, -1), 'R': (0, 1)}
ALPHABET = CELLS + '#:' + ''.join(MOVES)


def _step(size: int, cell: int, move: str) -> int | None:
  """The cell that a move leads to; None off the board."""
  row, column = cell // size + MOVES[move][0], cell % size + MOVES[move][1]
  return row * size + column if 0 <= row < size and 0 <= column < size else None


def verify(problem: Problem, completion: str) -> Verdict:
  """correct (reward 1), wrong (moves, but not such a path) or unparsed; rewards 0."""
  a = problem.answer
  if not completion or set(completion) - set(MOVES):
    return Verdict('unparsed', 0.0, '', 'not a string of moves')
  if len(completion) > a['longest']:
    return Verdict('wrong', 0.0, completion, f'has more than {a["longest"]} moves')
  cell, seen = a['start'], {a['start']}
  for number, move in enumerate(completion, 1):
    after = _step(a['size'], cell, move)
    if after is None or after in a['walls'] or after in seen:
      what = 'leaves the board' if after is None else f'enters {CELLS[after]}'
      why = '' if after is None else ' again' if after in seen else ', a wall'
      return Verdict('wrong', 0.0, completion, f'move {number} {what}{why}')
    cell = after
    seen.add(cell)
  if cell != a['goal']:
    return Verdict('wrong', 0.0, completion, f'ends at {CELLS[cell]}')
  return Verdict('correct', 1.0, completion)


@functools.lru_cache(maxsize=65_536)  # a study loads its problems many times
def _ways(
  size: int, start: int, goal: int, walls: tuple[int, ...], longest: int
) -> tuple[str, ...]:
  """Every path from start to goal, each once; ascending in length, then in the order of MOVES."""
  found: list[str] = []

  def go(cell: int, text: str, seen: frozenset[int]) -> None:
    if cell == goal:
      found.append(text)
      return
    left = longest - len(text)
    if abs(cell // size - goal // size) + abs(cell % size - goal % size) > left:
      return
    for move in MOVES:
      after = _step(size, cell, move)
      if after is not None and after not in walls and after not in seen:
        go(after, text + move, seen | {after})

  go(start, '', frozenset([start]))
  return tuple(sorted(found, key=len))


def solutions(problem: Problem) -> tuple[str, ...]:
  """Every correct completion of the problem: the verifier accepts these strings and no other."""
  a = problem.answer
  return _ways(a['size'], a['start'], a['goal'], tuple(a['walls']), a['longest'])


def _problem(size: int, start: int, goal: int, walls: Sequence[int], longest: int) -> Problem:
  text = f'{CELLS[start]}{CELLS[goal]}#{"".join(CELLS[wall] for wall in walls)}'
  return Problem(
    id=text,
    task=TASK,
    prompt=f'{text}:',
    answer={
      'size': size, 'start': start, 'goal': goal, 'walls': list(walls), 'longest': longest,
    },
  )  # fmt: skip


def make_problems(
  count: int,
  *,
  seed: int,
  size: int = 5,
  walls: int = 7,
  longest: int = 8,
  nearest: int = 4,
  fewest: int = 2,
  skip: int = 0,
) -> list[Problem]:
  """`count` distinct problems, after the first `skip` of the same seeded order.

  size: cells on a side, 3 to 6. walls: cells. longest: moves. nearest: moves that the shortest path
  has at least. fewest: paths that a problem has at least. One seed gives one endless order without
  repeats, so that splits made with different `skip` never share a problem. ValueError names the
  parameter that does not fit.
  """
  for name, value, low, high in (
    ('size', size, 3, 6), ('walls', walls, 0, size * size - 2),
    ('nearest', nearest, 1, longest), ('longest', longest, 1, 12), ('fewest', fewest, 1, 100),
  ):  # fmt: skip
    if not low <= value <= high:
      raise ValueError(f'task.params.{name}={value} must be between {low} and {high}')
  rng = random.Random(f'{VERSION} {seed} {size} {walls} {longest} {nearest} {fewest}')
  problems: dict[str, Problem] = {}
  idle = 0
  while len(problems) < skip + count:
    start, goal, *rest = rng.sample(range(size * size), 2 + walls)
    problem = _problem(size, start, goal, sorted(rest), longest)
    idle += 1
    if problem.id not in problems:
      found = solutions(problem)
      if len(found) >= fewest and len(found[0]) >= nearest:
        problems[problem.id] = problem
        idle = 0
    if idle > 20_000:
      raise ValueError(
        f'task.params: {skip + count} problems were asked for, but boards of size={size} with '
        f'walls={walls}, longest={longest}, nearest={nearest} and fewest={fewest} give about '
        f'{len(problems)}; ask for fewer, or loosen one of these'
      )
  return list(problems.values())[skip:]


def corpus(problems: list[Problem], *, seed: int, noise: float) -> list[tuple[str, str]]:
  """One (prompt, completion) a problem: a random correct one, or with chance `noise` a path to the
  goal as if there were no walls."""
  rng = random.Random(f'corpus {TASK} {seed} {noise}')
  pairs = []
  for problem in problems:
    a = problem.answer
    blind = rng.random() < noise
    walls = () if blind else tuple(a['walls'])
    choices = _ways(a['size'], a['start'], a['goal'], walls, a['longest'])
    pairs.append((str(problem.prompt), rng.choice(choices)))
  return pairs
