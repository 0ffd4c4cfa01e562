"""Qwen2.5-VL's vision tower (Bai et al. 2025, arXiv 2502.13923, 2.1): images to embeddings.

Axes beside those of layers.py: R rows of W windows, S patches in them, `unit` patches to a token.
Patches lie window by window (images.py): most layers attend within windows, which is a reshape,
and some to the whole image. The tower's layers are stacked and scanned, in the sampler too, which
runs it once a prompt.
"""

import functools
import math
from typing import Any, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rlvr_jax.models.attention import BLOCK, scores
from rlvr_jax.models.config import VisionConfig
from rlvr_jax.models.images import Laid
from rlvr_jax.models.layers import apply_rope, dot, rms_norm
from rlvr_jax.sharding import ROWS, constrain

EPS = 1e-6  # of the tower's norms, whatever the decoder's is
THETA = 10_000.0
UNROLLED_LAYERS = 3  # so few are not scanned: less to compile, since each one's kind is then known
Params = dict[str, Any]


class Images(flax.struct.PyTreeNode):
  """What the forward takes beside tokens; images.Laid says what each array is."""

  pixels: jax.Array  # u8[R,S,channels*patch*patch]
  places: jax.Array  # i32[R,S,2]
  owner: jax.Array  # i32[R,W]
  source: jax.Array  # i32[B,T]
  positions: jax.Array  # i32[B,3,T]


def images_from(laid: Laid) -> Images:
  """The Images of what images.py laid out; numpy still, on a device from the program on."""
  return Images(*cast(tuple[Any, ...], laid))


class VisionBlock(nn.Module):
  """Pre-norm attention and gated MLP, all with biases; raw params, no boxes."""

  config: VisionConfig
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, rope: tuple[jax.Array, jax.Array], attend: Any) -> jax.Array:
    """x [R,S,D] -> [R,S,D]; attend(q, k, v [R,S,N,H]) -> [R,S,N,H]."""
    c = self.config
    D, F, N, H = c.embed_dim, c.mlp_dim, c.num_heads, c.head_dim
    residual_scale = (2 * c.num_layers) ** -0.5

    def scale(name: str):
      return self.param(name, nn.initializers.ones_init(), (D,), self.dtype)

    def project(spec: str, h: jax.Array, name: str, shape: tuple[int, ...], fan_in: int, by=1.0):
      weight = self.param(name, nn.initializers.normal(by * fan_in**-0.5), shape, self.dtype)
      outer = shape[-(len(spec.partition('->')[2]) - 2) :]
      bias = self.param(f'{name}_bias', nn.initializers.zeros_init(), outer, self.dtype)
      return dot(spec, h, weight) + bias

    h = rms_norm(x, scale('attn_norm'), EPS)
    qkv = project('BTD,DCNH->BTCNH', h, 'qkv', (D, 3, N, H), D)
    q, k = (apply_rope(qkv[:, :, i], *rope) for i in (0, 1))
    attended = attend(q, k, qkv[:, :, 2])
    x = x + project('BTNH,NHD->BTD', attended, 'o', (N, H, D), D, residual_scale)
    h = rms_norm(x, scale('mlp_norm'), EPS)
    gate = nn.silu(project('BTD,DF->BTF', h, 'gate', (D, F), D))
    up = project('BTD,DF->BTF', h, 'up', (D, F), D)
    return x + project('BTF,FD->BTD', gate * up, 'down', (F, D), F, residual_scale)


def init_vision(key: jax.Array, config: VisionConfig, dtype: str = 'float32') -> Params:
  """Random params of a tower, layers stacked."""
  c = config
  patch_key, layer_key, in_key, out_key = jax.random.split(key, 4)
  D, wide_dim = c.embed_dim, c.unit * c.embed_dim
  block = VisionBlock(c, jnp.dtype(dtype))
  x = jnp.zeros((1, c.window_patches, D), dtype)
  rope = rope_2d(jnp.zeros((1, c.window_patches, 2), jnp.int32), c)

  def one_layer(k: jax.Array) -> Params:
    return dict(block.init(k, x, rope, lambda q, k, v: v)['params'])

  def normal(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    return fan_in**-0.5 * jax.random.normal(key, shape, dtype)

  patch = (c.channels, c.temporal, c.patch, c.patch, D)
  return {
    'patch': normal(patch_key, patch, c.temporal * c.patch_values),
    'layers': jax.vmap(one_layer)(jax.random.split(layer_key, c.num_layers)),
    'merge_norm': jnp.ones((D,), dtype),
    'merge_in': normal(in_key, (wide_dim, wide_dim), wide_dim),
    'merge_in_bias': jnp.zeros((wide_dim,), dtype),
    'merge_out': 0.02 * normal(out_key, (wide_dim, c.out_dim), wide_dim),  # as tokens' embeddings
    'merge_out_bias': jnp.zeros((c.out_dim,), dtype),
  }


def rope_2d(places: jax.Array, config: VisionConfig) -> tuple[jax.Array, jax.Array]:
  """cos and sin f32[R,S,H/2] for places i32[R,S,2]: rows turn one half, columns the other."""
  quarter = config.head_dim // 4
  frequency = THETA ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)
  angles = places.astype(jnp.float32)[..., None] * frequency
  angles = angles.reshape(*places.shape[:2], 2 * quarter)
  return jnp.cos(angles), jnp.sin(angles)


def embed_patches(params: Params, pixels: jax.Array, config: VisionConfig) -> jax.Array:
  """u8[R,S,channels*patch*patch] -> [R,S,D]: normalised, then HF's Conv3d as one product.

  An image is the same frame `temporal` times, so that the weights of the frames add up.
  """
  c, weight = config, params['patch']
  R, S, _ = pixels.shape
  mean, std = (jnp.asarray(np.float32(255) * np.asarray(x, np.float32)) for x in (c.mean, c.std))
  x = pixels.astype(jnp.float32).reshape(R, S, c.channels, -1)
  x = ((x - mean[:, None]) / std[:, None]).astype(weight.dtype).reshape(R, S, -1)
  return dot('BTC,CD->BTD', x, jnp.sum(weight, axis=1).reshape(c.patch_values, c.embed_dim))


def _attended(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
  """Softmax attention of queries [B,T,N,H] to keys [B,S,N,H]; mask bool[B,T or 1,S].

  Queries without a key give the mean of all values, which nobody looks at.
  """
  z = scores('BTNH,BSNH->BNTS', q, k)
  z = jnp.where(mask[:, None], z, jnp.finfo(z.dtype).min)
  weights = jax.nn.softmax(z, axis=-1).astype(v.dtype)
  return dot('BNTS,BSNH->BTNH', weights, v)


def _attend_windows(q: jax.Array, k: jax.Array, v: jax.Array, real: jax.Array, whole: int):
  """Within windows of `whole` patches; real bool[R,S]."""

  def cut(x: jax.Array) -> jax.Array:
    return x.reshape(-1, whole, *x.shape[2:])

  return _attended(cut(q), cut(k), cut(v), cut(real)[:, None]).reshape(q.shape)


def _attend_images(q: jax.Array, k: jax.Array, v: jax.Array, image: jax.Array) -> jax.Array:
  """Within images; image i32[R,S], -1 where no patch is. Long rows a block of queries at a time."""
  R, S, N, H = q.shape
  block = math.gcd(S, BLOCK)

  def attend(q: jax.Array, own: jax.Array) -> jax.Array:
    return _attended(q, k, v, (own[:, :, None] == image[:, None]) & (image >= 0)[:, None])

  if block == S:
    return attend(q, image)
  parts = jnp.moveaxis(q.reshape(R, -1, block, N, H), 1, 0), image.reshape(R, -1, block)
  one = jax.checkpoint(lambda x: attend(*x), prevent_cse=False)
  out = jax.lax.map(one, (parts[0], jnp.moveaxis(parts[1], 1, 0)))
  return jnp.moveaxis(out, 0, 1).reshape(R, S, N, H)


def encode(
  params: Params,
  images: Images,
  config: VisionConfig,
  *,
  policy: Any = None,
  remat: bool = False,
  mesh: Mesh | None = None,
) -> jax.Array:
  """Embeddings [R, S/unit, out_dim] of the tokens in the windows; those without patches are noise.

  remat, policy: as of the decoder's layers. mesh: rows are split over its data and fsdp axes.
  """
  x = tower(params, images, config, policy=policy, remat=remat, mesh=mesh)
  return merge(params, x, config)


def tower(
  params: Params,
  images: Images,
  config: VisionConfig,
  *,
  policy: Any = None,
  remat: bool = False,
  mesh: Mesh | None = None,
) -> jax.Array:
  """The patches [R,S,D] before they are merged."""
  c, whole = config, config.window_patches
  real = images.places[:, :, 0] >= 0
  image = jnp.where(real, jnp.repeat(images.owner, whole, axis=1), -1)
  rope = rope_2d(images.places, c)
  block = VisionBlock(c)

  def windows(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _attend_windows(q, k, v, real, whole)

  def full(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _attend_images(q, k, v, image)

  def step(x: jax.Array, layer: Params, attend: Any) -> jax.Array:
    with jax.named_scope('vision'):
      out: Any = block.apply({'params': layer}, x, rope, attend)
      return constrain(out, mesh, ROWS)

  def kept(step: Any, **more: Any) -> Any:
    return jax.checkpoint(step, policy=policy, **more) if remat else step

  x = constrain(embed_patches(params, images.pixels, c), mesh, ROWS)
  if c.num_layers <= UNROLLED_LAYERS:
    for i in range(c.num_layers):
      layer = jax.tree.map(lambda leaf, i=i: leaf[i], params['layers'])
      x = kept(step, static_argnums=2)(x, layer, full if i in c.full_layers else windows)
    return x

  def scanned(x: jax.Array, layer: tuple[Params, jax.Array]) -> tuple[jax.Array, None]:
    of_kind = functools.partial(jax.lax.cond, layer[1], full, windows)
    return step(x, layer[0], of_kind), None

  kinds = jnp.asarray([i in c.full_layers for i in range(c.num_layers)])
  x, _ = jax.lax.scan(kept(scanned, prevent_cse=False), x, (params['layers'], kinds))
  return x


def merge(params: Params, x: jax.Array, config: VisionConfig) -> jax.Array:
  """Patches [R,S,D] to embeddings [R, S/unit, out_dim]."""
  h = rms_norm(x, params['merge_norm'], EPS)
  h = h.reshape(x.shape[0], -1, config.unit * config.embed_dim)
  h = dot('BTC,CD->BTD', h, params['merge_in']) + params['merge_in_bias']
  h = nn.gelu(h, approximate=False)
  return dot('BTC,CD->BTD', h, params['merge_out']) + params['merge_out_bias']


def place(x: jax.Array, embeddings: jax.Array, source: jax.Array) -> jax.Array:
  """Token embeddings x [B,T,D] with those of images [R,n,D] where source i32[B,T] says so."""
  flat = embeddings.reshape(-1, embeddings.shape[-1])
  picked = flat[jnp.maximum(source, 0)].astype(x.dtype)
  return jnp.where((source >= 0)[..., None], picked, x)
