"""Models by the run that trains them: runs/x, runs/x@step:300, runs/x@best.

A run leaves its checkpoints in `checkpoints`, and in `architecture` what they are of: config.json,
generation_config.json and the tokenizer as Hugging Face has them, and run.json (`write_form`).
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rlvr_jax import checkpoint, paths
from rlvr_jax.models import hf
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.lora import Adapter, Factors
from rlvr_jax.models.weights import Params, leaves

FORM = 'architecture'
CHECKPOINTS = 'checkpoints'
_REFERENCE = re.compile(r'(?P<run>.+?)@(?P<which>step:\d+|best|latest)')


@dataclasses.dataclass(frozen=True)
class Reference:
  """One checkpoint of a run. step: iterations of RL, steps of fine-tuning."""

  run: pathlib.Path
  step: int

  @property
  def form(self) -> pathlib.Path:
    """Where its config and tokenizer are."""
    return self.run / FORM

  @property
  def checkpoints(self) -> pathlib.Path:
    """Where its arrays are."""
    return self.run / CHECKPOINTS

  def __str__(self) -> str:
    return f'{self.run}@step:{self.step}'


def find(name: str) -> Reference | None:
  """The checkpoint that `name` names; None if it is not the name of a run.

  ValueError, with what there is, for a run without checkpoints or without the one asked for.
  """
  match = _REFERENCE.fullmatch(name)
  if match is None and '@' in name and not pathlib.Path(name).expanduser().exists():
    run, _, which = name.rpartition('@')
    if pathlib.Path(run).expanduser().is_dir():
      raise ValueError(
        f'model={name!r}: {which!r} is no checkpoint; write {run}@step:300, {run}@best or {run}'
      )
  path = pathlib.Path(match['run'] if match else name).expanduser()
  if match is None and any(path.glob('*.safetensors')):
    return None  # a model that has a folder of this name
  if not (path / CHECKPOINTS).is_dir():
    if match is None and not (path / 'versions.json').is_file():
      return None
    raise ValueError(_no_run(name, path))
  steps = checkpoint.saved_steps(path / CHECKPOINTS)
  if not steps:
    raise ValueError(f'model={name!r}: {path} has no checkpoint yet')
  return Reference(path, _choose(name, path, match['which'] if match else 'latest', steps))


def _choose(name: str, path: pathlib.Path, which: str, steps: list[int]) -> int:
  if which == 'latest':
    return steps[-1]
  if which == 'best':
    best = checkpoint.read_best(path)
    if best is None:
      raise ValueError(
        f"model={name!r}: {path} marked none as the best; train with train.keep_best='pass@1', or "
        f'name one of its checkpoints: {_listed(steps)}'
      )
    return best['step']
  step = int(which.removeprefix('step:'))
  if step not in steps:
    raise ValueError(
      f'model={name!r}: there is no checkpoint at step {step}; {path} has {_listed(steps)}'
    )
  return step


def _listed(steps: list[int]) -> str:
  return ', '.join(f'@step:{step}' for step in steps)


def _no_run(name: str, path: pathlib.Path) -> str:
  if not path.is_dir():
    near = sorted(p.parent.name for p in path.parent.glob(f'*/{CHECKPOINTS}'))
    there = f'; runs in {path.parent}: {", ".join(near)}' if near else ''
    return f'model={name!r}: there is no run {path}{there}'
  inner = sorted(str(p.parent) for p in path.glob(f'**/{CHECKPOINTS}'))
  if inner:
    return f'model={name!r}: {path} has no checkpoints of its own; name one of {", ".join(inner)}'
  return f'model={name!r}: {path} is the directory of a run that trained nothing: no checkpoints'


def write_form(
  workdir: pathlib.Path,
  config: ModelConfig,
  tokenizer: Any,
  *,
  dtype: str,
  temperature: float,
  top_p: float,
  more: Mapping[str, Any] | None = None,
) -> None:
  """Leaves in a run's workdir what its checkpoints are of; once it is there it stays.

  temperature, top_p: those of the run's completions, for generation_config.json; more: what
  else run.json says (models/lora.py).
  """
  folder = workdir / FORM
  record = {'dtype': dtype, 'temperature': temperature, 'top_p': top_p, **(more or {})}
  if folder.is_dir():
    if hf.read_json(folder / 'run.json') == json.loads(json.dumps(record)):
      return
    paths.remove_tree(folder)
  with hf.new_directory(folder) as part:
    hf.write_form(part, config, tokenizer, dtype=dtype, generation=hf.drawn_as(temperature, top_p))
    hf.write_json(part / 'run.json', record)


def read_record(reference: Reference) -> dict[str, Any]:
  """What run.json of a run says: dtype, temperature, top_p."""
  path = reference.form / 'run.json'
  if not path.is_file():
    raise ValueError(
      f'{reference.run} has checkpoints but no {FORM}/run.json, so what they are of is not known; '
      'the same training command writes it, also when it goes on'
    )
  return hf.read_json(path)


def read_config(reference: Reference) -> ModelConfig:
  """ModelConfig of a run's model."""
  read_record(reference)
  return hf.read_config(reference.form)


def load_params(
  reference: Reference, config: ModelConfig, dtype: str = 'float32', shardings: Any = None
) -> Params:
  """The params of a checkpoint, in the learner's stacked form; optimizer state is not read.

  ValueError if they are not those of config's architecture, or damaged.
  """
  stored = checkpoint.saved_shapes(reference.checkpoints, reference.step).get('params')
  _check_architecture(reference, config, stored)

  def placed(leaf: jax.ShapeDtypeStruct, sharding: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  target = jax.tree.map(placed, stored, *([] if shardings is None else [shardings]))
  found = checkpoint.read_part(reference.checkpoints, reference.step, {'params': target})['params']
  return cast(found, dtype)


def adapter_of(record: Mapping[str, Any]) -> Adapter | None:
  """The adapters that a run.json tells of; None where all weights trained."""
  found = record.get('lora')
  return found and Adapter(found['rank'], found['alpha'], tuple(found['targets']))


def adapter_record(adapter: Adapter, base: str, fingerprint: str) -> dict[str, Any]:
  """What run.json says of adapters: themselves, and the model they adapt and its content."""
  found = {'rank': adapter.rank, 'alpha': adapter.alpha, 'targets': list(adapter.targets)}
  return {'lora': {**found, 'base': base, 'base_fingerprint': fingerprint}}


def load_factors(reference: Reference, sharding: Any = None) -> Factors:
  """The adapters' factors of a checkpoint, float32, all on one sharding."""
  stored = checkpoint.saved_shapes(reference.checkpoints, reference.step)['lora']
  target = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), stored
  )
  return checkpoint.read_part(reference.checkpoints, reference.step, {'lora': target})['lora']


def cast(params: Params, dtype: str) -> Params:
  """params in another dtype, leaf by leaf: the old leaves are deleted on the way."""

  def one(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == dtype:
      return leaf
    new = leaf.astype(jnp.dtype(dtype))
    new.block_until_ready()
    leaf.delete()
    return new

  return jax.tree.map(one, params)


def _check_architecture(reference: Reference, config: ModelConfig, stored: Any) -> None:
  found = {
    '.'.join(str(key.key) for key in path): tuple(leaf.shape)
    for path, leaf in jax.tree.leaves_with_path(stored)
  }
  expected = {'.'.join(leaf.path): leaf.full_shape for leaf in leaves(config)}
  wrong = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
  if wrong:
    shown = '; '.join(
      f'{n} is {found.get(n, "missing")}, expected {expected.get(n, "nothing")}' for n in wrong[:8]
    )
    raise ValueError(
      f'{reference} is a checkpoint of another architecture than {reference.form}/config.json says '
      f'({config.architecture}, {config.num_layers} layers): {shown}'
    )


def fingerprint(reference: Reference) -> str:
  """sha256 (hex) of what the checkpoint's model computes: weights, config and tokenizer.

  The weights count by the checksums stored with them, so that none is read.
  """
  sums = checkpoint.saved_sums(reference.checkpoints, reference.step)
  digest = hashlib.sha256(
    json.dumps({n: s for n, s in sums.items() if n.startswith(('params/', 'lora/'))}).encode()
  )
  for path in sorted(reference.form.iterdir()):
    digest.update(f'{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n'.encode())
  return digest.hexdigest()
