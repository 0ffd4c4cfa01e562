"""Rows of a batch: alignment, buckets, micro-batches; nothing lost, nothing moved."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.rl.packing import bucket_length, rows_per_micro_batch
from rlvr_jax.rl.rollout import assemble, layout_of, micro_batches


def draw(seed, B, most=9):
  """Prompts, completions and log-probs; tokens 0 (the padding id) occur and end completions."""
  rng = np.random.default_rng(seed)
  prompts = [rng.integers(0, 50, rng.integers(1, most)).tolist() for _ in range(B)]
  completions = [
    np.append(rng.integers(0, 50, rng.integers(0, most)), 0).astype(np.int32) for _ in range(B)
  ]
  logprobs = [-rng.exponential(1.0, len(c)).astype(np.float32) for c in completions]
  return prompts, completions, logprobs


def test_per_token_arrays_are_indexed_by_the_token_they_describe():
  prompts, completions, logprobs = draw(0, 12)
  rewards, group = np.arange(12.0), np.repeat(np.arange(3), 4)
  truncated = np.arange(12) % 2 == 0
  r = assemble(
    prompts,
    completions,
    sampler_logprobs=logprobs,
    rewards=rewards,
    group=group,
    truncated=truncated,
  )
  for i in range(12):
    begin, end = len(prompts[i]), len(prompts[i]) + len(completions[i])
    assert r.tokens[i, :begin].tolist() == prompts[i]
    assert r.tokens[i, begin:end].tolist() == completions[i].tolist()
    assert not r.tokens[i, end:].any()
    assert np.flatnonzero(r.completion_mask[i]).tolist() == list(range(begin, end))
    np.testing.assert_array_equal(r.sampler_logprobs[i, begin:end], logprobs[i])
    assert not r.sampler_logprobs[i, :begin].any()
    assert not r.sampler_logprobs[i, end:].any()
    assert (r.prompt_lengths[i], r.completion_lengths[i]) == (begin, end - begin)
  assert not r.completion_mask[:, 0].any()
  np.testing.assert_array_equal(r.rewards, rewards)
  np.testing.assert_array_equal(r.group, group)
  np.testing.assert_array_equal(r.truncated, truncated)
  assert r.valid.all()
  dtypes = {
    name: str(getattr(r, name).dtype) for name in ('tokens', 'rewards', 'group', 'truncated')
  }
  assert dtypes == {'tokens': 'int32', 'rewards': 'float32', 'group': 'int32', 'truncated': 'bool'}


def test_what_is_not_given_is_nothing():
  r = assemble([[1], [2, 3]], [np.array([4]), np.array([5])])
  assert not r.sampler_logprobs.any()
  assert not r.rewards.any()
  assert r.group.tolist() == [0, 1]
  assert not r.truncated.any()


def test_one_completion_a_prompt():
  with pytest.raises(ValueError, match=r'shorter|longer'):
    assemble([[1]], [np.array([4]), np.array([5])])


@given(st.integers(1, 40_000))
def test_buckets_fit_grow_and_are_few(longest):
  T = bucket_length(longest)
  assert longest <= T
  assert max(16, 1.5 * longest) >= T
  assert bucket_length(T) == T
  assert bucket_length(longest + 1) >= T
  odd = T >> (T & -T).bit_length() - 1
  assert odd in (1, 3)  # a power of two, or one and a half times one


@given(st.integers(0, 1000), st.integers(1, 20), st.integers(1, 300), st.sampled_from([1, 2, 4, 8]))
def test_micro_batches_hold_every_row_once_in_order(seed, B, micro_tokens, multiple):
  prompts, completions, logprobs = draw(seed, B)
  r = assemble(prompts, completions, sampler_logprobs=logprobs)
  T = r.tokens.shape[1]
  rng = np.random.default_rng(seed)
  advantages = rng.normal(size=B).astype(np.float32)
  old, ref = rng.normal(size=(2, B, T)).astype(np.float32)
  layout = layout_of(r, micro_tokens=micro_tokens, multiple=multiple)
  rows = micro_batches(r, advantages, layout, old_logprobs=old, ref_logprobs=ref)
  M, b, _ = rows.tokens.shape
  assert b % multiple == 0
  assert b * T <= micro_tokens or b == multiple
  assert (M - 1) * b < B + multiple
  assert M * b >= B

  def flat(x):
    return x.reshape(M * b, T)

  np.testing.assert_array_equal(flat(rows.tokens)[:B], r.tokens)
  np.testing.assert_array_equal(flat(rows.completion_mask)[:B], r.completion_mask)
  np.testing.assert_array_equal(flat(rows.sampler_logprobs)[:B], r.sampler_logprobs)
  np.testing.assert_array_equal(flat(rows.old_logprobs)[:B], old)
  np.testing.assert_array_equal(flat(rows.ref_logprobs)[:B], ref)
  np.testing.assert_array_equal(
    flat(rows.advantages)[:B], np.where(r.completion_mask, advantages[:, None], 0)
  )
  assert not flat(rows.completion_mask)[B:].any()


def test_rows_that_are_not_valid_learn_nothing():
  prompts, completions, logprobs = draw(1, 4)
  r = assemble(prompts, completions, sampler_logprobs=logprobs)
  r = r.replace(valid=np.array([True, False, True, False]))
  layout = layout_of(r, micro_tokens=1000)
  rows = micro_batches(r, np.full(4, np.nan, np.float32), layout)
  assert not rows.completion_mask[0, [1, 3]].any()
  assert not rows.advantages[0, [1, 3]].any()
  assert rows.old_logprobs is None
  assert rows.ref_logprobs is None


def test_rows_of_a_micro_batch():
  assert rows_per_micro_batch(24, 100, 1) == 4
  assert rows_per_micro_batch(24, 100, 3) == 3
  assert rows_per_micro_batch(24, 10, 1) == 1
  assert rows_per_micro_batch(24, 10, 8) == 8
