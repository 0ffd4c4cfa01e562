"""Programs of a tiny language, judged by tests: a task with a reward between nothing and all.

The prompt 'aRcTL:' asks for a machine: words that begin with a are to go through R, those that
begin with c through T and then L. The completion is its program, 'a~-c<<>-': a case for a letter,
in ascending order, each followed by the primitives that its words go through. NAMED says what R, T
and L do, in primitives; the prompt does not. Hidden tests run the program on words of every letter
asked for, and one looks at its size. The verdict is correct if all are passed, the reward is the
share that is (reward.parts: correct; `exact` is 1 or 0).

The interpreter knows nothing but PRIMITIVES, and gives up after STEPS of them.
"""

import functools
import itertools
import random
import re
from collections.abc import Iterator, Sequence

from rlvr_jax.tasks.problem import Problem, Verdict

VERSION = 'machines-2'
TASK = 'machines'
LETTERS = 'abcdef'
PRIMITIVES = '~-+<>'  # reverse, drop the first, double the first, turn left, turn right
NAMED = {'R': '~-', 'F': '--', 'D': '++', 'L': '>-', 'T': '<<', 'E': '>+'}
ALPHABET = LETTERS + PRIMITIVES + ''.join(NAMED) + ':'
SPLITS = ('hard', 'easy', 'exploratory', 'compositional', 'transformative')
STEPS = 64
ROOM = 2  # primitives that a case may have for each named operation: as many as NAMED has

_PROGRAM = re.compile(rf'(?:[{LETTERS}][{re.escape(PRIMITIVES)}]+)+')
_CASE = re.compile(rf'([{LETTERS}])([{re.escape(PRIMITIVES)}]+)')
_ASKED = re.compile(rf'([{LETTERS}]+)([{"".join(NAMED)}]+)')
_WORDS = ('{0}', '{0}x', '{0}xyz', '{0}xyxy')  # tests of a letter


def run(body: str, word: str) -> str | None:
  """What the primitives of a case make of a word; None after STEPS of them."""
  if len(body) > STEPS:
    return None
  for primitive in body:
    if primitive == '~':
      word = word[::-1]
    elif primitive == '-':
      word = word[1:]
    elif primitive == '+':
      word = word[:1] + word
    elif primitive == '<':
      word = word[1:] + word[:1]
    else:
      word = word[-1:] + word[:-1]
  return word


def parse(program: str) -> dict[str, str] | None:
  """The cases of a program, letter -> body; None for what is none."""
  if not _PROGRAM.fullmatch(program):
    return None
  cases = _CASE.findall(program)
  letters = [letter for letter, _ in cases]
  return dict(cases) if letters == sorted(set(letters)) else None


def asked(problem: Problem) -> dict[str, str]:
  """letter -> the named operations that its words go through."""
  return dict(problem.answer['cases'])


def tests(problem: Problem) -> list[tuple[str, str]]:
  """(a word, what it becomes) of every test that runs the program."""
  found = []
  for letter, names in asked(problem).items():
    body = ''.join(NAMED[name] for name in names)
    for form in _WORDS:
      word = form.format(letter)
      after = run(body, word)
      assert after is not None
      found.append((word, after))
  return found


def verify(problem: Problem, completion: str) -> Verdict:
  """correct if all tests are passed; unparsed if it is no program; the reward is the share passed.

  The last test is the program's size: no more cases than letters asked for, and in each at most
  ROOM primitives for every named operation.
  """
  cases = parse(completion)
  if cases is None:
    return Verdict('unparsed', 0.0, '', 'not a program: cases in ascending order')
  wanted = asked(problem)
  fits = len(cases) <= len(wanted) and all(
    len(body) <= ROOM * len(wanted.get(letter, NAMED)) for letter, body in cases.items()
  )
  checks = tests(problem)
  passed = sum(run(cases.get(word[0], ''), word) == after for word, after in checks) + fits
  share = passed / (len(checks) + 1)
  if passed == len(checks) + 1:
    return Verdict('correct', 1.0, completion)
  return Verdict('wrong', share, completion, f'passes {passed} of {len(checks) + 1} tests')


def _effect(body: str) -> tuple[str | None, ...]:
  return tuple(run(body, form.format('a')) for form in _WORDS)


@functools.cache
def _bodies(longest: int) -> dict[tuple[str | None, ...], tuple[str, ...]]:
  """Every body of at most so many primitives, by what it makes of the tests' words."""
  found: dict[tuple[str | None, ...], list[str]] = {}
  for length in range(1, longest + 1):
    for body in map(''.join, itertools.product(PRIMITIVES, repeat=length)):
      found.setdefault(_effect(body), []).append(body)
  return {effect: tuple(bodies) for effect, bodies in found.items()}


def solutions(problem: Problem) -> tuple[str, ...]:
  """Every correct completion of the problem: the verifier accepts these strings and no other.

  All letters asked for need a case, so that there is room for no other, and the letters' cases can
  be chosen each by itself.
  """
  each = []
  for letter, names in sorted(asked(problem).items()):
    body = ''.join(NAMED[name] for name in names)
    each.append([letter + one for one in _bodies(ROOM * len(names))[_effect(body)]])
  return tuple(''.join(cases) for cases in itertools.product(*each))


def _problem(text: str, split: str) -> Problem:
  cases = [[letter, names] for letters, names in _ASKED.findall(text) for letter in letters]
  return Problem(
    id=text, task=TASK, prompt=f'{text}:', answer={'cases': cases}, meta={'split': split}
  )


def _texts(split: str, cases: int, rng: random.Random) -> Iterator[str]:
  """An endless line of prompts of a split.

  easy: one or two letters with an operation each, or one letter with two. hard: `cases` letters,
  an operation each. exploratory: more letters. compositional: as hard, but one letter has two
  operations. transformative: as hard, but letters that share an operation are named together, abR
  for aRbR. step: as hard, with fewer letters.
  """
  names = sorted(NAMED)

  def chain(length: int) -> str:
    while True:
      found = ''.join(rng.choice(names) for _ in range(length))
      if _effect(''.join(NAMED[name] for name in found)) != _effect(''):  # DF does nothing
        return found

  while True:
    if split == 'easy':
      count, lengths = rng.choice(((1, (1,)), (2, (1, 1)), (2, (1, 1)), (1, (2,))))
    elif split == 'exploratory':
      count = rng.randint(cases + 1, len(LETTERS))
      lengths = (1,) * count
    else:
      count = rng.randrange(1, cases) if split == 'step' else cases
      lengths = (1,) * count
    letters = sorted(rng.sample(LETTERS, count))
    if split == 'transformative':
      cut = rng.randint(1, cases - 1)
      first, second = rng.sample(names, 2)
      yield ''.join(letters[:cut]) + first + ''.join(letters[cut:]) + second
      continue
    if split == 'compositional':
      lengths = [1] * cases
      lengths[rng.randrange(cases)] = 2
    yield ''.join(letter + chain(n) for letter, n in zip(letters, lengths, strict=True))


def make_problems(
  count: int,
  *,
  seed: int,
  train: str = 'easy',
  cases: int = 4,
  held: int = 200,
  without: Sequence[str] = (),
  skip: int = 0,
) -> list[Problem]:
  """`count` distinct problems, after the first `skip` of the same seeded order.

  The first `held` are the same whatever the rest is, as many of each of SPLITS, in that order;
  meta['split'] says which. They are to be held out (task.holdout). The rest are of the split
  `train`, or of 'ladder': hard ones, and before each of them one with fewer cases. cases: letters
  of a hard problem. without: ids that are left out. ValueError names the parameter that does not
  fit.
  """
  known = (*SPLITS, 'ladder')
  if train not in known:
    raise ValueError(f'task.params.train={train!r} is none of {", ".join(known)}')
  if not 3 <= cases < len(LETTERS):
    raise ValueError(
      f'task.params.cases={cases} must be between 3 and {len(LETTERS) - 1}: exploratory problems '
      'have more'
    )
  if held < 0 or held % len(SPLITS):
    raise ValueError(f'task.params.held={held} must be a multiple of {len(SPLITS)}, the splits')
  lines = {
    split: _texts(split, cases, random.Random(f'{VERSION} {seed} {cases} {split}'))
    for split in (*SPLITS, 'step')
  }
  problems: dict[str, Problem] = {}
  while len(problems) < skip + count:
    at = len(problems)
    split = SPLITS[at * len(SPLITS) // held] if at < held else train
    if split == 'ladder':
      split = ('step', 'hard')[(at - held) % 2]
    for text in itertools.islice(lines[split], 20_000):
      if text not in problems and text not in without:
        problems[text] = _problem(text, split)
        break
    else:
      raise ValueError(
        f'task.params: {skip + count} problems were asked for, but there are about {at} of '
        f'train={train!r}; ask for fewer'
      )
  return list(problems.values())[skip:]


def corpus(problems: Sequence[Problem], *, seed: int, noise: float) -> list[tuple[str, str]]:
  """One (prompt, completion) a problem: the program NAMED spells, with chance `noise` a case put in
  that nobody asked for: of any other letter, with any body of two primitives."""
  rng = random.Random(f'corpus {TASK} {seed} {noise}')
  pairs = []
  for problem in problems:
    cases = {x: ''.join(NAMED[name] for name in names) for x, names in asked(problem).items()}
    if rng.random() < noise:
      letter = rng.choice(sorted(set(LETTERS) - set(cases)))
      cases[letter] = ''.join(rng.choices(PRIMITIVES, k=ROOM))
    pairs.append((str(problem.prompt), ''.join(x + cases[x] for x in sorted(cases))))
  return pairs
