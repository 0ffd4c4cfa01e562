"""Small probabilities are drawn as often as they should be, down to 1e-9 a token.

A draw takes two float32 uniforms, multiples of 2^-23 (nothing smaller is ever drawn by one of
them). So the law that the sampler implies can be counted, by finding where each position's share of
that grid ends, instead of drawn billions of times.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exactness import log_softmax
from laws import chi_square_p, keys

from rlvr_jax.sampling import draw as draw_lib
from rlvr_jax.sampling.blocks import BLOCK

pytestmark = pytest.mark.usefixtures('strict')
GRID = 2**23


def decades(V, lowest, seed):
  """Logits f32[V] of probabilities spread evenly, in logarithm, over `lowest` decades; shuffled."""
  powers = -np.random.default_rng(seed).permutation(np.linspace(0, lowest, V))
  return (powers * np.log(10)).astype(np.float32)


def law_and_decade(z):
  """float64 probabilities [V] of logits [V], and the decade -log10(p), rounded down."""
  log_p = log_softmax(z.astype(np.float64))
  return np.exp(log_p), np.floor(-log_p / np.log(10)).astype(int)


@jax.jit
def shares(w):
  """How many of the GRID uniforms take each position i32[R,n] of rows of weights f32[R,n]."""
  R, n = w.shape
  rows = jnp.repeat(w, n, axis=0)
  position = jnp.tile(jnp.arange(n), R)
  low, high = jnp.zeros(R * n, jnp.int32), jnp.full(R * n, GRID, jnp.int32)

  def halve(_, bounds):  # for the first uniform that takes a later position
    low, high = bounds
    middle = (low + high) // 2
    later = draw_lib._pick(rows, middle.astype(jnp.float32) / GRID) > position
    return jnp.where(later, low, middle + 1), jnp.where(later, middle, high)

  end = jax.lax.fori_loop(0, 24, halve, (low, high))[0].reshape(R, n)
  end = jnp.minimum(end, GRID)
  return jnp.diff(end, axis=1, prepend=0)


@functools.cache
def implied():
  """(implied, exact) probabilities and decades of 48 blocks of a law that falls to 1e-11."""
  z = decades(48 * BLOCK, 10, seed=0)
  law, decade = law_and_decade(z)
  w = np.exp(z).reshape(-1, BLOCK)
  blocks = np.asarray(shares(jnp.asarray(w.sum(-1)[None])))[0] / GRID
  inside = (
    np.concatenate([np.asarray(shares(jnp.asarray(part))) for part in np.split(w, 12)]) / GRID
  )
  return (blocks[:, None] * inside).reshape(-1), law, decade


def test_uniforms_are_the_grid():
  u = np.asarray(draw_lib._uniforms(keys(50_000)), np.float64) * GRID
  assert (u == np.round(u)).all()
  assert u.min() < 200
  assert u.max() > GRID - 200


def test_every_decade_of_probability_has_its_mass():
  drawn, law, decade = implied()
  np.testing.assert_allclose(drawn.sum(), 1, rtol=0, atol=1e-12)
  share = law.reshape(-1, BLOCK).sum(-1)
  for d in range(int(decade.min()), 9):
    here = decade == d
    mass, exact = drawn[here].sum(), law[here].sum()
    # a position's share is rounded to the grid at both ends: errors of its block's mass / GRID,
    # as likely up as down; float32 weights and sums add an error relative to the mass
    grid = np.sqrt((np.repeat(share, BLOCK)[here] ** 2).sum()) / GRID
    assert grid < 0.05 * exact, 'too coarse to say anything'
    assert abs(mass - exact) < 4 * grid + 1e-6 * exact, f'p of 1e-{d + 1} to 1e-{d}'


def test_what_is_implied_is_close_in_all():
  drawn, law, decade = implied()
  assert np.abs(drawn - law).sum() / 2 < 5e-5
  # what the grid cannot reach is rarer than one uniform in 2^23 within its block
  unreachable = (drawn == 0) & (law > 0)
  conditional = law / np.repeat(law.reshape(-1, BLOCK).sum(-1), BLOCK)
  assert conditional[unreachable].max() < 1.5 / GRID
  assert decade[unreachable].min() >= 7


def test_the_count_sees_a_one_level_cdf():
  """The same weights in one running sum: the decades below 1e-7 go wrong by 5% and by 90%."""
  z = decades(48 * BLOCK, 10, seed=0)
  law, decade = law_and_decade(z)
  running = np.cumsum(np.exp(z), dtype=np.float32)
  ends = np.minimum(np.ceil(running.astype(np.float64) / running[-1] * GRID), GRID)
  drawn = np.diff(ends, prepend=0) / GRID
  off = [abs(drawn[decade == d].sum() / law[decade == d].sum() - 1) for d in (7, 8)]
  assert off[0] > 0.03
  assert off[1] > 0.5


def test_tokens_below_1e_7_are_drawn_at_their_rate():
  """Half a million draws from a law with 0.3% of its mass on tokens of 1e-7 to 1e-9."""
  V, n = 395 * BLOCK, 2**19
  rng = np.random.default_rng(2)
  rare = 120_000
  p = np.concatenate([10 ** rng.uniform(-9, -7, rare), rng.gamma(0.5, size=V - rare)])
  p[rare:] *= (1 - p[:rare].sum()) / p[rare:].sum()
  z = np.log(rng.permutation(p)).astype(np.float32)
  law, _ = law_and_decade(z)
  w = jnp.exp(jnp.asarray(z)).reshape(-1, BLOCK)
  sums = jnp.sum(w, axis=-1)

  def some(keys):
    rows = jnp.broadcast_to(sums, (keys.shape[0], len(sums)))
    return draw_lib._two_level(rows, lambda block: w[block], draw_lib._uniforms(keys))

  tokens = np.asarray(jax.lax.map(some, keys(n, seed=3).reshape(-1, 2**12))).reshape(-1)
  # cells: four a decade below 1e-7, one for the rest
  cell = np.clip(np.floor(-4 * np.log10(law)).astype(int), 27, 36) - 27
  assert chi_square_p(cell[tokens], np.bincount(cell, weights=law)) > 1e-3
  assert (law[tokens] < 1e-7).sum() > 1000
  assert (law[tokens] < 1e-8).sum() > 60
