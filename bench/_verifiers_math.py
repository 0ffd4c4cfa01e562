"""Verdicts a second of the mathematical verifiers, and the slowest of them; see verifiers.py.

Every grader runs in this process, on one core, on the same completions, warmed by a few others
(imports, parser tables). Nothing is cached from case to case: ours has its cache emptied, and no
two cases of the file are equal. Clocks are CPU seconds, so that a busy machine changes little.
"""

import functools
import json
import logging
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from bench._measure import at_least
from rlvr_jax.tasks import math as strict
from rlvr_jax.tasks import symbolic
from rlvr_jax.tasks.paper_grade import verify_paper
from rlvr_jax.tasks.problem import Problem

Case = tuple[Problem, str]
NUMBERS = 20_000
WARM = ('\\boxed{\\sqrt{50}}', '\\boxed{\\frac{x+1}{2}}', '\\boxed{(1, \\pi)}')


def math_gates() -> list[dict[str, Any]]:
  """Numeric verdicts, then the cases that part graders. ValueError without RLVR_DATA_DIR."""
  rows = _rows()
  cases = [
    (Problem(str(row['id']), row['data_name'], '', row['gold']), row['prediction']) for row in rows
  ]
  numbers = _numbers()
  numeric = timed(_strict, numbers)
  graders: dict[str, Callable[[Problem, str], bool]] = {
    'strict': _strict, 'math-verify': _math_verify, 'paper': _paper,
  }  # fmt: skip
  seconds: dict[str, list[float]] = {name: [] for name in graders}
  called: dict[str, list[bool]] = {name: [] for name in graders}
  for grader in graders.values():
    for text in WARM:
      grader(Problem('', '', '', '7'), text)
  for case in cases:  # in turn, so that all meet the same machine
    for name, grader in graders.items():
      called[name].append(_timed_one(grader, case, seconds[name]))
  for name in graders:
    _print(name, seconds[name], called[name], rows)
  rate = {name: len(cases) / sum(seconds[name]) for name in graders}
  tails = _tails(seconds['strict'])
  return [
    at_least('numeric verdicts', len(numbers) / sum(numeric), 2000, '1/s a core',
             f'{NUMBERS} distinct pairs of integers, decimals, fractions, powers of ten in boxes'),
    at_least('graders\' cases', rate['strict'], 60, '1/s a core',
             f'{len(cases)} cases, uncached; p50/p99/max {tails} ms; paper\'s rules '
             f'{rate["paper"]:.3g}/s'),
    at_least('beside math-verify', rate['strict'] / rate['math-verify'], 2, 'x',
             f'the same cases; math-verify alone (parse and verify) {rate["math-verify"]:.3g}/s, '
             f'p50/p99/max {_tails(seconds["math-verify"])} ms'),
  ]  # fmt: skip


def _rows() -> list[dict[str, Any]]:
  folder = os.environ.get('RLVR_DATA_DIR', '')
  path = pathlib.Path(folder) / 'grader_cases.jsonl'
  if not folder or not path.is_file():
    raise ValueError(
      f'RLVR_DATA_DIR={folder!r}: set it to the directory of the benchmarks, which holds '
      'grader_cases.jsonl'
    )
  return [json.loads(line) for line in path.read_text().splitlines()]


def _numbers() -> list[Case]:
  """Golds and answers that plain numbers decide, all different, half of them right."""
  cases = []
  for i in range(NUMBERS):
    top, bottom = 3 * i + 1, 7 + i % 89
    gold, answer = (
      (str(top), f'{top + i % 2}'),
      (f'{top}.5', f'{top}.{5 + i % 2}0'),
      (f'\\frac{{{top}}}{{{bottom}}}', f'{2 * top}/{2 * (bottom + i % 2)}'),
      (f'{top}e5', f'{top} \\times 10^{{{5 + i % 2}}}'),
    )[i // 2 % 4]
    cases.append((Problem('', '', '', gold), f'So the answer is $\\boxed{{{answer}}}$.'))
  return cases


def timed(grader: Callable[[Problem, str], bool], cases: list[Case]) -> list[float]:
  """CPU seconds of each case, one after the other."""
  seconds: list[float] = []
  for text in WARM:
    grader(Problem('', '', '', '7'), text)
  for case in cases:
    _timed_one(grader, case, seconds)
  return seconds


def _timed_one(grader: Callable[[Problem, str], bool], case: Case, seconds: list[float]) -> bool:
  begin = time.process_time()
  verdict = grader(*case)
  seconds.append(time.process_time() - begin)
  return verdict


def _strict(problem: Problem, text: str) -> bool:
  strict._compare.cache_clear()
  symbolic._read.cache_clear()
  return strict.verify_math(problem, text).verdict == 'correct'


def _paper(problem: Problem, text: str) -> bool:
  return verify_paper(problem, text).verdict == 'correct'


@functools.cache
def _quiet() -> None:
  logging.getLogger('math_verify').setLevel(logging.CRITICAL)  # it runs without its own clock


def _math_verify(problem: Problem, text: str) -> bool:
  from math_verify import parse, verify

  _quiet()
  without_clock: dict[str, Any] = {'parsing_timeout': None}
  gold = parse(f'\\boxed{{{problem.answer}}}', **without_clock)
  return bool(verify(gold, parse(text, **without_clock), timeout_seconds=None))


def _tails(seconds: list[float]) -> str:
  ordered = sorted(1000 * s for s in seconds)
  return '/'.join(f'{ordered[int(share * (len(ordered) - 1))]:.3g}' for share in (0.5, 0.99, 1))


def _print(name: str, seconds: list[float], called: list[bool], rows: list[dict[str, Any]]) -> None:
  """One line: speed, tails, and how often it is wrong where the file says what is right."""
  false_correct = sum(c for c, row in zip(called, rows, strict=True) if row['expected'] is False)
  false_wrong = sum(not c for c, row in zip(called, rows, strict=True) if row['expected'] is True)
  print(
    f'{name}: {len(seconds) / sum(seconds):.3g}/s, p50/p99/max {_tails(seconds)} ms; '
    f'false correct {false_correct}, false wrong {false_wrong}',
    flush=True,
  )
