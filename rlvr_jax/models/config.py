"""Architectures as data: one frozen ModelConfig describes every decoder we run."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """LLaMA-3.1's frequency rescaling ("llama3" in HF's rope_scaling)."""

  factor: float
  low_freq_factor: float
  high_freq_factor: float
  original_max_positions: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape and constants of a decoder; hashable, so that jitted functions can close over it.

  architecture is HF's `model_type`: qwen2, qwen3 or llama (SmolLM2 is llama). Lengths are in
  tokens. eos_ids are the ids at which sampling stops unless the caller says otherwise.
  """

  architecture: str
  vocab_size: int
  embed_dim: int
  mlp_dim: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  rope_theta: float = 10_000.0
  rope_scaling: RopeScaling | None = None
  rms_eps: float = 1e-6
  tie_embeddings: bool = True
  qkv_bias: bool = False
  qk_norm: bool = False
  max_positions: int = 32_768
  eos_ids: tuple[int, ...] = ()
  bos_id: int | None = None
  attention_impl: str = 'auto'  # of rows, a name in models/attention.py

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f'num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}'
      )
    if self.head_dim % 2:
      raise ValueError(f'head_dim={self.head_dim} must be even for rotary embeddings')

  @property
  def group_heads(self) -> int:
    """Query heads per key/value head."""
    return self.num_heads // self.num_kv_heads
