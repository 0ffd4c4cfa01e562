"""Three numbers, a target, and the way there written out: countdown with a chain of thought.

A completion is a chain of attempts divided by ';'. An attempt is two equations, the first over two
of the numbers, the second over its result and the third number: '3*7=21,21+5=26'. The last attempt
is the answer; earlier ones may miss the target, as a search does.
"""

import itertools
import operator
import random
import re
from collections.abc import Iterator
from typing import Any

from rlvr_jax.tasks import countdown
from rlvr_jax.tasks.problem import Problem, Verdict

TASK = 'countdown_cot'
ALPHABET = countdown.ALPHABET + ';'

_OPERATORS = {'+': operator.add, '-': operator.sub, '*': operator.mul}
_EQUATION = r'(-?\d+)([-+*])(-?\d+)=(-?\d+)'
_ATTEMPT = re.compile(f'{_EQUATION},{_EQUATION}')


def verify(problem: Problem, completion: str) -> Verdict:
  """correct (reward 1) if the last attempt is sound and ends at the target."""
  attempt = completion.rpartition(';')[2]
  match = _ATTEMPT.fullmatch(attempt)
  if match is None:
    return Verdict('unparsed', 0.0, '', 'the last attempt is not two equations')
  a, first, b, x, c, second, d, y = match.groups()
  for left, sign, right, value in ((a, first, b, x), (c, second, d, y)):
    if _OPERATORS[sign](int(left), int(right)) != int(value):
      return Verdict('wrong', 0.0, attempt, f'{left}{sign}{right} is not {value}')
  numbers = sorted(problem.answer['numbers'])
  if not any(
    int(reused) == int(x) and sorted([int(a), int(b), int(third)]) == numbers
    for reused, third in ((c, d), (d, c))
  ):
    return Verdict('wrong', 0.0, attempt, 'does not use each number once and the first result')
  if int(y) != problem.answer['target']:
    return Verdict('wrong', 0.0, attempt, f'ends at {int(y)}')
  return Verdict('correct', 1.0, attempt)


def canonical(problem: Problem, text: str) -> str:
  """countdown's form of the calculation that an attempt writes in two equations."""
  match = _ATTEMPT.fullmatch(text)
  if match is None:
    return text
  a, first, b, x, c, second, d, _ = match.groups()
  inner = f'({a}{first}{b})'
  # as text: Python refuses to make numbers of thousands of digits
  whole = f'{c}{second}{inner}' if d == x and c != x else f'{inner}{second}{d}'
  return countdown.canonical(problem, whole)


def attempts(numbers: tuple[int, ...]) -> Iterator[tuple[str, int]]:
  """Every attempt over the three numbers with the value it ends at; repeats where numbers do."""
  for a, b, c in sorted(set(itertools.permutations(numbers))):
    for first, second, swap in itertools.product(_OPERATORS, _OPERATORS, (False, True)):
      x = _OPERATORS[first](a, b)
      left, right = (c, x) if swap else (x, c)
      y = _OPERATORS[second](left, right)
      yield f'{a}{first}{b}={x},{left}{second}{right}={y}', y


def make_problems(count: int, **params: Any) -> list[Problem]:
  """countdown's problems (countdown.make_problems), asked for with the way written out."""
  return [
    Problem(id=p.id, task=TASK, prompt=p.prompt, answer=p.answer)
    for p in countdown.make_problems(count, **params)
  ]


def corpus(problems: list[Problem], *, seed: int, noise: float) -> list[tuple[str, str]]:
  """One (prompt, completion) a problem: 0 to 2 attempts that miss, then one that hits.

  With chance `noise` the last one is any attempt at all.
  """
  rng = random.Random(f'corpus {TASK} {seed} {noise}')
  pairs = []
  for problem in problems:
    every = list(attempts(tuple(problem.answer['numbers'])))
    hits = [text for text, value in every if value == problem.answer['target']]
    misses = [text for text, value in every if value != problem.answer['target']]
    last = rng.choice([text for text, _ in every]) if rng.random() < noise else rng.choice(hits)
    chain = [*rng.sample(misses, rng.randint(0, 2)), last]
    pairs.append((str(problem.prompt), ';'.join(chain)))
  return pairs
