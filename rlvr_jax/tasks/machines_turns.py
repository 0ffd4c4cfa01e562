"""Machines as a conversation: the verifier names a case that fails, and the model tries again.

Problems and verifier are those of machines. A program that is not right is answered by the first
letter whose words come out wrong: 'aRcT:' 'a~-' 'c?' 'a~-c<<'; by '!?' where all words come out
right and the program is too long, and by '??' where it is none.
"""

import random
from typing import Any

from rlvr_jax.tasks import machines
from rlvr_jax.tasks.problem import Problem

TASK = 'machines_turns'
RULES = 'machines_turns-1'
ALPHABET = machines.ALPHABET + '?!'
TOO_LONG, NO_PROGRAM = '!?', '??'
MOST_MISSES = 2  # before the last answer of a conversation in the corpus
_END = '<eos>'  # between a completion and what is said to it

solutions = machines.solutions


def case(problem: Problem, state: Any, completion: str) -> tuple[str | None, Any, float]:
  """'c?' where c is the first letter whose words come out wrong, '!?', '??'; None if all is right.

  The reward of the turn is the verifier's, the share of tests that the program passes.
  """
  judged = machines.verify(problem, completion)
  if judged.verdict == 'correct':
    return None, state, 0.0
  cases = machines.parse(completion)
  if cases is None:
    return NO_PROGRAM, state, judged.reward
  for word, after in machines.tests(problem):
    if machines.run(cases.get(word[0], ''), word) != after:
      return f'{word[0]}?', state, judged.reward
  return TOO_LONG, state, judged.reward


def make_problems(count: int, *, talk: float = 0.5, **params: Any) -> list[Problem]:
  """The problems of machines (machines.make_problems), judged by its verifier.

  talk: share of conversations in the corpus.
  """
  if not 0 <= talk <= 1:
    raise ValueError(f'task.params.talk={talk} must be between 0 and 1')
  return [
    Problem(
      id=p.id, task=TASK, prompt=p.prompt, answer=p.answer,
      meta={**p.meta, 'verifier': machines.TASK, 'talk': talk},
    )
    for p in machines.make_problems(count, **params)
  ]  # fmt: skip


def corpus(problems: list[Problem], *, seed: int, noise: float) -> list[tuple[str, str]]:
  """One (prompt, completion) a problem: that of machines, a share of them after a conversation.

  The conversation is one or two programs that miss by a case, each answered.
  """
  rng = random.Random(f'corpus {TASK} {seed} {noise}')
  pairs = []
  for problem, (_, last) in zip(
    problems, machines.corpus(problems, seed=seed, noise=noise), strict=True
  ):
    prompt = str(problem.prompt)
    for _ in range(rng.randint(1, MOST_MISSES) if rng.random() < problem.meta['talk'] else 0):
      missed = _miss(problem, rng)
      said, _, _ = case(problem, None, missed)
      assert said is not None
      prompt += f'{missed}{_END}{said}'
    pairs.append((prompt, last))
  return pairs


def _miss(problem: Problem, rng: random.Random) -> str:
  """A right program with one case left out, or with other primitives in it, or with one more."""
  right = {
    letter: ''.join(machines.NAMED[name] for name in names)
    for letter, names in machines.asked(problem).items()
  }
  while True:
    cases = dict(right)
    letter = rng.choice(machines.LETTERS)
    body = ''.join(rng.choices(machines.PRIMITIVES, k=machines.ROOM))
    if letter in cases and len(cases) > 1 and rng.random() < 0.5:
      del cases[letter]
    else:
      cases[letter] = body
    program = ''.join(name + cases[name] for name in sorted(cases))
    if machines.verify(problem, program).verdict != 'correct':
      return program
