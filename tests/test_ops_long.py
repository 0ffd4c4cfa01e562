"""Long runs: nothing grows with their length, and twenty kills change no number."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import loops
import numpy as np
import pytest

from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.metrics import read_metrics

pytestmark = pytest.mark.check
ITERATIONS = 500
KILLS = 20
# the smallest model; dynamic sampling on a coin's rewards: signals, surplus groups and a cursor
# that no iteration can do without
CHANGES = {
  'train.iterations': ITERATIONS,
  'train.algorithm': 'dapo',
  'reward.control': 'random',
  'train.prompts': 2,
  'train.group': 2,
  'train.eval_every': 0,
  'train.export': False,
  'train.report': 0,
  'train.checkpoint_every': 5,
  'train.keep': 2,
  'train.keep_every': 100,
  'train.micro_tokens': 128,
  'verifier.workers': 1,
  'sampling.slots': 4,
  'sampling.bank_rows': 4,
  'sampling.max_tokens': 8,
  'sampling.chunk': 8,
  'sampling.prompt_capacity': 32,
}
# argv: workdir, cache, changes, file of what each iteration had
RUN = """
import json, os, pathlib, sys
import jax
from rlvr_jax import profiling, watch
from rlvr_jax.eval import run as run_lib
from rlvr_jax.rl import learner, train
import loops

def look(names):
  held = {
    'rss_kb': int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1024,
    'files': len(os.listdir('/proc/self/fd')),
    'threads': len(os.listdir('/proc/self/task')),
    'compiled': len(names),
    'arrays': len(jax.live_arrays()),
  }
  print(json.dumps(held), file=out, flush=True)

if __name__ == '__main__':
  workdir, cache, changes, held = sys.argv[1:]
  for key, value in loops.quick_programs(cache).items():
    jax.config.update(key, value)
  run_lib.make_mesh = lambda config: None
  steps = learner.Learner.steps
  with open(held, 'a') as out, profiling.compilations() as names:
    def noting(self, *args, **kwargs):
      row = steps(self, *args, **kwargs)
      look(names)
      return row
    learner.Learner.steps = noting
    with watch.Watch(workdir, hang_seconds=120):
      train.train(loops.config(**json.loads(changes)), pathlib.Path(workdir))
"""


@pytest.fixture(scope='module')
def here(tmp_path_factory):
  """A folder with the script and the compiled programs of all runs."""
  folder = tmp_path_factory.mktemp('long')
  (folder / 'run.py').write_text(RUN)
  return folder


def start(here: pathlib.Path, name: str) -> subprocess.Popen:
  """The run in workdir `name`, in a process group of its own."""
  tests = pathlib.Path(__file__).parent
  words = [here / 'run.py', here / name, here / 'cache', json.dumps(CHANGES), here / f'{name}.held']
  with open(here / f'{name}.log', 'ab') as log:
    return subprocess.Popen(
      [sys.executable, *words],
      env=os.environ | {'PYTHONPATH': f'{tests}:{tests.parent}', 'XLA_FLAGS': ''},
      stdout=log,
      stderr=log,
      start_new_session=True,
    )


def finish(process: subprocess.Popen, here: pathlib.Path, name: str) -> None:
  code = process.wait(timeout=240)
  assert code == 0, (here / f'{name}.log').read_text()[-3000:]


@pytest.fixture(scope='module')
def whole(here):
  """The undisturbed run."""
  finish(start(here, 'whole'), here, 'whole')
  return here / 'whole'


def test_nothing_grows_with_the_iterations(here, whole):
  """After warm-up: memory, open files, threads, compiled programs, arrays, files of the workdir."""
  held = [json.loads(line) for line in (here / 'whole.held').read_text().splitlines()]
  assert len(held) == ITERATIONS
  # the allocator itself grows for two hundred iterations or so, ever more slowly
  late = {key: np.array([row[key] for row in held[250:]]) for key in held[0]}
  index = np.arange(len(late['rss_kb']))
  slope = np.polyfit(index, late['rss_kb'], 1)[0]
  # what does grow: half a KB for a completion never judged before, some 27 KB for a checkpoint
  # (orbax's own records), one in five iterations here
  assert slope < 20, f'{slope:.1f} KB an iteration'
  assert len(set(late['compiled'])) == 1
  for key, most in (('files', 40), ('threads', 64), ('arrays', 400)):
    assert late[key].max() <= most
    first, last = late[key][:125], late[key][125:]
    assert np.percentile(last, 90) <= np.percentile(first, 90) + 2, key

  kept = sorted(int(path.name) for path in (whole / 'checkpoints').iterdir())
  assert kept == [100, 200, 300, 400, 495, 500]
  names = {path.name for path in whole.iterdir()}
  assert names == {
    'architecture', 'checkpoints', 'heartbeat.json', 'metrics.jsonl', 'samples', 'verdicts.jsonl',
  }  # fmt: skip
  shards = list((whole / 'samples' / 'train' / 'countdown').iterdir())
  assert len(shards) <= ITERATIONS / CHANGES['train.checkpoint_every']


def samples(workdir: pathlib.Path) -> list[tuple]:
  columns = ['problem_id', 'visit', 'sample', 'text', 'verdict']
  table = SampleStore(workdir / 'samples').read('train', 'countdown', columns)
  return sorted(tuple(row.values()) for row in table.to_pylist())


def last_step(workdir: pathlib.Path) -> int:
  path = workdir / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def kill_at_random(here: pathlib.Path, name: str, goal: int, chance: random.Random) -> None:
  """Starts the run, and kills it a random moment after iteration `goal`.

  goal -1: within the first seconds, wherever it is by then.
  """
  process = start(here, name)
  if goal < 0:
    time.sleep(chance.uniform(0.5, 9))
  end = time.monotonic() + 200
  while goal >= 0 and last_step(here / name) <= goal and process.poll() is None:
    assert time.monotonic() < end, (here / f'{name}.log').read_text()[-3000:]
    time.sleep(0.002)
  time.sleep(chance.uniform(0, 0.1))
  assert process.poll() is None, (here / f'{name}.log').read_text()[-3000:]
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def test_five_hundred_iterations_with_twenty_kills_are_those_without(here, whole):
  chance = random.Random(7)
  goals = sorted(chance.sample(range(ITERATIONS - 20), KILLS - 3))
  for early in (0, 5, 11):
    goals.insert(early, -1)
  assert len(goals) == KILLS
  for goal in goals:
    kill_at_random(here, 'killed', goal, chance)
  finish(start(here, 'killed'), here, 'killed')
  mine, its = (loops.rows(workdir) for workdir in (here / 'killed', whole))
  assert len(mine) == ITERATIONS
  assert mine == its
  assert any(row['groups/queued'] for row in its)  # a queue that had to come back
  assert len({row['loss'] for row in its}) > 100
  assert samples(here / 'killed') == samples(whole)
  log = (here / 'killed.log').read_text()
  assert 'Traceback' not in log
  # nothing of the killed ones is left but numbers: no parts of files, no half checkpoints
  names = {path.name for path in (here / 'killed').rglob('*')}
  assert not [name for name in names if 'part.' in name or name.endswith('.tmp')]
  assert not [name for name in names if 'orbax-checkpoint-tmp' in name]
  assert read_metrics(here / 'killed' / 'metrics.jsonl')[-1]['step'] == ITERATIONS - 1
