"""A method for the boundary benchmark: what is right counts more where little of its group is.

  python main.py --config=configs/boundary_benchmark.py --workdir=runs/boundary \
    --config.benchmark.add=docs/examples/my_method.py
"""

import jax.numpy as jnp


def rare(score, stats, group):
  """Scores f[B] of completions as they are praised; stats: their groups' count and mean f[P]."""
  share = stats.mean[group]  # of its group that is right
  return jnp.where(score > 0.5, 1 / jnp.sqrt(jnp.maximum(share, 1e-6)), 0.0)


METHODS = {
  'rare': {
    'train.algorithm': 'grpo',
    'train.credit': f'{__file__}:rare',
    'train.scale': 'none',
    'label': 'right counts by 1 / sqrt(share right)',
  }
}
