# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported; no checker sees them)
"""The files of the sample store: schema, metadata, and every check a shard must pass."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import platform
import re
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlvr_jax import hosts, paths
from rlvr_jax.tasks import registry

KEY = ('task', 'problem_id', 'visit', 'sample')
METADATA_KEY = b'rlvr_jax.samples'
FORMAT = 1

SCHEMA = pa.schema(
  [
    pa.field('task', pa.string(), nullable=False),
    pa.field('problem_id', pa.string(), nullable=False),
    pa.field('visit', pa.int32(), nullable=False),
    pa.field('sample', pa.int32(), nullable=False),
    pa.field('seed', pa.int64(), nullable=False),
    pa.field('tokens', pa.list_(pa.int32()), nullable=False),
    pa.field('text', pa.string(), nullable=False),
    pa.field('length', pa.int32(), nullable=False),
    pa.field('finish', pa.string(), nullable=False),
    pa.field('logprob_sum', pa.float64()),  # at T = 1; null where it was not computed
    pa.field('logprob_sum_sampled', pa.float64(), nullable=False),
    pa.field('verdict', pa.string(), nullable=False),
    pa.field('extracted', pa.string(), nullable=False),
    pa.field('reason', pa.string(), nullable=False),
    pa.field('reward', pa.float32(), nullable=False),
    pa.field('verifier', pa.string(), nullable=False),
    pa.field('sandbox', pa.string(), nullable=False),
  ]
)

# columns of values of each token, in shards that have any: the first two of samples drawn with
# sampling.extras, the last of conversations
EXTRAS = pa.schema(
  [
    pa.field('entropies', pa.list_(pa.float32())),
    pa.field('truncated_logprobs', pa.list_(pa.float32())),
    pa.field('sampled', pa.list_(pa.bool_())),
  ]
)


class StoreError(OSError):
  """The disk would not take the samples; the message says which path and what to do."""


@dataclasses.dataclass(frozen=True)
class Metadata:
  model: str
  task: str
  settings: dict[str, Any]
  prompt_hash: str

  def encode(self) -> bytes:
    return json.dumps({'format': FORMAT, **dataclasses.asdict(self)}, sort_keys=True).encode()


def temporary_name(what: str) -> str:
  """A file name that no other process uses, on whatever machine."""
  return f'.{what}.{platform.node()}.{os.getpid()}.tmp'


def sweep(folder: pathlib.Path) -> None:
  """Deletes half-written files of killed writers: this machine's dead ones, and any an hour old.

  A shard is written in seconds. An object store has no such files.
  """
  if paths.is_remote(folder):
    return
  for path in folder.glob('.part.*.tmp'):
    pid = path.name.split('.')[-2]
    dead = path.name == f'.part.{platform.node()}.{pid}.tmp' and not _alive(int(pid))
    with contextlib.suppress(FileNotFoundError):  # its writer has just ended
      if dead or time.time() - path.stat().st_mtime > 3600:
        path.unlink()


def _alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True


def store_error(what: str, path: pathlib.Path, error: OSError) -> StoreError:
  return StoreError(
    error.errno,
    f'{what} {path}: {error.strerror or error}; free some space, mend the permissions, or place '
    'the run elsewhere with --workdir',
  )


def shard_paths(folder: pathlib.Path) -> list[pathlib.Path]:
  named = re.compile(r'part-(\d{5,})\.parquet')
  found = [(int(match[1]), path) for path in folder.glob('part-*.parquet')
           if (match := named.fullmatch(path.name))]  # fmt: skip
  return [path for _, path in sorted(found)]


def _next_number(folder: pathlib.Path) -> int:
  """The next free number of a shard.

  Of several processes of a run each takes numbers of its own, so that none can overwrite another's.
  """
  taken = shard_paths(folder)
  number = int(taken[-1].stem.removeprefix('part-')) + 1 if taken else 0
  return number + (hosts.index() - number) % hosts.count()


def store(folder: pathlib.Path, rows: list[Any], metadata: Metadata) -> int:
  """Rows as the next shard of a folder, there whole or not at all; its bytes.

  An object store has no rename that is at once: there the shard is put under its name in one piece,
  and what the store lists is whole.
  """
  if paths.is_remote(folder):
    data = io.BytesIO()
    _write_parquet(_table_of(rows), data, metadata)
    paths.write_whole(folder / f'part-{_next_number(folder):05d}.parquet', data.getvalue())
    return data.tell()
  temporary = folder / temporary_name('part')
  try:
    size = write(temporary, rows, metadata)
    publish(temporary, folder)
  except OSError:
    temporary.unlink(missing_ok=True)
    raise
  return size


def publish(temporary: pathlib.Path, folder: pathlib.Path) -> None:
  """Gives the finished file the next free number; a link fails where a rename would overwrite."""
  number = _next_number(folder)
  while True:
    target = folder / f'part-{number:05d}.parquet'
    try:
      os.link(temporary, target)
    except FileExistsError:  # another writer took it meanwhile
      number += hosts.count()
      continue
    except OSError:  # a file system without hard links
      os.rename(temporary, target)
    else:
      temporary.unlink()
    break
  if hasattr(os, 'O_DIRECTORY'):  # the new name itself is durable only once its folder is synced
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
      os.fsync(handle)
    finally:
      os.close(handle)


def write(temporary: pathlib.Path, rows: list[Any], metadata: Metadata) -> int:
  """Rows (attributes named as SCHEMA) into a file that is on the disk on return; its bytes."""
  return write_table(temporary, _table_of(rows), metadata)


def _table_of(rows: list[Any]) -> pa.Table:
  """Rows as a table; a column of EXTRAS is there if any row has a value for it."""
  schema = SCHEMA
  for field in EXTRAS:
    if any(getattr(row, field.name) is not None for row in rows):
      schema = schema.append(field)
  columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
  return pa.table(columns, schema=schema)


def _write_parquet(table: pa.Table, file: Any, metadata: Metadata) -> None:
  table = table.replace_schema_metadata({METADATA_KEY: metadata.encode()})
  pq.write_table(table, file, compression='zstd', write_page_checksum=True)


def write_table(temporary: pathlib.Path, table: pa.Table, metadata: Metadata) -> int:
  """The same of rows that are a table already, in SCHEMA's columns."""
  temporary.parent.mkdir(parents=True, exist_ok=True)
  with open(temporary, 'wb') as file:
    _write_parquet(table, file, metadata)
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def _source(path: pathlib.Path) -> Any:
  """What pyarrow reads: a path here, the bytes of an object elsewhere."""
  return pa.BufferReader(path.read_bytes()) if paths.is_remote(path) else path


def with_extras(schema: pa.Schema) -> pa.Schema:
  return pa.unify_schemas([schema, EXTRAS])


def extras_of(path: pathlib.Path) -> list[str]:
  """The columns of EXTRAS that a shard has."""
  try:
    there = pq.read_schema(_source(path)).names
  except (pa.ArrowInvalid, OSError) as error:
    raise _corrupt(path, error) from error
  return [name for name in EXTRAS.names if name in there]


def _corrupt(path: pathlib.Path, error: Exception) -> Exception:
  if isinstance(error, OSError) and error.errno is not None:
    return error  # the system's own trouble (permission, I/O), not the shard's
  return ValueError(
    f'{path} is torn or corrupt ({str(error).splitlines()[0]}); delete it, and its samples will be '
    'drawn again'
  )


def read_metadata(path: pathlib.Path) -> Metadata:
  try:
    raw = (pq.read_schema(_source(path)).metadata or {}).get(METADATA_KEY)
  except (pa.ArrowInvalid, OSError) as error:
    raise _corrupt(path, error) from error
  if raw is None:
    raise ValueError(f'{path} is not a shard of a sample store (its metadata is missing)')
  try:
    fields = json.loads(raw)
    version = fields.pop('format')
    if version == FORMAT:
      return Metadata(**fields)
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(
      f'{path} has damaged metadata ({error}); delete it, and its samples will be drawn again'
    ) from error
  raise ValueError(f'{path} has store format {version}; this version reads format {FORMAT}')


def is_ours(path: pathlib.Path) -> bool:
  """Whether a file is a shard of a sample store; a torn one of that name is taken for one."""
  try:
    return METADATA_KEY in (pq.read_schema(_source(path)).metadata or {})
  except (pa.ArrowInvalid, OSError):
    return True


def check_same(there: Metadata, wanted: Metadata, path: pathlib.Path, other: str) -> None:
  a, b = dataclasses.asdict(there), dataclasses.asdict(wanted)
  settings_a, settings_b = a.pop('settings'), b.pop('settings')
  differing = [
    f'{key}: {x.get(key)!r} against {y.get(key)!r}'
    for x, y in ((a, b), (settings_a, settings_b))
    for key in sorted({*x, *y})
    if x.get(key) != y.get(key)
  ]
  if differing:
    raise ValueError(
      f'{path} and {other} differ in {"; ".join(differing)}. Samples of different settings are '
      'never mixed: give the model another name in the store, or move the old samples away'
    )


def agreed_metadata(paths: list[pathlib.Path]) -> Metadata:
  first = read_metadata(paths[0])
  for path in paths[1:]:
    check_same(first, read_metadata(path), paths[0], path.name)
  return first


def read_shard(path: pathlib.Path, columns: list[str]) -> pa.Table:
  """These columns of a shard; those of EXTRAS are null where it has none."""
  absent = sorted({*columns} & {*EXTRAS.names} - {*extras_of(path)})
  if absent:
    table = read_shard(path, [name for name in columns if name not in absent])
    for name in absent:
      field = EXTRAS.field(name)
      table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(columns)
  try:
    table = pq.read_table(_source(path), columns=columns, page_checksum_verification=True)
  except (pa.ArrowInvalid, OSError) as error:
    raise _corrupt(path, error) from error
  expected = pa.schema([with_extras(SCHEMA).field(name) for name in columns])
  if not table.schema.equals(expected):
    raise ValueError(f'{path} has other columns than the store: {table.schema.names}')
  return table.replace_schema_metadata(None)


def check_verifiers(paths: list[pathlib.Path], tables: list[pa.Table]) -> str:
  """The version of the verifier that judged all of it; of a mixture of tasks those of its
  verifiers, joined (registry.verifiers_of).

  ValueError for two versions of a verifier, or of the verdicts of a problem. Tables have the
  columns problem_id and verifier.
  """
  where: dict[str, str] = {}
  for path, table in zip(paths, tables, strict=True):
    for version in table['verifier'].unique().to_pylist():
      where.setdefault(version, path.name)
  if len(where) > 1:
    names = {version.rpartition(':')[0] for version in where}
    rows = pa.concat_tables([table.select(['problem_id', 'verifier']) for table in tables])
    pairs = len(rows.group_by(['problem_id', 'verifier']).aggregate([]))
    if len(names) < len(where) or pairs > len(rows['problem_id'].unique()):
      named = ', '.join(f'{version!r} (first in {name})' for version, name in where.items())
      raise ValueError(
        f'{paths[0].parent} holds verdicts of several verifier versions: {named}. They are never '
        'averaged: sample into another --workdir with one of them'
      )
  return registry.joined(where)


def agreed_verifier(paths: list[pathlib.Path]) -> str:
  return check_verifiers(paths, [read_shard(path, ['problem_id', 'verifier']) for path in paths])


def codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
  """(distinct values, sorted; for every row which of them, i64) of a column of text."""
  encoded = pc.dictionary_encode(column).unify_dictionaries()
  names = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
  rank = np.empty(len(names), np.int64)
  rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
  indices = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
  found = rank[np.concatenate(indices)] if names else np.zeros(0, np.int64)
  return sorted(names), found


def check_keys(paths: list[pathlib.Path], tables: list[pa.Table], task: str) -> None:
  seen = pa.concat_tables(tables).select(list(KEY))
  strangers = set(seen['task'].unique().to_pylist()) - {task}
  if strangers:
    raise ValueError(f'{paths[0].parent} holds rows of other tasks: {sorted(strangers)}')
  tally = seen.group_by(list(KEY)).aggregate([([], 'count_all')])
  repeated = np.flatnonzero(tally['count_all'].to_numpy() > 1)
  if repeated.size:
    example = tuple(tally[name][int(repeated[0])].as_py() for name in KEY)
    holders = [
      path.name
      for path, table in zip(paths, tables, strict=True)
      if example in zip(*(table[name].to_pylist() for name in KEY), strict=True)
    ]
    raise ValueError(
      f'{repeated.size} keys {KEY} are stored more than once in {paths[0].parent}, e.g. {example} '
      f'in {", ".join(holders)}; were two stores copied together? Delete the shards that are copies'
    )


def check_errors(folder, ids, errors: np.ndarray, total: int, limit: float) -> None:
  share = errors.sum() / total
  if share > limit:
    worst = [f'{ids[i]} ({errors[i]})' for i in np.argsort(-errors, kind='stable')[:5] if errors[i]]
    raise ValueError(
      f'{errors.sum()} of {total} verdicts in {folder} are verifier errors ({share:.1%}, at most '
      f'{limit:.1%} are allowed); most in problems {", ".join(worst)}. Mend the verifier (or raise '
      'verifier.memory_mb) and sample into another --workdir'
    )
