"""What stands beside a comparison: cost in tokens, lucky guesses, the plan; and job=power."""

import dataclasses
import json
import subprocess
import sys

import foreign_files as files
import numpy as np
import pytest

from configs import power as power_config
from rlvr_jax import config as config_lib
from rlvr_jax.eval import beside, efficiency, pass_at_k
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.power_job import power_job
from rlvr_jax.eval.results import ModelResult, analyse
from rlvr_jax.eval.samples import Row, SampleStore

P, N = 30, 16


def drawn(seed: int, tokens: int = 0, rate: float = 1.0) -> Counts:
  rng = np.random.default_rng(seed)
  c = rng.binomial(N, rate * rng.beta(0.5, 1.0, P))
  return Counts(tuple(f'p{i}' for i in range(P)), np.full(P, N), c, tokens=tokens)


def study(a: Counts, b: Counts):
  models = [ModelResult('base', 'base', a), ModelResult('rl', 'rl', b, algorithm='grpo', seed=1)]
  return analyse(models, headline=('base', 'rl'), headline_k=4, resamples=200)


def test_at_equal_tokens_the_longer_model_has_fewer_tries():
  a, b = drawn(1, tokens=10 * P * N), drawn(2, tokens=40 * P * N)
  found = beside.cost(study(a, b), None, 'sums')
  assert found.entry['mean_tokens'] == {'base': 10.0, 'rl': 40.0}
  for row in found.entry['at_equal_tokens']:
    assert row['k'][0] == pytest.approx(4 * row['k'][1])
  first = found.entry['at_equal_tokens'][0]
  assert (first['tokens'], first['k'][1]) == (pytest.approx(40), pytest.approx(1))
  own = pass_at_k.estimate(b.n, b.c, [1]).mean() - pass_at_k.estimate(a.n, a.c, [4]).mean()
  assert first['difference'][0] == pytest.approx(own)


def test_without_lengths_there_is_no_cost_and_where_no_budget_is_common_no_table():
  assert beside.cost(study(drawn(1), drawn(2)), None, 'sums') is None
  far = beside.cost(study(drawn(1, tokens=P * N), drawn(2, tokens=99 * P * N)), None, 'sums')
  assert 'at_equal_tokens' not in far.entry


def test_counts_of_some_problems_hold_no_tokens_of_the_others():
  counts = drawn(1, tokens=10 * P * N)
  assert counts.select(counts.problem_ids[::-1]).tokens == counts.tokens
  assert counts.select(counts.problem_ids[:3]).tokens == 0


def test_caps_take_the_draws_that_were_counted(tmp_path):
  store = SampleStore(tmp_path)
  with store.writer('base', 'sums', files.SETTINGS, prompt_hash='h') as writer:
    for problem in range(3):
      for sample in range(8):  # the last four are beyond what is counted, all correct and short
        right = sample >= 4 or sample == problem
        length = 2 if sample >= 4 else 5 + sample
        verdict = 'correct' if right else 'wrong'
        writer.append(
          Row('sums', f'p{problem}', 0, sample, 0, [1] * length, 'text', length, 'eos', -1.0,
              verdict, float(right), 'math:1')
        )  # fmt: skip
  counts = store.counts('base', 'sums', samples=4)
  model = ModelResult('base', 'base', counts)
  alone = analyse([model], headline=('base',), headline_k=1, resamples=50)
  found = beside.cost(alone, store, 'sums').entry['caps']['base']
  assert found['caps'][0] == 5  # the shortest correct one that counts
  # cut at 5 tokens only problem 0's is left, of four draws of three problems
  assert found['pass_at_k']['1'][0][0] == pytest.approx(1 / 12)
  assert found['pass_at_k']['1'][-1][0] == pytest.approx(3 / 12)


def test_guesses_are_taken_out_and_must_be_of_every_problem():
  made = study(drawn(1), drawn(2))
  never = Counts(made.problem_ids, np.full(P, 100), np.zeros(P, int))
  found = beside.guesses(made, never, 'short')
  assert found.entry['guessable'] == []
  for k, row in found.entry['models']['rl'].items():
    assert row['beyond'][0] == pytest.approx(row['measured'][0]), k
    assert row['cautious'][0] <= row['beyond'][0]
  often = Counts(made.problem_ids, np.full(P, 100), np.full(P, 99))
  found = beside.guesses(made, often, 'short')
  assert found.entry['models']['rl']['16']['beyond'][0] == 0
  assert found.entry['models']['rl']['16']['undecidable'] == 1
  assert found.entry['models']['rl']['16']['without_guessable'] is None
  with pytest.raises(ValueError, match=r'evaluate.guesses: short has no samples of 27'):
    beside.guesses(made, never.select(made.problem_ids[:3]), 'short')


def test_the_plan_of_a_study_shows_less_with_fewer_problems():
  found = beside.plan(study(drawn(1), drawn(2))).entry
  by = {(one['problems'], one['n'], one['k']): one['detectable'] for one in found}
  assert by[P, N, 1] > by[4 * P, N, 1] > by[16 * P, N, 1]
  assert by[4 * P, N, 1] == pytest.approx(by[P, N, 1] / 2)
  assert by[P, 4 * N, 4] < by[P, N, 4]
  assert efficiency.mean_tokens(dataclasses.replace(drawn(1), tokens=P * N)) == 1


def config(*given: str):
  found = power_config.get_config()
  for one in given:
    key, value = one.split('=', 1)
    config_lib.set_key(found, key, json.loads(value), 'test')
  return found


def test_job_power_without_and_with_a_pilot(tmp_path, capsys):
  rows = power_job(config('power.problems=[50, 200]', 'power.seeds=[1]'), tmp_path)
  assert {row['problems'] for row in rows} == {50, 200}
  assert 'Beta' in capsys.readouterr().out
  assert json.loads((tmp_path / 'power.json').read_text())['plans'] == rows
  for name, counts in (('a', drawn(1)), ('b', drawn(2))):
    lines = ['problem_id,n,c', *(f'p{i},{N},{counts.c[i]}' for i in range(P))]
    (tmp_path / f'{name}.csv').write_text('\n'.join([*lines, '']))
  stores = f'"{tmp_path}/a.csv,{tmp_path}/b.csv"'
  small = (f'stores={stores}', f'power.problems=[{P}]', f'power.n=[{N}]', 'power.seeds=[1]')
  (one,) = power_job(config(*small, 'power.ks=[4]'), tmp_path)
  known = beside.plan(study(drawn(1), drawn(2))).entry
  expected = next(r for r in known if (r['problems'], r['n'], r['k']) == (P, N, 4))
  assert one['detectable'] == pytest.approx(expected['detectable'], rel=1e-6)


def test_a_pilot_is_two_models_on_problems_that_are_named(tmp_path, capsys):
  for name, size in (('a', P), ('b', P - 3)):
    counts = drawn(ord(name))
    lines = ['q,n,c', *(f'p{i},{N},{counts.c[i]}' for i in range(size)), '']
    (tmp_path / f'{name}.csv').write_text('\n'.join(lines))
  small = ('compare.fields.id="q"', f'power.problems=[{P}]', f'power.n=[{N}]', 'power.ks=[4]')
  power_job(config(f'stores="{tmp_path}/a.csv,{tmp_path}/b.csv"', *small), tmp_path)
  said = json.loads((tmp_path / 'power.json').read_text())['pilot']
  assert said == f'from a and b, on the {P - 3} problems that both have'
  with pytest.raises(ValueError, match='b and a are the same samples'):
    power_job(config(f'stores="a={tmp_path}/a.csv,b={tmp_path}/a.csv"', *small), tmp_path)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ('power.n=[8]', r'every k is above every n'),
    ('power.problems=[0]', r'power.problems=\(0,\): one or more positive'),
    ('power.base=[1.0]', r'power.base=\(1.0,\): a Beta has two positive'),
    ('stores="a.csv"', r"stores='a.csv': a pilot is two stores"),
  ],
)
def test_job_power_says_what_is_wrong(given, message, tmp_path):
  wanted = config(given, *(['power.ks=[128]'] if 'power.n' in given else []))
  with pytest.raises(ValueError, match=message):
    power_job(wanted, tmp_path)


def test_job_power_needs_no_jax():
  code = 'import sys; import rlvr_jax.eval.power_job; sys.exit("jax" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0
