"""Decode attention by name: tokamax's through the engine is XLA's; what cannot run is refused.

Where tokamax is missing (Python 3.11) the tests that need it skip, by name.
"""

import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from exactness import assert_equal_up_to_boundaries, by_item
from tpu_interpreter import tpu_interpreter

from configs import base
from rlvr_jax import config as config_lib
from rlvr_jax.eval import run as run_lib
from rlvr_jax.models import attention_tpu, decode
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import init_params, unstack
from rlvr_jax.sampling import budget, engine, layout
from rlvr_jax.sampling.draw import Options
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.types import Item, Sampling

pytestmark = pytest.mark.usefixtures('strict')


def _has(*modules):
  return all(importlib.util.find_spec(m) is not None for m in modules)


needs_tokamax = pytest.mark.skipif(not _has('tokamax'), reason='tokamax is not installed')
needs_libtpu = pytest.mark.skipif(
  not _has('tokamax', 'libtpu'), reason='tokamax or libtpu is not installed'
)


def new_engine(params=None, config=None, **changes):
  config = config or tiny.make()[0]
  sizes = {'slots': 4, 'bank_rows': 2, 'prompt_capacity': 40, 'completion_capacity': 20, 'page': 16}
  return Engine(params, config, **(sizes | {'steps': 4} | changes))


def run_config(**changes):
  return config_lib.resolve(
    base.get_config(), {'sampling.prompt_capacity': 40, 'sampling.max_tokens': 20, **changes}
  )


def test_auto_is_xla_on_a_cpu():
  assert new_engine().decode_impl == 'xla_paged'
  assert new_engine(decode_impl='xla_paged').decode_impl == 'xla_paged'
  assert run_lib.engine_budget(run_config(), tiny.CONFIG).decode_impl == 'xla_paged'


@pytest.mark.parametrize('error', [None, ValueError('too old')])
def test_auto_on_a_tpu_is_tokamax_where_it_runs(monkeypatch, caplog, error):
  asked = []

  def check(config, page, dtype):
    asked.append((page, dtype))
    if error:
      raise error

  mine = decode.IMPLEMENTATIONS['tokamax_rpa']._replace(check=check)
  monkeypatch.setitem(decode.IMPLEMENTATIONS, 'tokamax_rpa', mine)
  with caplog.at_level('INFO'):
    found = decode.choose('auto', tiny.CONFIG, page=64, dtype='bfloat16', platform='tpu')
  assert found == ('xla_paged' if error else 'tokamax_rpa')
  assert asked == [(64, 'bfloat16')]
  assert ('takes xla_paged: too old' in caplog.text) == bool(error)
  assert decode.choose('auto', tiny.CONFIG, page=64, dtype=None, platform='gpu') == 'xla_paged'


def test_the_config_and_the_implementations_agree_on_their_names():
  for name in ('auto', *decode.IMPLEMENTATIONS):
    run_config(**{'sampling.decode_impl': name})
  with pytest.raises(ValueError, match=r'sampling\.decode_impl=.xla_tiers.: must be one of'):
    run_config(**{'sampling.decode_impl': 'xla_tiers'})
  with pytest.raises(ValueError, match="'xla_tiers' is none of auto, xla_paged, tokamax_rpa"):
    new_engine(decode_impl='xla_tiers')


def test_an_implementation_that_cannot_run_is_refused_before_anything_is_allocated(monkeypatch):
  message = r"sampling\.decode_impl='tokamax_rpa' .* set sampling\.decode_impl='xla_paged'"
  config = run_config(**{'sampling.decode_impl': 'tokamax_rpa'})
  monkeypatch.setattr(engine, 'Bank', None)  # what the engine makes first
  with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
    new_engine(decode_impl='tokamax_rpa')
  with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
    run_lib.make_engine(config, None, tiny.CONFIG)


@pytest.mark.parametrize('capacity', [30, 200])
def test_the_price_is_of_the_cache_that_the_implementation_allocates(capacity):
  config = tiny.CONFIG
  sizes = {'slots': 4, 'bank_rows': 3, 'page': 16}
  for name, implementation in decode.IMPLEMENTATIONS.items():
    priced = budget.price(
      config, prompt_capacity=capacity, completion_capacity=20, pages=0, dtype='float32',
      decode_impl=name, **sizes,
    )  # fmt: skip
    bank = implementation.bank_capacity(capacity, 16)
    cache = jax.eval_shape(
      lambda make=implementation.init_cache, bank=bank: make(
        config, bank_rows=3, prompt=bank, pages=8, page=16, dtype='float32'
      )
    )
    leaves = jax.tree.leaves(cache)
    assert priced.bank + priced.pool == sum(x.size * x.dtype.itemsize for x in leaves)
    assert name in budget.describe(priced)
    assert (cache.page, cache.dtype) == (16, 'float32')
    again = cache.with_layers(list(cache.layers))
    assert jax.tree.structure(again) == jax.tree.structure(cache)


@pytest.mark.check
@pytest.mark.timeout(900)
@needs_tokamax
def test_the_kernel_through_the_engine_is_the_plain_attention(monkeypatch):
  """Prompts take turns in the bank, completions go over a page, and the queue refills slots."""
  for name, value in (('KEY_BLOCK', 128), ('DECODE_BATCH', 2), ('QUERY_BLOCK', 16)):
    monkeypatch.setattr(attention_tpu, name, value)
  config, params = tiny.make()
  rng = np.random.default_rng(0)
  prompts = [tuple(rng.integers(0, 400, n).tolist()) for n in (1, 9, 30)]
  queue = [
    Item(i, i, 0, s, p, limit=17 if i == 0 else 4) for s in range(2) for i, p in enumerate(prompts)
  ]
  sampling = Sampling(max_tokens=20)

  def draw(impl):
    on = new_engine(layout.hand_over(None, params), decode_impl=impl)
    return by_item(on.run(queue, sampling)), on.stats

  plain, plain_stats = draw('xla_paged')
  with tpu_interpreter():
    ours, stats = draw('tokamax_rpa')
  assert_equal_up_to_boundaries(plain, ours, params, config, sampling)
  assert stats.kv_live == plain_stats.kv_live
  assert max(len(c.tokens) for c in ours.values()) == 17
  assert stats.prompts == plain_stats.prompts == 5  # two rows for three prompts


# a model whose pages outweigh everything else, so that a copy of them would show
CONFIG = ModelConfig(
  'qwen2', vocab_size=2048, embed_dim=256, mlp_dim=512, num_layers=2, num_heads=8, num_kv_heads=4,
  head_dim=128, qkv_bias=True,
)  # fmt: skip


def _compiled(topology, shape, dtype):
  """The engine's decode program and prefill for a described TPU, and the cache's bytes a device."""
  from jax.experimental import topologies
  from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

  described = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  devices = np.array(described[: int(np.prod(shape))]).reshape(shape)
  mesh = Mesh(devices, ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)
  on = new_engine(
    None, CONFIG, mesh=mesh, slots=64 * shape[0], prompt_capacity=512, completion_capacity=4096,
    page=128, steps=8,
  )  # fmt: skip
  assert on.decode_impl == 'tokamax_rpa'

  def abstract(tree, shardings):
    return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )

  make, target = on.new_state(dtype, False)
  state = abstract(jax.eval_shape(make), target)
  params = jax.eval_shape(lambda key: unstack(init_params(key, CONFIG, dtype)), jax.random.key(0))
  params = abstract(params, layout.decode_shardings(params, mesh))
  whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (layout.ROWS,)))

  def array(shape, dtype, sharding=whole):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

  options = Options(array((), jnp.float32), array((), jnp.float32), array((), jnp.int32))
  programs = layout.programs_over(mesh, target)
  static = {'config': CONFIG, 'impl': on.decode_impl}
  loop = programs.run_chunk.lower(
    params, state, options, array((8,), jnp.int32), steps=8, extras=False, **static
  ).compile()
  i32 = array((on.shards,), jnp.int32, split)
  prompt = array((on.shards, 512), jnp.int32, split)
  prefill = programs.prefill.lower(params, state, prompt, i32, i32, **static).compile()
  held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.cache))
  return loop, prefill, held // devices.size


@pytest.mark.check
@pytest.mark.timeout(900)
@needs_libtpu
@pytest.mark.parametrize(
  ('topology', 'shape', 'dtype'),
  [
    ('v5e:2x2', (2, 1, 2), 'bfloat16'),
    ('v5p:2x2x1', (2, 1, 1), 'bfloat16'),
    ('v5p:2x2x1', (1, 1, 1), 'float32'),
  ],
  ids=str,
)
def test_the_engine_compiles_for_a_tpu_and_keeps_its_cache_in_place(
  topology, shape, dtype, monkeypatch
):
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')  # no metadata server on this machine
  loop, prefill, cache = _compiled(topology, shape, dtype)
  for program in (loop, prefill):
    memory = program.memory_analysis()
    assert memory.alias_size_in_bytes >= cache
    assert memory.temp_size_in_bytes < cache / 8
  # two calls a layer, each as three kernels
  calls = re.findall(r'%RPA[^ ]* = [^%]*custom-call\(', loop.as_text())
  assert len(calls) == 2 * 3 * CONFIG.num_layers
