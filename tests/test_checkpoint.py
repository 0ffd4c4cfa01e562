"""Checkpoints come back bit for bit, survive kills and damage, are refused for other configs."""

import gc
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rlvr_jax import checkpoint

ROOT = pathlib.Path(__file__).resolve().parent.parent
IDENTITY = {'train.group': 16, 'evaluate.ks': [1, 2]}


def make_state(seed: int = 0):
  keys = jax.random.split(jax.random.key(seed), 3)
  return {
    'params': {
      'w': jax.random.normal(keys[0], (64, 8)),
      'b': jax.random.normal(keys[1], (8,), jnp.bfloat16),
    },
    'moments': [jax.random.normal(keys[2], (16, 4)), jnp.array([True, False])],
    'step': jnp.int32(seed),
  }


def assert_bitwise(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def abstract(state):
  return jax.eval_shape(lambda: state)


def save_steps(directory, *steps, keep=2):
  with checkpoint.Checkpointer(directory, keep=keep, identity=IDENTITY) as saver:
    for step in steps:
      saver.save(step, make_state(step), {'cursor': step, 'queue': [1, 'é', None]})


def data_file(directory, step):
  """The largest file of a step: its array data."""
  files = (path for path in (directory / str(step)).rglob('*') if path.is_file())
  return max(files, key=lambda path: path.stat().st_size)


def test_round_trip_is_bitwise_and_keeps_the_last_n(tmp_path):
  save_steps(tmp_path, 1, 2, 5, keep=2)
  with checkpoint.Checkpointer(tmp_path, identity=IDENTITY) as saver:
    assert saver.latest() == 5
    state, host = saver.restore(abstract(make_state()))
    assert_bitwise(state, make_state(5))
    assert host == {'cursor': 5, 'queue': [1, 'é', None]}
    state, host = saver.restore(abstract(make_state()), step=2)
    assert_bitwise(state, make_state(2))
    assert host['cursor'] == 2
  assert not (tmp_path / '1').exists()


def test_state_may_be_donated_and_host_state_changed_while_it_is_saved(tmp_path):
  double = jax.jit(lambda x: jax.tree.map(lambda a: a * 2, x), donate_argnums=0)
  state, host = {'w': jnp.arange(1_000_000, dtype=jnp.float32)}, {'queue': [1]}
  with checkpoint.Checkpointer(tmp_path) as saver:
    saver.save(0, state, host)
    host['queue'].append(2)
    for _ in range(3):
      state = double(state)
    saver.wait()
    found, host_found = saver.restore(abstract(state))
  assert_bitwise(found, {'w': np.arange(1_000_000, dtype=np.float32)})
  assert host_found == {'queue': [1]}


def test_restores_onto_another_mesh(tmp_path):
  def sharded(shape, spec):
    count = shape[0] * shape[1]
    mesh = jax.make_mesh(
      shape, ('a', 'b'), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:count]
    )
    return NamedSharding(mesh, spec)

  values = np.arange(64.0, dtype=np.float32).reshape(8, 8)
  with checkpoint.Checkpointer(tmp_path) as saver:
    saver.save(0, {'w': jax.device_put(values, sharded((4, 2), PartitionSpec('a', 'b')))}, {})
    saver.wait()
    target = sharded((2, 2), PartitionSpec('b', None))
    found, _ = saver.restore({'w': jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=target)})
  assert found['w'].sharding == target
  assert_bitwise(found, {'w': values})


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_bit(path):
  raw = bytearray(path.read_bytes())
  raw[len(raw) // 2] ^= 4
  path.write_bytes(raw)


@pytest.fixture
def orbax_readers():
  """Lets orbax's abandoned reader coroutines die here, where their complaint is not an error."""
  yield
  gc.collect()


@pytest.mark.usefixtures('orbax_readers')
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('damage', [truncate, flip_one_bit, pathlib.Path.unlink])
def test_damaged_last_checkpoint_falls_back_to_the_one_before(tmp_path, damage, caplog):
  save_steps(tmp_path, 1, 2)
  damage(data_file(tmp_path, 2))
  with checkpoint.Checkpointer(tmp_path, identity=IDENTITY) as saver:
    state, host = saver.restore(abstract(make_state()))
    assert_bitwise(state, make_state(1))
    assert host['cursor'] == 1
    assert saver.latest() == 1
    saver.save(2, make_state(7), {'cursor': 7})
    saver.wait()
    assert_bitwise(saver.restore(abstract(make_state()))[0], make_state(7))
  assert 'checkpoint 2 cannot be read' in caplog.text
  assert (tmp_path / '2.damaged').is_dir()


def test_damaged_host_state_is_noticed(tmp_path):
  save_steps(tmp_path, 1, 2)
  path = tmp_path / '2' / 'host' / 'metadata'
  path.write_text(path.read_text().replace('cursor', 'cursur'))
  with checkpoint.Checkpointer(tmp_path, identity=IDENTITY) as saver:
    assert saver.restore(abstract(make_state()))[1]['cursor'] == 1


@pytest.mark.usefixtures('orbax_readers')
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_nothing_is_renamed_when_no_checkpoint_can_be_read(tmp_path):
  save_steps(tmp_path, 1)
  flip_one_bit(data_file(tmp_path, 1))
  message = r'no checkpoint in .* can be read \(step 1: .*--workdir'
  with (
    checkpoint.Checkpointer(tmp_path, identity=IDENTITY) as saver,
    pytest.raises(ValueError, match=message),
  ):
    saver.restore(abstract(make_state()))
  assert (tmp_path / '1').is_dir()


def test_another_config_is_refused_with_its_differing_keys(tmp_path):
  save_steps(tmp_path, 3)
  with (
    checkpoint.Checkpointer(tmp_path, identity={**IDENTITY, 'train.group': 8}) as saver,
    pytest.raises(ValueError, match=r'step 3 .*another config \(train.group: 16 -> 8\)'),
  ):
    saver.restore(abstract(make_state()))


def test_an_empty_directory_and_an_unwritable_one(tmp_path):
  with checkpoint.Checkpointer(tmp_path / 'new') as saver:
    assert saver.latest() is None
    with pytest.raises(FileNotFoundError, match='no checkpoint in'):
      saver.restore(abstract(make_state()))
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match='cannot be written'):
    checkpoint.Checkpointer(tmp_path / 'file' / 'checkpoints')


KILLED = """
import os, signal, sys
import jax.numpy as jnp
from rlvr_jax import checkpoint
state = {'w': jnp.arange(20_000_000, dtype=jnp.float32)}
saver = checkpoint.Checkpointer(sys.argv[1])
saver.save(1, state, {'cursor': 1})
saver.wait()
saver.save(2, {'w': state['w'] + 1}, {'cursor': 2})
while not any(name.startswith('2') for name in os.listdir(sys.argv[1])):
  pass  # another thread begins to write
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_during_a_save_leaves_the_one_before(tmp_path):
  command = [sys.executable, '-c', KILLED, str(tmp_path)]
  done = subprocess.run(command, cwd=ROOT, check=False, timeout=120)
  assert done.returncode == -signal.SIGKILL
  assert not (tmp_path / '2').exists(), 'the kill came too late to test anything'
  assert len(list(tmp_path.glob('2*'))) == 1
  state = {'w': jnp.arange(20_000_000, dtype=jnp.float32)}
  with checkpoint.Checkpointer(tmp_path) as saver:
    found, host = saver.restore(abstract(state))
    assert host == {'cursor': 1}
    assert_bitwise(found, state)
    saver.save(2, state, {'cursor': 2})
    saver.wait()
    assert saver.latest() == 2


FULL = """
import resource, signal, sys
import jax.numpy as jnp
from rlvr_jax import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
state = {'w': jnp.arange(1_000_000, dtype=jnp.float32)}
saver = checkpoint.Checkpointer(sys.argv[1])
saver.save(1, state, {'cursor': 1})
saver.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
saver.save(2, state, {'cursor': 2})
try:
  saver.save(3, state, {'cursor': 3})
except OSError as error:
  print(error)
print(saver.restore(state)[1])
"""


def test_a_disk_without_room_is_told_and_loses_nothing(tmp_path):
  """A limit on the size of files stands in for the full disk."""
  pytest.importorskip('resource', reason='file size limits need Unix')
  command = [sys.executable, '-c', FULL, str(tmp_path)]
  done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
  message, host = done.stdout.splitlines()
  assert 'could not be written to' in message
  assert '(last: step 1); make room there' in message
  assert host == "{'cursor': 1}"


def test_first_signal_asks_and_second_interrupts():
  before = signal.getsignal(signal.SIGTERM)
  with checkpoint.GracefulExit() as leaving:
    assert not leaving.requested
    os.kill(os.getpid(), signal.SIGTERM)
    deadline = time.monotonic() + 5
    while not leaving.requested and time.monotonic() < deadline:
      time.sleep(0.001)
    assert leaving.requested
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  assert signal.getsignal(signal.SIGTERM) is before
