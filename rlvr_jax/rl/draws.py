"""The completions of one draw of a problem, and the order in which problems are drawn."""

import dataclasses
import functools

import numpy as np

from rlvr_jax.config import Config
from rlvr_jax.eval.run import Scored

POLICY, BASE, REPLAY = range(3)  # who wrote a completion: the policy now, the start model, before


@dataclasses.dataclass
class Group:
  """The completions of one draw of a problem, in order of sample; index into the problems."""

  index: int
  visit: int
  scored: list[Scored]

  @property
  def correct(self) -> np.ndarray:
    """bool[G] verdicts."""
    return np.array([s.verdict.verdict == 'correct' for s in self.scored], bool)


@functools.lru_cache(maxsize=4)
def draw_order(seed: int, epoch: int, count: int) -> np.ndarray:
  """The order of the problems in an epoch: a function of (seed, epoch)."""
  return np.random.default_rng([seed, epoch]).permutation(count)


def batch_of(cursor: int, size: int, seed: int, count: int) -> list[tuple[int, int]]:
  """(problem index, visit) of draws [cursor, cursor + size) of the endless shuffled order."""
  draws = []
  for position in range(cursor, cursor + size):
    epoch, place = divmod(position, count)
    draws.append((int(draw_order(seed, epoch, count)[place]), epoch))
  return draws


def from_base(config: Config) -> int:
  """How many completions of a group the start model writes: the last ones (train.base_share)."""
  return round(config.train.base_share * config.train.group)


def origins(config: Config, group: Group) -> np.ndarray:
  """i64[G] POLICY, BASE or REPLAY: a replayed completion keeps the visit that it is from."""
  own = config.train.group - from_base(config)
  items = [s.completion.item for s in group.scored]
  return np.array(
    [
      REPLAY if item.visit != group.visit else BASE if item.sample >= own else POLICY
      for item in items
    ]
  )
