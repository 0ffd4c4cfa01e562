"""Timing and gates, shared by the benchmarks."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax


def best_of(run: Callable[[], Any], repeats: int) -> float:
  """Smallest seconds of a call that blocks on its result, the first (compiling) one left out."""
  jax.block_until_ready(run())
  return min(seconds(run) for _ in range(repeats))


def seconds(run: Callable[[], Any]) -> float:
  """Seconds of one call, its result waited for."""
  begin = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - begin


def at_most(name: str, value: float, target: float, unit: str, how: str) -> dict[str, Any]:
  """A gate that holds if value is at most target."""
  return _gate(name, value, target, value <= target, unit, how)


def at_least(name: str, value: float, target: float, unit: str, how: str) -> dict[str, Any]:
  """A gate that holds if value is at least target."""
  return _gate(name, value, target, value >= target, unit, how)


def _gate(
  name: str, value: float, target: float, holds: bool, unit: str, how: str
) -> dict[str, Any]:
  # compared before it is rounded: the digits shown decide nothing
  rounded = float(f'{value:.3g}')
  return {
    'gate': name,
    'value': rounded,
    'target': target,
    'holds': bool(holds),
    'unit': unit,
    'how': how,
  }


def run_parts(parts: Mapping[str, Callable[[], list[dict[str, Any]]]]) -> list[dict[str, Any]]:
  """The gates of the parts that BENCH_PARTS names, all if it is unset; says how long each took."""
  gates: list[dict[str, Any]] = []
  for name in chosen(os.environ.get('BENCH_PARTS', ''), parts):
    begin = time.perf_counter()
    gates += parts[name]()
    print(f'{name}: {time.perf_counter() - begin:.0f} s', flush=True)
  return gates


def chosen(text: str, parts: Iterable[str]) -> list[str]:
  """The parts named in BENCH_PARTS, all if it is empty; ValueError for an unknown one."""
  known = list(parts)
  names = [name.strip() for name in text.split(',') if name.strip()] or known
  if unknown := [name for name in names if name not in known]:
    raise ValueError(
      f'BENCH_PARTS={text!r}: no part {", ".join(unknown)}; there are {", ".join(known)}'
    )
  return names
