"""The store loses nothing, resumes by key, and names what is wrong instead of averaging it."""

import errno
import os
import platform
import shutil
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from rlvr_jax.eval import samples, shards
from rlvr_jax.tasks.registry import same_verifiers

SETTINGS = {'temperature': 0.6, 'top_p': 0.95, 'max_tokens': 16}


def make_row(problem='p1', sample=0, **changes):
  row = {
    'task': 'sums', 'problem_id': problem, 'visit': 0, 'sample': sample, 'seed': 7,
    'tokens': np.array([5, 6, 2], np.int32), 'text': '3+4 <b>é</b>', 'length': 3, 'finish': 'eos',
    'logprob_sum': -1.25, 'logprob_sum_sampled': -0.5, 'verdict': 'correct', 'extracted': '7',
    'reason': '', 'reward': 1.0, 'verifier': 'exact-1', 'sandbox': '',
  }  # fmt: skip
  return {**row, **changes}


def write(store, rows, model='base', settings=SETTINGS, prompt_hash='h', **options):
  with store.writer(model, 'sums', settings, prompt_hash=prompt_hash, **options) as writer:
    writer.extend(rows)


@pytest.fixture
def store(tmp_path):
  return samples.SampleStore(tmp_path / 'samples')


def test_rows_come_back_as_they_went_in(store):
  rows = [make_row('p1', i) for i in range(5)]
  rows += [make_row('p2', 0, logprob_sum=None, verdict='wrong', reward=0.0)]
  write(store, rows, rows_per_shard=2)
  table = store.read('base', 'sums')
  assert table.schema.equals(shards.SCHEMA)
  back = table.to_pylist()
  assert back == [{**row, 'tokens': row['tokens'].tolist()} for row in rows]
  paths = sorted((store.root / 'base' / 'sums').iterdir())
  assert [path.name for path in paths] == [f'part-0000{i}.parquet' for i in range(3)]
  assert pq.ParquetFile(paths[0]).metadata.row_group(0).column(0).compression == 'ZSTD'
  assert store.models() == {'base': ['sums']}
  assert store.settings('base', 'sums') == {
    **SETTINGS, 'prompt_hash': 'h', 'verifier': 'exact-1',
  }  # fmt: skip


def test_extras_are_columns_only_where_they_were_asked_for(store):
  """A store may be topped up with them: rows from before have none."""
  extras = {'entropies': [0.5, 0.25, 0.125], 'truncated_logprobs': [-0.5, 0.0, -np.inf]}
  write(store, [make_row('p1', 0)])
  assert store.read('base', 'sums').schema.equals(shards.SCHEMA)
  write(store, [make_row('p1', 1, **{k: np.array(v, np.float32) for k, v in extras.items()})])
  table = store.read('base', 'sums')
  assert table.column_names == [*shards.SCHEMA.names, *extras]
  assert table.select(list(extras)).to_pylist() == [dict.fromkeys(extras), extras]
  assert store.read('base', 'sums', ['entropies', 'sample']).column_names == ['entropies', 'sample']
  assert store.counts('base', 'sums').n.tolist() == [2]
  path = sorted((store.root / 'base' / 'sums').iterdir())[0]
  assert pq.read_schema(path).names == shards.SCHEMA.names


def test_done_drives_resume_and_top_up(store):
  assert store.done('base', 'sums') == set()
  write(store, [make_row('p1', 0), make_row('p2', 1)])
  assert store.done('base', 'sums') == {('p1', 0, 0), ('p2', 0, 1)}
  write(store, [make_row('p1', 1), make_row('p2', 0)])
  assert len(store.done('base', 'sums')) == 4
  assert store.counts('base', 'sums').n.tolist() == [2, 2]


def test_counts_keep_every_verdict_apart(store):
  verdicts = ['correct', 'wrong', 'unparsed', 'timeout', 'correct', 'error']
  rows = [make_row('b', i, verdict=v) for i, v in enumerate(verdicts)]
  rows += [make_row('a', i, verdict='wrong', finish='length') for i in range(2)]
  write(store, rows)
  with pytest.raises(ValueError, match=r'1 of 8 verdicts .* verifier errors.* b \(1\)'):
    store.counts('base', 'sums')
  counts = store.counts('base', 'sums', max_error_share=0.2)
  assert counts.problem_ids == ('a', 'b')
  assert counts.n.tolist() == [2, 5]
  assert counts.c.tolist() == [0, 2]
  assert {name: values.tolist() for name, values in counts.verdicts.items()} == {
    'correct': [0, 2], 'wrong': [2, 1], 'unparsed': [0, 1], 'timeout': [0, 1], 'error': [0, 1],
  }  # fmt: skip
  assert (counts.tokens, counts.truncated) == (24, 2)


def test_coupled_samples_are_marked(store):
  write(store, [make_row()], settings={**SETTINGS, 'coupling': 'common'})
  assert store.counts('base', 'sums').coupling == 'common'


def test_what_was_sampled_before_an_exception_is_kept(store):
  def interrupted():
    with store.writer('base', 'sums', SETTINGS, prompt_hash='h') as writer:
      writer.append(make_row())
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  assert store.done('base', 'sums') == {('p1', 0, 0)}


def test_a_full_buffer_or_a_minute_writes_a_shard(store):
  writer = store.writer('base', 'sums', SETTINGS, prompt_hash='h', rows_per_shard=2)
  writer.append(make_row('p1', 0))
  assert store.done('base', 'sums') == set()
  writer.append(make_row('p1', 1))
  assert len(store.done('base', 'sums')) == 2
  writer = store.writer('base', 'sums', SETTINGS, prompt_hash='h', flush_seconds=0.0)
  writer.append(make_row('p1', 2))
  assert len(store.done('base', 'sums')) == 3


def test_leftover_temporary_files_are_ignored(store):
  write(store, [make_row()])
  (store.root / 'base' / 'sums' / '.part.123.tmp').write_bytes(b'half')
  assert store.read('base', 'sums').num_rows == 1
  write(store, [make_row('p1', 1)])
  assert store.read('base', 'sums').num_rows == 2


@pytest.mark.parametrize('damage', ['cut', 'flip', 'empty'])
def test_a_damaged_shard_is_named(store, damage):
  write(store, [make_row('p1', i, text='word ' * 50 + str(i)) for i in range(200)])
  path = store.root / 'base' / 'sums' / 'part-00000.parquet'
  data = bytearray(path.read_bytes())
  if damage == 'cut':
    data = data[: len(data) // 2]
  elif damage == 'empty':
    data = data[:0]
  else:
    data[len(data) // 8] ^= 0xFF
  path.write_bytes(data)
  with pytest.raises(ValueError, match=r'part-00000\.parquet is torn or corrupt'):
    store.read('base', 'sums')


def test_half_written_shards_of_the_dead_are_swept_those_of_the_living_are_not(store):
  write(store, [make_row()])
  folder = store.root / 'base' / 'sums'
  ended = subprocess.Popen([sys.executable, '-c', ''])
  ended.wait()
  node = platform.node()
  names = {
    f'.part.{node}.{ended.pid}.tmp': 0,  # killed
    f'.part.{node}.{os.getppid()}.tmp': 0,  # of one that lives
    f'.part.else.{node}.{ended.pid}.tmp': 0,  # of another machine: who knows
    f'.part.elsewhere.{ended.pid}.tmp': 4000,  # but not for more than an hour
  }
  for name, age in names.items():
    (folder / name).write_text('half')
    os.utime(folder / name, (time.time() - age,) * 2)
  write(store, [make_row(sample=1)])
  left = [name for name in names if (folder / name).exists()]
  assert left == list(names)[1:3]


def test_other_settings_are_refused_before_sampling(store):
  write(store, [make_row()])
  with pytest.raises(ValueError, match=r'temperature: 0\.6 against 1\.0'):
    store.writer('base', 'sums', {**SETTINGS, 'temperature': 1.0}, prompt_hash='h')
  with pytest.raises(ValueError, match=r"prompt_hash: 'h' against 'other'"):
    store.writer('base', 'sums', SETTINGS, prompt_hash='other')


def test_shards_of_other_settings_are_named_at_reading(store):
  write(store, [make_row()])
  write(store, [make_row('p1', 1)], model='hot', settings={**SETTINGS, 'temperature': 1.0})
  hot = store.root / 'hot' / 'sums' / 'part-00000.parquet'
  shutil.copy(hot, store.root / 'base' / 'sums' / 'part-00001.parquet')
  with pytest.raises(ValueError, match=r'part-00001\.parquet differ in model.*temperature'):
    store.read('base', 'sums')


def test_verifier_versions_are_never_averaged(store):
  write(store, [make_row('p1', 0)])
  write(store, [make_row('p1', 1, verifier='exact-2')])
  with pytest.raises(ValueError, match=r"'exact-1' .*part-00000.*'exact-2' .*part-00001"):
    store.counts('base', 'sums')


def test_a_mixture_has_a_verifier_for_each_problem(store):
  """Different verifiers of different problems may stand together; two versions of one may not."""
  write(store, [make_row('p1', 0, verifier='sums:1'), make_row('p2', 0, verifier='roots:1')])
  assert store.settings('base', 'sums')['verifier'] == 'roots:1 + sums:1'
  assert store.counts('base', 'sums').n.tolist() == [1, 1]
  write(store, [make_row('p2', 1, verifier='sums:1')])  # of one problem, two verifiers
  with pytest.raises(ValueError, match=r'several verifier versions'):
    store.counts('base', 'sums')
  write(store, [make_row('p1', 0, verifier='sums:1')], model='other')
  write(store, [make_row('p2', 0, verifier='sums:2')], model='other')
  with pytest.raises(ValueError, match=r"several verifier versions: 'sums:1'"):
    store.counts('other', 'sums')
  assert same_verifiers('sums:1', 'roots:1 + sums:1')
  assert not same_verifiers('sums:1', 'roots:1 + sums:2')


def test_repeated_keys_are_named_with_their_shards(store):
  write(store, [make_row('p1', 0)])
  write(store, [make_row('p2', 0)])
  write(store, [make_row('p1', 0)])
  with pytest.raises(ValueError, match=r"1 keys.*'p1', 0, 0.*part-00000.*part-00002"):
    store.read('base', 'sums')


def test_an_empty_store_says_what_it_holds(store):
  write(store, [make_row()])
  with pytest.raises(ValueError, match=r"no samples in .*rl.*the store holds \{'base'"):
    store.counts('rl', 'sums')


@pytest.mark.parametrize(
  'change', [{'verdict': 'right'}, {'finish': 'stop'}, {'length': 4}, {'task': 'other'}]
)
def test_a_row_that_cannot_be_is_refused(store, change):
  writer = store.writer('base', 'sums', SETTINGS, prompt_hash='h')
  with pytest.raises(ValueError, match=str(next(iter(change.values())))):
    writer.append(make_row(**change))


@pytest.mark.parametrize('name', ['', 'a/b', '..', '.hidden', 'a b'])
def test_names_that_leave_the_folder_are_refused(store, name):
  with pytest.raises(ValueError, match='cannot name a folder'):
    store.done(name, 'sums')


def test_an_unwritable_place_is_found_before_sampling(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(shards.StoreError, match=r'cannot write samples to .*file.*--workdir'):
    samples.SampleStore(tmp_path / 'file' / 'samples').check_writable()
  good = samples.SampleStore(tmp_path / 'samples')
  good.check_writable()
  assert list(good.root.iterdir()) == []
  with pytest.raises(shards.StoreError, match='MiB free'):
    good.check_writable(needed_bytes=2**60)


def test_a_full_disk_keeps_the_rows_and_leaves_no_half_shard(store, monkeypatch):
  writer = store.writer('base', 'sums', SETTINGS, prompt_hash='h')
  writer.append(make_row())

  def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(shards.pq, 'write_table', full)
    with pytest.raises(shards.StoreError, match=r'cannot write 1 samples.*No space left'):
      writer.flush()
  assert list((store.root / 'base' / 'sums').iterdir()) == []
  writer.close()
  assert store.done('base', 'sums') == {('p1', 0, 0)}


def test_a_taken_number_is_never_overwritten(store, monkeypatch):
  write(store, [make_row('p1', 0)])
  monkeypatch.setattr(
    shards, 'shard_paths', lambda folder: []
  )  # a second writer with an old listing
  write(store, [make_row('p1', 1)])
  monkeypatch.undo()
  assert store.done('base', 'sums') == {('p1', 0, 0), ('p1', 0, 1)}
