"""The staged study: what its stages train on, how a run is read over its stages, its smoke form."""

import json

import pytest
from processes import smoke

from configs import study_grok as config_file
from rlvr_jax import config as config_lib
from rlvr_jax import stages as stages_lib
from rlvr_jax import study_grok, study_stages
from rlvr_jax.eval import grok
from rlvr_jax.tasks.load import load_problems
from rlvr_jax.tasks.machines import SPLITS

CONFIG = config_lib.resolve(config_lib.load_file('configs/study_grok.py'))
STAGES = stages_lib.table(CONFIG)


def test_every_arm_has_its_seeds_and_one_length():
  labels: dict[str, list[int]] = {}
  by_name = {stage.name: stage for stage in STAGES}
  for stage in STAGES:
    if stage.part != grok.PART or not stage.final:
      continue
    labels.setdefault(stage.label, []).append(stage.values['seed'])
    length = stages_lib.length_of(CONFIG, stage)
    if (before := by_name[stage.start.name]).job == 'train':
      assert before.values['seed'] == stage.values['seed']
      length += stage.start.step or stages_lib.length_of(CONFIG, before)
    assert length == config_file.ITERATIONS
  assert len(labels) == 8
  assert all(seeds == list(config_file.SEEDS) for seeds in labels.values())
  assert len(config_file.SEEDS) >= 5


def test_the_zero_set_is_what_the_arms_train_on_and_looks_are_at_hard_problems():
  zero, dense = dict(CONFIG.task), dict(CONFIG.task)
  by_name = {stage.name: stage for stage in STAGES}
  zero['params'] = dict(by_name['zero'].values['task.params'])
  dense['params'] = dict(by_name['dense-1'].values['task.params'])
  train, held = load_problems(zero)
  assert [p.id for p in train] == [p.id for p in load_problems(dense)[0]]
  assert len(train) == by_name['zero'].values['evaluate.problems'] >= 50
  assert {p.meta['split'] for p in train} == {grok.TRAINED}
  base_train, base_held = load_problems(CONFIG.task)
  assert [p.id for p in held] == [p.id for p in base_held]
  assert {p.meta['split'] for p in base_train} == {'easy'}
  assert {p.meta['split'] for p in held} == set(SPLITS)
  looks = held[: CONFIG.train.eval_problems]
  assert {p.meta['split'] for p in looks} == {grok.TRAINED}
  assert not {p.id for p in train} & {p.id for p in held}


def test_a_run_is_read_with_the_stage_that_it_goes_on_from(tmp_path):
  """Of dense-1 only the iterations up to the checkpoint, and of the base nothing."""
  lengths = {'dense-1': config_file.ITERATIONS, 'staged-1': config_file.ITERATIONS - 40}
  for name, length in lengths.items():
    folder = stages_lib.folder_of(tmp_path, name)
    folder.mkdir(parents=True)
    rows = [{'step': i, 'pass@1': i / 1000 + (name == 'staged-1')} for i in range(length)]
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n')
  rates, looks = study_grok._course(CONFIG, tmp_path, STAGES, 'staged-1')
  assert len(rates) == config_file.ITERATIONS
  assert rates[39] == 0.039
  assert rates[40] == 1.0
  assert looks == ()


def test_the_table_of_stages_can_be_written():
  """Values that are groups of keys, as task.params, too."""
  found = {one['name']: one for one in study_stages.described(STAGES)}
  assert json.loads(json.dumps(found)) == found
  assert found['zero']['values']['task.params']['train'] == 'hard'
  assert found['exact-1']['values']['reward.parts'] == {'exact': 1.0}


@pytest.mark.check
@pytest.mark.timeout(600)
def test_it_has_a_smoke_form(tmp_path):
  found = smoke('configs/study_grok.py', tmp_path / 'run')['staged']
  assert len(found['arms']) == 10  # the loop's and the base in conversations too
  assert found['zero_set']['problems'] == 8
  assert found['zero_set']['exact']['largest'] < 1
  staged = found['arms']['dense, then exact']['seeds'][0]
  assert staged['iterations'] == 4
  for name in ('dense, then exact, verifier in the loop', 'verifier in the loop, in conversations'):
    assert [seed['iterations'] for seed in found['arms'][name]['seeds']] == [4]
  assert set(found['base']) == set(SPLITS)
  assert 'Staged rewards' in (tmp_path / 'run' / 'report.html').read_text()
