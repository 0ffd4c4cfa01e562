"""The adaptive entropy coefficient: a loop from the formula, the fixed one's step, resuming."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import loops
import numpy as np
import pytest
import rl_oracles_rare as oracle
from test_rl_learner import toy_rollouts

from rlvr_jax.checkpoint import Checkpointer
from rlvr_jax.rl import entropy, losses
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.policy_loss import policy_loss
from rlvr_jax.rl.train import train
from rlvr_jax.rl.types import TokenBatch


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
  """Programs that compile fast, on one device."""
  with loops.quick(tmp_path_factory.mktemp('compiled')):
    yield


@pytest.mark.parametrize('coef', [0.0, 0.03])
def test_the_coefficient_of_each_step_is_the_loops(coef):
  """Entropies below the target, above it, at it; a step that was skipped changes nothing."""
  cells = {'entropy_target': 1.0, 'entropy_delta': 0.01, 'entropy_most': 0.05}
  row = choose('grpo', entropy_coef=coef, **cells)
  rng = np.random.default_rng(0)
  entropies = np.append(rng.uniform(0.4, 1.2, 40), [1.0, 1.5, 0.5]).astype(np.float32)
  wanted = oracle.entropy_coefs(entropies, coef, 1.0, 0.01, 0.05)
  control, used = entropy.start(row), []
  step = jax.jit(entropy.adapted, static_argnums=0)
  for value in entropies:
    used.append(float(entropy.coefficient(row, control)))
    control = step(row, control, jnp.float32(value), jnp.array(True))
    kept = step(row, control, jnp.float32(np.nan), jnp.array(False))
    assert jax.tree.all(jax.tree.map(np.array_equal, control, kept))
  np.testing.assert_allclose(used, wanted, atol=1e-7)
  assert max(used) == pytest.approx(0.05)
  assert 0.0 in used[1:]


def test_without_a_target_there_is_nothing_in_the_state():
  row = choose('grpo', entropy_coef=0.1)
  assert entropy.start(row) is None
  assert entropy.coefficient(row, None) is None


CHANGES = {
  'train.algorithm': 'adaptive_entropy',
  'train.entropy_target': 2.994,  # nats; a model that knows nothing has 2.992 at first
  'train.entropy_delta': 0.02,
  'train.entropy_most': 0.1,
  'train.eval_every': 0,
  'train.report': 0,
  'train.iterations': 5,
  'train.store_rollouts': False,
}


def test_a_coefficient_of_the_state_is_worth_a_fixed_one():
  rng = np.random.default_rng(0)
  x = jnp.asarray(-rng.exponential(1.0, 12), jnp.float32)
  mask = jnp.arange(12) < 10

  def slope(row, coef):
    def loss(x):
      batch = TokenBatch(
        logprobs=x,
        old_logprobs=jnp.full_like(x, -1.0),
        ref_logprobs=None,
        sampler_logprobs=jnp.full_like(x, -1.0),
        advantages=jnp.where(jnp.arange(12) < 4, 0.5, -0.5),
        mask=mask,
        rollout=jnp.arange(12, dtype=jnp.int32) // 4,
        entropy=jnp.square(x),
      )
      denominator = losses.denominators(mask.reshape(3, 4), 4)
      return policy_loss(batch, 3, denominator, row, coef)[0]

    return jax.value_and_grad(loss)(x)

  fixed = slope(choose('grpo', entropy_coef=0.25), None)
  moving = slope(choose('adaptive_entropy'), jnp.float32(0.25))
  jax.tree.map(np.testing.assert_array_equal, fixed, moving)
  none = slope(choose('adaptive_entropy'), jnp.float32(0))
  jax.tree.map(np.testing.assert_array_equal, none, slope(choose('grpo'), None))
  assert float(none[0]) != float(fixed[0])


def test_a_state_is_saved_with_its_coefficient(tmp_path):
  """Two steps, saved, taken up by another learner, and two more: the numbers of four."""
  rollouts = toy_rollouts()
  config = loops.config(**CHANGES | {'train.entropy_target': 50.0})

  def steps(learn, count):
    found = []
    for i in range(count):
      found.append(learn.steps(learn.prepare(rollouts, iteration=i), iteration=i))
    return found

  whole = loops.open_tiny(config)
  rows = steps(whole, 4)
  first, second = loops.open_tiny(config), loops.open_tiny(config)
  assert steps(first, 2) == rows[:2]
  with Checkpointer(tmp_path, identity={}) as checkpoints:
    first.save(checkpoints, 2, {'iteration': 2})
    checkpoints.wait()
    assert second.restore(checkpoints) == {'iteration': 2}
  assert jax.tree.all(jax.tree.map(np.array_equal, first.state.entropy, second.state.entropy))
  assert steps(second, 2) == rows[2:]
  assert jax.tree.all(jax.tree.map(np.array_equal, whole.state, second.state))
  np.testing.assert_allclose([row['entropy/coef'] for row in rows], [0, 0.02, 0.04, 0.06])


class Before(flax.struct.PyTreeNode):
  """TrainState as runs saved it that knew of no entropy and no reference."""

  step: Any
  params: Any
  opt_state: Any
  critic: Any = None
  lora: Any = None


def test_a_checkpoint_from_before_goes_on(tmp_path):
  config = loops.config(**{'train.eval_every': 0, 'train.report': 0})
  learn, other = loops.open_tiny(config), loops.open_tiny(config)
  learn.state = learn.state.replace(step=learn.state.step + 7)
  state = learn.state
  with Checkpointer(tmp_path, identity={}) as checkpoints:
    old = Before(state.step, state.params, state.opt_state)
    checkpoints.save(7, old, {'iteration': 7})
    checkpoints.wait()
    assert other.restore(checkpoints) == {'iteration': 7}
  assert jax.tree.structure(other.state) == jax.tree.structure(state)
  assert jax.tree.all(jax.tree.map(np.array_equal, other.state, state))


@pytest.mark.check
def test_a_run_goes_on_with_its_coefficient(tmp_path):
  """Of a model from scratch, which solves nothing: all it learns is to keep its entropy."""
  train(loops.config(**CHANGES), tmp_path / 'whole')
  rows = loops.rows(tmp_path / 'whole')
  cells = CHANGES['train.entropy_target'], 0.02, 0.1
  wanted = oracle.entropy_coefs([row['entropy'] for row in rows], 0.0, *cells)
  np.testing.assert_allclose([row['entropy/coef'] for row in rows], wanted, atol=1e-7)
  assert len({row['entropy/coef'] for row in rows}) > 2
  train(loops.config(**CHANGES | {'train.iterations': 2}), tmp_path / 'run')
  train(loops.config(**CHANGES), tmp_path / 'run')
  loops.assert_same_run(tmp_path / 'run', tmp_path / 'whole')


def test_a_cell_of_the_config_is_a_cell_of_the_row():
  given = {k.removeprefix('train.'): v for k, v in CHANGES.items() if 'entropy_' in k}
  row = loops.open_tiny(loops.config(**CHANGES)).algorithm
  assert row == dataclasses.replace(choose('adaptive_entropy'), **given)
