"""Landlock by system call: a process that may read a few places and write none.

Needs Linux 5.13, neither root nor a package. Rules for TCP came with ABI 4, for signals and
abstract sockets with ABI 6; what an older kernel lacks is refused by seccomp as well.
"""

import ctypes
import os
import struct
import sys
import sysconfig
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_PATH_BENEATH = 1
# ABI -> rights on files that the kernel knows: 13, and REFER, TRUNCATE, IOCTL_DEV
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract unix sockets, signals

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
  """The kernel's Landlock ABI; 0 where it has none or it is switched off."""
  if not sys.platform.startswith('linux'):
    return 0
  return max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def make_ruleset(version: int, packages: Iterable[str], folders: Iterable[str]) -> int:
  """A descriptor of the rules: the interpreter's library and /usr/lib are read, nothing else.

  Of folders, where installed packages lie, only the named packages are. Raises OSError.
  """
  files = (1 << _FILE_RIGHTS.get(version, 16)) - 1
  attributes = struct.pack('=QQQ', files, _TCP, _SCOPES)
  attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
  ruleset = _check(
    _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
  )
  for path in _readable(packages, folders):
    _allow(ruleset, path, _READ_FILE | _READ_DIR)
  _allow(ruleset, os.devnull, _READ_FILE | _WRITE_FILE)
  for path in ('/dev/urandom', '/dev/zero', '/etc/localtime', '/etc/ld.so.cache'):
    _allow(ruleset, path, _READ_FILE)
  # Listed so that the import system finds the packages; their files stay unreadable.
  for path in folders:
    _allow(ruleset, path, _READ_DIR)
  return ruleset


def restrict(ruleset: int) -> None:
  """Puts this thread and what it starts under the rules, for ever. Raises OSError."""
  _check(_libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)))


def _readable(packages: Iterable[str], folders: Iterable[str]) -> list[str]:
  paths = {'/usr/lib', '/usr/lib64', '/lib', '/lib64', '/usr/share/zoneinfo'}
  for name in ('stdlib', 'platstdlib'):
    folder = sysconfig.get_path(name, vars={'base': sys.base_prefix, 'platbase': sys.base_prefix})
    # a rule holds for all below a folder, and site-packages lies in the library
    for entry in os.listdir(folder):
      if entry not in ('site-packages', 'dist-packages'):
        paths.add(os.path.join(folder, entry))
  library = sysconfig.get_config_var('LDLIBRARY')
  if library:
    paths.add(os.path.join(sys.base_prefix, 'lib', library))
  for folder in folders:
    for package in packages:
      paths |= {os.path.join(folder, package), os.path.join(folder, f'{package}.libs')}
  return sorted(paths)


def _allow(ruleset: int, path: str, rights: int) -> None:
  """Adds a rule; a path that is not there needs none."""
  try:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
  except FileNotFoundError:
    return
  try:
    if not os.path.isdir(path):
      rights &= ~_READ_DIR
    rule = struct.pack('=Qi', rights, fd)
    _check(
      _libc.syscall(
        _ADD_RULE,
        ctypes.c_int(ruleset),
        ctypes.c_int(_PATH_BENEATH),
        rule,
        ctypes.c_uint32(0),
      )
    )
  finally:
    os.close(fd)


def _check(result: int) -> int:
  if result < 0:
    number = ctypes.get_errno()
    raise OSError(number, f'Landlock: {os.strerror(number)}')
  return result
