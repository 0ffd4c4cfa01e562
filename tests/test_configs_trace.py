"""The big recipes are more than text: their step traces for an abstract model of the true size."""

import jax
import jax.numpy as jnp
import pytest

from rlvr_jax import config as config_lib
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl import learner, packing
from rlvr_jax.rl.train import algorithm_of
from rlvr_jax.rl.update import Rows

QWEN_7B = ModelConfig(
  'qwen2', 152_064, 3584, 18_944, 28, 28, 4, 128, 1e6, tie_embeddings=False, qkv_bias=True
)


@pytest.mark.parametrize(
  ('name', 'model'), [('grpo_qwen7b', QWEN_7B)], ids=lambda x: x if isinstance(x, str) else ''
)
def test_the_step_of_a_recipe_traces_at_full_size(name, model):
  config = config_lib.resolve(config_lib.load_file(f'configs/{name}.py'))
  algorithm = algorithm_of(config)
  optimizer, update, score = learner.build(
    config, model, algorithm, total_steps=learner.total_steps(config)
  )
  params = jax.eval_shape(lambda: init_params(jax.random.key(0), model, config.model.dtype))
  state = jax.eval_shape(lambda p: learner.start_state(optimizer, None, p), params)
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
    ref_logprobs=array(jnp.float32) if algorithm.kl_coef else None,
    positions=array(jnp.int32),
    segments=array(jnp.int32),
    rollout=array(jnp.int32),
  )
  temperature = jax.ShapeDtypeStruct((), jnp.float32)
  new, metrics = jax.eval_shape(update, state, rows, temperature)
  count = sum(x.size for x in jax.tree.leaves(new.params))
  assert count == 7_615_616_512  # Qwen2.5-7B's own count
  assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  assert {'loss', 'grad_norm', 'kl_ref', 'gap/max', 'skipped'} <= set(metrics)
  logprobs, entropy = jax.eval_shape(score, params, rows, temperature)
  assert logprobs.shape == entropy.shape == shape
