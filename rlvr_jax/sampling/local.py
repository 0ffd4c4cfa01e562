"""The sampler of one process among several: a mesh of its own devices, with the learner's weights.

Each process draws its share on its own devices, so that no step of decoding waits for another. By
the exactness contract (docs/design.md) a token does not depend on who drew it.
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from rlvr_jax import hosts
from rlvr_jax.models.transformer import Params
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sharding import AXES


def local_mesh(mesh: Mesh | None) -> Mesh | None:
  """This process's part of a mesh over all processes; None where that is a single device.

  Each of its rows (data, fsdp) has to lie within a process. ValueError if some do not: the sampler
  would wait for the network at every token.
  """
  if mesh is None or hosts.count() == 1:
    return mesh
  tensor = mesh.shape['tensor']
  rows = mesh.devices.reshape(-1, tensor)
  owners = [{device.process_index for device in row} for row in rows]
  if any(len(owner) > 1 for owner in owners):
    raise ValueError(
      f'mesh.tensor={tensor} reaches over processes of {jax.local_device_count()} devices each; '
      'take a divisor of that, and mesh.fsdp for the rest'
    )
  own = rows[[owner == {jax.process_index()} for owner in owners]]
  if own.size == 1:
    return None
  types = mesh.axis_types
  return Mesh(own.reshape(-1, 1, tensor), AXES, axis_types=types)


def hand_over_locally(old: Params | None, params: Params, mesh: Mesh | None) -> Params:
  """layout.hand_over for the sampler of this process.

  params: on this process's devices alone, or on a mesh over all, which `mesh` then is. Of several
  processes each gets a whole copy (split over tensor only) on its own devices; old is None there.
  """
  if hosts.count() == 1:
    return hand_over(old, params, mesh)
  own = local_mesh(mesh)
  if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params)):
    return hand_over(None, params, own)
  return jax.tree.map(lambda leaf: _own_part(leaf, own), hand_over(None, params, mesh))


def _own_part(leaf: jax.Array, own: Mesh | None) -> jax.Array:
  """The shards of a leaf that lie here, as an array of their own; nothing is copied.

  Every row of the mesh holds the whole of the leaf.
  """
  here = {shard.device: shard.data for shard in leaf.addressable_shards}
  if own is None:
    (alone,) = here.values()
    return alone
  assert isinstance(leaf.sharding, NamedSharding)
  pieces = [here[device] for device in np.ravel(own.devices)]
  return jax.make_array_from_single_device_arrays(
    leaf.shape, NamedSharding(own, leaf.sharding.spec), pieces
  )
