r"""The verifier `paper` says what the paper's grader says, faults included, and by which rule."""

import json
import os
import pathlib

import pytest

from rlvr_jax.tasks.paper_extract import paper_answer, rewrite
from rlvr_jax.tasks.paper_grade import verify_paper
from rlvr_jax.tasks.problem import Problem

DATA = os.environ.get('RLVR_DATA_DIR', '')


def judge(gold: str, completion: str, task: str = 'math500'):
  return verify_paper(Problem('1', task, 'q', gold), completion)


@pytest.mark.parametrize(
  ('completion', 'answer'),
  [
    ('so \\boxed{3} and \\boxed{\\frac12}.', '\\frac{1}{2}'),
    ('so $\\boxed 19$ it is', '19'),
    ('so \\boxed{17', '17'),  # never closed: up to the end
    ('final answer is $x+1$. I hope it is correct. \\boxed{3}', 'x+1'),
    ('The answer is 18 dollars.', '18dollars'),
    ('The final answer is: 5/8.', '\\frac{5}{8}'),
    ('答案是 12\n\n好', '12'),
    ('we get 1,234 and 56.5', '56.5'),
    ('I do not know.', ''),
  ],
)
def test_where_it_looks(completion, answer):
  assert paper_answer(completion) == answer


@pytest.mark.parametrize(
  ('text', 'rewritten'),
  [
    ('\\dfrac{3}{4}', '\\frac{3}{4}'),
    ('x = 5', '5'),
    ('12 \\text{ apples}', '12'),
    ('12 inches', '12'),
    ('\\text{east}', ''),  # a unit, so nothing is left
    ('\\mbox{Saturday}', ''),
    ('30^\\circ', '30'),
    ('45\\%', '45'),
    ('three', '3'),
    ('two hundred five', '205'),
    ('7.0', '7'),
    ('.5', '0.5'),
    ('\\sqrt3', '\\sqrt{3}'),
    ('\\left\\{1, 2\\right\\}', '{1,2}'),
    ('3 and 4', '34'),
    ('\\begin{bmatrix} 1 \\\\ 2 \\end{bmatrix}', '\\begin{pmatrix}1\\\\2\\end{pmatrix}'),
    ('2+3j', '2+3i'),
  ],
)
def test_how_it_rewrites(text, rewritten):
  assert rewrite(text) == rewritten


@pytest.mark.parametrize(
  ('gold', 'answer', 'rule'),
  [
    ('x+1', 'x+1', 'same text'),
    ('100', '1', 'a hundredth'),
    ('2.04', '204', 'a hundredfold'),
    ('65,960', '65961', 'number'),
    ('4,6,14,15', '461415', 'number'),
    ('24,-3', '24', 'symbolic'),
    ('9,-7', '9, 99', 'symbolic'),
    ('7602_8', '7602_9', 'number'),
    ('[0,1]', '[0,1)', 'item by item'),
    ('(-\\infty,5) \\cup (5,\\infty)', '(-\\infty,5) \\cap (5,\\infty)', 'item by item'),
    ('2\\frac14', '\\frac24', 'symbolic'),
    ('\\text{August}', '\\text{tsuguA}', 'symbolic'),
    ('\\text{east}', 'I do not know', 'the gold is empty'),
    ('C', 'the option (C)', 'same text'),
    ('\\frac{1}{3}', '0.33333', 'symbolic'),
    ('3\\sqrt{2}', '\\sqrt{18}', 'symbolic'),
    ('(1,2)', '[1,2]', 'item by item'),
    ('10a - 4b = 20', '-10a + 4b = -20', 'equation'),
    ('\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}', '\\begin{pmatrix} 1 \\\\ 2.00001 \\end{pmatrix}',
     'cell by cell'),
  ],
)  # fmt: skip
def test_what_it_calls_equal_and_by_which_rule(gold, answer, rule):
  verdict = judge(gold, f'\\boxed{{{answer}}}')
  assert (verdict.verdict, verdict.reason) == ('correct', rule)


@pytest.mark.parametrize(
  ('gold', 'answer'),
  [
    ('3,5,7', '7,5,3'),
    ('1 \\pm \\sqrt{2}', '1+\\sqrt{2}, 1-\\sqrt{2}'),
    ('y = 2x + 3', '2x + 3 = y'),
    ('x+6', 'f(x) = x + 6'),
    ('9^\\circ', '9°'),
    ('600\\pi', '600π'),
    ('\\text{Friday}', '\\mathrm{Friday}'),
    ('2\\frac14', '\\frac94'),
    ('11050', '11{,}050'),
    ('5', '6'),
    ('3\\sqrt{2}', '2\\sqrt{3}'),
  ],
)
def test_what_it_calls_different(gold, answer):
  assert judge(gold, f'\\boxed{{{answer}}}').verdict == 'wrong'


def test_minerva_keeps_units_and_its_golds_as_they_are():
  text = '\\boxed{2.75 \\times 10^{11} \\text{ m}}'
  assert judge('2.75e11', text, 'minerva_math').verdict == 'wrong'
  assert judge('2.75e11', '\\boxed{2.75e11}', 'minerva_math').verdict == 'correct'
  assert paper_answer('\\boxed{5 km}', keep_units=True) == '5km'
  assert paper_answer('\\boxed{5 km}') == '5'


def test_no_answer_and_a_gold_that_is_no_text():
  assert judge('7', 'I do not know.').verdict == 'unparsed'
  with pytest.raises(ValueError, match=r"is not a text, which the verifier 'paper' needs"):
    verify_paper(Problem('1', 't', 'q', 7), '7')


@pytest.mark.parametrize(
  'text', ["__import__('os')", '().__class__', 'open', 'exec', 'x.__class__', 'lambda: 1', '[1][0]']
)
def test_nothing_in_an_answer_is_run(text):
  """The released grader hands model output to a reader that evaluates it."""
  verdict = judge('7', f'\\boxed{{{text}}}')
  assert verdict.verdict == 'wrong'


@pytest.mark.check
@pytest.mark.skipif(not DATA, reason='RLVR_DATA_DIR (benchmark data) is not set')
def test_it_agrees_with_the_released_grader():
  lines = (pathlib.Path(DATA) / 'grader_cases.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  same = [
    (judge(row['gold'], row['prediction'], row['data_name']).verdict == 'correct') == row['paper']
    for row in rows
  ]
  assert sum(same) >= 0.95 * len(rows)
