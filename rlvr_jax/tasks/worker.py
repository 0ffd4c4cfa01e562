"""A worker process: reads jobs, runs verifiers, writes verdicts. `python -m rlvr_jax.tasks.worker`.

Started by pool.py only. The protocol's pipes are moved away from descriptors 0 and 1 first, so a
verifier that prints or reads meets the null device. A thread watches the parent's pipe and ends
the process at its end; a kernel timer, re-armed for each job, ends it when a verifier holds the
interpreter lock and that thread cannot run. Neither jax nor any verifier is imported at the start.
"""

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from rlvr_jax.tasks import settings, wire
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import is_call, judges, load_verifier, patience

try:
  import resource
except ImportError:  # no POSIX: run without a memory limit
  resource = None

_TEXT_LIMIT = 500  # characters kept of a verdict's extracted and reason
_LOAD_SECONDS = 300.0


def main() -> None:
  """Serves jobs until the parent closes the pipe.

  Arguments: memory limit in MiB, seconds a job, further settings (settings.py) as JSON.
  """
  memory_mb, limit_s = int(sys.argv[1]), float(sys.argv[2])
  settings.use({'limit_s': limit_s, 'memory_mb': memory_mb, **json.loads(sys.argv[3])})
  receive, send = _take_pipes()
  if resource is not None and memory_mb > 0:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_mb << 20
    if hard != resource.RLIM_INFINITY:
      limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  batches: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
  threading.Thread(target=_read_batches, args=(receive, batches), daemon=True).start()
  wire.write(send, wire.encode({'ready': True}))
  loaded: dict[tuple[str, str], Callable[[Problem, str], Verdict]] = {}
  while True:
    batch = batches.get()
    problems = [wire.problem_from_json(value) for value in batch['problems']]
    for index, name, version, text in batch['jobs']:
      if not _load_all(send, [*judges(name, problems[index]), (name, version)], loaded):
        break  # the parent gives up this verifier and ends this process
      verify = loaded[name, version]
      _arm(2 * patience(name, limit_s) + 5)
      reply = _judge(verify, problems[index], text, None if is_call(name) else _TEXT_LIMIT)
      _arm(0)
      wire.write(send, wire.encode(reply))


def _take_pipes() -> tuple[int, int]:
  """Moves the protocol to private descriptors and the null device to 0, 1 and 2."""
  receive, send = os.dup(0), os.dup(1)  # os.dup makes them non-inheritable
  null = os.open(os.devnull, os.O_RDWR)
  for fd in (0, 1, 2):
    os.dup2(null, fd)
  os.close(null)
  return receive, send


def _read_batches(receive: int, batches: 'queue.SimpleQueue[dict[str, Any]]') -> None:
  frames = wire.Frames(receive)
  try:
    while (arrived := frames.read()) is not None:
      for batch in arrived:
        batches.put(batch)
  finally:
    os._exit(0)  # the parent is gone, or no job can reach us any more


def _arm(seconds: float) -> None:
  """Lets the kernel kill this process after that many seconds; 0 calls it off."""
  if hasattr(signal, 'setitimer'):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _load_all(
  send: int,
  wanted: list[tuple[str, str]],
  loaded: dict[tuple[str, str], Callable[[Problem, str], Verdict]],
) -> bool:
  """Loads those that are not; false, and the parent knows why, if one cannot be."""
  for name, version in wanted:
    if (name, version) in loaded:
      continue
    _arm(_LOAD_SECONDS)
    wire.write(send, wire.encode({'loading': name}))
    try:
      loaded[name, version] = load_verifier(name, version)
    except (Exception, SystemExit) as error:
      wire.write(send, wire.encode({'failed': name, 'why': _describe(error)}))
      return False
    wire.write(send, wire.encode({'loaded': name}))
  return True


def _judge(
  verify: Callable[[Problem, str], Verdict], problem: Problem, text: str, limit: int | None
) -> list[Any]:
  """[verdict, reward, extracted, reason, sandbox, fresh]; what it raises is an 'error'.

  limit: characters kept of extracted, None for all.
  """
  try:
    verdict = verify(problem, text)
  except MemoryError:
    # What filled the memory may stay (caches), so the next job gets a fresh process.
    return ['error', 0.0, '', 'MemoryError: the verifier used more memory than allowed', '', True]
  except (Exception, SystemExit) as error:
    fresh = getattr(error, 'try_again', False) is True
    return ['error', 0.0, '', _describe(error)[:_TEXT_LIMIT], '', fresh]
  extracted, reason = verdict.extracted[:limit], verdict.reason[:_TEXT_LIMIT]
  return [verdict.verdict, float(verdict.reward), extracted, reason, verdict.sandbox, False]


def _describe(error: BaseException) -> str:
  frames = traceback.extract_tb(error.__traceback__)
  where = f' ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})' if frames else ''
  return f'{type(error).__name__}: {error}{where}'


if __name__ == '__main__':
  main()
