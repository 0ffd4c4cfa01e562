"""job=data says what the files hold, and what the probe of a model counts."""

import json
import pathlib

import numpy as np
import pytest

from rlvr_jax import config as config_lib
from rlvr_jax.eval import data, memorised
from rlvr_jax.tasks import images

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES = [
  {'question': f'A farmer has {n} red and {n + 1} white hens and counts all of them. How many?',
   'answer': f'#### {2 * n + 1}'}
  for n in range(6)
]  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('RLVR_DATA_CACHE', str(tmp_path / 'cache'))
  folder = tmp_path / 'gsm8k'
  folder.mkdir()
  for name, rows in (('train', LINES), ('test', [*LINES[:1], *LINES[4:], *LINES[:1]])):
    (folder / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))

  def job(**overrides):
    overrides = {f'task.{k}' if '.' not in k else k: v for k, v in overrides.items()}
    config = config_lib.load_file(str(ROOT / 'configs' / 'data.py'))
    config = config_lib.resolve(config, {'task.path': str(folder), **overrides})
    workdir = tmp_path / 'run'
    workdir.mkdir(exist_ok=True)
    data.data(config, workdir)
    return json.loads((workdir / 'data.json').read_text()), capsys.readouterr().out, workdir

  return job


def test_what_is_shown(run):
  found, text, workdir = run(self_check='off', **{'data.ngram': 5})
  assert found['rows'] == {'train': 6, 'test': 4}
  assert found['licence'] == 'MIT'
  assert found['prepared']['test']['files'][0]['known'] is False
  assert found['prompt']['text'] == LINES[0]['question']
  assert found['prompt']['paper']['simplerl-zoo'] == 'qwen-boxed'
  assert sum(found['lengths']['train']['counts']) == 6
  assert found['lengths']['unit'] == 'characters'
  assert found['duplicates']['within'] == {'train': [], 'test': [['0', '3']]}
  (across,) = found['duplicates']['across']
  assert across['same'] == [['train-0', '0'], ['train-4', '1'], ['train-5', '2'], ['train-0', '3']]
  assert found['self_check']['test'] == {'verifiers': [], 'asked': 0, 'failing': {}}
  assert 'test: 1 problems repeat an earlier one (0 = 3)' in text
  shown, _, last = text.rstrip().rpartition('\nwritten: data.json')
  assert last
  assert (workdir / 'data.txt').read_text().rstrip() == shown.rstrip()
  assert '<html>' in (workdir / 'data.html').read_text().lower()


def test_a_second_task_and_one_split(run, tmp_path):
  other = tmp_path / 'other.jsonl'
  other.write_text(json.dumps({'question': LINES[2]['question'], 'answer': '5'}) + '\n')
  found, _, _ = run(
    split='train', self_check='off', template='qwen-boxed',
    **{'data.against': 'jsonl', 'data.against_path': str(other)},
  )  # fmt: skip
  assert found['rows'] == {'train': 6}
  (across,) = found['duplicates']['across']
  assert (across['first'], across['second']) == ('train', 'jsonl all')
  assert across['same'] == [['train-2', '0']]
  assert found['prompt']['text'].endswith('<|im_start|>assistant\n')


def test_the_probe_needs_a_model(run):
  with pytest.raises(ValueError, match=r'data\.probe=3 needs a model'):
    run(self_check='off', **{'data.probe': 3})


def test_a_question_is_cut_at_a_word_and_nothing_is_lost():
  shown, rest = memorised.cut_question('  One two three  four five. ', 0.6)
  assert (shown, rest) == ('One two three', '  four five.')
  assert memorised.cut_question('word', 0.6) == ('word', '')
  assert memorised.cut_question('a b', 0.99) == ('a', ' b')  # something is left to be written


@pytest.mark.parametrize(
  ('completion', 'share'),
  [
    (' four  five. And on', 1.0),
    ('\nfour five.', 1.0),
    (' four fix', 7 / 10),
    (' four', 4 / 10),
    ('', 0.0),
    ('other', 0.0),
  ],
)
def test_how_much_of_the_rest_is_written(completion, share):
  assert memorised.matched(completion, '  four five.') == share


def test_images_are_measured_and_missing_ones_named(run, tmp_path):
  row = {
    'question': 'How many?', 'unit': None, 'precision': None, 'answer': '3', 'choices': None,
    'question_type': 'free_form', 'answer_type': 'integer',
  }  # fmt: skip
  rows = [row | {'pid': str(n), 'image': f'images/{n}.png'} for n in (1, 2, 3, 4)]
  (tmp_path / 'images').mkdir()
  for n, side in ((1, 20), (2, 30), (4, 20)):
    picture = images.png(np.full((side, 10, 3), side, np.uint8))
    (tmp_path / 'images' / f'{n}.png').write_bytes(picture)
  (tmp_path / 'testmini.json').write_text(json.dumps(rows))
  found, text, _ = run(name='mathvista', path=str(tmp_path), template='easyr1')
  assert found['images']['test']['images'] == 3
  assert found['images']['test']['pixels'] == {'least': 200, 'median': 200, 'most': 300}
  assert list(found['images']['test']['refused']) == ['3']
  assert "problem mathvista/3, image 'images/3.png': there is no file" in text
  assert found['prompt']['text'].count('<|image_pad|>') == 1
  # the same question about another image is another problem
  assert found['duplicates']['within'] == {'test': [['1', '4']]}
  found, _, _ = run(name='shapes', path='', **{'task.params': {'problems': 9}})
  assert found['images']['all']['pixels'] == {'least': 3136, 'median': 3136, 'most': 3136}
