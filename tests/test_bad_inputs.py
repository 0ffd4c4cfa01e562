"""docs/bad_inputs.md is true: each of its rows is done here and gives the message it promises."""

import dataclasses
import pathlib
import re
import types
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from configs import base
from rlvr_jax import command_line, sharding
from rlvr_jax import config as config_lib
from rlvr_jax.eval import run
from rlvr_jax.models import hf, transformer
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.tasks import images, jsonl
from rlvr_jax.tasks.datasets import sources
from rlvr_jax.tasks.datasets.benchmark import Source
from rlvr_jax.tasks.datasets.table import find
from rlvr_jax.tasks.load import load_problems
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Image, Problem

PAGE = pathlib.Path(__file__).resolve().parent.parent / 'docs' / 'bad_inputs.md'
MODEL = ModelConfig('llama', 32, 8, 16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4)
WEIGHTS = 'model.safetensors'
FIRST_Q = 'model.layers.0.self_attn.q_proj.weight'


def promised() -> dict[str, str]:
  """Row name -> message, in which '…' stands for what differs from case to case."""
  rows = re.findall(r'^\| ([^|]+?) \| `([^`]+)` \|$', PAGE.read_text(), flags=re.MULTILINE)
  return dict(rows)


@pytest.fixture
def model_dir(tmp_path) -> pathlib.Path:
  """A whole, tiny model directory."""
  hf.save_safetensors(tmp_path / 'model', transformer.init_params(jax.random.key(0), MODEL), MODEL)
  return tmp_path / 'model'


def edit_weights(directory: pathlib.Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
  tensors = {k: v.copy() for k, v in safetensors_numpy.load_file(directory / WEIGHTS).items()}
  change(tensors)
  safetensors_numpy.save_file(tensors, directory / WEIGHTS)


def load(directory: pathlib.Path) -> None:
  hf.load_safetensors(directory, hf.read_config(directory))


def missing_weights(tmp_path, model_dir):
  (model_dir / WEIGHTS).unlink()
  load(model_dir)


def truncated_safetensors(tmp_path, model_dir):
  path = model_dir / WEIGHTS
  path.write_bytes(path.read_bytes()[:-100])
  load(model_dir)


def wrong_shape(tmp_path, model_dir):
  edit_weights(model_dir, lambda t: t.update({FIRST_Q: t[FIRST_Q][:4].copy()}))
  load(model_dir)


def nan_weights(tmp_path, model_dir):
  edit_weights(model_dir, lambda t: t[FIRST_Q].fill(np.nan))
  load(model_dir)


def unknown_architecture(tmp_path, model_dir):
  path = model_dir / 'config.json'
  path.write_text(path.read_text().replace('"llama"', '"mamba"'))
  load(model_dir)


def bad_jsonl_line(tmp_path, model_dir):
  path = tmp_path / 'problems.jsonl'
  path.write_text('{"question": "1+1?", "answer": "2"}\n{"question": "2+2?", "answer"\n')
  jsonl.load_jsonl(path, task='sums')


def missing_answer_field(tmp_path, model_dir):
  path = tmp_path / 'problems.jsonl'
  path.write_text('{"question": "1+1?", "anwser": "2"}\n')
  jsonl.load_jsonl(path, task='sums')


def gold_that_does_not_verify(tmp_path, model_dir):
  path = tmp_path / 'problems.jsonl'
  path.write_text('{"question": "1/2?", "answer": "\\\\frac{1}{2"}\n')
  config = base.get_config()
  config.task.update({'name': 'jsonl', 'path': str(path)})
  load_problems(config.task)


def unknown_task(tmp_path, model_dir):
  config = base.get_config()
  config.task.name = 'gsm8'
  load_problems(config.task)


def benchmark_without_network(tmp_path, model_dir):
  nobody = Source('test', 'http://127.0.0.1:9/test.jsonl', ('test.jsonl',))
  sources.find_files('gsm8k', dataclasses.replace(find('gsm8k'), sources=(nobody,)), '', ())


def misspelt_key(tmp_path, model_dir):
  words = ['main.py', f'--config={base.__file__}', '--config.train.gruop=8']
  command_line.check_flags(words)


def prompt_longer_than_the_cache(tmp_path, model_dir):
  letters = types.SimpleNamespace(hf=None, encode=lambda text, special: list(text.encode()))
  problem = Problem('p1', 'sums', 'what is 1+1? ' * 10, '2')
  run.encode_prompts([problem], 'raw', cast(Any, letters), capacity=64)


def _seen(data: bytes) -> Problem:
  return Problem('p1', 'angles', 'How wide?', '60', images=(Image('a.png', data=data),))


def missing_image(tmp_path, model_dir):
  (tmp_path / 'x.jsonl').write_text('{"question": "How wide?", "answer": "60", "seen": "a.png"}\n')
  (problem,) = jsonl.load_jsonl(tmp_path / 'x.jsonl', task='angles', fields={'images': 'seen'})
  images.pixels(problem)


def damaged_image(tmp_path, model_dir):
  images.pixels(_seen(images.png(np.zeros((30, 30, 3), np.uint8))[:-30]))


def unknown_kind_of_image(tmp_path, model_dir):
  images.pixels(_seen(b'<svg xmlns="http://www.w3.org/2000/svg"/>'))


def huge_image(tmp_path, model_dir):
  images.pixels(_seen(images.png(np.zeros((100, 400_000, 3), np.uint8))))


def images_for_a_model_that_cannot_see(tmp_path, model_dir):
  letters = types.SimpleNamespace(hf=None, encode=lambda text, special: list(text.encode()))
  problem = _seen(images.png(np.zeros((30, 30, 3), np.uint8)))
  run.encode_prompts([problem], 'raw', cast(Any, letters), capacity=64)


def unwritable_workdir(tmp_path, model_dir):
  (tmp_path / 'file').write_text('')
  config_lib.prepare_workdir(tmp_path / 'file' / 'run')


def unknown_part_of_a_reward(tmp_path, model_dir):
  config_lib.resolve(base.get_config(), {'reward.parts': {'corect': 1.0}})


def task_file_without_problems(tmp_path, model_dir):
  path = tmp_path / 'own_task.py'
  path.write_text('def verify(problem, completion):\n  return True\n')
  config_lib.resolve(base.get_config(), {'task.module': str(path)})


def mesh_that_does_not_divide(tmp_path, model_dir):
  sharding.make_mesh(3, -1, 1)


def verifier_that_hangs(tmp_path, model_dir):
  path = tmp_path / 'mine.py'
  path.write_text('def verify(problem, completion):\n  while True:\n    pass\n')
  problem = Problem('p1', 'sums', '1+1?', '2', {'verifier': f'{path}:verify'})
  with VerifierPool(1, limit_s=0.5) as pool:
    (verdict,) = pool.verify([(problem, '2')])
  assert verdict.reward == 0
  raise ValueError(f'verdict {verdict.verdict}: {verdict.reason}')


CASES = {
  case.__name__.replace('_', ' '): case
  for case in (
    missing_weights,
    truncated_safetensors,
    wrong_shape,
    nan_weights,
    unknown_architecture,
    bad_jsonl_line,
    missing_answer_field,
    gold_that_does_not_verify,
    unknown_task,
    benchmark_without_network,
    misspelt_key,
    prompt_longer_than_the_cache,
    missing_image,
    damaged_image,
    unknown_kind_of_image,
    huge_image,
    images_for_a_model_that_cannot_see,
    unwritable_workdir,
    unknown_part_of_a_reward,
    task_file_without_problems,
    mesh_that_does_not_divide,
    verifier_that_hangs,
  )
}


@pytest.mark.parametrize('name', CASES)
def test_bad_input_gives_the_message_of_the_page(name, tmp_path, model_dir):
  with pytest.raises((ValueError, OSError)) as caught:
    CASES[name](tmp_path, model_dir)
  said = ' '.join(str(caught.value).split())
  pattern = '.*'.join(re.escape(part) for part in promised()[name].split('…'))
  assert re.fullmatch(pattern, said), said


def test_every_row_of_the_page_is_tested():
  assert set(promised()) == set(CASES)
