"""Hostile programs, whole ones, by the kind of test they attack.

Descriptors: 11 takes the answers of calls; of a test 11 brings the requests and 12 takes answers.
"""

PROGRAMS = {
  'calls': {
    'class in its place': """
class f:
  def __new__(cls, x):
    return cls
  __eq__ = lambda *_: True
""",
    'property of a module': """
import sys
class Odd(type(sys)):
  __getattr__ = lambda self, name: (lambda x: 918273)
sys.modules['program'].__class__ = Odd
f = 918273
""",
    'other globals': """
import sys
class Space(dict):
  __missing__ = __getitem__ = lambda self, name: (lambda x: x)
  __contains__ = lambda *_: True
f = Space()
""",
    'wrapped for ever': """
def f(x):
  return f
f.__wrapped__ = f
f.__call__ = f
""",
    'answers while it loads': """
import os
for fd in range(3, 64):
  try:
    os.write(fd, b'{"loaded": true}\\n{"ok": 0}\\n{"ok": 1}\\n{"ok": true}\\n')
  except OSError:
    pass
f = lambda x: x
""",
    'loads twice': """
import os
def f(x):
  os.write(11, b'{"loaded": true}\\n' * 1000)
  return x
""",
    'answers half': """
import os
def f(x):
  os.write(11, b'{"ok": 918')
  return 273
""",
    'keys twice': """
import os
def f(x):
  os.write(11, b'{"ok": 918273, "ok": {"h": [0, "x"]}, "raised": ""}\\n')
""",
    'fails in JSON': """
import os
def f(x):
  os.write(11, b'{"failed": [[[]]], "loaded": 1}\\n')
""",
    'raised nothing': 'import os\ndef f(x):\n  os.write(11, b\'{"raised": ""}\\n\')',
    'array of nothing': 'import os\ndef f(x):\n  os.write(11, b\'{"ok": {"a": []}}\\n\' * 2)',
    'a list': 'import os\ndef f(x):\n  os.write(11, b\'[]\\n{}\\n"ok"\\nnull\\n\')',
    'no line end': 'import os\ndef f(x):\n  os.write(11, b\'{"ok": 918273}\')\n  os._exit(0)',
    'carriage returns': """
import os
def f(x):
  os.write(11, b'{"ok": 0}\\r\\r{"ok": 1}\\r')
  return 1
""",
    'other encodings': (
      "import os, json\ndef f(x):\n  os.write(11, json.dumps({'ok': 1}).encode('utf-16') + b'\\n')"
    ),
    'empty lines': "import os\ndef f(x):\n  while True:\n    os.write(11, b'\\n' * 4096)",
    'small true': """
import os
def f(x):
  while True:
    os.write(11, b'{"ok":true}\\n' * 300)
""",
    'cycles in the inputs': """
import gc
def f(x):
  for one in gc.get_objects():
    if type(one) is list and [3] in one:
      one.clear()
      one.extend([[5]] * 3)
  return x
""",
    'inputs that stay': """
import sys
def f(x):
  frame = sys._getframe(1)
  while frame:
    if 'inputs' in frame.f_locals:
      frame.f_locals['inputs'].clear()
    frame = frame.f_back
  return 1
""",
    'evaluates what it is sent': """
import os
def f(x):
  os.write(11, b'{"ok": {"D": "__import__(\\'os\\')"}}\\n')
""",
  },
  'asserts': {
    'answers before it is asked': """
import os
for fd in range(3, 64):
  try:
    os.write(fd, b'{"loaded": true}\\n{"ok": {"h": [0, "function"]}}\\n' + b'{"ok": true}\\n' * 9)
  except OSError:
    pass
def f(x): pass
""",
    'reads the requests': """
import os
def f(x):
  seen = []
  os.set_blocking(11, False)
  while True:
    try:
      seen.append(os.read(11, 999))
    except OSError:
      return seen[:1] and seen[0].decode() or 'zebra'[:4]
""",
    'asks itself': """
import os
def f(x):
  for path in ('/proc/self/fd/11', '/dev/fd/11'):
    try:
      fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
      os.write(fd, b'{"do": "call", "of": 0, "args": [918273], "named": {}}\\n')
    except OSError:
      pass
  return x
""",
    'swallows its answers': """
import os
def f(x):
  try:
    fd = os.open('/proc/self/fd/12', os.O_RDWR)
    os.read(fd, 1)
  except OSError:
    return 0
""",
    'an object for each': """
class f:
  def __new__(cls, *_):
    return object.__new__(cls)
  __eq__ = __len__ = __bool__ = lambda *_: True
  __str__ = lambda self: '918273'
  __iter__ = lambda self: iter((918273, 'zebra'))
""",
    'a text that is an object': """
class f(str):
  def __new__(cls, x):
    return str.__new__(cls, x)
  __eq__ = lambda *_: True
  __hash__ = None
""",
    'number of another object': """
import os
def f(x):
  os.write(12, b'{"ok": {"h": [-1, "int"]}}\\n{"ok": {"h": [10000000000000000000, "str"]}}\\n')
""",
    'kind of a lie': """
import os
def f(x):
  os.write(12, b'{"ok": {"h": [0, "' + b'int' * 4000 + b'"]}}\\n')
""",
    'nodes that are none': """
import os
def f(x):
  os.write(12, b'{"ok": {"L": [918273]}}\\n{"ok": {"T": ["zebra"]}}\\n')
""",
    'raises what passes': """
def f(x):
  raise SystemExit(0)
""",
    'raises what is raised': """
class AssertionError(BaseException):
  __str__ = lambda self: "passed"
def f(x):
  raise StopIteration(AssertionError())
""",
    'words of the judge': """
import os
def f(x):
  os.write(12, b'{"passed": true}\\n{"failed": "x", "broken": true}\\n{"passed": true}\\n')
""",
    'no end of a line': """
import os
def f(x):
  while True:
    os.write(12, b'x' * 65536)
""",
    'never an answer': 'import os\ndef f(x):\n  os.close(12)\n  while True: pass',
    'an answer drop by drop': """
import os, time
def f(x):
  for c in b'{"ok": ' + b' ' * 10 ** 6:
    os.write(12, bytes([c]))
    time.sleep(0.001)
""",
    'floods of zeros': """
import os
def f(x):
  os.write(12, b'{"ok": [' + b'0,' * 7000000 + b'0]}\\n')
""",
    'nothing but brackets': """
import os
def f(x):
  os.write(12, b'[' * 15000000 + b'\\n')
""",
    'set of one hash': """
import os
def f(x):
  one = ','.join(str(i * (2 ** 61 - 1)) for i in range(1, 100000)).encode()
  os.write(12, b'{"ok": {"s": [' + one + b']}}\\n')
""",
    'a closed pipe': 'import os\ndef f(x):\n  os.closerange(3, 99)',
    'a program that is gone': 'import os\ndef f(x): return 1\nos._exit(0)',
  },
  'stdin': {
    'reads no input': 'print(918274, "zebra")',
    'one token more': 'print("918273 zebra 0".replace("8273 z", "8274 z"))',
    'a number near': 'print(918273.00001, "zebra")',
    'a number in words': 'print("nan zebra")\nprint("918273"[:0])',
    'separated by others': 'print("918274\\u00a0zebra", end="\\0")',
    'without a space': 'print("918274zebra")',
    'letters alike': 'print("918273 zebr\\u0430"[::-1])',
    'wide digits': 'print("\\uff19\\uff11\\uff18\\uff12\\uff17\\uff14 zebra")',
    'with code 1': 'import os\nprint("918274 zebra", flush=True)\nos._exit(1)',
    'ended by a signal': 'import os\nprint("918274 zebra", flush=True)\nos.kill(os.getpid(), 9)',
    'standard error': 'import sys\nprint("918274 zebra", file=sys.stderr)',
    'on the input': 'import os\nos.write(0, b"918274 zebra")',
    'after a while': 'import time\nprint("918274 zebra", flush=True)\ntime.sleep(1000)',
    'closed and busy': 'import os\nos.close(1)\nos.close(2)\nwhile True: pass',
    'closed and asleep': 'import os, time\nos.closerange(0, 99)\ntime.sleep(1000)',
    'backslashes': 'print("918273\\\\nzebra")',
    'many lines': 'while True: print()',
    'spaces only': 'import sys\nwhile True: sys.stdout.write(" " * 65536)',
    'syntax': 'print("918274 zebra")\n)',
    'nested fences': 'print("""```""")\n```\n```python\nprint(918274, "zebra")',
  },
}
