"""A run says that it is alive and where it hangs; what moves is left alone."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from rlvr_jax import graceful, paths, watch
from rlvr_jax.eval.drawn import exit_when_stopped
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.rl import utilisation

ROOT = pathlib.Path(__file__).resolve().parent.parent


def beat(workdir: pathlib.Path, process: int = 0) -> dict:
  name = f'heartbeat-{process}.json' if process else 'heartbeat.json'
  return json.loads((workdir / name).read_text())


def wait_for(condition, seconds: float = 10.0):
  """Polls until the condition holds; its value."""
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    if found := condition():
      return found
    time.sleep(0.02)
  raise AssertionError('it never came')


def test_a_heartbeat_tells_phase_iteration_process_and_end(tmp_path):
  with watch.Watch(tmp_path, process=3):
    first = beat(tmp_path, 3)
    assert first['state'] == 'running'
    assert (first['pid'], first['process'], first['phase']) == (os.getpid(), 3, 'start')
    watch.note(iteration=7)
    with watch.phase('sample'):
      wait_for(lambda: beat(tmp_path, 3)['phase'] == 'sample')
      assert beat(tmp_path, 3)['iteration'] == 7
    wait_for(lambda: beat(tmp_path, 3)['phase'] == 'start')
  last = beat(tmp_path, 3)
  assert last['state'] == 'ended'
  assert first['time'] <= last['time'] <= time.time()
  assert [path.name for path in tmp_path.iterdir()] == ['heartbeat-3.json']  # no part left over


def test_a_heartbeat_comes_without_any_news(tmp_path):
  with watch.Watch(tmp_path, beat_s=0.05):
    before = beat(tmp_path)['time']
    wait_for(lambda: beat(tmp_path)['time'] > before + 0.3)
    assert beat(tmp_path)['moved_s_ago'] >= 0.1


@pytest.mark.parametrize(
  ('error', 'state'),
  [(ValueError('x'), 'failed'), (SystemExit(0), 'ended'), (SystemExit(2), 'failed')],
)
def test_a_heartbeat_tells_how_it_ended(tmp_path, error, state):
  with pytest.raises(type(error)), watch.Watch(tmp_path):
    raise error
  assert beat(tmp_path)['state'] == state


def test_a_heartbeat_that_cannot_be_written_is_told_once(tmp_path, caplog):
  with watch.Watch(tmp_path / 'gone', beat_s=0.05):
    (tmp_path / 'gone').rename(tmp_path / 'away')  # at once: it may be being written to
    time.sleep(0.6)
  assert caplog.text.count('no heartbeat in') == 1


def standing_still(seconds: float) -> None:
  time.sleep(seconds)


def test_a_standstill_leaves_all_stacks_once_and_names_the_function(tmp_path, caplog):
  with watch.Watch(tmp_path, hang_seconds=0.3):
    with watch.phase('verify'):
      standing_still(1.5)
    assert len(list(tmp_path.glob('stacks-*.txt'))) == 1
    watch.tick()  # moves on: the next standstill is another
  text = next(tmp_path.glob('stacks-*.txt')).read_text()
  assert 'nothing has moved for' in text
  assert 'phase verify' in text.splitlines()[0]
  assert 'in standing_still' in text
  assert 'in _serve' in text  # the watch's own thread: it is all of them
  assert 'standing_still' in caplog.text


def test_what_moves_leaves_no_stacks(tmp_path):
  with watch.Watch(tmp_path, hang_seconds=0.5):
    for _ in range(15):
      time.sleep(0.1)
      watch.tick()
  assert not list(tmp_path.glob('stacks-*'))


HANGS = """
import sys, threading, time
from rlvr_jax import watch
{more}
with watch.Watch(sys.argv[1], hang_seconds=0.3, leave=True):
  {stop}
print('not reached')
"""


def test_a_process_that_hangs_leaves_where_it_is_asked_to(tmp_path):
  code = HANGS.format(more='', stop='time.sleep(60)')
  done = subprocess.run(
    [sys.executable, '-c', code, tmp_path], cwd=ROOT, timeout=60, check=False, capture_output=True
  )
  assert done.returncode == watch.EXIT_HUNG
  assert not done.stdout
  assert beat(tmp_path)['state'] == 'hung'
  assert list(tmp_path.glob('stacks-*.txt'))


def test_a_thread_that_holds_pythons_lock_is_seen_too(tmp_path):
  """A C call that gives nothing up: no Python thread runs, the stacks come on stderr."""
  more = textwrap.dedent("""
    import ctypes, faulthandler
    later = faulthandler.dump_traceback_later
    faulthandler.dump_traceback_later = lambda s, **k: later(s - 59, **k)  # not after a minute
  """)
  stop = 'time.sleep(0.05); ctypes.PyDLL(None).sleep(4)'
  code = HANGS.format(more=more, stop=stop)
  done = subprocess.run(
    [sys.executable, '-c', code, tmp_path],
    cwd=ROOT, timeout=60, check=False, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode != 0
  assert 'Timeout (' in done.stderr
  assert '<module>' in done.stderr


# MFU, FLOPs, memory


def test_peaks_by_device_kind():
  kinds = {
    'NVIDIA H100 80GB HBM3': 989e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H200': 989e12,
    'NVIDIA A100-SXM4-80GB': 312e12,
    'TPU v5 lite': 197e12,
    'TPU v5p': 459e12,
    'TPU v5': 459e12,
    'TPU v6 lite': 918e12,
    'cpu': None,
    'NVIDIA GeForce RTX 4090': None,
  }
  assert {kind: utilisation.peak_flops(kind) for kind in kinds} == kinds
  assert utilisation.peak_flops('cpu', 5e11) == 5e11


MODEL = ModelConfig('qwen2', 64, 32, 80, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8)


def test_flops_are_those_of_the_products():
  """Against a count of the multiplications of a forward pass, one by one."""
  c, T = MODEL, 11
  one = utilisation.per_token(c)
  layer = c.embed_dim * c.head_dim * (c.num_heads + 2 * c.num_kv_heads)  # q, k, v
  layer += c.num_heads * c.head_dim * c.embed_dim + 3 * c.embed_dim * c.mlp_dim  # o; gate, up, down
  keys = sum(t + 1 for t in range(T))  # causal
  attention = 2 * c.num_heads * c.head_dim * keys  # scores and values
  expected = 2 * (c.num_layers * (T * layer + attention) + T * c.embed_dim * c.vocab_size)
  assert one.forward(np.array([T])) == pytest.approx(expected, rel=1e-12)
  # token by token they are as many as at once, and a shared prompt is computed once
  assert one.decode(np.array([4]), np.array([7])) == pytest.approx(
    one.forward(np.array([11])) - one.forward(np.array([4]))
  )
  two = utilisation.sample_flops(one, np.array([4, 4]), np.array([7, 2]), [0])
  assert two == pytest.approx(one.forward(np.array([11, 6])) - one.forward(np.array([4])))
  step = {'epochs': 1, 'scored': 0, 'adapters': False}
  full = utilisation.learn_flops(one, np.array([T, T]), **step)
  assert full == pytest.approx(6 * expected)
  assert utilisation.learn_flops(
    one, np.array([T]), epochs=2, scored=1, adapters=True
  ) == pytest.approx(5 * expected)


def test_mfu_is_told_only_against_a_known_peak():
  row = {'seconds/learn': 2.0, 'seconds/sample': 0.0}
  given = {'learn': 8e12, 'sample': 1e12}
  found = utilisation.rates(given, row, kind='cpu', devices=2, peak=0.0)
  assert found == {'machine/tflops/learn': 2.0}
  found = utilisation.rates(given, row, kind='NVIDIA H100 80GB HBM3', devices=2, peak=0.0)
  assert found['machine/mfu/learn'] == pytest.approx(2e12 / 989e12)
  found = utilisation.rates(given, row, kind='cpu', devices=2, peak=4e12)
  assert found['machine/mfu/learn'] == pytest.approx(0.5)


def test_the_code_of_who_saved_and_left_tells_the_signal(capsys):
  for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
    with graceful.GracefulExit() as asked:
      signal.raise_signal(number)
      assert asked.requested
    with pytest.raises(SystemExit) as ended, exit_when_stopped():
      raise graceful.Stopped('kept 3 of 4')
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert 'kept 3 of 4' in said
    assert f'to go on: cd {os.getcwd()} && {sys.executable}' in said


def test_write_whole_leaves_the_old_file_where_the_new_one_does_not_fit(tmp_path):
  path = tmp_path / 'state.json'
  paths.write_whole(path, 'old')
  (tmp_path / '.state.json.part').mkdir()  # in the way
  with pytest.raises(OSError, match='cannot write'):
    paths.write_whole(path, 'new')
  assert path.read_text() == 'old'
