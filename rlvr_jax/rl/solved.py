"""What a run has seen of each problem: how often it was drawn, and its running solve rate.

A draw's right completions over its completions, where each draw before it counts half of the next:
the rate follows a policy that moves. Only the policy's own completions count, none of the start
model's and none that is replayed.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from rlvr_jax.config import Config
from rlvr_jax.rl.draws import POLICY, Group, origins

FADE = 0.5  # what is left of earlier draws at the next one of the same problem


@dataclasses.dataclass(frozen=True)
class Solved:
  """Of each of P problems: draws i64[P]; faded counts of completions and of right ones f64[P]."""

  visits: np.ndarray
  tries: np.ndarray
  right: np.ndarray

  @property
  def seen(self) -> np.ndarray:
    """bool[P] problems whose rate is known."""
    return self.tries > 0

  @property
  def rate(self) -> np.ndarray:
    """f64[P] running solve rates; NaN where none is known."""
    return np.where(self.seen, self.right / np.where(self.seen, self.tries, 1.0), np.nan)


def nothing(problems: int) -> Solved:
  """Before the first draw."""
  return Solved(np.zeros(problems, np.int64), np.zeros(problems), np.zeros(problems))


def after(config: Config, solved: Solved, groups: Iterable[Group]) -> Solved:
  """What is known when these groups were drawn too, in this order."""
  visits, tries, right = solved.visits.copy(), solved.tries.copy(), solved.right.copy()
  for group in groups:
    own = origins(config, group) == POLICY
    i = group.index
    visits[i] += 1
    tries[i] = FADE * tries[i] + own.sum()
    right[i] = FADE * right[i] + (own & group.correct).sum()
  return Solved(visits, tries, right)


def to_json(solved: Solved) -> list[list[Any]]:
  """[index, visits, tries, right] of each problem that was drawn; floats come back exactly."""
  return [
    [i, int(solved.visits[i]), float(solved.tries[i]), float(solved.right[i])]
    for i in np.flatnonzero(solved.visits).tolist()
  ]


def from_json(problems: int, found: Iterable[list[Any]]) -> Solved:
  """What to_json wrote, over as many problems."""
  solved = nothing(problems)
  for i, visits, tries, right in found:
    solved.visits[i], solved.tries[i], solved.right[i] = visits, tries, right
  return solved
