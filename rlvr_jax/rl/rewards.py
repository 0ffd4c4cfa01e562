"""From a completion's score to its token rewards."""

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax.rl.algorithms import Algorithm


def overlong_penalty(
  length: jax.Array, *, limit: int, buffer: int, factor: float = 1.0, dtype=jnp.float32
) -> jax.Array:
  """Soft overlong punishment f[B] in [-factor, 0] (DAPO, Yu et al. 2025, eq. 13); length i32[B].

  0 up to limit - buffer tokens, then linear, -factor from `limit` on: the floor.
  """
  over = (length - (limit - buffer)).astype(dtype) / buffer
  return -factor * jnp.clip(over, 0, 1)


def last_apart(turn_rewards: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(f[B], f[B,T]): the reward on the last token under the mask, and those before it."""
  last = _last(mask)
  score = jnp.sum(jnp.where(last, turn_rewards, 0.0), axis=1)
  return score, jnp.where(mask & ~last, turn_rewards, 0.0)


def _last(mask: jax.Array) -> jax.Array:
  later = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1]  # tokens under the mask from here on
  return mask & (later == 1)


def shape_rewards(
  score: jax.Array,
  length: jax.Array,
  truncated: jax.Array,
  mask: jax.Array,
  kl_tok: jax.Array | None = None,
  *,
  kl_coef: jax.Array | float = 0.0,
  overlong_limit: int = 0,
  overlong_buffer: int = 0,
  overlong_factor: float = 1.0,
  truncated_scale: float = 1.0,
  truncated_score: float | None = None,
) -> jax.Array:
  """Token rewards f[B,T]: the terminal score on the last token under the mask, minus KL per token.

  score f[B]; length i32[B] in tokens; truncated, mask bool[B], bool[B,T]; kl_tok f[B,T] (nats).
  A truncated completion's score is replaced by truncated_score, else multiplied by truncated_scale
  ("stop properly", ProRL); then the overlong penalty is added (overlong_buffer 0: none). A row with
  nothing under its mask gets zeros.
  """
  cut = (
    score * truncated_scale if truncated_score is None else jnp.full_like(score, truncated_score)
  )
  score = jnp.where(truncated, cut, score)
  if overlong_buffer:
    score = score + overlong_penalty(
      length,
      limit=overlong_limit,
      buffer=overlong_buffer,
      factor=overlong_factor,
      dtype=score.dtype,
    )
  rewards = jnp.where(_last(mask), score[:, None], 0.0)
  if kl_tok is not None:
    rewards = rewards - jnp.where(mask, jnp.asarray(kl_coef, score.dtype) * kl_tok, 0.0)
  return rewards


def check_binary(algorithm: Algorithm, rewards: np.ndarray) -> None:
  """ValueError where an algorithm counts right answers, and rewards are not 0 or 1 (or -1 or 1)."""
  cell = algorithm.asks_right
  if not cell:
    return
  wrong = (0.0,) if algorithm.takes_rates else (0.0, -1.0)
  odd = rewards[~np.isin(rewards, (1.0, *wrong))]
  if odd.size:
    raise ValueError(
      f'{cell} counts right answers, and a reward of {odd[0]:g} does not say whether one is: it '
      f'takes rewards of 1 and {" or ".join(f"{x:g}" for x in wrong)}; set reward.parts to '
      "{'exact': 1.0}, which gives 1 for a right answer and 0 for any other, or take another "
      'algorithm'
    )
