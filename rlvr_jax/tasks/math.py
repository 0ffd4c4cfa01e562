"""The strict verifier of mathematical answers. Pure: its only clock and memory limit is the pool.

Rules: extract.py says where the answer stands, answers.py when two are the same. A change of rules
changes the version in registry.py.
"""

import functools

# Loaded with this module: its second of imports would else count against the first verdict.
import latex2sympy2_extended  # noqa: F401
import math_verify  # noqa: F401

from rlvr_jax.tasks.answers import same_answer
from rlvr_jax.tasks.extract import extract_answer
from rlvr_jax.tasks.normal import normalise
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.symbolic import UnreadableError

_MAX_CHARACTERS = 1000  # of an answer; longer ones are run-away text


def verify_math(problem: Problem, completion: str) -> Verdict:
  """Judges the completion's final answer against problem.answer (a string). Reward 1 or 0.

  unparsed: there is no final answer, or it cannot be read. Raises ValueError for a gold that is
  not a string or is empty, which every answer would equal.
  """
  gold = problem.answer
  if not isinstance(gold, str) or not normalise(gold):
    raise ValueError(
      f'problem {problem.task}/{problem.id}: the gold answer {gold!r} is not a non-empty text'
    )
  found = extract_answer(completion)
  if found is None:
    return Verdict('unparsed', 0.0, '', 'no answer')
  if found.text is None or not found.text.strip('$ '):
    return Verdict('unparsed', 0.0, '', found.how if found.text is None else 'the answer is empty')
  if len(found.text) > max(_MAX_CHARACTERS, 4 * len(gold)):
    return Verdict('unparsed', 0.0, found.text, 'the answer is too long')
  correct, why = _compare(gold, found.text)
  if correct is None:
    return Verdict('unparsed', 0.0, found.text, why)
  return Verdict('correct' if correct else 'wrong', float(correct), found.text, found.how)


@functools.lru_cache(maxsize=16_384)  # of 1024 completions of a problem few answers differ
def _compare(gold: str, given: str) -> tuple[bool | None, str]:
  """(whether the answers are the same, ''), or (None, why the given one cannot be read)."""
  try:
    return same_answer(gold, given), ''
  except UnreadableError as error:
    return None, str(error)
