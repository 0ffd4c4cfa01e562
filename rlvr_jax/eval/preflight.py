"""What a sampling run will cost, from a pilot of 1% of its own draws, before the rest is begun."""

import collections
import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from rlvr_jax.eval.intervals import mean_interval
from rlvr_jax.eval.stopping import Draws
from rlvr_jax.metrics import format_seconds

SHARE = 100  # one draw in so many is a pilot's
FEW = 4  # draws of a pilot at least
MOST = 4096  # lengths that an interval is made from
WINDOW_S = 30.0  # the live rates are those of this many seconds


class Stats(Protocol):
  """The counters of a sampler that are read here, all cumulative."""

  tokens: int
  steps: int
  slot_steps: int
  live_steps: int


def pilot_size(total: int, slots: int) -> int:
  """Draws of the pilot: 1%, yet one for each slot if that is at most a tenth, and never under 4.

  Empty slots cost what full ones cost, so a pilot of one a slot takes no longer than a smaller one.
  """
  return min(total, max(FEW, math.ceil(total / SHARE), min(slots, total // 10)))


def choose(draws: Sequence[Draws[Any]], size: int) -> list[tuple[int, int]]:
  """(problem, sample) of the pilot, spread evenly over the problems; draws sure to be kept only."""
  rest = {problem: one.certain() for problem, one in enumerate(draws)}
  chosen: list[tuple[int, int]] = []
  while rest and len(chosen) < size:
    level = [(problem, next(samples, None)) for problem, samples in rest.items()]
    found = [(problem, sample) for problem, sample in level if sample is not None]
    rest = {problem: rest[problem] for problem, _ in found}
    room = min(size - len(chosen), len(found))
    chosen += [found[i * len(found) // room] for i in range(room)]
  return sorted(chosen)


class Pace:
  """How fast a sampler is, by its counters; look() is called at every completion."""

  def __init__(self, stats: Stats):
    self._stats = stats
    self._begin, self._begin_steps = self._now(), stats.steps
    self._recent = collections.deque([self._begin])

  def _now(self) -> tuple[float, int, int, int]:
    return time.monotonic(), self._stats.tokens, self._stats.slot_steps, self._stats.live_steps

  def look(self) -> None:
    """Reads the counters, and the clock."""
    now = self._now()
    self._recent.append(now)
    while len(self._recent) > 2 and now[0] - self._recent[1][0] > WINDOW_S:
      self._recent.popleft()

  def rates(self, *, overall: bool = False) -> dict[str, float]:
    """Tokens a second, and the share of slot-steps that made one, lately or since the start."""
    first, last = self._begin if overall else self._recent[0], self._recent[-1]
    seconds, tokens, slot_steps, live_steps = (b - a for a, b in zip(first, last, strict=True))
    return {
      'tokens/s': tokens / seconds if seconds > 0 else 0.0,
      'occupancy': live_steps / slot_steps if slot_steps else 0.0,
    }

  @property
  def seconds(self) -> float:
    """Seconds since the start."""
    return time.monotonic() - self._begin[0]

  @property
  def steps(self) -> int:
    """Decode steps since the start."""
    return self._stats.steps - self._begin_steps


@dataclasses.dataclass(frozen=True)
class Pilot:
  """What the pilot showed. lengths: tokens of each completion, max_tokens at most.

  seconds: until all of them were judged, for so many decode steps of the slots; row_bytes: disk
  for one completion.
  """

  lengths: np.ndarray
  max_tokens: int
  slots: int
  seconds: float
  steps: int
  row_bytes: float


@dataclasses.dataclass(frozen=True)
class Price:
  """What is to come. draws: (fewest, most); tokens, seconds: (expected, low, high); disk: bytes."""

  draws: tuple[int, int]
  tokens: tuple[float, float, float]
  seconds: tuple[float, float, float]
  disk: float
  pilot: Pilot


def price(pilot: Pilot, fewest: int, most: int) -> Price:
  """The price of between `fewest` and `most` further draws like those of the pilot.

  The range is from the 95% interval of the mean length (intervals.mean_interval: a bootstrap, or
  Clopper-Pearson with fractional successes where the pilot is small, which allows for completions
  up to the limit that it did not show), for the fewest draws at its low end and the most at its
  high end. Time is steps at the pilot's seconds a step, judging and storing included.
  """
  some = pilot.lengths[:: -(-len(pilot.lengths) // MOST)]  # fewer make the interval wider
  band = mean_interval(some / pilot.max_tokens, resamples=1000)
  mean, low, high = (pilot.max_tokens * x for x in band.at(0))
  cases = (most, most * mean), (fewest, fewest * low), (most, most * high)
  # slots that are refilled end within one completion of each other
  steps = [tokens / pilot.slots + pilot.lengths.max() if n else 0.0 for n, tokens in cases]
  expected, least, longest = (pilot.seconds / max(1, pilot.steps) * x for x in steps)
  return Price(
    draws=(fewest, most),
    tokens=(most * mean, fewest * low, most * high),
    seconds=(expected, least, longest),
    disk=most * pilot.row_bytes,
    pilot=pilot,
  )


def of_all(found: Price, processes: int) -> Price:
  """The price for several processes, each of which has such a share to draw at the same time."""
  fewest, most = found.draws
  return dataclasses.replace(
    found,
    draws=(processes * fewest, processes * most),
    tokens=tuple(processes * x for x in found.tokens),
    disk=processes * found.disk,
  )


def describe(found: Price, *, times: int = 1, free: int | None = None) -> list[str]:
  """Lines for people; times: models to be sampled so, free: bytes the disk has left."""
  pilot, (fewest, most) = found.pilot, found.draws
  cut = float((pilot.lengths >= pilot.max_tokens).mean())
  draws = f'{times * most:,}'
  if fewest < most:
    draws = f'{times * fewest:,} to {times * most:,}: how early problems stop, a pilot cannot say'
  tokens, low, high = (times * x for x in found.tokens)
  lines = [
    f'  samples  {draws}',
    f'  tokens   {_count(tokens)} ({_count(low)} to {_count(high)}); {pilot.lengths.mean():.0f} a '
    f'sample, {cut:.0%} run to the limit of {pilot.max_tokens}',
  ]
  expected, least, longest = (format_seconds(times * x) for x in found.seconds)
  pace = f'at the pace of a pilot of {pilot.seconds:.2g} s'
  lines.append(f'  time     {expected} ({least} to {longest}), {pace}')
  room = '' if free is None else f' of {_size(free)} free'
  lines.append(f'  disk     {_size(times * found.disk)}{room}')
  lines.append(
    f'  ranges: 95% for the mean length, from the {len(pilot.lengths)} samples of the pilot'
  )
  return lines


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
  """Names and what they are, in two columns."""
  width = max(len(name) for name, _ in rows)
  return [f'  {name:<{width}}  {text}' for name, text in rows]


def _count(value: float) -> str:
  """'81,234', '4.56M', '1.2G'."""
  for size, unit in ((1e9, 'G'), (1e6, 'M')):
    if value >= size:
      return f'{value / size:.3g}{unit}'
  return f'{value:,.0f}'


def _size(count: float) -> str:
  """Bytes as KiB, MiB, GiB."""
  for power, unit in ((3, 'GiB'), (2, 'MiB')):
    if count >= 1024**power:
      return f'{count / 1024**power:.3g} {unit}'
  return f'{count / 1024:.3g} KiB'
