"""The big recipes are more than text: their step traces for an abstract model of the true size."""

import functools

import jax
import jax.numpy as jnp
import pytest

from rlvr_jax import config as config_lib
from rlvr_jax import stages, study_stages
from rlvr_jax.eval import run as run_lib
from rlvr_jax.models import hf
from rlvr_jax.models.known import KNOWN
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl import learner, packing
from rlvr_jax.rl.train import algorithm_of
from rlvr_jax.rl.trained import trained_of
from rlvr_jax.rl.update import Rows
from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.datasets import table

# text models: as the models' own pages give them; those that see: as HF's torch code counts them
# (test_models_that_see_have_the_parameters_of_hf), times two the total_size of the hub's index
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
  'grpo_qwen_vl7b.py:1gpu',
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


# config.json of Qwen/Qwen2.5-VL-{3B,7B,72B}-Instruct; the paper's table 1 (arXiv 2502.13923) has
# 3456 for the width of the tower's mlp, the published files have 3420
TOWER = {
  'depth': 32, 'hidden_size': 1280, 'intermediate_size': 3420, 'num_heads': 16, 'in_channels': 3,
  'patch_size': 14, 'spatial_merge_size': 2, 'temporal_patch_size': 2, 'window_size': 112,
  'fullatt_block_indexes': [7, 15, 23, 31], 'tokens_per_second': 2,
}  # fmt: skip
DECODERS = {
  '3B': {'hidden_size': 2048, 'intermediate_size': 11_008, 'num_hidden_layers': 36,
         'num_attention_heads': 16, 'num_key_value_heads': 2, 'vocab_size': 151_936},
  '7B': {'hidden_size': 3584, 'intermediate_size': 18_944, 'num_hidden_layers': 28,
         'num_attention_heads': 28, 'num_key_value_heads': 4, 'vocab_size': 152_064},
  '72B': {'hidden_size': 8192, 'intermediate_size': 29_568, 'num_hidden_layers': 80,
          'num_attention_heads': 64, 'num_key_value_heads': 8, 'vocab_size': 152_064},
}  # fmt: skip
TIED = {'3B'}
SEEING = {'3B': 3_754_622_976, '7B': 8_292_166_656, '72B': 73_406_351_360}


def seeing(size):
  """What models/hf.py makes of such a config.json."""
  config = DECODERS[size] | {
    'model_type': 'qwen2_5_vl', 'tie_word_embeddings': size in TIED, 'rms_norm_eps': 1e-6,
    'rope_theta': 1e6, 'max_position_embeddings': 128_000, 'image_token_id': 151_655,
    'video_token_id': 151_656, 'vision_start_token_id': 151_652, 'vision_end_token_id': 151_653,
    'rope_scaling': {'type': 'mrope', 'mrope_section': [16, 24, 24]},
    'vision_config': TOWER | {'out_hidden_size': DECODERS[size]['hidden_size']},
  }  # fmt: skip
  return hf.parse_config(config, processor={'min_pixels': 3136, 'max_pixels': 12_845_056})


@pytest.mark.parametrize('size', DECODERS)
def test_parameters_of_models_that_see_by_hand(size):
  """The sum over their tensors, as the modules' definitions give them."""
  d, f, layers, heads, kv, vocab = DECODERS[size].values()
  h = d // heads
  q, k = d * heads * h + heads * h, 2 * (d * kv * h + kv * h)  # with biases; k and v
  layer = q + k + heads * h * d + 3 * d * f + 2 * d  # the output, the mlp, two norms
  decoder = layers * layer + d + vocab * d * (1 if size in TIED else 2)
  e, m = TOWER['hidden_size'], TOWER['intermediate_size']
  block = 3 * (e * e + e) + (e * e + e) + 2 * (e * m + m) + (m * e + e) + 2 * e
  merged = 4 * e
  merger = e + merged * merged + merged + merged * d + d
  patches = 3 * 2 * 14 * 14 * e  # a convolution over two frames, without a bias
  assert decoder + patches + 32 * block + merger == SEEING[size]
  params = jax.eval_shape(lambda: init_params(jax.random.key(0), seeing(size), 'float32'))
  assert sum(x.size for x in jax.tree.leaves(params)) == SEEING[size]
  known = f'Qwen/Qwen2.5-VL-{size}-Instruct'
  if known in KNOWN:
    assert COUNTS[known] == SEEING[size]
    assert seeing(size) == KNOWN[known]


@pytest.mark.check
@pytest.mark.parametrize('size', DECODERS)
def test_models_that_see_have_the_parameters_of_hf(size):
  """HF's own modules, built without weights."""
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  config = transformers.Qwen2_5_VLConfig(
    text_config=DECODERS[size] | {'tie_word_embeddings': size in TIED},
    vision_config=TOWER | {'out_hidden_size': DECODERS[size]['hidden_size']},
    tie_word_embeddings=size in TIED,
  )
  with torch.device('meta'):
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
  assert sum(p.numel() for p in model.parameters()) == SEEING[size]


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
