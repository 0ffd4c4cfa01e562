"""Keys of how a run is watched; none of its numbers depends on them."""

from typing import Any


def operations() -> dict[str, Any]:
  """The groups metrics, profile and watch of configs/base.py."""
  return {
    'metrics': {  # beside metrics.jsonl, which is always written
      'tensorboard': True,
      'wandb': False,  # needs the wandb extra and an account
      'peak_flops': 0.0,  # FLOP/s of one device that MFU is a share of; 0: by rl/utilisation.py's
      # table of devices, and no MFU for one that it does not know, as a CPU
    },
    'profile': {'start': -1, 'stop': -1},  # iterations [start, stop) traced; -1: none
    'watch': {
      'hang_seconds': 1800.0,  # without progress, then all threads' stacks go into
      # WORKDIR/stacks-*.txt; longer than the longest compilation or step; 0: never
      'hang_exit': False,  # end the process then, with exit code 75
      # seconds after SIGTERM that training goes on sampling; then it gives the iteration up (it is
      # drawn again, the same) and saves what was before it. 0: it is finished, however long that is
      'grace_seconds': 0.0,
    },
  }
