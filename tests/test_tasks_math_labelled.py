r"""The strict verifier on cases labelled by hand, before it was asked, in every kind of answer.

A line of the fixture is a gold with right and wrong answers ('extraction' and what is marked
'whole': whole completions); 'left' names the right ones that are known not to be called correct,
and why.
"""

import json
import pathlib
import time

import pytest

from rlvr_jax.tasks.math import verify_math
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.units import scalar

FIXTURE = pathlib.Path(__file__).parent / 'fixtures' / 'tasks' / 'math_labelled.jsonl'
GROUPS = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
AROUND = (
  'The answer is $\\boxed{ANSWER}$.',
  'Thus the value is \\(\\boxed{ANSWER}\\).',
  'Therefore:\n\\[\n\\boxed{ANSWER}\n\\]',
  '<think>\nMaybe \\boxed{0}?\n</think>\nThe answer is \\boxed{ANSWER}',
  'We compute $2+3=5$. So the final answer is $\\boxed{ANSWER}$.',
)


def cases() -> list[tuple[str, str, str, bool, str]]:
  """(gold, answer, completion, whether it is right, why it is known to fail)."""
  made = []
  for group in GROUPS:
    for right, answers in ((True, group['right']), (False, group['wrong'])):
      for answer in answers:
        whole = group['category'] == 'extraction' or group.get('whole', False)
        around = AROUND[len(made) % len(AROUND)]
        text = answer if whole else around.replace('ANSWER', answer)
        made.append((group['gold'], answer, text, right, group.get('left', {}).get(answer, '')))
  return made


def judge(chosen) -> None:
  false_correct, false_wrong = [], []
  for gold, answer, text, right, left in chosen:
    verdict = verify_math(Problem('1', 'labelled', 'q', gold), text)
    if (verdict.verdict == 'correct') != right and not left:
      (false_wrong if right else false_correct).append((gold, answer, verdict))
  assert false_correct == []
  assert false_wrong == []


@pytest.mark.parametrize('part', range(4))
def test_a_quarter_of_the_cases(part):
  """Every sixteenth case each: together a quarter of them."""
  judge(cases()[part::16])


@pytest.mark.check
def test_all_cases():
  judge(cases())


def test_few_right_answers_are_left_out_and_each_says_why():
  made = cases()
  rights = [left for *_, right, left in made if right]
  assert len(made) - len(rights) >= 1500
  assert len(rights) >= 1000
  assert sum(map(bool, rights)) <= 0.02 * len(rights)
  for group in GROUPS:
    assert set(group.get('left', {})) <= set(group['right'])
    assert all(group.get('left', {}).values())


@pytest.mark.parametrize('answer', ['\\{,\\}', '\\{;\\}', '(,)', '[i, 1]', '(i, 2i)'])
def test_junk_in_brackets_is_no_error(answer):
  verdict = verify_math(Problem('1', 'labelled', 'q', '5'), f'\\boxed{{{answer}}}')
  assert verdict.verdict in ('wrong', 'unparsed')


@pytest.mark.parametrize('words', ['abcdefghij ', 'abcdefghijklmnopqrstuvwxyz', 'ab/cd-ef '])
def test_a_long_sentence_behind_a_number_is_no_unit_and_takes_no_time(words):
  start = time.perf_counter()
  scalar('5 ' + words * 90 + '!')
  assert time.perf_counter() - start < 1
