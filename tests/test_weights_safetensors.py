"""Model directories: read and written bit for bit, and every misfit named in one message."""

import dataclasses
import json
import pathlib
import shutil
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from rlvr_jax.models import hf, weights
from rlvr_jax.models.config import ModelConfig, RopeScaling
from rlvr_jax.models.rules import TRAIN_RULES
from rlvr_jax.sharding import make_mesh, shardings

ROOT = pathlib.Path(__file__).parent / 'goldens' / 'logits'
NAMES = tuple(sorted(p.name for p in ROOT.iterdir()))
SMALL = ModelConfig(
  architecture='qwen2',
  vocab_size=32,
  embed_dim=16,
  mlp_dim=24,
  num_layers=3,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  tie_embeddings=False,
  qkv_bias=True,
  eos_ids=(3, 4),
  bos_id=1,
)


def random_params(seed, config, dtype='float32'):
  """numpy params of any values, without compiling an initialiser."""
  rng = np.random.default_rng(seed)
  params = {'layers': {}}
  for leaf in weights.leaves(config):
    shape = (config.num_layers, *leaf.shape) if leaf.stacked else leaf.shape
    home = params['layers'] if leaf.stacked else params
    home[leaf.path[-1]] = rng.normal(size=shape).astype(jnp.dtype(dtype))
  return params


def bits(tree):
  return {jax.tree_util.keystr(k): np.asarray(x).tobytes() for k, x in _leaves(tree)}


def _leaves(tree):
  return jax.tree_util.tree_flatten_with_path(tree)[0]


def saved(tmp_path, params=None, config=SMALL, **kwargs):
  directory = tmp_path / 'model'
  hf.save_safetensors(directory, params or random_params(0, config), config, **kwargs)
  return directory


def edit(directory, change):
  """Rewrites model.safetensors after change(dict of tensors)."""
  path = directory / 'model.safetensors'
  tensors = dict(safetensors.numpy.load_file(path))
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize('name', NAMES)
def test_files_written_by_hf_come_back_bit_for_bit(name, tmp_path):
  config = hf.read_config(ROOT / name)
  hf.save_safetensors(tmp_path / 'out', hf.load_safetensors(ROOT / name, config), config)
  theirs = safetensors.numpy.load_file(ROOT / name / 'model.safetensors')
  ours = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  assert ours.keys() == theirs.keys()
  for tensor, value in theirs.items():
    assert ours[tensor].shape == value.shape
    assert ours[tensor].tobytes() == value.tobytes(), tensor
  assert hf.read_config(tmp_path / 'out') == config


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('shard_bytes', [5e9, 3000])
def test_round_trip_of_shards_and_dtypes(tmp_path, dtype, shard_bytes):
  params = random_params(1, SMALL, dtype)
  directory = saved(tmp_path, params, max_shard_bytes=shard_bytes)
  files = sorted(directory.glob('*.safetensors'))
  assert (len(files) > 3) == (shard_bytes == 3000)
  if len(files) > 1:
    index = json.loads((directory / 'model.safetensors.index.json').read_text())
    assert set(index['weight_map'].values()) == {f.name for f in files}
    assert index['metadata']['total_size'] == sum(x.nbytes for x in jax.tree.leaves(params))
    assert all(f.stat().st_size < 3000 + 2000 for f in files)
  assert json.loads((directory / 'config.json').read_text())['torch_dtype'] == dtype
  assert all(f.stat().st_mode & 0o444 == 0o444 for f in directory.iterdir())
  assert bits(hf.load_safetensors(directory, SMALL, dtype)) == bits(params)


def test_half_precision_files_widen_exactly(tmp_path):
  params = random_params(2, SMALL)
  directory = saved(tmp_path, params)
  for stored in (np.float16, ml_dtypes.bfloat16):
    halved = jax.tree.map(lambda x, d=stored: np.asarray(x).astype(d).astype(np.float32), params)
    target = tmp_path / np.dtype(stored).name
    shutil.copytree(directory, target)
    edit(target, lambda t, d=stored: t.update({k: v.astype(d) for k, v in t.items()}))
    assert bits(hf.load_safetensors(target, SMALL)) == bits(halved)


def test_sharded_load_equals_the_whole(tmp_path):
  params = random_params(3, SMALL)
  directory = saved(tmp_path, params)
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  placed = shardings(params, TRAIN_RULES, mesh)
  loaded = hf.load_safetensors(directory, SMALL, shardings=placed)
  assert bits(loaded) == bits(params)
  for (_, x), (_, s) in zip(_leaves(loaded), _leaves(placed), strict=True):
    assert x.sharding.is_equivalent_to(s, x.ndim)
  # heads cut inside, as no rule of ours does but a user's may
  odd = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data', None, None, 'tensor'))
  config = dataclasses.replace(SMALL, num_layers=2)
  params = random_params(4, config)
  directory = saved(tmp_path / 'two', params, config)
  placed = shardings(params, TRAIN_RULES, mesh)
  placed['layers']['q'] = placed['layers']['o'] = odd
  assert bits(hf.load_safetensors(directory, config, shardings=placed)) == bits(params)


def test_at_most_one_leaf_beyond_the_result(tmp_path):
  config = dataclasses.replace(SMALL, vocab_size=512, embed_dim=128, mlp_dim=512, num_layers=8)
  params = random_params(5, config)
  sizes = [x.nbytes for x in jax.tree.leaves(params)]
  directory = saved(tmp_path, params, config)
  hf.load_safetensors(directory, config)
  tracemalloc.start()
  hf.load_safetensors(directory, config)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  # numpy's memory alone, which may or may not alias the result's buffers
  assert peak < sum(sizes) + max(sizes) + 2**18


def test_every_misfit_is_in_one_message(tmp_path):
  directory = saved(tmp_path)

  def spoil(tensors):
    del tensors['model.layers.1.mlp.up_proj.weight']
    tensors['model.layers.0.self_attn.q_proj.weight'] = np.zeros((3, 16), np.float32)
    tensors['model.layers.3.input_layernorm.weight'] = np.zeros(16, np.float32)
    tensors['model.norm.weight'] = np.ones(16, np.int32)
    tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(2, np.float32)

  edit(directory, spoil)
  with pytest.raises(ValueError) as caught:
    hf.load_safetensors(directory, SMALL)
  message = str(caught.value)
  assert 'model: 4 tensors do not fit the qwen2 config' in message
  assert 'missing: model.layers.1.mlp.up_proj.weight [24, 16]' in message
  assert 'q_proj.weight is [3, 16], expected [16, 16]' in message
  assert 'surplus: model.layers.3.input_layernorm.weight' in message
  assert 'model.norm.weight is I32' in message


def test_truncated_missing_and_absent_weights(tmp_path):
  directory = saved(tmp_path, max_shard_bytes=3000)
  shards = sorted(directory.glob('*.safetensors'))
  shard = shards[1]
  whole = shard.read_bytes()
  shard.write_bytes(whole[:-7])
  with pytest.raises(ValueError, match=r'00002-of.*truncated or damaged.*fetch the file again'):
    hf.load_safetensors(directory, SMALL)
  shard.unlink()
  with pytest.raises(
    ValueError, match=rf'1 of {len(shards)} weight files are missing: model-00002'
  ):
    hf.load_safetensors(directory, SMALL)
  for path in directory.glob('*.safetensors*'):
    path.unlink()
  (directory / 'pytorch_model.bin').touch()
  with pytest.raises(ValueError, match=r'has no weights.*pytorch_model.bin would have to be'):
    hf.load_safetensors(directory, SMALL)


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16])
def test_non_finite_weights_are_refused_by_name(tmp_path, value, dtype):
  directory = saved(tmp_path)

  def spoil(tensors):
    tensors.update({k: v.astype(dtype) for k, v in tensors.items()})
    for name in ('model.layers.2.mlp.down_proj.weight', 'lm_head.weight'):
      tensors[name][1, 2] = value

  edit(directory, spoil)
  names = r'2 tensors: lm_head.weight, model.layers.2.mlp.down_proj.weight'
  with pytest.raises(ValueError, match=r'NaN or infinite values in ' + names):
    hf.load_safetensors(directory, SMALL)
  params = hf.load_safetensors(directory, SMALL, check_finite=False)
  assert not bool(jnp.isfinite(params['head'][1, 2]))


def test_tied_head_stored_again_has_to_be_the_embedding(tmp_path):
  config = dataclasses.replace(SMALL, tie_embeddings=True)
  directory = saved(tmp_path, config=config)
  edit(directory, lambda t: t.update({'lm_head.weight': t['model.embed_tokens.weight'].copy()}))
  assert 'head' not in hf.load_safetensors(directory, config)
  edit(directory, lambda t: t.update({'lm_head.weight': t['lm_head.weight'] + 1}))
  with pytest.raises(ValueError, match='tie_word_embeddings'):
    hf.load_safetensors(directory, config)


def test_saving_refuses_what_would_mislead(tmp_path):
  params = random_params(0, SMALL)
  directory = saved(tmp_path, params)
  with pytest.raises(ValueError, match='already exists and is not empty'):
    hf.save_safetensors(directory, params, SMALL)
  fewer = {**params, 'layers': {k: v for k, v in params['layers'].items() if k != 'q_bias'}}
  fewer['embed'] = params['embed'][:-1]
  with pytest.raises(ValueError) as caught:
    hf.save_safetensors(tmp_path / 'b', fewer, SMALL)
  assert 'embed is (31, 16), expected (32, 16)' in str(caught.value)
  assert 'layers.q_bias is missing, expected (3, 4, 4)' in str(caught.value)
  assert [p.name for p in tmp_path.iterdir()] == ['model']
  with pytest.raises(ValueError, match='no architecture that HF can load'):
    hf.config_json(dataclasses.replace(SMALL, qkv_bias=False))


def test_the_table_places_single_elements():
  """One element each, followed by hand from HF's layout to ours."""
  config = SMALL
  table = {leaf.path[-1]: leaf for leaf in weights.leaves(config)}
  rng = np.random.default_rng(0)
  q = rng.normal(size=(16, 16)).astype(np.float32)  # [N*H, D]
  o = rng.normal(size=(16, 16)).astype(np.float32)  # [D, N*H]
  down = rng.normal(size=(16, 24)).astype(np.float32)  # [D, F]
  assert table['q'].from_hf(q)[5, 2, 3] == q[2 * 4 + 3, 5]
  assert table['o'].from_hf(o)[2, 3, 5] == o[5, 2 * 4 + 3]
  assert table['down'].from_hf(down)[20, 7] == down[7, 20]
  for name, stored in (('q', q), ('o', o), ('down', down)):
    assert np.array_equal(table[name].to_hf(table[name].from_hf(stored)), stored)


OLD_FORM = {
  'model_type': 'llama',
  'vocab_size': 128,
  'hidden_size': 32,
  'intermediate_size': 64,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'rope_theta': 500000.0,
  'rope_scaling': {
    'factor': 32.0,
    'high_freq_factor': 4.0,
    'low_freq_factor': 1.0,
    'original_max_position_embeddings': 8192,
    'rope_type': 'llama3',
  },
}


def test_old_and_new_config_forms_agree():
  new = {k: v for k, v in OLD_FORM.items() if not k.startswith('rope')}
  new['rope_parameters'] = {**OLD_FORM['rope_scaling'], 'rope_theta': 500000.0}
  assert hf.parse_config(new) == hf.parse_config(OLD_FORM)
  config = hf.parse_config(OLD_FORM, {'eos_token_id': [7, 8]})
  assert config.rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)
  assert (config.rope_theta, config.head_dim, config.eos_ids) == (500000.0, 8, (7, 8))
  assert not config.tie_embeddings
  assert hf.parse_config(hf.config_json(config)) == config


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'model_type': 'mamba'}, r"model_type='mamba'.*known: llama, qwen2, qwen2_5_vl, qwen3"),
    ({'model_type': None}, r'model_type=None'),
    ({'hidden_size': None, 'vocab_size': '9'}, r'missing or not an integer: vocab_size, hidden'),
    ({'rope_scaling': {'type': 'yarn', 'factor': 4.0}}, r"rope scaling 'yarn'.*remove"),
    ({'rope_scaling': {'rope_type': 'llama3', 'factor': 4.0}}, r'lacks low_freq_factor'),
    ({'model_type': 'qwen2', 'use_sliding_window': True}, r'sliding attention window'),
    ({'layer_types': ['full_attention', 'sliding_attention']}, r'layer_types'),
    ({'attention_bias': True, 'hidden_act': 'gelu'}, r"'gelu'.*attention_bias=true"),
    ({'quantization_config': {'quant_method': 'awq'}}, r'awq.*unquantised'),
    ({'partial_rotary_factor': 0.5}, r'partial_rotary_factor=0.5'),
    ({'num_key_value_heads': 3}, r'not a multiple'),
  ],
)
def test_configs_we_cannot_run_say_why(tmp_path, change, message):
  (tmp_path / 'config.json').write_text(json.dumps({**OLD_FORM, **change}))
  with pytest.raises(ValueError, match=message):
    hf.read_config(tmp_path)


def test_sliding_window_switched_off_is_fine():
  off = {**OLD_FORM, 'model_type': 'qwen2', 'use_sliding_window': False, 'sliding_window': 4096}
  assert hf.parse_config({**off, 'rope_scaling': None}).qkv_bias


def test_config_that_is_not_json(tmp_path):
  with pytest.raises(ValueError, match=r'has no config.json'):
    hf.read_config(tmp_path)
  (tmp_path / 'config.json').write_text('{"a": 1,')
  with pytest.raises(ValueError, match=r'config.json is not JSON'):
    hf.read_config(tmp_path)
