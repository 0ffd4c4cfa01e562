"""A vocabulary in slices over devices draws what it draws whole, and no logits travel."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exactness import log_softmax, on_a_boundary
from jax.sharding import PartitionSpec as P
from laws import keys, options

from rlvr_jax.sampling.blocks import BLOCK
from rlvr_jax.sampling.draw import TRIALS, Drawn, draw
from rlvr_jax.sharding import make_mesh

pytestmark = pytest.mark.usefixtures('strict')
S = 64
V = 10 * BLOCK + 160  # whatever n, slices begin and end within blocks
SETTINGS = {
  'plain': options(),
  'cold': options(0.6),
  'top-p': options(top_p=0.9),
  # most rows are redrawn, and some bisected
  'small nucleus': options(top_p=0.1),
  'top-k': options(top_k=50),
  'both': options(0.7, 0.8, 100),
  'greedy': options(0.0),
}


def logits():
  z = np.random.default_rng(0).normal(0, 1.5, (S, V)).astype(np.float32)
  z[:4, V // 2] = z[:4].max(axis=1)  # ties of the largest
  z[5, 1000:] = -np.inf
  return z


FORCED = np.where(np.arange(S) % 3 == 1, np.arange(S) * V // S, -1).astype(np.int32)
ACTIVE = np.arange(S) % 7 != 6


def whole(z, key, settings, active, forced, axis=None):
  return draw(z, key, settings, active, forced=forced, axis=axis, entropy=True, truncated=True)


@functools.cache
def sharded(n):
  """draw with rows over 8 / n devices and the vocabulary over n."""
  return jax.jit(
    jax.shard_map(
      functools.partial(whole, axis='tensor'),
      mesh=make_mesh(data=8 // n, tensor=n),
      in_specs=(P('data', 'tensor'), P('data'), P(), P('data'), P('data')),
      out_specs=P('data'),
    )
  )


@functools.cache
def unsharded(case):
  return jax.jit(whole)(logits(), keys(S), SETTINGS[case], ACTIVE, FORCED)


def excused(row, settings):
  """Whether a uniform of the row, in any trial, is so close to a boundary that it may flip."""
  key = keys(S)[row]
  trials = [key, *(jax.random.fold_in(key, trial) for trial in range(1, TRIALS + 2))]
  z = logits()[row].astype(np.float64)
  if settings.top_k > 0:
    z = np.where(z >= np.sort(z)[-int(settings.top_k)], z, -np.inf)
  last = len(trials) if settings.top_p < 1 else 1
  return any(
    on_a_boundary(z, np.asarray(jax.random.uniform(k, (2,))), float(settings.temperature))
    for k in trials[:last]
  )


@pytest.mark.parametrize('case', SETTINGS)
@pytest.mark.parametrize('n', [2, 4, 8])
def test_slices_draw_what_the_whole_draws(n, case):
  settings = SETTINGS[case]
  expected = unsharded(case)
  drawn = sharded(n)(logits(), keys(S), settings, ACTIVE, FORCED)
  different = np.flatnonzero(np.asarray(drawn.token) != np.asarray(expected.token))
  assert len(different) <= 1
  assert all(excused(row, settings) for row in different)
  same = np.setdiff1d(np.arange(S), different)
  for name in ('logprob', 'truncated_logprob', 'entropy'):
    one, other = (np.asarray(getattr(d, name))[same] for d in (drawn, expected))
    np.testing.assert_allclose(one, other, rtol=2e-6, atol=4e-6, err_msg=name)
  np.testing.assert_array_equal(np.asarray(drawn.token)[FORCED >= 0], FORCED[FORCED >= 0])
  full = log_softmax(logits().astype(np.float64) / (float(settings.temperature) or 1.0))
  np.testing.assert_allclose(
    drawn.logprob, full[np.arange(S), np.asarray(drawn.token)], rtol=1e-6, atol=4e-6
  )


COLLECTIVE = re.compile(
  r'= (.*?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'
  r'|collective-broadcast|ragged-all-to-all)(?:-start)?\('
)


def exchanged(text):
  """Shapes that collectives of a compiled module give out."""
  return [
    tuple(int(size) for size in shape.split(',') if size)
    for result in COLLECTIVE.findall(text)
    for shape in re.findall(r'\[([\d,]*)\]', result)
  ]


@pytest.mark.parametrize('n', [2, 8])
def test_devices_exchange_block_sums_and_single_blocks_only(n):
  S_local, blocks = S // (8 // n), -(-V // BLOCK)
  lowered = sharded(n).lower(logits(), keys(S), options(), ACTIVE, FORCED)
  shapes = exchanged(lowered.compile().as_text())
  assert (S_local, blocks) in shapes
  assert (S_local, BLOCK) in shapes
  for shape in shapes:
    assert np.prod(shape, dtype=int) <= S_local * BLOCK < S_local * V // n, shape


def test_the_check_of_exchanges_sees_logits_travel():
  mesh = make_mesh(data=1, tensor=8)

  def gathering(z, key):
    z = jax.lax.all_gather(z, 'tensor', axis=1, tiled=True)
    return draw(z, key, options(), jnp.ones(S, bool)).token

  run = jax.shard_map(
    gathering, mesh=mesh, in_specs=(P(None, 'tensor'), P()), out_specs=P(), check_vma=False
  )
  shapes = exchanged(jax.jit(run).lower(logits(), keys(S)).compile().as_text())
  assert (S, V) in shapes


def test_rows_on_other_devices_may_go_on_drawing():
  """Without the extras; whether a group of devices redraws or bisects is its own affair."""
  run = jax.shard_map(
    functools.partial(draw, axis='tensor'),
    mesh=make_mesh(data=2, tensor=4),
    in_specs=(P('data', 'tensor'), P('data'), P(), P('data')),
    out_specs=Drawn(P('data'), P('data')),
  )
  run = jax.jit(run)
  certain = np.arange(S) < S // 2  # the first group's rows are settled at once
  z = np.where(certain[:, None] & (np.arange(V) == 7), 50, logits()).astype(np.float32)
  for settings in (options(), options(top_p=0.1), options(top_p=0.1, top_k=30)):
    drawn = run(z, keys(S), settings, ACTIVE)
    assert (np.asarray(drawn.token)[certain] == 7).all()
    expected = jax.jit(draw)(z, keys(S), settings, ACTIVE)
    np.testing.assert_array_equal(drawn.token, expected.token)
    np.testing.assert_allclose(drawn.logprob, expected.logprob, rtol=2e-6, atol=4e-6)
    assert drawn.truncated_logprob is None
    assert drawn.entropy is None
