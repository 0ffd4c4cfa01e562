"""Along a rollout and over a batch: rewards, returns, GAE, whitening, against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rl_oracles as oracle

from rlvr_jax.rl.returns import gae, returns, whiten
from rlvr_jax.rl.rewards import overlong_penalty, shape_rewards

TOLERANCE = 1e-10
B, T = 6, 10
jitted_gae = jax.jit(gae)
jitted_returns = jax.jit(returns)
jitted_whiten = jax.jit(whiten, static_argnames='shift_mean')


@pytest.fixture(autouse=True)
def double(strict):
  jax.config.update('jax_disable_most_optimizations', True)  # they compile faster
  with jax.enable_x64(True):
    yield
  jax.config.update('jax_disable_most_optimizations', False)


def draw(seed=0):
  """Rewards and values with NaN outside a mask that has holes; row 2 has none, row 3 one token."""
  rng = np.random.default_rng(seed)
  mask = np.arange(T)[None] < rng.integers(3, T + 1, B)[:, None]
  mask &= rng.random((B, T)) < 0.7
  mask[2] = False
  mask[3] = np.arange(T) == 4
  rewards, values = (np.where(mask, rng.normal(size=(B, T)), np.nan) for _ in range(2))
  return rewards, values, mask


def close(got, expected):
  np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize('gamma', [1.0, 0.9, 0.0])
def test_returns(gamma):
  rewards, _, mask = draw()
  clean = np.where(mask, rewards, 0.0)
  got = jitted_returns(rewards, mask, gamma)
  close(got, oracle.returns(clean, mask, gamma))


@pytest.mark.parametrize(('gamma', 'lam'), [(1.0, 1.0), (0.9, 0.8), (1.0, 0.0), (0.0, 1.0)])
def test_advantages_and_targets_of_a_critic(gamma, lam):
  rewards, values, mask = draw(1)
  advantages, targets = jitted_gae(rewards, values, mask, gamma, lam)
  expected, wanted = oracle.gae(
    np.where(mask, rewards, 0), np.where(mask, values, 0), mask, gamma, lam
  )
  close(advantages, expected)
  close(targets, wanted)


def test_a_tool_answer_within_a_completion_takes_no_time():
  """Tokens outside the mask between two others: as if they were not there."""
  rewards, values, mask = draw(2)
  dense = np.arange(T)[None] < mask.sum(axis=1, keepdims=True)
  short = [np.zeros((B, T)), np.zeros((B, T))]
  for full, packed in zip((rewards, values), short, strict=True):
    packed[dense] = full[mask]
  for got, expected in zip(
    jitted_gae(rewards, values, mask, 0.9, 0.8), jitted_gae(*short, dense, 0.9, 0.8), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(got)[mask], np.asarray(expected)[dense])


@pytest.mark.parametrize('shift_mean', [True, False])
def test_whitening(shift_mean):
  x, _, mask = draw(3)
  got = jitted_whiten(x, mask, shift_mean)
  close(got, oracle.whiten(x, mask, shift_mean))
  assert np.std(np.asarray(got)[mask], ddof=1) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize('shift_mean', [True, False])
def test_whitening_little(shift_mean):
  """Nothing, one entry, equal entries: defined, and exactly the mean."""
  x = jnp.full((2, 7), 0.1, jnp.float32)
  for count in (0, 1, 7):  # the mean of seven is not 0.1
    used = jnp.stack([jnp.arange(7) < count, jnp.zeros(7, bool)])
    got = np.asarray(jitted_whiten(jnp.where(used, x, jnp.nan), used, shift_mean))
    expected = np.where(np.asarray(used), np.float32(0 if shift_mean else 0.1), 0)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=0)


def test_whitening_does_not_see_padding():
  x, _, mask = draw(4)
  wide = np.pad(x, ((0, 3), (0, 5)), constant_values=np.nan)
  got = jitted_whiten(wide, np.pad(mask, ((0, 3), (0, 5))))
  close(np.asarray(got)[:B, :T], jitted_whiten(x, mask))


SHAPINGS = [
  {},
  {'coef': 0.3},
  {'limit': 8, 'buffer': 4},
  {'limit': 8, 'buffer': 4, 'factor': 0.5, 'coef': 0.1},
  {'scale': 0.25},
  {'replace': -0.5, 'limit': 8, 'buffer': 2},
]


@pytest.mark.parametrize('options', SHAPINGS, ids=str)
def test_token_rewards(options):
  kl_tok, _, mask = draw(5)
  rng = np.random.default_rng(6)
  score, length = rng.normal(size=B), np.array([2, 5, 6, 7, 8, 30], np.int32)
  truncated = rng.random(B) < 0.5
  o = {'coef': 0.0, 'limit': 0, 'buffer': 0, 'factor': 1.0, 'scale': 1.0, 'replace': None} | options
  got = shape_rewards(
    jnp.asarray(score),
    jnp.asarray(length),
    jnp.asarray(truncated),
    jnp.asarray(mask),
    jnp.asarray(kl_tok) if o['coef'] else None,
    kl_coef=o['coef'],
    overlong_limit=o['limit'],
    overlong_buffer=o['buffer'],
    overlong_factor=o['factor'],
    truncated_scale=o['scale'],
    truncated_score=o['replace'],
  )
  close(got, oracle.shaped(score, length, truncated, np.where(mask, kl_tok, 0), mask, **o))


def test_overlong_penalty_has_a_floor():
  """In tokens: 0 up to 16384, half way at 18432, -1 from 20480 on however long."""
  length = jnp.asarray([0, 16_384, 18_432, 20_480, 60_000], jnp.int32)
  got = overlong_penalty(length, limit=20_480, buffer=4096)
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, [0, 0, -0.5, -1, -1])
