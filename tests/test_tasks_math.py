"""The strict verifier: what is right is right in any notation, what is not is not."""

import json
import pathlib
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks.math import verify_math
from rlvr_jax.tasks.normal import normalise, plain_number, significant_digits
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.symbolic import same_expression

CASES = [
  json.loads(line)
  for line in (pathlib.Path(__file__).parent / 'fixtures' / 'tasks' / 'math_cases.jsonl')
  .read_text()
  .splitlines()
]


def judge(gold, completion):
  return verify_math(Problem('1', 'test', 'q', gold), completion)


@pytest.mark.parametrize('case', CASES, ids=lambda c: f'{c["gold"]}<-{c["completion"][:40]}')
def test_table(case):
  verdict = judge(case['gold'], case['completion'])
  assert verdict.verdict == case['verdict'], verdict
  assert verdict.reward == float(case['verdict'] == 'correct')


@pytest.mark.parametrize('gold', sorted({case['gold'] for case in CASES}))
def test_a_gold_is_its_own_answer_and_junk_is_not(gold):
  assert judge(gold, f'Thus $\\boxed{{{gold}}}$.').verdict == 'correct'
  for junk in ('I do not know.', '\\boxed{}', '\\boxed{\\text{none}}', '\\boxed{123456789}', '?'):
    assert judge(gold, junk).verdict != 'correct'


@pytest.mark.parametrize('gold', ['', '  ', '$$', None, 7, ['7']])
def test_a_gold_that_anything_would_equal_is_refused(gold):
  with pytest.raises(ValueError, match=r'test/1: the gold answer .* is not a non-empty text'):
    judge(gold, '7')


def test_a_run_away_answer_is_not_computed():
  assert judge('7', f'\\boxed{{{"1+" * 2000}1}}').reason == 'the answer is too long'


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(-3, 3))
def test_integers_are_exact(value, difference):
  verdict = judge(str(value), f'\\boxed{{{value + difference:,}}}')
  assert (verdict.verdict == 'correct') == (difference == 0)


FORMS = (
  lambda n, d: f'\\frac{{{n}}}{{{d}}}',
  lambda n, d: f'{n}/{d}',
  lambda n, d: f'\\dfrac{{{3 * n}}}{{{3 * d}}}',
  lambda n, d: f'{"-" if n < 0 else ""}{abs(n) // d}\\frac{{{abs(n) % d}}}{{{d}}}',
)


@settings(max_examples=200, deadline=None)
@given(
  st.integers(-999, 999),
  st.integers(1, 99),
  st.sampled_from(FORMS),
  st.sampled_from(FORMS),
  st.integers(-1, 1),
)
def test_fractions_agree_with_exact_arithmetic_in_every_form(n, d, one, other, difference):
  # The last form of 0 < |x| < 1 is 0\frac{n}{d}, which is a mixed number all the same.
  verdict = judge(one(n, d), f'\\boxed{{{other(n + difference, d)}}}')
  assert (verdict.verdict == 'correct') == (difference == 0)


@settings(max_examples=200)
@given(st.decimals(-(10**6), 10**6, places=4), st.integers(-30, 30))
def test_scientific_notation_is_exact(mantissa, exponent):
  value = Fraction(mantissa) * Fraction(10) ** exponent
  for form in (f'{mantissa}e{exponent}', f'{mantissa} \\times 10^{{{exponent}}}'):
    assert plain_number(normalise(form)) == value


@pytest.mark.parametrize(
  ('text', 'digits'),
  [('12', 0), ('0.050', 2), ('1,234.50', 6), ('4.50e33', 3), ('2 \\times 10^{5}', 1), ('1/3', 0)],
)
def test_significant_digits(text, digits):
  assert significant_digits(text) == digits


def test_hostile_expressions_cost_one_verdict_each():
  texts = ['7', '9^{9^{9^9}}', '(' * 300 + '7' + ')' * 300, '\\sqrt{49}', '10^{10^{10}} + x', '8']
  with VerifierPool(workers=1, limit_s=2.0) as pool:
    verdicts = pool.verify([(Problem('1', 't', 'q', '7'), f'\\boxed{{{t}}}') for t in texts])
  names = [verdict.verdict for verdict in verdicts]
  assert names == ['correct', 'timeout', 'unparsed', 'correct', 'wrong', 'wrong']
  direct = verify_math(Problem('1', 't', 'q', '7'), '\\boxed{\\sqrt{49}}')
  assert verdicts[3] == direct


# An oracle of another kind: pairs whose equality is known from how they were made.
IDENTITIES = [
  ('\\sin^2 x + \\cos^2 x', '1', True),
  ('\\frac{x^2-1}{x-1}', 'x+1', True),
  ('\\ln(a b)', '\\ln a + \\ln b', True),
  ('\\sqrt{x^2}', 'x', True),
  ('\\binom{6}{2}', '15', True),
  ('e^{i\\pi}', '-1', True),
  ('\\frac{\\sqrt{6}+\\sqrt{2}}{4}', '\\cos\\left(\\frac{\\pi}{12}\\right)', True),
  ('x^2', 'x^3', False),
  ('a b', 'a + b', False),
  ('\\sqrt{2}', '1.41', False),
  ('10^{-30}', '2 \\cdot 10^{-30}', False),
]


@pytest.mark.parametrize(('first', 'second', 'same'), IDENTITIES)
def test_expressions_are_compared_by_value(first, second, same):
  assert same_expression(first, second) == same
  assert same_expression(second, first) == same
