"""The decode kernels of a GPU, in JAX's interpreter, against plain XLA over the same cache."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from exactness import assert_equal_up_to_boundaries, by_item

from rlvr_jax.models import attention, attention_gpu, decode, paged
from rlvr_jax.models.cache import KVCache
from rlvr_jax.sampling import layout
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.sharding import over_heads

pytestmark = pytest.mark.usefixtures('strict')
# slots, bank rows, kv heads, queries a kv head, head dim, bank capacity, page, pages a slot, dtype
CASES = (
  (6, 3, 2, 7, 16, 128, 16, 4, 'float32'),
  (13, 2, 1, 3, 16, 512, 16, 40, 'float32'),  # cut into parts
  (3, 5, 2, 20, 16, 64, 16, 3, 'float32'),  # fewer slots than a tile, more queries than a row block
  (9, 9, 2, 1, 32, 64, 32, 20, 'bfloat16'),
)


def _case(S, R, K, G, H, Tp, page, M, dtype):
  rng = np.random.default_rng(S)
  N = S * M + 3

  def normal(*shape):
    return jnp.asarray(rng.normal(0, 1, shape), dtype)

  layer = normal(R, K, H, Tp), normal(R, K, Tp, H), normal(N, K, H, page), normal(N, K, page, H)
  lengths, prompts = rng.integers(0, M * page, S), rng.integers(0, Tp + 1, R)
  lengths[0], lengths[1], prompts[0] = 0, page, 0
  rows, table = rng.integers(0, R, S), rng.permutation(N)[: S * M].reshape(S, M)
  i32 = [jnp.asarray(x, jnp.int32) for x in (rows, lengths, table)]
  slots = paged.Slots(*i32, jnp.asarray(rng.random(S) < 0.8).at[0].set(True))
  queries = normal(S, K * G, H), normal(S, K, H), normal(S, K, H)
  return queries, layer, slots, jnp.asarray(prompts, jnp.int32), KVCache(*([x] for x in layer))


def _attend(queries, layer, plan):
  return jax.jit(functools.partial(attention_gpu.attend, interpret=True))(*queries, layer, plan)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_the_kernels_are_attention_over_prompt_and_pages(case):
  queries, layer, slots, prompts, cache = _case(*case)
  want, written = paged.paged_attention(*queries, layer, paged.plan_step(slots, prompts, cache))
  plan = attention_gpu.plan_step(slots, prompts, cache)
  got, after = _attend(queries, layer, plan)
  # bfloat16: one rounding of the weights and one of the result, each 2^-9 of it
  error = 2e-6 if case[-1] == 'float32' else 2**-8
  f32 = jnp.float32
  np.testing.assert_allclose(got.astype(f32), want.astype(f32), rtol=error, atol=error)
  assert not np.asarray(got.astype(f32))[~np.asarray(slots.active)].any()
  for mine, theirs in zip(after, (*layer[:2], *written), strict=True):
    np.testing.assert_array_equal(mine.astype(f32), theirs.astype(f32))


@pytest.mark.parametrize('case', CASES[:1], ids=str)
def test_a_slot_gets_the_same_bits_in_any_order(case):
  queries, layer, slots, prompts, cache = _case(*case)
  got, _ = _attend(queries, layer, attention_gpu.plan_step(slots, prompts, cache))
  order = np.random.default_rng(1).permutation(case[0])
  moved = paged.Slots(*(x[order] for x in slots))
  plan = attention_gpu.plan_step(moved, prompts, cache)
  other, _ = _attend(tuple(x[order] for x in queries), layer, plan)
  np.testing.assert_array_equal(np.asarray(got)[order], other)


def test_the_plan_covers_every_live_slot_once_and_counts_what_is_read():
  S, R, page, M = 41, 4, 16, 5
  _, _, slots, prompts, cache = _case(S, R, 1, 1, 16, 128, page, M, 'float32')
  plan = attention_gpu.plan_step(slots, prompts, cache)
  active, rows = np.asarray(slots.active), np.asarray(slots.rows)
  np.testing.assert_array_equal(np.asarray(plan.order)[plan.back], np.arange(S))
  covered, blocks = [], 0
  for start, end in zip(np.asarray(plan.tile_start), np.asarray(plan.tile_end), strict=True):
    mine = np.asarray(plan.order)[start:end]
    covered += mine.tolist()
    if mine.size:
      assert mine.size <= attention_gpu.TILE
      assert len(set(rows[mine])) == 1
      length = int(prompts[rows[mine[0]]])
      assert all(np.asarray(plan.prompt)[start:end] == length)
      blocks += -(-length // attention_gpu.BLOCK) * attention_gpu.BLOCK
  assert sorted(covered) == np.flatnonzero(active).tolist()
  lengths = np.asarray(slots.lengths)[active] + 1
  assert plan.read == blocks + np.sum(-(-lengths // page) * page)
  assert plan.live == lengths.sum() + sum(int(prompts[r]) for r in set(rows[active]))
  places = np.asarray(plan.write_page)
  assert len(set(zip(places, np.asarray(plan.write_at), strict=True))) == S
  assert (places[~active] >= cache.page_v[0].shape[0]).all()


HEADS_OF_16 = dataclasses.replace(tiny.CONFIG, head_dim=16)


def test_off_a_gpu_the_kernels_are_refused_by_name():
  with pytest.raises(ValueError, match=r"pallas_gpu' is for GPUs; set sampling\.decode_impl"):
    attention_gpu.check(HEADS_OF_16, 64, 'bfloat16')


def test_heads_that_the_kernels_cannot_hold_are_refused_by_name_and_left_to_xla_by_auto(
  monkeypatch, caplog
):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  config = dataclasses.replace(tiny.CONFIG, head_dim=24)
  given = {'page': 64, 'dtype': 'float32', 'platform': 'gpu'}
  with pytest.raises(ValueError, match='a head dim of 24 is no power of two'):
    decode.choose('pallas_gpu', config, **given)
  with caplog.at_level('INFO'):
    assert decode.choose('auto', config, **given) == 'xla_paged'
  assert 'auto takes xla_paged: a head dim of 24' in caplog.text
  assert decode.choose('auto', HEADS_OF_16, **given) == 'pallas_gpu'


@pytest.mark.parametrize(
  ('page', 'dtype', 'message'),
  [(48, None, 'page=48: pallas_gpu needs a power of two'), (64, 'float16', "dtype='float16'")],
)
def test_on_a_gpu_the_page_and_the_dtype_have_to_fit(page, dtype, message, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  attention_gpu.check(HEADS_OF_16, 64, 'bfloat16')
  with pytest.raises(ValueError, match=message):
    attention_gpu.check(HEADS_OF_16, page, dtype)


@pytest.mark.skipif(
  jax.__version_info__ >= (0, 11), reason='jax 0.11 lowers for a GPU that is there'
)
def test_the_kernels_lower_for_a_gpu():
  queries, layer, slots, prompts, cache = _case(8, 3, 2, 6, 64, 128, 64, 4, 'bfloat16')
  plan = attention_gpu.plan_step(slots, prompts, cache)
  traced = jax.jit(attention_gpu.attend).trace(*queries, layer, plan)
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('xla.gpu.triton') == 2


@pytest.mark.check
def test_the_engine_draws_with_them_what_it_draws_in_plain_xla(monkeypatch):
  attend = functools.partial(attention_gpu.attend, interpret=True)
  monkeypatch.setitem(
    decode.IMPLEMENTATIONS,
    'pallas_gpu',
    decode.IMPLEMENTATIONS['pallas_gpu']._replace(
      check=lambda config, page, dtype: None,
      attention=lambda axis, kv_heads: over_heads(attend, axis, kv_heads, 1),
    ),
  )
  config, params = tiny.make(head_dim=16)
  rng = np.random.default_rng(0)
  prompts = [tuple(rng.integers(3, 400, n).tolist()) for n in (5, 21, 40)]
  items = [Item(p, p, 0, s, prompts[p]) for p in range(3) for s in range(2)]
  sampling = Sampling(max_tokens=20)

  def completions(impl):
    engine = Engine(
      layout.hand_over(None, params), config, slots=4, bank_rows=2, prompt_capacity=40,
      completion_capacity=20, steps=4, page=16, decode_impl=impl,
    )  # fmt: skip
    return by_item(engine.run(items, sampling))

  assert_equal_up_to_boundaries(
    completions('xla_paged'), completions('pallas_gpu'), params, config, sampling
  )


@pytest.mark.parametrize('packed', [False, True])
def test_cudnn_is_asked_for_the_attention_that_einsum_computes(packed, monkeypatch):
  asked = jax.nn.dot_product_attention

  def as_xla(*args, implementation, **kwargs):
    assert implementation == 'cudnn'
    return asked(*args, implementation='xla', **kwargs)

  monkeypatch.setattr(jax.nn, 'dot_product_attention', as_xla)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  rng = np.random.default_rng(0)
  q, k, v = (
    jnp.asarray(rng.normal(0, 1, (2, 24, n, 16)), jnp.bfloat16).astype(jnp.bfloat16)
    for n in (6, 2, 2)
  )
  segments = jnp.asarray(np.repeat([[1, 2, 3, 0]], 6, axis=1).repeat(2, 0)) if packed else None
  want = attention.causal_attention(q, k, v, segments, impl='einsum')
  got = attention.causal_attention(q, k, v, segments, impl='auto')
  f32 = jnp.float32
  np.testing.assert_allclose(got.astype(f32), want.astype(f32), rtol=2**-6, atol=2**-6)
  assert attention.choose('auto', jnp.dtype('float32'), 64) == 'einsum'


def test_an_attention_that_cannot_run_is_refused():
  q = jnp.zeros((1, 4, 2, 8), jnp.bfloat16)
  with pytest.raises(ValueError, match=r"attention_impl='cudnn' is for GPUs, .* not for cpu"):
    attention.causal_attention(q, q, q, None, impl='cudnn')
  with pytest.raises(ValueError, match="attention_impl='flash': known are auto, einsum, cudnn"):
    attention.causal_attention(q, q, q, None, impl='flash')
