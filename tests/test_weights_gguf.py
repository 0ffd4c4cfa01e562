"""GGUF files: tensors dequantized into place, the header as a config, bad files refused."""

import dataclasses

import gguf
import gguf.quants
import jax
import numpy as np
import pytest

from rlvr_jax.models import hf, weights
from rlvr_jax.models.config import ModelConfig, RopeScaling
from rlvr_jax.models.gguf import GGUFFile, load_gguf, read_config, rope_divisors

BASE = ModelConfig(
  architecture='qwen2',
  vocab_size=40,
  embed_dim=64,
  mlp_dim=96,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=16,
  rope_theta=20_000.0,
  rms_eps=1e-5,
  tie_embeddings=False,
  qkv_bias=True,
  max_positions=128,
)
CONFIGS = {
  'qwen2': BASE,
  'llama': dataclasses.replace(BASE, architecture='llama', qkv_bias=False, tie_embeddings=True),
  'qwen3': dataclasses.replace(
    BASE, architecture='qwen3', qkv_bias=False, qk_norm=True, head_dim=32
  ),
}
# block formats that the gguf package can also write, and the plain ones
KINDS = ('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1')
GGUF_NAMES = {
  'embed': 'token_embd.weight',
  'final_norm': 'output_norm.weight',
  'head': 'output.weight',
  'attn_norm': 'blk.{}.attn_norm.weight',
  'mlp_norm': 'blk.{}.ffn_norm.weight',
  'q': 'blk.{}.attn_q.weight',
  'k': 'blk.{}.attn_k.weight',
  'v': 'blk.{}.attn_v.weight',
  'o': 'blk.{}.attn_output.weight',
  'q_bias': 'blk.{}.attn_q.bias',
  'k_bias': 'blk.{}.attn_k.bias',
  'v_bias': 'blk.{}.attn_v.bias',
  'q_norm': 'blk.{}.attn_q_norm.weight',
  'k_norm': 'blk.{}.attn_k_norm.weight',
  'gate': 'blk.{}.ffn_gate.weight',
  'up': 'blk.{}.ffn_up.weight',
  'down': 'blk.{}.ffn_down.weight',
}


def interleave(stored, heads):
  """What llama.cpp's converter does to llama's q and k, written as a loop over rows."""
  size = stored.shape[0] // heads
  out = np.empty_like(stored)
  for head in range(heads):
    for i in range(size // 2):
      out[head * size + 2 * i] = stored[head * size + i]
      out[head * size + 2 * i + 1] = stored[head * size + size // 2 + i]
  return out


def write(path, config, kind='F32', change=None, header=None):
  """A GGUF file of random weights; gives {our path: f32 array} as it should be read."""
  rng = np.random.default_rng(0)
  arch = config.architecture
  writer = gguf.GGUFWriter(path, arch)
  writer.add_block_count(config.num_layers)
  writer.add_context_length(config.max_positions)
  writer.add_embedding_length(config.embed_dim)
  writer.add_feed_forward_length(config.mlp_dim)
  writer.add_head_count(config.num_heads)
  writer.add_head_count_kv(config.num_kv_heads)
  writer.add_key_length(config.head_dim)
  writer.add_rope_freq_base(config.rope_theta)
  writer.add_layer_norm_rms_eps(config.rms_eps)
  for key, value in (header or {}).items():
    writer.add_key_value(key, *value)
  qtype = gguf.GGMLQuantizationType[kind]
  expected, tensors = {}, {}
  for leaf in weights.leaves(config):
    layers = []
    for layer in range(config.num_layers if leaf.stacked else 1):
      stored = rng.normal(size=leaf.hf_shape).astype(np.float32)
      name = GGUF_NAMES[leaf.path[-1]].format(layer)
      if arch == 'llama' and leaf.path[-1] in ('q', 'k'):
        heads = config.num_heads if leaf.path[-1] == 'q' else config.num_kv_heads
        file_order = interleave(stored, heads)
      else:
        file_order = stored
      if stored.ndim == 2:
        packed = gguf.quants.quantize(file_order, qtype)
        tensors[name] = (packed, qtype)
        # rows move whole and are quantized alone, so the order does not matter here
        stored = gguf.quants.dequantize(gguf.quants.quantize(stored, qtype), qtype)
      else:
        tensors[name] = (file_order, gguf.GGMLQuantizationType.F32)
      layers.append(leaf.from_hf(stored.reshape(leaf.hf_shape)))
    expected[leaf.path] = np.stack(layers) if leaf.stacked else layers[0]
  if change:
    change(tensors)
  for name, (value, raw) in tensors.items():
    writer.add_tensor(name, np.ascontiguousarray(value), raw_dtype=raw)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return expected


def assert_params(params, expected):
  found = {
    tuple(k.key for k in path): np.asarray(x)
    for path, x in jax.tree_util.tree_flatten_with_path(params)[0]
  }
  assert found.keys() == expected.keys()
  for path, value in expected.items():
    np.testing.assert_array_equal(found[path], value, err_msg=str(path))


@pytest.mark.parametrize('arch', CONFIGS)
def test_header_and_tensors(tmp_path, arch):
  config = CONFIGS[arch]
  expected = write(tmp_path / 'm.gguf', config)
  assert read_config(GGUFFile(tmp_path / 'm.gguf')) == config
  assert_params(load_gguf(tmp_path / 'm.gguf'), expected)


@pytest.mark.parametrize('kind', KINDS[1:])
def test_quantisations(tmp_path, kind):
  config = CONFIGS['llama']
  expected = write(tmp_path / 'm.gguf', config, kind)
  assert_params(load_gguf(tmp_path / 'm.gguf'), expected)


def test_every_type_the_package_dequantizes_is_let_through(tmp_path):
  """Types it can read but not write: bytes of zeros have a known meaning, all weights zero."""
  config = dataclasses.replace(CONFIGS['llama'], embed_dim=256, head_dim=64, mlp_dim=256)
  for kind in ('Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K', 'IQ4_XS', 'IQ2_XXS'):
    qtype = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[qtype]

    def zero(tensors, qtype=qtype, block=block, size=size):
      for name, (value, _) in list(tensors.items()):
        if value.ndim == 2:
          packed = np.zeros((value.shape[0], value.shape[1] // block * size), np.uint8)
          tensors[name] = (packed, qtype)

    write(tmp_path / f'{kind}.gguf', config, change=zero)
    params = load_gguf(tmp_path / f'{kind}.gguf')
    assert not np.asarray(params['layers']['down']).any()
    assert np.asarray(params['final_norm']).any()


def test_export_keeps_the_dequantized_weights(tmp_path):
  config = CONFIGS['llama']
  expected = write(tmp_path / 'm.gguf', config, 'Q4_0')
  hf.save_safetensors(tmp_path / 'out', load_gguf(tmp_path / 'm.gguf'), config)
  assert_params(hf.load_safetensors(tmp_path / 'out', hf.read_config(tmp_path / 'out')), expected)


@pytest.mark.parametrize('factor', [8.0, 32.0])
def test_llama3_scaling_comes_back_from_its_divisors(tmp_path, factor):
  scaling = RopeScaling(factor, 1.0, 4.0, 8192)
  config = dataclasses.replace(CONFIGS['llama'], rope_theta=500_000.0, head_dim=16)
  divisors = np.empty(8, np.float32)
  for i in range(8):  # the published rule, one frequency at a time
    wavelength = 2 * np.pi * 500_000.0 ** (2 * i / 16)
    if wavelength < 8192 / 4:
      divisors[i] = 1.0
    elif wavelength > 8192:
      divisors[i] = factor
    else:
      smooth = (8192 / wavelength - 1) / 3
      divisors[i] = 1 / ((1 - smooth) / factor + smooth)
  np.testing.assert_allclose(rope_divisors(scaling, 500_000.0, 16), divisors, rtol=1e-6)

  def add(tensors, values=divisors):
    tensors['rope_freqs.weight'] = (values, gguf.GGMLQuantizationType.F32)

  write(tmp_path / 'm.gguf', config, change=add)
  assert read_config(GGUFFile(tmp_path / 'm.gguf')).rope_scaling == scaling
  load_gguf(tmp_path / 'm.gguf')
  write(tmp_path / 'odd.gguf', config, change=lambda t: add(t, np.linspace(1, 3, 8, dtype='f4')))
  with pytest.raises(ValueError, match=r'rope_freqs.weight is not llama3 scaling'):
    read_config(GGUFFile(tmp_path / 'odd.gguf'))


def test_stop_ids_are_all_that_end_a_turn(tmp_path):
  tokens = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', 'a', '<|eot_id|>']
  number, array = (gguf.GGUFValueType[k] for k in ('UINT32', 'ARRAY'))
  header = {
    'tokenizer.ggml.tokens': (tokens, array),
    'tokenizer.ggml.token_type': ([3, 3, 3, 1, 1], array),
    'tokenizer.ggml.eos_token_id': (2, number),
  }
  write(tmp_path / 'm.gguf', BASE, header=header)
  # the last one is a plain token in this vocabulary, not a control token
  assert read_config(GGUFFile(tmp_path / 'm.gguf')).eos_ids == (2, 0)


def test_every_misfit_is_in_one_message(tmp_path):
  def spoil(tensors):
    del tensors['blk.1.ffn_up.weight']
    f32 = gguf.GGMLQuantizationType.F32
    tensors['blk.0.attn_v.weight'] = (np.zeros((8, 64), np.float32), f32)
    tensors['blk.0.attn_sinks.weight'] = (np.zeros(4, np.float32), f32)
    tensors['output_norm.weight'] = (np.zeros(64, np.int32), gguf.GGMLQuantizationType.I32)

  write(tmp_path / 'm.gguf', BASE, change=spoil)
  with pytest.raises(ValueError) as caught:
    load_gguf(tmp_path / 'm.gguf')
  message = str(caught.value)
  assert '4 tensors do not fit' in message
  assert 'missing: model.layers.1.mlp.up_proj.weight' in message
  assert 'v_proj.weight is [8, 64], expected [32, 64]' in message
  assert 'surplus: blk.0.attn_sinks.weight' in message
  assert 'model.norm.weight is I32' in message


def test_nan_is_refused_by_name(tmp_path):
  def spoil(tensors):
    tensors['blk.1.ffn_down.weight'][0][3, 4] = np.nan

  write(tmp_path / 'm.gguf', BASE, change=spoil)
  with pytest.raises(ValueError, match=r'NaN or infinite.*model.layers.1.mlp.down_proj.weight'):
    load_gguf(tmp_path / 'm.gguf')


def test_damaged_files_are_refused(tmp_path):
  path = tmp_path / 'm.gguf'
  write(path, BASE)
  whole = path.read_bytes()
  for keep in (4, 30, 200, len(whole) - 40):
    path.write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r'm.gguf \(\d+ bytes\) is truncated or no GGUF file'):
      GGUFFile(path)
  path.write_bytes(b'not a model at all, but text')
  with pytest.raises(ValueError, match='no GGUF file'):
    GGUFFile(path)
  path.write_bytes(b'')
  with pytest.raises(ValueError, match='no GGUF file'):
    GGUFFile(path)
  with pytest.raises(ValueError, match='does not exist'):
    GGUFFile(tmp_path / 'none.gguf')


@pytest.mark.parametrize(
  ('header', 'message'),
  [
    ({'qwen2.rope.scaling.type': ('yarn', gguf.GGUFValueType.STRING)}, "rope scaling 'yarn'"),
    ({'qwen2.attention.sliding_window': (64, gguf.GGUFValueType.UINT32)}, 'sliding'),
    ({'qwen2.expert_count': (8, gguf.GGUFValueType.UINT32)}, 'experts'),
    ({'qwen2.rope.dimension_count': (8, gguf.GGUFValueType.UINT32)}, 'over 8 of 16'),
  ],
)
def test_unsupported_headers_say_why(tmp_path, header, message):
  write(tmp_path / 'm.gguf', BASE, header=header)
  with pytest.raises(ValueError, match=message):
    read_config(GGUFFile(tmp_path / 'm.gguf'))


def test_unknown_architecture_and_missing_keys(tmp_path):
  for arch, message in (
    ('rwkv6', r"architecture='rwkv6'.*known: llama"),
    ('llama', r'lacks llama'),
  ):
    writer = gguf.GGUFWriter(tmp_path / 'm.gguf', arch)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match=message):
      read_config(GGUFFile(tmp_path / 'm.gguf'))
