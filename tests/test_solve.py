"""Exact solve probabilities equal products of softmaxes written out, and what sampling finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.eval.solve import completion_logprobs, solve_probabilities
from rlvr_jax.models.characters import char_tokenizer
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.models.transformer import forward, init_params
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling

TOKENIZER = char_tokenizer('0123456789+')
CONFIG = ModelConfig('qwen2', TOKENIZER.vocab_size, 16, 16, 1, 2, 1, 8, qkv_bias=True)
PROMPTS = [tuple(TOKENIZER.encode(text, special=False)) for text in ('1+2', '31', '9+9+9+9')]
SOLUTIONS = [['', '1', '2', '12'], list('0123456789+'), ['7', '77', '777']]
MAX_TOKENS = 4


@pytest.fixture(scope='module')
def params():
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape, scale=0.5), s.dtype), shapes)


@jax.jit
def all_logits(params, tokens):
  positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
  hidden, _ = forward(params, tokens, positions, config=CONFIG)
  return logits(params, hidden)[0]


def written_out(params, prompt, completion, temperature):
  """log p(completion | prompt), one forward a token, softmax in float64."""
  total = 0.0
  padded = np.zeros((1, 16), np.int32)
  ids = [*prompt, *completion]
  padded[0, : len(ids)] = ids
  for t in range(len(prompt), len(ids)):
    visible = padded.copy()
    visible[0, t:] = 0
    z = np.asarray(all_logits(params, visible), np.float64)[t - 1] / temperature
    total += z[ids[t]] - np.log(np.exp(z).sum())
  return total


def exact(params, tokenizer=TOKENIZER, solutions=SOLUTIONS, **options):
  options = {'temperature': 1.0, 'max_tokens': MAX_TOKENS} | options
  return solve_probabilities(params, CONFIG, tokenizer, PROMPTS, solutions, **options)


@pytest.mark.parametrize('temperature', [0.7, 1.0])
def test_sum_of_products_of_softmaxes(params, temperature):
  expected = []
  for prompt, texts in zip(PROMPTS, SOLUTIONS, strict=True):
    rows = [[*TOKENIZER.encode(text, special=False), 1] for text in texts]
    expected.append(sum(np.exp(written_out(params, prompt, r, temperature)) for r in rows))
  got = exact(params, temperature=temperature)
  assert got.dtype == np.float64
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  assert 0 < got.min() < got.max() < 1


@pytest.mark.parametrize('temperature', [0.7, 1.0])
def test_what_sampling_finds(params, temperature):
  """2000 completions of each prompt; within 4 standard errors of the exact chance."""
  n = 2000
  engine = Engine(
    hand_over(None, params), CONFIG, slots=128, bank_rows=3, prompt_capacity=16,
    completion_capacity=MAX_TOKENS, steps=8, seed=3,
  )  # fmt: skip
  items = [Item(i, i, 0, s, p) for i, p in enumerate(PROMPTS) for s in range(n)]
  found = np.zeros(len(PROMPTS))
  solved = [{(*TOKENIZER.encode(text, special=False), 1) for text in texts} for texts in SOLUTIONS]
  sampling = Sampling(temperature, stop_ids=(1,), max_tokens=MAX_TOKENS)
  for completion in engine.run(items, sampling, stream='eval'):
    i = completion.item.problem
    found[i] += tuple(completion.tokens.tolist()) in solved[i]
  p = exact(params, temperature=temperature)
  assert (np.abs(found / n - p) < 4 * np.sqrt(p * (1 - p) / n)).all(), (found / n, p)


def test_batches_of_rows_do_not_matter(params, monkeypatch):
  rows = [(PROMPTS[i % 3], [2 + i, 1]) for i in range(11)]
  whole = completion_logprobs(params, CONFIG, rows, temperature=1.0)
  monkeypatch.setattr('rlvr_jax.eval.solve.BATCH', 4)
  cut = completion_logprobs(params, CONFIG, rows, temperature=1.0)
  np.testing.assert_allclose(cut, whole, rtol=1e-5)


def test_all_completions_of_at_most_one_character_and_the_rest(params):
  """Chances are a distribution: empty, one character and stop, or at least two tokens unstopped."""
  texts = ['', *'0123456789+']
  short = exact(params, solutions=[texts] * 3)
  rows = [(p, [a, b]) for p in PROMPTS for a in range(13) for b in range(13) if 1 not in (a, b)]
  rows += [(p, [0, 1]) for p in PROMPTS]  # the padding token is a token like any other
  longer = np.exp(completion_logprobs(params, CONFIG, rows, temperature=1.0))
  pairs = longer[: 3 * 144].reshape(3, 144).sum(axis=1) + longer[3 * 144 :]
  np.testing.assert_allclose(short + pairs, 1, rtol=1e-5)


def test_any_stop_token_ends_a_solution(params):
  two = Tokenizer(TOKENIZER.hf, (1, 5))
  five = Tokenizer(TOKENIZER.hf, (5,))
  np.testing.assert_allclose(exact(params, two), exact(params) + exact(params, five), rtol=1e-12)


def test_problems_without_solutions_and_solutions_that_do_not_fit(params):
  assert exact(params, solutions=[[], ['1'], []])[[0, 2]].tolist() == [0, 0]
  assert exact(params, solutions=[[], [], []]).tolist() == [0, 0, 0]
  with pytest.raises(ValueError, match=r"'777' and its stop token are 4 .* sampling.max_tokens=3"):
    exact(params, max_tokens=3)
