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
class VisionConfig:
  """Shape and constants of Qwen2.5-VL's vision tower, and what its images have to be; hashable.

  patch and window are sides in pixels. merge * merge patches make one image token of out_dim
  numbers, the decoder's embed_dim. Layers in full_layers attend to the whole image, the others to
  their window. mean and std are of pixels from 0 to 1; min_pixels and max_pixels bound an image
  after it was resized. The ids are of the tokens that stand for images in a prompt.
  """

  embed_dim: int
  mlp_dim: int
  num_layers: int
  num_heads: int
  out_dim: int
  full_layers: tuple[int, ...]
  patch: int = 14
  temporal: int = 2  # frames a patch spans; an image is repeated so often
  merge: int = 2
  window: int = 112
  channels: int = 3
  tokens_per_second: int = 2  # of videos; kept for config.json
  image_id: int = 151_655
  video_id: int = 151_656
  start_id: int = 151_652
  end_id: int = 151_653
  mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
  std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
  min_pixels: int = 56 * 56
  max_pixels: int = 28 * 28 * 1280

  def __post_init__(self):
    if self.embed_dim % self.num_heads or self.head_dim % 4:
      raise ValueError(
        f'vision: embed_dim={self.embed_dim} over num_heads={self.num_heads}: the head dim must be '
        'a multiple of 4, for rows and columns'
      )
    if self.window % (self.patch * self.merge):
      raise ValueError(
        f'vision: window={self.window} is not a multiple of patch * merge = '
        f'{self.patch * self.merge} pixels'
      )
    beyond = [i for i in self.full_layers if not 0 <= i < self.num_layers]
    if beyond:
      raise ValueError(f'vision: full_layers={self.full_layers}, but num_layers={self.num_layers}')

  @property
  def head_dim(self) -> int:
    """Of the tower's heads."""
    return self.embed_dim // self.num_heads

  @property
  def unit(self) -> int:
    """Patches that are merged into one image token."""
    return self.merge**2

  @property
  def window_units(self) -> int:
    """Image tokens on a side of a window."""
    return self.window // (self.patch * self.merge)

  @property
  def window_patches(self) -> int:
    """Patches of a whole window."""
    return self.unit * self.window_units**2

  @property
  def patch_values(self) -> int:
    """Numbers of one patch of one frame."""
    return self.channels * self.patch**2


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape and constants of a decoder; hashable, so that jitted functions can close over it.

  architecture is HF's `model_type`: qwen2, qwen3, llama (SmolLM2 is llama) or qwen2_5_vl. Lengths
  are in tokens. eos_ids are the ids at which sampling stops unless the caller says otherwise.
  vision and mrope go together: a tower, and how many frequencies of a head turn by a token's frame,
  row and column (models/images.py).
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
  vision: VisionConfig | None = None
  mrope: tuple[int, int, int] | None = None

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f'num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}'
      )
    if self.head_dim % 2:
      raise ValueError(f'head_dim={self.head_dim} must be even for rotary embeddings')
    if (self.vision is None) != (self.mrope is None):
      raise ValueError('vision and mrope go together: give both or none')
    if self.mrope is not None and sum(self.mrope) != self.head_dim // 2:
      raise ValueError(f'mrope={self.mrope} must add up to half of head_dim={self.head_dim}')
    if self.vision is not None and self.vision.out_dim != self.embed_dim:
      raise ValueError(
        f"vision: out_dim={self.vision.out_dim} must be the decoder's embed_dim={self.embed_dim}"
      )

  @property
  def group_heads(self) -> int:
    """Query heads per key/value head."""
    return self.num_heads // self.num_kv_heads
