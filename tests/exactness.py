"""The exactness contract (docs/design.md) as a check: when may two runs of the sampler differ?

Within one engine never. Across slot counts, meshes and platforms float32 sums differ in their last
bits, so a token may flip where its uniform lies on a boundary of the CDF, and there only.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.transformer import forward
from rlvr_jax.sampling.blocks import BLOCK
from rlvr_jax.sampling.engine import STREAMS

MARGIN = 1e-4  # of a uniform to a CDF boundary, and of log-probs (nats)


def by_item(completions):
  """{(problem, sample): completion}."""
  return {(c.item.problem, c.item.sample): c for c in completions}


def assert_identical(first, second):
  """Tokens, log-probs and truncation of every item, bit for bit."""
  assert first.keys() == second.keys()
  for key, a in first.items():
    b = second[key]
    np.testing.assert_array_equal(a.tokens, b.tokens, err_msg=f'tokens of {key}')
    np.testing.assert_array_equal(
      a.logprobs.view(np.int32), b.logprobs.view(np.int32), err_msg=f'log-probs of {key}'
    )
    assert a.truncated == b.truncated


def plain_logits(params, config, completion):
  """float64 [length,V]: the logits each token was drawn from, by the forward without a cache."""
  prompt, tokens = completion.item.prompt_ids, completion.tokens
  row = np.concatenate([prompt, tokens])[:-1]
  row = np.pad(row, (0, -len(row) % 32))[None].astype(np.int32)
  positions = np.arange(row.shape[1], dtype=np.int32)[None]
  hidden, _ = _forward(params, row, positions, config=config)
  begin = len(prompt) - 1
  kept = hidden[0, begin : begin + len(tokens)]
  return np.asarray(_logits(params, kept), np.float64)


_forward = jax.jit(forward, static_argnames=('config',))
_logits = jax.jit(logits)


def log_softmax(z):
  """Over the last axis, in float64."""
  z = z - z.max(-1, keepdims=True)
  return z - np.log(np.exp(z).sum(-1, keepdims=True))


def uniforms(item, count, *, seed, stream, model_uid):
  """f32[count,2]: the uniforms of an item's first tokens, keys as docs/design.md folds them."""
  key = jax.random.key(seed)
  for part in (STREAMS[stream], item.visit, model_uid, item.uid, item.sample):
    key = jax.random.fold_in(key, part)
  positions = jnp.arange(item.start, item.start + count)
  return np.asarray(
    jax.vmap(lambda t: jax.random.uniform(jax.random.fold_in(key, t), (2,)))(positions)
  )


def two_level_cdf(probabilities):
  """(block CDF [n], CDF inside each block [n,BLOCK]) of a distribution [V], in float64."""
  size = min(BLOCK, len(probabilities))
  blocks = np.pad(probabilities, (0, -len(probabilities) % size)).reshape(-1, size)
  sums = blocks.sum(-1)
  inside = np.cumsum(blocks, -1) / np.maximum(sums, 1e-300)[:, None]
  return np.cumsum(sums) / sums.sum(), inside


def on_a_boundary(z, uniform, temperature):
  """Whether a draw from logits z [V] with uniform [2] could flip under rounding."""
  outer, inside = two_level_cdf(np.exp(log_softmax(z / temperature)))
  if np.abs(outer[:-1] - uniform[0]).min(initial=1.0) < MARGIN:
    return True
  block = int(np.searchsorted(outer, uniform[0], side='right'))
  return bool(np.abs(inside[block][:-1] - uniform[1]).min(initial=1.0) < MARGIN)


def assert_equal_up_to_boundaries(
  first, second, params, config, sampling, *, seed=0, stream='eval', model_uid=0
):
  """The contract across slots, mesh and platform; returns how many completions flipped.

  Both runs' log-probs must be the teacher-forced ones; where tokens first differ, the draw must
  have been on a boundary. Only for top_p = 1 and top_k = 0.
  """
  assert first.keys() == second.keys()
  flips = 0
  for key, a in first.items():
    b = second[key]
    z = plain_logits(params, config, a)
    check_logprobs(a, z, sampling.temperature)
    n = min(len(a.tokens), len(b.tokens))
    different = np.flatnonzero(a.tokens[:n] != b.tokens[:n])
    if not len(different):
      assert len(a.tokens) == len(b.tokens), key
      np.testing.assert_allclose(b.logprobs, a.logprobs, rtol=0, atol=MARGIN)
      continue
    check_logprobs(b, plain_logits(params, config, b), sampling.temperature)
    at = int(different[0])
    drawn = uniforms(a.item, at + 1, seed=seed, stream=stream, model_uid=model_uid)[at]
    assert on_a_boundary(z[at], drawn, sampling.temperature), f'{key} differs at token {at}'
    flips += 1
  return flips


def check_logprobs(completion, z, temperature):
  """The recorded log-probs are those of the tempered distribution of logits z [length,V]."""
  expected = log_softmax(z / temperature)[np.arange(len(completion.tokens)), completion.tokens]
  np.testing.assert_allclose(completion.logprobs, expected, rtol=0, atol=MARGIN)
