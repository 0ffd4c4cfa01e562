"""The whole study, very small: base, arms, samples, report; and the exact truth beside it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from configs.algorithms import NAMES
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.rl.report import panels_of

TINY = {
  'distill.steps': 150,
  'distill.batch': 64,
  'distill.eval_every': 0,
  'train.iterations': 2,
  'train.eval_every': 1,
  'train.prompts': 8,
  'train.group': 8,
  'train.eval_problems': 8,
  'train.eval_samples': 2,
  'task.params.problems': 200,
  'task.params.largest': 6,
  'task.params.target': 20,
  'task.holdout': 16,
  'evaluate.problems': 16,
  'evaluate.n': 256,
  'evaluate.headline_k': 64,
  'sampling.slots': 256,
  'sampling.bank_rows': 16,
  'metrics.tensorboard': False,
}


def run(
  workdir: pathlib.Path, config: str = 'quickstart', /, limit_s: float = 300, **overrides
) -> tuple[int, str]:
  """main.py on one device, as a user starts it; (exit code, what it printed)."""
  env = os.environ | {'XLA_FLAGS': '', 'JAX_COMPILATION_CACHE_DIR': str(workdir.parent / 'cache')}
  name, colon, arg = config.partition(':')
  file = f'{name}.py{colon}{arg}'
  flags = [f'--config.{key}={value}' for key, value in overrides.items()]
  done = subprocess.run(
    [sys.executable, 'main.py', f'--config=configs/{file}', f'--workdir={workdir}', *flags],
    env=env,
    capture_output=True,
    text=True,
    timeout=limit_s,
    check=False,
  )
  return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('study') / 'run'
  code, text = run(workdir, **TINY)
  assert code == 0, text
  return workdir, json.loads((workdir / 'results.json').read_text()), text


def test_results_follow_the_schema(finished):
  workdir, found, text = finished
  assert 'held-out pass@1' in text
  assert {'base', 'rl', 'rl_slow'} == set(found['models'])
  for name, model in found['models'].items():
    assert (model['n'], model['problems']) == (256, 16)
    assert model['role'] == ('base' if name == 'base' else 'rl')
    for value, low, high in model['pass_at_k'].values():
      assert 0 <= low <= value <= high <= 1
      assert low < high  # a zero-width interval is a bug
    assert {'1', '64', '256'} <= set(model['pass_at_k'])
  assert sum(found['coverage'].values()) == 16
  assert len(found['crossover_k']) == 3
  assert found['sampler_learner_gap']['max'] < 1e-4
  assert found['sampler_learner_gap']['mean'] <= found['sampler_learner_gap']['max']
  assert found['wall_seconds'] > 0
  page = (workdir / 'report.html').read_text()
  assert 'http-equiv' not in page.split('</head>')[1]
  assert 'src="http' not in page
  assert {p.name for p in workdir.glob('problems.*')} == {'problems.csv', 'problems.parquet'}


def test_sampled_curves_agree_with_the_exact_ones(finished):
  """The instrument is calibrated on trained models: no point is 5 sampling deviations off."""
  _, found, _ = finished
  for model in found['models'].values():
    assert model['exact']['largest_z'] is not None
    assert model['exact']['largest_z'] < 5
    # and it measures something: a model that never solves anything would agree trivially
    assert model['exact']['pass_at_k']['256'] > 0.05


def test_a_second_start_tops_up_and_runs_nothing_again(finished):
  workdir, before, _ = finished
  marks = {p: p.stat().st_mtime_ns for p in workdir.rglob('*.safetensors')}
  store = SampleStore(workdir / 'samples')
  rows = store.read('base', 'countdown').to_pylist()
  code, text = run(workdir, **TINY | {'evaluate.n': 272})
  assert code == 0, text
  assert 'training arm' not in text
  assert {p: p.stat().st_mtime_ns for p in workdir.rglob('*.safetensors')} == marks
  after = store.read('base', 'countdown').to_pylist()
  assert after[: len(rows)] == rows
  assert len(after) == 16 * 272
  assert {row['sample'] for row in after[len(rows) :]} == set(range(256, 272))
  found = json.loads((workdir / 'results.json').read_text())
  assert found['models']['base']['n'] == 272
  assert (
    found['models']['base']['exact']['pass_at_k']['64']
    == (before['models']['base']['exact']['pass_at_k']['64'])
  )


def test_a_stage_of_another_config_is_refused(finished):
  workdir, _, _ = finished
  code, text = run(workdir, **TINY | {'distill.noise': 0.9})
  assert code == 2
  assert 'finished stage of another config (distill.noise: 0.3 -> 0.9)' in text
  assert 'Traceback' not in text


@pytest.mark.check
@pytest.mark.parametrize('name', ['quickstart', 'quickstart_cot'])
def test_every_study_has_a_smoke_form(name, tmp_path):
  code, text = run(tmp_path / 'run', name, smoke=True)
  assert code == 0, text
  assert json.loads((tmp_path / 'run' / 'results.json').read_text())['models']['rl']


@pytest.mark.check
@pytest.mark.timeout(1800)
def test_ten_algorithms_are_better_than_their_base(tmp_path):
  """configs/algorithms.py with two seeds, a quarter of the completions; its table has intervals."""
  less = {'train.iterations': 25, 'train.prompts': 32, 'train.eval_every': 0, 'train.report': 0}
  less |= {'evaluate.n': 256, 'evaluate.problems': 100, 'evaluate.headline_k': 64}
  code, text = run(tmp_path / 'run', 'algorithms:seeds=2', limit_s=1750, **less)
  assert code == 0, text
  found = json.loads((tmp_path / 'run' / 'results.json').read_text())
  base = found['models']['base']['pass_at_k']['1'][0]
  table = {entry['algorithm']: entry for entry in found['algorithms']}
  assert set(table) == set(NAMES)
  for name, entry in table.items():
    value, low, high = entry['pass_at_k']['1']
    assert len(entry['seeds']) == 2
    assert low < value < high
    if name != 'pkpo':  # its credit for pass@4 is small at this learning rate (docs/measured.md)
      assert value > base, name


def test_a_study_without_looks_has_a_report_without_their_panel():
  rows = [{'step': 0, 'entropy': 1.0, 'grad_norm': 1.0}, {'step': 1, 'reward/mean': 0.5}]
  assert [panel.key for panel in panels_of({'rl': rows})] == ['reward/mean', 'entropy', 'grad_norm']
