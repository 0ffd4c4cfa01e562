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
  'model.init.num_layers': 2,
  'distill.steps': 150,
  'distill.batch': 64,
  'distill.eval_every': 0,
  'train.iterations': 2,
  'train.eval_every': 1,
  'train.prompts': 8,
  'train.group': 8,
  'train.micro_tokens': 128,  # one shape of most batches: one compilation
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
  'study.run_arms': "('rl',)",
}


def run(
  workdir: pathlib.Path, config: str = 'quickstart', /, limit_s: float = 580, **overrides
) -> tuple[int, str]:
  """main.py on one device, as a user starts it; (exit code, what it printed)."""
  env = os.environ | {'XLA_FLAGS': '', 'JAX_COMPILATION_CACHE_DIR': str(workdir.parent / 'cache')}
  name, colon, arg = config.partition(':')
  folder = '' if name.startswith('/') else 'configs/'
  file = f'{folder}{name}.py{colon}{arg}'
  flags = [f'--config.{key}={value}' for key, value in overrides.items()]
  done = subprocess.run(
    [sys.executable, 'main.py', f'--config={file}', f'--workdir={workdir}', *flags],
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
  assert {'base', 'rl'} == set(found['models'])
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


@pytest.mark.check
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


@pytest.mark.check
def test_a_stage_of_another_config_is_refused(finished):
  workdir, _, _ = finished
  code, text = run(workdir, **TINY | {'distill.noise': 0.9})
  assert code == 2
  assert 'finished stage of another config (distill.noise: 0.3 -> 0.9)' in text
  assert 'Traceback' not in text


# every kind of stage, on the smallest of everything; 'late' shares its start with nobody
SMALL = {key: value for key, value in TINY.items() if key != 'study.run_arms'} | {
  'model.init.embed_dim': 16,
  'model.init.mlp_dim': 16,
  'model.init.num_layers': 1,
  'model.init.num_heads': 2,
  'model.init.num_kv_heads': 1,
  'model.init.head_dim': 8,
  'distill.steps': 30,
  'train.iterations': 4,
  'train.eval_every': 0,
  'train.group': 4,
  'evaluate.n': 32,
  'evaluate.headline_k': 8,
  'evaluate.bootstrap': 100,
  'sampling.slots': 64,
}
OWN = """
from configs import base, quickstart

def get_config():
  config = quickstart.get_config()
  for name in list(config.study.arms):
    del config.study.arms[name]
  rl = {'optimizer.schedule': 'constant', 'optimizer.warmup_steps': 0}
  rl = {**rl, 'optimizer.learning_rate': LEARNING_RATE}
  student = {'job': 'distill', 'part': 'distillation', 'distill.steps': 6}
  arms = {
    'rl': {**rl, 'measure': ('50%',)},
    'late': {**rl, 'from': 'rl@step:2', 'part': 'prior'},
    'prior': {**rl, 'from': 'base@50%', 'part': 'prior'},
    'nothing': {**rl, 'from': 'scratch', 'part': 'prior'},
    'random': {**rl, 'reward.control': 'random', 'part': 'control'},
    'teacher': {
      'job': 'distill', 'from': 'scratch', 'role': 'teacher', 'part': 'distillation',
      'model.init.embed_dim': 24, 'distill.noise': 0.0,
    },
    'told': {'job': 'sample', 'from': 'teacher', 'evaluate.n': 4, 'evaluate.problems': 0},
    'student': {
      **student, 'distill.source': 'arm:told', 'distill.correct_only': False, 'distill.most': 2,
    },
    'logits': {**student, 'distill.method': 'logits', 'distill.teacher': 'arm:teacher'},
    'on_policy': {**student, 'distill.method': 'on_policy', 'distill.teacher': 'arm:teacher'},
    'student_rl': {**rl, 'from': 'student', 'part': 'distillation'},
  }
  config.study.arms.update(base.dotted(arms))
  config.study.run_arms = tuple(name for name in arms if name != 'told')
  config.study.measure_base = ('50%',)
  config.study.swept = ('base', 'rl')
  config.study.temperatures = (0.7,)
  config.study.matched = ('rl',)
  config.study.perplexity = ('base', 'rl', 'student')
  config.study.match.update({'problems': 8, 'samples': 2, 'tolerance': 0.5})
  return config
"""


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A study of every kind of stage: (folder, config file, results, what it printed)."""
  folder = tmp_path_factory.mktemp('whole')
  file = folder / 'own.py'
  file.write_text(OWN.replace('LEARNING_RATE', '1e-3'))
  code, text = run(folder / 'run', str(file.with_suffix('')), **SMALL)
  assert code == 0, text
  return folder, file, json.loads((folder / 'run' / 'results.json').read_text()), text


@pytest.mark.check
@pytest.mark.timeout(900)
def test_a_study_of_every_kind_of_stage(whole):
  folder, _, found, _ = whole
  models = found['models']
  wanted = {'base', 'base@step:15', 'rl@step:2', 'rl', 'late', 'prior', 'nothing', 'random'}
  wanted |= {'teacher', 'student', 'logits', 'on_policy', 'student_rl', 'rl@T:0.7', 'base@T:0.7'}
  assert wanted <= set(models) <= wanted | {'rl@entropy'}
  assert models['late']['start'] == 'rl@step:2'
  assert set(found['parts']) >= {'dynamics', 'control', 'distillation', 'prior', 'temperature'}
  assert len(found['claims']) == 5
  assert found['entropy']['rl']['reason'] in ('matched', 'budget', 'not bracketed')
  assert found['perplexity']
  for name in ('base', 'rl', 'told', 'student', 'sampling rl@step:2'):
    assert found['seconds'][name] > 0
  assert (folder / 'run' / 'reach.parquet').exists()
  largest = [m['exact']['largest_z'] for m in models.values()]
  assert all(z is None or z < 5 for z in largest)
  page = (folder / 'run' / 'report.html').read_text()
  for heading in ('While training goes on', 'Distillation', 'Minutes of each stage'):
    assert heading in page


@pytest.mark.check
@pytest.mark.timeout(900)
def test_a_whole_study_started_again_runs_nothing_and_says_the_same(whole):
  folder, file, before, _ = whole
  marks = {p: p.stat().st_mtime_ns for p in folder.rglob('*.parquet') if 'samples' in p.parts}
  code, text = run(folder / 'run', str(file.with_suffix('')), **SMALL)
  assert code == 0, text
  assert 'stage ' not in text
  after = {p: p.stat().st_mtime_ns for p in folder.rglob('*.parquet') if 'samples' in p.parts}
  assert after == marks
  found = json.loads((folder / 'run' / 'results.json').read_text())
  assert found['models'] == before['models']
  assert found['claims'] == before['claims']


@pytest.mark.check
@pytest.mark.timeout(900)
def test_a_changed_arm_is_refused_by_its_name(whole):
  folder, file, _, _ = whole
  file.write_text(OWN.replace('LEARNING_RATE', '2e-3'))
  code, text = run(folder / 'run', str(file.with_suffix('')), **SMALL)
  file.write_text(OWN.replace('LEARNING_RATE', '1e-3'))
  assert code == 2
  assert 'arms/rl holds a finished stage of another config (optimizer.learning_rate' in text
  file.write_text(OWN.replace('LEARNING_RATE', '1e-3').replace("('50%',)},", "(1, '50%')},"))
  code, text = run(folder / 'run', str(file.with_suffix('')), **SMALL)
  assert code == 2
  assert 'rl was trained before its checkpoint at step 1 was asked for' in text


@pytest.mark.check
@pytest.mark.timeout(600)
def test_the_quickstarts_whole_analysis_has_a_smoke_form(tmp_path):
  code, text = run(tmp_path / 'run', 'study_quickstart', limit_s=590, smoke=True)
  assert code == 0, text
  found = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert len(found['claims']) == 5
  assert {'algorithms', 'perplexity', 'entropy', 'parts'} <= set(found)


@pytest.mark.check
@pytest.mark.parametrize('name', ['quickstart', 'quickstart_cot', 'quickstart_vision'])
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
