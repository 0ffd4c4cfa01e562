"""Metric rows survive kills and resumes; progress tells the time to go."""

import contextlib
import io
import json
import math
import sys
import time
import types

import numpy as np
import pytest

from rlvr_jax import metrics


def test_rows_come_back_as_written(tmp_path):
  rows = [
    (0, {'reward/mean': 0.5, 'note': 'start', 'n': np.int32(3)}),
    (4, {'loss': math.nan, 'high': math.inf, 'low': np.float32(-np.inf), 'ok': np.bool_(True)}),
  ]
  with metrics.MetricsWriter(tmp_path, tensorboard=False) as writer:
    for step, values in rows:
      writer.write(step, values)
  found = metrics.read_metrics(tmp_path / 'metrics.jsonl')
  assert found[0] == {'step': 0, 'reward/mean': 0.5, 'note': 'start', 'n': 3}
  assert math.isnan(found[1].pop('loss'))
  assert found[1] == {'step': 4, 'high': math.inf, 'low': -math.inf, 'ok': True}
  for line in (tmp_path / 'metrics.jsonl').read_text().splitlines():
    json.loads(line, parse_constant=pytest.fail)


def test_each_row_is_on_disk_at_once(tmp_path):
  writer = metrics.MetricsWriter(tmp_path, tensorboard=False)
  writer.write(1, {'a': 1.0})
  assert metrics.read_metrics(tmp_path / 'metrics.jsonl') == [{'step': 1, 'a': 1.0}]
  writer.close()


def test_resume_drops_rows_after_the_checkpoint_and_the_torn_line(tmp_path):
  with metrics.MetricsWriter(tmp_path, tensorboard=False) as writer:
    for step in range(5):
      writer.write(step, {'a': step})
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"step": 5, "a"')
  with metrics.MetricsWriter(tmp_path, tensorboard=False, resume_step=2) as writer:
    writer.write(3, {'a': 30})
  assert [row['a'] for row in metrics.read_metrics(path)] == [0, 1, 2, 30]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 0}\n{"step"\n{"step": 2}\n')
  with pytest.raises(ValueError, match=r'metrics.jsonl, line 2 is no JSON row'):
    metrics.read_metrics(path)


def test_steps_go_forward_only(tmp_path):
  with (
    metrics.MetricsWriter(tmp_path, tensorboard=False, resume_step=3) as writer,
    pytest.raises(AssertionError, match='metrics of step 3 after those of step 3'),
  ):
    writer.write(3, {'a': 1})


def test_a_full_disk_is_told_with_the_file(tmp_path):
  with metrics.MetricsWriter(tmp_path, tensorboard=False) as writer:
    writer.write(0, {'a': 1.0})
    with open('/dev/full', 'w') as full:
      writer._file, file = full, writer._file
      with pytest.raises(OSError, match=r'cannot write .*metrics.jsonl \(No space.*make room'):
        writer.write(1, {'a': 2.0})
      writer._file = file
      with contextlib.suppress(OSError):  # what it could not write, at its end
        full.close()
  assert metrics.read_metrics(tmp_path / 'metrics.jsonl') == [{'step': 0, 'a': 1.0}]


def test_disabled_writer_leaves_nothing(tmp_path):
  with metrics.MetricsWriter(tmp_path, enabled=False) as writer:
    writer.write(0, {'a': 1})
  assert not list(tmp_path.iterdir())


def test_tensorboard_events_are_written(tmp_path):
  with metrics.MetricsWriter(tmp_path) as writer:
    writer.write(0, {'a': 1.0, 'text': 'kept out'})
  (event,) = (tmp_path / 'tensorboard' / 'metrics').iterdir()
  assert event.stat().st_size > 0


def test_wandb_gets_the_scalars_of_one_run_across_resumes(tmp_path, monkeypatch):
  log = []

  class Run:
    def __init__(self, **keywords):
      log.append(keywords['id'])

    def log(self, values, step):
      log.append((step, values))

    def finish(self):
      log.append('finished')

  monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=Run))
  for resume_step in (-1, 0):
    with metrics.MetricsWriter(
      tmp_path, tensorboard=False, wandb=True, resume_step=resume_step
    ) as writer:
      writer.write(resume_step + 1, {'a': 1.5, 'text': 'kept out'})
  assert log == [log[0], (0, {'a': 1.5}), 'finished', log[0], (1, {'a': 1.5}), 'finished']


def test_wandb_without_its_package_says_what_to_do(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(ValueError, match=r'metrics.wandb=True needs .*rlvr_jax\[wandb\]'):
    metrics.MetricsWriter(tmp_path, tensorboard=False, wandb=True)


def test_meter_goes_on_where_it_was():
  meter = metrics.Meter({'seconds': 100.0})
  time.sleep(0.01)
  assert 100.0 < meter.state()['seconds'] < 110.0
  assert metrics.Meter().seconds < 10.0


def test_plain_progress_prints_first_last_and_now_and_then():
  stream = io.StringIO()
  with metrics.Progress(10, 'train', stream=stream, plain_every_s=1e9) as progress:
    for i in range(1, 11):
      progress.update(i, {'reward': 0.25})
    progress.note('saved')
  lines = stream.getvalue().splitlines()
  assert lines[0].startswith('train 1/10  ETA ?  reward 0.25')
  assert lines[1:] == ['train 10/10  ETA 0s  reward 0.25', 'saved']


def test_a_total_that_falls_ends_the_line_and_large_numbers_are_grouped():
  stream = io.StringIO()
  with metrics.Progress(100, 'sampling', stream=stream, plain_every_s=1e9) as progress:
    progress.update(1, {'tokens/s': 12_345.6})
    progress.update(40, {'tokens/s': 999.44}, total=50)
    progress.update(50, total=50)
  assert stream.getvalue().splitlines() == [
    'sampling 1/100  ETA ?  tokens/s 12,346',
    'sampling 50/50  ETA 0s',
  ]


def test_terminal_progress_shows_a_bar():
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  stream = Terminal()
  with metrics.Progress(2, 'train', stream=stream) as progress:
    progress.update(2, {'reward': 0.5})
    progress.note('a [line] of its own')
  assert '2/2' in stream.getvalue()
  assert 'a [line] of its own' in stream.getvalue()


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(None, '?'), (6.7, '7s'), (187, '3m07s'), (7500, '2h05m'), (274_000, '3d04h')],
)
def test_seconds_are_readable(seconds, text):
  assert metrics.format_seconds(seconds) == text
