"""Packing: every rollout whole and once, few shapes, and a step that does not know of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench._schedule import LONG_TAIL, LengthLaw
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import init_params
from rlvr_jax.profiling import compilations
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.packing import (
  FILL,
  Layout,
  first_fit_decreasing,
  pack,
  packed_layout,
  plain_layout,
)
from rlvr_jax.rl.rollout import assemble, layout_of, micro_batches
from rlvr_jax.rl.types import TrainState
from rlvr_jax.rl.update import make_score, make_update, map_rows, state_shardings
from rlvr_jax.sharding import make_mesh

CONFIG = ModelConfig('qwen2', 12, 8, 16, 1, 4, 2, 4, qkv_bias=True)
B, LONGEST, WIDTH = 48, 10, 16
# keeps the gradient in its state
KEEP = optax.GradientTransformation(
  lambda params: jax.tree.map(jnp.zeros_like, params),
  lambda updates, state, params=None: (updates, updates),
)
TEMPERATURE = 0.8
# each has its own way through the loss: level of the ratio, surrogate, aggregation, selection
ALGORITHMS = {
  'grpo': choose('grpo', kl_coef=0.1),
  'dr_grpo': choose('dr_grpo', entropy_coef=0.01),
  'gspo': choose('gspo', clip_low=0.5, clip_high=0.9),
  'cispo': choose('cispo', clip_high=1.5),
  'dapo': choose('dapo', offpolicy='rs', offpolicy_low=-0.5, offpolicy_high=0.5),
  'kl_cov': choose('kl_cov', aggregation='seq_mean_token_sum'),
}


@pytest.fixture(autouse=True)
def quick():
  """Programs that compile fast."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@functools.cache
def start_params():
  """Random in every leaf, f64."""
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: 0.4 * rng.normal(size=s.shape), shapes)


@functools.cache
def batch():
  """Ragged rollouts, and per-token arrays f64[B,W] of them: off-policy, every one with values."""
  rng = np.random.default_rng(1)
  prompts = [rng.integers(1, 12, rng.integers(1, 6)).tolist() for _ in range(B)]
  completions = [rng.integers(0, 12, rng.integers(1, LONGEST + 1)) for _ in range(B)]
  sampler = [-rng.exponential(1.0, len(c)) for c in completions]
  rollouts = assemble(prompts, completions, sampler_logprobs=sampler)
  assert rollouts.tokens.shape == (B, WIDTH)
  rollouts = rollouts.replace(valid=np.arange(B) != 5)
  shape = (B, WIDTH)
  given = {
    'old_logprobs': -rng.exponential(1.0, shape),
    'ref_logprobs': -rng.exponential(1.0, shape),
    'keep': rng.random(shape) < 0.7,
    'penalised': rng.random(shape) < 0.3,
  }
  return rollouts, rng.normal(size=shape), given


def cut(layout, algorithm, dtype):
  rollouts, advantages, given = batch()
  used = ['old_logprobs']
  used += ['ref_logprobs'] * algorithm.reference
  used += ['keep', 'penalised'] * (algorithm.token_select != 'none')
  rows = micro_batches(rollouts, advantages, layout, **{k: given[k] for k in used})
  return jax.tree.map(lambda x: x.astype(dtype) if x.dtype.kind == 'f' else x, rows)


def plain(rollouts_each, multiple=1):
  return layout_of(batch()[0], micro_tokens=rollouts_each * WIDTH, multiple=multiple)


def packed(micro_tokens, multiple=1):
  return layout_of(batch()[0], micro_tokens=micro_tokens, multiple=multiple, packing=True)


def alike(spread):
  """A layout in the shape of its mate, so that one program serves both.

  Either each rollout alone in its row (spread), or as full as rows get; M 32, b 2, T 128.
  """
  source = np.full((64, 128), -1)
  if spread:
    lengths = batch()[0].prompt_lengths + batch()[0].completion_lengths
    for i in np.flatnonzero(batch()[0].valid):
      source[i, : lengths[i]] = np.arange(lengths[i]) + i * WIDTH
  else:
    rows = packed(256).source.reshape(-1, 128)
    source[: len(rows)] = rows
  return Layout(source.reshape(32, 2, 128), (B, WIDTH), True)


@functools.cache
def updater(name, dtype, mesh=None):
  return make_update(
    CONFIG, ALGORITHMS[name], KEEP, longest=LONGEST, compute_dtype=dtype, remat=False, chunk=1024,
    mesh=mesh,
  )  # fmt: skip


def step(name, layout, dtype='float64', mesh=None):
  """(metrics, gradient) of a step."""
  return step_on(cut(layout, ALGORITHMS[name], dtype), name, dtype, mesh)


def step_on(rows, name, dtype, mesh=None):
  params = jax.tree.map(lambda x: jnp.asarray(x, dtype), start_params())
  state = TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=KEEP.init(params))
  if mesh is not None:
    state = jax.device_put(state, state_shardings(state, CONFIG, mesh))
  after, metrics = updater(name, dtype, mesh)(state, rows, jnp.asarray(TEMPERATURE, dtype))
  assert int(metrics['skipped']) == 0
  return jax.device_get((metrics, after.opt_state))


def assert_same(got, expected, tolerance):
  assert got[0].keys() == expected[0].keys()
  for key, value in expected[0].items():
    assert got[0][key] == pytest.approx(value, rel=tolerance, abs=tolerance), key
  pairs = zip(jax.tree.leaves_with_path(got[1]), jax.tree.leaves(expected[1]), strict=True)
  for (path, g), e in pairs:
    error = np.linalg.norm(g - e) / np.linalg.norm(e)
    assert error < tolerance, f'{path}: {error}'


@functools.cache
def whole(name, dtype):
  """One rollout a row, two rows a micro-batch."""
  return step(name, alike(spread=True), dtype)


@pytest.mark.parametrize('name', ALGORITHMS)
def test_in_float64_the_step_does_not_know_of_packing(name):
  with jax.enable_x64(True):
    expected = whole(name, 'float64')
    assert expected[0]['tokens'] == sum(
      n for i, n in enumerate(batch()[0].completion_lengths) if i != 5
    )
    layout = alike(spread=False)
    assert 1 < layout.used < 4
    assert_same(step(name, layout), expected, 1e-9)


@pytest.mark.parametrize(
  ('name', 'rollouts_each', 'micro_tokens'),
  [
    ('grpo', (1, 8), (1024,)),  # two are in every test here
    pytest.param('grpo', (2,), (16, 64), marks=pytest.mark.check),
    pytest.param('gspo', (1, 2, 8), (16, 64, 1024), marks=pytest.mark.check),
  ],
)
def test_in_float64_the_step_does_not_know_of_micro_batches(name, rollouts_each, micro_tokens):
  with jax.enable_x64(True):
    for layout in (*map(plain, rollouts_each), *map(packed, micro_tokens)):
      assert_same(step(name, layout), whole(name, 'float64'), 1e-9)
  assert packed(1024).source.shape[0] == 1
  assert packed(16).used > 16


@pytest.mark.parametrize(
  ('name', 'shape'),
  [
    ('grpo', (8, 1, 1)),
    pytest.param('grpo', (2, 2, 2), marks=pytest.mark.check),
    pytest.param('gspo', (2, 2, 2), marks=pytest.mark.check),
  ],
  ids=str,
)
def test_in_float64_eight_devices_are_one(name, shape):
  with jax.enable_x64(True):
    mesh, multiple = make_mesh(*shape), shape[0] * shape[1]
    layout = packed(8 * WIDTH, multiple)
    assert layout.used > 1
    assert_same(step(name, layout, mesh=mesh), whole(name, 'float64'), 1e-9)


@pytest.mark.parametrize(
  'name', ['grpo', *(pytest.param(x, marks=pytest.mark.check) for x in list(ALGORITHMS)[1:])]
)
def test_in_float32_gradients_agree_in_norm(name, strict):
  assert_same(step(name, alike(spread=False), 'float32'), whole(name, 'float32'), 1e-5)


@functools.cache
def score():
  return make_score(CONFIG, chunk=1024)


def scored(tokens, layout):
  rollouts = batch()[0].replace(tokens=tokens)
  params = jax.tree.map(lambda x: x.astype(np.float32), start_params())
  return score()(params, micro_batches(rollouts, None, layout), jnp.float32(TEMPERATURE))


def test_log_probs_come_back_by_rollout_whatever_the_layout(strict):
  rollouts = batch()[0]
  mask = rollouts.completion_mask & rollouts.valid[:, None]
  expected = [plain(8).restore(x) for x in scored(rollouts.tokens, plain(8))]
  for x, e in zip(scored(rollouts.tokens, packed(256)), expected, strict=True):
    got = packed(256).restore(x)
    np.testing.assert_allclose(got[mask], e[mask], atol=1e-5, rtol=0)
    assert (got[mask] != 0).all()
    assert not got[:, 0].any()
    assert not got[5].any()  # not valid: not even computed


def test_rollouts_in_a_row_do_not_see_each_other(strict):
  """Other tokens in one change no bit of the log-probs of its neighbours, before and after it."""
  rollouts, layout = batch()[0], packed(256)
  before = [np.asarray(x) for x in scored(rollouts.tokens, layout)]
  owner = np.where(layout.source >= 0, layout.source // WIDTH, -1)
  row = np.unique(owner[0, 0])
  assert len(row) > 5
  changed = row[len(row) // 2]
  tokens = rollouts.tokens.copy()
  tokens[changed] = (tokens[changed] + 1 + np.arange(WIDTH) % 5) % 12
  after = [np.asarray(x) for x in scored(tokens, layout)]
  for a, b in zip(before, after, strict=True):
    np.testing.assert_array_equal(a[owner != changed], b[owner != changed])
    inside = (owner == changed) & (layout.positions > 0)
    assert (a[inside] != b[inside]).all()


def test_the_end_of_a_row_is_invisible(strict):
  """Whatever tokens stand where there are none, and whatever values under the mask."""
  layout = alike(spread=False)
  rows = cut(layout, ALGORITHMS['grpo'], 'float32')
  nothing = layout.source < 0
  assert nothing.any()
  other = rows.replace(
    tokens=np.where(nothing, 7, rows.tokens).astype(np.int32),
    advantages=np.where(rows.completion_mask, rows.advantages, np.float32(np.nan)),
    old_logprobs=np.where(rows.completion_mask, rows.old_logprobs, np.float32(np.nan)),
  )
  found = [step_on(one, 'grpo', 'float32') for one in (rows, other)]
  for a, b in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_array_equal(a, b)


lengths_of = st.lists(st.integers(1, 70), min_size=1, max_size=60)


@given(lengths_of, st.integers(0, 60))
def test_first_fit_decreasing(lengths, more):
  capacity = max(lengths) + more
  rows = first_fit_decreasing(np.array(lengths), capacity)
  assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
  sums = [sum(lengths[i] for i in row) for row in rows]
  assert max(sums) <= capacity
  assert all(row == sorted(row) for row in rows)
  # first fit: what a later row holds had no room in an earlier one, filled by longer ones
  for r, row in enumerate(rows):
    for i in row:
      for earlier in rows[:r]:
        longer = [j for j in earlier if (-lengths[j], j) < (-lengths[i], i)]
        assert sum(lengths[j] for j in longer) + lengths[i] > capacity
  assert len(rows) <= 11 / 9 * -(-sum(lengths) // capacity) * 2 + 1


@given(lengths_of, st.integers(1, 600), st.sampled_from([1, 2, 8]), st.integers(0, 9))
def test_a_layout_holds_every_rollout_whole_and_once(lengths, micro_tokens, multiple, seed):
  width, rng = 72, np.random.default_rng(seed)
  n = len(lengths)
  valid = rng.random(n) < 0.9
  layout = packed_layout(
    np.array(lengths), valid, width, micro_tokens=micro_tokens, multiple=multiple
  )
  M, b, T = layout.source.shape
  assert b % multiple == 0
  assert b * T <= micro_tokens or b == multiple
  assert M & (M - 1) == 0
  assert layout.used <= M < 2 * max(layout.used, 1)
  here = layout.source >= 0
  real = valid[:, None] & (np.arange(width) < np.array(lengths)[:, None])
  np.testing.assert_array_equal(np.sort(layout.source[here]), np.flatnonzero(real))
  values = rng.normal(size=(n, width))
  there = layout.cut(values)
  np.testing.assert_array_equal(layout.restore(there), np.where(real, values, 0))
  assert not there[~here].any()
  owner = layout.source // width
  for m in range(M):
    starts = 0
    for r in range(b):
      end = int(here[m, r].sum())
      assert here[m, r, :end].all()  # no gaps
      begins = np.flatnonzero(layout.positions[m, r, :end] == 0)
      ends = [*begins[1:], end][: len(begins)]
      for s, (begin, stop) in enumerate(zip(begins, ends, strict=True)):
        i = owner[m, r, begin]
        assert stop - begin == lengths[i]
        assert (owner[m, r, begin:stop] == i).all()
        assert (layout.positions[m, r, begin:stop] == np.arange(lengths[i])).all()
        assert (layout.segments[m, r, begin:stop] == s).all()
        assert (layout.rollout[m, r, begin:stop] == starts).all()
        starts += 1
      assert (layout.segments[m, r, end:] == -1).all()
    assert starts <= b * T


def test_a_plain_layout_keeps_rollouts_and_order():
  layout = plain_layout(5, 16, micro_tokens=32)
  assert layout.source.shape == (3, 2, 16)
  x = np.random.default_rng(0).normal(size=(5, 16))
  there = layout.cut(x)
  np.testing.assert_array_equal(there.reshape(6, 16)[:5], x)
  assert not there[2, 1].any()
  np.testing.assert_array_equal(layout.restore(there), x)


def drawn(law, groups, size, seed):
  """Lengths of prompt and completion."""
  prompts = np.repeat(np.random.default_rng(seed).integers(50, 300, groups), size)
  return prompts + law.draw(groups * size, seed)


def filled(lengths, micro_tokens, multiple):
  layout = packed_layout(
    lengths, np.ones(len(lengths), bool), int(lengths.max()), micro_tokens=micro_tokens,
    multiple=multiple,
  )  # fmt: skip
  _, b, T = layout.source.shape
  return lengths.sum() / (layout.used * b * T), layout.source.shape


def test_nine_tenths_of_what_is_computed_are_real_tokens():
  """64 x 8 rollouts of which 2% run away to 16k tokens, in micro-batches of 16k, 32k and 64k."""
  for micro_tokens in (16_384, 32_768, 65_536):
    for seed in range(20):
      fill, _ = filled(drawn(LONG_TAIL, 64, 8, seed), micro_tokens, 1)
      assert fill >= 0.9, (micro_tokens, seed)
  # eight data parts want whole rows each: three or four micro-batches of eight rows
  fills = [filled(drawn(LONG_TAIL, 64, 8, seed), 131_072, 8)[0] for seed in range(20)]
  assert np.mean(fills) >= 0.9


@pytest.mark.parametrize(
  ('law', 'groups', 'size', 'micro_tokens', 'multiple', 'most'),
  [
    (LONG_TAIL, 64, 8, 16_384, 1, 3),
    (LengthLaw(600, 0.6, 0.02, 4096), 256, 8, 32_768, 8, 3),
    (LengthLaw(200, 0.6, 0.02, 1024), 32, 8, 16_384, 1, 6),
  ],
  ids=str,
)  # fmt: skip
def test_a_run_has_few_shapes(law, groups, size, micro_tokens, multiple, most):
  """Fifty ragged iterations in which completions become twice as long."""
  shapes = set()
  for i in range(50):
    longer = LengthLaw(law.median * (1 + i / 50), law.sigma, law.runaway, law.cap)
    fill, shape = filled(drawn(longer, groups, size, i), micro_tokens, multiple)
    assert fill >= FILL
    shapes.add(shape)
  assert len(shapes) <= most


def test_one_program_serves_every_batch_of_a_shape():
  """Batches that differ in lengths, and in how many micro-batches they fill, share programs."""
  rng = np.random.default_rng(0)
  shapes, used = set(), set()

  def tripled(rows):
    return map_rows(lambda micro: 3 * micro.tokens, rows)

  run = jax.jit(tripled)
  with compilations() as names:
    for _ in range(12):
      completions = [rng.integers(1, 12, rng.integers(20, 60)) for _ in range(75)]
      rollouts = assemble([[1, 2, 3]] * 75, completions)
      layout = layout_of(rollouts, micro_tokens=256, packing=True)
      rows = micro_batches(rollouts, None, layout)
      got = layout.restore(run(rows))
      np.testing.assert_array_equal(got, 3 * rollouts.tokens)
      shapes.add(layout.source.shape)
      used.add(layout.used)
  assert names.count('tripled') == len(shapes) <= 3
  assert len(used) > len(shapes)


def test_a_batch_without_a_valid_rollout_is_a_batch():
  layout = packed_layout(np.array([3, 4]), np.zeros(2, bool), 16, micro_tokens=64)
  assert layout.used == 0
  assert layout.restore(np.ones(layout.source.shape)).sum() == 0


def test_the_longest_rollout_always_has_a_row():
  rows, b, T = pack(np.array([100, 3, 3]), micro_tokens=8, multiple=2)
  assert T >= 100
  assert b == 2
  assert sorted(i for row in rows for i in row) == [0, 1, 2]
