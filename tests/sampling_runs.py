"""Sampling jobs in processes of their own, some of them killed with kill -9."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax

from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.shards import KEY
from rlvr_jax.models.characters import char_tokenizer
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.hf import save_safetensors
from rlvr_jax.models.transformer import init_params

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHECK = str(ROOT / 'tests' / 'data' / 'plain_check.py')
ALPHABET = 'abcdefghij (),+-=:?'


def save_tiny_model(directory: pathlib.Path, alphabet: str = ALPHABET) -> pathlib.Path:
  """A random model that writes letters and stops now and then."""
  tokenizer = char_tokenizer(alphabet)
  config = ModelConfig(
    'llama', tokenizer.vocab_size, 16, 16, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8
  )
  params = init_params(jax.random.key(1), config)
  save_safetensors(directory, params, config, tokenizer)
  return directory


def start(command: list[str], cache: pathlib.Path) -> subprocess.Popen:
  """Starts python with these words, on one device, with programs compiled once for all starts."""
  env = os.environ | {
    'XLA_FLAGS': '',
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': str(cache),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  return subprocess.Popen(
    [sys.executable, *command],
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def job(workdir: pathlib.Path, **overrides) -> list[str]:
  """The words of a sampling job; overrides are dotted keys, with '__' for dots."""
  flags = [f'--config.{key.replace("__", ".")}={value}' for key, value in overrides.items()]
  return ['main.py', '--config=configs/sample.py', f'--workdir={workdir}', *flags]


def finish(process: subprocess.Popen, timeout: float) -> str:
  """What the process printed; AssertionError if it ended badly."""
  text, _ = process.communicate(timeout=timeout)
  assert process.returncode == 0, text
  return text


def shards(workdir: pathlib.Path) -> int:
  return len(list((workdir / 'samples').glob('*/*/part-*.parquet')))


def kill_in_the_middle(process: subprocess.Popen, workdir: pathlib.Path, more: int) -> None:
  """kill -9 of the process and its workers once it has written so many shards more."""
  wanted = shards(workdir) + more
  while shards(workdir) < wanted:
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.02)
  os.killpg(process.pid, signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  assert process.stdout is not None
  process.stdout.close()


def rows(workdir: pathlib.Path) -> list[dict]:
  """Every row of the only model and task in a workdir's store, in order of its key."""
  store = SampleStore(workdir / 'samples')
  ((model, (task,)),) = store.models().items()
  found = store.read(model, task).to_pylist()
  return sorted(found, key=lambda row: tuple(row[name] for name in KEY))
