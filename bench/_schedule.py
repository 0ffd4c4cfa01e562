"""What a sampler can do at best with completions of given lengths: laws of lengths, and schedules.

Numpy alone, so that the ideal is computed in the run that is compared with it.
"""

import dataclasses
import heapq

import numpy as np


@dataclasses.dataclass(frozen=True)
class LengthLaw:
  """Lognormal lengths (tokens) cut at cap, a share of which runs away to the cap."""

  median: float
  sigma: float
  runaway: float
  cap: int

  def draw(self, count: int, seed: int) -> np.ndarray:
    """Lengths i64[count] in 1..cap."""
    rng = np.random.default_rng(seed)
    lengths = np.rint(self.median * np.exp(self.sigma * rng.standard_normal(count)))
    lengths[rng.random(count) < self.runaway] = self.cap
    return np.clip(lengths, 1, self.cap).astype(np.int64)

  def __str__(self) -> str:
    return (
      f'lognormal(median {self.median:g}, sigma {self.sigma:g}) + {self.runaway:.0%} runaways, '
      f'cap {self.cap}'
    )


# long completions of which 2% never stop, at a cap of 16k and scaled down to what a CPU affords
LONG_TAIL = LengthLaw(median=600, sigma=0.6, runaway=0.02, cap=16_384)
SHORT_TAIL = LengthLaw(median=24, sigma=0.6, runaway=0.02, cap=384)


def spans(lengths: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
  """Begin and end step i64[N] of each completion under list scheduling.

  A freed slot takes the next length of the queue at once, in the step after.
  """
  free = [0] * slots
  begins = np.empty(len(lengths), np.int64)
  for i, length in enumerate(lengths.tolist()):
    begins[i] = heapq.heappop(free)
    heapq.heappush(free, int(begins[i]) + length)
  return begins, begins + lengths


def ideal_steps(lengths: np.ndarray, slots: int) -> tuple[int, int]:
  """Steps of list scheduling: until the last completion ends, and until the queue is empty."""
  begins, ends = spans(lengths, slots)
  return int(ends.max()), int(begins.max())


def live_peak(lengths: np.ndarray, slots: int) -> int:
  """Most tokens alive at once under list scheduling (each step adds one a slot)."""
  begins, ends = spans(lengths, slots)
  # the sum of (t - begin) over what is alive grows between ends, so it peaks at one
  by_end = np.argsort(ends, kind='stable')
  times = ends[by_end]
  sum_begun = np.append(0, np.cumsum(np.sort(begins)))
  sum_ended = np.append(0, np.cumsum(begins[by_end]))
  begun = np.searchsorted(np.sort(begins), times, 'left')
  ended = np.searchsorted(times, times, 'left')
  return int(((begun - ended) * times - (sum_begun[begun] - sum_ended[ended])).max())


def static_steps(lengths: np.ndarray, batch: int) -> int:
  """Decode steps of batches that wait for their slowest."""
  return sum(int(lengths[i : i + batch].max()) for i in range(0, len(lengths), batch))


def occupancy(tokens: int, slots: int, steps: int) -> float:
  """Share of the slot-steps that delivered a token."""
  return tokens / (slots * steps)
