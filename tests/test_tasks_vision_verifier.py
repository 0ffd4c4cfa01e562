"""Options, decimals, units and lists: golds are right, their neighbours wrong."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks import self_check
from rlvr_jax.tasks.formats import think_box
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import load_verifier, verifier_name, verifier_version
from rlvr_jax.tasks.vision import option_of, verify_vision

ANGLES = ['135°', '140°', '145°', '150°']
LENGTHS = ['20海里', '20√{2}海里', '15海里', '20海里']
LETTERS = ['A', 'B', 'C', 'D', 'E']
MIXED = ['(c)', '(a)', '(e)', '(d)', '(b)']
TUPLES = ['(u1, u2) = (0, 0)', '(u1, u2) = (1, 0)', '(u1, u2) = (0, 1)']
WORDS = ['Yes', 'No']
LATEX = ['$20 \\mathrm{~cm}$', '$\\frac{1}{2}$', '$90^{\\circ}$', 'other answer']


def choice(options, option, answer=None):
  meta = {'options': options, 'option': option, 'verifier': 'vision'}
  return Problem('1', 'test', 'Which?', answer or options[option], meta)


@pytest.mark.parametrize(
  ('options', 'option', 'text'),
  [
    (ANGLES, 2, 'So \\boxed{C}'),
    (ANGLES, 2, '\\boxed{\\text{C}}'),
    (ANGLES, 2, '\\boxed{(C)}'),
    (ANGLES, 2, '\\boxed{145°}'),
    (ANGLES, 2, '\\boxed{145^\\circ}'),
    (ANGLES, 2, '\\boxed{145}'),
    (ANGLES, 2, '\\boxed{C. 145°}'),
    (ANGLES, 2, '\\boxed{(C) 145}'),
    (ANGLES, 2, 'The answer is (C).'),
    (ANGLES, 2, 'The correct answer is **C**'),
    (ANGLES, 2, 'Answer: C: 145°'),
    (ANGLES, 2, 'The answer is option C.'),
    (ANGLES, 2, '<think>Is it A?</think>\nIt follows.\n(C)'),
    (ANGLES, 2, '145 degrees it is, so the right choice is C.'),
    (ANGLES, 2, 'C'),
    (ANGLES, 2, 'c)'),
    (ANGLES, 2, '<answer>C</answer>'),
    (ANGLES, 2, 'The answer is C because 145 is what remains.'),
    (ANGLES, 2, 'The answer is C because the others are odd.'),
    (['RFT U12', 'RFT U13B'], 1, 'Answer: (B) RFT U13B'),
    (LENGTHS, 1, '\\boxed{20√{2}海里}'),
    (LENGTHS, 0, '\\boxed{D}'),  # A and D say the same
    (LETTERS, 3, '\\boxed{D}'),
    (['a', 'b', 'c', 'd'], 3, '\\boxed{d}'),
    (TUPLES, 1, '\\boxed{(u1, u2) = (1, 0)}'),
    (TUPLES, 1, '\\boxed{(B) (u1, u2) = (1, 0)}'),
    (MIXED, 2, '\\boxed{(e)}'),  # the text of C
    (MIXED, 4, '\\boxed{(E)}'),  # the letter
    (WORDS, 0, 'The answer is Yes.'),
    (WORDS, 1, '\\boxed{no}'),
    (WORDS, 1, 'No'),
    (LATEX, 0, '\\boxed{20}'),
    (LATEX, 1, '\\boxed{\\frac12}'),
    (LATEX, 1, '\\boxed{0.5}'),
    (LATEX, 2, '\\boxed{90^\\circ}'),
    (LATEX, 3, '\\boxed{\\text{Other answer}}'),
  ],
)
def test_options_by_letter_and_by_text(options, option, text):
  assert verify_vision(choice(options, option), text).verdict == 'correct'
  for other, said in enumerate(options):
    if said != options[option]:
      assert verify_vision(choice(options, other), text).verdict == 'wrong'


@pytest.mark.parametrize(
  ('options', 'text', 'verdict'),
  [
    (ANGLES, '\\boxed{A. 145°}', 'wrong'),  # letter and text of two options
    (ANGLES, 'The answer is (A) 145°.', 'wrong'),
    (ANGLES, 'The answer is A or C.', 'unparsed'),
    (ANGLES, '\\boxed{144}', 'unparsed'),  # none of them, and none is near enough
    (ANGLES, '\\boxed{E}', 'unparsed'),
    (ANGLES, '\\boxed{A, C}', 'unparsed'),
    (ANGLES, '\\boxed{}', 'unparsed'),
    (ANGLES, '', 'unparsed'),
    (ANGLES, 'I do not know.', 'unparsed'),
    (WORDS, 'I do not know.', 'unparsed'),
    (WORDS, 'There is no way to tell.', 'unparsed'),
    (ANGLES, 'It is not (C)', 'unparsed'),
    (ANGLES, f'\\boxed{{{"C" * 2000}}}', 'unparsed'),
  ],
)
def test_what_names_no_option_is_not_made_to_fit(options, text, verdict):
  for option in range(len(options)):
    assert verify_vision(choice(options, option), text).verdict == verdict


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_one_answer_names_at_most_one_option(text):
  chosen, why = option_of(text, ANGLES)
  assert (chosen is None) == bool(why)
  right = [verify_vision(choice(ANGLES, o), f'\\boxed{{{text}}}').verdict for o in range(4)]
  assert right.count('correct') <= 1


def measured(answer, **meta):
  return Problem('1', 'test', 'How much?', answer, {**meta, 'verifier': 'vision'})


@pytest.mark.parametrize(
  ('answer', 'meta', 'right', 'wrong'),
  [
    (
      '1.2',
      {'answer_type': 'float', 'precision': 1},
      ['1.2', '1.2247', '1.20', '\\frac{6}{5}', '1.2 \\text{ m}', '1.2 m', '1.15'],
      ['1.3', '1.26', '1.1', '1', '12', '0.012', '-1.2'],
    ),
    (
      '0.33',
      {'answer_type': 'float', 'precision': 2.0},
      ['0.33', '1/3', '0.3333', '.33'],
      ['0.3', '0.34', '3.3', '33'],
    ),
    ('-4.3', {'answer_type': 'float', 'precision': 1}, ['-4.3', '-4.32'], ['4.3', '-4.2']),
    ('0.0', {'answer_type': 'float', 'precision': 1}, ['0', '0.0', '0.04'], ['0.1', '1']),
    (
      '1000',
      {'answer_type': 'integer', 'unit': 'g'},
      ['1000', '1,000', '1000 g', '1000 \\text{ grams}', '1000.0'],
      ['1001', '1000 kg', '1', '1 kg', '999.5'],
    ),
    ('46', {'answer_type': 'integer', 'unit': 'years'}, ['46', '46 years'], ['45', '46 months']),
    ('13', {'answer_type': 'integer'}, ['13', '\\$13', '13.0'], ['13.9', '12', '13%x']),
    (
      '[2014, 2016]',
      {'answer_type': 'list'},
      ['[2014, 2016]', '2014, 2016', '[2014,2016]', '$[2014, 2016]$'],
      ['[2016, 2014]', '[2014]', '[2014, 2016, 2018]', '[2014, 2015]', '2014'],
    ),
  ],
)
def test_decimals_units_and_lists(answer, meta, right, wrong):
  problem = measured(answer, **meta)
  for text in right:
    assert verify_vision(problem, f'So \\boxed{{{text}}}.').verdict == 'correct', text
  for text in wrong:
    assert verify_vision(problem, f'So \\boxed{{{text}}}.').verdict != 'correct', text


def test_a_list_is_found_where_nothing_announces_it():
  problem = measured('[0, 2, 1]', answer_type='list')
  assert verify_vision(problem, 'They are [0, 1] and then [0, 2, 1]').verdict == 'correct'
  assert verify_vision(problem, 'They are [0, 2, 1] and then [0, 1]').verdict == 'wrong'
  assert verify_vision(problem, 'They are many.').verdict == 'unparsed'
  assert verify_vision(problem, '\\boxed{').verdict == 'unparsed'


def test_all_else_is_the_strict_verifiers():
  problem = measured('\\sqrt{2}', question_type='free_form', choices=['1', '\\sqrt{2}'])
  assert verify_vision(problem, '\\boxed{2^{1/2}}').verdict == 'correct'
  assert verify_vision(problem, '\\boxed{B}').verdict == 'wrong'


def test_it_is_a_verifier_of_the_table_and_golds_are_asked():
  problem = choice(ANGLES, 2)
  assert verifier_name(problem) == 'vision'
  version = verifier_version('vision')
  assert version.startswith('vision:vision-1+strict-3+math-verify-')
  assert load_verifier('vision', version)(problem, '\\boxed{C}').reward == 1.0
  gold, junk = self_check.probes(problem)
  assert verify_vision(problem, gold).verdict == 'correct'
  assert 'The answer is \\boxed{D}.' in junk
  assert all(verify_vision(problem, text).verdict != 'correct' for text in junk)
  assert 'vision' in self_check.AUTOMATIC


PATTERN = re.compile(r'<think>.*</think>.*\\boxed\{.*\}.*', re.DOTALL)
PIECES = ['<think>', '</think>', '\\boxed{', '}', ' ', 'x', '\n', '<', '/', 'think>']


@given(st.lists(st.sampled_from(PIECES), max_size=10).map(''.join))
def test_the_format_is_easyr1s_expression(text):
  cleaned = re.sub(r'\s*(<|>|/)\s*', r'\1', text)
  assert think_box(text) == bool(PATTERN.fullmatch(cleaned))


def test_the_format_of_whole_completions():
  assert think_box('<think>It is\n5.</think>\nSo \\boxed{5}.')
  assert think_box(' < think > It is 5. </think>\\boxed{5}')
  assert not think_box('It is 5. \\boxed{5}')
  assert not think_box('<think>\\boxed{5}</think>')
  assert not think_box('<think>' + '</think>\\boxed{' * 20_000)  # in no time
