"""Forms that a reward asks of a completion, whatever its answer."""

import re


def think_box(completion: str) -> bool:
  r"""EasyR1's format: <think> at the start, </think>, then a \boxed{...}.

  Blanks around < > / do not count, as in its examples/reward_function/math.py; its regular
  expression, <think>.*</think>.*\boxed{.*}.* of the whole, is searched here from left to right.
  """
  text = re.sub(r'\s*([<>/])\s*', r'\1', completion)
  if not text.startswith('<think>'):
    return False
  place = 0
  for mark in ('<think>', '</think>', '\\boxed{', '}'):
    found = text.find(mark, place)
    if found < 0:
      return False
    place = found + len(mark)
  return True
