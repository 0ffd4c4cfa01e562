"""Right programs in odd but legal styles are called correct."""

import sys

import pytest

from rlvr_jax.tasks import code
from rlvr_jax.tasks.problem import Problem
from tests.legal_functions import FUNCTION
from tests.legal_programs import STDIN

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='Linux only')
COMMON = {'entry_point': 'f', 'limit_s': 10.0}
ANSWERS = {
  'stdin': {**COMMON, 'kind': 'stdin', 'inputs': ['3 4\n5 6\n'], 'outputs': ['7\n11\n']},
  'calls': {
    **COMMON, 'kind': 'calls', 'inputs': [[3, 4], [5, 6]], 'expected': [[7, 12], [11, 30]]
  },
  'asserts': {
    **COMMON,
    'kind': 'asserts',
    'setup': '',
    'names': {'candidate': 'f'},
    'test': 'assert candidate(3, 4) == [7, 12]\nassert candidate(5, 6) == [11, 30]',
  },
}  # fmt: skip
PROGRAMS = [('stdin', name) for name in STDIN]
PROGRAMS += [(kind, name) for kind in ('calls', 'asserts') for name in FUNCTION]


@pytest.fixture(scope='module', autouse=True)
def sandbox():
  yield
  code.sandbox().close()
  code.sandbox.cache_clear()


@pytest.mark.parametrize(('kind', 'name'), PROGRAMS)
def test_a_right_program_of_odd_style_is_correct(kind, name):
  text = (STDIN if kind == 'stdin' else FUNCTION)[name]
  problem = Problem('1', 'legal', 'q', ANSWERS[kind], {'verifier': 'code'})
  verdict = code.verify_code(problem, f'Here it is.\n```python\n{text}\n```\nIt works.')
  assert verdict.verdict == 'correct', verdict.reason
