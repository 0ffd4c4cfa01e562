"""Problems from JSON lines: one object a line, .jsonl or .jsonl.gz."""

import difflib
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlvr_jax.tasks.extract import last_box
from rlvr_jax.tasks.problem import Problem, check_unique

ID_COLUMNS = ('id', 'idx', 'task_id', 'unique_id')
PROMPT_COLUMNS = ('question', 'problem', 'prompt')
ANSWER_COLUMNS = ('answer', 'final_answer', 'solution')
FIELDS = ('id', 'prompt', 'answer')


def load_jsonl(
  path: str | os.PathLike[str],
  *,
  task: str,
  fields: Mapping[str, str] | None = None,
  limit: int | None = None,
  verifier: str | None = None,
  keep: tuple[str, ...] = (),
) -> list[Problem]:
  """Reads problems, in the order of the file.

  Args:
    path: a .jsonl or .jsonl.gz file (UTF-8); blank lines are skipped.
    task: the problems' task name.
    fields: which column holds 'id', 'prompt' and 'answer'. What is left out is looked for: id in
      ID_COLUMNS, else the row number from 0; prompt in PROMPT_COLUMNS; answer in ANSWER_COLUMNS.
    limit: reads this many problems only; None for all.
    verifier: the name of their verifier (registry.py), kept in meta; None leaves it to the task.
    keep: further columns to carry along in meta.

  A string answer with a `#### ` line (GSM8K) stands for what follows it; one with a box stands for
  its last box (worked solutions); a list of one string stands for the string; a number is written
  out. Chat prompts are lists of {'role', 'content'}.

  Raises ValueError naming file and line: a line that does not parse, a missing column, an empty
  prompt or answer, a duplicate id.
  """
  path = Path(path)
  if limit is not None and limit < 1:
    raise ValueError(f'limit={limit} must be at least 1, or None for the whole file')
  rows = ((f'{path}:{line}', row) for line, row in itertools.islice(read_rows(path), limit))
  problems = problems_of(rows, task=task, fields=fields, verifier=verifier, keep=keep)
  if not problems:
    raise ValueError(f'{path}: there is no problem in this file')
  return problems


def problems_of(
  rows: Iterable[tuple[str, dict[str, Any]]],
  *,
  task: str,
  fields: Mapping[str, str] | None = None,
  verifier: str | None = None,
  keep: tuple[str, ...] = (),
) -> list[Problem]:
  """Problems from (where it comes from, as messages say it; row) pairs; see load_jsonl."""
  fields = dict(fields or {})
  if unknown := sorted(set(fields) - set(FIELDS)):
    raise ValueError(f'fields has the keys {unknown}; known are {", ".join(FIELDS)}')
  problems: list[Problem] = []
  places: dict[str, str] = {}
  for where, row in rows:
    identity = _identity(row, fields.get('id'), len(problems), where)
    if (first := places.setdefault(identity, where)) != where:
      raise ValueError(
        f'{where}: duplicate id {identity!r}, first seen at {first}; make ids unique or name '
        "another column with fields['id']"
      )
    prompt = _prompt(_column(row, fields, 'prompt', PROMPT_COLUMNS, where), where)
    answer = None
    if verifier != 'none':  # nobody judges: an answer is not needed
      answer = gold(_column(row, fields, 'answer', ANSWER_COLUMNS, where), where)
    meta = {column: _exact(row, column, where) for column in keep}
    if verifier is not None:
      meta['verifier'] = verifier
    problems.append(Problem(identity, task, prompt, answer, meta))
  check_unique(problems)
  return problems


def gold(value: Any, where: str) -> Any:
  """The answer that a dataset's answer column stands for (see load_jsonl).

  Raises ValueError, beginning with `where`, if it is empty: whatever a model wrote would be right.
  """
  if isinstance(value, list) and len(value) == 1:
    value = value[0]
  if isinstance(value, int | float) and not isinstance(value, bool):
    value = str(value)
  if isinstance(value, str):
    text = value
    if '####' in text:
      text = text.rpartition('####')[2]
    elif (box := last_box(text)) is not None:
      text = box.text or ''
    value = text.strip()
    if not value.strip('$ '):
      raise ValueError(f'{where}: the gold answer is empty; remove the row or give it an answer')
  if value is None or value in ([], {}):
    raise ValueError(f'{where}: the gold answer is {value}; remove the row or give it an answer')
  return value


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """(line, object) of every line that is not blank. ValueError naming file and line."""
  if not path.is_file():
    raise ValueError(f'path={str(path)!r}: there is no such file')
  line = 0
  try:
    with gzip.open(path, 'rb') if path.suffix == '.gz' else path.open('rb') as file:
      for line, content in enumerate(file, 1):
        if content.strip():
          yield line, _parse(content, f'{path}:{line}')
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(
      f'{path}: the compressed file is damaged after line {line} ({error}); fetch it again'
    ) from error


def _parse(content: bytes, where: str) -> dict[str, Any]:
  try:
    row = json.loads(content)
  except UnicodeDecodeError as error:
    raise ValueError(f'{where}: not UTF-8 ({error})') from error
  except json.JSONDecodeError as error:
    start = content[:60].decode(errors='replace').strip()
    raise ValueError(
      f'{where}: not JSON ({error.msg} at column {error.colno}); the line begins {start!r}'
    ) from error
  if not isinstance(row, dict):
    raise ValueError(f'{where}: a {type(row).__name__}, where an object {{...}} is expected')
  return row


def _identity(row: dict[str, Any], column: str | None, number: int, where: str) -> str:
  if column is not None:
    value = _exact(row, column, where)
  else:
    value = next((row[c] for c in ID_COLUMNS if row.get(c) is not None), number)
  if not isinstance(value, str | int | float):
    raise ValueError(f'{where}: the id {value!r} is neither text nor a number')
  return str(value)


def _prompt(value: Any, where: str) -> str | tuple[Mapping[str, str], ...]:
  if isinstance(value, str) and value.strip():
    return value
  messages = value if isinstance(value, list) else []
  if messages and all(isinstance(m, dict) and {'role', 'content'} <= set(m) for m in messages):
    return tuple(messages)
  raise ValueError(
    f'{where}: the prompt is neither text nor a list of {{"role", "content"}}: {str(value)[:60]!r}'
  )


def _column(
  row: dict[str, Any],
  fields: Mapping[str, str],
  field: str,
  candidates: tuple[str, ...],
  where: str,
) -> Any:
  if field in fields:
    return _exact(row, fields[field], where)
  for column in candidates:
    if column in row:
      return row[column]
  raise ValueError(
    f'{where}: no {field} column ({", ".join(candidates)}); the line has '
    f'{", ".join(row) or "none"}; name the right one with fields[{field!r}]'
  )


def _exact(row: dict[str, Any], column: str, where: str) -> Any:
  if column in row:
    return row[column]
  near = difflib.get_close_matches(column, row, n=1)
  raise ValueError(
    f'{where}: there is no column {column!r}'
    + (f'; did you mean {near[0]!r}?' if near else '')
    + f' (the line has {", ".join(row) or "none"})'
  )
