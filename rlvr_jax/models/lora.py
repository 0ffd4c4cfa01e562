"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W + (alpha / rank) A B, A and B train.

The factors of projection `q` lie beside it in the layers as `q_a` [L,in,rank] and `q_b`
[L,rank,out] once they are attached, and Block then adds the branch (x A) B. In the learner the
branch saves the gradient of the whole matrix, which merged weights would need (a third of a step's
FLOPs). The sampler has merged weights where they are float32, so that a token costs what it did.
In bfloat16 it has the branch too: rounding W + A B to 8 bits leaves W as it was until the product
is large, and the sampler would go on with the base (docs/measured.md).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.layers import wide
from rlvr_jax.models.transformer import Params

TARGETS = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')
Factors = dict[str, Any]  # {'layers': {'q_a': [L,D,r], 'q_b': [L,r,N,H], ...}}


@dataclasses.dataclass(frozen=True)
class Adapter:
  """What the adapters of a run are; hashable."""

  rank: int
  alpha: float
  targets: tuple[str, ...] = TARGETS

  def __post_init__(self):
    unknown = [t for t in self.targets if t not in TARGETS]
    if unknown or not self.targets:
      raise ValueError(
        f'lora.targets={self.targets}: {", ".join(unknown) or "empty"}; known are '
        f'{", ".join(TARGETS)}'
      )
    if self.rank < 1 or self.alpha <= 0:
      raise ValueError(f'lora.rank={self.rank}, lora.alpha={self.alpha}: both must be positive')

  @property
  def scale(self) -> float:
    """What the product of the factors is multiplied by."""
    return self.alpha / self.rank


def shapes(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
  """Projection -> (its input axes, its output axes)."""
  c = config
  D, F, N, K, H = c.embed_dim, c.mlp_dim, c.num_heads, c.num_kv_heads, c.head_dim
  heads = {'q': ((D,), (N, H)), 'k': ((D,), (K, H)), 'v': ((D,), (K, H)), 'o': ((N, H), (D,))}
  return heads | {'gate': ((D,), (F,)), 'up': ((D,), (F,)), 'down': ((F,), (D,))}


def init_lora(key: jax.Array, config: ModelConfig, adapter: Adapter) -> Factors:
  """Factors in float32: A uniform in +-1/sqrt(inputs), B zero, so that the model is the base's.

  The learner's stacked form, a tree of its own.
  """
  layers = {}
  for number, name in enumerate(adapter.targets):
    inputs, outputs = shapes(config)[name]
    bound = math.prod(inputs) ** -0.5
    L, r = config.num_layers, adapter.rank
    place = jax.random.fold_in(key, number)
    layers[f'{name}_a'] = jax.random.uniform(
      place, (L, *inputs, r), jnp.float32, minval=-bound, maxval=bound
    )
    layers[f'{name}_b'] = jnp.zeros((L, r, *outputs), jnp.float32)
  return {'layers': layers}


def attach(params: Params, factors: Factors, adapter: Adapter) -> Params:
  """params whose forward has the branch; the scale is taken into B."""
  scaled = {
    name: leaf * jnp.asarray(adapter.scale, leaf.dtype) if name.endswith('_b') else leaf
    for name, leaf in factors['layers'].items()
  }
  return {**params, 'layers': {**params['layers'], **scaled}}


def merged_layer(layer: Mapping[str, Any]) -> dict[str, Any]:
  """A layer's (or a stack's) weights with the branch in them; one without factors is as it was.

  The sum is made in float32 and rounded once to the weight's dtype.
  """
  weights, factors = split_off(layer)
  return weights | {name: add(weights[name], a, b) for name, (a, b) in factors.items()}


def split_off(layers: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
  """(the weights alone, projection -> its attached factors) of a layer or a stack."""
  factors = {t: (layers[f'{t}_a'], layers[f'{t}_b']) for t in TARGETS if f'{t}_a' in layers}
  names = [f'{t}_{side}' for t in factors for side in 'ab']
  return {name: leaf for name, leaf in layers.items() if name not in names}, factors


def add(weight: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
  """weight + A B for one layer's arrays, or for stacks of them."""
  dtype = jnp.promote_types(wide(weight.dtype), wide(a.dtype))
  # a layer's factors have the axes of its weight and the rank twice; stacks one more each
  lead = weight.shape[:1] if a.ndim + b.ndim == weight.ndim + 3 else ()
  rank = a.shape[-1]
  left = a.reshape(*lead, -1, rank).astype(dtype)
  right = b.reshape(*lead, rank, -1).astype(dtype)
  product = jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
  return (weight.astype(dtype) + product.reshape(weight.shape)).astype(weight.dtype)


def sampler_form(params: Params) -> Params:
  """Attached params as the sampler has them: merged in float32, the branch kept in bfloat16.

  params in the per-layer form; plain ones stay as they are.
  """
  first = params['layers'][0]
  return merge(params) if first['q'].dtype == wide(first['q'].dtype) else params


def merge(params: Params) -> Params:
  """Attached params (in either form) as plain ones of the same model."""
  layers = params['layers']
  if isinstance(layers, list):
    return {**params, 'layers': [merged_layer(layer) for layer in layers]}
  return {**params, 'layers': merged_layer(layers)}


def peft_config(adapter: Adapter, base: str) -> dict[str, Any]:
  """The adapter_config.json of PEFT; base is the model's name or directory."""
  hf_names = {'q': 'q_proj', 'k': 'k_proj', 'v': 'v_proj', 'o': 'o_proj'}
  targets = [hf_names.get(t, f'{t}_proj') for t in adapter.targets]
  return {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': base,
    'r': adapter.rank,
    'lora_alpha': adapter.alpha,
    'target_modules': targets,
    'lora_dropout': 0.0,
    'bias': 'none',
    'fan_in_fan_out': False,
    'use_rslora': False,
    'use_dora': False,
    'init_lora_weights': True,
    'inference_mode': True,
  }


def peft_tensors(factors: Factors, config: ModelConfig) -> dict[str, Any]:
  """The tensors of PEFT's adapter_model.safetensors: lora_A [rank,in] and lora_B [out,rank]."""
  tensors = {}
  for name, stack in factors['layers'].items():
    target, side = name.rsplit('_', 1)
    room = 'mlp' if target in ('gate', 'up', 'down') else 'self_attn'
    for layer in range(config.num_layers):
      one = jax.device_get(stack[layer])
      rank = one.shape[-1] if side == 'a' else one.shape[0]
      matrix = one.reshape(-1, rank).T if side == 'a' else one.reshape(rank, -1).T
      path = (
        f'base_model.model.model.layers.{layer}.{room}.{target}_proj.lora_{side.upper()}.weight'
      )
      tensors[path] = matrix.copy()
  return tensors
