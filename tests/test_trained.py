"""What trains is all that moves, and all that has gradients and moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rlvr_jax.models.lora import Adapter
from rlvr_jax.rl import learner
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.optimizer import make_optimizer
from rlvr_jax.rl.rollout import assemble, layout_of, micro_batches
from rlvr_jax.rl.trained import Trained
from rlvr_jax.rl.update import make_update
from rlvr_jax.sharding import path_name


@pytest.fixture(scope='module', autouse=True)
def quick():
  """Programs that compile fast: what they compute is the same to rounding."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def rollouts():
  rng = np.random.default_rng(0)
  prompts = [rng.integers(2, 400, 3).tolist() for _ in range(4)]
  completions = [rng.integers(2, 400, 5).astype(np.int32) for _ in range(4)]
  return assemble(prompts, completions)


def stepped(parts: Trained, steps: int = 2):
  """(state before, state after) some steps of fine-tuning."""
  config, params = tiny.make()
  optimizer = make_optimizer(1e-2, weight_decay=0.1)
  factors = parts.start(config, 0)
  parts.check(params, factors)
  params = jax.tree.map(jnp.copy, params)
  state = learner.start_state(optimizer, None, params, parts, factors)
  before = jax.tree.map(np.asarray, state)
  update = make_update(
    config, choose('sft'), optimizer, longest=8, remat=False, chunk=64, trained=parts
  )
  batch = rollouts()
  layout = layout_of(batch, micro_tokens=1024)
  rows = micro_batches(batch, np.ones(len(batch.rewards), np.float32), layout)
  for _ in range(steps):
    state, metrics = update(state, rows, jnp.float32(1))
    assert float(metrics['grad_norm']) > 0
  return before, jax.tree.map(np.asarray, state)


def moved(before, after) -> dict[str, bool]:
  """Path of each leaf of params and factors -> whether any number of it changed."""
  trees = ({'params': s.params, 'lora': s.lora} for s in (before, after))
  old, new = (dict(jax.tree.leaves_with_path(tree)) for tree in trees)
  return {path_name(path): bool((leaf != new[path]).any()) for path, leaf in old.items()}


def moments(state) -> int:
  return sum(x.size for x in jax.tree.leaves(state.opt_state))


def test_by_default_every_weight_trains():
  before, after = stepped(Trained())
  assert all(moved(before, after).values())


def test_adapters_train_and_the_base_stays_to_the_bit():
  parts = Trained(Adapter(2, 4.0, ('q', 'down')))
  before, after = stepped(parts)
  found = moved(before, after)
  assert {name for name, changed in found.items() if changed} == {
    f'lora/layers/{name}_{side}' for name in ('q', 'down') for side in 'ab'
  }
  size = sum(x.size for x in jax.tree.leaves(before.lora))
  assert 2 * size <= moments(before) <= 2 * size + 4
  saved = parts.saved(after)
  assert saved.params is None
  restored = parts.restored(before, saved)
  assert restored.params is before.params
  assert restored.lora is after.lora


def test_frozen_subtrees_stay_to_the_bit_and_have_no_moments():
  before, after = stepped(Trained(frozen=('embed', 'norm$', 'layers/(q|k|v)')))
  found = moved(before, after)
  inner = ('attn_norm', 'mlp_norm', 'q', 'k', 'v', 'q_bias', 'k_bias', 'v_bias')
  frozen = {f'params/layers/{name}' for name in inner} | {'params/embed', 'params/final_norm'}
  assert {name for name, changed in found.items() if not changed} == frozen
  kept = sum(before.params['layers'][n].size for n in ('o', 'gate', 'up', 'down'))
  kept += before.params['head'].size
  assert 2 * kept <= moments(before) <= 2 * kept + 4


@pytest.mark.parametrize(
  ('frozen', 'message'),
  [(('lyers',), "'lyers' is in none of embed, "), (('.',), 'leaves nothing to train of embed, ')],
)
def test_refusals(frozen, message):
  _, params = tiny.make()
  with pytest.raises(ValueError, match=message):
    Trained(frozen=frozen).check(params, None)
