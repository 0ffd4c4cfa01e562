"""The real files, where $RLVR_DATA_DIR has them: rows, checksums, golds that verify themselves."""

import os
import pathlib

import pytest

from rlvr_jax.tasks import load, self_check
from rlvr_jax.tasks.datasets import table
from rlvr_jax.tasks.datasets.load import load_benchmark, prepared_splits
from rlvr_jax.tasks.overlap import overlap, repeats

DATA = os.environ.get('RLVR_DATA_DIR', '')
pytestmark = [
  pytest.mark.check,
  pytest.mark.skipif(not DATA, reason='RLVR_DATA_DIR names no folder of benchmark files'),
]

# (benchmark, folder, split, problems, rows that are left out, whether the checksum is the table's)
REAL = [
  ('gsm8k', 'gsm8k', 'train', 7473, {}, True),
  ('gsm8k', 'gsm8k', 'test', 1319, {}, True),
  ('math', 'math', 'train', 7470, {'no gold answer': 4}, False),  # rllm's copy, without solutions
  ('math', 'math', 'test', 5000, {}, True),
  ('math500', 'math500', 'test', 500, {}, True),
  ('minerva', 'minerva_math', 'test', 272, {}, True),
  ('olympiadbench', 'olympiadbench', 'test', 675, {}, True),
  ('aime24', 'aime24', 'test', 30, {}, True),
  ('aime25', 'aime25', 'test', 30, {}, True),
  ('aime_1983_2023', 'aime_1983_2023', 'train', 975, {}, True),
  ('amc23', 'amc23', 'test', 40, {}, True),
  ('mathvista', 'mathvista', 'test', 1000, {}, True),
  ('mathvision', 'mathvision', 'test', 304, {}, True),
  ('mathvision', 'mathvision', 'full', 3040, {}, True),
  ('geometry3k', 'geometry3k', 'train', 10, {}, False),  # ten examples of the train split
  ('humaneval', 'humaneval', 'test', 164, {}, True),
  ('humaneval_plus', 'humaneval_plus', 'test', 164, {}, True),
  ('mbpp', 'mbpp', 'train', 374, {}, True),
  ('mbpp', 'mbpp', 'test', 500, {}, True),
  ('mbpp_plus', 'mbpp_plus', 'test', 378, {}, True),
  ('leetcode', 'leetcode', 'train', 1889, {}, True),
  ('leetcode', 'leetcode', 'test', 200, {}, True),
  ('code_contests', 'code_contests', 'test', 165, {}, True),
  ('codeforces', 'codeforces', 'test', 408, {}, True),
]


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
  before = os.environ.get('RLVR_DATA_CACHE')
  os.environ['RLVR_DATA_CACHE'] = str(tmp_path_factory.mktemp('cache'))
  yield
  del os.environ['RLVR_DATA_CACHE']
  if before is not None:
    os.environ['RLVR_DATA_CACHE'] = before


def read(name, folder, split):
  params = {'form': ''} if 'form' in table.find(name).filters else {}  # multiple choice too
  (found,) = load_benchmark(name, path=f'{DATA}/{folder}', split=split, params=params).values()
  return found


@pytest.mark.parametrize(('name', 'folder', 'split', 'count', 'left_out', 'known'), REAL)
def test_rows_and_golds(name, folder, split, count, left_out, known):
  problems = read(name, folder, split)
  assert len(problems) == count
  (one,) = prepared_splits(name, path=f'{DATA}/{folder}', split=split).values()
  assert one.left_out == left_out
  assert all(file.known == known for file in one.files)
  benchmark = table.find(name)
  if known and split in benchmark.rows:
    assert benchmark.rows[split] == count
  if benchmark.verifier in ('math', 'vision'):
    assert self_check.failures(problems) == {}


def test_the_indices_of_the_papers_table_are_our_ids():
  problems = read('aime24', 'aime24', 'test')
  assert [p.id for p in problems] == [str(i) for i in range(30)]
  assert 'Aimeville' in problems[15].prompt


def test_math500_is_in_maths_test_set_and_not_in_its_train_set():
  test, train = read('math', 'math', 'test'), read('math', 'math', 'train')
  small = read('math500', 'math500', 'test')
  assert len(overlap(test, small).same) == 500
  assert overlap(train, small).same == ()
  assert len(overlap(train, test).same) == 2
  assert len(repeats(train)) == 2


def test_mathruler_and_the_papers_repository_have_the_same_aime24():
  ours = read('aime24', 'aime24', 'test')
  task = {
    'name': 'jsonl', 'path': f'{DATA}/aime24/mathruler_aime_2024.jsonl', 'params': {}, 'limit': 0,
    'holdout': 0, 'fields': {}, 'verifier': 'math',
  }  # fmt: skip
  theirs, _ = load.load_problems(task)
  assert {int(p.answer) for p in ours} == {int(p.answer) for p in theirs}
  assert len(overlap(theirs, ours).same) == 30


def test_images_that_are_there_are_where_meta_says():
  for name, folder, split in (
    ('mathvision', 'mathvision', 'test'),
    ('geometry3k', 'geometry3k', 'train'),
  ):
    for problem in read(name, folder, split):
      (image,) = problem.meta['images']
      assert (pathlib.Path(DATA) / folder / image).is_file()
