"""Resets of a long run (train.reset_every; ProRL, Liu et al. 2025, arXiv 2505.24864).

Every so many iterations the policy becomes its own KL reference and the optimizer begins anew, so
that a run that its KL term has brought to a halt moves on. Warm-up begins anew with the optimizer.
"""

import jax

from rlvr_jax.config import Config
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.frozen import compute_copy
from rlvr_jax.rl.learner import Learner


def check(config: Config, row: Algorithm) -> None:
  """ValueError for a schedule that resets would begin again, and for references of adapters."""
  every = config.train.reset_every
  if not every:
    return
  what, schedule = f'train.reset_every={every}', config.optimizer.schedule
  if schedule != 'constant':
    raise ValueError(
      f'{what} begins the optimizer anew, and with it optimizer.schedule={schedule!r}, which is '
      "laid out over the whole run; set optimizer.schedule='constant' (warm-up is repeated)"
    )
  if row.reference and config.lora.rank:
    raise ValueError(
      f'{what} makes the policy its own reference, and of lora.rank={config.lora.rank} the '
      'reference is what lies below the adapters; set train.kl_coef=0, or lora.rank=0'
    )
  if row.critic:
    raise ValueError(
      f'{what} resets the policy alone, and train.algorithm={config.train.algorithm!r} learns a '
      'critic beside it; take another algorithm, or train.reset_every=0'
    )


def is_due(every: int, done: int) -> bool:
  """Whether a reset follows when `done` iterations are done."""
  return every > 0 and done > 0 and done % every == 0


def reset(learn: Learner) -> None:
  """The policy becomes the reference, where there is one, and the optimizer's state a new one.

  Twice in a row is once, so that it may be done again where a run resumes.
  """
  if learn.reference is not None:
    learn.reference = compute_copy(learn.state.params, learn.run.model.compute_dtype)
  placed = None
  if learn.mesh is not None:
    placed = jax.tree.map(lambda x: x.sharding, learn.state.opt_state)
  learn.state = learn.state.replace(opt_state=None)  # its memory goes before the new one is made
  begin = jax.jit(learn.optimizer.init, out_shardings=placed)
  learn.state = learn.state.replace(opt_state=begin(learn.trained.take(learn.state)))
