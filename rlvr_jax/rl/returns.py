"""Along a rollout: returns, generalized advantage estimation; over a batch: whitening. All [B,T].

The turns of a conversation are the runs of tokens under the mask: observations lie between them.

Tokens outside the mask (prompt, padding, a tool's answer within a completion) take no time: what
is carried backwards passes them unchanged and undiscounted, and their own entry is 0.
"""

import jax
import jax.numpy as jnp


def returns(token_rewards: jax.Array, mask: jax.Array, gamma: float = 1.0) -> jax.Array:
  """R_t = r_t + gamma R_{t+1} over the tokens under the mask; f[B,T], bool[B,T] -> f[B,T]."""
  rewards = jnp.where(mask, token_rewards, 0.0)

  def step(later: jax.Array, now: tuple[jax.Array, jax.Array]):
    reward, here = now
    value = reward + gamma * later
    return jnp.where(here, value, later), jnp.where(here, value, 0.0)

  zero = jnp.zeros_like(rewards[:, 0])
  return jax.lax.scan(step, zero, (rewards.T, mask.T), reverse=True)[1].T


def turn_of(mask: jax.Array) -> jax.Array:
  """i32[B,T] the turn of each token under the mask bool[B,T], from 0; outside: any number."""
  before = jnp.pad(mask[:, :-1], ((0, 0), (1, 0)))
  return jnp.cumsum(mask & ~before, axis=1, dtype=jnp.int32) - 1


def turn_returns(
  token_rewards: jax.Array, mask: jax.Array, turns: int, gamma: float = 1.0
) -> tuple[jax.Array, jax.Array]:
  """(R f[B,K], tokens i32[B,K]) of each of at most K = turns turns: R_k = r_k + gamma R_{k+1}.

  r_k: the turn's rewards, summed without a discount. A turn that a rollout has not reached has 0
  tokens; its return is 0.
  """
  own = mask[:, None] & (turn_of(mask)[:, None] == jnp.arange(turns)[:, None])  # [B,K,T]
  rewards = jnp.sum(jnp.where(own, token_rewards[:, None], 0.0), axis=2)
  lengths = jnp.sum(own, axis=2, dtype=jnp.int32)
  return returns(rewards, lengths > 0, gamma), lengths


def gae(
  token_rewards: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  gamma: float = 1.0,
  lam: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """(advantages, returns) f[B,T] by GAE (Schulman et al. 2016, eq. 16); not whitened.

  values[:, t] is the critic's value of the text before token t (the project's alignment). delta_t =
  r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}, where t+1 is the next token under
  the mask; returns = A + V.
  """
  rewards, values = jnp.where(mask, token_rewards, 0.0), jnp.where(mask, values, 0.0)

  def step(carry: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array, jax.Array]):
    next_value, later = carry
    reward, value, here = now
    advantage = reward + gamma * next_value - value + gamma * lam * later
    carry = jnp.where(here, value, next_value), jnp.where(here, advantage, later)
    return carry, jnp.where(here, advantage, 0.0)

  zero = jnp.zeros_like(rewards[:, 0])
  advantages = jax.lax.scan(step, (zero, zero), (rewards.T, values.T, mask.T), reverse=True)[1].T
  return advantages, advantages + values


def whiten(
  x: jax.Array, mask: jax.Array, shift_mean: bool = True, *, eps: float = 1e-8
) -> jax.Array:
  """(x - mean) / sqrt(var + eps) over all entries under the mask; 0 outside it.

  var is Bessel's. shift_mean False adds the mean back. Of equal entries, of one and of none the
  deviation is exactly 0, so that the result is 0 (or the mean). To be taken over the whole batch,
  before anything is cut.
  """
  count = jnp.sum(mask.astype(x.dtype))
  mean = jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(count, 1)
  equal = jnp.max(jnp.where(mask, x, -jnp.inf)) <= jnp.min(jnp.where(mask, x, jnp.inf))
  centred = jnp.where(mask & ~equal, x - mean, 0.0)
  variance = jnp.sum(jnp.square(centred)) / jnp.maximum(count - 1, 1)
  white = centred * jax.lax.rsqrt(variance + eps)
  return white if shift_mean else jnp.where(mask, white + mean, 0.0)
