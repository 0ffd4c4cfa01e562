"""Learning from right answers alone, each once: rejection-sampling fine-tuning as a row.

Yuan et al. 2023 (arXiv 2308.01825) sample a model, keep the completions that are right, drop
repeated ones, and fine-tune on the rest by cross-entropy. Here that is a step like any other: what
is not kept is not valid, so that neither the loss nor its denominators know of it.
"""

from collections.abc import Sequence

import numpy as np

from rlvr_jax.config import Config
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.collect import Group, is_success
from rlvr_jax.rl.types import Rollouts


def first_right(right: np.ndarray, tokens: Sequence[np.ndarray]) -> np.ndarray:
  """bool[G]: the right completions of a group (right bool[G]), each token sequence once."""
  seen: set[bytes] = set()
  found = np.zeros(len(tokens), bool)
  for i in np.flatnonzero(right).tolist():
    text = np.ascontiguousarray(tokens[i], np.int32).tobytes()
    found[i] = text not in seen
    seen.add(text)
  return found


def kept(
  config: Config, algorithm: Algorithm, rollouts: Rollouts, groups: Sequence[Group]
) -> Rollouts:
  """rollouts of the groups with those valid that the row learns from; truncated ones never are."""
  if algorithm.learn_from == 'all':
    return rollouts
  own = [
    first_right(
      is_success(config, group) & ~np.array([s.completion.truncated for s in group.scored]),
      [s.completion.tokens for s in group.scored],
    )
    for group in groups
  ]
  return rollouts.replace(valid=rollouts.valid & np.concatenate(own))
