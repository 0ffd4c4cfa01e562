"""Credit: from scores to what each completion of a group is praised for, pass@1 or pass@k."""

import jax
import jax.numpy as jnp

from rlvr_jax.rl.groups import GroupStats, places

KINDS = (
  'identity', 'signed', 'pkpo', 'pkpo_loo', 'passk_train', 'best_gap', 'unlikely', 'distinct',
  'distinct_loo',
)  # fmt: skip
# weights of these sum over a group; times the group's size they average over it, as losses do
SUMMED = ('pkpo', 'pkpo_loo')


def is_right(score: jax.Array) -> jax.Array:
  """Whether a score stands for a right answer, bool[B]: above 1/2, for scores in 0..1 or -1..1."""
  return score > 0.5


def all_wrong_chance(n: jax.Array, wrong: jax.Array, k: int) -> jax.Array:
  """C(wrong, k) / C(n, k) f[P]: k of n drawn without replacement are all wrong; k at most n."""
  j = jnp.arange(k, dtype=n.dtype)
  factors = jnp.maximum(wrong[..., None] - j, 0) / jnp.maximum(n[..., None] - j, 1)
  return jnp.prod(jnp.where(j < n[..., None], factors, 1.0), axis=-1)


def credit(
  score: jax.Array,
  stats: GroupStats,
  group: jax.Array,
  kind: str,
  *,
  valid: jax.Array,
  k: int = 1,
  rank_coef: float = 0.25,
  likelihood: jax.Array | None = None,
  forms: jax.Array | None = None,
) -> jax.Array:
  """Transformed scores f[B]; score f[B], group i32[B]. With c right of n and k <= n (else k = n):

  identity: the score. signed: +1 right, -1 wrong (Zhu et al. 2025).
  pkpo (Walder & Karkhanis 2025): k/n right; (k/n)(1 - C(n-1-c,k-1)/C(n-1,k-1)) wrong: the sum over
  a group of weight * grad log p has expectation grad pass@k. pkpo_loo: its leave-one-out baseline,
  (k/n) C(n-c,k-1)/C(n-1,k-1) right, 0 wrong: the same expectation.
  passk_train (Chen et al. 2025): R = 1 - C(n-c,k)/C(n,k), s = sqrt(R(1-R)); (1-R)/s right,
  (1 - R - C(n-c-1,k-1)/C(n-1,k-1))/s wrong, 0 where s = 0.
  best_gap (Tang et al. 2025): largest minus second largest score for the best, 0 for the others.
  unlikely (He et al. 2025): 1 - rank_coef (n - rank)/n right, 0 wrong; rank 0 for the likeliest of
  the group by likelihood f[B], the log-prob of the completion; equal ones share their mean rank. 1
  where all are right: such groups teach nothing.
  distinct: 1/m right, 0 wrong; m: right ones of the group that have its form, forms i32[B].
  distinct_loo: 1 where m = 1, else 0: the leave-one-out share of the number of distinct right
  forms. What they ascend is in docs/algorithms.md.
  All but identity and best_gap ask `is_right`; stats are those of is_right(score) for them, of the
  score for best_gap. valid bool[B]: false on rows that only fill a shape.
  """
  if kind == 'identity':
    return score
  if kind == 'best_gap':
    return _best_gap(score, stats, group)
  right = is_right(score)
  if kind == 'signed':
    return jnp.where(right, 1.0, -1.0).astype(score.dtype)
  if kind == 'unlikely':
    likelihood = _given(likelihood, kind, 'likelihood')
    return _unlikely(right, stats, group, likelihood, valid, rank_coef).astype(score.dtype)
  if kind in ('distinct', 'distinct_loo'):
    own = _given(forms, kind, 'forms')
    _, alike = places(own, group, right & valid, stats.count.shape[0])
    share = 1 / jnp.maximum(alike, 1).astype(score.dtype)
    return jnp.where(alike > 0, share if kind == 'distinct' else jnp.floor(share), 0.0)
  n, c = stats.count[group], (stats.count * stats.mean)[group]
  wrong = jnp.round(n - c)
  if kind in SUMMED:
    share = jnp.minimum(n, k) / jnp.maximum(n, 1)
    if kind == 'pkpo':
      others = 1 - all_wrong_chance(n - 1, wrong - 1, k - 1)  # of k-1 others one is right
      return jnp.where(right, share, share * others)
    return jnp.where(right, share * all_wrong_chance(n - 1, wrong, k - 1), 0.0)
  if kind == 'passk_train':
    miss = all_wrong_chance(n, wrong, k)
    spread = jnp.sqrt(miss * (1 - miss))
    others = all_wrong_chance(n - 1, wrong - 1, k - 1)
    value = jnp.where(right, miss, miss - others) / jnp.where(spread > 0, spread, 1.0)
    return jnp.where(spread > 0, value, 0.0)
  raise ValueError(f'train.credit={kind!r}: known are {", ".join(KINDS)}')


def checked(value: object, score: jax.Array, kind: str) -> jax.Array:
  """What a function of a user's file gave for scores f[B]; ValueError unless it is f[B] as well."""
  found = jnp.asarray(value)
  if found.shape != score.shape or not jnp.issubdtype(found.dtype, jnp.floating):
    raise ValueError(
      f'train.credit={kind!r} returned {found.dtype}{list(found.shape)} for scores '
      f'{score.dtype}{list(score.shape)}; return one float a completion'
    )
  return found


def _given(x: jax.Array | None, kind: str, name: str) -> jax.Array:
  if x is None:
    raise ValueError(f'credit {kind!r} needs {name}, one for each rollout')
  return jnp.asarray(x)


def _unlikely(
  right: jax.Array,
  stats: GroupStats,
  group: jax.Array,
  likelihood: jax.Array,
  valid: jax.Array,
  coef: float,
) -> jax.Array:
  below, equal = places(likelihood, group, valid, stats.count.shape[0])
  count = stats.count[group]
  from_top = below.astype(count.dtype) + (equal.astype(count.dtype) + 1) / 2  # n - rank
  factor = 1 - coef * from_top / jnp.maximum(count, 1)
  mixed = (stats.smallest != stats.largest)[group]
  return jnp.where(right, jnp.where(mixed, factor, 1.0), 0.0)


def repeats(
  forms: jax.Array, group: jax.Array, valid: jax.Array, count: jax.Array, wrong: jax.Array | None
) -> jax.Array:
  """Share of the group that has a completion's form, itself left out, f[B]: at most (n - 1)/n.

  forms, group i32[B], valid bool[B], count f[P]. wrong bool[B]: only these count, and have a share.
  The batch bonus of Song et al. 2025 is minus this.
  """
  counted = valid if wrong is None else valid & wrong
  _, alike = places(forms, group, counted, count.shape[0])
  return jnp.maximum(alike - 1, 0).astype(count.dtype) / jnp.maximum(count, 1)[group]


def focal(stats: GroupStats, group: jax.Array, power: float) -> jax.Array:
  """(1 - c/n)^power f[B], with c right of the n of its group (Plyusov et al. 2026, eq. 12).

  stats: of is_right.
  """
  return jnp.power(1 - stats.mean[group], power)


def _best_gap(score: jax.Array, stats: GroupStats, group: jax.Array) -> jax.Array:
  best = score == stats.largest[group]
  groups = stats.count.shape[0]
  second = jax.ops.segment_max(jnp.where(best, -jnp.inf, score), group, groups)[group]
  many = jax.ops.segment_sum(best.astype(score.dtype), group, groups)[group] > 1
  gap = jnp.where(many | jnp.isinf(second), 0.0, score - second)
  return jnp.where(best, gap, 0.0)


def scale_signs(advantages: jax.Array, positive: float, negative: float) -> jax.Array:
  """Positive and negative advantages times a factor each: PSR 1, 0; NSR 0, 1; W-REINFORCE 0.1, 1.

  Zhu et al. 2025, "The surprising effectiveness of negative reinforcement".
  """
  return advantages * jnp.where(advantages > 0, positive, negative).astype(advantages.dtype)
