"""Problems from JSON lines: the forms in use read as they are, errors name file and line."""

import gzip
import json

import pytest

from rlvr_jax.tasks.jsonl import load_jsonl
from rlvr_jax.tasks.problem import Problem

GSM = [
  {'question': 'How many?', 'answer': 'Two and three are <<2+3=5>>5.\n#### 5'},
  {'question': 'How much?', 'answer': 'A lot.\n#### 1,000'},
]


def write(path, rows):
  path.write_text('\n'.join(row if isinstance(row, str) else json.dumps(row) for row in rows))
  return path


def test_gsm8k_out_of_the_box(tmp_path):
  path = write(tmp_path / 'gsm.jsonl', GSM)
  assert load_jsonl(path, task='gsm8k') == [
    Problem('0', 'gsm8k', 'How many?', '5'),
    Problem('1', 'gsm8k', 'How much?', '1,000'),
  ]
  assert [p.id for p in load_jsonl(path, task='gsm8k', limit=1)] == ['0']


def test_compressed_and_with_blank_lines(tmp_path):
  path = tmp_path / 'gsm.jsonl.gz'
  path.write_bytes(gzip.compress(('\n\n'.join(map(json.dumps, GSM)) + '\n\n').encode()))
  assert [p.answer for p in load_jsonl(path, task='gsm8k')] == ['5', '1,000']
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(ValueError, match=r'gsm.jsonl.gz: the compressed file is damaged after line'):
    load_jsonl(path, task='gsm8k')


@pytest.mark.parametrize(
  ('row', 'identity', 'answer'),
  [
    (
      {'problem': 'q', 'solution': 'so \\boxed{1} or \\boxed{\\frac{1}{2}}', 'idx': 7},
      '7',
      '1, \\frac{1}{2}',
    ),
    ({'id': 'a/1', 'problem': 'q', 'answer': 27.0}, 'a/1', '27.0'),
    ({'unique_id': 'u', 'problem': 'q', 'final_answer': ['$-2,0$']}, 'u', '$-2,0$'),
    ({'prompt': 'q', 'answer': {'numbers': [1, 2]}}, '0', {'numbers': [1, 2]}),
  ],
)
def test_forms_of_the_benchmarks(tmp_path, row, identity, answer):
  (problem,) = load_jsonl(write(tmp_path / 'x.jsonl', [row]), task='t')
  assert (problem.id, problem.prompt, problem.answer) == (identity, 'q', answer)


def test_named_columns_verifier_and_kept_columns(tmp_path):
  path = write(tmp_path / 'x.jsonl', [{'key': 'k', 'text': 'q', 'gold': '3', 'level': 5}])
  fields = {'id': 'key', 'prompt': 'text', 'answer': 'gold'}
  (problem,) = load_jsonl(path, task='t', fields=fields, verifier='math', keep=('level',))
  assert problem == Problem('k', 't', 'q', '3', {'level': 5, 'verifier': 'math'})


def test_chat_prompts(tmp_path):
  messages = [{'role': 'user', 'content': 'q'}]
  path = write(tmp_path / 'x.jsonl', [{'prompt': messages, 'answer': '3'}])
  assert load_jsonl(path, task='t')[0].prompt == ({'role': 'user', 'content': 'q'},)


GOOD = {'question': 'q', 'answer': '1'}


@pytest.mark.parametrize(
  ('rows', 'fields', 'message'),
  [
    ([GOOD, '{"question": "q", '], {}, r"x.jsonl:2: not JSON .*the line begins '{\"question\""),
    ([GOOD, '[1]'], {}, 'x.jsonl:2: a list, where an object'),
    ([GOOD, {'question': 'q'}], {}, 'x.jsonl:2: no answer column .*the line has question'),
    ([GOOD], {'answer': 'anwser'}, "x.jsonl:1: there is no column 'anwser'; did you mean 'answer'"),
    ([GOOD], {'gold': 'answer'}, r"fields has the keys \['gold'\]; known are id, prompt, answer"),
    ([GOOD, {'question': 'q', 'answer': ' '}], {}, 'x.jsonl:2: the gold answer is empty'),
    ([{'question': 'q', 'answer': 'x\n#### '}], {}, 'x.jsonl:1: the gold answer is empty'),
    ([{'question': 'q', 'answer': None}], {}, 'x.jsonl:1: the gold answer is None'),
    ([{'question': 'q', 'answer': '$$'}], {}, 'x.jsonl:1: the gold answer is empty'),
    ([{'question': 'q', 'answer': '\\boxed{}'}], {}, 'x.jsonl:1: the gold answer is empty'),
    ([{'question': '', 'answer': '1'}], {}, 'x.jsonl:1: the prompt is neither text'),
    (
      [{**GOOD, 'id': 7}, GOOD, {**GOOD, 'id': 7}],
      {},
      "x.jsonl:3: duplicate id '7', first seen at",
    ),
    ([''], {}, 'x.jsonl: there is no problem'),
  ],
)
def test_errors_name_file_and_line(tmp_path, rows, fields, message):
  with pytest.raises(ValueError, match=message):
    load_jsonl(write(tmp_path / 'x.jsonl', rows), task='t', fields=fields)


def test_other_errors(tmp_path):
  with pytest.raises(ValueError, match=r'nowhere.jsonl.: there is no such file'):
    load_jsonl(tmp_path / 'nowhere.jsonl', task='t')
  with pytest.raises(ValueError, match='limit=0'):
    load_jsonl(write(tmp_path / 'x.jsonl', [GOOD]), task='t', limit=0)
  (tmp_path / 'latin.jsonl').write_bytes('{"question": "é"}'.encode('latin-1'))
  with pytest.raises(ValueError, match=r'latin.jsonl:1: not UTF-8'):
    load_jsonl(tmp_path / 'latin.jsonl', task='t')
