"""The verifier 'code': runs the completion's program in the sandbox and compares its outputs.

Problem.answer is one of three JSON objects (code_rows.py makes them of benchmark rows); which
program a completion holds is the policy of code_extract.py.

  calls    'entry_point', 'inputs' (lists of arguments), 'expected' or 'reference'; all values as
           sandbox/codec.py writes them. The function is called on every input in one process; the
           outputs are compared here (code_compare.py: 'atol', 'oracle'). 'reference' is a program
           whose outputs are the expected ones: it runs once in the same sandbox, outputs are kept
           in the cache directory. 'method_of' names a class whose method it may be;
           'tuples_as_lists' is LiveCodeBench's comparison.
  asserts  'test', 'setup' (what the test's own code needs), 'names' (name there -> name in the
           program). The test runs as it stands in another process (sandbox/judge.py).
  stdin    'inputs', 'outputs' (texts). The program runs once for each as a main program with real
           stdin; it must exit with code 0 and write the same tokens.

Optional everywhere: 'prompt' (completions may continue it), 'prelude' (put before the program),
'limit_s' and 'memory_mb' of one run in place of the config's verifier.limit_s and memory_mb. The
limit is in seconds of CPU; by the clock a run may take twice as long.

Expected values are in no process that the program can reach. The verdict is 'timeout' if a run was
over its time, 'unparsed' if the completion holds no program, else 'correct' or 'wrong'. A problem
that a program passes by doing nothing is a ValueError.
"""

import dataclasses
import functools
import json
import re
from typing import Any

from rlvr_jax.tasks.code_compare import lists_for_tuples, same_output, same_text
from rlvr_jax.tasks.code_extract import extract_program
from rlvr_jax.tasks.code_reference import Outputs, reference_outputs
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.sandbox import codec
from rlvr_jax.tasks.sandbox.confine import LEVELS, Limits
from rlvr_jax.tasks.sandbox.host import Outcome, Sandbox
from rlvr_jax.tasks.settings import SETTINGS

_WALL = 2.0  # seconds by the clock for each of CPU: what others on the machine may take
_LONGEST_S = 60.0
_REFERENCE_FACTOR = 4  # times its CPU time, beyond the limit, a program may take
_FUTURE = re.compile(r'^from __future__ import .*$', re.MULTILINE)

_OPAQUE = b'{"h":['  # as codec writes an object that is no data; in a text its quotes are escaped
_NOTHING = codec.dumps({'ok': None})[:-1]
# Bytes of output that are read of a program: so many, and so many for each expected one, but for
# what is large. What reading takes is the verifier's time, which no limit of the program ends.
_ROOM, _ROOM_FACTOR, _ROOM_MOST = 1 << 20, 32, 32 << 20

Answer = dict[str, Any]


def verify_code(problem: Problem, completion: str) -> Verdict:
  """Runs the program of a completion against the problem's tests."""
  answer = problem.answer
  judge = _KINDS.get(str(answer.get('kind'))) if isinstance(answer, dict) else None
  if judge is None:
    raise ValueError(
      f'problem {problem.task}/{problem.id}: answer must be an object with kind = '
      f'{", ".join(_KINDS)}, as rlvr_jax.tasks.code_rows makes it'
    )
  if missing := _missing(answer):
    name = f'{problem.task}/{problem.id}'
    raise ValueError(f'problem {name}: its answer holds no {missing}: every program would pass')
  text = str(problem.meta.get('prefix', '')) + completion
  program = extract_program(text, answer.get('entry_point', ''), answer.get('prompt', ''))
  box = sandbox()
  if not program:
    return Verdict('unparsed', 0.0, '', 'the completion holds no program', box.level)
  verdict, reason = judge(answer, _with_prelude(answer.get('prelude', ''), program))
  return Verdict(verdict, float(verdict == 'correct'), program, reason, box.level)


def _missing(answer: Answer) -> str:
  """What an answer lacks that could tell a program from one that does nothing; '' if nothing."""
  if answer['kind'] == 'asserts':
    return '' if str(answer.get('test', '')).strip() else 'test'
  if not answer.get('inputs'):
    return 'inputs'
  if answer['kind'] == 'stdin' and not any(text.strip() for text in answer['outputs']):
    return 'output that is not empty'
  return ''


def prepare() -> None:
  """Starts the sandbox. Raises ValueError if it does not reach the level that is asked for."""
  sandbox()


@functools.cache
def sandbox() -> Sandbox:
  """This process's sandbox."""
  box = Sandbox()
  if LEVELS.index(box.level) < LEVELS.index(SETTINGS.sandbox) and not SETTINGS.allow_unsafe:
    level, why = box.level, box.why
    box.close()
    raise ValueError(
      f'untrusted programs would run under {level!r} only ({why}), below '
      f'verifier.sandbox={SETTINGS.sandbox!r}; use a kernel with Landlock (5.13 or later), lower '
      'verifier.sandbox, or set verifier.allow_unsafe=True and answer for what they do'
    )
  return box


def _limits(answer: Answer, more_s: float = 0.0) -> Limits:
  seconds = min(_LONGEST_S, float(answer.get('limit_s') or SETTINGS.limit_s) + more_s)
  memory = int(answer.get('memory_mb') or SETTINGS.memory_mb)
  return Limits(wall_s=_WALL * seconds, cpu_s=seconds, memory_mb=memory)


def _room(expected: int) -> int:
  """How many bytes a program may write where so many are expected."""
  return max(2 * expected, min(_ROOM_MOST, _ROOM + _ROOM_FACTOR * expected))


def _with_prelude(prelude: str, program: str) -> str:
  """The prelude before the program, but not before what must come first in a file."""
  if not prelude:
    return program
  first = _FUTURE.findall(program)
  return '\n'.join([*first, prelude, _FUTURE.sub('', program)])


def _wanted(answer: Answer) -> Outputs:
  if 'expected' in answer:
    return Outputs([codec.dumps({'ok': value})[:-1] for value in answer['expected']], 0.0)
  return reference_outputs(
    sandbox(), answer['reference'], answer['entry_point'], answer['inputs'], SETTINGS.memory_mb
  )


def _judge_calls(answer: Answer, program: str) -> tuple[Any, str]:
  wanted = _wanted(answer)
  if len(wanted.lines) != len(answer['inputs']):
    raise ValueError(f'{len(answer["inputs"])} inputs, but {len(wanted.lines)} expected outputs')
  if all(line == _NOTHING for line in wanted.lines):
    raise ValueError(f'{answer["entry_point"]!r} is to return None only: every program would pass')
  limits = _limits(answer, _REFERENCE_FACTOR * wanted.cpu_s)
  limits = dataclasses.replace(limits, output_bytes=_room(sum(map(len, wanted.lines))))
  check = _Calls(answer, wanted.lines)
  outcome = sandbox().run_calls(
    program,
    answer['entry_point'],
    answer['inputs'],
    limits,
    check.take,
    answer.get('method_of', ''),
  )
  if check.right == len(wanted.lines):
    return 'correct', f'{check.right} calls'
  if check.why:
    return 'wrong', check.why
  where = f'at call {check.right + 1} of {len(wanted.lines)}'
  return _ended(outcome, limits, f'the program ended {where}', where)


@dataclasses.dataclass
class _Calls:
  """Compares outputs as they come. right: how many so far; why: what was wrong first.

  wanted: lines as an honest child writes them. One that is the same to the byte need not be read.
  """

  answer: Answer
  wanted: list[bytes]
  right: int = 0
  why: str = ''
  loaded: bool = False

  def take(self, line: bytes) -> bool:
    """True if the next line is wanted."""
    same = self.loaded and line == self.wanted[self.right]
    if same and _OPAQUE not in line:  # all objects of one type read the same
      self.right += 1
    else:
      self.why = self._look(line) or ''
    return not self.why and self.right < len(self.wanted)

  def _look(self, line: bytes) -> str | None:
    room = _room(len(self.wanted[self.right]))
    if len(line) > room:
      return f'an output of more than {room} bytes'
    try:
      said = codec.loads(line)
    except codec.CodecError as error:
      return f'its output is {error}'
    if not isinstance(said, dict):
      return 'its output is no answer'
    if 'failed' in said:
      return str(said['failed'])[:300]
    if not self.loaded:
      self.loaded = 'loaded' in said
      return None if self.loaded else 'its output is out of order'
    call = f'call {self.right + 1}, {_shown(self.answer["inputs"][self.right])}'
    if 'raised' in said:
      return f'{call}: {str(said["raised"])[:300]}'
    wanted = codec.loads(self.wanted[self.right])['ok']
    try:
      if not self._same(codec.decode(said.get('ok')), codec.decode(wanted)):
        return f'{call}: {_shown(said.get("ok"))} in place of {_shown(wanted)}'
    except codec.CodecError as error:
      return f'{call}: its output is {error}'
    self.right += 1
    return None

  def _same(self, value: Any, wanted: Any) -> bool:
    if self.answer.get('tuples_as_lists'):
      value, wanted = lists_for_tuples(value), lists_for_tuples(wanted)
    oracle, atol = self.answer.get('oracle', ''), self.answer.get('atol', 0.0)
    arguments = codec.decode(self.answer['inputs'][self.right]) if oracle else ()
    return same_output(value, wanted, atol, oracle, arguments)


def _judge_asserts(answer: Answer, program: str) -> tuple[Any, str]:
  limits = _limits(answer)
  served, judged, result = sandbox().run_test(
    program, answer['setup'], answer['names'], answer['test'], limits
  )
  if result.get('passed') is True:
    return 'correct', 'the test passed'
  if result.get('broken'):
    raise ValueError(result['failed'])
  for outcome in (served, judged):
    if outcome.ended_by in ('wall', 'cpu', 'threads'):
      return _ended(outcome, limits, '', 'in the test')
  return 'wrong', str(result.get('failed') or judged.why(limits) or 'the test did not end')


def _judge_stdin(answer: Answer, program: str) -> tuple[Any, str]:
  pairs = list(zip(answer['inputs'], answer['outputs'], strict=True))
  for i, (text, wanted) in enumerate(pairs, 1):
    limits = dataclasses.replace(_limits(answer), output_bytes=_room(len(wanted)))
    outcome = sandbox().run_main(program, text, limits)
    where = f'test {i} of {len(pairs)}'
    if outcome.ended_by or outcome.code:
      last = outcome.stderr.decode(errors='replace').strip()[-200:]
      return _ended(outcome, limits, ': '.join(filter(None, [where, last])), where)
    if not same_text(outcome.stdout, wanted.encode('utf-8', 'surrogatepass')):
      got = outcome.stdout[:80].decode(errors='replace')
      return 'wrong', f'{where}: {got!r} in place of {wanted[:80]!r}'
  return 'correct', f'{len(pairs)} tests'


_KINDS = {'calls': _judge_calls, 'asserts': _judge_asserts, 'stdin': _judge_stdin}


def _ended(outcome: Outcome, limits: Limits, what: str, where: str) -> tuple[Any, str]:
  """The verdict of a run that ended before it was through."""
  if outcome.timed_out:
    return 'timeout', f'{where}: {outcome.why(limits)}'
  return 'wrong', '; '.join(filter(None, [what, outcome.why(limits)]))


def _shown(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 80 else text[:80] + '...'
