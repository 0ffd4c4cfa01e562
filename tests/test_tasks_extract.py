r"""Where the answer stands: the last box first, nothing behind an unreadable one."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.tasks.extract import extract_answer, last_box

TABLE = [
  ('so \\boxed{\\frac{1}{2}}.', '\\frac{1}{2}'),
  ('\\boxed{\\{1, 2\\}}', '\\{1, 2\\}'),
  ('\\fbox{19} it is', '19'),
  ('$\\boxed 19$.', '19'),
  ('\\boxed{1} and then \\boxed{2}', '2'),
  ('$\\boxed{8}$ and $\\boxed{-112}$', '8, -112'),
  ('\\boxed{8}, \\boxed{9}, \\boxed{10}', '8, 9, 10'),
  ('\\boxed{3}\n\\boxed{3}', '3'),
  ('The answer is \\boxed{3}. There are 12 more.', '3'),
  ('<answer> -49 </answer>', '-49'),
  ('<answer>1</answer> no <answer>It is \\boxed{2}</answer>', '2'),
  ('<think>\\boxed{1}</think> so 2', '2'),
  ('<think>\\boxed{1}</think>', '1'),
  ('a\n#### 1,000\n', '1,000'),
  ('#### 5\n#### 6', '6'),
  ('The answer is 3.', '3'),
  ('The answer is 3.5.', '3.5'),
  ('answer to the problem is: $x + 1$.', 'x + 1'),
  ('The final answer is\n$$\\frac12$$', '\\frac12'),
  ('**Final Answer:** **3**', '3'),
  ('Answer: (E)', '(E)'),
  ('The answer is that she has 5 apples left.', '5'),
  ('The answer is 12 because 3*4 is.', '12'),
  ('the answer is $18 a day', '$18'),
  ('the answer is 2 and 3', '2 and 3'),
  ('She has $1,234.50 left', '$1,234.50'),
  ('5-3 is not -2, it is 5-3', '3'),
  ('It is -7', '-7'),
  ('so .5', '.5'),
  ('about 3 \u00d7 10^5', '3 \u00d7 10^5'),
  ('The answer is the interval $[0,1)$.', '[0,1)'),
  ('The answer is:\n\\[\n\\frac12\n\\]', '\\frac12'),
  ('**Final Answer**\n\n7', '7'),
  ('The answer should be 7.', '7'),
  ('所以答案是 7。', '7'),
  ('<answer>The answer is 7</answer>', '7'),
  ('$\\text{The answer is } 7$', '7'),
]


@pytest.mark.parametrize(('text', 'answer'), TABLE)
def test_table(text, answer):
  found = extract_answer(text)
  assert found is not None
  assert found.text == answer


@pytest.mark.parametrize(
  ('text', 'why'),
  [
    ('\\boxed{1} or \\boxed{2', 'not closed'),
    ('1 \\boxed{}', 'empty'),
    ('1 \\boxed{ }', 'empty'),
    ('1 \\boxed', 'not closed'),
    ('1 <answer></answer>', 'empty'),
    ('\\boxed{1} <answer>2', 'not closed'),
    ('3 ####', 'nothing follows'),
    ('3. The answer is', 'nothing follows'),
  ],
)
def test_an_unreadable_answer_does_not_fall_back_to_an_earlier_one(text, why):
  found = extract_answer(text)
  assert found is not None
  assert found.text is None
  assert why in found.how


@pytest.mark.parametrize('text', ['', 'I do not know.', '<think></think>'])
def test_no_answer(text):
  assert extract_answer(text) is None


balanced = st.recursive(
  st.text('ab1+\\{}'.replace('{', '').replace('}', '').replace('\\', ''), min_size=1, max_size=4),
  lambda inner: st.builds(lambda a, b: f'{a}{{{b}}}', inner, inner),
  max_leaves=8,
)


@given(st.text('xyz $', max_size=9), balanced, st.text('xyz $', max_size=9))
def test_a_box_gives_back_what_was_put_in(before, content, after):
  found = last_box(f'{before}\\boxed{{{content}}}{after}')
  assert found is not None
  assert found.text == content


@given(st.text())
def test_no_text_breaks_the_extraction(text):
  extract_answer(text)


def test_a_long_completion_takes_no_time():
  start = time.process_time()
  for text in ('{' * 100_000, '\\boxed{' * 20_000, 'answer is ' * 20_000, '1,' * 100_000):
    extract_answer(text)
  assert time.process_time() - start < 2.0
