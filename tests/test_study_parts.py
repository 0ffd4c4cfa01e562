"""The parts of a study: who belongs to which, what is set against what, and the numbers."""

import dataclasses

import numpy as np
import pytest

from rlvr_jax.eval import claims, pass_at_k, study_parts
from rlvr_jax.eval.claim_settings import Settings
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.results import ModelResult, analyse

IDS = tuple(f'p{i}' for i in range(40))
EVALUATE = {'headline_k': 8, 'confidence': 0.95, 'bootstrap': 200}


def model(name, role='rl', rate=0.3, **more):
  rng = np.random.default_rng(sum(map(ord, name)))
  c = rng.binomial(32, np.clip(rng.beta(1, 1 / rate, 40), 0, 1))
  more = {'algorithm': 'grpo' if role == 'rl' else None, 'seed': 1, 'start': 'base', **more}
  return ModelResult(name, role, Counts(IDS, np.full(40, 32), c), **more)


def models():
  return [
    model('base', 'base', start='', seed=None),
    model('base@step:5', 'base', part='prior', start='', step=5),
    model('ppo-1', part='algorithms', algorithm='ppo', step=50),
    model('grpo-1@step:10', part='dynamics', step=10),
    model('grpo-1@step:30', part='dynamics', step=30),
    model('grpo-1', part='algorithms', step=50),
    model('kl-0.1', part='kl', label='KL 0.1', step=50),
    model('random-1', part='control', step=50),
    model('teacher', 'teacher', part='distillation', start=''),
    model('student', 'distilled', part='distillation'),
    model('student_rl', part='distillation', start='student'),
    model('prior-10', part='prior', start='base@step:5'),
    model('grpo-1@T:0.6', part='temperature'),
    model('base@T:0.6', 'base', part='temperature', start=''),
  ]


@pytest.fixture(scope='module')
def parts():
  return {part.name: part for part in study_parts.results(models(), EVALUATE)}


def names(part):
  return [one.name for one in part.models]


def test_who_belongs_to_a_part(parts):
  assert names(parts['dynamics']) == ['base', 'grpo-1@step:10', 'grpo-1@step:30', 'grpo-1']
  assert names(parts['kl']) == ['base', 'grpo-1', 'kl-0.1']  # the plain run of the same seed
  assert names(parts['prior']) == ['base', 'grpo-1', 'base@step:5', 'prior-10']
  assert names(parts['distillation']) == ['base', 'grpo-1', 'teacher', 'student', 'student_rl']
  assert 'group' not in parts


def test_what_is_set_against_what(parts):
  assert parts['prior'].against['prior-10'] == 'base@step:5'
  assert parts['prior'].against['grpo-1'] == 'base'
  assert parts['distillation'].against['student_rl'] == 'student'
  assert parts['distillation'].against['teacher'] == 'base'
  assert parts['temperature'].against['grpo-1@T:0.6'] == 'base@T:0.6'
  assert 'base' not in parts['kl'].against


def test_numbers_are_paired_differences_of_pass_at_k(parts):
  part = parts['distillation']
  found = {one.name: one.counts for one in part.models}
  for name, other in part.against.items():
    values = [
      pass_at_k.estimate(found[one].n, found[one].c, part.ks).mean(axis=0) for one in (name, other)
    ]
    np.testing.assert_allclose(part.changes[name].value, values[0] - values[1], atol=1e-12)
    np.testing.assert_allclose(part.bands[name].value, values[0], atol=1e-12)
    assert np.all(part.changes[name].low < part.changes[name].high)
  assert [int(part.ks[i]) for i in part.points] == [1, 8, 32]


def test_every_part_has_a_section_with_figure_and_table(parts):
  sections = [study_parts.section(part) for part in parts.values()]
  assert len(sections) == len(parts) == 6
  for section, part in zip(sections, parts.values(), strict=True):
    (plot,), (table,) = section.plots, section.tables
    assert plot.svg.startswith(b'<?xml')
    assert len(plot.svg) > 5000
    assert [row[0] for row in table.rows] == names(part)
    assert all(len(row) == len(table.columns) for row in table.rows)
  assert 'One training seed' in sections[1].paragraphs[0]


def test_entries_say_the_same(parts):
  found = study_parts.entries(list(parts.values()))
  assert list(found) == list(parts)
  entry = found['prior']['models'][-1]
  assert (entry['name'], entry['against']) == ('prior-10', 'base@step:5')
  value, low, high = entry['difference']['8']
  assert low < value < high


def test_the_ledger_takes_algorithms_seeds_and_the_headline_run():
  found = study_parts.claim_inputs(models(), ('base', 'grpo-1'))
  assert found.algorithms == {'ppo': ['ppo-1'], 'grpo': ['grpo-1']}
  assert found.distilled == ('student',)
  assert list(found.checkpoints) == [0, 10, 30, 50]


def test_a_model_at_another_temperature_leaves_the_claims_alone():
  given = [
    model('base', 'base', start='', seed=None, settings={'temperature': 1.0}),
    model('grpo-1', part='algorithms', step=50, settings={'temperature': 1.0}),
  ]
  hotter = model('grpo-1@T:1.4', part='temperature', settings={'temperature': 1.4})
  rows = {}
  for label, found in (('alone', given), ('beside', [*given, hotter])):
    inputs = study_parts.claim_inputs(found, ('base', 'grpo-1'))
    inputs = dataclasses.replace(inputs, settings=Settings(k=8, temperature=1.0))
    study = analyse(found, headline=('base', 'grpo-1'), resamples=50)
    rows[label] = claims.ledger(study, inputs)
  assert rows['alone'] == rows['beside']
  assert rows['alone'][0]['value'] is not None
  hot = dataclasses.replace(given[1], settings={'temperature': 1.4})
  study = analyse([given[0], hot], headline=('base', 'grpo-1'), resamples=50)
  assert 'temperature 1 (there: 1.4)' in claims.ledger(study, inputs)[0]['needed']


def test_ablations_are_no_seeds_of_their_algorithm():
  study = analyse(
    [*models(), model('grpo-2', part='algorithms', seed=2)], headline=('base', 'grpo-1'),
    resamples=50,
  )  # fmt: skip
  assert {one.name: one.models for one in study.algorithms()} == {
    'ppo': ('ppo-1',), 'grpo': ('grpo-1', 'grpo-2'),
  }  # fmt: skip


def test_models_that_were_asked_differently_are_said_to_be():
  same = [model('base', 'base', settings={'prompt_hash': 'a', 'top_p': 1.0})]
  assert study_parts.said(same) == []
  other = model('x', settings={'prompt_hash': 'b', 'top_p': 1.0})
  ((heading, text),) = study_parts.said([*same, other])
  assert heading == 'Models were not asked alike'
  assert 'prompt_hash: a, b' in text
  assert 'top_p' not in text
