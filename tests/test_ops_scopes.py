"""The parts of the programs have names that a profile shows."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl.algorithms import ALGORITHMS
from rlvr_jax.rl.types import TrainState
from rlvr_jax.rl.update import Rows, make_update
from rlvr_jax.sampling.draw import Options
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import PROGRAMS, hand_over

MODEL = ModelConfig('qwen2', 32, 16, 24, num_layers=6, num_heads=2, num_kv_heads=1, head_dim=8)
SMALL = dataclasses.replace(MODEL, num_layers=2)  # the last one only leaves keys to prefill

# machine code is not looked at
QUICK = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}


def learner_step() -> str:
  """The optimised HLO of a step over two micro-batches, layers scanned and computed again."""
  optimizer = optax.adam(1e-3)
  params = jax.eval_shape(lambda: init_params(jax.random.key(0), MODEL))
  state = jax.eval_shape(
    lambda p: TrainState(jnp.zeros((), jnp.int32), p, optimizer.init(p)), params
  )
  shape = 2, 2, 16

  def given(dtype) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)

  rows = Rows(
    tokens=given(jnp.int32),
    completion_mask=given(bool),
    advantages=given(jnp.float32),
    sampler_logprobs=given(jnp.float32),
  )
  update = make_update(MODEL, ALGORITHMS['grpo'], optimizer, longest=16, chunk=8)
  temperature = jax.ShapeDtypeStruct((), jnp.float32)
  return update.lower(state, rows, temperature).compile(QUICK).as_text()  # pyright: ignore


def engine() -> Engine:
  params = hand_over(None, init_params(jax.random.key(0), SMALL))
  sizes: dict[str, Any] = {
    'slots': 2,
    'bank_rows': 2,
    'prompt_capacity': 16,
    'completion_capacity': 16,
  }
  made = Engine(params, SMALL, **sizes)
  made._allocate(False)
  return made


def sampler_chunk() -> str:
  made = engine()
  options = Options(jnp.float32(1), jnp.float32(1), jnp.int32(0))
  stops = np.full(4, -1, np.int32)
  static = {'config': SMALL, 'steps': 4, 'extras': False, 'impl': made.decode_impl}
  lowered = PROGRAMS.run_chunk.lower(made.params, made._state, options, stops, **static)
  return lowered.compile(QUICK).as_text()


def sampler_prefill() -> str:
  made = engine()
  tokens, one = np.zeros((1, 16), np.int32), np.ones(1, np.int32)
  static = {'config': SMALL, 'impl': made.decode_impl}
  lowered = PROGRAMS.prefill.lower(made.params, made._state, tokens, one, one, **static)
  return lowered.compile(QUICK).as_text()


def operations(hlo: str) -> set[tuple[str, ...]]:
  """The scopes of each named operation, outermost first."""
  names = (part.partition('"')[0] for part in hlo.split('op_name="')[1:])
  return {tuple(name.split('/')) for name in names}


@pytest.mark.parametrize(
  ('program', 'expected'),
  [
    (
      learner_step,
      [
        ('jit(update)', 'embed'),
        ('block', 'attention', 'dot_general'),
        ('block', 'projections', 'dot_general'),
        ('block', 'mlp', 'dot_general'),
        ('transpose(jvp(', 'block', 'mlp', 'dot_general'),  # of the backward pass
        ('head', 'dot_general'),
        ('loss',),
        ('optimizer',),
      ],
    ),
    pytest.param(
      sampler_chunk,
      [
        ('decode', 'attention', 'dot_general'),
        ('decode', 'mlp', 'dot_general'),
        ('draw', 'head', 'dot_general'),
        ('refill',),
      ],
      marks=pytest.mark.check,
    ),
    (sampler_prefill, [('jit(prefill)', 'block', 'attention', 'dot_general')]),
  ],
)
def test_parts_of_the_programs_are_named(program, expected):
  found = operations(program())

  def has(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether wanted is among the scopes, in its order; a scope may be inside brackets."""
    rest = iter(parts)
    return all(any(one in scope for scope in rest) for one in wanted)

  for wanted in expected:
    assert any(has(parts, wanted) for parts in found), (wanted, sorted(found)[:40])
