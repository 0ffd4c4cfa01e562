"""make bench BENCH=analysis: seconds and memory from a large store to its report.

BENCH_PARTS chooses parts by name (a list with commas; all if unset):

  one   1,000 problems x 1,024 samples of one model: half a minute
  pair  the same of two models: a minute
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench._measure import at_most, run_parts
from rlvr_jax.eval import shards

Gates = list[dict[str, Any]]
PROBLEMS, SAMPLES = 1000, 1024
ROOT = pathlib.Path(__file__).resolve().parent.parent
WORDS = (
  'so',
  'the',
  'sum',
  'of',
  'both',
  'is',
  'then',
  'at',
  'most',
  'half',
  'what',
  'we',
  'had',
  'equal',
)


def make_store(
  root: pathlib.Path, model: str, *, problems: int, samples: int, seed: int, power: float = 1.0
) -> pathlib.Path:
  """A store of random samples at root/model/large: 50 to 100 characters, about 25 tokens each.

  Solve rates are Beta(0.3, 1) to the given power. The rows are of the store's own schema, written
  a shard of 65,536 at a time, problem by problem.
  """
  rng = np.random.default_rng(seed)
  rates = np.random.default_rng(0).beta(0.3, 1.0, problems) ** power
  settings = {'temperature': 0.6, 'top_p': 0.95, 'top_k': 0, 'max_tokens': 64}
  metadata = shards.Metadata(model, 'large', settings, 'h')
  folder = root / model / 'large'
  folder.mkdir(parents=True)
  total, step = problems * samples, 65_536
  for number, begin in enumerate(range(0, total, step)):
    rows = np.arange(begin, min(begin + step, total))
    table = pa.table(_columns(rng, rows, rates, samples), schema=shards.SCHEMA)
    table = table.replace_schema_metadata({shards.METADATA_KEY: metadata.encode()})
    path = folder / f'part-{number:05d}.parquet'
    pq.write_table(table, path, compression='zstd', write_page_checksum=True)
  return folder


def _columns(
  rng: np.random.Generator, rows: np.ndarray, rates: np.ndarray, samples: int
) -> dict[str, Any]:
  size = len(rows)
  problem = rows // samples
  right = rng.uniform(size=size) < rates[problem]
  lengths = rng.integers(15, 36, size)
  offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
  tokens = rng.integers(0, 150_000, int(offsets[-1])).astype(np.int32)
  picked = rng.integers(0, len(WORDS), (size, 14))
  texts = [' '.join(WORDS[w] for w in row) + f' {r}' for row, r in zip(picked, rows, strict=True)]
  logprobs = -rng.gamma(4.0, 3.0, size)
  return {
    'task': ['large'] * size,
    'problem_id': [f'problem-{p:05d}' for p in problem],
    'visit': np.zeros(size, np.int32),
    'sample': (rows % samples).astype(np.int32),
    'seed': np.zeros(size, np.int64),
    'tokens': pa.ListArray.from_arrays(offsets, tokens),
    'text': texts,
    'length': lengths.astype(np.int32),
    'finish': np.where(rng.uniform(size=size) < 0.02, 'length', 'eos'),
    'logprob_sum': logprobs,
    'logprob_sum_sampled': logprobs,
    'verdict': np.where(right, 'correct', 'wrong'),
    'extracted': rng.integers(0, 1000, size).astype(str),
    'reason': [''] * size,
    'reward': right.astype(np.float32),
    'verifier': ['exact-1'] * size,
    'sandbox': [''] * size,
  }


def measure(stores: str, out: pathlib.Path) -> dict[str, float]:
  """Runs job=compare in a process of its own: its seconds, peak resident GB, MB of the report."""
  words = ['--config=configs/compare.py', f'--config.stores={stores}', f'--workdir={out}']
  begin = time.perf_counter()
  running = subprocess.Popen([sys.executable, 'main.py', *words], cwd=ROOT)
  gigabytes = _watched(running)
  seconds = time.perf_counter() - begin
  if running.returncode:
    raise RuntimeError(f'job=compare of {stores} ended with status {running.returncode}')
  results = json.loads((out / 'results.json').read_text())
  assert all(entry['problems'] == PROBLEMS for entry in results['models'].values())
  return {
    'seconds': seconds,
    'gigabytes': gigabytes,
    'report': (out / 'report.html').stat().st_size / 1e6,
  }


def _watched(running: subprocess.Popen) -> float:
  """Waits for a process; its peak resident GB.

  Of its own memory (VmHWM of Linux): the maximum that rusage gives begins with that of whoever
  started it.
  """
  status = pathlib.Path(f'/proc/{running.pid}/status')
  if not status.exists():
    raise RuntimeError('peak memory is read from /proc, which is not there: Linux only')
  peak = 0
  while running.poll() is None:
    with contextlib.suppress(OSError):  # it ended in between
      lines = status.read_text().splitlines()
      peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))])
    time.sleep(0.02)
  return peak * 1024 / 1e9


def _gates(models: dict[str, float], about: str) -> Gates:
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    stores = [
      make_store(root / 'samples', name, problems=PROBLEMS, samples=SAMPLES, seed=i, power=power)
      for i, (name, power) in enumerate(models.items())
    ]
    found = measure(','.join(map(str, stores)), root / 'out')
  how = f'job=compare of {about}, {PROBLEMS:,} problems x {SAMPLES:,} samples each, as a command'
  return [
    at_most(f'{about}: seconds', found['seconds'], 60.0, 's', how),
    at_most(f'{about}: peak resident memory', found['gigabytes'], 2.0, 'GB', how),
    at_most(f'{about}: size of report.html', found['report'], 20.0, 'MB', how),
  ]


def one() -> Gates:
  """One model."""
  return _gates({'base': 1.0}, 'one store')


def pair() -> Gates:
  """Two models, compared."""
  return _gates({'base': 1.0, 'rl': 0.7}, 'two stores')


PARTS: dict[str, Callable[[], Gates]] = {'one': one, 'pair': pair}


def main() -> Gates:
  """The gates of the chosen parts."""
  return run_parts(PARTS)
