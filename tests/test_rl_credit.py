"""Credit for pass@k: subsets counted one by one, and gradients in exact expectation."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rl_oracles as oracle

from rlvr_jax.rl import losses
from rlvr_jax.rl.advantages import advantages_of
from rlvr_jax.rl.algorithms import ALGORITHMS, CREDITS, choose
from rlvr_jax.rl.credit import KINDS, credit, is_right, scale_signs
from rlvr_jax.rl.groups import group_stats
from rlvr_jax.rl.policy_loss import policy_loss
from rlvr_jax.rl.types import TokenBatch

TOLERANCE = 1e-10


@pytest.fixture(autouse=True)
def double(strict):
  jax.config.update('jax_disable_most_optimizations', True)
  with jax.enable_x64(True):
    yield
  jax.config.update('jax_disable_most_optimizations', False)


@functools.partial(jax.jit, static_argnames=('kind', 'k', 'groups'))
def credited(scores, group, kind, k, groups, likelihood=None, forms=None):
  scores, group = jnp.asarray(scores), jnp.asarray(group, jnp.int32)
  valid = jnp.ones(scores.shape, bool)
  counted = scores if kind == 'best_gap' else is_right(scores).astype(scores.dtype)
  stats = group_stats(counted, group, valid, groups)
  more = {'valid': valid, 'likelihood': likelihood, 'forms': forms}
  return credit(scores, stats, group, kind, k=k, **more)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('k', [1, 2, 4, 8])
def test_credit_of_every_count_of_right_answers(kind, k):
  """Groups of 8 with 0 to 8 right, of 3 and of 1 (k then is the group's size), all at once."""
  sizes = [(8, c) for c in range(9)] + [(3, c) for c in range(4)] + [(1, 0), (1, 1)]
  group = np.repeat(np.arange(len(sizes)), [n for n, _ in sizes])
  scores = np.concatenate([np.arange(n) < c for n, c in sizes]).astype(float)
  order = np.random.default_rng(0).permutation(len(group))
  scores, group = scores[order], group[order]
  rng = np.random.default_rng(1)
  more = {
    'likelihood': -rng.integers(1, 6, len(group)).astype(float),  # with ties
    'forms': rng.integers(0, 3, len(group)),
  }
  got = credited(scores, group, kind, k, len(sizes), **more)
  for g in range(len(sizes)):
    mine = np.flatnonzero(group == g)
    mores = {name: x[mine] for name, x in more.items()}
    expected = oracle.credits(list(scores[mine]), kind, k, **mores)
    np.testing.assert_allclose(got[mine], expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_best_gap_of_scores_between_zero_and_one():
  scores = np.array([0.1, 0.9, 0.4, 0.6, 0.6, 0.2, 0.3])
  got = credited(scores, np.array([0, 0, 0, 1, 1, 1, 2]), 'best_gap', 1, 3)
  np.testing.assert_allclose(got, [0, 0.5, 0, 0, 0, 0, 0], rtol=1e-12)


def test_names_are_those_of_the_table():
  assert KINDS == CREDITS
  with pytest.raises(ValueError, match=r"train.credit='passk': known are identity, signed"):
    credited(np.eye(2)[0], np.zeros(2, int), 'passk', 1, 1)


@pytest.mark.parametrize('chance', [0.02, 0.1, 0.3, 0.6])
@pytest.mark.parametrize(
  ('kind', 'n', 'k'),
  [
    ('pkpo', 8, 4),
    ('pkpo_loo', 8, 4),
    ('pkpo', 5, 1),
    ('pkpo_loo', 3, 4),
  ],
)
def test_expected_gradient_is_that_of_pass_at_k(kind, n, k, chance):
  """Sum over a group of credit * grad log p: over all outcomes, grad of 1 - (1-p)^k."""
  k_used = min(k, n)
  logit = np.log(chance / (1 - chance))
  wanted = k_used * (1 - chance) ** (k_used - 1) * chance * (1 - chance)
  right = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
  count = right.sum(axis=1)
  weights = chance**count * (1 - chance) ** (n - count)
  group = np.repeat(np.arange(len(right)), n)
  value = np.reshape(credited(right.reshape(-1), group, kind, k, len(right)), right.shape)
  slopes = right - 1 / (1 + np.exp(-logit))  # d log p(outcome) / d logit
  got = weights @ (value * slopes).sum(axis=1)
  assert got == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize('chance', [0.02, 0.1, 0.3, 0.6])
def test_leave_one_out_has_less_variance_where_answers_are_often_right(chance):
  """The published comparison at n=8, k=4: .031/.034, .053/.091, .015/.167, .005/.359."""
  right = np.array(list(itertools.product([0.0, 1.0], repeat=8)))
  count = right.sum(axis=1)
  weights = chance**count * (1 - chance) ** (8 - count)
  group = np.repeat(np.arange(len(right)), 8)
  variance = {}
  for kind in ('pkpo_loo', 'pkpo'):
    value = np.reshape(credited(right.reshape(-1), group, kind, 4, len(right)), right.shape)
    estimate = (value * (right - chance)).sum(axis=1)
    variance[kind] = weights @ estimate**2 - (weights @ estimate) ** 2
  known = {0.02: (0.031, 0.034), 0.1: (0.053, 0.091), 0.3: (0.015, 0.167), 0.6: (0.005, 0.359)}
  assert (variance['pkpo_loo'], variance['pkpo']) == pytest.approx(known[chance], abs=6e-4)


def test_passk_training_is_pass_at_k_shrunk():
  """Without its 1/s and times k/n: (1 - k/n) grad pass@k, in expectation; 0 at k = n."""
  n, chance = 6, 0.3
  right = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
  count = right.sum(axis=1)
  weights = chance**count * (1 - chance) ** (n - count)
  group = np.repeat(np.arange(len(right)), n)
  for k in (2, 4, 6):
    value = np.reshape(credited(right.reshape(-1), group, 'passk_train', k, len(right)), (-1, n))
    mean = np.array([oracle.pass_at_k(list(row), k) for row in right])
    spread = np.sqrt(mean * (1 - mean))
    got = weights @ ((value * spread[:, None] * k / n) * (right - chance)).sum(axis=1)
    wanted = (1 - k / n) * k * (1 - chance) ** (k - 1) * chance * (1 - chance)
    assert got == pytest.approx(wanted, rel=1e-10, abs=1e-15)


TOKENS = 3  # of a vocabulary of three, two tokens long: the second and third letters are choices
COMPLETIONS = list(itertools.product(range(TOKENS), repeat=2))
RIGHT = np.array([c in ((0, 1), (2, 2)) for c in COMPLETIONS], float)


@pytest.mark.parametrize('name', ['pkpo', 'pkpo_loo', 'w_reinforce', 'psr', 'nsr'])
def test_rows_of_the_table_learn_what_they_claim(name):
  """Rewards to advantages to loss to gradient, expected over all groups of four completions.

  pass@k for pkpo (k=2); for the signed ones lambda * pass@1's positive part and its negative one.
  """
  G, k = 4, 2
  row = choose(name, pass_k=k, aggregation='seq_mean_token_sum', surrogate='reinforce')
  theta = jnp.asarray(np.random.default_rng(1).normal(size=(1 + TOKENS, TOKENS)))
  # only counts matter: a multiset of completions stands for all its orders
  drawn = np.array(list(itertools.combinations_with_replacement(range(9), G)))
  orders = np.array([_orders(row) for row in drawn], float)
  rewards = np.zeros((len(drawn), G, 2))
  rewards[..., 1] = RIGHT[drawn]
  P = len(drawn)
  mask = jnp.ones((P * G, 2), bool)
  found = advantages_of(
    row,
    jnp.asarray(rewards.reshape(-1, 2)),
    mask,
    jnp.repeat(jnp.arange(P, dtype=jnp.int32), G),
    jnp.ones(P * G, bool),
    groups=P,
  ).advantages.reshape(P, -1)

  def token_logprobs(theta):
    table = jax.nn.log_softmax(theta)
    return jnp.stack([jnp.stack([table[0, a], table[1 + a, b]]) for a, b in COMPLETIONS])

  def chances(theta):
    return jnp.exp(token_logprobs(theta).sum(axis=1))

  def loss_of_group(theta, drawn, advantages):
    logprobs = token_logprobs(theta)[drawn].reshape(-1)
    old = jax.lax.stop_gradient(logprobs)
    batch = TokenBatch(
      logprobs=logprobs,
      old_logprobs=old,
      ref_logprobs=None,
      sampler_logprobs=old,
      advantages=advantages,
      mask=jnp.ones(G * 2, bool),
      rollout=jnp.repeat(jnp.arange(G, dtype=jnp.int32), 2),
    )
    return policy_loss(batch, G, losses.denominators(jnp.ones((G, 2), bool), 2), row)[0]

  def expected_loss(theta):
    p = jax.lax.stop_gradient(chances(theta))[jnp.asarray(drawn)].prod(axis=1)
    each = jax.vmap(loss_of_group, (None, 0, 0))(theta, jnp.asarray(drawn), found)
    return jnp.sum(p * jnp.asarray(orders) * each)

  def goal(theta):
    solved = chances(theta) @ jnp.asarray(RIGHT)
    if name.startswith('pkpo'):
      return 1 - (1 - solved) ** k
    return row.positive * solved - row.negative * (1 - solved)

  got = -jax.jit(jax.grad(expected_loss))(theta)
  np.testing.assert_allclose(got, jax.grad(goal)(theta), rtol=1e-9, atol=1e-12)


def _orders(multiset):
  total = len(multiset)
  ways = 1
  for count in np.bincount(multiset):
    for i in range(1, count + 1):
      ways, total = ways * total // i, total - 1
  return ways


def test_signs_are_scaled():
  x = jnp.asarray([-2.0, 0.0, 3.0])
  for name, expected in {'psr': [0, 0, 3], 'nsr': [-2, 0, 0], 'w_reinforce': [-2, 0, 0.3]}.items():
    row = ALGORITHMS[name]
    np.testing.assert_allclose(scale_signs(x, row.positive, row.negative), expected, rtol=1e-12)
