"""Countdown: the verifier accepts exactly the enumerated completions, and the sets are disjoint."""

import ast
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.tasks.countdown import ALPHABET, corpus, expressions, make_problems, solutions, verify
from rlvr_jax.tasks.problem import Problem, check_unique

PROBLEMS = make_problems(40, seed=3)


def problem(numbers, target):
  return Problem('x', 'countdown', 'x', {'numbers': list(numbers), 'target': target})


def by_python(text, numbers, target):
  """Python's own reading: a product, sum or difference of the three numbers, each used once."""
  try:
    tree = ast.parse(text, mode='eval')
  except (SyntaxError, ValueError):
    return False
  leaves = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
  nodes = (ast.Expression, ast.BinOp, ast.Constant, ast.Add, ast.Sub, ast.Mult)
  if not all(isinstance(n, nodes) for n in ast.walk(tree)):
    return False
  if any(type(x) is not int for x in leaves) or sorted(leaves) != sorted(numbers):
    return False
  return eval(compile(tree, 'completion', 'eval')) == target  # arithmetic only, checked above


def canonical(text):
  """No blanks, and nothing but the three forms; at most one pair of parentheses, inside."""
  n, o = '[0-9]+', '[-+*]'
  return re.fullmatch(rf'{n}{o}{n}{o}{n}|\({n}{o}{n}\){o}{n}|{n}{o}\({n}{o}{n}\)', text)


def test_exactly_the_enumerated_solutions_of_every_string_of_the_grammar():
  """All strings of the three forms over the digits present, right numbers or not."""
  digits = '123'
  every = set()
  for a, b, c in itertools.product(digits, repeat=3):
    for f, g in itertools.product('+-*', repeat=2):
      every |= {f'{a}{f}{b}{g}{c}', f'({a}{f}{b}){g}{c}', f'{a}{f}({b}{g}{c})'}
  assert len(every) == 27 * 27
  for target in range(-9, 28):
    one = problem((1, 2, 3), target)
    accepted = {text for text in every if verify(one, text).verdict == 'correct'}
    assert accepted == set(solutions(one))
    assert accepted == {t for t in every if by_python(t, (1, 2, 3), target)}


@pytest.mark.parametrize('one', PROBLEMS[:12], ids=lambda p: p.id)
def test_values_are_pythons(one):
  numbers, target = one.answer['numbers'], one.answer['target']
  texts = list(expressions(tuple(numbers)))
  assert len({text for text, _ in texts}) == len(texts)
  for text, value in texts:
    assert by_python(text, numbers, value)
    assert canonical(text)
    verdict = verify(one, text)
    assert verdict.verdict == ('correct' if value == target else 'wrong')
    assert verdict.reward == (value == target)
  found = solutions(one)
  assert found
  assert set(found) == {text for text, value in texts if value == target}
  assert set('(' + ''.join(found)) <= set(ALPHABET)


@given(st.text(alphabet=ALPHABET + ' \n٣²x/', max_size=14), st.integers(0, len(PROBLEMS) - 1))
def test_junk_is_never_correct(text, index):
  one = PROBLEMS[index]
  assert (verify(one, text).verdict == 'correct') == (text in solutions(one))


@given(st.integers(0, len(PROBLEMS) - 1), st.data())
def test_one_edit_of_a_solution_is_correct_only_if_it_is_another(index, data):
  """Near misses: a character put in, taken out or changed."""
  one = PROBLEMS[index]
  text = data.draw(st.sampled_from(solutions(one)))
  at = data.draw(st.integers(0, len(text)))
  new = data.draw(st.sampled_from([*ALPHABET, '', ' ', '\n', '٣']))
  edited = text[:at] + new + text[at + data.draw(st.integers(0, 1)) :]
  verdict = verify(one, edited).verdict
  assert (verdict == 'correct') == (edited in solutions(one))
  if verdict == 'correct':
    assert by_python(edited, one.answer['numbers'], one.answer['target'])


@pytest.mark.parametrize(
  ('text', 'verdict'),
  [
    ('2*3+4', 'correct'),
    ('(2*3)+4', 'correct'),
    ('4+(2*3)', 'correct'),
    ('2*3+4 ', 'unparsed'),
    ('2*3+4\n', 'unparsed'),
    ('+2*3+4', 'unparsed'),
    ('((2*3)+4)', 'unparsed'),
    ('(2*3+4)', 'unparsed'),
    ('2*03+4', 'unparsed'),
    ('\uff12*3+4', 'unparsed'),
    ('2*٣+4', 'unparsed'),
    ('2*3+4=10', 'unparsed'),
    ('', 'unparsed'),
    ('2*3-4', 'wrong'),
    ('2*3+3', 'wrong'),
    ('2*5+0', 'wrong'),
    ('9' * 6000 + '*3+4', 'wrong'),
  ],
)
def test_what_counts_as_an_answer(text, verdict):
  assert verify(problem((2, 3, 4), 10), text).verdict == verdict


def test_an_unsolvable_target_has_no_solutions():
  assert solutions(problem((1, 1, 1), 99)) == ()


def test_problems_are_a_function_of_the_seed_and_splits_are_disjoint():
  whole = make_problems(300, seed=5)
  assert make_problems(300, seed=5) == whole
  assert make_problems(100, seed=5) == whole[:100]
  assert make_problems(120, seed=5, skip=180) == whole[180:]
  assert make_problems(100, seed=6) != whole[:100]
  assert not {p.id for p in whole[:180]} & {p.id for p in make_problems(120, seed=5, skip=180)}
  check_unique(whole)


def test_problems_are_what_they_say():
  for one in make_problems(200, seed=7, largest=9, target=50):
    numbers, target = one.answer['numbers'], one.answer['target']
    assert one.prompt == f'{",".join(map(str, numbers))}={target}:'
    assert numbers == sorted(numbers)
    assert 1 <= numbers[0] <= numbers[-1] <= 9
    assert 1 <= target <= 50
    assert solutions(one)
    assert set(one.prompt) <= set(ALPHABET)


def test_more_problems_than_there_are():
  with pytest.raises(ValueError, match=r'task.params: 500 problems .* raise largest'):
    make_problems(500, seed=0, largest=2, target=5)


@pytest.mark.parametrize('noise', [0.0, 0.5, 1.0])
def test_corpus_is_answers_and_the_asked_share_of_any_expression(noise):
  problems = make_problems(400, seed=2)
  pairs = corpus(problems, seed=1, noise=noise)
  assert pairs == corpus(problems, seed=1, noise=noise)
  assert [prompt for prompt, _ in pairs] == [p.prompt for p in problems]
  names = [verify(p, text).verdict for p, (_, text) in zip(problems, pairs, strict=True)]
  assert set(names) <= {'correct', 'wrong'}
  misses = names.count('wrong') / len(names)
  assert (misses == 0) if noise == 0 else (0.6 * noise < misses < noise)


@pytest.mark.parametrize('text', ['__import__("os")', '1;2', '2**3+4', '2*3+4#', '2*3//4'])
def test_code_is_not_an_answer(text):
  assert verify(problem((2, 3, 4), 10), text).verdict == 'unparsed'
