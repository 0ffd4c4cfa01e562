"""Keys of a run over several processes (docs/multi_host.md); no number depends on them."""

from typing import Any


def processes() -> dict[str, Any]:
  """The group hosts of configs/base.py."""
  return {
    'hosts': {
      'coordinator': '',  # host:port of process 0; '': from the cluster (TPU pod, SLURM, GKE, MPI)
      'count': 0,  # processes; 0: from the cluster, else 1
      'index': -1,  # which of them this one is, from 0; -1: from the cluster
      'detect': True,  # ask the cluster for what is not given
      'wait_s': 300.0,  # seconds to wait for the others at the start
      'silent_s': 20.0,  # seconds without a sign of life after which a process is taken for lost
      'barrier_s': 86_400.0,  # seconds to wait for the others on the way: the slowest one's delay
      'watch_port': 0,  # of the watch beside process 0; 0: the coordinator's plus or minus 1000
    },
  }
