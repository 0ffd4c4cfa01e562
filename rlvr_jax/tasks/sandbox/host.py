"""The trusted side: starts the fork server, hands it programs, reads what they say.

  with Sandbox() as sandbox:
    outcome = sandbox.run_main('print(int(input()) + 1)', '41', Limits(wall_s=5))

One run at a time; by one thread. Programs and inputs go to the child through anonymous memory,
outputs come back through pipes, up to a limit, and are data (codec.py). Linux only.
"""

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlvr_jax.tasks.sandbox.confine import LEVELS, Limits

_ROOT = Path(__file__).resolve().parents[3]
_BOOT = (
  'import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True;'
  'from rlvr_jax.tasks.sandbox import server; del sys.path[0];'
  'server.main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])'
)
_START_S = 60.0
_GRACE_S = 1.0  # the server ends a run at its limit; if it has not by then, the server is ended
_CHUNK = 1 << 16
_STDERR_BYTES = 1 << 16
_REPORTED = ('code', 'ended_by', 'cpu_s', 'wall_s')
# One thread for what numpy brings along; no setting of the user's reaches a program.
_ENVIRONMENT = {
  'PYTHONHASHSEED': '0',
  'PATH': '/usr/bin:/bin',
  'LANG': 'C.UTF-8',
  'HOME': '/nonexistent',
  'OPENBLAS_NUM_THREADS': '1',
  'OMP_NUM_THREADS': '1',
}


class SandboxError(RuntimeError):
  """The sandbox itself failed: nothing is said about the program."""

  try_again = True  # in another worker process, before it counts as an error


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a run ended. code: exit code or -signal; ended_by: '' or the limit (server.ENDINGS)."""

  code: int
  ended_by: str
  cpu_s: float
  wall_s: float
  stdout: bytes = b''
  stderr: bytes = b''

  @property
  def timed_out(self) -> bool:
    return self.ended_by in ('wall', 'cpu')

  def why(self, limits: Limits) -> str:
    """What ended it, in words; '' if it ended by itself with exit code 0."""
    words = {
      'wall': f'no end within {limits.wall_s:g} s',
      'cpu': f'more than {limits.cpu_s:g} s of CPU',
      'threads': f'more than {limits.threads} threads',
      'output': f'more than {limits.output_bytes} bytes of output',
      'stopped': 'stopped',
    }
    if self.ended_by:
      return words[self.ended_by]
    if self.code < 0:
      return f'killed by {signal.Signals(-self.code).name}'
    return f'exit code {self.code}' if self.code else ''


class Sandbox:
  """A fork server and its runs. level is what holds here, tried at the start (confine.LEVELS).

  at most: a level not above which is used, for tests of weaker ones.
  """

  def __init__(self, at_most: str = LEVELS[-1]):
    if not sys.platform.startswith('linux'):
      raise SandboxError(f'programs are run on Linux only, not on {sys.platform}')
    self._at_most = at_most
    self._count = 0
    self._start()

  def __enter__(self) -> 'Sandbox':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends the server and whatever runs."""
    self._socket.close()
    self._process.kill()
    self._process.wait()

  @property
  def server_pid(self) -> int:
    """The fork server's process, whose children the programs are."""
    return self._process.pid

  def _start(self) -> None:
    self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, tempfile.TemporaryFile() as errors:
      self._process = subprocess.Popen(
        [
          # neither the user's nor installed packages, nor the current directory
          *(sys.executable, '-s', '-S', '-P', '-c', _BOOT, str(_ROOT)),
          *(str(theirs.fileno()), str(os.getpid())),
          *sorted({sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        pass_fds=(theirs.fileno(),),
        env=_ENVIRONMENT,
        cwd='/',
      )
      theirs.close()
      self._socket.settimeout(_START_S)
      try:
        hello = json.loads(self._socket.recv(_CHUNK) or b'{}')
      except TimeoutError:
        hello = {}
      if 'level' not in hello:
        self.close()
        errors.seek(0)
        text = errors.read().decode(errors='replace').strip()[-1000:]
        raise SandboxError(f'the fork server did not start: {text or "no word from it"}')
    self._socket.settimeout(None)
    self.level = min(hello['level'], self._at_most, key=LEVELS.index)
    self.abi, self.why = int(hello['abi']), str(hello['why'])

  def run_main(self, program: str, stdin: str, limits: Limits) -> Outcome:
    """Runs a program as its own main module with real stdin, stdout and stderr."""
    with _Pipes() as pipes:
      out, out_end = pipes.make()
      err, err_end = pipes.make()
      job = pipes.memory(json.dumps({'program': program}).encode())
      text = pipes.memory(stdin.encode('utf-8', 'surrogatepass'))
      streams = {out: bytearray(), err: bytearray()}
      run = self._begin('main', [job, text, out_end, err_end], limits)
      pipes.close_given()

      def take(fd: int, data: bytes) -> bool:
        kept = streams[fd]
        room = limits.output_bytes if fd == out else _STDERR_BYTES
        kept += data[: room - len(kept)]
        return fd == err or len(kept) < room

      outcome = self._wait({run: limits}, [out, err], take)[run]
      if len(streams[out]) >= limits.output_bytes:
        outcome = dataclasses.replace(outcome, ended_by='output')
      return dataclasses.replace(outcome, stdout=bytes(streams[out]), stderr=bytes(streams[err]))

  def run_calls(
    self,
    program: str,
    entry_point: str,
    inputs: list[Any],
    limits: Limits,
    take: Callable[[bytes], bool],
    method_of: str = '',
  ) -> Outcome:
    """Calls a function of the program on inputs (lists of encoded arguments).

    take gets the lines that the program writes, each JSON if it is honest ({'loaded'}, {'failed'},
    {'ok'}, {'raised'}: program.py); when it returns False the run is stopped.
    """
    job = {
      'program': program, 'entry_point': entry_point, 'method_of': method_of, 'inputs': inputs
    }  # fmt: skip
    with _Pipes() as pipes:
      out, out_end = pipes.make()
      run = self._begin('calls', [pipes.memory(json.dumps(job).encode()), out_end], limits)
      pipes.close_given()
      lines = _Lines(limits.output_bytes, take)
      outcome = self._wait({run: limits}, [out], lambda _, data: lines.feed(data))[run]
      return dataclasses.replace(outcome, ended_by='output') if lines.over else outcome

  def run_test(
    self, program: str, setup: str, names: dict[str, str], test: str, limits: Limits
  ) -> tuple[Outcome, Outcome, dict[str, Any]]:
    """Runs a test (judge.py) against the program: how the program's process and the test's ended,
    and the result: {'passed': True}, or {'failed': why}; {} if the test's process gave none."""
    with _Pipes() as pipes:
      answers, answers_end = pipes.make()
      requests, requests_end = pipes.make()
      result, result_end = pipes.make()
      test_job = {'setup': setup, 'names': names, 'test': test}
      judged = self._begin(
        'judge',
        [pipes.memory(json.dumps(test_job).encode()), answers, requests_end, result_end],
        limits,
      )
      asked = {'program': program, 'names': list(names.values())}
      job = pipes.memory(json.dumps(asked).encode())
      served = self._begin('serve', [job, requests, answers_end], limits)
      pipes.close_given(keep=result)
      said = bytearray()

      def take(_: int, data: bytes) -> bool:
        said.extend(data[:_CHUNK])
        return len(said) < _CHUNK

      ended = self._wait({judged: limits, served: limits}, [result], take, until=judged)
      value = json.loads(said) if said.endswith(b'\n') else {}
      return ended[served], ended[judged], value

  # Below: one run after another through the server.

  def _begin(self, mode: str, fds: list[int], limits: Limits) -> int:
    self._count += 1
    message = {
      'id': self._count,
      'mode': mode,
      'level': self.level,
      'limits': dataclasses.asdict(limits),
    }
    try:
      socket.send_fds(self._socket, [json.dumps(message).encode()], fds)
    except OSError as error:
      self._restart(f'the fork server is gone ({error})')
    return self._count

  def _wait(
    self,
    runs: dict[int, Limits],
    fds: list[int],
    take: Callable[[int, bytes], bool],
    until: int | None = None,
  ) -> dict[int, Outcome]:
    """Reads fds until all runs have ended, or all others are stopped once `until` has."""
    deadline = time.monotonic() + max(one.wall_s for one in runs.values()) + _GRACE_S
    ended: dict[int, Outcome] = {}
    over = False
    with selectors.DefaultSelector() as selector:
      selector.register(self._socket, selectors.EVENT_READ)
      for fd in fds:
        selector.register(fd, selectors.EVENT_READ)
      while len(ended) < len(runs):
        ready = selector.select(max(0.0, deadline - time.monotonic()))
        answers = any(key.fileobj is self._socket for key, _ in ready)
        if not answers and time.monotonic() > deadline:
          self._restart('the fork server does not answer')
        for key, _ in ready:
          if key.fileobj is self._socket:
            report = self._report()
            if report['id'] in runs:
              ended[report['id']] = Outcome(**{k: report[k] for k in _REPORTED})
              if report['id'] == until:
                self._stop(set(runs) - set(ended))
            continue
          data = os.read(key.fd, _CHUNK)
          if not data:
            selector.unregister(key.fd)
          elif not over and not take(key.fd, data):
            over = True
            self._stop(set(runs) - set(ended))
      for fd in fds:
        while not over and (data := _read_now(fd)):
          over = not take(fd, data)
    return ended

  def _report(self) -> dict[str, Any]:
    try:
      data = self._socket.recv(_CHUNK)
    except ConnectionError:
      data = b''
    if not data:
      self._restart('the fork server died')
    report = json.loads(data)
    if report['ended_by'] == 'broken':
      raise SandboxError(f'a child could not be confined at level {self.level}')
    return report

  def _stop(self, runs: set[int]) -> None:
    with contextlib.suppress(ConnectionError):  # the server is gone, and so are they
      for run in runs:
        self._socket.send(json.dumps({'kill': run}).encode())

  def _restart(self, why: str) -> None:
    """Ends the server, and with it its children, starts another, and raises SandboxError."""
    self.close()
    self._start()
    raise SandboxError(why)


def _read_now(fd: int) -> bytes:
  """What is in the pipe already; empty at its end or if nothing is."""
  os.set_blocking(fd, False)
  try:
    return os.read(fd, _CHUNK)
  except BlockingIOError:
    return b''


class _Lines:
  """Cuts what a program writes into lines and hands each on."""

  def __init__(self, limit: int, take: Callable[[bytes], bool]):
    self._left, self._take = limit, take
    self._parts: list[bytes] = []
    self.over = False

  def feed(self, data: bytes) -> bool:
    """False when enough has been read, or too much."""
    self._left -= len(data)
    if self._left < 0:
      self.over = True
      return False
    *whole, rest = data.split(b'\n')
    for piece in whole:
      line = b''.join([*self._parts, piece])
      self._parts.clear()
      if not self._take(line):
        return False
    if rest:
      self._parts.append(rest)
    return True


class _Pipes:
  """Descriptors of one run, closed at its end whatever happens."""

  def __init__(self) -> None:
    self._ours: list[int] = []
    self._given: list[int] = []

  def __enter__(self) -> '_Pipes':
    return self

  def __exit__(self, *_: object) -> None:
    for fd in (*self._ours, *self._given):
      os.close(fd)

  def make(self) -> tuple[int, int]:
    """A pipe: the end that is read here or given away, and the end that is given away."""
    read, write = os.pipe()
    self._ours.append(read)
    self._given.append(write)
    return read, write

  def memory(self, data: bytes) -> int:
    """Anonymous memory that holds data, to be read from its start."""
    fd = os.memfd_create('job')
    self._given.append(fd)
    view = memoryview(data)
    while view:
      view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd

  def close_given(self, keep: int | None = None) -> None:
    """Closes what the child has now; with keep, all ends but that one."""
    for fd in self._given:
      os.close(fd)
    self._given.clear()
    if keep is not None:
      for fd in self._ours:
        if fd != keep:
          os.close(fd)
      self._ours = [keep]
