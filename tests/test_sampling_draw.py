"""Draws follow the exact law: two-level, top-k, top-p, whatever stands beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exactness import log_softmax, two_level_cdf
from laws import chi_square_p, keys, options, truncated
from scipy import stats

from rlvr_jax.sampling import blocks as blocks_lib
from rlvr_jax.sampling import draw as draw_lib
from rlvr_jax.sampling.blocks import BLOCK, Blocks
from rlvr_jax.sampling.draw import draw

pytestmark = pytest.mark.usefixtures('strict')
N = 16_000
RUN = jax.jit(draw)
S, V = 64, 2 * BLOCK + 50  # of run_all, which is compiled once
RUN_ALL = jax.jit(lambda *a, forced: draw(*a, forced=forced, entropy=True, truncated=True))


def run_all(z, key, settings, active=None, forced=None):
  """Everything that can be asked of rows of logits [S,V]."""
  active = np.ones(S, bool) if active is None else active
  forced = np.full(S, -1, np.int32) if forced is None else forced
  return RUN_ALL(jnp.asarray(z, jnp.float32), key, settings, active, forced=forced)


def sample(z, settings, seed=0, n=N, run=RUN):
  """n draws from one row of logits [V]: tokens [n], logprobs [n]."""
  rows = jnp.broadcast_to(jnp.asarray(z, jnp.float32), (n, len(z)))
  drawn = run(rows, keys(n, seed), settings, jnp.ones(n, bool))
  return np.asarray(drawn.token), np.asarray(drawn.logprob)


def logits_of(V, spread, seed=1):
  return np.random.default_rng(seed).normal(0, spread, V)


CASES = {
  'one block': (BLOCK, 1.5, options()),
  'a block and a rest': (500, 1.0, options()),
  'cold': (500, 1.0, options(0.6)),
  'top-k': (500, 1.0, options(top_k=20)),
  'top-p': (500, 2.0, options(top_p=0.9)),
  # a tenth of the mass: most rows are redrawn, one in six ends in the bisection
  'small nucleus': (500, 0.5, options(top_p=0.1)),
  'both': (500, 1.5, options(1.3, 0.8, 40)),
  'one token': (500, 1.0, options(top_k=1)),
  'k above V': (500, 1.5, options(top_k=1000)),
}


@pytest.mark.parametrize('case', CASES)
def test_draws_follow_the_exact_law(case):
  V, spread, settings = CASES[case]
  z = logits_of(V, spread)
  law = truncated(z, settings)
  tokens, logprobs = sample(z, settings)
  assert (law[tokens] > 0).all(), 'a token outside the support was drawn'
  if case != 'one token':
    assert chi_square_p(tokens, law) > 1e-3
  # log-probs are of the full tempered distribution, truncated or not
  full = log_softmax(z / float(settings.temperature))
  np.testing.assert_allclose(logprobs, full[tokens], rtol=0, atol=2e-6)


def test_the_check_sees_a_wrong_law():
  z = logits_of(500, 1.0)
  tokens, _ = sample(z, options(1.2))
  assert chi_square_p(tokens, truncated(z, options())) < 1e-6


def test_a_likely_token_behind_the_nucleus_is_not_drawn():
  z = np.full(500, -30.0)
  z[[20, 400]] = np.log([0.91, 0.08])
  z[[21, 401]] = np.log([0.005, 0.005])
  tokens, _ = sample(z, options(top_p=0.9))
  assert (tokens == 20).all()
  tokens, _ = sample(z, options(top_p=0.95))
  assert set(tokens) == {20, 400}


def test_rejection_and_bisection_draw_the_same_law(monkeypatch):
  z = logits_of(500, 0.5)
  settings = options(top_p=0.15)
  rejected, _ = sample(z, settings)
  monkeypatch.setattr(draw_lib, 'TRIALS', 0)  # what the first draw misses is bisected
  # a fresh function, since the module's constant is read when it is traced
  bisected, _ = sample(z, settings, seed=1, run=jax.jit(lambda *a: draw(*a)))
  law = truncated(z, settings)
  for tokens in (rejected, bisected):
    assert (law[tokens] > 0).all()
    assert chi_square_p(tokens, law) > 1e-3
  support = np.flatnonzero(law)
  table = [np.bincount(t, minlength=len(law))[support] for t in (rejected, bisected)]
  assert stats.chi2_contingency(table).pvalue > 1e-3


def tempered(z):
  z = jnp.asarray(z)
  return draw_lib._Tempered(Blocks(z), jnp.float32(1), jnp.max(z, axis=-1, keepdims=True))


def kept_by_top_k(z, k):
  return z > np.asarray(draw_lib._top_k_edge(tempered(z), jnp.int32(k)))


def kept_by_top_p(z, p):
  rows = tempered(z)
  return z > np.asarray(draw_lib._top_p_edge(rows, p * jnp.sum(rows.weight(z), axis=-1)))


def two_level(weights, uniforms):
  """Tokens [S] drawn from weights [S,V], seen as blocks."""
  blocks = Blocks(jnp.asarray(weights))
  sums = blocks.sums(lambda w: w)
  return np.asarray(
    draw_lib._two_level(sums, lambda i: jnp.maximum(blocks.fetch(i), 0), jnp.asarray(uniforms))
  )


@pytest.mark.parametrize('V', [5, 500])
def test_truncated_supports_are_the_sorted_ones(V):
  rng = np.random.default_rng(V)
  z = rng.normal(0, 2, (100, V)).astype(np.float32)
  weights = np.exp(z - z.max(-1, keepdims=True))
  for k in (1, 3, V - 1, V, V + 1):
    threshold = -np.sort(-z, -1)[:, min(k, V) - 1]
    np.testing.assert_array_equal(kept_by_top_k(z, k), z >= threshold[:, None])
  for p in (0.01, 0.5, 0.9, 0.99):
    kept = kept_by_top_p(z, p)
    order = np.argsort(-weights, -1)
    mass = np.take_along_axis(weights, order, -1).astype(np.float64)
    before = (np.cumsum(mass, -1) - mass) / mass.sum(-1, keepdims=True)
    clear = np.abs(before - p).min(-1) > 1e-6  # a boundary in float32's rounding decides nothing
    assert clear.mean() > 0.5
    expected = np.zeros(weights.shape, bool)
    np.put_along_axis(expected, order, before < p, -1)
    np.testing.assert_array_equal(kept[clear], expected[clear])


def test_ties_at_the_edge_of_the_truncation_stay():
  z = np.log(np.array([[1.0, 0.5, 0.5, 0.25]], np.float32))
  np.testing.assert_array_equal(kept_by_top_k(z, 2), [[True, True, True, False]])
  np.testing.assert_array_equal(kept_by_top_p(z, 0.5), [[True, True, True, False]])
  # the search closes in on 0, where float32 is finest, and has to end
  assert kept_by_top_k(np.zeros((1, 4), np.float32), 2).all()
  assert kept_by_top_p(np.zeros((1, 4), np.float32), 0.5).all()


def test_two_levels_invert_the_cdf_in_float64():
  rng = np.random.default_rng(0)
  V, n = 2 * BLOCK + 100, 4000
  weights = rng.gamma(0.3, size=(n, V)).astype(np.float32)
  uniform = rng.random((n, 2)).astype(np.float32)
  tokens = two_level(weights, uniform)
  flips = 0
  for w, u, token in zip(weights.astype(np.float64), uniform, tokens, strict=True):
    outer, inside = two_level_cdf(w / w.sum())
    block = int(np.searchsorted(outer, u[0], side='right'))
    expected = block * BLOCK + int(np.searchsorted(inside[block], u[1], side='right'))
    if token != expected:
      gaps = [np.abs(outer - u[0]).min(), np.abs(inside[block] - u[1]).min()]
      assert min(gaps) < 1e-6
      flips += 1
  assert flips < n / 100


@pytest.mark.parametrize('V', [1, 7, 384, 385, 1000])
def test_zero_weights_are_never_drawn(V):
  rng = np.random.default_rng(V)
  n = 6000
  edges = np.array([0, 2**-23, 0.5, 1 - 2**-23, np.nextafter(np.float32(1), np.float32(0))])
  weights = rng.gamma(0.2, size=(n, V)) * (rng.random((n, V)) < rng.choice([0.02, 0.5, 1], (n, 1)))
  weights[np.arange(n), rng.integers(0, V, n)] = 1.0
  uniform = np.where(rng.random((n, 2)) < 0.5, rng.choice(edges, (n, 2)), rng.random((n, 2)))
  weights, uniform = weights.astype(np.float32), uniform.astype(np.float32)
  tokens = two_level(weights, uniform)
  assert ((tokens >= 0) & (tokens < V)).all()
  assert (weights[np.arange(n), tokens] > 0).all()
  if V > 1:
    top = two_level(weights, np.full((n, 2), edges[-1], 'float32'))
    assert (weights[np.arange(n), top] > 0).all()


@pytest.mark.parametrize(
  'settings', [options(), options(top_p=0.7), options(0.8, 0.5, 30)], ids=['plain', 'p', 'both']
)
def test_a_row_does_not_see_its_neighbours(settings):
  rng = np.random.default_rng(3)
  z, k = rng.normal(0, 1, (S, V)), keys(S)
  drawn = run_all(z, k, settings)
  order = rng.permutation(S)
  moved = run_all(z[order], k[order], settings)
  for one, other in zip(drawn, moved, strict=True):
    np.testing.assert_array_equal(other, one[order])
  # other logits, keys and idleness everywhere but in row 5
  others = rng.normal(0, 3, (S, V))
  others[5] = z[5]
  alone = run_all(others, keys(S, 9).at[5].set(k[5]), settings, np.arange(S) >= 5)
  for one, other in zip(drawn, alone, strict=True):
    assert other[5] == one[5]


def test_temperature_zero_is_the_first_largest_logit():
  z = np.full((S, V), -9.0)
  z[0, 2 * BLOCK : 2 * BLOCK + 4] = [0, 3, 1, 3]
  z[0, -7] = 3
  z[1:, BLOCK - 1 : BLOCK + 3] = [2, -1, 0, 1]
  drawn = run_all(z, keys(S), options(0.0, 0.5, 2))
  np.testing.assert_array_equal(drawn.token, [2 * BLOCK + 1] + [BLOCK - 1] * (S - 1))
  expected = log_softmax(z)[np.arange(S), drawn.token]
  np.testing.assert_allclose(drawn.logprob, expected, rtol=0, atol=1e-6)
  np.testing.assert_array_equal(drawn.truncated_logprob, drawn.logprob)


def test_truncation_is_temperature_then_top_k_then_top_p():
  z, settings = logits_of(V, 1.5), options(1.5, 0.7, 40)
  law = truncated(z, settings)
  others = {
    'top-p before temperature': truncated(
      np.where(truncated(z, options(1.0, 0.7, 40)) > 0, z, -np.inf), options(1.5)
    ),
    'top-p before top-k': truncated(
      np.where(truncated(z, options(1.5, 0.7)) > 0, z, -np.inf), options(1.5, 1.0, 40)
    ),
  }
  for name, other in others.items():
    assert ((law > 0) != (other > 0)).any(), f'the case cannot tell: {name}'
  many = [run_all(np.tile(z, (S, 1)), keys(S, seed), settings) for seed in range(40)]
  token = np.concatenate([drawn.token for drawn in many])
  logprob = np.concatenate([drawn.truncated_logprob for drawn in many])
  assert set(token) == set(np.flatnonzero(law))
  np.testing.assert_allclose(logprob, np.log(law[token]), rtol=0, atol=2e-6)
  assert chi_square_p(token, law) > 1e-3


@pytest.mark.parametrize(
  'settings',
  [options(), options(0.7, top_k=30), options(top_p=0.9), options(0.7, 0.8), options(0.0, 0.5, 3)],
  ids=['plain', 'k', 'p', 'cold p', 'greedy'],
)
def test_forced_tokens_logprobs_and_entropy_are_the_exact_ones(settings):
  rng = np.random.default_rng(5)
  z = rng.normal(0, 2, (S, V)).astype(np.float32)
  z[:, 700:] = -np.inf  # ids a padded vocabulary does not use
  z[3] *= 20  # as good as certain
  forced = np.where(np.arange(S) % 2, rng.integers(0, 700, S), -1).astype(np.int32)
  free = run_all(z, keys(S), settings)
  drawn = run_all(z, keys(S), settings, forced=forced)
  np.testing.assert_array_equal(drawn.token, np.where(forced >= 0, forced, free.token))
  full = log_softmax(z.astype(np.float64) / (float(settings.temperature) or 1.0))
  with np.errstate(divide='ignore', invalid='ignore'):
    laws = full if settings.temperature == 0 else np.log([truncated(row, settings) for row in z])
    entropies = -np.nansum(np.exp(full) * full, axis=-1)
  for one in (free, drawn):
    token = np.asarray(one.token)[:, None]
    for value, law in ((one.logprob, full), (one.truncated_logprob, laws)):
      expected = np.take_along_axis(law, token, axis=1)[:, 0]
      np.testing.assert_allclose(value, expected, rtol=1e-6, atol=4e-6)
    np.testing.assert_allclose(one.entropy, entropies, rtol=0, atol=4e-6)
  if settings.top_k > 0 and settings.temperature > 0:
    assert np.isneginf(drawn.truncated_logprob).any()


def test_what_is_not_asked_for_is_not_there():
  drawn = jax.eval_shape(draw, jnp.zeros((S, V)), keys(S), options(), jnp.ones(S, bool))
  assert drawn.truncated_logprob is None
  assert drawn.entropy is None


def test_keys_give_the_block_and_the_element_and_fold_in_the_trial():
  n = 2000
  z = np.random.default_rng(8).normal(0, 1.5, (n, V)).astype(np.float32)
  p = np.exp(log_softmax(z.astype(np.float64)))
  settings = options(top_p=0.8)
  on, key = jnp.ones(n, bool), keys(n)
  plain = np.asarray(RUN(z, key, options(), on).token)
  nucleus = np.asarray(RUN(z, key, settings, on).token)
  fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
  trials = [key, *(fold(key, trial) for trial in range(1, 6))]
  uniform = np.stack([jax.vmap(lambda k: jax.random.uniform(k, (2,)))(k) for k in trials], axis=1)
  clear = redrawn = 0
  for row in range(n):
    outer, inside = two_level_cdf(p[row])
    tokens, margins = [], []
    for u in uniform[row]:
      block = int(np.searchsorted(outer, u[0], side='right'))
      tokens.append(block * BLOCK + int(np.searchsorted(inside[block], u[1], side='right')))
      margins += [np.abs(outer - u[0]).min(), np.abs(inside[block] - u[1]).min()]
    kept = truncated(z[row], settings)[tokens] > 0
    if min(margins) < 1e-6 or not kept.any():
      continue
    clear += 1
    redrawn += not kept[0]
    assert plain[row] == tokens[0]
    assert nucleus[row] == tokens[int(np.argmax(kept))]
  assert clear > 0.9 * n
  assert redrawn > 0.1 * n


def test_settings_are_traced():
  for settings in (options(), options(0.5, 0.9), options(2.0, 1.0, 5), options(0.0)):
    run_all(np.zeros((S, V)), keys(S), settings)
  assert RUN_ALL._cache_size() == 1


@pytest.mark.parametrize('N', [1, 50, 96, 101])
def test_both_ways_to_reduce_by_block_agree(N):
  x = jnp.asarray(np.random.default_rng(N).normal(0, 1, (3, N)), jnp.float32)
  for combine, neutral in ((jax.lax.add, 0.0), (jax.lax.max, -np.inf)):
    by_window, by_shape = (
      way(x, 32, combine, neutral) for way in (blocks_lib._by_window, blocks_lib._by_shape)
    )
    assert by_window.shape == (3, -(-N // 32))
    np.testing.assert_allclose(by_window, by_shape, rtol=1e-6, atol=1e-6)
