"""A task in one file of the user's (task.module): its problems, and what else it defines.

def problems(params):            # task.params; Problems, or dicts like lines of a JSONL file
  yield {'id': '1', 'question': '1+1?', 'answer': '2'}

def verify(problem, completion):  # optional; see registry.py
  return completion.strip() == problem.answer

prompt = '{input} Answer: '       # optional; or a function of the problem
environment = 'retry'             # optional; see environments.py
ALPHABET, corpus                  # optional: as those of countdown.py, for models from scratch
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rlvr_jax.tasks import user_file
from rlvr_jax.tasks.jsonl import ANSWER_COLUMNS, ID_COLUMNS, PROMPT_COLUMNS, problems_of
from rlvr_jax.tasks.problem import Problem


def open_module(path: str) -> ModuleType:
  """The file as a module; ValueError if it is not there."""
  return user_file.load(Path(path).expanduser(), f'task.module={path!r}')


def make_problems(
  path: str,
  params: Mapping[str, Any],
  *,
  limit: int = 0,
  fields: Mapping[str, str] | None = None,
  verifier: str = '',
) -> list[Problem]:
  """Its problems, the first `limit` of them (0: all), judged by its verify unless one is named.

  Columns that every dict has, besides id, prompt and answer, are kept in meta. params['task'] names
  the task of dicts, by default the file's name. Raises ValueError for what does not fit.
  """
  where = f'task.module={path!r}'
  module = open_module(path)
  params = dict(params)
  task = str(params.pop('task', Path(path).stem))
  maker = user_file.find(Path(path).expanduser(), 'problems', where)
  if not callable(maker):
    raise ValueError(f'{where}: problems is a {type(maker).__name__}, not a function of params')
  found: Any = maker(params)
  if not isinstance(found, Iterable) or isinstance(found, str | Mapping):
    raise ValueError(
      f'{where}: problems(params) gave a {type(found).__name__}; it must give Problems or dicts, '
      'as a list or by yield'
    )
  items = list(itertools.islice(found, limit or None))
  if not items:
    raise ValueError(f'{where}: problems(params) gave nothing, with params={params}')
  if hasattr(module, 'verify'):
    if not callable(module.verify):
      raise ValueError(f'{where}: verify is a {type(module.verify).__name__}, not a function')
    verifier = verifier or f'{path}:verify'
  problems = _as_problems(items, where, task, fields or {}, verifier)
  return [_prompted(problem, getattr(module, 'prompt', None), where) for problem in problems]


def _as_problems(
  items: list[Any], where: str, task: str, fields: Mapping[str, str], verifier: str
) -> list[Problem]:
  if all(isinstance(item, Problem) for item in items):
    if not verifier:
      return items
    return [dataclasses.replace(p, meta={**p.meta, 'verifier': verifier}) for p in items]
  kinds = sorted({type(item).__name__ for item in items})
  if not all(isinstance(item, Mapping) for item in items):
    raise ValueError(
      f'{where}: problems(params) gave {", ".join(kinds)}; give Problems alone, or dicts alone'
    )
  used = {*ID_COLUMNS, *PROMPT_COLUMNS, *ANSWER_COLUMNS, *fields.values()}
  shared = set.intersection(*(set(item) for item in items))
  rows = ((f'{where}: problem {i}', dict(item)) for i, item in enumerate(items))
  return problems_of(
    rows, task=task, fields=fields, verifier=verifier or None, keep=tuple(sorted(shared - used))
  )


def _prompted(problem: Problem, prompt: Any, where: str) -> Problem:
  if prompt is None:
    return problem
  if isinstance(prompt, str):
    if '{input}' not in prompt or not isinstance(problem.prompt, str):
      raise ValueError(
        f'{where}: prompt={prompt!r} must have {{input}} in it, and the problems prompts of text'
      )
    return dataclasses.replace(problem, prompt=prompt.replace('{input}', problem.prompt))
  if not callable(prompt):
    raise ValueError(f'{where}: prompt is a {type(prompt).__name__}, neither text nor a function')
  made: Any = prompt(problem)
  if isinstance(made, list):
    made = tuple(made)
  chat = isinstance(made, tuple) and all(
    isinstance(m, Mapping) and {'role', 'content'} <= set(m) for m in made
  )
  if not made or not (isinstance(made, str) or chat):
    raise ValueError(
      f'{where}: prompt(problem) gave {made!r:.80}; it must give text or a list of {{"role", '
      '"content"}}'
    )
  return dataclasses.replace(problem, prompt=made)
