"""Samples of other tools, as draws: who drew what, whether it is correct, and the text if known.

Read by content, never by a file's name: rows of our documented schema (docs/samples.md) and tables
of counts, as Parquet, JSON lines or CSV; lm-evaluation-harness' sample logs; evalplus' results.
"""

import csv
import dataclasses
import gzip
import itertools
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from rlvr_jax.eval import columns, importers, schema
from rlvr_jax.eval.importers import Draw, Draws
from rlvr_jax.tasks import files

Rows = Iterator[tuple[str, dict[str, Any]]]  # (where it is, as messages say it; the row)

# Where each thing is looked for, in this order, unless a column is named (compare.fields).
COLUMNS = {
  'id': ('problem_id', 'id', 'idx', 'task_id', 'unique_id', 'question_id'),
  'verdict': ('verdict', 'correct', 'is_correct', 'reward', 'score'),
  'text': ('text', 'completion', 'prediction', 'response', 'output', 'generation', 'solution'),
}
NEEDED = (
  'needed are columns problem_id and one of correct, verdict or reward (one row a completion; '
  'text, length, sample, prompt, answer and sampling settings may stand beside them), or '
  'problem_id, n and c (one row a problem). Also read: lm-evaluation-harness sample logs '
  '(--log_samples) and evalplus results (*_eval_results.json). Completions without a verdict are '
  'judged by --config=configs/score.py'
)
_UNFINISHED = ('.tmp', '.temp', '.part', '.partial', '.incomplete', '.crdownload', '.download')
_LARGEST_CELL = 2**31 - 1
_SUFFIXES = ('.jsonl', '.jsonl.gz', '.json', '.json.gz', '.parquet', '.csv', '.csv.gz')


def read_draws(path: pathlib.Path, *, fields: Mapping[str, str], metric: str) -> Draws:
  """What a file says, or a folder of files of one kind, in the order of their names.

  fields: column names in place of COLUMNS. metric: which of the verdicts of a harness counts.
  ValueError names file and line for what is damaged, unknown, or lacks what is needed.
  """
  paths = [path] if path.is_file() else _files_of(path)
  found = [_read_file(one, fields, metric) for one in paths]
  kinds = sorted({draws.kind for draws in found})
  if len(kinds) > 1:
    named = ', '.join(f'{one.name} ({d.kind})' for one, d in zip(paths, found, strict=True))
    raise ValueError(f'{path} holds files of several kinds: {named}; name one of them')
  return _joined(path, paths, found)


def _files_of(path: pathlib.Path) -> list[pathlib.Path]:
  if not path.is_dir():
    raise ValueError(f'{path}: there is no such file or directory')
  found = sorted(p for p in path.iterdir() if p.is_file() and _known_suffix(p))
  found = [p for p in found if not p.name.startswith('.') and not _is_summary(p)]
  unfinished = next((p for p in sorted(path.iterdir()) if _is_unfinished(p)), None)
  if unfinished:
    raise ValueError(
      f'{unfinished} looks like a file that is still being written; wait for it, or delete it'
    )
  if not found:
    inner = ', '.join(sorted(p.name for p in path.iterdir() if p.is_dir()))
    also = f' (but the folders {inner}, of which one may be given)' if inner else ''
    raise ValueError(f'{path} holds no file of samples{also}: {", ".join(_SUFFIXES)}; {NEEDED}')
  return found


def _is_summary(path: pathlib.Path) -> bool:
  """Whether it is what lm-evaluation-harness writes beside its samples: results_DATE.json."""
  if not path.name.startswith('results_') or path.suffix != '.json':
    return False
  content = _json(path)
  return isinstance(content, dict) and 'results' in content


def _is_unfinished(path: pathlib.Path) -> bool:
  """Whether it is named as a file of samples with an ending that says it is not done."""
  return path.suffix in _UNFINISHED and path.name.removesuffix(path.suffix).endswith(_SUFFIXES)


def _known_suffix(path: pathlib.Path) -> bool:
  return path.name.endswith(_SUFFIXES)


def _joined(path: pathlib.Path, paths: list[pathlib.Path], found: list[Draws]) -> Draws:
  """Several files as one source; ValueError for copies, and for settings that differ."""
  first = found[0]
  for one, draws in zip(paths[1:], found[1:], strict=True):
    if any(
      (draws.rows, draws.prompts) == (other.rows, other.prompts)
      for other in found[: paths.index(one)]
    ):
      raise ValueError(f'{one} holds the same samples as another file of {path}; delete the copy')
    differing = sorted(
      key
      for key in {*first.settings, *draws.settings} - {'seed'}
      if first.settings.get(key) != draws.settings.get(key)
    )
    if differing:
      shown = '; '.join(
        f'{key}: {first.settings.get(key)!r} against {draws.settings.get(key)!r}'
        for key in differing
      )
      raise ValueError(
        f'{paths[0].name} and {one.name} in {path} differ in {shown}. Samples of different '
        'settings or verifiers are never mixed: give them as two stores'
      )
  rows = first.rows if len(found) == 1 else renumbered(found)
  keys = {(row.problem, row.sample) for row in rows}
  if len(keys) < len(rows):
    seen: set[tuple[str, int]] = set()
    twice = next(k for row in rows if (k := (row.problem, row.sample)) in seen or seen.add(k))
    raise ValueError(
      f'{path}: sample {twice[1]} of problem {twice[0]!r} is in several of {len(paths)} files; '
      'delete the copies, or give the files as stores of their own'
    )
  prompts, answers = {}, {}
  for one, draws in zip(paths, found, strict=True):
    for problem in sorted({*draws.prompts, *draws.answers}):
      row = {'prompt': draws.prompts.get(problem), 'answer': draws.answers.get(problem)}
      columns.take_beside(row, problem, str(one), prompts, answers)
  return importers.sound(
    dataclasses.replace(first, rows=rows, prompts=prompts, answers=answers), path
  )


def renumbered(found: Iterable[Draws]) -> list[Draw]:
  """Draws of several files with the samples of a problem numbered on, where they had no number."""
  next_sample: dict[str, int] = {}
  rows = []
  for draws in found:
    for row in draws.rows:
      if not draws.numbered and not draws.counted:
        row = dataclasses.replace(row, sample=next_sample.get(row.problem, 0))
        next_sample[row.problem] = row.sample + 1
      rows.append(row)
  return rows


def _read_file(path: pathlib.Path, fields: Mapping[str, str], metric: str) -> Draws:
  if not _known_suffix(path):
    raise ValueError(f'{path} is none of {", ".join(_SUFFIXES)}; {NEEDED}')
  if path.name.removesuffix('.gz').endswith('.json'):
    content = _json(path)
    if isinstance(content, dict) and isinstance(content.get('eval'), dict):
      return importers.evalplus(path, content, metric)
    if isinstance(content, dict):
      raise ValueError(f'{path}: an object with keys {_some(content)}; {NEEDED}')
  rows = _rows(path)
  first = next(rows, None)
  if first is None:
    raise ValueError(f'{path} holds no row; {NEEDED}')
  where, row = first
  rows = _again(first, rows)
  if 'doc_id' in row and ('resps' in row or 'filtered_resps' in row):
    return importers.lm_eval(path, rows, metric)
  identity = _column(row, fields, 'id', where)
  if identity and {'n', 'c'} <= set(row):
    return schema.counted(path, rows, identity)
  verdict = _column(row, fields, 'verdict', where)
  if not identity or not verdict:
    raise ValueError(f'{where}: a row with {_some(row)}; {NEEDED}')
  return schema.sampled(path, rows, identity, verdict, _column(row, fields, 'text', where))


def _again(first: tuple[str, dict[str, Any]], rest: Rows) -> Rows:
  yield first
  yield from rest


def _some(row: Mapping[str, Any]) -> str:
  names = [repr(name) for name in row]
  return ', '.join(names[:12]) + (' ...' if len(names) > 12 else '') or 'nothing'


def _column(row: Mapping[str, Any], fields: Mapping[str, str], what: str, where: str) -> str:
  """The column named for it, or the first there of several; unnamed the first of COLUMNS, or ''."""
  named = [name.strip() for name in fields.get(what, '').split(',') if name.strip()]
  found = next((name for name in named or COLUMNS[what] if name in row), '')
  if named and not found:
    raise ValueError(
      f'{where}: compare.fields.{what}={fields[what]!r}: there is no such column, but {_some(row)}'
    )
  return found


def _json(path: pathlib.Path) -> Any:
  try:
    opener = gzip.open if path.suffix == '.gz' else open
    with opener(path, 'rt', encoding='utf-8-sig') as file:
      return json.load(file, object_pairs_hook=importers.no_repeats)
  except UnicodeDecodeError as error:
    raise _not_utf8(path, error) from error
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(f'{path}: the file is damaged ({error}); fetch it again') from error
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path}:{error.lineno}: not JSON ({error.msg}); the file is cut short or of another kind'
    ) from error
  except importers.Repeated as error:
    raise ValueError(f'{path}: {error}; were two files joined?') from error


def _not_utf8(path: pathlib.Path, error: UnicodeDecodeError) -> ValueError:
  return ValueError(f'{path} is damaged or no UTF-8 ({error}); fetch it again, or save it as UTF-8')


def _rows(path: pathlib.Path) -> Rows:
  if path.name.removesuffix('.gz').endswith('.csv'):
    yield from _csv(path)
  elif path.suffix == '.parquet':
    try:
      names = pq.read_schema(path).names
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
      raise ValueError(
        f'{path} is torn or corrupt ({str(error).splitlines()[0]}); fetch it again'
      ) from error
    _check_head(path, names)
    heavy = ('tokens', 'token_ids', 'logprobs', 'entropies', 'truncated_logprobs')
    yield from files.rows_of(path, tuple(name for name in names if name in heavy))
  else:
    yield from files.rows_of(path)


def _check_head(path: pathlib.Path, names: Sequence[str]) -> None:
  """ValueError for columns of one name, of which one would win, and for a CSV without commas."""
  twice = sorted({name for name in names if list(names).count(name) > 1})
  if twice:
    raise ValueError(f'{path} has several columns {", ".join(map(repr, twice))}; leave one')
  if len(names) == 1 and (';' in names[0] or '\t' in names[0]):
    raise ValueError(
      f'{path}: the columns are to be parted by commas, but its head is {names[0]!r}'
    )


def _csv(path: pathlib.Path) -> Rows:
  opener = gzip.open if path.suffix == '.gz' else open
  csv.field_size_limit(_LARGEST_CELL)  # completions may be longer than the default
  number = 0
  try:
    with opener(path, 'rt', encoding='utf-8-sig', newline='') as file:
      lines = itertools.dropwhile(
        lambda line: line.startswith('#') or not line.strip(), _whole_lines(file, path)
      )
      reader = csv.DictReader(lines, strict=True)
      _check_head(path, reader.fieldnames or ())
      for number, row in enumerate(reader):
        where = f'{path}: row {number}'
        if None in row or None in row.values():
          raise ValueError(
            f'{where} has more or fewer cells than the {len(reader.fieldnames or ())} columns of '
            'its head; the file is cut short or damaged'
          )
        yield where, row
  except UnicodeDecodeError as error:
    raise _not_utf8(path, error) from error
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(f'{path}: the file is damaged ({error}); fetch it again') from error
  except csv.Error as error:
    raise ValueError(
      f'{path}: no CSV after row {number} ({error}); the file is cut short, or a quote in a '
      'text is not doubled'
    ) from error


def _whole_lines(file: Iterable[str], path: pathlib.Path) -> Iterator[str]:
  """The lines; ValueError after a last one without an end, which may have lost digits."""
  line = '\n'
  for line in file:
    yield line
  if not line.endswith(('\n', '\r')):
    raise ValueError(
      f'{path}: the last line {columns.shown(line)} has no end: the file is cut short, or its last '
      'line lacks a newline'
    )
