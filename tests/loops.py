"""Tiny runs of the training loops, in this process and in one that is to be killed."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from safetensors.numpy import load_file

from configs import quickstart
from rlvr_jax import config as config_lib
from rlvr_jax.eval import run as run_lib
from rlvr_jax.metrics import read_metrics, repeatable
from rlvr_jax.rl import learner
from rlvr_jax.rl import train as train_lib

TINY = {
  'model.init.embed_dim': 16,
  'model.init.mlp_dim': 16,
  'model.init.num_layers': 1,
  'model.init.num_heads': 2,
  'model.init.num_kv_heads': 1,
  'model.init.head_dim': 8,
  'task.holdout': 4,
  'task.params.problems': 10,
  'task.params.largest': 6,
  'train.iterations': 4,
  'train.prompts': 4,
  'train.group': 8,
  'train.eval_every': 2,
  'train.eval_problems': 4,
  'train.eval_samples': 2,
  'train.checkpoint_every': 2,
  'train.keep': 8,
  'optimizer.schedule': 'constant',
  'optimizer.warmup_steps': 0,
  'optimizer.learning_rate': 3e-3,
  'distill.steps': 200,
  'distill.batch': 16,
  'distill.eval_every': 150,
  'distill.checkpoint_every': 200,
  'distill.learning_rate': 1e-2,
  'sampling.slots': 16,
  'sampling.bank_rows': 8,
  'metrics.tensorboard': False,
}


def config(**changes):
  """A run that takes a second when its programs are compiled; changes are dotted keys."""
  return config_lib.resolve(quickstart.get_config(), {'job': 'train'} | TINY | changes)


def open_tiny(config):
  """The learner of a config, with random weights where it names no model."""
  return learner.open_learner(
    config, train_lib.algorithm_of(config), total_steps=learner.total_steps(config)
  )


def rows(workdir: pathlib.Path) -> list[dict]:
  """metrics.jsonl without what time and machine decide."""
  return [repeatable(row) for row in read_metrics(workdir / 'metrics.jsonl')]


def model(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  """The exported weights."""
  return load_file(workdir / 'model' / 'model.safetensors')


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
  """The same metrics and the same weights, to the bit."""
  assert rows(one) == rows(other)
  mine, its = model(one), model(other)
  assert mine.keys() == its.keys()
  for name in mine:
    np.testing.assert_array_equal(mine[name], its[name], err_msg=name)


@contextlib.contextmanager
def quick(cache: pathlib.Path):
  """One device of the eight, and quick_programs, none of them compiled before; for a module."""
  settings = quick_programs(cache)
  before: dict = {'jax_disable_most_optimizations': False}  # which cannot be read
  before |= {key: getattr(jax.config, key) for key in settings if key not in before}
  for key, value in settings.items():
    jax.config.update(key, value)
  compilation_cache.reset_cache()
  jax.clear_caches()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_lib, 'make_mesh', lambda config: None)
    yield
  for key, value in before.items():
    jax.config.update(key, value)
  compilation_cache.reset_cache()


def quick_programs(cache: pathlib.Path) -> dict:
  """jax's settings for programs that compile fast, and once for all runs."""
  return {
    'jax_compilation_cache_dir': str(cache),
    'jax_persistent_cache_min_compile_time_secs': 0,
    'jax_disable_most_optimizations': True,
  }


KILLED = """
import json, os, pathlib, signal, sys
import jax
from rlvr_jax.eval import run as run_lib
from rlvr_jax.rl import learner, train
import loops

steps = learner.Learner.steps
def dying(self, *args, iteration, **kwargs):
  row = steps(self, *args, iteration=iteration, **kwargs)
  if iteration == int(sys.argv[3]):
    os.kill(os.getpid(), signal.SIGKILL)
  return row

if __name__ == '__main__':
  for key, value in loops.quick_programs(sys.argv[2]).items():
    jax.config.update(key, value)
  learner.Learner.steps = dying
  run_lib.make_mesh = lambda config: None
  train.train(loops.config(**json.loads(sys.argv[4])), pathlib.Path(sys.argv[1]))
"""


def killed_in_iteration(
  workdir: pathlib.Path, iteration: int, cache: pathlib.Path, **changes
) -> int:
  """Trains in a process that is killed after this iteration's step; its exit code."""
  here = pathlib.Path(__file__).parent
  script = workdir.parent / 'killed.py'
  script.write_text(KILLED)
  done = subprocess.run(
    [sys.executable, script, workdir, cache, str(iteration), json.dumps(changes)],
    env=os.environ | {'PYTHONPATH': f'{here}:{here.parent}'},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert 'Traceback' not in done.stderr, done.stderr
  return done.returncode
