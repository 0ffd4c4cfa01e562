"""What a row of each data set with images says; see rows.py.

meta['question_type'] is 'free_form' or 'multi_choice'; the latter's options are meta['options'] and
the right one's number is meta['option'] (tasks/vision.py judges by them).
"""

from typing import Any

from rlvr_jax.tasks.datasets.rows import Row, column, some
from rlvr_jax.tasks.jsonl import gold, image_of
from rlvr_jax.tasks.problem import Image
from rlvr_jax.tasks.prompts import IMAGE_MARK, lettered, mathvista_query

FREE, CHOICE = 'free_form', 'multi_choice'


def mathvista(row: dict[str, Any], number: int, where: str) -> Row:
  """MathVista: 460 of testmini's 1000 are free-form, 540 multiple choice. Its gold is the option's
  text; the prompt is MathVista's own query, with its hint."""
  kind = column(row, 'question_type', where)
  metadata = row.get('metadata') or {}
  name = column(row, 'image', where)
  answer = gold(column(row, 'answer', where), where)
  meta: dict[str, Any] = {
    'question_type': kind,
    **some(row, 'answer_type', 'precision', 'unit'),
    **some(metadata, 'source', 'task', 'grade', 'skills'),
    'images': [name],
  }
  if kind == CHOICE:
    options = [str(option) for option in column(row, 'choices', where)]
    meta |= _options(options, [option.strip() for option in options], answer, where)
  elif kind != FREE:
    raise ValueError(f'{where}: question_type={kind!r} is neither {FREE} nor {CHOICE}')
  prompt = row.get('query') or mathvista_query(row)
  return Row(str(column(row, 'pid', where)), prompt, answer, meta, (_image(row, name, where),))


def mathvision(row: dict[str, Any], number: int, where: str) -> Row:
  """MATH-Vision: 114 of testmini's 304 are free-form. Its gold is a letter where there are options;
  they stand below the question unless they are but A to E, as its authors ask (models/Qwen-VL.py).
  """
  options = [str(option) for option in column(row, 'options', where)]
  question, name = column(row, 'question', where), column(row, 'image', where)
  answer = gold(column(row, 'answer', where), where)
  meta = {
    'question_type': CHOICE if options else FREE,
    **some(row, 'level', 'subject'),
    'images': [name],
  }
  if options:
    letters = [chr(ord('A') + place) for place in range(len(options))]
    meta |= _options(options, letters, answer, where)
    if options != letters:
      question = f'{question}\n{lettered(options)}'
  identity = str(column(row, 'id', where))
  return Row(identity, question, answer, meta, (_image(row, name, where),))


def geometry3k(row: dict[str, Any], number: int, where: str) -> Row:
  """Geometry3K as a free-form question: the gold is the right choice's value.

  Its authors' folders of data.json, and hiyouga/geometry3k's Parquet files, which EasyR1 trains on:
  their columns are problem, which begins with <image>, answer and images.
  """
  if 'problem' in row and 'images' in row:
    question = str(row['problem']).removeprefix(IMAGE_MARK)
    found = tuple(image_of(one, f'{where}, image {i}') for i, one in enumerate(row['images']))
    meta = {'question_type': FREE, 'images': [image.name for image in found]}
    return Row('', question, gold(column(row, 'answer', where), where), meta, found)
  question = row.get('annotat_text') or column(row, 'problem_text', where)
  choices, letter = column(row, 'choices', where), column(row, 'answer', where)
  place = 'ABCD'.find(str(letter))
  if not 0 <= place < len(choices):
    raise ValueError(f'{where}: the answer {letter!r} is none of its {len(choices)} choices')
  name = f'{column(row, "folder", where)}/img_diagram.png'
  meta = {
    **some(row, 'unit', 'problem_type_goal', 'problem_type_graph'),
    'question_type': FREE,
    'choices': choices,
    'images': [name],
  }
  answer = gold(choices[place], where)
  return Row(str(column(row, 'id', where)), question, answer, meta, (Image(name),))


def _options(
  options: list[str], golds: list[str], answer: str, where: str
) -> dict[str, list[str] | int]:
  """What meta says of a question with options, of which golds are what an answer may be."""
  if answer not in golds:
    raise ValueError(f'{where}: the answer {answer!r} is none of its options {options}')
  return {'options': options, 'option': golds.index(answer)}


def _image(row: dict[str, Any], name: str, where: str) -> Image:
  """The image of a row: the bytes that Parquet files have beside its name, else by its name."""
  inside = row.get('decoded_image')
  return image_of(inside, name) if inside else Image(name)
