"""Two verifiers, two boundaries: the same samples judged twice, and what flips is told."""

import json

import numpy as np
import pytest

from configs import eval_math
from rlvr_jax import config as config_lib
from rlvr_jax.eval import report, results, two_verifiers
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.tasks.problem import Problem
from tests.test_eval_samples import make_row

N = 8
# strict tells them apart; the paper's rules take 100 times the gold, and any root for both
TEXTS = {'right': r'\boxed{3}', 'times': r'\boxed{300}', 'wrong': r'\boxed{8}'}


def build_store(root):
  store = SampleStore(root / 'samples')
  kinds = {
    'base': {'p0': ['right', 'wrong'], 'p1': ['times'], 'p2': ['wrong']},
    'rl': {'p0': ['right'], 'p1': ['wrong'], 'p2': ['wrong', 'times']},
  }
  for model, problems in kinds.items():
    with store.writer(model, 'sums', {'temperature': 1.0}, prompt_hash='h') as writer:
      for problem, several in problems.items():
        for sample in range(N):
          kind = several[sample % len(several)]
          verdict = 'correct' if kind == 'right' else 'wrong'
          writer.append(make_row(problem, sample, verdict=verdict, text=TEXTS[kind]))
  return store


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  root = tmp_path_factory.mktemp('run')
  store = build_store(root)
  models = [results.ModelResult(m, m, store.counts(m, 'sums')) for m in ('base', 'rl')]
  study = results.analyse(models, resamples=50)
  problems = [Problem(f'p{i}', 'sums', 'x', '3', {'verifier': 'math'}) for i in range(3)]
  config = config_lib.resolve(eval_math.get_config(), {'verifier.workers': 1})
  files = two_verifiers.rejudge(config, root, store, ['base', 'rl'], problems, 'paper')
  return two_verifiers.two_verifiers(study, two_verifiers.rescored(study, files)), files, root


def test_the_paper_rules_flip_what_they_should(two):
  found, files, _ = two
  assert found.first.model('base').counts.c.tolist() == [4, 0, 0]
  assert found.second.model('base').counts.c.tolist() == [4, 8, 0]
  assert found.second.model('rl').counts.c.tolist() == [8, 0, 4]
  assert two_verifiers.flipped(found) == [('p1', 'base', N, 0, 8), ('p2', 'rl', N, 0, 4)]
  first, second = (study.comparison.sets[0] for study in (found.first, found.second))
  assert (first.base_only, first.rl_only) == ((), ())
  assert (second.base_only, second.rl_only) == (('p1',), ('p2',))
  row = json.loads(files['rl'].read_text().splitlines()[0])
  assert row['verifier'].startswith('paper:')
  assert row['old_verdict'] == 'correct'


def test_the_report_has_both_curves_and_every_flip(two, tmp_path):
  found = two[0]
  document = report.write_study(tmp_path, found.first, title='Two', wall_seconds=1.0, two=found)
  entry = document['two_verifiers']
  assert entry['verifiers'] == ['strict', 'paper']
  assert entry['coverage']['paper'] == {'both': 1, 'base_only': 1, 'rl_only': 1, 'neither': 0}
  assert entry['flips'] == [['p1', 'base', N, 0, 8], ['p2', 'rl', N, 0, 4]]
  by_k = {row['k']: row for row in entry['models']['base']}
  assert by_k[1]['before'][0] == pytest.approx(4 / 24)
  assert by_k[1]['after'][0] == pytest.approx(12 / 24)
  page = (tmp_path / 'report.html').read_text()
  assert 'Two verifiers, two boundaries' in page
  assert '<a href="#problems?id=p1">p1</a>' in page
  assert 'in 2 of them one verifier alone' in page


def test_files_of_other_samples_are_refused(two, tmp_path):
  found, files, _ = two
  with pytest.raises(ValueError, match='no re-scored file for rl'):
    two_verifiers.rescored(found.first, {'base': files['base']})
  with pytest.raises(ValueError, match='was not made from the samples'):
    two_verifiers.rescored(found.first, {'base': files['rl'], 'rl': files['rl']})
  ids = found.first.problem_ids
  other = results.analyse(
    [results.ModelResult('base', 'base', Counts(ids, np.full(3, N), np.zeros(3)))],
    headline=('base',),
    resamples=20,
  )
  with pytest.raises(ValueError, match='are of different models'):
    two_verifiers.two_verifiers(found.first, other)
