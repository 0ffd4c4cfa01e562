"""Countdown as a conversation: a wrong expression is answered, and the model tries again.

Problems and verifier are countdown's. `value` says what an expression came to, `again` only that it
was wrong, in characters of the alphabet, so that a small model trained from scratch on `corpus` can
read them: '2,3,4=21:' '3*4+2' '=14?' '3*(3+4)' '!?' '3*(4*2)' ...
"""

import random
from typing import Any

from rlvr_jax.tasks import countdown
from rlvr_jax.tasks.problem import Problem

TASK = 'countdown_turns'
RULES = 'countdown_turns-1'
ALPHABET = countdown.ALPHABET + '?!'
AGAIN, WRONG_NUMBERS, NO_EXPRESSION = '?', '!?', '??'
MOST_TURNS = 4  # of a conversation in the corpus
_END = '<eos>'  # between a completion and what is said to it
_SLIPS = 0.04  # share of the corpus' earlier completions that use another number, or are cut short


def value(problem: Problem, state: Any, completion: str) -> tuple[str | None, Any, float]:
  """'=14?' for an expression of the numbers that comes to 14, '!?' for one of other numbers, '??'.

  None where it is right. The reward of the turn says how near it came: 1/(1 + |14 - target|).
  """
  said = _answer(problem, completion)
  reward = 0.0
  if said is not None and said.startswith('='):
    reward = 1 / (1 + abs(int(said[1:-1]) - problem.answer['target']))
  return said, state, reward


def again(problem: Problem, state: Any, completion: str) -> tuple[str | None, Any]:
  """'?' for whatever is not right: another try without information."""
  return (None if _answer(problem, completion) is None else AGAIN), state


def _answer(problem: Problem, completion: str) -> str | None:
  judged = countdown.verify(problem, completion)
  if judged.verdict == 'correct':
    return None
  if judged.verdict == 'unparsed':
    return NO_EXPRESSION
  _, equals, number = judged.reason.partition('equals ')
  return f'={number}?' if equals else WRONG_NUMBERS


def make_problems(count: int, **params: Any) -> list[Problem]:
  """countdown's problems (countdown.make_problems), judged by its verifier."""
  return [
    Problem(id=p.id, task=TASK, prompt=p.prompt, answer=p.answer, meta={'verifier': countdown.TASK})
    for p in countdown.make_problems(count, **params)
  ]


def corpus(problems: list[Problem], *, seed: int, noise: float) -> list[tuple[str, str]]:
  """One (prompt, completion) a problem: the last turn of a conversation and all before it.

  0 to 3 different completions before it missed, and were answered by `value` in one half of the
  conversations, by `again` in the other. The last one is right, or with chance `noise` any at all.
  """
  rng = random.Random(f'corpus {TASK} {seed} {noise}')
  return [_conversation(problem, rng, noise) for problem in problems]


def _conversation(problem: Problem, rng: random.Random, noise: float) -> tuple[str, str]:
  target = problem.answer['target']
  every = list(countdown.expressions(tuple(problem.answer['numbers'])))
  misses = [text for text, found in every if found != target]
  tries = rng.sample(misses, rng.randrange(MOST_TURNS))
  respond = value if rng.random() < 0.5 else again
  prompt = str(problem.prompt)
  for text in tries:
    shown = _slip(text, rng) if rng.random() < _SLIPS else text
    said = respond(problem, None, shown)[0]
    if said is not None:  # a slip may hit
      prompt += f'{shown}{_END}{said}'
  if rng.random() < noise:
    return prompt, rng.choice(every)[0]
  return prompt, rng.choice(countdown.solutions(problem))


def _slip(text: str, rng: random.Random) -> str:
  """The expression with a digit more or without its end."""
  place = rng.randrange(1, len(text))
  return text[:place] if rng.random() < 0.5 else text[:place] + rng.choice('123') + text[place:]
