"""What runs in a child: the program itself, its calls, and the answers to a test's requests.

Everything below shares its memory with the program, so nothing of it is trusted: what is written
here is what the program says its outputs are, and the parent compares them.
"""

import _sitebuiltins
import ast
import atexit
import builtins
import gc
import itertools
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from rlvr_jax.tasks.sandbox import codec

_CUTS = 50  # beginnings of lines that are tried as a program's end
_MAX_ITEMS = 1_000_000  # taken from an iterator


def run_main(source: str) -> int:
  """Runs a program as python would run its file: __main__, real stdin and stdout, an exit code."""
  sys.stdin = _text(0, 'r')
  sys.stdout = _text(1, 'w')
  sys.stderr = _text(2, 'w')
  sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
  out = sys.stdout
  code = 0
  try:
    _execute(source, '__main__')
  except SystemExit as error:
    code = _exit_code(error)
  except BaseException as error:
    print(describe(error), file=sys.stderr)
    code = 1
  try:
    threading._shutdown()  # type: ignore[attr-defined]  # threads that are not daemons finish
    atexit._run_exitfuncs()
    _flush(sys.stdout)
    if threading.active_count() == 1:  # a daemon would meet a world without its globals
      sys.modules.pop('__main__', None)
      gc.collect()  # writers that the program never closed write what they hold
    _flush(out)
  except BaseException as error:
    print(describe(error), file=sys.stderr)
    code = code or 1
  _flush(sys.stderr)
  return code


def _flush(stream: Any) -> None:
  """Flushes a standard stream as the interpreter does at its end: one that is closed is none."""
  if stream is not None and not getattr(stream, 'closed', False):
    stream.flush()


def _text(fd: int, mode: str) -> Any:
  errors = 'backslashreplace' if fd == 2 else 'strict'
  return open(fd, mode, encoding='utf-8', errors=errors, closefd=False)


def _exit_code(error: SystemExit) -> int:
  if error.code is None:
    return 0
  if isinstance(error.code, int):
    return error.code & 0xFF
  print(error.code, file=sys.stderr)
  return 1


def run_calls(source: str, entry: str, method_of: str, inputs: list[Any], out: int) -> None:
  """Calls a function of the program on each input and writes what it returns, a line each.

  The first line says {'loaded': true} or {'failed': why}; then {'ok': value} or {'raised': what}.
  """
  try:
    space = _define(source, [method_of or entry])
    function = find(space, entry, method_of)
  except BaseException as error:
    os.write(out, codec.dumps({'failed': describe(error)}))
    return
  write_all(out, codec.dumps({'loaded': True}))
  nodes = {name: space.get(name) for name in ('ListNode', 'TreeNode')}
  for arguments in inputs:
    values = [codec.decode(value, nodes=nodes) for value in arguments]
    write_all(out, codec.dumps(_attempt_call(function, values)))


def find(space: dict[str, Any], entry: str, method_of: str) -> Callable[..., Any]:
  """The function called `entry`: a method of an instance of class method_of if there is one."""
  holder = space.get(method_of) if method_of else None
  if isinstance(holder, type) and hasattr(holder, entry):
    return getattr(holder(), entry)
  if entry not in space:
    raise NameError(f'the program defines no {entry!r}')
  return space[entry]


def serve_requests(source: str, names: list[str], receive: int, send: int) -> None:
  """Answers a test's requests, one line each (judge.py), until it closes its end.

  names: what the test asks the program for.
  """
  requests = os.fdopen(receive, 'rb')
  objects: list[Any] = []
  try:
    space = _define(source, names)
  except BaseException as error:
    write_all(send, codec.dumps({'failed': describe(error)}))
    return
  write_all(send, codec.dumps({'loaded': True}))
  nodes = {name: space.get(name) for name in ('ListNode', 'TreeNode')}

  def keep(value: Any) -> list[Any]:
    objects.append(value)
    return [len(objects) - 1, type(value).__name__]

  def restore(number: int, kind: str) -> Any:
    return objects[number]

  def answer(request: dict[str, Any]) -> Any:
    do, target = request['do'], request.get('of', -1)
    if do == 'get':
      if request['name'] not in space:
        raise NameError(f'the program defines no {request["name"]!r}')
      return space[request['name']]
    if do == 'call':
      arguments = codec.decode(request['args'], restore, nodes)
      named = {k: codec.decode(v, restore, nodes) for k, v in request['named'].items()}
      return objects[target](*arguments, **named)
    if do == 'attribute':
      return getattr(objects[target], request['name'])
    if do == 'set':
      value = codec.decode(request['value'], restore, nodes)
      return setattr(objects[target], request['name'], value)
    if do == 'items':
      return list(itertools.islice(iter(objects[target]), _MAX_ITEMS))
    return {'len': len, 'bool': bool, 'str': str}[do](objects[target])

  for line in requests:
    request = codec.loads(line)
    reply = _attempt(lambda request=request: answer(request), keep)
    write_all(send, codec.dumps(reply))


def _attempt(call: Callable[[], Any], keep: codec.Keep) -> dict[str, Any]:
  try:
    return {'ok': codec.encode(call(), keep)}
  except BaseException as error:
    return {'raised': describe(error), 'type': _builtin(error), 'text': _text_of(error)}


def _builtin(error: BaseException) -> str:
  """The builtin type that an exception is of."""
  return next((one.__name__ for one in type(error).__mro__ if one.__module__ == 'builtins'), '')


def _attempt_call(function: Callable[..., Any], values: list[Any]) -> dict[str, Any]:
  try:
    value = function(*values)
    if codec.is_large(value):
      return {'ok': codec.digest(value)}
    return {'ok': codec.encode(value, _type_only)}
  except BaseException as error:
    return {'raised': describe(error)}


def _type_only(value: Any) -> list[Any]:
  return [0, type(value).__name__]


def _define(source: str, wanted: list[str]) -> dict[str, Any]:
  """The globals of a program that is to define the `wanted` names.

  Models write examples and tests of their own below a function, and their last line is cut where
  the tokens ended. So text that does not parse is left out from its last statements on, and a
  statement that raises ends the program; unless one of `wanted` is not defined by then.
  """
  space = _module('program')
  statements = _statements(source)
  futures: list[ast.stmt] = [
    s for s in statements if isinstance(s, ast.ImportFrom) and s.module == '__future__'
  ]
  for statement in statements:
    code = compile(ast.Module([*futures, statement], []), '<program>', 'exec', dont_inherit=True)
    try:
      exec(code, space)
    except BaseException:
      if not all(name in space for name in wanted):
        raise
      break
  return space


def _statements(source: str) -> list[ast.stmt]:
  """The program's statements; of one that does not parse those before the error, if there are."""
  try:
    return ast.parse(source, '<program>').body
  except SyntaxError as error:
    lines = source.split('\n')
    begins = [i for i, line in enumerate(lines) if line[:1].isalpha() or line[:1] in ('_', '@')]
    for begin in reversed(begins[1:][-_CUTS:]):
      try:
        return ast.parse('\n'.join(lines[:begin]), '<program>').body
      except SyntaxError:
        continue
    raise error


def _module(name: str) -> dict[str, Any]:
  module = types.ModuleType(name)
  module.__dict__['__builtins__'] = __builtins__
  sys.modules[name] = module
  sys.argv = ['program.py']
  for word in ('exit', 'quit'):  # which `site` defines, and site is not run here
    setattr(builtins, word, _sitebuiltins.Quitter(word, 'Ctrl-D'))
  return module.__dict__


def _execute(source: str, name: str) -> None:
  """Runs source as a module of that name."""
  space = _module(name)
  space['__file__'] = 'program.py'
  exec(compile(source, '<program>', 'exec', dont_inherit=True), space)


def describe(error: BaseException) -> str:
  """The exception's type, text and the program's line, at most 300 characters."""
  line, trace = '', error.__traceback__
  while trace is not None:
    if trace.tb_frame.f_code.co_filename == '<program>':
      line = f' (line {trace.tb_lineno})'
    trace = trace.tb_next
  return f'{type(error).__name__}: {_text_of(error)[:200]}{line}'


def _text_of(error: BaseException) -> str:
  try:
    return str(error)[:1000]
  except BaseException:  # its __str__ is the program's
    return '?'


def write_all(fd: int, data: bytes) -> None:
  """Writes all of data to the pipe."""
  view = memoryview(data)
  while view:
    view = view[os.write(fd, view) :]
