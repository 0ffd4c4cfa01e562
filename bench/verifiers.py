"""make bench BENCH=verifiers: verdicts a second of one core, and their tails, beside other graders.

BENCH_PARTS chooses parts by name (a list with commas; all if unset):

  math   numbers, then the graders' cases uncached: ours, math-verify alone and the paper's rules;
         needs RLVR_DATA_DIR (the directory of the benchmarks, with grader_cases.jsonl): a minute
"""

from collections.abc import Callable
from typing import Any

from bench._measure import run_parts

Gates = list[dict[str, Any]]


def math() -> Gates:
  """Mathematical answers."""
  from bench import _verifiers_math

  return _verifiers_math.math_gates()


PARTS: dict[str, Callable[[], Gates]] = {'math': math}


def main() -> Gates:
  """The gates of the chosen parts."""
  return run_parts(PARTS)
