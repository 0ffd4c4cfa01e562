"""What a completion says, whichever way it is written: for credit that is shared by answers.

The module of a task's verifier may define canonical(problem, text) -> str, of the answer that the
verifier found (of the whole completion where it names none): equal strings are one answer. So may
the file of task.module, or of 'file.py:function'. Without one it is the answer's text.
"""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path

from rlvr_jax.tasks import user_file
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import VERIFIERS, verifier_name

ONE_ANSWER = ('math', 'paper', 'vision')  # verifiers to which all right answers are the same
RIGHT = '\0right'  # their form; no text is it


def form_of(problem: Problem, text: str, verdict: Verdict, kind: str) -> str:
  """The form of a judged completion, by kind: of its answer, or of the completion as a whole.

  'completion' is the text up to white space. 'answer' is the canonical form, the same for all right
  answers where the verifier compares with one.
  """
  if kind == 'completion':
    return ' '.join(text.split())
  name = verifier_name(problem)
  if name in ONE_ANSWER:
    return RIGHT if verdict.verdict == 'correct' else verdict.extracted.strip()
  found = verdict.extracted or ('' if verdict.verdict == 'unparsed' else text)
  canonical = _canonical(name)
  if canonical is None or not found:
    return ' '.join(found.split())
  form = canonical(problem, found)
  if not isinstance(form, str):
    raise ValueError(
      f'canonical of the verifier {name!r} gave a {type(form).__name__} for {found!r:.80}; it must '
      'give text'
    )
  return form


@functools.cache
def _canonical(name: str) -> Callable[[Problem, str], str] | None:
  if name in VERIFIERS:
    module = importlib.import_module(VERIFIERS[name].function.partition(':')[0])
  else:
    path = name.rpartition(':')[0]
    module = user_file.load(Path(path).expanduser(), f'verifier={name!r}')
  return getattr(module, 'canonical', None)
