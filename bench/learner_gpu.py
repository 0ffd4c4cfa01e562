"""make bench BENCH=learner_gpu: an optimizer step on one GPU against its matrix units.

B13 share of the measured rate of a bfloat16 product that the step's own products (6 N a token, and
the causal half of attention) reach, for Qwen2.5-1.5B: float32 weights and moments, bfloat16
computation, every layer computed twice; rows of one rollout and packed ones, with each
implementation of attention. Random weights; no file is needed. Without a GPU there are no gates;
BENCH_TINY=1 runs the same code on tiny shapes.
"""

import dataclasses
import functools
import importlib.metadata
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench._measure import at_least
from bench.sampling_gpu import REAL, TINY, measure
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.optimizer import make_optimizer
from rlvr_jax.rl.types import TrainState
from rlvr_jax.rl.update import Rows, make_update

# (rows of a micro-batch, tokens a row, rollouts a row)
SHAPES = ((8, 4096, 1), (4, 8192, 1), (4, 8192, 8))
MICRO = 2
TARGET = 0.4


def step_flops(config: ModelConfig, params: Any, shape: tuple[int, int, int]) -> float:
  """Of forward and backward over all micro-batches, nothing counted twice."""
  b, T, rollouts = shape
  layers = sum(a.size for a in params['layers'].values())
  weights = (layers + config.vocab_size * config.embed_dim) * b * T
  own = T // rollouts
  attention = 2 * config.num_layers * config.num_heads * config.head_dim * b * T * own // 2
  return 6.0 * MICRO * (weights + attention)


def rows_of(config: ModelConfig, shape: tuple[int, int, int]) -> Rows:
  """Random tokens, every row full."""
  b, T, rollouts = shape
  rng = np.random.default_rng(0)
  tokens = rng.integers(1, config.vocab_size, (MICRO, b, T)).astype(np.int32)
  place = np.broadcast_to(np.arange(T) % (T // rollouts), tokens.shape).astype(np.int32)
  segment = np.broadcast_to(np.arange(T) // (T // rollouts), tokens.shape).astype(np.int32)
  own = np.arange(b)[None, :, None] * rollouts + segment
  return Rows(
    tokens=jnp.asarray(tokens),
    completion_mask=jnp.asarray(place > 0),
    advantages=jnp.asarray(rng.normal(size=tokens.shape), jnp.float32),
    sampler_logprobs=jnp.full(tokens.shape, -12.0, jnp.float32),
    positions=jnp.asarray(place) if rollouts > 1 else None,
    segments=jnp.asarray(segment + 1) if rollouts > 1 else None,
    rollout=jnp.asarray(own, jnp.int32) if rollouts > 1 else None,
  )


def step_seconds(config: ModelConfig, rows: Rows) -> tuple[float, dict[str, float], Any]:
  """(seconds of the best of some steps, metrics of the first, the compiled program's memory)."""
  optimizer = make_optimizer(1e-6, clip_norm=1.0)
  init = jax.jit(functools.partial(init_params, config=config))
  params = init(jax.random.key(0))
  state = TrainState(
    step=jnp.zeros((), jnp.int32), params=params, opt_state=jax.jit(optimizer.init)(params)
  )
  longest = rows.tokens.shape[2]
  update: Any = make_update(
    config, choose('grpo'), optimizer, longest=longest, compute_dtype='bfloat16', chunk=2048
  )
  memory = update.lower(state, rows, jnp.float32(1)).compile().memory_analysis()
  times, first = [], None
  for _ in range(4):
    begin = time.perf_counter()
    state, metrics = jax.block_until_ready(update(state, rows, jnp.float32(1)))
    times.append(time.perf_counter() - begin)
    first = first or jax.device_get(metrics)
  assert first is not None
  return min(times[1:]), first, memory


def main() -> list[dict[str, Any]]:
  """A gate for each shape and implementation of attention; none without a GPU."""
  tiny = os.environ.get('BENCH_TINY', '') == '1'
  device = jax.devices()[0]
  print(f'{device.device_kind}, jax {importlib.metadata.version("jax")}', flush=True)
  if jax.default_backend() != 'gpu' and not tiny:
    print('no GPU: no gates (BENCH_TINY=1 tries the code on tiny shapes)', flush=True)
    return []
  name, config = (TINY if tiny else REAL).small
  rate = measure(TINY if tiny else REAL).flops
  gates = []
  for shape in ((2, 64, 1), (2, 64, 4)) if tiny else SHAPES:
    rows = rows_of(config, shape)
    for impl in ('einsum',) if jax.default_backend() != 'gpu' else ('cudnn', 'einsum'):
      taken, metrics, memory = step_seconds(dataclasses.replace(config, attention_impl=impl), rows)
      shapes = jax.eval_shape(functools.partial(init_params, config=config), jax.random.key(0))
      share = step_flops(config, shapes, shape) / taken / rate
      tokens = MICRO * shape[0] * shape[1]
      gates.append(
        at_least(
          f'B13 share of the matmul rate, {name}, {shape[0]} x {shape[1]}, '
          f'{shape[2]} rollouts a row, {impl}',
          share,
          TARGET,
          'of the rate',
          f'{MICRO} micro-batches: {1e3 * taken:.0f} ms a step, {tokens / taken:.0f} tokens/s; '
          f'rate {rate / 1e12:.1f} TFLOP/s; temporaries {memory.temp_size_in_bytes / 2**30:.1f} '
          f'GiB; loss {metrics["loss"]:.6g}, gradient norm {metrics["grad_norm"]:.6g}',
        )
      )
      print(gates[-1], flush=True)
  return gates
