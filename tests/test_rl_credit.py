"""Credit for pass@k: subsets counted one by one, and gradients in exact expectation."""

import dataclasses
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
from rlvr_jax.rl.credit import KINDS, credit, focal, is_right, repeats, scale_signs
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
RIGHT = np.array([c in ((0, 1), (2, 2), (1, 0)) for c in COMPLETIONS], float)
FORMS = np.array([sum(c) for c in COMPLETIONS], np.int32)  # two of the three right ones are alike


@pytest.mark.parametrize(
  'name', ['pkpo', 'pkpo_loo', 'w_reinforce', 'psr', 'nsr', 'distinct', 'distinct_loo', 'maxrl']
)
def test_rows_of_the_table_learn_what_they_claim(name):
  """Rewards to advantages to loss to gradient, expected over all groups of four completions.

  pass@k for pkpo (k=2); for the signed ones lambda * pass@1's positive part and its negative one.
  With D_j the number of different right answers among j draws: E D_G / G for distinct_loo, the sum
  of E D_j / (j G) over j < G for distinct, that of pass@j / j for maxrl.
  """
  G, k = 4, 2
  row = choose(name, pass_k=k, aggregation='seq_mean_token_sum', surrogate='reinforce')
  if name == 'maxrl':
    row = dataclasses.replace(row, eps=0.0)
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
    forms=jnp.asarray(FORMS[drawn].reshape(-1)),
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
    if name == 'maxrl':
      return sum((1 - (1 - solved) ** j) / j for j in range(1, G))
    if name.startswith('distinct'):
      forms = [chances(theta) @ jnp.asarray(RIGHT * (form == FORMS)) for form in (1, 4)]
      drawn = [sum(1 - (1 - p) ** j for p in forms) / G for j in range(G + 1)]
      return drawn[G] if name == 'distinct_loo' else sum(drawn[j] / j for j in range(1, G))
    return row.positive * solved - row.negative * (1 - solved)

  got = -jax.jit(jax.grad(expected_loss))(theta)
  np.testing.assert_allclose(got, jax.grad(goal)(theta), rtol=1e-9, atol=1e-12)


def ascend(name, chances, right, forms, steps=400, rate=2.0):
  """Chances of outcomes after steps along a row's expected gradient, over all groups of three."""
  G, V = 3, len(chances)
  row = choose(name, eps=1e-6)
  drawn = np.array(list(itertools.product(range(V), repeat=G)))
  P = len(drawn)
  group = jnp.repeat(jnp.arange(P, dtype=jnp.int32), G)
  everywhere = jnp.ones((P * G, 1), bool)
  rewards = jnp.asarray(np.array(right, float)[drawn].reshape(-1, 1))

  @jax.jit
  def step(logits):
    logp = jax.nn.log_softmax(logits)
    found = advantages_of(
      row,
      rewards,
      everywhere,
      group,
      everywhere[:, 0],
      groups=P,
      likelihood=logp[drawn].reshape(-1),
      forms=jnp.asarray(np.array(forms, np.int32)[drawn].reshape(-1)),
    ).advantages.reshape(P, G)
    weight = jnp.exp(logp[drawn].sum(axis=1))
    push = jnp.zeros(V).at[drawn].add(weight[:, None] * found / G)
    return logits + rate * (push - jnp.sum(push) * jnp.exp(logp))  # sum of A grad log p

  logits = jnp.log(jnp.asarray(chances))
  for _ in range(steps):
    logits = step(logits)
  return np.asarray(jax.nn.softmax(logits))


def test_distinct_answers_end_equally_likely_where_others_keep_the_likeliest():
  """Two right answers, of chances .3 and .03, the first written in two ways; and a wrong one."""
  start, right, forms = [0.2, 0.1, 0.03, 0.67], [1, 1, 1, 0], [0, 0, 1, 2]
  names = ('distinct', 'distinct_loo', 'dr_grpo', 'grpo', 'unlikeliness')
  end = {name: ascend(name, start, right, forms) for name in names}
  for name, chances in end.items():
    assert chances[:3].sum() > 0.97, name
  for name in ('distinct', 'distinct_loo'):
    assert end[name][2] == pytest.approx(0.5, abs=0.02), name
  assert max(end['dr_grpo'][2], end['grpo'][2]) < 0.005
  # with its .25 the rank slows the loss of the rare answer, and does not stop it
  assert 1.05 * end['grpo'][2] < end['unlikeliness'][2] < 0.005


def test_the_less_likely_a_right_answer_the_more_it_is_worth():
  """By hand: beta .25, five completions, the likeliest first; two wrong, two as likely."""
  scores = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
  likelihood = np.array([-1.0, -2.0, -3.0, -3.0, -9.0])
  got = credited(scores, np.zeros(5, int), 'unlikely', 1, 1, likelihood=likelihood)
  np.testing.assert_allclose(got, [0.75, 0, 1 - 0.25 * 2.5 / 5, 1 - 0.25 * 2.5 / 5, 0], rtol=1e-12)
  right = np.ones(5)
  got = credited(right, np.zeros(5, int), 'unlikely', 1, 1, likelihood=likelihood)
  np.testing.assert_array_equal(got, right)  # nothing to be told apart: the group teaches nothing


def test_weights_by_solve_rate_and_prices_by_hand():
  """F-GRPO's (1 - c/n)^gamma; a form that three of five have costs the share of the other two."""
  right, group = np.array([1.0, 0, 0, 0, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
  stats = group_stats(jnp.asarray(right), jnp.asarray(group, jnp.int32), jnp.ones(8, bool), 2)
  got = focal(stats, jnp.asarray(group), 2.0)
  np.testing.assert_allclose(got, [0.75**2] * 4 + [0.25**2] * 4, rtol=1e-12)
  forms, one = jnp.asarray([7, 7, 3, 7, 1], jnp.int32), jnp.zeros(5, jnp.int32)
  everyone, count = jnp.ones(5, bool), jnp.asarray([5.0])
  got = repeats(forms, one, everyone, count, None)
  np.testing.assert_allclose(got, [0.4, 0.4, 0, 0.4, 0], rtol=1e-12)
  wrong = jnp.asarray([True, True, True, False, True])
  got = repeats(forms, one, everyone, count, wrong)
  np.testing.assert_allclose(got, [0.2, 0.2, 0, 0, 0], rtol=1e-12)


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
