"""Problems from a file of rows: JSON lines, JSON or Parquet, with a map of columns."""

import base64
import binascii
import dataclasses
import difflib
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlvr_jax.tasks.extract import last_box
from rlvr_jax.tasks.files import rows_of
from rlvr_jax.tasks.problem import Image, Problem, check_unique
from rlvr_jax.tasks.prompts import IMAGE_MARK

ID_COLUMNS = ('id', 'idx', 'task_id', 'unique_id')
PROMPT_COLUMNS = ('question', 'problem', 'prompt')
ANSWER_COLUMNS = ('answer', 'final_answer', 'solution')
FIELDS = ('id', 'prompt', 'answer', 'images')
_ABSENT = object()


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
    path: a .jsonl, .json (both also .gz) or .parquet file; blank lines are skipped.
    task: the problems' task name.
    fields: which column holds 'id', 'prompt' and 'answer'. What is left out is looked for: id in
      ID_COLUMNS, else the row number from 0; prompt in PROMPT_COLUMNS; answer in ANSWER_COLUMNS.
      'reward_model.ground_truth' is the column ground_truth within the column reward_model. Images
      are not looked for: name their column.
    limit: reads this many problems only; None for all.
    verifier: the name of their verifier (registry.py), kept in meta; None leaves it to the task.
    keep: further columns to carry along in meta.

  A string answer with a `#### ` line (GSM8K) stands for what follows it; one with a box stands for
  its last box (worked solutions); a list of one string stands for the string; a number is written
  out. Chat prompts are lists of {'role', 'content'}. Images are an entry or a list of them: a path
  (from the file's folder), a data URI, or {'bytes', 'path'} as in Parquet files; see Problem for
  where they stand in the prompt.

  Raises ValueError naming file and line: a line that does not parse, a missing column, an empty
  prompt or answer, a duplicate id.
  """
  path = Path(path)
  if limit is not None and limit < 1:
    raise ValueError(f'limit={limit} must be at least 1, or None for the whole file')
  rows = itertools.islice(rows_of(path), limit)
  problems = problems_of(
    rows, task=task, fields=fields, verifier=verifier, keep=keep, folder=path.parent
  )
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
  folder: Path = Path(),
) -> list[Problem]:
  """Problems from (where it comes from, as messages say it; row) pairs; see load_jsonl.

  folder: where paths of images begin.
  """
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
    images = ()
    if 'images' in fields:
      images = _images(_exact(row, fields['images'], where), where, folder)
      meta['images'] = [image.name for image in images]
    problems.append(Problem(identity, task, prompt, answer, meta, images))
  check_unique(problems)
  return problems


def image_of(value: Any, name: str) -> Image:
  """The image that bytes, {'bytes', 'path'}, a data URI or a path stand for.

  name is what it is called if its value does not say; ValueError begins with it.
  """
  if isinstance(value, dict):
    name = str(value.get('path') or name)
    value = value.get('bytes') or value.get('path')
  if isinstance(value, bytes) and value:
    return Image(name, data=value)
  if isinstance(value, str) and value.startswith('data:'):
    try:
      return Image(name, data=base64.b64decode(value.partition(',')[2], validate=True))
    except binascii.Error as error:
      raise ValueError(f'{name}: not base64 behind the comma ({error})') from error
  if isinstance(value, str) and value:
    return Image(value, path=value)
  kind = 'nothing' if not value else f'a {type(value).__name__}'
  raise ValueError(f'{name}: {kind}, where a path, a data URI or bytes are expected')


def _images(value: Any, where: str, folder: Path) -> tuple[Image, ...]:
  values = value if isinstance(value, list) else [] if value is None else [value]
  found = [image_of(one, f'{where}, image {i}') for i, one in enumerate(values)]
  return tuple(
    dataclasses.replace(image, path=str((folder / image.path).absolute())) if image.path else image
    for image in found
  )


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
    return tuple({**m, 'content': _content(m['content'], where)} for m in messages)
  raise ValueError(
    f'{where}: the prompt is neither text nor a list of {{"role", "content"}}: {str(value)[:60]!r}'
  )


def _content(value: Any, where: str) -> Any:
  """A message's content; of parts, [{'type': 'image'}, {'type': 'text', 'text': ...}], their text
  with IMAGE_MARK for every image."""
  if not isinstance(value, list):
    return value
  texts = []
  for part in value:
    kind = part.get('type') if isinstance(part, dict) else None
    if kind not in ('image', 'text'):
      raise ValueError(
        f"{where}: a part of a message is {part!r:.60}; 'text' and 'image' are known"
      )
    texts.append(IMAGE_MARK if kind == 'image' else str(part.get('text', '')))
  return ''.join(texts)


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
  value: Any = row
  for part in column.split('.'):
    value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
  if value is not _ABSENT:
    return value
  near = difflib.get_close_matches(column, row, n=1)
  raise ValueError(
    f'{where}: there is no column {column!r}'
    + (f'; did you mean {near[0]!r}?' if near else '')
    + f' (the line has {", ".join(row) or "none"})'
  )
