"""resolve, check, fingerprint and the record of a run."""

import json
import os
import pathlib

import pytest

from configs import base
from rlvr_jax import command_line
from rlvr_jax import config as config_lib
from rlvr_jax.config_keys import ADDED


def test_smoke_values_yield_to_explicit_overrides_and_apply_only_in_smoke():
  config = base.get_config()
  config.smoke_values.update({'train.iterations': 2, 'train.group': 4})
  assert config_lib.resolve(config).train.iterations == 100
  smoke = config_lib.resolve(config, {'smoke': True, 'train.group': 8})
  assert (smoke.train.iterations, smoke.train.group) == (2, 8)
  assert config.train.group == 16, 'resolve changed the config it was given'


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('train.gruop', 8, r"no key 'train.gruop'; the nearest is 'train.group' \(now 16\)"),
    ('group', 8, "the nearest is 'train.group'"),
    ('optimiser.learning_rate', 1e-4, r"the nearest is 'optimizer.learning_rate'"),
    ('train.group.size', 8, "no key 'train.group.size'"),
    ('train', 8, "'train' is a group, not a value"),
    ('train.group', 'many', r"train.group='many' is of type str; expected int"),
    ('train.group', 8.5, 'type float; expected int'),
    ('train.group', True, 'type bool; expected int'),
    ('smoke', 1, 'type int; expected bool'),
    (
      'job',
      'trian',
      "job='trian' does not exist; the jobs are benchmark, compare, cot, data, distill",
    ),
    ('train.prompts', 0, 'train.prompts=0: must be a positive number'),
    ('train.group', 1, 'train.group=1: grpo compares completions'),
    ('sampling.temperature', 0.0, 'sampling.temperature=0.0: greedy completions have no log-probs'),
    ('train.minibatch', 5, 'train.minibatch=5 does not divide train.prompts=32'),
    ('train.micro_tokens', 100, 'train.micro_tokens=100 cannot hold one rollout'),
    ('sampling.top_p', 0.95, 'sampling.top_p=0.95.*learning needs'),
    ('optimizer.learning_rate', float('nan'), 'optimizer.learning_rate=nan'),
    ('optimizer.schedule', 'cosin', "optimizer.schedule='cosin': must be one of constant"),
    ('mesh.data', -1, 'only one axis can be -1'),
    ('mesh.tensor', 0, 'mesh.tensor=0: a mesh axis is'),
    ('model.dtype', 'float16', "model.dtype='float16': must be one of float32, bfloat16"),
  ],
)
def test_bad_override_is_refused_with_key_value_and_way_out(key, value, message):
  with pytest.raises(ValueError, match=message):
    config_lib.resolve(base.get_config(), {key: value})


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'evaluate.ks': (1, 128)}, r'pass@128 with evaluate.n=64'),
    ({'evaluate.headline_k': 32}, 'evaluate.headline_k=32 is above n/4 = 16'),
    ({'evaluate.ks': (0, 1)}, 'each k is a positive integer'),
  ],
)
def test_evaluation_refuses_k_beyond_its_samples(values, message):
  with pytest.raises(ValueError, match=message):
    config_lib.resolve(base.get_config(), {'job': 'evaluate', **values})


STOPPED = {'sampling.first': 32, 'sampling.stop_after': 2}


@pytest.mark.parametrize(
  ('job', 'values', 'message'),
  [
    ('sample', {'sampling.first': 65}, r'first=65 is above the n=64 draws of a problem'),
    ('sample', {'sampling.first': 0}, r'stop_after=2 needs sampling\.first'),
    ('sample', {'sampling.stop_after': 0}, r'first=32 does nothing by itself'),
    ('sample', {'sampling.stop_after': 65}, r'stop_after=65 correct draws are never reached'),
    ('train', {}, r'would bend the groups that job=train learns from; .*sample, evaluate, study'),
    ('distill', {}, r'would bend the groups that job=distill learns from'),
    ('evaluate', {}, r'headline_k=16 is above n/4 = 8: .* raise sampling\.first or lower'),
    ('evaluate', {'evaluate.ks': (64,)}, r'asks for pass@64 with sampling\.first=32 samples'),
  ],
)
def test_early_stopping_is_refused_where_it_makes_no_sense(job, values, message):
  with pytest.raises(ValueError, match=message):
    config_lib.resolve(base.get_config(), {'job': job, **STOPPED, **values})


def test_early_stopping_leaves_training_runs_what_they_are():
  plain, stopped = base.get_config(), base.get_config()
  stopped.sampling.update({'first': 32, 'stop_after': 2})
  assert config_lib.identity(plain) == config_lib.identity(stopped)
  config_lib.resolve(stopped, {'job': 'study', 'evaluate.headline_k': 8})


def test_a_misspelt_smoke_value_says_so():
  config = base.get_config()
  config.smoke_values.update({'train.iteration': 2})
  with pytest.raises(ValueError, match=r"smoke_values: there is no key 'train.iteration'"):
    config_lib.resolve(config, {'smoke': True})


def test_resolved_config_is_locked_and_ints_become_floats():
  config = config_lib.resolve(base.get_config(), {'optimizer.learning_rate': 1})
  assert config.optimizer.learning_rate == 1.0
  with pytest.raises(AttributeError, match='gruop'):
    config.train.gruop = 3


def test_fingerprint_sees_what_decides_results_and_nothing_else():
  def of(**values):
    overrides = {key.replace('__', '.'): value for key, value in values.items()}
    return config_lib.fingerprint(config_lib.resolve(base.get_config(), overrides))

  assert of() == of()
  assert of(seed=1) != of()
  assert of(train__group=8) != of()
  assert of(train__keep=7, name='other') == of()
  config = config_lib.resolve(base.get_config(), {'train.iterations': 7})
  assert config_lib.fingerprint(config, exclude=('train.iterations',)) == config_lib.fingerprint(
    base.get_config(), exclude=('train.iterations',)
  )


def test_differences_name_both_values():
  assert config_lib.differences({'a': 1, 'b': 2}, {'a': 1, 'b': 3, 'c': 4}) == [
    'b: 2 -> 3',
    "c: '(absent)' -> 4",
  ]


def test_presets_and_arguments():
  config = base.get_config('clip_higher,train.group=8,evaluate.ks=(1,4)')
  assert (config.train.clip_high, config.train.group, config.evaluate.ks) == (0.28, 8, (1, 4))
  with pytest.raises(ValueError, match="'clip_hihger' is no preset"):
    base.get_config('clip_hihger')
  with pytest.raises(ValueError, match=r"the nearest is 'train\.group'"):
    base.get_config('train.gruop=8')


@pytest.mark.parametrize('name', sorted(base.presets()))
def test_every_preset_makes_a_sound_config(name):
  for job in ('train', 'evaluate'):
    config_lib.resolve(base.get_config(name), {'job': job})


def test_save_records_config_versions_and_earlier_starts(tmp_path):
  config = config_lib.resolve(base.get_config())
  config_lib.save(config, tmp_path, ['main.py', '--config=a'])
  config_lib.save(config, tmp_path, ['main.py', '--config=b'])
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert saved['train']['group'] == 16
  record = json.loads((tmp_path / 'versions.json').read_text())
  assert record['command'] == ['main.py', '--config=b']
  assert [start['command'] for start in record['earlier_starts']] == [['main.py', '--config=a']]
  assert record['jax'].count('.') == 2


def test_unwritable_workdir_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match=r"workdir='.*file/run' cannot be written.*--workdir=PATH"):
    config_lib.prepare_workdir(tmp_path / 'file' / 'run')
  made = config_lib.prepare_workdir(tmp_path / 'a' / 'b')
  assert made.is_dir()
  assert not os.listdir(made)


def test_check_flags_reads_both_spellings_and_passes_sound_ones(tmp_path):
  path = pathlib.Path(base.__file__)
  sound = [f'--config={path}', '--config.train.group=8', '--config.smoke', '--config.seed', '3']
  command_line.check_flags(['main.py', *sound])
  for words, message in [
    ([f'--config={path}', '--config.train.gruop=8'], "--config.train.gruop: .*'train.group'"),
    ([f'--config={path}', '--config.train.group=many'], "train.group='many'.*expected int"),
    ([f'--config={path}', '--config.train.group'], 'has no value'),
    ([f'--config={path}', '--config.smoke=maybe'], 'expected true or false'),
    ([f'--config={path}', '--config.task.params.n=3'], 'a new key of task.params cannot come'),
    ([], 'no --config given'),
  ]:
    with pytest.raises(ValueError, match=message):
      command_line.check_flags(['main.py', *words])
  with pytest.raises(OSError, match='no such file'):
    command_line.check_flags(['main.py', f'--config={tmp_path}/none.py'])


def test_keys_that_came_later_leave_identities_as_they_were():
  config = base.get_config()
  assert not ADDED.keys() & config_lib.identity(config).keys()
  flat = config_lib.flatten(config)
  assert {key: json.loads(json.dumps(flat[key])) for key in ADDED} == ADDED  # they are defaults
  config.task.turns = 2
  assert config_lib.identity(config)['task.turns'] == 2
