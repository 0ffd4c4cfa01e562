"""Scores of completions equal softmaxes written out, at T = 1 and in what top-k and top-p leave."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from exactness import log_softmax, plain_logits
from test_sampling_extras import truncated
from test_solve import CONFIG, MAX_TOKENS, PROMPTS, SOLUTIONS, TOKENIZER

from rlvr_jax.eval.likelihood import Settings, row_length, token_scores
from rlvr_jax.eval.solve import solve_probabilities
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.profiling import compilations
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Completion, Item, Sampling
from rlvr_jax.sharding import make_mesh, shardings

pytestmark = pytest.mark.usefixtures('strict')


@pytest.fixture(scope='module', autouse=True)
def quick():
  """Programs that compile fast."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@functools.cache
def model():
  return tiny.make(num_layers=1)


def rows():
  """Prompts and completions of many lengths, the shortest a token each."""
  rng = np.random.default_rng(0)
  lengths = [(1, 1), (3, 9), (16, 16), (5, 2), (20, 11), (1, 30), (2, 3), (7, 20)]
  return [(rng.integers(0, 400, p).tolist(), rng.integers(0, 400, c).tolist()) for p, c in lengths]


def written_out(row):
  """float64 [length,V]: logits before each token of a completion, one plain forward."""
  config, params = model()
  prompt, tokens = row
  item = Item(0, 0, 0, 0, tuple(prompt))
  empty = np.zeros(len(tokens), np.float32)
  return plain_logits(params, config, Completion(item, np.array(tokens), empty, False))


def scores(settings=None, **options):
  config, params = model()
  return dict(token_scores(params, config, rows(), settings, **{'micro_tokens': 64, **options}))


@pytest.mark.parametrize(
  'settings', [Settings(0.6, 0.8), Settings(1.3, 1.0, 5), Settings(0.7, 0.9, 40)], ids=str
)
def test_softmaxes_written_out(settings):
  found = scores(settings, chunk=16)
  assert sorted(found) == list(range(len(rows())))
  outside = 0
  for i, row in enumerate(rows()):
    z, at = written_out(row), (np.arange(len(row[1])), row[1])
    one, tempered = log_softmax(z), log_softmax(z / settings.temperature)
    got = found[i]
    np.testing.assert_allclose(got.logprobs, one[at], rtol=0, atol=1e-4)
    np.testing.assert_allclose(got.entropies, -(np.exp(one) * one).sum(-1), rtol=0, atol=1e-4)
    np.testing.assert_allclose(got.tempered, tempered[at], rtol=0, atol=1e-4)
    left = truncated(z / settings.temperature, settings.top_p, settings.top_k)[at]
    np.testing.assert_allclose(got.drawn, left, rtol=0, atol=1e-4)
    above = z > z[at][:, None]
    np.testing.assert_array_equal(got.ranks, above.sum(-1))
    mass = np.where(above, np.exp(tempered), 0).sum(-1)
    np.testing.assert_allclose(got.likelier, mass, rtol=0, atol=1e-4)
    outside += np.isneginf(got.drawn).sum()
  assert outside


def test_without_settings_the_same_perplexity_and_no_more():
  full, plain = scores(Settings(0.6, 0.8), chunk=16), scores(chunk=16)
  for i in plain:
    assert plain[i].drawn is None
    np.testing.assert_allclose(plain[i].logprobs, full[i].logprobs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(plain[i].entropies, full[i].entropies, rtol=0, atol=1e-5)


def test_the_learners_log_probs():
  config, params = model()
  prompt, tokens = rows()[4]
  whole = jnp.asarray([[*prompt, *tokens]], jnp.int32)
  logprobs, entropy = sequence_logprobs(params, whole, config=config)
  got = scores(chunk=16)[4]
  np.testing.assert_allclose(got.logprobs, logprobs[0, len(prompt) :], rtol=0, atol=1e-5)
  np.testing.assert_allclose(got.entropies, entropy[0, len(prompt) :], rtol=0, atol=1e-5)


def test_batches_do_not_matter_and_programs_are_few():
  settings = Settings(0.6, 0.8)
  first = scores(settings, chunk=16)
  with compilations() as compiled:
    again = scores(Settings(0.9, 0.7, 9), chunk=16)
  assert not compiled  # settings are traced, shapes are those of before
  assert len(again) == len(first)
  other = scores(settings, micro_tokens=256, chunk=64)
  for i, one in first.items():
    np.testing.assert_allclose(other[i].drawn, one.drawn, rtol=0, atol=1e-5)
  # two programs an octave
  assert len({row_length(n) for n in range(1, 1001)}) == 13
  assert all(n <= row_length(n) <= max(16, 1.5 * n + 8) for n in range(1, 1001))


def test_rows_that_cannot_be_scored_are_named():
  config, params = model()
  for row, message in (([], [1]), 'row 1 has 0 prompt'), (([1], []), '0 completion tokens'):
    with pytest.raises(ValueError, match=message):
      list(token_scores(params, config, [rows()[0], row]))
  long = ([1], [2] * config.max_positions)
  with pytest.raises(ValueError, match=f'{config.max_positions} positions'):
    list(token_scores(params, config, [long]))
  with pytest.raises(ValueError, match=r'temperature=0\.0: reach'):
    Settings(0.0)


@functools.cache
def random_params(seed=1, scale=0.5):
  from rlvr_jax.models.transformer import init_params

  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape, scale=scale), s.dtype), shapes)


def every_completion(limit):
  """All token sequences that end with the stop token (1) within `limit`, or at it."""
  rest = [t for t in range(TOKENIZER.vocab_size) if t != 1]
  for n in range(limit):
    yield from ([*body, 1] for body in itertools.product(rest, repeat=n))
  yield from (list(body) for body in itertools.product(rest, repeat=limit))


def enumerated(settings, params=None, limit=3):
  """Per prompt (completions, log-probs at the settings) of all there are."""
  completions = list(every_completion(limit))
  found = []
  for prompt in PROMPTS:
    asked = [(prompt, c) for c in completions]
    got = dict(
      token_scores(
        params or random_params(), CONFIG, asked, settings, micro_tokens=1 << 15, chunk=2048
      )
    )
    sums = np.array([got[i].drawn.astype(np.float64).sum() for i in range(len(asked))])
    found.append((completions, sums))
  return found


@pytest.mark.parametrize(
  'settings', [Settings(0.7), Settings(1.0, 0.8), Settings(0.9, 0.9, 4)], ids=str
)
def test_all_completions_have_probability_one_and_correct_ones_the_solve_rate(settings):
  truncating = settings.top_p < 1 or settings.top_k
  for place, (completions, sums) in enumerate(enumerated(settings)):
    assert math.isclose(np.exp(sums).sum(), 1, rel_tol=1e-5)
    assert np.isneginf(sums).any() == bool(truncating)
    if not truncating:
      keys = {tuple(c): p for c, p in zip(completions, np.exp(sums), strict=True)}
      texts = [t for t in SOLUTIONS[place] if len(t) < 3]
      total = sum(keys[*TOKENIZER.encode(t, special=False), 1] for t in texts)
      exact = solve_probabilities(
        random_params(), CONFIG, TOKENIZER, [PROMPTS[place]], [texts],
        temperature=settings.temperature, max_tokens=MAX_TOKENS,
      )  # fmt: skip
      assert math.isclose(total, exact[0], rel_tol=1e-5)


def test_what_the_sampler_draws_is_inside_with_its_own_log_probs():
  sampling = Sampling(0.9, 0.7, 0, (1,), 5, extras=True)
  sizes = {'slots': 32, 'bank_rows': 3, 'prompt_capacity': 16, 'completion_capacity': 5}
  engine = Engine(hand_over(None, random_params()), CONFIG, steps=8, seed=3, **sizes)
  items = [Item(i, i, 0, s, p) for i, p in enumerate(PROMPTS) for s in range(60)]
  drawn = list(engine.run(items, sampling))
  asked = [(c.item.prompt_ids, c.tokens.tolist()) for c in drawn]
  for i, got in token_scores(random_params(), CONFIG, asked, Settings(0.9, 0.7)):
    near = np.abs(got.likelier - 0.7) < 1e-4  # may be outside by a rounding
    assert np.isfinite(got.drawn[~near]).all()
    ours, theirs = got.drawn[~near], drawn[i].truncated_logprobs[~near]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.check
def test_a_mesh_changes_nothing():
  from rlvr_jax.models.rules import TRAIN_RULES

  config, params = model()
  mesh = make_mesh(2, 2, 2)
  laid = jax.device_put(params, shardings(params, TRAIN_RULES, mesh))
  settings = Settings(0.6, 0.8)
  one = scores(settings)
  for i, got in token_scores(laid, config, rows(), settings, micro_tokens=64, mesh=mesh):
    np.testing.assert_allclose(got.logprobs, one[i].logprobs, rtol=0, atol=1e-4)
    np.testing.assert_allclose(got.drawn, one[i].drawn, rtol=0, atol=1e-4)
