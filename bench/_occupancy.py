"""B3 and B4: how full the slots are, and how much of the cache that is read is alive."""

import time
from typing import Any

import numpy as np

from bench import _schedule
from bench._engine import counters, items_of, random_params, random_prompts, since
from bench._measure import at_least
from bench._schedule import LengthLaw
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Sampling

# occupancy does not depend on what the model computes: one layer, one head of two dimensions
NANO = ModelConfig('qwen2', 16, 4, 4, 1, 1, 1, 2, qkv_bias=True)
PAGE = 64
POOL_SLACK = 1.1  # pages, over the most that the ideal schedule ever has alive


def occupancy_gates(
  law: LengthLaw = _schedule.LONG_TAIL, *, prompts: int = 64, samples: int = 256, slots: int = 256
) -> list[dict[str, Any]]:
  """Forced lengths through the engine, beside list scheduling with instant refill."""
  lengths = law.draw(prompts * samples, seed=0)
  ideal, _ = _schedule.ideal_steps(lengths, slots)
  pages = int(POOL_SLACK * _schedule.live_peak(lengths, slots) / PAGE) + slots
  engine = Engine(
    hand_over(None, random_params(NANO)),
    NANO,
    slots=slots,
    bank_rows=prompts,
    prompt_capacity=16,
    completion_capacity=law.cap,
    steps=64,
    page=PAGE,
    pages=pages,
  )
  given = random_prompts(prompts, 8, NANO.vocab_size)
  sampling = Sampling(max_tokens=law.cap)
  list(engine.run(items_of(given, 1, limits=np.full(prompts, 8)), sampling))

  before, begin = counters(engine), time.perf_counter()
  full: dict[str, int] = {}
  tokens = 0
  for count, completion in enumerate(
    engine.run(items_of(given, samples, limits=lengths), sampling)
  ):
    tokens += len(completion.tokens)
    if count + 1 == len(lengths) - slots:  # what is still running fills the slots: the tail begins
      full = since(before, engine)
  wall, stats = time.perf_counter() - begin, since(before, engine)
  if tokens != int(lengths.sum()):
    raise RuntimeError(f'{tokens} tokens came out, {int(lengths.sum())} were forced')
  measured = tokens / stats['slot_steps']
  best = _schedule.occupancy(tokens, slots, ideal)
  head = full['live_steps'] / full['slot_steps'] if full else measured
  scale = f'{law}; {prompts} prompts x k={samples}, S={slots}, {tokens} tokens'
  return [
    at_least(
      'B3 slot occupancy',
      measured / best,
      0.95,
      'of list scheduling',
      f'{scale}: {measured:.3f} tail included ({head:.3f} before it) against {best:.3f} ideal; '
      f'{stats["steps"]} steps, {stats["evicted"]} evictions, {wall:.0f} s',
    ),
    at_least(
      'B4 live KV',
      stats['kv_live'] / stats['kv_read'],
      0.5,
      'of the KV read',
      f'the same run; pages of {PAGE}, a pool of {pages}',
    ),
  ]
