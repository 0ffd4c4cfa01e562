"""Advantages: published numbers, loops from the formulas, and what must not change them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.rl import losses
from rlvr_jax.rl.advantages import baseline, group_advantages, scale
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.groups import GroupStats, group_stats, pool
from rlvr_jax.rl.policy_loss import policy_loss
from rlvr_jax.rl.types import TokenBatch

TOLERANCE = 1e-10
KINDS = [('none', 'none'), ('group_mean', 'none'), ('loo', 'none'), ('group_mean', 'group_std')]


@pytest.fixture(autouse=True)
def quick(strict):
  """Strict dtype promotion in every test; programs that compile fast."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture
def double():
  with jax.enable_x64(True):
    yield


OPTIONS = ('groups', 'baseline_kind', 'scale_kind', 'ddof', 'eps')
_jitted = jax.jit(group_advantages, static_argnames=OPTIONS)


def advantages(rewards, group=None, valid=None, groups=None, dtype=np.float32, **options):
  rewards = np.asarray(rewards, dtype)
  group = np.zeros(len(rewards), np.int32) if group is None else np.asarray(group, np.int32)
  valid = np.ones(len(rewards), bool) if valid is None else np.asarray(valid)
  groups = groups or int(group.max()) + 1
  return np.asarray(_jitted(rewards, group, valid, groups=groups, **options))


def in_a_loop(rewards, group, valid, baseline_kind, scale_kind, ddof=1, eps=1e-6):
  """The same from the formulas, rollout by rollout."""
  result = np.zeros(len(rewards))
  for i in range(len(rewards)):
    if not valid[i]:
      continue
    mine = [rewards[j] for j in range(len(rewards)) if group[j] == group[i] and valid[j]]
    n, mean = len(mine), sum(mine) / len(mine)
    others = (sum(mine) - rewards[i]) / (n - 1) if n > 1 else 0.0
    result[i] = rewards[i] - {'none': 0.0, 'group_mean': mean, 'loo': others}[baseline_kind]
    if scale_kind == 'group_std' and n > ddof:
      result[i] /= (sum((r - mean) ** 2 for r in mine) / (n - ddof)) ** 0.5 + eps
    if baseline_kind != 'none' and n > 1 and len(set(mine)) == 1:
      result[i] = 0.0
  return result


def draw_groups(seed, size=60, groups=9):
  """Rewards in ragged groups; one group is constant, one has one member, some rows are filling."""
  rng = np.random.default_rng(seed)
  group = rng.integers(0, groups - 1, size).astype(np.int32)
  group[0] = groups - 1
  rewards = rng.normal(size=size)
  rewards[group == 1] = 0.1
  valid = rng.random(size) < 0.9
  valid[0] = True
  return rewards, group, valid


@pytest.mark.parametrize(
  ('options', 'right', 'wrong'),
  [
    ({}, 2.474867, -0.3535524),  # ddof 1, eps 1e-6
    ({'ddof': 0}, 2.645743, -0.3779633),
    ({'scale_kind': 'none'}, 0.875, -0.125),  # Dr.GRPO
    ({'scale_kind': 'none', 'baseline_kind': 'loo'}, 1.0, -1 / 7),
  ],
)
def test_one_success_in_eight(options, right, wrong):
  got = advantages([0, 0, 1, 0, 0, 0, 0, 0], **options)
  np.testing.assert_allclose(got[2], right, rtol=1e-6)
  np.testing.assert_allclose(np.delete(got, 2), wrong, rtol=1e-6)


@pytest.mark.parametrize('eps', [1e-6, 1e-9, 0.0])
@pytest.mark.parametrize('baseline_kind', ['group_mean', 'loo'])
@pytest.mark.parametrize('scale_kind', ['none', 'group_std'])
def test_equal_rewards_give_exactly_zero(eps, baseline_kind, scale_kind):
  options = {'eps': eps, 'baseline_kind': baseline_kind, 'scale_kind': scale_kind}
  assert not advantages([0.1] * 7, **options).any()
  assert not advantages([1.0] * 8 + [1 / 3] * 5, group=[0] * 8 + [1] * 5, **options).any()


@pytest.mark.parametrize(('baseline_kind', 'scale_kind'), KINDS)
@pytest.mark.parametrize('ddof', [0, 1])
def test_loops_from_the_formulas_agree(double, baseline_kind, scale_kind, ddof):
  rewards, group, valid = draw_groups(1)
  options = {'baseline_kind': baseline_kind, 'scale_kind': scale_kind, 'ddof': ddof}
  got = advantages(rewards, group, valid, 9, np.float64, **options)
  expected = in_a_loop(rewards, group, valid, **options)
  np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_statistics_baselines_and_scales(double):
  rewards, group, valid = draw_groups(2)
  arrays = [jnp.asarray(a) for a in (rewards, group, valid)]
  stats = group_stats(*arrays, 9)
  assert isinstance(stats, GroupStats)
  for g in range(9):
    mine = rewards[(group == g) & valid]
    assert float(stats.count[g]) == len(mine)
    assert float(stats.mean[g]) == pytest.approx(mine.mean(), abs=TOLERANCE)
    assert float(stats.largest[g]) == mine.max()
    assert float(stats.smallest[g]) == mine.min()
    for ddof in (0, 1):
      std = mine.std(ddof=ddof) if len(mine) > ddof else 0.0
      assert float(stats.std(ddof)[g]) == pytest.approx(std, abs=TOLERANCE)
      divisor = std + 1e-3 if len(mine) > ddof and len(set(mine)) > 1 else 1.0
      got = scale(stats, arrays[1], 'group_std', ddof=ddof, eps=1e-3)
      np.testing.assert_allclose(got[group == g], divisor, atol=TOLERANCE)
  expected = stats.mean[arrays[1]]
  np.testing.assert_array_equal(baseline(arrays[0], stats, arrays[1], 'group_mean'), expected)
  whole, together = pool(stats), rewards[valid]
  assert float(whole.mean[0]) == pytest.approx(together.mean(), abs=TOLERANCE)
  assert float(whole.std(1)[0]) == pytest.approx(together.std(ddof=1), abs=TOLERANCE)
  assert (float(whole.largest[0]), float(whole.smallest[0])) == (together.max(), together.min())
  with pytest.raises(ValueError, match=r"train.baseline='mean': known are none, group_mean, loo"):
    baseline(arrays[0], stats, arrays[1], 'mean')
  with pytest.raises(ValueError, match=r"train.scale='std': known are none, group_std"):
    scale(stats, arrays[1], 'std', ddof=1, eps=0.0)


def test_no_cancellation_far_from_zero():
  """Rewards 10000 + {0, 1}: the deviation is that of {0, 1}."""
  near, far = advantages([0, 1, 1, 0, 1]), advantages(10_000 + np.array([0, 1, 1, 0, 1]))
  np.testing.assert_allclose(far, near, rtol=1e-2)


@pytest.mark.parametrize(('baseline_kind', 'scale_kind'), KINDS[1:])
def test_advantages_of_a_group_sum_to_zero(double, baseline_kind, scale_kind):
  rewards, group, valid = draw_groups(3)
  options = {'baseline_kind': baseline_kind, 'scale_kind': scale_kind}
  got = advantages(rewards, group, valid, 9, np.float64, **options)
  many = np.bincount(group[valid], minlength=9) > 1
  np.testing.assert_allclose(np.bincount(group, got)[many], 0, atol=1e-9)


@pytest.mark.parametrize(('baseline_kind', 'scale_kind'), KINDS)
def test_order_names_and_filling_rows_do_not_matter(double, baseline_kind, scale_kind):
  rewards, group, valid = draw_groups(4)
  options = {'baseline_kind': baseline_kind, 'scale_kind': scale_kind}
  got = advantages(rewards, group, valid, 9, np.float64, **options)
  order = np.random.default_rng(0).permutation(len(rewards))
  shuffled = advantages(rewards[order], group[order], valid[order], 9, np.float64, **options)
  np.testing.assert_allclose(shuffled, got[order], rtol=1e-12)
  renamed = advantages(rewards, 8 - group, valid, 9, np.float64, **options)
  np.testing.assert_allclose(renamed, got, rtol=1e-12)
  filled = advantages(
    np.append(rewards, [np.nan, 7.0]),
    np.append(group, [3, 12]),
    np.append(valid, [False, False]),
    13,
    np.float64,
    **options,
  )
  np.testing.assert_array_equal(filled, np.append(got, [0, 0]))
  assert not got[~valid].any()


def test_leave_one_out_is_centred_times_n_over_n_minus_one(double):
  rewards, group, valid = draw_groups(5)
  loo, centred = (
    advantages(rewards, group, valid, 9, np.float64, baseline_kind=kind, scale_kind='none')
    for kind in ('loo', 'group_mean')
  )
  n = np.bincount(group[valid], minlength=9)[group]
  many = valid & (n > 1)
  np.testing.assert_allclose(loo[many], (centred * n / np.maximum(n - 1, 1))[many], rtol=1e-9)


def test_group_of_one():
  assert advantages([0.7]) == 0
  assert advantages([0.7], scale_kind='none', baseline_kind='loo') == np.float32(0.7)
  for kind in ('group_std', 'bernoulli_std', 'batch_std'):
    for ddof in (0, 1):
      alone = {'baseline_kind': 'loo', 'scale_kind': kind, 'ddof': ddof}
      assert advantages([0.7], **alone) == np.float32(0.7)
      # and beside a group whose rewards are equal, to its own
      assert advantages([1, 1, 1], [0, 0, 1], groups=2, **alone).tolist() == [0, 0, 1]


COMPLETIONS = [(0,), *itertools.product((1, 2), (0, 1, 2))]  # token 0 ends; at most two tokens
STATE = {(): 0, (1,): 1, (2,): 2}
REWARDS = np.array([0, 1, 0, 0, 1, 1, 0.0])


def toy_logprobs(theta):
  """[7,2] log-probs of every completion's tokens under a table of logits [3,3], and their mask."""
  table = jax.nn.log_softmax(theta)
  rows = [[table[STATE[c[:t]], c[t]] for t in range(len(c))] for c in COMPLETIONS]
  padded = jnp.stack([jnp.stack([*row, *[jnp.asarray(jnp.nan)] * (2 - len(row))]) for row in rows])
  return padded, jnp.asarray([[True, len(c) == 2] for c in COMPLETIONS])


@pytest.mark.parametrize('surrogate', ['reinforce', 'ppo_clip'])
@pytest.mark.parametrize(
  ('G', 'kind', 'factor'), [(1, 'none', 1), (2, 'loo', 1), (3, 'loo', 1), (3, 'group_mean', 2 / 3)]
)
def test_expected_gradient_is_that_of_pass_at_1(double, surrogate, G, kind, factor):
  """Expectation over all groups of completions; centring by the group's own mean shrinks it."""
  algorithm = choose(
    'grpo', surrogate=surrogate, baseline=kind, scale='none', aggregation='seq_mean_token_sum'
  )
  theta = jnp.asarray(np.random.default_rng(3).normal(size=(3, 3)))
  groups = jnp.asarray(list(itertools.product(range(len(COMPLETIONS)), repeat=G)))

  def chances(theta):
    logprobs, mask = toy_logprobs(theta)
    return jnp.exp(jnp.where(mask, logprobs, 0.0).sum(axis=1))

  def pass_at_1(theta):
    return chances(theta) @ jnp.asarray(REWARDS)

  def loss_of_group(theta, drawn):
    logprobs, mask = toy_logprobs(theta)
    rewards = jnp.asarray(REWARDS)[drawn]
    one = jnp.zeros(G, jnp.int32)
    adv = group_advantages(
      rewards, one, jnp.ones(G, bool), groups=1, baseline_kind=kind, scale_kind='none'
    )
    logprobs, mask = logprobs[drawn].reshape(-1), mask[drawn].reshape(-1)
    batch = TokenBatch(
      logprobs=logprobs,
      old_logprobs=jax.lax.stop_gradient(logprobs),
      ref_logprobs=None,
      sampler_logprobs=jax.lax.stop_gradient(logprobs),
      advantages=jnp.repeat(adv, 2),
      mask=mask,
      rollout=jnp.repeat(jnp.arange(G, dtype=jnp.int32), 2),
    )
    denominator = losses.denominators(mask.reshape(G, 2), 2)
    return policy_loss(batch, G, denominator, algorithm)[0]

  def expected_loss(theta):
    weights = jax.lax.stop_gradient(chances(theta))[groups].prod(axis=1)
    return weights @ jax.vmap(loss_of_group, (None, 0))(theta, groups)

  assert float(chances(theta).sum()) == pytest.approx(1, abs=1e-12)
  wanted = factor * jax.grad(pass_at_1)(theta)
  got = -jax.jit(jax.grad(expected_loss))(theta)
  np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)
