"""Verdicts already given, in memory and, if asked, on disk: a time-out is decided once."""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.tasks import wire
from rlvr_jax.tasks.problem import Problem, Verdict

log = logging.getLogger(__name__)


def problem_digest(problem: Problem) -> bytes:
  """sha256 over everything the verifier sees of the problem.

  Raises ValueError if its answer or meta is not made of JSON values.
  """
  try:
    text = json.dumps(wire.problem_to_json(problem), sort_keys=True)
  except TypeError as error:
    raise ValueError(
      f'problem {problem.task}/{problem.id}: answer and meta must be JSON values ({error})'
    ) from error
  return hashlib.sha256(text.encode()).digest()


def job_key(version: str, problem_hash: bytes, completion: str) -> bytes:
  """16 bytes that name (verifier version, problem, completion hash)."""
  state = hashlib.sha256(version.encode() + b'\0' + problem_hash)
  state.update(completion.encode('utf-8', 'surrogatepass'))
  return state.digest()[:16]


class Journal:
  """A map from job keys to verdicts, kept as JSON lines when a path is given.

  One process writes a journal at a time. A last line cut short by a kill is dropped; any other
  line that does not parse is an error that names it. What a full disk does not take stays in
  memory and is tried again with the next verdict. Memory: about 0.5 KB a verdict.

  others: files of further processes, which are read only, as far as they are there. news: what was
  added since it was last cleared, kept where there are others. bytes_written: to the file, by this
  process.
  """

  def __init__(
    self,
    path: str | os.PathLike[str] | None = None,
    others: Sequence[Path] = (),
    news: bool = False,
  ):
    self._verdicts: dict[bytes, Verdict] = {}
    self.news: list[tuple[bytes, Verdict]] | None = [] if news else None
    self._file = None
    self._path, self._unwritten = path, b''
    self._warned = False
    self.bytes_written = 0
    if path is not None:
      path = Path(path)
      path.parent.mkdir(parents=True, exist_ok=True)
      self._read(path)
      self._file = path.open('ab', buffering=0)
    for other in others:
      self._read(other, own=False)

  def __len__(self) -> int:
    return len(self._verdicts)

  def get(self, key: bytes) -> Verdict | None:
    """The verdict given under this key, if any."""
    return self._verdicts.get(key)

  def add(self, entries: Iterable[tuple[bytes, Verdict]]) -> None:
    """Keeps the verdicts and hands them to the operating system before it returns."""
    lines = []
    for key, verdict in entries:
      self._verdicts[key] = verdict
      if self.news is not None:
        self.news.append((key, verdict))
      if self._file is not None:
        lines.append(json.dumps([key.hex(), *dataclasses.astuple(verdict)]) + '\n')
    self._write(''.join(lines).encode())

  def learn(self, entries: Iterable[tuple[bytes, Verdict]]) -> None:
    """Takes what another process has in its own journal."""
    self._verdicts.update(entries)

  def _write(self, data: bytes) -> None:
    self._unwritten += data
    try:
      while self._file is not None and self._unwritten:
        count = self._file.write(self._unwritten)
        self._unwritten = self._unwritten[count:]
        self.bytes_written += count
    except OSError as error:
      if not self._warned:
        log.warning('%s does not take verdicts (%s): they stay in memory', self._path, error)
      self._warned = True

  def close(self) -> None:
    """Closes the file. Verdicts that the disk never took are given anew by the next run."""
    self._write(b'')
    if self._file is not None:
      self._file.close()
      self._file = None

  def _read(self, path: Path, own: bool = True) -> None:
    if not path.exists():
      return
    whole = 0  # bytes of complete lines
    with path.open('rb') as file:
      for number, line in enumerate(file, 1):
        if not line.endswith(b'\n'):
          break
        try:
          self._verdicts.update([_parse(line)])
        except (ValueError, TypeError) as error:
          raise ValueError(
            f'{path}:{number}: not a verdict of a journal ({error}); move the file away to judge '
            'its completions anew'
          ) from error
        whole += len(line)
    if own and whole != path.stat().st_size:
      os.truncate(path, whole)


def _parse(line: bytes) -> tuple[bytes, Verdict]:
  row: list[Any] = json.loads(line)
  key, *fields = row
  return bytes.fromhex(key), Verdict(*fields)  # those of older journals say nothing of a sandbox
