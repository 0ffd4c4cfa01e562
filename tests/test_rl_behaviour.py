"""Completions that something else than the policy wrote: their weights, by enumeration.

A policy and a start model over sequences of two tokens of three, as tables of logits; every group
is enumerated with its probability, and the expected gradient compared with that of the solve rate.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.rl import losses
from rlvr_jax.rl.advantages import advantages_of
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.policy_loss import policy_loss
from rlvr_jax.rl.types import TokenBatch

V = 3
SEQUENCES = np.array(list(itertools.product(range(V), repeat=2)))  # [9,2]
RIGHT = np.isin(np.arange(len(SEQUENCES)), (1, 5))
EVERYTHING = 1e9  # a bound that truncates nothing
SUMMED = {'aggregation': 'seq_mean_token_sum'}


@pytest.fixture(autouse=True)
def x64():
  with jax.enable_x64(True):
    yield


def tables():
  """(policy, start model): logits of the first token [V], and of the second after it [V,V]."""
  rng = np.random.default_rng(3)
  return tuple((rng.normal(size=V), rng.normal(size=(V, V))) for _ in range(2))


def token_logprobs(table):
  """f64[9,2] log-probs of each token of each sequence."""
  first, second = (jax.nn.log_softmax(jnp.asarray(x)) for x in table)
  a, b = SEQUENCES.T
  return jnp.stack([first[a], second[a, b]], axis=1)


def chance(table):
  """f64[9] of each sequence."""
  return np.exp(np.asarray(token_logprobs(table)).sum(axis=1))


def solve_rate(table):
  return jnp.sum(jnp.where(RIGHT, jnp.exp(token_logprobs(table).sum(axis=1)), 0.0))


def gradient(row, policy, groups, behaviour, weights):
  """sum over groups of weight * -gradient of the row's loss in the policy's table.

  groups i64[N,G] numbers of sequences, behaviour f64[N,G,2] what they were drawn with.
  """
  N, G = groups.shape
  flat = groups.reshape(-1)
  rewards = np.zeros((N * G, 2))
  rewards[:, 1] = RIGHT[flat]
  ones = np.ones((N * G, 2), bool)
  number = np.repeat(np.arange(N), G)
  found = advantages_of(
    row, *map(jnp.asarray, (rewards, ones, number, ones[:, 0])), groups=N
  ).advantages.reshape(N, G * 2)

  def loss(table, chosen, drawn_with, advantages):
    logprobs = token_logprobs(table)[chosen].reshape(-1)
    batch = TokenBatch(
      logprobs=logprobs,
      old_logprobs=jax.lax.stop_gradient(logprobs),
      ref_logprobs=None,
      sampler_logprobs=drawn_with.reshape(-1),
      advantages=advantages,
      mask=jnp.ones(2 * G, bool),
      rollout=jnp.repeat(jnp.arange(G), 2),
    )
    denominator = losses.denominators(jnp.ones((G, 2), bool), 2)
    return policy_loss(batch, G, denominator, row)[0]

  each = jax.vmap(jax.grad(loss), (None, 0, 0, 0))(
    tuple(map(jnp.asarray, policy)), jnp.asarray(groups), jnp.asarray(behaviour), found
  )
  return jax.tree.map(lambda g: -jnp.tensordot(jnp.asarray(weights), g, 1), each)


def pairs(policy, second):
  """All groups of two, the first by the policy, with what they were drawn with and their chance."""
  groups = np.array(list(itertools.product(range(len(SEQUENCES)), repeat=2)))
  tables_of = policy, second
  drawn = np.stack(
    [np.asarray(token_logprobs(t))[groups[:, i]] for i, t in enumerate(tables_of)], axis=1
  )
  weights = chance(policy)[groups[:, 0]] * chance(second)[groups[:, 1]]
  return groups, drawn, weights


def assert_same(a, b, tolerance=1e-12):
  for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
    np.testing.assert_allclose(x, y, atol=tolerance)


@pytest.mark.parametrize('name', ['rloo', 'reinforce', 'dr_grpo'])
def test_the_start_models_share_leaves_the_expected_gradient(name):
  """Of rows without a deviation to divide by: what it is without mixing; RLOO's is the true one."""
  policy, start = tables()
  row = choose(name, offpolicy='seq_tis', offpolicy_high=EVERYTHING, **SUMMED)
  mixed = gradient(row, policy, *pairs(policy, start))
  alone = gradient(row, policy, *pairs(policy, policy))
  assert_same(mixed, alone)
  truth = jax.grad(solve_rate)(tuple(map(jnp.asarray, policy)))
  factor = {'dr_grpo': 1 / 2}.get(name, 1.0)  # 1 - 1/G: its baseline knows the reward itself
  assert_same(mixed, jax.tree.map(lambda g: factor * g, truth))


def test_without_a_weight_the_gradient_is_another():
  policy, start = tables()
  row = choose('rloo', **SUMMED)
  mixed = gradient(row, policy, *pairs(policy, start))
  alone = gradient(row, policy, *pairs(policy, policy))
  assert max(np.abs(a - b).max() for a, b in zip(mixed, alone, strict=True)) > 0.01


def test_truncation_costs_what_lies_above_the_bound():
  policy, start = tables()
  bound = 1.2
  groups, drawn, weights = pairs(policy, start)
  whole, cut = (
    gradient(
      choose('rloo', offpolicy='seq_tis', offpolicy_high=high, **SUMMED),
      policy,
      groups,
      drawn,
      weights,
    )
    for high in (EVERYTHING, bound)
  )
  ratio = (chance(policy) / chance(start))[groups[:, 1]]
  over = np.maximum(ratio - bound, 0)
  assert over.max() > 0.1
  # A/G grad log pi of the second, times what was cut off its weight; A = R2 - R1
  advantage = RIGHT[groups[:, 1]].astype(float) - RIGHT[groups[:, 0]]
  by_sequence = jax.jacobian(lambda t: token_logprobs(t).sum(axis=1))(
    tuple(map(jnp.asarray, policy))
  )
  lost = np.bincount(groups[:, 1], weights * over * advantage / 2, len(SEQUENCES))
  expected = jax.tree.map(lambda g: jnp.tensordot(lost, g, 1), by_sequence)
  assert_same(jax.tree.map(jnp.subtract, whole, cut), expected)


def test_a_replayed_success_adds_the_solve_rates_own_gradient():
  """E[w grad log pi | right under the old policy] = grad P(right) / P_old(right).

  The other completion of the group is wrong, and PSR learns nothing from that.
  """
  policy, old = tables()
  row = choose('psr', offpolicy='seq_tis', offpolicy_high=EVERYTHING, **SUMMED)
  groups = np.array([[0, i] for i in np.flatnonzero(RIGHT)])  # 0 is wrong
  drawn = np.stack(
    [np.asarray(token_logprobs(t))[groups[:, i]] for i, t in enumerate((policy, old))], axis=1
  )
  rare = chance(old)[RIGHT].sum()
  found = gradient(row, policy, groups, drawn, chance(old)[RIGHT] / rare)
  truth = jax.grad(solve_rate)(tuple(map(jnp.asarray, policy)))
  assert_same(found, jax.tree.map(lambda g: g / rare / 2, truth))
