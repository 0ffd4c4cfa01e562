"""Completions to be judged anew: lines of a JSONL file of anybody's, or a store of samples."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from rlvr_jax.eval import shards
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.tasks import jsonl
from rlvr_jax.tasks.files import rows_of
from rlvr_jax.tasks.load import load_problems
from rlvr_jax.tasks.problem import VERDICTS, Problem

# Where each thing is looked for, in this order, unless a column is named.
COLUMNS = {
  'id': ('problem_id', 'id', 'idx', 'task_id', 'unique_id', 'question_id'),
  'task': ('task', 'data_name'),
  'gold': (
    'gold', 'gt', 'ground_truth', 'reference', 'target', 'expected_answer', 'tests', 'answer',
    'solution',
  ),
  'prediction': (
    'prediction', 'completion', 'response', 'output', 'generated_text', 'generation', 'code',
    'text',
  ),
  'verdict': ('verdict', 'correct', 'is_correct'),
}  # fmt: skip
_STORED = ('task', 'problem_id', 'visit', 'sample', 'text', 'verdict', 'extracted', 'reason')


@dataclasses.dataclass(frozen=True)
class Item:
  """One row of the input: its completions of one problem, and the verdicts they had.

  several: the row holds a list of completions, and gets lists. before: None where there was none.
  counted: whether pass@k may count it; not so for draws beyond those every problem of an
  early-stopped store has.
  """

  row: Mapping[str, Any]
  where: str
  problem: Problem
  completions: tuple[str, ...]
  before: tuple[str | None, ...]
  several: bool = False
  counted: bool = True


class Problems:
  """Equal problems as one object, so that the pool hashes each once; the last few thousand."""

  def __init__(self, most: int = 4096):
    self._most = most
    self._kept: dict[str, Problem] = {}

  def one(self, task: str, identity: str, answer: Any, meta: Mapping[str, Any]) -> Problem:
    """The problem of these fields, which must be JSON values."""
    key = json.dumps([task, identity, answer, dict(meta)], sort_keys=True)
    problem = self._kept.get(key)
    if problem is None:
      if len(self._kept) >= self._most:
        self._kept.clear()
      problem = self._kept[key] = Problem(identity, task, '', answer, meta)
    return problem


def items_of_file(path: pathlib.Path, fields: Mapping[str, str], verifier: str) -> Iterator[Item]:
  """The rows of a file (tasks/files.py). ValueError says where for what cannot be judged."""
  problems = Problems()
  for number, (where, row) in enumerate(rows_of(path), 1):
    column, value = _pick(row, fields, 'gold', where)
    answer = jsonl.gold(value, where)
    meta: dict[str, Any] = {'verifier': verifier}
    prediction_column, prediction = _pick(row, fields, 'prediction', where)
    if not isinstance(answer, str):  # tests may need what stands beside them
      meta |= {k: v for k, v in row.items() if k not in (column, prediction_column)}
    completions = prediction if isinstance(prediction, list) else [prediction]
    if not all(isinstance(text, str) for text in completions):
      raise ValueError(
        f'{where}: {prediction_column!r} is neither a text nor a list of texts but '
        f'{str(prediction)[:60]!r}'
      )
    _, identity = _pick(row, fields, 'id', where, default=number)
    _, task = _pick(row, fields, 'task', where, default='jsonl')
    problem = problems.one(str(task), str(identity), answer, meta)
    before = _before(row, fields, where, len(completions))
    several = isinstance(prediction, list)
    yield Item(row, where, problem, tuple(completions), before, several)


def _pick(
  row: Mapping[str, Any],
  fields: Mapping[str, str],
  what: str,
  where: str,
  default: Any = None,
) -> tuple[str, Any]:
  """(column, value): of the column named for it, else the first of COLUMNS that is there."""
  named = fields.get(what)
  wanted = (named,) if named else COLUMNS[what]
  found = next((column for column in wanted if row.get(column) is not None), None)
  if found is not None:
    return found, row[found]
  if default is not None and not named:
    return '', default
  raise ValueError(
    f'{where}: no {what} ({", ".join(wanted)}); the line has {", ".join(row) or "none"}; name the '
    f'right column with --config.score.fields.{what}=...'
  )


def _before(
  row: Mapping[str, Any], fields: Mapping[str, str], where: str, count: int
) -> tuple[str | None, ...]:
  column, value = _pick(row, fields, 'verdict', where, default='')
  if not column:
    return (None,) * count
  values = value if isinstance(value, list) else [value]
  if len(values) != count:
    raise ValueError(f'{where}: {count} completions but {len(values)} verdicts in {column!r}')
  return tuple(_verdict_name(one, f'{where}: {column!r}') for one in values)


def _verdict_name(value: Any, where: str) -> str | None:
  if value is None or value in VERDICTS:
    return value
  if value in (True, False):  # 1 and 0 too
    return 'correct' if value else 'wrong'
  raise ValueError(
    f'{where} is {value!r}, which is neither true, false nor one of {", ".join(VERDICTS)}; name '
    'another column with --config.score.fields.verdict=...'
  )


def is_store(path: pathlib.Path) -> bool:
  """Whether the path is a run, a store, or one model's task of a store."""
  return path.is_dir()


def items_of_store(path: pathlib.Path, score: Mapping[str, Any], task: Mapping[str, Any]):
  """The rows of one model's task in a store, shard by shard, visits of training included.

  Problems are those of `task` (a config's group); where it names no file, those that the run was
  made with (config.json beside its samples). ValueError for a choice that is not one.
  """
  folder, root = _folder(path, score)
  problems = {p.id: p for p in problems_of_run(root, folder.name, task)}
  paths = shards.shard_paths(folder)
  first = shards.agreed_metadata(paths).settings.get('first')
  columns = [name for name in shards.SCHEMA.names if name in _STORED]
  for shard in paths:
    for row in shards.read_shard(shard, columns).to_pylist():
      problem = problems.get(row['problem_id'])
      if problem is None:
        raise ValueError(
          f'{shard}: problem {row["problem_id"]!r} is not among the {len(problems)} problems of '
          'the config; give those that were sampled with --config.task.name and --config.task.path'
        )
      text, verdict = row.pop('text'), row.pop('verdict')
      extracted, reason = row.pop('extracted'), row.pop('reason')
      row |= {'gold': problem.answer, 'prediction': text, 'verdict': verdict}
      row |= {'extracted': extracted, 'reason': reason}
      counted = first is None or row['sample'] < first
      yield Item(row, str(shard), problem, (text,), (verdict,), counted=counted)


def _folder(path: pathlib.Path, score: Mapping[str, Any]) -> tuple[pathlib.Path, pathlib.Path]:
  """(folder of one model's task, root of the store)."""
  if shards.shard_paths(path):
    return path, path.parent.parent
  root = path / 'samples' if (path / 'samples').is_dir() else path
  found = SampleStore(root).models()
  model = _only('model', score['model'], list(found), root)
  return root / model / _only('task', score['task'], found[model], root), root


def _only(what: str, wanted: str, found: list[str], root: pathlib.Path) -> str:
  if wanted in found or (len(found) == 1 and not wanted):
    return wanted or found[0]
  raise ValueError(
    f'score.{what}={wanted!r}: the store {root} holds {", ".join(found) or "no samples"}; name one '
    f'of them with --config.score.{what}=...'
  )


def problems_of_run(root: pathlib.Path, name: str, task: Mapping[str, Any]) -> list[Problem]:
  """The problems of a task group, as the store's task names them; of the run's own config where the
  group names no file. root is the run's store."""
  record = root.parent / 'config.json'
  group = dict(task)
  if group['name'] == 'jsonl' and not group['path']:
    if not record.is_file():
      raise ValueError(
        f'{root.parent} has no config.json that says which problems were sampled; give them with '
        '--config.task.path (and --config.task.name)'
      )
    group = {**json.loads(record.read_text())['task'], 'verifier': task['verifier']}
  train, held_out = load_problems(group)
  return [dataclasses.replace(problem, task=name) for problem in [*held_out, *train]]
