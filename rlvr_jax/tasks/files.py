"""Rows of data files: JSON lines, JSON, Parquet, and folders or zips of one data.json a row."""

import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIXES = ('.jsonl', '.jsonl.gz', '.json', '.json.gz', '.parquet', '.zip')
Placed = Iterator[tuple[str, dict[str, Any]]]  # (where the row is, as messages say it; the row)


def rows_of(path: Path, skip: tuple[str, ...] = ()) -> Placed:
  """The rows of a file or folder, in its order; `skip` names Parquet columns that are not read.

  A .json file holds a list of objects, or one object of them by key. A folder or .zip holds a
  data.json for every row, which gets its folder's name as the column 'folder'.
  Raises ValueError naming the place for what is missing, damaged or no object.
  """
  if path.is_dir():
    yield from _folder(path)
  elif not path.is_file():
    raise ValueError(f'path={str(path)!r}: there is no such file')
  elif path.suffix == '.parquet':
    yield from _parquet(path, skip)
  elif path.suffix == '.zip':
    yield from _zip(path)
  elif path.name.removesuffix('.gz').endswith('.json'):
    yield from _json(path)
  else:
    yield from _lines(path)


def _open(path: Path):
  return gzip.open(path, 'rb') if path.suffix == '.gz' else path.open('rb')


def _lines(path: Path) -> Placed:
  line = 0
  try:
    with _open(path) as file:
      for line, content in enumerate(file, 1):
        if content.strip():
          yield f'{path}:{line}', _parse(content, f'{path}:{line}')
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
  return _object(row, where)


def _object(row: Any, where: str) -> dict[str, Any]:
  if not isinstance(row, dict):
    raise ValueError(f'{where}: a {type(row).__name__}, where an object {{...}} is expected')
  return row


def _json(path: Path) -> Placed:
  try:
    with _open(path) as file:
      content = json.load(file)
  except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
    raise ValueError(f'{path}: the file is damaged ({error}); fetch it again') from error
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path}:{error.lineno}: not JSON ({error.msg}); the file is cut short or of another kind'
    ) from error
  if isinstance(content, dict):
    content = list(content.values())
  if not isinstance(content, list):
    raise ValueError(f'{path}: a {type(content).__name__}, where a list of objects is expected')
  for number, row in enumerate(content):
    where = f'{path}: row {number}'
    yield where, _object(row, where)


def _parquet(path: Path, skip: tuple[str, ...]) -> Placed:
  import pyarrow as pa
  import pyarrow.parquet as pq

  number = 0
  try:
    with pq.ParquetFile(path) as file:
      columns = [name for name in file.schema_arrow.names if name not in skip]
      for batch in file.iter_batches(batch_size=256, columns=columns):
        for row in batch.to_pylist():
          yield f'{path}: row {number}', row
          number += 1
  except (pa.ArrowException, OSError) as error:
    raise ValueError(
      f'{path}: the Parquet file is damaged after row {number} '
      f'({str(error).splitlines()[0]}); fetch it again'
    ) from error


def _folder(path: Path) -> Placed:
  files = sorted(path.glob('*/data.json'), key=lambda file: _natural(file.parent.name))
  if not files:
    raise ValueError(f'path={str(path)!r}: no folder in it holds a data.json')
  for file in files:
    row = _parse(file.read_bytes(), str(file))
    yield str(file), {**row, 'folder': str(file.parent)}


def _zip(path: Path) -> Placed:
  try:
    with zipfile.ZipFile(path) as archive:
      names = [name for name in archive.namelist() if name.endswith('/data.json')]
      for name in sorted(names, key=lambda name: _natural(name.split('/')[-2])):
        where = f'{path}: {name}'
        yield where, {**_parse(archive.read(name), where), 'folder': name.rpartition('/')[0]}
  except (zipfile.BadZipFile, EOFError, zlib.error) as error:
    raise ValueError(f'{path}: the zip is damaged ({error}); fetch it again') from error
  if not names:
    raise ValueError(f'{path}: no folder in it holds a data.json')


def _natural(name: str) -> tuple[bool, int, str]:
  return (not name.isdigit(), int(name) if name.isdigit() else 0, name)
