"""job=export: a checkpoint of a run, or any other model, as a Hugging Face directory."""

import pathlib
import sys
from typing import Any

from rlvr_jax.config import Config
from rlvr_jax.models import hf, runs
from rlvr_jax.models.load import full_name, load_model


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
  write(config.run, config.to, dtype=config.to_dtype)
  print(f'{full_name(config.run)} is in {config.to}', file=sys.stderr)


def write(name: str, to: str, *, dtype: str = '') -> None:
  """Writes the model of that name to a directory, in dtype ('': the run's own, else float32)."""
  reference = runs.find(name)
  record: dict[str, Any] = {} if reference is None else runs.read_record(reference)
  model_config, params, tokenizer = load_model(name, dtype=dtype or record.get('dtype', 'float32'))
  generation = hf.drawn_as(record['temperature'], record['top_p']) if record else None
  folder = pathlib.Path(to).expanduser()
  hf.save_safetensors(folder, params, model_config, tokenizer, generation=generation)
