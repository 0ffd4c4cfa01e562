"""What a forked child does before it runs a program: limits, then walls, for ever."""

import contextlib
import ctypes
import dataclasses
import os
import resource
import signal
import socket
import struct

from rlvr_jax.tasks.sandbox import landlock, seccomp

LEVELS = ('none', 'rlimits', 'seccomp', 'landlock+seccomp')  # weakest first
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL, _PR_SET_CHILD_SUBREAPER = 38, 47, 4, 36
_OPEN_FILES = 64
_STACK = 64 << 20  # of the main thread: deep recursion is no crime

_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(frozen=True)
class Limits:
  """What one run may use.

  wall_s, cpu_s: seconds. memory_mb: address space, MiB. output_bytes: what is read from it at most.
  threads: at once; more, seen when looked for every 50 ms, end it.
  """

  wall_s: float = 10.0
  cpu_s: float = 10.0
  memory_mb: int = 4096
  output_bytes: int = 32 << 20
  threads: int = 64


def detect() -> str:
  """The strongest level that this kernel offers; not yet that it holds (server.py tries it)."""
  if not seccomp.available():
    return 'rlimits'
  return 'landlock+seccomp' if landlock.abi() else 'seccomp'


def confine(level: str, limits: Limits, ruleset: int, parent: int) -> None:
  """Limits this process and shuts it in. Raises OSError if a wall of the level cannot be put up.

  Called in a fresh child with no thread but its own, whose descriptors are in place but for the
  ruleset's, which is closed here.
  """
  die_with(parent)
  _prctl(_PR_SET_DUMPABLE, 0)
  set_limits(limits)
  _drop_capabilities()
  _prctl(_PR_SET_NO_NEW_PRIVS, 1)
  if level == 'landlock+seccomp':
    landlock.restrict(ruleset)
  if ruleset >= 0:
    os.close(ruleset)
  if level in ('landlock+seccomp', 'seccomp'):
    seccomp.install(seccomp.build(os.getpid(), read_only=level == 'seccomp'))


def set_limits(limits: Limits) -> None:
  """The rlimits. No file can be written: its size may be 0.

  The server keeps the limit of CPU (server.look); twice as much is set here, in case it does not.
  """
  seconds = 2 + int(2 * limits.cpu_s)
  memory = limits.memory_mb << 20
  wanted = (
    (resource.RLIMIT_CPU, seconds, seconds),
    (resource.RLIMIT_AS, memory, memory),
    (resource.RLIMIT_FSIZE, 0, 0),
    (resource.RLIMIT_NOFILE, _OPEN_FILES, _OPEN_FILES),
    (resource.RLIMIT_CORE, 0, 0),
    (resource.RLIMIT_MEMLOCK, 0, 0),
    # programs that recurse raise it themselves; what it takes is address space
    (resource.RLIMIT_STACK, _STACK, resource.RLIM_INFINITY),
  )
  for which, soft, hard in wanted:
    _, ceiling = resource.getrlimit(which)
    if ceiling != resource.RLIM_INFINITY:
      soft = min(soft, ceiling)
      hard = ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)
    resource.setrlimit(which, (soft, hard))


def _drop_capabilities() -> None:
  """Root keeps its number and loses its powers; no_new_privs and no exec keep them away."""
  _libc.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_CLEAR_ALL), 0, 0, 0)  # absent before 4.3
  header = struct.pack('=Ii', 0x20080522, 0)
  if _libc.capset(header, struct.pack('=6I', *[0] * 6)) != 0:
    number = ctypes.get_errno()
    raise OSError(number, f'capset: {os.strerror(number)}')


def holes() -> list[str]:
  """What this confined process can do and should not: the walls, tried from inside."""
  tries = {
    'read a file': lambda: os.close(os.open('/etc/passwd', os.O_RDONLY)),
    'write a file': lambda: os.close(os.open('/tmp', os.O_WRONLY | os.O_TMPFILE)),
    'make a process': lambda: os.fork() or os._exit(0),
    'open a socket': lambda: socket.socket().close(),
    'signal its parent': lambda: os.kill(os.getppid(), 0),
    'run a program': lambda: os.execv('/bin/sh', ['sh', '-c', 'exit 7']),
  }
  found = []
  for name, attempt in tries.items():
    try:
      attempt()
    except OSError:
      continue
    found.append(name)
  return found


def die_with(parent: int) -> None:
  """Ends this process when its parent ends."""
  _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:  # gone before that was asked for
    os._exit(1)


def become_reaper() -> None:
  """Orphans among this process's descendants become its children."""
  _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_group(pid: int) -> None:
  """Kills the process group that pid leads, if there is one."""
  with contextlib.suppress(ProcessLookupError, PermissionError):
    os.killpg(pid, signal.SIGKILL)


def kill_orphans() -> None:
  """Kills and reaps every child of this process and theirs: what an unconfined run left."""
  while True:
    with open(f'/proc/{os.getpid()}/task/{os.getpid()}/children') as file:
      children = [int(pid) for pid in file.read().split()]
    if not children:
      return
    for pid in children:
      kill_group(pid)
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)


def _prctl(option: int, value: int) -> None:
  zero = ctypes.c_ulong(0)
  if _libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero) != 0:
    number = ctypes.get_errno()
    raise OSError(number, f'prctl({option}): {os.strerror(number)}')
