"""Broken variants of correct programs, and what programs return when plainly run.

`python -m tests.mutants` reads {'programs', 'entry_point', 'inputs'} as a Python literal and writes
what each program returns for each input, as reprs: trusted programs only, each in a forked process
for at most two seconds of CPU. It knows nothing of the sandbox or of how the verifier compares.
"""

import ast
import copy
import os
import pickle
import resource
import signal
import subprocess
import sys

SECONDS = 2.0


def mutants(source, entry_point):
  """(kind, program) of every broken variant of a program, each broken at one place."""
  tree = ast.parse(source)
  found = []
  for index, node in enumerate(ast.walk(tree)):
    for kind, change in _changes(node, entry_point):
      variant = copy.deepcopy(tree)
      change(next(n for i, n in enumerate(ast.walk(variant)) if i == index))
      text = ast.unparse(ast.fix_missing_locations(variant))
      found.append((kind, text))
  seen = {ast.unparse(tree)}
  return [pair for pair in found if not (pair[1] in seen or seen.add(pair[1]))]


def _changes(node, entry_point):
  if isinstance(node, ast.Constant) and type(node.value) is int:
    yield 'off by one', lambda n: setattr(n, 'value', n.value + 1)
    yield 'off by one', lambda n: setattr(n, 'value', n.value - 1)
  elif isinstance(node, ast.Compare):
    swapped = {
      ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
      ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    }.get(type(node.ops[0]))  # fmt: skip
    if swapped:
      yield 'off by one', lambda n: n.ops.__setitem__(0, swapped())
  elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
    other = ast.Sub if isinstance(node.op, ast.Add) else ast.Add
    yield 'off by one', lambda n: setattr(n, 'op', other())
  elif isinstance(node, ast.Return) and node.value is not None:
    for wrong in ('None', 'not {}', '[{}]', '({}, 1)[::-1]', 'str({})', '{} and 0'):
      text = wrong.format(f'({ast.unparse(node.value)})')
      yield 'wrong return', lambda n, t=text: setattr(n, 'value', ast.parse(t, mode='eval').body)
  elif isinstance(node, ast.FunctionDef) and node.name == entry_point:
    yield 'empty body', lambda n: setattr(n, 'body', [ast.Pass()])
    loop = ast.parse('while True:\n  pass').body
    yield 'infinite loop', lambda n: n.body.insert(0, loop[0])


def plain_outputs(programs, entry_point, inputs):
  """For each program its outputs on the inputs as reprs, '!' where it raised or did not end."""
  job = repr({'programs': programs, 'entry_point': entry_point, 'inputs': inputs})
  run = subprocess.run(
    [sys.executable, '-m', 'tests.mutants'], input=job.encode(), capture_output=True, check=True
  )
  return pickle.loads(run.stdout)


def differ(outputs, right):
  """Whether outputs are wrong beyond doubt: at some input not even close to the right one."""
  return any(not _near(a, b) for a, b in zip(outputs, right, strict=True))


def _near(a, b):
  if a == b:
    return True
  if '!' in (a, b):
    return False
  names = {'inf': float('inf'), 'nan': float('nan'), 'set': set}
  try:
    x, y = eval(a, names), eval(b, names)  # reprs of what trusted programs returned
  except Exception:
    return True  # objects without a value: not counted as wrong
  return _close(x, y)


def _close(x, y):
  if isinstance(x, list | tuple) and isinstance(y, list | tuple):
    return len(x) == len(y) and all(map(_close, x, y))
  if isinstance(x, int | float | complex) and isinstance(y, int | float | complex):
    return x == y or abs(x - y) <= 1e-4 * max(1.0, abs(y)) or (x != x and y != y)
  return x == y


class Late(BaseException):
  pass


def _late(*_):
  raise Late()


def _run(program, entry_point, inputs):
  """The reprs of one program's outputs, from a forked process."""
  read, write = os.pipe()
  pid = os.fork()
  if pid == 0:
    resource.setrlimit(resource.RLIMIT_CPU, (8, 8))
    signal.signal(signal.SIGPROF, _late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
      os.dup2(null, fd)
    outputs = []
    try:
      space = {'__name__': 'program'}
      exec(program, space)
      for arguments in inputs:
        try:
          outputs.append(repr(space[entry_point](*copy.deepcopy(arguments))))
        except Exception:
          outputs.append('!')
    finally:
      with os.fdopen(write, 'wb') as file:
        pickle.dump(outputs, file)
      os._exit(0)
  os.close(write)
  with os.fdopen(read, 'rb') as file:
    data = file.read()
  os.waitpid(pid, 0)
  outputs = pickle.loads(data) if data else []
  return outputs + ['!'] * (len(inputs) - len(outputs))


if __name__ == '__main__':
  names = {'inf': float('inf'), 'nan': float('nan'), 'set': set}
  job = eval(sys.stdin.buffer.read(), names)
  sys.stdout.buffer.write(
    pickle.dumps([_run(p, job['entry_point'], job['inputs']) for p in job['programs']])
  )
