"""Models by name: a directory, a .gguf file, a run's checkpoint (runs.py) or a hub id."""

import dataclasses
import hashlib
import os
import pathlib
import re
from typing import Any, Literal

import huggingface_hub
import jax
from huggingface_hub.errors import (
  HfHubHTTPError,
  HFValidationError,
  LocalEntryNotFoundError,
  OfflineModeIsEnabled,
)
from jax.sharding import NamedSharding, PartitionSpec

from rlvr_jax.models import gguf, hf, hf_vision, lora, runs
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.tokenizer import Tokenizer, gguf_tokenizer, read_tokenizer
from rlvr_jax.models.weights import Params, load_params

Part = Literal['config', 'tokenizer', 'weights']
_CONFIG_FILES = ['config.json', 'generation_config.json', *hf_vision.PROCESSOR_FILES]
_TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
]
_WEIGHT_FILES = ['model*.safetensors', 'model.safetensors.index.json']
_WANTED: dict[Part, list[str]] = {
  'config': _CONFIG_FILES,
  'tokenizer': _CONFIG_FILES + _TOKENIZER_FILES,
  'weights': _CONFIG_FILES + _TOKENIZER_FILES + _WEIGHT_FILES,
}
_HUB_ID = re.compile(r'[\w.-]+/[\w.-]+')


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a model lies on this machine: a Hugging Face directory, a GGUF file, a checkpoint."""

  name: str
  kind: Literal['hf', 'gguf', 'run']
  path: pathlib.Path
  reference: runs.Reference | None = None  # of a run's checkpoint


def models_dir() -> pathlib.Path:
  """Where models without a path are looked for: $RLVR_MODELS or ~/.cache/rlvr_jax/models."""
  return pathlib.Path(os.environ.get('RLVR_MODELS') or '~/.cache/rlvr_jax/models').expanduser()


def resolve(name: str | os.PathLike[str], part: Part = 'weights') -> Source:
  """Finds a model by name; fetches from the hub only the files that `part` needs.

  Tried in order: a run (runs/x is its last checkpoint, runs/x@step:300, runs/x@best), a local
  directory or .gguf file, the same (also without .gguf) in `models_dir`, a hub id (org/model)
  through huggingface_hub and its cache. ValueError says what to do.
  """
  name = os.fspath(name)
  reference = runs.find(name)
  if reference is not None:
    return Source(name, 'run', reference.run, reference)
  local = pathlib.Path(name).expanduser()
  shelf = models_dir()
  for path in (local, shelf / name, shelf / f'{name}.gguf'):
    if path.is_file() and path.suffix == '.gguf':
      return Source(name, 'gguf', path)
    if path.is_dir():
      return _directory(name, path)
    if path.is_file():
      raise ValueError(f'model={name!r} is a file but no .gguf; name its directory instead')
  if name.endswith('.gguf') or not _HUB_ID.fullmatch(name):
    raise ValueError(
      f'model={name!r} is neither a directory, a .gguf file (here or in {shelf}), a run, nor a hub '
      'id of the form org/model; check the path, or set RLVR_MODELS to where your models are'
    )
  try:
    snapshot = huggingface_hub.snapshot_download(name, allow_patterns=_WANTED[part])
  except (
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    HfHubHTTPError,
    HFValidationError,
  ) as error:
    raise ValueError(
      f'model={name!r}: no such directory here, and the hub gave: {str(error).splitlines()[0]} '
      f'Check the id; where there is no network, fetch it elsewhere (`hf download {name}`) and '
      'name the directory, or point HF_HOME to a cache that has it'
    ) from error
  return _directory(name, pathlib.Path(snapshot))


def _directory(name: str, path: pathlib.Path) -> Source:
  if (path / 'config.json').is_file():
    return Source(name, 'hf', path)
  files = sorted(path.glob('*.gguf'))
  if len(files) == 1:
    return Source(name, 'gguf', files[0])
  if files:
    listing = ', '.join(f.name for f in files)
    raise ValueError(f'{path} holds {len(files)} .gguf files ({listing}); name one of them')
  raise ValueError(
    f'{path} has neither a config.json nor a .gguf file, so it holds no model; finish the download '
    'or name another directory'
  )


def load_config(name: str | os.PathLike[str]) -> ModelConfig:
  """ModelConfig of a model, without its weights."""
  source = resolve(name, 'config')
  if source.reference is not None:
    return runs.read_config(source.reference)
  if source.kind == 'gguf':
    return gguf.read_config(gguf.GGUFFile(source.path))
  return hf.read_config(source.path)


def load_tokenizer(name: str | os.PathLike[str]) -> Tokenizer:
  """Tokenizer of a model, without its weights."""
  source = resolve(name, 'tokenizer')
  if source.kind == 'gguf':
    return gguf_tokenizer(gguf.GGUFFile(source.path))
  if source.reference is not None:
    return _hf_tokenizer(source.reference.form, runs.read_config(source.reference))
  return _hf_tokenizer(source.path, hf.read_config(source.path))


def _hf_tokenizer(path: pathlib.Path, config: ModelConfig) -> Tokenizer:
  tokenizer = read_tokenizer(path)
  # the tokenizer's own eos ends a turn even where the configs forget it
  return dataclasses.replace(
    tokenizer, eos_ids=tuple(dict.fromkeys((*config.eos_ids, *tokenizer.eos_ids)))
  )


def load_model(
  name: str | os.PathLike[str],
  *,
  dtype: str = 'float32',
  shardings: Any = None,
  check_finite: bool = True,
  merged: bool = False,
  attention_impl: str = 'auto',
) -> tuple[ModelConfig, Params, Tokenizer]:
  """(ModelConfig, params in the learner's stacked form, Tokenizer) of a model.

  attention_impl: of rows, a name in models/attention.py, kept in the ModelConfig.

  shardings: a tree like params of jax Shardings, or a function ModelConfig -> such a tree. A run
  that trained adapters gives params with the adapters merged in float32, attached in bfloat16
  (models/lora.py) unless `merged` asks for plain params.
  """
  source = resolve(name)
  if source.reference is not None:
    return _load_checkpoint(source.reference, dtype, shardings, merged, attention_impl)
  if source.kind == 'gguf':
    file = gguf.GGUFFile(source.path)
    config, tokenizer = gguf.read_config(file), gguf_tokenizer(file)
    tensors: Any = gguf.GGUFSource(file, config)
  else:
    config = hf.read_config(source.path)
    tokenizer = _hf_tokenizer(source.path, config)
    tensors = hf.SafetensorsSource(source.path)
  placed = shardings(config) if callable(shardings) else shardings
  with tensors:
    params = load_params(tensors, config, dtype, placed, check_finite=check_finite)
  return dataclasses.replace(config, attention_impl=attention_impl), params, tokenizer


def _load_checkpoint(
  reference: runs.Reference, dtype: str, shardings: Any, merged: bool, attention_impl: str
) -> tuple[ModelConfig, Params, Tokenizer]:
  config, record = runs.read_config(reference), runs.read_record(reference)
  placed = shardings(config) if callable(shardings) else shardings
  if record.get('lora'):
    params = _load_adapted(reference, record, dtype, placed, merged)
  else:
    params = runs.load_params(reference, config, dtype, placed)
  config = dataclasses.replace(config, attention_impl=attention_impl)
  return config, params, _hf_tokenizer(reference.form, config)


def _load_adapted(
  reference: runs.Reference, record: dict[str, Any], dtype: str, placed: Any, merged: bool
) -> Params:
  """The base in the dtype it was trained over, with the checkpoint's adapters."""
  base, adapter = record['lora']['base'], runs.adapter_of(record)
  assert adapter is not None
  if fingerprint(base) != record['lora']['base_fingerprint']:
    raise ValueError(
      f'{reference} adapts model.name={base!r}, which is not the model any more that it was '
      'trained over; put that one back'
    )
  _, params, _ = load_model(base, dtype=record['dtype'], shardings=placed, merged=True)
  everywhere = None if placed is None else NamedSharding(placed['embed'].mesh, PartitionSpec())
  factors = runs.load_factors(reference, everywhere)
  params = runs.cast(params, dtype)
  if not merged and dtype == 'bfloat16':
    return lora.attach(params, runs.cast(factors, dtype), adapter)

  def merge(params: Params, factors: lora.Factors) -> Params:
    return lora.merge(lora.attach(params, factors, adapter))

  # in the base's memory: of each leaf there is one
  return jax.jit(merge, donate_argnums=0, out_shardings=placed)(params, factors)


def full_name(name: str | os.PathLike[str]) -> str:
  """A model's name with the step of the checkpoint it stands for: runs/x is runs/x@step:300 now."""
  reference = runs.find(os.fspath(name))
  return os.fspath(name) if reference is None else str(reference)


def fingerprint(name: str | os.PathLike[str]) -> str:
  """sha256 (hex) over the content of everything that decides what a model computes.

  Config, tokenizer and weight files in the order of their names; the same bytes under another
  path or name have the same fingerprint. Reads all weights: about a second a gigabyte.
  """
  source = resolve(name)
  if source.reference is not None:
    return runs.fingerprint(source.reference)
  paths = [source.path]
  if source.kind == 'hf':
    paths = sorted({p for pattern in _WANTED['weights'] for p in source.path.glob(pattern)})
  digest = hashlib.sha256()
  for path in paths:
    with path.open('rb') as f:
      content = hashlib.file_digest(f, 'sha256').hexdigest()
    label = path.name if source.kind == 'hf' else 'gguf'
    digest.update(f'{label} {content}\n'.encode())
  return digest.hexdigest()
