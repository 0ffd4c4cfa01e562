"""Implementations of decode attention by name: how each keeps keys and values and attends to them.

A cache is a pytree with page, dtype, layers and with_layers; a layer is what `attention` takes and
gives back. Everything else in the sampler knows a cache by these and an implementation by name.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rlvr_jax.models import attention_gpu, attention_tpu, cache, paged
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.sharding import over_heads

log = logging.getLogger(__name__)
AUTO = 'auto'


class Implementation(NamedTuple):
  """The functions of one implementation; capacities and pages in tokens, sizes of one shard."""

  check: Callable[..., None]  # (config, page, dtype | None): ValueError if it cannot run here
  check_sizes: Callable[
    ..., None
  ]  # (config, tensor, dtype, ...): ValueError if it cannot hold them
  bank_capacity: Callable[[int, int], int]  # (prompt capacity, page) -> tokens of a bank row
  token_bytes: Callable[..., int]  # (config, dtype) -> bytes of a token over all layers
  init_cache: Callable[..., Any]  # (config, *, bank_rows, prompt, pages, page, dtype)
  heads_axis: int  # of the cache's arrays: which one a mesh splits by kv heads
  write_prompts: Callable[..., Any]  # (cache, [(k, v) [B,T,K,H]] * L, rows i32[B]) -> cache
  plan_step: Callable[..., Any]  # (paged.Slots, prompt_lengths i32[R], cache) -> plan
  attention: Callable[..., Callable]  # (mesh axis | None, kv_heads) -> attention
  # attention: (q [S,N,H], new_k, new_v [S,K,H], layer, plan) -> ([S,N,H], layer)


def _attention_paged(axis: str | None, kv_heads: int) -> Callable:
  attention = paged.attention_over(axis, kv_heads)

  def attend(q: jax.Array, new_k: jax.Array, new_v: jax.Array, layer: tuple, plan: paged.Plan):
    out, written = attention(q, new_k, new_v, layer, plan)
    return out, (*layer[:2], *written)

  return attend


IMPLEMENTATIONS = {
  'xla_paged': Implementation(
    check=lambda config, page, dtype: None,
    check_sizes=lambda *args, **kwargs: None,
    bank_capacity=lambda capacity, page: capacity,
    token_bytes=cache.token_bytes,
    init_cache=cache.init_cache,
    heads_axis=1,
    write_prompts=cache.write_prompts,
    plan_step=paged.plan_step,
    attention=_attention_paged,
  ),
  'tokamax_rpa': Implementation(
    check=attention_tpu.check,
    check_sizes=attention_tpu.check_sizes,
    bank_capacity=lambda capacity, page: -(-capacity // page) * page,
    token_bytes=attention_tpu.token_bytes,
    init_cache=attention_tpu.init_cache,
    heads_axis=2,
    write_prompts=attention_tpu.write_all_prompts,
    plan_step=lambda slots, prompt_lengths, cache: attention_tpu.plan_step(slots, prompt_lengths),
    attention=lambda axis, kv_heads: over_heads(attention_tpu.attend, axis, kv_heads, 2),
  ),
  'pallas_gpu': Implementation(
    check=attention_gpu.check,
    check_sizes=lambda *args, **kwargs: None,
    bank_capacity=attention_gpu.bank_capacity,
    token_bytes=cache.token_bytes,
    init_cache=cache.init_cache,
    heads_axis=1,
    write_prompts=cache.write_prompts,
    plan_step=attention_gpu.plan_step,
    attention=lambda axis, kv_heads: over_heads(attention_gpu.attend, axis, kv_heads, 1),
  ),
}
_BEST = {'tpu': 'tokamax_rpa', 'gpu': 'pallas_gpu'}


def choose(name: str, config: ModelConfig, *, page: int, dtype: str | None, platform: str) -> str:
  """The implementation that sampling.decode_impl names; 'auto' is the best that runs.

  dtype None: not known yet. Raises ValueError for a name that is none, and for one asked for that
  cannot run on this platform ('cpu', 'gpu', 'tpu'), for this model or with this page.
  """
  if name == AUTO:
    best = _BEST.get(platform, 'xla_paged')
    try:
      IMPLEMENTATIONS[best].check(config, page, dtype)
    except ValueError as error:
      log.info('sampling.decode_impl=auto takes xla_paged: %s', error)
      return 'xla_paged'
    return best
  if name not in IMPLEMENTATIONS:
    raise ValueError(
      f'sampling.decode_impl={name!r} is none of {", ".join((AUTO, *IMPLEMENTATIONS))}'
    )
  IMPLEMENTATIONS[name].check(config, page, dtype)
  return name
