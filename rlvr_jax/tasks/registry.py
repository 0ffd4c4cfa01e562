"""Verifiers by name: which function judges a problem, and under which version of its rules.

A verifier is a pure function `verify(problem, completion) -> Verdict` at module level, so that a
worker process can import it by name. Besides the table, `path/to/file.py:function` names a function
of the user's; its version is the hash of the file. Such a function may also return a bool (correct
or wrong, reward 1 or 0) or a number (the reward; correct if and only if it is 1).
"""

import dataclasses
import functools
import importlib
import math
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from rlvr_jax.tasks import user_file
from rlvr_jax.tasks.problem import Problem, Verdict

_PYTHON = '.'.join(map(str, sys.version_info[:2]))  # what programs mean depends on it

VerifyFunction = Callable[[Problem, str], Verdict | bool | int | float]


@dataclasses.dataclass(frozen=True)
class Verifier:
  """Where a verifier lives ('module:function') and the version of its rules.

  distributions are the installed packages whose rules it takes part in: their versions belong to
  the verifier's version. One that runs_programs keeps the limits itself, of every run; its
  time-outs count if they are some again with nothing else running. `prepare()` of its module, if
  there is one, is called when it is loaded.
  """

  function: str
  rules: str
  distributions: tuple[str, ...] = ()
  runs_programs: bool = False

  @property
  def version(self) -> str:
    """For example 'strict-1+math-verify-0.9.0'. A new rule or package gives a new string."""
    packages = [f'{name}-{metadata.version(name)}' for name in self.distributions]
    return '+'.join([self.rules, *packages])


VERIFIERS: dict[str, Verifier] = {
  'math': Verifier(
    'rlvr_jax.tasks.math:verify_math', 'strict-3', ('math-verify', 'latex2sympy2_extended', 'sympy')
  ),
  'vision': Verifier(
    'rlvr_jax.tasks.vision:verify_vision',
    'vision-1+strict-3',
    ('math-verify', 'latex2sympy2_extended', 'sympy'),
  ),
  'paper': Verifier(
    'rlvr_jax.tasks.paper_grade:verify_paper',
    'paper-1',
    ('antlr4-python3-runtime', 'latex2sympy2_extended', 'sympy'),
  ),
  'reasoning_gym': Verifier(
    'rlvr_jax.tasks.procedural:verify_procedural', 'exact-1', ('reasoning-gym',)
  ),
  'code': Verifier(
    'rlvr_jax.tasks.code:verify_code', f'code-3+python-{_PYTHON}', runs_programs=True
  ),
  'none': Verifier('rlvr_jax.tasks.problem:unjudged', 'none-1'),  # samples to read, not to count
  'countdown': Verifier('rlvr_jax.tasks.countdown:verify', 'countdown-1'),
  'countdown_cot': Verifier('rlvr_jax.tasks.countdown_cot:verify', 'countdown_cot-1'),
  'machines': Verifier('rlvr_jax.tasks.machines:verify', 'machines-1'),
  'paths': Verifier('rlvr_jax.tasks.paths:verify', 'paths-1'),
  'shapes': Verifier('rlvr_jax.tasks.shapes:verify', 'shapes-1'),
}

# The pool's jobs that are no verifiers, named 'kind:name': the module has `version(name)` and
# `load(name)`, which gives a function of (problem, text) that puts its result into a Verdict.
# 'programs' are environments that run programs, and keep the limits of these themselves.
CALLS = {
  'environment': 'rlvr_jax.tasks.environments',
  'programs': 'rlvr_jax.tasks.environments',
  'reward': 'rlvr_jax.tasks.parts',
}
JUDGE = 'judged by'  # meta of such a job's problem: [its verifier, that one's version]


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
  if (call := _call(name)) is not None:
    module, inner = call
    return f'{name.partition(":")[0]}:{module.version(inner)}'
  return user_file.version(*_file_and_function(name))


def joined(versions: Iterable[str]) -> str:
  """One text for the versions of a mixture's verifiers; of one it is that."""
  return ' + '.join(sorted(set(versions)))


def verifiers_of(problems: Iterable[Problem]) -> str:
  """The versions of the verifiers that judge these problems (joined)."""
  return joined(verifier_version(verifier_name(problem)) for problem in problems)


def same_verifiers(before: str, now: str) -> bool:
  """Whether verdicts of these versions (joined) may stand together: earlier ones may be of some
  of a mixture's problems only."""
  return set(before.split(' + ')) <= set(now.split(' + '))


def runs_programs(name: str) -> bool:
  """Whether the named verifier (or call) runs what the completion says."""
  if is_call(name):
    return name.startswith('programs:')
  return name in VERIFIERS and VERIFIERS[name].runs_programs


def patience(name: str, limit_s: float) -> float:
  """Seconds after which a job of the verifier is lost. Where it keeps the limit itself, of each of
  many runs, that is late: for what goes wrong in it."""
  return 200.0 + 40.0 * limit_s if runs_programs(name) else limit_s


@functools.cache
def load_verifier(name: str, version: str) -> Callable[[Problem, str], Verdict]:
  """Imports the named verifier and wraps what it returns into a Verdict.

  Raises ValueError if it cannot be loaded, or if its version is not the given one (a file edited
  while a pool was running would otherwise mix two sets of rules under one version).
  """
  if name in VERIFIERS:
    module_name, function_name = VERIFIERS[name].function.split(':')
    module = importlib.import_module(module_name)
    getattr(module, 'prepare', lambda: None)()
    return functools.partial(_as_verdict, name, getattr(module, function_name))
  if version != verifier_version.__wrapped__(name):
    raise ValueError(
      f'verifier={name!r} was edited while the pool was running; start again to use the new rules'
    )
  if (call := _call(name)) is not None:
    module, inner = call
    return module.load(inner)
  function = user_file.find(*_file_and_function(name), f'verifier={name!r}')
  if not callable(function):
    raise ValueError(f'verifier={name!r} is a {type(function).__name__}, not a function')
  return functools.partial(_as_verdict, name, function)


def is_call(name: str) -> bool:
  """Whether a job's name is that of a call (CALLS), not of a verifier."""
  return name.partition(':')[0] in CALLS


def _call(name: str) -> tuple[ModuleType, str] | None:
  kind, _, inner = name.partition(':')
  return (importlib.import_module(CALLS[kind]), inner) if kind in CALLS else None


def judges(name: str, problem: Problem) -> list[tuple[str, str]]:
  """(name, version) of the verifiers that a job may ask besides its own: an environment's."""
  asks = name.partition(':')[0] in ('environment', 'programs') and JUDGE in problem.meta
  return [(problem.meta[JUDGE][0], problem.meta[JUDGE][1])] if asks else []


def as_call(problem: Problem, name: str) -> Problem:
  """The problem as that of a call: its own verifier stays known, by name and version."""
  judge = verifier_name(problem)
  meta = {**problem.meta, 'verifier': name, JUDGE: [judge, verifier_version(judge)]}
  return dataclasses.replace(problem, meta=meta)


def of_call(problem: Problem) -> Problem:
  """The problem that as_call was given, with its verifier named, and JUDGE, in its meta."""
  meta = {**problem.meta, 'verifier': problem.meta[JUDGE][0]}
  return dataclasses.replace(problem, meta=meta)


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
  return user_file.place(name, VERIFIERS, f'verifier={name!r}')
