"""Things in a Python file of the user's: 'path/to/file.py:name', known by the file's content."""

import difflib
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any


def split(name: str) -> tuple[Path, str] | None:
  """(path, name in it) of 'path/to/file.py:name'; None for text of another form."""
  path, colon, inner = name.rpartition(':')
  if not colon or not path.endswith('.py') or not inner:
    return None
  return Path(path).expanduser(), inner


def place(name: str, known: Iterable[str], what: str) -> tuple[Path, str]:
  """(path, name in it) of 'path/to/file.py:name', for a name that is none of the known ones.

  ValueError, beginning with `what` (key=value), names the nearest known one, or the missing file.
  """
  found = split(name)
  if found is None:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    raise ValueError(
      f'{what} is not known'
      + (f'; did you mean {near[0]!r}?' if near else '')
      + f' (one of {", ".join(names)}, or path/to/file.py:name)'
    )
  existing(found[0], what)
  return found


def existing(path: Path, what: str) -> Path:
  """The path; ValueError, beginning with `what` (key=value), if no file is there."""
  if not path.is_file():
    raise ValueError(f'{what}: there is no file {path.absolute()}')
  return path


def digest(path: Path) -> str:
  """16 hex digits that stand for the file's bytes."""
  return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def version(path: Path, inner: str) -> str:
  """What stands for a thing in a file: its name and the file's content."""
  return f'{path.name}:{inner}:{digest(path)}'


def load(path: Path, what: str) -> ModuleType:
  """The module in a file, imported once for each content."""
  existing(path, what)
  return _load(path.absolute(), digest(path), what)


@functools.cache
def _load(path: Path, content: str, what: str) -> ModuleType:
  spec = importlib.util.spec_from_file_location(f'_user_file_{content}', path)
  if spec is None or spec.loader is None:
    raise ValueError(f'{what}: {path} is not a Python file')
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # dataclasses look their module up
  if str(path.parent) not in sys.path:
    sys.path.append(str(path.parent))  # what it imports may lie beside it
  try:
    spec.loader.exec_module(module)
  except BaseException:
    del sys.modules[spec.name]
    raise
  return module


def find(path: Path, inner: str, what: str) -> Any:
  """What the file defines under a name; ValueError lists what it has instead."""
  module = load(path, what)
  found = getattr(module, inner, None)
  if found is None:
    raise ValueError(
      f'{what}: {module.__file__} has no function {inner!r}; '
      f'it defines {", ".join(n for n in vars(module) if not n.startswith("_"))}'
    )
  return found
