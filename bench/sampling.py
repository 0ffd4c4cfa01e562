"""make bench BENCH=sampling: what the sampler costs beside what it must cost, as ratios of one run.

B6 loop overhead, B7 cost of drawing a token, B11 agreement with the learner, B17 compilations.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench._draw import draw_cost
from rlvr_jax.models import paged
from rlvr_jax.models.cache import init_cache
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.logprobs import logits, sequence_logprobs
from rlvr_jax.models.transformer import decode_step, init_params
from rlvr_jax.sampling import layout
from rlvr_jax.sampling.draw import Options, draw
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling

REPEATS = 7
TINY = ModelConfig('qwen2', 512, 256, 768, 4, 8, 2, 32, qkv_bias=True)


def best_of(run: Callable[[], Any], repeats: int = REPEATS) -> float:
  """Smallest seconds of a call that blocks on its result, the first (compiling) one left out."""
  jax.block_until_ready(run())
  seconds = []
  for _ in range(repeats):
    begin = time.perf_counter()
    jax.block_until_ready(run())
    seconds.append(time.perf_counter() - begin)
  return min(seconds)


def gate(name: str, value: float, target: float, unit: str, how: str) -> dict[str, Any]:
  """A gate that holds if value is at most target."""
  return {
    'gate': name,
    'value': float(f'{value:.3g}'),
    'target': target,
    'holds': bool(value <= target),
    'unit': unit,
    'how': how,
  }


def loop_overhead(slots: int = 64, steps: int = 32) -> dict[str, Any]:
  """B6: a chunk of the engine per step, against the bare model step with head and draw."""
  params = hand_over(None, init_params(jax.random.key(0), TINY))
  engine = Engine(
    params,
    TINY,
    slots=slots,
    bank_rows=4,
    prompt_capacity=32,
    completion_capacity=steps * (REPEATS + 4),
    steps=steps,
  )
  limit = steps * (REPEATS + 4)
  items = [Item(0, 1, 0, i, tuple(range(1, 17))) for i in range(slots)]
  run = functools.partial(engine.run, items, Sampling(max_tokens=limit))
  list(run())
  begin = time.perf_counter()
  list(run())
  chunk = (time.perf_counter() - begin) / limit

  per_slot = -(-limit // engine.page)
  cache = init_cache(
    TINY, bank_rows=4, prompt=32, pages=slots * per_slot, page=engine.page, dtype='float32'
  )
  table = jnp.arange(slots * per_slot, dtype=jnp.int32).reshape(slots, per_slot)
  options = Options(jnp.float32(1.0), jnp.float32(1.0), jnp.int32(0))
  keys = jax.random.split(jax.random.key(2), slots)
  zeros = jnp.zeros(slots, jnp.int32)
  lengths = jnp.full(4, 15, jnp.int32)

  @functools.partial(jax.jit, donate_argnums=1)
  def bare(tokens, cache, at):
    own = paged.Slots(zeros, zeros + at, table, jnp.ones(slots, bool))
    hidden, cache, _ = decode_step(
      params, tokens, cache, config=TINY, slots=own, prompt_lengths=lengths
    )
    drawn = draw(logits(params, hidden), keys, options, jnp.ones(slots, bool))
    return drawn.token, cache

  def many():
    nonlocal cache
    tokens = zeros
    for i in range(limit):
      tokens, cache = bare(tokens, cache, jnp.int32(i))
    return tokens

  step = best_of(many, 2) / limit
  return gate(
    'B6 loop overhead',
    chunk / step - 1,
    0.05,
    'share of the bare step',
    f'S={slots}, chunk {steps}, {limit} tokens, a 4-layer model; host gathering included',
  )


def agreement_and_compiles() -> list[dict[str, Any]]:
  """B11 and B17: sampled against rescored log-probs, and programs after the settings changed."""
  stacked = init_params(jax.random.key(0), TINY)
  engine = Engine(
    hand_over(None, stacked),
    TINY,
    slots=16,
    bank_rows=8,
    prompt_capacity=32,
    completion_capacity=64,
    steps=16,
  )
  rng = np.random.default_rng(0)
  prompts = [tuple(int(t) for t in rng.integers(1, 512, 3 + 3 * i)) for i in range(8)]
  items = [Item(i, i, 0, s, prompt) for i, prompt in enumerate(prompts) for s in range(8)]
  done = list(engine.run(items, Sampling(temperature=0.6, stop_ids=(0,), max_tokens=64)))
  before = layout.PROGRAMS.run_chunk._cache_size()
  worst = 0.0
  for completion in done:
    prompt = completion.item.prompt_ids
    row = np.zeros((1, 96), np.int32)
    row[0, : len(prompt) + len(completion.tokens)] = [*prompt, *completion.tokens]
    scored = np.asarray(
      sequence_logprobs(stacked, jnp.asarray(row), config=TINY, temperature=0.6)[0]
    )[0]
    part = scored[len(prompt) : len(prompt) + len(completion.tokens)]
    worst = max(worst, float(np.abs(part - completion.logprobs).max()))
  for settings in (
    Sampling(1.0, 0.9, 0, (0,), 64),
    Sampling(0.3, 1.0, 20, (0, 5), 32),
    Sampling(0.0, 1.0, 0, (), 16),
  ):
    list(engine.run(items[:20], settings))
  extra = layout.PROGRAMS.run_chunk._cache_size() - before
  return [
    gate('B11 sampler against learner', worst, 1e-4, 'nats', '64 completions, T=0.6, float32'),
    gate(
      'B17 recompilations',
      extra,
      0,
      'programs',
      'decode programs after temperature, top_p, top_k, stop ids, k and length changed',
    ),
  ]


def main() -> list[dict[str, Any]]:
  """The gates of B6, B7, B11, B17 that a CPU can hold."""
  return [*draw_cost(), loop_overhead(), *agreement_and_compiles()]
