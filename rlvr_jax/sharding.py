"""Meshes and shardings from rules tables: regex on a leaf's path -> PartitionSpec."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')
ROWS = ('data', 'fsdp')  # split the rows of a batch, and the sampler's slots
Rules = Sequence[tuple[str, PartitionSpec]]


def make_mesh(
  data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
  """A mesh over the devices with axes (data, fsdp, tensor); one axis may be -1 (the rest).

  Raises ValueError, naming the keys and the device count, when the shape does not fit.
  """
  devices = jax.devices() if devices is None else list(devices)
  shape = [data, fsdp, tensor]
  given = 'mesh.data={}, mesh.fsdp={}, mesh.tensor={}'.format(*shape)
  if sum(n == -1 for n in shape) > 1 or any(n == 0 or n < -1 for n in shape):
    raise ValueError(f'{given}: sizes are positive, and at most one may be -1 (the rest)')
  fixed = math.prod(n for n in shape if n != -1)
  if -1 in shape and len(devices) % fixed == 0:
    shape[shape.index(-1)] = len(devices) // fixed
  if math.prod(shape) != len(devices):
    raise ValueError(
      f'{given} does not divide the {len(devices)} devices present ({devices[0].platform}): '
      'the product must equal their number; set one axis to -1 to take the rest'
    )
  return jax.make_mesh(tuple(shape), AXES, axis_types=(AxisType.Auto,) * 3, devices=tuple(devices))


def row_parts(mesh: Mesh | None) -> int:
  """Into how many parts a mesh splits rows, and the sampler's slots."""
  return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in ROWS)


def constrain(x: jax.Array, mesh: Mesh | None, *axes: Any) -> jax.Array:
  """x laid out over the mesh by PartitionSpec(*axes); as it is without a mesh."""
  if mesh is None:
    return x
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))


def over_heads(attend: Callable, axis: str | None, kv_heads: int, of_cache: int) -> Callable:
  """attend(q, new_k, new_v, cache, plan) -> (out, cache) for a shard of a mesh.

  For kernels that jit does not partition. Heads, axis 1 of q and of new keys and values and axis
  `of_cache` of the cache's arrays, are split over a mesh axis where that divides kv_heads. Within a
  shard_map over some axes it goes over the others too, whatever their size; outside of one it is
  attend.
  """

  def over(q: jax.Array, new_k: jax.Array, new_v: jax.Array, cache: Any, plan: Any):
    mesh = jax.sharding.get_abstract_mesh()
    manual = frozenset(mesh.manual_axes)
    free = frozenset(mesh.axis_names) - manual
    if not (manual and free):
      return attend(q, new_k, new_v, cache, plan)
    split = axis if axis is not None and kv_heads % mesh.shape[axis] == 0 else None
    heads, cached = PartitionSpec(None, split), PartitionSpec(*(None,) * of_cache, split)
    mapped = jax.shard_map(
      attend,
      in_specs=(heads, heads, heads, cached, PartitionSpec()),
      out_specs=(heads, cached),
      axis_names=free,
      check_vma=False,
    )
    return mapped(q, new_k, new_v, cache, plan)

  return over


def path_name(path: tuple) -> str:
  """'layers/3/q' for a tree path."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _spec_for(name: str, shape: tuple[int, ...], rules: Rules, mesh: Mesh) -> PartitionSpec:
  spec = next((spec for pattern, spec in rules if re.search(pattern, name)), None)
  if spec is None:
    if math.prod(shape) == 1:
      return PartitionSpec()
    raise ValueError(f'no sharding rule for {name} {shape}; add one to models/rules.py')
  if len(spec) > len(shape):
    raise ValueError(f'{name} has shape {shape}, but its rule {spec} names {len(spec)} axes')
  for size, axes in zip(shape, spec, strict=False):
    names = (axes,) if isinstance(axes, str) else (axes or ())
    parts = math.prod(mesh.shape[a] for a in names)
    if size % parts:
      raise ValueError(
        f'{name} {shape}: an axis of size {size} cannot be split {parts} ways over mesh axes '
        f'{names}; choose mesh sizes that divide it'
      )
  return spec


def shardings(tree: Any, rules: Rules, mesh: Mesh, *, replicate: str | None = None) -> Any:
  """A tree of NamedSharding like `tree` (arrays or ShapeDtypeStructs), first matching rule wins.

  Leaves whose path matches the regex `replicate` drop the tensor axis. Raises ValueError naming
  the leaf for a missing rule or an axis that does not divide.
  """

  def one(path: tuple, leaf: Any) -> NamedSharding:
    name = path_name(path)
    table = rules
    if replicate and re.search(replicate, name):
      table = [(p, _without_tensor(spec)) for p, spec in rules]
    return NamedSharding(mesh, _spec_for(name, leaf.shape, table, mesh))

  return jax.tree_util.tree_map_with_path(one, tree)


def _without_tensor(spec: PartitionSpec) -> PartitionSpec:
  return PartitionSpec(*(None if axes == 'tensor' else axes for axes in spec))


def sampler_mesh(mesh: Mesh | None, tensor: int = 0) -> Mesh | None:
  """The sampler's mesh on the devices of the learner's: `tensor` of them share its weights.

  tensor 0: as many as in `mesh`. Devices keep their order, so that one program takes weights from
  one layout to the other, and neighbours share. ValueError where tensor does not divide them.
  """
  if mesh is None or tensor in (0, mesh.shape['tensor']):
    if mesh is None and tensor > 1:
      raise ValueError(f'sampling.tensor={tensor} on a single device; set it to 0 or 1')
    return mesh
  if mesh.size % tensor:
    raise ValueError(
      f'sampling.tensor={tensor} does not divide the {mesh.size} devices; take a divisor, or 0 for '
      "the learner's mesh.tensor"
    )
  devices = mesh.devices.reshape(-1, 1, tensor)
  return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)
