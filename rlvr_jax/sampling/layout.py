"""Where the sampler's arrays live, and its programs over a mesh.

Slots, bank, pages and queue are split over (data, fsdp): each shard is an engine of its own. Heads,
mlp and vocabulary are split over tensor.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.models import decode
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.lora import sampler_form
from rlvr_jax.models.rules import DECODE_RULES, KV_PATHS
from rlvr_jax.models.transformer import Params, unstack
from rlvr_jax.sampling import chunk as chunk_lib
from rlvr_jax.sampling import state as state_lib
from rlvr_jax.sharding import ROWS, path_name, row_parts, shardings


class Programs(NamedTuple):
  """The engine's jitted functions; each takes and gives the state, donated."""

  prefill: Any
  run_chunk: Any
  enqueue: Any


def _jit(f: Callable, static: tuple[str, ...], **options: Any) -> Any:
  return jax.jit(f, donate_argnames=('state',), static_argnames=static, **options)


# of every engine without a mesh
PROGRAMS = Programs(
  _jit(state_lib.prefill, ('config', 'impl')),
  _jit(chunk_lib.run_chunk, ('config', 'steps', 'extras', 'impl')),
  _jit(state_lib.enqueue, ()),
)


def programs_over(mesh: Mesh, layout: Any) -> Programs:
  """The same functions with every shard of the mesh on its own; layout: the state's shardings."""
  whole, split = PartitionSpec(), PartitionSpec(ROWS)
  by_step = PartitionSpec(None, ROWS)  # of everything emitted

  def over(f: Callable, ins: tuple, outs: Any, **constants: Any) -> Callable:
    return jax.shard_map(
      functools.partial(f, **constants),
      mesh=mesh,
      in_specs=ins,
      out_specs=outs,
      axis_names=set(ROWS),
      check_vma=False,
    )

  def prefill(params, state, tokens, length, row, images=None, ahead=None, *, config, impl):
    ins = (whole, *(split,) * 6)
    f = over(state_lib.prefill, ins, split, config=config, impl=impl)
    return f(params, state, tokens, length, row, images, ahead)

  def run_chunk(params, state, options, stop_ids, *, config, steps, extras, impl):
    ins = (whole, split, whole, whole)
    axes = {'shards': ROWS, 'tensor': 'tensor' if mesh.shape['tensor'] > 1 else None}
    static = {'config': config, 'steps': steps, 'extras': extras, 'impl': impl}
    f = over(chunk_lib.run_chunk, ins, (split, by_step), **static, **axes)
    return f(params, state, options, stop_ids)

  def enqueue(state, count, items):
    return over(state_lib.enqueue, (split, split, split), split)(state, count, items)

  # an output layout left to the compiler may differ from the input's: a recompilation, and no
  # donation; so it is pinned
  everywhere = NamedSharding(mesh, whole)
  return Programs(
    _jit(prefill, ('config', 'impl'), out_shardings=layout),
    _jit(run_chunk, ('config', 'steps', 'extras', 'impl'), out_shardings=(layout, everywhere)),
    _jit(enqueue, (), out_shardings=layout),
  )


def on(mesh: Mesh | None) -> contextlib.AbstractContextManager:
  """What is asked of the device inside is answered for a mesh's; None: for the default one."""
  return (
    contextlib.nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
  )


def choose_impl(
  name: str, config: ModelConfig, mesh: Mesh | None, page: int, dtype: str | None
) -> str:
  """decode.choose for the devices of a mesh (None: the default device)."""
  platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
  with on(mesh):
    return decode.choose(name, config, page=page, dtype=dtype, platform=platform)


def state_shardings(state: Any, mesh: Mesh, kv_heads: int, heads_axis: int = 1) -> Any:
  """First axes over (data, fsdp); kv heads of the cache over tensor where it divides them.

  heads_axis: of the cache's arrays, see models.decode.
  """
  divides = kv_heads % mesh.shape['tensor'] == 0

  def one(path: tuple, leaf: Any) -> NamedSharding:
    spec: list[Any] = [ROWS]
    if path_name(path).startswith('cache/') and divides:
      spec += [None] * (heads_axis - 1) + ['tensor']
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(one, state)


def _sampler_form(params: Params) -> Params:
  # layer by layer: a merged stack would be one more copy of all weights
  return sampler_form(unstack(params))


Layouts = tuple[NamedSharding | None, ...]  # of a tree's leaves; None: as it is


def _laid(params: Params, layouts: Layouts) -> Params:
  leaves, form = jax.tree.flatten(params)
  pairs = zip(leaves, layouts, strict=True)
  return form.unflatten(
    [x if own is None else jax.lax.with_sharding_constraint(x, own) for x, own in pairs]
  )


@functools.cache  # a function of its own each time would be compiled each time
def _rewrite(between: Layouts) -> Callable:
  def rewrite(old: Params, params: Params) -> Params:
    # casting to the old dtype and writing over the old leaves keeps one sampler copy alive
    new = _sampler_form(_laid(params, between))
    return jax.tree.map(lambda o, n: jnp.copy(n.astype(o.dtype)), old, new)

  return rewrite


@functools.cache
def _copied(between: Layouts) -> Callable:
  def copied(params: Params) -> Params:
    # leaves that are not stacked would otherwise be the learner's own buffers, which it donates
    return jax.tree.map(jnp.copy, _sampler_form(_laid(params, between)))

  return copied


def hand_over(old: Params | None, params: Params, mesh: Mesh | None = None) -> Params:
  """The learner's params in the sampler's form (per-layer list), re-laid for decoding.

  The old sampler params, if given, are donated and their memory is written over (their dtype and
  layout stay); the learner's are left alone. mesh is that of a first hand-over.
  """
  program = hand_over_program(old, params, mesh)
  return program(params) if old is None else program(old, params)


def hand_over_program(old: Params | None, params: Params, mesh: Mesh | None = None) -> Any:
  """What hand_over jits, of arrays or described ones: (params), or (old, params)."""
  if old is not None:
    layout = jax.tree.map(lambda leaf: leaf.sharding, old)
    first = jax.tree.leaves(layout)[0]
    rewrite = _rewrite(_between(params, getattr(first, 'mesh', None)))
    return jax.jit(rewrite, donate_argnames=('old',), keep_unused=True, out_shardings=layout)
  copied = _copied(_between(params, mesh))
  if mesh is None:
    return jax.jit(copied)
  return jax.jit(copied, out_shardings=sampler_shardings(params, mesh)[1])


def _between(params: Params, mesh: Mesh | None) -> Layouts:
  """Layouts on the way from the learner's to the sampler's, on the sampler's mesh.

  What fsdp splits stays split, over all rows of that mesh, until heads and vocabulary lie where the
  sampler has them: then a device gathers its own part and no more. Left to itself the compiler
  gathers embed and head whole on every device where `tensor` is not the same.
  """

  def one(leaf: Any) -> NamedSharding | None:
    own = leaf.sharding
    if mesh is None or not isinstance(own, NamedSharding) or 'fsdp' not in own.spec:
      return None
    parts = {None: 1, 'tensor': mesh.shape['tensor'], 'fsdp': row_parts(mesh)}
    if any(size % parts[axis] for size, axis in zip(leaf.shape, own.spec, strict=False)):
      return None
    return NamedSharding(mesh, PartitionSpec(*(ROWS if a == 'fsdp' else a for a in own.spec)))

  return tuple(one(leaf) for leaf in jax.tree.leaves(params))


def sampler_shardings(params: Params, mesh: Mesh) -> tuple[Params, Any]:
  """Shapes of the learner's params in the sampler's form, and their shardings for decoding."""
  shapes = jax.eval_shape(_sampler_form, params)
  return shapes, decode_shardings(shapes, mesh)


def decode_shardings(params: Any, mesh: Mesh) -> Any:
  """Shardings of sampler params; kv weights are replicated where `tensor` does not divide them."""
  kv_heads = params['layers'][0]['k'].shape[1]
  replicate = KV_PATHS if kv_heads % mesh.shape['tensor'] else None
  return shardings(params, DECODE_RULES, mesh, replicate=replicate)
