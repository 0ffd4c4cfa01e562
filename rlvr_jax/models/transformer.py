"""One decoder for training, scoring, prefill and decode: the same Block over the same params.

Learner params hold the layers stacked, {'layers': {name: [L,...]}}, and the block is scanned; the
sampler holds a list of per-layer dicts and the block is unrolled, because slices of a stack inside
the decode loop would copy all weights.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from rlvr_jax.models import paged, vision
from rlvr_jax.models.attention import causal_attention
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.decode import IMPLEMENTATIONS
from rlvr_jax.models.layers import apply_rope, dot, rms_norm, rope_angles
from rlvr_jax.sharding import ROWS, constrain

# what the backward pass of a scanned block finds kept: all it needs, the products with weights
# (attention, norms and activations are computed again), or the block's input alone
REMAT = {
  'none': None,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'block': jax.checkpoint_policies.nothing_saveable,
}
# a scan over so few layers is unrolled: 1.4 times less CPU time, and compiling it is quick anyway
UNROLLED_LAYERS = 4
Params = dict[str, Any]
# (q [B,T,N,H], k [B,T,K,H], v [B,T,K,H]) -> (attention output [B,T,N,H], what to carry out)
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


class Block(nn.Module):
  """Pre-norm attention and gated MLP of the Qwen2 / LLaMA family, raw params, no boxes."""

  config: ModelConfig
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, rope: tuple[jax.Array, jax.Array], attend: Attend
  ) -> tuple[jax.Array, Any]:
    """x [B,T,D] -> ([B,T,D], what attend carries out)."""
    c = self.config
    D, F, N, K, H = c.embed_dim, c.mlp_dim, c.num_heads, c.num_kv_heads, c.head_dim
    residual_scale = (2 * c.num_layers) ** -0.5

    def param(name: str, shape: tuple[int, ...], fan_in: int = 0, scale: float = 1.0):
      if not fan_in:
        return self.param(name, nn.initializers.ones_init(), shape, self.dtype)
      return self.param(name, nn.initializers.normal(scale * fan_in**-0.5), shape, self.dtype)

    def bias(name: str, heads: int):
      return self.param(name, nn.initializers.zeros_init(), (heads, H), self.dtype)

    def project(
      spec: str, h: jax.Array, name: str, shape: tuple[int, ...], fan_in: int, scale: float = 1.0
    ):
      """h times a weight, plus the branch of low rank where its factors are attached (lora.py)."""
      out = dot(spec, h, param(name, shape, fan_in, scale))
      if not self.has_variable('params', f'{name}_a'):
        return out
      left, _, right = spec.partition('->')
      axes, inner, outer = left[:2], left[2:].partition(',')[0], right[2:]
      a, b = (self.get_variable('params', f'{name}_{side}') for side in 'ab')
      low = dot(f'{axes}{inner},{inner}R->{axes}R', h, a)
      return out + dot(f'{axes}R,R{outer}->{axes}{outer}', low, b)

    with jax.named_scope('projections'):
      h = rms_norm(x, param('attn_norm', (D,)), c.rms_eps)
      q = project('BTD,DNH->BTNH', h, 'q', (D, N, H), D)
      k = project('BTD,DKH->BTKH', h, 'k', (D, K, H), D)
      v = project('BTD,DKH->BTKH', h, 'v', (D, K, H), D)
      if c.qkv_bias:
        q, k, v = q + bias('q_bias', N), k + bias('k_bias', K), v + bias('v_bias', K)
      if c.qk_norm:
        q = rms_norm(q, param('q_norm', (H,)), c.rms_eps)
        k = rms_norm(k, param('k_norm', (H,)), c.rms_eps)
      q, k = apply_rope(q, *rope), apply_rope(k, *rope)
    with jax.named_scope('attention'):
      attended, carried = attend(q, k, v)
      x = x + project('BTNH,NHD->BTD', attended, 'o', (N, H, D), N * H, residual_scale)

    with jax.named_scope('mlp'):
      h = rms_norm(x, param('mlp_norm', (D,)), c.rms_eps)
      gate = nn.silu(project('BTD,DF->BTF', h, 'gate', (D, F), D))
      up = project('BTD,DF->BTF', h, 'up', (D, F), D)
      x = x + project('BTF,FD->BTD', gate * up, 'down', (F, D), F, residual_scale)
    return x, carried


def init_params(key: jax.Array, config: ModelConfig, dtype: str = 'float32') -> Params:
  """Random params in the learner's stacked form, drawn layer by layer from split keys.

  With config.vision the tower's lie in params['vision'] (vision.py).
  """
  embed_key, layer_key, head_key = jax.random.split(key, 3)
  D, V = config.embed_dim, config.vocab_size
  block = Block(config, jnp.dtype(dtype))
  x = jnp.zeros((1, 1, D), dtype)
  rope = rope_angles(jnp.zeros((1, 1), jnp.int32), config)

  def one_layer(k: jax.Array) -> Params:
    return dict(block.init(k, x, rope, lambda q, k, v: (q, None))['params'])

  params: Params = {
    'embed': 0.02 * jax.random.normal(embed_key, (V, D), dtype),
    'layers': jax.vmap(one_layer)(jax.random.split(layer_key, config.num_layers)),
    'final_norm': jnp.ones((D,), dtype),
  }
  if not config.tie_embeddings:
    params['head'] = D**-0.5 * jax.random.normal(head_key, (V, D), dtype)
  if config.vision is not None:
    params['vision'] = vision.init_vision(jax.random.fold_in(key, 3), config.vision, dtype)
  return params


def unstack(params: Params) -> Params:
  """The sampler's form: params['layers'] as a list of per-layer dicts; a tower stays stacked."""
  layers = params['layers']
  count = next(iter(layers.values())).shape[0]
  return {**params, 'layers': [{n: a[i] for n, a in layers.items()} for i in range(count)]}


def _look_up(embed: jax.Array, tokens: jax.Array, mesh: Mesh | None) -> jax.Array:
  """embed[tokens], [B,T,D], of embed [V,D] and tokens i32[B,T].

  On a mesh rows come out over data and fsdp. The table stays split over tensor and fsdp: a device
  looks its columns up for the tokens of its whole fsdp group, then the group exchanges rows for
  columns. Left to itself the compiler may bring the table or all rows to every device.
  """
  if mesh is None:
    return embed[tokens]

  def own(embed: jax.Array, tokens: jax.Array) -> jax.Array:
    tokens = jax.lax.all_gather(tokens, 'fsdp', axis=0, tiled=True)
    place = tokens - jax.lax.axis_index('tensor') * embed.shape[0]
    here = (place >= 0) & (place < embed.shape[0])
    x = jnp.where(here[..., None], embed[jnp.where(here, place, 0)], 0)
    x = jax.lax.all_to_all(x, 'fsdp', split_axis=0, concat_axis=2, tiled=True)
    return jax.lax.psum(x, 'tensor')

  rows = PartitionSpec(ROWS)
  specs = PartitionSpec('tensor', 'fsdp'), rows
  return jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=rows)(embed, tokens)


def forward(
  params: Params,
  tokens: jax.Array,
  positions: jax.Array,
  *,
  config: ModelConfig,
  segments: jax.Array | None = None,
  remat: str | bool = 'none',
  keep_kv: bool = False,
  mesh: Mesh | None = None,
  images: vision.Images | None = None,
) -> tuple[jax.Array, Any]:
  """Hidden states [B,T,D] after the final norm, for rows padded on the right.

  tokens, positions i32[B,T]; images of config.vision put embeddings in the place of their tokens
  and have positions of their own. segments i32[B,T] separates rollouts packed into one row. params
  in either form. keep_kv returns each layer's (k, v) [B,T,K,H] beside it (stacked [L,...] for
  stacked params, a list otherwise); else None. remat: a name of REMAT (True: block, False: none),
  for stacked params. mesh: rows are split over its data and fsdp axes, from end to end; left to
  itself the compiler may follow the weights instead and bring all rows to every device.
  """
  if isinstance(remat, bool):
    remat = 'block' if remat else 'none'
  if remat not in REMAT:
    raise ValueError(f'model.remat={remat!r}: known are {", ".join(REMAT)}')
  block = Block(config)
  if images is not None:
    if config.vision is None:
      raise ValueError(
        'these rows have images, which a model without a vision tower does not see; name a model '
        '(or distill.teacher) with one'
      )
    positions = jnp.moveaxis(images.positions, 1, 0)
  rope = rope_angles(positions, config)

  def attend(q, k, v):
    out = causal_attention(q, k, v, segments, impl=config.attention_impl)
    return out, (k, v) if keep_kv else None

  def step(x: jax.Array, layer: Params) -> tuple[jax.Array, Any]:
    with jax.named_scope('block'):
      x, kv = block.apply({'params': layer}, x, rope, attend)
      return constrain(x, mesh, ROWS), kv

  with jax.named_scope('embed'):
    x = _look_up(params['embed'], tokens, mesh)
    if images is not None:
      assert config.vision is not None
      policy = REMAT[remat]
      embeddings = vision.encode(
        params['vision'], images, config.vision, policy=policy, remat=remat != 'none', mesh=mesh
      )
      x = vision.place(x, constrain(embeddings, mesh), images.source)
    x = constrain(x, mesh, ROWS)
  if isinstance(params['layers'], list):
    carried = []
    for layer in params['layers']:
      x, kv = step(x, layer)
      carried.append(kv)
  else:
    x, carried = jax.lax.scan(
      step if remat == 'none' else jax.checkpoint(step, prevent_cse=False, policy=REMAT[remat]),
      x,
      params['layers'],
      unroll=config.num_layers <= UNROLLED_LAYERS,
    )
  return rms_norm(x, params['final_norm'], config.rms_eps), carried if keep_kv else None


def decode_step(
  params: Params,
  tokens: jax.Array,
  cache: Any,
  *,
  config: ModelConfig,
  slots: paged.Slots,
  prompt_lengths: jax.Array,
  axis: str | None = None,
  impl: str = 'xla_paged',
  ahead: jax.Array | None = None,
) -> tuple[jax.Array, Any, Any]:
  """One token a slot: hidden states [S,D], the cache with its keys and values, what was read.

  tokens i32[S]; slots as before the step; prompt_lengths i32[R] of the bank's rows; ahead i32[R]
  what positions after a prompt are ahead of its length, where it may have images. The hidden
  states of inactive slots mean nothing. params in the sampler's (list) form. axis: the mesh axis
  that splits the heads, where there is one. impl (models.decode) made the cache and the plan that
  comes back, whose read and live are what was read.
  """
  implementation = IMPLEMENTATIONS[impl]
  attention = implementation.attention(axis, config.num_kv_heads)
  block = Block(config)
  positions = prompt_lengths[slots.rows] + slots.lengths
  if ahead is not None:
    positions += ahead[slots.rows]
  rope = rope_angles(positions[:, None], config)
  plan = implementation.plan_step(slots, prompt_lengths, cache)
  x = params['embed'][tokens][:, None]

  def attend(q, k, v, *, own: Any):
    out, written = attention(q[:, 0], k[:, 0], v[:, 0], own, plan)
    return out[:, None], written

  layers = []
  for layer, own in zip(params['layers'], cache.layers, strict=True):
    x, written = block.apply({'params': layer}, x, rope, functools.partial(attend, own=own))
    layers.append(written)
  hidden = rms_norm(x, params['final_norm'], config.rms_eps)[:, 0]
  return hidden, cache.with_layers(layers), plan
