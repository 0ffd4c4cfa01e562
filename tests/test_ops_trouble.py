"""Whole runs through main.py that meet trouble: what they say, what they leave, how they go on."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import loops
import pytest

from rlvr_jax.metrics import read_metrics, repeatable

pytestmark = pytest.mark.check
ROOT = pathlib.Path(__file__).resolve().parent.parent
TRAIN = loops.TINY | {
  'job': 'train',
  'model.init.embed_dim': 64,  # checkpoints larger than anything else that is written
  'model.init.mlp_dim': 64,
  'train.eval_every': 0,
  'train.report': 0,
  'train.export': False,
  'train.checkpoint_every': 1,
  'sampling.max_tokens': 16,
}


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """Where all these runs keep their compiled programs."""
  return tmp_path_factory.mktemp('home')


def command(workdir: pathlib.Path | str, values: dict, config: str = 'quickstart') -> list[str]:
  words = [f'--config.{key}={json.dumps(v) if v is None else v}' for key, v in values.items()]
  return [
    sys.executable, 'main.py', f'--config=configs/{config}.py', f'--workdir={workdir}', *words,
  ]  # fmt: skip


def begin(home: pathlib.Path, words: list[str] | str, **options) -> subprocess.Popen:
  quick = {'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true', 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'}
  return subprocess.Popen(
    words,
    cwd=options.pop('cwd', ROOT),
    env=os.environ | quick | {'XDG_CACHE_HOME': str(home)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
    **options,
  )


def within(size: int, words: list[str]) -> list[str]:
  """The command with a limit on the size of its files, in bytes; without a fork of this process."""
  code = (
    'import os, resource, sys; '
    f'resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); '
    'os.execv(sys.argv[1], sys.argv[1:])'
  )
  return [sys.executable, '-c', code, *words]


def run(home: pathlib.Path, words: list[str] | str, **options) -> tuple[int, str]:
  """(exit code, what it said)."""
  process = begin(home, words, **options)
  said, _ = process.communicate(timeout=240)
  return process.returncode, said


def rows(workdir: pathlib.Path) -> list[dict]:
  return [repeatable(row) for row in read_metrics(workdir / 'metrics.jsonl')]


def content(workdir: pathlib.Path) -> dict[str, bytes]:
  """Every file but the heartbeat."""
  return {
    str(path.relative_to(workdir)): path.read_bytes()
    for path in sorted(workdir.rglob('*'))
    if path.is_file() and not path.name.startswith('heartbeat')
  }


@pytest.fixture(scope='module')
def whole(home, tmp_path_factory):
  """The undisturbed run of four iterations."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  code, said = run(home, command(workdir, TRAIN))
  assert code == 0, said
  assert len(rows(workdir)) == 4
  return workdir


@pytest.fixture
def half(home, tmp_path):
  """A run that made two of them, with the checkpoints 1 and 2."""
  code, said = run(home, command(tmp_path / 'run', TRAIN | {'train.iterations': 2}))
  assert code == 0, said
  return tmp_path / 'run'


def flip_one_bit(step: pathlib.Path) -> None:
  files = (path for path in step.rglob('*') if path.is_file())
  path = max(files, key=lambda path: path.stat().st_size)
  raw = bytearray(path.read_bytes())
  raw[len(raw) // 2] ^= 4
  path.write_bytes(raw)


def test_a_corrupt_last_checkpoint_gives_way_to_the_one_before(home, whole, half):
  flip_one_bit(half / 'checkpoints' / '2')
  code, said = run(home, command(half, TRAIN))
  assert code == 0, said
  assert 'checkpoint 2 cannot be read' in said
  assert 'resumed at iteration 1' in said
  assert rows(half) == rows(whole)
  assert (half / 'checkpoints' / '2.damaged').is_dir()


def test_where_no_checkpoint_can_be_read_nothing_is_touched(home, half):
  for step in ('1', '2'):
    flip_one_bit(half / 'checkpoints' / step)
  before = content(half)
  code, said = run(home, command(half, TRAIN))
  assert code == 2, said
  assert re.search(r'error: no checkpoint in .* can be read \(step 2: .*step 1: .*--workdir', said)
  assert content(half) == before


def test_a_checkpoint_of_another_config_is_refused_and_nothing_is_touched(home, half):
  before = content(half)
  code, said = run(home, command(half, TRAIN | {'train.group': 4}))
  assert code == 2, said
  assert 'is of another config (train.group: 8 -> 4); give the old values, or another' in said
  assert 'Traceback' not in said
  assert content(half) == before
  beat = json.loads((half / 'heartbeat.json').read_text())
  assert beat['state'] == 'failed'


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(home, whole, half):
  """A limit on the size of files stands in for the full disk; metrics still fit, arrays do not."""
  before = {key: raw for key, raw in content(half).items() if key.startswith('checkpoints/')}
  code, said = run(home, within(40_000, command(half, TRAIN)))
  assert code == 2, said
  assert 'error: a checkpoint could not be written to' in said
  assert '(last: step 2); make room there' in said
  after = content(half)
  assert {key: after[key] for key in before} == before
  code, said = run(home, command(half, TRAIN))
  assert code == 0, said
  assert rows(half) == rows(whole)


def test_a_disk_without_any_room_is_told_and_nothing_is_touched(home, whole, half):
  before = content(half)
  code, said = run(home, within(1000, command(half, TRAIN)))
  assert code == 2, said
  assert re.search(r'error: .*cannot write .*config\.json .*; make room there', said)
  assert content(half) == before
  code, said = run(home, command(half, TRAIN))
  assert code == 0, said
  assert rows(half) == rows(whole)


def test_a_directory_that_cannot_be_written_is_told(home, tmp_path):
  for workdir in ('/proc/run', tmp_path / 'file' / 'run'):
    (tmp_path / 'file').write_text('')
    code, said = run(home, command(workdir, TRAIN))
    assert code == 2, said
    assert f"error: workdir='{workdir}' cannot be written" in said
    assert 'give a writable place by --workdir=PATH' in said


# SIGTERM: saved, exit code 0, and the line it says goes on


def terminate(home: pathlib.Path, words: list[str], ready) -> str:
  """Starts, sends SIGTERM when ready() first holds; what it said. It has to end with 0."""
  process = begin(home, words)
  end = time.monotonic() + 200
  while not ready() and process.poll() is None:
    assert time.monotonic() < end
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  said, _ = process.communicate(timeout=120)
  assert process.returncode == 0, said
  assert 'Traceback' not in said
  return said


def resume(home: pathlib.Path, said: str) -> str:
  """Runs the line that was said, from another directory."""
  (line,) = set(re.findall(r'to go on: (cd .*)$', said, flags=re.MULTILINE))
  code, more = run(home, ['bash', '-c', line], cwd='/')
  assert code == 0, more
  return more


def lines(path: pathlib.Path) -> int:
  return path.read_bytes().count(b'\n') if path.exists() else 0


def test_a_terminated_training_ends_with_0_and_its_line_goes_on(home, whole, tmp_path):
  workdir = tmp_path / 'a run'  # the line has to quote it
  values = TRAIN | {'train.checkpoint_every': 100}
  said = terminate(home, command(workdir, values), lambda: lines(workdir / 'metrics.jsonl') >= 1)
  assert re.search(r'saved at iteration [123]; to go on', said)
  assert 1 <= len(rows(workdir)) < 4
  assert 'resumed at iteration' in resume(home, said)
  assert rows(workdir) == rows(whole)


def test_a_terminated_fine_tuning_ends_with_0_and_its_line_goes_on(home, tmp_path):
  values = TRAIN | {'job': 'distill', 'distill.steps': 60, 'distill.eval_every': 0}
  values['distill.export'] = True
  code, said = run(home, command(tmp_path / 'whole', values))
  assert code == 0, said
  workdir = tmp_path / 'run'
  said = terminate(home, command(workdir, values), lambda: lines(workdir / 'metrics.jsonl') >= 3)
  assert re.search(r'saved at step \d+; to go on', said)
  resume(home, said)
  assert rows(workdir) == rows(tmp_path / 'whole')
  assert (workdir / 'model' / 'model.safetensors').exists()

  # and a measurement of what came out of it
  values = {
    'job': 'evaluate', 'model.name': str(workdir / 'model'), 'evaluate.n': 2048,
    'evaluate.problems': 0, 'evaluate.flush_s': 0.2, 'evaluate.bootstrap': 200,
    **{key: v for key, v in loops.TINY.items() if key.startswith(('task.', 'sampling.'))},
  }  # fmt: skip
  measured = tmp_path / 'measured'
  shards = measured / 'samples'
  said = terminate(home, command(measured, values), lambda: any(shards.rglob('part-*.parquet')))
  found = re.search(r'kept ([\d,]+) of ([\d,]+) samples', said)
  assert found
  kept, all_of = (int(text.replace(',', '')) for text in found.groups())
  assert 0 < kept < all_of == 4 * 2048
  assert not (measured / 'report.html').exists()
  more = resume(home, said)
  assert f'{all_of:,} samples of 4 problems are stored' in more
  assert (measured / 'report.html').exists()


def test_a_terminated_study_ends_with_0_and_goes_on_in_its_stage(home, tmp_path):
  values = {key: v for key, v in loops.TINY.items() if key != 'train.eval_every'}
  values |= {
    'evaluate.problems': 0,
    'distill.steps': 4000,
    'distill.eval_every': 0,
    'distill.checkpoint_every': 10_000,
  }
  workdir = tmp_path / 'study'
  metrics = workdir / 'base' / 'metrics.jsonl'
  said = terminate(home, command(workdir, values), lambda: lines(metrics) >= 5)
  assert re.search(r'saved at step (\d+)', said)
  assert 'stopped in the middle of base; to go on: cd' in said
  known = lines(metrics)
  beat = json.loads((workdir / 'heartbeat.json').read_text())
  assert (beat['state'], beat['stage']) == ('ended', 'base')
  (line,) = set(re.findall(r'to go on: cd \S+ && (.*)$', said, flags=re.MULTILINE))
  words = line.split()
  said = terminate(home, words, lambda: lines(metrics) > known + 5)
  assert f'resumed at step {known}' in said
