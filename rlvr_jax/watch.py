"""That a run is alive, and where it stands when it no longer moves. Nothing here imports jax.

Loops say what they do by `note` and that they go on by `tick` (profiling.Phases, metrics.Progress
and the sampler's chunks do it for them); both only set a number or two. A Watch, one in a process,
tells the outside: workdir/heartbeat.json, and the stacks of all threads once nothing has moved for
too long.
"""

import contextlib
import datetime
import faulthandler
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from rlvr_jax import paths

log = logging.getLogger(__name__)
BEAT_S = 10.0  # between two heartbeats at most
PAUSE_S = 0.2  # between two at least, however fast phases change
EXIT_HUNG = 75  # EX_TEMPFAIL: what restarts a job may try again
_START: dict[str, Any] = {'stage': '', 'iteration': None, 'phase': 'start'}


class _Now:
  """What the main loop does, and when it last moved (time.monotonic)."""

  def __init__(self):
    self.changed = threading.Event()
    self.reset()

  def reset(self) -> None:
    self.facts = dict(_START)
    self.moved = time.monotonic()


_now = _Now()


def tick() -> None:
  """Says that the main loop goes on."""
  _now.moved = time.monotonic()


def note(**facts: Any) -> None:
  """Says what it does now: any of stage, iteration, phase. The heartbeat tells it."""
  tick()
  _now.facts = {**_now.facts, **facts}
  _now.changed.set()


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
  """Inside the main loop is in this phase; afterwards in the one before."""
  before = _now.facts['phase']
  note(phase=name)
  try:
    yield
  finally:
    note(phase=before)


def facts() -> dict[str, Any]:
  """What was noted last."""
  return dict(_now.facts)


class Watch:
  """Beats into workdir/heartbeat.json from a thread of its own; use as a context manager.

  hang_seconds: when the main loop has not moved for so long, the stacks of all threads go into
  workdir/stacks-TIME.txt and the main thread's into the log, once for each standstill; 0: never.
  leave: the process then ends with EXIT_HUNG. process: its number in a run of several, whose files
  carry it. A thread that holds Python's lock keeps this one from running too: then the stacks come
  on stderr, a minute later.
  """

  def __init__(
    self,
    workdir: paths.Given,
    *,
    hang_seconds: float = 0.0,
    leave: bool = False,
    process: int = 0,
    beat_s: float = BEAT_S,
  ):
    self._workdir = paths.path_of(workdir)
    self._hang, self._leave, self._process = hang_seconds, leave, process
    self._every = min(beat_s, hang_seconds / 4) if hang_seconds else beat_s
    self._of = f'-{process}' if process else ''
    self._ended = threading.Event()
    self._told: float | None = None  # the standstill whose stacks are written
    self._warned = False
    self._thread = threading.Thread(target=self._serve, name='watch', daemon=True)

  def __enter__(self) -> 'Watch':
    _now.reset()
    if not paths.is_remote(self._workdir):
      self._workdir.mkdir(parents=True, exist_ok=True)
    self._beat('running')
    self._thread.start()
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    self._ended.set()
    _now.changed.set()
    self._thread.join()
    code = getattr(sys.exception(), 'code', None)
    self._beat('ended' if kind is None or (kind is SystemExit and not code) else 'failed')

  def _serve(self) -> None:
    stderr = _descriptor(sys.__stderr__) if self._hang else None
    while not self._ended.is_set():
      if stderr is not None:  # fires only where this thread cannot set it anew
        faulthandler.dump_traceback_later(self._hang + 60, exit=self._leave, file=stderr)
      _now.changed.wait(self._every)
      _now.changed.clear()
      if self._ended.is_set():
        break
      self._look()
      self._beat('running')
      self._ended.wait(PAUSE_S)
    if stderr is not None:
      faulthandler.cancel_dump_traceback_later()

  def _beat(self, state: str) -> None:
    now = time.time()
    record = {
      'time': now,
      'utc': datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec='seconds'),
      'state': state,
      **_now.facts,
      'moved_s_ago': round(time.monotonic() - _now.moved, 1),
      'pid': os.getpid(),
      'host': socket.gethostname(),
      'process': self._process,
    }
    try:
      paths.write_whole(self._workdir / f'heartbeat{self._of}.json', json.dumps(record) + '\n')
    except OSError as error:  # a full disk ends the run by what it loses, not by this
      if not self._warned:
        log.warning('no heartbeat in %s: %s', self._workdir, error)
      self._warned = True

  def _look(self) -> None:
    moved = _now.moved
    still = time.monotonic() - moved
    if not self._hang or still < self._hang or moved == self._told:
      return
    self._told = moved
    where = ', '.join(
      f'{key} {value}' for key, value in _now.facts.items() if value not in ('', None)
    )
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    main = ''.join(traceback.format_stack(frame)) if frame else '(no main thread)\n'
    path = self._workdir / f'stacks-{time.strftime("%Y%m%d-%H%M%S")}{self._of}.txt'
    head = f'nothing has moved for {still:.0f} s (watch.hang_seconds={self._hang:g}): {where}'
    try:
      paths.write_whole(path, f'{head}\n\n{_stacks()}')
      head += f'; the stacks of all threads are in {path}'
    except OSError as error:
      head += f'; {path} could not be written ({error})'
    log.error('%s\nthe main thread:\n%s', head, main)
    if self._leave:
      log.error('leaving with code %d (watch.hang_exit); the same command goes on', EXIT_HUNG)
      self._beat('hung')
      logging.shutdown()
      os._exit(EXIT_HUNG)


def _stacks() -> str:
  """The stacks of all threads, innermost call first."""
  with tempfile.TemporaryFile() as file:
    faulthandler.dump_traceback(file, all_threads=True)
    file.seek(0)
    return file.read().decode(errors='replace')


def _descriptor(stream: Any) -> int | None:
  """The file descriptor of a stream; None where it has none."""
  try:
    return stream.fileno()
  except (AttributeError, OSError, ValueError):
    return None
