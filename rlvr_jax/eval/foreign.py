"""Samples of other tools, as draws: who drew what, whether it is correct, and the text if known.

Read by content, never by a file's name: rows of our documented schema (docs/samples.md) and tables
of counts, as Parquet, JSON lines or CSV; lm-evaluation-harness' sample logs; evalplus' results.
"""

import csv
import dataclasses
import gzip
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq

from rlvr_jax.eval import importers
from rlvr_jax.eval.importers import Draw, Draws
from rlvr_jax.tasks import files
from rlvr_jax.tasks.problem import VERDICTS

Rows = Iterator[tuple[str, dict[str, Any]]]  # (where it is, as messages say it; the row)

# Where each thing is looked for, in this order, unless a column is named (compare.fields).
COLUMNS = {
  'id': ('problem_id', 'id', 'idx', 'task_id', 'unique_id', 'question_id'),
  'verdict': ('verdict', 'correct', 'is_correct', 'reward', 'score'),
  'text': ('text', 'completion', 'prediction', 'response', 'output', 'generation', 'solution'),
}
SETTINGS = (
  'temperature', 'top_p', 'top_k', 'max_tokens', 'seed', 'coupling', 'model', 'task', 'verifier',
  'prompt_hash', 'first', 'stop_after',
)  # fmt: skip
NEEDED = (
  'needed are columns problem_id and one of correct, verdict or reward (one row a completion; '
  'text, length, sample, prompt, answer and sampling settings may stand beside them), or '
  'problem_id, n and c (one row a problem). Also read: lm-evaluation-harness sample logs '
  '(--log_samples) and evalplus results (*_eval_results.json). Completions without a verdict are '
  'judged by --config=configs/score.py'
)
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
  # what harnesses write beside their samples
  found = [p for p in found if not p.name.startswith(('results_', '.'))]
  if not found:
    raise ValueError(f'{path} holds no file of samples ({", ".join(_SUFFIXES)}); {NEEDED}')
  return found


def _known_suffix(path: pathlib.Path) -> bool:
  return path.name.endswith(_SUFFIXES)


def _joined(path: pathlib.Path, paths: list[pathlib.Path], found: list[Draws]) -> Draws:
  """Several files as one source; ValueError for copies, and for settings that differ."""
  first = found[0]
  for one, draws in zip(paths[1:], found[1:], strict=True):
    if draws.rows and any(
      draws.rows == other.rows for other in found[: paths.index(one)] if draws is not other
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
    for problem in {*draws.prompts, *draws.answers}:
      row = {'prompt': draws.prompts.get(problem), 'answer': draws.answers.get(problem)}
      _beside(row, problem, str(one), prompts, answers)
  return dataclasses.replace(first, rows=rows, prompts=prompts, answers=answers)


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
  identity = _column(row, fields, 'id')
  if identity and {'n', 'c'} <= set(row):
    return counted(path, rows, identity)
  verdict = _column(row, fields, 'verdict')
  if not identity or not verdict:
    raise ValueError(f'{where}: a row with {_some(row)}; {NEEDED}')
  return sampled(path, rows, identity, verdict, _column(row, fields, 'text'))


def _again(first: tuple[str, dict[str, Any]], rest: Rows) -> Rows:
  yield first
  yield from rest


def _some(row: Mapping[str, Any]) -> str:
  names = [repr(name) for name in row]
  return ', '.join(names[:12]) + (' ...' if len(names) > 12 else '') or 'nothing'


def _column(row: Mapping[str, Any], fields: Mapping[str, str], what: str) -> str:
  """The column named for it, else the first of COLUMNS that is there, else ''."""
  named = fields.get(what, '')
  if named and named not in row:
    raise ValueError(f'compare.fields.{what}={named!r}: there is no such column, but {_some(row)}')
  return named or next((name for name in COLUMNS[what] if name in row), '')


def _json(path: pathlib.Path) -> Any:
  try:
    opener = gzip.open if path.suffix == '.gz' else open
    with opener(path, 'rt', encoding='utf-8') as file:
      return json.load(file, object_pairs_hook=importers.no_repeats)
  except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
    raise ValueError(f'{path}: the file is damaged ({error}); fetch it again') from error
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path}:{error.lineno}: not JSON ({error.msg}); the file is cut short or of another kind'
    ) from error
  except importers.Repeated as error:
    raise ValueError(f'{path}: {error}; were two files joined?') from error


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
    heavy = ('tokens', 'token_ids', 'logprobs', 'entropies', 'truncated_logprobs')
    yield from files.rows_of(path, tuple(name for name in names if name in heavy))
  else:
    yield from files.rows_of(path)


def _csv(path: pathlib.Path) -> Rows:
  opener = gzip.open if path.suffix == '.gz' else open
  try:
    with opener(path, 'rt', encoding='utf-8', newline='') as file:
      reader = csv.DictReader(itertools.dropwhile(lambda line: line.startswith('#'), file))
      for number, row in enumerate(reader):
        where = f'{path}: row {number}'
        if None in row or None in row.values():
          raise ValueError(
            f'{where} has more or fewer cells than the {len(reader.fieldnames or ())} columns of '
            'its head; the file is cut short or damaged'
          )
        yield where, {name: _cell(text) for name, text in row.items()}
  except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
    raise ValueError(f'{path}: the file is damaged ({error}); fetch it again') from error


def _cell(text: str) -> Any:
  return {'true': True, 'false': False}.get(text.lower(), text)


def _identity(row: Mapping[str, Any], column: str, where: str) -> str:
  value = row.get(column)
  if value is None or value == '' or isinstance(value, dict | list):
    raise ValueError(f'{where}: {column}={value!r} names no problem')
  return str(value)


def _whole(row: Mapping[str, Any], column: str, where: str) -> int:
  value = row.get(column)
  number = _number(value)
  if number is None or number != int(number) or number < 0:
    raise ValueError(f'{where}: {column}={value!r} is no whole number from 0 on')
  return int(number)


def _number(value: Any) -> float | None:
  """The finite number that a cell holds, also as text; else None."""
  try:
    number = float(value)
  except (TypeError, ValueError):
    return None
  return number if math.isfinite(number) else None


def counted(path: pathlib.Path, rows: Rows, identity: str) -> Draws:
  """A table of counts: problem, n, c; one row a problem."""
  counts: dict[str, tuple[int, int]] = {}
  settings = _Settings(path)
  prompts, answers = {}, {}
  for where, row in rows:
    problem = _identity(row, identity, where)
    n, c = _whole(row, 'n', where), _whole(row, 'c', where)
    if problem in counts:
      raise ValueError(f'{where}: problem {problem!r} stands in {path} twice; delete the copy')
    if not n or c > n:
      raise ValueError(f'{where}: n={n}, c={c} of problem {problem!r}; c is from 0 to n, n from 1')
    counts[problem] = n, c
    settings.take(row, where)
    _beside(row, problem, where, prompts, answers)
  drawn = [Draw(problem, 0, '', n=n, c=c) for problem, (n, c) in counts.items()]
  return Draws(
    'table of counts (problem_id, n, c)', drawn, settings.found, prompts, answers, counted=True
  )


def sampled(path: pathlib.Path, rows: Rows, identity: str, verdict: str, text: str) -> Draws:
  """Rows of our documented schema; one with a list of verdicts is that many completions."""
  numbered = None
  settings = _Settings(path)
  next_sample: dict[str, int] = {}
  seen: dict[tuple[str, int], str] = {}
  drawn = []
  prompts, answers = {}, {}
  for where, row in rows:
    problem = _identity(row, identity, where)
    several = isinstance(row.get(verdict), list)
    values = row[verdict] if several else [row.get(verdict)]
    texts = row.get(text) if text else None
    texts = texts if isinstance(texts, list) else [texts] * len(values)
    if len(texts) != len(values):
      raise ValueError(f'{where}: {len(values)} verdicts but {len(texts)} texts in {text!r}')
    has_number = row.get('sample') is not None and not several
    if numbered is not None and numbered != has_number:
      raise ValueError(f'{where}: some rows have a sample number and some have none')
    numbered = has_number
    for value, one in zip(values, texts, strict=True):
      sample = _whole(row, 'sample', where) if has_number else next_sample.get(problem, 0)
      next_sample[problem] = sample + 1
      if (problem, sample) in seen:
        raise ValueError(
          f'{where}: sample {sample} of problem {problem!r} is also at {seen[problem, sample]}; '
          'were two files joined? Delete the rows that are copies'
        )
      if has_number:
        seen[problem, sample] = where
      name = verdict_of(value, verdict, where)
      if not several:
        _agreeing(row, name, verdict, where)
      drawn.append(_draw(row, problem, sample, name, one, where))
    settings.take(row, where)
    _beside(row, problem, where, prompts, answers)
  _check_halves(path, drawn, bool(numbered))
  return Draws(
    'samples of the documented schema', drawn, settings.found, prompts, answers,
    numbered=bool(numbered),
  )  # fmt: skip


def _draw(
  row: Mapping[str, Any], problem: str, sample: int, verdict: str, text: Any, where: str
) -> Draw:
  if text is not None and not isinstance(text, str):
    raise ValueError(f'{where}: the completion is {str(text)[:60]!r}, no text')
  length = None
  if row.get('length') is not None and not isinstance(row['length'], list):
    length = _whole(row, 'length', where)
  reward = _number(row.get('reward'))
  return Draw(
    problem,
    sample,
    verdict,
    text=text,
    length=length,
    finish=str(row.get('finish') or row.get('finish_reason') or ''),
    extracted=str(row.get('extracted') or ''),
    reason=str(row.get('reason') or ''),
    reward=float(verdict == 'correct') if reward is None else reward,
  )


def verdict_of(value: Any, column: str, where: str) -> str:
  """The verdict a cell stands for: its name, true or false, or a number (1 is correct)."""
  if isinstance(value, str) and value in VERDICTS:
    return value
  number = _number(value)
  if number is not None and (0 <= number <= 1 or column == 'reward'):
    return 'correct' if number == 1 else 'wrong'
  raise ValueError(
    f'{where}: {column}={value!r} is neither true, false, a number up to 1 (1 is correct) nor one '
    f'of {", ".join(VERDICTS)}; name another column with --config.compare.fields.verdict=...'
  )


def _agreeing(row: Mapping[str, Any], name: str, column: str, where: str) -> None:
  """ValueError where verdict and correct, both given, say different things of a completion."""
  for other in ('verdict', 'correct'):
    if other != column and row.get(other) is not None:
      said = verdict_of(row[other], other, where)
      if (said == 'correct') != (name == 'correct'):
        raise ValueError(f'{where}: {column}={row[column]!r} contradicts {other}={row[other]!r}')


def _check_halves(path: pathlib.Path, drawn: list[Draw], numbered: bool) -> None:
  """ValueError if the file is one file twice, which no sample number shows."""
  half, rest = divmod(len(drawn), 2)
  if numbered or rest or half < 2 or not all(row.text for row in drawn):
    return
  same = all(
    (a.problem, a.text) == (b.problem, b.text)
    for a, b in zip(drawn[:half], drawn[half:], strict=True)
  )
  if same and len({row.text for row in drawn[:half]}) > 1:
    raise ValueError(
      f'{path}: its second half repeats the first, completion by completion; was the file joined '
      'to itself? Delete one half, or number the rows with a column sample'
    )


def _beside(
  row: Mapping[str, Any],
  problem: str,
  where: str,
  prompts: dict[str, str],
  answers: dict[str, str],
) -> None:
  for column, known in (('prompt', prompts), ('answer', answers)):
    value = row.get(column)
    if value is not None:
      text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
      if known.setdefault(problem, text) != text:
        raise ValueError(
          f'{where}: problem {problem!r} has another {column} than in an earlier row; its samples '
          'are not of one problem. Give the problems ids of their own'
        )


class _Settings:
  """Columns of SETTINGS, which one store has one value of."""

  def __init__(self, path: pathlib.Path):
    self.found: dict[str, Any] = {}
    self._path = path

  def take(self, row: Mapping[str, Any], where: str) -> None:
    """Notes a row's settings; ValueError if an earlier row had others (seeds may vary)."""
    for name in SETTINGS:
      value = row.get(name)
      if value is None or value == '':
        continue
      number = None if isinstance(value, bool) else _number(value)
      value = value if number is None else int(number) if number == int(number) else number
      if self.found.setdefault(name, value) == value:
        continue
      if name == 'seed':
        self.found[name] = 'several'
        continue
      what = 'verdicts of several verifier versions' if name == 'verifier' else 'several settings'
      raise ValueError(
        f'{where}: {what}, {name}={value!r} after {name}={self.found[name]!r}. They are never '
        f'averaged: split {self._path.name} by {name}, and give each part as a store'
      )
