"""B7: what drawing a token costs beside the head's matmul."""

from typing import Any

import jax
import jax.numpy as jnp

from bench._measure import at_most, best_of
from rlvr_jax.models.logprobs import logits
from rlvr_jax.sampling.draw import Options, draw

REPEATS = 7
TARGETS = {1.0: 1.3, 0.95: 1.5}  # by top_p


def draw_cost() -> list[dict[str, Any]]:
  """Head, draw and log-prob against the head's matmul alone, at Qwen2.5's vocabulary."""
  S, D, V = 32, 896, 151_936
  hidden = jax.random.normal(jax.random.key(0), (S, D))
  # logits with a spread of about 3 nats, as a trained model's
  params = {'embed': 0.1 * jax.random.normal(jax.random.key(1), (V, D))}
  keys = jax.random.split(jax.random.key(2), S)
  head = jax.jit(logits)
  whole = jax.jit(lambda p, h, k, options: draw(logits(p, h), k, options, jnp.ones(S, bool)))
  gates = []
  for top_p, target in TARGETS.items():
    options = Options(jnp.float32(1.0), jnp.float32(top_p), jnp.int32(0))
    alone = best_of(lambda: head(params, hidden), REPEATS)
    drawn = best_of(lambda options=options: whole(params, hidden, keys, options), REPEATS)
    gates.append(
      at_most(
        f'B7 draw cost, top_p {top_p}',
        drawn / alone,
        target,
        'x head matmul',
        f'S={S}, D={D}, V={V}, float32, best of {REPEATS}',
      )
    )
  return gates
