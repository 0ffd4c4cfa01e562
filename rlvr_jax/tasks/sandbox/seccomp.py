"""A seccomp filter that allows what one Python process needs and refuses everything else.

Refused calls fail with EPERM, so that a program sees an exception. Threads may be made, processes
not; signals reach the process itself only. A call of another architecture's table kills.
"""

import ctypes
import errno
import os
import platform
import struct

_ARCH = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}
# name: (x86-64, aarch64); None where the architecture has no such call
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
  'read': (0, 63), 'write': (1, 64), 'close': (3, 57), 'stat': (4, None), 'fstat': (5, 80),
  'lstat': (6, None), 'poll': (7, None), 'lseek': (8, 62), 'mmap': (9, 222),
  'mprotect': (10, 226), 'munmap': (11, 215), 'brk': (12, 214), 'rt_sigaction': (13, 134),
  'rt_sigprocmask': (14, 135), 'rt_sigreturn': (15, 139), 'pread64': (17, 67),
  'readv': (19, 65), 'writev': (20, 66), 'access': (21, None), 'pipe': (22, None),
  'select': (23, None), 'sched_yield': (24, 124), 'mremap': (25, 216), 'madvise': (28, 233),
  'dup': (32, 23), 'dup2': (33, None), 'pause': (34, None), 'nanosleep': (35, 101),
  'getitimer': (36, 102), 'alarm': (37, None), 'setitimer': (38, 103), 'getpid': (39, 172),
  'recvfrom': (45, 207), 'shutdown': (48, 210), 'exit': (60, 93), 'uname': (63, 160),
  'getcwd': (79, 17), 'readlink': (89, None), 'gettimeofday': (96, 169), 'getrlimit': (97, 163),
  'getrusage': (98, 165), 'sysinfo': (99, 179), 'times': (100, 153), 'getuid': (102, 174),
  'getgid': (104, 176), 'geteuid': (107, 175), 'getegid': (108, 177), 'getppid': (110, 173),
  'getpgrp': (111, None), 'rt_sigpending': (127, 136), 'rt_sigtimedwait': (128, 137),
  'rt_sigsuspend': (130, 133), 'sigaltstack': (131, 132), 'gettid': (186, 178),
  'time': (201, None), 'futex': (202, 98), 'sched_getaffinity': (204, 123),
  'getdents64': (217, 61), 'set_tid_address': (218, 96), 'restart_syscall': (219, 128),
  'clock_gettime': (228, 113), 'clock_getres': (229, 114), 'clock_nanosleep': (230, 115),
  'exit_group': (231, 94), 'epoll_wait': (232, None), 'epoll_ctl': (233, 21),
  'newfstatat': (262, 79), 'readlinkat': (267, 78), 'faccessat': (269, 48),
  'pselect6': (270, 72), 'ppoll': (271, 73), 'set_robust_list': (273, 99),
  'get_robust_list': (274, 100), 'epoll_pwait': (281, 22), 'eventfd2': (290, 19),
  'epoll_create1': (291, 20), 'dup3': (292, 24), 'pipe2': (293, 59), 'preadv': (295, 69),
  'getrandom': (318, 278), 'membarrier': (324, 283), 'statx': (332, 291), 'rseq': (334, 293),
  'faccessat2': (439, 439), 'epoll_pwait2': (441, 441),
}  # fmt: skip
# Allowed for some arguments only, see _conditional.
_CONDITIONAL = {
  'open': (2, None), 'openat': (257, 56), 'ioctl': (16, 29), 'fcntl': (72, 25),
  'clone': (56, 220), 'clone3': (435, 435), 'kill': (62, 129), 'tgkill': (234, 131),
  'prctl': (157, 167), 'setrlimit': (160, 164), 'prlimit64': (302, 261),
  'socketpair': (53, 199), 'sendto': (44, 206),
}  # fmt: skip

_CLONE_THREAD = 0x10000
_CLONE_NEW = 0x7E020000  # namespaces
_PR_SET_NAME = 15
_FCNTL = (0, 1, 2, 3, 4, 1030)  # DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, window size, FIONREAD, ...
# write, read-write, create, truncate, append, a file without a name
_OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000

_LD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE, _ABSENT = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
_NUMBER, _ARCHITECTURE = 0, 4

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def available() -> bool:
  """Whether this kernel filters system calls and this machine's numbers are known."""
  if platform.machine() not in _ARCH:
    return False
  libc = ctypes.CDLL(None, use_errno=True)
  # a null filter is refused with EFAULT where filters exist, with EINVAL where not
  libc.prctl(22, ctypes.c_ulong(2), None)
  return ctypes.get_errno() == errno.EFAULT


def build(pid: int, read_only: bool) -> bytes:
  """The filter of the process pid; read_only refuses opening files for writing (no Landlock)."""
  column = list(_ARCH).index(platform.machine())
  program: list[Instruction] = [
    (_LD, 0, 0, _ARCHITECTURE),
    (_JEQ, 1, 0, _ARCH[platform.machine()]),
    (_RET, 0, 0, _KILL),
    (_LD, 0, 0, _NUMBER),
  ]
  for name, numbers in _CONDITIONAL.items():
    number = numbers[column]
    if number is not None:
      body = _conditional(name, pid, read_only)
      program += [(_JEQ, 0, len(body), number), *body]
  allowed = [n for pair in _ALLOWED.values() if (n := pair[column]) is not None]
  for i, number in enumerate(allowed):
    program.append((_JEQ, len(allowed) - i, 0, number))
  program += [(_RET, 0, 0, _REFUSE), (_RET, 0, 0, _ALLOW)]
  return b''.join(struct.pack('=HBBI', *one) for one in program)


def _argument(index: int, high: bool = False) -> Instruction:
  """Loads half of a call's argument (little-endian, as both architectures are)."""
  return _LD, 0, 0, 16 + 8 * index + 4 * high


def _one_of(index: int, values: tuple[int, ...]) -> list[Instruction]:
  """Allows the call if the low half of an argument is one of values."""
  tests: list[Instruction] = [(_JEQ, len(values) - i, 0, value) for i, value in enumerate(values)]
  return [_argument(index), *tests, (_RET, 0, 0, _REFUSE), (_RET, 0, 0, _ALLOW)]


def _conditional(name: str, pid: int, read_only: bool) -> list[Instruction]:
  """What follows once the call is known to be `name`: ends in every case."""
  if name in ('open', 'openat'):
    if not read_only:
      return [(_RET, 0, 0, _ALLOW)]
    flags = _argument(1 if name == 'open' else 2)
    return [flags, (_JSET, 0, 1, _OPEN_TO_WRITE), (_RET, 0, 0, _REFUSE), (_RET, 0, 0, _ALLOW)]
  if name == 'clone':
    tests = [(_JSET, 1, 0, _CLONE_NEW), (_JSET, 1, 0, _CLONE_THREAD)]
    return [_argument(0), *tests, (_RET, 0, 0, _REFUSE), (_RET, 0, 0, _ALLOW)]
  if name == 'clone3':  # its flags are in memory, out of sight: the C library then uses clone
    return [(_RET, 0, 0, _ABSENT)]
  if name == 'setrlimit':
    return [(_RET, 0, 0, _ALLOW)]
  if name == 'socketpair':  # asyncio's own wake-up; AF_UNIX, SOCK_STREAM
    return [
      _argument(0), (_JEQ, 1, 0, 1), (_RET, 0, 0, _REFUSE),
      *_one_of(1, (1, 1 | 0o4000, 1 | 0o2000000, 1 | 0o2004000)),
    ]  # fmt: skip
  if name == 'sendto':  # to the other end, not to an address
    return [
      _argument(4), (_JEQ, 1, 0, 0), (_RET, 0, 0, _REFUSE),
      _argument(4, high=True), (_JEQ, 1, 0, 0), (_RET, 0, 0, _REFUSE), (_RET, 0, 0, _ALLOW),
    ]  # fmt: skip
  index, values = {
    'ioctl': (1, _IOCTL),
    'fcntl': (1, _FCNTL),
    'kill': (0, (pid,)),
    'tgkill': (0, (pid,)),
    'prctl': (0, (_PR_SET_NAME,)),
    'prlimit64': (0, (0, pid)),
  }[name]
  return _one_of(index, values)


def install(program: bytes) -> None:
  """Puts this process under the filter, for ever; no_new_privs must be set. Raises OSError."""

  class Program(ctypes.Structure):
    _fields_ = (('length', ctypes.c_ushort), ('filter', ctypes.c_char_p))

  libc = ctypes.CDLL(None, use_errno=True)
  filled = Program(len(program) // 8, program)
  if libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(filled)) != 0:
    number = ctypes.get_errno()
    raise OSError(number, f'seccomp: {os.strerror(number)}')
