"""Runs whose workdir lies in an object store, on one made of a directory (tests/bucket.py)."""

import json

import bucket
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from rlvr_jax import checkpoint, checks, paths, watch
from rlvr_jax import config as config_lib
from rlvr_jax.checkpoint import Checkpointer
from rlvr_jax.eval.samples import Row, SampleStore
from rlvr_jax.metrics import MetricsWriter, read_metrics
from rlvr_jax.tasks.pool import pool_of


@pytest.fixture
def store(tmp_path):
  """The object store; its files are below tmp_path/objects."""
  root = tmp_path / 'objects'
  root.mkdir()
  with bucket.at(root) as found:
    yield found
  assert not (tmp_path / 'gs:').exists()


RUN = 'gs://bucket/runs/x'


def test_what_has_no_file_system_says_what_to_install():
  with pytest.raises(ValueError, match=r'gs://b/x: no file system for gs:// .*epath-gcs.*gcsfuse'):
    paths.path_of('gs://b/x')


def test_config_versions_and_heartbeat(store, tmp_path):
  workdir = config_lib.prepare_workdir(RUN)
  config = config_lib.resolve(base.get_config(), {'train.group': 7})
  config_lib.save(config, workdir)
  config_lib.save(config, workdir)
  local = tmp_path / 'objects' / 'bucket' / 'runs' / 'x'
  assert json.loads((local / 'config.json').read_text())['train']['group'] == 7
  assert len(json.loads((local / 'versions.json').read_text())['earlier_starts']) == 1
  with watch.Watch(workdir):
    assert json.loads((local / 'heartbeat.json').read_text())['state'] == 'running'
  assert json.loads((local / 'heartbeat.json').read_text())['state'] == 'ended'
  assert sorted(path.name for path in local.iterdir()) == [
    'config.json', 'heartbeat.json', 'versions.json',
  ]  # fmt: skip


def test_metrics_are_whole_at_a_checkpoint_and_go_on(store):
  with MetricsWriter(RUN) as writer:
    for step in range(5):
      writer.write(step, {'a': float(step)})
    writer.flush()  # as before a checkpoint; here the machine dies
    found = read_metrics(f'{RUN}/metrics.jsonl')
  assert [row['step'] for row in found] == [0, 1, 2, 3, 4]
  with MetricsWriter(RUN, resume_step=2) as writer:
    writer.write(3, {'a': 30.0})
  assert [row['a'] for row in read_metrics(f'{RUN}/metrics.jsonl')] == [0, 1, 2, 30]
  assert not store.renamed


def state_of(seed: int):
  keys = jax.random.split(jax.random.key(seed), 2)
  return {'params': {'w': jax.random.normal(keys[0], (64, 8))}, 'step': jnp.int32(seed)}


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_checkpoints_come_back_keep_their_number_and_are_known_when_torn(store, tmp_path):
  folder = f'{RUN}/checkpoints'
  with Checkpointer(folder, keep=2, keep_every=3, identity={'a': 1}) as saver:
    for step in range(1, 7):
      saver.save(step, state_of(step), {'cursor': step})
    saver.mark_best(5, 'pass@1', 0.5)
    assert saver.steps() == [3, 5, 6]
  assert checkpoint.saved_steps(folder) == [3, 5, 6]
  assert (checkpoint.read_best(paths.path_of(RUN)) or {})['step'] == 5
  part = {'params': {'w': jax.ShapeDtypeStruct((64, 8), jnp.float32)}}
  found = checkpoint.read_part(folder, 5, part)
  np.testing.assert_array_equal(found['params']['w'], state_of(5)['params']['w'])

  # a save that died: what is not marked as committed is not there
  local = tmp_path / 'objects' / 'bucket' / 'runs' / 'x' / 'checkpoints'
  (local / '6' / 'commit_success.txt').unlink()
  with Checkpointer(folder, keep=2, identity={'a': 1}) as saver:
    state, host = saver.restore(jax.eval_shape(lambda: state_of(0)))
    assert host == {'cursor': 5}
    np.testing.assert_array_equal(state['params']['w'], state_of(5)['params']['w'])
  with (
    Checkpointer(folder, identity={'a': 2}) as saver,
    pytest.raises(ValueError, match='a: 1 -> '),
  ):
    saver.restore(jax.eval_shape(lambda: state_of(0)))


def row(sample: int) -> Row:
  return Row(
    task='sums', problem_id='p', visit=0, sample=sample, seed=0, tokens=[1, 2], text='x', length=2,
    finish='eos', logprob_sum_sampled=-1.0, verdict='correct', reward=1.0, verifier='v:1',
  )  # fmt: skip


def test_shards_are_put_once_and_topped_up(store, tmp_path):
  samples = SampleStore(f'{RUN}/samples')
  samples.check_writable(10**15)  # an object store is not full
  for start in (0, 3):
    with samples.writer('m', 'sums', {'temperature': 1.0}, prompt_hash='h') as writer:
      writer.extend(row(start + i) for i in range(3))
  assert samples.models() == {'m': ['sums']}
  assert samples.done('m', 'sums') == {('p', 0, i) for i in range(6)}
  names = (tmp_path / 'objects').rglob('*.parquet')
  assert sorted(path.name for path in names) == ['part-00000.parquet', 'part-00001.parquet']
  assert samples.counts('m', 'sums').c.tolist() == [6]
  assert not store.renamed
  with pytest.raises(ValueError, match='temperature'):
    samples.writer('m', 'sums', {'temperature': 0.5}, prompt_hash='h')


def test_verdicts_of_a_remote_run_are_kept_on_this_machine(store, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  with pool_of(base.get_config().verifier, paths.path_of(RUN)):
    pass
  assert list((tmp_path / 'cache').rglob('verdicts.jsonl'))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'job': 'evaluate'}, r'job=evaluate writes into local directories only; give a local'),
    ({'train.report': 8}, r'train.report=8 writes a report.* set train.report=0, or'),
    ({'train.report': 0}, ''),
  ],
)
def test_what_is_not_written_remotely_is_refused_before_it_begins(changes, message):
  config = config_lib.resolve(base.get_config(), changes)
  if not message:
    checks.check_remote(config, RUN)
    return
  checks.check_remote(config, '/local')
  with pytest.raises(ValueError, match=message):
    checks.check_remote(config, RUN)
