"""Hostile programs like those of hostile.py: ways to pose as right, and what outlives a call."""

from hostile_say import SAY as _SAY

FORGERIES = {
  # the harness's own frames and modules
  'frame locals': """
import ctypes, sys
def attack():
  frame = sys._getframe()
  while frame:
    for name in list(frame.f_locals):
      if name in ('value', 'function', 'code', 'reply', 'kind', 'values'):
        frame.f_locals[name] = 918273
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
    frame = frame.f_back
  return 1
""",
  'trace that answers': """
import sys
def hook(frame, event, value):
  frame.f_trace_opcodes = True
  if event == 'return' and type(value) is dict:
    value.clear()
    value.update(ok='zebra', passed=True, loaded=True)
  return hook
def attack():
  sys.settrace(hook)
  frame = sys._getframe()
  while frame:
    frame.f_trace = hook
    frame = frame.f_back
  return 1
""",
  'profile that answers': """
import sys, threading
def hook(frame, event, value):
  if event == 'c_call' and getattr(value, '__name__', '') in ('write', '_exit', 'dumps'):
    import os
    for fd in range(1, 64):
      try:
        os.write(fd, b'{{"passed": true}}\\n{{"ok": "zebra"}}\\n')
      except OSError:
        pass
def attack():
  sys.setprofile(hook)
  return 1
""",
  'closures': """
import gc, types
def attack():
  for one in gc.get_objects():
    if type(one) is types.FunctionType and (one.__module__ or '').startswith('rlvr_jax'):
      one.__code__ = (lambda *_, **__: {{'ok': True, 'passed': True}}).__code__
      one.__defaults__ = one.__kwdefaults__ = None
  return True
""",
  'code of the encoder': """
import sys
def attack():
  codec = sys.modules['rlvr_jax.tasks.sandbox.codec']
  codec.encode = lambda *_: {{'m': '0' * 64}}
  codec.is_large = lambda *_: True
  codec.digest = lambda *_: {{'h': [0, 'int']}}
  codec.dumps = lambda *_: b'{{"ok": {{"m": ""}}}}\\n'
  return 1
""",
  'import hooks': """
import builtins, sys
class Finder:
  def find_spec(self, name, path=None, target=None):
    raise SystemExit(0)
  find_module = find_spec
def attack():
  sys.meta_path.insert(0, Finder())
  sys.path_hooks.insert(0, Finder())
  for name in list(sys.modules):
    if not name.startswith(('builtins', 'sys')):
      del sys.modules[name]
  builtins.__import__ = lambda *_, **__: Finder()
  return True
""",
  'exit codes': """
import atexit, os, sys, threading
def attack():
  atexit.register(os._exit, 0)
  sys.excepthook = threading.excepthook = sys.unraisablehook = lambda *_: os._exit(0)
  sys.exit = exit = lambda *_: os._exit(0)
  sys.stdout.write('918274 zebra')
  raise ValueError
""",
  'a thread answers later': _SAY
  + """
import threading, time
def attack():
  def later():
    for _ in range(1000):
      say(b'{{"ok": "zebra"}}\\n{{"passed": true}}\\n')
      time.sleep(0.001)
  threading.Thread(target=later, daemon=True).start()
  time.sleep(0.05)
  return 1
""",
  'a thread after the end': """
import os, threading, time
def attack():
  def later():
    threading.main_thread().join()
    while True:
      for fd in range(1, 64):
        try:
          os.write(fd, b'zebra\\n')
        except OSError:
          pass
  threading.Thread(target=later).start()
  return 1
""",
  'no thread is joined': """
import threading
def attack():
  threading._shutdown = lambda: None
  threading.active_count = lambda: 1
  def spin():
    while True:
      pass
  threading.Thread(target=spin).start()
""",
  'exits in atexit': """
import atexit
def attack():
  def again():
    atexit.register(again)
  atexit.register(again)
  atexit.unregister(print)
  atexit.register(attack)
  return 1
""",
  # objects
  'class of a class': """
class Meta(type):
  __eq__ = __instancecheck__ = __subclasscheck__ = lambda *_: True
  __hash__ = type.__hash__
  __getattr__ = lambda cls, name: 918273
  __class_getitem__ = lambda *_: 918273
class Same(metaclass=Meta):
  __class_getitem__ = lambda *_: 918273
  __getattr__ = lambda self, name: 918273
  __eq__ = lambda *_: True
def attack():
  return Same
""",
  'mock': 'from unittest.mock import ANY, MagicMock\ndef attack():\n  return ANY, MagicMock()',
  'any': 'from unittest.mock import ANY\ndef attack():\n  return ANY',
  'reflected': """
class Right(int):
  __eq__ = __req__ = __le__ = __ge__ = __lt__ = __gt__ = lambda *_: True
  __ne__ = lambda *_: False
  __hash__ = int.__hash__
  __sub__ = __rsub__ = __abs__ = lambda *_: 0
  __int__ = __index__ = lambda self: 1
class Text(str):
  __eq__ = lambda *_: True
  __hash__ = str.__hash__
  __str__ = lambda self: self
  encode = lambda *_: b'zebra'
  split = lambda *_: [918273]
count = 0
def attack():
  global count
  count += 1
  return Right() if count % 2 else Text()
""",
  'int of another': """
class Odd(int):
  def __new__(cls):
    return int.__new__(cls, 5)
  __int__ = __index__ = __trunc__ = lambda self: Odd()
  bit_length = lambda self: -1
class Real(float):
  __float__ = lambda self: Real(1)
def attack():
  return [Odd(), Real('nan')]
""",
  'nan in itself': """
nan = float('nan')
def attack():
  return [nan, (nan, complex(nan, nan)), {{nan: nan}}, {{nan}}]
""",
  'nan alone': 'import decimal\ndef attack():\n  return decimal.Decimal("sNaN")',
  'infinite': 'def attack():\n  return float("inf")',
  'long digits': """
import sys
sys.set_int_max_str_digits(0)
def attack():
  return 10 ** 60000
""",
  'long fraction': """
import fractions
def attack():
  return fractions.Fraction(3 ** 8000, 7 ** 8000)
""",
  'long decimal': 'import decimal\ndef attack():\n  return decimal.Decimal("1." + "1" * 900000)',
  'long float': 'def attack():\n  return "1." + "1" * 900000 + "e-" + "9" * 99',
  'many dots': 'def attack():\n  return "." * 500000 + "1"',
  'signs': 'def attack():\n  return "+-" * 250000',
  'spaces': 'def attack():\n  return "\\x0b\\x0c\\x1c\\x85\\xa0\\u2003 " * 100000',
  'coroutine': 'async def attack():\n  return 918273',
  'a view of itself': """
def attack():
  value = {{}}
  value[0] = value.values()
  return value
""",
  'growing list': """
class Grow(list):
  def __iter__(self):
    while True:
      yield 918273
  __len__ = lambda self: 1 << 40
def attack():
  return Grow([1])
""",
  'growing dict': """
class Grow(dict):
  def items(self):
    while True:
      yield 918273, 'zebra'
  __iter__ = keys = lambda self: iter(int, 1)
  __len__ = lambda self: 1
  __getitem__ = lambda *_: 918273
def attack():
  return Grow()
""",
  'a node of all': """
class Meta(type):
  __name__ = 'ListNode'
class ListNode:
  val = property(lambda self: self)
  next = property(lambda self: None)
def attack():
  return ListNode()
""",
  'numpy of all': """
import numpy
class Odd(numpy.ndarray):
  __eq__ = lambda *_: numpy.array(True)
  __array_ufunc__ = lambda *_, **__: True
def attack():
  return numpy.zeros(3).view(Odd)
""",
  'named like numpy': """
def attack():
  class int64:
    ndim, dtype = 0, None
    item = lambda self: self
  int64.__module__ = 'numpy'
  return int64()
""",
  'exception group': """
def attack():
  raise BaseExceptionGroup('x', [SystemExit(0), KeyboardInterrupt(), GeneratorExit()])
""",
  'exception with a state': """
class Odd(Exception):
  __traceback__ = property(lambda self: self)
  tb_frame = f_code = tb_next = property(lambda self: self)
  co_filename, tb_lineno = '<program>', '1'
def attack():
  raise Odd
""",
  'chain of exceptions': """
def attack():
  error = ValueError()
  for _ in range(100000):
    other = ValueError()
    other.__context__, other.__cause__, error = error, error, other
  raise error
""",
  # streams and text
  'codec of its own': """
import codecs, sys
def attack():
  codecs.register_error('strict', lambda error: ('', error.end))
  codecs.register(lambda name: codecs.lookup('rot13'))
  sys.stdout.reconfigure(encoding='utf-16', errors='ignore')
  print(918273, 'zebra')
  return '\\ud800'
""",
  'zero bytes': 'def attack():\n  return "918273\\0zebra"',
  'back and over': 'def attack():\n  return "918274\\b3 zebra\\r918273 zebra\\x1b[2K"',
  'fd of the input': """
import os
def attack():
  os.pwrite(0, b'918273 zebra', 0) if False else None
  os.lseek(0, 0, 0)
  os.write(0, b'918273'[::-1])
  os.dup2(0, 1)
  return os.fstat(1).st_size
""",
  'closed output': """
import os, sys
def attack():
  os.close(1)
  os.pipe()
  sys.stdout = None
  sys.__stdout__ = sys.stderr = None
""",
  'printed by __del__': _SAY
  + """
class Last:
  def __del__(self, say=say):
    say(b'{{"passed": true}}\\n918274 zebra\\n')
    while True:
      pass
def attack():
  import sys
  sys.keep = Last()
  keep = Last()
  keep.me = keep
  return 1
""",
  'signals at the end': """
import os, signal
def attack():
  signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
  signal.setitimer(signal.ITIMER_REAL, 0.01)
  while True:
    pass
""",
  'context and locale': """
import contextvars, decimal, locale, random
def attack():
  for name in ('C', '', 'en_US.UTF-8', 'de_DE.UTF-8'):
    try:
      locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
      pass
  decimal.getcontext().Emax = 1
  random.seed = random.random = lambda *_: 918273
  return decimal.Decimal(918274)
""",
  'recursion in the encoder': """
import sys
sys.setrecursionlimit(10 ** 6)
class Deep(list):
  def __iter__(self):
    return iter([Deep()])
def attack():
  return [Deep()]
""",
  'lines within lines': """
def attack():
  return 'x\\n{{"ok": "zebra"}}\\n{{"passed": true}}\\r\\n\\u2028\\x85'
""",
}
