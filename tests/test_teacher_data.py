"""What a student is given: only correct, whole, different completions of problems it may see."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.rl import teacher_data
from rlvr_jax.tasks.problem import Problem

PROBLEMS = [Problem(f'p{i}', 'sums', f'question {i}:', 'x') for i in range(4)]
HELD_OUT = [Problem('h0', 'sums', 'hidden:', 'x')]
SAMPLES = [  # problem, text, verdict, finish
  ('p0', 'a', 'correct', 'eos'),
  ('p0', 'a', 'correct', 'eos'),
  ('p0', 'b', 'wrong', 'eos'),
  ('p0', 'c', 'correct', 'eos'),
  ('p0', 'd', 'correct', 'eos'),
  ('p1', 'e', 'correct', 'length'),
  ('p2', 'f', 'correct', 'eos'),
  ('h0', 'g', 'correct', 'eos'),
]


def read(source, **options):
  return teacher_data.read(str(source), PROBLEMS, HELD_OUT, template='raw', **options)


def store_at(root, *models):
  store = SampleStore(root)
  for model in models:
    with store.writer(model, 'sums', {'temperature': 1.0}, prompt_hash='h') as writer:
      for sample, (problem, text, verdict, finish) in enumerate(SAMPLES):
        row = {
          'task': 'sums', 'problem_id': problem, 'visit': 0, 'sample': sample, 'seed': 0,
          'tokens': [1], 'text': text, 'length': 1, 'finish': finish,
          'logprob_sum_sampled': -1.0, 'verdict': verdict, 'reward': 0.0, 'verifier': 'v',
        }  # fmt: skip
        writer.append(row)
  return root


def test_a_store_teaches_correct_whole_different_completions(tmp_path):
  root = store_at(tmp_path / 'run' / 'samples', 'teacher')
  for source in (root.parent, root, root / 'teacher', root / 'teacher' / 'sums'):
    found = read(source)
    assert found.pairs == [
      ('question 0:', 'a'), ('question 0:', 'c'), ('question 0:', 'd'), ('question 2:', 'f'),
    ]  # fmt: skip
    assert found.left_out == {
      'of held-out problems': 1, 'copies': 1, 'not correct': 1, 'cut at the limit': 1,
    }  # fmt: skip
  assert read(root, most=1).pairs == [('question 0:', 'a'), ('question 2:', 'f')]
  assert ('question 0:', 'b') in read(root, correct_only=False).pairs
  assert found.describe().startswith('4 completions to learn from; left out: ')


def test_a_store_of_several_models_asks_which(tmp_path):
  root = store_at(tmp_path, 'one', 'two')
  with pytest.raises(ValueError, match='holds one/sums, two/sums; name one model'):
    read(root)
  assert len(read(root, author='two').pairs) == 4
  with pytest.raises(ValueError, match=r"distill\.author='three'"):
    read(root, author='three')


def rows_of_samples():
  return [
    {'problem_id': p, 'text': t, 'verdict': v, 'finish': f, 'sample': i}
    for i, (p, t, v, f) in enumerate(SAMPLES)
  ]


@pytest.mark.parametrize('kind', ['jsonl', 'parquet'])
def test_files_of_samples_are_filtered_alike(kind, tmp_path):
  path = tmp_path / f'samples.{kind}'
  if kind == 'parquet':
    pq.write_table(pa.Table.from_pylist(rows_of_samples()), path)
  else:
    path.write_text('\n'.join(map(json.dumps, rows_of_samples())))
  assert read(path).pairs == read(store_at(tmp_path / 's', 'm')).pairs


def test_pairs_are_taken_as_they_are_but_never_of_held_out_problems(tmp_path):
  path = tmp_path / 'pairs.jsonl'
  pairs = [('a', 'b'), ('a', 'b'), ('hidden:', 'x'), ('c', 'd')]
  path.write_text('\n'.join(json.dumps({'prompt': p, 'completion': c}) for p, c in pairs))
  found = read(path, most=1)
  assert found.pairs == [('a', 'b'), ('a', 'b'), ('c', 'd')]
  assert found.left_out == {'of held-out problems': 1}


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'prompt': 'a'}, r'rows.jsonl:1: no completion \(completion, text'),
    ({'prompt': 'a', 'completion': ''}, 'must be non-empty text'),
    ({'text': 'a'}, 'expected .*or a sample with problem_id, text and verdict'),
    ({'problem_id': 'p0', 'text': 'a'}, 'expected .*or a sample'),
    ({'problem_id': 'p0', 'text': 'a', 'verdict': 'good'}, "verdict='good' is none of correct"),
    ({'problem_id': 'zz', 'text': 'a', 'verdict': 'correct'}, "problem 'zz' is not among the 4"),
    ({'problem_id': 'p0', 'text': 'a', 'verdict': False}, 'leaves nothing to learn from'),
    ({'problem_id': 'h0', 'text': 'a', 'verdict': True}, '1 of held-out problems'),
  ],
)
def test_rows_that_teach_nothing_are_named(row, message, tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_text(json.dumps(row))
  with pytest.raises(ValueError, match=message):
    read(path)


def test_content_is_of_bytes_not_of_places(tmp_path):
  one, other = (store_at(tmp_path / name, 'm') for name in ('a', 'b'))
  assert teacher_data.content(str(one)) == teacher_data.content(str(other))
  store_at(other, 'n')
  assert teacher_data.content(str(one)) != teacher_data.content(str(other))
  file = tmp_path / 'x.jsonl'
  file.write_text('{}')
  assert teacher_data.content(str(file)) != teacher_data.content(str(one))
  with pytest.raises(ValueError, match='no such file or store'):
    teacher_data.content(str(tmp_path / 'gone'))
