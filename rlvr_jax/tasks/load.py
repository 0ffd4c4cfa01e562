"""Problems by the config's task group: what to train on and what is held out."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rlvr_jax.tasks import countdown, countdown_cot, jsonl, procedural
from rlvr_jax.tasks.problem import Problem, check_unique

# tasks that a model from scratch can be trained on: they have an alphabet and a corpus of their own
FAMILIES = {'countdown': countdown, 'countdown_cot': countdown_cot}
TASKS = (*FAMILIES, 'jsonl', 'reasoning_gym')


def load_problems(task: Mapping[str, Any]) -> tuple[list[Problem], list[Problem]]:
  """(train, held-out) problems of a task group (configs/base.py: name, path, params, ...).

  The first `holdout` problems are held out, the rest trained on; with holdout 0 the second list is
  empty. ValueError names the key that does not fit.
  """
  name, params = task['name'], dict(task['params'])
  limit = int(task['limit'])
  if name == 'jsonl':
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
  if task['name'] == 'jsonl':
    with open(task['path'], 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()[:16]
  params = {k: v for k, v in task['params'].items() if k not in ('problems', 'count')}
  text = json.dumps([task['name'], params], sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
