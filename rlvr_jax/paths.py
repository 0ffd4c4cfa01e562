"""Places of a run's files: directories here, and object stores (gs://, s3://) through etils.

A path of an object store behaves like a pathlib.Path with less: there is no append, and a rename is
a copy. What is written whole by `write_whole` is there whole or not at all in both. Nothing here
imports jax.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, cast

Given = str | os.PathLike[str]
STORES = ('gs://', 's3://', 'az://')


def is_remote(path: Given) -> bool:
  """Whether a path lies in an object store."""
  return os.fspath(path).startswith(STORES)


def path_of(path: Given) -> pathlib.Path:
  """path as a pathlib.Path, or as the like of one in an object store.

  pathlib.Path('gs://b/x') itself would be the folder 'gs:' here. ValueError, saying what to
  install, where the store's file system is missing.
  """
  if not is_remote(path):
    return pathlib.Path(path)
  from etils import epath

  text = os.fspath(path)
  found = cast(Any, epath.Path(text))
  try:
    found.exists()
  except ImportError as error:
    scheme = text.partition('://')[0]
    raise ValueError(
      f'{text}: no file system for {scheme}:// is installed ({error}); pip install '
      f"'etils[epath-{'gcs' if scheme == 'gs' else scheme}]', or mount the bucket (gcsfuse) and "
      'give its directory'
    ) from error
  return found


def absolute(path: pathlib.Path) -> pathlib.Path:
  """path from the root on; one of an object store is that already."""
  return path if is_remote(path) else path.resolve()


def write_whole(path: pathlib.Path, data: str | bytes) -> None:
  """Writes a file that others see whole or not at all, over one that was there.

  Raises OSError, naming the file; the old one is still there then.
  Locally it is a rename of a file that is written beside it; an object is put in one piece.
  """
  raw = data.encode() if isinstance(data, str) else data
  if is_remote(path):
    path.write_bytes(raw)
    return
  part = path.with_name(f'.{path.name}.part')
  try:
    part.write_bytes(raw)
    part.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):  # of the same cause
      part.unlink(missing_ok=True)
    raise cannot_write(path, error) from error


def cannot_write(path: pathlib.Path, error: OSError) -> OSError:
  """What is said of a file that the disk does not take."""
  return OSError(
    error.errno,
    f'cannot write {path} ({error.strerror or error}); make room there or mend the permissions: '
    'the same command goes on',
  )


def local_of(path: pathlib.Path) -> pathlib.Path:
  """path itself, or where what is appended to bit by bit lies on this machine in its stead."""
  if not is_remote(path):
    return path
  home = pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser()
  text = os.fspath(path)
  return home / 'rlvr_jax' / 'remote' / hashlib.sha256(text.encode()).hexdigest()[:16]


def remove_tree(directory: pathlib.Path) -> None:
  """Deletes a directory and all in it."""
  if is_remote(directory):
    cast(Any, directory).rmtree()
  else:
    shutil.rmtree(directory)


@contextlib.contextmanager
def staged(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """A directory to write files to; those for an object store are copied there at the end."""
  if not is_remote(directory):
    yield directory
    return
  with tempfile.TemporaryDirectory(prefix='rlvr_jax') as name:
    local = pathlib.Path(name)
    yield local
    for file in sorted(path for path in local.rglob('*') if path.is_file()):
      directory.joinpath(file.relative_to(local).as_posix()).write_bytes(file.read_bytes())
