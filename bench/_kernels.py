"""The GPU's decode kernels alone: bytes a second of what a layer has to read, and exactness."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench._measure import at_least, best_of
from rlvr_jax.models import attention_gpu, paged
from rlvr_jax.models.cache import KVCache

LAYERS = 28  # calls that one program makes, so that its launch costs nothing
# name -> slots, bank rows, kv heads, queries of each, head dim, tokens of a prompt, pages a slot,
# sampled tokens
SHAPES = {
  '7B, 256 slots, 4 prompts of 512': (256, 4, 4, 7, 128, 512, 32, 1024),
  '7B, 256 slots, a prompt of 512 each': (256, 256, 4, 7, 128, 512, 2, 64),
  '1.5B, 1,024 slots, 4 prompts of 512': (1024, 4, 2, 6, 128, 512, 32, 1024),
}
TINY = {'tiny': (4, 2, 2, 3, 16, 64, 4, 40)}
PAGE = {False: 64, True: 16}


def inputs(shape: tuple[int, ...], page: int) -> tuple[Any, ...]:
  """(q, new k, new v), one layer's cache, slots and prompt lengths, bfloat16, every slot alive."""
  S, R, K, G, H, Tp, M, sampled = shape
  N = S * M

  def normal(i: int, *sizes: int) -> jax.Array:
    return jax.random.normal(jax.random.key(i), sizes, jnp.bfloat16)

  bank = normal(0, R, K, H, Tp), normal(1, R, K, Tp, H)
  layer = *bank, normal(2, N, K, H, page), normal(3, N, K, page, H)
  rng = np.random.default_rng(0)
  table = rng.permutation(N).reshape(S, M)
  rows = np.arange(S) * R // S
  rows, lengths, table = (jnp.asarray(x, jnp.int32) for x in (rows, np.full(S, sampled), table))
  slots = paged.Slots(rows, lengths, table, jnp.ones(S, bool))
  queries = normal(4, S, K * G, H), normal(5, S, K, H), normal(6, S, K, H)
  return queries, layer, slots, jnp.full(R, Tp - 1, jnp.int32)


def _layers(run: Callable, queries: Any, layer: Any, plan: Any) -> jax.Array:
  """The attention LAYERS times over, each of what the one before gave."""
  q, k, v = queries

  def step(_: Any, carry: Any) -> Any:
    return run(carry[0], k, v, carry[1], plan)

  return jax.lax.fori_loop(0, LAYERS, step, (q, layer))[0]


def kernel_gates(bandwidth: float, *, tiny: bool) -> list[dict[str, Any]]:
  """Read rates against a copy's bandwidth in bytes/s; RuntimeError where slots' order matters."""
  page = PAGE[tiny]
  run = functools.partial(attention_gpu.attend, interpret=jax.default_backend() != 'gpu')
  gates = []
  for name, shape in (TINY if tiny else SHAPES).items():
    S, R, K, _, H, Tp, _, sampled = shape
    queries, layer, slots, prompts = inputs(shape, page)
    cache = KVCache(*([x] for x in layer))
    plan_of = jax.jit(attention_gpu.plan_step)
    plan, once = plan_of(slots, prompts, cache), jax.jit(run)
    out = once(*queries, layer, plan)[0]
    order = np.random.default_rng(1).permutation(S)
    moved = plan_of(paged.Slots(*(x[order] for x in slots)), prompts, cache)
    if not jnp.array_equal(once(*(x[order] for x in queries), layer, moved)[0], out[order]):
      raise RuntimeError(f'{name}: another order of the slots gives other bits')

    timed = functools.partial(jax.jit(functools.partial(_layers, run)), queries, layer, plan)
    seconds = best_of(timed, 5) / LAYERS
    rate = 2 * K * H * 2 * (S * (sampled + 1) + R * (Tp - 1)) / seconds
    gates.append(
      at_least(
        f'read rate of the decode kernels, {name}',
        rate / bandwidth,
        0.8,
        'of a copy',
        f'{sampled} tokens sampled in each slot: {1e6 * seconds:.0f} us a layer, '
        f'{rate / 1e9:.0f} GB/s of what must be read; another order of slots gave the same bits',
      )
    )
  return gates
