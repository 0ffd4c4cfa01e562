"""Problems by the config's task group: what to train on and what is held out."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlvr_jax.config import parse_literal
from rlvr_jax.tasks import (
  countdown,
  countdown_cot,
  countdown_turns,
  environments,
  images,
  jsonl,
  machines,
  machines_turns,
  mixed,
  module,
  paths,
  procedural,
  prompts,
  self_check,
  shapes,
  user_file,
)
from rlvr_jax.tasks.datasets import load as datasets
from rlvr_jax.tasks.datasets import table
from rlvr_jax.tasks.problem import Problem, check_unique

# tasks that a model from scratch can be trained on: they have an alphabet and a corpus of their own
FAMILIES = {
  'countdown': countdown,
  'countdown_cot': countdown_cot,
  'countdown_turns': countdown_turns,
  'machines': machines,
  'machines_turns': machines_turns,
  'paths': paths,
  'shapes': shapes,
}
TASKS = (*FAMILIES, 'jsonl', 'parquet', 'reasoning_gym', mixed.NAME)
_FILES = ('jsonl', 'parquet')  # the file's suffix decides, the name is the user's choice


def family(task: Mapping[str, Any]) -> Any:
  """The module that has the ALPHABET and corpus of a task group, None if there is none."""
  if task.get('module'):
    found = module.open_module(task['module'])
    return found if hasattr(found, 'ALPHABET') else None
  if task['name'] == mixed.NAME:
    return mixed.family(task, family)
  return FAMILIES.get(task['name'])


def solutions_of(task: Mapping[str, Any]) -> Callable[[Problem], tuple[str, ...]] | None:
  """What gives every correct completion of a problem of the task group: `solutions` of a family of
  texts; None where they are not known, as of tasks that a module or an environment makes."""
  own = FAMILIES.get(task['name'])
  if own is shapes or task.get('module') or environment_of(task):
    return None
  if task['name'] == mixed.NAME:
    return mixed.solutions(task, solutions_of)
  return getattr(own, 'solutions', None)


def environment_of(task: Mapping[str, Any]) -> str:
  """The name of a task group's environment, '' if it has none; ValueError if it cannot be used."""
  name, path = task.get('environment') or '', task.get('module') or ''
  if not name and path and hasattr(module.open_module(path), 'environment'):
    name = f'{path}:environment'
  if name:
    environments.find(name)
  return name


def load_problems(task: Mapping[str, Any]) -> tuple[list[Problem], list[Problem]]:
  """(train, held-out) problems of a task group (configs/base.py: name, path, params, ...).

  Of a benchmark with both, split '' trains on its train split and holds out its test split (at
  most `holdout` of it, if that is set). Otherwise the first `holdout` problems are held out, the
  rest trained on; with holdout 0 the second list is empty. Golds are checked (self_check.py).
  ValueError names the key that does not fit.
  """
  limit, holdout = int(task['limit']) or None, int(task['holdout'])
  if task['name'] in TASKS or task.get('module'):
    for key in ('split', 'where'):
      if task.get(key):
        raise ValueError(
          f'task.{key}={task[key]!r}: only benchmarks have that; task.limit and task.holdout are '
          'for all'
        )
  if task['name'] == mixed.NAME and not task.get('module'):
    found = mixed.load(task, load_problems)
    check_unique([problem for problems in found for problem in problems])
    return found
  splits = _splits(task, limit)
  if task['verifier']:
    splits = {
      name: [
        dataclasses.replace(p, meta={**p.meta, 'verifier': task['verifier']}) for p in problems
      ]
      for name, problems in splits.items()
    }
  every = [problem for problems in splits.values() for problem in problems]
  check_unique(every)
  mode, allow = task.get('self_check', 'auto'), task.get('allow', ())
  kept = {problem.id for problem in self_check.checked(every, mode=mode, allow=allow)}
  template = task.get('template', 'raw')
  problems, *rest = (
    prompts.with_prefix([p for p in problems if p.id in kept], template)
    for problems in splits.values()
  )
  if rest:  # train and test
    return problems, rest[0][: holdout or None]
  if holdout >= len(problems) and holdout:
    raise ValueError(
      f'task.holdout={holdout} leaves nothing of {len(problems)} problems to train on; lower it'
    )
  return problems[holdout:], problems[:holdout]


def _splits(task: Mapping[str, Any], limit: int | None) -> dict[str, list[Problem]]:
  """split -> problems; ('': of a task that has none)."""
  name, params = task['name'], dict(task['params'])
  if task.get('module'):
    problems = module.make_problems(
      task['module'],
      params,
      limit=limit or 0,
      fields={k: v for k, v in task['fields'].items() if v},
      verifier=task['verifier'],
    )
  elif name in _FILES:
    problems = jsonl.load_jsonl(
      task['path'],
      task=params.pop('task', name),
      fields={k: v for k, v in task['fields'].items() if v},
      limit=limit,
      verifier=task['verifier'] or None,
    )
  elif name in FAMILIES:
    count = int(params.pop('problems', 4000)) + int(task['holdout'])
    problems = FAMILIES[name].make_problems(limit or count, **{'seed': 1, **params})
  elif name == 'reasoning_gym':
    params.setdefault('task', f'reasoning_gym.{params.get("dataset")}')
    problems = procedural.load_procedural(**params)[:limit]
  else:
    table.find(name, TASKS)
    loaded = datasets.load_benchmark(
      name, path=task['path'], split=str(task.get('split', '')), params=_filters(task)
    )
    ordered = sorted(loaded, key=lambda one: one != 'train')
    return {one: loaded[one][:limit] for one in ordered}
  return {'': problems}


def _with_images(task: Mapping[str, Any], content: str) -> str:
  """The hash of a file's content with that of the images that its rows name, if they do."""
  fields = {k: v for k, v in task.get('fields', {}).items() if v}
  if 'images' not in fields:
    return content
  problems = jsonl.load_jsonl(task['path'], task=task['name'], fields=fields, verifier='none')
  text = json.dumps([content, *(images.digest(problem) for problem in problems)])
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _filters(task: Mapping[str, Any]) -> dict[str, Any]:
  """A benchmark's filters: task.params, and over them task.where, 'level=4,5; since=2024-08-01'."""
  # configs made for a file name its task in params
  filters = {name: value for name, value in task['params'].items() if name != 'task'}
  where = str(task.get('where', ''))
  for part in filter(None, (part.strip() for part in where.split(';'))):
    name, equals, values = part.partition('=')
    if not equals:
      raise ValueError(f'task.where={where!r}: {part!r} is not name=value or name=value,value')
    found = [parse_literal(value.strip()) for value in values.split(',')]
    filters[name.strip()] = tuple(found) if len(found) > 1 else found[0]
  return filters


def content_hash(task: Mapping[str, Any]) -> str:
  """Stands for what a task group's problem ids mean (16 hex): the files' bytes, or the parameters.

  Of a file whose rows name images it stands for these too (ValueError for one that is not there).
  How many problems are made or used is left out, so that a store can be topped up with more.
  """
  if task['name'] in _FILES and not task.get('module'):
    with open(task['path'], 'rb') as file:
      content = hashlib.file_digest(file, 'sha256').hexdigest()[:16]
    return _with_images(task, content)
  if task['name'] in table.BENCHMARKS and not task.get('module'):
    return datasets.benchmark_hash(
      task['name'],
      path=task['path'],
      split=str(task.get('split', '')),
      params=_filters(task),
    )
  if task['name'] == mixed.NAME and not task.get('module'):
    return mixed.content_hash(task, content_hash)
  params = {k: v for k, v in task['params'].items() if k not in ('problems', 'count')}
  if task['name'] == shapes.TASK and not task.get('module'):
    params['rules'] = shapes.VERSION  # of drawing: another picture is another problem
  if task.get('module'):
    content = user_file.digest(Path(task['module']).expanduser())
    text = json.dumps(['module', content, params], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
  text = json.dumps([task['name'], params], sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
