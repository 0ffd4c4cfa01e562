"""Printed numbers stand only beside their own benchmark, and are read as they stand."""

import numpy as np
import pytest

from rlvr_jax.eval import figures, published, results, tables_beside
from rlvr_jax.eval.counts import Counts

SIZES = {'math500': 500, 'omni_math_rule': 821}


def ids(task):
  return [str(i) for i in range(SIZES[task])]


def test_only_the_same_benchmark_whole_has_a_reference():
  assert published.reference('math500', ids('math500')).benchmark == 'MATH500'
  assert published.reference('math500', ids('math500')[:499]) is None
  assert published.reference('gsm8k', ids('math500')) is None
  assert published.reference('', ids('math500')) is None
  train = [f'train-{i}' for i in range(2000)]
  assert 'training' in published.reference('omni_math_rule', train).benchmark
  assert 'test' in published.reference('omni_math_rule', ids('omni_math_rule')).benchmark
  assert published.reference('omni_math_rule', train[:1000] + ids('omni_math_rule')) is None


@pytest.mark.parametrize(
  ('task', 'names', 'above'),
  [
    ('math500', ids('math500'), 6),
    ('omni_math_rule', ids('omni_math_rule'), 3),
    ('omni_math_rule', [f'train-{i}' for i in range(2000)], 1),
  ],
)
def test_the_rows_are_counted_not_quoted(task, names, above):
  printed = published.reference(task, names)
  assert printed.at_or_above_base() == above
  assert f'at or above the base in {above} of 6 rows' in printed.reading()
  assert 'within noise' in printed.reading()
  assert 'consistently' not in printed.reading()
  for name, (one, many) in printed.rows.items():
    assert 0 < one < many < 1, name


def test_printed_coverage_agrees_with_its_own_shares():
  sets = published.printed_sets('aime24', [str(i) for i in range(30)])
  base, rl = set(sets.base), set(sets.rl)
  assert base - rl == {4, 11, 17, 19}
  assert len(base - rl) / 30 == pytest.approx(sets.base_only, abs=5e-4)
  assert rl - base == set()
  assert published.printed_sets('aime24', ['0']) is None
  assert published.printed_sets('aime25', [str(i) for i in range(30)]) is None


def test_figure_and_table_show_printed_beside_ours():
  names = tuple(ids('math500'))
  rng = np.random.default_rng(0)
  models = [
    results.ModelResult(name, name, Counts(names, np.full(500, 16), rng.integers(0, 17, 500)))
    for name in ('base', 'rl')
  ]
  study = results.analyse(models, resamples=50)
  printed = published.reference('math500', names)
  with_them = figures.pass_at_k_figure(study, printed)
  assert with_them.svg != figures.pass_at_k_figure(study).svg
  assert published.SOURCE in with_them.caption
  table = tables_beside.printed_table(
    printed, study, results.build_results(study, wall_seconds=1.0)
  )
  assert table.rows[0][:2] == ['Qwen2.5-7B', 'printed, one run']
  assert table.rows[0][2:] == ['34.5%', '96.2%']
  assert [row[:2] for row in table.rows[-2:]] == [['base', 'here'], ['rl', 'here']]
  assert table.rows[-1][3] is None  # 16 samples give no pass@256
