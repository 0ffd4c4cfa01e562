"""What a student learns from: pairs of a file, or a teacher's completions in a file or a store.

Files are those of tasks/files.py (.jsonl, .json, both .gz, .parquet). A row is a pair, {"prompt",
"completion"}, or a sample: a problem of the task by its id, a text and a verdict, as our own stores
have them. Held-out problems teach nothing.
"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlvr_jax.eval import shards
from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.files import rows_of
from rlvr_jax.tasks.problem import VERDICTS, Problem

Pair = tuple[str | Problem, str]  # a prompt, or a problem whose prompt has images; a completion
_IDS = ('problem_id', 'id', 'task_id')
_TEXTS = ('completion', 'text', 'response', 'output')
_STORED = ('task', 'problem_id', 'visit', 'sample', 'text', 'finish', 'verdict')


@dataclasses.dataclass(frozen=True)
class Taught:
  """Pairs to learn from, and what was left out of a source, by reason."""

  pairs: list[Pair]
  left_out: Mapping[str, int]

  def describe(self) -> str:
    """In a line."""
    reasons = ', '.join(f'{count:,} {why}' for why, count in self.left_out.items() if count)
    return f'{len(self.pairs):,} completions to learn from' + (
      f'; left out: {reasons}' * bool(reasons)
    )


def content(source: str) -> str:
  """16 hex digits that stand for the bytes of a file, or of a store's shards in their order.

  ValueError if there is neither.
  """
  path = pathlib.Path(source).expanduser()
  if path.is_dir():
    digest = hashlib.sha256()
    for shard in sorted(path.glob('**/part-*.parquet')):
      with shard.open('rb') as file:
        digest.update(hashlib.file_digest(file, 'sha256').digest())
    return digest.hexdigest()[:16]
  _check_file(path, source)
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()[:16]


def _check_file(path: pathlib.Path, source: str) -> None:
  if not path.is_file():
    raise ValueError(f'distill.source={source!r}: there is no such file or store')


def read(
  source: str,
  problems: Sequence[Problem],
  held_out: Sequence[Problem],
  *,
  template: str,
  tokenizer: Any = None,
  author: str = '',
  correct_only: bool = True,
  most: int = 0,
) -> Taught:
  """The pairs of distill.source, in the order of the source.

  Of samples: the prompt is the problem's, by `template` (tokenizer: a transformers one, for chat
  templates); left out are held-out problems, with `correct_only` those whose verdict is another,
  completions that were cut (they teach never to stop), copies of one before them, and those of a
  problem beyond the first `most` (0: none). Pairs of a file are chosen by whoever made it: of these
  only those whose prompt is a held-out problem's are left out.

  ValueError names source and row for what cannot be read, and a source that leaves nothing.
  """
  path = pathlib.Path(source).expanduser()
  if path.is_dir():
    rows: Iterable[tuple[str, Mapping[str, Any]]] = _store_rows(path, author)
  else:
    _check_file(path, source)
    if author:
      raise ValueError(f'distill.author={author!r}: {source} is a file; only stores have several')
    rows = rows_of(path)
  known = {problem.id: problem for problem in problems}
  hidden = {problem.id for problem in held_out}
  hidden_prompts = {prompts.render(p, template, tokenizer) for p in held_out}
  seen: set[tuple[str, str]] = set()
  taken: collections.Counter[str] = collections.Counter()
  left: collections.Counter[str] = collections.Counter()
  pairs: list[Pair] = []
  for where, row in rows:
    problem, text, why = _one(where, row, known, hidden, correct_only)
    prompt = row['prompt'] if problem is None else ''
    if problem is not None and not why:
      prompt = prompts.render(problem, template, tokenizer)
    name = prompt if problem is None else problem.id
    if not why and prompt in hidden_prompts:
      why = 'of held-out problems'
    elif not why and problem is not None and (name, text) in seen:
      why = 'copies'
    elif not why and problem is not None and most and taken[name] >= most:
      why = f'beyond {most} of a problem'
    if why:
      left[why] += 1
      continue
    seen.add((name, text))
    taken[name] += 1
    pairs.append((problem if problem is not None and problem.images else prompt, text))
  found = Taught(pairs, dict(left))
  if not pairs:
    raise ValueError(f'distill.source={source!r} leaves nothing to learn from: {found.describe()}')
  return found


def _one(
  where: str,
  row: Mapping[str, Any],
  known: Mapping[str, Problem],
  hidden: set[str],
  correct_only: bool,
) -> tuple[Problem | None, str, str]:
  """(problem of a sample, or None of a pair; the completion; why it is left out, or '')."""
  identity = next((row[name] for name in _IDS if row.get(name) is not None), None)
  text = next((row[name] for name in _TEXTS if isinstance(row.get(name), str)), None)
  if text is None:
    raise ValueError(
      f'{where}: no completion ({", ".join(_TEXTS)}); the row has {", ".join(row) or "nothing"}'
    )
  if 'verdict' not in row and isinstance(row.get('prompt'), str) and row['prompt']:
    if not text:
      raise ValueError(f'{where}: prompt and completion must be non-empty text')
    return None, text, ''
  if identity is None or 'verdict' not in row:
    raise ValueError(
      f'{where}: expected {{"prompt", "completion"}}, or a sample with {_IDS[0]}, {_TEXTS[1]} and '
      f'verdict; the row has {", ".join(row) or "nothing"}'
    )
  verdict = _verdict(row['verdict'], where)
  if str(identity) in hidden:
    return known.get(str(identity), _ANY), text, 'of held-out problems'
  problem = known.get(str(identity))
  if problem is None:
    raise ValueError(
      f'{where}: problem {str(identity)!r} is not among the {len(known)} that the task trains on '
      f'(nor held out); give the task whose problems were sampled'
    )
  if correct_only and verdict != 'correct':
    return problem, text, 'not correct'
  if row.get('finish') == 'length':
    return problem, text, 'cut at the limit'
  return problem, text, '' if text else 'empty'


_ANY = Problem('', '', '', None)


def _verdict(value: Any, where: str) -> str:
  if isinstance(value, bool) or value in (0, 1):
    return 'correct' if value else 'wrong'
  if value in VERDICTS:
    return value
  raise ValueError(f'{where}: verdict={value!r} is none of {", ".join(VERDICTS)}, true or false')


def _store_rows(path: pathlib.Path, author: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """The rows of one model's task, in the order of (problem, visit, sample)."""
  folder = _folder(path, author)
  columns = [name for name in shards.SCHEMA.names if name in _STORED]
  paths = shards.shard_paths(folder)
  shards.agreed_metadata(paths)
  rows = [
    (str(shard), row) for shard in paths for row in shards.read_shard(shard, columns).to_pylist()
  ]
  rows.sort(key=lambda one: (one[1]['problem_id'], one[1]['visit'], one[1]['sample']))
  yield from rows


def _folder(path: pathlib.Path, author: str) -> pathlib.Path:
  """The folder of one model's task, in a run, a store, a model's folder or itself."""
  if shards.shard_paths(path):
    return path
  root = path / 'samples' if (path / 'samples').is_dir() else path
  found = {
    folder: (folder.parent.name, folder.name)
    for folder in sorted({p.parent for p in root.glob('**/part-*.parquet')})
  }
  chosen = [folder for folder, (model, _) in found.items() if author in ('', model)]
  if len(chosen) != 1:
    there = ', '.join(f'{model}/{task}' for model, task in found.values()) or 'no samples'
    raise ValueError(
      f'distill.source={str(path)!r}, distill.author={author!r}: the store holds {there}; name one '
      'model with distill.author, or the folder of one of its tasks'
    )
  return chosen[0]
