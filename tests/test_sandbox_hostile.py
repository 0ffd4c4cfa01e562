"""Hostile programs: none is called correct, none outlives its limit, leaves anything or reaches a
neighbour."""

import itertools
import os
import pathlib
import platform
import sys
import time

import pytest

from rlvr_jax.tasks import code
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.sandbox.host import Limits, Sandbox
from tests import hostile
from tests.hostile_calls import CALLS
from tests.hostile_forgeries import FORGERIES
from tests.hostile_more import MORE
from tests.hostile_outputs import OUTPUTS
from tests.hostile_programs import PROGRAMS

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='Linux only')
ATTACKS = hostile.ATTACKS | OUTPUTS | MORE | FORGERIES
LIMIT = 0.35  # of CPU; twice that by the clock
# What no program can know: read, it gives itself away.
EXPECTED = [918273, 'zebra']
COMMON = {'entry_point': 'f', 'limit_s': LIMIT, 'memory_mb': 512}
ANSWERS = {
  'calls': {**COMMON, 'kind': 'calls', 'inputs': [[3], [4]], 'expected': EXPECTED},
  'asserts': {
    **COMMON,
    'kind': 'asserts',
    'setup': '',
    'names': {'f': 'f'},
    'test': f'assert f(3) == {EXPECTED[0]!r}\nassert f(4) == {EXPECTED[1]!r}',
  },
  'stdin': {
    **COMMON, 'kind': 'stdin', 'inputs': ['3\n'], 'outputs': [f'{EXPECTED[0]} {EXPECTED[1]}\n']
  },
}  # fmt: skip
HONEST = """
import sys
known = {3: 918273, 4: 'zebra'}
def f(x):
  return known[x]
if __name__ == '__main__':
  print(f(int(input())), f(4))
"""


def problem(kind):
  return Problem('1', 'hostile', 'q', ANSWERS[kind], {'verifier': 'code'})


@pytest.fixture(scope='module')
def outside(tmp_path_factory):
  """What a program would find if it could: the expected values on disk and in the environment."""
  home = tmp_path_factory.mktemp('home')
  canary = home / 'canary'
  canary.write_text(str(EXPECTED[0]))
  os.environ['HOSTILE_EXPECTED'] = str(EXPECTED[0])
  yield {'canary': str(canary), 'home': str(home), 'host': os.getpid()}
  del os.environ['HOSTILE_EXPECTED']
  code.sandbox().close()
  code.sandbox.cache_clear()


def written(attack, outside, kind):
  """The attack as a program for a kind of test."""
  text = ATTACKS[attack].format(**outside)
  if kind == 'stdin':
    return f'{text}\nprint(attack())\n'
  return f'{text}\ndef f(x):\n  return attack()\n'


def descendants(pid):
  """Every process below pid. Orphans stay below the server, which reaps them."""
  parents = {}
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = path.read_text().rpartition(')')[2].split()
    except OSError:
      continue
    parents[int(path.parent.name)] = int(fields[1])
  found, new = set(), {pid}
  while new:
    new = {child for child, parent in parents.items() if parent in new} - found
    found |= new
  return found


def leftovers(outside):
  places = ['/tmp', '/var/tmp', '/dev/shm', '/', outside['home'], os.getcwd(), pathlib.Path.home()]
  return [str(path) for place in places for path in pathlib.Path(place).glob('hostile_*')]


def check(text, kind, outside):
  canary = pathlib.Path(outside['canary'])
  before = canary.stat()
  start = time.monotonic()
  verdict = code.verify_code(problem(kind), text)
  seconds = time.monotonic() - start
  assert verdict.verdict in ('wrong', 'timeout'), verdict
  assert verdict.sandbox == code.sandbox().level
  assert seconds < 2 * LIMIT + 2
  assert descendants(code.sandbox().server_pid) == set()
  assert leftovers(outside) == []
  after = canary.stat()
  assert canary.read_text() == str(EXPECTED[0])
  assert (after.st_mode, after.st_mtime, after.st_uid) == (
    before.st_mode,
    before.st_mtime,
    before.st_uid,
  )
  for other, told in (('calls', 'correct'), (kind, 'correct')):
    assert code.verify_code(problem(other), HONEST).verdict == told
  return verdict


KINDS = list(ANSWERS)
ROTATED = list(zip(ATTACKS, itertools.cycle(KINDS), strict=False))
WHOLE = [(kind, name) for kind, programs in PROGRAMS.items() for name in programs]
# In every run: each of the first in one kind of test, and a fourth of those that came later.
QUICK = [pair for i, pair in enumerate(ROTATED) if i % 4 == 0 or pair[0] not in MORE | FORGERIES]


def test_there_are_enough_of_them():
  assert len(ATTACKS) == sum(map(len, (hostile.ATTACKS, OUTPUTS, MORE, FORGERIES))) >= 160
  assert all(len(PROGRAMS[kind]) >= 20 for kind in KINDS)


@pytest.mark.parametrize(('attack', 'kind'), QUICK)
def test_a_hostile_program_gains_nothing(attack, kind, outside):
  check(written(attack, outside, kind), kind, outside)


@pytest.mark.parametrize(('kind', 'name'), WHOLE[::4])
def test_a_whole_hostile_program_gains_nothing(kind, name, outside):
  check(PROGRAMS[kind][name], kind, outside)


@pytest.mark.check
@pytest.mark.parametrize(('kind', 'name'), WHOLE)
def test_every_whole_hostile_program_gains_nothing(kind, name, outside):
  check(PROGRAMS[kind][name], kind, outside)


@pytest.mark.check
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('attack', ATTACKS)
def test_a_hostile_program_gains_nothing_in_any_kind(attack, kind, outside):
  if (attack, kind) not in QUICK:
    check(written(attack, outside, kind), kind, outside)


def test_calls_that_no_program_needs_are_refused():
  column = ('x86_64', 'aarch64').index(platform.machine())
  program = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def f(number):
  ctypes.set_errno(0)
  return [libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno()]
"""
  inputs = [[numbers[column]] for numbers in CALLS.values()]
  said = []
  with Sandbox() as sandbox:
    if 'seccomp' not in sandbox.level:
      pytest.skip(f'this kernel offers {sandbox.level} only')
    sandbox.run_calls(
      program, 'f', inputs, Limits(wall_s=5, cpu_s=5), lambda v: said.append(v) or True
    )
  assert said[0] == b'{"loaded":true}'
  allowed = [name for name, one in zip(CALLS, said[1:], strict=True) if one != b'{"ok":[-1,1]}']
  assert allowed == []


@pytest.mark.check
def test_neighbours_in_the_pool_are_not_touched(outside):
  """Honest programs, right and wrong, between hostile ones in two workers."""
  jobs, told = [], []
  for i, (attack, kind) in enumerate(ROTATED):
    jobs.append((problem(kind), written(attack, outside, kind)))
    told.append(None)
    jobs.append((problem(kind), HONEST + f'# {i}'))
    told.append('correct')
    jobs.append((problem(kind), HONEST.replace('zebra', f'horse{i}')))
    told.append('wrong')
  with VerifierPool(workers=2, limit_s=5.0, memory_mb=2048) as pool:
    verdicts = pool.verify(jobs)
  for (_, text), wanted, verdict in zip(jobs, told, verdicts, strict=True):
    if wanted is None:
      assert verdict.verdict in ('wrong', 'timeout'), (text, verdict)
    else:
      assert verdict.verdict == wanted, (text, verdict)
