"""Every benchmark and training set by name: where it comes from and how it is to be used."""

import dataclasses
import difflib
from typing import Any

from rlvr_jax.tasks.datasets.benchmark import Benchmark
from rlvr_jax.tasks.datasets.code import CODE
from rlvr_jax.tasks.datasets.maths import MATHS, VISION

BENCHMARKS: dict[str, Benchmark] = MATHS | VISION | CODE


def find(name: str, others: tuple[str, ...] = ()) -> Benchmark:
  """The benchmark of that name; ValueError names the nearest one. others: names known elsewhere."""
  if name not in BENCHMARKS:
    names = [*others, *BENCHMARKS]
    near = difflib.get_close_matches(name, names, n=1)
    raise ValueError(
      f'task.name={name!r} is not known'
      + (f'; did you mean {near[0]!r}?' if near else '')
      + f' (one of {", ".join(names)})'
    )
  return BENCHMARKS[name]


def describe(name: str) -> dict[str, Any]:
  """What the table says of a benchmark, as JSON values."""
  benchmark = find(name)
  return {
    'about': benchmark.about,
    'kind': benchmark.kind,
    'verifier': benchmark.verifier,
    'licence': benchmark.licence,
    'released': benchmark.released,
    'sources': [dataclasses.asdict(source) for source in benchmark.sources],
  }
