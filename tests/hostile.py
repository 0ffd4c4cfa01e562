"""Hostile programs by name: each defines attack(), whose value poses as a function's output.

{canary} is a file that holds the expected values, {host} the process that knows them, {home} a
directory that may be written to outside the sandbox.
"""

_SYSCALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
"""

ATTACKS = {
  # processes
  'fork bomb': 'import os\ndef attack():\n  while True:\n    os.fork()',
  'fork by number': _SYSCALL
  + """
def attack():
  while True:
    for number in (56, 57, 58, 435):
      libc.syscall(number, 17, 0, 0, 0, 0)
""",
  'shell': 'import os\ndef attack():\n  return os.system("echo x > {home}/hostile_shell")',
  'subprocess': 'import subprocess\ndef attack():\n  return subprocess.run(["/bin/true"])',
  'spawn': 'import os\ndef attack():\n  return os.posix_spawn("/bin/sh", ["sh"], {{}})',
  'exec': 'import os\ndef attack():\n  os.execv("/bin/true", ["true"])',
  'fork_exec': """
import _posixsubprocess, subprocess
def attack():
  subprocess.Popen(['/bin/sleep', '1000'], start_new_session=True)
""",
  'multiprocessing': """
import multiprocessing
def attack():
  process = multiprocessing.get_context('fork').Process(target=print)
  process.start()
""",
  'daemon': """
import os, time
def attack():
  if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
      time.sleep(1000)
""",
  'zombie tree': """
import os
def attack():
  for _ in range(50):
    if os.fork() == 0:
      os.fork()
      os._exit(0)
""",
  'escape the session': 'import os\ndef attack():\n  os.setpgid(0, 0)\n  os.setsid()',
  'thread bomb': """
import threading, time
def attack():
  threading.stack_size(32768)
  while True:
    threading.Thread(target=time.sleep, args=(1000,)).start()
""",
  'busy threads': """
import threading
def attack():
  def spin():
    while True:
      pass
  for _ in range(40):
    threading.Thread(target=spin).start()
""",
  # memory, disk, time
  'memory': 'def attack():\n  return len(bytearray(1 << 40))',
  'memory by drops': """
def attack():
  kept = []
  while True:
    kept.append(bytearray(1 << 24))
""",
  'memory by mmap': """
import mmap
def attack():
  kept = []
  while True:
    kept.append(mmap.mmap(-1, 1 << 26))
    kept[-1].write(b'x' * (1 << 26))
""",
  'memory file': """
import os
def attack():
  fd = os.memfd_create('x')
  while True:
    os.write(fd, b'x' * (1 << 20))
""",
  'shared memory': _SYSCALL + 'def attack():\n  return libc.shmget(0, 1 << 30, 0o1600)',
  'disk': """
import itertools
def attack():
  for i in itertools.count():
    for place in ('/tmp', '/dev/shm', '/var/tmp', '{home}', '.'):
      try:
        open(f'{{place}}/hostile_{{i}}', 'w').write('x' * (1 << 20))
      except OSError:
        pass
    if i > 100:
      return i
""",
  'temporary file': 'import tempfile\ndef attack():\n  return tempfile.mkstemp("", "hostile_")',
  'pipes': """
import os
def attack():
  while True:
    _, end = os.pipe()
    os.set_blocking(end, False)
    os.write(end, b'x' * (1 << 16))
""",
  'loop': 'def attack():\n  while True:\n    pass',
  'sleep': 'import time\ndef attack():\n  time.sleep(1000)',
  'long C call': 'def attack():\n  return 9 ** 9 ** 9',
  'regex': 'import re\ndef attack():\n  return re.match("(a+)+$", "a" * 64 + "b")',
  'deadlock': """
import threading
def attack():
  lock = threading.Lock()
  lock.acquire()
  lock.acquire()
""",
  'deaf': """
import signal
def attack():
  for number in range(1, 65):
    try:
      signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
      pass
  signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
  while True:
    pass
""",
  'stop': 'import os, signal\ndef attack():\n  os.kill(os.getpid(), signal.SIGSTOP)',
  'signal storm': """
import os, signal
def attack():
  signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
  signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
  signal.signal(signal.SIGALRM, lambda *_: None)
  while True:
    os.kill(os.getpid(), signal.SIGUSR1)
""",
  'exit that hangs': """
import atexit, threading, time
def attack():
  atexit.register(time.sleep, 1000)
  threading.Thread(target=time.sleep, args=(1000,)).start()
""",
  'recursion': 'import sys\nsys.setrecursionlimit(10 ** 9)\ndef attack():\n  return attack()',
  'deep syntax': 'def attack():\n  return eval("(" * 10 ** 6 + ")" * 10 ** 6)',
  'realtime': """
import os
def attack():
  os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
""",
  'raise the limits': """
import resource
def attack():
  for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
    resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
""",
  # reading what is not its own
  'read home': """
import glob, os
def attack():
  found = []
  homes = [*glob.glob(os.path.expanduser('~/*')), *glob.glob('{home}/*')]
  for path in ('{canary}', '/etc/passwd', '/etc/shadow', *homes):
    try:
      found.append(open(path).read())
    except OSError:
      pass
  return found[0]
""",
  'list folders': 'import os\ndef attack():\n  return list(map(os.listdir, ("/", "/tmp")))',
  'environment': """
import os
def attack():
  return os.environ.get('HOSTILE_EXPECTED')
""",
  "the host's memory": """
def attack():
  for pid in ({host}, 1):
    for name in ('mem', 'environ', 'maps', 'cmdline'):
      try:
        return open(f'/proc/{{pid}}/{{name}}', 'rb').read()
      except OSError:
        pass
  raise OSError
""",
  'ptrace': _SYSCALL
  + """
import os
def attack():
  for pid in ({host}, os.getppid()):
    assert libc.ptrace(16, pid, 0, 0) == 0
""",
  'process_vm_readv': _SYSCALL
  + """
def attack():
  buffer = ctypes.create_string_buffer(16)
  vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 16)
  assert libc.syscall(310, {host}, vector, 1, vector, 1, 0) >= 0
""",
  'descriptors': """
import os
def attack():
  found = []
  for fd in range(3, 1024):
    try:
      os.set_blocking(fd, False)
      os.lseek(fd, 0, 0)
      found.append(os.read(fd, 1 << 20))
    except OSError:
      pass
  return found
""",
  'proc': """
import os
def attack():
  for path in ('/proc/self/oom_score_adj', '/proc/self/mem', '/proc/sys/kernel/core_pattern'):
    try:
      open(path, 'r+b').write(b'0')
    except OSError:
      pass
  os.readlink('/proc/self/exe')
  return os.listdir('/proc/self/fd')
""",
  'network': """
import socket
def attack():
  return socket.create_connection(('127.0.0.1', 22), timeout=1)
""",
  'abstract socket': """
import socket
def attack():
  socket.socket(socket.AF_UNIX).connect('\\0hostile')
""",
  'send a descriptor': """
import socket
def attack():
  a, b = socket.socketpair()
  socket.send_fds(a, [b'x'], [1])
""",
  # changing what is not its own
  'kill the host': """
import os, signal
def attack():
  for pid in ({host}, os.getppid(), 0, -1):
    try:
      os.kill(pid, signal.SIGKILL)
    except OSError:
      pass
""",
  'change files': """
import os
def attack():
  tries = (
    lambda: os.chmod('{canary}', 0o777), lambda: os.chown('{canary}', 1, 1),
    lambda: os.unlink('{canary}'), lambda: os.truncate('{canary}', 0),
    lambda: os.utime('{canary}', (0, 0)), lambda: os.rename('{canary}', '{home}/hostile_moved'),
    lambda: os.mkdir('{home}/hostile_folder'), lambda: os.mkfifo('{home}/hostile_fifo'),
    lambda: os.link('{canary}', '{home}/hostile_link'),
    lambda: os.setxattr('{canary}', 'user.x', b''),
  )
  for attempt in tries:
    try:
      attempt()
    except OSError:
      pass
""",
  'symlink race': """
import os, threading
def attack():
  def race():
    while True:
      for target in ('{canary}', '/dev/null'):
        try:
          os.symlink(target, '{home}/hostile_race')
          os.unlink('{home}/hostile_race')
        except OSError:
          pass
  threading.Thread(target=race, daemon=True).start()
  for _ in range(1000):
    try:
      return open('{home}/hostile_race').read()
    except OSError:
      pass
""",
  # posing as right
  'exit 0': 'import os\ndef attack():\n  os._exit(0)',
  'sys.exit': 'import sys\ndef attack():\n  sys.exit(0)',
  'crash': 'import ctypes\ndef attack():\n  ctypes.string_at(0)',
  'equal to all': """
def attack():
  class Equal:
    __eq__ = lambda *_: True
    __ne__ = lambda *_: False
    __hash__ = lambda *_: 0
    __len__ = lambda *_: 1
    __bool__ = lambda *_: True
  return Equal()
""",
  'lying subclasses': """
class Lie(int):
  __eq__ = lambda *_: True
  __ne__ = lambda *_: False
  __hash__ = int.__hash__
  __reduce__ = lambda self: (int, (0,))
class Text(str):
  __eq__ = lambda *_: True
  __hash__ = str.__hash__
class Items(list):
  __eq__ = lambda *_: True
count = 0
def attack():
  global count
  count += 1
  return (Lie(0), Text('x'), Items([1]))[count % 3]
""",
  'class of another': """
def attack():
  class Fake:
    __class__ = property(lambda self: int)
    __eq__ = lambda *_: True
    __int__ = __index__ = lambda self: 0
  return Fake()
""",
  'patch builtins': """
import builtins, json, operator
def attack():
  builtins.isinstance = lambda *_: True
  builtins.AssertionError = type('E', (Exception,), {{}})
  builtins.all = builtins.any = builtins.bool = lambda *_: True
  builtins.len = lambda *_: 0
  operator.eq = lambda *_: True
  json.dumps = lambda *_, **__: '{{"passed": true}}'
""",
  'patch the machinery': """
import sys
def attack():
  for name, module in list(sys.modules.items()):
    if name.startswith('rlvr_jax'):
      for key, value in list(vars(module).items()):
        if callable(value):
          setattr(module, key, lambda *_, **__: b'{{"passed": true}}\\n')
  return True
""",
  'frames': """
import gc, sys
def attack():
  frame = sys._getframe()
  found = []
  while frame:
    found += [*frame.f_locals.values(), *frame.f_globals.values()]
    frame = frame.f_back
  found += gc.get_objects()
  for one in found:
    if type(one) is dict and ('expected' in one or 'wanted' in one):
      return one.get('expected') or one.get('wanted')
    if type(one) in (int, str) and str(one) in ('918273', 'zebra'):
      return one
""",
  'write the verdict': """
import os
def attack():
  said = (b'{{"passed": true}}\\n' + b'{{"loaded": true}}\\n' + b'{{"ok": true}}\\n' * 9
          + b'{{"id": 1, "code": 0, "ended_by": "", "cpu_s": 0, "wall_s": 0}}\\n')
  for fd in range(1, 64):
    try:
      os.write(fd, said)
    except OSError:
      pass
  os._exit(0)
""",
  'write twice': """
import os
def attack():
  for fd in range(1, 64):
    try:
      for guess in (0, 1, True, None, ''):
        os.write(fd, b'{{"ok": %s}}\\n' % str(guess).lower().encode())
    except OSError:
      pass
  return True
""",
  'bad tags': """
import os
def attack():
  for fd in range(3, 64):
    try:
      os.write(fd, b'{{"ok": {{"h": [0, "int"], "t": [1]}}}}\\n{{"ok": {{"F": "1/0"}}}}\\n')
      os.write(fd, b'\\xff\\xfe\\n')
    except OSError:
      pass
  return {{'t': [918, 273]}}
""",
}
