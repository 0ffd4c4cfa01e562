"""Runs with conversations and parts of rewards: sampled into the store, learnt from, resumed."""

import signal

import jax
import loops
import numpy as np
import pytest
import sampling_runs as runs

import rlvr_jax
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.rl.identity import identity_of
from rlvr_jax.rl.train import train

SIZES = {'slots': 8, 'bank_rows': 8, 'page': 16, 'prompt_capacity': 48, 'chunk': 4}
ROWS = [{'question': f'a+{a}?', 'answer': a} for a in ('ab', 'c', 'jjjj')]
TASK = """
from rlvr_jax.tasks.environments import Environment
from rlvr_jax.tasks.countdown import ALPHABET, corpus, make_problems, verify

def problems(params):
  return make_problems(14, seed=1, largest=6)

def answer(problem, state, completion):
  if verify(problem, completion).verdict == 'correct':
    return None, state
  return '=' if len(completion) % 2 else '::', (state or 0) + 1

environment = Environment(answer, inline=True)  # its alphabet has no line ends

def short(completion, length, truncated, verdict):
  return 0 if truncated else 1 - length / 12
"""


@pytest.fixture(scope='module', autouse=True)
def quick(tmp_path_factory):
  """One device of the eight, and programs that compile fast."""
  with loops.quick(tmp_path_factory.mktemp('cache')):
    yield


@pytest.fixture(scope='module')
def cache():
  return jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]


@pytest.fixture(scope='module')
def task(tmp_path_factory):
  path = tmp_path_factory.mktemp('task') / 'own_task.py'
  path.write_text(TASK)
  return str(path)


ENVIRONMENT = """
from rlvr_jax.tasks.environments import Environment

def respond(problem, state, completion):
  return None if problem.answer in completion else '?a?', state

again = Environment(respond, inline=True)
"""


def test_conversations_in_the_store(tmp_path, capsys):
  """Every turn is there, with whose token each is; topping up changes nothing that is stored."""
  model = runs.save_tiny_model(tmp_path / 'tiny')
  path = tmp_path / 'own.py'
  path.write_text(ENVIRONMENT)
  options = {'max_tokens': 12, 'verifier': f'{runs.CHECK}:check', 'workers': 1, 'show': False}
  options |= {'environment': f'{path}:again', 'turns': 3, 'workdir': tmp_path / 'run', **SIZES}
  first = rlvr_jax.sample(model, ROWS, 4, **options).table().to_pylist()
  again = rlvr_jax.sample(model, ROWS, 8, **{**options, 'show': True}).table().to_pylist()
  assert f'turns     at most 3, answered by {path}:again' in capsys.readouterr().err
  assert [row for row in again if row['sample'] < 4] == first
  turns = [int((np.diff(row['sampled'], prepend=0) == 1).sum()) for row in again]
  assert {1, 3} <= set(turns) <= {1, 2, 3}
  for row, count in zip(again, turns, strict=True):
    assert row['length'] == len(row['tokens']) == len(row['sampled'])
    assert sum(row['sampled']) <= 12
    pieces = row['text'].split('<eos>?a?')
    assert len(pieces) >= count
    last = '<eos>?a?'.join(pieces[count - 1 :])
    answer = ROWS[int(row['problem_id'])]['answer']
    assert (row['verdict'] == 'correct') == (answer in last.replace(' ', ''))
    assert row['logprob_sum_sampled'] < 0
  store = SampleStore(tmp_path / 'run' / 'samples')
  assert store.settings('tiny', 'prompts')['turns'] == 3
  path.write_text(ENVIRONMENT.replace('?a?', '?b?'))
  run_lib.verifier_version.cache_clear()
  with pytest.raises(ValueError, match=r"differ in environment: 'environment:own.py:again:"):
    rlvr_jax.sample(model, ROWS, 8, **options)


def changes_of(task):
  """Of a run on a task in one file, with conversations and parts."""
  return {
    'task.module': task,
    'task.turns': 3,
    'sampling.prompt_capacity': 48,
    'sampling.bank_rows': 16,
    'reward.parts': {'correct': 1.0, 'format': 0.25, f'{task}:short': 0.5, 'turns': -0.01},
    'train.report': 0,
    'train.export': True,
    'train.micro_tokens': 2048,
  }


@pytest.fixture(scope='module')
def changes(task):
  return changes_of(task)


@pytest.fixture(scope='module')
def whole(changes, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  train(loops.config(**changes), workdir)
  return workdir


@pytest.mark.check
def test_training_on_conversations_is_resumed_to_the_bit(changes, whole, task, tmp_path):
  train(loops.config(**changes, **{'train.iterations': 2}), tmp_path)
  train(loops.config(**changes), tmp_path)
  loops.assert_same_run(tmp_path, whole)
  for row in loops.rows(whole)[:4]:
    assert row['turns/mean'] > 1
    assert row['turns/observed_tokens'] > 0
    assert row['gap/max'] < 1e-4  # the sampler's log-probs are the learner's
    assert row['reward/part/turns'] == row['turns/mean']
    names = ('correct', 'format', f'{task}:short', 'turns')
    weighted = [row[f'reward/part/{name}/weighted'] for name in names]
    assert sum(weighted) == pytest.approx(row['reward/mean'], abs=1e-6)
    assert row['reward/part/correct'] == row['pass@1']
  table = SampleStore(whole / 'samples').read('train', 'countdown')
  observed = [not all(sampled) for sampled in table['sampled'].to_pylist()]
  assert any(observed)


def test_another_task_file_is_another_run(changes, whole, task):
  """Its bytes are in the identity of the checkpoints."""
  from rlvr_jax.rl.train import NOT_IDENTITY

  found = identity_of(loops.config(**changes), NOT_IDENTITY)
  assert found['content of task.environment'].startswith('environment:own_task.py:environment:')
  assert f'content of reward.parts: {task}:short' in found
  plain = identity_of(loops.config(), NOT_IDENTITY)
  assert not [key for key in plain if key.startswith('content of') and key != 'content of task']


@pytest.mark.check
def test_a_kill_in_the_middle_changes_nothing(changes, whole, cache, tmp_path):
  assert loops.killed_in_iteration(tmp_path / 'run', 3, cache, **changes) == -signal.SIGKILL
  train(loops.config(**changes), tmp_path / 'run')
  loops.assert_same_run(tmp_path / 'run', whole)


@pytest.mark.check
def test_conversations_with_dynamic_sampling_survive_a_kill(cache, tmp_path):
  """Groups wait in the queue of a checkpoint with their turns and parts."""
  path = tmp_path / 'half_right.py'  # so that groups have a signal
  path.write_text(
    TASK.replace(
      'make_problems, verify', 'make_problems\nfrom rlvr_jax.tasks import countdown'
    ).replace('if verify(', 'if countdown.verify(')
    + '\ndef verify(problem, completion):\n  return len(completion) % 2 == 0\n'
  )
  more = changes_of(str(path)) | {
    'train.algorithm': 'dapo',
    'train.prompts': 3,
    'train.most_draws': 6,
  }
  train(loops.config(**more), tmp_path / 'whole')
  assert loops.killed_in_iteration(tmp_path / 'run', 3, cache, **more) == -signal.SIGKILL
  train(loops.config(**more), tmp_path / 'run')
  loops.assert_same_run(tmp_path / 'run', tmp_path / 'whole')
