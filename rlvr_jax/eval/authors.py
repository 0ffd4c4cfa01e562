"""Whose completions are there to be scored: stores of samples, and files of reference answers.

A store is named by its run (runs/x), its folder of samples, or one model's folder in it; a file is
JSON lines of {"problem_id", "completion"} (or a list of completions), an author each.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax.eval import shards
from rlvr_jax.eval.score_input import COLUMNS
from rlvr_jax.tasks.files import rows_of

_LISTED = ('task', 'problem_id', 'visit', 'sample', 'length', 'finish', 'verdict', 'verifier')
_READ = ('problem_id', 'sample', 'tokens', 'text', 'finish', 'logprob_sum_sampled', 'verdict')
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._=+@:-]*')  # as the store's folders


@dataclasses.dataclass(frozen=True)
class Written:
  """One completion: its text, and its tokens where they are known (stop token included).

  verdict: as stored; 'correct' in a file of reference answers that gives none. sampled: of a
  conversation, which tokens the model wrote. logprob: as recorded at sampling, of the tempered
  distribution over the full vocabulary.
  """

  problem_id: str
  sample: int
  text: str
  verdict: str
  finish: str = 'eos'
  tokens: np.ndarray | None = None
  sampled: np.ndarray | None = None
  logprob: float | None = None


@dataclasses.dataclass(frozen=True)
class Author:
  """Completions of one task by one writer.

  folder: one model's task in a store; None for a file. run: where the store's run keeps its
  config.json. settings: of the store's shards ({} for a file), prompt_hash likewise ('').
  """

  name: str
  task: str
  path: pathlib.Path
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prompt_hash: str = ''

  @property
  def is_file(self) -> bool:
    return not self.path.is_dir()

  @property
  def run(self) -> pathlib.Path:
    """The directory of the run: above samples/<model>/<task>."""
    return self.path.parents[2]


def split_names(text: str | Sequence[str]) -> list[tuple[str, str]]:
  """'a=runs/x,runs/y' as [(name, path)], the name '' where none is given.

  ValueError for a name that cannot be a folder's.
  """
  words = text.split(',') if isinstance(text, str) else [w for t in text for w in t.split(',')]
  pairs = []
  for word in filter(None, (w.strip() for w in words)):
    name, equals, path = word.partition('=')
    name = name.strip()
    if equals and not _NAME.fullmatch(name):
      raise ValueError(
        f'{word!r}: {name!r} cannot be a name; NAME=PATH takes letters, digits and ._-+@: only'
      )
    pairs.append((name, path.strip()) if equals else ('', word))
  return pairs


def find_authors(stores: str | Sequence[str]) -> list[Author]:
  """Every author of the stores and files, named NAME=PATH or PATH, in that order.

  ValueError for a path without completions, and for two authors of one name on one task.
  """
  found: list[Author] = []
  for name, text in split_names(stores):
    found += _authors_at(name, pathlib.Path(text).expanduser())
  seen: dict[tuple[str, str], Author] = {}
  for author in found:
    other = seen.setdefault((author.name, author.task), author)
    if other is not author:
      raise ValueError(
        f'stores: {other.path} and {author.path} are both called {author.name!r}; name one of them '
        f'otherwise, as other={author.path}'
      )
  return found


def _authors_at(name: str, path: pathlib.Path) -> list[Author]:
  if path.is_file():
    return [Author(name or path.name.partition('.')[0], '', path)]
  if shards.shard_paths(path):
    return [_stored(name, path)]
  for pattern in ('samples/*/*', '*/*', '*'):
    folders = [p for p in sorted(path.glob(pattern)) if p.is_dir() and shards.shard_paths(p)]
    if folders:
      models = sorted({p.parent.name for p in folders})
      if name and len(models) > 1:
        raise ValueError(
          f'stores: {name}={path} names one author, but the store holds {", ".join(models)}; name '
          f'the folder of one, as {name}={folders[0].parent}'
        )
      return [_stored(name, p) for p in folders]
  raise ValueError(
    f'stores: {path} holds no samples: give a run, its samples folder, one model of it, or a '
    '.jsonl file of reference answers'
  )


def _stored(name: str, folder: pathlib.Path) -> Author:
  metadata = shards.agreed_metadata(shards.shard_paths(folder))
  return Author(
    name or metadata.model, metadata.task, folder.resolve(), metadata.settings, metadata.prompt_hash
  )


@dataclasses.dataclass(frozen=True)
class Listing:
  """What an author has, without texts: columns of equal length n, in the order of the store.

  problem_id, verdict, finish object[n]; sample, length i64[n] (length 0 in files); shard i64[n] and
  row i64[n] say where each lies.
  """

  problem_id: np.ndarray
  sample: np.ndarray
  verdict: np.ndarray
  length: np.ndarray
  finish: np.ndarray
  shard: np.ndarray
  row: np.ndarray

  def __len__(self) -> int:
    return len(self.problem_id)


def listing(author: Author) -> Listing:
  """All completions of an author; of a store only those of visit 0 (no draws of training)."""
  if author.is_file:
    found = list(_written_in(author.path))
    return Listing(
      np.array([w.problem_id for w in found], object),
      np.array([w.sample for w in found], np.int64),
      np.array([w.verdict for w in found], object),
      np.zeros(len(found), np.int64),
      np.array([w.finish for w in found], object),
      np.zeros(len(found), np.int64),
      np.arange(len(found)),
    )
  paths = shards.shard_paths(author.path)
  tables = [shards.read_shard(path, list(_LISTED)) for path in paths]
  shards.check_verifiers(paths, tables)
  shards.check_keys(paths, tables, author.task)
  columns: dict[str, list[np.ndarray]] = {}
  for number, table in enumerate(tables):
    visit = table['visit'].to_numpy()
    rows = np.flatnonzero(visit == 0)
    part: dict[str, np.ndarray] = {
      name: np.array(table[name].to_pylist(), object)[rows]
      for name in ('problem_id', 'verdict', 'finish')
    }
    part |= {name: table[name].to_numpy().astype(np.int64)[rows] for name in ('sample', 'length')}
    part |= {'shard': np.full(len(rows), number), 'row': rows}
    for name, values in part.items():
      columns.setdefault(name, []).append(values)
  return Listing(**{name: np.concatenate(values) for name, values in columns.items()})


def read(author: Author, wanted: Listing, chosen: Collection[int]) -> Iterator[Written]:
  """The completions at the chosen indices of the author's listing, shard by shard."""
  index = np.array(sorted(chosen), np.int64)
  if author.is_file:
    keep = set(index.tolist())
    yield from (w for i, w in enumerate(_written_in(author.path)) if i in keep)
    return
  paths = shards.shard_paths(author.path)
  for number in np.unique(wanted.shard[index]).tolist():
    rows = wanted.row[index[wanted.shard[index] == number]]
    for row in shards.read_shard(paths[number], [*_READ, 'sampled']).take(rows).to_pylist():
      sampled = row['sampled']
      yield Written(
        row['problem_id'],
        row['sample'],
        row['text'],
        row['verdict'],
        row['finish'],
        np.array(row['tokens'], np.int32),
        None if sampled is None else np.array(sampled, bool),
        row['logprob_sum_sampled'],
      )


def _written_in(path: pathlib.Path) -> Iterator[Written]:
  """Completions of a file of reference answers."""
  count: dict[str, int] = {}
  for where, row in rows_of(path):
    problem, texts = _cell(row, 'id', where), _cell(row, 'prediction', where)
    texts = texts if isinstance(texts, list) else [texts]
    verdicts = row.get('verdict', 'correct')
    verdicts = verdicts if isinstance(verdicts, list) else [verdicts] * len(texts)
    if len(verdicts) != len(texts):
      raise ValueError(f'{where}: {len(texts)} completions but {len(verdicts)} verdicts')
    for text, verdict in zip(texts, verdicts, strict=True):
      if not isinstance(text, str) or not isinstance(verdict, str):
        raise ValueError(
          f'{where}: a completion and its verdict are texts, not {text!r}, {verdict!r}'
        )
      number = count[str(problem)] = count.get(str(problem), -1) + 1
      yield Written(str(problem), number, text, verdict)


def _cell(row: Mapping[str, Any], what: str, where: str) -> Any:
  # 'answer' is what reference answers are often called; a completion of ours never is
  names = (*COLUMNS[what], *(('answer', 'solution') if what == 'prediction' else ()))
  found = next((name for name in names if row.get(name) is not None), None)
  if found is None:
    raise ValueError(
      f'{where}: none of {", ".join(names)}; the line has {", ".join(row) or "none"}'
    )
  return row[found]


def config_of(author: Author) -> dict[str, Any] | None:
  """The config that an author's run was made with; None for files and stores without one."""
  path = author.run / 'config.json' if not author.is_file else None
  return json.loads(path.read_text()) if path is not None and path.is_file() else None


def choose(
  found: Listing,
  *,
  problems: Collection[str],
  samples: int,
  correct: int,
  all_of: Collection[str] = (),
  most: int = 0,
) -> np.ndarray:
  """Indices i64 of a listing to score: by problem, by sample index, so that the draw decides none.

  Of each problem the first `samples` completions whatever their verdict (for perplexity), the first
  `correct` correct ones (for reach), and of the problems all_of those with sample below `most` (for
  importance estimates, which need the wrong ones too). Verifier errors are left out.
  """
  order = np.lexsort((found.sample, found.problem_id.astype(str)))
  order = order[np.isin(found.problem_id[order].astype(str), sorted(problems))]
  order = order[found.verdict[order] != 'error']
  names = found.problem_id[order].astype(str)
  right = found.verdict[order] == 'correct'
  every = _place_in_group(names, np.ones(len(order), bool))
  among = _place_in_group(names, right)
  whole = np.isin(names, sorted(all_of)) & (found.sample[order] < most)
  keep = (every < samples) | (right & (among < correct)) | whole
  return np.sort(order[keep])


def _place_in_group(names: np.ndarray, counted: np.ndarray) -> np.ndarray:
  """How many counted entries of the same name came before each, i64; names are sorted."""
  before = np.cumsum(counted) - counted
  if not len(names):
    return before
  first = np.r_[True, names[1:] != names[:-1]]
  start = np.maximum.accumulate(np.where(first, np.arange(len(names)), 0))
  return before - before[start]
