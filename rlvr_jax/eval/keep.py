"""Samples from several places as one sample store of ours, for the report and for further jobs."""

import json
import os
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rlvr_jax.eval import shards
from rlvr_jax.eval.importers import Draw
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.sources import Source

MARK = 'imported.json'  # beside shards that were put there from elsewhere: from where, and what
ROWS_PER_SHARD = 65_536


def keep(found: Sequence[Source], root: pathlib.Path, task: str) -> SampleStore | None:
  """The sources as root/<name>/<task>; None if one is a table of counts, which has no rows.

  Shards of ours are linked (copied where that cannot be). Of other tools' samples what is not known
  is '' (finish, verifier), 0 (length), empty (tokens), NaN (logprob_sum_sampled) or null
  (logprob_sum). What an earlier call put there is kept if it is the same, else replaced,
  and removed if it is not among the sources any more.
  ValueError if samples that are not such copies lie there.
  """
  _forget(found, root, task)
  if any(source.folder is None and source.rows is None for source in found):
    return None
  for source in found:
    _keep_one(source, root / source.name / task, task)
  return SampleStore(root)


def _forget(found: Sequence[Source], root: pathlib.Path, task: str) -> None:
  """Removes copies of earlier calls that are not of these sources: a report shows what it says."""
  kept = {root / source.name / task for source in found if source.folder or source.rows is not None}
  for mark in root.glob(f'*/*/{MARK}'):
    if mark.parent not in kept:
      for path in (*shards.shard_paths(mark.parent), mark):
        path.unlink()


def _keep_one(source: Source, folder: pathlib.Path, task: str) -> None:
  if source.folder is not None and folder.exists() and folder.samefile(source.folder):
    return
  mark = {'from': source.path, 'format': source.kind, 'content': source.content, 'task': task}
  path = folder / MARK
  if path.is_file() and json.loads(path.read_text()) == mark:
    return
  there = shards.shard_paths(folder) if folder.is_dir() else []
  if there and not path.is_file():
    raise ValueError(
      f'{folder} holds samples of its own, beside which those of {source.path} cannot be kept '
      f'under the name {source.name}; compare in another --workdir'
    )
  for old in there:
    old.unlink()
  folder.mkdir(parents=True, exist_ok=True)
  # first the mark, of content that is not there yet: a copy that is cut short is made again
  path.write_text(json.dumps({**mark, 'content': ''}) + '\n')
  if source.folder is not None:
    _link(source, source.folder, folder, task)
  else:
    _write(source, folder, task)
  path.write_text(json.dumps(mark) + '\n')


def _link(source: Source, old: pathlib.Path, folder: pathlib.Path, task: str) -> None:
  for path in shards.shard_paths(old):
    if source.task == task:
      try:
        os.link(path, folder / path.name)
      except OSError:  # another file system, or one without links
        shutil.copyfile(path, folder / path.name)
      continue
    metadata = shards.read_metadata(path)
    table = shards.read_shard(path, [*shards.SCHEMA.names, *shards.extras_of(path)])
    named = pa.array([task] * len(table), pa.string())
    table = table.set_column(0, shards.SCHEMA.field('task'), named)
    renamed = shards.Metadata(metadata.model, task, metadata.settings, metadata.prompt_hash)
    _publish(table, folder, renamed)
  if (old / 'problems.json').is_file():
    shutil.copyfile(old / 'problems.json', folder / 'problems.json')


def _publish(table: pa.Table, folder: pathlib.Path, metadata: shards.Metadata) -> None:
  temporary = folder / f'.part.{os.getpid()}.tmp'
  try:
    shards.write_table(temporary, table, metadata)
    shards.publish(temporary, folder)
  except OSError as error:
    temporary.unlink(missing_ok=True)
    raise shards.store_error('cannot write', folder, error) from error


def _write(source: Source, folder: pathlib.Path, task: str) -> None:
  rows = source.rows or ()
  metadata = shards.Metadata(source.name, task, dict(source.settings), source.prompt_hash)
  for begin in range(0, len(rows), ROWS_PER_SHARD):
    part = rows[begin : begin + ROWS_PER_SHARD]
    _publish(_table(part, task, source.verifier), folder, metadata)


def _table(rows: Sequence[Draw], task: str, verifier: str) -> pa.Table:
  size = len(rows)
  columns = {
    'task': [task] * size,
    'problem_id': [row.problem for row in rows],
    'visit': np.zeros(size, np.int32),
    'sample': np.array([row.sample for row in rows], np.int32),
    'seed': np.zeros(size, np.int64),
    'tokens': [[]] * size,
    'text': [row.text or '' for row in rows],
    'length': np.array([row.length or 0 for row in rows], np.int32),
    'finish': [row.finish for row in rows],
    'logprob_sum': pa.nulls(size, pa.float64()),
    'logprob_sum_sampled': np.full(size, np.nan),
    'verdict': [row.verdict for row in rows],
    'extracted': [row.extracted for row in rows],
    'reason': [row.reason for row in rows],
    'reward': np.array([row.reward for row in rows], np.float32),
    'verifier': [verifier] * size,
    'sandbox': [''] * size,
  }
  return pa.table(columns, schema=shards.SCHEMA)
