"""Prepared benchmarks: one TFDS builder class, a data set a split of a benchmark, in array_record.

tensorflow is never imported, tensorflow_datasets only where something is prepared or read. A
prepared split lies under cache_dir(), named by the checksums of the files it was made from and of
the code that made it; it is written whole, then renamed. Images lie in a split of their own beside
that of the problems (test, test_images), and are read one by one when they are asked for.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import logging
import pickle
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.tasks import code_rows, images, jsonl
from rlvr_jax.tasks import files as files_module
from rlvr_jax.tasks.datasets import benchmark as benchmark_module
from rlvr_jax.tasks.datasets import pictures, rows, rows_code, rows_vision
from rlvr_jax.tasks.datasets.benchmark import Benchmark
from rlvr_jax.tasks.datasets.sources import Found, cache_dir
from rlvr_jax.tasks.files import rows_of
from rlvr_jax.tasks.problem import Image, Problem, check_unique
from rlvr_jax.tasks.sandbox import codec
from rlvr_jax.tasks.wire import problem_from_json, problem_to_json

_IMAGES = '_images'  # behind a split's name: that of its images
# of array_record, etils, json
_UNREADABLE = (RuntimeError, ValueError, OSError, KeyError, IndexError, TypeError)
VERSION = '1.0.0'  # of what ids mean; a change refuses stores of samples made before it


@dataclasses.dataclass(frozen=True)
class Prepared:
  """One split, prepared: its folder, the files it was made from, and what was left out of it.

  left_out: reason -> how many rows do not belong to the benchmark. key stands for its files and the
  images that its rows name.
  """

  split: str
  folder: Path
  key: str
  files: tuple[Found, ...]
  left_out: dict[str, int]


def prepare(name: str, benchmark: Benchmark, files: Sequence[Found]) -> dict[str, Prepared]:
  """The splits that the files hold, from the cache if they were prepared before.

  Raises ValueError naming file and row for a row that is not what the benchmark's rows are.
  """
  prepared: dict[str, Prepared] = {}
  for source_split in dict.fromkeys(file.split for file in files):
    group = tuple(file for file in files if file.split == source_split)
    names = benchmark.splits if benchmark.divide else (source_split,)
    key = _key(VERSION, name, *(file.sha256 for file in group))
    stamps = [pictures.stamp(file.path) for file in group] if benchmark.kind == 'vision' else []
    made_by = _key(key, _code_digest(), *filter(None, stamps))
    folders = {split: _folder(name, split, made_by) for split in names}
    if not all((folder / 'dataset_info.json').is_file() for folder in folders.values()):
      problems, left_out = read_rows(name, benchmark, group)
      divided = benchmark.divide(problems) if benchmark.divide else {source_split: problems}
      for split in names:
        made = [_within(problem, split) for problem in divided[split]]
        check_unique(made)
        _build(name, split, made_by, made, left_out, benchmark)
    for split, folder in folders.items():
      facts = json.loads((folder / 'metadata.json').read_text())
      shown = facts.get('images')
      prepared[split] = Prepared(
        split,
        folder,
        _key(key, shown) if shown else key,
        group,
        facts['left_out'],
      )
  return prepared


def read_rows(
  name: str, benchmark: Benchmark, files: Sequence[Found]
) -> tuple[list[Problem], dict[str, int]]:
  """The problems of some files of one split, and how many rows were left out for which reason."""
  problems: list[Problem] = []
  left_out: dict[str, int] = {}
  ids: set[str] = set()
  number = 0
  for file in files:
    for where, row in rows_of(file.path):
      try:
        made = benchmark.row(row, number, where)
      except (ValueError, SyntaxError, EOFError, zlib.error, pickle.UnpicklingError) as error:
        text = str(error)
        raise ValueError(text if text.startswith(where) else f'{where}: {text}') from error
      number += 1
      if isinstance(made, str):
        left_out[made] = left_out.get(made, 0) + 1
        continue
      identity = made.id or str(number - 1)
      if identity in ids and benchmark.repeating:
        left_out['repeated'] = left_out.get('repeated', 0) + 1
        continue
      ids.add(identity)
      meta = {**made.meta, 'verifier': benchmark.verifier}
      found = tuple(pictures.located(image, file.path) for image in made.images)
      problems.append(Problem(identity, name, made.prompt, made.answer, meta, found))
  if not problems:
    raise ValueError(f'{files[0].path}: no row of this file belongs to {name} ({left_out})')
  return problems, left_out


def read_prepared(prepared: Prepared) -> list[Problem]:
  """The problems of a prepared split, in the order of its source."""
  try:
    source = _records(str(prepared.folder), prepared.split)
    records = source.__getitems__(range(len(source)))
    return [
      _from_record(json.loads(record['problem']), prepared.folder, prepared.split)
      for record in records
    ]
  except _UNREADABLE as error:
    raise _damaged(prepared.folder, error) from error


def read_image(folder: str, split: str, number: int) -> bytes:
  """The bytes of one of a prepared split's images."""
  try:
    return _kept_open(folder, f'{split}{_IMAGES}')[number]['problem']
  except _UNREADABLE as error:
    raise _damaged(Path(folder), error) from error


def _records(folder: str, split: str) -> Any:
  """Random access to the records of a split."""
  tfds = _tfds()
  with _quiet():
    return tfds.builder_from_directory(folder).as_data_source(split=split)


_kept_open = functools.lru_cache(maxsize=16)(_records)  # of images, which are read one by one


def _damaged(folder: Path, error: Exception) -> ValueError:
  return ValueError(
    f'the prepared data in {folder} are damaged ({type(error).__name__}: '
    f'{str(error).splitlines()[0] if str(error) else "no text"}); remove that folder, it will be '
    'made again'
  )


def _to_records(problems: Sequence[Problem]) -> tuple[list[str], list[Image], list[str]]:
  """(records of problems, the images that are there, their checksums).

  A record says of each image the number and checksum of its bytes, or where they were looked for in
  vain. ValueError for an image that is too large to be taken.
  """
  records: list[str] = []
  found: list[Image] = []
  digests: list[str] = []
  for problem in problems:
    shown: list[dict[str, Any]] = []
    for place, image in enumerate(problem.images):
      if pictures.present(image):
        digests.append(images.sha256(problem, place))
        shown.append({'name': image.name, 'number': len(found), 'sha256': digests[-1]})
        found.append(image)
      else:
        shown.append({'name': image.name, 'path': image.path, 'member': image.member})
    records.append(json.dumps(problem_to_json(problem) | ({'images': shown} if shown else {})))
  return records, found, digests


def _from_record(record: dict[str, Any], folder: Path, split: str) -> Problem:
  found = []
  for image in record.pop('images', ()):
    number = image.pop('number', None)
    place = None if number is None else (str(folder), split, int(number))
    found.append(Image(**image, record=place))
  return dataclasses.replace(problem_from_json(record), images=tuple(found))


def _key(*parts: str) -> str:
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@functools.cache
def _code_digest() -> str:
  """Of the modules that decide what a record says."""
  digest = hashlib.sha256()
  modules = (benchmark_module, rows, rows_code, rows_vision, pictures, code_rows, codec, jsonl)
  for module in (*modules, files_module):
    digest.update(Path(str(module.__file__)).read_bytes())
  return digest.hexdigest()


def _folder(name: str, split: str, key: str) -> Path:
  return cache_dir() / 'benchmark' / f'{name}-{split}-{key}' / VERSION


def _within(problem: Problem, split: str) -> Problem:
  """Ids of the test split are the source's own, others name their split: both may be in one run."""
  return problem if split == 'test' else dataclasses.replace(problem, id=f'{split}-{problem.id}')


def _tfds() -> Any:
  import tensorflow_datasets

  return tensorflow_datasets


@functools.cache
def _builder_class() -> Any:
  tfds = _tfds()

  class Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
      """Nothing: no catalogue on the net knows these data sets."""

  class Benchmark(tfds.core.GeneratorBasedBuilder):
    """Problems as JSON records, in order, and the files of their images."""

    VERSION = tfds.core.Version(VERSION)
    pkg_dir_path = Path(__file__).parent

    def __init__(self, splits: dict[str, Iterable[Any]], facts: dict[str, Any], **options: Any):
      self._splits, self._facts = splits, facts
      super().__init__(file_format='array_record', **options)

    def _info(self):
      return Info(
        builder=self,
        description=self._facts['about'],
        license=self._facts['licence'],
        features=tfds.features.FeaturesDict({'problem': tfds.features.Text()}),
        metadata=tfds.core.MetadataDict(self._facts),
        disable_shuffling=True,  # keys are row numbers: written and read in their order
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(of) for split, of in self._splits.items()}

    def _generate_examples(self, records):
      for number, record in enumerate(records):
        yield number, {'problem': record}  # text or, of an image, the bytes of its file

  return Benchmark


def _build(
  name: str,
  split: str,
  key: str,
  problems: list[Problem],
  left_out: dict[str, int],
  benchmark: Benchmark,
) -> None:
  folder = _folder(name, split, key)
  if (folder / 'dataset_info.json').is_file():
    return
  facts: dict[str, Any] = {
    'about': benchmark.about,
    'licence': benchmark.licence,
    'released': benchmark.released,
    'left_out': left_out,
  }
  tfds = _tfds()
  records, found, digests = _to_records(problems)
  splits: dict[str, Iterable[Any]] = {split: records}
  if found:
    splits[f'{split}{_IMAGES}'] = (images.read(image) for image in found)
    without = sum(len(problem.images) for problem in problems) - len(found)
    facts['images'] = _key(*digests, str(without))  # stands for the bytes of all of them
  config = tfds.core.BuilderConfig(name=f'{name}-{split}-{key}', version=VERSION)
  with _quiet():
    builder = _builder_class()(splits, facts, data_dir=cache_dir(), config=config)
    try:
      builder.download_and_prepare()
    except OSError:
      if not (folder / 'dataset_info.json').is_file():  # else another process was faster
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """TFDS without its progress bars, its greetings and its remark on a config of ours."""
  tfds = _tfds()
  tfds.disable_progress_bar()
  log = logging.getLogger('absl')
  level = log.level
  log.setLevel(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    log.setLevel(level)
