"""Bytes by arithmetic: the page is what the command writes, each one-GPU config fits its card."""

import pathlib

import jax
import pytest
import tiny

from configs import base
from rlvr_jax import config as config_lib
from rlvr_jax import memory
from rlvr_jax.models import lora
from rlvr_jax.rl.trained import trained_of

ROOT = pathlib.Path(__file__).resolve().parent.parent
ONE_GPU = [
  'configs/grpo_qwen1p5b_1gpu.py',
  'configs/grpo_qwen3b_1gpu.py',
  'configs/grpo_qwen7b.py:1gpu',
  'configs/grpo_code_qwen7b.py',
  'configs/grpo_deepcoder14b.py',
  'configs/grpo_qwen_vl7b.py:1gpu',
]


@pytest.fixture(scope='module', autouse=True)
def quick():
  """Programs that compile fast: what they compute is the same to rounding."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def test_the_page_is_what_the_command_writes():
  command = f'python -m rlvr_jax.memory {" ".join(ONE_GPU)} > docs/memory.md'
  assert (ROOT / 'docs' / 'memory.md').read_text() == memory.document(ONE_GPU), command


@pytest.mark.parametrize('path', ONE_GPU)
def test_every_phase_leaves_room_on_the_card(path):
  config = config_lib.resolve(config_lib.load_file(path))
  found = memory.phases(config, memory.KNOWN[config.model.name])
  for phase, parts in found.items():
    assert sum(parts.values()) < 75e9, (phase, parts)


def config_of(**changes):
  return config_lib.resolve(base.get_config(), {'model.name': 'x', 'train.eval_every': 0} | changes)


def test_parts_are_the_bytes_of_the_arrays_they_name():
  model, params = tiny.make()
  size = sum(x.size for x in jax.tree.leaves(params))
  found = memory.phases(config_of(**{'model.compute_dtype': 'bfloat16'}), model)['learn']
  assert found['weights'] == found['gradient sum'] == 4 * size
  assert found['moments'] == 8 * size
  assert found['compute copy'] == found['gradient'] == 2 * size
  found = memory.phases(config_of(**{'train.kl_coef': 0.1}), model)['sample']
  assert found['reference'] == found['sampler weights'] == 4 * size

  narrow = config_of(
    **{
      'model.dtype': 'bfloat16',
      'optimizer.rounding': 'stochastic',
      'optimizer.moment_dtype': 'bfloat16',
      'optimizer.second_moment_dtype': 'bfloat16',
    }
  )
  found = memory.phases(narrow, model)['learn']
  assert found['weights'] == 2 * size
  assert found['moments'] == found['gradient sum'] == 4 * size

  adapted = config_of(**{'lora.rank': 2, 'model.dtype': 'bfloat16', 'train.kl_coef': 0.1})
  factors = lora.init_lora(jax.random.key(0), model, trained_of(adapted).adapter)
  count = sum(x.size for x in jax.tree.leaves(factors))
  found = memory.phases(adapted, model)['learn']
  assert found['weights'] == 2 * size
  assert found['adapters'] == found['gradient sum'] == 4 * count
  assert found['moments'] == 8 * count
  assert 'reference' not in found

  frozen = config_of(**{'train.frozen': ('embed', 'head')})
  rest = size - params['embed'].size - params['head'].size
  assert memory.phases(frozen, model)['learn']['moments'] == 8 * rest


def test_released_capacity_is_not_counted_while_learning():
  model, _ = tiny.make()
  kept = memory.phases(config_of(), model)['learn']
  released = memory.phases(config_of(**{'sampling.release': True}), model)['learn']
  assert kept['cache'] > 0
  assert sum(kept.values()) - sum(released.values()) == sum(
    kept[part] for part in ('cache', 'sampler weights', 'sampler workspace')
  )


def test_an_unknown_model_is_refused_by_name():
  with pytest.raises(ValueError, match=r"model\.name='smollm2-135m' is not in models/known\.py"):
    memory.document(['configs/sample.py'])
