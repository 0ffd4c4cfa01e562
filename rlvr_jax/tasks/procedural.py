"""Problems made by reasoning-gym, by name and parameters, judged by its own scorers.

A problem carries its data set's name, its parameters and its whole entry, so that a worker process
judges it without any object of the process that made it.
"""

import ast
import difflib
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlvr_jax.tasks.extract import after_thinking, last_box, last_tag
from rlvr_jax.tasks.problem import Problem, Verdict

# reasoning-gym seeds entry i with seed + i: seeds this far apart share no entry.
MAX_COUNT = 1 << 20
MAX_SEED = (1 << 12) - 1

# What scorers raise on an answer of a form they do not know (the gold answer passed at load).
_UNREADABLE = (
  ArithmeticError,
  AssertionError,
  AttributeError,
  LookupError,
  SyntaxError,
  TypeError,
  ValueError,
)


def load_procedural(
  dataset: str,
  *,
  count: int,
  seed: int = 0,
  params: Mapping[str, Any] | None = None,
  task: str | None = None,
) -> list[Problem]:
  """Makes `count` problems of a reasoning-gym data set.

  Args:
    dataset: its name, e.g. 'countdown' or 'spell_backward'.
    count: how many, at most 2^20.
    seed: 0 to 4095; different seeds draw from different entries (equal questions can still occur
      where a data set has few).
    params: the data set's parameters (JSON values), e.g. {'min_numbers': 3}.
    task: the task name; 'reasoning_gym.<dataset>' by default.

  The answer is the data set's example answer (None where it gives none); many tasks accept others.
  Raises ValueError for an unknown data set or parameter, and for an entry whose own answer does
  not score 1.
  """
  params = dict(params or {})
  if not 1 <= count <= MAX_COUNT:
    raise ValueError(f'count={count} must be between 1 and {MAX_COUNT}')
  if not 0 <= seed <= MAX_SEED:
    raise ValueError(f'seed={seed} must be between 0 and {MAX_SEED}')
  if taken := {'seed', 'size'} & set(params):
    raise ValueError(f'params has {sorted(taken)}; give seed and count as arguments instead')
  config = {**params, 'seed': seed * MAX_COUNT, 'size': count}
  maker = _create(dataset, json.dumps(config))
  mark = ''
  if params:
    mark = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:6] + '-'
  problems = []
  for index in range(count):
    entry = maker[index]
    literal = repr(_plain(entry))
    where = f'reasoning-gym data set {dataset!r}, entry {index}'
    try:
      kept = ast.literal_eval(literal)
    except (ValueError, SyntaxError) as error:
      raise ValueError(f'{where} has values that cannot leave the process ({error})') from error
    answer = entry.get('answer')
    if answer is not None and maker.score_answer(answer, kept) != 1.0:
      raise ValueError(f'{where}: its own answer {answer!r} does not score 1; leave it out')
    meta = {
      'verifier': 'reasoning_gym',
      'dataset': dataset,
      'config': config,
      'entry': literal,  # a Python literal: JSON would turn its tuples and integer keys into others
    }
    identity = f'{mark}{seed}-{index}'
    name = task or f'reasoning_gym.{dataset}'
    problems.append(Problem(identity, name, str(entry['question']), answer, meta))
  return problems


def verify_procedural(problem: Problem, completion: str) -> Verdict:
  """The data set's score of the answer; 'correct' if and only if it is 1. The score is the reward.

  The answer is what the last <answer> tag after the thinking holds, else its last box, else all of
  it. An answer that the scorer stumbles over is 'unparsed'.
  """
  text = after_thinking(completion)
  tag = last_tag(text)
  box = last_box(text) if tag is None else None
  if tag is not None:
    answer = tag.text
  elif box is not None:
    answer = box.text
  else:
    answer = text
  answer = (answer or '').strip()
  if not answer:
    return Verdict('unparsed', 0.0, '', 'no answer')
  maker = _create(problem.meta['dataset'], json.dumps(problem.meta['config']))
  try:
    score = float(maker.score_answer(answer, _entry(problem.meta['entry'])))
  except _UNREADABLE as error:
    reason = f'the scorer cannot read the answer ({type(error).__name__}: {error})'
    return Verdict('unparsed', 0.0, answer, reason)
  return Verdict('correct' if score == 1.0 else 'wrong', score, answer)


def _plain(value: Any) -> Any:
  """Built-in types in place of their subclasses and numpy's scalars, whose repr is no literal."""
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, dict):
    return {_plain(key): _plain(item) for key, item in value.items()}
  for kind in (list, tuple, set):
    if isinstance(value, kind):
      return kind(_plain(item) for item in value)
  return value


@functools.lru_cache(maxsize=256)
def _create(dataset: str, config: str) -> Any:
  from reasoning_gym import factory  # over a second to import: only where it is used

  if dataset not in factory.DATASETS:
    near = difflib.get_close_matches(dataset, factory.DATASETS, n=1)
    raise ValueError(
      f'dataset={dataset!r} is not one of reasoning-gym'
      + (f'; did you mean {near[0]!r}?' if near else '')
      + f' (it has {len(factory.DATASETS)}: {", ".join(sorted(factory.DATASETS))})'
    )
  values = json.loads(config)
  known = list(factory.DATASETS[dataset][1].__dataclass_fields__)
  if unknown := sorted(set(values) - set(known)):
    near = difflib.get_close_matches(unknown[0], known, n=1)
    raise ValueError(
      f'params has {unknown} unknown to reasoning-gym data set {dataset!r}'
      + (f'; did you mean {near[0]!r}?' if near else '')
      + f' (it has {", ".join(known)})'
    )
  try:
    return factory.create_dataset(dataset, **values)
  except (AssertionError, TypeError, ValueError) as error:
    raise ValueError(f'reasoning-gym data set {dataset!r} refuses {values}: {error}') from error


@functools.lru_cache(maxsize=4096)
def _entry(literal: str) -> dict[str, Any]:
  return ast.literal_eval(literal)
