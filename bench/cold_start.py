"""make bench BENCH=cold_start: seconds from a start to the first sampled token, in fresh processes.

The first start finds an empty cache of compiled programs, the second that of the first. The model
is Qwen2.5-Coder-0.5B (GGUF, in the models directory); COLD_START_MODEL names another.
"""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from bench._measure import at_most

MODEL = 'qwen2.5-coder-0.5b'


def start(model: str, cache: str) -> dict[str, Any]:
  """What bench/_cold_start.py says of one start."""
  env = os.environ | {'JAX_COMPILATION_CACHE_DIR': cache}
  command = [sys.executable, '-m', 'bench._cold_start', model]
  done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
  return json.loads(done.stdout.splitlines()[-1])


def total(found: dict[str, Any], which: int) -> float:
  """Seconds (0) or CPU seconds (1) to the first token."""
  return sum(pair[which] for name, pair in found['stages'].items() if name != 'another token')


def main() -> list[dict[str, Any]]:
  """Both starts; in the second one programs are read, not compiled."""
  model = os.environ.get('COLD_START_MODEL', MODEL)
  with tempfile.TemporaryDirectory(prefix='rlvr_jax_cold') as cache:
    first, second = start(model, cache), start(model, cache)
  for name, found in (('first', first), ('second', second)):
    stages = {k: f'{a:.1f} ({b:.1f} CPU)' for k, (a, b) in found['stages'].items()}
    spent = {k: f'{v:.1f}' for k, v in found['spent'].items()}
    print(f'{name} start, seconds: {stages}, of these {spent}', flush=True)
  gates = []
  for which, unit in ((0, 's'), (1, 'CPU s')):
    how = f'{model}, a 0.5B in float32 by default; the target is the first start, which compiles'
    gates.append(
      at_most(f'second start to the first token, {unit}', total(second, which),
              total(first, which), unit, how)
    )  # fmt: skip
  return [
    *gates,
    at_most(
      'compiling at the second start over the first',
      second['spent']['compiling'] / first['spent']['compiling'],
      0.5,
      '',
      'seconds in which jax compiles a program, or reads it from the cache',
    ),
  ]
