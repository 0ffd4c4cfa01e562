"""What must not grow: prefill with k, time a token with k, cost with capacity, programs."""

import time
from typing import Any

import jax
import numpy as np

from bench._engine import TINY, counters, delivered, items_of, random_params, random_prompts, since
from bench._measure import at_most
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.transformer import Params
from rlvr_jax.profiling import compilations
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Sampling

LENGTH = 64  # tokens of every completion here
ROUNDS = 4


def _engine(params: Params, *, slots: int, capacity: int = LENGTH) -> Engine:
  return Engine(
    params,
    TINY,
    slots=slots,
    bank_rows=4,
    prompt_capacity=64,
    completion_capacity=capacity,
    steps=32,
  )


def _time(engine: Engine, prompts: list[tuple[int, ...]], samples: int) -> float:
  """Seconds of drawing `samples` completions of LENGTH tokens a prompt, prefill included."""
  assert engine.params is not None
  engine.load(engine.params)  # forgets the prompts
  items = items_of(prompts, samples)
  begin = time.perf_counter()
  tokens = delivered(engine.run(items, Sampling(max_tokens=LENGTH)))
  seconds = time.perf_counter() - begin
  assert tokens == LENGTH * len(items)
  return seconds


def prefill(samples: int = 256) -> dict[str, Any]:
  """Prompt tokens run through the model for k copies, against one."""
  engine = _engine(hand_over(None, random_params(TINY)), slots=64)
  prompts = random_prompts(4, 48, TINY.vocab_size)
  tokens = {}
  for k in (1, samples):
    before = counters(engine)
    _time(engine, prompts, k)
    tokens[k] = since(before, engine)['prefill_tokens']
  return at_most(
    f'prefill of k={samples}',
    tokens[samples] / tokens[1],
    1.05,
    'x the FLOPs of one',
    f'4 prompts of 48 tokens, {tokens[samples]} tokens through prefill programs (padding included)',
  )


def per_token(few: int = 64, many: int = 1024) -> dict[str, Any]:
  """Time a token at a large k against a small one; in turns, the best of each."""
  engine = _engine(hand_over(None, random_params(TINY)), slots=64)
  prompt = random_prompts(1, 48, TINY.vocab_size)
  _time(engine, prompt, few)
  best = {few: np.inf, many: np.inf}
  for _ in range(ROUNDS):
    for k in best:
      # as many short runs as one long one has slots full, so that both have the same chances
      best[k] = min(best[k], min(_time(engine, prompt, k) for _ in range(4 if k == few else 1)) / k)
  return at_most(
    f'time a token, k={many} against k={few}',
    best[many] / best[few],
    1.1,
    'x',
    f'S=64, {LENGTH} tokens each, prefill included; best of {ROUNDS} in turns',
  )


def capacity(small: int = 128, large: int = 8192, slots: int = 32) -> dict[str, Any]:
  """The cost of 64 tokens when completions could become longer; in turns, the best of each."""
  params = hand_over(None, random_params(TINY))
  engines = {c: _engine(params, slots=slots, capacity=c) for c in (small, large)}
  prompt = random_prompts(1, 48, TINY.vocab_size)
  best = dict.fromkeys(engines, np.inf)
  for engine in engines.values():
    _time(engine, prompt, slots)
  for _ in range(2 * ROUNDS):
    for c, engine in engines.items():
      best[c] = min(best[c], _time(engine, prompt, slots))
  return at_most(
    f'cost of {LENGTH} tokens, capacity {large} against {small}',
    best[large] / best[small],
    1.3,
    'x',
    f'S={slots}, {slots} completions; best of {2 * ROUNDS} in turns',
  )


def agreement_and_compiles() -> list[dict[str, Any]]:
  """B11 and B17: sampled against rescored log-probs, and programs after everything changed."""
  stacked = random_params(TINY)
  engine = Engine(
    hand_over(None, stacked),
    TINY,
    slots=16,
    bank_rows=8,
    prompt_capacity=32,
    completion_capacity=64,
    steps=16,
  )
  prompts = [p[: 3 + 3 * i] for i, p in enumerate(random_prompts(8, 32, TINY.vocab_size))]
  done = list(
    engine.run(items_of(prompts, 8), Sampling(temperature=0.6, stop_ids=(0,), max_tokens=64))
  )
  rows = np.zeros((len(done), 96), np.int32)
  for row, c in zip(rows, done, strict=True):
    row[: len(c.item.prompt_ids) + len(c.tokens)] = [*c.item.prompt_ids, *c.tokens]
  score = jax.jit(
    lambda params, rows: sequence_logprobs(params, rows, config=TINY, temperature=0.6)
  )
  worst = 0.0
  for scored, c in zip(np.asarray(score(stacked, rows)[0]), done, strict=True):
    begin = len(c.item.prompt_ids)
    part = scored[begin : begin + len(c.tokens)]
    worst = max(worst, float(np.abs(part - c.logprobs).max()))
  changes = (
    (8, Sampling(1.0, 0.9, 0, (0,), 64)),
    (1, Sampling(0.3, 1.0, 20, (0, 5), 32)),
    (3, Sampling(0.0, 1.0, 0, (), 16)),
    (64, Sampling(0.7, 0.95, 50, (7, 8, 9), 5)),
  )
  with compilations() as compiled:
    for k, settings in changes:
      list(engine.run(items_of(prompts, k, visit=1), settings))
  return [
    at_most('B11 sampler against learner', worst, 1e-4, 'nats', '64 completions, T=0.6, float32'),
    at_most(
      'B17 recompilations',
      len(compiled),
      0,
      'programs',
      'all programs of the process, after temperature, top_p, top_k, stop ids, k and max_tokens '
      f'changed {len(changes)} times',
    ),
  ]
