"""Qwen2.5-VL equals HF within 1e-4: tower, merger, positions, logits; shapes change none."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.models import hf, images, vision
from rlvr_jax.models.known import KNOWN
from rlvr_jax.models.logprobs import logits, sequence_logprobs
from rlvr_jax.models.processor import from_pixels
from rlvr_jax.models.transformer import forward, init_params, unstack
from rlvr_jax.models.weights import leaves

ROOT = pathlib.Path(__file__).parent / 'goldens' / 'vision'
NAMES = ('tied', 'untied')
CHECK = functools.partial(pytest.param, marks=pytest.mark.check)
run = jax.jit(forward, static_argnames=('config', 'keep_kv', 'remat'))
tower = jax.jit(vision.tower, static_argnames='config')
encode = jax.jit(vision.encode, static_argnames='config')


@functools.cache
def load(name):
  config = hf.read_config(ROOT / name)
  # the golden's images are of any size, as they are
  sizes = {'min_pixels': 64, 'max_pixels': 1 << 20}
  config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, **sizes))
  with np.load(ROOT / name / 'golden.npz') as file:
    golden = dict(file)
  return config, hf.load_safetensors(ROOT / name, config), golden


def row(name, r):
  """(tokens, images) of a row of the golden file."""
  config, _, golden = load(name)
  pictures = [golden[f'image_{r}_{j}'] for j in range(9) if f'image_{r}_{j}' in golden]
  return golden[f'tokens_{r}'].tolist(), [from_pixels(p, config.vision) for p in pictures]


def laid(name, rows, *, length, windows=0):
  """(tokens i32[B,length], Images) of rows of the golden file, padded."""
  config, _, _ = load(name)
  prompts, pictures = zip(*(row(name, r) for r in rows), strict=True)
  found, ahead = images.lay_prompts(
    prompts, pictures, config.vision, length=length, windows=windows
  )
  tokens = np.zeros((len(rows), length), np.int32)
  for line, prompt in zip(tokens, prompts, strict=True):
    line[: len(prompt)] = prompt
  return tokens, vision.images_from(found), ahead


@pytest.mark.parametrize('name', NAMES)
def test_tower_and_merger_equal_hf(strict, name):
  config, params, golden = load(name)
  for r in range(3):
    _, pictures = row(name, r)
    _, given, _ = laid(name, [r], length=96, windows=16)
    hidden = tower(params['vision'], given, config.vision)
    real = np.asarray(given.places[0, :, 0]) >= 0
    expected = golden[f'tower_{r}']
    assert np.abs(expected).max() > 10
    np.testing.assert_allclose(hidden[0][real], expected, rtol=0, atol=1e-4)
    merged = vision.merge(params['vision'], hidden, config.vision)
    here = np.asarray(given.source[0])
    assert (here >= 0).sum() == sum(images.token_count(p.grid, config.vision) for p in pictures)
    flat = np.asarray(merged).reshape(-1, config.embed_dim)
    np.testing.assert_allclose(flat[here[here >= 0]], golden[f'merged_{r}'], rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', NAMES)
def test_positions_equal_hf(name):
  config, _, golden = load(name)
  for r in range(3):
    tokens, pictures = row(name, r)
    found, after = images.rope_positions(tokens, [p.grid for p in pictures], config.vision)
    np.testing.assert_array_equal(found, golden[f'positions_{r}'])
    assert after == golden[f'after_{r}']
  tokens, _ = row(name, 3)
  found, after = images.rope_positions(tokens, [], config.vision)
  np.testing.assert_array_equal(found, np.tile(np.arange(len(tokens)), (3, 1)))
  assert after == len(tokens)


@pytest.mark.parametrize(
  ('name', 'form'), [('tied', 'list'), ('untied', 'stacked'), CHECK('tied', 'stacked')]
)
def test_logits_equal_hf(strict, name, form):
  """One image, several of unequal sizes, images at the ends, text between and text alone."""
  config, params, golden = load(name)
  if form == 'list':
    params = unstack(params)
  tokens, given, _ = laid(name, range(5), length=96)
  hidden, _ = run(params, tokens, None, config=config, images=given)
  ours = np.asarray(logits(params, hidden))
  for r in range(5):
    expected = golden[f'logits_{r}']
    assert np.abs(expected).max() > 2
    np.testing.assert_allclose(ours[r, : len(expected)], expected, rtol=0, atol=1e-4)


def test_text_alone_is_the_text_model(strict):
  """Without images, bit for bit what ordinary positions give."""
  config, params, golden = load('tied')
  tokens, _, _ = laid('tied', [3, 4], length=32)
  positions = np.broadcast_to(np.arange(32, dtype=np.int32), (2, 32))
  plain, _ = run(params, tokens, positions, config=config)
  three, _ = run(params, tokens, np.stack([positions] * 3), config=config)
  np.testing.assert_array_equal(plain, three)
  text = dataclasses.replace(config, vision=None, mrope=None, architecture='qwen2')
  without = {name: leaf for name, leaf in params.items() if name != 'vision'}
  np.testing.assert_array_equal(run(without, tokens, positions, config=text)[0], plain)
  np.testing.assert_allclose(logits(params, plain)[0, :19], golden['logits_3'], rtol=0, atol=1e-4)


@pytest.mark.check
def test_rows_without_images_beside_none_are_text():
  config, params, _ = load('tied')
  tokens, given, _ = laid('tied', [3, 4], length=32)
  positions = np.broadcast_to(np.arange(32, dtype=np.int32), (2, 32))
  plain, _ = run(params, tokens, positions, config=config)
  pictured, _ = run(params, tokens, None, config=config, images=given)
  np.testing.assert_array_equal(pictured, plain)


@pytest.mark.parametrize('name', [CHECK('tied'), CHECK('untied')])
def test_bucket_and_company_change_nothing(strict, name):
  config, params, golden = load(name)
  expected = golden['merged_1']
  for windows, rows in ((16, [1]), (48, [1]), (32, [2, 1, 0])):
    _, given, _ = laid(name, rows, length=96, windows=windows)
    found = encode(params['vision'], given, config.vision)
    here = np.asarray(given.source[rows.index(1)])
    flat = np.asarray(found).reshape(-1, config.embed_dim)
    np.testing.assert_allclose(flat[here[here >= 0]], expected, rtol=0, atol=2e-5)


@pytest.mark.check
def test_long_rows_go_a_block_of_queries_at_a_time(monkeypatch):
  config, params, _ = load('untied')
  _, given, _ = laid('untied', [1], length=96, windows=16)
  whole = encode(params['vision'], given, config.vision)
  monkeypatch.setattr(vision, 'BLOCK', 64)
  parts = jax.jit(lambda p, i: vision.encode(p, i, config.vision))(params['vision'], given)
  here = np.asarray(given.source[0])
  here = here[here >= 0]
  flat = [np.asarray(x).reshape(-1, config.embed_dim)[here] for x in (whole, parts)]
  np.testing.assert_allclose(flat[0], flat[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  'change',
  [
    {'full_layers': ()},
    CHECK({'full_layers': (0, 1, 2)}),
    CHECK({'window': 32}),
    CHECK({'mean': (0.5, 0.5, 0.5)}),
  ],
)
def test_a_forgotten_feature_would_show(change):
  config, params, golden = load('tied')
  other = dataclasses.replace(config.vision, **change)
  tokens, pictures = row('tied', 1)
  found, _ = images.lay_prompts([tokens], [pictures], other, length=96)
  given = vision.images_from(found)
  merged = np.asarray(encode(params['vision'], given, other)).reshape(-1, config.embed_dim)
  here = found.source[0][found.source[0] >= 0]
  assert np.abs(merged[here] - golden['merged_1']).max() > 0.01


@pytest.mark.check
def test_gradients_reach_the_tower_and_padding_has_none():
  config, params, _ = load('tied')
  tokens, given, _ = laid('tied', [0, 3], length=48)

  def loss(params, pixels, remat):
    found, _ = sequence_logprobs(
      params, tokens, config=config, images=given.replace(pixels=pixels), remat=remat
    )
    return jnp.sum(found[:, :30])

  loss = jax.jit(loss, static_argnums=2)
  grads = jax.jit(jax.grad(loss), static_argnums=2)(params, given.pixels, 'block')
  for path, leaf in jax.tree.leaves_with_path(grads['vision']):
    assert np.isfinite(leaf).all(), path
    assert np.abs(leaf).max() > 0, path
  # what lies in places without a patch is seen by nobody
  real = np.asarray(given.places[..., :1]) >= 0
  noise = np.random.default_rng(0).integers(0, 256, given.pixels.shape, np.uint8)
  noisy = jnp.where(real, given.pixels, noise)
  assert loss(params, noisy, 'none') == loss(params, given.pixels, 'none')


def test_prompts_that_do_not_fit_their_images():
  config, _, _ = load('tied')
  tokens, pictures = row('tied', 1)
  short = [t for i, t in enumerate(tokens) if i != 5]
  grids = [p.grid for p in pictures]
  with pytest.raises(ValueError, match='6 x 6 patches needs 9 image tokens in a row'):
    images.rope_positions(short, grids, config.vision)
  with pytest.raises(ValueError, match='more image tokens'):
    images.rope_positions(tokens, grids[:-1], config.vision)
  with pytest.raises(ValueError, match=r'has 2 image tokens .* and 3 images'):
    images.expand([3, 100, 4, 100], pictures, config.vision)
  alone = [t for i, t in enumerate(tokens) if t != 100 or tokens[i - 1] != 100]
  assert list(images.expand(alone, pictures, config.vision)) == tokens


def test_windows_are_those_of_the_grid():
  tower = KNOWN['Qwen/Qwen2.5-VL-7B-Instruct'].vision
  assert tower.window_patches == 64
  assert tower.head_dim == 80
  for h, w, windows in ((2, 2, 1), (8, 8, 1), (10, 8, 2), (30, 42, 24), (2, 400, 50)):
    assert images.window_count((1, h, w), tower) == windows
    found = images.slots((1, h, w), tower)
    assert found.shape == (windows * 16,)
    assert sorted(found[found >= 0]) == list(range(h * w // 4))
  counts = [images.bucket_windows(n) for n in range(1, 300)]
  assert all(b >= n for n, b in enumerate(counts, 1))
  assert len(set(counts)) <= 17
  assert all(b < 2 * n for n, b in enumerate(counts, 1) if n > 4)


def test_shapes_of_the_published_models():
  """Parameters as the model cards count them, by shapes alone."""
  for name, billions in (('3B', 3.75), ('7B', 8.29)):
    config = KNOWN[f'Qwen/Qwen2.5-VL-{name}-Instruct']
    shapes = jax.eval_shape(lambda c=config: init_params(jax.random.key(0), c))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert abs(count / 1e9 - billions) < 0.01, (name, count)
    ours = {tuple(k.key for k in p): x.shape for p, x in jax.tree.leaves_with_path(shapes)}
    assert ours == {leaf.path: leaf.full_shape for leaf in leaves(config)}
