"""Every algorithm of configs/algorithms.py trains, and those for coverage (in `make check`).

A short form of that study, on one small task.

Six problems, seen again and again: what is asked is that reward rises, and by much.
"""

import contextlib
import io

import loops
import numpy as np
import pytest

from configs.algorithms import NAMES
from rlvr_jax.rl.distill import distill
from rlvr_jax.rl.train import train

CHANGES = {
  'train.iterations': 12,
  'train.prompts': 6,
  'train.group': 32,
  'train.report': 0,
  'train.eval_every': 0,
  'train.store_rollouts': False,
  'train.checkpoint_every': 100,
  'train.export': False,
  'optimizer.learning_rate': 5e-3,
  'critic.learning_rate': 1e-2,
  'sampling.slots': 64,
}


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  """A model that solves few problems; programs are compiled fast, and one device is used."""
  workdir = tmp_path_factory.mktemp('base')
  with loops.quick(tmp_path_factory.mktemp('compiled')):
    distill(loops.config(**{'distill.steps': 300, 'distill.noise': 0.3}), workdir)
    yield workdir / 'model'


COVERAGE = (
  'unlikeliness', 'distinct', 'distinct_loo', 'f_grpo', 'maxrl', 'batch_exploration', 'rare_wrong',
  'adaptive_entropy',
)  # fmt: skip

ALWAYS = ('grpo', 'dapo')  # the others are checks


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.check)
    for name in (*NAMES, *COVERAGE)
  ],
)
def test_reward_rises(name, base, tmp_path):
  given = {'model.name': str(base), 'train.algorithm': name} | CHANGES
  if name == 'distinct_loo':  # it asks for different answers among a group's, not for many
    given |= {'train.prompts': 48, 'train.group': 4}
  with contextlib.redirect_stderr(io.StringIO()):
    train(loops.config(**given), tmp_path)
  rewards = [row['pass@1'] for row in loops.rows(tmp_path)]
  assert len(rewards) == CHANGES['train.iterations']
  first, last = np.mean(rewards[:3]), np.mean(rewards[-3:])
  assert 0.02 < first < 0.3
  assert last > 1.5 * first
