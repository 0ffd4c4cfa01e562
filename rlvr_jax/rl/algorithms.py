"""The table: an algorithm is a row of choices among the core's small functions."""

import dataclasses

from rlvr_jax.rl import kl

AGGREGATIONS = (
  'token_mean',
  'seq_mean_token_mean',
  'seq_mean_token_sum',
  'seq_mean_token_sum_norm',
)


@dataclasses.dataclass(frozen=True)
class Algorithm:
  """One row; hashable, so that a jitted update can close over it.

  baseline, scale, ddof, eps: rl/advantages.py. surrogate, clips, aggregation: rl/losses.py.
  kl_coef 0 means no reference model and no reference forward.
  """

  baseline: str = 'group_mean'
  scale: str = 'group_std'
  ddof: int = 1
  eps: float = 1e-6
  surrogate: str = 'ppo_clip'
  clip_low: float = 0.2
  clip_high: float = 0.2
  dual_clip: float = 3.0
  aggregation: str = 'token_mean'
  kl_coef: float = 0.0
  kl_kind: str = 'k3_st'


ALGORITHMS = {
  # Shao et al. 2024 with verl's conventions: token mean, ddof 1, eps 1e-6, dual clip 3
  'grpo': Algorithm(),
  # supervised fine-tuning: the same update with every completion token at weight 1
  'sft': Algorithm(baseline='none', scale='none', surrogate='nll'),
}


def choose(name: str, **overrides) -> Algorithm:
  """The row `name` with some cells replaced; ValueError naming the key that does not fit."""
  if name not in ALGORITHMS:
    raise ValueError(f'train.algorithm={name!r}: known are {", ".join(sorted(ALGORITHMS))}')
  cells = [field.name for field in dataclasses.fields(Algorithm)]
  unknown = sorted(set(overrides) - set(cells))
  if unknown:
    raise ValueError(f'an algorithm has no cell {", ".join(unknown)}: it has {", ".join(cells)}')
  algorithm = dataclasses.replace(ALGORITHMS[name], **overrides)
  if algorithm.aggregation not in AGGREGATIONS:
    raise ValueError(
      f'train.aggregation={algorithm.aggregation!r}: known are {", ".join(AGGREGATIONS)}'
    )
  if algorithm.scale != 'none' and algorithm.baseline == 'none':
    raise ValueError(
      f'train.algorithm={name!r} has no baseline, so rewards cannot be divided by the deviation '
      'within a group; set train.std_normalise=False'
    )
  if algorithm.kl_coef:
    kl.check_loss_kind(algorithm.kl_kind)
  if algorithm.dual_clip and algorithm.dual_clip <= 1:
    raise ValueError(f'train.dual_clip={algorithm.dual_clip} must be above 1, or 0 for none')
  return algorithm
