"""Benchmarks with images: prepared with them, read back one by one, refused where they changed."""

import json
import os
import pathlib
import re
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import task, write_lines

from rlvr_jax.tasks import images, load, self_check
from rlvr_jax.tasks.datasets import builder
from rlvr_jax.tasks.datasets.load import load_benchmark, prepared_splits
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.prompts import IMAGE, render
from rlvr_jax.tasks.vision import verify_vision


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('RLVR_DATA_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


def picture(shade):
  return images.png(np.full((20, 30, 3), shade, np.uint8))


def vista(number, **more):
  return {
    'pid': str(number), 'question': f'Q{number}?', 'image': f'images/{number}.jpg', 'unit': None,
    'precision': None, 'answer': str(number), 'question_type': 'free_form', 'choices': None,
    'answer_type': 'integer', 'metadata': {'source': 'ours'},
  } | more  # fmt: skip


CHOICE = {'question_type': 'multi_choice', 'answer_type': 'text', 'choices': ['x', 'y', '3']}


def folder_of(tmp_path, shown=(1, 2, 3)):
  lines = [vista(1), vista(2), vista(3, **CHOICE)]
  (tmp_path / 'images').mkdir(parents=True, exist_ok=True)
  (tmp_path / 'testmini.json').write_text(json.dumps(lines))
  for number in shown:
    (tmp_path / 'images' / f'{number}.jpg').write_bytes(picture(number))
  return tmp_path


def test_images_beside_the_file_are_prepared_and_read_back(tmp_path):
  folder = folder_of(tmp_path / 'vista')
  group = task('mathvista', folder)
  problems, _ = load.load_problems(group)
  assert [p.id for p in problems] == ['1', '2']  # free-form ones
  before = load.content_hash(group)
  for number, problem in enumerate(problems, 1):
    assert (images.pixels(problem) == number).all()
    assert problem.images[0].record == (problem.images[0].record[0], 'test', number - 1)
    assert images.digest(problem) == images.digest(problem)
    assert render(problem, 'raw').startswith(f'{IMAGE}Hint: ')
  (folder / 'images' / '2.jpg').unlink()
  assert (images.pixels(problems[1]) == 2).all()  # of the prepared set
  folder_of(folder)
  assert load.content_hash(group) == before  # the same bytes again
  (folder / 'images' / '2.jpg').write_bytes(picture(99))
  changed, _ = load.load_problems(group)
  assert (images.pixels(changed[1]) == 99).all()
  assert load.content_hash(group) != before


def test_a_form_is_chosen_and_ids_stay(tmp_path):
  folder = folder_of(tmp_path / 'vista')
  chosen, _ = load.load_problems(task('mathvista', folder, where='form=multi_choice'))
  assert [p.id for p in chosen] == ['3']
  assert chosen[0].meta['options'] == ['x', 'y', '3']
  every, _ = load.load_problems(task('mathvista', folder, where='form='))
  assert [p.id for p in every] == ['1', '2', '3']
  assert self_check.failures(every) == {}
  with VerifierPool(1) as pool:  # processes get no images, and judge all the same
    verdicts = pool.verify([(every[0], '\\boxed{1}'), (every[2], '(C)'), (every[2], '(A)')])
  assert [v.verdict for v in verdicts] == ['correct', 'correct', 'wrong']


def test_an_image_that_is_not_there_is_named_when_it_is_asked_for(tmp_path):
  folder = folder_of(tmp_path / 'vista', shown=(1,))
  problems, _ = load.load_problems(task('mathvista', folder))
  assert (images.pixels(problems[0]) == 1).all()
  with pytest.raises(ValueError, match=r"problem mathvista/2, image 'images/2\.jpg': there is no"):
    images.pixels(problems[1])
  (folder / 'images' / '2.jpg').write_bytes(picture(2))  # put there later: prepared anew
  problems, _ = load.load_problems(task('mathvista', folder))
  assert problems[1].images[0].sha256
  assert (images.pixels(problems[1]) == 2).all()


def test_images_in_archives_and_in_parquet(tmp_path):
  folder = folder_of(tmp_path / 'vista', shown=())
  with zipfile.ZipFile(folder / 'images.zip', 'w') as archive:
    archive.writestr('images/2.jpg', picture(22))
  problems, _ = load.load_problems(task('mathvista', folder))
  assert (images.pixels(problems[1]) == 22).all()
  with pytest.raises(ValueError, match=r'images\.zip has no member images/1\.jpg'):
    images.pixels(problems[0])
  lines = [vista(n, decoded_image={'bytes': picture(n), 'path': None}) for n in (4, 5)]
  pq.write_table(pa.Table.from_pylist(lines), tmp_path / 'testmini-0.parquet')
  problems, _ = load.load_problems(task('mathvista', tmp_path / 'testmini-0.parquet'))
  assert [int(images.pixels(p)[0, 0, 0]) for p in problems] == [4, 5]
  assert problems[0].images[0].name == 'images/4.jpg'


def test_geometry3k_in_folders_zips_and_parquet(tmp_path):
  row = {'problem_text': 'Find x.', 'choices': ['1', '2', '3', '4'], 'answer': 'C'}
  with zipfile.ZipFile(tmp_path / 'train.zip', 'w') as archive:
    for number in (2, 10):
      place = tmp_path / 'train' / str(number)
      place.mkdir(parents=True)
      (place / 'data.json').write_text(json.dumps(row | {'id': number}))
      (place / 'img_diagram.png').write_bytes(picture(number))
      for file in place.iterdir():
        archive.write(file, file.relative_to(tmp_path))
  table = [
    {'problem': '<image>Find x.', 'answer': '3', 'images': [{'bytes': picture(n), 'path': None}]}
    for n in (2, 10)
  ]
  (tmp_path / 'hub').mkdir()
  pq.write_table(pa.Table.from_pylist(table), tmp_path / 'hub' / 'train-00000-of-00001.parquet')
  for place in ('train', 'train.zip', 'hub'):
    path = str(tmp_path / place)
    (found,) = load_benchmark('geometry3k', path=path, split='train').values()
    assert [int(images.pixels(p)[0, 0, 0]) for p in found] == [2, 10], place
    assert [(p.prompt, p.answer) for p in found] == [('Find x.', '3')] * 2
  (tmp_path / 'train' / '2' / 'img_diagram.png').write_bytes(picture(77))
  (found,) = load_benchmark('geometry3k', path=str(tmp_path / 'train'), split='train').values()
  assert int(images.pixels(found[0])[0, 0, 0]) == 77


def test_a_damaged_store_of_images_and_a_damaged_image_are_named(tmp_path, cache, monkeypatch):
  folder = folder_of(tmp_path / 'vista')
  (folder / 'images' / '1.jpg').write_bytes(picture(1)[:40])
  problems, _ = load.load_problems(task('mathvista', folder))
  with pytest.raises(ValueError, match=r"mathvista/1, image 'images/1\.jpg': .*damaged"):
    images.pixels(problems[0])
  builder._kept_open.cache_clear()
  (record,) = (cache / 'benchmark').rglob('*test_images.array_record*')
  record.write_bytes(record.read_bytes()[:100])
  with pytest.raises(ValueError, match=r'mathvista/2, .*prepared data in .*remove that folder'):
    images.pixels(problems[1])
  monkeypatch.setattr(images, 'MAX_BYTES', 50)
  (folder / 'images' / '2.jpg').write_bytes(picture(3))
  with pytest.raises(ValueError, match=r"problem mathvista/1, image 'images/1\.jpg'|mathvista/2"):
    load.load_problems(task('mathvista', folder))


def test_rows_that_are_not_the_benchmarks_are_named(tmp_path):
  write_lines(tmp_path / 'a' / 'testmini.jsonl', [{'id': '1', 'question': 'Q', 'options': []}])
  with pytest.raises(ValueError, match=r"testmini\.jsonl:1: there is no column 'image'"):
    load_benchmark('mathvision', path=str(tmp_path / 'a'))
  (tmp_path / 'b').mkdir()
  for wrong, why in (
    (CHOICE | {'answer': 'z'}, "the answer 'z' is none of its options"),
    ({'question_type': 'essay'}, "question_type='essay' is neither free_form nor multi_choice"),
  ):
    (tmp_path / 'b' / 'testmini.json').write_text(json.dumps([vista(1, **wrong)]))
    with pytest.raises(ValueError, match=rf'testmini\.json: row 0: {why}'):
      load_benchmark('mathvista', path=str(tmp_path / 'b'))


DATA = os.environ.get('RLVR_DATA_DIR', '')
REAL = [
  ('geometry3k', 'train', '', 10),
  ('mathvista', 'test', 'free_form', 460),
  ('mathvista', 'test', 'multi_choice', 540),
  ('mathvision', 'test', 'free_form', 114),
  ('mathvision', 'test', 'multi_choice', 190),
]


@pytest.mark.check
@pytest.mark.skipif(not DATA, reason='RLVR_DATA_DIR names no folder of benchmark files')
@pytest.mark.parametrize(('name', 'split', 'form', 'count'), REAL)
def test_real_golds_are_right_and_their_neighbours_are_wrong(name, split, form, count):
  where = f'form={form}' if form else ''
  problems, _ = load.load_problems(task(name, f'{DATA}/{name}', split=split, where=where))
  assert len(problems) == count
  for problem in problems:
    text = render(problem, 'easyr1')
    start, _, rest = text.partition('<|im_start|>user\n')
    assert start.endswith('MUST BE put in \\boxed{}.<|im_end|>\n')
    assert rest == f'{IMAGE}\n{problem.prompt}<|im_end|>\n<|im_start|>assistant\n'
    right, wrong = options_of(problem) if form == 'multi_choice' else values_of(problem)
    for said in right:
      assert verify_vision(problem, said).verdict == 'correct', (problem.id, said)
    for said in wrong:
      assert verify_vision(problem, said).verdict != 'correct', (problem.id, said)


def options_of(problem):
  options, option = problem.meta['options'], problem.meta['option']
  letters = [chr(ord('A') + place) for place in range(len(options))]
  gold, other = letters[option], (option + 1) % len(options)
  right = [
    f'So \\boxed{{{gold}}}', f'\\boxed{{({gold})}}', f'The answer is ({gold}).', gold,
    f'The correct answer is {gold}.', f'<think>A or B?</think> Thus\n({gold})',
    f'\\boxed{{{gold}. {options[option]}}}', f'Answer: ({gold}) {options[option]}',
  ]  # fmt: skip
  if options[option].strip('$').removeprefix('\\text{').removesuffix('}') not in letters:
    right.append(f'\\boxed{{{options[option]}}}')
  if options[other] == options[option]:
    return right, []
  return right, [
    f'\\boxed{{{letters[other]}}}',
    f'({letters[other]})',
    f'\\boxed{{{options[other]} }}',
  ]


def values_of(problem):
  gold = problem.answer
  changed = re.sub(r'\d', lambda m: str((int(m[0]) + 1) % 10), gold, count=1)
  right = [f'So \\boxed{{{gold}}}', f'The final answer is {gold}', f'Answer: {gold}']
  wrong = ['\\boxed{9182736455463}', 'I do not know.']
  if changed != gold:
    wrong += [f'\\boxed{{{changed}}}', f'The answer is {changed}']
  return right, wrong


@pytest.mark.check
@pytest.mark.skipif(not DATA, reason='RLVR_DATA_DIR names no folder of benchmark files')
@pytest.mark.parametrize(
  ('name', 'split', 'count'), [('geometry3k', 'train', 10), ('mathvision', 'test', 304)]
)
def test_real_images_are_decoded_from_the_prepared_set(name, split, count):
  problems, _ = load.load_problems(
    task(name, f'{DATA}/{name}', split=split, where='form=' if count > 10 else '')
  )
  assert len(problems) == count
  for problem in problems:
    ((width, height),) = images.sizes(problem)
    assert images.pixels(problem).shape == (height, width, 3)
  (one,) = prepared_splits(name, path=f'{DATA}/{name}', split=split).values()
  for problem in problems[:20]:
    path = pathlib.Path(DATA) / name / problem.meta['images'][0]
    assert images.read(problem.images[0]) == path.read_bytes()
  assert one.key
