"""The fork server: a warm interpreter that forks a confined child for each run, and ends it.

Started by host.py with a socket as its only channel. It never sees a program, an input or an
output: a request names limits and brings descriptors, from which the child reads its job and to
which it writes. So nothing of earlier runs is in the memory that a child inherits.

Messages are JSON, one a packet. Host to server: {'id', 'mode', 'limits', 'level'} with descriptors
(child() has the order), {'kill': id}. Server to host: first {'level', 'abi', 'why'}; then a run's
{'id', 'code': exit code or -signal, 'ended_by': '' or one of ENDINGS, 'cpu_s', 'wall_s'}.
"""

import bisect  # noqa: F401  # what programs import is imported once, here
import collections  # noqa: F401
import copy  # noqa: F401
import dataclasses
import datetime  # noqa: F401
import decimal  # noqa: F401
import fractions  # noqa: F401
import functools  # noqa: F401
import gc
import heapq  # noqa: F401
import importlib.machinery
import itertools  # noqa: F401
import json
import math  # noqa: F401
import operator  # noqa: F401
import os
import random
import re  # noqa: F401
import select
import signal
import socket
import statistics  # noqa: F401
import string  # noqa: F401
import sys
import threading  # noqa: F401
import time
import traceback
import typing  # noqa: F401
from typing import Any

from rlvr_jax.tasks.sandbox import confine, judge, landlock, program

PACKAGES = ('numpy', 'sortedcontainers')  # installed packages that programs may import
_LOOK_S = 0.05  # between two looks at the CPU time and the threads of what runs
_TICKS = os.sysconf('SC_CLK_TCK')  # of /proc a second
_MESSAGE = 1 << 16
# limits; what the host asked for; a child whose walls could not be put up, which ran nothing
ENDINGS = ('wall', 'cpu', 'threads', 'stopped', 'broken')


class Packages:
  """Finds the installed packages that programs may import; others are as if not installed."""

  def __init__(self, folders: list[str]):
    self._folders = folders

  def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
    """As importlib asks for it."""
    if path is not None or name not in PACKAGES:
      return None
    return importlib.machinery.PathFinder.find_spec(name, self._folders, target)


@dataclasses.dataclass
class Run:
  """A child and what it may still use."""

  identity: int
  pid: int
  pidfd: int
  began: float
  limits: confine.Limits
  confined: bool
  told: int  # a pipe through which the child says that its walls stand
  ended_by: str = ''


def main(fd: int, parent: int, folders: list[str]) -> None:
  """Serves parent through the socket fd until its end closes. folders: of installed packages."""
  sys.meta_path.append(Packages(folders))
  os.setsid()
  confine.become_reaper()
  confine.die_with(parent)
  gc.collect()
  gc.freeze()  # a collection in a child would copy every page
  channel = socket.socket(fileno=fd)
  level, why = strongest(folders)
  version = landlock.abi() if level == 'landlock+seccomp' else 0
  ruleset = landlock.make_ruleset(version, PACKAGES, folders) if version else -1
  channel.send(json.dumps({'level': level, 'abi': version, 'why': why}).encode())
  runs: dict[int, Run] = {}
  poll = select.poll()
  poll.register(channel, select.POLLIN)
  while True:
    for ready, _ in poll.poll(_patience(runs)):
      if ready == channel.fileno():
        if not receive(channel, poll, runs, ruleset):
          for run in runs.values():
            end(run, 'stopped')
          os._exit(0)
      else:
        finish(channel, poll, runs, next(r for r in runs.values() if r.pidfd == ready))
    look(runs)


def _patience(runs: dict[int, Run]) -> int | None:
  """Milliseconds until something must be looked at; None: nothing runs."""
  if not runs:
    return None
  now = time.monotonic()
  first = min(run.began + run.limits.wall_s for run in runs.values())
  return max(0, min(int((first - now) * 1000) + 1, int(_LOOK_S * 1000)))


def receive(channel: socket.socket, poll: Any, runs: dict[int, Run], ruleset: int) -> bool:
  """Takes one message; False when the host has left."""
  data, fds, _, _ = socket.recv_fds(channel, _MESSAGE, 8)
  if not data:
    return False
  message = json.loads(data)
  if 'kill' in message:
    if message['kill'] in runs:
      end(runs[message['kill']], 'stopped')
    return True
  limits = confine.Limits(**message['limits'])
  began = time.monotonic()
  parent = os.getpid()
  told, tell = os.pipe()
  pid = os.fork()
  if pid == 0:
    child(message['mode'], fds, message['level'], limits, ruleset, parent, tell)
  for fd in (*fds, tell):
    os.close(fd)
  confined = 'seccomp' in message['level']
  run = Run(message['id'], pid, os.pidfd_open(pid), began, limits, confined, told)
  runs[run.identity] = run
  poll.register(run.pidfd, select.POLLIN)
  return True


def look(runs: dict[int, Run]) -> None:
  """Ends what is over its time or has too many threads.

  CPU time is what /proc says, the same as in the report. The kernel counts whole ticks against
  RLIMIT_CPU, on a busy machine far too many, so that limit is set later (confine.set_limits) and
  ends only what this misses.
  """
  now = time.monotonic()
  for run in runs.values():
    if run.ended_by:
      continue
    if now - run.began >= run.limits.wall_s:
      end(run, 'wall')
    elif now - run.began >= _LOOK_S:
      threads, cpu_s = usage(run.pid)
      if cpu_s >= run.limits.cpu_s:
        end(run, 'cpu')
      elif threads > run.limits.threads:
        end(run, 'threads')


def usage(pid: int) -> tuple[int, float]:
  """How many threads the process has, and its seconds of CPU; 0 of both if it is gone."""
  try:
    with open(f'/proc/{pid}/stat', 'rb') as file:
      fields = file.read().rpartition(b')')[2].split()
    return int(fields[17]), (int(fields[11]) + int(fields[12])) / _TICKS
  except (OSError, IndexError):
    return 0, 0.0


def end(run: Run, ended_by: str) -> None:
  """Kills the child, which cannot have made others unless it was not confined."""
  run.ended_by = run.ended_by or ended_by
  signal.pidfd_send_signal(run.pidfd, signal.SIGKILL)
  if not run.confined:
    confine.kill_group(run.pid)


def finish(channel: socket.socket, poll: Any, runs: dict[int, Run], run: Run) -> None:
  """Reaps the child and tells the host how it ended."""
  if not run.confined:
    confine.kill_group(run.pid)
  _, status, used = os.wait4(run.pid, 0)
  poll.unregister(run.pidfd)
  os.close(run.pidfd)
  walls = os.read(run.told, 1) == b'+'
  os.close(run.told)
  del runs[run.identity]
  if not run.confined and not runs:
    confine.kill_orphans()
  cpu, code = used.ru_utime + used.ru_stime, os.waitstatus_to_exitcode(status)
  ended_by = run.ended_by
  if not ended_by and code == -signal.SIGKILL and cpu >= run.limits.cpu_s - 0.1:
    ended_by = 'cpu'
  report = {
    'id': run.identity,
    'code': code,
    'ended_by': ended_by if walls or ended_by else 'broken',
    'cpu_s': cpu,
    'wall_s': time.monotonic() - run.began,
  }
  channel.send(json.dumps(report).encode())


def child(
  mode: str,
  fds: list[int],
  level: str,
  limits: confine.Limits,
  ruleset: int,
  parent: int,
  tell: int,
) -> None:
  """The forked child: never returns. It tells when its walls stand. fds by mode, the job first:

  main: job, stdin, stdout, stderr. calls: job, results. serve: job, requests, answers. judge: job,
  answers, requests, result. try: job, result.
  """
  code = 1
  try:
    os.setsid()
    given = [*fds, tell, *([ruleset] if ruleset >= 0 else [])]
    _arrange(mode, given)
    tell = 10 + len(fds)
    confine.confine(level, limits, tell + 1 if ruleset >= 0 else -1, parent)
    os.write(tell, b'+')
    os.close(tell)
    job_fd, *others = range(10, tell)
    with open(job_fd, 'rb') as file:
      job = json.load(file)
    random.seed(0)  # the same program draws the same numbers
    code = run_mode(mode, job, others)
  except BaseException:
    traceback.print_exc()
  finally:
    os._exit(code)


def run_mode(mode: str, job: dict[str, Any], fds: list[int]) -> int:
  """Runs the job and returns the exit code."""
  if mode == 'main':
    return program.run_main(job['program'])
  if mode == 'calls':
    program.run_calls(job['program'], job['entry_point'], job['method_of'], job['inputs'], fds[0])
  elif mode == 'serve':
    program.serve_requests(job['program'], job['names'], fds[0], fds[1])
  elif mode == 'judge':
    result = judge.run_test(job, fds[0], fds[1])
    program.write_all(fds[2], json.dumps(result).encode() + b'\n')
  elif mode == 'try':
    program.write_all(fds[0], json.dumps(confine.holes()).encode())
  return 0


def _arrange(mode: str, fds: list[int]) -> None:
  """Puts the descriptors to 10, 11, ...; main's streams to 0, 1 and 2; closes all others."""
  moved: list[int] = []
  for fd in fds:
    moved.append(os.dup2(fd, 64 + len(moved), inheritable=False))
  null = os.open(os.devnull, os.O_RDWR)
  for fd in (0, 1, 2):
    os.dup2(null, fd)
  os.closerange(3, 64)
  for i, high in enumerate(moved):
    os.dup2(high, 10 + i, inheritable=False)
  os.closerange(64, 64 + len(moved))
  if mode == 'main':
    for fd, at in ((11, 0), (12, 1), (13, 2)):
      os.dup2(fd, at)
      os.close(fd)


def strongest(folders: list[str]) -> tuple[str, str]:
  """The strongest level that holds when tried, and what a stronger one let through."""
  why = ''
  for level in reversed(confine.LEVELS[1 : confine.LEVELS.index(confine.detect()) + 1]):
    if level == 'rlimits':
      return level, why or 'this kernel filters no system calls'
    found = try_level(level, folders)
    if not found:
      return level, why
    why = f'{level} does not hold here: {", ".join(found)}'
  return 'none', why


def try_level(level: str, folders: list[str]) -> list[str]:
  """What a child at that level can do and should not."""
  read, write = os.pipe()
  told, tell = os.pipe()
  job = os.memfd_create('job')
  os.write(job, b'{}')
  os.lseek(job, 0, os.SEEK_SET)
  version = landlock.abi()
  ruleset = -1
  if level == 'landlock+seccomp':
    ruleset = landlock.make_ruleset(version, PACKAGES, folders)
  parent = os.getpid()
  pid = os.fork()
  if pid == 0:
    child('try', [job, write], level, confine.Limits(wall_s=5, cpu_s=5), ruleset, parent, tell)
  for fd in (job, write, tell, *([ruleset] if ruleset >= 0 else [])):
    os.close(fd)
  with open(read, 'rb') as file:
    said = file.read()
  _, status = os.waitpid(pid, 0)
  os.close(told)
  if os.waitstatus_to_exitcode(status) != 0 or not said:
    return ['its walls cannot be put up']
  found = json.loads(said)
  return [name for name in found if level == 'landlock+seccomp' or name != 'read a file']
