"""Problems of a benchmark by name: found or fetched, prepared, filtered."""

import difflib
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax.tasks.datasets import builder, sources, table
from rlvr_jax.tasks.datasets.benchmark import Benchmark
from rlvr_jax.tasks.datasets.builder import Prepared
from rlvr_jax.tasks.problem import Problem

log = logging.getLogger(__name__)

PAIR = ('train', 'test')  # what the split '' stands for, where a benchmark has both


def load_benchmark(
  name: str, *, path: str = '', split: str = '', params: Mapping[str, Any] | None = None
) -> dict[str, list[Problem]]:
  """split -> problems in their order, of one split or, for '', of train and test.

  Args:
    name: a key of table.BENCHMARKS.
    path: a file or folder; '' fetches from the public homes.
    split: one of the benchmark's; '' takes those of train and test that there are.
    params: the benchmark's filters, a value or a tuple of values each; `since` and `until` (dates,
      as '2024-08-01'; from the first on, before the second) where its problems have dates.

  Raises ValueError for what is not there or does not fit, OSError for what cannot be fetched.
  """
  benchmark = table.find(name)
  split, params = _level(benchmark, split, dict(params or {}))
  _check_params(name, benchmark, params)
  found = prepared_splits(name, path=path, split=split)
  loaded = {}
  for one in found.values():
    problems = builder.read_prepared(one)
    usual = benchmark.rows.get(one.split, len(problems))
    if len(problems) != usual:
      files = ', '.join(str(file.path) for file in one.files)
      log.warning(
        '%s, split %s: %d problems in %s, where its public files have %d',
        name, one.split, len(problems), files, usual,
      )  # fmt: skip
    loaded[one.split] = [p for p in problems if _wanted(p, benchmark, params)]
    if not loaded[one.split]:
      raise ValueError(
        f'task.params={params}: none of the {len(problems)} problems of {name}, split {one.split}, '
        'is like that'
      )
  return loaded


def prepared_splits(name: str, *, path: str = '', split: str = '') -> dict[str, Prepared]:
  """The prepared splits that load_benchmark reads, made now if they are not there."""
  benchmark = table.find(name)
  wanted = _splits(name, benchmark, split)
  sought = [benchmark.sources[0].split] if benchmark.divide else wanted if split else []
  files = sources.find_files(name, benchmark, path, sought)
  if not benchmark.divide:
    files = [f for f in files if f.split in wanted]
    if not files:
      raise ValueError(
        f'task.path={path!r} has the splits of {name} other than {", ".join(wanted)}; name one by '
        f'task.split ({", ".join(benchmark.splits)})'
      )
  prepared = builder.prepare(name, benchmark, files)
  return {one: prepared[one] for one in prepared if one in wanted}


def benchmark_hash(name: str, *, path: str, split: str, params: Mapping[str, Any]) -> str:
  """Stands for the problems that ids mean (16 hex): files, rules, split and filters."""
  split, params = _level(table.find(name), split, dict(params))
  keys = {one.split: one.key for one in prepared_splits(name, path=path, split=split).values()}
  text = json.dumps([name, keys, dict(params)], sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _level(benchmark: Benchmark, split: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
  """A level that names a split (SimpleRL-Zoo-Data's) is that split."""
  if not split and params.get('level') in benchmark.splits:
    split = str(params.pop('level'))
  return split, params


def _splits(name: str, benchmark: Benchmark, split: str) -> Sequence[str]:
  known = benchmark.splits
  if split and split not in known:
    near = difflib.get_close_matches(split, known, n=1)
    raise ValueError(
      f'task.split={split!r}: {name} has {", ".join(known)}'
      + (f'; did you mean {near[0]!r}?' if near else '')
    )
  wanted = [split] if split else [one for one in PAIR if one in known]
  if not wanted:
    raise ValueError(f"task.split='': choose one of {name}'s, {', '.join(known)}")
  return wanted


def _check_params(name: str, benchmark: Benchmark, params: Mapping[str, Any]) -> None:
  known = [*benchmark.filters, *(('since', 'until') if any(benchmark.window) else ())]
  if unknown := sorted(set(params) - set(known)):
    raise ValueError(
      f'task.params has {unknown}, unknown to {name}; '
      + (f'it knows {", ".join(known)}' if known else 'it knows none')
    )


def _wanted(problem: Problem, benchmark: Benchmark, params: Mapping[str, Any]) -> bool:
  chosen = {**benchmark.usual, **params}
  for param, meta in benchmark.filters.items():
    if chosen.get(param, '') != '':
      values = chosen[param]
      values = values if isinstance(values, list | tuple) else (values,)
      if problem.meta.get(meta) not in values:
        return False
  if any(benchmark.window):
    since = str(params.get('since', benchmark.window[0]))
    until = str(params.get('until', benchmark.window[1]))
    date = str(problem.meta['date'])
    return date >= since and (not until or date < until)
  return True
