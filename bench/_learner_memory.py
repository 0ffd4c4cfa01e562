"""B14, B15, B16: what the learner wastes in tokens, bytes and on the way to the sampler."""

import importlib
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import _schedule
from bench._engine import random_params
from bench._measure import at_least, at_most, seconds
from bench._memory import QWEN_0P5B, total_bytes
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.logprobs import token_logprobs
from rlvr_jax.sampling.layout import hand_over

PROMPT_TOKENS, ROLLOUTS, MICRO_TOKENS = 256, 512, 16_384


def head_memory(
  config: ModelConfig = QWEN_0P5B, *, tokens: int = 16_384, chunk: int = 1024
) -> dict[str, Any]:
  """B15: the compiler's own account of the gradient of log-probs and entropies."""
  V, D = config.vocab_size, config.embed_dim

  def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)

  def loss(head, hidden, targets, weights, temperature):
    pair = token_logprobs(head, hidden, targets, temperature=temperature, chunk=chunk)
    return jnp.sum(weights * jnp.stack(pair))

  ins = {'embed': shape(V, D)}, shape(tokens, D), shape(tokens, dtype=jnp.int32)
  lowered = jax.jit(jax.grad(loss, (0, 1))).lower(*ins, shape(2, tokens), shape())
  account = lowered.compile().memory_analysis()
  assert account is not None
  used = account.temp_size_in_bytes
  return at_most(
    'B15 temporaries of the gradient of head, log-prob and entropy',
    used / total_bytes(ins[:2]),
    1.6,
    'x (dW + dx)',
    f'{tokens} tokens, V={V}, D={D}, float32, chunk={chunk}: {used / 2**20:.0f} MiB beside the '
    f'{total_bytes(ins[:2]) / 2**20:.0f} MiB of the result; memory_analysis()',
  )


def padding(law: _schedule.LengthLaw = _schedule.LONG_TAIL) -> list[dict[str, Any]]:
  """B14: the learner's own packing of rollouts whose completions follow the law."""
  if importlib.util.find_spec('rlvr_jax.rl.packing') is None:
    print('B14 left out: this learner does not pack', flush=True)
    return []
  packing = importlib.import_module('rlvr_jax.rl.packing')
  lengths = PROMPT_TOKENS + law.draw(ROLLOUTS, seed=0)
  width = int(lengths.max())
  layout = packing.packed_layout(
    lengths.astype(np.int32), np.ones(ROLLOUTS, bool), width, micro_tokens=MICRO_TOKENS
  )
  computed = layout.used * layout.source[0].size
  return [
    at_least(
      'B14 real tokens among those computed',
      float(lengths.sum()) / computed,
      0.9,
      'of them',
      f'{ROLLOUTS} rollouts, prompts of {PROMPT_TOKENS}, {law}: {layout.used} micro-batches of '
      f'{layout.source.shape[1]} rows of {layout.source.shape[2]}; a row each would reach '
      f'{float(lengths.mean()) / width:.2f}',
    )
  ]


def hand_over_time(config: ModelConfig = QWEN_0P5B, *, rounds: int = 5) -> dict[str, Any]:
  """B16: learner's to sampler's params over reading and writing as many bytes; in turns."""
  params = random_params(config)
  size = total_bytes(params)
  old = hand_over(None, params)
  # as the hand-over writes over old memory, so does the copy: new memory would cost more
  add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
  block = add_one(jnp.ones(size // 4, jnp.float32))
  taken, copied = [], []

  def replace() -> Any:
    nonlocal old
    old = hand_over(old, params)
    return old

  def copy() -> Any:
    nonlocal block
    block = add_one(block)
    return block

  replace()
  for _ in range(rounds):
    copied.append(seconds(copy))
    taken.append(seconds(replace))
  return at_most(
    'B16 hand-over of weights',
    min(taken) / min(copied),
    1.5,
    'x 2 bytes / bandwidth',
    f'{size / 2**30:.2f} GiB of float32: {min(taken):.2f} s; a copy reads and writes '
    f'{2 * size / min(copied) / 1e9:.1f} GB/s; best of {rounds} in turns',
  )
