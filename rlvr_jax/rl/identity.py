"""What decides a training run's numbers, as it is written beside its checkpoints."""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax.config import Config
from rlvr_jax.models.load import fingerprint
from rlvr_jax.rl import parts as reward_parts
from rlvr_jax.rl import teacher_data
from rlvr_jax.tasks import user_file
from rlvr_jax.tasks.load import content_hash


def identity_of(config: Config, exclude: Sequence[str]) -> dict[str, Any]:
  """What decides a run's numbers: the config's keys, and the content of its model and data."""
  found = config_lib.identity(config, exclude=exclude)
  found['content of task'] = content_hash(config.task)
  if config.job == 'train':
    found |= rules_of(config)
  if config.distill.source and config.job == 'distill':
    found['content of distill.source'] = _source_hash(config.distill.source)
  if config.distill.teacher and config.job == 'distill':
    found['content of distill.teacher'] = fingerprint(config.distill.teacher)[:16]
  if config.model.name:
    found['content of model.name'] = fingerprint(config.model.name)[:16]
  return found


def rules_of(config: Config) -> dict[str, str]:
  """What stands for the user's files that training's rewards and advantages are made by."""
  found = reward_parts.contents(config)
  if file := user_file.split(config.train.credit or ''):
    found['content of train.credit'] = user_file.version(*file)
  return found


def _source_hash(source: str) -> str:
  """teacher_data.content, but of a JSONL file what runs have always had in their identity."""
  path = pathlib.Path(source)
  return hash_of(path.read_text()) if path.suffix == '.jsonl' else teacher_data.content(source)


def hash_of(value: Any) -> str:
  """16 hex digits that stand for a JSON value."""
  text = json.dumps(value, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
