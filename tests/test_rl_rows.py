"""Every row of the table: advantages, loss and gradient of the loops; and what changes neither."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rl_oracles as oracle

from rlvr_jax.rl import losses
from rlvr_jax.rl.advantages import advantages_of
from rlvr_jax.rl.algorithms import ALGORITHMS, Algorithm, choose
from rlvr_jax.rl.policy_loss import policy_loss
from rlvr_jax.rl.selection import token_select
from rlvr_jax.rl.types import TokenBatch

TOLERANCE = 1e-10
B, T, GROUPS = 10, 9, 4
GROUP = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 3], np.int32)  # group 1 is constant, 3 has one member
LONGEST = 13
VARIANTS = {
  **{name: dataclasses.replace(row, pass_k=2) for name, row in ALGORITHMS.items()},
  'grpo with KL': choose('grpo', kl_coef=0.2),
  'grpo with ratio KL and an entropy bonus': choose(
    'grpo', kl_coef=0.2, kl_kind='ratio_k3', entropy_coef=0.05
  ),
  'gspo by whole completions': choose('gspo', ratio='seq_sum', clip_low=0.2, clip_high=0.3),
  'gspo, gradient through the mean': choose('gspo', ratio='seq_mean', clip_low=0.2),
  'rejection': choose(
    'grpo', offpolicy='rs', offpolicy_low=-0.1, offpolicy_high=0.4, kl_coef=0.1, entropy_coef=0.1
  ),
  'sequence mask': choose(
    'icepop', offpolicy='seq_mask', offpolicy_low=0.9, aggregation='seq_mean_token_sum'
  ),
  'ppo, discounted': choose('ppo', gamma=0.9, lam=0.8),
  'bernoulli': choose('grpo', scale='bernoulli_std', ddof=0),
  'batch mean': choose('lite_ppo', baseline='batch_mean'),
  'unlikely and focal': choose('unlikeliness', rank_coef=0.7, focal=1.5, scale='none'),
  'distinct, repeats of wrong ones': choose(
    'distinct', baseline='loo', repeat_coef=0.3, repeat_of='wrong'
  ),
}
ADVANTAGE_CELLS = (
  'credit', 'pass_k', 'baseline', 'scale', 'ddof', 'eps', 'per_token', 'gamma', 'lam', 'whiten',
  'positive', 'negative', 'rank_coef', 'forms', 'focal', 'repeat_coef', 'repeat_of',
)  # fmt: skip
LOSS_CELLS = [
  field.name
  for field in dataclasses.fields(Algorithm)
  if field.name not in (*ADVANTAGE_CELLS, 'band', 'overlong_share')
]


def only(row, cells):
  """The row with its other cells at their defaults: equal for rows that differ only in those."""
  return Algorithm(**{cell: getattr(row, cell) for cell in cells})


def distinct(cells):
  """Name -> row, one for each choice of these cells among the rows."""
  return {only(row, cells): name for name, row in reversed(VARIANTS.items())}


ADVANTAGE_ROWS = {name: row for row, name in distinct(ADVANTAGE_CELLS).items()}
LOSS_ROWS = {name: row for row, name in distinct(LOSS_CELLS).items()}


@pytest.fixture(autouse=True)
def double(strict):
  jax.config.update('jax_disable_most_optimizations', True)
  with jax.enable_x64(True):
    yield
  jax.config.update('jax_disable_most_optimizations', False)


@functools.cache
def draw():
  """Rewards 0 and 1 on last tokens, holes in the masks, NaN under them, one row that is filling."""
  rng = np.random.default_rng(0)
  mask = np.arange(T)[None] < rng.integers(3, T + 1, B)[:, None]
  mask &= rng.random((B, T)) < 0.85
  mask[:, 1] = True
  valid = np.ones(B, bool)
  valid[8] = False
  score = np.array([1, 0, 0, 1, 1, 1, 1, 1, 0, 1.0])
  last = T - 1 - np.argmax(mask[:, ::-1], axis=1)
  rewards = np.full((B, T), np.nan)
  rewards[mask] = 0.0
  rewards[np.arange(B), last] = score
  old = -rng.exponential(1.0, (B, T))
  arrays = {
    'old_logprobs': old,
    'logprobs': np.minimum(old + 0.5 * rng.normal(size=(B, T)), -0.01),
    'sampler_logprobs': old + 0.5 * rng.normal(size=(B, T)),
    'ref_logprobs': old + 0.5 * rng.normal(size=(B, T)),
  }
  arrays = {k: np.where(mask, v, np.nan) for k, v in arrays.items()}
  values = np.where(mask, rng.normal(size=(B, T)), np.nan)
  return rewards, mask, valid, values, rng.normal(size=GROUPS), arrays


# of whole completions: in group 0 the last two are equal, in group 1 two are wherever one is right
LIKELIHOOD = np.array([-3.0, -1.0, -1.0, -4.0, -2.0, -4.0, -9.0, -1.0, np.nan, -5.0])
FORMS = np.array([0, 1, 1, 0, 1, 0, 2, 0, 0, 0], np.int32)

_jitted = jax.jit(advantages_of, static_argnames=('algorithm', 'groups'))


def advantages(
  row, rewards, mask, group, valid, values, greedy, groups=GROUPS, order=slice(None), more=None
):
  """order: of the rollouts in LIKELIHOOD and FORMS; more: replaces these."""
  given = more or {'likelihood': LIKELIHOOD[order], 'forms': FORMS[order]}
  found = _jitted(
    row, rewards, mask, group, valid, groups=groups, values=values, greedy_rewards=greedy, **given
  )
  return np.asarray(found.advantages), found.returns


@pytest.mark.parametrize('name', ADVANTAGE_ROWS)
def test_advantages_of_every_row(name):
  row = ADVANTAGE_ROWS[name]
  rewards, mask, valid, values, greedy, _ = draw()
  got, targets = advantages(row, rewards, mask, GROUP, valid, values, greedy)
  expected, wanted = oracle.advantages_of(
    row, rewards, mask, GROUP, valid, values, greedy, LIKELIHOOD, FORMS
  )
  np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)
  assert not got[~mask].any()
  assert not got[~valid].any()
  assert (targets is None) == (not row.critic)
  if row.critic:
    np.testing.assert_allclose(targets, wanted, rtol=TOLERANCE, atol=TOLERANCE)
  if row.credit in ('identity', 'passk_train', 'best_gap', 'unlikely') and not (
    row.whiten or row.repeat_coef
  ):
    within = row.baseline in ('group_mean', 'loo', 'length_weighted') or row.credit != 'identity'
    assert (not got[GROUP == 1].any()) == within  # a constant group teaches nothing


@pytest.mark.parametrize('name', ADVANTAGE_ROWS)
def test_order_and_filling_rows_do_not_change_advantages(name):
  row = ADVANTAGE_ROWS[name]
  rewards, mask, valid, values, greedy, _ = draw()
  got, _ = advantages(row, rewards, mask, GROUP, valid, values, greedy)
  order = np.append(np.random.default_rng(1).permutation(B), [0, 3, 5])
  keep = np.append(valid[order[:B]], [False] * 3)  # three more rows that are filling
  names = np.array([5, 2, 0, 3], np.int32)  # and other ids for the groups, with gaps
  renamed = np.zeros(6)
  renamed[names] = greedy
  shuffled, _ = advantages(
    row, rewards[order], mask[order], names[GROUP[order]], keep, values[order], renamed, 6, order
  )
  np.testing.assert_allclose(shuffled[:B], got[order[:B]], rtol=1e-12, atol=1e-12)
  assert not shuffled[B:].any()


def selected(row, arrays, advantages, mask):
  """keep and penalised [B,T], of the whole batch."""
  if row.token_select == 'none':
    return {}
  clean = {k: jnp.asarray(np.where(mask, v, np.nan)) for k, v in arrays.items()}
  found = token_select(
    jnp.asarray(advantages),
    clean['old_logprobs'],
    -clean['old_logprobs'],
    jnp.asarray(mask),
    jax.random.key(0),
    row.token_select,
    share=0.2,
    low=-0.2,
    high=5.0,
  )
  return {'keep': np.asarray(found.keep), 'penalised': np.asarray(found.penalised)}


def prepare(row):
  _, mask, valid, values, _, arrays = draw()
  mask = mask & valid[:, None]
  by_token = row.surrogate in ('ppo_clip', 'reinforce')  # the critic's differ by token
  found = np.where(mask, values, 0) if by_token else np.mean(values[:, 1:2], axis=1, keepdims=True)
  found = np.broadcast_to(found, (B, T))
  arrays = dict(arrays, advantages=np.where(mask, found, np.nan))
  if not row.kl_coef:
    arrays['ref_logprobs'] = None
  given = {k: v for k, v in arrays.items() if v is not None}
  return arrays | selected(row, given, found, mask), mask


def as_batch(arrays, mask, rows):
  part = {k: None if v is None else jnp.asarray(v[rows].reshape(-1)) for k, v in arrays.items()}
  rollout = jnp.repeat(jnp.arange(len(mask[rows]), dtype=jnp.int32), T)
  return TokenBatch(mask=jnp.asarray(mask[rows].reshape(-1)), rollout=rollout, **part)


def loss_and_slope(row, batch, rollouts, denominator):
  """Loss, gradient [N] and metrics; the entropy is a function of the log-probs."""

  def total(x):
    entropy = jnp.square(jnp.where(batch.mask, x, 0)) if row.entropy_coef else None
    return policy_loss(batch.replace(logprobs=x, entropy=entropy), rollouts, denominator, row)

  return jax.value_and_grad(total, has_aux=True)(batch.logprobs)


@pytest.mark.parametrize('name', LOSS_ROWS)
def test_loss_and_gradient_of_every_row(name):
  """Against the loop; then the same in any order, with filling rows, cut anywhere."""
  row = LOSS_ROWS[name]
  arrays, mask = prepare(row)
  denominator = losses.denominators(jnp.asarray(mask), LONGEST)
  with_entropy = dict(arrays, entropy=np.square(arrays['logprobs']))
  expected, slopes, sums = oracle.policy_loss(
    with_entropy, mask, row, LONGEST, entropy_slopes=2 * arrays['logprobs']
  )
  filled = np.append(np.arange(B), [8, 8])  # row 8 has nothing under its mask
  batch = as_batch(arrays, mask, filled)
  (whole, metrics), slope = loss_and_slope(row, batch, len(filled), denominator)
  assert float(whole) == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)
  np.testing.assert_allclose(slope[: B * T], slopes.reshape(-1), rtol=TOLERANCE, atol=TOLERANCE)
  assert np.any(slope)
  if row.surrogate != 'nll':
    assert float(metrics['clip_fraction']) == sums['clip']
  if row.offpolicy != 'none':
    assert float(metrics['offpolicy/left_out']) == sums['left_out']
    assert (0 < sums['left_out'] < mask.sum()) == (row.offpolicy not in ('tis', 'seq_tis'))
    assert float(metrics['offpolicy/weight']) == pytest.approx(sums['weight'], rel=TOLERANCE)

  rng = np.random.default_rng(2)
  parts = np.split(rng.permutation(filled), 3)
  found = [loss_and_slope(row, as_batch(arrays, mask, p), len(p), denominator) for p in parts]
  assert sum(float(f[0][0]) for f in found) == pytest.approx(float(whole), rel=1e-12, abs=1e-12)
  by_row = slope.reshape(-1, T)
  for part, (_, got) in zip(parts, found, strict=True):
    np.testing.assert_allclose(got.reshape(-1, T), by_row[part], rtol=1e-12, atol=1e-12)

  anyhow = rng.permutation(len(slope))  # packed in any order, under other ids
  names = rng.permutation(len(filled)).astype(np.int32)
  packed = jax.tree.map(lambda x: x[anyhow], batch)
  packed = packed.replace(rollout=jnp.asarray(names)[packed.rollout])
  (value, _), got = loss_and_slope(row, packed, len(filled), denominator)
  assert float(value) == pytest.approx(float(whole), rel=1e-12, abs=1e-12)
  np.testing.assert_allclose(got, slope[anyhow], rtol=1e-12, atol=1e-12)


def as_float32(tree):
  return jax.tree.map(lambda x: np.float32(x) if x.dtype.kind == 'f' else x, tree)


def test_float32_stays_float32_in_every_row():
  """Under strict promotion, without x64; traced, not run."""
  rewards, mask, valid, values, greedy, _ = draw()
  given = as_float32((rewards, mask, GROUP, valid, values, greedy))
  batches = {name: as_batch(*prepare(row), np.arange(B)) for name, row in LOSS_ROWS.items()}
  batches = jax.tree.map(np.asarray, batches)
  with jax.enable_x64(False):
    for name, row in ADVANTAGE_ROWS.items():
      rewards, mask, group, valid, values, greedy = given
      options = {'groups': GROUPS, 'values': values, 'greedy_rewards': greedy, 'forms': FORMS}
      options['likelihood'] = np.float32(LIKELIHOOD)
      call = functools.partial(advantages_of, row, **options)
      found = jax.eval_shape(call, rewards, mask, group, valid)
      assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype('float32')}, name
    denominator = losses.denominators(jnp.asarray(mask), LONGEST)
    for name, row in LOSS_ROWS.items():
      call = functools.partial(loss_and_slope, row, rollouts=B, denominator=denominator)
      found = jax.eval_shape(call, as_float32(batches[name]))
      assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype('float32')}, name


def test_ppo_without_a_critic_is_reinforce_pp_before_whitening():
  rewards, mask, valid, _, greedy, _ = draw()
  ppo = dataclasses.replace(ALGORITHMS['ppo'], whiten=False)
  other = dataclasses.replace(ALGORITHMS['reinforce_pp'], whiten=False)
  zero = np.zeros((B, T))
  one, targets = advantages(ppo, rewards, mask, GROUP, valid, zero, greedy)
  two, _ = advantages(other, rewards, mask, GROUP, valid, zero, greedy)
  np.testing.assert_array_equal(one, two)
  np.testing.assert_array_equal(one, targets)


def test_rewards_of_a_batch_that_are_equal_teach_nothing():
  """To the bit, in float32, where a mean of 0.1 is not 0.1."""
  n = 7
  rewards = np.zeros((n, 3), np.float32)
  rewards[:, 2] = 0.1
  everywhere = np.ones((n, 3), bool)
  for name in ('grpo', 'dr_grpo', 'rloo', 'lite_ppo', 'opo', 'reinforce_pp_baseline', 'gspo'):
    got, _ = advantages(
      ALGORITHMS[name],
      rewards,
      everywhere,
      np.zeros(n, np.int32),
      np.ones(n, bool),
      None,
      None,
      1,
    )
    assert got.dtype == np.float32
    assert not got.any(), name


def test_a_row_that_needs_more_says_so():
  rewards, mask, valid, values, _, _ = draw()
  with pytest.raises(ValueError, match='needs values'):
    advantages(ALGORITHMS['ppo'], rewards, mask, GROUP, valid, None, None)
  with pytest.raises(ValueError, match='needs greedy_rewards'):
    advantages(ALGORITHMS['remax'], rewards, mask, GROUP, valid, values, None)
  nothing = {'likelihood': None, 'forms': None}
  for name, what in (
    ('unlikeliness', 'likelihood'),
    ('distinct', 'forms'),
    ('batch_exploration', 'forms'),
  ):
    given = rewards, mask, GROUP, valid, None, None
    with pytest.raises(ValueError, match=f'needs {what}, one for each rollout'):
      advantages(ALGORITHMS[name], *given, more=nothing)
  greedy = Algorithm(baseline='greedy', scale='none')
  with pytest.raises(ValueError, match='needs greedy_rewards'):
    advantages(greedy, rewards, mask, GROUP, valid, values, None)
