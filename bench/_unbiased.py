"""B12: what is drawn has the law it is said to have, and pass@k of a known policy is right."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from bench._engine import items_of, random_params, random_prompts
from bench._measure import at_least
from rlvr_jax.eval import pass_at_k
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.transformer import Params, forward
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Sampling

V = 48
SMALL = ModelConfig('qwen2', V, 32, 64, 2, 4, 2, 8, qkv_bias=True, tie_embeddings=False)
PROMPT = 7  # tokens
LEVEL = 0.01
SEED = 5


def make_params() -> Params:
  """Stacked params whose logits are spread over several nats and depend on the context."""
  params = random_params(SMALL, SEED)
  return {**params, 'embed': 20 * params['embed'], 'head': 1.5 * params['head']}


@jax.jit
def _last_logits(params: Params, rows: jax.Array) -> jax.Array:
  """f32[B,V] after rows i32[B,T], by the plain forward."""
  positions = jnp.broadcast_to(jnp.arange(rows.shape[1], dtype=jnp.int32), rows.shape)
  hidden, _ = forward(params, rows, positions, config=SMALL)
  return logits(params, hidden[:, -1])


def exact_probs(params: Params, rows: np.ndarray, sampling: Sampling) -> np.ndarray:
  """float64[B,V]: the law of the token after rows i32[B,T], truncation as in the sampler's words:
  temperature, then the top_k largest, then the smallest set whose mass reaches top_p."""
  z = np.asarray(_last_logits(params, jnp.asarray(rows, jnp.int32)), np.float64)
  z /= sampling.temperature
  p = np.exp(z - z.max(-1, keepdims=True))
  p /= p.sum(-1, keepdims=True)
  order = np.argsort(-p, axis=-1, kind='stable')
  ranked = np.take_along_axis(p, order, -1)
  if sampling.top_k:
    ranked[:, sampling.top_k :] = 0
    ranked /= ranked.sum(-1, keepdims=True)
  ranked[np.cumsum(ranked, -1) - ranked >= sampling.top_p] = 0
  ranked /= ranked.sum(-1, keepdims=True)
  out = np.zeros_like(p)
  np.put_along_axis(out, order, ranked, -1)
  return out


def chi_square(counts: np.ndarray, probs: np.ndarray) -> tuple[float, int]:
  """Pearson's statistic and degrees of freedom; cells that expect fewer than 5 are put together.

  counts i64[V], probs f64[V]. Infinite if something of probability 0 was drawn.
  """
  if counts[probs == 0].any():
    return np.inf, 1
  expected = probs * counts.sum()
  large = expected >= 5
  seen = np.append(counts[large], counts[~large].sum())
  wanted = np.append(expected[large], expected[~large].sum())
  kept = wanted > 0
  seen, wanted = seen[kept], wanted[kept]
  return float(((seen - wanted) ** 2 / wanted).sum()), len(seen) - 1


def _draw(
  engine: Engine, prompts: list[tuple[int, ...]], samples: int, sampling: Sampling, visit: int
) -> np.ndarray:
  """Tokens i64[P,samples,max_tokens]."""
  out = np.zeros((len(prompts), samples, sampling.max_tokens), np.int64)
  for c in engine.run(items_of(prompts, samples, visit=visit), sampling):
    out[c.item.problem, c.item.sample] = c.tokens
  return out


def law_p_value(
  params: Params,
  engine: Engine,
  prompts: list[tuple[int, ...]],
  samples: int,
  sampling: Sampling,
  visit: int,
) -> tuple[float, int]:
  """p-value and degrees of freedom of first tokens and of second tokens given the first."""
  tokens = _draw(engine, prompts, samples, sampling, visit)
  statistic, freedom = 0.0, 0
  rows = np.asarray(prompts)
  first = exact_probs(params, rows, sampling)
  for i in range(len(prompts)):
    continued = np.concatenate([np.tile(rows[i], (V, 1)), np.arange(V)[:, None]], axis=1)
    second = exact_probs(params, continued, sampling)
    # for each first token that came, the law of the second: counts are independent given the first
    tests = [(np.bincount(tokens[i, :, 0], minlength=V), first[i])]
    for token in np.unique(tokens[i, :, 0]):
      followers = tokens[i, tokens[i, :, 0] == token, 1]
      tests.append((np.bincount(followers, minlength=V), second[token]))
    for counts, probs in tests:
      s, f = chi_square(counts, probs)
      statistic, freedom = statistic + s, freedom + f
  return float(scipy.stats.chi2.sf(statistic, freedom)), freedom


def pass_at_k_p_value(
  params: Params, engine: Engine, ks: tuple[int, ...], n: int, problems: int
) -> tuple[float, float]:
  """Two-sided p-value (times the number of ks) and largest error of mean pass@k.

  A problem is solved if the first token is a marked one, whose probability is known exactly.
  """
  prompts = random_prompts(problems, PROMPT, V, seed=1)
  sampling = Sampling(max_tokens=1)
  law = exact_probs(params, np.asarray(prompts), sampling)
  # marked: the token whose probability is nearest to a spread of difficulties
  marked = np.abs(np.log(law + 1e-300) - np.log(np.geomspace(0.003, 0.5, problems))[:, None])
  marked = marked.argmin(axis=1)
  p = law[np.arange(problems), marked]
  correct = (_draw(engine, prompts, n, sampling, visit=2)[:, :, 0] == marked[:, None]).sum(axis=1)
  got = pass_at_k.estimate(np.full(problems, n), correct, ks).mean(axis=0)
  want = pass_at_k.exact(p, ks)
  # the estimator's exact variance: every possible count under its binomial
  values = pass_at_k.estimate(np.full(n + 1, n), np.arange(n + 1), ks)
  weights = scipy.stats.binom.pmf(np.arange(n + 1)[None], n, p[:, None])
  variance = weights @ values**2 - (weights @ values) ** 2
  z = (got - want.mean(axis=0)) / np.sqrt(variance.sum(axis=0)) * problems
  return (
    min(1.0, float(2 * scipy.stats.norm.sf(np.abs(z)).min()) * len(ks)),
    float(np.abs(got - want.mean(axis=0)).max()),
  )


def unbiased_gates(problems: int = 8, samples: int = 2048) -> list[dict[str, Any]]:
  """Chi-square of the plain and of the truncated law, and pass@k of a policy with known p."""
  params = make_params()
  engine = Engine(
    hand_over(None, params),
    SMALL,
    slots=256,
    bank_rows=64,
    prompt_capacity=16,
    completion_capacity=2,
    steps=32,
    seed=SEED,
  )
  prompts = random_prompts(problems, PROMPT, V)
  gates = []
  laws = (
    ('plain', Sampling(max_tokens=2)),
    ('T=0.7, top-k 20, top-p 0.9', Sampling(0.7, 0.9, 20, (), 2)),
  )
  for visit, (name, sampling) in enumerate(laws):
    p, freedom = law_p_value(params, engine, prompts, samples, sampling, visit)
    gates.append(
      at_least(
        f'B12 chi-square, {name}',
        p,
        LEVEL,
        'p-value',
        f'{problems} prompts x {samples} samples, first and second tokens, {freedom} degrees of '
        f'freedom, seed {SEED}',
      )
    )
  ks, n = (1, 8, 64), 256
  p, worst = pass_at_k_p_value(params, engine, ks, n, problems=64)
  gates.append(
    at_least(
      'B12 pass@k of a known policy',
      p,
      LEVEL,
      'p-value',
      f'64 problems solved with probabilities from 0.003 to 0.5, n={n}, k={ks}: mean pass@k within '
      f'{worst:.4f}; p-value times {len(ks)}',
    )
  )
  return gates
