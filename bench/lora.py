"""make bench BENCH=lora: what of adapters' first steps is left in bfloat16, merged and as a branch.

SmolLM2-135M (GGUF, in the models directory) under adapters of rank 16, alpha 32, on every
projection takes AdamW steps on one worked answer; the rise of its mean log-prob in float32 is the
whole, and what rounded weights or factors give, computed in float32 too, the share that is left.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from rlvr_jax.models import load, lora
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.transformer import Params

MODEL = 'smollm2-135m'
TEXT = (
  'Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. '
  'How many clips did she sell altogether? She sold 48 / 2 = 24 clips in May, and 48 + 24 = 72.'
)
STEPS = (1, 4)
RATE = 1e-5


def main() -> list[dict[str, Any]]:
  """The share of the rise that is left after each number of steps."""
  config, base, tokenizer = load.load_model(MODEL, dtype='bfloat16')
  tokens = jnp.asarray([tokenizer.encode(TEXT)[:48]], jnp.int32)
  adapter = lora.Adapter(16, 32.0)

  def as_dtype(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), tree)

  wide = as_dtype(base, 'float32')

  @jax.jit
  def logprob(params: Params) -> jax.Array:
    return sequence_logprobs(params, tokens, config=config, chunk=256)[0].mean()

  @jax.jit
  def gradient(params: Params, factors: lora.Factors) -> Any:
    return jax.grad(lambda f: -logprob(lora.attach(params, f, adapter)))(factors)

  @jax.jit
  def merged(params: Params, factors: lora.Factors) -> Params:
    return as_dtype(lora.merge(lora.attach(params, factors, adapter)), 'float32')

  @jax.jit
  def branch(params: Params, factors: lora.Factors) -> Params:
    rounded = as_dtype(lora.attach(params, factors, adapter), 'bfloat16')
    return as_dtype(rounded, 'float32')

  factors, optimizer = lora.init_lora(jax.random.key(0), config, adapter), optax.adam(RATE)
  state, before, done = optimizer.init(factors), float(logprob(wide)), 0
  gates: list[dict[str, Any]] = []
  for steps in STEPS:
    while done < steps:
      updates, state = optimizer.update(gradient(wide, factors), state)
      factors = cast(Any, optax.apply_updates(factors, updates))
      done += 1
    whole = float(logprob(lora.attach(wide, factors, adapter))) - before
    for name, form in (('merged', merged), ('branch', branch)):
      share = (float(logprob(form(base, factors))) - before) / whole
      gates.append(
        {
          'gate': f'{name} in bfloat16 after {steps} steps',
          'value': share,
          'target': 'at least 0.95' if name == 'branch' else 'none: why the sampler has the branch',
          'holds': name == 'merged' or share >= 0.95,
          'unit': 'share of the rise',
          'how': f'learning rate {RATE:g}; in float32 the mean log-prob rose by {whole:.4f} nats',
        }
      )
  return gates


if __name__ == '__main__':
  print(main())
