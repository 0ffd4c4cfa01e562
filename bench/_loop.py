"""B6: what the engine's loop adds to the bare model step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from bench._engine import TINY, delivered, items_of, random_params, random_prompts
from bench._measure import at_most, seconds
from rlvr_jax.models import paged
from rlvr_jax.models.cache import init_cache
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.transformer import decode_step
from rlvr_jax.sampling.draw import Options, draw
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Sampling

ROUNDS = 5


def loop_overhead(slots: int = 64, steps: int = 32, chunks: int = 8) -> dict[str, Any]:
  """A chunk of the engine per step, against the bare model step with head and draw; in turns."""
  length = steps * chunks
  params = hand_over(None, random_params(TINY))
  engine = Engine(
    params,
    TINY,
    slots=slots,
    bank_rows=4,
    prompt_capacity=32,
    completion_capacity=length,
    steps=steps,
  )
  items = items_of(random_prompts(1, 16, TINY.vocab_size), slots)
  per_slot = -(-length // engine.page)
  cache = init_cache(
    TINY, bank_rows=4, prompt=32, pages=slots * per_slot, page=engine.page, dtype='float32'
  )
  table = jnp.arange(slots * per_slot, dtype=jnp.int32).reshape(slots, per_slot)
  options = Options(jnp.float32(1.0), jnp.float32(1.0), jnp.int32(0))
  keys = jax.random.split(jax.random.key(2), slots)
  zeros = jnp.zeros(slots, jnp.int32)
  prompt_lengths = jnp.full(4, 15, jnp.int32)

  @functools.partial(jax.jit, donate_argnums=1)
  def bare(tokens, cache, at):
    own = paged.Slots(zeros, zeros + at, table, jnp.ones(slots, bool))
    hidden, cache, _ = decode_step(
      params, tokens, cache, config=TINY, slots=own, prompt_lengths=prompt_lengths
    )
    return draw(logits(params, hidden), keys, options, jnp.ones(slots, bool))[0], cache

  def loop() -> int:
    return delivered(engine.run(items, Sampling(max_tokens=length)))

  def many() -> jax.Array:
    nonlocal cache
    tokens = zeros
    for i in range(length):
      tokens, cache = bare(tokens, cache, jnp.int32(i))
    return tokens

  loop()
  many()
  times = [(seconds(loop), seconds(many)) for _ in range(ROUNDS)]
  whole, step = (min(column) for column in zip(*times, strict=True))
  return at_most(
    'B6 loop overhead',
    whole / step - 1,
    0.05,
    'share of the bare step',
    f'S={slots}, chunks of {steps}, {length} tokens, a 4-layer model; host gathering included; '
    f'best of {ROUNDS} in turns',
  )
