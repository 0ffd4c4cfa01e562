"""Resets of reference and optimizer: what they are, what a checkpoint keeps of them."""

import signal

import jax
import loops
import numpy as np
import pytest

from rlvr_jax.checkpoint import Checkpointer
from rlvr_jax.rl import resets
from rlvr_jax.rl import train as train_lib
from rlvr_jax.rl.rollout import assemble
from rlvr_jax.rl.train import train

KL = {'train.kl_coef': 0.1, 'train.reset_every': 2, 'optimizer.warmup_steps': 2}
SHORT = {'train.eval_every': 0, 'train.report': 0, 'reward.control': 'random'}


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
  """One device of the eight, and programs that are compiled once for all runs."""
  directory = tmp_path_factory.mktemp('compiled')
  with loops.quick(directory):
    yield directory


@pytest.mark.parametrize(
  ('every', 'done', 'due'), [(0, 4, False), (2, 0, False), (2, 3, False), (2, 4, True)]
)
def test_a_reset_follows_every_so_many_iterations(every, done, due):
  assert resets.is_due(every, done) is due


def moved(learn, steps=2):
  """The learner after some steps on two made-up completions."""
  rollouts = assemble([(5, 6), (7, 8)], [np.array([1, 2, 0], np.int32), np.array([3, 0], np.int32)])
  for _ in range(steps):
    learn.one_step(rollouts, np.array([1.0, -0.5], np.float32))
  return learn


def leaves(tree):
  return [np.asarray(x) for x in jax.tree.leaves(tree)]


def assert_equal(a, b):
  for x, y in zip(leaves(a), leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def test_the_policy_becomes_the_reference_and_the_optimizer_begins_anew(tmp_path):
  config = loops.config(**KL)
  learn = loops.open_tiny(config)
  first = learn.optimizer.init(learn.trained.take(learn.state))
  start = jax.tree.map(np.asarray, learn.state.params)
  moved(learn)
  assert_equal(learn.reference, start)
  before = jax.tree.map(np.asarray, learn.state)
  for _ in range(2):  # twice is once
    resets.reset(learn)
    assert_equal(learn.state.params, before.params)
    assert_equal(learn.reference, before.params)
    assert_equal(learn.state.opt_state, first)
    assert int(learn.state.step) == 2
  moved(learn)  # the reference is a copy: the state's own arrays are given away

  with Checkpointer(tmp_path) as checkpoints:
    learn.save(checkpoints, 1, {})
  other = loops.open_tiny(config)
  with Checkpointer(tmp_path) as checkpoints:
    other.restore(checkpoints)
  assert_equal(other.reference, before.params)
  assert_equal(other.state, learn.state)
  assert other.state.reference is None
  assert any((a != b).any() for a, b in zip(leaves(other.reference), leaves(start), strict=True))


def test_without_resets_a_checkpoint_is_what_it_was(tmp_path):
  learn = loops.open_tiny(loops.config(**{'train.kl_coef': 0.1}))
  assert len(leaves(learn._saved())) == len(leaves(learn.state))


@pytest.mark.check
@pytest.mark.parametrize(
  'changes', [{}, {'train.kl_coef': 0.0}, {'train.offpolicy': 'tis', 'train.base_share': 0.5}]
)
def test_a_kill_between_resets_changes_nothing(changes, cache, tmp_path):
  """Kill -9 in the fourth iteration of six, resets after the second and the fourth."""
  changes = KL | SHORT | {'train.iterations': 6, 'train.checkpoint_every': 1} | changes
  train(loops.config(**changes), tmp_path / 'whole')
  assert loops.killed_in_iteration(tmp_path / 'run', 3, cache, **changes) == -signal.SIGKILL
  train(loops.config(**changes), tmp_path / 'run')
  loops.assert_same_run(tmp_path / 'run', tmp_path / 'whole')
  kl = [row.get('kl_ref', 0.0) for row in loops.rows(tmp_path / 'run')]
  assert max(kl[0], kl[2], kl[4]) < 1e-10  # against itself
  if changes['train.kl_coef']:
    assert min(kl[1], kl[3], kl[5]) > 1e-8


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'optimizer.schedule': 'linear'}, r"train.reset_every=2 .*set optimizer.schedule='constant'"),
    ({'lora.rank': 2, 'model.name': 'x'}, r'lora.rank=2 .* set train.kl_coef=0, or lora.rank=0'),
    ({'train.algorithm': 'ppo'}, r"train.algorithm='ppo' learns a critic beside it"),
  ],
)
def test_what_cannot_be_reset_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    train_lib.algorithm_of(loops.config(**(KL | changes)))
