"""The store's fast counting is the plain one's, and the benchmark's store is a store."""

import collections

import foreign_files as files
import numpy as np
import pytest

from bench import analysis
from rlvr_jax.eval import shards
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.tasks.problem import VERDICTS


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  """Rows of 11 problems in any order, each with its own number of draws, in several shards."""
  rng = np.random.default_rng(3)
  rows = [
    files.store_row(
      p, s, False, verdict=VERDICTS[0 if rng.uniform() < 0.3 else rng.integers(4)],
      length=2, finish='length' if rng.uniform() < 0.2 else 'eos',
    )
    for p in range(11) for s in range(rng.integers(3, 12))
  ]  # fmt: skip
  rows += [files.store_row(11, s, False, verdict='error' if s == 4 else 'wrong') for s in range(12)]
  store = SampleStore(tmp_path_factory.mktemp('counted') / 'samples')
  with store.writer('m', 'sums', files.SETTINGS, prompt_hash='h', rows_per_shard=17) as writer:
    writer.extend(rows[i] for i in rng.permutation(len(rows)))
  return store, rows


@pytest.mark.parametrize('asked', [None, ['p3', 'p11', 'p7', 'none such']])
@pytest.mark.parametrize('samples', [None, 3, 5])
def test_counts_are_those_of_a_loop(store, asked, samples):
  store, rows = store
  counts = store.counts('m', 'sums', problem_ids=asked, samples=samples, max_error_share=0.2)
  rows = [
    row
    for row in rows
    if (asked is None or row['problem_id'] in asked)
    and (samples is None or row['sample'] < samples)
  ]
  n, c = collections.Counter(), collections.Counter()
  for row in rows:
    n[row['problem_id']] += row['verdict'] != 'error'
    c[row['problem_id']] += row['verdict'] == 'correct'
  assert counts.problem_ids == tuple(sorted(n))
  assert counts.n.tolist() == [n[problem] for problem in sorted(n)]
  assert counts.c.tolist() == [c[problem] for problem in sorted(n)]
  assert counts.tokens == 2 * len(rows)
  assert counts.truncated == sum(row['finish'] == 'length' for row in rows)
  for name in VERDICTS:
    assert counts.verdicts[name].sum() == sum(row['verdict'] == name for row in rows)


def test_extent_is_rows_and_last_index(store):
  store, rows = store
  found = store.extent('m', 'sums')
  for problem in {row['problem_id'] for row in rows}:
    mine = [row['sample'] for row in rows if row['problem_id'] == problem]
    assert found[problem] == (len(mine), max(mine) + 1)
  assert len(found) == 12


def test_codes_are_ranks_of_sorted_values():
  column = analysis.pa.chunked_array([['b', 'a', 'b'], ['c', 'a'], []], analysis.pa.string())
  names, where = shards.codes(column)
  assert names == ['a', 'b', 'c']
  assert where.tolist() == [1, 0, 1, 2, 0]


def test_the_benchmarks_store_is_one_of_ours(tmp_path):
  analysis.make_store(tmp_path, 'm', problems=7, samples=9, seed=1)
  counts = SampleStore(tmp_path).counts('m', 'large')
  assert counts.n.tolist() == [9] * 7
  texts = SampleStore(tmp_path).read('m', 'large', ['text'])['text'].to_pylist()
  assert all(40 <= len(text) <= 110 for text in texts)


@pytest.mark.check
def test_a_store_of_a_million_rows_is_analysed_in_time():
  gates = analysis.one()
  assert all(gate['holds'] for gate in gates), gates
