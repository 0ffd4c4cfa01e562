"""The files of a benchmark: found under a path, or fetched from their public homes."""

import dataclasses
import fnmatch
import functools
import hashlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.tasks.datasets.benchmark import Benchmark, Source
from rlvr_jax.tasks.files import SUFFIXES

_TIMEOUT_S = 60.0


@dataclasses.dataclass(frozen=True)
class Found:
  """A file (or folder of data.json files) of a split. known: its sha256 is the table's."""

  split: str
  path: Path
  sha256: str
  known: bool


def cache_dir() -> Path:
  """Where fetched and prepared data lie: $RLVR_DATA_CACHE, else ~/.cache/rlvr_jax/datasets."""
  place = os.environ.get('RLVR_DATA_CACHE') or '~/.cache/rlvr_jax/datasets'
  return Path(place).expanduser()


def find_files(name: str, benchmark: Benchmark, path: str, splits: Sequence[str]) -> list[Found]:
  """The files of the wanted splits of a benchmark's sources ((): all that are there).

  path: a file, a folder, or '' for their public homes. ValueError for what is not there, OSError
  for what cannot be fetched.
  """
  wanted = [s for s in benchmark.sources if not splits or s.split in splits]
  if not path:
    return [found for source in wanted for found in _fetched(name, source)]
  place = Path(path).expanduser()
  if not place.exists():
    raise ValueError(f'task.path={path!r}: there is no such file or folder')
  if place.is_file() or any(place.glob('*/data.json')):
    return [_found(_source_of(place, benchmark, wanted), place)]
  found = [_found(s, file) for s in wanted for file in _matches(place, s.names)]
  missing = [s for s in splits if s not in {f.split for f in found}]
  if missing or not found:
    sought = sorted({n for s in wanted for n in s.names if s.split in missing or not found})
    raise ValueError(
      f'task.path={path!r} holds none of the files of {name}'
      + (f' for the split {missing[0]!r}' if missing else '')
      + f': looked for {", ".join(sought)}; or give the path of one file'
    )
  return found


def _matches(folder: Path, names: Sequence[str]) -> list[Path]:
  """The files of the first name or pattern that has any."""
  for name in names:
    if files := sorted(folder.glob(name)):
      return files
  return []


def _source_of(place: Path, benchmark: Benchmark, wanted: Sequence[Source]) -> Source:
  """Whose file this is: by its name, else the test split's, else the first's."""
  if place.is_file() and not place.name.endswith(SUFFIXES):
    raise ValueError(f'task.path={str(place)!r}: known are {", ".join(SUFFIXES)} files')
  named = [
    s for s in wanted if any(fnmatch.fnmatch(place.name, n.rpartition('/')[2]) for n in s.names)
  ]
  test = [s for s in wanted if s.split == 'test']
  return (named or test or wanted)[0]


def _found(source: Source, path: Path) -> Found:
  digest = _digest(path, _stamp(path))
  return Found(source.split, path, digest, digest in (source.sha256, *source.copies))


def _stamp(path: Path) -> tuple[int, int]:
  stat = path.stat()
  return stat.st_size, stat.st_mtime_ns


@functools.lru_cache(maxsize=256)
def _digest(path: Path, stamp: tuple[int, int]) -> str:
  if path.is_dir():
    whole = hashlib.sha256()
    for file in sorted(path.glob('*/data.json')):
      whole.update(f'{file.parent.name}\n'.encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _fetched(name: str, source: Source) -> list[Found]:
  """The source's files, from its home or from an earlier visit. A wrong checksum is an OSError."""
  way_out = f'give a file or folder that you have by task.path (task.name={name!r})'
  if source.home.startswith('hub:'):
    paths = _from_hub(source.home, way_out)
  else:
    paths = [_from_url(source.home, source.sha256, way_out)]
  found = [_found(source, path) for path in paths]
  if source.sha256 and not all(one.known for one in found):
    raise OSError(
      f'{source.home}: sha256 {found[0].sha256}, where {source.sha256} is expected: the file at '
      f'its home changed, or what was fetched is damaged ({paths[0]}; remove it to fetch again); '
      f'{way_out} to use it as it is'
    )
  return found


def _from_url(url: str, sha256: str, way_out: str) -> Path:
  folder = cache_dir() / 'downloads'
  target = folder / f'{hashlib.sha256(url.encode()).hexdigest()[:12]}-{url.rpartition("/")[2]}'
  if target.exists():
    return target
  folder.mkdir(parents=True, exist_ok=True)
  partial = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
  try:
    request = urllib.request.Request(url, headers={'User-Agent': 'rlvr_jax'})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, partial.open('wb') as file:
      shutil.copyfileobj(answer, file, 1 << 20)
      expected = answer.headers.get('Content-Length')
      if expected is not None and file.tell() != int(expected):
        raise OSError(f'{file.tell()} of {expected} bytes came')
    digest = _digest(partial, _stamp(partial))
    if sha256 and digest != sha256:
      raise OSError(f'sha256 {digest}, where {sha256} is expected: the file at its home changed')
    partial.replace(target)
  except (OSError, urllib.error.URLError) as error:
    raise OSError(f'{url} cannot be fetched ({error}); {way_out}') from error
  finally:
    partial.unlink(missing_ok=True)
  return target


def _from_hub(home: str, way_out: str) -> list[Path]:
  """The files of 'hub:org/name@revision/path', whose file name may be a pattern."""
  import huggingface_hub
  from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

  repository, _, rest = home.removeprefix('hub:').partition('@')
  revision, _, path = rest.partition('/')
  options: dict[str, Any] = {'repo_id': repository, 'repo_type': 'dataset', 'revision': revision}
  try:
    files = [path]
    if '*' in path:
      files = fnmatch.filter(huggingface_hub.HfApi().list_repo_files(**options), path)
    paths = [Path(huggingface_hub.hf_hub_download(filename=f, **options)) for f in sorted(files)]
  except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
    raise OSError(f'{home} cannot be fetched ({str(error).splitlines()[0]}); {way_out}') from error
  if not paths:
    raise OSError(f'{home}: there is no such file any more; {way_out}')
  return paths
