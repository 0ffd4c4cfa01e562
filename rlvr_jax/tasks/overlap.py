"""Problems that two sets share: the same text and images, or long runs of the same words."""

import collections
import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

from rlvr_jax.tasks.problem import Problem

_WORD = re.compile(r'\w+')
NEAR = 0.5  # share of a problem's n-grams from which on it is called a near duplicate


@dataclasses.dataclass(frozen=True)
class Shared:
  """Two problems, and the share of the second one's n-grams that the first one has too."""

  first: str
  second: str
  share: float


@dataclasses.dataclass(frozen=True)
class Overlap:
  """same: pairs of equal text. shared: for each problem of the second set that has an n-gram in
  common with the first, its nearest problem there, largest share first; equal texts are left out.
  too_short: problems of the second set with fewer words than an n-gram, compared whole only."""

  same: tuple[tuple[str, str], ...]
  shared: tuple[Shared, ...]
  too_short: int

  @property
  def near(self) -> tuple[Shared, ...]:
    """Those that share at least half of their n-grams."""
    return tuple(pair for pair in self.shared if pair.share >= NEAR)


def text_of(problem: Problem) -> str:
  """The words of a prompt; of a chat, what the user says."""
  if isinstance(problem.prompt, str):
    return problem.prompt
  return '\n'.join(m['content'] for m in problem.prompt if m['role'] == 'user')


def overlap(first: Sequence[Problem], second: Sequence[Problem], n: int = 13) -> Overlap:
  """What the problems of `second` have in common with those of `first`."""
  whole: dict[str, str] = {}
  holders: dict[int, list[int]] = collections.defaultdict(list)
  for place, problem in enumerate(first):
    text = text_of(problem)
    whole.setdefault(_whole(problem), problem.id)
    for gram in set(_grams(text, n)):
      holders[gram].append(place)
  same: list[tuple[str, str]] = []
  shared: list[Shared] = []
  too_short = 0
  for problem in second:
    text = text_of(problem)
    twin = whole.get(_whole(problem))
    grams = set(_grams(text, n))
    too_short += not grams
    if twin is not None:
      same.append((twin, problem.id))
      continue
    count = collections.Counter(place for gram in grams for place in holders.get(gram, ()))
    if count:
      place, common = min(count.items(), key=lambda item: (-item[1], item[0]))
      shared.append(Shared(first[place].id, problem.id, common / len(grams)))
  shared.sort(key=lambda pair: (-pair.share, pair.second))
  return Overlap(tuple(same), tuple(shared), too_short)


def repeats(problems: Sequence[Problem]) -> list[tuple[str, str]]:
  """Pairs of equal text and images within one set: the first of them, each of the later ones."""
  seen: dict[str, str] = {}
  pairs = []
  for problem in problems:
    twin = seen.setdefault(_whole(problem), problem.id)
    if twin != problem.id:
      pairs.append((twin, problem.id))
  return pairs


def _whole(problem: Problem) -> str:
  """A problem's text, and what stands for its images: their bytes, or where they lie."""
  seen = [
    i.sha256 or (hashlib.sha256(i.data).hexdigest() if i.data else f'{i.path} {i.member} {i.name}')
    for i in problem.images
  ]
  return ' '.join([_squeezed(text_of(problem)), *seen])


def _squeezed(text: str) -> str:
  return ''.join(unicodedata.normalize('NFKC', text).lower().split())


def _grams(text: str, n: int) -> Iterator[int]:
  words = _WORD.findall(unicodedata.normalize('NFKC', text).lower())
  for start in range(len(words) - n + 1):
    yield hash(tuple(words[start : start + n]))
