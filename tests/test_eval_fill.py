"""A sampling run says what it will cost and where it is, and loses nothing to disks and signals."""

import errno
import logging
import os
import random
import re
import signal
import types

import pytest
from fakes import FakeEngine, fill, stored

from rlvr_jax.eval import fill as fill_lib
from rlvr_jax.eval import samples as samples_lib
from rlvr_jax.eval import shards
from rlvr_jax.eval.stopping import Rule
from rlvr_jax.tasks import journal
from rlvr_jax.tasks.problem import Verdict

TABLE = [[i % 3 == 0 for i in range(100)] for _ in range(4)]
RULE = Rule(100)
ALL = {(f'p{p}', s) for p in range(4) for s in range(100)}


@pytest.fixture(scope='module', autouse=True)
def quick_disk():
  """Nobody pulls the plug of this machine: the kernel's buffers are durable enough."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('os.fsync', lambda handle: None)
    yield


def engine(kill=lambda count: None, **options):
  return FakeEngine(random.Random(0), kill=kill, **options)


def full_disk(*args, **kwargs):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_pilot_is_stored_and_its_price_said_before_the_rest(tmp_path, capsys):
  store = fill(tmp_path, RULE, TABLE, engine(), show=True, pilot_only=True)
  text = capsys.readouterr().err
  assert 'pilot: 4 of the 400 samples to draw' in text
  assert re.search(
    r'still to come:\n  samples  396\n  tokens   792 \(\S+ to 792\); 2 a sample', text
  )
  assert re.search(r'\n  time     .*\n  disk     \S+ KiB of \S+ GiB free\n  ranges: 95%', text)
  assert stored(store) == {(f'p{p}', 0) for p in range(4)}
  rest = engine()
  fill(tmp_path, RULE, TABLE, rest)
  assert stored(store) == ALL
  assert not set(rest.pulled) & {(p, 0) for p in range(4)}


def test_the_progress_line_says_what_a_person_wants_to_know(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(fill_lib, 'SHOWN_EVERY_S', 0.0)
  fill(tmp_path, RULE, TABLE, engine(), show=True)
  lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith('sampling base ')]
  assert len(lines) == 2  # the first and the last: the others come every 5 s
  pattern = r'sampling base 400/400  ETA 0s  tokens/s [\d,.]+  occupancy [01][.\d]*  avg@n 0\.34'
  assert re.fullmatch(pattern, lines[-1]), lines[-1]


def test_early_stopping_says_what_it_threw_away(tmp_path, capsys):
  table = [[i == 30 for i in range(100)] for _ in range(4)]
  store = fill(tmp_path, Rule(100, 2, 1), table, engine(ahead=40), show=True)
  text = capsys.readouterr().err
  assert len(stored(store)) == 4 * 31
  assert 'samples  4 to 396: how early problems stop, a pilot cannot say' in text
  said = re.search(
    r'4 of 4 problems stopped before 100; beyond their ends (\d+) samples of (\d+) tokens were '
    r'drawn and discarded, (\d+) left unfinished',
    text,
  )
  assert said
  completions, tokens, unfinished = (int(x) for x in said.groups())
  assert tokens == 2 * completions
  assert completions + unfinished > 0


def test_a_finished_store_draws_nothing(tmp_path, capsys):
  fill(tmp_path, RULE, TABLE, engine())
  again = engine()
  fill(tmp_path, RULE, TABLE, again, show=True)
  assert again.pulled == []
  assert capsys.readouterr().err == ('sampling base: all 400 samples are stored, nothing to draw\n')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('rule', [RULE, Rule(100, 50, 60)])
def test_a_signal_keeps_what_was_drawn(tmp_path, number, rule):
  def interrupt(count):
    if count == 60:
      os.kill(os.getpid(), number)

  handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
  with pytest.raises(fill_lib.Stopped, match=r'kept \d+ of 400 samples; the same command goes on'):
    fill(tmp_path, rule, TABLE, engine(interrupt))
  assert handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
  rest = engine()
  store = fill(tmp_path, rule, TABLE, rest)
  assert stored(store) == ALL
  assert len(rest.pulled) <= 400 - 60  # of those yielded none is drawn again


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path, monkeypatch, caplog):
  write, failed = shards.pq.write_table, []

  def sometimes(*args, **kwargs):
    if len(failed) < 6:
      failed.append(1)
      full_disk()
    write(*args, **kwargs)

  monkeypatch.setattr(shards.pq, 'write_table', sometimes)
  once = engine()
  with caplog.at_level(logging.WARNING):
    store = fill(tmp_path, RULE, TABLE, once, flush_s=0.0)
  assert len(failed) == 6
  assert 'No space left on device' in caplog.text
  assert 'Sampling goes on: 5 samples wait in memory' in caplog.text
  assert stored(store) == ALL
  assert len(once.pulled) == 400


def test_a_disk_that_stays_full_ends_the_run_with_what_to_do(tmp_path, monkeypatch):
  def fails(count):
    if count == 50:
      monkeypatch.setattr(shards.pq, 'write_table', full_disk)

  with pytest.raises(shards.StoreError, match=r'cannot write \d+ samples to .*free some space'):
    fill(tmp_path, RULE, TABLE, engine(fails), flush_s=0.0)
  monkeypatch.undo()
  rest = engine()
  store = fill(tmp_path, RULE, TABLE, rest)
  assert stored(store) == ALL
  assert len(rest.pulled) == 400 - 50 - 4  # what was on the disk is not drawn again


def test_a_disk_too_small_for_the_bulk_is_found_after_the_pilot(tmp_path, monkeypatch):
  monkeypatch.setattr(
    samples_lib.shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=8192)
  )
  with pytest.raises(shards.StoreError, match=r'0 MiB free but about \d+ MiB of samples are to'):
    fill(tmp_path, RULE, TABLE, engine())
  monkeypatch.undo()
  assert len(stored(samples_lib.SampleStore(tmp_path))) == 4


def test_a_journal_on_a_full_disk_keeps_its_verdicts(tmp_path, caplog):
  book = journal.Journal(tmp_path / 'verdicts.jsonl')
  whole = book._file

  class Full:
    def write(self, data):
      full_disk()

  book.add([(b'a' * 16, Verdict('correct', 1.0))])
  book._file = Full()
  book.add([(b'b' * 16, Verdict('wrong', 0.0))])
  book._file = whole
  book.add([(b'c' * 16, Verdict('timeout', 0.0))])
  book.close()
  assert caplog.text.count('does not take verdicts (') == 1
  again = journal.Journal(tmp_path / 'verdicts.jsonl')
  again.close()
  assert [again.get(key * 16).verdict for key in (b'a', b'b', b'c')] == [
    'correct', 'wrong', 'timeout',
  ]  # fmt: skip
