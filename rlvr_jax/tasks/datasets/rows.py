"""What a row of each maths data set says: its problem, gold and meta (rows_vision.py: with images).

A row function takes (row, number of the row in its file, where it is) and gives a Row, or the
reason, a string, for which a row does not belong to the benchmark (no gold at all). An id of ''
stands for the row's number.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from rlvr_jax.tasks.jsonl import gold
from rlvr_jax.tasks.problem import Image, Problem
from rlvr_jax.tasks.prompts import DAPO_AFTER, DAPO_BEFORE


@dataclasses.dataclass(frozen=True)
class Row:
  """A problem without its task, and with the id that it has within its split.

  Of an image whose bytes are not in the row, name says where it lies beside the file (pictures.py).
  """

  id: str
  prompt: str | tuple[Mapping[str, str], ...]
  answer: Any
  meta: Mapping[str, Any]
  images: tuple[Image, ...] = ()


NO_GOLD = 'no gold answer'
RowFunction = Callable[[dict[str, Any], int, str], Row | str]


def column(row: Mapping[str, Any], name: str, where: str) -> Any:
  """row[name]; ValueError naming the place and the columns there are."""
  if name not in row:
    raise ValueError(
      f'{where}: there is no column {name!r} (it has {", ".join(row)}); this is not the file that '
      "the benchmark was made from: task.name='jsonl' with task.fields reads any other"
    )
  return row[name]


def some(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
  """Those of the columns that say something."""
  return {name: row[name] for name in names if row.get(name) not in (None, '', [])}


def question_answer(
  question: str = 'problem', answer: str = 'answer', keep: tuple[str, ...] = (), key: str = ''
) -> RowFunction:
  """Rows with a question and an answer column (see jsonl.gold); `keep` goes into meta as it is.

  key: the column of the id; '' is the row's number.
  """

  def read(row: dict[str, Any], number: int, where: str) -> Row:
    text = column(row, question, where)
    identity = str(column(row, key, where)) if key else ''
    return Row(identity, text, gold(column(row, answer, where), where), some(row, *keep))

  return read


def math(row: dict[str, Any], number: int, where: str) -> Row | str:
  """MATH and Minerva: the gold is `answer`, where there is none the last box of the solution.

  level is 1 to 5 (an LLM's difficulty of 0 to 5 in files without levels is `difficulty`).
  """
  meta = some(row, 'type', 'subject', 'difficulty')
  level = re.search(r'\d', str(row.get('level', '')))
  if level is not None:
    meta['level'] = int(level[0])
  answer = row.get('answer') or row.get('solution')
  if answer is None and 'answer' in row:
    return NO_GOLD
  answer = column(row, 'answer', where) if answer is None else answer
  return Row('', column(row, 'problem', where), gold(answer, where), meta)


def math500(row: dict[str, Any], number: int, where: str) -> Row | str:
  """MATH500, with the id its authors gave."""
  made = math(row, number, where)
  identity = str(column(row, 'unique_id', where))
  return made if isinstance(made, str) else dataclasses.replace(made, id=identity)


def contest(row: dict[str, Any], number: int, where: str) -> Row:
  """AIME and AMC: whole numbers, written as 27.0 or 033 in some files."""
  value = column(row, 'answer', where)
  text = str(value).strip()
  if re.fullmatch(r'\d+(\.0+)?', text):
    text = str(int(float(text)))
  meta = some(row, 'url', 'year', 'aime_number', 'problem_number', 'difficulty')
  return Row('', column(row, 'problem', where), gold(text, where), meta)


def olympiad(row: dict[str, Any], number: int, where: str) -> Row:
  """OlympiadBench, text only, open-ended, maths, English; 'error' is a tolerance, 'unit' apart."""
  question = column(row, 'question', where)
  if context := row.get('context'):
    question = f'{context}\n{question}'
  answers = column(row, 'final_answer', where)
  answer = gold(answers[0] if isinstance(answers, list) else answers, where).strip('$ ')
  meta = some(row, 'subfield', 'unit', 'answer_type', 'is_multiple_answer')
  if error := row.get('error'):
    meta['tolerance'] = float(error)
  return Row('', question, answer, {**meta, 'source_id': column(row, 'id', where)})


def simplerl(row: dict[str, Any], number: int, where: str) -> Row | str:
  """SimpleRL-Zoo-Data: the question without the template that its prompt column has around it."""
  extra = row.get('extra_info') or {}
  question = row.get('question') or extra.get('question') or column(row, 'question', where)
  answer = next(
    (
      value
      for value in (
        row.get('gt_answer'),
        (row.get('reward_model') or {}).get('ground_truth'),
        row.get('answer'),
        extra.get('answer'),
      )
      if value
    ),
    None,
  )
  if answer is None:
    return NO_GOLD
  return Row('', question, gold(answer, where), some({**extra, **row}, 'level', 'subject'))


def dapo(row: dict[str, Any], number: int, where: str) -> Row:
  """DAPO-Math-17k: the problem without DAPO's prompt around it (template 'dapo' puts it back)."""
  prompt = column(row, 'prompt', where)
  text = prompt if isinstance(prompt, str) else prompt[-1]['content']
  text = text.removeprefix(DAPO_BEFORE).removesuffix(DAPO_AFTER)
  answer = row.get('solution') or (row.get('reward_model') or {}).get('ground_truth')
  identity = str((row.get('extra_info') or {}).get('index') or '')
  return Row(identity, text, gold(answer, where), {})


# Splits that are ours to make. Each takes all problems of a file, in order.


def omni_split(problems: list[Problem]) -> dict[str, list[Problem]]:
  """2000 to train on and 821 to test, drawn with seed 0: none is published, this one is ours."""
  order = list(range(len(problems)))
  random.Random('rlvr_jax omni-math-rule 2000/821 seed 0').shuffle(order)
  test = set(order[:821])
  return {
    'train': [p for i, p in enumerate(problems) if i not in test],
    'test': [p for i, p in enumerate(problems) if i in test],
  }


def mbpp_split(problems: list[Problem]) -> dict[str, list[Problem]]:
  """MBPP's own: task ids 11-510 test, 1-10 few-shot prompt, 511-600 validation, 601-974 train."""
  bounds = {'prompt': (1, 10), 'test': (11, 510), 'validation': (511, 600), 'train': (601, 974)}
  return {
    name: [p for p in problems if low <= int(p.id) <= high] for name, (low, high) in bounds.items()
  }
