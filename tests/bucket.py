"""An object store for tests: gs:// of etils, kept in a directory, strict as the real ones are.

There are no directories but by the objects below them, no append, and an object is seen only when
it is whole. Tensorstore, which has a driver of its own for gs://, is pointed to the same files.
"""

import contextlib
import io
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any
from unittest import mock

import fsspec
from etils.epath import backend
from orbax.checkpoint._src.path import gcs_utils


class _Object(io.BytesIO):
  """An object being written: it is there when it is closed."""

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self._path = path

  def close(self) -> None:
    if not self.closed:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      part = self._path.with_name(f'{self._path.name}~{os.getpid()}')
      part.write_bytes(self.getvalue())
      part.replace(self._path)
    super().close()


class Bucket(fsspec.AbstractFileSystem):
  """What gcsfs would be."""

  protocol = ('gcs', 'gs')
  cachable = False
  root = pathlib.Path('/nonexistent')
  renamed: list[str] = []  # noqa: RUF012 (of the class, on purpose)

  @classmethod
  def _strip_protocol(cls, path: str) -> str:
    return os.fspath(path).removeprefix('gs://').removeprefix('gcs://').strip('/')

  def _local(self, path: str) -> pathlib.Path:
    return self.root / self._strip_protocol(path)

  def info(self, path: str, **_) -> dict:
    name, local = self._strip_protocol(path), self._local(path)
    if local.is_file():
      stat = local.stat()
      return {'name': name, 'size': stat.st_size, 'type': 'file', 'mtime': stat.st_mtime}
    if any(one.is_file() for one in local.rglob('*')):
      return {'name': name, 'size': 0, 'type': 'directory'}
    raise FileNotFoundError(path)

  def ls(self, path: str, detail: bool = True, **_) -> list:
    if self.info(path)['type'] == 'file':
      found = [self.info(path)]
    else:
      found = []
      for one in sorted(self._local(path).iterdir()):
        with contextlib.suppress(FileNotFoundError):  # a directory without objects
          found.append(self.info(f'{self._strip_protocol(path)}/{one.name}'))
    return found if detail else [one['name'] for one in found]

  def mkdir(self, path: str, create_parents: bool = True, **_) -> None:
    pass

  def makedirs(self, path: str, exist_ok: bool = False) -> None:
    pass

  def _open(self, path: str, mode: str = 'rb', **_) -> Any:
    if mode == 'rb':
      return open(self._local(path), 'rb')
    if mode == 'wb':
      return _Object(self._local(path))
    raise NotImplementedError(f'{mode}: objects are read or written whole')

  def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
    local = self._local(path)
    if local.is_dir():
      if not recursive:
        raise IsADirectoryError(path)
      shutil.rmtree(local)
    else:
      local.unlink()

  def mv(self, path1: str, path2: str, *_: Any, **__: Any) -> None:
    """Every object copied, then deleted."""
    self.renamed.append(path1)
    source, target = self._local(path1), self._local(path2)
    if source.is_file():
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(source, target)
      source.unlink()
    else:
      shutil.copytree(source, target, dirs_exist_ok=True)
      shutil.rmtree(source)


@contextlib.contextmanager
def at(root: pathlib.Path) -> Iterator[type[Bucket]]:
  """gs://NAME/... is root/NAME/... inside."""

  def kvstore(path: str) -> dict:
    local = str(root / Bucket._strip_protocol(path))
    # of an object itself, not of all below a prefix
    return {'driver': 'file', 'path': local if local.endswith('/_sharding') else f'{local}/'}

  def filesystem(_self: object, name: str) -> Bucket:
    assert name == 'gcs'
    return Bucket()

  Bucket.root, Bucket.renamed = root, []
  with (
    mock.patch.object(backend._FileSystemSpecBackend, '_get_filesystem', filesystem),
    mock.patch.object(gcs_utils, 'get_kvstore_for_gcs', kvstore),
    mock.patch.object(gcs_utils, 'is_hierarchical_namespace_enabled', return_value=False),
  ):
    yield Bucket
