"""Problems as people hand them over in Python: a JSONL path, Problems, dicts or plain strings."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlvr_jax.tasks import images
from rlvr_jax.tasks.journal import problem_digest
from rlvr_jax.tasks.jsonl import load_jsonl, problems_of
from rlvr_jax.tasks.problem import Problem, check_unique

Given = str | os.PathLike[str] | Iterable[Problem | Mapping[str, Any] | str]


def gather(
  given: Given,
  *,
  task: str = '',
  fields: Mapping[str, str] | None = None,
  verifier: str = '',
) -> list[Problem]:
  """The problems of a .jsonl(.gz) path, or of an iterable of one kind of thing.

  Problems are taken as they are; dicts as lines of a JSONL file would be (load_jsonl); strings are
  prompts without an answer, named by their content, which nobody judges unless a verifier is named.
  task defaults to 'jsonl' for a path and to 'prompts' for dicts and strings. ValueError for what
  cannot be a problem, for repeated ids and for Problems of several tasks.
  """
  if isinstance(given, str | os.PathLike):
    return load_jsonl(given, task=task or 'jsonl', fields=fields, verifier=verifier or None)
  items: list[Any] = list(given)
  if not items:
    raise ValueError('problems=[]: there is nothing to sample')
  if all(isinstance(item, Problem) for item in items):
    problems = [_named(item, task, verifier) for item in items]
  elif all(isinstance(item, Mapping) for item in items):
    rows = ((f'problems[{i}]', dict(item)) for i, item in enumerate(items))
    problems = problems_of(rows, task=task or 'prompts', fields=fields, verifier=verifier or None)
  elif all(isinstance(item, str) for item in items):
    problems = [
      Problem(_content(item), task or 'prompts', item, None, {'verifier': verifier or 'none'})
      for item in items
    ]
  else:
    kinds = sorted({type(item).__name__ for item in items})
    raise ValueError(
      f'problems: {", ".join(kinds)}; give a path, or a list of Problems, of dicts or of strings'
    )
  check_unique(problems)
  tasks = sorted({problem.task for problem in problems})
  if len(tasks) > 1:
    raise ValueError(f'problems of several tasks, {", ".join(tasks)}: sample them one by one')
  return problems


def _named(problem: Problem, task: str, verifier: str) -> Problem:
  meta = {**problem.meta, 'verifier': verifier} if verifier else problem.meta
  return dataclasses.replace(problem, task=task or problem.task, meta=meta)


def _content(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_remembered(path: Path, problems: list[Problem]) -> None:
  """Refuses problems that differ from those remembered at `path` under their ids; adds new ones.

  So a list may grow between two runs, and none of its problems may change under the same id.
  """
  now = {problem.id: _digest(problem) for problem in problems}
  known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
  changed = [name for name, digest in now.items() if known.get(name, digest) != digest]
  if changed:
    raise ValueError(
      f'{len(changed)} problems are not what they were when samples of them were drawn into '
      f'{path.parent}, e.g. {changed[0]!r}; give them other ids, or sample into another workdir'
    )
  if now.keys() - known.keys():
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    partial.write_text(json.dumps(known | now))
    partial.replace(path)


def _digest(problem: Problem) -> str:
  meta = {key: value for key, value in problem.meta.items() if key != 'verifier'}
  own = problem_digest(dataclasses.replace(problem, meta=meta)).hex()
  seen = images.digest(problem)
  return hashlib.sha256(f'{own} {seen}'.encode()).hexdigest()[:16] if seen else own[:16]
