"""Early stopping that stays exact: which draws of a problem are wanted, kept, or ran ahead.

Every problem gets `first` draws. It ends at the smallest T >= first at which `stop_after` of the
draws [0, T) are correct, else at n; draws [0, T) are kept, whatever was drawn beyond T is left out.
T is counted in index order, never in the order of finishing, so what is kept is a function of the
draws alone: the number of slots, kills and slow verifiers change what is wasted, not what is kept.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from rlvr_jax.config import check_stopping

ROUND = 16  # draws of a problem beyond `first` before the next problem has its turn
Row = TypeVar('Row')


@dataclasses.dataclass(frozen=True)
class Rule:
  """n draws of a problem at most; none after the `first` once stop_after are correct (0: off)."""

  n: int
  first: int = 0
  stop_after: int = 0

  def __post_init__(self):
    check_stopping(self.n, self.first, self.stop_after)

  def settings(self) -> dict[str, int]:
    """What a store's rows depend on beside their draws; n is not part, so that it may grow."""
    if not self.stop_after:
      return {}
    return {'first': self.first, 'stop_after': self.stop_after}

  def rounds(self) -> list[tuple[int, int]]:
    """Index ranges drawn problem by problem, each before the next is begun."""
    if not self.stop_after:
      return [(0, self.n)]
    edges = [0, *range(self.first, self.n, ROUND), self.n]
    return list(itertools.pairwise(edges))


class Draws(Generic[Row]):
  """The draws of one problem: what is known of them, and what follows for the rest.

  end: draws from this index on are not wanted. It is at least T, only falls, and is T as soon as
  all draws below it are known (`settled`). held: known draws that wait for an earlier one.
  """

  def __init__(self, rule: Rule):
    self._rule = rule
    self._known = bytearray(rule.n)
    self._next = 0  # every draw below is known
    self._correct: list[int] = []  # the smallest indices of correct draws, stop_after at most
    self.end = rule.n
    self.held: dict[int, Row] = {}

  @property
  def settled(self) -> bool:
    """Whether every draw that is kept is known."""
    return self._next >= self.end

  @property
  def missing(self) -> tuple[int, int]:
    """Draws still to be made: at least, and at most."""
    sure = self._rule.first if self._rule.stop_after else self.end
    least, most = (end - self._known.count(1, 0, end) for end in (sure, self.end))
    return least, most

  def wanted(self, sample: int) -> bool:
    """Whether draw `sample` is still to be made."""
    return sample < self.end and not self._known[sample]

  def unknown(self, sample: int) -> bool:
    """Whether draw `sample` has not been made, wanted or not."""
    return sample < self._rule.n and not self._known[sample]

  def certain(self) -> Iterator[int]:
    """Draws to be made that are kept whatever the others turn out to be, in index order."""
    sure = self.end
    if self._rule.stop_after:
      sure = min(self.end, max(self._rule.first, self._next + 1))
    return (i for i in range(self._next, sure) if not self._known[i])

  def restore(self, sample: int, correct: bool) -> None:
    """Notes a draw that is kept already."""
    self._note(sample, correct)

  def add(self, sample: int, correct: bool, row: Row) -> tuple[list[Row], list[Row]]:
    """Notes a new draw: (rows that are now known to be kept, rows now known to be left out)."""
    begin, end = self._next, self.end
    self._note(sample, correct)
    if not self._rule.stop_after:
      return [row], []
    self.held[sample] = row
    sure = max(self._rule.first, self._next)
    ready = {sample, *range(begin, self._next)}
    kept = [self.held.pop(i) for i in sorted(ready) if i < min(sure, self.end) and i in self.held]
    suspects = sorted(self.held) if self.end < end else [sample] if sample in self.held else []
    return kept, [self.held.pop(i) for i in suspects if i >= self.end]

  def _note(self, sample: int, correct: bool) -> None:
    assert not self._known[sample], f'draw {sample} is known already'
    self._known[sample] = 1
    after = self._rule.stop_after
    if correct and after:
      bisect.insort(self._correct, sample)
      del self._correct[after:]
      if len(self._correct) == after:
        self.end = min(self.end, max(self._rule.first, self._correct[-1] + 1))
    while self._next < self.end and self._known[self._next]:
      self._next += 1


def order(rule: Rule, draws: Sequence[Draws[Any]]) -> Iterator[tuple[int, int]]:
  """(problem, sample) of every draw that is wanted at the moment it is asked for, each once."""
  for begin, end in rule.rounds():
    for problem, one in enumerate(draws):
      for sample in range(begin, end):
        if one.wanted(sample):
          yield problem, sample
