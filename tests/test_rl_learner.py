"""The learner: whole groups, what is scored before the first step, the critic, the cells."""

import dataclasses

import loops
import numpy as np
import pytest

from rlvr_jax.config_keys import OPEN
from rlvr_jax.rl import algorithms, learner, rollout
from rlvr_jax.rl import train as train_lib


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
  """Programs that compile fast, on one device."""
  with loops.quick(tmp_path_factory.mktemp('compiled')):
    yield


def toy_rollouts(groups=4, size=3):
  rng = np.random.default_rng(0)
  completions = [
    rng.integers(2, 9, rng.integers(2, 9)).astype(np.int32) for _ in range(groups * size)
  ]
  rollouts = rollout.assemble(
    [[3, 4, 5]] * (groups * size), completions, group=np.repeat(np.arange(groups), size)
  )
  return rollouts.replace(rewards=rng.normal(size=groups * size).astype(np.float32))


def test_minibatches_hold_whole_groups_once_an_epoch():
  config = loops.config(**{'train.minibatch': 2, 'train.epochs': 3})
  learn = loops.open_tiny(config)
  rollouts = toy_rollouts()
  found = learn.minibatches(rollouts, iteration=5)
  assert len(found) == 2 * 3
  assert learner.total_steps(config) == 6 * 4
  for epoch in range(3):
    pair = found[2 * epoch : 2 * epoch + 2]
    assert sorted(np.concatenate(pair)) == list(range(12))
    for index in pair:
      assert np.bincount(rollouts.group[index]).max() == 3
      assert len(np.unique(rollouts.group[index])) == 2
  again = learn.minibatches(rollouts, iteration=5)
  assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
  others = learn.minibatches(rollouts, iteration=6)
  assert not all(np.array_equal(a, b) for a, b in zip(found, others, strict=True))


@pytest.mark.parametrize(
  ('minibatch', 'kl_coef', 'calls'), [(0, 0.0, 0), (2, 0.0, 1), (0, 0.1, 1), (2, 0.1, 2)]
)
def test_what_is_scored_before_the_first_step(minibatch, kl_coef, calls):
  """Old log-probs if there is more than one step; the reference's only with a KL term."""
  learn = loops.open_tiny(loops.config(**{'train.minibatch': minibatch, 'train.kl_coef': kl_coef}))
  assert (learn.reference is None) == (kl_coef == 0)
  order = []

  def score(params, rows, temperature):
    order.append('reference' if params is learn.reference else 'old')
    return np.zeros((2, *rows.tokens.shape), np.float32)

  def update(state, rows, temperature):
    order.append('update')
    assert (rows.old_logprobs is None) == (minibatch == 0)
    assert (rows.ref_logprobs is None) == (kl_coef == 0)
    return state, {'skipped': 0, 'tokens': rows.completion_mask.sum(), 'gap/max': len(order)}

  learn.score, learn.update = score, update
  rollouts = toy_rollouts()
  row = learn.steps(learn.prepare(rollouts, iteration=0), iteration=0)
  steps = 2 if minibatch else 1
  old, reference = 'old' in order, 'reference' in order
  assert order == ['old'] * old + ['reference'] * reference + ['update'] * steps
  assert len(order) == calls + steps
  assert row['tokens'] == rollouts.completion_mask.sum()
  assert row['gap/max'] == calls + 1  # of the first step, when the policy is still the sampler's


def test_by_the_second_step_the_policy_has_moved():
  learn = loops.open_tiny(loops.config(**{'train.minibatch': 2}))
  row = learn.steps(learn.prepare(toy_rollouts(), iteration=0), iteration=0)
  assert 1e-7 < row['kl_old'] < 1
  assert row['skipped'] == 0


def test_a_critic_learns_what_to_expect():
  changes = {'train.algorithm': 'ppo', 'critic.learning_rate': 1e-2}
  learn = loops.open_tiny(loops.config(**changes))
  rollouts = toy_rollouts()
  rows = [learn.steps(learn.prepare(rollouts, iteration=i), iteration=i) for i in range(120)]
  assert rows[0]['critic/explained_variance'] == 0  # its head starts at zero
  assert rows[-1]['critic/explained_variance'] > 0.5
  assert rows[-1]['critic/loss'] < 0.5 * rows[0]['critic/loss']


def test_overlong_completions_can_be_left_out_of_the_loss():
  rollouts = toy_rollouts()
  rollouts = rollouts.replace(truncated=np.arange(12) % 3 == 0)
  learn = loops.open_tiny(loops.config(**{'train.overlong_filter': True}))
  batch = learn.prepare(rollouts, iteration=0)
  assert not batch.rollouts.completion_mask[::3].any()
  assert batch.advantages[::3].any()  # they stay in their group's statistics
  whole = loops.open_tiny(loops.config()).prepare(rollouts, iteration=0)
  np.testing.assert_array_equal(batch.advantages, whole.advantages)
  assert whole.rollouts.completion_mask[::3].any()


def test_cells_of_the_config_are_those_of_the_table():
  cells = {field.name: field.type for field in dataclasses.fields(algorithms.Algorithm)}
  assert {f'train.{name}' for name in cells} == {k for k in OPEN if k.startswith('train.')}
  for name in algorithms.ALGORITHMS:
    if name != 'sft':
      row = train_lib.algorithm_of(loops.config(**{'train.algorithm': name}))
      assert row == algorithms.ALGORITHMS[name]
  row = train_lib.algorithm_of(loops.config(**{'train.algorithm': 'gspo', 'train.clip_low': 0.1}))
  assert (row.clip_low, row.clip_high) == (0.1, algorithms.ALGORITHMS['gspo'].clip_high)
