"""Which seeds grok, when, and what is said of problems that the base never solved."""

import json

import numpy as np
import pytest

from rlvr_jax.eval import grok
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.report import Section
from rlvr_jax.eval.results import ModelResult

IDS = ('h1', 'h2', 'e1', 'e2')
SPLITS = {'h1': 'hard', 'h2': 'hard', 'e1': 'easy', 'e2': 'easy'}


def model(name, c, seed=None, label=''):
  role = 'rl' if seed else 'base'
  return ModelResult(
    name, role, Counts(IDS, np.full(4, 10), np.array(c)), seed=seed, label=label,
    part='staged' if seed else '',
  )  # fmt: skip


def rows(rates, looks=()):
  found = [{'step': i, 'pass@1': rate} for i, rate in enumerate(rates)]
  for step, value in looks:
    if step < len(found):
      found[step]['eval/pass@1'] = value
    else:
      found.append({'step': step, 'eval/pass@1': value})
  return found


def test_a_run_that_goes_on_from_another_is_read_as_one():
  """Of the first only the iterations before its checkpoint count."""
  first = rows([0.0, 0.1, 0.9, 0.9], [(0, 0.0), (2, 0.2), (4, 0.9)])
  second = rows([0.3, 0.4], [(0, 0.2), (2, 0.5)])
  rates, looks = grok.spliced([(first, 2), (second, 2)])
  assert rates == [0.0, 0.1, 0.3, 0.4]
  assert looks == ((0, 0.0), (2, 0.2), (2, 0.2), (4, 0.5))


def analysed(**more):
  runs = [
    grok.Run(model('a-1', [8, 8, 10, 9], 1, 'dense'), 12, 1.0, ((0, 0.0), (10, 0.7), (12, 0.4))),
    grok.Run(model('a-2', [0, 10, 9, 9], 2, 'dense'), 12, 0.0, ((10, 0.5),)),
    grok.Run(model('b-1', [0, 0, 9, 9], 1, 'exact'), 12, None, ()),
  ]
  zero = grok.ZeroSet('zero', ('z1', 'z2', 'z3'), np.full(3, 10_000), np.array([0, 0, 2]), **more)
  return grok.analyse(model('base', [0, 0, 9, 9]), runs, SPLITS, zero)


def test_seeds_grok_above_one_half_and_not_at_it():
  found = analysed()
  dense, exact = found['arms']['dense'], found['arms']['exact']
  assert [seed['grokked'] for seed in dense['seeds']] == [True, False]
  assert (dense['grokked'], dense['of'], exact['grokked'], exact['of']) == (1, 2, 0, 1)
  assert [seed['passed_held_out'] for seed in dense['seeds']] == [10, None]
  low, high = dense['share'][1:]
  assert 0 < low < 0.05  # Clopper-Pearson: of 1 of 2 these are 0.0126 and 0.9874
  assert low + high == pytest.approx(1)
  # 0 of 1 at 95%
  assert exact['share'] == pytest.approx([0, 0, 0.975])
  assert dense['transfer']['hard']['pass@1'][0] == pytest.approx(0.65)
  assert dense['transfer']['hard']['seeds'] == pytest.approx([0.8, 0.5])
  # two seeds that differ say little: the interval is wider than that over problems
  assert dense['transfer']['hard']['pass@1'][1] == 0
  assert found['base']['easy']['pass@1'][0] == pytest.approx(0.9)


def test_the_bound_on_problems_never_solved():
  zero = analysed(exact=np.array([1e-9, 2e-9, 1e-4]))['zero_set']
  assert (zero['problems'], zero['unsolved'], zero['solved']) == (3, 2, {'z3': 2})
  assert (1 - zero['upper_bound']) ** 10_000 == pytest.approx(0.05)
  assert zero['upper_bound'] == pytest.approx(zero['rule_of_three'], rel=2e-3)
  assert zero['exact']['largest'] == 1e-4
  assert zero['exact']['expected_in_draws'] == pytest.approx(1.00003)


@pytest.mark.parametrize('more', [{}, {'exact': np.array([1e-9, 2e-9, 1e-4])}])
def test_the_section_says_all_of_it(more):
  found = json.loads(json.dumps(analysed(**more)))
  section = grok.section(found)
  assert isinstance(section, Section)
  text = ' '.join(section.paragraphs)
  assert '3.0e-04' in text
  assert 'z3 (2)' in text
  assert ('exact chances' in text) == bool(more)
  seeds, transfer = section.tables
  assert seeds
  assert transfer
  assert seeds.rows[0][:2] == ('dense', '1 of 2')
  assert seeds.rows[0][3:] == ('10, -', '80.0%, 50.0%', '100.0%, 0.0%')
  assert seeds.rows[1][3:] == ('-', '0.0%', '-')
  assert [row[0] for row in transfer.rows] == ['base', 'dense', 'exact']
  found['zero_set'] = None
  assert 'not known' in grok.section(found).paragraphs[0]
