r"""The strict verifier against answers whose rightness is known from how they were made."""

import functools
import json
import os
import pathlib
import random
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks import math as strict
from rlvr_jax.tasks.extract import last_box
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from tests import math_variants

DATA = os.environ.get('RLVR_DATA_DIR', '')
needs_data = pytest.mark.skipif(not DATA, reason='RLVR_DATA_DIR (benchmark data) is not set')

# of our own making, one and more of each kind
GOLDS = (
  '36', '-9', '12,500', '1,\\!024', '0.375', '6.5e-3', '4.1e12', '\\frac{7}{12}', '-\\frac{9}{4}',
  '3\\frac{2}{5}', '5\\sqrt{7}', '\\sqrt{11}', '14\\pi', '35\\%', '\\$7.25', '65^\\circ',
  '48\\text{ square miles}', '\\text{(D)}', '\\text{B}', '\\text{Wednesday}', '\\mbox{north}',
  '2012_3', '5-6i', '4 \\pm \\sqrt{3}', '\\begin{pmatrix} 1 & -2 \\\\ 3/7 & 4 \\end{pmatrix}',
  '(-\\infty,2] \\cup (6,\\infty)', '[3,8)', '(-1, \\frac{5}{2}]', '(4,-7)', '(1, \\sqrt{2}, 0)',
  '2, 9, 17', '\\frac{1}{6}, -3', '(1,2), (5,3)', '3x - 2y = 11', 'y = x^2 - 5', 'f(x)=4x+1',
  'x^2 + 6x - 1', '\\frac{a+b}{2}', '$5,12$', '\\sin x + 2',
)  # fmt: skip


def problem(gold: str) -> Problem:
  return Problem(gold, 'made', 'q', gold)


def test_all_kinds_of_answers_are_among_the_golds():
  kinds = {found[0] for gold in GOLDS if (found := math_variants.kind_of(gold))}
  assert kinds == {kind for kind, _ in math_variants.KINDS}


@pytest.mark.parametrize('gold', GOLDS)
def test_right_variants_are_correct_and_wrong_ones_are_not(gold):
  number = GOLDS.index(gold)
  for name, answer in math_variants.right(gold):
    number += 1
    form, text = math_variants.completion(answer, number)
    verdict = strict.verify_math(problem(gold), text)
    assert verdict.verdict == 'correct', (name, form, answer, verdict)
  for name, answer in math_variants.wrong(gold):
    number += 1
    form, text = math_variants.completion(answer, number)
    verdict = strict.verify_math(problem(gold), text)
    assert verdict.verdict != 'correct', (name, form, answer, verdict)


# What other graders get wrong (docs/verifiers.md): (gold, answer, is it right).
DEFECTS = [
  # of the paper's grader
  ('100', '1', False),
  ('2.04', '204', False),
  ('75', '7500', False),
  ('65,960', '65961', False),
  ('24,-3', '24', False),
  ('9,-7', '9, 99', False),
  ('9,-7', '9,-7,17', False),
  ('7602_8', '7602_9', False),
  ('4,6,14,15', '461415', False),
  ('\\text{east}', '\\text{west}', False),
  ('\\mbox{Saturday}', '42', False),
  ('[0,1]', '(0,1)', False),
  ('(-\\infty,1)\\cup(3,\\infty)', '(-\\infty,1)\\cap(3,\\infty)', False),
  ('\\text{August}', '\\text{tsuguA}', False),
  ('\\text{cab}', '\\text{abc}', False),
  ('2\\frac14', '\\frac24', False),
  ('2\\frac14', '\\frac94', True),
  ('3,5,7', '7,5,3', True),
  ('1,2', '\\{2,1\\}', True),
  ('1 \\pm \\sqrt{19}', '1-\\sqrt{19}, 1+\\sqrt{19}', True),
  ('3e5', '3 x10^5', True),
  ('3e5', '3 \\times 10^5', True),
  ('x - 3z = 0', '3z - x = 0', True),
  ('y = 2x + 3', '2x + 3 = y', True),
  ('x+6', 'f(x) = x + 6', True),
  ('(3,-1)', '(x,y) = (3,-1)', True),
  ('9^\\circ', '9°', True),
  ('600\\pi', '600π', True),
  ('\\text{Friday}', '\\mathrm{Friday}', True),
  # of math-verify and the readers below it
  ('\\frac{1}{2^{99}}', '\\frac{1}{2^{98}}', False),
  ('43_5', '43_6', False),
  ('(-\\infty,5) \\cup (5,\\infty)', '(-\\infty,5) U (5,\\infty)', True),
  ('(-\\infty,-4) \\cup (-4,\\infty)', '(-\\infty,-4) \\text{ or } (-4,\\infty)', True),
  ('5.47e5', '5.47 \\times 10^{5}', True),
  ('75^\\circ', '75°', True),
  ('2i', '2\\cdot i', True),
  ('[6,\\infty)', '[6,\\infty]', False),
  ('\\frac13', '0.3333', False),
  ('5', 'a=b=5', False),
  ('10\\%', '10', True),
  ('18', '3(15)', False),
  ('45', '3(15)', True),
  ('18', '(3)(15)', False),
  ('18', '3 15', False),
  ('9', '2 3 4', False),
  ('3^{2007}', '3^{2007} + 1', False),
  ('3^{2007}', '3 \\cdot 3^{2006}', True),
  ('100!', '100! + 1', False),
  ('3^{2007} x', '3^{2007} x + x', False),
  ('5', '-2+7\\mathrm{i}', False),
  ('0', '1 - 1', True),
  # of MathRuler and prm800k
  ('\\frac12', '\\frac{3}{6}', True),
  ('6', '\\frac{12}{2}', True),
  ('2^{10}', '1024', True),
  ('8', '2^{3}', True),
  # of reasoning-gym, OlympiadBench's judge and MathVision
  ('100', '100.9', False),
  ('12345', '123', False),
  ('0.5', '50\\%', True),
  ('3', '3.9', False),
  ('1.25', '1.2504', False),
]


@pytest.mark.parametrize(('gold', 'answer', 'right'), DEFECTS)
def test_defects_of_other_graders(gold, answer, right):
  verdict = strict.verify_math(problem(gold), f'The answer is $\\boxed{{{answer}}}$.')
  assert (verdict.verdict == 'correct') == right, verdict


@pytest.mark.parametrize(
  ('gold', 'text', 'verdict'),
  [
    ('3', 'It is 3: $\\boxed{}$', 'unparsed'),  # math-verify takes any number of the text
    ('73', 'So it is **73**.', 'correct'),
    ('3', '$\\boxed{3}$ and then it is $\\boxed{3', 'unparsed'),
    ('5', '\\boxed{5} \\boxed{6}', 'wrong'),
    ('56', '\\boxed{5}\\boxed{6}', 'wrong'),
    ('1', 'x = 0 and then y = 1 - 1', 'correct'),  # the last number, whatever stands before it
    ('\\text{east}', 'I do not know.', 'unparsed'),
    ('5', 'The answer is 5 or 6.', 'wrong'),
    ('-3', 'The answer is \N{MINUS SIGN}3.', 'correct'),
    ('7', '最终答案是 7。', 'correct'),
    ('7', 'Question: no. assistant: user: The answer is \\boxed{7}', 'correct'),
  ],
)
def test_defects_in_where_the_answer_stands(gold, text, verdict):
  assert strict.verify_math(problem(gold), text).verdict == verdict


# An expression and its exact value: an oracle that shares nothing with the verifier.
NUMBERS = st.integers(-20, 20).map(lambda n: (str(n) if n >= 0 else f'({n})', Fraction(n)))


def combined(children):
  pair = st.tuples(children, children)
  power = st.tuples(children, st.integers(0, 3))
  return st.one_of(
    pair.map(lambda p: (f'({p[0][0]} + {p[1][0]})', p[0][1] + p[1][1])),
    pair.map(lambda p: (f'({p[0][0]} - {p[1][0]})', p[0][1] - p[1][1])),
    pair.map(lambda p: (f'{p[0][0]} \\cdot {p[1][0]}', p[0][1] * p[1][1])),
    pair.map(lambda p: (f'({p[0][0]})({p[1][0]})', p[0][1] * p[1][1])),
    pair.filter(lambda p: p[1][1] != 0).map(
      lambda p: (f'\\frac{{{p[0][0]}}}{{{p[1][0]}}}', p[0][1] / p[1][1])
    ),
    power.filter(lambda p: p[0][1] != 0).map(
      lambda p: (f'\\left({p[0][0]}\\right)^{{{p[1]}}}', p[0][1] ** p[1])
    ),
  )


EXPRESSIONS = st.recursive(NUMBERS, combined, max_leaves=5)


@settings(max_examples=120, deadline=None)
@given(EXPRESSIONS, st.sampled_from([0, 0, 1, -1, Fraction(1, 7), 100]))
def test_arithmetic_agrees_with_exact_fractions(expression, difference):
  text, value = expression
  gold = value + difference
  written = f'\\frac{{{gold.numerator}}}{{{gold.denominator}}}'
  verdict = strict.verify_math(problem(written), f'\\boxed{{{text}}}')
  assert (verdict.verdict == 'correct') == (difference == 0), verdict


def test_equal_questions_are_judged_once():
  strict._compare.cache_clear()
  texts = ['\\boxed{\\sqrt{72}}', 'So \\boxed{\\sqrt{72}}.', 'The answer is $\\sqrt{72}$.']
  verdicts = [strict.verify_math(problem('6\\sqrt{2}'), text) for text in texts]
  assert {v.verdict for v in verdicts} == {'correct'}
  assert strict._compare.cache_info().misses == 1
  unreadable = [strict.verify_math(problem('6'), '\\boxed{\\frac{{}') for _ in range(2)]
  assert unreadable[0] == unreadable[1]
  assert unreadable[0].verdict == 'unparsed'


FRAGMENTS = (
  '\\frac', '\\sqrt', '\\left(', '\\right)', '\\left[', '\\right]', '{', '}', '(', ')', '[', ']',
  '^', '_', '^{', '_{', '+', '-', '=', '\\cdot', '\\times', '\\pm', '\\int', '\\sum_{n=1}^{9}',
  '\\lim_{x \\to 0}', '\\log', '\\sin', '\\binom', '!', '!!', '|', '\\lfloor', '\\rfloor',
  '\\infty',
  '\\cup', '\\cap', '\\setminus', '\\in', '\\le', '<', '>', '\\begin{pmatrix}', '\\end{pmatrix}',
  '&', '\\\\', '\\text{', '\\mathrm{', '\\boxed{', '\\%', '%', '\\$', '$', '°', 'π', '∞', '½', '²',
  '√', '\N{MINUS SIGN}', '\u00d7', '\uff0c', '\\', ',', ';', '.', ' ', '\n', 'x', 'y', 'i', 'e',
  'f(x)', '0', '1', '2',
  '3', '9', '10^{10}', '99999', '0.5', 'and', 'or', 'answer is', '答案是', '<answer>', '\\approx',
  '\\overline{', '\\pi', '\\neq', '\\{', '\\}', 'million', ':', '/', '\u202e', '\U0001f600', '\x00',
)  # fmt: skip
STRINGS = st.one_of(
  st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=14).map(''.join),
  st.text(max_size=30).filter(lambda text: '7' not in text),
)
SHAPES = st.sampled_from(['\\boxed{%s}', '%s', 'The answer is %s', '$%s$', '<answer>%s</answer>'])
BUDGET = 20.0


def fuzz(pool: VerifierPool, texts: list[str]) -> None:
  """No string hangs or crashes the verifier, or equals a number that it cannot be."""
  golds = ('7919', '-7.919e27', '\\frac{7919}{7907}')
  jobs = [(problem(golds[i % 3]), text) for i, text in enumerate(texts)]
  for (asked, text), verdict in zip(jobs, pool.verify(jobs), strict=True):
    assert verdict.verdict in ('wrong', 'unparsed', 'timeout'), (asked.answer, text, verdict)


TEXTS = st.lists(
  st.tuples(SHAPES, STRINGS).map(lambda pair: pair[0].replace('%s', pair[1])),
  min_size=50,
  max_size=50,
)


@pytest.fixture(scope='module')
def pool():
  with VerifierPool(workers=1, limit_s=BUDGET) as pool:
    yield pool


def fuzzing(lists: int):
  return settings(
    max_examples=lists,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # a list of 50 strings shrinks slowly, and each try costs verdicts
    suppress_health_check=list(HealthCheck),
    database=None,
  )


@fuzzing(6)
@given(TEXTS)
def test_no_string_hangs_or_crashes_the_verifier_or_is_called_correct(pool, texts):
  fuzz(pool, texts)


@pytest.mark.check
@pytest.mark.timeout(3000)
@fuzzing(200)
@given(TEXTS)
def test_ten_thousand_strings(pool, texts):
  fuzz(pool, texts)


def rows_of(name: str) -> list[dict]:
  text = (pathlib.Path(DATA) / name).read_text()
  return [json.loads(line) for line in text.splitlines() if line.strip()]


@functools.cache
def real_golds() -> tuple[str, ...]:
  """The golds of all the benchmarks, each once."""
  golds = set()
  for name in ('math/test.jsonl', 'math500/test.jsonl', 'minerva_math/test.jsonl'):
    boxes = (last_box(row['solution']) for row in rows_of(name))
    golds |= {box.text for box in boxes if box and box.text}
  golds |= {row['final_answer'][0] for row in rows_of('olympiadbench/test.jsonl')}
  for name in ('aime24/test.jsonl', 'aime25/test.jsonl', 'amc23/test.jsonl'):
    golds |= {str(row['answer']) for row in rows_of(name)}
  golds |= {row['answer'].rpartition('####')[2].strip() for row in rows_of('gsm8k/test.jsonl')}
  return tuple(sorted(golds))


@needs_data
@pytest.mark.check
def test_every_gold_is_its_own_answer_and_junk_is_not(pool):
  golds = real_golds()
  jobs = [(problem(gold), f'\\boxed{{{gold}}}') for gold in golds]
  failed = [p.answer for (p, _), v in zip(jobs, pool.verify(jobs), strict=True)
            if v.verdict != 'correct']  # fmt: skip
  assert failed == []
  junk = [(problem(gold), text) for gold in golds for text in ('I do not know.', '\\boxed{}')]
  junk += [(problem(gold), '\\boxed{987654321}') for gold in golds]
  passed = [job for job, v in zip(junk, pool.verify(junk), strict=True) if v.verdict == 'correct']
  assert passed == []


@needs_data
@pytest.mark.check
@pytest.mark.timeout(3000)
def test_variants_of_real_golds(pool):
  """At least 3,000 wrong answers, none correct; thousands of right ones, 2% wrong at most."""
  by_kind: dict[str, list[str]] = {}
  for gold in real_golds():
    found = math_variants.kind_of(gold)
    by_kind.setdefault(found[0] if found else 'other', []).append(gold)
  jobs, made = [], []
  for kind, golds in sorted(by_kind.items()):
    for gold in random.Random(kind).sample(golds, min(len(golds), 80)):
      for right, variants in ((True, math_variants.right), (False, math_variants.wrong)):
        for name, answer in variants(gold):
          jobs.append((problem(gold), math_variants.completion(answer, len(jobs))[1]))
          made.append((right, name))
  verdicts = pool.verify(jobs)
  false_correct, false_wrong = [], []
  for (asked, text), (right, name), verdict in zip(jobs, made, verdicts, strict=True):
    if right != (verdict.verdict == 'correct'):
      case = name, asked.answer, text[-80:], verdict.verdict, verdict.reason
      (false_wrong if right else false_correct).append(case)
  rights = sum(right for right, _ in made)
  print(f'{rights} right, {len(made) - rights} wrong; called wrong: {len(false_wrong)}')
  print(*false_wrong, sep='\n')
  assert len(made) - rights >= 3000
  assert rights >= 3000
  assert false_correct == []
  assert len(false_wrong) <= 0.02 * rights, false_wrong


@needs_data
@pytest.mark.check
def test_cases_made_to_part_graders(pool):
  rows = rows_of('grader_cases.jsonl')
  jobs = [(Problem(str(row['id']), row['data_name'], 'q', row['gold']), row['prediction'])
          for row in rows]  # fmt: skip
  called = [verdict.verdict == 'correct' for verdict in pool.verify(jobs)]
  right = [mine for mine, row in zip(called, rows, strict=True) if row['expected'] is True]
  wrong = [mine for mine, row in zip(called, rows, strict=True) if row['expected'] is False]
  assert not any(wrong)
  assert sum(right) >= 0.98 * len(right)
