"""task.name='mixed': several families in one run, each with its own verifier, template, held-out
problems.

task.params maps a label to what that family's task group has (name, params, path, split, where,
fields, limit, holdout, template, verifier); a name is the label itself where none is given:

  config.task.name = 'mixed'
  config.task.holdout = 200                       # shared out evenly where a family has none
  config.task.params = {
    'countdown': {'params': {'problems': 3000, 'largest': 9}},
    'hard': {'name': 'countdown', 'params': {'problems': 1000, 'largest': 13}, 'holdout': 50},
  }

A family's share of the draws is its share of the problems. All problems are of the task 'mixed',
with ids LABEL/ID, so that stores and reports know one task.
"""

import dataclasses
import hashlib
import itertools
import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_name

NAME = 'mixed'
FAMILY = 'family'  # of a problem's meta: its label
KEYS = (
  'name', 'params', 'path', 'split', 'where', 'fields', 'limit', 'holdout', 'template', 'verifier',
)  # fmt: skip
Solutions = Callable[[Problem], tuple[str, ...]]
Lists = tuple[list[Problem], list[Problem]]


def groups(task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """The task group of each label. ValueError for a mixture that is none."""
  own = {label: _plain(given) for label, given in task['params'].items()}
  if not own or not all(isinstance(given, Mapping) for given in own.values()):
    raise ValueError(
      f"task.params={own}: task.name='mixed' takes a label and a task group for each family, as "
      "{'countdown': {'params': {'problems': 3000}}}"
    )
  common = {key: task[key] for key in task} | {'module': '', 'environment': '', 'allow': ()}
  common |= {'params': {}, 'path': '', 'split': '', 'where': '', 'limit': 0}
  common['holdout'] = -(-int(task['holdout']) // len(own))
  return {label: _group(label, own[label], common) for label in sorted(own)}


def _group(label: str, given: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
  what = f'task.params[{label!r}]'
  unknown = sorted(set(given) - set(KEYS))
  if unknown:
    raise ValueError(f'{what}: {unknown[0]!r} is none of {", ".join(KEYS)}')
  found = {**common, 'name': label, **given}
  if found['name'] == NAME:
    raise ValueError(f'{what}: a mixture holds families, not mixtures; give it a name')
  template = found['template']
  fits = common['template'] == 'raw' and template in prompts.TEMPLATES
  if template != common['template'] and not fits:
    raise ValueError(
      f'{what}: template={template!r}: a family has its own where it is text (one of '
      f"{', '.join(prompts.TEMPLATES)}) and task.template='raw', not {common['template']!r}"
    )
  return found


def _plain(value: Any) -> Any:
  """ConfigDicts as dicts."""
  return value.to_dict() if hasattr(value, 'to_dict') else value


def load(task: Mapping[str, Any], load_one: Callable[[Mapping[str, Any]], Lists]) -> Lists:
  """(train, held-out) problems of all families; load_one loads one.

  Held-out ones take turns, so that the first of them are some of each family.
  """
  train: list[Problem] = []
  held: list[list[Problem]] = []
  for label, group in groups(task).items():
    template = group['template'] if group['template'] != task['template'] else ''
    own, out = ([_labelled(p, label, template) for p in part] for part in load_one(group))
    train += own
    held.append(out)
  turns = itertools.zip_longest(*held)
  return train, [problem for turn in turns for problem in turn if problem is not None]


def _labelled(problem: Problem, label: str, template: str) -> Problem:
  """The problem as one of the mixture; template: its own, which is filled in here."""
  if template and problem.images:
    raise ValueError(
      f'task.params[{label!r}]: template={template!r} is filled in before images are laid; set '
      'task.template for problems with images'
    )
  meta = {**problem.meta, 'verifier': verifier_name(problem), FAMILY: label}
  prompt = prompts.render(problem, template) if template else problem.prompt
  return dataclasses.replace(
    problem, task=NAME, id=f'{label}/{problem.id}', meta=meta, prompt=prompt
  )


def content_hash(task: Mapping[str, Any], hash_one: Callable[[Mapping[str, Any]], str]) -> str:
  """Stands for what the ids of the mixture mean (16 hex)."""
  found = {label: [hash_one(one), one['template']] for label, one in groups(task).items()}
  return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def family(task: Mapping[str, Any], family_one: Callable[[Mapping[str, Any]], Any]) -> Any:
  """What a model from scratch is made of: all letters, and each family's corpus for its problems.

  None where a family has no alphabet.
  """
  own = {label: family_one(group) for label, group in groups(task).items()}
  if any(one is None for one in own.values()):
    return None

  def corpus(problems: Sequence[Problem], *, seed: int, noise: float) -> list[tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for label, one in own.items():
      places = [i for i, p in enumerate(problems) if p.meta[FAMILY] == label]
      pairs = one.corpus([problems[i] for i in places], seed=seed, noise=noise)
      found |= dict(zip(places, pairs, strict=True))
    return [found[i] for i in range(len(problems))]

  letters = dict.fromkeys(letter for one in own.values() for letter in one.ALPHABET)
  alphabet = ''.join(letters)
  if not all(hasattr(one, 'corpus') for one in own.values()):
    return types.SimpleNamespace(ALPHABET=alphabet)
  return types.SimpleNamespace(ALPHABET=alphabet, corpus=corpus)


def solutions(
  task: Mapping[str, Any], solutions_one: Callable[[Mapping[str, Any]], Solutions | None]
) -> Solutions | None:
  """What gives every correct completion of a problem of the mixture; None where a family's are
  not known."""
  own = {label: solutions_one(group) for label, group in groups(task).items()}
  known = {label: one for label, one in own.items() if one is not None}
  if len(known) < len(own):
    return None
  return lambda problem: known[problem.meta[FAMILY]](problem)
