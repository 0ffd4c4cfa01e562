"""Verifiers by name: which function judges a problem, and under which version of its rules.

A verifier is a pure function `verify(problem, completion) -> Verdict` at module level, so that a
worker process can import it by name. Besides the table, `path/to/file.py:function` names a function
of the user's; its version is the hash of the file. Such a function may also return a bool (correct
or wrong, reward 1 or 0) or a number (the reward; correct if and only if it is 1).
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from rlvr_jax.tasks.problem import Problem, Verdict

VerifyFunction = Callable[[Problem, str], Verdict | bool | int | float]


@dataclasses.dataclass(frozen=True)
class Verifier:
  """Where a verifier lives ('module:function') and the version of its rules.

  distributions are the installed packages whose rules it takes part in: their versions belong to
  the verifier's version.
  """

  function: str
  rules: str
  distributions: tuple[str, ...] = ()

  @property
  def version(self) -> str:
    """For example 'strict-1+math-verify-0.9.0'. A new rule or package gives a new string."""
    packages = [f'{name}-{metadata.version(name)}' for name in self.distributions]
    return '+'.join([self.rules, *packages])


VERIFIERS: dict[str, Verifier] = {
  'math': Verifier(
    'rlvr_jax.tasks.math:verify_math', 'strict-2', ('math-verify', 'latex2sympy2_extended', 'sympy')
  ),
  'paper': Verifier(
    'rlvr_jax.tasks.paper_grade:verify_paper',
    'paper-1',
    ('antlr4-python3-runtime', 'latex2sympy2_extended', 'sympy'),
  ),
  'reasoning_gym': Verifier(
    'rlvr_jax.tasks.procedural:verify_procedural', 'exact-1', ('reasoning-gym',)
  ),
  'none': Verifier('rlvr_jax.tasks.problem:unjudged', 'none-1'),  # samples to read, not to count
  'countdown': Verifier('rlvr_jax.tasks.countdown:verify', 'countdown-1'),
  'countdown_cot': Verifier('rlvr_jax.tasks.countdown_cot:verify', 'countdown_cot-1'),
}


def verifier_name(problem: Problem) -> str:
  """The name of the problem's verifier: meta['verifier'], else its task if a verifier has that
  name, else 'math'."""
  named = problem.meta.get('verifier')
  if named is not None:
    return str(named)
  return problem.task if problem.task in VERIFIERS else 'math'


@functools.cache
def verifier_version(name: str) -> str:
  """The version of the named verifier's rules, without importing it.

  Raises ValueError for a name that is neither in the table nor an existing 'file.py:function'.
  """
  if name in VERIFIERS:
    return f'{name}:{VERIFIERS[name].version}'
  path, function = _file_and_function(name)
  return f'{path.name}:{function}:{_digest(path)}'


def load_verifier(name: str, version: str) -> Callable[[Problem, str], Verdict]:
  """Imports the named verifier and wraps what it returns into a Verdict.

  Raises ValueError if it cannot be loaded, or if its version is not the given one (a file edited
  while a pool was running would otherwise mix two sets of rules under one version).
  """
  if name in VERIFIERS:
    module_name, function_name = VERIFIERS[name].function.split(':')
    module = importlib.import_module(module_name)
  else:
    path, function_name = _file_and_function(name)
    if version != f'{path.name}:{function_name}:{_digest(path)}':
      raise ValueError(
        f'verifier={name!r} was edited while the pool was running; start again to use the new rules'
      )
    module_name = f'_verifier_{_digest(path)}'
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
      raise ValueError(f'verifier={name!r}: {path} is not a Python file')
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(path.parent.absolute()))  # what it imports may lie beside it
    spec.loader.exec_module(module)
  function = getattr(module, function_name, None)
  if not callable(function):
    raise ValueError(
      f'verifier={name!r}: {module.__file__} has no function {function_name!r}; '
      f'it defines {", ".join(n for n in vars(module) if not n.startswith("_"))}'
    )
  return functools.partial(_as_verdict, name, function)


def _as_verdict(name: str, function: Callable[..., Any], problem: Problem, text: str) -> Verdict:
  value = function(problem, text)
  if isinstance(value, Verdict):
    verdict = value
  elif isinstance(value, bool | int | float):
    verdict = Verdict('correct' if value == 1 else 'wrong', float(value))
  else:
    raise TypeError(
      f'verifier {name} returned a {type(value).__name__}; return a Verdict, a bool or a number'
    )
  if not math.isfinite(verdict.reward):
    raise ValueError(f'verifier {name} gave the reward {verdict.reward}; it must be finite')
  return verdict


def _file_and_function(name: str) -> tuple[Path, str]:
  path_text, colon, function = name.rpartition(':')
  if not colon or not path_text.endswith('.py') or not function:
    near = difflib.get_close_matches(name, VERIFIERS, n=1)
    raise ValueError(
      f'verifier={name!r} is not known'
      + (f'; did you mean {near[0]!r}?' if near else '')
      + f' (one of {", ".join(VERIFIERS)}, or path/to/file.py:function)'
    )
  path = Path(path_text).expanduser()
  if not path.is_file():
    raise ValueError(f'verifier={name!r}: there is no file {path.absolute()}')
  return path, function


def _digest(path: Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
