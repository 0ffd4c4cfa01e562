"""Problems by the config's task group: what to train on and what is held out."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlvr_jax.tasks import (
  countdown,
  countdown_cot,
  environments,
  jsonl,
  module,
  procedural,
  user_file,
)
from rlvr_jax.tasks.problem import Problem, check_unique

# tasks that a model from scratch can be trained on: they have an alphabet and a corpus of their own
FAMILIES = {'countdown': countdown, 'countdown_cot': countdown_cot}
TASKS = (*FAMILIES, 'jsonl', 'reasoning_gym')


def family(task: Mapping[str, Any]) -> Any:
  """The module that has the ALPHABET and corpus of a task group, None if there is none."""
  if task.get('module'):
    found = module.open_module(task['module'])
    return found if hasattr(found, 'ALPHABET') else None
  return FAMILIES.get(task['name'])


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

  The first `holdout` problems are held out, the rest trained on; with holdout 0 the second list is
  empty. ValueError names the key that does not fit.
  """
  name, params = task['name'], dict(task['params'])
  limit = int(task['limit'])
  if task.get('module'):
    fields = {k: v for k, v in task['fields'].items() if v}
    verifier = task['verifier']
    problems = module.make_problems(
      task['module'], params, limit=limit, fields=fields, verifier=verifier
    )
  elif name == 'jsonl':
    problems = jsonl.load_jsonl(
      task['path'],
      task=params.pop('task', 'jsonl'),
      fields={k: v for k, v in task['fields'].items() if v},
      limit=limit or None,
      verifier=task['verifier'] or None,
    )
  elif name in FAMILIES:
    count = int(params.pop('problems', 4000)) + int(task['holdout'])
    problems = FAMILIES[name].make_problems(limit or count, **{'seed': 1, **params})
  elif name == 'reasoning_gym':
    params.setdefault('task', f'reasoning_gym.{params.get("dataset")}')
    problems = procedural.load_procedural(**params)
    problems = problems[: limit or None]
  else:
    raise ValueError(f'task.name={name!r}: known are {", ".join(TASKS)}')
  if task['verifier']:
    problems = [
      dataclasses.replace(p, meta={**p.meta, 'verifier': task['verifier']}) for p in problems
    ]
  check_unique(problems)
  holdout = int(task['holdout'])
  if holdout >= len(problems) and holdout:
    raise ValueError(
      f'task.holdout={holdout} leaves nothing of {len(problems)} problems to train on; lower it'
    )
  return problems[holdout:], problems[:holdout]


def content_hash(task: Mapping[str, Any]) -> str:
  """Stands for what a task group's problem ids mean (16 hex): the file's bytes, or the parameters.

  How many problems are made or used is left out, so that a store can be topped up with more.
  """
  if task['name'] == 'jsonl' and not task.get('module'):
    with open(task['path'], 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()[:16]
  params = {k: v for k, v in task['params'].items() if k not in ('problems', 'count')}
  if task.get('module'):
    content = user_file.digest(Path(task['module']).expanduser())
    text = json.dumps(['module', content, params], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
  text = json.dumps([task['name'], params], sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
