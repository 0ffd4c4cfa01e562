"""One worker process as its thread in the pool sees it: a batch goes in, events come out."""

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rlvr_jax.tasks import wire
from rlvr_jax.tasks.problem import Verdict

_ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Event:
  """What became of a batch. All but 'verdicts' concern the first job without a verdict, and the
  process is of no more use.

  verdicts: some more jobs are done, seconds after the batch was sent. timeout: the job took too
  long. died: the process ended or is out of memory. failed: its verifier cannot be loaded.
  """

  kind: Literal['verdicts', 'timeout', 'died', 'failed']
  why: str = ''
  verdicts: list[Verdict] = dataclasses.field(default_factory=list)
  seconds: float = 0.0


class WorkerProcess:
  """A started worker. jobs counts the verdicts it has given.

  The process leads its own session, so Ctrl-C in a terminal does not reach it and its children die
  with it. Raises RuntimeError with what it printed if it does not come up within start_s seconds.
  """

  def __init__(self, memory_mb: int, limit_s: float, start_s: float, settings: Mapping[str, Any]):
    self.jobs = 0
    self._lock = threading.Lock()  # a reaped pid may be anybody's: never signal it
    self._reaped = False
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    with tempfile.TemporaryFile() as errors:
      self._popen = subprocess.Popen(
        # -P: files of the working directory must not shadow the standard library.
        [
          *(sys.executable, '-P', '-m', 'rlvr_jax.tasks.worker'),
          *(str(memory_mb), str(limit_s), json.dumps(dict(settings))),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        bufsize=0,
        start_new_session=True,
        # Set iteration order can reach a verdict through sympy; it must be the same every time.
        env={**os.environ, 'PYTHONPATH': path, 'PYTHONHASHSEED': '0'},
      )
      assert self._popen.stdin is not None
      assert self._popen.stdout is not None
      self._send = self._popen.stdin.fileno()
      self._frames = wire.Frames(self._popen.stdout.fileno())
      self._selector = selectors.DefaultSelector()
      self._selector.register(self._popen.stdout, selectors.EVENT_READ)
      if not (self._selector.select(start_s) and self._frames.read()):
        self.kill()
        errors.seek(0)
        text = errors.read().decode(errors='replace').strip()
        raise RuntimeError(
          f'a verifier worker did not start ({self._ending()}); memory_mb={memory_mb} may be too '
          f'small. It printed: {text[-2000:] or "nothing"}'
        )

  def run(self, batch: dict[str, Any], limits_s: Sequence[float], load_s: float) -> Iterator[Event]:
    """Sends a batch (wire.py) and yields what happens until its last job is done or one is lost.

    limits_s: seconds for each of its jobs; load_s: for importing a verifier.
    """
    start = time.monotonic()
    left = len(batch['jobs'])
    limit_s = limits_s[0]
    loading = False
    try:
      wire.write(self._send, wire.encode(batch))
    except BrokenPipeError:
      yield Event('died', self._death())
      return
    deadline = time.monotonic() + limit_s
    while left:
      if not self._selector.select(max(0.0, deadline - time.monotonic())):
        why = f'no {"import" if loading else "verdict"} within {load_s if loading else limit_s:g} s'
        yield Event('failed' if loading else 'timeout', why)
        return
      frames = self._frames.read()
      if frames is None:
        yield Event('died', self._death())
        return
      verdicts: list[Verdict] = []
      lost: Event | None = None
      for frame in frames:
        if isinstance(frame, dict):
          loading = 'loading' in frame
          if 'failed' in frame:
            lost = Event('failed', frame['why'])
        else:
          *fields, fresh = frame
          if fresh:
            lost = Event('died', fields[3])
            break
          verdicts.append(Verdict(*fields))
      if frames:
        limit_s = limits_s[min(len(limits_s) - left + len(verdicts), len(limits_s) - 1)]
        deadline = time.monotonic() + (load_s if loading else limit_s)
      if verdicts:
        left -= len(verdicts)
        self.jobs += len(verdicts)
        yield Event('verdicts', verdicts=verdicts, seconds=time.monotonic() - start)
      if lost is not None:
        yield lost
        return

  def interrupt(self) -> None:
    """Kills the process and its children from any thread; its own thread reaps it later."""
    with self._lock:
      if not self._reaped:
        self._signal()

  def kill(self) -> None:
    """Kills the process and its children and frees everything. By the thread that uses it."""
    with self._lock:
      if self._reaped:
        return
      self._signal()
      self._popen.wait()
      self._reaped = True
    self._selector.close()
    for pipe in (self._popen.stdin, self._popen.stdout):
      if pipe is not None:
        pipe.close()

  def _signal(self) -> None:
    if hasattr(os, 'killpg'):
      with contextlib.suppress(ProcessLookupError, PermissionError):  # already gone
        os.killpg(self._popen.pid, signal.SIGKILL)
    self._popen.kill()

  def _death(self) -> str:
    """Ends the process, whose pipe is at its end, and says how it had left."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until and not self._left():
      time.sleep(0.01)
    self.kill()
    return self._ending()

  def _left(self) -> bool:
    # Not reaped yet: killing the group of a reaped leader could hit somebody else's.
    if not hasattr(os, 'waitid'):
      return False
    return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

  def _ending(self) -> str:
    code = self._popen.returncode
    if code < 0:
      return f'the worker was killed by {signal.Signals(-code).name}'
    return f'the worker left with exit code {code}'
