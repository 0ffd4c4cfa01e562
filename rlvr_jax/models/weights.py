"""Where every parameter lies in a checkpoint, and how a params tree is filled from one.

A checkpoint names its tensors as HF does and keeps matrices [out, in]; ours are [in, ..., out] with
the heads apart and the layers stacked. `leaves` is the one table of that relation: reading,
writing and checking all follow it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from rlvr_jax import hosts
from rlvr_jax.models import lora
from rlvr_jax.models.config import ModelConfig, VisionConfig
from rlvr_jax.models.transformer import Params

Index = tuple[slice, ...]
FLOATS = ('F64', 'F32', 'F16', 'BF16')


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One array of the params tree, and its tensor (one a layer where it is stacked) in a checkpoint.

  shape is ours, without the layer axis; layers is its length, 0 where there is none. hf_axes says
  which of our axes make up each axis of the checkpoint's tensor: ((1, 2), (0,)) for a query
  projection of ours [D,N,H] stored as [N*H, D].
  """

  path: tuple[str, ...]
  hf_name: str
  shape: tuple[int, ...]
  hf_axes: tuple[tuple[int, ...], ...]
  layers: int

  @property
  def stacked(self) -> bool:
    return self.layers > 0

  @property
  def full_shape(self) -> tuple[int, ...]:
    """Ours, with the layer axis where there is one."""
    return (self.layers, *self.shape) if self.stacked else self.shape

  @property
  def hf_shape(self) -> tuple[int, ...]:
    return tuple(math.prod(self.shape[a] for a in group) for group in self.hf_axes)

  def tensor_name(self, layer: int) -> str:
    return self.hf_name.format(layer)

  def hf_index(self, index: Index) -> tuple[Index, Index]:
    """The part of the stored tensor that covers `index` of ours, and what to take of it then."""
    stored, rest = [], list(index)
    for group in self.hf_axes:
      inner = math.prod(self.shape[a] for a in group[1:])
      start, stop, _ = index[group[0]].indices(self.shape[group[0]])
      stored.append(slice(start * inner, stop * inner))
      rest[group[0]] = slice(None)
    return tuple(stored), tuple(rest)

  def from_hf(self, stored: np.ndarray) -> np.ndarray:
    """A stored tensor (or a run of whole leading groups of it) in our axes; a view."""
    order = [a for group in self.hf_axes for a in group]
    split = []
    for group, size in zip(self.hf_axes, stored.shape, strict=True):
      inner = [self.shape[a] for a in group[1:]]
      split += [size // math.prod(inner), *inner]
    return stored.reshape(split).transpose(np.argsort(order))

  def to_hf(self, ours: np.ndarray) -> np.ndarray:
    """One layer's array of ours as the checkpoint keeps it, contiguous."""
    order = [a for group in self.hf_axes for a in group]
    return np.ascontiguousarray(ours.transpose(order).reshape(self.hf_shape))


def leaves(config: ModelConfig) -> list[Leaf]:
  """Every array of this architecture's params, in the order of a checkpoint."""
  c = config
  D, F, V = c.embed_dim, c.mlp_dim, c.vocab_size
  N, K, H = c.num_heads, c.num_kv_heads, c.head_dim
  out_heads, in_heads, transposed, same = ((1, 2), (0,)), ((2,), (0, 1)), ((1,), (0,)), ((0,), (1,))

  table: list[tuple[str, str, tuple[int, ...], tuple[tuple[int, ...], ...]]] = [
    ('attn_norm', 'input_layernorm.weight', (D,), ((0,),)),
    ('q', 'self_attn.q_proj.weight', (D, N, H), out_heads),
    ('k', 'self_attn.k_proj.weight', (D, K, H), out_heads),
    ('v', 'self_attn.v_proj.weight', (D, K, H), out_heads),
    ('o', 'self_attn.o_proj.weight', (N, H, D), in_heads),
    ('mlp_norm', 'post_attention_layernorm.weight', (D,), ((0,),)),
    ('gate', 'mlp.gate_proj.weight', (D, F), transposed),
    ('up', 'mlp.up_proj.weight', (D, F), transposed),
    ('down', 'mlp.down_proj.weight', (F, D), transposed),
  ]
  if c.qkv_bias:
    table += [
      ('q_bias', 'self_attn.q_proj.bias', (N, H), ((0, 1),)),
      ('k_bias', 'self_attn.k_proj.bias', (K, H), ((0, 1),)),
      ('v_bias', 'self_attn.v_proj.bias', (K, H), ((0, 1),)),
    ]
  if c.qk_norm:
    table += [
      ('q_norm', 'self_attn.q_norm.weight', (H,), ((0,),)),
      ('k_norm', 'self_attn.k_norm.weight', (H,), ((0,),)),
    ]
  found = [Leaf(('embed',), 'model.embed_tokens.weight', (V, D), same, 0)]
  for name, suffix, shape, axes in table:
    found.append(Leaf(('layers', name), 'model.layers.{}.' + suffix, shape, axes, c.num_layers))
  found.append(Leaf(('final_norm',), 'model.norm.weight', (D,), ((0,),), 0))
  if not c.tie_embeddings:
    found.append(Leaf(('head',), 'lm_head.weight', (V, D), same, 0))
  return found + (vision_leaves(c.vision) if c.vision else [])


def vision_leaves(config: VisionConfig) -> list[Leaf]:
  """Every array of a Qwen2.5-VL tower's params."""
  c = config
  D, F, N, H, L = c.embed_dim, c.mlp_dim, c.num_heads, c.head_dim, c.num_layers
  wide, vector, transposed = c.unit * D, ((0,),), ((1,), (0,))
  table: list[tuple[str, str, tuple[int, ...], tuple[tuple[int, ...], ...]]] = [
    ('attn_norm', 'norm1.weight', (D,), vector),
    ('mlp_norm', 'norm2.weight', (D,), vector),
    ('qkv', 'attn.qkv.weight', (D, 3, N, H), ((1, 2, 3), (0,))),
    ('qkv_bias', 'attn.qkv.bias', (3, N, H), ((0, 1, 2),)),
    ('o', 'attn.proj.weight', (N, H, D), ((2,), (0, 1))),
    ('o_bias', 'attn.proj.bias', (D,), vector),
    ('gate', 'mlp.gate_proj.weight', (D, F), transposed),
    ('gate_bias', 'mlp.gate_proj.bias', (F,), vector),
    ('up', 'mlp.up_proj.weight', (D, F), transposed),
    ('up_bias', 'mlp.up_proj.bias', (F,), vector),
    ('down', 'mlp.down_proj.weight', (F, D), transposed),
    ('down_bias', 'mlp.down_proj.bias', (D,), vector),
  ]
  patch = (c.channels, c.temporal, c.patch, c.patch, D)
  whole: list[tuple[str, str, tuple[int, ...], tuple[tuple[int, ...], ...]]] = [
    ('patch', 'patch_embed.proj.weight', patch, ((4,), (0,), (1,), (2,), (3,))),
    ('merge_norm', 'merger.ln_q.weight', (D,), vector),
    ('merge_in', 'merger.mlp.0.weight', (wide, wide), transposed),
    ('merge_in_bias', 'merger.mlp.0.bias', (wide,), vector),
    ('merge_out', 'merger.mlp.2.weight', (wide, c.out_dim), transposed),
    ('merge_out_bias', 'merger.mlp.2.bias', (c.out_dim,), vector),
  ]
  return [
    *(
      Leaf(('vision', 'layers', name), 'visual.blocks.{}.' + suffix, shape, axes, L)
      for name, suffix, shape, axes in table
    ),
    *(
      Leaf(('vision', name), f'visual.{suffix}', shape, axes, 0)
      for name, suffix, shape, axes in whole
    ),
  ]


class TensorSource(Protocol):
  """A checkpoint opened for reading; names and layouts are HF's whatever the file format."""

  origin: str

  def entries(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
    """Tensor name -> (shape, stored type), from the headers alone."""
    ...

  def read(self, name: str, index: Index) -> np.ndarray:
    """That part of a tensor, in a floating type numpy (with ml_dtypes) knows."""
    ...


def _tensors(config: ModelConfig) -> Iterator[tuple[Leaf, str]]:
  for leaf in leaves(config):
    for layer in range(leaf.layers or 1):
      yield leaf, leaf.tensor_name(layer)


def check_tensors(source: TensorSource, config: ModelConfig) -> None:
  """Compares a checkpoint's headers with what the config implies.

  Raises one ValueError with every missing, misshapen, surplus and unreadably typed tensor.
  """
  entries, problems = dict(source.entries()), []
  for leaf, name in _tensors(config):
    if name not in entries:
      problems.append(f'missing: {name} {list(leaf.hf_shape)}')
      continue
    shape, stored = entries.pop(name)
    if shape != leaf.hf_shape:
      problems.append(f'wrong shape: {name} is {list(shape)}, expected {list(leaf.hf_shape)}')
    if stored not in FLOATS:
      problems.append(f'wrong type: {name} is {stored}, known are {", ".join(FLOATS)}')
  if config.tie_embeddings:
    # some writers store the tied head again; `load_params` checks that it is the embedding
    entries.pop('lm_head.weight', None)
  # a constant that old writers stored, derived from rope_theta
  surplus = [n for n in entries if not n.endswith('rotary_emb.inv_freq')]
  problems += [f'surplus: {name} {list(entries[name][0])}' for name in sorted(surplus)]
  if problems:
    shown = '\n  '.join(problems[:40])
    more = f'\n  and {len(problems) - 40} more' if len(problems) > 40 else ''
    raise ValueError(
      f'{source.origin}: {len(problems)} tensors do not fit the {config.architecture} config '
      f'({config.num_layers} layers, embed {config.embed_dim}, vocabulary {config.vocab_size}); '
      f'use the config that belongs to these weights:\n  {shown}{more}'
    )


def all_finite(x: np.ndarray) -> bool:
  """Whether no element is NaN or infinite; bfloat16 by its exponent bits, 10 times faster."""
  if x.dtype == ml_dtypes.bfloat16:
    return not bool(((x.view(np.uint16) & 0x7F80) == 0x7F80).any())
  return bool(np.isfinite(x).all())


class _Filler:
  """Reads pieces of leaves, remembering which tensors held non-finite values."""

  def __init__(self, source: TensorSource, dtype: Any, check_finite: bool):
    self.source, self.dtype = source, np.dtype(dtype)
    self.check_finite, self.bad = check_finite, set()

  def tensor(self, leaf: Leaf, layer: int, index: Index) -> np.ndarray:
    stored_index, rest = leaf.hf_index(index)
    name = leaf.tensor_name(layer)
    stored = self.source.read(name, stored_index)
    if self.check_finite and not all_finite(stored):
      self.bad.add(name)
    return leaf.from_hf(stored)[rest]

  def piece(self, leaf: Leaf, index: Index) -> np.ndarray:
    """The part `index` of a leaf (layer axis first where stacked), one layer's tensor at a time."""
    if not leaf.stacked:
      return np.ascontiguousarray(self.tensor(leaf, 0, index), dtype=self.dtype)
    layers = range(*index[0].indices(leaf.layers))
    sizes = [len(range(*i.indices(n))) for i, n in zip(index[1:], leaf.shape, strict=True)]
    out = np.empty((len(layers), *sizes), self.dtype)
    for row, layer in enumerate(layers):
      out[row] = self.tensor(leaf, layer, index[1:])
    return out

  def leaf(self, leaf: Leaf, sharding: jax.sharding.Sharding | None) -> jax.Array:
    shape = leaf.full_shape
    if sharding is None:
      return jnp.asarray(self.piece(leaf, (slice(None),) * len(shape)))
    pieces: dict[Any, np.ndarray] = {}

    def read(index: Index | None) -> np.ndarray:
      index = index or ()
      key = tuple(i.indices(n) for i, n in zip(index, shape, strict=True))
      if key not in pieces:  # a replicated piece is asked for once a device
        pieces[key] = self.piece(leaf, index)
      return pieces[key]

    return jax.make_array_from_callback(shape, sharding, read)


def load_params(
  source: TensorSource,
  config: ModelConfig,
  dtype: str = 'float32',
  shardings: Any = None,
  *,
  check_finite: bool = True,
) -> Params:
  """The params tree (learner's stacked form) of a checkpoint.

  shardings, if given, is a tree of jax Shardings like params: each device piece is read on its own.
  Beyond the result at most one leaf is in memory. Raises ValueError (all misfits at once, then all
  non-finite tensors at once).
  """
  check_tensors(source, config)
  filler = _Filler(source, jnp.dtype(dtype), check_finite)
  params: Params = {'layers': {}}
  for leaf in leaves(config):
    where: Any = shardings
    for key in leaf.path:
      where = where[key] if where is not None else None
    home = params
    for key in leaf.path[:-1]:
      home = home.setdefault(key, {})
    home[leaf.path[-1]] = filler.leaf(leaf, where)
  if filler.bad:
    names = sorted(filler.bad)
    raise ValueError(
      f'{source.origin}: NaN or infinite values in {len(names)} tensors: {", ".join(names[:20])}'
      f'{" ..." if len(names) > 20 else ""}; the file is damaged or its training run diverged: '
      'take another checkpoint, or pass check_finite=False to look at it'
    )
  if config.tie_embeddings and 'lm_head.weight' in source.entries():
    _check_tied_head(source, config)
  return params


def _check_tied_head(source: TensorSource, config: ModelConfig, rows: int = 8192) -> None:
  for start in range(0, config.vocab_size, rows):
    index = (slice(start, min(start + rows, config.vocab_size)), slice(0, config.embed_dim))
    head = source.read('lm_head.weight', index)
    embed = source.read('model.embed_tokens.weight', index)
    if not np.array_equal(head, embed, equal_nan=head.dtype.kind == 'f'):
      raise ValueError(
        f'{source.origin}: the config says tie_word_embeddings=true, yet lm_head.weight differs '
        'from the embedding; set tie_word_embeddings to false in config.json'
      )


def stored_tensors(
  params: Params, config: ModelConfig, dtype: str = ''
) -> Iterator[tuple[str, int, Callable[[], np.ndarray]]]:
  """(checkpoint name, elements, a function that gives the numpy tensor) for every tensor in order.

  Adapters attached to a leaf (lora.py) are merged into it. dtype: of the tensors, '' as they are.
  ValueError if params lack a leaf, have one too many or one of another shape.
  """
  dtype = dtype or params['embed'].dtype
  layers, adapters = lora.split_off(params['layers'])
  params = {**params, 'layers': layers}
  _check_tree(params, config)
  for leaf in leaves(config):
    array = params
    for key in leaf.path:
      array = array[key]
    for layer in range(leaf.layers or 1):

      def read(leaf: Leaf = leaf, array: Any = array, layer: int = layer) -> np.ndarray:
        one = _layer(array, layer) if leaf.stacked else array
        factors = adapters.get(leaf.path[1]) if leaf.path[0] == 'layers' else None
        if factors is not None:
          one = lora.add(one.astype(dtype), *(_layer(factor, layer) for factor in factors))
        return leaf.to_hf(np.asarray(hosts.whole(one), jnp.dtype(dtype)))

      yield leaf.tensor_name(layer), math.prod(leaf.shape), read


@jax.jit
def _row(array: jax.Array, layer: jax.Array) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(array, layer, keepdims=False)


def _layer(array: Any, layer: int) -> Any:
  # one layer on its own: the host copy of a whole jax array would stay with it as long as it lives
  return array[layer] if isinstance(array, np.ndarray) else _row(array, np.int32(layer))


def _check_tree(params: Params, config: ModelConfig) -> None:
  found = {
    tuple(str(k.key) for k in path): tuple(x.shape)
    for path, x in jax.tree_util.tree_flatten_with_path(params)[0]
  }
  expected = {leaf.path: leaf.full_shape for leaf in leaves(config)}
  wrong = [p for p in found.keys() | expected.keys() if found.get(p) != expected.get(p)]
  if wrong:
    shown = '; '.join(
      f'{".".join(p)} is {found.get(p, "missing")}, expected {expected.get(p, "nothing")}'
      for p in sorted(wrong)
    )
    raise ValueError(f'params do not fit the {config.architecture} config: {shown}')
