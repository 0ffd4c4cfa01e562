"""Keys of job=benchmark (docs/boundary_benchmark.md), and of --config.full."""

from typing import Any

from rlvr_jax.config import dotted


def boundary() -> dict[str, Any]:
  """The keys full, full_values and benchmark of configs/base.py."""
  return {
    'full': False,  # apply full_values: what is too long for every day
    'full_values': dotted({}),  # dotted key -> value
    'benchmark': {
      'families': dotted({}),  # name -> {dotted key: value}: a task and its base
      'run_families': (),  # names of families to run, in this order
      'common': dotted({}),  # dotted key -> value: what the arms of all methods set
      'methods': dotted({}),  # name -> {dotted key: value}: what its own set; and label
      'run_methods': (),  # names of methods to run, in this order
      'add': '',  # Python files with METHODS (and FAMILIES) that run too; commas between
      'reference': 'grpo',  # the method to beat at pass@1
      'seeds': 5,  # trainings of each method: seeds 1, 2, ...
      'tokens': 400_000,  # sampled while training, of every model
      'k': 1024,  # the large k
      'margin': 0.02,  # of pass@k: a method that loses less is not inferior to the base
      'reports': True,  # a report of every family too
    },
  }
