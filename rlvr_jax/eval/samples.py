# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported; no checker sees them)
"""The sample store: every completion ever measured, one Parquet row each.

root/<model>/<task>/part-NNNNN.parquet. A shard is written whole under a temporary name, synced and
then linked to its number, so that a reader never sees half of one and a killed writer loses at most
its buffer. The primary key is (task, problem_id, visit, sample). One writer may fail, be killed and
go on: `done` says what need not be drawn again.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlvr_jax import paths
from rlvr_jax.eval import shards
from rlvr_jax.eval.counts import Counts, Reached
from rlvr_jax.tasks.problem import VERDICTS

FINISHES = ('eos', 'length')


@dataclasses.dataclass(frozen=True)
class Row:
  """One completion with its verdict. Log-prob sums are natural logs over the sampled tokens.

  logprob_sum is at T = 1 (None where it was not computed), logprob_sum_sampled under the sampling
  temperature (NaN where a server did not tell it; then tokens, whose ids it does not tell, are
  empty). verifier and sandbox name the version and the isolation that gave the verdict. entropies
  and truncated_logprobs are a Completion's, of each token, where they were asked for. In a
  conversation text and tokens hold its turns end to end, sampled says of each token whether the
  model wrote it, and verdict is that of the last completion.
  """

  task: str
  problem_id: str
  visit: int
  sample: int
  seed: int
  tokens: Sequence[int] | np.ndarray
  text: str
  length: int
  finish: str
  logprob_sum_sampled: float
  verdict: str
  reward: float
  verifier: str
  logprob_sum: float | None = None
  extracted: str = ''
  reason: str = ''
  sandbox: str = ''
  entropies: Sequence[float] | np.ndarray | None = None
  truncated_logprobs: Sequence[float] | np.ndarray | None = None
  sampled: Sequence[bool] | np.ndarray | None = None

  def __post_init__(self):
    if self.verdict not in VERDICTS:
      raise ValueError(f'verdict={self.verdict!r} is not one of {VERDICTS}')
    if self.finish not in FINISHES:
      raise ValueError(f'finish={self.finish!r} is not one of {FINISHES}')
    if len(self.tokens) not in (self.length, 0):  # a server may not tell their ids
      raise ValueError(f'length={self.length} but {len(self.tokens)} tokens were given')


def check_name(what: str, name: str) -> None:
  """ValueError unless the name can be that of a folder of a store."""
  if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._=+@:-]*', name):
    raise ValueError(
      f'{what}={name!r} cannot name a folder of the store; use letters, digits and ._-=+@: only'
    )


class SampleStore:
  """All samples under one directory, by model and task."""

  def __init__(self, root: str | os.PathLike):
    self.root = paths.path_of(root)

  def check_writable(self, needed_bytes: int = 0) -> None:
    """Tries the disk before an hour is spent sampling.

    Raises StoreError if the directory cannot be made or written, or has fewer free bytes than
    needed.
    """
    probe = self.root / shards.temporary_name('probe')
    try:
      self.root.mkdir(parents=True, exist_ok=True)
      probe.write_bytes(b'x' * 4096)
      probe.unlink()
      free = self.free_bytes()
    except OSError as error:
      raise shards.store_error('cannot write samples to', self.root, error) from error
    if free is not None and free < needed_bytes:
      raise shards.StoreError(
        f'{self.root} has {free / 2**20:.0f} MiB free but about {needed_bytes / 2**20:.0f} MiB of '
        'samples are to come; free some space or place the run elsewhere with --workdir'
      )

  def free_bytes(self) -> int | None:
    """Room on the disk; None in an object store, which has no end."""
    return None if paths.is_remote(self.root) else shutil.disk_usage(self.root).free

  def models(self) -> dict[str, list[str]]:
    """Model names in the store, each with its tasks."""
    found: dict[str, list[str]] = {}
    for path in sorted(self.root.glob('*/*')):
      if path.is_dir() and shards.shard_paths(path):
        found.setdefault(path.parent.name, []).append(path.name)
    return found

  def writer(
    self,
    model: str,
    task: str,
    settings: Mapping[str, Any],
    *,
    prompt_hash: str,
    rows_per_shard: int = 4096,
    flush_seconds: float = 60.0,
  ) -> 'SampleWriter':
    """A buffered writer that goes on where earlier shards end.

    settings (JSON values) are what a draw depends on: temperature, top_p, top_k, max_tokens,
    coupling and the like; prompt_hash stands for the prompt template. ValueError if shards of other
    settings or prompts are already there.
    """
    folder = self._folder(model, task)
    shards.sweep(folder)
    metadata = shards.Metadata(model, task, json.loads(json.dumps(dict(settings))), prompt_hash)
    for path in shards.shard_paths(folder):
      shards.check_same(shards.read_metadata(path), metadata, path, 'the samples about to be drawn')
    return SampleWriter(folder, metadata, rows_per_shard, flush_seconds)

  def done(self, model: str, task: str) -> set[tuple[str, int, int]]:
    """(problem_id, visit, sample) of every stored completion, for resuming and topping up."""
    folder = self._folder(model, task)
    if not shards.shard_paths(folder):
      return set()
    table = self.read(model, task, columns=['problem_id', 'visit', 'sample'])
    return set(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))

  def verdicts(self, model: str, task: str) -> Iterator[tuple[str, int, str]]:
    """(problem_id, sample, verdict) of every stored completion of visit 0."""
    if shards.shard_paths(self._folder(model, task)):
      table = self.read(model, task, columns=['visit', 'problem_id', 'sample', 'verdict'])
      columns = (table[name].to_pylist() for name in table.column_names)
      for visit, problem, sample, verdict in zip(*columns, strict=True):
        if visit == 0:
          yield problem, sample, verdict

  def settings(self, model: str, task: str) -> dict[str, Any]:
    """The sampling settings, prompt hash and verifier version all shards agree on."""
    metadata = self._metadata(model, task)
    paths = self._existing(self._folder(model, task))
    verifier = shards.agreed_verifier(paths)
    return {**metadata.settings, 'prompt_hash': metadata.prompt_hash, 'verifier': verifier}

  def _metadata(self, model: str, task: str) -> shards.Metadata:
    return shards.agreed_metadata(self._existing(self._folder(model, task)))

  def read(self, model: str, task: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Every row of a model's task, in shard order.

    Without columns all of them, those of shards.EXTRAS only if some shard has them.
    ValueError names what is wrong: nothing stored, a torn or corrupt shard, shards of different
    settings, prompts or verifier versions, repeated keys.
    """
    folder = self._folder(model, task)
    paths = self._existing(folder)
    shards.agreed_metadata(paths)
    if columns is None:
      extras = {name for path in paths for name in shards.extras_of(path)}
      columns = [*shards.SCHEMA.names, *(name for name in shards.EXTRAS.names if name in extras)]
    names = shards.with_extras(shards.SCHEMA).names
    needed = [name for name in names if name in {*columns, *shards.KEY, 'verifier'}]
    tables = [shards.read_shard(path, needed) for path in paths]
    shards.check_verifiers(paths, tables)
    shards.check_keys(paths, tables, task)
    return pa.concat_tables(tables).select(list(columns))

  def counts(
    self,
    model: str,
    task: str,
    *,
    problem_ids: Sequence[str] | None = None,
    samples: int | None = None,
    max_error_share: float = 0.01,
  ) -> Counts:
    """Per-problem n and c, ids sorted. n counts every verdict but error; time-outs are not correct.

    problem_ids and samples leave out other problems, and samples from that index on.
    ValueError if more than max_error_share of the samples are verifier errors, for samples that
    nobody judged, and for more samples of an early-stopped store than every problem has.
    """
    self._check_countable(model, task, samples)
    columns = ['problem_id', 'sample', 'verdict', 'length', 'finish', 'sampled']
    table = self.read(model, task, columns=columns)
    if problem_ids is not None:
      asked = pa.array(sorted({*problem_ids}), pa.string())
      table = table.filter(pc.is_in(table['problem_id'], value_set=asked))
    if samples is not None:
      table = table.filter(pc.less(table['sample'], samples))
    if not len(table):
      raise ValueError(f'none of the asked samples is in {self._folder(model, task)}')
    ids, where = shards.codes(table['problem_id'])
    names, name_of = shards.codes(table['verdict'])
    verdicts = {
      name: np.bincount(where[name_of == names.index(name)], minlength=len(ids)).astype(np.int64)
      if name in names
      else np.zeros(len(ids), np.int64)
      for name in VERDICTS
    }
    shards.check_errors(
      self._folder(model, task), ids, verdicts['error'], len(where), max_error_share
    )
    total = int(pc.sum(table['length']).as_py())
    observed = pc.sum(pc.equal(pc.list_flatten(table['sampled']), False)).as_py() or 0
    return Counts(
      problem_ids=tuple(ids),
      n=np.bincount(where, minlength=len(ids)) - verdicts['error'],
      c=verdicts['correct'],
      verdicts=verdicts,
      tokens=total - observed,
      observed=observed,
      truncated=_truncated(table['finish']),
      coupling=str(self._metadata(model, task).settings.get('coupling', 'independent')),
    )

  def extent(self, model: str, task: str) -> dict[str, tuple[int, int]]:
    """Of each problem: its rows of visit 0, and its largest sample index plus 1."""
    table = self.read(model, task, columns=['problem_id', 'visit', 'sample'])
    table = table.filter(pc.equal(table['visit'], 0))
    found = table.group_by('problem_id').aggregate([([], 'count_all'), ('sample', 'max')])
    columns = (found[name].to_pylist() for name in ('problem_id', 'count_all', 'sample_max'))
    return {problem: (rows, last + 1) for problem, rows, last in zip(*columns, strict=True)}

  def _check_countable(self, model: str, task: str, samples: int | None) -> None:
    settings = self.settings(model, task)
    if settings['verifier'].startswith('none:'):
      raise ValueError(
        f'the samples of {model} on {task} were drawn without a verifier, so none can be counted; '
        'sample into another --workdir with one'
      )
    first = settings.get('first')
    if first is not None and (samples is None or samples > first):
      asked = 'all samples' if samples is None else f'{samples} samples a problem'
      raise ValueError(
        f'{model} on {task} was stopped early (sampling.stop_after={settings["stop_after"]}): how '
        f'many draws a problem has beyond the first {first} depends on what they gave, so pass@k '
        f'from {asked} would be wrong. Ask for samples={first}, and for coverage with reached()'
      )

  def reached(
    self,
    model: str,
    task: str,
    *,
    n: int,
    problem_ids: Sequence[str] | None = None,
    max_error_share: float = 0.01,
  ) -> Reached:
    """Correct draws of each problem within n, of a store that was stopped early; ids sorted.

    ValueError for a store without early stopping, for problems whose draws are not complete, and as
    in `counts` for errors.
    """
    settings = self.settings(model, task)
    if 'first' not in settings:
      raise ValueError(f'{model} on {task} was not stopped early: counts() says all there is')
    first, most = settings['first'], settings['stop_after']
    table = self.read(model, task, columns=['problem_id', 'sample', 'verdict', 'length'])
    table = table.filter(pc.less(table['sample'], n))
    there, where = shards.codes(table['problem_id'])
    place = {problem: i for i, problem in enumerate(there)}
    ids = sorted(there if problem_ids is None else problem_ids)
    size = len(there)

    def of_asked(values: np.ndarray) -> np.ndarray:
      return np.array([values[place[p]] if p in place else 0 for p in ids], np.int64)

    def tally(verdict: str) -> np.ndarray:
      told = pc.equal(table['verdict'], verdict).to_numpy(zero_copy_only=False)
      return of_asked(np.bincount(where[told], minlength=size))

    last = np.zeros(size, np.int64)
    np.maximum.at(last, where, table['sample'].to_numpy() + 1)
    lengths = np.bincount(where, table['length'].to_numpy(), minlength=size)
    drawn, correct = of_asked(np.bincount(where, minlength=size)), tally('correct')
    whole = of_asked(last) == drawn  # no index twice, so none is missing below the last
    tokens = int(of_asked(lengths).sum())
    ended = (drawn == n) | ((drawn >= first) & (correct >= most))
    unfinished = [problem for problem, done in zip(ids, whole & ended, strict=True) if not done]
    folder = self._folder(model, task)
    if unfinished:
      raise ValueError(
        f'{len(unfinished)} of {len(ids)} problems in {folder} lack draws that n={n} asks for, '
        f'among them {unfinished[:5]}; sample them to the end first'
      )
    errors = tally('error')
    shards.check_errors(folder, ids, errors, int(drawn.sum()), max_error_share)
    return Reached(tuple(ids), n, first, most, np.minimum(correct, most), drawn, tokens)

  def _folder(self, model: str, task: str) -> pathlib.Path:
    check_name('model', model)
    check_name('task', task)
    return self.root / model / task

  def _existing(self, folder: pathlib.Path) -> list[pathlib.Path]:
    paths = shards.shard_paths(folder)
    if not paths:
      raise ValueError(f'no samples in {folder}; the store holds {self.models() or "nothing"}')
    return paths


def _truncated(finish: pa.ChunkedArray) -> int | None:
  """How many were cut at the limit; None where some rows, of another tool, do not say."""
  if pc.any(pc.equal(finish, '')).as_py():
    return None
  return int(pc.sum(pc.equal(finish, 'length')).as_py())


class SampleWriter:
  """Buffers rows and writes them as shards; use it as a context manager or call close().

  buffered: rows not yet on the disk; bytes_written: of the shards written so far.
  """

  def __init__(
    self, folder, metadata: 'shards.Metadata', rows_per_shard: int, flush_seconds: float
  ):
    self._folder = folder
    self.metadata = metadata
    self._rows_per_shard = rows_per_shard
    self._flush_seconds = flush_seconds
    self._rows: list[Row] = []
    self._flushed = time.monotonic()
    self.bytes_written = 0

  @property
  def buffered(self) -> int:
    return len(self._rows)

  def append(self, row: Row | Mapping[str, Any]) -> None:
    """Takes one completion (a Row or a mapping of its fields); writes a shard when one is full."""
    row = row if isinstance(row, Row) else Row(**row)
    if row.task != self.metadata.task:
      raise ValueError(f'row of task {row.task!r} in the store of task {self.metadata.task!r}')
    self._rows.append(row)
    waited = time.monotonic() - self._flushed
    if len(self._rows) >= self._rows_per_shard or waited >= self._flush_seconds:
      self.flush()

  def extend(self, rows: Iterable[Row | Mapping[str, Any]]) -> None:
    """Appends every row."""
    for row in rows:
      self.append(row)

  def flush(self) -> None:
    """Writes what is buffered as one shard. On StoreError the rows stay buffered."""
    self._flushed = time.monotonic()
    if not self._rows:
      return
    try:
      size = shards.store(self._folder, self._rows, self.metadata)
    except OSError as error:
      what = f'cannot write {len(self._rows)} samples to'
      raise shards.store_error(what, self._folder, error) from error
    self.bytes_written += size
    self._rows.clear()

  def close(self) -> None:
    """Writes the rest."""
    self.flush()

  def __enter__(self) -> 'SampleWriter':
    return self

  def __exit__(self, *exception) -> None:
    self.close()  # also after an exception: what was sampled is kept
