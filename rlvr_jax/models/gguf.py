"""GGUF files: the header as a ModelConfig, the tensors dequantized into params."""

import math
import os
import pathlib
import struct
from typing import Any

import gguf
import gguf.quants
import numpy as np

from rlvr_jax.models import weights
from rlvr_jax.models.config import ModelConfig, RopeScaling
from rlvr_jax.models.weights import Index, Params

ARCHITECTURES = ('llama', 'qwen2', 'qwen3')
# control tokens that end a turn or a text in the families we know, whatever the header calls eos
_END_TEXTS = ('<|im_end|>', '<|endoftext|>', '<|eot_id|>', '<|end_of_text|>', '<|eom_id|>')
_LAYER_NAMES = {
  'attn_norm.weight': 'input_layernorm.weight',
  'attn_q.weight': 'self_attn.q_proj.weight',
  'attn_k.weight': 'self_attn.k_proj.weight',
  'attn_v.weight': 'self_attn.v_proj.weight',
  'attn_output.weight': 'self_attn.o_proj.weight',
  'attn_q.bias': 'self_attn.q_proj.bias',
  'attn_k.bias': 'self_attn.k_proj.bias',
  'attn_v.bias': 'self_attn.v_proj.bias',
  'attn_q_norm.weight': 'self_attn.q_norm.weight',
  'attn_k_norm.weight': 'self_attn.k_norm.weight',
  'ffn_norm.weight': 'post_attention_layernorm.weight',
  'ffn_gate.weight': 'mlp.gate_proj.weight',
  'ffn_up.weight': 'mlp.up_proj.weight',
  'ffn_down.weight': 'mlp.down_proj.weight',
}
_TOP_NAMES = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}
_ROPE_FREQS = 'rope_freqs.weight'


class _Reader(gguf.GGUFReader):
  """The package's reader over a plain array: slicing an np.memmap is what its time went into."""

  def __setattr__(self, name: str, value: Any) -> None:
    super().__setattr__(name, np.asarray(value) if isinstance(value, np.memmap) else value)


class GGUFFile:
  """An opened GGUF file (memory-mapped): header values, tokenizer metadata and tensors."""

  def __init__(self, path: str | os.PathLike[str]):
    self.path = pathlib.Path(path)
    self.origin = str(path)
    if not self.path.is_file():
      raise ValueError(f'{path} does not exist; name a .gguf file')
    try:
      self._reader = _Reader(self.path)
    except (ValueError, IndexError, struct.error) as error:
      # the reader runs off the end of the map when bytes are missing
      raise ValueError(
        f'{path} ({self.path.stat().st_size} bytes) is truncated or no GGUF file: {error}; '
        'fetch the file again'
      ) from error

  def value(self, key: str, default: Any = None) -> Any:
    """A header value by its full key (numbers, strings, bools, lists), or the default."""
    field = self._reader.get_field(key)
    return default if field is None else field.contents()

  def item(self, key: str, index: int) -> Any:
    """One element of an array in the header."""
    field = self._reader.get_field(key)
    assert field is not None, key
    return field.contents(index)

  def length(self, key: str) -> int:
    """How many elements an array in the header has, without decoding it; 0 if absent."""
    field = self._reader.get_field(key)
    return 0 if field is None else len(field.data)

  def tensors(self) -> dict[str, Any]:
    """Tensor name of the file -> the reader's record."""
    return {tensor.name: tensor for tensor in self._reader.tensors}


def read_config(file: GGUFFile) -> ModelConfig:
  """ModelConfig of a GGUF header.

  eos_ids are the header's stop ids, then the family's end tokens that the vocabulary marks as
  control. Raises ValueError for an unknown architecture, missing keys or unsupported features.
  """
  arch = file.value('general.architecture')
  if arch not in ARCHITECTURES:
    raise ValueError(
      f'{file.origin}: general.architecture={arch!r} is not a known architecture; known: '
      f'{", ".join(ARCHITECTURES)}'
    )
  missing: list[str] = []

  def need(key: str) -> int:
    value = file.value(f'{arch}.{key}')
    if value is None:
      missing.append(f'{arch}.{key}')
    return value or 1

  embed_dim, heads = need('embedding_length'), need('attention.head_count')
  mlp_dim, num_layers = need('feed_forward_length'), need('block_count')
  if missing:
    raise ValueError(f'{file.origin}: the header lacks {", ".join(missing)}')
  tensors = file.tensors()
  head_dim = file.value(f'{arch}.attention.key_length', embed_dim // heads)
  _refuse_unsupported(file, arch, head_dim)
  embedding = tensors.get('token_embd.weight')
  vocab_size = file.value(f'{arch}.vocab_size') or file.length('tokenizer.ggml.tokens')
  if embedding is not None:
    vocab_size = int(embedding.shape[1])
  theta = float(file.value(f'{arch}.rope.freq_base', 10_000.0))
  return ModelConfig(
    architecture=arch,
    vocab_size=vocab_size,
    embed_dim=embed_dim,
    mlp_dim=mlp_dim,
    num_layers=num_layers,
    num_heads=heads,
    num_kv_heads=file.value(f'{arch}.attention.head_count_kv', heads),
    head_dim=head_dim,
    rope_theta=theta,
    rope_scaling=_rope_scaling(file, arch, theta, head_dim),
    rms_eps=_decimal(file.value(f'{arch}.attention.layer_norm_rms_epsilon', 1e-6)),
    tie_embeddings='output.weight' not in tensors,
    qkv_bias=arch == 'qwen2',
    qk_norm=arch == 'qwen3',
    max_positions=file.value(f'{arch}.context_length', 32_768),
    eos_ids=stop_ids(file),
    bos_id=file.value('tokenizer.ggml.bos_token_id'),
  )


def _decimal(value: float) -> float:
  """The shortest decimal that is this float32: the 1e-06 that a header's 9.99999997e-07 was."""
  return float(str(np.float32(value)))


def _refuse_unsupported(file: GGUFFile, arch: str, head_dim: int) -> None:
  reasons = []
  if file.value(f'{arch}.expert_count', 0):
    reasons.append('experts (dense models only)')
  if file.value(f'{arch}.attention.sliding_window', 0):
    reasons.append('a sliding attention window (full causal attention only)')
  if (scaling := file.value(f'{arch}.rope.scaling.type', 'none')) not in ('none', 'llama3'):
    reasons.append(f'rope scaling {scaling!r} (known: llama3, stored as {_ROPE_FREQS})')
  if (rotary := file.value(f'{arch}.rope.dimension_count', head_dim)) != head_dim:
    reasons.append(f'rotary embeddings over {rotary} of {head_dim} dimensions')
  if reasons:
    raise ValueError(f'{file.origin}: not supported: {"; ".join(reasons)}')


def _rope_scaling(file: GGUFFile, arch: str, theta: float, head_dim: int) -> RopeScaling | None:
  """LLaMA-3.1's scaling back from the divisors of the frequencies that a GGUF stores.

  Only the factor differs between the published models (8, 32); the divisors are computed again
  from the recovered constants and have to agree, else ValueError.
  """
  record = file.tensors().get(_ROPE_FREQS)
  if record is None:
    return None
  stored = np.asarray(record.data, np.float64).reshape(-1)
  original = file.value(f'{arch}.rope.scaling.original_context_length', 8192)
  scaling = RopeScaling(float(round(float(stored.max()), 4)), 1.0, 4.0, original)
  expected = rope_divisors(scaling, theta, head_dim)
  if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-4):
    raise ValueError(
      f'{file.origin}: {_ROPE_FREQS} is not llama3 scaling by {scaling.factor} over {original} '
      'positions (low 1, high 4); use the safetensors files, whose config.json names the constants'
    )
  return scaling


def rope_divisors(scaling: RopeScaling, theta: float, head_dim: int) -> np.ndarray:
  """f64[H/2]: what LLaMA-3.1 divides each rotary frequency by (Llama Team 2024, model code)."""
  wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
  rotations = scaling.original_max_positions / wavelength
  span = scaling.high_freq_factor - scaling.low_freq_factor
  smooth = np.clip((rotations - scaling.low_freq_factor) / span, 0, 1)
  return 1 / ((1 - smooth) / scaling.factor + smooth)


def stop_ids(file: GGUFFile) -> tuple[int, ...]:
  """The ids at which sampling stops: eos first, then eot, eom, and known end-of-text tokens."""
  found = [file.value(f'tokenizer.ggml.{key}_token_id') for key in ('eos', 'eot', 'eom')]
  if file.length('tokenizer.ggml.tokens') and file.length('tokenizer.ggml.token_type'):
    kinds = np.asarray(file.value('tokenizer.ggml.token_type'))
    control = [int(i) for i in np.flatnonzero(kinds == gguf.TokenType.CONTROL)]
    found += [i for i in control if file.item('tokenizer.ggml.tokens', i) in _END_TEXTS]
  return tuple(dict.fromkeys(i for i in found if i is not None))


class GGUFSource:
  """A GGUF file's tensors under HF's names, in HF's layout, dequantized to float32 when read."""

  def __init__(self, file: GGUFFile, config: ModelConfig):
    self.file, self.config, self.origin = file, config, file.origin
    self._records = {
      self._hf_name(name): record for name, record in file.tensors().items() if name != _ROPE_FREQS
    }

  def __enter__(self) -> 'GGUFSource':
    return self

  def __exit__(self, *exc: object) -> None:
    self._records.clear()

  @staticmethod
  def _hf_name(name: str) -> str:
    """HF's name for a tensor; the file's own name if we know none (reported as surplus)."""
    if name.startswith('blk.'):
      _, layer, rest = name.split('.', 2)
      return f'model.layers.{layer}.{_LAYER_NAMES[rest]}' if rest in _LAYER_NAMES else name
    return _TOP_NAMES.get(name, name)

  def entries(self) -> dict[str, tuple[tuple[int, ...], str]]:
    floats = {'F64', 'F32', 'F16', *(t.name for t in gguf.quants._type_traits)}
    return {
      name: (
        tuple(int(n) for n in reversed(record.shape)),
        'F32' if record.tensor_type.name in floats else record.tensor_type.name,
      )
      for name, record in self._records.items()
    }

  def read(self, name: str, index: Index) -> np.ndarray:
    record = self._records[name]
    shape = tuple(int(n) for n in reversed(record.shape))
    values = gguf.quants.dequantize(record.data, record.tensor_type).reshape(shape)
    if self.config.architecture == 'llama':
      heads = {'q_proj': self.config.num_heads, 'k_proj': self.config.num_kv_heads}
      for part, count in heads.items():
        if f'.{part}.weight' in name:
          values = unpermute(values, count)
    return values[index]


def unpermute(stored: np.ndarray, heads: int) -> np.ndarray:
  """[heads*H, D] rows from interleaved rotary pairs (2i, 2i+1) to halves (i, i + H/2)."""
  rows, columns = stored.shape
  pairs = stored.reshape(heads, rows // heads // 2, 2, columns)
  return pairs.swapaxes(1, 2).reshape(rows, columns)


def load_gguf(
  path: str | os.PathLike[str],
  config: ModelConfig | None = None,
  dtype: str = 'float32',
  shardings: Any = None,
  *,
  check_finite: bool = True,
) -> Params:
  """Params (learner's stacked form) of a GGUF file; see `weights.load_params`."""
  file = GGUFFile(path)
  config = config or read_config(file)
  with GGUFSource(file, config) as source:
    return weights.load_params(source, config, dtype, shardings, check_finite=check_finite)
