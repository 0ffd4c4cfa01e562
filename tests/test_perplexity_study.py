"""The quickstart's task, where every correct completion is known: reach against enumeration."""

import json

import pyarrow.parquet as pq
import pytest
from test_study import TINY, run

from configs import quickstart
from rlvr_jax import config as config_lib
from rlvr_jax.eval.sample import evaluation_problems
from rlvr_jax.tasks import countdown

pytestmark = pytest.mark.check


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """(perplexity.json, {model: {problem: exact solve rate}}) of a very small study.

  The file of reference answers holds every correct completion of every problem.
  """
  root = tmp_path_factory.mktemp('study')
  code, text = run(root / 'run', **TINY)
  assert code == 0, text
  same = {key: value for key, value in TINY.items() if key != 'study.run_arms'}  # no text here
  problems = evaluation_problems(config_lib.resolve(quickstart.get_config(), same))
  lines = [{'id': p.id, 'answer': list(countdown.solutions(p))} for p in problems]
  (root / 'every.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  stores = f'{root}/run,{root}/every.jsonl'
  sizes = {'samples': 8, 'correct': 1000, 'importance': 256, 'calibration': 16, 'pair': 'base,rl'}
  flags = {f'perplexity.{key}': value for key, value in sizes.items()}
  flags |= {'perplexity.models': f'base={root}/run/base/model,rl={root}/run/arms/rl/model'}
  code, text = run(root / 'work', 'perplexity', stores=stores, **flags)
  assert code == 0, text
  table = pq.read_table(root / 'run' / 'problems.parquet').to_pydict()
  exact = {
    name: dict(zip(table['problem_id'], table[f'{name}.exact'], strict=True))
    for name in ('base', 'rl')
  }
  return json.loads((root / 'work' / 'perplexity.json').read_text()), exact


def test_known_probability_is_the_exact_solve_rate(measured):
  document, exact = measured
  for name, known in document['known_probability']['countdown'].items():
    assert known == pytest.approx(exact[name], rel=1e-4, abs=1e-9)


def test_importance_estimates_contain_the_exact_rates(measured):
  """95% intervals, both ways round, of all problems that are not refused."""
  document, exact = measured
  rows = document['importance']
  given = [row for row in rows if row['value'] is not None]
  assert len(given) > 10
  inside = [r['low'] <= exact[r['model']][r['problem_id']] <= r['high'] for r in given]
  assert sum(inside) / len(inside) >= 0.9, (sum(inside), len(inside))
  assert all(row['refused'] for row in rows if row['value'] is None)
  # no truncation: either model can draw all that the other can
  weights = [row['mean_weight'] for row in given]
  assert 0.7 < sum(weights) / len(weights) < 1.3


def test_scoring_agrees_with_sampling(measured):
  document, _ = measured
  assert document['checks']['own_outside'] == 0
  assert document['checks']['gap_largest'] < 1e-4
