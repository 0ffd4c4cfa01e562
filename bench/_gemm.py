"""The limits of decoding on a machine that is bound by matrix products: those alone."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bench._measure import seconds
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import Params

MATRICES = 'q', 'k', 'v', 'o', 'gate', 'up', 'down'


def _products(params: Params, x: jax.Array, wide: jax.Array, inner: jax.Array) -> list[jax.Array]:
  """Every weight product of one decode step, one after the other: x [S,D], wide [S,N*H], inner
  [S,F] stand for the activations."""

  def dot(a: jax.Array, weight: jax.Array) -> jax.Array:
    rows = a.shape[-1]
    return jnp.dot(a, weight.reshape(rows, math.prod(weight.shape) // rows))

  out: list[jax.Array] = []
  for layer in params['layers']:
    for a, name in ((x, 'q'), (x, 'k'), (x, 'v'), (wide, 'o'), (x, 'gate'), (x, 'up')):
      out.append(dot(a, layer[name]))
    out.append(dot(inner, layer['down']))
    # the next layer waits for this one, as in a model
    x, wide, inner, *out = jax.lax.optimization_barrier((x, wide, inner, *out))
  head = params['head'] if 'head' in params else params['embed']
  return [*out, jnp.dot(x, head.T)]


class GemmLimit:
  """Seconds of the weight products of one decode step of S rows; params in the sampler's form."""

  def __init__(self, params: Params, rows: int):
    layer = params['layers'][0]
    sizes = params['embed'].shape[1], math.prod(layer['o'].shape[:2]), layer['down'].shape[0]
    keys = jax.random.split(jax.random.key(0), 3)
    dtype = params['embed'].dtype
    shapes = ((rows, size) for size in sizes)
    self._inputs = [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]
    self._params = params
    self._run = jax.jit(_products)
    self.rows = rows
    self.measure(1)

  def measure(self, repeats: int = 3) -> float:
    """The smallest of `repeats` measurements now."""
    return min(seconds(lambda: self._run(self._params, *self._inputs)) for _ in range(repeats))


def product_flops(
  params: Params, config: ModelConfig, prompts: Sequence[int], lengths: Sequence[Sequence[int]]
) -> tuple[int, int]:
  """(of weights with the tokens delivered, of all products that are needed): FLOPs.

  All: also the queries of delivered tokens with the keys before them (and the weighted sums), and
  each prompt once through the layers. prompts: tokens of each; lengths: of its completions.
  """
  head = math.prod(params['embed'].shape)
  layers = sum(math.prod(layer[name].shape) for layer in params['layers'] for name in MATRICES)
  a_key = 2 * config.num_layers * config.num_heads * config.head_dim  # multiplications
  delivered = sum(map(sum, lengths))
  keys = sum(P * T + T * (T + 1) // 2 for P, of in zip(prompts, lengths, strict=True) for T in of)
  prompt_keys = sum(P * (P + 1) // 2 for P in prompts)
  weights = 2 * delivered * (layers + head)
  return weights, weights + 2 * a_key * (keys + prompt_keys) + 2 * layers * sum(prompts)
