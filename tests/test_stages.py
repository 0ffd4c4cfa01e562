"""The table of a study: order, starts, shares of steps, what is measured; and what is refused."""

import pathlib

import pytest

from configs import base, quickstart, study_quickstart
from rlvr_jax import config as config_lib
from rlvr_jax import stages
from rlvr_jax.stages import Start

ROOT = pathlib.Path('run')


def config_with(arms, run_arms=None, **overrides):
  config = quickstart.get_config()
  for name in list(config.study.arms):
    del config.study.arms[name]
  config.study.arms.update(base.dotted(arms))
  config.study.run_arms = tuple(run_arms if run_arms is not None else arms)
  return config_lib.resolve(config, {'distill.steps': 200, 'train.iterations': 50, **overrides})


ARMS = {
  'rl': {'measure': ('20%', 10, 30)},
  'late': {'from': 'rl@step:25', 'part': 'prior'},
  'early': {'from': 'base@10%'},
  'nothing': {'from': 'base@0%'},
  'teacher': {'job': 'distill', 'from': 'scratch', 'distill.steps': 7, 'role': 'teacher'},
  'told': {'job': 'sample', 'from': 'teacher', 'evaluate.n': 4},
  'student': {'job': 'distill', 'distill.source': 'arm:told', 'measure': (200,)},
}


def test_what_an_arm_needs_runs_before_it_and_is_measured_only_if_named():
  config = config_with(ARMS, ['student', 'late'])
  made = stages.table(config)
  assert [stage.name for stage in made] == ['base', 'teacher', 'told', 'student', 'rl', 'late']
  by_name = {stage.name: stage for stage in made}
  assert (by_name['rl'].final, by_name['rl'].measure) == (False, ())
  assert stages.kept_steps(made, 'rl') == (25,)
  assert [one.name for one in stages.measured(config, made)] == ['base', 'student', 'late']


def test_shares_are_steps_of_the_stage_they_name():
  config = config_with(ARMS, **{'study.measure_base': ('5%',)})
  made = stages.table(config)
  by_name = {stage.name: stage for stage in made}
  assert by_name['rl'].measure == (10, 30)
  assert by_name['early'].start == Start('base', 20)
  assert by_name['nothing'].start == Start('scratch')
  assert stages.kept_steps(made, 'base') == (10, 20)
  assert stages.kept_steps(made, 'rl') == (10, 25, 30)
  names = [one.name for one in stages.measured(config, made)]
  assert names == [
    'base', 'base@step:10', 'rl@step:10', 'rl@step:30', 'rl', 'late', 'early', 'nothing', 'teacher',
    'student',
  ]  # fmt: skip
  found = {one.name: one for one in stages.measured(config, made)}
  assert (found['rl@step:10'].part, found['rl@step:10'].step) == ('dynamics', 10)
  assert (found['late'].start, found['late'].part) == ('rl@step:25', 'prior')
  assert found['teacher'].role == 'teacher'
  assert (found['base'].role, found['base'].algorithm, found['base'].step) == ('base', None, None)
  assert found['rl'].step == 50


def test_paths_of_starts_and_of_what_arms_leave():
  config = config_with(ARMS)
  made = stages.table(config)
  paths = {stage.name: stages.path_of(config, ROOT, stage.start) for stage in made}
  assert paths['base'] == paths['nothing'] == paths['teacher'] == ''
  assert paths['rl'] == paths['student'] == 'run/base/model'
  assert paths['early'] == 'run/base@step:20'
  assert paths['late'] == 'run/arms/rl@step:25'
  assert stages.resolved(ROOT, made, 'arm:told') == 'run/arms/told/samples'
  assert stages.resolved(ROOT, made, 'arm:teacher') == 'run/arms/teacher/model'
  assert stages.resolved(ROOT, made, 0.5) == 0.5
  given = config_with({'rl': {'from': 'base@step:3'}}, **{'model.name': 'runs/x'})
  made = stages.table(given)
  assert [stage.name for stage in made] == ['rl']
  assert stages.path_of(given, ROOT, made[0].start) == 'runs/x@step:3'


def test_given_models_and_temperatures_are_measured():
  config = config_with(
    {'rl': {}},
    **{
      'study.models': {
        'theirs': 'org/model',
        'told': {'path': 'x', 'role': 'instruct', 'template': 'chat', 'sampling.max_tokens': 9},
      },
      'study.swept': ('rl', 'base'),
      'study.temperatures': (0.6, 1.0),
    },
  )
  found = {one.name: one for one in stages.measured(config, stages.table(config))}
  assert list(found) == ['base', 'rl', 'theirs', 'told', 'rl@T:0.6', 'base@T:0.6']  # 1.0: plain
  assert (found['theirs'].reference, found['theirs'].role) == ('org/model', 'rl')
  assert found['told'].values == {'sampling.max_tokens': 9, 'task.template': 'chat'}
  assert found['rl@T:0.6'].values == {'evaluate.temperature': 0.6}
  assert found['rl@T:0.6'].part == 'temperature'
  assert found['rl@T:0.6'].reference == found['rl'].reference


def test_a_stage_is_measured_once_more_in_another_way():
  asked = {'task.environment': 'retry', 'part': 'turns'}
  models = {f'{name}+told': {'path': f'arm:{name}', **asked} for name in ('base', 'rl')}
  config = config_with({'rl': {}}, **{'study.models': models})
  found = {one.name: one for one in stages.measured(config, stages.table(config))}
  for name in ('base', 'rl'):
    one = found[f'{name}+told']
    assert (one.reference, one.start, one.part) == (found[name].reference, name, 'turns')
    assert one.values == {'task.environment': 'retry'}
  config = config_with({'rl': {}}, **{'study.models': {'x': {'path': 'arm:z'}}})
  with pytest.raises(ValueError, match=r"path names 'z', but study.arms has base, rl"):
    stages.measured(config, stages.table(config))


@pytest.mark.parametrize(
  ('arms', 'message'),
  [
    ({'a': {'from': 'b'}}, r"study.arms\['a'\] names 'b', but study.arms has a"),
    ({'a': {'from': 'b'}, 'b': {'from': 'a'}}, 'a -> b -> a goes round in a circle'),
    ({'a': {'form': 'b'}}, "'form' is neither a dotted key.*did you mean 'from'"),
    ({'a': {'job': 'evaluate'}}, "job='evaluate' is none of train, distill, sample"),
    ({'a': {'role': 'king'}}, "role='king' is none of base, rl"),
    ({'a': {'part': 'x'}}, "part='x' is none of algorithms"),
    ({'base': {}}, 'an arm is not named base'),
    ({'a b': {}}, 'letters, digits'),
    ({'a': {'job': 'sample'}}, "job='sample' needs 'from'"),
    ({'a': {'from': 'base@step:201'}}, 'step 201 of base is asked for.* 1 to 200'),
    ({'a': {'measure': (51,)}}, 'step 51 of a is asked for.* 1 to 50'),
    ({'a': {'measure': ('x',)}}, "measure: 'x' is neither a step nor a share"),
    ({'a': {}, 'b': {'from': 'a@step:0'}}, 'step 0 of an arm is what it starts from'),
    ({'a': {'from': 'base@best'}}, "from'.='base@best': write base, scratch"),
    (
      {'s': {'job': 'sample', 'from': 'base'}, 'b': {'from': 's'}},
      "from='s' is a sampling arm.*'distill.source': 'arm:s'",
    ),
    ({'a': {'distill.source': 'arm:z'}}, "names 'z', but study.arms has a"),
  ],
)
def test_what_is_no_table_is_refused(arms, message):
  with pytest.raises(ValueError, match=message):
    stages.table(config_with(arms))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'study.run_arms': ('x',)}, "study.run_arms names 'x', but study.arms has rl"),
    ({'study.models': {'rl': 'x'}}, 'rl names an arm and one of study.models'),
    ({'study.models': {'m': {'role': 'rl'}}}, 'give path'),
    ({'study.models': {'m': {'path': 'x', 'tempalte': 'y'}}}, "'tempalte' is none of them"),
    ({'study.swept': ('x',)}, "study.swept names 'x'"),
    ({'study.perplexity': ('x',)}, "study.perplexity names 'x'"),
  ],
)
def test_what_cannot_be_measured_is_refused(changes, message):
  config = config_with({'rl': {}}, **changes)
  with pytest.raises(ValueError, match=message):
    stages.measured(config, stages.table(config))


def test_a_given_model_has_no_share_of_its_training():
  config = config_with({'a': {'from': 'base@10%'}}, **{'model.name': 'x'})
  with pytest.raises(ValueError, match='is not known; write base@step:N'):
    stages.table(config)
  config = config_with({'a': {'from': 'scratch'}}, **{'model.name': 'x'})
  with pytest.raises(ValueError, match='start from base'):
    stages.table(config)


@pytest.mark.parametrize('smoke', [False, True])
def test_the_whole_quickstart_has_every_part(smoke):
  config = config_lib.resolve(study_quickstart.get_config(), {'smoke': smoke})
  made = stages.table(config)
  found = stages.measured(config, made)
  parts = {one.part for one in found}
  assert parts == set(stages.PARTS) - {'turns', 'staged'} | {''}  # those are of other studies
  seeds = {}
  for one in found:
    if one.part == 'algorithms':
      seeds.setdefault(one.algorithm, set()).add(one.seed)
  assert seeds == {name: {1} if smoke else {1, 2, 3} for name in study_quickstart.NAMES}
  assert {stage.job for stage in made} == set(stages.JOBS)
  assert sum(one.name.startswith('grpo-1@step:') for one in found) >= 3
  assert len({one.name for one in found}) == len(found)
