"""What a row of each programming data set says; see rows.py. code_rows.py makes its tests."""

import json
from typing import Any

from rlvr_jax.tasks import code_rows
from rlvr_jax.tasks.datasets.rows import Row, column


def humaneval(row: dict[str, Any], number: int, where: str) -> Row:
  """HumanEval: a function's head and docstring; the tests are its check(candidate)."""
  prompt = column(row, 'prompt', where)
  solution = prompt + column(row, 'canonical_solution', where)
  meta = {'entry_point': column(row, 'entry_point', where), 'solution': solution}
  return Row(str(column(row, 'task_id', where)), prompt, code_rows.humaneval_answer(row), meta)


def evalplus(row: dict[str, Any], number: int, where: str) -> Row:
  """HumanEval+ and MBPP+: the original's inputs and many more."""
  prompt = column(row, 'prompt', where)
  solution = prompt + column(row, 'canonical_solution', where)
  meta = {'entry_point': column(row, 'entry_point', where), 'solution': solution}
  return Row(str(column(row, 'task_id', where)), prompt, code_rows.evalplus_answer(row), meta)


def mbpp(row: dict[str, Any], number: int, where: str) -> Row:
  """MBPP, asked as MBPP+ asks: the text and the first test in a docstring."""
  tests = column(row, 'test_list', where)
  prompt = f'"""\n{column(row, "text", where).strip()}\n{tests[0]}\n"""\n'
  solution = column(row, 'code', where).replace('\r\n', '\n')
  meta = {'solution': solution}
  return Row(str(column(row, 'task_id', where)), prompt, code_rows.mbpp_answer(row), meta)


def livecodebench(row: dict[str, Any], number: int, where: str) -> Row:
  """LiveCodeBench: with starter code a function is called, without one a program reads stdin."""
  starter = column(row, 'starter_code', where)
  answer = (code_rows.functional_answer if starter else code_rows.stdin_answer)(row)
  meta = {
    'starter_code': starter,
    'date': str(column(row, 'contest_date', where))[:10],
    'platform': row.get('platform', ''),
    'difficulty': row.get('difficulty', ''),
    'title': row.get('question_title', ''),
  }
  question = column(row, 'question_content', where)
  return Row(str(column(row, 'question_id', where)), question, answer, meta)


def rllm(row: dict[str, Any], number: int, where: str) -> Row | str:
  """rllm's and DeepCoder's rows: a problem and its tests, of any of three forms."""
  tests = _loads(column(row, 'tests', where))
  problem = column(row, 'problem', where)
  starter = row.get('starter_code') or ''
  solutions = _loads(row.get('solutions') or '')
  solution = solutions if isinstance(solutions, str) else next(iter(solutions), '')
  meta = {'starter_code': starter, 'solution': solution}
  meta = {name: value for name, value in meta.items() if value}
  made = _tests(tests, {**row, 'tests': tests})
  return made if isinstance(made, str) else Row('', problem, made, meta)


def code_r1(row: dict[str, Any], number: int, where: str) -> Row | str:
  """Code-R1's 12K: chats with its system prompt, tests as JSON in reward_model.ground_truth."""
  reward_model = column(row, 'reward_model', where)
  tests = _loads(column(reward_model, 'ground_truth', where))
  extra = row.get('extra_info') or {}
  meta = {
    key: value
    for key, value in (('solution', extra.get('reference')), ('source', extra.get('dataset')))
    if value
  }
  made = _tests(tests, {**row, 'tests': tests})
  if isinstance(made, str):
    return made
  messages = tuple({'role': m['role'], 'content': m['content']} for m in row['prompt'])
  return Row('', messages, made, meta)


def _tests(tests: Any, row: dict[str, Any]) -> Any:
  """The answer of a row whose tests are check code, inputs and outputs, or a list of pairs; the
  reason why not otherwise."""
  if isinstance(tests, dict):
    if 'functional' in tests:
      return code_rows.leetcode_answer(row)
    if not tests.get('inputs'):
      return 'no tests' if 'inputs' in tests else f'tests of the kind {", ".join(tests)}'
    called = tests.get('fn_name')
    return (code_rows.functional_answer if called else code_rows.stdin_answer)(row)
  if not tests:
    return 'no tests'
  name = (_loads(row.get('metadata') or {}) or {}).get('func_name')
  name = name or tests[0].get('fn_name') or (tests[0].get('metadata') or {}).get('func_name')
  if name:
    return code_rows.functional_answer({**row, 'metadata': {'func_name': name}})
  return code_rows.stdin_answer(row)


def _loads(value: Any) -> Any:
  """The value that JSON text stands for; other text and values as they are."""
  if isinstance(value, str) and value[:1] in ('[', '{'):
    return json.loads(value)
  return value
