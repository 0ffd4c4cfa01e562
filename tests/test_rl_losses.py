"""KL, ratios, surrogates, corrections, aggregation: value and gradient of loops, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rl_oracles as oracle

from rlvr_jax.rl import losses
from rlvr_jax.rl.algorithms import (
  AGGREGATIONS,
  ALGORITHMS,
  OFFPOLICY,
  RATIOS,
  STATISTICS,
  Algorithm,
  choose,
)
from rlvr_jax.rl.kl import KINDS, kl_est
from rlvr_jax.rl.offpolicy import offpolicy
from rlvr_jax.rl.policy_loss import policy_loss
from rlvr_jax.rl.types import TokenBatch

TOLERANCE = 1e-10
ROLLOUTS, LENGTH = 7, 11


@pytest.fixture(autouse=True)
def double(strict):
  jax.config.update('jax_disable_most_optimizations', True)  # they compile faster
  with jax.enable_x64(True):
    yield
  jax.config.update('jax_disable_most_optimizations', False)


def close(got, expected):
  np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)


def draw_batch(seed, spread=1.0):
  """Random [B,T] arrays: ragged masks with holes, an empty row, NaN wherever the mask is false."""
  rng = np.random.default_rng(seed)
  shape = (ROLLOUTS, LENGTH)
  mask = np.arange(LENGTH)[None] < rng.integers(1, LENGTH + 1, ROLLOUTS)[:, None]
  mask &= rng.random(shape) < 0.9
  mask[2] = False
  mask[3, :2] = True
  arrays = {
    'logprobs': -rng.exponential(1.0, shape),
    'old_logprobs': -rng.exponential(1.0, shape) * spread,
    'ref_logprobs': -rng.exponential(1.0, shape) * spread,
    'sampler_logprobs': -rng.exponential(1.0, shape),
    'advantages': np.broadcast_to(rng.normal(size=(ROLLOUTS, 1)), shape),
    'entropy': rng.exponential(1.0, shape),
  }
  return {k: np.where(mask, v, np.nan) for k, v in arrays.items()}, mask


def flat(arrays, mask, rows=slice(None)):
  mask = mask[rows]
  rollout = np.repeat(np.arange(len(mask), dtype=np.int32), mask.shape[1])
  values = {k: None if v is None else jnp.asarray(v[rows].reshape(-1)) for k, v in arrays.items()}
  return TokenBatch(mask=jnp.asarray(mask.reshape(-1)), rollout=jnp.asarray(rollout), **values)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('spread', [0.1, 3.0, 40.0])
def test_kl_estimates_and_their_gradients(kind, spread):
  rng = np.random.default_rng(1)
  logprobs, ref, old = rng.normal(size=(3, 50)) * spread
  ref[:3] = logprobs[:3]  # where abs has its kink
  for given in (None, old) if kind == 'ratio_k3' else (None,):
    expected = [
      oracle.kl(oracle.Dual(a, 1.0), b, kind, None if given is None else given[i])
      for i, (a, b) in enumerate(zip(logprobs, ref, strict=True))
    ]
    behind = None if given is None else jnp.asarray(given)

    def total(x, behind=behind):
      value = kl_est(x, jnp.asarray(ref), kind, behind)
      return value.sum(), value

    slope, value = jax.grad(total, has_aux=True)(jnp.asarray(logprobs))
    close(value, [e.value for e in expected])
    close(slope, [e.slope for e in expected])


def kl_gradients(kind, seed=5):
  """Over six tokens: gradients of KL(pi||ref) and KL(ref||pi), of the estimate as loss, as reward.

  All in exact expectation under the policy's own samples.
  """
  rng = np.random.default_rng(seed)
  logits, ref = jnp.asarray(rng.normal(size=6)), jax.nn.log_softmax(jnp.asarray(rng.normal(size=6)))

  def forward(logp):
    return jnp.sum(jnp.exp(logp) * (logp - ref))

  def backward(logp):
    return jnp.sum(jnp.exp(ref) * (ref - logp))

  def in_loss(logp):
    return jnp.sum(jax.lax.stop_gradient(jnp.exp(logp)) * kl_est(logp, ref, kind))

  def in_reward(logp):
    return jnp.sum(jax.lax.stop_gradient(jnp.exp(logp) * kl_est(logp, ref, kind)) * logp)

  return [
    np.asarray(jax.grad(lambda z, f=f: f(jax.nn.log_softmax(z)))(logits))
    for f in (forward, backward, in_loss, in_reward)
  ]


@pytest.mark.parametrize('kind', ['k2', 'k3_st', 'ratio_k3'])
def test_estimators_whose_gradient_as_a_loss_is_that_of_the_kl(kind):
  true, _, in_loss, _ = kl_gradients(kind)
  close(in_loss, true)


def test_estimators_that_do_something_else():
  """k1 is for the reward; as a loss k3 follows the other KL, and as a reward the difference."""
  true, other, in_loss, in_reward = kl_gradients('k1')
  close(in_loss, 0)
  close(in_reward, true)
  _, _, in_loss, in_reward = kl_gradients('k3')
  close(in_loss, other)
  close(in_reward, true - other)
  _, _, in_loss, _ = kl_gradients('abs')
  for wrong in (other, true - other, in_loss):
    assert np.linalg.norm(wrong - true) > 0.1 * np.linalg.norm(true)


def test_ratio_k3_has_the_right_gradient_under_an_older_policy_too():
  rng = np.random.default_rng(6)
  logits, old, ref = jnp.asarray(rng.normal(size=(3, 6)))
  old, ref = jax.nn.log_softmax(old), jax.nn.log_softmax(ref)

  def estimate(z, kind):
    return jnp.sum(jnp.exp(old) * kl_est(jax.nn.log_softmax(z), ref, kind, old))

  def exact(z):
    logp = jax.nn.log_softmax(z)
    return jnp.sum(jnp.exp(logp) * (logp - ref))

  true = jax.grad(exact)(logits)
  close(jax.grad(estimate)(logits, 'ratio_k3'), true)
  assert float(jnp.linalg.norm(jax.grad(estimate)(logits, 'k3_st') - true)) > 0.1


@pytest.mark.parametrize('kind', ['k2', 'k3_st', 'ratio_k3'])
def test_the_kl_term_is_weighed_where_somebody_else_drew_the_tokens(kind):
  """Every token once, with its chance under who drew it as the weight in the sum."""
  rng = np.random.default_rng(7)
  logits, drawn, ref = jnp.asarray(rng.normal(size=(3, 6)))
  drawn, ref = jax.nn.log_softmax(drawn), jax.nn.log_softmax(ref)
  row = choose('rloo', offpolicy='seq_tis', offpolicy_high=1e6, kl_coef=0.3, kl_kind=kind)
  one, mask = jnp.arange(6, dtype=jnp.int32), jnp.ones(6, bool)
  denominator = losses.denominators(mask[:1, None], 1)

  def estimate(z):
    logp, old = jax.nn.log_softmax(z), jax.nn.log_softmax(logits)
    chance, zeros = jnp.exp(drawn), jnp.zeros(6)
    batch = TokenBatch(
      logprobs=logp, old_logprobs=old, ref_logprobs=ref, sampler_logprobs=drawn,
      advantages=zeros, mask=mask, rollout=one,
    )  # fmt: skip

    def of_one(i):
      alone = jax.tree.map(lambda x: x[i][None], batch).replace(rollout=one[:1])
      return policy_loss(alone, 1, denominator, row)[0]

    return jnp.sum(chance * jax.vmap(of_one)(jnp.arange(6)))

  def exact(z):
    logp = jax.nn.log_softmax(z)
    return 0.3 * jnp.sum(jnp.exp(logp) * (logp - ref))

  close(jax.grad(estimate)(logits), jax.grad(exact)(logits))


@pytest.mark.parametrize('level', RATIOS)
@pytest.mark.parametrize('spread', [1.0, 30.0])
def test_log_ratios_and_their_gradients(level, spread):
  arrays, mask = draw_batch(7, spread)
  batch = flat(arrays, mask)
  weights = np.random.default_rng(0).normal(size=mask.shape)
  unit = np.eye(mask.size).reshape(*mask.shape, mask.size)
  expected, slope = np.zeros(mask.shape), np.zeros(mask.size)
  for i in range(ROLLOUTS):
    at = np.flatnonzero(mask[i])
    logps = [oracle.Dual(arrays['logprobs'][i, t], unit[i, t]) for t in at]
    if len(at):
      found = oracle.log_ratios(logps, arrays['old_logprobs'][i, at], level)
      expected[i, at] = [r.value for r in found]
      slope += sum(w * r.slope for w, r in zip(weights[i, at], found, strict=True))

  def total(x):
    ratio = losses.log_ratio(
      x, batch.old_logprobs, batch.mask, level, rollout=batch.rollout, rollouts=ROLLOUTS
    )
    return jnp.sum(ratio * jnp.asarray(weights.reshape(-1))), ratio

  got_slope, got = jax.grad(total, has_aux=True)(batch.logprobs)
  close(got, expected.reshape(-1))
  close(got_slope, slope)


SURROGATES = [
  Algorithm(surrogate='reinforce'),
  Algorithm(surrogate='nll'),
  *(Algorithm(clip_low=0.2, clip_high=0.28, dual_clip=c) for c in (0.0, 3.0, 1.1)),
  *(ALGORITHMS[name] for name in ('cispo', 'sapo', 'gmpo', 'dppo', 'dppo_kl', 'dro')),
  Algorithm(surrogate='cispo', clip_low=0.2, clip_high=0.28),
]


@pytest.mark.parametrize('row', SURROGATES, ids=lambda a: f'{a.surrogate}-{a.dual_clip}')
def test_surrogate_value_gradient_and_cut(row):
  rng = np.random.default_rng(2)
  # probabilities of all sizes; ratios from far below the clamp to far above it; both signs of A
  logprobs, old = (
    -np.abs(rng.normal(size=(2, 40, 4))) * np.repeat([0.1, 1.0, 5.0, 30.0], 10)[:, None]
  )
  advantages = np.broadcast_to(rng.normal(size=(40, 1)), (40, 4))
  unit = np.eye(160).reshape(40, 4, 160)
  value, slope, cut = [], np.zeros(160), []
  for i in range(40):
    logps = [oracle.Dual(logprobs[i, t], unit[i, t]) for t in range(4)]
    ratios = oracle.log_ratios(logps, old[i], 'token')
    for loss, bounded in oracle.surrogates(ratios, logps, advantages[i], row):
      value.append(loss.value)
      slope += loss.slope
      cut.append(bounded)
  old = jnp.asarray(old.reshape(-1))

  def total(x):
    loss, cut = losses.surrogate(
      x - old,
      x,
      jnp.asarray(advantages.reshape(-1)),
      row.surrogate,
      clip_low=row.clip_low,
      clip_high=row.clip_high,
      c=row.ratio_cap if row.surrogate.startswith('dppo') else row.dual_clip,
      tau_positive=row.tau_positive,
      tau_negative=row.tau_negative,
      beta=row.dro_beta,
      mask=jnp.ones(160, bool),
      rollout=jnp.repeat(jnp.arange(40, dtype=jnp.int32), 4),
      rollouts=40,
    )
    return loss.sum(), (loss, cut)

  got_slope, (got, got_cut) = jax.grad(total, has_aux=True)(jnp.asarray(logprobs.reshape(-1)))
  close(got, value)
  close(got_slope, slope)
  np.testing.assert_array_equal(got_cut, cut)
  if row.surrogate not in ('reinforce', 'nll', 'sapo', 'dro'):
    assert 0 < np.mean(cut) < 1


KINDS_AND_STATISTICS = [(kind, '') for kind in OFFPOLICY if kind != 'rs']
KINDS_AND_STATISTICS += [('rs', stat) for stat in STATISTICS]


@pytest.mark.parametrize(('kind', 'stat'), KINDS_AND_STATISTICS)
def test_corrections_for_the_sampler(kind, stat):
  arrays, mask = draw_batch(8)
  batch = flat(arrays, mask)
  low, high = 0.5, 1.8
  if kind == 'rs':  # something on either side
    d = np.where(mask, arrays['old_logprobs'] - arrays['sampler_logprobs'], 0)
    values = [oracle.divergences(d[i][mask[i]], stat) for i in range(ROLLOUTS) if mask[i].any()]
    low, high = np.quantile(np.concatenate(values), [0.2, 0.7]) + 1e-6
  row = Algorithm(offpolicy=kind, offpolicy_low=low, offpolicy_high=high, offpolicy_stat=stat)
  weight, keep = offpolicy(
    batch.old_logprobs,
    batch.sampler_logprobs,
    batch.mask,
    kind,
    rollout=batch.rollout,
    rollouts=ROLLOUTS,
    low=low,
    high=high,
    stat=stat,
  )
  weight, keep = np.asarray(weight).reshape(mask.shape), np.asarray(keep).reshape(mask.shape)
  for i in range(ROLLOUTS):
    at = np.flatnonzero(mask[i])
    if len(at):
      expected = oracle.off_policy(
        arrays['old_logprobs'][i, at], arrays['sampler_logprobs'][i, at], row
      )
      close(weight[i, at], [w for w, _ in expected])
      assert keep[i, at].tolist() == [bool(k) for _, k in expected]
  if kind in ('icepop', 'seq_mask', 'rs'):
    assert 0 < np.mean(keep[mask]) < 1


def test_a_ratio_of_a_thousand_nats_is_finite():
  """Clamped at 20 nats, everywhere a ratio is taken."""
  zero, far = jnp.zeros(3), jnp.asarray([1e3, -1e3, 1e3])
  one = {'rollout': jnp.zeros(3, jnp.int32), 'rollouts': 1}
  mask = jnp.ones(3, bool)
  for kind in ('ppo_clip', 'cispo', 'sapo', 'gmpo', 'dppo_tv', 'dppo_kl'):
    loss, _ = losses.surrogate(far, zero, -jnp.ones(3), kind, c=3.0, mask=mask, **one)
    assert np.isfinite(loss).all(), kind
  for kind in ('tis', 'icepop', 'seq_tis', 'seq_mask'):
    weight, _ = offpolicy(far, zero, mask, kind, high=1e30, **one)
    assert np.isfinite(weight).all(), kind
    assert float(jnp.max(weight)) <= np.exp(20) * (1 + 1e-12)


@pytest.mark.parametrize('clip', [0.0, 0.5])
def test_value_loss_and_its_gradient(clip):
  rng = np.random.default_rng(9)
  values, old, target = rng.normal(size=(3, 60))
  expected = []
  for v, o, r in zip(values, old, target, strict=True):
    v = oracle.Dual(v, 1.0)
    near = oracle.clip(v, o - clip, o + clip) - r if clip else v - r
    expected.append(oracle.larger((v - r) * (v - r), near * near) * 0.5)

  def total(x):
    loss, cut = losses.value_loss(x, jnp.asarray(old), jnp.asarray(target), clip)
    return loss.sum(), (loss, cut)

  slope, (got, cut) = jax.grad(total, has_aux=True)(jnp.asarray(values))
  close(got, [e.value for e in expected])
  close(slope, [e.slope for e in expected])
  assert (0 < np.mean(np.asarray(cut)) < 1) == bool(clip)


@pytest.mark.parametrize('aggregation', AGGREGATIONS)
@pytest.mark.parametrize('kl_coef', [0.0, 0.3])
def test_policy_loss_value_gradient_and_metrics(aggregation, kl_coef):
  """Whole loss from log-probs, with NaN under the mask and an empty row."""
  row = choose('grpo', aggregation=aggregation, kl_coef=kl_coef)
  arrays, mask = draw_batch(3)
  if not kl_coef:
    arrays['ref_logprobs'] = None
  loss, slopes, sums = oracle.policy_loss(arrays, mask, row, longest=13)
  batch, denominator = flat(arrays, mask), losses.denominators(jnp.asarray(mask), 13)

  def total(x):
    return policy_loss(batch.replace(logprobs=x), ROLLOUTS, denominator, row)

  (got, metrics), got_slopes = jax.jit(jax.value_and_grad(total, has_aux=True))(batch.logprobs)
  close(got, loss)
  close(got_slopes, slopes.reshape(-1))
  gap = np.abs(arrays['sampler_logprobs'] - arrays['old_logprobs'])[mask]
  assert float(metrics['clip_fraction']) == sums['clip']
  assert float(metrics['gap/max']) == pytest.approx(gap.max(), rel=TOLERANCE)
  assert float(metrics['gap/mean']) == pytest.approx(gap.sum(), rel=TOLERANCE)
  assert ('kl_ref' in metrics) == bool(kl_coef)
  if kl_coef:
    assert float(metrics['kl_ref']) == pytest.approx(sums['kl'], rel=TOLERANCE)


def test_a_batch_with_nothing_under_the_mask_is_zero():
  arrays, mask = draw_batch(5)
  batch = flat(arrays, np.zeros_like(mask))
  denominator = losses.denominators(jnp.zeros(mask.shape, bool), 13)
  for aggregation, kind in zip(AGGREGATIONS, OFFPOLICY, strict=False):
    row = choose('grpo', aggregation=aggregation, kl_coef=0.1, offpolicy=kind)
    loss, metrics = policy_loss(batch, ROLLOUTS, denominator, row)
    assert float(loss) == 0
    assert all(float(v) == 0 for v in metrics.values())


def test_all_left_out_is_zero_not_nan():
  arrays, mask = draw_batch(5)
  batch, denominator = flat(arrays, mask), losses.denominators(jnp.asarray(mask), 13)
  row = choose('icepop', offpolicy_low=1e6, offpolicy_high=1e7, kl_coef=0.1)

  def total(x):
    return policy_loss(batch.replace(logprobs=x), ROLLOUTS, denominator, row)

  (loss, metrics), slope = jax.value_and_grad(total, has_aux=True)(batch.logprobs)
  assert float(loss) == 0
  assert not np.any(slope)
  assert float(metrics['offpolicy/left_out']) == mask.sum()


def test_fine_tuning_has_no_sampler_to_compare_with():
  arrays, mask = draw_batch(6)
  denominator = losses.denominators(jnp.asarray(mask), 13)
  batch = flat(arrays, mask).replace(ref_logprobs=None)
  loss, metrics = policy_loss(batch, ROLLOUTS, denominator, ALGORITHMS['sft'])
  assert float(loss) == pytest.approx(-arrays['logprobs'][mask].mean(), rel=TOLERANCE)
  assert not metrics


def test_unknown_kinds_name_the_known_ones():
  x, one = jnp.zeros(2), {'rollout': jnp.zeros(2, jnp.int32), 'rollouts': 1}
  mask = jnp.ones(2, bool)
  with pytest.raises(ValueError, match=r"train.surrogate='vanilla': known are ppo_clip, reinforce"):
    losses.surrogate(x, x, x, 'vanilla')
  with pytest.raises(ValueError, match=r"train.ratio='seq': known are token, seq_mean"):
    losses.log_ratio(x, x, mask, 'seq', **one)
  with pytest.raises(ValueError, match=r"train.offpolicy='mis': known are none, tis"):
    offpolicy(x, x, mask, 'mis', **one)
  with pytest.raises(ValueError, match=r"train.offpolicy_stat='seq_k1': known are token_k1"):
    offpolicy(x, x, mask, 'rs', stat='seq_k1', **one)
  with pytest.raises(ValueError, match=r"train.aggregation='mean': known are token_mean"):
    losses.reduce(x, mask, one['rollout'], 1, 'mean', losses.denominators(mask[None], 1))
