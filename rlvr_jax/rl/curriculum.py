"""Which problems an iteration draws by their running solve rates (train.curriculum).

A function of (seed, cursor, what was seen), so that a run resumes to the bit. train.explore of the
problems, at least one, come from the ordinary shuffled order whatever their rate: so problems are
met for the first time, and those left behind are looked at again.

band: those whose rate lies in train.curriculum_band, in a random order. easy_to_hard: those whose
rate is at most the band's upper bound, the easiest first; one that is mastered makes room for the
next harder. Where too few are known, the ordinary order fills up.
"""

import math

import numpy as np

from rlvr_jax.rl.draws import batch_of
from rlvr_jax.rl.solved import Solved

KINDS = ('none', 'band', 'easy_to_hard')
KEY = 0xCC  # keeps the order among equals apart from other uses of the seed


def next_draws(
  kind: str,
  solved: Solved,
  *,
  cursor: int,
  size: int,
  seed: int,
  band: tuple[float, float] = (0.0, 1.0),
  explore: float = 1.0,
) -> tuple[list[tuple[int, int]], int]:
  """((problem index, visit) of `size` draws, the cursor after them in the ordinary order).

  With a curriculum no problem comes twice, so that size is at most how many there are.
  """
  count = len(solved.visits)
  if kind == 'none':
    return batch_of(cursor, size, seed, count), cursor + size
  assert size <= count, (size, count)
  chosen = _known(kind, solved, band, np.random.default_rng([seed, KEY, cursor]))
  chosen = chosen[: size - min(size, max(1, math.ceil(explore * size)))]
  taken = set(chosen)
  while len(chosen) < size:
    ((index, _),) = batch_of(cursor, 1, seed, count)
    cursor += 1
    if index not in taken:
      taken.add(index)
      chosen.append(index)
  return [(index, int(solved.visits[index])) for index in chosen], cursor


def _known(
  kind: str, solved: Solved, band: tuple[float, float], rng: np.random.Generator
) -> list[int]:
  """Problems that the curriculum asks for, the most wanted first."""
  order = rng.permutation(len(solved.visits))
  rate = solved.rate[order]
  low, high = band
  if kind == 'band':
    return order[(rate >= low) & (rate <= high)].tolist()
  assert kind == 'easy_to_hard', kind
  open_ones = np.flatnonzero(rate <= high)
  return order[open_ones[np.argsort(-rate[open_ones], kind='stable')]].tolist()
