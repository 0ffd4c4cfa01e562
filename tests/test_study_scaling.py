"""The study of longer training: ten times the quickstart, seeds, exact chances; its smoke form."""

import pytest
from processes import smoke

from configs import quickstart
from rlvr_jax import config as config_lib
from rlvr_jax import stages
from rlvr_jax.tasks import countdown, paths
from rlvr_jax.tasks.load import load_problems, solutions_of

CONFIG = config_lib.resolve(config_lib.load_file('configs/study_scaling.py'))


def test_runs_are_ten_times_the_quickstarts_and_have_seeds():
  ten_times = 10 * quickstart.get_config().train.iterations
  settings: dict[str, list[int]] = {}
  for stage in stages.table(CONFIG):
    if stage.job == 'train':
      assert stages.length_of(CONFIG, stage) >= ten_times
      settings.setdefault(stage.label, []).append(stage.values['seed'])
  assert all(len(set(seeds)) >= 3 for seeds in settings.values())
  assert len(settings) == 3


@pytest.mark.check
def test_every_correct_completion_of_the_mixture_is_known():
  _, held = load_problems(CONFIG.task)
  solutions = solutions_of(CONFIG.task)
  assert solutions is not None
  assert {p.meta['family'] for p in held} == {'countdown', 'paths', 'far'}
  for problem in held[:6]:
    verify = {'countdown': countdown}.get(problem.meta['family'], paths).verify
    own = solutions(problem)
    assert own
    assert len(set(own)) == len(own)
    assert {verify(problem, text).verdict for text in own} == {'correct'}
  with_one = dict(CONFIG.task) | {'params': {'shapes': {'params': {}}, 'paths': {'params': {}}}}
  assert solutions_of(with_one) is None


@pytest.mark.check
@pytest.mark.timeout(600)
def test_it_has_a_smoke_form(tmp_path):
  found = smoke('configs/study_scaling.py', tmp_path / 'run')['longer']
  assert found['exact']
  assert [group['family'] for group in found['groups']] == ['', 'countdown', 'far', 'paths']
  for group in found['groups']:
    assert [point['step'] for point in group['settings']['GRPO']] == [2, 4]
  assert set(map(tuple, found['seeds'].values())) == {(1, 2)}
  page = (tmp_path / 'run' / 'report.html').read_text()
  assert 'Longer training, over seeds' in page
