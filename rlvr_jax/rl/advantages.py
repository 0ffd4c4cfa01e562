"""From rewards to advantages: baselines, scales, and every row of the table in one function."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlvr_jax.rl import credit as credit_lib
from rlvr_jax.rl.algorithms import BASELINES, SCALES, Algorithm
from rlvr_jax.rl.groups import GroupStats, group_stats, pool
from rlvr_jax.rl.returns import gae, returns, turn_of, turn_returns, whiten
from rlvr_jax.tasks import user_file

WITHIN_GROUP = ('group_mean', 'loo', 'length_weighted')  # 0 advantage for a constant group


class Advantages(NamedTuple):
  """Per token f[B,T], 0 outside the mask; returns (the critic's target) only with a critic."""

  advantages: jax.Array
  returns: jax.Array | None


def baseline(
  x: jax.Array,
  stats: GroupStats,
  group: jax.Array,
  kind: str,
  *,
  lengths: jax.Array | None = None,
  valid: jax.Array | None = None,
  greedy: jax.Array | None = None,
) -> jax.Array:
  """What is subtracted from each entry, f[B]; x f[B], stats of x, group i32[B].

  none: 0. group_mean. loo: mean of the others of the group (0 for a group of one; Ahmadian et al.
  2024). greedy: the reward of the prompt's greedy completion, greedy f[P] (ReMax, Li et al. 2024).
  length_weighted: sum length x / sum length over the group, lengths i32[B] in tokens, valid bool[B]
  (OPO, Hao et al. 2025). batch_mean: over all groups.
  """
  if kind == 'none':
    return jnp.zeros_like(x)
  mean, count = stats.mean[group], stats.count[group]
  if kind == 'group_mean':
    return mean
  if kind == 'loo':
    others = (count * mean - x) / jnp.maximum(count - 1, 1)
    return jnp.where(count > 1, others, 0.0)
  if kind == 'greedy':
    if greedy is None:
      raise ValueError("baseline 'greedy' needs greedy_rewards, one for each prompt")
    return jnp.asarray(greedy)[group]
  if kind == 'length_weighted':
    assert lengths is not None
    used = jnp.ones_like(x, bool) if valid is None else valid
    weight = jnp.where(used, lengths.astype(x.dtype), 0.0)
    groups = stats.count.shape[0]
    total = jax.ops.segment_sum(jnp.where(used, weight * x, 0.0), group, groups)
    weights = jax.ops.segment_sum(weight, group, groups)
    return (total / jnp.where(weights > 0, weights, 1.0))[group]
  if kind == 'batch_mean':
    return jnp.broadcast_to(pool(stats).mean, x.shape)
  raise ValueError(f'train.baseline={kind!r}: known are {", ".join(BASELINES)}')


def scale(stats: GroupStats, group: jax.Array, kind: str, *, ddof: int, eps: float) -> jax.Array:
  """What each entry is divided by, f[B]; stats of the entries, group i32[B].

  none: 1. group_std, batch_std: standard deviation with `ddof`, within the group or over all, plus
  eps. bernoulli_std: sqrt(p (1 - p)) + eps, p the group's mean of rewards 0 and 1; solve_rate: p +
  eps, 1 where p is 0. Where the count does not exceed ddof or all are equal there is no deviation
  to divide by, and it is 1.
  """
  if kind == 'none':
    return jnp.ones_like(stats.mean[group])
  if kind == 'group_std':
    return jnp.where(_varies(stats, ddof), stats.std(ddof) + eps, 1.0)[group]
  if kind == 'batch_std':
    whole = pool(stats)
    divisor = jnp.where(_varies(whole, ddof), whole.std(ddof) + eps, 1.0)
    return jnp.broadcast_to(divisor, group.shape)
  if kind == 'bernoulli_std':
    p = stats.mean[group]
    spread = jnp.sqrt(jnp.maximum(p * (1 - p), 0.0)) + eps
    return jnp.where(_varies(stats, 0)[group], spread, 1.0)
  if kind == 'solve_rate':
    p = stats.mean[group]
    return jnp.where(p > 0, p + eps, 1.0)
  raise ValueError(f'train.scale={kind!r}: known are {", ".join(SCALES)}')


def _varies(stats: GroupStats, ddof: int) -> jax.Array:
  return (stats.count > ddof) & (stats.largest != stats.smallest)


def group_advantages(
  rewards: jax.Array,
  group: jax.Array,
  valid: jax.Array,
  *,
  groups: int,
  baseline_kind: str = 'group_mean',
  scale_kind: str = 'group_std',
  ddof: int = 1,
  eps: float = 1e-6,
  lengths: jax.Array | None = None,
  greedy: jax.Array | None = None,
) -> jax.Array:
  """One advantage a rollout, f[B]; GRPO's with the defaults (Shao et al. 2024, eq. 4; verl's ddof).

  A group whose rewards are all equal gets exactly 0 whatever rounding leaves of its deviation, with
  a baseline taken from the group (of a batch with one taken from the batch); so does a group of one
  with a mean baseline. Rows that are not valid get 0.
  """
  stats = group_stats(rewards, group, valid, groups)
  below = baseline(
    rewards, stats, group, baseline_kind, lengths=lengths, valid=valid, greedy=greedy
  )
  advantages = (rewards - below) / scale(stats, group, scale_kind, ddof=ddof, eps=eps)
  if baseline_kind in WITHIN_GROUP:
    flat = (stats.largest == stats.smallest)[group]
    if baseline_kind == 'loo':
      flat = flat & (stats.count[group] > 1)
    advantages = jnp.where(flat, 0.0, advantages)
  if baseline_kind == 'batch_mean':
    whole = pool(stats)
    advantages = jnp.where(whole.largest == whole.smallest, 0.0, advantages)
  return jnp.where(valid, advantages, 0.0)


def advantages_of(
  algorithm: Algorithm,
  token_rewards: jax.Array,
  mask: jax.Array,
  group: jax.Array,
  valid: jax.Array,
  *,
  groups: int,
  values: jax.Array | None = None,
  greedy_rewards: jax.Array | None = None,
  likelihood: jax.Array | None = None,
  forms: jax.Array | None = None,
  turns: int = 1,
) -> Advantages:
  """The per-token advantages of any row of the table, over the whole batch of an iteration.

  token_rewards f[B,T] (rl/rewards.py), mask bool[B,T] of completion tokens, group i32[B] in
  [0, groups), valid bool[B] false on rows that only fill a shape. values f[B,T]: the critic's, for
  per_token 'gae'. greedy_rewards f[groups], for baseline 'greedy'. likelihood f[B]: log-probs of
  whole completions, for credit 'unlikely'. forms i32[B]: of a group, equal for completions that say
  the same, where algorithm.wants_forms. turns: the most that a rollout may have, for turn_credit.
  Jit-able with `algorithm`, `groups` and `turns` static. To be called
  before the batch is cut: baselines and whitening couple it.
  """
  mask = mask & valid[:, None]
  token_rewards = jnp.where(mask, token_rewards, 0.0)
  found = None
  if algorithm.per_token == 'gae':
    if values is None:
      raise ValueError("per_token 'gae' needs values, the critic's, one for each token")
    advantages, found = gae(token_rewards, values, mask, algorithm.gamma, algorithm.lam)
  elif algorithm.per_token == 'returns':
    advantages = returns(token_rewards, mask, algorithm.gamma)
    if algorithm.baseline == 'greedy':
      if greedy_rewards is None:
        raise ValueError("baseline 'greedy' needs greedy_rewards, one for each prompt")
      advantages = advantages - jnp.asarray(greedy_rewards)[group][:, None]
  elif algorithm.turn_credit != 'episode':
    advantages = _of_turns(algorithm, token_rewards, mask, group, valid, groups, turns)
  else:
    score = jnp.where(valid, jnp.sum(token_rewards, axis=1), -jnp.inf)
    one = group_advantages(
      _credited(algorithm, score, group, valid, groups, likelihood, forms),
      group,
      valid,
      groups=groups,
      baseline_kind=algorithm.baseline,
      scale_kind=algorithm.scale,
      ddof=algorithm.ddof,
      eps=algorithm.eps,
      lengths=jnp.sum(mask, axis=1),
      greedy=greedy_rewards,
    )
    one = _weighted(algorithm, one, score, group, valid, groups, forms)
    advantages = jnp.broadcast_to(one[:, None], mask.shape)
  if algorithm.whiten:
    advantages = whiten(advantages, mask)
  advantages = jnp.where(mask, advantages, 0.0)
  if (algorithm.positive, algorithm.negative) != (1.0, 1.0):
    advantages = credit_lib.scale_signs(advantages, algorithm.positive, algorithm.negative)
  return Advantages(advantages, found)


def _of_turns(
  algorithm: Algorithm,
  token_rewards: jax.Array,
  mask: jax.Array,
  group: jax.Array,
  valid: jax.Array,
  groups: int,
  turns: int,
) -> jax.Array:
  """f[B,T]: every turn's return against those of the same turn in the group's other rollouts.

  GRPO over returns of turns (Ding et al. 2025, arXiv 2511.14846), where MT-GRPO (Zeng et al. 2025,
  2505.11821) has a reward for each turn. Rollouts that have not reached a turn are not in its
  group, so that what is compared went on from as many answers; the only one to reach it is a group
  of one. turn_pooled: all turns of the group together (Baronio et al. 2025, 2507.11948).
  """
  back, lengths = turn_returns(token_rewards, mask, turns, algorithm.turn_gamma)  # [B,K]
  there = valid[:, None] & (lengths > 0)
  place = jnp.arange(turns, dtype=group.dtype)[None]
  pooled = algorithm.turn_credit == 'turn_pooled'
  units = jnp.broadcast_to(group[:, None], back.shape) if pooled else group[:, None] * turns + place
  one = group_advantages(
    jnp.where(there, back, -jnp.inf).ravel(),
    units.ravel(),
    there.ravel(),
    groups=groups if pooled else groups * turns,
    baseline_kind=algorithm.baseline,
    scale_kind=algorithm.scale,
    ddof=algorithm.ddof,
    eps=algorithm.eps,
    lengths=lengths.ravel(),
  ).reshape(back.shape)
  return jnp.take_along_axis(one, jnp.clip(turn_of(mask), 0, turns - 1), axis=1)


def _credited(
  algorithm: Algorithm,
  score: jax.Array,
  group: jax.Array,
  valid: jax.Array,
  groups: int,
  likelihood: jax.Array | None,
  forms: jax.Array | None,
) -> jax.Array:
  """Scores f[B] after the row's credit, in the convention of losses that average over rollouts."""
  kind = algorithm.credit
  if kind == 'identity':
    return score
  if file := user_file.split(kind):
    function = user_file.find(*file, f'train.credit={kind!r}')
    value = function(score, group_stats(score, group, valid, groups), group)
    return credit_lib.checked(value, score, kind)
  counted = score if kind == 'best_gap' else credit_lib.is_right(score).astype(score.dtype)
  stats = group_stats(counted, group, valid, groups)
  value = credit_lib.credit(
    score,
    stats,
    group,
    kind,
    valid=valid,
    k=algorithm.pass_k,
    rank_coef=algorithm.rank_coef,
    likelihood=likelihood,
    forms=forms,
  )
  return value * stats.count[group] if kind in credit_lib.SUMMED else value


def _weighted(
  algorithm: Algorithm,
  advantages: jax.Array,
  score: jax.Array,
  group: jax.Array,
  valid: jax.Array,
  groups: int,
  forms: jax.Array | None,
) -> jax.Array:
  """Advantages f[B] times the weight of their group, less the price of saying what others say."""
  if not (algorithm.focal or algorithm.repeat_coef):
    return advantages
  right = credit_lib.is_right(score)
  stats = group_stats(right.astype(score.dtype), group, valid, groups)
  if algorithm.focal:
    advantages = advantages * credit_lib.focal(stats, group, algorithm.focal)
  if algorithm.repeat_coef:
    if forms is None:
      raise ValueError('repeat_coef needs forms, one for each rollout')
    wrong = ~right if algorithm.repeat_of == 'wrong' else None
    price = credit_lib.repeats(jnp.asarray(forms), group, valid, stats.count, wrong)
    advantages = advantages - algorithm.repeat_coef * price
  return advantages
