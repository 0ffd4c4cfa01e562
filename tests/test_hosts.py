"""Several processes: the watch over them, barriers, exchange, and what is each one's own."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from processes import free_port, script

from configs import base
from rlvr_jax import graceful, hosts, hosts_find, hosts_watch
from rlvr_jax.eval import shards
from rlvr_jax.rl import collect
from rlvr_jax.sampling.types import Item
from rlvr_jax.tasks.journal import Journal
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem, Verdict

WATCH = pathlib.Path(hosts_watch.__file__)


class Watched:
  """A watch whose watched process is this test."""

  def __init__(self, index, count, port, *, wait=20, silent=20, grace=60):
    words = (index, count, f'localhost:{port}', f'host{index}', wait, silent, grace)
    self.process: Any = subprocess.Popen(
      [sys.executable, '-I', str(WATCH), *map(str, words)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def hear(self) -> Any:
    line = self.process.stdout.readline()
    return json.loads(line) if line else None

  def tell(self, **message):
    self.process.stdin.write(json.dumps(message) + '\n')
    self.process.stdin.flush()

  def close(self):
    self.process.kill()
    self.process.wait()
    for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
      pipe.close()


@pytest.fixture
def start():
  """Starts `count` watches that know each other."""
  started = []

  def watches(count, which=None, **options):
    port = free_port()
    found = [Watched(i, count, port, **options) for i in which or range(count)]
    started.extend(found)
    return found

  yield watches
  for one in started:
    one.close()


def gathered(watches):
  names = [f'host{i}' for i in range(len(watches))]
  assert [one.hear() for one in watches] == [{'kind': 'ready', 'names': names}] * len(watches)
  return watches


def test_the_watch_says_who_has_not_come(start):
  present = start(4, which=(0, 2), wait=0.7)
  for one in present:
    assert one.hear() == {'kind': 'missing', 'who': [1, 3]}
  (alone,) = start(2, which=(1,), wait=0.5)
  assert alone.hear() == {'kind': 'unreachable'}


def test_a_second_process_of_an_index_and_one_of_another_count_are_refused():
  port = free_port()
  first, stranger, second = Watched(0, 3, port), Watched(2, 4, port), Watched(1, 3, port)
  assert stranger.hear()['why'] == 'it was started as one of 4 processes, process 0 as one of 3'
  twin = Watched(1, 3, port)
  while all(one.process.poll() is None for one in (second, twin)):
    time.sleep(0.05)
  refused = next(one.hear() for one in (second, twin) if one.process.poll() is not None)
  assert refused['why'] == 'there is a process 1 already, on host1'
  for one in (first, second, twin, stranger):
    one.close()


@pytest.mark.parametrize('victim', [0, 1])
def test_the_end_of_a_process_is_told_by_name(start, victim):
  watches = gathered(start(3))
  watches[victim].process.stdin.close()  # as when the process it watches is killed
  for one in (w for i, w in enumerate(watches) if i != victim):
    text = f'process {victim} of 3 (host{victim}) is gone: its process ended'
    assert one.hear() == {'kind': 'lost', 'text': text}
    assert text in one.process.stderr.readline()
    one.process.stdin.close()  # ends because of it, which is no news
  assert [one.process.wait(20) for one in watches] == [0, 0, 0]
  assert watches[victim].process.stderr.read() == ''


@pytest.mark.parametrize('victim', [0, 2])
def test_a_machine_that_falls_silent_is_told_by_name(start, victim):
  watches = gathered(start(3, silent=3))
  os.kill(watches[victim].process.pid, signal.SIGSTOP)
  text = f'process {victim} of 3 (host{victim}) is gone: nothing was heard of it for 3 s'
  for one in (w for i, w in enumerate(watches) if i != victim):
    assert one.hear() == {'kind': 'lost', 'text': text}


def test_errors_and_signals_reach_all_and_a_good_bye_is_no_death(start):
  watches = gathered(start(3))
  watches[1].tell(kind='stop', signal=15)
  assert watches[0].hear() == watches[2].hear() == {'kind': 'stop', 'signal': 15}
  watches[2].tell(kind='bye')
  watches[2].process.stdin.close()
  assert watches[2].process.wait(20) == 0
  watches[1].tell(kind='failed', why='ValueError: no such file')
  text = 'process 1 of 3 (host1) ended with an error: ValueError: no such file'
  assert watches[0].hear() == {'kind': 'lost', 'text': text}


def test_a_process_that_does_not_leave_is_ended():
  port = free_port()
  words = [sys.executable, '-I', str(WATCH), '0', '2', f'localhost:{port}', 'a', '20', '20', '0.5']
  stuck = subprocess.Popen(  # its parent sleeps
    [
      *(sys.executable, '-c'),
      f'import subprocess, time\nsubprocess.Popen({words}, stdin=subprocess.PIPE)\ntime.sleep(60)',
    ],
    stdout=subprocess.PIPE,
  )
  other = Watched(1, 2, port)
  assert other.hear()['kind'] == 'ready'
  other.process.stdin.close()
  assert stuck.wait(20) == -signal.SIGKILL
  other.close()
  assert stuck.stdout is not None
  stuck.stdout.close()


TWO = """
import numpy as np
config.hosts.barrier_s = 60.0
hosts.GRACE_S = 1.0
hosts.PIECE = 1 << 13  # several pieces of what is exchanged
hosts.start(config)
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from rlvr_jax.models.rules import TRAIN_RULES
from rlvr_jax.models.transformer import init_params, unstack
from rlvr_jax.sampling.local import hand_over_locally, local_mesh
from rlvr_jax.sharding import make_mesh, shardings
import tiny

me = hosts.index()
given = [{'rows': np.arange(5000 * (1 + 3 * i)), 'text': 'x' * i} for i in range(2)]
for found, sent in zip(hosts.exchange(given[me]), given, strict=True):
  np.testing.assert_array_equal(found['rows'], sent['rows'])
  assert found['text'] == sent['text']
assert hosts.exchange(None) == [None, None]
assert hosts.from_first(me) == 0
assert hosts.of_first(lambda: f'made by {me}') == 'made by 0'
assert hosts.anyone(me == 1)
assert not hosts.anyone(False)
assert list(hosts.mine(5)) == [[0, 2, 4], [1, 3]][me]
hosts.check_shared(tmp_path)
mesh = make_mesh(1, -1, 2)
params = init_params(jax.random.key(0), tiny.CONFIG)
laid = jax.tree.map(hosts.placed, jax.device_get(params), shardings(params, TRAIN_RULES, mesh))
for leaf, want in zip(jax.tree.leaves(laid), jax.tree.leaves(params), strict=True):
  assert leaf.sharding.mesh.size == 4
  np.testing.assert_array_equal(hosts.whole(leaf), want)
own = local_mesh(mesh)
assert set(own.devices.flat) == set(jax.local_devices())
for old in (None, params):
  sampler = hand_over_locally(old, laid, mesh)
  for leaf, want in zip(
    jax.tree.leaves(sampler), jax.tree.leaves(unstack(params)), strict=True
  ):
    assert leaf.is_fully_addressable
    np.testing.assert_array_equal(leaf, want)
try:
  local_mesh(make_mesh(1, 1, 4))
except ValueError as error:
  print(error)

with hosts.together(lambda error: 3):
  if me == 0:
    hosts._joined.timeout_s = 2.0
    try:
      hosts.barrier('the last supper')
    except TimeoutError as error:
      print(error)
    hosts._joined.timeout_s = 60.0
    hosts.exchange('waits for the other')
  import time
  time.sleep(4)
  raise ValueError('the disk is made of cheese')
"""


def test_two_processes_exchange_and_end_together(tmp_path):
  (first, out), (second, other) = script(tmp_path, TWO, 2, devices=2)
  assert 'mesh.tensor=4 reaches over processes of 2 devices each' in out, out
  assert 'the last supper: not there after 2 s (hosts.barrier_s): process 1 (' in out, out
  assert 'process 1 of 2 (' in out
  assert 'ended with an error: ValueError: the disk is made of cheese' in out
  assert first == hosts.EXIT_LOST
  assert 'Traceback' in other
  assert second == 3, other


def config_of(**given):
  config = base.get_config()
  config.hosts.update(given)
  return config


@pytest.fixture
def no_cluster(monkeypatch):
  for name in ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'):
    monkeypatch.delenv(name, raising=False)
  for name in [name for name in os.environ if name.startswith(('SLURM', 'KUBERNETES', 'OMPI'))]:
    monkeypatch.delenv(name)
  return monkeypatch


def test_where_a_process_stands_comes_from_flags_environment_or_cluster(no_cluster):
  assert hosts_find.find(config_of()) is None
  assert hosts_find.find(config_of(count=1, coordinator='a:1', index=0)) is None
  assert hosts_find.find(config_of(coordinator='a:1', count=2, index=1)) == hosts_find.Place(
    'a:1', 2, 1
  )
  no_cluster.setenv('JAX_COORDINATOR_ADDRESS', 'b:2')
  no_cluster.setenv('JAX_NUM_PROCESSES', '3')
  no_cluster.setenv('JAX_PROCESS_ID', '2')
  assert hosts_find.find(config_of()) == hosts_find.Place('b:2', 3, 2)
  assert hosts_find.find(config_of(index=0)) == hosts_find.Place('b:2', 3, 0)
  for name in ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'):
    no_cluster.delenv(name)
  slurm = {
    'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'node[03-04]', 'SLURM_NTASKS': '2',
    'SLURM_PROCID': '1', 'SLURM_LOCALID': '0', 'SLURM_STEP_NUM_NODES': '2',
  }  # fmt: skip
  for name, value in slurm.items():
    no_cluster.setenv(name, value)
  assert hosts_find.find(config_of()) == hosts_find.Place(f'node03:{65535 - 4096 + 1 + 7}', 2, 1)
  assert hosts_find.alone_on_node()
  no_cluster.setenv('SLURM_NTASKS', '16')
  assert not hosts_find.alone_on_node()
  assert hosts_find.find(config_of(count=1)) is None


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'count': 2}, 'needs hosts.coordinator, hosts.index too'),
    ({'coordinator': 'a:1', 'count': 2}, 'needs hosts.index too'),
    ({'coordinator': 'a', 'count': 2, 'index': 0}, "hosts.coordinator='a' is no host:port"),
    ({'coordinator': 'a:1', 'count': 2, 'index': 2}, r'hosts.index=2 is not from 0 to 1'),
  ],
)
def test_half_an_answer_is_refused(no_cluster, given, message):
  with pytest.raises(ValueError, match=message):
    hosts_find.find(config_of(detect=False, **given))


def test_jobs_that_are_not_shared_are_refused(no_cluster):
  config = config_of(coordinator='a:1', count=2, index=0, detect=False)
  config.job = 'export'
  with pytest.raises(ValueError, match=r'job=export .* runs in one process, not in 2'):
    hosts.start(config)


@pytest.fixture
def as_process(monkeypatch):
  """Makes this process take itself for one of several, as far as shares are concerned."""

  def one_of(index, count):
    monkeypatch.setattr(hosts, 'index', lambda: index)
    monkeypatch.setattr(hosts, 'count', lambda: count)

  return one_of


@pytest.mark.parametrize(('draws', 'size'), [(7, 3), (2, 5), (1, 1)])
def test_shares_are_everything_once_and_keep_draws_together(as_process, draws, size):
  items = [Item(i % 3, 1, i, s, (1,)) for i in range(draws) for s in range(size)]
  parts = []
  for index in range(4):
    as_process(index, 4)
    parts.append(collect.share(items))
  assert sorted(repr(item) for part in parts for item in part) == sorted(map(repr, items))
  if draws >= 4:
    owners = [{(item.problem, item.visit) for item in part} for part in parts]
    assert sum(map(len, owners)) == draws


def test_shards_of_two_processes_never_share_a_number(as_process, tmp_path):
  named = []
  for index in (0, 1, 1, 0, 1, 0, 0):
    as_process(index, 2)
    temporary = tmp_path / shards.temporary_name('part')
    temporary.write_text(str(index))
    shards.publish(temporary, tmp_path)
    named = [(int(path.stem[5:]), path.read_text()) for path in shards.shard_paths(tmp_path)]
  assert [owner for number, owner in named] == [str(number % 2) for number, _ in named]
  assert len(named) == 7
  as_process(0, 1)  # one process goes on after them
  temporary.write_text('alone')
  shards.publish(temporary, tmp_path)
  assert shards.shard_paths(tmp_path)[-1].read_text() == 'alone'


def test_a_pool_knows_the_verdicts_of_other_processes(tmp_path):
  problem = Problem('p', 'sums', '1+1', '2', {'verifier': 'math'})
  with VerifierPool(1, journal=tmp_path / 'verdicts.jsonl', shared=True) as pool:
    assert pool.verify([(problem, r'\boxed{2}')])[0].verdict == 'correct'
    news = pool.news()
    assert pool.news() == []
  ((key, verdict),) = news
  told = Verdict(verdict='timeout', reward=0.0, extracted='', reason='elsewhere')
  with VerifierPool(1, shared=True) as other:
    other.learn([(key, told)])
    assert other.verify([(problem, r'\boxed{2}')]) == [told]
    assert other.news() == []  # it is no news to where it came from
  torn = tmp_path / 'verdicts-1.jsonl'
  torn.write_bytes((tmp_path / 'verdicts.jsonl').read_bytes() + b'["torn')
  known = Journal(tmp_path / 'own.jsonl', [torn])
  assert known.get(key) == verdict
  known.close()
  assert torn.read_bytes().endswith(b'["torn')  # another's file is left as it is


def test_signals_are_told_and_those_told_count_as_signals(monkeypatch):
  monkeypatch.setattr(graceful, '_state', graceful._State())
  told = []
  graceful.tell(told.append)
  with graceful.GracefulExit() as asked:
    graceful.ask(signal.SIGTERM, 'another process was asked to end')
    assert asked.requested
    os.kill(os.getpid(), signal.SIGTERM)  # its own comes after: no second one, which would raise
    assert told == [signal.SIGTERM]
    assert graceful.exit_code() == 0
  with graceful.GracefulExit() as later:
    assert later.requested
