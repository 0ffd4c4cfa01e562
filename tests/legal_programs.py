"""Right programs in odd but legal styles: each reads the lines 3 4 and 5 6 and writes 7 and 11."""

_SUM = 'a, b, c, d = map(int, {})\nprint(a + b, c + d)'

STDIN = {
  'input': 'for _ in range(2):\n  print(sum(map(int, input().split())))',
  'until the end': """
try:
  while True:
    print(sum(int(x) for x in input().split()))
except EOFError:
  pass
""",
  'readline as input': """
import sys
input = sys.stdin.readline
print(sum(map(int, input().split())), end=' ')
print(sum(map(int, input().rstrip().split())), end='')
assert input() == ''
""",
  'lines of stdin': 'import sys\nfor line in sys.stdin:\n  print(sum(map(int, line.split())))',
  'readlines': 'import sys\nprint(*[sum(map(int, s.split())) for s in sys.stdin.readlines()])',
  'read of the buffer': 'import sys\n' + _SUM.format('sys.stdin.buffer.read().split()'),
  'open(0)': _SUM.format('open(0).read().split()'),
  'open(0) in bytes': _SUM.format("open(0, 'rb').read().split()"),
  'os.read': 'import os\n' + _SUM.format('os.read(0, os.fstat(0).st_size).split()'),
  'mmap': 'import mmap\n' + _SUM.format('mmap.mmap(0, 0, access=mmap.ACCESS_READ)[:].split()'),
  'numpy': (
    'import sys, numpy as np\na = np.fromstring(sys.stdin.read(), dtype=np.int64, sep=" ")\n'
    'print(*a.reshape(2, 2).sum(axis=1))'
  ),
  'fileinput': 'import fileinput\nfor s in fileinput.input():\n  print(sum(map(int, s.split())))',
  'fast input and output': """
import os, sys
from io import BytesIO, IOBase
class FastIO(IOBase):
  newlines = 0
  def __init__(self, file):
    self._fd = file.fileno()
    self.buffer = BytesIO()
    self.writable = 'x' in file.mode or 'r' not in file.mode
    self.write = self.buffer.write if self.writable else None
  def read(self):
    while True:
      b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
      if not b:
        break
      ptr = self.buffer.tell()
      self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
    self.newlines = 0
    return self.buffer.read()
  def readline(self):
    while self.newlines == 0:
      b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
      self.newlines = b.count(b'\\n') + (not b)
      ptr = self.buffer.tell()
      self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
    self.newlines -= 1
    return self.buffer.readline()
  def flush(self):
    if self.writable:
      os.write(self._fd, self.buffer.getvalue())
      self.buffer.truncate(0), self.buffer.seek(0)
class IOWrapper(IOBase):
  def __init__(self, file):
    self.buffer = FastIO(file)
    self.flush = self.buffer.flush
    self.writable = self.buffer.writable
    self.write = lambda s: self.buffer.write(s.encode('ascii'))
    self.read = lambda: self.buffer.read().decode('ascii')
    self.readline = lambda: self.buffer.readline().decode('ascii')
sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)
input = lambda: sys.stdin.readline().rstrip('\\r\\n')
for _ in range(2):
  sys.stdout.write(str(sum(map(int, input().split()))) + '\\n')
""",
  'from sys import stdout': (
    'from sys import stdin, stdout\nfor line in stdin:\n  stdout.write(f"{eval(line.strip().replace'
    '(chr(32), chr(43)))} ")'
  ),
  'bytes to stdout': (
    'import sys\nsys.stdout.flush()\nfor line in sys.stdin.buffer:\n'
    '  sys.stdout.buffer.write(b"%d\\n" % sum(map(int, line.split())))'
  ),
  'printed into a text': """
import io, sys
sys.stdout = io.StringIO()
for _ in range(2):
  print(sum(map(int, input().split())))
sys.__stdout__.write(sys.stdout.getvalue())
""",
  'redirected': """
import contextlib, io
out = io.StringIO()
with contextlib.redirect_stdout(out):
  for _ in range(2):
    print(sum(map(int, input().split())))
print(out.getvalue())
""",
  'stdin replaced': """
import io, sys
sys.stdin = io.StringIO(sys.stdin.read())
for _ in range(2):
  print(sum(map(int, input().split())))
""",
  'reconfigured': (
    "import sys\nsys.stdout.reconfigure(line_buffering=True, newline='\\r\\n')\n"
    "sys.stdin.reconfigure(encoding='ascii')\nfor s in sys.stdin: print(sum(map(int, s.split())))"
  ),
  'a writer of its own': """
import io, os, sys
out = io.TextIOWrapper(os.fdopen(1, 'wb'), write_through=False)
for s in sys.stdin:
  out.write(str(sum(map(int, s.split()))) + '\\n')
""",
  'print to a file': (
    "import sys\nfor s in sys.stdin:\n  "
    "print(sum(map(int, s.split())), file=open(1, 'w', closefd=0))"
  ),
  'sys.exit(0)': 'import sys\nfor s in sys.stdin: print(sum(map(int, s.split())))\nsys.exit(0)',
  'sys.exit()': 'import sys\nfor s in sys.stdin: print(sum(map(int, s.split())))\nsys.exit()',
  'exit in a function': """
def main():
  for _ in range(2):
    print(sum(map(int, input().split())))
  exit(0)
if __name__ == '__main__':
  main()
""",
  'raise SystemExit': (
    'for _ in range(2): print(sum(map(int, input().split())))\nraise SystemExit(False)'
  ),
  'os._exit': """
import os, sys
for s in sys.stdin:
  print(sum(map(int, s.split())))
sys.stdout.flush()
os._exit(0)
""",
  'atexit': """
import atexit
out = []
atexit.register(lambda: print('\\n'.join(map(str, out))))
for _ in range(2):
  out.append(sum(map(int, input().split())))
""",
  'a thread with a stack': """
import sys, threading
sys.setrecursionlimit(1 << 25)
threading.stack_size(1 << 27)
def deep(n):
  return 0 if n == 0 else 1 + deep(n - 1)
def main():
  assert deep(50000) == 50000
  for _ in range(2):
    print(sum(map(int, input().split())))
t = threading.Thread(target=main)
t.start()
t.join()
""",
  'deep recursion': """
import sys
sys.setrecursionlimit(10 ** 6)
def deep(n):
  return 0 if n == 0 else 1 + deep(n - 1)
assert deep(100000) == 100000
for s in sys.stdin: print(sum(map(int, s.split())))
""",
  'a cached recursion': """
from functools import lru_cache
import sys
sys.setrecursionlimit(20000)
@lru_cache(maxsize=None)
def add(a, b):
  return b if a == 0 else add(a - 1, b + 1)
assert add(5000, 0) == 5000
for _ in range(2): print(add(*map(int, input().split())))
""",
  'executor': """
from concurrent.futures import ThreadPoolExecutor
import sys
with ThreadPoolExecutor(4) as pool:
  print(*pool.map(lambda s: sum(map(int, s.split())), sys.stdin))
""",
  'asyncio': """
import asyncio, sys
async def main():
  lines = await asyncio.to_thread(sys.stdin.readlines)
  print(*await asyncio.gather(*(one(s) for s in lines)))
async def one(s):
  await asyncio.sleep(0)
  return sum(map(int, s.split()))
asyncio.run(main())
""",
  'a daemon that waits': """
import threading, queue, sys
todo = queue.Queue()
def work():
  while True:
    print(sum(map(int, todo.get().split())), flush=True)
    todo.task_done()
threading.Thread(target=work, daemon=True).start()
for s in sys.stdin: todo.put(s)
todo.join()
""",
  'an alarm': """
import signal, sys
signal.signal(signal.SIGALRM, lambda *_: sys.exit(1))
signal.alarm(5)
for s in sys.stdin: print(sum(map(int, s.split())))
""",
  'an error in a thread': """
import sys, threading
t = threading.Thread(target=lambda: 1 / 0)
t.start(); t.join()
for s in sys.stdin: print(sum(map(int, s.split())))
""",
  'words on stderr': (
    'import sys, warnings, logging\nwarnings.warn("odd")\nlogging.warning("x" * 200000)\n'
    'for s in sys.stdin: print(sum(map(int, s.split())))'
  ),
  'a name for main': """
import sys, __main__, pickle, dataclasses, enum, typing
@dataclasses.dataclass(order=True, frozen=True)
class Pair:
  a: int
  b: 'int'
Named = typing.NamedTuple('Named', [('x', Pair)])
class Kind(enum.IntEnum):
  ONE = enum.auto()
assert typing.get_type_hints(Pair) == {'a': int, 'b': int}
assert __main__.Pair is Pair and pickle.loads(pickle.dumps(Named(Pair(1, 2)))).x == Pair(1, 2)
for s in sys.stdin:
  p = Pair(*map(int, s.split()))
  print(p.a + p.b)
""",
  'future': (
    '"""Adds."""\nfrom __future__ import annotations\nimport sys\ndef main(x: Unknown) -> None:\n'
    '  for s in x: print(sum(map(int, s.split())))\nmain(sys.stdin)'
  ),
  'exec': "exec('''\nfor _ in range(2):\n  print(sum(map(int, input().split())))\n''')",
  'globals': """
import sys
globals()['total'] = lambda s: sum(map(int, s.split()))
for s in sys.stdin: print(total(s))
del sys, total
""",
  'blanks at the ends': (
    'for _ in range(2): print("", sum(map(int, input().split())), "  \\t\\r\\n\\n")'
  ),
  'returns of carriages': (
    'import sys\r\nfor s in sys.stdin:\r\n  print(sum(map(int, s.split())))\r\n'
  ),
  'tabs': 'import sys\nfor s in sys.stdin:\n\tif s:\n\t\tprint(sum(map(int, s.split())))',
  'walrus and match': """
while (line := next(iter([*__import__('sys').stdin.readline().split()] and [1]), None)):
  break
match [7, 11]:
  case [a, b]:
    print(a, b)
""",
  'objects that go last': """
import sys
class Out:
  def __init__(self): self.said = []
  def __del__(self): sys.stdout.write(' '.join(self.said))
out = Out()
for s in sys.stdin: out.said.append(str(sum(map(int, s.split()))))
""",
  'a large heap': """
import sys
kept = [[i] for i in range(300000)]
for i in range(299999): kept[i].append(kept[i + 1])
for s in sys.stdin: print(sum(map(int, s.split())))
""",
  'float formats': "for _ in range(2): print('%.9f' % sum(map(float, input().split())))",
  'decimal': 'from decimal import *\ngetcontext().prec = 50\nfor _ in range(2):\n'
  '  print(sum(map(Decimal, input().split())))',
  'sortedcontainers': (
    'from sortedcontainers import SortedList\nfor _ in range(2):\n'
    '  print(sum(SortedList(map(int, input().split()))))'
  ),
  'the system': """
import os, platform, sys, time, random, locale, getpass, tempfile, inspect, gc, resource, uuid
gc.disable()
random.seed(time.time())
assert os.path.exists('/usr') and os.getcwd() and platform.system() == 'Linux'
assert len(sys.argv) == 1 and os.environ.get('HOME') is not None and os.cpu_count()
for s in sys.stdin: print(sum(map(int, s.split())))
""",
  'a local file if there is one': """
import os, sys
if os.path.exists('input.txt'):
  sys.stdin = open('input.txt')
try:
  sys.stdin = open('/nowhere/input.txt')
except IOError:
  pass
if 'LOCAL' in os.environ or '--debug' in sys.argv: raise KeyError
for s in sys.stdin: print(sum(map(int, s.split())))
""",
  'traceback': """
import sys, traceback
try:
  1 / 0
except ZeroDivisionError:
  traceback.print_exc()
  sys.stderr.flush()
for s in sys.stdin: print(sum(map(int, s.split())))
""",
  'hook of exceptions': """
import sys
for s in sys.stdin: print(sum(map(int, s.split())))
def hook(kind, value, trace):
  pass
sys.excepthook = hook
""",
  'threads that outlive main': """
import sys, threading, time
def late():
  time.sleep(0.05)
  for s in sys.stdin: print(sum(map(int, s.split())))
threading.Thread(target=late).start()
""",
  'a context that is left open': """
import contextlib, sys
stack = contextlib.ExitStack()
stack.callback(print)
out = stack.enter_context(open(1, 'w', buffering=1 << 16, closefd=False))
for s in sys.stdin: out.write(f'{sum(map(int, s.split()))}\\n')
""",
}  # fmt: skip
