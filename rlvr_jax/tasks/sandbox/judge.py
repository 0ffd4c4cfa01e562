"""Tests as trusted code in a child of their own: the program's functions are called across a pipe.

A test (`assert f(1) == 2`, `def check(candidate): ...`) runs as it stands, in a process that the
program can neither read nor signal. Names of the program stand in it for Remote objects, whose
calls are requests; what comes back is data, or an exception of a builtin type. So expected values
never enter the program's process, and whatever happens there is at most a wrong value here.
"""

import builtins
import os
import reprlib
import traceback
from typing import Any

from rlvr_jax.tasks.sandbox import codec
from rlvr_jax.tasks.sandbox.program import write_all

MAX_LINE = 16 << 20


class RemoteError(Exception):
  """The program raised, or ended, or wrote what stands for no value: why. text: the exception's."""

  def __init__(self, why: str, text: str = ''):
    Exception.__init__(self, text or why)
    self.why = why

  def __str__(self) -> str:
    return str(self.args[0])


# What a test must not meet inside of its own loops, or what takes more than a text.
_NOT_RAISED = (StopIteration, StopAsyncIteration, BaseExceptionGroup)


def _as_raised(answer: dict[str, Any]) -> RemoteError:
  """An exception of the program's: of the builtin type too that it says, so that a test may expect
  it."""
  why, text = f'it raised {str(answer["raised"])[:200]}', str(answer.get('text', ''))[:1000]
  kind = getattr(builtins, str(answer.get('type')), None)
  if not isinstance(kind, type) or not issubclass(kind, Exception):
    return RemoteError(why, text)
  if issubclass(kind, _NOT_RAISED):
    return RemoteError(why, text)
  return type(kind.__name__, (RemoteError, kind), {})(why, text)


class _Pipe:
  """Requests out, answers in."""

  def __init__(self, receive: int, send: int):
    self._answers, self._send = os.fdopen(receive, 'rb'), send
    self._last: tuple[str, Any] = ('nothing was called', None)
    self.nodes: dict[str, Any] = {}
    self.asked = False  # for more than objects that have names

  def read(self) -> dict[str, Any]:
    line = self._answers.readline(MAX_LINE)
    if not line.endswith(b'\n'):
      raise RemoteError('the program ended or wrote too much')
    try:
      answer = codec.loads(line)
    except codec.CodecError as error:
      raise RemoteError(f'the program wrote {error}') from None
    if not isinstance(answer, dict):
      raise RemoteError('the program wrote no answer')
    return answer

  def ask(self, **request: Any) -> Any:
    self.asked = True
    try:
      write_all(self._send, codec.dumps(request))
    except BrokenPipeError:
      raise RemoteError('the program ended') from None
    answer = self.read()
    if 'raised' in answer:
      raise _as_raised(answer)
    try:
      value = codec.decode(answer.get('ok'), self._restore, self.nodes)
    except codec.CodecError as error:
      raise RemoteError(f'it returned {error}') from None
    self._last = 'it returned', value
    return value

  def last(self) -> str:
    """What the last request came to, in words."""
    what, value = self._last
    return f'{what} {_short(value)}' if what == 'it returned' else what

  def _restore(self, number: int, kind: str) -> 'Remote':
    return Remote(self, number, kind)


class Remote:
  """An object of the program's process. It equals nothing here."""

  def __init__(self, pipe: _Pipe, number: int, kind: str):
    self.__dict__.update(_pipe=pipe, _number=number, _kind=kind)

  def __call__(self, *args: Any, **named: Any) -> Any:
    arguments = [codec.encode(value, _kept) for value in args]
    others = {key: codec.encode(value, _kept) for key, value in named.items()}
    return self._pipe.ask(do='call', of=self._number, args=arguments, named=others)

  def __getattr__(self, name: str) -> Any:
    if name.startswith('__'):
      raise AttributeError(name)
    return self._pipe.ask(do='attribute', of=self._number, name=name)

  def __setattr__(self, name: str, value: Any) -> None:
    self._pipe.ask(do='set', of=self._number, name=name, value=codec.encode(value, _kept))

  def __iter__(self) -> Any:
    return iter(self._data('items', list))

  def __len__(self) -> int:
    return self._data('len', int)

  def __bool__(self) -> bool:
    return self._data('bool', bool)

  def __str__(self) -> str:
    return self._data('str', str)

  def __repr__(self) -> str:
    return f'<{self._kind} object>'

  def _data(self, do: str, kind: type) -> Any:
    value = self._pipe.ask(do=do, of=self._number)
    if type(value) is not kind:
      raise RemoteError(f'{do} of a {self._kind} is no {kind.__name__}')
    return value


def _kept(value: Any) -> list[Any]:
  if isinstance(value, Remote):
    return [value._number, value._kind]
  raise codec.CodecError(f'a test hands over a {type(value).__name__}, which is not data')


def run_test(job: dict[str, Any], receive: int, send: int) -> dict[str, Any]:
  """Runs a test to its end: {'passed': True} or {'failed': why, 'broken': the test itself is}."""
  pipe = _Pipe(receive, send)
  space: dict[str, Any] = {'__name__': 'test', '__builtins__': __builtins__}
  try:
    exec(compile(job['setup'], '<setup>', 'exec', dont_inherit=True), space)
    pipe.nodes = {name: space.get(name) for name in ('ListNode', 'TreeNode')}
    test = compile(job['test'], '<test>', 'exec', dont_inherit=True)
  except BaseException as error:
    return {'failed': f'the test cannot run: {type(error).__name__}: {error}', 'broken': True}
  try:
    started = pipe.read()
    if 'loaded' not in started:
      return {'failed': str(started.get('failed'))[:300]}
    values = {here: pipe.ask(do='get', name=there) for here, there in job['names'].items()}
    space.update(values)
    pipe.asked = not all(isinstance(value, Remote) for value in values.values())
    exec(test, space)
  except BaseException as error:  # whatever a test raises, it has not passed
    what = error.why if isinstance(error, RemoteError) else pipe.last()
    return {'failed': f'{_where(error, job["test"])}: {what}'}
  if not pipe.asked:
    return {'failed': 'the test asks nothing of the program: every one would pass', 'broken': True}
  return {'passed': True}


def _where(error: BaseException, test: str) -> str:
  """The exception and the test's line that met it."""
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if frame.filename == '<test>' and frame.lineno
  ]
  text = test.splitlines()[lines[-1] - 1].strip() if lines else ''
  kind = 'the program failed' if isinstance(error, RemoteError) else type(error).__name__
  return f'{kind} at {text[:150]!r}' if text else kind


def _short(value: Any) -> str:
  try:
    return reprlib.repr(value)[:150]
  except (ValueError, RecursionError):  # an int of too many digits
    return f'a {type(value).__name__}'
