"""Problem answers for the verifier 'code' from the rows of code benchmarks.

Each function takes a row as its public file has it and gives a JSON value for Problem.answer; the
forms are described in code.py. Nothing here runs a program or reads a file. A row that lacks a
field or has one of another kind raises ValueError naming the field.
"""

import ast
import base64
import io
import json
import pickle
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

from rlvr_jax.tasks.sandbox import codec

Row = Mapping[str, Any]

# What LeetCode puts before every Python solution.
PRELUDE = """
import bisect, collections, copy, datetime, functools, heapq, itertools, json, math, operator
import random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from random import *
from string import *
from typing import *
from functools import cache, cmp_to_key, lru_cache, reduce
from math import inf
""".strip()

NODES = """
class ListNode:
  def __init__(self, val=0, next=None):
    self.val = val
    self.next = next

class TreeNode:
  def __init__(self, val=0, left=None, right=None):
    self.val = val
    self.left = left
    self.right = right
""".strip()

# list_node([1, 2]) is a linked list, tree_node([1, None, 2]) a tree in level order.
_NODE_TESTS = """
def list_node(values):
  head = None
  for value in reversed(values):
    head = ListNode(value, head)
  return head

def tree_node(values):
  if not values:
    return None
  nodes = [None if value is None else TreeNode(value) for value in values]
  children = nodes[:0:-1]
  for node in nodes:
    if node is not None and children:
      node.left = children.pop()
      if children:
        node.right = children.pop()
  return nodes[0]

def is_same_list(a, b):
  while a is not None and b is not None and a.val == b.val:
    a, b = a.next, b.next
  return a is None and b is None

def is_same_tree(a, b):
  pairs = [(a, b)]
  while pairs:
    a, b = pairs.pop()
    if a is None and b is None:
      continue
    if a is None or b is None or a.val != b.val:
      return False
    pairs += [(a.left, b.left), (a.right, b.right)]
  return True
""".strip()

# How MBPP+ inputs differ from JSON, by task: a code for every argument, '*' one for all of them.
# t: a tuple; lt: a list of tuples; tt: a tuple of tuples; deep: tuples all the way down; ls: a list
# of sets ({} where empty); dt: a dict of tuples; c: complex; f: float; .: as it is.
_MBPP_TYPES: dict[str, tuple[int, ...]] = {
  '*t': (
    2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726,
    740, 744, 809,
  ),
  '*lt': (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
  'lt .': (75, 413, 444, 753),
  '. t': (106, 750),
  'ls': (115,),
  'f c': (124,),
  't .': (250, 405, 446, 617, 720, 763, 808),
  '*tt': (259, 401, 445, 278),
  't . .': (307,),
  'dt .': (722,),
  'c': (252,),
  '*deep': (580, 615, 791),
}  # fmt: skip

# Where EvalPlus does not compare outputs with == (code_compare.py has the rules). Of its rules two
# are not kept, Mbpp/164 (any output) and 295 (0 is always right): they would call wrong programs
# correct. Neither task is in MBPP+ 0.2.0.
_ORACLES = {
  'HumanEval/32': 'find_zero',
  'Mbpp/558': 'digit_distance',
  'Mbpp/581': 'surface_area',
  **dict.fromkeys((f'Mbpp/{n}' for n in (2, 7, 111, 140, 232, 249, 579, 769)), 'set'),
}
_NOT_NONE = ('check_str', 'text_match_three', 'text_starta_endb')


def humaneval_answer(row: Row) -> dict[str, Any]:
  """HumanEval: prompt, entry_point, canonical_solution, test (check(candidate))."""
  prompt, entry = _text(row, 'prompt'), _text(row, 'entry_point')
  return {
    'kind': 'asserts',
    'entry_point': entry,
    'prompt': prompt,
    'setup': prompt + _text(row, 'canonical_solution'),
    'names': {'candidate': entry},
    'test': _text(row, 'test') + '\n\ncheck(candidate)\n',
  }


def mbpp_answer(row: Row) -> dict[str, Any]:
  """MBPP: code (the reference), test_setup_code, test_list.

  The names of the program that the tests may use are those which the reference defines.
  """
  reference = _text(row, 'code').replace('\r\n', '\n')
  setup = str(row.get('test_setup_code') or '').replace('\r\n', '\n')
  tests = row.get('test_list')
  if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in tests):
    raise ValueError(f'test_list={tests!r} must be a list of assert statements')
  test = setup + '\n' + '\n'.join(tests)
  used = {node.id for node in ast.walk(_parse(test)) if isinstance(node, ast.Name)}
  names = [name for name in _defined(reference) if name in used]
  if not names:
    raise ValueError(f'test_list={tests!r} uses no function that `code` defines')
  return {
    'kind': 'asserts',
    'entry_point': _called(tests[0], names),
    'setup': reference,
    'names': {name: name for name in names},
    'test': test,
  }


def evalplus_answer(row: Row) -> dict[str, Any]:
  """HumanEval+ or MBPP+ with inputs (the files that are not OriginFmt).

  Fields: task_id, prompt, entry_point, canonical_solution, base_input, plus_input, atol. The
  expected outputs are those of the canonical solution; the verifier computes and keeps them.
  """
  task, prompt, entry = _text(row, 'task_id'), _text(row, 'prompt'), _text(row, 'entry_point')
  mbpp = task.startswith('Mbpp')
  inputs = []
  for field in ('base_input', 'plus_input'):
    given = row.get(field)
    # an empty object stands for an empty list in a few rows
    if not isinstance(given, list) and given != {}:
      raise ValueError(f'{field}={str(given)[:60]!r} must be a list of argument lists')
    inputs += list(given)
  if mbpp:
    inputs = _typed(int(task.rpartition('/')[2]), inputs)
  solution = _text(row, 'canonical_solution')
  answer = {
    'kind': 'calls',
    'entry_point': entry,
    'inputs': [[codec.encode(value) for value in arguments] for arguments in inputs],
    'reference': solution if mbpp else prompt + solution,
    'atol': float(row.get('atol') or 0),
  }
  if not mbpp:
    answer['prompt'] = prompt
  oracle = 'not_none' if mbpp and entry in _NOT_NONE else _ORACLES.get(task)
  return answer | ({'oracle': oracle} if oracle else {})


def stdin_answer(row: Row) -> dict[str, Any]:
  """Programs that read stdin: code_contests, codeforces, TACO/APPS and LiveCodeBench rows.

  The tests are {'inputs': [...], 'outputs': [...]} or [{'input', 'output'}, ...], as a value or
  as JSON text, in the field `tests`, `input_output` or LiveCodeBench's *_test_cases.
  """
  pairs = [(_joined(test['input']), _joined(test['output'])) for test in _tests(row)]
  if not pairs:
    raise ValueError('tests: the row has none')
  return {'kind': 'stdin', 'inputs': [i for i, _ in pairs], 'outputs': [o for _, o in pairs]}


def functional_answer(row: Row) -> dict[str, Any]:
  """Calls of a function, or of a method of class Solution: LiveCodeBench and APPS/TACO rows.

  The name is that of metadata.func_name, fn_name or entry_point; LiveCodeBench's inputs hold one
  JSON value a line, an argument each.
  """
  metadata = _json(row.get('metadata') or {}, 'metadata')
  holder = _json(row.get('tests') or row.get('input_output') or {}, 'tests')
  name = metadata.get('func_name') or row.get('entry_point')
  if not name and isinstance(holder, dict):
    name = holder.get('fn_name')
  if not isinstance(name, str) or not name:
    raise ValueError('entry_point: the row names no function (metadata.func_name, fn_name)')
  inputs, expected = [], []
  for test in _tests(row):
    inputs.append(_arguments(test['input']))
    value = test['output']
    if isinstance(value, str) and 'func_name' in metadata:
      value = json.loads(value)
    expected.append(value)
  if not inputs:
    raise ValueError('tests: the row has none')
  return {
    'kind': 'calls',
    'entry_point': name,
    'method_of': 'Solution',
    'prelude': PRELUDE + '\n' + NODES,
    'inputs': [[codec.encode(value) for value in arguments] for arguments in inputs],
    'expected': [codec.encode(value) for value in expected],
    'tuples_as_lists': True,
  }


def leetcode_answer(row: Row) -> dict[str, Any]:
  """LeetCodeDataset: tests.functional, `def check(candidate): ...` and the call of it."""
  tests = _json(row.get('tests'), 'tests')
  if not isinstance(tests, dict) or not isinstance(tests.get('functional'), str):
    raise ValueError(f'tests={str(tests)[:60]!r} must be an object with `functional`')
  return {
    'kind': 'asserts',
    'entry_point': 'Solution',
    'prelude': PRELUDE + '\n' + NODES,
    'setup': PRELUDE + '\n' + NODES + '\n' + _NODE_TESTS,
    'names': {'Solution': 'Solution'},
    'test': tests['functional'],
  }


def _text(row: Row, field: str) -> str:
  value = row.get(field)
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f'{field}={value!r} must be text; the row has {", ".join(row)}')
  return value


def _json(value: Any, field: str) -> Any:
  if not isinstance(value, str):
    return value
  try:
    return json.loads(value)
  except ValueError as error:
    raise ValueError(f'{field}={value[:60]!r} is not JSON ({error})') from error


def _parse(source: str) -> ast.Module:
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of escapes in a data set's own code
    return ast.parse(source)


def _defined(source: str) -> list[str]:
  """Functions, classes and variables that a program defines at its top level, imports left out."""
  names = []
  for node in _parse(source).body:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
      names.append(node.name)
    elif isinstance(node, ast.Assign):
      names += [target.id for target in node.targets if isinstance(target, ast.Name)]
  return list(dict.fromkeys(names))


def _called(test: str, names: list[str]) -> str:
  """The outermost called name among names, else the last of them."""
  for node in ast.walk(_parse(test)):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
      return node.func.id
  return names[-1]


def _typed(task: int, inputs: list[list[Any]]) -> list[list[Any]]:
  kinds = next((kinds for kinds, tasks in _MBPP_TYPES.items() if task in tasks), '')
  if not kinds:
    return inputs
  if kinds.startswith('*'):
    return [[_convert(kinds[1:], value) for value in arguments] for arguments in inputs]
  codes = kinds.split()
  return [
    [
      *(_convert(code, value) for code, value in zip(codes, arguments, strict=False)),
      *arguments[len(codes) :],
    ]
    for arguments in inputs
  ]


def _convert(code: str, value: Any) -> Any:
  if code == 'f':
    return float(value)
  if code == 'c':
    return complex(value)
  if code == 'dt':
    return {key: _convert('t', item) for key, item in value.items()}
  if not isinstance(value, list) or code == '.':
    return value
  if code == 'deep':
    return tuple(_convert('deep', item) for item in value)
  if code == 'ls':
    return [set(item) if item else {} for item in value]
  items = [_convert(code[1:], item) for item in value] if len(code) > 1 else value
  return tuple(items) if code[0] == 't' else items


def _tests(row: Row) -> list[dict[str, Any]]:
  """The row's tests as {'input', 'output'}."""
  if 'public_test_cases' in row:
    public = _json(row['public_test_cases'], 'public_test_cases')
    return [*public, *_private(row.get('private_test_cases') or '[]')]
  tests = _json(row.get('tests') or row.get('input_output'), 'tests')
  if isinstance(tests, dict) and isinstance(tests.get('inputs'), list):
    inputs, outputs = tests['inputs'], tests.get('outputs')
    if not isinstance(outputs, list) or len(inputs) != len(outputs):
      raise ValueError(f'tests: {len(inputs)} inputs need as many outputs')
    return [{'input': i, 'output': o} for i, o in zip(inputs, outputs, strict=True)]
  if isinstance(tests, list) and all(
    isinstance(t, dict) and {'input', 'output'} <= set(t) for t in tests
  ):
    return tests
  raise ValueError(f'tests={str(tests)[:60]!r} must be inputs and outputs, or a list of pairs')


class _TextOnly(pickle.Unpickler):
  """A pickle of text and nothing else: LiveCodeBench packs its private tests so."""

  def find_class(self, module_name: str, global_name: str) -> Any:
    raise ValueError(f'private_test_cases: a pickle that wants {module_name}.{global_name}')


def _private(value: Any) -> list[dict[str, Any]]:
  if not isinstance(value, str):
    return value
  try:
    return json.loads(value)
  except ValueError:
    packed = zlib.decompress(base64.b64decode(value))
    return json.loads(_TextOnly(io.BytesIO(packed)).load())


def _joined(value: Any) -> str:
  """The text of a test; a list is its lines."""
  return '\n'.join(map(str, value)) if isinstance(value, list) else str(value)


def _arguments(value: Any) -> list[Any]:
  if isinstance(value, str):
    return [json.loads(line) for line in value.split('\n') if line.strip()]
  if not isinstance(value, list):
    raise ValueError(f'tests: the input {str(value)[:60]!r} must be a list of arguments')
  return value
