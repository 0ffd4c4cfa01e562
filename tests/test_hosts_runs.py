"""Whole runs over several processes: the results of one, and what is left when one is killed."""

import json
import os
import pathlib
import shutil
import signal
import time
from typing import Any

import numpy as np
import pytest
from loops import TINY, model
from processes import Run, script

from rlvr_jax import hosts
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.metrics import read_metrics, repeatable

pytestmark = [pytest.mark.check, pytest.mark.timeout(1800)]  # of which a run may take 500

# a coin for a reward: an untrained model then has something to learn from
TRAIN = {**TINY, 'job': 'train', 'reward.control': 'random', 'train.report': 8}
SLOTS = 16  # of each process, so that all draw the same
# sums in another order: on one device and over several
CLOSE: dict[str, Any] = {'rtol': 1e-5, 'atol': 1e-6}


def train(workdir: pathlib.Path, count: int, devices: int = 1, /, port: int = 0, **changes) -> Run:
  slots = {'sampling.slots': SLOTS * count * devices}
  return Run(workdir, count, devices, port=port, **{**TRAIN, **slots, **changes})


ENVIRONMENT = """
from rlvr_jax.tasks.environments import Environment

def answer(problem, state, completion):
  return '=' if len(completion) % 2 else '::', (state or 0) + 1

environment = Environment(answer, inline=True)
"""


def draws(workdir: pathlib.Path) -> dict:
  """Of every model of the store, each row's key with its tokens and verdict."""
  store = SampleStore(workdir / 'samples')
  return {
    (name, row['problem_id'], row['visit'], row['sample']): (tuple(row['tokens']), row['verdict'])
    for name, tasks in store.models().items()
    for row in store.read(name, tasks[0]).to_pylist()
  }


def assert_same_curve(one: pathlib.Path, other: pathlib.Path) -> None:
  """Metrics and weights agree but for the order of sums; every completion is the same."""
  rows = [[repeatable(row) for row in read_metrics(x / 'metrics.jsonl')] for x in (one, other)]
  assert len(rows[0]) == len(rows[1])
  for mine, its in zip(*rows, strict=True):
    assert mine.keys() == its.keys()
    for key in mine:
      if not key.startswith('gap/'):  # of rounding errors: nothing but their order of size
        np.testing.assert_allclose(mine[key], its[key], **CLOSE, err_msg=f'{key} {mine["step"]}')
  assert draws(one) == draws(other)
  mine, its = model(one), model(other)
  for name in mine:
    np.testing.assert_allclose(mine[name], its[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """A run of one process on one device; its metrics move."""
  run = train(tmp_path_factory.mktemp('hosts') / 'alone', 1, **{'train.iterations': 6}).check()
  rows = read_metrics(run.workdir / 'metrics.jsonl')
  assert min(row['grad_norm'] for row in rows[:-1]) > 1e-3
  assert rows[0]['entropy'] != rows[5]['entropy']
  return run.workdir


@pytest.mark.parametrize(('count', 'devices'), [(2, 1), (4, 1), (2, 2)])
def test_training_in_several_processes_is_training_in_one(alone, count, devices):
  workdir = alone.parent / f'train_{count}_{devices}'
  run = train(workdir, count, devices, **{'train.iterations': 6}).check()
  assert_same_curve(alone, workdir)
  for name in ('results.json', 'config.json', 'report.html'):
    assert (workdir / name).is_file()
  found, want = (json.loads((x / 'results.json').read_text())['models'] for x in (workdir, alone))
  for one in (*found.values(), *want.values()):
    del one['settings']['weights']  # a hash, and they agree but for the order of sums
  assert found == want
  assert 'training' in run.out(0)
  assert 'training' not in run.out(1)
  shards = sorted((workdir / 'samples' / 'train' / 'countdown').glob('part-*'))
  assert {int(path.stem[5:]) % count for path in shards} == set(range(count))  # each wrote its own


def test_two_processes_are_two_devices_to_the_bit(alone):
  """The mesh is the same, and so is every sum."""
  one, two = (alone.parent / f'bits_{n}' for n in (1, 2))
  changes = {
    'train.algorithm': 'dapo', 'train.most_draws': 4, 'reward.control': 'random',
    'train.minibatch': 2, 'train.iterations': 3, 'train.report': 0,
  }  # fmt: skip
  train(one, 1, 2, **changes).check()
  train(two, 2, 1, **changes).check()
  rows = [[repeatable(row) for row in read_metrics(x / 'metrics.jsonl')] for x in (one, two)]
  assert rows[0] == rows[1]
  assert draws(one) == draws(two)
  mine, its = model(one), model(two)
  for name in mine:
    np.testing.assert_array_equal(mine[name], its[name], err_msg=name)


@pytest.mark.parametrize(
  'changes',
  [
    {'train.algorithm': 'ppo'},
    {'train.algorithm': 'remax', 'lora.rank': 2, 'model.name': 'alone/model'},
    {'task.environment': 'own.py:environment', 'task.turns': 3, 'sampling.prompt_capacity': 48},
  ],
  ids=['critic', 'greedy and adapters', 'conversations'],
)
def test_every_kind_of_run_is_the_same_in_two_processes(alone, changes):
  (alone.parent / 'own.py').write_text(ENVIRONMENT)
  name = 'kind_' + '_'.join(key.rpartition('.')[2] for key in changes)
  few = {'train.iterations': 2, 'train.report': 0, **changes}
  for key in ('task.environment', 'model.name'):
    if key in few:
      few[key] = alone.parent / few[key]
  for count in (1, 2):
    train(alone.parent / f'{name}_{count}', count, **few).check()
  assert_same_curve(*(alone.parent / f'{name}_{count}' for count in (1, 2)))


def wait_for(run: Run, rows: int, limit_s: float = 400) -> None:
  """Until metrics.jsonl has so many rows."""
  path = run.workdir / 'metrics.jsonl'
  until = time.monotonic() + limit_s
  while not path.exists() or len(path.read_text().splitlines()) < rows:
    assert time.monotonic() < until, [run.out(i)[-2000:] for i in range(run.count)]
    assert all(one.poll() is None for one in run.started)
    time.sleep(0.02)


@pytest.mark.parametrize('victim', [0, 1])
def test_a_killed_process_is_named_and_another_start_goes_on(alone, victim):
  workdir = alone.parent / f'killed_{victim}'
  run = train(workdir, 2, **{'train.iterations': 1000})
  wait_for(run, 3)
  run.started[victim].kill()
  run.started[victim].wait()
  killed = time.monotonic()
  other = run.started[1 - victim]
  assert other.wait(60) != 0
  assert time.monotonic() - killed < 60
  name = f'process {victim} of 2 ({os.uname().nodename}) is gone'
  assert name in run.out(1 - victim)
  assert name not in run.out(victim)
  if victim:
    assert other.returncode == hosts.EXIT_LOST
  # what was committed is whole, and goes on elsewhere: in one process, and on another mesh
  elsewhere = alone.parent / f'killed_{victim}_elsewhere'
  shutil.copytree(workdir, elsewhere)
  slots = {'sampling.slots': 2 * SLOTS, 'train.iterations': 6}
  assert 'resumed at iteration' in train(workdir, 1, **slots).check().out(0)
  mesh = {'mesh.data': 2, 'mesh.fsdp': 2}
  assert 'resumed at iteration' in train(elsewhere, 2, 2, **slots, **mesh).check().out(0)
  assert_same_curve(alone, workdir)
  assert_same_curve(alone, elsewhere)


def test_a_signal_to_one_saves_all(alone):
  workdir = alone.parent / 'asked'
  run = train(workdir, 2, **{'train.iterations': 1000, 'train.checkpoint_every': 1000})
  wait_for(run, 2)
  run.started[1].send_signal(signal.SIGTERM)
  assert run.wait(120) == [0, 0]
  assert 'to go on: ' in run.out(0)
  slots = {'sampling.slots': 2 * SLOTS, 'train.iterations': 6, 'train.checkpoint_every': 1000}
  train(workdir, 2, **slots).check()
  assert_same_curve(alone, workdir)


FAILING = """
import loops
from rlvr_jax.rl import learner, train

steps = learner.Learner.steps
def failing(self, *args, iteration, **kwargs):
  if iteration == 2 and hosts.index() == 1:  # while the checkpoint of step 2 is being written
    raise ValueError('the second has had enough')
  return steps(self, *args, iteration=iteration, **kwargs)

learner.Learner.steps = failing
hosts.start(config)
with hosts.together(lambda error: 2):
  train.train(loops.config(**{'sampling.slots': 32}), tmp_path / 'run')
"""


def test_an_error_in_one_process_ends_all(tmp_path):
  (first, out), (second, other) = script(tmp_path, FAILING, 2, limit_s=500)
  assert 'ended with an error: ValueError: the second has had enough' in out, out
  assert 'ValueError: the second has had enough' in other
  assert (first, second) == (hosts.EXIT_LOST, 2)


@pytest.fixture(scope='module')
def weights(alone):
  """A model that solves some problems sometimes, fine-tuned in two processes."""
  workdir = alone.parent / 'weights'
  some = {
    'job': 'distill',
    'distill.steps': 100,
    'distill.batch': 64,
    'distill.eval_every': 0,
    'sampling.slots': 32,
  }
  Run(workdir, 2, **{**TINY, **some}).check()
  return workdir / 'model'


EVALUATE = {
  'job': 'evaluate', 'task.holdout': 5, 'task.params.problems': 12, 'task.params.largest': 6,
  'evaluate.n': 24, 'evaluate.headline_k': 4, 'evaluate.problems': 5, 'evaluate.bootstrap': 200,
  'sampling.bank_rows': 4,
}  # fmt: skip


def evaluate(workdir, weights, count, **changes):
  slots = {'sampling.slots': SLOTS * count, 'model.name': str(weights)}
  return Run(workdir, count, **{**EVALUATE, **slots, 'evaluate.name': 'm', **changes})


@pytest.mark.parametrize(
  'early', [{}, {'sampling.first': 8, 'sampling.stop_after': 1, 'evaluate.headline_k': 2}]
)
def test_evaluation_in_several_processes_is_that_of_one(alone, weights, early):
  found = {}
  for count in (1, 2, 4):
    workdir = alone.parent / f'evaluate_{count}_{len(early)}'
    evaluate(workdir, weights, count, **early).check()
    found[count] = draws(workdir), json.loads((workdir / 'results.json').read_text())['models']
  assert found[1] == found[2] == found[4]
  verdicts = [verdict for _, verdict in found[1][0].values()]
  assert set(verdicts) >= {'correct', 'wrong'}
  assert (len(verdicts) < 5 * 24) == bool(early)


def test_a_store_is_topped_up_by_another_number_of_processes(alone, weights):
  workdir, whole = alone.parent / 'top', alone.parent / 'evaluate_top'
  evaluate(workdir, weights, 2, **{'evaluate.n': 8, 'evaluate.headline_k': 2}).check()
  before = draws(workdir)
  evaluate(workdir, weights, 3, **{'sampling.slots': 48}).check()
  evaluate(whole, weights, 1).check()
  assert before.items() <= draws(workdir).items()
  assert draws(workdir) == draws(whole)


STUDY = {
  **{key: value for key, value in TINY.items() if not key.startswith('train.')},
  'job': 'study', 'distill.steps': 40, 'distill.eval_every': 20, 'distill.batch': 32,
  'train.iterations': 2, 'train.prompts': 4, 'train.group': 4, 'train.eval_every': 1,
  'train.eval_problems': 4, 'train.eval_samples': 2, 'task.params.problems': 60,
  'task.params.target': 20, 'task.holdout': 8, 'evaluate.problems': 8, 'evaluate.n': 32,
  'evaluate.headline_k': 8, 'evaluate.bootstrap': 200, 'study.run_arms': "('rl',)",
  'study.perplexity': "('base','rl')", 'study.matched': "('rl',)", 'study.match.problems': 4,
}  # fmt: skip


def test_a_study_in_several_processes_is_that_of_one(alone):
  found = {}
  for count in (1, 2, 4):
    workdir = alone.parent / f'study_{count}'
    Run(workdir, count, **{**STUDY, 'sampling.slots': SLOTS * count}).check()
    found[count] = json.loads((workdir / 'results.json').read_text())
    assert (workdir / 'report.html').is_file()
  # the search for a temperature of equal entropy turns on the last digits of what it measures
  same = [name for name in found[1]['models'] if '@' not in name]
  assert same == ['base', 'rl']
  for count in (2, 4):
    mine, its = (draws(alone.parent / f'study_{n}') for n in (count, 1))
    assert mine.keys() == its.keys()
    assert {k: v for k, v in mine.items() if k[0] in same} == {
      k: v for k, v in its.items() if k[0] in same
    }
    for name in same:
      for kind in (lambda x: x['pass_at_k'], lambda x: x['exact']['pass_at_k']):
        mine, its = (kind(found[n]['models'][name]) for n in (count, 1))
        np.testing.assert_allclose(list(mine.values()), list(its.values()), rtol=1e-3)
    assert found[count]['coverage'] == found[1]['coverage']
    for mine, its in zip(*(found[n]['perplexity']['perplexity'] for n in (count, 1)), strict=True):
      numbers = [key for key in its if isinstance(its[key], float)]
      assert numbers
      np.testing.assert_allclose([mine[k] for k in numbers], [its[k] for k in numbers], rtol=1e-3)
