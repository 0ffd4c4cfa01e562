"""Qwen2.5-VL's directories come back bit for bit; pixels are cut as HF's processor cuts them."""

import dataclasses
import io
import json
import pathlib
import shutil

import jax
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from rlvr_jax.models import hf, images, processor, runs
from rlvr_jax.models.known import KNOWN
from rlvr_jax.models.rules import DECODE_RULES, TRAIN_RULES
from rlvr_jax.models.transformer import init_params, unstack
from rlvr_jax.sharding import make_mesh, shardings

ROOT = pathlib.Path(__file__).parent / 'goldens' / 'vision'
NAMES = ('tied', 'untied')
TOWER = KNOWN['Qwen/Qwen2.5-VL-7B-Instruct'].vision


def edit(directory, change):
  path = directory / 'model.safetensors'
  tensors = dict(safetensors.numpy.load_file(path))
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize('name', NAMES)
def test_files_written_by_hf_come_back_bit_for_bit(name, tmp_path):
  config = hf.read_config(ROOT / name)
  params = hf.load_safetensors(ROOT / name, config)
  hf.save_safetensors(tmp_path / 'out', params, config)
  theirs = safetensors.numpy.load_file(ROOT / name / 'model.safetensors')
  ours = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  assert ours.keys() == theirs.keys()
  for tensor, value in theirs.items():
    assert (ours[tensor].shape, ours[tensor].dtype) == (value.shape, value.dtype)
    assert ours[tensor].tobytes() == value.tobytes(), tensor
  assert hf.read_config(tmp_path / 'out') == config
  assert config.vision.num_layers == {'tied': 3, 'untied': 4}[name]
  assert config.mrope == {'tied': (2, 1, 1), 'untied': (1, 1, 2)}[name]


def test_newer_names_and_the_hubs_flat_config(tmp_path):
  """transformers' own names of tensors, and a config.json with the decoder's keys on top."""
  shutil.copytree(ROOT / 'tied', tmp_path / 'new')
  config = hf.read_config(ROOT / 'tied')

  def rename(tensors):
    for name in list(tensors):
      newer = f'model.{name}' if name.startswith('visual') else name
      newer = newer.replace('model.layers', 'model.language_model.layers')
      newer = newer.replace('model.embed', 'model.language_model.embed')
      tensors[newer.replace('model.norm', 'model.language_model.norm')] = tensors.pop(name)

  edit(tmp_path / 'new', rename)
  for a, b in zip(
    jax.tree.leaves(hf.load_safetensors(tmp_path / 'new', config)),
    jax.tree.leaves(hf.load_safetensors(ROOT / 'tied', config)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  flat = {
    'model_type': 'qwen2_5_vl',
    'attention_dropout': 0.0,
    'bos_token_id': 151643,
    'eos_token_id': 151645,
    'vision_start_token_id': 151652,
    'vision_end_token_id': 151653,
    'image_token_id': 151655,
    'video_token_id': 151656,
    'hidden_act': 'silu',
    'hidden_size': 3584,
    'intermediate_size': 18944,
    'max_position_embeddings': 128000,
    'max_window_layers': 28,
    'num_attention_heads': 28,
    'num_hidden_layers': 28,
    'num_key_value_heads': 4,
    'rms_norm_eps': 1e-06,
    'rope_theta': 1000000.0,
    'sliding_window': 32768,
    'tie_word_embeddings': False,
    'use_sliding_window': False,
    'vision_config': {
      'depth': 32,
      'hidden_act': 'silu',
      'hidden_size': 1280,
      'intermediate_size': 3420,
      'num_heads': 16,
      'in_chans': 3,
      'out_hidden_size': 3584,
      'patch_size': 14,
      'spatial_merge_size': 2,
      'spatial_patch_size': 14,
      'window_size': 112,
      'fullatt_block_indexes': [7, 15, 23, 31],
      'tokens_per_second': 2,
      'temporal_patch_size': 2,
    },
    'rope_scaling': {'type': 'mrope', 'mrope_section': [16, 24, 24]},
    'vocab_size': 152064,
  }
  pixels = {'min_pixels': 3136, 'max_pixels': 12845056}
  found = hf.parse_config(flat, {'eos_token_id': [151645, 151643]}, processor=pixels)
  known = KNOWN['Qwen/Qwen2.5-VL-7B-Instruct']
  assert dataclasses.replace(found, eos_ids=(), bos_id=None) == known
  assert found.eos_ids == (151645, 151643)
  again = hf.parse_config(
    hf.config_json(found), {'eos_token_id': [151645, 151643]}, processor=pixels
  )
  assert again == found


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'vision_config': None}, 'without a vision_config'),
    ({'vision_config': {'hidden_act': 'gelu'}}, "hidden_act='gelu'"),
    ({'vision_config': {'patch_size': [14, 14]}}, 'not an integer: patch_size'),
    ({'text_config': {'rope_parameters': {'rope_type': 'default'}}}, 'mrope_section=None'),
    ({'vision_config': {'out_hidden_size': 64}}, "out_dim=64 must be the decoder's embed_dim=32"),
    ({'vision_config': {'window_size': 20}}, 'window=20 is not a multiple'),
    ({'vision_config': {'fullatt_block_indexes': [3]}}, r'full_layers=\(3,\), but num_layers=3'),
  ],
)
def test_a_config_that_is_not_computed_here(change, message):
  config = json.loads((ROOT / 'tied' / 'config.json').read_text())
  for key, value in change.items():
    config[key] = {**config[key], **value} if isinstance(value, dict) else value
  with pytest.raises(ValueError, match=message):
    hf.parse_config(config)


def test_every_misfit_of_the_tower_is_named_at_once(tmp_path):
  shutil.copytree(ROOT / 'tied', tmp_path / 'bad')

  def spoil(tensors):
    del tensors['visual.merger.ln_q.weight']
    tensors['visual.blocks.3.norm1.weight'] = np.zeros(4, np.float32)
    tensors['visual.patch_embed.proj.weight'] = np.zeros((32, 3, 2, 4, 5), np.float32)

  edit(tmp_path / 'bad', spoil)
  with pytest.raises(ValueError, match='3 tensors do not fit the qwen2_5_vl config') as error:
    hf.load_safetensors(tmp_path / 'bad', hf.read_config(tmp_path / 'bad'))
  for part in (
    'missing: visual.merger.ln_q.weight',
    'surplus: visual.blocks.3.norm1.weight',
    'visual.patch_embed.proj.weight is [32, 3, 2, 4, 5], expected [32, 3, 2, 4, 4]',
  ):
    assert part in str(error.value)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_mesh_holds_every_array(dtype):
  """Every leaf of the published shapes has a rule, in the learner's form and the sampler's."""
  mesh = make_mesh(data=1, fsdp=4, tensor=2)
  for name in ('3B', '7B'):
    config = KNOWN[f'Qwen/Qwen2.5-VL-{name}-Instruct']
    params = jax.eval_shape(lambda c=config: init_params(jax.random.key(0), c, dtype))
    for tree, rules in (
      (params, TRAIN_RULES),
      (jax.eval_shape(unstack, params), DECODE_RULES),
    ):
      placed = shardings(tree, rules, mesh)
      if rules is DECODE_RULES:  # the tower runs once a prompt, and is whole on every device
        del tree['vision'], placed['vision']
      split = [
        leaf.size // np.prod(where.shard_shape(leaf.shape), dtype=int)
        for leaf, where in zip(jax.tree.leaves(tree), jax.tree.leaves(placed), strict=True)
        if leaf.size > 1e7
      ]
      assert min(split) == (4 if rules is TRAIN_RULES else 2), split


def test_a_runs_form_keeps_what_is_done_with_pixels(tmp_path):
  config = hf.read_config(ROOT / 'tied')
  own = dataclasses.replace(
    config, vision=dataclasses.replace(config.vision, max_pixels=1024, mean=(0.5, 0.5, 0.5))
  )
  runs.write_form(tmp_path, own, None, dtype='float32', temperature=1.0, top_p=1.0)
  assert hf.read_config(tmp_path / runs.FORM) == own


def picture(height, width, channels=3):
  y, x, c = np.mgrid[:height, :width, :channels]
  return ((7 * x + 3 * y * (c + 1)) % 256).astype(np.uint8)


def test_pixels_equal_hfs():
  """HF's processor on PNGs: enlarged, shrunk, as they are, long and thin; kept in the golden."""
  vision = dataclasses.replace(TOWER, max_pixels=100_352)
  with np.load(ROOT / 'processor.npz') as golden:
    count = sum(name.startswith('png') for name in golden)
    for k in range(count):
      content = golden[f'png_{k}'].tobytes()
      array = np.asarray(PIL.Image.open(io.BytesIO(content)))
      image = processor.from_pixels(array, vision)
      assert image.grid == tuple(golden[f'grid_{k}'])
      assert image.patches.nbytes == image.grid[1] * image.grid[2] * 588
      values = processor.pixel_values(image.patches, vision)
      np.testing.assert_array_equal(values[[0, 7, -1]], golden[f'values_{k}'])
      np.testing.assert_allclose(values.sum(1, dtype=np.float64), golden[f'sum_{k}'], rtol=1e-12)
  assert count == 5
  with np.load(ROOT / 'tied' / 'golden.npz') as golden:
    vision = hf.read_config(ROOT / 'tied').vision
    patches = processor.cut(golden['image_0_0'], vision)
    np.testing.assert_array_equal(processor.pixel_values(patches, vision), golden['pixels_0'])


def test_pixels_equal_the_installed_hf():
  """Against transformers itself, whose processor for PIL needs no torch."""
  module = pytest.importorskip('transformers.models.qwen2_vl.image_processing_pil_qwen2_vl')
  rng = np.random.default_rng(0)
  for low, high in ((3136, 12_845_056), (3136, 50_176), (100_352, 200_704)):
    theirs = module.Qwen2VLImageProcessorPil(min_pixels=low, max_pixels=high)
    for _ in range(6):
      height, width = rng.integers(9, 400, 2)
      pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
      out = theirs([PIL.Image.fromarray(pixels)], return_tensors='np')
      ours = processor.from_pixels(pixels, processor.with_bounds(TOWER, low, high))
      assert ours.grid == tuple(out['image_grid_thw'][0])
      values = processor.pixel_values(ours.patches, TOWER)
      np.testing.assert_array_equal(values, out['pixel_values'])


def test_smart_resize_keeps_its_bounds():
  rng = np.random.default_rng(1)
  for _ in range(2000):
    height, width = (int(x) for x in np.exp(rng.uniform(np.log(8), np.log(9000), 2)))
    if max(height, width) > 200 * min(height, width):
      continue
    low, high = 3136, int(np.exp(rng.uniform(np.log(50_176), np.log(2e7))))
    rows, columns = processor.smart_resize(height, width, 28, low, high)
    assert rows % 28 == 0 == columns % 28
    assert rows * columns > 0
    assert rows * columns <= high or min(rows, columns) == 28
    assert rows * columns >= low


@pytest.mark.parametrize(('low', 'high'), [(5000, 4000), (-1, 4000), (100, 783)])
def test_bounds_of_pixels_that_make_no_sense(low, high):
  with pytest.raises(ValueError, match=f'model.min_pixels={low}, model.max_pixels={high}'):
    processor.with_bounds(TOWER, low, high)


def test_pixels_are_read_when_they_are_needed_and_the_last_ones_kept(monkeypatch):
  monkeypatch.setattr(images, '_KEPT', images._Kept())
  pixels, asked = picture(60, 90), []

  def one(number):
    def read():
      asked.append(number)
      return pixels

    return processor.image_of((90, 60), str(number), read, TOWER)

  several = [one(number) for number in range(3)]
  assert not asked
  assert [image.grid for image in several] == [(1, 4, 6)] * 3
  assert len(set(several)) == 3
  assert several[0] == one(0)
  expected = several[0].load()
  monkeypatch.setattr(images, 'KEPT_BYTES', 2 * expected.nbytes)
  for image in several + several[1:] + several[:1]:
    np.testing.assert_array_equal(image.patches, expected)
  assert asked == [0, 0, 1, 2, 0]
  other = dataclasses.replace(TOWER, max_pixels=3136)
  assert processor.image_of((90, 60), '0', lambda: pixels, other) != several[0]
