"""The big recipes are more than text: their step traces for an abstract model of the true size."""

import functools

import jax
import jax.numpy as jnp
import pytest

from rlvr_jax import config as config_lib
from rlvr_jax import stages, study_stages
from rlvr_jax.eval import run as run_lib
from rlvr_jax.models.known import KNOWN
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl import learner, packing
from rlvr_jax.rl.train import algorithm_of
from rlvr_jax.rl.trained import trained_of
from rlvr_jax.rl.update import Rows
from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.datasets import table

# as the models' own pages give them
COUNTS = {
  'Qwen/Qwen2.5-1.5B': 1_543_714_304,
  'Qwen/Qwen2.5-3B': 3_085_938_688,
  'Qwen/Qwen2.5-7B': 7_615_616_512,
  'Qwen/Qwen2.5-7B-Instruct-1M': 7_615_616_512,
  'Qwen/Qwen2.5-Math-7B': 7_615_616_512,
  'Qwen/Qwen2.5-VL-3B-Instruct': 3_754_622_976,
  'Qwen/Qwen2.5-VL-7B-Instruct': 8_292_166_656,
  'Qwen/Qwen2.5-32B': 32_763_876_352,
  'deepseek-ai/DeepSeek-R1-Distill-Qwen-14B': 14_770_033_664,
  'meta-llama/Llama-3.1-8B': 8_030_261_248,
}
RECIPES = (
  'grpo_qwen7b.py',
  'grpo_qwen7b.py:1gpu',
  'grpo_qwen1p5b_1gpu.py',
  'grpo_qwen3b_1gpu.py',
  'grpo_code_qwen7b.py',
  'grpo_code_qwen7b.py:full',
  'grpo_deepcoder14b.py',
  'grpo_deepcoder14b.py:full',
  'grpo_llama8b.py',
  'dapo_qwen32b.py',
  'oat_zero_qwen_math7b.py',
  'grpo_qwen_vl7b.py',
  *(
    pytest.param(f'rlvr_omnimath_qwen7b.py:{name}', marks=[pytest.mark.check] * (name != 'ppo'))
    for name in ('ppo', 'grpo', 'reinforce_pp', 'rloo', 'remax', 'dapo')
  ),
)


STUDIES = (
  'study_math_simplerl.py',
  'study_math_simplerl.py:llama8b,olympiadbench',
  'study_math_simplerl.py:32b,math500',
  'study_math_oat.py:minerva',
  'study_math_dapo.py',
  'study_code_r1.py:humaneval_plus',
  'study_deepcoder.py',
  'study_distill.py',
  'study_distill.py:general',
  'study_vision.py:mathvision',
  'study_algorithms.py',
)


@pytest.mark.parametrize('study', STUDIES)
def test_the_base_of_a_study_can_be_sampled_as_asked(study):
  config = config_lib.resolve(config_lib.load_file(f'configs/{study}'))
  model = KNOWN[config.model.name]
  run_lib.check_context(config, model)
  made = stages.table(config)
  found = stages.measured(config, made)
  assert found[0].name == 'base'
  assert len(found) >= 2
  for one in found:
    template = one.values.get('task.template', config.task.template)
    prompts.check_template(template)
  assert config.task.name in table.BENCHMARKS
  if config.sampling.memory_gb and '32B' not in config.model.name:  # those want several devices
    assert run_lib.engine_budget(config, model).slots >= 1
  params = jax.eval_shape(lambda: init_params(jax.random.key(0), model, 'bfloat16'))
  tokens = jax.ShapeDtypeStruct((2, 128), jnp.int32)
  logprobs, _ = jax.eval_shape(functools.partial(sequence_logprobs, config=model), params, tokens)
  assert logprobs.shape == (2, 128)


@pytest.mark.parametrize('algorithm', ['grpo-0', 'grpo-long', 'ppo-2', 'dapo-1', 'group-32'])
def test_arms_of_the_study_of_algorithms_are_the_recipes(algorithm, tmp_path):
  config = config_lib.resolve(config_lib.load_file('configs/study_algorithms.py'))
  made = stages.table(config)
  stage = next(one for one in made if one.name == algorithm)
  staged = study_stages.stage_config(config, tmp_path, made, stage)
  name = str(stage.values['train.algorithm'])
  recipe = config_lib.resolve(config_lib.load_file(f'configs/rlvr_omnimath_qwen7b.py:{name}'))
  differ = config_lib.differences(config_lib.identity(recipe), config_lib.identity(staged))
  keys = {text.partition(':')[0] for text in differ}
  groups = {'train.group'} if algorithm == 'group-32' else set()
  longer = {'train.iterations'} if algorithm == 'grpo-long' else set()
  assert keys <= groups | longer | {'seed', 'train.report', 'study.run_arms', 'study.arms'} | {
    key for key in keys if key.startswith('study.')
  }
  assert algorithm_of(staged) == algorithm_of(recipe)


@pytest.mark.parametrize('name', COUNTS)
def test_known_shapes_have_the_published_number_of_weights(name):
  params = jax.eval_shape(lambda: init_params(jax.random.key(0), KNOWN[name], 'float32'))
  assert sum(x.size for x in jax.tree.leaves(params)) == COUNTS[name]
  assert COUNTS.keys() == KNOWN.keys()


@pytest.mark.parametrize('recipe', RECIPES)
def test_the_step_of_a_recipe_traces_at_full_size(recipe):
  config = config_lib.resolve(config_lib.load_file(f'configs/{recipe}'))
  model, algorithm, parts = KNOWN[config.model.name], algorithm_of(config), trained_of(config)
  assert config.sampling.prompt_capacity + config.sampling.max_tokens <= model.max_positions
  optimizer, update, score = learner.build(
    config, model, algorithm, total_steps=learner.total_steps(config)
  )
  params = jax.eval_shape(lambda: init_params(jax.random.key(0), model, config.model.dtype))

  def start(params):
    return learner.start_state(optimizer, None, params, parts, parts.start(model, config.seed))

  state = jax.eval_shape(start, params)
  T = packing.bucket_length(config.sampling.prompt_capacity + config.sampling.max_tokens)
  b = packing.rows_per_micro_batch(T, config.train.micro_tokens, 1)
  shape = (2, b, T)

  def array(dtype):
    return jax.ShapeDtypeStruct(shape, dtype)

  rows = Rows(
    tokens=array(jnp.int32),
    completion_mask=array(bool),
    advantages=array(jnp.float32),
    sampler_logprobs=array(jnp.float32),
    old_logprobs=array(jnp.float32),
    ref_logprobs=array(jnp.float32) if algorithm.reference else None,
    positions=array(jnp.int32),
    segments=array(jnp.int32),
    rollout=array(jnp.int32),
  )
  temperature = jax.ShapeDtypeStruct((), jnp.float32)
  new, metrics = jax.eval_shape(update, state, rows, temperature)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  assert {'loss', 'grad_norm', 'gap/max', 'skipped'} <= set(metrics)
  assert ('kl_ref' in metrics) == algorithm.reference
  moments = sum(x.size for x in jax.tree.leaves(state.opt_state))
  trained = sum(x.size for x in jax.tree.leaves(parts.take(state)))
  assert 2 * trained <= moments < 2 * trained + 10
  assert (trained < 0.02 * COUNTS[config.model.name]) == bool(config.lora.rank)
  logprobs, entropy = jax.eval_shape(score, jax.eval_shape(parts.params, state), rows, temperature)
  assert logprobs.shape == entropy.shape == shape
