"""Decode attention through tokamax: the kernel itself against causal attention, and compiled.

Where tokamax is missing (Python 3.11) the tests that need it skip; those of the plan, the layout
and the messages do not need it. Nothing here needs a TPU: the kernel runs in JAX's interpreter, and
libtpu, where installed, compiles it for devices that are only described.
"""

import dataclasses
import importlib.util
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tpu_interpreter import tpu_interpreter

from rlvr_jax.models import attention_tpu
from rlvr_jax.models.attention import causal_attention
from rlvr_jax.models.paged import Slots

pytestmark = pytest.mark.usefixtures('strict')


def _has(*modules):
  return all(importlib.util.find_spec(m) is not None for m in modules)


needs_tokamax = pytest.mark.skipif(not _has('tokamax'), reason='tokamax is not installed')
needs_libtpu = pytest.mark.skipif(
  not _has('tokamax', 'libtpu'), reason='tokamax or libtpu is not installed'
)


def test_the_plan_sends_each_slot_to_its_prompt_and_counts_what_is_read():
  rng = np.random.default_rng(0)
  S, M, R = 180, 3, 5
  rows, lengths = rng.choice([0, 1, 3, 4], S), rng.integers(0, 48, S)
  active, prompts = rng.random(S) < 0.8, np.array([7, 0, 20, 32, 5])
  i32 = [jnp.asarray(x, jnp.int32) for x in (rows, lengths, np.arange(S * M).reshape(S, M))]
  plan = attention_tpu.plan_step(Slots(*i32, jnp.asarray(active)), jnp.asarray(prompts, jnp.int32))
  np.testing.assert_array_equal(plan.lengths, np.where(active, lengths + 1, 0))
  np.testing.assert_array_equal(np.asarray(plan.order)[plan.back], np.arange(S))
  read = live = np.sum(lengths[active] + 1)
  for r in range(R):
    mine = np.asarray(plan.order)[plan.starts[r] : plan.starts[r + 1]]
    users = np.flatnonzero(active & (rows == r))
    np.testing.assert_array_equal(np.sort(mine), users)
    assert plan.row_lengths[r] == (prompts[r] + users.size if users.size else 0)
    read += -(-users.size // attention_tpu.QUERY_BLOCK) * prompts[r]
    live += prompts[r] if users.size else 0
  assert plan.starts[R] == active.sum()
  assert (plan.read, plan.live) == (read, live)
  assert read > live  # some prompt has more slots than a block


@pytest.mark.parametrize(('dtype', 'pack'), [('bfloat16', 2), ('float32', 1)])
def test_the_layout_holds_keys_and_values_head_by_head(dtype, pack):
  B, T, K, H = 2, 3, 3, 64
  k, v = (jax.random.normal(jax.random.key(i), (B, T, K, H)).astype(dtype) for i in range(2))
  kv = attention_tpu.interleave(k, v, dtype)
  assert kv.shape == (B, T, 2 * K // pack, pack, 128)
  flat = np.asarray(kv.reshape(B, T, K, 2, 128).astype(jnp.float32))
  np.testing.assert_array_equal(flat[..., 0, :H], k.astype(jnp.float32))
  np.testing.assert_array_equal(flat[..., 1, :H], v.astype(jnp.float32))
  assert not flat[..., H:].any()

  config = dataclasses.replace(tiny.CONFIG, num_heads=2 * K, num_kv_heads=K, head_dim=H)
  sizes = {'bank_rows': 4, 'prompt': 32, 'pages': 5, 'page': 16, 'dtype': dtype}
  whole = attention_tpu.init_cache(config, **sizes)
  tokens = 4 * 32 + 5 * 16
  held = sum(x.nbytes for x in jax.tree.leaves(whole))
  assert held == tokens * attention_tpu.token_bytes(config, dtype)
  assert (whole.page, whole.dtype) == (16, dtype)
  cache = whole.layers[0]
  written = attention_tpu.write_prompts(cache, k, v, jnp.array([2, 4]))
  np.testing.assert_array_equal(written.bank.astype(jnp.float32)[2, :T], kv.astype(jnp.float32)[0])
  assert not written.bank.astype(jnp.float32).at[2, :T].set(0).any()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'page': 24}, 'page=24: tokamax_rpa needs a power of two from 16 to 512'),
    ({'page': 8}, 'page=8'),
    ({'prompt': 40}, 'prompt capacity 40 is no multiple of page=16; 48 is'),
    ({'dtype': 'float16'}, 'cache dtype float16: tokamax_rpa is for bfloat16 and float32'),
  ],
)
def test_what_the_kernel_cannot_hold_is_refused_by_name(change, message):
  capacities = {'bank_rows': 4, 'prompt': 32, 'pages': 5, 'page': 16, 'dtype': 'float32'}
  with pytest.raises(ValueError, match=re.escape(message)):
    attention_tpu.init_layer(2, 64, **(capacities | change))


def test_too_many_pages_for_the_scalar_memory_are_refused():
  info = types.SimpleNamespace(smem_capacity_bytes=1 << 20)
  attention_tpu.check_scalars(1024, 1024 * 192, 1000, 512, 64, info)
  with pytest.raises(ValueError, match='1024 sequences with 256 pages each'):
    attention_tpu.check_scalars(1024, 1024 * 256, 1000, 512, 64, info)
  with pytest.raises(ValueError, match='may take 2049 steps of the kernel, over its 2048'):
    attention_tpu.check_scalars(64, 640, 2049, 512, 64, info)


def _attend_once():
  cache = attention_tpu.init_layer(2, 64, bank_rows=1, prompt=16, pages=4, page=16, dtype='float32')
  i32 = jnp.zeros((1,), jnp.int32)
  slots = Slots(i32, i32, i32[:, None], jnp.ones((1,), bool))
  kv = jnp.zeros((1, 2, 64))
  return attention_tpu.attend(kv, kv, kv, cache, attention_tpu.plan_step(slots, i32))


@pytest.mark.skipif(_has('tokamax'), reason='tokamax is installed')
def test_without_tokamax_the_message_says_what_to_do():
  with pytest.raises(ValueError, match=r'Python 3\.12 and later: pip install .rlvr_jax\[tpu\]'):
    _attend_once()


@needs_tokamax
def test_off_a_tpu_the_message_says_so():
  with pytest.raises(ValueError, match='is for TPU v5e, v5p and later'):
    _attend_once()


class Rows:
  """Prompts and what slots have sampled of them, whole; the cache holds the same in its layout."""

  def __init__(self, K, G, H, dtype):
    rng = np.random.default_rng(H + G)
    self.page, self.shape, self.dtype = 64, (K, G, H), dtype
    self.prompts = np.array([0, 128, 77, 100], np.int32)
    self.rows = np.array([1, 0, 1, 2, 1, 1], np.int32)
    # before a page, at its end, in the middle of the third, and over a block of the kernel
    self.lengths = np.array([0, 63, 64, 150, 7, 20], np.int32)
    self.active = np.array([1, 1, 1, 1, 0, 1], bool)
    S, R = self.rows.size, self.prompts.size
    self.table = rng.permutation(S * 4 + 3)[: S * 4].reshape(S, 4).astype(np.int32)

    def normal(*shape):
      return jnp.asarray(rng.normal(0, 1, shape), dtype)

    self.prompt_kv = normal(2, R, 128, K, H)
    self.own_kv = normal(2, S, 160, K, H)
    self.q = normal(S, 160, K * G, H)

  def cache(self):
    K, _, H = self.shape
    sizes = {'bank_rows': self.prompts.size, 'prompt': 128, 'pages': self.table.size + 3}
    cache = attention_tpu.init_layer(K, H, **sizes, page=self.page, dtype=self.dtype)
    rows = jnp.arange(self.prompts.size)
    cache = attention_tpu.write_prompts(cache, *self.prompt_kv, rows)
    pages = np.array(cache.pages)
    for s, length in enumerate(self.lengths):
      for t in range(length):
        kv = attention_tpu.interleave(*self.own_kv[:, s, t], self.dtype)
        pages[self.table[s, t // self.page], t % self.page] = kv
    return cache._replace(pages=jnp.asarray(pages))

  def step(self, attend, cache):
    index = np.arange(self.rows.size), self.lengths
    slots = Slots(*(jnp.asarray(x) for x in (self.rows, self.lengths, self.table, self.active)))
    k, v = self.own_kv[0][index], self.own_kv[1][index]
    return attend(self.q[index], k, v, cache, slots, jnp.asarray(self.prompts))

  def expected(self, s):
    """Causal attention over the whole row in float32, of its last token."""
    t, row = self.lengths[s], self.rows[s]
    k, v = (
      jnp.concatenate([prompt[row, : self.prompts[row]], own[s, : t + 1]])[None]
      for prompt, own in zip(self.prompt_kv, self.own_kv, strict=True)
    )
    q = (
      jnp.zeros((1, k.shape[1], *self.q.shape[2:])).at[0, -1].set(self.q[s, t].astype(jnp.float32))
    )
    wide = [x.astype(jnp.float32) for x in (k, v)]
    return causal_attention(q, *wide, None)[0, -1]


# kv heads, queries a head, head dim, dtype
CASES = [(2, 7, 64, 'float32'), (2, 6, 128, 'bfloat16'), (3, 4, 64, 'bfloat16')]


@pytest.mark.check
@needs_tokamax
@pytest.mark.parametrize('case', CASES, ids=str)
def test_the_kernel_is_causal_attention_over_prompt_and_pages(case, monkeypatch):
  # small blocks, so that a slot has several and the interpreter little to compile
  monkeypatch.setattr(attention_tpu, 'KEY_BLOCK', 128)
  monkeypatch.setattr(attention_tpu, 'DECODE_BATCH', 2)
  monkeypatch.setattr(attention_tpu, 'QUERY_BLOCK', 16)
  rows = Rows(*case)
  cache = rows.cache()
  # the output is rounded once to the dtype; in float32 the kernel's blocks sum in another order
  tolerance = {'rtol': 2**-8, 'atol': 1e-5} if case[3] == 'bfloat16' else {'rtol': 0, 'atol': 2e-6}

  @jax.jit
  def attend(q, k, v, cache, slots, prompts):
    return attention_tpu.attend(q, k, v, cache, attention_tpu.plan_step(slots, prompts))

  with tpu_interpreter():
    for _ in range(3):
      out, cache = rows.step(attend, cache)
      for s in range(rows.rows.size):
        want = rows.expected(s) if rows.active[s] else jnp.zeros(out.shape[1:])
        np.testing.assert_allclose(out[s].astype(jnp.float32), want, **tolerance)
      rows.lengths = rows.lengths + rows.active
  # the tokens of three steps are where they belong, and nothing else has changed
  for got, want in zip(cache, rows.cache(), strict=True):
    np.testing.assert_array_equal(got.astype(jnp.float32), want.astype(jnp.float32))


def _compiled(topology, K, G, H, dtype, *, tensor=1, layers=2, S=256, M=128, pages=2048):
  """A loop of decode steps over some layers for a described TPU, and the bytes of its caches."""
  from jax.experimental import topologies
  from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

  devices = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  mesh = Mesh(np.array(devices[:tensor]), ('tensor',), axis_types=(AxisType.Auto,))
  sizes = {'bank_rows': 8, 'prompt': 512, 'pages': pages, 'page': 128, 'dtype': dtype}
  heads = PartitionSpec(None, 'tensor')
  of_cache = attention_tpu.LayerCache(*[PartitionSpec(None, None, 'tensor')] * 2)
  attend = jax.shard_map(
    attention_tpu.attend,
    in_specs=(heads, heads, heads, of_cache, PartitionSpec()),
    out_specs=(heads, of_cache),
    check_vma=False,
  )

  def loop(qkv, caches, slots, prompts):
    def body(carry):
      i, q, caches, slots = carry
      plan = attention_tpu.plan_step(slots, prompts)
      written = []
      for cache in caches:
        out, cache = attend(q, *qkv[1:], cache, plan)
        q = q + out
        written.append(cache)
      return i + 1, q, written, slots._replace(lengths=slots.lengths + 1)

    return jax.lax.while_loop(lambda c: c[0] < 32, body, (jnp.int32(0), qkv[0], caches, slots))

  def abstract(tree, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  def make():
    caches = [attention_tpu.init_layer(K, H, **sizes) for _ in range(layers)]
    qkv = [jnp.zeros((S, heads, H), dtype) for heads in (K * G, K, K)]
    i32 = jnp.zeros((S,), jnp.int32)
    slots = Slots(i32, i32, jnp.zeros((S, M), jnp.int32), jnp.zeros((S,), bool))
    return qkv, caches, slots, jnp.zeros((8,), jnp.int32)

  qkv, caches, slots, prompts = jax.eval_shape(make)
  of_caches = PartitionSpec(None, None, 'tensor')
  args = (
    abstract(qkv, heads),
    abstract(caches, of_caches),
    *abstract((slots, prompts), PartitionSpec()),
  )
  with jax.set_mesh(mesh):
    compiled = jax.jit(loop, donate_argnums=1).lower(*args).compile()
  own = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(caches)) // tensor
  return compiled, own


@pytest.mark.check
@needs_libtpu
@pytest.mark.parametrize(
  ('topology', 'shape', 'tensor'),
  [
    ('v5e:2x2', (4, 7, 128, 'bfloat16'), 1),
    ('v5e:2x2', (4, 7, 128, 'bfloat16'), 4),
    ('v5p:2x2x1', (4, 7, 128, 'bfloat16'), 1),
    ('v5p:2x2x1', (2, 7, 64, 'float32'), 1),
  ],
  ids=str,
)
def test_it_compiles_for_a_tpu_and_updates_the_cache_in_place(topology, shape, tensor, monkeypatch):
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')  # no metadata server on this machine
  compiled, cache = _compiled(topology, *shape, tensor=tensor)
  memory = compiled.memory_analysis()
  assert memory.alias_size_in_bytes >= cache
  # one layer's pages are over 128 MB on a device: a copy of any of them would show
  assert memory.temp_size_in_bytes < 64e6
  text = compiled.as_text()
  # nor is a bank copied: as it is, or as the pages the kernel takes it for
  copies = re.findall(r'= (.*?) (?:copy|copy-start)\(', text)
  assert not [c for c in copies if re.search(r'\[(8,512|32,128|2048,128),\d+,\d+,\d+\]', c)]
  # two calls a layer, each as three kernels; their schedules are made once for all layers
  calls = re.findall(r'%(rpa_metadata_schedule|RPA)[^ ]* = [^%]*custom-call\(', text)
  assert (calls.count('rpa_metadata_schedule'), calls.count('RPA')) == (6, 12)
