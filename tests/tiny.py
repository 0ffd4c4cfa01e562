"""Tiny models for tests: random, but with logits spread wide enough for mistakes to show."""

import dataclasses
import functools

import jax
import numpy as np

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import init_params

# V is not a multiple of the sampler's block; K < N; biases as in Qwen2; untied, since a tied head
# on large embeddings repeats its input whatever the context
CONFIG = ModelConfig(
  architecture='qwen2',
  vocab_size=400,
  embed_dim=32,
  mlp_dim=64,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  qkv_bias=True,
  tie_embeddings=False,
)

init = jax.jit(init_params, static_argnames=('config', 'dtype'))


@functools.cache
def make(seed: int = 0, **changes):
  """(config, params) in the learner's form; embeddings, head and biases made large."""
  config = dataclasses.replace(CONFIG, **changes)
  params = init(jax.random.key(seed), config)
  rng = np.random.default_rng(seed)

  def noise(shape, scale):
    return jax.numpy.asarray(rng.normal(0, scale, shape), 'float32')

  params['embed'] = noise(params['embed'].shape, 0.5)
  if not config.tie_embeddings:
    params['head'] = noise(params['head'].shape, 0.4)
  if config.qkv_bias:
    for name in ('q_bias', 'k_bias', 'v_bias'):
      params['layers'][name] = noise(params['layers'][name].shape, 0.5)
  return config, params
