"""The images that rows of a benchmark's file name: beside it, in an archive beside it, or in it."""

import dataclasses
import functools
import hashlib
import zipfile
from pathlib import Path

from rlvr_jax.tasks.problem import Image

ARCHIVE = 'images.zip'  # MathVista has its images in one


def located(image: Image, file: Path) -> Image:
  """The image with the place of its bytes, by the file whose row named it.

  Where there is none, path says where it was looked for: reading it will name that.
  """
  if image.data:
    return image
  if file.suffix == '.zip':
    return dataclasses.replace(image, path=str(file), member=image.name)
  if file.is_dir():  # of data.json files: names begin with it
    return dataclasses.replace(image, path=str(Path(image.name).absolute()))
  beside = (file.parent / image.name).absolute()  # an absolute name stays what it is
  archive = file.parent / ARCHIVE
  if not beside.is_file() and archive.is_file():
    return dataclasses.replace(image, path=str(archive), member=image.name)
  return dataclasses.replace(image, path=str(beside))


def present(image: Image) -> bool:
  """Whether the bytes of a located image are to be had."""
  if image.data:
    return True
  if image.member:
    return image.member in _members(image.path, Path(image.path).stat().st_mtime_ns)
  return Path(image.path).is_file()


def stamp(file: Path) -> str:
  """Changes with the image files beside a file of rows (names, sizes, times); '' without any."""
  whole = hashlib.sha256()
  if file.is_dir():
    found = sorted(file.glob('*/*.png'))
  else:
    found = [*sorted((file.parent / 'images').glob('*')), *file.parent.glob(ARCHIVE)]
  for one in found:
    stat = one.stat()
    whole.update(f'{one.name} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
  return whole.hexdigest() if found else ''


@functools.lru_cache(maxsize=8)
def _members(path: str, changed: int) -> frozenset[str]:
  try:
    with zipfile.ZipFile(path) as archive:
      return frozenset(archive.namelist())
  except zipfile.BadZipFile as error:
    raise ValueError(f'{path}: the zip is damaged ({error}); fetch it again') from error
