"""A task in one file: sums, judged by a rule of its own, with a hint after a wrong answer.

  python main.py --config=configs/sample.py --config.task.module=docs/examples/sums.py \
    --config.task.limit=20 --config.task.turns=2 --config.evaluate.n=4 \
    --config.sampling.max_tokens=16 --workdir=runs/sums

`brief` is a part of a reward, in a training run: --config.reward.parts="{'correct': 1.0,
'docs/examples/sums.py:brief': 0.1}".
"""

import random
import re

from rlvr_jax.tasks.environments import Environment

ALPHABET = '0123456789+=<>?'  # of a model from scratch; not needed for one by name


def problems(params):
  """params['count'] sums of two numbers up to params['largest']."""
  rng = random.Random(params.get('seed', 0))
  for number in range(params.get('count', 200)):
    a, b = (rng.randint(0, params.get('largest', 99)) for _ in range(2))
    yield {'id': str(number), 'question': f'{a}+{b}=', 'answer': a + b}


def verify(problem, completion):
  """Right if the last number is the sum."""
  numbers = re.findall(r'[0-9]+', completion)
  return bool(numbers) and int(numbers[-1]) == int(problem.answer)


def hint(problem, state, completion):
  """After a wrong answer says on which side of it the right one lies."""
  numbers = re.findall(r'[0-9]+', completion)
  if not numbers:
    return '?', state
  given, right = int(numbers[-1]), int(problem.answer)
  if given == right:
    return None, state
  return '<' if right < given else '>', state


environment = Environment(hint, inline=True)  # as it is, without a template's line ends


def brief(completion, truncated):
  """1 for a short text, down to 0 at a hundred characters; 0 for one that was cut off."""
  return 0.0 if truncated else max(0.0, 1 - len(completion) / 100)
