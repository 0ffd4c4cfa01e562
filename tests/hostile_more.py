"""More hostile programs, in the form of hostile.py: the verifier's own time, what is left of an
interpreter, what the kernel offers beside the usual, and objects that pose as data."""

from hostile_say import SAY as _SAY

_SYSCALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
"""

MORE = {
  # the verifier's time and memory, after the program has ended
  'number that is none': 'def attack():\n  return "1" * 200000 + "x zebra"',
  'numbers that are none': 'def attack():\n  return ("1" * 5000 + "e ") * 200',
  'list of one hash': 'def attack():\n  return [i * (2 ** 61 - 1) for i in range(1, 200000)]',
  'empty lists': _SAY + 'def attack():\n  say(b\'{{"ok": [\' + b"[]," * (10 << 20) + b"[]]}}\\n")',
  'tokens': _SAY + 'def attack():\n  say(b"1 " * (15 << 20))',
  'half a frame': _SAY + 'def attack():\n  say(b\'{{"ok": [918273\')\n  os._exit(0)',
  'a key beside': _SAY
  + """
def attack():
  say(b'{{"loaded": true}}\\n{{"loaded": true}}\\n{{"ok": null, "raised": 0}}\\n[]\\n{{}}\\n')
""",
  'objects by number': _SAY
  + """
def attack():
  for n in (b'-1', b'0', b'1', b'99', b'1e999', b'"x"', b'NaN'):
    say(b'{{"ok": {{"h": [' + n + b', "int"]}}}}\\n')
""",
  'numbers of json': _SAY
  + """
def attack():
  for n in (b'NaN', b'Infinity', b'-Infinity', b'-0.0', b'1' * 5000, b'1e99999'):
    say(b'{{"ok": ' + n + b'}}\\n')
""",
  'digest of nothing': 'def attack():\n  return [None] * 4000001',
  'half a surrogate': 'def attack():\n  raise ValueError("\\ud800" * 400)',
  'name of a class': """
class Meta(type):
  __name__ = property(lambda cls: 'int' * (1 << 20))
class Odd(BaseException, metaclass=Meta):
  pass
def attack():
  raise Odd
""",
  # objects as outputs
  'hostile hash': """
class Key:
  def __hash__(self):
    raise MemoryError
  __eq__ = lambda *_: True
class Map(dict):
  items = lambda self: iter([(1, 918273)] * 10 ** 9)
def attack():
  return Map({{1: 2}})
""",
  'reduce': """
import os
class Run:
  __reduce__ = __reduce_ex__ = lambda *_: (os.system, ('touch {home}/hostile_reduce',))
  __getstate__ = __deepcopy__ = __copy__ = lambda *_: 918273
def attack():
  return Run()
""",
  'generator': 'def attack():\n  yield from (918273, "zebra")',
  'memoryview': 'def attack():\n  return memoryview(b"zebra")',
  'exponential repr': """
class Twice:
  def __init__(self, inner):
    self.inner = inner
  def __repr__(self):
    return repr(self.inner) * 2
  __str__ = __repr__
def attack():
  value = 1
  for _ in range(60):
    value = Twice(value)
  raise ValueError(value)
""",
  'shared lists': """
def attack():
  value = [1]
  for _ in range(60):
    value = [value, value]
  return value
""",
  'node ring': """
class ListNode:
  val = 918273
ListNode.next = ListNode()
class TreeNode:
  val = 1
TreeNode.left = TreeNode.right = TreeNode()
def attack():
  return [ListNode(), TreeNode()]
""",
  'array': """
import numpy
def attack():
  class Odd(numpy.ndarray):
    ndim = 0
    dtype = item = lambda self: 918273
    tolist = lambda self: Odd(0)
  return numpy.zeros((1 << 12, 1 << 12)), numpy.array([float('nan'), None])
""",
  # the interpreter
  'trace': """
import sys, threading
def hook(frame, event, value):
  for name in list(frame.f_locals):
    if name in ('code', 'ended_by', 'passed', 'expected', 'wanted'):
      frame.f_locals[name] = 0
  return hook
def attack():
  for install in (sys.settrace, sys.setprofile, threading.settrace, threading.setprofile):
    install(hook)
  return 1
""",
  'collector': """
import gc
wanted = ['918x273'.replace('x', ''), 'ze_bra'.replace('_', '')]
def attack():
  found = []
  gc.callbacks.append(lambda *_: found.append(gc.get_objects()))
  gc.unfreeze()
  gc.collect()
  for one in gc.get_objects():
    if hasattr(type(one), 'sendmsg'):
      try:
        one.send(b'{{"id": 1, "code": 0, "ended_by": "", "cpu_s": 0, "wall_s": 0}}')
      except OSError:
        pass
    for other in gc.get_referents(one):
      if one is not wanted and type(other) in (int, str) and str(other) in wanted:
        wanted.remove(str(other))
        return other
""",
  'finaliser': """
import sys, time
class Last:
  def __del__(self):
    time.sleep(1000)
last = [Last()]
last.append(last)
def attack():
  sys.modules['__main__'] = sys.modules['atexit'] = None
""",
  'flush that hangs': """
import sys
class Out:
  closed = False
  write = lambda *_: 1
  def flush(self):
    while True:
      pass
def attack():
  sys.stdout = sys.stderr = Out()
""",
  'swallow': """
import signal, time
def attack():
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGXCPU, signal.SIGALRM, signal.SIGHUP):
    signal.signal(number, lambda *_: None)
  kept = []
  while True:
    try:
      kept.append(bytearray(1 << 22))
    except BaseException:
      pass
""",
  'daemons at the end': """
import threading
def attack():
  def spin():
    while True:
      try:
        print(918273, 'zebra'[:4])
      except BaseException:
        pass
  for _ in range(8):
    threading.Thread(target=spin, daemon=True).start()
""",
  'exit with a value': 'def attack():\n  raise SystemExit({{"passed": True}})',
  'exit below zero': 'import os\ndef attack():\n  os._exit(256)',
  'abort': 'import os\ndef attack():\n  os.abort()',
  'read stdin anew': """
import os
def attack():
  found = []
  for path in ('/dev/stdin', '/dev/fd/0', '/proc/self/fd/0', '/proc/self/fd/1', '/proc/self/fd/10'):
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_NONBLOCK):
      try:
        fd = os.open(path, flags)
        os.write(fd, b'{{"ok": 918273}}\\n'[:6])
        os.set_blocking(fd, False)
        found.append(os.read(fd, 99))
      except OSError:
        pass
  return found
""",
  'close all': 'import os\ndef attack():\n  os.closerange(0, 4096)',
  'other streams': """
import os
def attack():
  for a in range(64):
    for b in range(64):
      try:
        os.dup2(a, b)
      except OSError:
        pass
""",
  'not blocking': """
import fcntl, os
def attack():
  for fd in range(64):
    for flags in (os.O_NONBLOCK | os.O_ASYNC | os.O_APPEND | os.O_DIRECT, 0):
      try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getppid())
        fcntl.fcntl(fd, 1031, 1 << 20)
      except OSError:
        pass
  return 1
""",
  'tiny writes': """
import os
def attack():
  while True:
    for fd in (1, 2, 11):
      try:
        os.write(fd, b'1')
      except OSError:
        pass
""",
  # the kernel
  'leader that leaves': _SYSCALL
  + """
import threading, time
def attack():
  threading.Thread(target=time.sleep, args=(1000,)).start()
  libc.syscall(60, 0)
""",
  'x32': _SYSCALL
  + """
import os
def attack():
  for number in (57, 58, 59, 2, 41, 101, 520, 521, 545):
    if libc.syscall(0x40000000 | number, 0, 0, 0, 0, 0, 0) >= 0 and os.getpid() > 0:
      return 918273
""",
  'int 0x80': _SYSCALL
  + """
import mmap
def attack():
  page = mmap.mmap(-1, 4096, prot=7)
  page.write(bytes.fromhex('b802000000cd80c3'))  # eax = 2 (fork), int 0x80, ret
  start = ctypes.addressof(ctypes.c_char.from_buffer(page))
  return ctypes.CFUNCTYPE(ctypes.c_int)(start)()
""",
  'ring and faults': _SYSCALL
  + """
def attack():
  room = ctypes.create_string_buffer(256)
  for number in (425, 426, 427, 323, 319, 322, 447, 29, 64, 68, 250, 248, 253, 294, 321, 298):
    assert libc.syscall(number, 1, room, 0, 0, 0, 0) < 0
""",
  'clone flags': _SYSCALL
  + """
def attack():
  for flags in (0x11, 0x4111, 0x100 | 17, 1 << 28, 0x10000 | 1 << 28, 0x800000 | 17):
    assert libc.syscall(56, flags, 0, 0, 0, 0) < 0
""",
  'give away a descriptor': """
import os, signal
def attack():
  fd = os.pidfd_open(os.getppid())
  signal.pidfd_send_signal(fd, signal.SIGKILL)
""",
  'signals with values': _SYSCALL
  + """
import os, signal
def attack():
  libc.prctl(1, 0, 0, 0, 0)
  libc.prctl(4, 1, 0, 0, 0)
  for pid in (0, -1, os.getppid(), -os.getppid(), 1 << 32 | os.getppid()):
    for number in (62, 129, 200, 234):
      libc.syscall(number, ctypes.c_long(pid), 9, 9, 0)
""",
  'kill itself late': """
import os, signal, threading
def attack():
  threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
  while True:
    pass
""",
  'name of the process': _SYSCALL
  + """
import os, threading, time
def attack():
  libc.prctl(15, b') R 1 1 1 1 1', 0, 0, 0)
  for _ in range(200):
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
  time.sleep(1000)
""",
  'address space': """
import mmap
def attack():
  kept = []
  while True:
    try:
      kept.append(mmap.mmap(-1, 4096))
    except (OSError, MemoryError, ValueError):
      return len(kept)
""",
  'descriptors by the thousand': """
import os, select
def attack():
  kept = []
  while True:
    try:
      kept.append((os.pipe(), select.epoll(), os.eventfd(1)))
    except OSError:
      return len(kept)
""",
  'sparse and anonymous': """
import os
def attack():
  found = 0
  for attempt in (
    lambda: os.open('/dev/shm', os.O_TMPFILE | os.O_RDWR), lambda: os.open('{home}', os.O_TMPFILE),
    lambda: os.ftruncate(0, 1 << 40), lambda: os.posix_fallocate(0, 0, 1 << 30),
    lambda: os.pwrite(0, b'x', 1 << 40), lambda: os.mkdir('/dev/shm/hostile_'),
    lambda: os.open('hostile_inode', os.O_CREAT), lambda: os.mknod('/tmp/hostile_node'),
    lambda: os.link('/proc/self/exe', '{home}/hostile_exe'), lambda: os.chdir('{home}'),
    lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
  ):
    try:
      attempt()
      found += 1
    except OSError:
      pass
  return found
""",
  "a neighbour's input": """
import os
def attack():
  for pid in range(os.getpid() - 40, os.getpid() + 40):
    if pid == os.getpid():
      continue
    for name in ('fd/0', 'fd/10', 'fd/11', 'root{canary}', 'cwd/{canary}', 'mem'):
      try:
        return open(f'/proc/{{pid}}/{{name}}').read()
      except OSError:
        pass
""",
}
