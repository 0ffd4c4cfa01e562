"""A verifier that hangs, dies, eats the memory or shouts costs one verdict, and only its own."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem, Verdict

FILE = pathlib.Path(__file__).parent / 'fixtures' / 'tasks' / 'bad_verifiers.py'
LIMIT = 1.5


def problem(function, answer='a', identity='1'):
  return Problem(identity, 'test', 'q', answer, {'verifier': f'{FILE}:{function}'})


@pytest.fixture(scope='module')
def pool():
  with VerifierPool(workers=2, limit_s=LIMIT, memory_mb=2048) as pool:
    yield pool


BAD = {
  'sleep': ('timeout', 'no verdict within 1.5 s'),
  'loop': ('timeout', 'no verdict within 1.5 s'),
  'lock': ('timeout', 'no verdict within 1.5 s'),
  'exit': ('error', 'the worker left with exit code 7'),
  'memory': ('error', 'MemoryError'),
  'raise': ('error', "KeyError: 'no such thing' (bad_verifiers.py:"),
  'sys.exit': ('error', 'SystemExit: 3'),
  'nan': ('error', 'it must be finite'),
  'string': ('error', 'return a Verdict, a bool or a number'),
  'spam': ('wrong', ''),
  'read': ('wrong', ''),
}


def test_one_bad_job_costs_one_verdict(pool):
  texts = []
  for i, bad in enumerate(BAD):
    texts += ['a', bad, f'b{i}']
  verdicts = pool.verify([(problem('on_demand'), text) for text in texts])
  for text, verdict in zip(texts, verdicts, strict=True):
    if text in BAD:
      name, reason = BAD[text]
      assert verdict.verdict == name, (text, verdict)
      assert verdict.reward == 0.0
      assert reason in verdict.reason, (text, verdict)
    else:
      right = text == 'a'
      assert verdict == Verdict('correct' if right else 'wrong', float(right), text)


def test_verdicts_come_in_the_order_of_the_jobs_whatever_that_order(pool):
  problems = [problem('equal', str(i % 7), str(i)) for i in range(500)]
  jobs = [(p, str(i % 11)) for i, p in enumerate(problems)]
  forward = pool.verify(jobs)
  with VerifierPool(workers=1) as other:
    backward = other.verify(jobs[::-1])
  assert forward == backward[::-1]
  assert [v.verdict == 'correct' for v in forward] == [i % 7 == i % 11 for i in range(500)]


def test_what_earlier_jobs_left_behind_decides_nothing(pool):
  jobs = [(problem('dies_after_others'), str(i)) for i in range(10)]
  assert {v.verdict for v in pool.verify(jobs)} == {'correct'}


def test_equal_jobs_are_judged_once(pool):
  same = problem('pid', identity='same')
  first, second = pool.submit(same, 'x'), pool.submit(same, 'x')
  assert first.result() == second.result() == pool.verify([(same, 'x')])[0]
  with VerifierPool(workers=1) as other:  # a new process would give another id
    assert other.verify([(same, 'x')]) != [first.result()]


def test_another_answer_is_another_job(pool):
  assert pool.verify([(problem('equal', 'a'), 'a')])[0].verdict == 'correct'
  assert pool.verify([(problem('equal', 'b'), 'a')])[0].verdict == 'wrong'


def test_users_may_return_a_bool_or_a_number(pool):
  verdicts = pool.verify([(problem('yes'), 'x'), (problem('half'), 'x')])
  assert verdicts == [Verdict('correct', 1.0), Verdict('wrong', 0.5)]


def test_workers_do_not_import_what_no_verifier_asked_for():
  with VerifierPool(workers=1) as pool:
    assert pool.verify([(problem('modules'), 'x')])[0].extracted == ''


def test_verifiers_that_cannot_be_loaded_are_errors_of_the_user(pool):
  with pytest.raises(ValueError, match=r"has no function 'nope'; it defines .*equal"):
    pool.verify([(problem('nope'), 'x')])
  with pytest.raises(ValueError, match=r'there is no file .*nowhere\.py'):
    pool.verify([(Problem('1', 't', 'q', 'a', {'verifier': 'nowhere.py:f'}), 'x')])
  with pytest.raises(ValueError, match="did you mean 'math'"):
    pool.verify([(Problem('1', 't', 'q', 'a', {'verifier': 'maths'}), 'x')])
  with pytest.raises(ValueError, match=r'problem t/1: answer and meta must be JSON values'):
    pool.verify([(Problem('1', 't', 'q', object(), {}), 'x')])
  assert pool.verify([(problem('equal'), 'a')])[0].verdict == 'correct'  # and go on


def test_lone_surrogates_and_long_completions_pass(pool):
  text = '\ud800' + 'x' * 1_000_000
  assert pool.verify([(problem('equal', text), text)])[0].verdict == 'correct'


def test_journal_decides_a_timeout_once_and_survives_a_torn_line(tmp_path):
  path = tmp_path / 'deep' / 'verdicts.jsonl'
  jobs = [(problem('on_demand'), text) for text in ('a', 'sleep', 'exit')] + [(problem('pid'), '1')]
  with VerifierPool(workers=2, limit_s=0.5, journal=path) as pool:
    first = pool.verify(jobs)
  assert [v.verdict for v in first] == ['correct', 'timeout', 'error', 'correct']
  whole = path.read_bytes()
  path.write_bytes(whole + b'["0123", "cor')
  start = time.monotonic()
  with VerifierPool(workers=2, limit_s=1000.0, journal=path) as pool:
    assert pool.verify(jobs) == first
    assert path.read_bytes() == whole  # nothing new but what is no judgement: errors are tried anew
    pool.verify([(problem('on_demand'), 'new')])
  assert time.monotonic() - start < 60
  rows = [json.loads(line) for line in path.read_bytes().splitlines()]
  assert [row[1] for row in rows].count('error') == 0
  assert len(rows) == 4


def test_a_damaged_journal_names_the_line(tmp_path):
  path = tmp_path / 'verdicts.jsonl'
  path.write_text('["00", "correct", 1.0, "", ""]\nnonsense\n["01", "wrong", 0.0, "", ""]\n')
  with pytest.raises(ValueError, match=r'verdicts.jsonl:2: not a verdict'):
    VerifierPool(journal=path)


def test_closing_cancels_what_is_not_judged():
  pool = VerifierPool(workers=1, limit_s=1000.0)
  running = pool.submit(problem('on_demand'), 'sleep')
  waiting = [pool.submit(problem('on_demand'), f'{i}') for i in range(5)]
  time.sleep(0.5)
  start = time.monotonic()
  pool.close()
  assert time.monotonic() - start < 30
  assert running.cancelled()
  assert all(future.done() for future in waiting)
  with pytest.raises(RuntimeError, match='closed'):
    pool.submit(problem('equal'), 'a')


def test_bad_arguments_name_the_key():
  with pytest.raises(ValueError, match='workers=0'):
    VerifierPool(workers=0)
  with pytest.raises(ValueError, match='limit_s=-1'):
    VerifierPool(limit_s=-1)
  with pytest.raises(ValueError, match='memory_mb=-5'):
    VerifierPool(memory_mb=-5)


def test_a_worker_that_cannot_start_says_what_it_printed():
  with (
    VerifierPool(workers=1, memory_mb=8) as pool,
    pytest.raises(RuntimeError, match=r'did not start .*memory_mb=8'),
  ):
    pool.verify([(problem('equal'), 'a')])


PARENT = """
import sys
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
with VerifierPool(workers=2, limit_s=0.5 if sys.argv[2] == 'lock' else 100.0) as pool:
  problem = Problem('1', 't', 'q', 'a', {'verifier': sys.argv[1] + ':pid'})
  print(*{v.extracted for v in pool.verify([(problem, str(i)) for i in range(50)])}, flush=True)
  hang = Problem('1', 't', 'q', 'a', {'verifier': sys.argv[1] + ':on_demand'})
  pool.verify([(hang, sys.argv[2])] * 2)
"""


def alive(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  # A zombie waits for whoever inherited it; it runs no more.
  stat = pathlib.Path(f'/proc/{pid}/stat')
  return not (stat.exists() and stat.read_text().rpartition(')')[2].split()[0] == 'Z')


@pytest.mark.parametrize('deed', ['loop', 'lock'])
def test_no_worker_outlives_a_killed_parent(deed):
  root = str(FILE.parents[3])
  parent = subprocess.Popen(
    [sys.executable, '-c', PARENT, str(FILE), deed],
    stdout=subprocess.PIPE,
    env={**os.environ, 'PYTHONPATH': root},
  )
  assert parent.stdout is not None
  with parent.stdout:
    pids = [int(pid) for pid in parent.stdout.readline().split()]
  assert pids
  time.sleep(0.2)  # the hanging job is in hand
  parent.send_signal(signal.SIGKILL)
  parent.wait()
  until = time.monotonic() + 60  # 'lock' ends by the kernel's timer, 2 x limit + 5 s
  while any(alive(pid) for pid in pids) and time.monotonic() < until:
    time.sleep(0.1)
  assert not any(alive(pid) for pid in pids)


def test_many_threads_may_submit(pool):
  results: dict[int, str] = {}

  def one(i):
    results[i] = pool.submit(problem('equal', str(i)), str(i)).result().verdict

  threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert set(results.values()) == {'correct'}
