"""Rows of every public form become problems: benchmarks, filters, files of any columns."""

import gzip
import hashlib
import json
import pickle
import zlib
from base64 import b64encode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import gsm8k, task, write_lines

from rlvr_jax.tasks import load
from rlvr_jax.tasks.datasets import rows, rows_vision, table
from rlvr_jax.tasks.datasets.benchmark import KINDS
from rlvr_jax.tasks.datasets.load import load_benchmark, prepared_splits
from rlvr_jax.tasks.files import rows_of
from rlvr_jax.tasks.problem import Image
from rlvr_jax.tasks.prompts import DAPO_AFTER, DAPO_BEFORE, PAPER


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """Every test has a data cache of its own."""
  monkeypatch.setenv('RLVR_DATA_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


# One row of each public form, of our own making, and what becomes of it.
MATH = {'problem': 'Add.', 'solution': r'So \boxed{\frac{1}{2}}.', 'level': 'Level 3', 'type': 'A'}
OLYMPIAD = {
  'id': 1606, 'subfield': 'Algebra', 'context': 'Given x.', 'question': 'Find it.',
  'final_answer': ['$3,5$'], 'is_multiple_answer': True, 'unit': None,
  'answer_type': 'Numerical', 'error': '1e-1',
}  # fmt: skip
ZOO = {
  'prompt': [{'role': 'user', 'content': '<|im_start|>user\nAdd?<|im_end|>'}],
  'reward_model': {'ground_truth': '4', 'style': 'rule'},
  'extra_info': {'question': 'Add?', 'level': 3},
}
VISTA = {
  'pid': '7', 'question': 'How long?', 'image': 'images/7.jpg', 'unit': 'cm', 'precision': 1.0,
  'answer': '1.2', 'question_type': 'free_form', 'answer_type': 'float', 'choices': None,
  'metadata': {'source': 'ours'},
}  # fmt: skip
CHOSEN = {
  'question_type': 'multi_choice', 'choices': ['2 cm', '4 cm '], 'answer': '4 cm ', 'unit': None,
  'precision': None, 'answer_type': 'text', 'decoded_image': {'bytes': b'jpeg', 'path': None},
}  # fmt: skip
VISION = {
  'id': '9', 'question': 'Which?\n<image1>', 'options': [], 'answer': '61', 'level': 2,
  'image': 'images/9.jpg',
}  # fmt: skip


@pytest.mark.parametrize(
  ('function', 'row', 'expected'),
  [
    (rows.math, MATH, ('', 'Add.', r'\frac{1}{2}', {'type': 'A', 'level': 3})),
    (rows.math, {'problem': 'Add.', 'answer': None}, rows.NO_GOLD),
    (
      rows.math500,
      MATH | {'answer': '0.5', 'level': 5, 'unique_id': 'test/1'},
      ('test/1', 'Add.', '0.5', {'type': 'A', 'level': 5}),
    ),
    (rows.contest, {'problem': 'P', 'answer': 27.0}, ('', 'P', '27', {})),
    (rows.contest, {'problem': 'P', 'answer': '033', 'year': 1}, ('', 'P', '33', {'year': 1})),
    (
      rows.olympiad,
      OLYMPIAD,
      (
        '', 'Given x.\nFind it.', '3,5',
        {
          'subfield': 'Algebra', 'answer_type': 'Numerical', 'is_multiple_answer': True,
          'tolerance': 0.1, 'source_id': 1606,
        },
      ),
    ),
    (rows.simplerl, ZOO, ('', 'Add?', '4', {'level': 3})),
    (rows.simplerl, ZOO | {'reward_model': {'ground_truth': ''}}, rows.NO_GOLD),
    (
      rows.dapo,
      {
        'prompt': [{'role': 'user', 'content': f'{DAPO_BEFORE}Add.{DAPO_AFTER}'}],
        'reward_model': {'ground_truth': '34'},
        'extra_info': {'index': 'u-1'},
      },
      ('u-1', 'Add.', '34', {}),
    ),
    (
      rows_vision.mathvista,
      VISTA,
      (
        '7',
        'Hint: Please answer the question requiring a floating-point number with one decimal place '
        'and provide the final value, e.g., 1.2, 1.3, 1.4, at the end.\n'
        'Question: How long? (Unit: cm)',
        '1.2',
        {
          'question_type': 'free_form', 'answer_type': 'float', 'precision': 1.0, 'unit': 'cm',
          'source': 'ours', 'images': ['images/7.jpg'],
        },
        (Image('images/7.jpg'),),
      ),
    ),
    (
      rows_vision.mathvista,
      VISTA | CHOSEN,
      (
        '7',
        'Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, '
        'at the end.\nQuestion: How long?\nChoices:\n(A) 2 cm\n(B) 4 cm ',
        '4 cm',
        {
          'question_type': 'multi_choice', 'answer_type': 'text', 'source': 'ours',
          'images': ['images/7.jpg'], 'options': ['2 cm', '4 cm '], 'option': 1,
        },
        (Image('images/7.jpg', data=b'jpeg'),),
      ),
    ),
    (
      rows_vision.mathvision,
      VISION | {'options': ['1', '2', '3', '4', '5'], 'answer': 'E'},
      (
        '9', 'Which?\n<image1>\n(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5', 'E',
        {
          'question_type': 'multi_choice', 'level': 2, 'images': ['images/9.jpg'],
          'options': ['1', '2', '3', '4', '5'], 'option': 4,
        },
        (Image('images/9.jpg'),),
      ),
    ),
    (
      rows_vision.mathvision,
      VISION | {'options': list('ABCDE'), 'answer': 'B'},
      (
        '9', 'Which?\n<image1>', 'B',
        {
          'question_type': 'multi_choice', 'level': 2, 'images': ['images/9.jpg'],
          'options': list('ABCDE'), 'option': 1,
        },
        (Image('images/9.jpg'),),
      ),
    ),
    (
      rows_vision.mathvision,
      VISION,
      (
        '9', 'Which?\n<image1>', '61',
        {'question_type': 'free_form', 'level': 2, 'images': ['images/9.jpg']},
        (Image('images/9.jpg'),),
      ),
    ),
    (
      rows_vision.geometry3k,
      {'problem': '<image>Find $x$.', 'answer': '\\sqrt{2}', 'images': [{'bytes': b'png'}]},
      (
        '', 'Find $x$.', r'\sqrt{2}', {'question_type': 'free_form', 'images': ['here, image 0']},
        (Image('here, image 0', data=b'png'),),
      ),
    ),
    (
      rows_vision.geometry3k,
      {
        'id': 4, 'annotat_text': 'Find $x$.', 'choices': ['1', r'\sqrt{2}', '3', '4'],
        'answer': 'B', 'folder': 'train/4',
      },
      (
        '4', 'Find $x$.', r'\sqrt{2}',
        {
          'question_type': 'free_form', 'choices': ['1', r'\sqrt{2}', '3', '4'],
          'images': ['train/4/img_diagram.png'],
        },
        (Image('train/4/img_diagram.png'),),
      ),
    ),
  ],
)  # fmt: skip
def test_rows(function, row, expected):
  made = function(row, 0, 'here')
  assert made == (expected if isinstance(expected, str) else rows.Row(*expected))


def test_formats_of_files(tmp_path):
  lines = [{'a': 1, 'image': 'x'}, {'a': 2, 'image': 'y'}]
  wanted = [{'a': 1}, {'a': 2}]
  pq.write_table(pa.Table.from_pylist(lines), tmp_path / 'x.parquet')
  found = list(rows_of(tmp_path / 'x.parquet', ('image',)))
  assert [row for _, row in found] == wanted
  assert found[1][0].endswith('x.parquet: row 1')
  (tmp_path / 'list.json').write_text(json.dumps(wanted))
  (tmp_path / 'keyed.json').write_text(json.dumps({'p': wanted[0], 'q': wanted[1]}))
  (tmp_path / 'list.json.gz').write_bytes(gzip.compress(json.dumps(wanted).encode()))
  write_lines(tmp_path / 'x.jsonl.gz', wanted)
  for name in ('list.json', 'keyed.json', 'list.json.gz', 'x.jsonl.gz'):
    assert [row for _, row in rows_of(tmp_path / name)] == wanted
  cut = (tmp_path / 'x.parquet').read_bytes()[:-9]
  (tmp_path / 'x.parquet').write_bytes(cut)
  with pytest.raises(ValueError, match='Parquet file is damaged'):
    list(rows_of(tmp_path / 'x.parquet'))
  (tmp_path / 'list.json').write_text('[{"a": 1}, {')
  with pytest.raises(ValueError, match=r'list\.json:1: not JSON'):
    list(rows_of(tmp_path / 'list.json'))


def test_a_file_of_any_columns_with_a_field_map(tmp_path):
  lines = [{'prompt': [{'role': 'user', 'content': 'Add.'}], 'reward_model': {'ground_truth': '7'}}]
  pq.write_table(pa.Table.from_pylist(lines), tmp_path / 'x.parquet')
  fields = {'id': '', 'prompt': '', 'answer': 'reward_model.ground_truth'}
  for name in ('jsonl', 'parquet'):
    (problem,), _ = load.load_problems(task(name, tmp_path / 'x.parquet', fields=fields))
    assert problem.answer == '7'
    assert problem.prompt == ({'role': 'user', 'content': 'Add.'},)
  with pytest.raises(ValueError, match=r"no column 'reward_model\.gold'"):
    load.load_problems(
      task('parquet', tmp_path / 'x.parquet', fields=fields | {'answer': 'reward_model.gold'})
    )
  assert len(load.content_hash(task('parquet', tmp_path / 'x.parquet'))) == 16


def test_a_file_with_other_rows_than_the_public_one_is_used_and_named(tmp_path, caplog):
  load.load_problems(task('gsm8k', gsm8k(tmp_path / 'gsm8k'), split='test'))
  (said,) = [record.getMessage() for record in caplog.records]
  assert said.startswith('gsm8k, split test: 3 problems in ')
  assert said.endswith('test.jsonl, where its public files have 1319')


def test_folders_and_zips_of_problems(tmp_path):
  import zipfile

  for number in (2, 10):
    row = {
      'id': number, 'problem_text': 'Find x.', 'choices': ['1', '2', '3', '4'], 'answer': 'C'
    }  # fmt: skip
    (tmp_path / 'train' / str(number)).mkdir(parents=True)
    (tmp_path / 'train' / str(number) / 'data.json').write_text(json.dumps(row))
  with zipfile.ZipFile(tmp_path / 'train.zip', 'w') as archive:
    for file in (tmp_path / 'train').rglob('data.json'):
      archive.write(file, file.relative_to(tmp_path))
  for place in ('', 'train', 'train.zip'):
    (found,) = load_benchmark('geometry3k', path=str(tmp_path / place), split='train').values()
    assert [(p.id, p.answer) for p in found] == [('train-2', '3'), ('train-10', '3')]
    assert found[1].meta['images'][0].endswith('train/10/img_diagram.png')


def test_our_split_of_omni_math_is_2000_to_821_and_stays(tmp_path):
  lines = [{'problem': f'P{i}', 'answer': str(i), 'domain': ['A']} for i in range(2821)]
  write_lines(tmp_path / 'omni_math_rule.jsonl', lines)
  found = load_benchmark('omni_math_rule', path=str(tmp_path))
  assert {split: len(problems) for split, problems in found.items()} == {
    'train': 2000,
    'test': 821,
  }
  numbers = [int(p.id.removeprefix('train-')) for split in found.values() for p in split]
  assert sorted(numbers) == list(range(2821))
  digest = hashlib.sha256(' '.join(p.id for p in found['test']).encode()).hexdigest()[:16]
  assert digest == 'b11c5d1f47544fd5'  # stores of samples depend on it


def test_repeated_rows_of_dapo_count_once(tmp_path):
  lines = [
    {
      'prompt': [{'role': 'user', 'content': f'{DAPO_BEFORE}P{i % 3}{DAPO_AFTER}'}],
      'reward_model': {'ground_truth': str(i % 3)},
      'extra_info': {'index': f'u{i % 3}'},
    }
    for i in range(9)
  ]
  pq.write_table(pa.Table.from_pylist(lines), tmp_path / 'dapo-math-17k.parquet')
  (found,) = load_benchmark('dapo_math_17k', path=str(tmp_path)).values()
  assert [p.prompt for p in found] == ['P0', 'P1', 'P2']
  one = prepared_splits('dapo_math_17k', path=str(tmp_path))['train']
  assert one.left_out == {'repeated': 6}


def test_levels_and_dates(tmp_path):
  write_lines(tmp_path / 'test.jsonl', [MATH | {'level': f'Level {n}'} for n in (1, 3, 5, 3)])
  wanted, _ = load.load_problems(task('math', tmp_path, split='test', params={'level': (3, 5)}))
  by_text = task('math', tmp_path, split='test', where='level=3,5; type=A')
  assert load.load_problems(by_text) == (wanted, [])
  assert load.content_hash(by_text) != load.content_hash(by_text | {'where': 'level=3'})
  with pytest.raises(ValueError, match=r"task\.where='level': 'level' is not name=value"):
    load.load_problems(by_text | {'where': 'level'})
  assert [p.meta['level'] for p in wanted] == [3, 5, 3]
  assert [p.id for p in wanted] == ['1', '2', '3']  # ids do not depend on filters
  with pytest.raises(ValueError, match='none of the 4 problems of math, split test'):
    load.load_problems(task('math', tmp_path, split='test', params={'level': 2}))
  for level in ('medium', 'hard'):
    write_lines(tmp_path / f'{level}.jsonl', [ZOO])
  by_level, _ = load.load_problems(task('simplerl_zoo', tmp_path, params={'level': 'hard'}))
  assert [p.id for p in by_level] == ['hard-0']


def lcb_row(number, date, private=None, starter='', name=None):
  return {
    'question_title': f'T{number}', 'question_content': f'Q{number}', 'platform': 'ours',
    'question_id': f'q{number}', 'contest_date': f'{date}T00:00:00', 'starter_code': starter,
    'difficulty': 'easy', 'metadata': json.dumps({'func_name': name} if name else {}),
    'public_test_cases': json.dumps([{'input': '1 2', 'output': '3', 'testtype': 'stdin'}]),
    'private_test_cases': private or '[]',
  }  # fmt: skip


def packed(value):
  return b64encode(zlib.compress(pickle.dumps(json.dumps(value)))).decode()


class Evil:
  def __reduce__(self):
    return print, ('run',)


def test_livecodebench_by_date_with_hidden_tests(tmp_path):
  hidden = packed([{'input': '5 6', 'output': '11', 'testtype': 'stdin'}])
  write_lines(tmp_path / 'test.jsonl', [lcb_row(0, '2023-06-01'), lcb_row(1, '2024-08-01', hidden)])
  called = lcb_row(2, '2025-01-31', starter='class Solution: ...', name='add')
  called['public_test_cases'] = json.dumps([{'input': '1\n2', 'output': '3'}])
  write_lines(tmp_path / 'test2.jsonl', [called, lcb_row(3, '2025-02-01')])
  (window,) = load_benchmark('livecodebench', path=str(tmp_path)).values()
  assert [p.id for p in window] == ['q1', 'q2']
  assert window[0].answer == {'kind': 'stdin', 'inputs': ['1 2', '5 6'], 'outputs': ['3', '11']}
  assert window[1].answer['entry_point'] == 'add'
  assert window[1].meta['starter_code'] == 'class Solution: ...'
  assert window[0].meta['verifier'] == 'code'
  every, _ = load.load_problems(task('livecodebench', tmp_path, where='since=; until='))
  assert [p.id for p in every] == ['q0', 'q1', 'q2', 'q3']
  late = load_benchmark('livecodebench', path=str(tmp_path), params={'since': '2025', 'until': ''})
  assert [p.id for p in late['test']] == ['q2', 'q3']
  evil = b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
  write_lines(tmp_path / 'evil' / 'test.jsonl', [lcb_row(0, '2024-09-01', evil)])
  with pytest.raises(ValueError, match=r'test\.jsonl:1: .*print'):
    load_benchmark('livecodebench', path=str(tmp_path / 'evil'))


def test_code_rows_of_every_form(tmp_path):
  pairs = {'inputs': ['1\n'], 'outputs': ['2\n']}
  check = {'functional': 'def check(candidate):\n  assert candidate(1) == 2\n\ncheck(Solution().f)'}
  forms = [pairs, json.dumps(pairs), [{'input': '1', 'output': '2'}], check, {'pytest': 'x'}, []]
  (tmp_path / 'train.json').write_text(
    json.dumps([{'problem': f'P{i}', 'tests': tests} for i, tests in enumerate(forms)])
  )
  (found,) = load_benchmark('leetcode', path=str(tmp_path), split='train').values()
  assert [p.answer['kind'] for p in found] == ['stdin', 'stdin', 'stdin', 'asserts']
  one = prepared_splits('leetcode', path=str(tmp_path), split='train')['train']
  assert one.left_out == {'tests of the kind pytest': 1, 'no tests': 1}

  chat = [{'role': 'system', 'content': 'S'}, {'role': 'user', 'content': 'U'}]
  row = {'prompt': chat, 'reward_model': {'ground_truth': json.dumps(check)}}
  pq.write_table(
    pa.Table.from_pylist([row | {'extra_info': {'reference': 'r', 'dataset': 'd'}}]),
    tmp_path / 'train-00000-of-00001.parquet',
  )
  (found,) = load_benchmark('code_r1_12k', path=str(tmp_path)).values()
  assert found[0].prompt == tuple(chat)
  assert found[0].meta == {'solution': 'r', 'source': 'd', 'verifier': 'code'}

  mbpp = [
    {'task_id': n, 'text': 'Add one.', 'code': 'def f(x):\r\n  return x + 1', 'test_list':
     ['assert f(1) == 2', 'assert f(2) == 3'], 'test_setup_code': ''}
    for n in (10, 11, 510, 511, 600, 601, 974)
  ]  # fmt: skip
  write_lines(tmp_path / 'mbpp.jsonl', mbpp)
  found = load_benchmark('mbpp', path=str(tmp_path))
  assert [p.id for p in found['test']] == ['11', '510']
  assert [p.id for p in found['train']] == ['train-601', 'train-974']
  assert found['test'][0].prompt == '"""\nAdd one.\nassert f(1) == 2\n"""\n'
  assert found['test'][0].meta['solution'] == 'def f(x):\n  return x + 1'


def test_a_template_with_a_prefix_tells_the_verifier(tmp_path):
  folder = gsm8k(tmp_path / 'gsm8k')
  (problem, *_), _ = load.load_problems(task('gsm8k', folder, split='test', template='evalplus'))
  assert problem.meta['prefix'].endswith('```python\n')


def test_the_table_is_whole():
  for name, benchmark in table.BENCHMARKS.items():
    assert benchmark.kind in KINDS, name
    assert any(benchmark.kind in kinds for kinds in PAPER.values()), name
    assert len(benchmark.released) == len('2024-01-31'), name
    assert benchmark.licence, name
    for source in benchmark.sources:
      assert source.home.startswith(('https://', 'hub:')), name
      assert source.names, name
      assert len(source.sha256) in (0, 64), name
    assert set(benchmark.rows) <= set(benchmark.splits), name
    assert name not in load.TASKS
