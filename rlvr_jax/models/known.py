"""Shapes of published models that the configs name, so that nothing is downloaded to plan a run.

A run itself reads the model's own config.json.
"""

import dataclasses

from rlvr_jax.models.config import ModelConfig, RopeScaling, VisionConfig

_QWEN_SMALL = {'architecture': 'qwen2', 'vocab_size': 151_936, 'head_dim': 128, 'qkv_bias': True}
_QWEN_7B = ModelConfig(
  architecture='qwen2',
  vocab_size=152_064,
  embed_dim=3584,
  mlp_dim=18_944,
  num_layers=28,
  num_heads=28,
  num_kv_heads=4,
  head_dim=128,
  rope_theta=1e6,
  tie_embeddings=False,
  qkv_bias=True,
  max_positions=131_072,
)
_QWEN_3B = ModelConfig(
  **_QWEN_SMALL,
  embed_dim=2048,
  mlp_dim=11_008,
  num_layers=36,
  num_heads=16,
  num_kv_heads=2,
  rope_theta=1e6,
)
_QWEN_14B = dataclasses.replace(
  _QWEN_7B,
  embed_dim=5120,
  mlp_dim=13_824,
  num_layers=48,
  num_heads=40,
  num_kv_heads=8,
  rms_eps=1e-5,
)
_TOWER = VisionConfig(
  embed_dim=1280,
  mlp_dim=3420,
  num_layers=32,
  num_heads=16,
  out_dim=3584,
  full_layers=(7, 15, 23, 31),
  max_pixels=12_845_056,
)
_QWEN_VL = {'architecture': 'qwen2_5_vl', 'mrope': (16, 24, 24), 'max_positions': 128_000}

KNOWN: dict[str, ModelConfig] = {
  'Qwen/Qwen2.5-1.5B': ModelConfig(
    **_QWEN_SMALL,
    embed_dim=1536,
    mlp_dim=8960,
    num_layers=28,
    num_heads=12,
    num_kv_heads=2,
    rope_theta=1e6,
    max_positions=131_072,
  ),
  'Qwen/Qwen2.5-3B': _QWEN_3B,
  'Qwen/Qwen2.5-7B': _QWEN_7B,
  'Qwen/Qwen2.5-7B-Instruct-1M': dataclasses.replace(
    _QWEN_7B, rope_theta=1e7, rms_eps=1e-5, max_positions=1_010_000
  ),
  'Qwen/Qwen2.5-Math-7B': dataclasses.replace(_QWEN_7B, rope_theta=1e4, max_positions=4096),
  'Qwen/Qwen2.5-32B': dataclasses.replace(_QWEN_14B, mlp_dim=27_648, num_layers=64),
  'deepseek-ai/DeepSeek-R1-Distill-Qwen-14B': _QWEN_14B,
  'Qwen/Qwen2.5-VL-3B-Instruct': dataclasses.replace(
    _QWEN_3B, **_QWEN_VL, vision=dataclasses.replace(_TOWER, out_dim=2048)
  ),
  'Qwen/Qwen2.5-VL-7B-Instruct': dataclasses.replace(_QWEN_7B, **_QWEN_VL, vision=_TOWER),
  'meta-llama/Llama-3.1-8B': ModelConfig(
    architecture='llama',
    vocab_size=128_256,
    embed_dim=4096,
    mlp_dim=14_336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    rope_theta=5e5,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
    rms_eps=1e-5,
    tie_embeddings=False,
    max_positions=131_072,
  ),
}
