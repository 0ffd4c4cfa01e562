"""The sandbox's parts: data that crosses its wall, levels, fork server, and the pool around it."""

import builtins
import collections
import contextlib
import decimal
import fractions
import json
import os
import signal
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks import code
from rlvr_jax.tasks import settings as verifier_settings
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.sandbox import codec, judge
from rlvr_jax.tasks.sandbox.confine import LEVELS, Limits
from rlvr_jax.tasks.sandbox.host import Sandbox, SandboxError
from rlvr_jax.tasks.settings import Settings

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='Linux only')
LIMITS = Limits(wall_s=5.0, cpu_s=5.0, memory_mb=512)

scalars = (
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats(allow_nan=False)
  | st.text()
  | st.binary()
  | st.complex_numbers(allow_nan=False)
  | st.fractions()
  | st.decimals(allow_nan=False)
)
keys = st.integers() | st.text() | st.tuples(st.integers(), st.booleans())
values = st.recursive(
  scalars,
  lambda inner: (
    st.lists(inner)
    | st.lists(inner).map(tuple)
    | st.dictionaries(keys, inner)
    | st.sets(keys)
    | st.frozensets(keys)
    | st.lists(inner).map(collections.deque)
  ),
  max_leaves=20,
)


@given(values)
@settings(max_examples=60, deadline=None)
def test_data_crosses_unchanged(value):
  there = codec.decode(codec.loads(codec.dumps(codec.encode(value))))
  assert there == value
  assert type(there) is type(value)


json_values = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda inner: (
    st.lists(inner) | st.dictionaries(st.sampled_from('itszqdbcFDLTha') | st.text(), inner)
  ),
  max_leaves=20,
)


@given(json_values)
@settings(max_examples=100, deadline=None)
def test_any_json_is_a_value_or_refused(value):
  with contextlib.suppress(codec.CodecError):
    codec.decode(value, nodes={'ListNode': object, 'TreeNode': object})


def test_subclasses_become_what_they_are_of():
  class Lie(int):
    def __eq__(self, other):
      return True

    __hash__ = int.__hash__

  pair = collections.namedtuple('pair', 'a b')(1, Lie(2))
  assert codec.encode(pair) == {'t': [1, 2]}
  assert type(codec.encode(Lie(2))) is int
  assert codec.encode(collections.Counter('a')) == {'d': [['a', 1]]}
  assert codec.decode(codec.encode(1 << 100000)) == 1 << 100000
  assert codec.encode(decimal.Decimal('1.50')) == {'D': '1.50'}
  assert codec.encode(fractions.Fraction(1, 3)) == {'F': '1/3'}


def test_large_data_is_compared_by_its_digest(monkeypatch):
  monkeypatch.setattr(codec, 'LARGE', 10)
  pairs = [('a', i) for i in range(6)]
  assert codec.is_large(pairs)
  assert codec.is_large(set(range(11)))
  assert not codec.is_large('x' * 100)
  assert not codec.is_large(pairs[:2])
  assert codec.digest(pairs) == codec.digest([(chr(97), i) for i in range(6)])
  others = [tuple(pairs), pairs[::-1], [*pairs[:5], ('a', 5.0)], [*pairs, ('a', 6)]]
  assert len({codec.digest(one)['m'] for one in [pairs, *others]}) == 5
  with pytest.raises(ValueError, match='unmarshallable'):
    codec.digest([object()] * 11)


def test_what_is_no_data_or_too_much_is_refused():
  nested = []
  for _ in range(codec.MAX_DEPTH + 2):
    nested = [nested]
  for value in (nested, object(), lambda: 0):
    with pytest.raises(codec.CodecError):
      codec.encode(value)
  with pytest.raises(codec.CodecError):
    codec.decode(nested)
  with pytest.raises(codec.CodecError, match='have one hash'):
    codec.decode({'s': [i * (2**61 - 1) for i in range(1000)]})
  assert codec.decode({'s': list(range(1000))}) == set(range(1000))


def test_an_exception_is_of_the_type_that_the_program_says():
  names = [one.__name__ for one in vars(builtins).values() if isinstance(one, type)]
  for name in [*names, 'print', '__name__', '', None, ['KeyError'], 10**30]:
    error = judge._as_raised({'raised': f'{name}: no', 'type': name, 'text': 'no'})
    assert (str(error), error.why) == ('no', f'it raised {name}: no')
    assert type(error).__name__ in (name, 'RemoteError')
    assert not isinstance(error, StopIteration | BaseExceptionGroup)
  assert isinstance(judge._as_raised({'raised': '', 'type': 'KeyError'}), KeyError)
  assert not isinstance(judge._as_raised({'raised': '', 'type': 'LookupError'}), KeyError)


PROBE = """
import os, socket
found = []
tries = {
  'read': lambda: open('/etc/passwd').read(),
  'write': lambda: open(PATH, 'w'),
  'fork': lambda: os.fork() or os._exit(0),
  'socket': lambda: socket.socket(),
}
for name, attempt in tries.items():
  try:
    attempt()
    found.append(name)
  except OSError:
    pass
print(*found)
"""


@pytest.mark.parametrize(
  ('level', 'can'),
  [
    ('rlimits', {'read', 'write', 'fork', 'socket'}),
    ('seccomp', {'read'}),
    ('landlock+seccomp', set()),
  ],
)
def test_what_each_level_lets_through(level, can, tmp_path):
  """The stronger ones refuse what the weaker do not: these are walls, not failing attempts."""
  with Sandbox(at_most=level) as sandbox:
    if sandbox.level != level:
      pytest.skip(f'this kernel offers {sandbox.level} only')
    program = PROBE.replace('PATH', repr(str(tmp_path / 'file')))
    outcome = sandbox.run_main(program, '', LIMITS)
  assert set(outcome.stdout.decode().split()) == can
  assert (tmp_path / 'file').exists() == (level == 'rlimits')


def test_processes_of_an_unconfined_run_end_with_it():
  program = 'import os, time\nfor _ in range(3):\n  os.fork() or (os.setsid(), time.sleep(99))'
  with Sandbox(at_most='rlimits') as sandbox:
    sandbox.run_main(program, '', LIMITS)
    left = ['?']
    for _ in range(100):
      with open(f'/proc/{sandbox.server_pid}/task/{sandbox.server_pid}/children') as file:
        left = file.read().split()
      if not left:
        break
      time.sleep(0.02)
    assert left == []


def test_a_level_below_the_wanted_one_is_refused(monkeypatch):
  monkeypatch.setattr(verifier_settings, 'SETTINGS', Settings())
  monkeypatch.setattr(code, 'SETTINGS', Settings())
  monkeypatch.setattr(code, 'Sandbox', lambda: Sandbox(at_most='seccomp'))
  code.sandbox.cache_clear()
  with pytest.raises(ValueError, match=r"under 'seccomp' only .*set verifier.allow_unsafe=True"):
    code.sandbox()
  monkeypatch.setattr(code, 'SETTINGS', Settings(allow_unsafe=True))
  with code.sandbox() as box:
    assert LEVELS.index(box.level) <= LEVELS.index('seccomp')
  code.sandbox.cache_clear()


def test_a_server_that_dies_costs_one_run():
  with Sandbox() as sandbox:
    os.kill(sandbox.server_pid, signal.SIGKILL)
    with pytest.raises(SandboxError):
      sandbox.run_main('print(1)', '', LIMITS)
    assert sandbox.run_main('print(1)', '', LIMITS).stdout == b'1\n'


def test_a_server_ends_with_its_host():
  import subprocess

  program = (
    'import os, sys, time\n'
    'from rlvr_jax.tasks.sandbox.host import Sandbox\n'
    'print(Sandbox().server_pid, flush=True)\n'
    'os.kill(os.getpid(), 9)\n'
  )
  run = subprocess.run([sys.executable, '-c', program], capture_output=True, check=False)
  pid = int(run.stdout)
  for _ in range(200):
    if not os.path.exists(f'/proc/{pid}'):
      return
    time.sleep(0.02)
  pytest.fail('the fork server outlives its host')


def test_a_program_sees_a_plain_interpreter():
  program = """
import asyncio, atexit, random, sys, dataclasses, sortedcontainers
import numpy
@dataclasses.dataclass
class A:
  x: int = 1
async def two():
  await asyncio.sleep(0)
  return 2
atexit.register(print, 'last')
global seen
seen = __name__
try:
  import jax
except ModuleNotFoundError:
  print('no jax')
open('/dev/null', 'w').write('x')
print(A(), asyncio.run(two()), seen, sys.argv, sys.stdin.buffer.readline(), input())
print(random.random(), {'a', 'b', 'c', 'd'})
"""
  with Sandbox() as one, Sandbox() as other:
    first, second = (box.run_main(program, 'a\nb\n', LIMITS) for box in (one, other))
  assert first.code == 0, first.stderr
  said = b"no jax\nA(x=1) 2 __main__ ['program.py'] b'a\\n' b\n"
  assert first.stdout.startswith(said)
  assert first.stdout.endswith(b'last\n')
  assert first.stdout == second.stdout  # the same seeds


def test_memory_and_time_of_a_run():
  with Sandbox() as sandbox:
    outcome = sandbox.run_main('x = bytearray(1 << 30)', '', LIMITS)
    assert b'MemoryError' in outcome.stderr
    short = Limits(wall_s=0.3, cpu_s=5.0)
    outcome = sandbox.run_main('import time\ntime.sleep(9)', '', short)
    assert (outcome.ended_by, outcome.why(short)) == ('wall', 'no end within 0.3 s')
    busy = Limits(wall_s=20.0, cpu_s=0.4)
    outcome = sandbox.run_main('while True: pass', '', busy)
    assert (outcome.ended_by, outcome.why(busy)) == ('cpu', 'more than 0.4 s of CPU')
    assert 0.4 <= outcome.cpu_s < 1.0
    outcome = sandbox.run_main('print("x" * 10000)', '', Limits(output_bytes=100))
    assert (outcome.ended_by, len(outcome.stdout)) == ('output', 100)


# The pool around it.

SLOW = Problem(
  'slow', 'test', 'q', {'kind': 'stdin', 'inputs': [''], 'outputs': ['1'], 'limit_s': 0.3},
  {'verifier': 'code'},
)  # fmt: skip


def test_a_time_out_counts_after_a_second_run_alone(tmp_path):
  """Every time-out is one twice, the second time while nothing else runs."""
  quick = Problem('quick', 'test', 'q', {**SLOW.answer, 'limit_s': 5.0}, {'verifier': 'code'})
  journal = tmp_path / 'verdicts.jsonl'
  jobs = [(SLOW, 'while True: pass')]
  jobs += [(quick, f'print(1)#{i}') for i in range(20)]
  jobs += [(SLOW, 'import time\ntime.sleep(9)')]
  with VerifierPool(workers=2, limit_s=5.0, journal=journal) as pool:
    again, begun = [], pool._settle_or_repeat

    def spy(jobs, verdicts):
      again.extend(v.verdict for j, v in zip(jobs, verdicts, strict=True) if not j.quiet)
      alone = [j.quiet for j in jobs]
      assert not any(alone) or pool._running == 1
      return begun(jobs, verdicts)

    pool._settle_or_repeat = spy
    verdicts = pool.verify(jobs)
  assert [v.verdict for v in verdicts] == ['timeout', *['correct'] * 20, 'timeout']
  assert again.count('timeout') == 2  # once each before the run that counted
  kept = [json.loads(line) for line in journal.read_text().splitlines()]
  assert len(kept) == 22
  assert {row[5] for row in kept} == {verdicts[0].sandbox}
  with VerifierPool(workers=1, journal=journal) as pool:
    assert pool.verify(jobs) == verdicts


def test_a_pool_says_why_it_will_not_run_programs():
  with (
    VerifierPool(workers=1, settings={'sandbox': 'more than there is'}) as pool,
    pytest.raises(ValueError, match="verifier='code' could not be loaded: ValueError"),
  ):
    pool.verify([(SLOW, 'print(1)')])
