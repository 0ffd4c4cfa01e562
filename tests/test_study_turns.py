"""Conversations beside single completions: what is counted, what is compared, what is drawn."""

import dataclasses

import numpy as np
import pytest

from configs import study_turns as table_of
from rlvr_jax import config as config_lib
from rlvr_jax import stages, study
from rlvr_jax.eval import efficiency, pass_at_k, study_parts, study_turns
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.samples import Row, SampleStore
from rlvr_jax.rl.report import drawn_table

P, N = 40, 32


def model(name, rate, tokens, observed=0, environment='', **more):
  """Completions of so many tokens each on average, a conversation if it is told something."""
  rng = np.random.default_rng(len(name))
  c = rng.binomial(N, np.clip(rng.normal(rate, 0.2, P), 0, 1))
  counts = Counts(
    [f'p{i}' for i in range(P)], np.full(P, N), c, tokens=tokens * N * P, observed=observed * N * P
  )
  settings = {'environment': environment, 'turns': 4} if environment else {}
  return ModelResult(name, counts=counts, settings=settings, **{'role': 'rl', **more})


@pytest.fixture(scope='module')
def models():
  return [
    model('base', 0.3, 10, role='base'),
    model('one', 0.5, 10, start='base'),
    model('talk', 0.5, 10, start='base', part='turns'),
    model('talk+value', 0.8, 25, 6, 'v', start='talk', part='turns'),
    model('base+value', 0.5, 30, 9, 'v', start='base', part='turns', role='base'),
  ]


@pytest.fixture(scope='module')
def found(models):
  evaluate = {'headline_k': 8, 'confidence': 0.95, 'bootstrap': 300}
  (part,) = study_parts.results(models, evaluate)
  return part, *study_turns.section(part, resamples=300)


def test_a_store_counts_what_was_told_apart(tmp_path):
  row = Row(
    'sums', 'p1', 0, 0, 0, [5] * 6, 'text', 6, 'eos', -1.0, 'correct', 1.0, 'v1',
    sampled=[True, True, False, False, False, True],
  )  # fmt: skip
  store = SampleStore(tmp_path)
  settings = {'temperature': 1.0, 'verifier': 'v1'}
  with store.writer('m', row.task, settings, prompt_hash='h') as writer:
    writer.append(row)
    writer.append(dataclasses.replace(row, sample=1, tokens=[5], length=1, sampled=[True]))
  counts = store.counts('m', row.task)
  assert (counts.tokens, counts.observed) == (4, 3)
  assert efficiency.mean_tokens(counts) == 2
  assert efficiency.mean_tokens(counts, observed=True) == 3.5
  with store.writer('other', row.task, settings, prompt_hash='h') as writer:
    writer.append(dataclasses.replace(row, sampled=None))
  counts = store.counts('other', row.task)
  assert (counts.tokens, counts.observed) == (6, 0)


def test_differences_are_at_equal_tokens(models, found):
  part, _, entry = found
  names = ['base', 'one', 'talk', 'talk+value', 'base+value']
  assert [one.name for one in part.models] == names
  assert entry['mean_tokens']['talk+value'] == {'written': 25, 'read': 6}
  rows = entry['at_equal_tokens']
  pairs = {(one['conversation'], one['single']) for one in rows}
  talks, single = ('talk+value', 'base+value'), ('base', 'one', 'talk')
  assert pairs == {(a, b) for a in talks for b in single}
  by_name = {one.name: one.counts for one in models}
  for one in rows:
    read = one['cost'] == 'written and read'
    each = {name: efficiency.mean_tokens(by_name[name], observed=read) for name in by_name}
    k, other = one['k']
    assert k * each[one['conversation']] == pytest.approx(one['tokens'])
    assert other * each[one['single']] == pytest.approx(one['tokens'])
  # one conversation of 25 tokens against two and a half completions of 10
  first = rows[0]
  assert (first['conversation'], first['single'], first['tokens']) == ('talk+value', 'base', 25)
  talk, base = by_name['talk+value'], by_name['base']
  two, three = (pass_at_k.estimate(base.n, base.c, [k]).mean() for k in (2, 3))
  wanted = talk.rates.mean() - (two + three) / 2
  assert first['difference'][0] == pytest.approx(wanted)
  assert first['difference'][1] < wanted < first['difference'][2]


def test_the_section_has_costs_curves_and_differences(found):
  _, section, entry = found
  assert [one.title for one in section.tables] == [
    'Cost of one try',
    'Conversations minus single completions at equal tokens',
    'Conversations',
  ]
  costs = {row[0]: row[1:4] for row in section.tables[0].rows}
  assert costs['talk+value'] == ['conversation', 25, 6]
  assert costs['talk'] == ['single', 10, 0]
  assert len(section.tables[1].rows) == 2 * 3
  assert len(entry['at_equal_tokens']) == 2 * 3 * 2 * 3
  first = section.tables[1].rows[0]
  assert first[:2] == ['talk+value', 'base']
  assert first[2].endswith('at 25')
  assert first[5].endswith('at 31')
  svg = section.plots[0].svg.decode()
  for text in ('tokens written, a problem', 'tokens written and read', 'talk+value'):
    assert text in svg
  sections, numbers = study.sections_of(_config(), [found[0]], {}, {})
  assert [one.title for one in sections] == ['Conversations']
  assert numbers['turns']['mean_tokens'] == entry['mean_tokens']
  assert set(study.talkers_of(_config())) == {'episode', 'turn', 'blank'}
  _, few = study_turns.section(found[0], talkers=['talk'], resamples=300)
  pairs = {(one['conversation'], one['single']) for one in few['at_equal_tokens']}
  assert ('talk+value', 'talk') in pairs
  assert ('base+value', 'talk') not in pairs


def _config(**changes):
  return config_lib.resolve(
    table_of.get_config(), {'evaluate.bootstrap': 300, 'evaluate.headline_k': 8, **changes}
  )


def test_what_training_drew():
  rows = [{'tokens/drawn': 10.0, 'samples/drawn': 4.0}, {'eval/pass@1': 0.5}]
  made = drawn_table({'a': [*rows, *rows], 'b': rows})
  assert made.rows == [['a', 2, 8, 20], ['b', 1, 4, 10]]


@pytest.mark.parametrize('smoke', [False, True])
def test_every_model_is_asked_in_both_ways(smoke):
  config = _config(smoke=smoke)
  made = stages.table(config)
  found = {one.name: one for one in stages.measured(config, made)}
  talks = [one for one in found.values() if '+' in one.name]
  assert {one.start for one in talks} == {stage.name for stage in made}
  for one in talks:
    trained = next(stage for stage in made if stage.name == one.start).values
    assert one.part == 'turns'
    same = trained.get('task.environment') == one.values['task.environment']
    assert same or one.start in ('base', 'single', 'single_long')
  assert {one.part for one in found.values()} == {'', 'turns'}
