"""Images of problems: read late, refused with a reason, counted in hashes, written into prompts."""

import base64
import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import task, write_lines

from rlvr_jax.eval.run import encode_prompts
from rlvr_jax.eval.served import _prompt
from rlvr_jax.tasks import given, images, load, wire
from rlvr_jax.tasks.journal import problem_digest
from rlvr_jax.tasks.problem import Image, Problem
from rlvr_jax.tasks.prompts import IMAGE, IMAGE_PAD, lettered, mathvista_query, render


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('RLVR_DATA_CACHE', str(tmp_path / 'cache'))


def picture(width=40, height=30, kind='PNG', mode='RGB', seed=0, **options):
  values = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
  file = io.BytesIO()
  PIL.Image.fromarray(values).convert(mode).save(file, kind, **options)
  return file.getvalue()


def seen(data, text='See.'):
  return Problem('7', 'test', text, '1', images=(Image('a.png', data=data),))


@pytest.mark.parametrize('kind', images.FORMATS)
def test_every_known_format_gives_rgb(kind):
  problem = seen(picture(kind=kind))
  values = images.pixels(problem)
  assert values.shape == (30, 40, 3)
  assert values.dtype == np.uint8
  assert images.sizes(problem) == [(40, 30)]
  if kind in ('PNG', 'BMP'):
    np.testing.assert_array_equal(
      values, np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    )


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA'])
def test_every_mode_gives_rgb_without_a_warning(mode):
  assert images.pixels(seen(picture(mode=mode))).shape == (30, 40, 3)


def test_transparency_is_dropped_as_the_harnesses_drop_it():
  values = np.zeros((8, 8, 4), np.uint8)
  values[..., 0] = 200  # red, and all of it transparent
  file = io.BytesIO()
  PIL.Image.fromarray(values).save(file, 'PNG')
  assert (images.pixels(seen(file.getvalue())) == (200, 0, 0)).all()
  flat = PIL.Image.new('P', (8, 8))
  flat.putpalette([9, 8, 7] * 256)
  file = io.BytesIO()
  flat.save(file, 'PNG', transparency=bytes(range(256)))
  assert (images.pixels(seen(file.getvalue())) == (9, 8, 7)).all()


def promised(width, height, mode=2):
  """A PNG whose header promises so many pixels, and nothing more."""

  def chunk(kind, body):
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))

  header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, mode, 0, 0, 0))
  body = chunk(b'IDAT', zlib.compress(bytes(1000)))
  return b'\x89PNG\r\n\x1a\n' + header + body + chunk(b'IEND', b'')


def deep():
  file = io.BytesIO()
  PIL.Image.fromarray(np.zeros((9, 9), np.uint16)).save(file, 'PNG')
  return file.getvalue()


def animated():
  frames = [PIL.Image.new('L', (9, 9), shade) for shade in (0, 90, 200)]
  file = io.BytesIO()
  frames[0].save(file, 'GIF', save_all=True, append_images=frames[1:])
  return file.getvalue()


@pytest.mark.parametrize(
  ('data', 'why'),
  [
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', r'no PNG, JPEG, .* or BMP \(the file begins 3c'),
    (b'', 'neither a file nor bytes'),
    (picture()[:200], 'PNG data are damaged'),
    (picture(kind='JPEG')[:1000], 'JPEG data are damaged'),
    (picture(kind='JPEG')[:400], 'header is damaged'),
    (picture()[:20], 'no PNG|header is damaged'),
    (promised(20_000, 20_000), r'20000 x 20000 pixels, where at most 33,554,432|400000000 pixels'),
    (promised(7_000, 7_000), r'7000 x 7000 pixels, where at most 33,554,432'),
    (promised(2_000_000_000, 2_000_000_000), 'pixels'),
    (picture(3, 40), '3 x 40 pixels, where a side has at least 4'),
    (picture(4, 900), 'over 200 times the other'),
    (deep(), 'of the kind I;16; save it with 8 bits'),
    (animated(), r'animated \(3 frames\)'),
  ],
)
def test_what_cannot_be_taken_names_the_problem_the_image_and_the_reason(data, why):
  with pytest.raises(ValueError, match=rf"problem test/7, image 'a\.png': .*({why})"):
    images.pixels(seen(data))


def test_a_huge_image_costs_no_memory():
  data = promised(8_000, 8_000)
  tracemalloc.start()
  with pytest.raises(ValueError, match='make it smaller'):
    images.pixels(seen(data))
  assert tracemalloc.get_traced_memory()[1] < 2e6  # 192 MB decoded
  tracemalloc.stop()


def test_files_are_read_when_asked_for_and_named_when_they_are_not_there(tmp_path, monkeypatch):
  missing = Problem('7', 'test', 'x', '1', images=(Image('a.png', path=str(tmp_path / 'a.png')),))
  with pytest.raises(ValueError, match=rf'there is no file {tmp_path}/a\.png'):
    images.sizes(missing)
  (tmp_path / 'a.png').write_bytes(picture())
  assert images.sizes(missing) == [(40, 30)]
  monkeypatch.setattr(images, 'MAX_BYTES', 100)
  with pytest.raises(ValueError, match='where a file has at most 100'):
    images.sizes(missing)
  monkeypatch.undo()
  with pytest.raises(ValueError, match='cannot be read'):
    images.read(Image('d', path=str(tmp_path)))


def test_thumbnails_are_small_and_show_the_image():
  noisy = seen(picture(900, 600))
  shown = images.thumbnail(noisy, 0, side=280, most_bytes=12_000)
  assert shown.startswith('data:image/jpeg;base64,')
  data = base64.b64decode(shown.partition(',')[2])
  assert len(data) < 20_000
  assert max(PIL.Image.open(io.BytesIO(data)).size) <= 280
  plain = images.thumbnail(
    seen(images.png(np.full((56, 56, 3), 9, np.uint8))), 0, side=280, most_bytes=12_000
  )
  assert plain.startswith('data:image/png;base64,')


def test_verifiers_do_not_get_images_and_hashes_do():
  one, other = seen(picture()), seen(picture(seed=1))
  assert problem_digest(one) == problem_digest(other)  # an answer's verdict is the same
  assert wire.problem_from_json(wire.problem_to_json(one)).images == ()
  assert images.digest(one) != images.digest(other)
  assert images.digest(Problem('1', 't', 'x', '1')) == ''
  assert 'data' not in repr(one)


def test_a_list_of_problems_may_not_change_its_images(tmp_path):
  given.check_remembered(tmp_path / 'known.json', [seen(picture())])
  given.check_remembered(tmp_path / 'known.json', [seen(picture())])
  with pytest.raises(ValueError, match='1 problems are not what they were'):
    given.check_remembered(tmp_path / 'known.json', [seen(picture(seed=1))])


def rows(folder):
  """Rows with an image by path, by data URI, by bytes, several, none."""
  (folder / 'pictures').mkdir(parents=True)
  (folder / 'pictures' / 'a.png').write_bytes(picture())
  uri = 'data:image/png;base64,' + base64.b64encode(picture(seed=1)).decode()
  return [
    {'question': 'One?', 'answer': '1', 'seen': 'pictures/a.png'},
    {'question': '<image> or <image>?', 'answer': '2', 'seen': ['pictures/a.png', uri]},
    {'question': 'None?', 'answer': '3', 'seen': None},
  ]


def test_a_users_file_has_images_by_path_uri_and_bytes(tmp_path):
  write_lines(tmp_path / 'x.jsonl', rows(tmp_path))
  fields = {'images': 'seen'}
  group = task('jsonl', tmp_path / 'x.jsonl', fields=fields, verifier='math')
  problems, _ = load.load_problems(group)
  assert [len(p.images) for p in problems] == [1, 2, 0]
  assert problems[0].meta['images'] == ['pictures/a.png']
  np.testing.assert_array_equal(images.pixels(problems[0]), images.pixels(problems[1], 0))
  assert render(problems[0], 'raw') == f'{IMAGE}One?'
  assert render(problems[1], 'raw') == f'{IMAGE} or {IMAGE}?'
  assert render(problems[2], 'raw') == 'None?'
  before = load.content_hash(group)
  assert before != load.content_hash(task('jsonl', tmp_path / 'x.jsonl', verifier='math'))
  (tmp_path / 'pictures' / 'a.png').write_bytes(picture(seed=5))
  assert load.content_hash(group) != before

  table = [{'question': 'Q', 'answer': '1', 'seen': [{'bytes': picture(), 'path': 'a.png'}]}]
  pq.write_table(pa.Table.from_pylist(table), tmp_path / 'x.parquet')
  (problem,), _ = load.load_problems(
    task('parquet', tmp_path / 'x.parquet', fields=fields, verifier='math')
  )
  assert images.sizes(problem) == [(40, 30)]
  assert problem.images[0].name == 'a.png'


@pytest.mark.parametrize(
  ('value', 'why'),
  [(7, 'a int'), ([''], 'nothing'), ('data:image/png;base64,@@', 'not base64')],
)
def test_a_row_whose_image_is_none_is_named(tmp_path, value, why):
  write_lines(tmp_path / 'x.jsonl', [{'question': 'Q', 'answer': '1', 'seen': value}])
  with pytest.raises(ValueError, match=rf'x\.jsonl:1, image 0: {why}'):
    load.load_problems(task('jsonl', tmp_path / 'x.jsonl', fields={'images': 'seen'}))


def test_chats_of_parts_and_of_text(tmp_path):
  parts = [{'type': 'text', 'text': 'Is '}, {'type': 'image'}, {'type': 'text', 'text': ' red?'}]
  line = {'prompt': [{'role': 'user', 'content': parts}], 'answer': '1', 'seen': 'a.png'}
  write_lines(tmp_path / 'x.jsonl', [line])
  (problem,), _ = load.load_problems(
    task('jsonl', tmp_path / 'x.jsonl', fields={'images': 'seen'}, verifier='math')
  )
  assert problem.prompt == ({'role': 'user', 'content': 'Is <image> red?'},)
  assert render(problem, 'chat', Tokenizer()) == f'<user>Is {IMAGE} red?<assistant>'
  line['prompt'][0]['content'] = [{'type': 'video'}]
  write_lines(tmp_path / 'x.jsonl', [line])
  with pytest.raises(ValueError, match=r'x\.jsonl:1: a part of a message is .*video'):
    load.load_problems(task('jsonl', tmp_path / 'x.jsonl'))


class Tokenizer:
  chat_template = 'jinja'

  def apply_chat_template(self, conversation, *, tokenize, add_generation_prompt):
    return ''.join(f'<{m["role"]}>{m["content"]}' for m in conversation) + '<assistant>'


EASYR1 = (
  'You FIRST think about the reasoning process as an internal monologue and then provide the final '
  'answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer '
  'MUST BE put in \\boxed{}.'
)


def test_templates_place_images_as_the_harnesses_do():
  problem = seen(picture(), ' Find $x$. ')
  vision = '<|vision_start|><|image_pad|><|vision_end|>'
  assert render(problem, 'easyr1') == (
    '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant. '
    f'{EASYR1}<|im_end|>\n<|im_start|>user\n{vision}\n Find $x$. <|im_end|>\n'
    '<|im_start|>assistant\n'
  )
  assert render(problem, 'easyr1-user', Tokenizer()) == (
    f'<user>{vision}Find $x$. {EASYR1}<assistant>'
  )
  assert render(problem, 'mathvision', Tokenizer()) == (
    f'<user>{vision}Please solve the problem step by step and put your answer in one '
    '"\\boxed{}". If it is a multiple choice question, only one letter is allowed in the '
    '"\\boxed{}".\n Find $x$. \n<assistant>'
  )
  two = Problem('7', 'test', 'Which?', '1', images=problem.images * 2)
  assert render(two, 'easyr1').count(IMAGE_PAD) == 2
  assert f'user\n{vision}{vision}\nWhich?' in render(two, 'easyr1')


def test_images_and_marks_must_agree():
  with pytest.raises(ValueError, match='says <image> 2 times and it has 1 images'):
    render(seen(picture(), '<image> <image>'), 'raw')
  with pytest.raises(ValueError, match=r'has 2 times <\|image_pad\|> for 1 images'):
    render(seen(picture(), f'<image> {IMAGE_PAD}'), 'raw')
  # text of problems without images stays as it is
  assert render(Problem('1', 't', f'<image> {IMAGE_PAD}', '1'), 'raw') == f'<image> {IMAGE_PAD}'


def test_models_that_cannot_see_are_not_asked():
  with pytest.raises(ValueError, match=r"1 of 1 problems have images, e\.g\. '7'"):
    encode_prompts([seen(picture())], 'raw', Hf(), 100)
  with pytest.raises(ValueError, match='a server is given text only'):
    _prompt(seen(picture()), 'raw')


class Hf:
  hf = None


def test_mathvistas_queries():
  row = {'question': 'Which?', 'unit': None, 'choices': ['135°', '140°']}
  assert mathvista_query(row) == (
    'Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at '
    'the end.\nQuestion: Which?\nChoices:\n(A) 135°\n(B) 140°'
  )
  row = {'question': 'How old?', 'unit': 'years', 'answer_type': 'integer', 'precision': None}
  assert mathvista_query(row) == (
    'Hint: Please answer the question requiring an integer answer and provide the final value, '
    'e.g., 1, 2, 3, at the end.\nQuestion: How old? (Unit: years)'
  )
  assert lettered(['x', 'y', 'z']) == '(A) x\n(B) y\n(C) z'
  assert json.dumps(row)  # as it was
