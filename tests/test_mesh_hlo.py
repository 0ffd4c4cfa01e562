"""What the compiled programs do on a mesh, read from their HLO on 8 simulated devices.

Decoding gathers no weights, the learner gathers them layer by layer, state is written over, nothing
speaks to the host inside, and the optimizer passes few times over its arrays. Each check is also
shown a program that it must refuse.
"""

import functools
import math
import re
from typing import Any

import hlo
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rlvr_jax.models import transformer
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.rules import DECODE_RULES, KV_PATHS
from rlvr_jax.models.transformer import UNROLLED_LAYERS, init_params, unstack
from rlvr_jax.rl import update as update_lib
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.optimizer import make_optimizer
from rlvr_jax.rl.types import TrainState
from rlvr_jax.rl.update import Rows, descend, make_update, rows_sharding, state_shardings
from rlvr_jax.sampling import layout
from rlvr_jax.sampling.draw import Options
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sharding import make_mesh, row_parts, sampler_mesh, shardings

# layers enough for a scan; weights larger than whatever activations of a few slots
CONFIG = ModelConfig('qwen2', 1536, 64, 128, UNROLLED_LAYERS + 1, 8, 2, 8, qkv_bias=True)
SHALLOW = ModelConfig('qwen2', 6144, 128, 256, 2, 8, 2, 8, qkv_bias=True, tie_embeddings=False)
MATRICES = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')
STEPS, SLOTS = 4, 8
EXCHANGES = tuple(kind for kind in hlo.COLLECTIVES if kind not in ('all-reduce', 'reduce-scatter'))


def optimizer(**changes):
  settings = {
    'schedule': 'constant', 'warmup_steps': 0, 'total_steps': 10, 'b1': 0.9, 'b2': 0.999,
    'eps': 1e-8, 'weight_decay': 0.01, 'clip_norm': 1.0, 'moment_dtype': 'float32',
    'second_moment_dtype': 'float32', 'param_dtype': 'float32', 'rounding': 'nearest', 'seed': 0,
  }  # fmt: skip
  return make_optimizer(1e-4, **(settings | changes))


# -- the sampler's chunk


def sampler_params(mesh, rules=DECODE_RULES):
  """Sampler weights laid by rules."""
  params = init_params(jax.random.key(0), SHALLOW)
  if rules is DECODE_RULES:
    return hand_over(None, params, mesh)
  replicate = KV_PATHS if SHALLOW.num_kv_heads % mesh.shape['tensor'] else None
  params = unstack(params)
  return jax.device_put(params, shardings(params, rules, mesh, replicate=replicate))


def compiled_chunk(shape, rules=DECODE_RULES):
  """(compiled, sampler params, state) of a chunk of decode steps on a mesh."""
  mesh = make_mesh(*shape)
  params = sampler_params(mesh, rules)
  engine = Engine(
    params, SHALLOW, mesh=mesh, slots=SLOTS, bank_rows=2, steps=STEPS, page=16,
    prompt_capacity=32, completion_capacity=64,
  )  # fmt: skip
  engine._allocate(False)
  options = Options(jnp.float32(1), jnp.float32(1), jnp.int32(0))
  lowered = engine._programs.run_chunk.lower(
    params, engine._state, options, np.full(16, -1, np.int32),
    config=SHALLOW, steps=STEPS, extras=False, impl=engine.decode_impl,
  )  # fmt: skip
  return lowered.compile(), params, engine._state


@functools.cache
def chunk(shape):
  return compiled_chunk(shape)


def gathered_weights(program, params):
  """Exchanges (no sums) that are large enough to bring a matrix of a layer, or more, whole."""
  smallest = min(hlo.local_sizes(params)[f'layers/0/{name}'] for name in MATRICES)
  return [op for op in program.collectives(*EXCHANGES) if op.largest >= smallest]


CHUNKS = [(2, 2, 2), *(pytest.param(s, marks=pytest.mark.check) for s in [(1, 8, 1), (1, 1, 8)])]


@pytest.mark.parametrize('shape', CHUNKS, ids=str)
def test_decoding_gathers_no_weights_and_no_logits(shape):
  compiled, params, _ = chunk(shape)
  program = hlo.program_of(compiled)
  assert not gathered_weights(program, params)
  assert max(program.depth.values()) >= 1
  slots = SLOTS // (shape[0] * shape[1])
  for op in program.collectives():
    assert op.largest < slots * SHALLOW.vocab_size // shape[2], op


def over_fsdp(spec):
  """A decode rule that also splits a weight over fsdp: then each device needs the others' parts."""
  if 'tensor' not in spec:
    return spec
  free = [i for i, axis in enumerate(spec) if axis is None]
  return P(*('fsdp' if i == free[0] else axis for i, axis in enumerate(spec)))


def test_a_rule_that_would_gather_all_weights_in_decode_is_seen():
  wrong = tuple((pattern, over_fsdp(spec)) for pattern, spec in DECODE_RULES)
  compiled, _, _ = compiled_chunk((2, 2, 2), wrong)
  right = chunk((2, 2, 2))[1]
  found = gathered_weights(hlo.program_of(compiled), right)
  assert len(found) >= SHALLOW.num_layers * len(MATRICES)


def bytes_of(tree):
  """Of one device."""
  sizes = hlo.local_sizes(tree).values()
  return sum(
    n * (8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize)
    for n, x in zip(sizes, jax.tree.leaves(tree), strict=True)
  )


def assert_written_over(compiled, state, first):
  """Every leaf of a donated state, the program's parameters from `first` on, becomes a result."""
  program = hlo.program_of(compiled)
  count = len(jax.tree.leaves(state))
  assert set(range(first, first + count)) <= program.aliased
  assert compiled.memory_analysis().alias_size_in_bytes >= bytes_of(state)


def test_the_samplers_state_is_written_over():
  compiled, params, state = chunk((2, 2, 2))
  assert_written_over(compiled, state, len(jax.tree.leaves(params)))


def test_the_check_of_aliases_sees_a_state_that_is_not_written_over():
  state = {'a': jnp.zeros(64), 'b': jnp.zeros(64)}

  def step(state):
    return {'a': state['a'] + 1, 'b': (state['b'] + 1).astype(jnp.bfloat16)}

  compiled = jax.jit(step, donate_argnums=0).lower(state).compile()
  with pytest.raises(AssertionError):
    assert_written_over(compiled, state, 0)


# -- the learner's step


def compiled_step(shape):
  """(compiled, state) of a step over three micro-batches on a mesh."""
  mesh, adam = make_mesh(*shape), optimizer()

  def start():
    params = init_params(jax.random.key(0), CONFIG)
    return TrainState(jnp.zeros((), jnp.int32), params, adam.init(params))

  target = state_shardings(jax.eval_shape(start), CONFIG, mesh)
  state = jax.jit(start, out_shardings=target)()
  rows = 3, 2 * row_parts(mesh), 48

  def zeros(dtype):
    return jax.device_put(np.zeros(rows, dtype), rows_sharding(mesh))

  batch = Rows(zeros(np.int32), zeros(bool), zeros(np.float32), zeros(np.float32))
  update: Any = make_update(CONFIG, choose('grpo'), adam, longest=20, chunk=32, mesh=mesh)
  return update.lower(state, batch, jnp.float32(1)).compile(), state


learner_step = functools.cache(compiled_step)


def layer_sizes(params, shape):
  """{matrix: elements of one layer of it on a device, gathered over fsdp}."""
  found = {}
  for name in MATRICES:
    leaf = params['layers'][name]
    split = shape[2] if 'tensor' in leaf.sharding.spec else 1
    found[name] = leaf.size // leaf.shape[0] // split
  return found


def gathered_at_once(program, params, shape):
  """Gathers of weights that do not stand in the loop over layers, or over parts of the head.

  Both are loops inside the one over micro-batches.
  """
  sizes = layer_sizes(params, shape)
  most = max(*sizes.values(), params['embed'].size // shape[2] // 2)
  return [
    op
    for op in program.collectives('all-gather')
    if 'f32' in op.types
    and (op.largest > most or (op.largest >= min(sizes.values()) and depth_of(program, op) < 2))
  ]


def depth_of(program, op):
  return program.depth[op.computation]


STEP_MESHES = [
  (1, 4, 2),
  *(pytest.param(s, marks=pytest.mark.check) for s in [(1, 8, 1), (2, 2, 2), (8, 1, 1)]),
]


@pytest.mark.parametrize('shape', STEP_MESHES, ids=str)
def test_the_learner_gathers_weights_layer_by_layer(shape):
  compiled, state = learner_step(shape)
  program = hlo.program_of(compiled)
  assert not gathered_at_once(program, state.params, shape)
  if shape[1] == 1:  # nothing is split over fsdp
    return
  gathers = program.collectives('all-gather')
  inside = [op.largest for op in gathers if depth_of(program, op) == 2]
  for name, size in layer_sizes(state.params, shape).items():
    assert inside.count(size) >= 2, name  # forward and backward


def wide_exchanges(program, shape):
  """Those that bring all rows of a micro-batch, or the whole head, to a device."""
  rows = 2 * shape[0] * shape[1] * 48 * CONFIG.embed_dim
  head = CONFIG.vocab_size * CONFIG.embed_dim // shape[2]
  return [
    op
    for op in program.collectives(*EXCHANGES)
    for dtype, dims in zip(op.types, op.shapes, strict=True)
    if dtype == 'f32' and math.prod(dims) >= min(rows, head)
  ]


@pytest.mark.parametrize('shape', STEP_MESHES, ids=str)
def test_no_device_gets_all_rows_or_the_whole_head(shape):
  assert not wide_exchanges(hlo.program_of(learner_step(shape)[0]), shape)


@pytest.mark.check
def test_rows_that_are_brought_to_every_device_are_seen(monkeypatch):
  """What the compiler makes of a plain look-up in a table that is split over two axes."""
  monkeypatch.setattr(transformer, '_look_up', lambda embed, tokens, mesh: embed[tokens])
  compiled, _ = compiled_step((2, 2, 2))
  assert wide_exchanges(hlo.program_of(compiled), (2, 2, 2))


@pytest.mark.check
def test_weights_gathered_ahead_of_the_layers_are_seen(monkeypatch):
  shape = (1, 8, 1)
  whole = jax.sharding.NamedSharding(make_mesh(*shape), P())

  def cast_and_gather(params, dtype):
    return jax.tree.map(
      lambda x: jax.lax.with_sharding_constraint(x.astype(dtype), whole), params
    )  # fmt: skip

  monkeypatch.setattr(update_lib, '_cast', cast_and_gather)
  compiled, state = compiled_step(shape)
  found = gathered_at_once(hlo.program_of(compiled), state.params, shape)
  assert len(found) >= len(MATRICES)


@pytest.mark.parametrize('shape', STEP_MESHES, ids=str)
def test_the_learners_state_is_written_over(shape):
  compiled, state = learner_step(shape)
  assert_written_over(compiled, state, 0)


# -- the hand-over


def gathered_parts(shape, tensor):
  """({elements of what a hand-over gathers at once}, {those of a device's parts})."""
  mesh = make_mesh(*shape)
  params = init_params(jax.random.key(0), CONFIG)
  params = jax.device_put(params, state_shardings(params, CONFIG, mesh))
  own = sampler_mesh(mesh, tensor)
  program = layout.hand_over_program(None, params, own)
  gathers = hlo.program_of(program.lower(params).compile()).collectives('all-gather')
  mine = hlo.local_sizes(layout.hand_over(None, params, own))
  return {op.largest for op in gathers}, set(mine.values())


HAND_OVERS = [
  ((1, 8, 1), 2),
  *(pytest.param(*c, marks=pytest.mark.check) for c in [((1, 8, 1), 1), ((2, 4, 1), 4)]),
]


@pytest.mark.parametrize(('shape', 'tensor'), HAND_OVERS, ids=str)
def test_a_hand_over_gathers_a_devices_part_of_a_layer_and_no_more(shape, tensor):
  found, parts = gathered_parts(shape, tensor)
  assert found
  assert found <= parts


def test_weights_that_a_hand_over_gathers_whole_are_seen(monkeypatch):
  """What the compiler makes of it alone where `tensor` differs: the table on every device."""
  plain = layout._between
  monkeypatch.setattr(layout, '_between', lambda params, mesh: (None,) * len(plain(params, mesh)))
  found, parts = gathered_parts((1, 8, 1), 2)
  assert found - parts == {CONFIG.vocab_size * CONFIG.embed_dim}


# -- both


def test_nothing_speaks_to_the_host_inside():
  for compiled in (chunk((2, 2, 2))[0], learner_step((1, 4, 2))[0]):
    assert not hlo.program_of(compiled).transfers()


def test_the_check_of_transfers_sees_a_callback_in_a_loop():
  def body(i, x):
    jax.debug.callback(print, x)
    return x + i

  compiled = jax.jit(lambda x: jax.lax.fori_loop(0, 5, body, x)).lower(0).compile()
  program = hlo.program_of(compiled)
  assert [depth_of(program, op) for op in program.transfers()] == [1]


# -- the optimizer


def passes(make, dtype='float32'):
  """(passes over the first leaf, temporary bytes a number) of one descent with clipping."""
  params = {'a': jax.ShapeDtypeStruct((6, 256, 256), dtype), 'b': jax.ShapeDtypeStruct((9,), dtype)}
  state = jax.eval_shape(make.init, params)
  grads = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), params)

  def run(params, state, grads):
    return descend(make, jnp.float32(0), grads, params, state)

  compiled = jax.jit(run, donate_argnums=(0, 1)).lower(params, state, grads).compile()
  program = hlo.program_of(compiled)
  work = [
    op
    for op in program.computations[program.entry]
    if op.shapes == ((6, 256, 256),) and op.kind not in ('parameter', 'bitcast')
  ]
  size = math.prod((6, 256, 256))
  memory = compiled.memory_analysis()
  assert memory is not None
  return len(work), memory.temp_size_in_bytes / size


def test_the_optimizer_passes_few_times_over_its_arrays():
  """Three results, the clipped gradient and copies of both moments on the CPU: all in fusions."""
  count, temporary = passes(optimizer())
  assert count <= 6
  assert temporary <= 13  # bytes: three float32 arrays


def test_the_check_of_passes_sees_an_optimizer_in_pieces():
  adam = optimizer()

  def update(grads, state, params=None):
    for scale in (2.0, 0.5):  # a barrier between any two steps of the arithmetic
      grads = jax.tree.map(lambda g: jax.lax.optimization_barrier(g * scale), grads)  # noqa: B023
    return adam.update(grads, state, params)

  in_pieces = adam._replace(update=update)
  assert passes(in_pieces)[0] > 6


def test_the_reader_itself():
  """Loops within calls, asynchronous pairs, tuples with comments."""
  program = hlo.Program(
    re.sub(
      '^    ',
      '',
      """HloModule m, input_output_alias={ {0}: (2, {}, may-alias), {1, 0}: (0, {}, may-alias) }

    %inner.1 (p: f32[2]) -> f32[2] {
      ROOT %gather = (f32[4]{0}, /*index=1*/bf16[2,3]{1,0}) all-gather-start(%p), dimensions={0}
    }

    %body (p: (s32[])) -> (s32[]) {
      ROOT %c = s32[] call(%p), to_apply=%inner.1
    }

    ENTRY %main (p: f32[2]) -> f32[2] {
      %send.1 = (f32[2]{0}, u32[], token[]) send(%p, %t), channel_id=1
      ROOT %w = (s32[]) while(%p), condition=%cond, body=%body
    }
""",
      flags=re.M,
    )
  )
  assert program.aliased == {0, 2}
  assert program.depth == {'main': 0, 'body': 1, 'inner.1': 1}
  assert [op.largest for op in program.collectives('all-gather')] == [6]
  assert [op.name for op in program.transfers()] == ['send.1']
  assert hlo.local_sizes({'a': jnp.zeros((3, 4))}) == {'a': 12}
