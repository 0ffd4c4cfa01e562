"""Where a process of a run stands: by config, environment, or the cluster it was started in."""

import dataclasses
import os
from typing import Any

from rlvr_jax.config import Config


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a process stands. coordinator: host:port of process 0."""

  coordinator: str
  count: int
  index: int


def find(config: Config) -> Place | None:
  """Where this process stands: by config.hosts, the environment, or the cluster; None: alone.

  ValueError for half of an answer.
  """
  h, env = config.hosts, os.environ
  coordinator = h.coordinator or env.get('JAX_COORDINATOR_ADDRESS', '')
  total = h.count or int(env.get('JAX_NUM_PROCESSES', 0))
  number = h.index if h.index >= 0 else int(env.get('JAX_PROCESS_ID', -1))
  if total == 1:
    return None
  if not (coordinator and total and number >= 0) and h.detect:
    found = _detected(coordinator or None, total or None, number if number >= 0 else None)
    coordinator, total, number = found or (coordinator, total, number)
  if total == 1 or not (coordinator or total or number >= 0):
    return None
  lacks = {
    'hosts.coordinator': not coordinator, 'hosts.count': not total, 'hosts.index': number < 0
  }  # fmt: skip
  if any(lacks.values()):
    raise ValueError(
      f'a run of several processes needs {", ".join(k for k, v in lacks.items() if v)} too (or '
      'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID); a run of one none of them'
    )
  if not coordinator.rpartition(':')[2].isdigit():
    raise ValueError(f'hosts.coordinator={coordinator!r} is no host:port')
  if not 0 <= number < total:
    raise ValueError(f'hosts.index={number} is not from 0 to {total - 1} (hosts.count={total})')
  return Place(coordinator, total, number)


def _detected(
  coordinator: str | None, total: int | None, number: int | None
) -> tuple[str, int, int] | None:
  """(coordinator, count, index) of a TPU pod, SLURM, GKE or Open MPI, as jax finds them."""
  env = os.environ
  if 'KUBERNETES_SERVICE_HOST' in env and not {'JOB_COMPLETION_INDEX', 'TPU_WORKER_ID'} & {*env}:
    return None  # a pod that is no part of an indexed job
  from jax._src import clusters

  found: tuple[Any, ...] = clusters.ClusterEnv.auto_detect_unset_distributed_params(
    coordinator, total, number, None, None, 300
  )
  return None if None in found[:3] else (str(found[0]), int(found[1]), int(found[2]))


def alone_on_node() -> bool:
  """Whether no other process of the run is on this machine, as far as SLURM or MPI say."""
  if int(os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE', 1)) > 1:
    return False
  nodes = os.environ.get('SLURM_STEP_NUM_NODES') or os.environ.get('SLURM_JOB_NUM_NODES')
  return nodes is None or os.environ.get('SLURM_NTASKS') == nodes
