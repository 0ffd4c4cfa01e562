"""What is exported from a checkpoint is that checkpoint, as Hugging Face transformers reads it."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import export as config_file
from rlvr_jax import checkpoint, export
from rlvr_jax import config as config_lib
from rlvr_jax.models import load, runs
from rlvr_jax.models.characters import char_tokenizer
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.transformer import forward
from rlvr_jax.rl.types import TrainState

TEMPLATE = "{% for m in messages %}{{ m['content'] }}={% endfor %}"


@pytest.fixture(scope='module', autouse=True)
def quick():
  """Programs that compile fast: what they compute is the same to rounding."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run with one checkpoint, at temperature 0.8, whose tokenizer has a chat template."""
  workdir = tmp_path_factory.mktemp('export') / 'x'
  config, params = tiny.make()
  tokenizer = char_tokenizer('0123456789+-*=, ')
  tokenizer.hf.chat_template = TEMPLATE
  config = dataclasses.replace(config, eos_ids=(1, 7))
  with checkpoint.Checkpointer(workdir / 'checkpoints') as saver:
    saver.save(3, TrainState(jnp.int32(3), params, {'m': jnp.ones(2)}), {})
  tokenizer = dataclasses.replace(tokenizer, eos_ids=(1, 7))
  runs.write_form(workdir, config, tokenizer, dtype='float32', temperature=0.8, top_p=0.9)
  return workdir


def exported(run, to, **more):
  config = config_lib.resolve(
    config_file.get_config(), {'run': f'{run}@step:3', 'to': str(to)} | more
  )
  export.export(config, to.parent)
  return to


def test_an_export_is_the_checkpoint_with_all_that_sampling_needs(run, tmp_path):
  to = exported(run, tmp_path / 'model')
  config, params, tokenizer = load.load_model(to)
  expected_config, expected, _ = load.load_model(run)
  assert config == expected_config
  jax.tree.map(np.testing.assert_array_equal, params, expected)
  assert tokenizer.chat([{'role': 'user', 'content': '1+2'}]) == '1+2='
  generation = json.loads((to / 'generation_config.json').read_text())
  assert generation['eos_token_id'] == [1, 7]
  assert (generation['temperature'], generation['top_p'], generation['top_k']) == (0.8, 0.9, 0)
  assert generation['do_sample'] is True


def test_half_the_bytes_where_bfloat16_is_asked_for(run, tmp_path):
  to = exported(run, tmp_path / 'model', to_dtype='bfloat16')
  _, params, _ = load.load_model(to, dtype='bfloat16')
  _, expected, _ = load.load_model(run, dtype='bfloat16')
  jax.tree.map(np.testing.assert_array_equal, params, expected)
  assert json.loads((to / 'config.json').read_text())['torch_dtype'] == 'bfloat16'


def test_refusals(run, tmp_path):
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'file').write_text('')
  with pytest.raises(ValueError, match=r"to='\S+/full' already exists and is not empty"):
    exported(run, tmp_path / 'full')
  with pytest.raises(ValueError, match=r"to_dtype='int8': must be float32, bfloat16 or ''"):
    exported(run, tmp_path / 'model', to_dtype='int8')
  config = config_lib.resolve(config_file.get_config(), {'run': 'runs/x'})
  with pytest.raises(
    ValueError, match=r'needs what and whereto: --config\.run=runs/x --config\.to=DIR'
  ):
    export.export(config, tmp_path)


def hf_logits(path: pathlib.Path, tokens: np.ndarray) -> np.ndarray:
  torch = pytest.importorskip('torch', reason='torch is not installed (the parity extra)')
  transformers = pytest.importorskip('transformers')
  model, info = transformers.AutoModelForCausalLM.from_pretrained(
    path, dtype=torch.float32, attn_implementation='eager', output_loading_info=True
  )
  assert not any(info.values()), info
  assert model.generation_config.eos_token_id == [1, 7]
  assert model.generation_config.temperature == 0.8
  with torch.no_grad():
    return model(torch.tensor(tokens)).logits.numpy()


@pytest.mark.check
def test_hf_transformers_computes_the_same_from_an_export(run, tmp_path):
  to = exported(run, tmp_path / 'model')
  tokens = np.random.default_rng(0).integers(0, 400, (2, 12))
  config, params, _ = load.load_model(run)
  positions = jnp.broadcast_to(jnp.arange(12, dtype=jnp.int32), (2, 12))
  hidden, _ = forward(params, jnp.asarray(tokens, jnp.int32), positions, config=config)
  ours = np.asarray(logits(params, hidden))
  assert np.abs(ours).max() > 2
  np.testing.assert_allclose(hf_logits(to, tokens), ours, rtol=0, atol=1e-4)
