"""The benchmark's table of studies, a newcomer's method, and one small run of all of it."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from configs import boundary_benchmark
from configs.families import FAMILIES
from rlvr_jax import benchmark, benchmark_table, stages
from rlvr_jax import config as config_lib
from rlvr_jax.eval.counts import Counts
from rlvr_jax.rl.advantages import advantages_of
from rlvr_jax.rl.algorithms import choose

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / 'docs' / 'examples' / 'my_method.py'

FAMILY = {
  **FAMILIES['countdown'],
  'distill.steps': 30,
  'distill.batch': 64,
  'distill.eval_every': 0,
  'train.prompts': 8,
  'train.group': 8,
  'task.holdout': 12,
  'sampling.slots': 64,
  'sampling.bank_rows': 32,
}


def tiny(**changes):
  values = {
    'benchmark.families': {'countdown': FAMILY},
    'benchmark.run_families': ('countdown',),
    'benchmark.run_methods': ('grpo', 'remax'),
    'benchmark.seeds': 2,
    'benchmark.tokens': 2_000,
    'benchmark.k': 16,
    'benchmark.reports': False,
    'evaluate.problems': 12,
    'evaluate.n': 16,
    'evaluate.headline_k': 4,
    'claims.k': 4,
    **changes,
  }
  return config_lib.resolve(boundary_benchmark.get_config(), values)


def test_every_family_and_method_of_the_config_makes_a_study():
  for full in (False, True):
    config = config_lib.resolve(boundary_benchmark.get_config(), {'full': full})
    methods = benchmark_table.methods(config)
    assert len(methods) >= 12
    assert all(benchmark_table.labels(config).values())
    for family in benchmark_table.families(config):
      study = benchmark_table.study_of(config, family)
      arms = stages.table(study)
      assert len(arms) == 1 + 5 * len(methods)
      assert {a.values.get('train.tokens') for a in arms[1:]} == {config.benchmark.tokens}


def test_methods_that_count_right_answers_are_given_rewards_of_1_and_0():
  """By its verifier a program of machines gets the share of tests it passes."""
  config = config_lib.resolve(boundary_benchmark.get_config(), {'full': True})
  study = benchmark_table.study_of(config, 'machines')
  assert dict(study.reward.parts) == {'exact': 1.0}
  benchmark.check_arms(study, ROOT)


def test_an_arm_has_its_methods_values_over_the_common_ones():
  own = {
    'grpo': {'train.algorithm': 'grpo', 'optimizer.learning_rate': 1e-5},
    'remax': {'train.algorithm': 'remax'},
  }
  config = tiny(**{'benchmark.methods': own})
  study = benchmark_table.study_of(config, 'countdown')
  rates = {name: arm['optimizer.learning_rate'] for name, arm in study.study.arms.items()}
  assert rates == {'grpo-1': 1e-5, 'grpo-2': 1e-5, 'remax-1': 3e-4, 'remax-2': 3e-4}
  measured = stages.measured(study, stages.table(study))
  assert [one.algorithm for one in measured] == [None, 'grpo', 'grpo', 'remax', 'remax']


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'benchmark.run_methods': ('grpo', 'remx')}, "names 'remx'.*did you mean 'remax'"),
    ({'benchmark.run_methods': ('remax',)}, "benchmark.reference='grpo' is none of the methods"),
    ({'benchmark.run_families': ()}, 'benchmark.run_families is empty'),
    ({'benchmark.add': 'nowhere.py'}, 'there is no file'),
    ({'benchmark.add': 'nowhere.txt'}, 'is not a Python file'),
    (
      {'benchmark.methods': {'grpo': {'train.tokens': 9_000}}, 'benchmark.run_methods': ('grpo',)},
      'train.tokens is the same for all methods',
    ),
    (
      {'benchmark.methods': {'grpo': {'task.params': {}}}, 'benchmark.run_methods': ('grpo',)},
      'task.params is the same for all methods',
    ),
  ],
)
def test_what_is_not_in_the_tables_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    benchmark_table.study_of(tiny(**changes), 'countdown')


def test_a_file_cannot_take_the_name_of_what_is_there(tmp_path):
  own = tmp_path / 'own.py'
  own.write_text("METHODS = {'mine': {'train.algorithm': 'grpo'}}\nFAMILIES = {'countdown': {}}\n")
  with pytest.raises(ValueError, match=r"FAMILIES\['countdown'\] is there already"):
    benchmark_table.study_of(tiny(**{'benchmark.add': str(own)}), 'countdown')
  own.write_text("METHODS = {'mine': {'train.algorithm': 'grpo'}}\n")
  other = tmp_path / 'other.py'
  other.write_text(own.read_text())
  with pytest.raises(ValueError, match=r"other.py'.*METHODS\['mine'\] is there already"):
    benchmark_table.study_of(tiny(**{'benchmark.add': f'{own},{other}'}), 'countdown')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'benchmark.k': 4096}, r'benchmark.k=4096 is above evaluate.n='),
    ({'sampling.first': 16, 'sampling.stop_after': 2}, r'sampling.first=16, sampling.stop_after=2'),
    ({'evaluate.confidence': 0.5}, r'evaluate.confidence=0.5 must be above 0.5'),
  ],
)
def test_what_would_fail_at_the_end_is_refused_at_the_beginning(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    benchmark.benchmark(tiny(**changes), tmp_path)
  assert not (tmp_path / 'countdown').exists()


def test_a_sample_that_the_verifier_failed_on_is_a_wrong_one():
  found = benchmark._judged(Counts(('a', 'b'), np.array([4, 3]), np.array([2, 3])), 4)
  assert (found.n.tolist(), found.c.tolist()) == ([4, 4], [2, 3])


def test_an_arm_that_fails_says_how_to_go_on_without_it(tmp_path, monkeypatch):
  def failing(config, folder):
    raise RuntimeError('the loss is not finite')

  monkeypatch.setattr(benchmark.study, 'measure', failing)
  with pytest.raises(RuntimeError, match=r'(?s)not finite.*benchmark.run_methods without its'):
    benchmark.benchmark(tiny(), tmp_path)


def test_a_newcomers_file_is_under_40_lines_and_a_mistake_in_it_is_named(tmp_path):
  lines = EXAMPLE.read_text().splitlines()
  assert len(lines) < 40
  text = EXAMPLE.read_text()
  assert text in (ROOT / 'docs' / 'how_to.md').read_text()
  wrong = tmp_path / 'wrong.py'
  wrong.write_text(text.replace("'train.scale'", "'train.skale'"))
  with pytest.raises(ValueError, match=r"rare-1.*there is no key 'train.skale'.*'train.scale'"):
    benchmark.benchmark(tiny(**{'benchmark.add': str(wrong)}), tmp_path)
  assert not (tmp_path / 'countdown').exists()


def test_a_newcomers_credit_is_what_its_file_says(tmp_path):
  config = tiny(**{'benchmark.add': str(EXAMPLE)})
  benchmark.check_arms(benchmark_table.study_of(config, 'countdown'), tmp_path)  # all fit
  row = choose('grpo', credit=f'{EXAMPLE}:rare', scale='none')
  right, group = np.array([1, 0, 0, 0, 1, 1, 0, 0.0]), np.repeat([0, 1], 4).astype(np.int32)
  rewards = np.zeros((8, 3))
  rewards[:, 2] = right
  mask, everyone = np.ones((8, 3), bool), np.ones(8, bool)
  found = advantages_of(row, jnp.asarray(rewards), mask, group, everyone, groups=2).advantages
  worth = np.array([2, 0, 0, 0, 2**0.5, 2**0.5, 0, 0])
  np.testing.assert_allclose(found[:, 0], worth - np.repeat([0.5, 2**0.5 / 2], 4), atol=1e-6)


@pytest.mark.check
def test_a_newcomers_method_joins_what_was_measured_before(tmp_path, capsys):
  config = tiny()
  benchmark.benchmark(config, tmp_path)
  before = (tmp_path / 'countdown' / 'arms' / 'grpo-1' / 'finished.json').stat().st_mtime_ns
  first = (tmp_path / 'results.json').read_text()
  benchmark.benchmark(tiny(**{'benchmark.add': str(EXAMPLE)}), tmp_path)
  found, old = json.loads((tmp_path / 'results.json').read_text()), json.loads(first)
  rows = {row['method']: row for row in found['methods']}
  assert set(rows) == {'grpo', 'remax', 'rare'}
  for row in old['methods']:
    assert rows[row['method']] == row
  after = (tmp_path / 'countdown' / 'arms' / 'grpo-1' / 'finished.json').stat().st_mtime_ns
  assert after == before
  assert all(2_000 <= row['tokens'] < 4_000 for row in rows.values())
  assert 'rare' in (tmp_path / 'leaderboard.html').read_text()
