"""Entropies and log-probs after truncation: of the exact distributions, and only on request."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from exactness import assert_identical, by_item, log_softmax, plain_logits

from rlvr_jax.profiling import compilations
from rlvr_jax.sampling.draw import Options
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import PROGRAMS, hand_over
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.sharding import make_mesh

pytestmark = pytest.mark.usefixtures('strict')
TOKENS = 8
STOPS = (7, 11, 200, 301)


def items():
  """Two samples of each of four prompts; one prompt's are forced, to tokens of every rank."""
  rng = np.random.default_rng(0)
  prompts = [tuple(rng.integers(0, 400, n).tolist()) for n in (1, 9, 16, 30)]
  forced = {2: tuple(range(6))}
  return [
    Item(i, i, 0, s, p, forced=forced.get(i)) for s in range(2) for i, p in enumerate(prompts)
  ]


@functools.cache
def model():
  return tiny.make(num_layers=1)


def new_engine(mesh=None):
  config, params = model()
  sizes = {'slots': 4, 'bank_rows': 4, 'prompt_capacity': 32, 'completion_capacity': TOKENS}
  return Engine(hand_over(None, params, mesh), config, mesh=mesh, steps=4, **sizes)


engine = functools.cache(new_engine)


def run(queue, sampling, on=None):
  return by_item((on or engine()).run(queue, sampling))


def truncated(z, top_p, top_k):
  """float64 [n,V]: log-softmax of logits z after top-k and then top-p, by sorting; -inf outside."""
  order = np.argsort(-z, -1, kind='stable')
  kept = np.take_along_axis(log_softmax(z), order, -1)
  if top_k:
    kept[:, top_k:] = -np.inf
  kept -= np.log(np.exp(kept).sum(-1, keepdims=True))
  before = np.cumsum(np.exp(kept), -1) - np.exp(kept)  # mass of what is likelier
  kept[before >= top_p] = -np.inf
  kept -= np.log(np.exp(kept).sum(-1, keepdims=True))
  out = np.empty_like(kept)
  np.put_along_axis(out, order, kept, -1)
  return out


@pytest.mark.parametrize('options', [{}, {'top_p': 0.8}, {'top_k': 5, 'top_p': 0.9}], ids=str)
@pytest.mark.parametrize('temperature', [0.0, 0.6])
def test_extras_are_the_exact_distributions_and_change_nothing(options, temperature):
  config, params = model()
  plain = Sampling(temperature, stop_ids=STOPS, max_tokens=TOKENS, **options)
  found = run(items(), dataclasses.replace(plain, extras=True))
  off = run(items(), plain)
  assert_identical(off, found)
  assert all(c.entropies is None and c.truncated_logprobs is None for c in off.values())
  outside = 0
  for c in found.values():
    assert c.entropies.dtype == c.truncated_logprobs.dtype == np.float32
    z = plain_logits(params, config, c) / (temperature or 1.0)
    logp = log_softmax(z)
    np.testing.assert_allclose(c.entropies, -(np.exp(logp) * logp).sum(-1), rtol=0, atol=1e-4)
    if temperature:
      left = truncated(z, options.get('top_p', 1.0), options.get('top_k', 0))
      expected = left[np.arange(len(c.tokens)), c.tokens]
      np.testing.assert_allclose(c.truncated_logprobs, expected, rtol=0, atol=1e-4)
      outside += np.isneginf(c.truncated_logprobs).sum()
    else:
      np.testing.assert_array_equal(c.truncated_logprobs, c.logprobs)
  assert (outside > 0) == bool(temperature and options)


def test_extras_that_are_not_asked_for_are_not_computed():
  """The program without them is the smaller one, and going back to it compiles nothing."""
  queue, plain = items(), Sampling(max_tokens=TOKENS)
  run(queue, plain)
  run(queue, dataclasses.replace(plain, extras=True))
  with compilations() as compiled:
    run(queue, plain)
    run(queue, dataclasses.replace(plain, extras=True, temperature=0.7, top_p=0.9))
  assert not compiled

  def flops(**static):
    mine = engine()
    options = Options(jnp.float32(1), jnp.float32(1), jnp.int32(0))
    lowered = PROGRAMS.run_chunk.lower(
      mine.params, mine._state, options, jnp.zeros((8,), jnp.int32), config=mine.config,
      steps=mine.steps, **static,
    )  # fmt: skip
    return lowered.as_text(), jax.tree.leaves(lowered.out_info[1])

  text, outputs = flops()
  asked_text, asked_outputs = flops(extras=True)
  assert len(outputs) == 6
  assert len(asked_outputs) == 8
  assert flops(extras=False)[0] == text
  assert len(text) < len(asked_text)


@pytest.mark.check
def test_extras_over_a_mesh_are_those_of_one_device():
  sampling = Sampling(0.6, 0.9, max_tokens=TOKENS, extras=True)
  many, one = run(items(), sampling, on=new_engine(make_mesh(2, 2, 2))), run(items(), sampling)
  same = [key for key in one if np.array_equal(one[key].tokens, many[key].tokens)]
  assert len(same) > len(one) - 2  # a token may flip on a boundary
  for key in same:
    for name in ('logprobs', 'entropies', 'truncated_logprobs'):
      ours, theirs = getattr(one[key], name), getattr(many[key], name)
      np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
