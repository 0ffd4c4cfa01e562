"""Reward parts in files of the user's, run by the verifier pool; the built-in ones are rl/parts.py.

  def length(completion, truncated):  # any of PARAMETERS, by their names
    return -len(completion) / 1000

A part gives a number, which never decides a verdict.
"""

import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path

from rlvr_jax.tasks import user_file
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import as_call, of_call

PARAMETERS = ('problem', 'completion', 'verdict', 'length', 'truncated')


def version(name: str) -> str:
  """The file's content stands for a part's rules."""
  return user_file.version(*_place(name))


def load(name: str) -> Callable[[Problem, str], Verdict]:
  """The part 'file.py:function' as a job of the pool; the value is the reward of its verdict.

  Raises ValueError for what is no function, or takes something that is not among PARAMETERS.
  """
  what = f'reward.parts[{name!r}]'
  function = user_file.find(*_place(name), what)
  if not callable(function):
    raise ValueError(f'{what} is a {type(function).__name__}, not a function')
  taken = inspect.signature(function).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in taken):
    return functools.partial(_value, name, function, PARAMETERS)
  strange = [p.name for p in taken if p.name not in PARAMETERS and p.default is p.empty]
  if strange:
    raise ValueError(
      f'{what} takes {", ".join(strange)}; a part may take {", ".join(PARAMETERS)}, by these names'
    )
  names = tuple(p.name for p in taken if p.name in PARAMETERS)
  return functools.partial(_value, name, function, names)


def job_of(problem: Problem, name: str) -> Problem:
  """The problem as that of calls of the named part; see registry.as_call."""
  return as_call(problem, f'reward:{name}')


def call_text(completion: str, verdict: Verdict, *, length: int, truncated: bool) -> str:
  """The text of such a job."""
  return json.dumps([completion, dataclasses.asdict(verdict), length, truncated])


def _value(
  name: str, function: Callable, names: tuple[str, ...], problem: Problem, text: str
) -> Verdict:
  completion, verdict, length, truncated = json.loads(text)
  given = of_call(problem), completion, Verdict(**verdict), length, truncated
  values = {key: x for key, x in zip(PARAMETERS, given, strict=True) if key in names}
  value = function(**values)
  if not isinstance(value, bool | int | float):
    raise TypeError(f'reward part {name} returned a {type(value).__name__}; return a number')
  if not math.isfinite(value):
    raise ValueError(f'reward part {name} gave {value}; it must be finite')
  return Verdict('unparsed', float(value))


def _place(name: str) -> tuple[Path, str]:
  found = user_file.split(name)
  if found is None:
    raise ValueError(f'reward.parts[{name!r}]: not of the form path/to/file.py:function')
  user_file.existing(found[0], f'reward.parts[{name!r}]')
  return found
