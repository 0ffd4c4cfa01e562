"""Models in Hugging Face's directory format: config.json and safetensors, read and written."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from rlvr_jax import paths
from rlvr_jax.models import hf_vision, weights
from rlvr_jax.models.config import ModelConfig, RopeScaling
from rlvr_jax.models.weights import Index, Params

ARCHITECTURES = {
  'llama': 'LlamaForCausalLM',
  'qwen2': 'Qwen2ForCausalLM',
  'qwen3': 'Qwen3ForCausalLM',
  hf_vision.ARCHITECTURE: 'Qwen2_5_VLForConditionalGeneration',
}
_BIASED = ('qwen2', hf_vision.ARCHITECTURE)
# what a config.json that leaves them out means (the defaults of HF's config classes)
_DEFAULTS = {
  'llama': {'max_position_embeddings': 2048},
  'qwen2': {'max_position_embeddings': 32_768},
  'qwen3': {'max_position_embeddings': 32_768, 'head_dim': 128},
  hf_vision.ARCHITECTURE: {
    'max_position_embeddings': 32_768,
    'num_key_value_heads': 8,
    'rms_norm_eps': 1e-5,
  },
}
_REQUIRED = (
  'vocab_size',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object from a file; ValueError names the file and where it breaks."""
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f'{path} is not JSON: {error}; fetch the file again') from error
  if not isinstance(value, dict):
    raise ValueError(f'{path} holds a {type(value).__name__}, expected a JSON object')
  return value


def read_config(directory: str | os.PathLike[str]) -> ModelConfig:
  """ModelConfig of a directory: config.json, stop ids also of generation_config.json, and what is
  done with pixels of preprocessor_config.json."""
  directory = pathlib.Path(directory)
  path = directory / 'config.json'
  if not path.is_file():
    raise ValueError(f'{directory} has no config.json, so it is no Hugging Face model directory')
  generation = directory / 'generation_config.json'
  processor = next(
    (f for name in hf_vision.PROCESSOR_FILES if (f := directory / name).is_file()), None
  )
  return parse_config(
    read_json(path),
    read_json(generation) if generation.is_file() else None,
    origin=str(path),
    processor=read_json(processor) if processor else None,
  )


def parse_config(
  config: Mapping[str, Any],
  generation: Mapping[str, Any] | None = None,
  origin: str = 'config.json',
  processor: Mapping[str, Any] | None = None,
) -> ModelConfig:
  """ModelConfig from the content of config.json (generation_config.json, preprocessor_config.json).

  Raises ValueError for an unknown architecture, missing keys, and features we do not compute.
  """
  architecture = config.get('model_type')
  if architecture not in ARCHITECTURES:
    raise ValueError(
      f'{origin}: model_type={architecture!r} is not a known architecture; known: '
      f'{", ".join(sorted(ARCHITECTURES))}'
    )
  whole, more = config, {}
  if architecture == hf_vision.ARCHITECTURE:
    config = hf_vision.decoder_part(whole)
  missing = [key for key in _REQUIRED if not isinstance(config.get(key), int)]
  if missing:
    raise ValueError(f'{origin}: missing or not an integer: {", ".join(missing)}')
  _refuse_unsupported(config, architecture, origin)
  values = {**_DEFAULTS[architecture], **{k: v for k, v in config.items() if v is not None}}
  theta, scaling = _rope(config, origin)
  if architecture == hf_vision.ARCHITECTURE:
    more = hf_vision.parse_vision(whole, config, processor or {}, origin)
  heads = values['num_attention_heads']
  return ModelConfig(
    architecture=architecture,
    vocab_size=values['vocab_size'],
    embed_dim=values['hidden_size'],
    mlp_dim=values['intermediate_size'],
    num_layers=values['num_hidden_layers'],
    num_heads=heads,
    num_kv_heads=values.get('num_key_value_heads', heads),
    head_dim=values.get('head_dim', values['hidden_size'] // heads),
    rope_theta=theta,
    rope_scaling=scaling,
    rms_eps=float(values.get('rms_norm_eps', 1e-6)),
    tie_embeddings=bool(values.get('tie_word_embeddings', False)),
    qkv_bias=architecture in _BIASED,
    qk_norm=architecture == 'qwen3',
    max_positions=values['max_position_embeddings'],
    eos_ids=_stop_ids(config, generation or {}),
    bos_id=config.get('bos_token_id'),
    **more,
  )


def _refuse_unsupported(config: Mapping[str, Any], architecture: str, origin: str) -> None:
  reasons = []
  if config.get('hidden_act', 'silu') != 'silu':
    reasons.append(f'hidden_act={config["hidden_act"]!r} (only silu)')
  for key in ('attention_bias', 'mlp_bias'):
    if config.get(key):
      reasons.append(f'{key}=true (no bias on these projections in {architecture} here)')
  if config.get('use_sliding_window') or (architecture == 'llama' and config.get('sliding_window')):
    reasons.append('a sliding attention window (full causal attention only)')
  elif any(kind != 'full_attention' for kind in config.get('layer_types') or ()):
    reasons.append('layer_types other than full_attention')
  if config.get('quantization_config'):
    method = config['quantization_config'].get('quant_method', 'unknown')
    reasons.append(f'quantised weights ({method}): take the unquantised model or its GGUF file')
  if reasons:
    raise ValueError(f'{origin}: not supported: {"; ".join(reasons)}')


def _rope(config: Mapping[str, Any], origin: str) -> tuple[float, RopeScaling | None]:
  """theta and scaling; from `rope_parameters` (new form) or `rope_theta` + `rope_scaling` (old)."""
  new, old = config.get('rope_parameters') or {}, config.get('rope_scaling') or {}
  rope = {**old, **new}
  theta = float(rope.get('rope_theta') or config.get('rope_theta') or 10_000.0)
  partial = rope.get('partial_rotary_factor', config.get('partial_rotary_factor')) or 1.0
  if partial != 1.0:
    raise ValueError(f'{origin}: partial_rotary_factor={partial} is not supported, only 1.0')
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind == 'default':
    return theta, None
  if kind != 'llama3':
    raise ValueError(
      f'{origin}: rope scaling {kind!r} is not supported (known: default, llama3); for lengths the '
      'model was trained on, remove rope_scaling from config.json'
    )
  keys = ('factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
  missing = [key for key in keys if key not in rope]
  if missing:
    raise ValueError(f'{origin}: rope scaling llama3 lacks {", ".join(missing)}')
  factor, low, high = (float(rope[key]) for key in keys[:3])
  return theta, RopeScaling(factor, low, high, int(rope[keys[3]]))


def _stop_ids(config: Mapping[str, Any], generation: Mapping[str, Any]) -> tuple[int, ...]:
  found: list[int] = []
  for source in (generation, config):
    value = source.get('eos_token_id')
    for token in value if isinstance(value, list) else [value]:
      if token is not None and token not in found:
        found.append(int(token))
  return tuple(found)


def config_json(config: ModelConfig, dtype: str = 'float32') -> dict[str, Any]:
  """The config.json content of a ModelConfig, in the keys that old and new readers know."""
  c = config
  if c.architecture not in ARCHITECTURES:
    raise ValueError(
      f'architecture={c.architecture!r} has no config.json form; known: {ARCHITECTURES}'
    )
  if (c.qkv_bias, c.qk_norm) != (c.architecture in _BIASED, c.architecture == 'qwen3'):
    raise ValueError(
      f'{c.architecture} with qkv_bias={c.qkv_bias}, qk_norm={c.qk_norm} is no architecture that '
      'HF can load: qwen2 has the bias, qwen3 the norm, llama neither'
    )
  content: dict[str, Any] = {
    'architectures': [ARCHITECTURES[c.architecture]],
    'model_type': c.architecture,
    'vocab_size': c.vocab_size,
    'hidden_size': c.embed_dim,
    'intermediate_size': c.mlp_dim,
    'num_hidden_layers': c.num_layers,
    'num_attention_heads': c.num_heads,
    'num_key_value_heads': c.num_kv_heads,
    'head_dim': c.head_dim,
    'hidden_act': 'silu',
    'max_position_embeddings': c.max_positions,
    'rms_norm_eps': c.rms_eps,
    'rope_theta': c.rope_theta,
    'rope_scaling': None,
    'tie_word_embeddings': c.tie_embeddings,
    'attention_dropout': 0.0,
    'initializer_range': 0.02,
    'use_cache': True,
    'torch_dtype': dtype,
    **_token_ids(c),
  }
  if c.rope_scaling is not None:
    content['rope_scaling'] = {
      'rope_type': 'llama3',
      'factor': c.rope_scaling.factor,
      'low_freq_factor': c.rope_scaling.low_freq_factor,
      'high_freq_factor': c.rope_scaling.high_freq_factor,
      'original_max_position_embeddings': c.rope_scaling.original_max_positions,
    }
  if c.vision is not None:
    content |= hf_vision.vision_json(c)
  elif c.architecture == 'qwen2':
    content['use_sliding_window'] = False
  else:
    content['attention_bias'] = False
  if c.architecture == 'llama':
    content['mlp_bias'] = False
  return content


def _token_ids(config: ModelConfig) -> dict[str, Any]:
  stop = list(config.eos_ids)
  return {
    'bos_token_id': config.bos_id,
    'eos_token_id': (stop[0] if len(stop) == 1 else stop) if stop else None,
  }


class SafetensorsSource:
  """The safetensors files of a model directory, memory-mapped; use as a context manager."""

  def __init__(self, directory: str | os.PathLike[str]):
    self.directory = pathlib.Path(directory)
    self.origin = str(directory)
    self._stack = contextlib.ExitStack()
    self._home: dict[str, tuple[Any, str]] = {}  # hub's name -> file and the name there
    try:
      for path in self._files():
        handle = self._stack.enter_context(_open(path))
        for name in list(handle.keys()):
          self._home[hf_vision.stored_name(name)] = handle, name
    except ValueError:
      self._stack.close()
      raise

  def __enter__(self) -> 'SafetensorsSource':
    return self

  def __exit__(self, *exc: object) -> None:
    self._home.clear()
    self._stack.close()

  def _files(self) -> list[pathlib.Path]:
    index, single = (self.directory / f'model.safetensors{s}' for s in ('.index.json', ''))
    if index.is_file():
      weight_map = read_json(index).get('weight_map')
      if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f'{index} has no weight_map; fetch the file again')
      paths = [self.directory / name for name in sorted(set(weight_map.values()))]
      if absent := [p.name for p in paths if not p.is_file()]:
        raise ValueError(
          f'{self.directory}: {len(absent)} of {len(paths)} weight files are missing: '
          f'{", ".join(absent)}; finish the download'
        )
      return paths
    if single.is_file():
      return [single]
    other = sorted(p.name for p in self.directory.glob('*') if p.suffix in ('.bin', '.pt', '.pth'))
    hint = f' ({", ".join(other)} would have to be converted to safetensors)' if other else ''
    raise ValueError(
      f'{self.directory} has no weights: neither model.safetensors nor model.safetensors.index.json'
      f'{hint}; finish the download or name another directory'
    )

  def entries(self) -> dict[str, tuple[tuple[int, ...], str]]:
    found = {}
    for name, (handle, stored) in self._home.items():
      view = handle.get_slice(stored)
      found[name] = (tuple(view.get_shape()), view.get_dtype())
    return found

  def read(self, name: str, index: Index) -> np.ndarray:
    handle, stored = self._home[name]
    return handle.get_slice(stored)[index]


def _open(path: pathlib.Path) -> Any:
  try:
    return safetensors.safe_open(path, framework='np')
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{path} ({path.stat().st_size} bytes) is truncated or damaged: {error}; fetch the file again'
    ) from error


def load_safetensors(
  directory: str | os.PathLike[str],
  config: ModelConfig,
  dtype: str = 'float32',
  shardings: Any = None,
  *,
  check_finite: bool = True,
) -> Params:
  """Params (learner's stacked form) of a model directory; see `weights.load_params`."""
  with SafetensorsSource(directory) as source:
    return weights.load_params(source, config, dtype, shardings, check_finite=check_finite)


def save_safetensors(
  directory: str | os.PathLike[str],
  params: Params,
  config: ModelConfig,
  tokenizer: Any = None,
  *,
  dtype: str = '',
  generation: Mapping[str, Any] | None = None,
  max_shard_bytes: float = 5e9,
) -> None:
  """Writes a model directory that HF transformers loads; values and dtype are kept bit for bit.

  params in the learner's stacked form; attached adapters are merged, a layer at a time. dtype: of
  the weights, '' as they are; tokenizer anything with `save_pretrained(directory)`;
  generation: further keys of generation_config.json, see `drawn_as`. Written beside the target and
  renamed, so the directory is whole or absent; ValueError if it already holds something. At most
  one shard is copied in memory.
  """
  dtype = dtype or jnp.dtype(params['embed'].dtype).name
  with new_directory(directory) as part:
    write_form(part, config, tokenizer, dtype=dtype, generation=generation)
    _write_shards(part, params, config, dtype, max_shard_bytes)


def write_form(
  directory: pathlib.Path,
  config: ModelConfig,
  tokenizer: Any,
  *,
  dtype: str,
  generation: Mapping[str, Any] | None = None,
) -> None:
  """Writes into a directory what `save_safetensors` does, all but the weights."""
  write_json(directory / 'config.json', config_json(config, dtype))
  if config.vision is not None:
    content = hf_vision.processor_json(config.vision)
    write_json(directory / hf_vision.PROCESSOR_FILES[0], content)
  write_json(directory / 'generation_config.json', {**_token_ids(config), **(generation or {})})
  if tokenizer is not None:
    tokenizer.save_pretrained(directory)


def drawn_as(temperature: float, top_p: float) -> dict[str, Any]:
  """The keys of generation_config.json that say how completions are drawn (0: the likeliest)."""
  if not temperature:
    return {'do_sample': False}
  # HF's own default is the 50 likeliest tokens
  return {'do_sample': True, 'temperature': temperature, 'top_p': top_p, 'top_k': 0}


@contextlib.contextmanager
def new_directory(directory: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """A directory to fill, which gets its name when it is whole and is gone otherwise.

  ValueError if something is there already.
  """
  directory = paths.path_of(directory)
  if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
    raise ValueError(f'{directory} already exists and is not empty; choose another directory')
  if paths.is_remote(directory):
    with paths.staged(directory) as local:
      yield local
    return
  directory.parent.mkdir(parents=True, exist_ok=True)
  part = pathlib.Path(tempfile.mkdtemp(prefix=f'{directory.name}.part-', dir=directory.parent))
  try:
    part.chmod(0o755)
    yield part
    if directory.exists():
      directory.rmdir()
    part.rename(directory)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """A JSON object into a file, in the way of Hugging Face's own."""
  path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


def _write_shards(
  directory: pathlib.Path,
  params: Params,
  config: ModelConfig,
  dtype: str,
  max_shard_bytes: float,
) -> None:
  itemsize = jnp.dtype(dtype).itemsize
  shards: list[list[tuple[str, Any]]] = [[]]
  room = total = 0
  for name, size, read in weights.stored_tensors(params, config, dtype):
    if shards[-1] and room + size * itemsize > max_shard_bytes:
      shards.append([])
      room = 0
    shards[-1].append((name, read))
    room += size * itemsize
    total += size * itemsize
  weight_map = {}
  for number, shard in enumerate(shards, 1):
    name = f'model-{number:05d}-of-{len(shards):05d}.safetensors'
    if len(shards) == 1:
      name = 'model.safetensors'
    tensors = {tensor: read() for tensor, read in shard}
    safetensors.numpy.save_file(tensors, directory / name, metadata={'format': 'pt'})
    (directory / name).chmod(0o644)  # the library leaves it readable by its owner alone
    weight_map.update(dict.fromkeys(tensors, name))
  if len(shards) > 1:
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    write_json(directory / 'model.safetensors.index.json', index)
