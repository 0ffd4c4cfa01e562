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
'limit_s' and 'memory_mb' of one run in place of the config's verifier.limit_s and memory_mb.

Expected values are in no process that the program can reach. The verdict is 'timeout' if a run was
over its time, 'unparsed' if the completion holds no program, else 'correct' or 'wrong'.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from rlvr_jax.tasks.code_compare import lists_for_tuples, same_output, same_text
from rlvr_jax.tasks.code_extract import extract_program
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.sandbox import codec
from rlvr_jax.tasks.sandbox.confine import LEVELS, Limits
from rlvr_jax.tasks.sandbox.host import Outcome, Sandbox
from rlvr_jax.tasks.settings import SETTINGS

_REFERENCE_S = 60.0
_REFERENCE_FACTOR = 4  # times its CPU time, beyond the limit, a program may take
_REFERENCE_BYTES = 1 << 30
_FUTURE = re.compile(r'^from __future__ import .*$', re.MULTILINE)

Answer = dict[str, Any]


def verify_code(problem: Problem, completion: str) -> Verdict:
  """Runs the program of a completion against the problem's tests."""
  answer = problem.answer
  judge = _KINDS.get(answer.get('kind')) if isinstance(answer, dict) else None
  if judge is None:
    raise ValueError(
      f'problem {problem.task}/{problem.id}: answer must be an object with kind = '
      f'{", ".join(_KINDS)}, as rlvr_jax.tasks.code_rows makes it'
    )
  program = extract_program(completion, answer.get('entry_point', ''), answer.get('prompt', ''))
  box = sandbox()
  if not program:
    return Verdict('unparsed', 0.0, '', 'the completion holds no program', box.level)
  verdict, reason = judge(answer, _with_prelude(answer.get('prelude', ''), program))
  return Verdict(verdict, float(verdict == 'correct'), program, reason, box.level)


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
  seconds = min(_REFERENCE_S, float(answer.get('limit_s') or SETTINGS.limit_s) + more_s)
  memory = int(answer.get('memory_mb') or SETTINGS.memory_mb)
  return Limits(wall_s=seconds, cpu_s=seconds, memory_mb=memory)


def _with_prelude(prelude: str, program: str) -> str:
  """The prelude before the program, but not before what must come first in a file."""
  if not prelude:
    return program
  first = _FUTURE.findall(program)
  return '\n'.join([*first, prelude, _FUTURE.sub('', program)])


def _judge_calls(answer: Answer, program: str) -> tuple[Any, str]:
  if 'expected' in answer:
    wanted, limits = [codec.decode(value) for value in answer['expected']], _limits(answer)
  else:
    wanted, seconds = reference_outputs(answer)
    limits = _limits(answer, _REFERENCE_FACTOR * seconds)
  if len(wanted) != len(answer['inputs']):
    raise ValueError(f'{len(answer["inputs"])} inputs, but {len(wanted)} expected outputs')
  check = _Calls(answer, wanted)
  outcome = sandbox().run_calls(
    program,
    answer['entry_point'],
    answer['inputs'],
    limits,
    check.take,
    answer.get('method_of', ''),
  )
  if check.right == len(wanted):
    return 'correct', f'{len(wanted)} calls'
  if check.why:
    return 'wrong', check.why
  where = f'at call {check.right + 1} of {len(wanted)}'
  return _ended(outcome, limits, f'the program ended {where}', where)


@dataclasses.dataclass
class _Calls:
  """Compares outputs as they come. right: how many so far; why: what was wrong first."""

  answer: Answer
  wanted: list[Any]
  right: int = 0
  why: str = ''
  loaded: bool = False

  def take(self, said: Any) -> bool:
    """True if the next output is wanted."""
    self.why = self._look(said) or ''
    return not self.why and self.right < len(self.wanted)

  def _look(self, said: Any) -> str | None:
    if not isinstance(said, dict):
      return 'its output is no answer'
    if 'failed' in said:
      return str(said['failed'])[:300]
    if not self.loaded:
      self.loaded = 'loaded' in said
      return None if self.loaded else 'its output is out of order'
    if 'raised' in said:
      return self._at(str(said['raised'])[:300])
    try:
      if not self._same(codec.decode(said.get('ok'))):
        return self._at(f'{_shown(said.get("ok"))} in place of {_brief(self.wanted[self.right])}')
    except codec.CodecError as error:
      return self._at(f'its output is {error}')
    self.right += 1
    return None

  def _at(self, what: str) -> str:
    return f'call {self.right + 1}, {_shown(self.answer["inputs"][self.right])}: {what}'

  def _same(self, value: Any) -> bool:
    wanted = self.wanted[self.right]
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
  limits = _limits(answer)
  pairs = list(zip(answer['inputs'], answer['outputs'], strict=True))
  for i, (text, wanted) in enumerate(pairs, 1):
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


def _brief(value: Any) -> str:
  try:
    return _shown(codec.encode(value, lambda kept: [0, repr(kept)]))
  except codec.CodecError:
    return f'a {type(value).__name__}'


def cache_directory() -> Path:
  """Where computed outputs are kept: $RLVR_CACHE, else ~/.cache/rlvr_jax."""
  return Path(os.environ.get('RLVR_CACHE') or Path.home() / '.cache' / 'rlvr_jax')


def reference_outputs(answer: Answer) -> tuple[list[Any], float]:
  """The reference's outputs on all inputs, and the seconds of CPU that it took.

  Raises ValueError if it fails on one. Kept by content, for this version of Python.
  """
  job = [answer['reference'], answer['entry_point'], answer['inputs'], sys.version]
  return _reference_outputs(json.dumps(job))


@functools.lru_cache(maxsize=64)
def _reference_outputs(job: str) -> tuple[list[Any], float]:
  digest = hashlib.sha256(job.encode()).hexdigest()[:32]
  path = cache_directory() / 'outputs' / f'{digest}.json'
  try:
    kept = json.loads(path.read_text())
  except FileNotFoundError:
    kept = _run_reference(*json.loads(job)[:3])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    partial.write_text(json.dumps(kept))
    partial.replace(path)
  return [codec.decode(value) for value in kept['outputs']], kept['cpu_s']


def _run_reference(reference: str, entry_point: str, inputs: list[Any]) -> dict[str, Any]:
  said: list[Any] = []

  def take(value: Any) -> bool:
    said.append(value)
    return 'loaded' in value or 'ok' in value

  limits = Limits(_REFERENCE_S, _REFERENCE_S, SETTINGS.memory_mb, _REFERENCE_BYTES)
  outcome = sandbox().run_calls(reference, entry_point, inputs, limits, take)
  outputs = [value['ok'] for value in said if 'ok' in value]
  if len(outputs) != len(inputs):
    last = said[-1] if said else ''
    raise ValueError(
      f'the reference of {entry_point!r} fails at input {len(outputs) + 1} of {len(inputs)}: '
      f'{outcome.why(limits)} {str(last)[:200]}'
    )
  return {'outputs': outputs, 'cpu_s': outcome.cpu_s}
