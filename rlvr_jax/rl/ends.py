"""What a training run leaves: its model, what its checkpoints are of, the best, the last one."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from rlvr_jax import hosts, paths
from rlvr_jax.checkpoint import Checkpointer
from rlvr_jax.config import Config
from rlvr_jax.models import runs
from rlvr_jax.models.hf import drawn_as, save_safetensors
from rlvr_jax.models.load import fingerprint, full_name
from rlvr_jax.models.weights import stored_tensors
from rlvr_jax.rl.learner import Learner


def export(directory: pathlib.Path, learn: Learner) -> None:
  """Writes the model as a Hugging Face directory, unless it holds that of this very step."""
  step = int(learn.state.step)
  mark = directory / 'rlvr_step.json'
  there = mark.exists() and json.loads(mark.read_text()) == {'step': step}
  if hosts.from_first(there):
    return
  dtype = 'float32' if learn.trained.adapter else ''  # bfloat16 would round adapters away
  if hosts.is_first():
    if directory.exists():
      paths.remove_tree(directory)
    with paths.staged(directory) as local:
      save_safetensors(
        local,
        learn.params,
        learn.config,
        learn.tokenizer,
        dtype=dtype,
        generation=drawn_as(learn.run.sampling.temperature, learn.run.sampling.top_p),
      )
    mark.write_text(json.dumps({'step': step}))
  else:
    for _, _, read in stored_tensors(learn.params, learn.config, dtype):
      read()  # its part in bringing each tensor together
  hosts.barrier('the exported model')


def write_form(workdir: pathlib.Path, learn: Learner) -> None:
  """Says in the run's workdir what its checkpoints are of, so that they are models by name."""
  if jax.process_index():
    return
  runs.write_form(
    workdir,
    learn.config,
    learn.tokenizer,
    dtype=learn.run.model.dtype,
    temperature=learn.run.sampling.temperature,
    top_p=learn.run.sampling.top_p,
    more=_adapters(learn),
  )


def _adapters(learn: Learner) -> dict[str, Any]:
  """What run.json says of a run's adapters, if it trains any."""
  if learn.trained.adapter is None:
    return {}
  base = full_name(learn.run.model.name)
  return runs.adapter_record(learn.trained.adapter, base, fingerprint(base))


def grace(config: Config) -> float:
  """Seconds from a signal until sampling is given up; inf: never, as in a run of many processes,
  which would not do so together."""
  wanted = config.watch.grace_seconds
  return wanted if wanted and hosts.count() == 1 else math.inf


def save_once(checkpoints: Checkpointer, step: int, save: Callable[[int], None]) -> None:
  """Leaves a committed checkpoint of this step; of step 0 there is nothing to keep."""
  checkpoints.wait()
  if step and step not in checkpoints.steps():
    save(step)
    checkpoints.wait()


def keep_best(
  config: Config,
  checkpoints: Checkpointer,
  step: int,
  row: Mapping[str, Any],
  save: Callable[[int], None],
) -> None:
  """Marks the checkpoint of this step if the look just taken at its model is the best so far.

  row: the look's metrics, of the model as it is after `step` iterations; save(step) saves it where
  it is not saved yet. The start model (step 0) does not count. Of equals the first stays.
  """
  if not config.train.keep_best or step == 0:
    return
  metric = f'eval/{config.train.keep_best.removeprefix("eval/")}'
  if not checkpoints.is_best(metric, row[metric]):
    return
  if step not in checkpoints.steps():
    save(step)
  checkpoints.mark_best(step, metric, row[metric])
