"""Real benchmarks: every canonical solution is correct, thousands of broken ones are not."""

import collections
import gzip
import json
import os
import pathlib
import random

import pytest

from rlvr_jax.tasks import code_rows
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.sandbox import codec
from tests.mutants import differ, mutants, plain_outputs

DATA = pathlib.Path(os.environ.get('RLVR_DATA_DIR', ''))
pytestmark = [
  pytest.mark.check,
  pytest.mark.timeout(3600),
  pytest.mark.skipif('RLVR_DATA_DIR' not in os.environ, reason='RLVR_DATA_DIR is not set'),
]
PLUS = {
  'humaneval_plus': 'humaneval_plus/HumanEvalPlus.jsonl.gz',
  'mbpp_plus': 'mbpp_plus/MbppPlus.jsonl.gz',
}
WRONG = 3000  # at least as many broken programs, so that none called correct bounds the rate
INPUTS = 16  # of each task, for the broken ones
PER_TASK = 9


def rows(path):
  file = DATA / path
  if file.suffix == '.json':
    return json.loads(file.read_text())
  with gzip.open(file, 'rt') if file.suffix == '.gz' else file.open() as lines:
    return [json.loads(line) for line in lines]


def problem(name, answer):
  return Problem(name, 'data', 'q', answer, {'verifier': 'code'})


def fenced(program):
  return f'Here it is.\n```python\n{program}\n```\nIt works.'


def solution(row):
  prompt = row['prompt'] if row['task_id'].startswith('HumanEval') else ''
  return prompt + row['canonical_solution']


def judge(jobs, limit_s=30.0):
  with VerifierPool(workers=2, limit_s=limit_s) as pool:
    return pool.verify(jobs)


def assert_all_correct(jobs, verdicts):
  wrong = [(p.id, v) for (p, _), v in zip(jobs, verdicts, strict=True) if v.verdict != 'correct']
  assert wrong == []
  assert all(v.sandbox == 'landlock+seccomp' for v in verdicts)


@pytest.mark.parametrize(('name', 'count'), [('humaneval_plus', 164), ('mbpp_plus', 378)])
def test_canonical_solutions_of_evalplus_are_correct(name, count):
  """On all inputs, base and plus; the expected outputs are those of the same solution, so this
  also says that they are the same twice and survive the way out of the sandbox."""
  jobs = [
    (problem(row['task_id'], code_rows.evalplus_answer(row)), fenced(solution(row)))
    for row in rows(PLUS[name])
  ]
  assert len(jobs) == count
  assert_all_correct(jobs, judge(jobs))


def test_canonical_solutions_of_humaneval_are_correct():
  """By the tests as published; as a block, and as a continuation of the prompt."""
  jobs = []
  for row in rows('humaneval/HumanEval.jsonl.gz'):
    given = problem(row['task_id'], code_rows.humaneval_answer(row))
    jobs += [(given, fenced(solution(row))), (given, row['canonical_solution'])]
  assert len(jobs) == 2 * 164
  assert_all_correct(jobs, judge(jobs))


def test_canonical_solutions_of_mbpp_are_correct():
  jobs = [
    (problem(str(row['task_id']), code_rows.mbpp_answer(row)), fenced(row['code']))
    for row in rows('mbpp/mbpp.jsonl')
    if 11 <= row['task_id'] <= 510
  ]
  assert len(jobs) == 500
  assert_all_correct(jobs, judge(jobs))


def test_solutions_of_leetcode_are_correct():
  """Methods of a class, linked lists and trees."""
  jobs = [
    (problem(str(i), code_rows.leetcode_answer(row)), fenced(row['solutions']))
    for i, row in enumerate([*rows('leetcode/test.json'), *rows('leetcode/train.json')[:400]])
  ]
  assert_all_correct(jobs, judge(jobs))


def test_livecodebench_samples_of_both_kinds():
  """The few-shot answers, tested by the examples in their questions."""
  function, program = rows('livecodebench/func.json')[0], rows('livecodebench/stdin.json')[0]
  called = code_rows.functional_answer(
    {
      'public_test_cases': json.dumps(
        [
          {'input': '[4, 4, 2, 4, 3]', 'output': '3', 'testtype': 'functional'},
          {'input': '[1, 1, 1, 1, 1]', 'output': '0', 'testtype': 'functional'},
        ]
      ),
      'metadata': json.dumps({'func_name': 'unequalTriplets'}),
    }
  )
  read = code_rows.stdin_answer(
    {
      'public_test_cases': json.dumps(
        [{'input': '2\n3\n3 5 6\n3 2 3\n1\n7\n7\n', 'output': '6\n0\n', 'testtype': 'stdin'}]
      ),
      'private_test_cases': '[]',
    }
  )
  jobs = [
    (problem('function', called), fenced(function['answer'])),
    (problem('stdin', read), fenced(program['answer'])),
    (problem('function', called), fenced(function['answer'].replace('== 3', '== 2'))),
    (problem('stdin', read), fenced(program['answer'].replace('ans = 0', 'ans = 1'))),
  ]
  assert [v.verdict for v in judge(jobs)] == ['correct', 'correct', 'wrong', 'wrong']


def few_inputs(row):
  """The row with some of its inputs, none of them large."""
  both = [*(row['base_input'] or []), *(row['plus_input'] or [])]
  small = [one for one in both if len(json.dumps(one)) < 500]
  return {**row, 'base_input': small[:INPUTS], 'plus_input': []}


def test_broken_programs_are_never_correct():
  """Variants that plainly run give other outputs than the canonical solution on some input."""
  jobs, kinds, slow = [], collections.Counter(), []
  for row in [*rows(PLUS['humaneval_plus']), *rows(PLUS['mbpp_plus'])]:
    row = few_inputs(row)
    answer = code_rows.evalplus_answer(row)
    if answer.get('oracle'):  # another rule than equality decides there
      continue
    inputs = [[codec.decode(value) for value in arguments] for arguments in answer['inputs']]
    variants = mutants(solution(row), row['entry_point'])
    loops = [pair for pair in variants if pair[0] == 'infinite loop']
    others = [pair for pair in variants if pair[0] != 'infinite loop']
    random.Random(row['task_id']).shuffle(others)
    others.sort(key=lambda pair: pair[0] != 'empty body')
    others = others[:PER_TASK]
    programs = [solution(row), *(text for _, text in others)]
    right, *outputs = plain_outputs(programs, row['entry_point'], inputs)
    if '!' in right:  # too slow for the plain run
      slow.append(row['task_id'])
      continue
    given = problem(row['task_id'], {**answer, 'limit_s': 1.0})
    chosen = [pair for pair, out in zip(others, outputs, strict=True) if differ(out, right)]
    chosen += loops[: int(row['task_id'].split('/')[1]) % 8 == 0]
    for kind, text in chosen:
      kinds[kind] += 1
      jobs.append((given, fenced(text)))
  assert len(slow) <= 5
  assert len(jobs) >= WRONG, kinds
  assert set(kinds) == {'off by one', 'wrong return', 'empty body', 'infinite loop'}
  verdicts = judge(jobs, limit_s=5.0)
  print(len(jobs), dict(kinds), collections.Counter(v.verdict for v in verdicts), slow)
  called_correct = [
    (p.id, text) for (p, text), v in zip(jobs, verdicts, strict=True) if v.verdict == 'correct'
  ]
  assert called_correct == []
  assert all(v.verdict in ('wrong', 'timeout') for v in verdicts)
