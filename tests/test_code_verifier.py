"""The verifier of programs: which program a completion is, which outputs are right, and why."""

import json
import pathlib
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks import code, code_rows
from rlvr_jax.tasks.code_compare import same_output, same_text
from rlvr_jax.tasks.code_extract import extract_program
from rlvr_jax.tasks.jsonl import load_jsonl
from rlvr_jax.tasks.problem import Problem, Verdict

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='Linux only')
PROMPT = 'from typing import List\n\ndef add(a, b):\n    """ Adds. """\n'
WHOLE = 'def add(a, b):\n  return a + b'


@pytest.fixture(scope='module', autouse=True)
def sandbox(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('RLVR_CACHE', str(tmp_path_factory.mktemp('cache')))
    yield
  code.sandbox().close()
  code.sandbox.cache_clear()


@pytest.mark.parametrize(
  ('completion', 'program'),
  [
    (f'Sure:\n```python\n{WHOLE}\n```\nDone.', WHOLE),
    (f'```\n{WHOLE}\n```', WHOLE),
    (f'```python\n{WHOLE}', WHOLE),
    (f'~~~py\n{WHOLE}\n~~~', WHOLE),
    (f'```python\n{WHOLE}\n```\nUse:\n```python\nprint(add(1, 2))\n```', WHOLE),
    (f'```python\ndef add(a, b):\n  return 0\n```\nBetter:\n```python\n{WHOLE}\n```', WHOLE),
    (f'<think>```python\ndef add(a, b): pass\n```</think>\n```python\n{WHOLE}\n```', WHOLE),
    (f'1. So:\n   ```python\n   def add(a, b):\n     return a + b\n   ```', WHOLE),  # noqa: F541
    (WHOLE, WHOLE),
    ('    return a + b\n', PROMPT + '    return a + b\n'),
    ('    return a + b\n\nprint(add(1, 2))\n', PROMPT + '    return a + b\n'),
    ('return a + b', PROMPT + '    return a + b\n'),
    ('    return help(a)\n\ndef help(a):\n    return a\n', None),
    ('```python\n    return a + b\n```', PROMPT + '    return a + b\n'),
    ('', ''),
    ('```python\n```', ''),
  ],
)
def test_program_of_a_completion(completion, program):
  if program is None:
    program = PROMPT + completion
  assert extract_program(completion, 'add', PROMPT) == program


@given(st.text(alphabet='`~ \n\tpython def add(a,b):\\<think>/', max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_has_a_program_or_none(text):
  assert isinstance(extract_program(text, 'add', PROMPT), str)


@pytest.mark.parametrize(
  ('got', 'wanted', 'atol', 'right'),
  [
    (3, 3, 0, True),
    (3, 4, 0, False),
    (3.0, 3, 0, True),
    (True, 1, 0, True),
    ('3', 3, 0, False),
    (None, 0, 0, False),
    (0.1 + 0.2, 0.3, 0, True),
    (0.30001, 0.3, 0, False),
    ([0.1 + 0.2], [0.3], 0, True),
    ((0.1 + 0.2,), [0.3], 0, False),
    ([0.1, 0.2], [0.1], 0, False),
    (1.00005, 1.0, 1e-4, True),
    (1, 1.0000001, 0, False),  # another type, not equal
    (float('nan'), float('nan'), 0, False),
    (float('inf'), float('inf'), 0, True),
    (float('inf'), 1e300, 1e-4, False),
    ([1, [2.00001]], [1, [2.0]], 1e-4, True),
    (10**400, 1.0, 1e-4, False),
    ({1: 2}, {1: 2}, 0, True),
    ([1, 2], (1, 2), 0, False),
  ],
)
def test_outputs_of_calls(got, wanted, atol, right):
  assert same_output(got, wanted, atol, '', ()) is right


def test_a_tolerance_of_one_output_is_not_that_of_the_next():
  assert same_output(0.1 + 0.2, 0.3, 0, '', ())
  assert not same_output([1, 2.0000001], [1, 2], 0, '', ())


@pytest.mark.parametrize(
  ('oracle', 'arguments', 'got', 'wanted', 'right'),
  [
    ('find_zero', ([1, 2],), -0.5, -0.50001, True),
    ('find_zero', ([1, 2],), 0.5, -0.5, False),
    ('find_zero', ([1, 2],), float('nan'), -0.5, False),
    ('find_zero', ([1, 2],), 1e308, -0.5, False),
    ('find_zero', ([1, 2],), True, -0.5, False),
    ('set', (), [3, 1], (1, 3), True),
    ('set', (), [3], (1, 3), False),
    ('set', (), 5, (1, 3), False),
    ('not_none', (), True, object(), True),
    ('not_none', (), None, object(), False),
    ('not_none', (), None, None, True),
    ('digit_distance', (123, 9), 1 + 2 + 6, 8, True),
    ('digit_distance', (123, 9), 8, 8, True),
    ('digit_distance', (123, 9), 7, 8, False),
    ('digit_distance', (-1, 9), 7, 8, False),
    ('surface_area', (3, 4), 33, 33, True),
    ('surface_area', (3, 4), 35, 33, True),
    ('surface_area', (3, 4), 34, 33, False),
  ],
)
def test_other_rules_of_evalplus(oracle, arguments, got, wanted, right):
  assert same_output(got, wanted, 1e-4 if oracle == 'find_zero' else 0, oracle, arguments) is right


@pytest.mark.parametrize(
  ('got', 'wanted', 'right'),
  [
    ('1 2\n3', '1 2 3\n', True),
    ('1 2', '1 2 3', False),
    ('0.3333333', '0.33333334', True),
    ('0.333', '0.33333334', False),
    ('1e6', '1000000.5', True),
    ('0011', '11', False),
    ('11', '0011', False),
    ('5.0', '5', True),
    ('123456789.5', '123456789', False),
    ('123456789.5', '123456789.0', True),
    ('5', '6', False),
    ('YES', 'Yes', False),
    ('nan', 'nan', True),
    ('inf', '1e999', False),
    ('', '', True),
    ('1,5', '1.5', False),
  ],
)
def test_outputs_of_programs(got, wanted, right):
  assert same_text(got.encode(), wanted.encode()) is right


@pytest.mark.parametrize(
  'work',
  [
    lambda: same_text(b'1' * 1_000_000 + b'x', b'5'),
    lambda: same_text(b'1.' + b'1' * 1_000_000 + b'e', b'5'),
    lambda: same_output([i * (2**61 - 1) for i in range(1, 200_000)], [1], 0, 'set', ()),
    lambda: extract_program('```' + 'a' * 300_000 + '`') is None,
    lambda: extract_program('```' + ' ' * 300_000 + '`') is None,
  ],
)
@pytest.mark.timeout(20)  # quadratic, each would take minutes
def test_the_verifier_reads_what_it_is_given_in_linear_time(work):
  assert work() is False


def test_text_that_no_file_takes_is_escaped():
  said = Verdict('wrong', 0.0, 'x', 'ValueError: \ud800 and é')
  assert said.reason == 'ValueError: \\ud800 and é'


CALLS = {'kind': 'calls', 'entry_point': 'add', 'inputs': [[1, 2], [3, 4]], 'limit_s': 1.0}
STDIN = {'kind': 'stdin', 'inputs': ['1 2\n', '3 4\n'], 'outputs': ['3\n', '7\n'], 'limit_s': 1.0}
ASSERTS = {
  'kind': 'asserts', 'entry_point': 'add', 'setup': 'import math', 'names': {'candidate': 'add'},
  'test': 'def check(f):\n  for i in range(3):\n    assert f(i, 1) == i + 1\n'
          '  assert math.isclose(f(0.1, 0.2), 0.3)\n  assert f([1], [2]) in ([1, 2], None)\n'
          'check(candidate)',
}  # fmt: skip


def verdict(answer, completion, **meta):
  return code.verify_code(
    Problem('1', 'test', 'q', answer, {'verifier': 'code', **meta}), completion
  )


READS = 'import sys\na, b = map(int, sys.stdin.buffer.read().split())\nprint(a + b)'


@pytest.mark.parametrize(
  ('answer', 'program', 'told', 'reason'),
  [
    ({**CALLS, 'expected': [3, 7]}, WHOLE, 'correct', '2 calls'),
    ({**CALLS, 'expected': [3, 8]}, WHOLE, 'wrong', 'call 2, [3, 4]: 7 in place of 8'),
    ({**CALLS, 'reference': WHOLE}, 'add = lambda a, b: b + a', 'correct', '2 calls'),
    ({**CALLS, 'reference': WHOLE}, 'add = lambda a, b: 3', 'wrong', 'call 2'),
    ({**CALLS, 'expected': [3, 7]}, 'def sub(a, b): pass', 'wrong', "defines no 'add'"),
    ({**CALLS, 'expected': [3, 7]}, 'def add(a, b:\n', 'wrong', 'SyntaxError'),
    ({**CALLS, 'expected': [3, 7]}, 'def add(a, b): 1 / 0', 'wrong', 'ZeroDivisionError'),
    (
      {**CALLS, 'expected': [3, 7]},
      'def add(a, b):\n  while 1: pass',
      'timeout',
      'at call 1 of 2: ',
    ),
    ({**CALLS, 'expected': [3, 7]}, '  ', 'unparsed', 'no program'),
    (
      {**CALLS, 'expected': [3, 7], 'method_of': 'Solution', 'prelude': 'import math'},
      'from __future__ import annotations\nclass Solution:\n  def add(self, a, b): return a + b',
      'correct',
      '2 calls',
    ),
    (STDIN, READS, 'correct', '2 tests'),
    (STDIN, 'print(3)', 'wrong', "test 2 of 2: '3\\n' in place of '7\\n'"),
    (STDIN, f'{READS}\nraise SystemExit(2)', 'wrong', 'exit code 2'),
    (STDIN, 'print(int(input()))', 'wrong', 'ValueError'),
    (
      STDIN,
      'import threading\ndef main():\n  print(sum(map(int, input().split())))\n'
      'threading.stack_size(2 ** 26)\nthreading.Thread(target=main).start()',
      'correct',
      '2 tests',
    ),
    (ASSERTS, WHOLE, 'correct', 'the test passed'),
    (ASSERTS, 'def add(a, b): return a + 1', 'wrong', 'AssertionError'),
    (ASSERTS, 'def add(a, b): raise KeyError(a)', 'wrong', 'KeyError'),
    (ASSERTS, 'x = 1', 'wrong', "defines no 'add'"),
    # a model's own examples and a last line that was cut are no part of the function
    ({**CALLS, 'expected': [3, 7]}, f'{WHOLE}\nassert add(1, 1) == 3', 'correct', '2 calls'),
    ({**CALLS, 'expected': [3, 7]}, f'{WHOLE}\nexit(1)', 'correct', '2 calls'),
    ({**CALLS, 'expected': [3, 7]}, f'{WHOLE}\n\nprint(add(1, (2', 'correct', '2 calls'),
    ({**CALLS, 'expected': [3, 7]}, f'{WHOLE}\nadd = 5\n1 / 0', 'wrong', 'TypeError'),
    ({**CALLS, 'expected': [3, 7]}, f'1 / 0\n{WHOLE}', 'wrong', 'ZeroDivisionError'),
    ({**CALLS, 'expected': [3, 7]}, f'{WHOLE}\ndef add(a, b):\n  return (', 'correct', '2 calls'),
    (ASSERTS, f'{WHOLE}\nassert add(1, 1) == 3', 'correct', 'the test passed'),
    (STDIN, f'{READS}\nassert 0', 'wrong', 'exit code 1'),
    # as an interpreter ends a program: `site`'s words, closed streams, writers nobody closed
    (STDIN, f'{READS}\nexit()', 'correct', '2 tests'),
    (STDIN, f'{READS}\nquit(3)', 'wrong', 'exit code 3'),
    (STDIN, f'{READS}\nsys.stdout.close()', 'correct', '2 tests'),
    (
      STDIN,
      f"w = open(1, 'w')\n{READS.replace('print(a + b)', 'w.write(str(a + b))')}",
      'correct',
      '2 tests',
    ),
    (
      STDIN,
      f'import io, sys\nout, sys.stdout = sys.stdout, io.StringIO()\nout.write("3")\n{READS}',
      'wrong',
      'test 2 of 2',
    ),
    (
      STDIN,
      'import resource as r\nr.setrlimit(r.RLIMIT_STACK, (r.RLIM_INFINITY,) * 2)\n'
      f'import os\nos.path.abspath(__file__)\n{READS}',
      'correct',
      '2 tests',
    ),
    (
      STDIN,
      f'import threading, time\ndef spin():\n  while True:\n    time.sleep(0)\n'
      f'threading.Thread(target=spin, daemon=True).start()\n{READS}',
      'correct',
      '2 tests',
    ),
    (STDIN, 'print("1" * 100000 + "x")', 'wrong', 'test 1 of 2'),
    (STDIN, 'while True: print("1" * 1000)', 'wrong', 'bytes of output'),
    # an object that is no data is not the same as another of its type
    (
      {**CALLS, 'reference': 'def add(a, b): return iter([a, b])'},
      'def add(a, b): return iter([])',
      'wrong',
      'call 1',
    ),
    (
      {**CALLS, 'expected': [3, 7]},
      'def add(a, b): raise ValueError("\\ud800")',
      'wrong',
      '\\ud800',
    ),
    (
      {**CALLS, 'expected': [3, 7]},
      'import os\ndef add(a, b):\n  os.write(11, b\'{"ok": [\' + '
      'b"[]," * 400000 + b"3]}\\n")\n  return 3',
      'wrong',
      'bytes',
    ),
    ({**ASSERTS, 'limit_s': 1.0}, 'import time\ntime.sleep(99)', 'timeout', 'no end within 2 s'),
  ],
)
def test_verdicts(answer, program, told, reason):
  fenced = f'```python\n{program}\n```' if program.strip() else program
  said = verdict(answer, fenced)
  assert (said.verdict, said.reward) == (told, float(told == 'correct')), said
  assert reason in said.reason
  assert said.sandbox == code.sandbox().level


def test_what_the_template_began_belongs_to_the_completion():
  answer = {**CALLS, 'expected': [3, 7]}
  completion = f'{WHOLE}\n```\nIt adds.'
  assert verdict(answer, completion, prefix='Here:\n```python\n').verdict == 'correct'
  assert verdict(answer, completion).verdict == 'wrong'


def test_what_a_test_needs_of_the_program_stays_there():
  """Classes of the program, lists and trees of nodes, and a reference that a test calls by name."""
  nodes = {
    'kind': 'asserts',
    'entry_point': 'depth',
    'setup': 'class Node: pass\ndef depth(node): return 9',
    'names': {'Node': 'Node', 'depth': 'depth'},
    'test': 'a = Node(1)\na.left = Node(2)\nassert depth(a) == 2\nassert a.left.value == 2',
  }
  tree = (
    'class Node:\n  def __init__(self, value):\n    self.value, self.left = value, None\n'
    'def depth(node):\n  return 0 if node is None else 1 + depth(node.left)'
  )
  assert verdict(nodes, tree).verdict == 'correct'
  lists = code_rows.leetcode_answer(
    {
      'tests': {
        'functional': 'def check(candidate):\n'
        '  assert is_same_list(candidate(head=list_node([1, 2])), list_node([2, 1]))\n'
        '  assert candidate(head=list_node([])) is None\n\ncheck(Solution().reverse)'
      }
    }
  )
  reverse = (
    'class Solution:\n  def reverse(self, head: Optional[ListNode]) -> Optional[ListNode]:\n'
    '    last = None\n    while head:\n      head.next, last, head = last, head, head.next\n'
    '    return last'
  )
  assert verdict(lists, reverse).verdict == 'correct'
  assert verdict(lists, reverse.replace('return last', 'return head')).verdict == 'wrong'


def test_a_test_may_expect_an_exception_of_a_builtin_type():
  expects = {
    **ASSERTS,
    'test': 'def raises(kind, *args):\n  try:\n    candidate(*args)\n'
    '  except kind as error:\n    return str(error)\n  return None\n'
    'assert raises(ValueError, -1) == "below 0"\nassert raises(LookupError, 0) is not None\n'
    'assert raises(OSError, 1) is not None\nassert raises(UnicodeDecodeError, 2) is not None\n'
    'assert candidate(9) == 9',
  }
  program = """
class Odd(ValueError):
  pass
def add(x):
  if x < 0:
    raise Odd('below 0')
  if x == 0:
    return {}[x]
  if x == 1:
    return open('/etc/passwd')
  if x == 2:
    return b'\\xff'.decode()
  return x
"""
  assert verdict(expects, program).verdict == 'correct'
  for old, new in (
    ('Odd(', 'KeyError('),
    ('return {}[x]', 'raise StopIteration'),
    ("Odd('below 0')", "ExceptionGroup('below 0', [Odd()])"),
    ("return open('/etc/passwd')", 'return x'),
    ('return x\n', 'raise OSError\n'),
  ):
    said = verdict(expects, old.join(program.split(old)[:-1]) + new + program.split(old)[-1])
    assert said.verdict == 'wrong', (new, said)


def test_problems_of_a_jsonl_file_as_the_how_to_has_them(tmp_path):
  how_to = (pathlib.Path(__file__).parent.parent / 'docs' / 'how_to.md').read_text()
  lines = [line for line in how_to.splitlines() if line.startswith('{"id"') and '"kind"' in line]
  assert len(lines) == 3
  path = tmp_path / 'problems.jsonl'
  path.write_text('\n'.join(lines))
  reads = 'print(sum(map(int, input().split())))'
  for problem, program in zip(
    load_jsonl(path, task='t', verifier='code'), (WHOLE, reads, WHOLE), strict=True
  ):
    assert code.verify_code(problem, program).verdict == 'correct'


def test_a_reference_that_fails_or_a_broken_test_is_no_verdict_on_the_program():
  with pytest.raises(ValueError, match="the reference of 'add' fails at input 1 of 2"):
    verdict({**CALLS, 'reference': 'def add(a): pass'}, WHOLE)
  with pytest.raises(ValueError, match='the test cannot run: SyntaxError'):
    verdict({**ASSERTS, 'test': 'assert ('}, WHOLE)
  for nothing in (
    {**CALLS, 'inputs': [], 'expected': []},
    {**STDIN, 'inputs': [], 'outputs': []},
    {**STDIN, 'outputs': ['\n', '']},
    {**CALLS, 'expected': [None, None]},
    {**CALLS, 'reference': 'def add(a, b): print(a + b)'},
    {**ASSERTS, 'test': '\n'},
  ):
    with pytest.raises(ValueError, match='every program would pass'):
      verdict(nothing, WHOLE)
  with pytest.raises(ValueError, match='asks nothing of the program: every one would pass'):
    verdict({**ASSERTS, 'test': 'def check(f): assert f(1, 2) == 3'}, WHOLE)
  assert verdict({**ASSERTS, 'test': 'assert candidate == 3'}, 'add = 3').verdict == 'correct'
  with pytest.raises(ValueError, match='answer must be an object with kind = calls'):
    verdict('42', WHOLE)


def test_answers_from_rows():
  plus = code_rows.evalplus_answer(
    {
      'task_id': 'Mbpp/2', 'prompt': 'x', 'entry_point': 'f', 'canonical_solution': 'y',
      'base_input': [[[1, 2], [3]]], 'plus_input': {}, 'atol': 0,
    }
  )  # fmt: skip
  assert plus['inputs'] == [[{'t': [1, 2]}, {'t': [3]}]]
  assert plus['oracle'] == 'set'
  mbpp = code_rows.mbpp_answer(
    {
      'code': 'import sys\r\nclass P: pass\r\ndef sum(a, b): return a',
      'test_list': ['assert sum(P(), sys.maxsize) == 1'],
    }
  )
  assert mbpp['names'] == {'P': 'P', 'sum': 'sum'}
  assert mbpp['entry_point'] == 'sum'
  pairs = {'input_output': json.dumps({'inputs': ['1\n', ['2', '3']], 'outputs': ['4', '5']})}
  assert code_rows.stdin_answer(pairs)['inputs'] == ['1\n', '2\n3']
  with pytest.raises(ValueError, match='2 inputs need as many outputs'):
    code_rows.stdin_answer({'tests': {'inputs': ['1', '2'], 'outputs': ['1']}})
  with pytest.raises(ValueError, match='names no function'):
    code_rows.functional_answer({'tests': [{'input': '1', 'output': '1'}]})


def test_private_tests_of_livecodebench_are_text_and_nothing_else():
  import base64
  import os
  import pickle
  import zlib

  def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()

  row = {'public_test_cases': '[]', 'metadata': '{"func_name": "f"}'}
  tests = json.dumps([{'input': '1\n"a"', 'output': '[1]'}])
  answer = code_rows.functional_answer({**row, 'private_test_cases': packed(tests)})
  assert (answer['inputs'], answer['expected']) == ([[1, 'a']], [[1]])
  with pytest.raises(ValueError, match='a pickle that wants'):
    code_rows.functional_answer({**row, 'private_test_cases': packed(os.getcwd)})
