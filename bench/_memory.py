"""B9: what the decode program needs beside weights, pool and bank; compiled only, nothing runs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from bench._measure import at_most
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import init_params, unstack
from rlvr_jax.sampling import layout
from rlvr_jax.sampling import state as state_lib
from rlvr_jax.sampling.check import MAX_STOPS
from rlvr_jax.sampling.draw import Options

QWEN_0P5B = ModelConfig('qwen2', 151_936, 896, 4864, 24, 14, 2, 64, rope_theta=1e6, qkv_bias=True)
PAGE, BANK_ROWS, STEPS = 64, 16, 32


def total_bytes(tree: Any) -> int:
  """Bytes of all arrays, real or abstract."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def memory(
  config: ModelConfig = QWEN_0P5B, *, slots: int = 64, prompt: int = 512, completion: int = 2048
) -> dict[str, Any]:
  """The compiler's own account of the decode chunk at the shapes of a real model."""
  make = functools.partial(init_params, config=config, dtype='float32')
  params = jax.eval_shape(lambda key: unstack(make(key)), jax.random.key(0))
  state = jax.eval_shape(
    functools.partial(
      state_lib.init_state,
      config,
      shards=1,
      slots=slots,
      bank_rows=BANK_ROWS,
      queue=2 * slots * STEPS,
      prompt=prompt,
      pages=slots * completion // PAGE,
      page=PAGE,
      slot_pages=completion // PAGE,
      completion=completion,
      dtype='float32',
      forced=False,
    )
  )
  compiled = layout.PROGRAMS.run_chunk.lower(
    params,
    state,
    jax.eval_shape(lambda: Options(jnp.float32(1), jnp.float32(1), jnp.int32(0))),
    jax.ShapeDtypeStruct((MAX_STOPS,), jnp.int32),
    config=config,
    steps=STEPS,
  ).compile()
  account = compiled.memory_analysis()
  peak = (
    account.argument_size_in_bytes
    + account.output_size_in_bytes
    - account.alias_size_in_bytes
    + account.temp_size_in_bytes
  )
  weights, cache = total_bytes(params), total_bytes(state.cache)
  return at_most(
    'B9 peak memory of the decode program',
    peak / (weights + cache),
    1.1,
    'x weights + pool + bank',
    f'Qwen2.5-0.5B float32, S={slots}, prompts of {prompt}, completions of {completion}: weights '
    f'{weights / 2**30:.2f} GiB, cache {cache / 2**30:.2f} GiB, temporaries '
    f'{account.temp_size_in_bytes / 2**30:.2f} GiB; memory_analysis()',
  )
