"""job=export: a checkpoint of a run, or any other model, as a Hugging Face directory."""

import pathlib
import sys
from typing import Any

import safetensors.numpy

from rlvr_jax.config import Config
from rlvr_jax.models import hf, lora, runs
from rlvr_jax.models.load import full_name, load_model, load_tokenizer


def export(config: Config, workdir: pathlib.Path) -> None:
  """Writes config.to from config.run; workdir keeps the record of how.

  Raises ValueError for a model that cannot be loaded and a directory that holds something.
  """
  del workdir
  if not config.run or not config.to:
    raise ValueError(
      f'job=export needs what and whereto: --config.run={config.run or "runs/x@step:300"} '
      f'--config.to={config.to or "DIRECTORY"}'
    )
  if config.adapter:
    write_adapter(config.run, config.to)
  else:
    write(config.run, config.to, dtype=config.to_dtype)
  print(f'{full_name(config.run)} is in {config.to}', file=sys.stderr)


def write(name: str, to: str, *, dtype: str = '') -> None:
  """Writes the model of that name to a directory, in dtype ('': the run's own, else float32).

  Adapters are merged, into float32 unless told otherwise: bfloat16 weights would round them away.
  """
  reference = runs.find(name)
  record: dict[str, Any] = {} if reference is None else runs.read_record(reference)
  stored = record.get('dtype', 'float32')
  model_config, params, tokenizer = load_model(name, dtype=stored)
  if record.get('lora'):
    stored = 'float32'
  generation = hf.drawn_as(record['temperature'], record['top_p']) if record else None
  folder = pathlib.Path(to).expanduser()
  hf.save_safetensors(
    folder, params, model_config, tokenizer, dtype=dtype or stored, generation=generation
  )


def write_adapter(name: str, to: str) -> None:
  """Writes a run's adapters as PEFT has them, with the tokenizer.

  ValueError for a model that has none.
  """
  reference = runs.find(name)
  record = {} if reference is None else runs.read_record(reference)
  adapter = runs.adapter_of(record)
  if reference is None or adapter is None:
    raise ValueError(
      f'adapter=True: {name!r} is no run that trained adapters (lora.rank); leave adapter out'
    )
  tensors = lora.peft_tensors(runs.load_factors(reference), runs.read_config(reference))
  with hf.new_directory(pathlib.Path(to).expanduser()) as part:
    hf.write_json(part / 'adapter_config.json', lora.peft_config(adapter, record['lora']['base']))
    path = part / 'adapter_model.safetensors'
    safetensors.numpy.save_file(tensors, path, metadata={'format': 'pt'})
    path.chmod(0o644)
    load_tokenizer(name).save_pretrained(part)
