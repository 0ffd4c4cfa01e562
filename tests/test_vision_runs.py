"""Prompts with images: encoded once for all samples; sampler and learner agree; packing, meshes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_jax.models import hf, images, vision
from rlvr_jax.models.config import ModelConfig, VisionConfig
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.lora import Adapter
from rlvr_jax.models.processor import from_pixels
from rlvr_jax.rl import rollout
from rlvr_jax.rl.algorithms import ALGORITHMS
from rlvr_jax.rl.learner import start_state
from rlvr_jax.rl.optimizer import make_optimizer
from rlvr_jax.rl.rollout import layout_of, micro_batches
from rlvr_jax.rl.trained import Trained
from rlvr_jax.rl.update import make_score, make_update, rows_sharding, state_shardings
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.sharding import make_mesh
from tests import tiny

IMAGE, START, END = 90, 91, 92
TOWER = VisionConfig(
  embed_dim=16,
  mlp_dim=24,
  num_layers=2,
  num_heads=2,
  out_dim=32,
  full_layers=(1,),
  patch=4,
  window=16,
  image_id=IMAGE,
  start_id=START,
  end_id=END,
  min_pixels=64,
)
SAMPLING = Sampling(max_tokens=8, stop_ids=(3,))
SIZES = ((16, 24), (40, 8), (24, 24))


@functools.cache
def model() -> tuple[ModelConfig, dict]:
  config, params = tiny.make(
    vocab_size=96, vision=TOWER, mrope=(2, 1, 1), architecture='qwen2_5_vl', num_layers=1
  )
  rng = np.random.default_rng(0)
  large = {'merge_out': 2.0, 'qkv_bias': 0.5}
  params['vision'] = jax.tree_util.tree_map_with_path(
    lambda path, x: x if path[-1].key not in large
    else jnp.asarray(rng.normal(0, large[path[-1].key] / x.shape[0] ** 0.5, x.shape), 'float32'),
    params['vision'],
  )  # fmt: skip
  return config, params


@functools.cache
def prompts():
  """One image, two, the same tokens with another image, text alone."""
  rng = np.random.default_rng(1)
  a, b, c = (from_pixels(rng.integers(0, 256, (*size, 3), np.uint8), TOWER) for size in SIZES)
  other = from_pixels(rng.integers(0, 256, (*SIZES[0], 3), np.uint8), TOWER)

  def prompt(*parts):
    ids, pictures = [], []
    for part in parts:
      if isinstance(part, int):
        ids += rng.integers(4, 90, part).tolist()
      else:
        ids += [START, IMAGE, END]
        pictures.append(part)
    return images.Pictured(images.expand(ids, pictures, TOWER), pictures)

  first = prompt(3, a, 4)
  return first, prompt(2, b, 3, c, 2), images.Pictured(first, [other]), tuple(prompt(9))


def items(samples=3, **more):
  return [
    Item(i, 100 + i, 0, k, prompt, **more)
    for k in range(samples)
    for i, prompt in enumerate(prompts())
  ]


def engine(mesh=None, **changes):
  config, params = model()
  sizes = {'slots': 4, 'bank_rows': 4, 'prompt_capacity': 48, 'completion_capacity': 8, 'steps': 4}
  return Engine(hand_over(None, params, mesh), config, mesh=mesh, **(sizes | changes))


@functools.cache
def drawn():
  own = engine()
  return own, sorted(own.run(items(), SAMPLING), key=lambda c: (c.item.problem, c.item.sample))


def batch():
  _, completions = drawn()
  return rollout.assemble(
    [c.item.prompt_ids for c in completions],
    [c.tokens for c in completions],
    sampler_logprobs=[c.logprobs for c in completions],
    rewards=[float(c.tokens.sum() % 2) for c in completions],
    group=[c.item.problem for c in completions],
  )


def alone(completion):
  """A completion's log-probs, its prompt and images in a row of their own."""
  config, params = model()
  prompt = completion.item.prompt_ids
  tokens = np.zeros((1, 64), np.int32)
  whole = (*prompt, *completion.tokens)
  tokens[0, : len(whole)] = whole
  laid, _ = images.lay_prompts([prompt], [images.images_of(prompt)], TOWER, length=64)
  found, _ = _score(params, tokens, vision.images_from(laid), config=config)
  return np.asarray(found)[0, len(prompt) : len(whole)]


_score = jax.jit(
  lambda params, tokens, images, config: sequence_logprobs(
    params, tokens, config=config, images=images
  ),
  static_argnames='config',
)


def test_a_prompt_is_encoded_once_and_sampler_equals_learner():
  own, completions = drawn()
  assert own.stats.prompts == 4
  assert len(completions) == 12
  for completion in completions:
    np.testing.assert_allclose(alone(completion), completion.logprobs, rtol=0, atol=1e-4)
  # another image in the same prompt is another prompt, and the model sees it
  first, other = ([c for c in completions if c.item.problem == p] for p in (0, 2))
  swapped = dataclasses.replace(
    first[0], item=dataclasses.replace(first[0].item, prompt_ids=other[0].item.prompt_ids)
  )
  assert np.abs(alone(swapped) - first[0].logprobs).max() > 0.01
  assert first[0].item.prompt_ids != other[0].item.prompt_ids
  assert tuple(first[0].item.prompt_ids) != first[0].item.prompt_ids


@pytest.mark.check
def test_company_order_and_slots_change_no_token():
  """Exactly, under other chunks and orders with as many slots; in another engine, row by row."""
  _, completions = drawn()
  again = engine(bank_rows=2, steps=7)
  found = sorted(again.run(items()[::-1], SAMPLING), key=lambda c: (c.item.problem, c.item.sample))
  assert again.stats.prompts > 4
  for a, b in zip(completions, found, strict=True):
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.logprobs, b.logprobs)


@pytest.mark.parametrize('packing', [pytest.param(False, marks=pytest.mark.check), True])
def test_the_learners_rows_give_the_samplers_logprobs(packing):
  config, params = model()
  rollouts = batch()
  layout = layout_of(rollouts, micro_tokens=128, packing=packing)
  rows = micro_batches(rollouts, None, layout, vision=TOWER)
  assert len(layout.source) > 1
  # an image counts once in a micro-batch
  shared = sum((np.asarray(rows.images.owner[m]) >= 0).sum() for m in range(len(layout.source)))
  assert shared < sum(images.window_count(i.grid, TOWER) for own in rollouts.images for i in own)
  found, _ = make_score(config)(params, rows, jnp.float32(1))
  found = layout.restore(found)
  mask = rollouts.completion_mask
  np.testing.assert_allclose(found[mask], rollouts.sampler_logprobs[mask], rtol=0, atol=1e-4)


def updated(trained, layout_of_rows, mesh=None):
  config, params = model()
  rollouts = batch()
  rows = layout_of_rows(rollouts)
  optimizer = make_optimizer(0.1, clip_norm=1.0, total_steps=2)
  update = make_update(
    config, ALGORITHMS['grpo'], optimizer, longest=8, mesh=mesh, trained=trained, remat='none'
  )
  state = start_state(
    optimizer, None, jax.tree.map(jnp.copy, params), trained, trained.start(config, 0)
  )
  if mesh is not None:
    state = jax.device_put(state, state_shardings(state, config, mesh))
    rows = jax.device_put(rows, rows_sharding(mesh))
  state, metrics = update(state, rows, jnp.float32(1))
  return params, jax.device_get(state), jax.device_get(metrics)


def rows_of(rollouts, multiple=1):
  advantages = np.where(np.arange(len(rollouts.rewards)) % 3, 1.0, -0.5).astype(np.float32)
  layout = layout_of(rollouts, micro_tokens=256, packing=True, multiple=multiple)
  return micro_batches(rollouts, advantages, layout, vision=TOWER, multiple=multiple)


def changed(before, after):
  """Top-level names of the params that a step changed."""
  moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), before, after)
  return {path[0].key for path, leaf in jax.tree.leaves_with_path(moved) if leaf}


@pytest.mark.parametrize('frozen', [(), pytest.param(('^vision/',), marks=pytest.mark.check)])
def test_the_tower_trains_or_is_frozen(frozen):
  before, state, metrics = updated(Trained(frozen=frozen), rows_of)
  assert metrics['skipped'] == 0
  assert ('vision' in changed(before, state.params)) == (not frozen)
  assert 'layers' in changed(before, state.params)


@pytest.mark.check
def test_adapters_train_over_a_model_that_sees():
  before, state, metrics = updated(Trained(Adapter(2, 4.0)), rows_of)
  assert metrics['skipped'] == 0
  assert changed(before, state.params) == set()
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(state.lora))


@pytest.mark.check
def test_eight_devices_are_one():
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  _, one, metrics = updated(Trained(), rows_of)
  _, eight, over = updated(Trained(), lambda r: rows_of(r, 4), mesh)
  np.testing.assert_allclose(metrics['loss'], over['loss'], rtol=0, atol=1e-5)
  np.testing.assert_allclose(metrics['grad_norm'], over['grad_norm'], rtol=1e-4)
  # after one step the first moments are the gradients, to a factor
  gradients = [optax.tree_utils.tree_get(s.opt_state, 'mu') for s in (one, eight)]
  pairs = zip(jax.tree.leaves_with_path(gradients[0]), jax.tree.leaves(gradients[1]), strict=True)
  for (path, a), b in pairs:
    assert np.linalg.norm(a) > 0, path
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a), path
  own = engine(mesh, slots=8)
  _, expected = drawn()
  found = sorted(own.run(items(), SAMPLING), key=lambda c: (c.item.problem, c.item.sample))
  for a, b in zip(expected, found, strict=True):
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_allclose(a.logprobs, b.logprobs, rtol=0, atol=1e-4)


def test_prompts_that_cannot_be_drawn_from():
  config, params = model()
  first = prompts()[0]
  blind = dataclasses.replace(config, vision=None, mrope=None)
  text = {name: leaf for name, leaf in params.items() if name != 'vision'}
  cases = (
    (tuple(first), config, 'more image tokens'),
    (images.Pictured(first[:-5], first.images), config, 'ends with an image'),
    (images.Pictured((*first[:-6], END), first.images), config, 'needs 6 image tokens'),
    (first, blind, 'which this model does not see'),
  )
  for prompt, own, message in cases:
    sampler = Engine(
      hand_over(None, text if own is blind else params),
      own,
      slots=1,
      bank_rows=1,
      prompt_capacity=48,
      completion_capacity=8,
    )
    with pytest.raises(ValueError, match=message):
      sampler.run([Item(5, 1, 0, 0, prompt)], SAMPLING)


def test_a_saved_model_draws_the_same(tmp_path):
  config, params = model()
  hf.save_safetensors(tmp_path / 'model', params, config)
  again = hf.load_safetensors(tmp_path / 'model', hf.read_config(tmp_path / 'model'))
  jax.tree.map(np.testing.assert_array_equal, params, again)
  assert hf.read_config(tmp_path / 'model').vision == TOWER
