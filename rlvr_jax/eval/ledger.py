"""Where each draw goes: into the store once it is kept, into the spool while that is open, or away.

Beside the shards of a model's task lie, while early stopping is on, ahead.parquet (draws that wait
for an earlier one, so that a restart need not make them again) and discarded.json (what was drawn
beyond the end of a problem and left out). Further processes of a run have files of their own.
"""

import dataclasses
import json
import logging
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax import hosts
from rlvr_jax.eval import shards
from rlvr_jax.eval.samples import Row, SampleStore
from rlvr_jax.eval.stopping import Draws, Rule

log = logging.getLogger(__name__)
SPOOL, DISCARDED = 'ahead.parquet', 'discarded.json'
ROWS_PER_SHARD = 65_536


@dataclasses.dataclass
class Discarded:
  """Draws that no row is left of, over all starts: whole ones with their tokens, and unfinished."""

  completions: int = 0
  tokens: int = 0
  unfinished: int = 0


class Ledger:
  """The draws of one model and task, known and wanted; a context manager that flushes at its end.

  draws: one stopping.Draws a problem. A full disk in the middle costs nothing: rows stay in memory
  and are tried again every flush_s seconds, until a whole shard of them waits.
  """

  def __init__(
    self,
    store: SampleStore,
    model: str,
    task: str,
    problem_ids: Sequence[str],
    rule: Rule,
    settings: Mapping[str, Any],
    *,
    prompt_hash: str,
    flush_s: float = 60.0,
  ):
    settings = {**settings, **rule.settings()}
    self._writer = store.writer(
      model,
      task,
      settings,
      prompt_hash=prompt_hash,
      rows_per_shard=ROWS_PER_SHARD,
      flush_seconds=float('inf'),
    )
    self._metadata = self._writer.metadata
    self._folder = store.root / model / task
    self._flush_s, self._flushed = flush_s, time.monotonic()
    self._spooled: frozenset[tuple[int, int]] = frozenset()
    self.rule = rule
    self.draws: list[Draws[Row]] = [Draws(rule) for _ in problem_ids]
    self.discarded = self._read_discarded()
    self.stored = self.correct = self.judged = self.tokens = 0
    self._place = {problem: place for place, problem in enumerate(problem_ids)}
    self._solved = bytearray(len(problem_ids))
    for problem, sample, verdict in store.verdicts(model, task):
      if problem in self._place and sample < rule.n:
        self.draws[self._place[problem]].restore(sample, verdict == 'correct')
        self._count(self._place[problem], verdict)
    self.open = sum(not one.settled for one in self.draws)
    self._read_spool()

  @property
  def total(self) -> int:
    """Draws that will be kept, at most: it falls as problems stop early."""
    return sum(one.end for one in self.draws)

  @property
  def known(self) -> int:
    """Draws that are stored, or held until an earlier one is known."""
    return self.stored + sum(len(one.held) for one in self.draws)

  @property
  def missing(self) -> tuple[int, int]:
    """Draws still to be made: at least, and at most."""
    least, most = zip(*(one.missing for one in self.draws), strict=True)
    return sum(least), sum(most)

  @property
  def solved(self) -> int:
    """Problems with a correct draw among those stored."""
    return sum(self._solved)

  @property
  def bytes_written(self) -> int:
    """Of the shards written since the start."""
    return self._writer.bytes_written

  def take(self, problem: int, row: Row) -> None:
    """Takes a new draw of the problem at this place."""
    one = self.draws[problem]
    before = one.settled
    kept, away = one.add(row.sample, row.verdict == 'correct', row)
    self.open -= one.settled and not before
    for done in kept:
      self._writer.append(done)
      self._count(problem, done.verdict)
      self.tokens += done.length
    self.discarded.completions += len(away)
    self.discarded.tokens += sum(done.length for done in away)
    if time.monotonic() - self._flushed >= self._flush_s:
      self.flush()

  def _count(self, problem: int, verdict: str) -> None:
    self.stored += 1
    self.judged += verdict != 'error'
    self.correct += verdict == 'correct'
    self._solved[problem] |= verdict == 'correct'

  def flush(self) -> None:
    """Puts everything on the disk; if there is no room, says so and keeps it in memory."""
    try:
      self._write()
    except shards.StoreError as error:
      log.warning(
        '%s. Sampling goes on: %d samples wait in memory, and it is tried again in %.0f s',
        error,
        self._writer.buffered,
        self._flush_s,
      )

  def _write(self) -> None:
    self._flushed = time.monotonic()
    self._writer.flush()  # before the spool: a row in both is taken from the store
    if self.rule.stop_after:
      self._write_spool()
      self._write_discarded()

  def __enter__(self) -> 'Ledger':
    return self

  def __exit__(self, *exception: object) -> None:
    self._write()  # also after an exception: what was drawn is kept

  def _write_spool(self) -> None:
    held = [(place, row) for place, one in enumerate(self.draws) for row in one.held.values()]
    now = frozenset((place, row.sample) for place, row in held)
    if now == self._spooled:
      return
    path = self._own_file(SPOOL)
    if not held:
      path.unlink(missing_ok=True)
    else:
      self._replace(path, lambda temporary: shards.write(
        temporary, [row for _, row in held], self._metadata
      ))  # fmt: skip
    self._spooled = now

  def _read_spool(self) -> None:
    if not self.rule.stop_after:
      return
    own = self._own_file(SPOOL)
    others = sorted({*self._folder.glob(SPOOL.replace('.', '*.'))} - {own})
    names = [*shards.SCHEMA.names, *shards.EXTRAS.names]
    for path in [own] * own.exists() + others:
      if not path.exists():
        continue  # its process has stored what it held since
      shards.check_same(shards.read_metadata(path), self._metadata, path, 'the samples to be drawn')
      rows = [Row(**fields) for fields in shards.read_shard(path, names).to_pylist()]
      if path == own:
        self._spooled = frozenset((self._place.get(r.problem_id, -1), r.sample) for r in rows)
      for row in rows:
        place = self._place.get(row.problem_id)
        if place is not None and self.draws[place].unknown(row.sample):
          self.take(place, row)

  def _own_file(self, name: str) -> pathlib.Path:
    path = self._folder / name
    return path.with_stem(f'{path.stem}-{hosts.index()}') if hosts.index() else path

  def _write_discarded(self) -> None:
    text = json.dumps(dataclasses.asdict(self.discarded)) + '\n'
    self._replace(self._own_file(DISCARDED), lambda temporary: temporary.write_text(text))

  def _read_discarded(self) -> Discarded:
    path = self._own_file(DISCARDED)
    return Discarded(**json.loads(path.read_text())) if path.exists() else Discarded()

  def _replace(self, path: pathlib.Path, write: Any) -> None:
    temporary = path.with_name(shards.temporary_name(path.name))
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      write(temporary)
      temporary.replace(path)
    except OSError as error:
      temporary.unlink(missing_ok=True)
      raise shards.store_error('cannot write', path, error) from error
