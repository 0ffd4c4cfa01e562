"""job=compare: copies, tasks that differ, and what an earlier comparison left behind."""

import foreign_files as files
import pytest
from test_compare_stores import A, B, config, pair, warned

from rlvr_jax.eval import compare_stores, keep
from rlvr_jax.eval.samples import SampleStore


def kept(tmp_path, stores):
  """Models and tasks of the store that a comparison leaves, without its report."""
  found = compare_stores.open_all(config(stores), tmp_path)
  task = compare_stores.shown_problems(found, found[0].counts.problem_ids)[0].task
  keep.keep(found, tmp_path / 'out' / 'samples', task)
  return SampleStore(tmp_path / 'out' / 'samples').models()


def test_what_an_earlier_comparison_kept_is_not_left_under_its_names(tmp_path):
  assert kept(tmp_path, pair(tmp_path)) == {'base': ['samples'], 'rl': ['samples']}
  tables = [files.counts_csv(tmp_path / f'{n}.csv', f) for n, f in (('a', A), ('b', B))]
  assert kept(tmp_path, f'base={tables[0]},other={tables[1]}') == {}
  files.our_store(tmp_path / 'out', 'mine', A)
  assert set(kept(tmp_path, pair(tmp_path))) == {'base', 'rl', 'mine'}, 'no copy, so it stays'


def test_equal_counts_are_copies_where_that_is_no_chance(tmp_path):
  """Another format, no texts: still the same samples. A few equal counts are said and no more."""
  whole = files.jsonl(tmp_path / 'a.jsonl', files.schema_rows(A))
  bare = [{k: v for k, v in row.items() if k != 'text'} for row in files.schema_rows(A)]
  table = files.counts_csv(tmp_path / 'c.csv', A)
  ours = files.our_store(tmp_path / 'ours', 'x', A)
  for other in (files.jsonl(tmp_path / 'b.jsonl', bare), table, ours):
    with pytest.raises(ValueError, match='rl and base are the same samples'):
      warned(tmp_path, f'base={whole},rl={other}')
  greedy = [files.counts_csv(tmp_path / f'{n}.csv', A[:, :1]) for n in 'de']
  assert 'Equal counts' in warned(tmp_path, f'base={greedy[0]},rl={greedy[1]}')
  with pytest.raises(ValueError, match='are the same samples'):
    warned(tmp_path, f'base={greedy[0]},rl={greedy[0]}')


def test_samples_of_other_tasks_are_refused_and_any_name_of_one_is_kept(tmp_path):
  stores = pair(
    tmp_path, files.schema_rows(A, task='openai/gsm8k'), files.schema_rows(B, task='openai/gsm8k')
  )
  assert kept(tmp_path, stores)['rl'] == ['gsm8k']
  stores = pair(tmp_path, files.schema_rows(A, task='gsm8k'), files.schema_rows(B, task='math'))
  with pytest.raises(ValueError, match=r"of different tasks \(base 'gsm8k', rl 'math'\)"):
    warned(tmp_path, stores)
  assert 'Different prompts' in warned(tmp_path, stores, compare__allow='prompts')


def test_what_was_named_and_is_used_by_no_store_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"compare.metric='acc' is of logs of lm-evaluation-harness"):
    warned(tmp_path, pair(tmp_path), compare__metric='acc')
  logs = [
    files.jsonl(tmp_path / f'{n}.jsonl', files.lm_eval_rows(f)) for n, f in (('d', A), ('e', B))
  ]
  with pytest.raises(ValueError, match='none of the stores has columns that may be named'):
    warned(tmp_path, f'{logs[0]},{logs[1]}', compare__fields__id='q')
