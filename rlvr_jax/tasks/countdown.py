"""Three numbers, a target: an arithmetic task whose every completion can be enumerated.

A completion is a bare expression over + - * that uses each number once, in one of three forms:
a*b*c, (a*b)*c, a*(b*c). Nothing else is accepted, not even a blank, so that the set of correct
completions is finite and known, and a model's exact chance of solving a problem is a finite sum.
"""

import functools
import itertools
import operator
import random
import re
from collections.abc import Iterator

from rlvr_jax.tasks.problem import Problem, Verdict

VERSION = 'countdown-1'
TASK = 'countdown'
ALPHABET = '0123456789+-*()=,:'

_OPERATORS = {'+': operator.add, '-': operator.sub, '*': operator.mul}
_FORMS = (
  re.compile(r'([0-9]+)([-+*])([0-9]+)([-+*])([0-9]+)'),
  re.compile(r'\(([0-9]+)([-+*])([0-9]+)\)([-+*])([0-9]+)'),
  re.compile(r'([0-9]+)([-+*])\(([0-9]+)([-+*])([0-9]+)\)'),
)


def _value(form: int, a: int, first: str, b: int, second: str, c: int) -> int:
  f, g = _OPERATORS[first], _OPERATORS[second]
  return f(a, g(b, c)) if _right_first(form, first, second) else g(f(a, b), c)


def _right_first(form: int, first: str, second: str) -> bool:
  """Whether the second operation is done before the first."""
  return form == 2 or (form == 0 and second == '*' and first != '*')


def _text(form: int, a: int, first: str, b: int, second: str, c: int) -> str:
  return (
    f'{a}{first}{b}{second}{c}',
    f'({a}{first}{b}){second}{c}',
    f'{a}{first}({b}{second}{c})',
  )[form]


def verify(problem: Problem, completion: str) -> Verdict:
  """correct (reward 1), wrong (an expression, but not an answer) or unparsed; rewards 0."""
  for form, pattern in enumerate(_FORMS):
    match = pattern.fullmatch(completion)
    if match is None:
      continue
    a, first, b, second, c = match.groups()
    if any(len(s) > 1 and s[0] == '0' for s in (a, b, c)):
      return Verdict('unparsed', 0.0, completion, 'a number with a leading zero')
    # compared as text: Python refuses to make numbers of thousands of digits
    if sorted((a, b, c)) != sorted(map(str, problem.answer['numbers'])):
      return Verdict('wrong', 0.0, completion, 'does not use each number once')
    value = _value(form, int(a), first, int(b), second, int(c))
    if value != problem.answer['target']:
      return Verdict('wrong', 0.0, completion, f'equals {value}')
    return Verdict('correct', 1.0, completion)
  return Verdict('unparsed', 0.0, '', 'not an expression over three numbers')


def canonical(problem: Problem, text: str) -> str:
  """One text for all ways to write a calculation: (7+2)*3, 3*(2+7) and (2+7)*3 are '(+2+7)*3'.

  Terms and factors are in order, brackets that change nothing are gone; what is no expression over
  three numbers stays as it is.
  """
  for form, pattern in enumerate(_FORMS):
    if match := pattern.fullmatch(text):
      a, first, b, second, c = match.groups()
      right = _right_first(form, first, second)
      return _in_order((first, a, (second, b, c)) if right else (second, (first, a, b), c))
  return text


_Tree = str | tuple  # a number, or (operator, left, right)


def _in_order(tree: _Tree) -> str:
  return ''.join(sorted(_terms(tree, '+')))


def _terms(tree: _Tree, sign: str) -> list[str]:
  """What is added up, each with its sign."""
  if isinstance(tree, str) or tree[0] == '*':
    return [sign + '*'.join(sorted(_factors(tree)))]
  other = sign if tree[0] == '+' else '-' if sign == '+' else '+'
  return _terms(tree[1], sign) + _terms(tree[2], other)


def _factors(tree: _Tree) -> list[str]:
  if isinstance(tree, str):
    return [tree]
  if tree[0] == '*':
    return _factors(tree[1]) + _factors(tree[2])
  return [f'({_in_order(tree)})']


def expressions(numbers: tuple[int, ...]) -> Iterator[tuple[str, int]]:
  """Every accepted expression over the three numbers with its value, each string once."""
  for a, b, c in sorted(set(itertools.permutations(numbers))):
    for form, first, second in itertools.product(range(3), _OPERATORS, _OPERATORS):
      yield _text(form, a, first, b, second, c), _value(form, a, first, b, second, c)


@functools.cache
def _by_value(numbers: tuple[int, ...]) -> dict[int, tuple[str, ...]]:
  found: dict[int, list[str]] = {}
  for text, value in expressions(numbers):
    found.setdefault(value, []).append(text)
  return {value: tuple(texts) for value, texts in found.items()}


def solutions(problem: Problem) -> tuple[str, ...]:
  """Every correct completion of the problem: the verifier accepts these strings and no other."""
  numbers = tuple(sorted(problem.answer['numbers']))
  return _by_value(numbers).get(problem.answer['target'], ())


def _problem(numbers: tuple[int, ...], target: int) -> Problem:
  text = ','.join(map(str, numbers))
  return Problem(
    id=f'{text}={target}',
    task=TASK,
    prompt=f'{text}={target}:',
    answer={'numbers': list(numbers), 'target': target},
  )


def make_problems(
  count: int, *, seed: int, largest: int = 13, target: int = 99, skip: int = 0
) -> list[Problem]:
  """`count` distinct solvable problems, after the first `skip` of the same seeded order.

  Numbers are drawn from 1..largest and shown in ascending order, targets are the values in
  1..target of a random expression over them. One seed gives one endless order without repeats, so
  that splits made with different `skip` never share a problem.
  """
  rng = random.Random(f'countdown {seed} {largest} {target}')
  problems: dict[str, Problem] = {}
  idle = 0
  while len(problems) < skip + count:
    numbers = tuple(sorted(rng.randint(1, largest) for _ in range(3)))
    values = sorted(v for v in _by_value(numbers) if 1 <= v <= target)
    idle += 1
    if values:
      problem = _problem(numbers, rng.choice(values))
      if problem.id not in problems:
        problems[problem.id] = problem
        idle = 0
    if idle > 10_000:
      raise ValueError(
        f'task.params: {skip + count} problems were asked for, but numbers up to {largest} and '
        f'targets up to {target} give about {len(problems)}; raise largest or ask for fewer'
      )
  return list(problems.values())[skip:]


def corpus(problems: list[Problem], *, seed: int, noise: float) -> list[tuple[str, str]]:
  """One (prompt, completion) a problem: a random correct one, or with chance `noise` any at all."""
  rng = random.Random(f'corpus {seed} {noise}')
  pairs = []
  for problem in problems:
    numbers = tuple(problem.answer['numbers'])
    if rng.random() < noise:
      choices = [text for text, _ in expressions(numbers)]
    else:
      choices = list(solutions(problem))
    pairs.append((str(problem.prompt), rng.choice(choices)))
  return pairs
