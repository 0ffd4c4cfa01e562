"""B7: what drawing a token costs beside the head's matmul, at Qwen2.5's vocabulary."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench._measure import at_most, seconds
from rlvr_jax.models.logprobs import logits
from rlvr_jax.sampling.draw import Options, draw

D, V = 896, 151_936
REPEATS = 15
TARGETS = {1.0: 1.3, 0.95: 1.5}  # top_p -> x head matmul


def hidden_flat(embed: jax.Array, slots: int) -> jax.Array:
  """Hidden f32[S,D] whose logits are normal with a spread of 3 nats: a nucleus of 13,000 tokens."""
  del embed
  return jax.random.normal(jax.random.key(0), (slots, D))


def hidden_mixed(embed: jax.Array, slots: int) -> jax.Array:
  """Hidden f32[S,D] as in real text: for most rows a few tokens stand out, for some none does.

  Each row leans towards one token of its own and, less, another; the first has 8 to 26 nats more
  than the others' mean, who together weigh as much as one with 16.
  """
  chosen = jnp.arange(slots, dtype=jnp.int32) * 997
  lean = jnp.linspace(8.0, 26.0, slots)[:, None]
  size = jnp.sum(embed[0] ** 2)
  return hidden_flat(embed, slots) + (lean * embed[chosen] + (lean - 2) * embed[chosen + 1]) / size


def interleaved(runs: dict[str, Callable[[], Any]]) -> dict[str, np.ndarray]:
  """Seconds [REPEATS] of each call; they take turns, so that a busy machine hits all alike."""
  for run in runs.values():  # compiles
    jax.block_until_ready(run())
  taken: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(REPEATS):
    for name, run in runs.items():
      taken[name].append(seconds(run))
  return {name: np.array(values) for name, values in taken.items()}


def cost(
  slots: int, hidden_of: Callable[[jax.Array, int], jax.Array]
) -> dict[float, tuple[float, float]]:
  """By top_p, time of head, draw and log-prob over that of the head's matmul alone.

  The median of the ratios of neighbouring turns, which other work on the machine hits alike, and
  the ratio of the best of each, which one lucky turn decides.
  """
  params = {'embed': 0.1 * jax.random.normal(jax.random.key(1), (V, D))}
  hidden = hidden_of(params['embed'], slots)
  keys = jax.random.split(jax.random.key(2), slots)
  active = jnp.ones(slots, bool)
  head = jax.jit(logits)
  # the settings traced, as in the sampler: known ones would let the compiler drop the nucleus
  whole = jax.jit(lambda p, h, k, options, on: draw(logits(p, h), k, options, on))

  def run_at(top_p: float) -> Callable[[], Any]:
    options = Options(jnp.float32(1), jnp.float32(top_p), jnp.int32(0))
    return lambda: whole(params, hidden, keys, options, active)

  taken = interleaved(
    {'head': lambda: head(params, hidden)} | {str(top_p): run_at(top_p) for top_p in TARGETS}
  )
  alone = taken.pop('head')
  return {
    top_p: (float(np.median(taken[str(top_p)] / alone)), taken[str(top_p)].min() / alone.min())
    for top_p in TARGETS
  }


def draw_cost() -> list[dict[str, Any]]:
  """The gates of B7, the worst of 32 and 64 slots."""
  gates = []
  for name, hidden_of in (('3 nats wide', hidden_flat), ('as in text', hidden_mixed)):
    costs = {slots: cost(slots, hidden_of) for slots in (32, 64)}
    for top_p, target in TARGETS.items():
      ratio = max(each[top_p][0] for each in costs.values())
      each = ', '.join(
        f'S={slots}: median {values[top_p][0]:.3f}, of the best {values[top_p][1]:.3f}'
        for slots, values in costs.items()
      )
      how = f'{each}; D={D}, V={V}, float32, {REPEATS} turns'
      title = f'B7 draw cost, top_p {top_p}, logits {name}'
      gates.append(at_most(title, ratio, target, 'x head matmul', how))
  return gates
