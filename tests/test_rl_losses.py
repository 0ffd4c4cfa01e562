"""Losses, KL estimators and aggregation equal loops written from their formulas, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.rl import losses
from rlvr_jax.rl.algorithms import AGGREGATIONS, ALGORITHMS, Algorithm, choose
from rlvr_jax.rl.kl import KINDS, kl_est
from rlvr_jax.rl.types import TokenBatch
from rlvr_jax.rl.update import policy_loss

TOLERANCE = 1e-10
ROLLOUTS, LENGTH = 7, 11


@pytest.fixture(autouse=True)
def double(strict):
  jax.config.update('jax_disable_most_optimizations', True)  # they compile faster
  with jax.enable_x64(True):
    yield
  jax.config.update('jax_disable_most_optimizations', False)


def kl_value_and_slope(logprob, ref, kind):
  """One token: estimate of KL and its derivative by the policy's log-prob."""
  d = logprob - ref
  inside = abs(d) < 20
  e = math.exp(-max(-20.0, min(20.0, d)))
  k3, k3_slope = e + max(-20.0, min(20.0, d)) - 1, (1 - e if inside else 0.0)
  return {
    'k1': (d, 1.0),
    'k2': (d * d / 2, d),
    'k3': (k3, k3_slope),
    'k3_st': (k3, d),
    'ratio_k3': (k3, k3 + k3_slope),
  }[kind]


def surrogate_value_slope_cut(logprob, old, advantage, algorithm):
  """One token: loss, its derivative by the policy's log-prob, whether clipping took that away."""
  if algorithm.surrogate == 'nll':
    return -logprob, -1.0, False
  if algorithm.surrogate == 'reinforce':
    return -advantage * logprob, -advantage, False
  difference = logprob - old
  ratio = math.exp(max(-20.0, min(20.0, difference)))
  value = -advantage * ratio
  slope = value if abs(difference) < 20 else 0.0
  cut = False
  low, high = 1 - algorithm.clip_low, 1 + algorithm.clip_high
  if (advantage > 0 and ratio > high) or (advantage < 0 and ratio < low):
    value, slope, cut = -advantage * (high if advantage > 0 else low), 0.0, True
  if algorithm.dual_clip and advantage < 0 and value > -advantage * algorithm.dual_clip:
    value, slope, cut = -advantage * algorithm.dual_clip, 0.0, True
  return value, slope, cut


def token_weights(mask, mode, longest):
  """[B,T] weight of each token in the aggregated loss."""
  weights = np.zeros(mask.shape)
  sequences = sum(row.any() for row in mask)
  for i, row in enumerate(mask):
    for t, used in enumerate(row):
      if used:
        weights[i, t] = {
          'token_mean': 1 / mask.sum(),
          'seq_mean_token_mean': 1 / row.sum() / sequences,
          'seq_mean_token_sum': 1 / sequences,
          'seq_mean_token_sum_norm': 1 / sequences / longest,
        }[mode]
  return weights


def draw_batch(seed, spread=1.0):
  """Random [B,T] arrays: ragged masks, an empty row, NaN wherever the mask is false."""
  rng = np.random.default_rng(seed)
  shape = (ROLLOUTS, LENGTH)
  mask = np.arange(LENGTH)[None] < rng.integers(1, LENGTH + 1, ROLLOUTS)[:, None]
  mask &= np.arange(LENGTH)[None] >= rng.integers(0, 3, ROLLOUTS)[:, None]
  mask[2] = False
  arrays = {
    'logprobs': -rng.exponential(1.0, shape),
    'old_logprobs': -rng.exponential(1.0, shape) * spread,
    'ref_logprobs': -rng.exponential(1.0, shape) * spread,
    'sampler_logprobs': -rng.exponential(1.0, shape),
    'advantages': np.broadcast_to(rng.normal(size=(ROLLOUTS, 1)), shape),
  }
  return {k: np.where(mask, v, np.nan) for k, v in arrays.items()}, mask


def flat(arrays, mask, **changes):
  rollout = np.repeat(np.arange(ROLLOUTS, dtype=np.int32), LENGTH)
  values = {k: jnp.asarray(v.reshape(-1)) for k, v in arrays.items()} | changes
  return TokenBatch(mask=jnp.asarray(mask.reshape(-1)), rollout=jnp.asarray(rollout), **values)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('spread', [0.1, 3.0, 40.0])
def test_kl_estimates_and_their_gradients(kind, spread):
  rng = np.random.default_rng(1)
  logprobs, ref = rng.normal(size=(2, 50)) * spread
  expected = [kl_value_and_slope(a, b, kind) for a, b in zip(logprobs, ref, strict=True)]
  value, slope = np.array(expected).T
  ref = jnp.asarray(ref)
  got = kl_est(jnp.asarray(logprobs), ref, kind)
  got_slope = jax.grad(lambda x: kl_est(x, ref, kind).sum())(jnp.asarray(logprobs))
  np.testing.assert_allclose(got, value, rtol=TOLERANCE, atol=TOLERANCE)
  np.testing.assert_allclose(got_slope, slope, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(('kind', 'error'), [('k1', 1), ('k2', 0), ('k3_st', 0), ('ratio_k3', 0)])
def test_expected_kl_gradient_over_a_whole_policy(kind, error):
  """Relative error of the expected gradient against that of the exact KL, under own samples."""
  rng = np.random.default_rng(5)
  logits, ref = jnp.asarray(rng.normal(size=6)), jax.nn.log_softmax(jnp.asarray(rng.normal(size=6)))

  def exact(z):
    logp = jax.nn.log_softmax(z)
    return jnp.sum(jnp.exp(logp) * (logp - ref))

  def in_loss(z):
    logp = jax.nn.log_softmax(z)
    return jnp.sum(jax.lax.stop_gradient(jnp.exp(logp)) * kl_est(logp, ref, kind))

  true, got = jax.grad(exact)(logits), jax.grad(in_loss)(logits)
  ratio = float(jnp.linalg.norm(got - true) / jnp.linalg.norm(true))
  assert ratio == pytest.approx(error, abs=1e-9)


SURROGATES = [
  Algorithm(surrogate='reinforce'),
  Algorithm(surrogate='nll'),
  *(Algorithm(clip_low=0.2, clip_high=0.28, dual_clip=c) for c in (0.0, 3.0, 1.1)),
]


@pytest.mark.parametrize('algorithm', SURROGATES, ids=lambda a: f'{a.surrogate}-{a.dual_clip}')
def test_surrogate_value_gradient_and_cut(algorithm):
  rng = np.random.default_rng(2)
  # ratios from far below the clamp to far above it, both signs of the advantage
  logprobs, old = rng.normal(size=(2, 400)) * np.repeat([0.1, 1.0, 5.0, 30.0], 100)
  advantages = rng.normal(size=400)
  expected = [
    surrogate_value_slope_cut(*token, algorithm)
    for token in zip(logprobs, old, advantages, strict=True)
  ]
  value, slope, cut = map(np.array, zip(*expected, strict=True))

  def total(x):
    loss, cut = losses.surrogate(
      x,
      jnp.asarray(old),
      jnp.asarray(advantages),
      kind=algorithm.surrogate,
      clip_low=algorithm.clip_low,
      clip_high=algorithm.clip_high,
      dual_clip=algorithm.dual_clip,
    )
    return loss.sum(), (loss, cut)

  got_slope, (got, got_cut) = jax.jit(jax.grad(total, has_aux=True))(jnp.asarray(logprobs))
  np.testing.assert_allclose(got, value, rtol=TOLERANCE, atol=TOLERANCE)
  np.testing.assert_allclose(got_slope, slope, rtol=TOLERANCE, atol=TOLERANCE)
  np.testing.assert_array_equal(got_cut, cut)


@pytest.mark.parametrize('kl_coef', [0.0, 0.3])
@pytest.mark.parametrize('aggregation', AGGREGATIONS)
def test_policy_loss_value_gradient_and_metrics(aggregation, kl_coef):
  """Whole loss from log-probs, with NaN under the mask and an empty row."""
  algorithm = choose('grpo', aggregation=aggregation, kl_coef=kl_coef)
  arrays, mask = draw_batch(3)
  if not kl_coef:
    arrays['ref_logprobs'] = None
  loss, slopes, sums = 0.0, np.zeros(mask.shape), {'clip': 0, 'kl': 0.0, 'gap': []}
  weights = token_weights(mask, aggregation, longest=13)
  for i, t in np.argwhere(mask):
    token = {k: v[i, t] for k, v in arrays.items() if v is not None}
    value, slope, cut = surrogate_value_slope_cut(
      token['logprobs'], token['old_logprobs'], token['advantages'], algorithm
    )
    sums['clip'] += cut
    sums['gap'].append(abs(token['sampler_logprobs'] - token['old_logprobs']))
    if kl_coef:
      kl, kl_slope = kl_value_and_slope(token['logprobs'], token['ref_logprobs'], 'k3_st')
      value, slope, sums['kl'] = value + kl_coef * kl, slope + kl_coef * kl_slope, sums['kl'] + kl
    loss += weights[i, t] * value
    slopes[i, t] = weights[i, t] * slope
  changes = {} if kl_coef else {'ref_logprobs': None}
  batch = flat({k: v for k, v in arrays.items() if v is not None}, mask, **changes)
  denominator = losses.denominators(jnp.asarray(mask), 13)

  def total(x):
    return policy_loss(batch.replace(logprobs=x), ROLLOUTS, denominator, algorithm)

  (got, metrics), got_slopes = jax.jit(jax.value_and_grad(total, has_aux=True))(batch.logprobs)
  assert float(got) == pytest.approx(loss, rel=TOLERANCE)
  np.testing.assert_allclose(got_slopes, slopes.reshape(-1), rtol=TOLERANCE, atol=TOLERANCE)
  assert float(metrics['clip_fraction']) == sums['clip']
  assert float(metrics['gap/max']) == pytest.approx(max(sums['gap']), rel=TOLERANCE)
  assert float(metrics['gap/mean']) == pytest.approx(sum(sums['gap']), rel=TOLERANCE)
  assert ('kl_ref' in metrics) == bool(kl_coef)
  if kl_coef:
    assert float(metrics['kl_ref']) == pytest.approx(sums['kl'], rel=TOLERANCE)


@pytest.mark.parametrize('aggregation', AGGREGATIONS)
def test_rollouts_in_any_order_and_any_cut_sum_to_the_whole(aggregation):
  arrays, mask = draw_batch(4)
  algorithm = choose('grpo', aggregation=aggregation)
  denominator = losses.denominators(jnp.asarray(mask), 13)

  def value(rows):
    part = {k: v[rows] for k, v in arrays.items()}
    rollout = jnp.asarray(np.repeat(np.arange(len(rows), dtype=np.int32), LENGTH))
    batch = TokenBatch(
      mask=jnp.asarray(mask[rows].reshape(-1)),
      rollout=rollout,
      **{k: jnp.asarray(v.reshape(-1)) for k, v in part.items()},
    )
    value = jax.jit(lambda batch: policy_loss(batch, len(rows), denominator, algorithm)[0])
    return float(value(batch))

  whole = value(np.arange(ROLLOUTS))
  assert value(np.random.default_rng(0).permutation(ROLLOUTS)) == pytest.approx(whole, rel=1e-12)
  parts = [value(np.array(rows)) for rows in ([0, 1, 2], [3], [4, 5, 6])]
  assert sum(parts) == pytest.approx(whole, rel=1e-12)


def test_a_batch_with_nothing_under_the_mask_is_zero():
  arrays, mask = draw_batch(5)
  for aggregation in AGGREGATIONS:
    denominator = losses.denominators(jnp.zeros(mask.shape, bool), 13)
    batch = flat(arrays, np.zeros_like(mask))
    algorithm = choose('grpo', aggregation=aggregation, kl_coef=0.1)
    loss, metrics = policy_loss(batch, ROLLOUTS, denominator, algorithm)
    assert float(loss) == 0
    assert all(float(v) == 0 for v in metrics.values())


def test_fine_tuning_has_no_sampler_to_compare_with():
  arrays, mask = draw_batch(6)
  denominator = losses.denominators(jnp.asarray(mask), 13)
  batch = flat(arrays, mask).replace(ref_logprobs=None)
  loss, metrics = policy_loss(batch, ROLLOUTS, denominator, ALGORITHMS['sft'])
  assert float(loss) == pytest.approx(-arrays['logprobs'][mask].mean(), rel=TOLERANCE)
  assert not metrics


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'aggregation': 'mean'}, r"train.aggregation='mean': known are token_mean"),
    ({'kl_coef': 0.1, 'kl_kind': 'k1'}, r"kl_kind='k1' regularises nothing .* use k2, k3_st"),
    ({'kl_coef': 0.1, 'kl_kind': 'k4'}, r"train.kl_kind='k4': known are k1, k2"),
    ({'dual_clip': 0.5}, r'train.dual_clip=0.5 must be above 1'),
    ({'baseline': 'none'}, r'set train.std_normalise=False'),
    ({'clip': 0.2}, r'no cell clip: it has baseline'),
  ],
)
def test_a_row_that_does_not_fit_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    choose('grpo', **change)
  with pytest.raises(ValueError, match=r"train.algorithm='ppo2': known are grpo, sft"):
    choose('ppo2')
