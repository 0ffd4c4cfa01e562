"""The command line: mistakes end with exit code 2 and one message, before anything expensive."""

import json
import pathlib
import subprocess
import sys

import pytest

import main

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASE = '--config=configs/base.py'


def run(*words: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, 'main.py', *words],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    ((), 'no --config given'),
    (('--config=configs/none.py',), '--config=configs/none.py: no such file'),
    ((BASE, '--config.train.gruop=8'), "the nearest is 'train.group' (now 16)"),
    ((BASE, '--config.train.group=x'), "train.group='x' is of type str; expected int"),
    (
      (BASE, '--config.job=pln'),
      "job='pln' does not exist; the jobs are benchmark, compare, cot, data",
    ),
    ((BASE, '--workdir=main.py/run'), 'cannot be written (Not a directory)'),
    ((BASE, '--wrkdir=x'), 'Did you mean: workdir'),
    ((BASE, 'stray'), "'stray' is no flag"),
  ],
)
def test_mistakes_end_with_one_message_and_exit_code_2(words, message):
  done = run(*words)
  assert done.returncode == 2
  assert message in done.stderr
  assert done.stderr.startswith('error: ')
  assert 'Traceback' not in done.stderr


def test_debug_shows_the_traceback():
  done = run(BASE, '--config.job=pln', '--debug')
  assert done.returncode == 1
  assert 'Traceback' in done.stderr


def test_dry_run_checks_records_and_computes_nothing(tmp_path):
  done = run(BASE, '--config.dry_run', '--config.seed=3', f'--workdir={tmp_path}')
  assert done.returncode == 0, done.stderr
  assert 'jax 0.' in done.stderr
  assert json.loads((tmp_path / 'config.json').read_text())['seed'] == 3
  assert sorted(path.name for path in tmp_path.iterdir()) == ['config.json', 'versions.json']


def test_only_our_own_value_errors_and_os_errors_are_the_users():
  def raised_by(function):
    try:
      function()
    except Exception as error:
      return main.is_users(error)
    raise AssertionError('nothing was raised')

  def ours():
    raise ValueError('a message of ours')

  def jax_refuses():
    import jax.numpy as jnp

    return jnp.zeros((2, 3)) @ jnp.zeros((2, 3))

  def library_refuses():
    return json.loads('{')

  def full_disk():
    raise OSError(28, 'No space left on device')

  assert raised_by(ours)
  assert raised_by(full_disk)
  assert not raised_by(library_refuses)
  assert not raised_by(jax_refuses)
  assert not raised_by(lambda: {}['key'])
