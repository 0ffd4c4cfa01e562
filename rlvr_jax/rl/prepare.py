"""From rollouts to what the optimizer steps of an iteration need: scores, rewards, advantages.

All that couples the batch (baselines, whitening, a KL in the reward) is computed here, over the
whole of it, before it is cut into optimizer and micro-batches.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax.config import Config
from rlvr_jax.rl import rewards as rewards_lib
from rlvr_jax.rl.advantages import Advantages, advantages_of
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.kl import kl_est
from rlvr_jax.rl.observe import advantage_metrics
from rlvr_jax.rl.selection import token_select
from rlvr_jax.rl.types import Rollouts

SELECT_KEY = 0x5E  # keeps the draw of token selection apart from other uses of the seed


@dataclasses.dataclass
class Prepared:
  """Rollouts and per-token arrays f32[B,T]; those that the algorithm does not use are None.

  old, ref: log-probs of the policy before the first step, and of the start model. entropy: of the
  former. values, targets: the critic's. metrics: numbers for the log.
  """

  rollouts: Rollouts
  advantages: np.ndarray
  old: np.ndarray | None = None
  ref: np.ndarray | None = None
  entropy: np.ndarray | None = None
  values: np.ndarray | None = None
  targets: np.ndarray | None = None
  metrics: dict[str, float] = dataclasses.field(default_factory=dict)

  def part(self, index: np.ndarray) -> 'Prepared':
    """The rollouts i64[n] alone."""

    def cut(x: Any) -> Any:
      return None if x is None else x[index]

    arrays = (self.advantages, self.old, self.ref, self.entropy, self.values, self.targets)
    return Prepared(jax.tree.map(lambda x: x[index], self.rollouts), *map(cut, arrays))


class Shaping(NamedTuple):
  """What a completion's score becomes beside the algorithm's cells (rl/rewards.py); hashable."""

  limit: int  # the completion cap in tokens
  truncated_scale: float
  truncated_score: float | None

  @classmethod
  def of(cls, config: Config) -> 'Shaping':
    r = config.reward
    return cls(config.sampling.max_tokens, r.truncated_scale, r.truncated_score)


Score = Callable[[Rollouts], tuple[np.ndarray, np.ndarray]]  # -> log-probs, entropy f32[B,T]


def prepare(
  config: Config,
  algorithm: Algorithm,
  rollouts: Rollouts,
  *,
  score: Score,
  score_reference: Score | None,
  score_values: Callable[[Rollouts], np.ndarray] | None,
  several_steps: bool,
  greedy: np.ndarray | None = None,
) -> Prepared:
  """Everything before the first step, over all rollouts; greedy f32[P] (algorithm.greedy_rollout).

  The policy is scored only where its log-probs are wanted: with several steps (else it is itself
  the policy before the step), token selection or a KL in the reward; the start model only with a
  KL term.
  """
  rewards_lib.check_binary(algorithm, rollouts.rewards[rollouts.valid])
  old = ref = entropy = values = None
  if several_steps or algorithm.scored_first:
    old, entropy = score(rollouts)
  if score_reference is not None:
    ref, _ = score_reference(rollouts)
  if score_values is not None:
    values = score_values(rollouts)
  found = jax.device_get(
    _advantages(
      algorithm,
      int(np.max(rollouts.group)) + 1,
      Shaping.of(config),
      config.task.turns,
      rollouts.replace(images=None),  # numbers alone
      old if algorithm.kl_in == 'reward' else None,
      ref if algorithm.kl_in == 'reward' else None,
      values,
      greedy,
    )
  )
  mask = rollouts.completion_mask & rollouts.valid[:, None]
  metrics = advantage_metrics(found.advantages, mask)
  if values is not None:
    metrics['critic/explained_variance'] = _explained(values[mask], found.returns[mask])
  if algorithm.overlong_filter:
    rollouts = rollouts.replace(
      completion_mask=rollouts.completion_mask & ~rollouts.truncated[:, None]
    )
  return Prepared(rollouts, found.advantages, old, ref, entropy, values, found.returns, metrics)


def greedy_rewards(config: Config, algorithm: Algorithm, rollouts: Rollouts) -> np.ndarray:
  """f32[B] what greedy rollouts earn, shaped as sampled ones are: ReMax's baseline."""
  found = _totals(algorithm, Shaping.of(config), rollouts.replace(images=None))
  return np.asarray(jax.device_get(found))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _totals(algorithm: Algorithm, shaping: Shaping, rollouts: Any) -> jax.Array:
  return jnp.sum(_token_rewards(algorithm, shaping, rollouts, None), axis=1)


def _token_rewards(
  algorithm: Algorithm, shaping: Shaping, rollouts: Any, kl_tok: jax.Array | None
) -> jax.Array:
  mask = rollouts.completion_mask & rollouts.valid[:, None]
  score, earlier = rollouts.rewards, 0.0
  if rollouts.turn_rewards is not None and algorithm.rewards_turns:
    score, earlier = rewards_lib.last_apart(rollouts.turn_rewards, mask)
  return earlier + rewards_lib.shape_rewards(
    score,
    jnp.sum(rollouts.completion_mask, axis=1, dtype=jnp.int32),  # without observations
    rollouts.truncated,
    mask,
    kl_tok,
    kl_coef=algorithm.kl_coef,
    overlong_limit=shaping.limit,
    overlong_buffer=round(algorithm.overlong_share * shaping.limit),
    overlong_factor=algorithm.overlong_factor,
    truncated_scale=shaping.truncated_scale,
    truncated_score=shaping.truncated_score,
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _advantages(
  algorithm: Algorithm,
  groups: int,
  shaping: Shaping,
  turns: int,
  rollouts: Any,  # Rollouts of device arrays
  old: jax.Array | None,
  ref: jax.Array | None,
  values: jax.Array | None,
  greedy: jax.Array | None,
) -> Advantages:
  mask = rollouts.completion_mask & rollouts.valid[:, None]
  kl_tok = None
  if old is not None and ref is not None:
    kl_tok = kl_est(jnp.where(mask, old, 0.0), jnp.where(mask, ref, 0.0), algorithm.kl_kind)
  return advantages_of(
    algorithm,
    _token_rewards(algorithm, shaping, rollouts, kl_tok),
    rollouts.completion_mask,
    rollouts.group,
    rollouts.valid,
    groups=groups,
    values=values,
    greedy_rewards=greedy,
    # as they were recorded when the completions were drawn: ranks are all that is asked of them
    likelihood=jnp.sum(jnp.where(mask, rollouts.sampler_logprobs, 0.0), axis=1),
    forms=rollouts.forms,
    turns=turns,
  )


def _explained(values: np.ndarray, targets: np.ndarray) -> float:
  """1 - var(R - V) / var(R); 0 where the targets do not vary."""
  variance = float(np.var(np.asarray(targets, np.float64)))
  rest = float(np.var(np.asarray(targets, np.float64) - values))
  return 1 - rest / variance if variance > 0 else 0.0


def selected(
  algorithm: Algorithm, batch: Prepared, seed: int, step: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
  """(keep, penalised) bool[B,T] of an optimizer batch; step: (iteration, its number in it)."""
  if algorithm.token_select == 'none':
    return None, None
  assert batch.old is not None
  state = np.random.default_rng([seed, SELECT_KEY, *step]).integers(1 << 31)
  found = _select(
    algorithm,
    batch.advantages,
    batch.old,
    batch.entropy,
    batch.rollouts.completion_mask & batch.rollouts.valid[:, None],
    jax.random.key(int(state)),
  )
  keep, penalised = jax.device_get(found)
  return keep, penalised


@functools.partial(jax.jit, static_argnums=0)
def _select(algorithm: Algorithm, advantages, old, entropy, mask, key):
  return token_select(
    advantages,
    old,
    entropy,
    mask,
    key,
    algorithm.token_select,
    share=algorithm.select_share,
    low=algorithm.select_low,
    high=algorithm.select_high,
  )
