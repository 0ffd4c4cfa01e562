"""Settings with several seeds over their steps: what is above the base is found, and only that."""

import dataclasses

import numpy as np
import pytest

from rlvr_jax.eval import longer, pass_at_k, study_parts
from rlvr_jax.eval.algorithms import seeds_difference
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.results import ModelResult

IDS = tuple(f'p{i}' for i in range(60))
N = 64
EVALUATE = {'headline_k': 16, 'confidence': 0.95, 'bootstrap': 300}
RATES = np.random.default_rng(0).beta(0.6, 3, 60)


def model(name, rates, role='rl', **more):
  # the same luck for all: a difference is that of the rates
  uniform = np.random.default_rng(7).random((60, N))
  c = (uniform < rates[:, None]).sum(axis=1)
  exact = dict(zip(IDS, map(float, rates), strict=True))
  more = {'algorithm': 'grpo' if role == 'rl' else None, 'start': 'base', **more}
  return ModelResult(name, role, Counts(IDS, np.full(60, N), c), exact=exact, **more)


def run(label, seed, courses):
  """A run's checkpoint and end: step -> rates."""
  *early, last = courses
  name = f'{label}-{seed}'
  common = {'seed': seed, 'part': 'dynamics', 'label': label}
  found = [model(f'{name}@step:{s}', courses[s], step=s, **common) for s in early]
  return [*found, model(name, courses[last], step=last, **common)]


def models():
  base = model('base', RATES, 'base', start='', seed=None)
  found = [base]
  for seed in (1, 2, 3):
    wobble = 1 - 0.01 * seed
    found += run('up', seed, {10: RATES, 20: 1 - (1 - RATES) ** (20 * wobble)})
    found += run('sharp', seed, {10: RATES, 20: np.where(RATES > 0.1, RATES**0.2, 0) * wobble})
  found += run('alone', 1, {10: RATES, 20: RATES})
  return found


@pytest.fixture(scope='module')
def found():
  parts = {part.name: part for part in study_parts.results(models(), EVALUATE)}
  [made] = longer.results(parts['dynamics'], EVALUATE)
  return made


def test_runs_of_one_label_are_seeds(found):
  assert list(found.settings) == ['up', 'sharp']  # one run alone is no setting with seeds
  assert found.seeds == {'up': (1, 2, 3), 'sharp': (1, 2, 3)}
  assert [point.step for point in found.settings['up']] == [10, 20]
  assert found.ks == (1, 16, 256, 1024)
  assert found.exact


def test_values_are_exact_and_intervals_those_of_problems_and_seeds(found):
  ks = np.array(found.ks)
  ends = [one for one in models() if one.label == 'up' and one.step == 20]
  values = np.stack([pass_at_k.exact(one.exact_rates(), ks) for one in ends])
  start = pass_at_k.exact(RATES, ks)
  last = found.settings['up'][-1]
  np.testing.assert_allclose(last.band.value, values.mean(axis=(0, 1)), atol=1e-12)
  wanted = seeds_difference(values - start[None], resamples=300)
  for end in ('value', 'low', 'high'):
    np.testing.assert_allclose(getattr(last.change, end), getattr(wanted, end), atol=1e-12)


def test_without_exact_chances_it_is_the_estimate_of_samples():
  drawn = [dataclasses.replace(one, exact=None) for one in models()]
  part = next(p for p in study_parts.results(drawn, EVALUATE) if p.name == 'dynamics')
  [found] = longer.results(part, EVALUATE)
  assert not found.exact
  assert found.ks == (1, 16, 64)
  ends = [one for one in drawn if one.label == 'sharp' and one.step == 20]
  wanted = np.mean(
    [pass_at_k.estimate(e.counts.n, e.counts.c, found.ks).mean(axis=0) for e in ends], axis=0
  )
  np.testing.assert_allclose(found.settings['sharp'][-1].band.value, wanted, atol=1e-12)


def test_what_is_said_is_what_was_planted(found):
  first, middle, last, most = longer.finding(found)
  assert most.startswith('pass@1024')
  assert first.startswith('pass@1: shown to be above the base: up (step 20); sharp (step 20).')
  assert middle.startswith('pass@16: shown to be above the base: up (step 20).')
  assert last.startswith('pass@256: no setting is shown to pass the base. Below it at the end')
  assert 'sharp (\u2212' in last
  assert 'up (\u2212' not in last


def test_no_seeds_no_section():
  own = [one for one in models() if one.seed in (None, 1)]
  part = next(p for p in study_parts.results(own, EVALUATE) if p.name == 'dynamics')
  assert longer.results(part, EVALUATE) == []


def test_each_family_has_its_own_values():
  families = {problem: 'ab'[i % 2] for i, problem in enumerate(IDS)}
  part = next(p for p in study_parts.results(models(), EVALUATE) if p.name == 'dynamics')
  whole, *own = longer.results(part, EVALUATE, families=families)
  assert [one.family for one in (whole, *own)] == ['', 'a', 'b']
  for place, one in enumerate(own):
    np.testing.assert_allclose(
      one.base.value, pass_at_k.exact(RATES[place::2], one.ks).mean(axis=0), atol=1e-12
    )
  ends = [one.settings['up'][-1].band.value for one in (whole, *own)]
  np.testing.assert_allclose(ends[0], (ends[1] + ends[2]) / 2, atol=1e-12)
  assert longer.finding(own[1])[0].startswith('b, pass@1:')


def test_a_base_at_its_ceiling_is_said_to_be_there():
  high = [
    dataclasses.replace(one, exact=dict.fromkeys(IDS, 0.5 if one.role == 'base' else 0.4))
    for one in models()
  ]
  part = next(p for p in study_parts.results(high, EVALUATE) if p.name == 'dynamics')
  [found] = longer.results(part, EVALUATE)
  first, *_, last = longer.finding(found)
  assert first.startswith('pass@1: no setting is shown to pass the base. Below it')
  assert last.startswith('pass@1024: the base solves 100.0%, so that nothing can pass it here.')


def test_section_and_entry_hold_all_points(found):
  made = longer.section([found])
  [table], [plot] = made.tables, made.plots
  assert table is not None
  assert len(table.rows) == 5
  assert plot is not None
  assert b'<svg' in plot.svg
  entry = longer.entry([found])
  [group] = entry['groups']
  assert group['settings']['up'][1]['difference']['16'][1] > 0
  assert entry['seeds']['sharp'] == [1, 2, 3]
