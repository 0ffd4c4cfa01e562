"""Where each token of a batch goes: rollouts into rows of few lengths, rows into micro-batches.

Host side, numpy alone, and a function of the lengths: the same batch is always laid out the same.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

MIN_LENGTH = 16
LEAST_ROW = 128  # tokens of a packed row, where the micro-batch has as many: attention is no cost
FILL = 0.9  # share of real tokens in what is computed, at which a layout is good enough


def bucket_length(longest: int) -> int:
  """The row length T >= longest: a power of two or 1.5 times one, so that programs stay few."""
  power = max(MIN_LENGTH, 1 << (longest - 1).bit_length())
  three_quarters = power * 3 // 4
  return three_quarters if MIN_LENGTH <= longest <= three_quarters else power


def rows_per_micro_batch(T: int, micro_tokens: int, multiple: int) -> int:
  """Rows b of a micro-batch of at most micro_tokens tokens, a multiple of the mesh's data parts."""
  return max(multiple, micro_tokens // T // multiple * multiple)


@dataclasses.dataclass(frozen=True)
class Layout:
  """Rollouts [B,W] in M micro-batches of b rows of T tokens, and back.

  A rollout lies whole in one row, in its own order. A row may be empty, and so may micro-batches at
  the end (packed: M is a power of two).
  """

  source: np.ndarray  # i64[M,b,T] place of each token in the flat [B*W], -1 where there is none
  shape: tuple[int, int]  # (B, W)
  packed: bool  # else each rollout has its own row

  def cut(self, x: np.ndarray) -> np.ndarray:
    """[B,W] per-token values in the layout [M,b,T]; 0 (False) where there is no token."""
    flat = np.asarray(x).reshape(-1)
    return np.where(self.source >= 0, flat[self.source], np.zeros((), flat.dtype))

  def restore(self, y: Any) -> np.ndarray:
    """Values [M,b,T] (on the host or a device) by rollout, [B,W]; 0 where no token lies."""
    values = np.asarray(y)
    assert values.shape == self.source.shape, (values.shape, self.source.shape)
    flat = np.zeros(self.shape[0] * self.shape[1], values.dtype)
    here = self.source >= 0
    flat[self.source[here]] = values[here]
    return flat.reshape(self.shape)

  @property
  def positions(self) -> np.ndarray:
    """Place of each token in its rollout, i32[M,b,T]; 0 where there is no token."""
    return np.where(self.source >= 0, self.source % self.shape[1], 0).astype(np.int32)

  @property
  def segments(self) -> np.ndarray:
    """Number of each token's rollout in its row, i32[M,b,T]; -1 where there is no token."""
    number = np.cumsum(self._begins(), axis=2) - 1
    return np.where(self.source >= 0, number, -1).astype(np.int32)

  @property
  def rollout(self) -> np.ndarray:
    """Number of each token's rollout in its micro-batch, i32[M,b,T], under b*T; 0 without token."""
    begins = self._begins()
    number = np.cumsum(begins.reshape(len(begins), -1), axis=1).reshape(begins.shape) - 1
    return np.where(self.source >= 0, number, 0).astype(np.int32)

  def _begins(self) -> np.ndarray:
    return (self.source >= 0) & (self.source % self.shape[1] == 0)

  @property
  def used(self) -> int:
    """Micro-batches up to the last that holds a token: what is computed."""
    return int(np.flatnonzero((self.source >= 0).any((1, 2))).max(initial=-1)) + 1


def first_fit_decreasing(lengths: np.ndarray, capacity: int) -> list[list[int]]:
  """Rows of indices whose lengths i64[n] add up to at most capacity each.

  The longest first (of equals the earlier), each into the first row that has room (Johnson 1973: at
  most 11/9 of the fewest rows, plus one). Within a row, indices ascend.
  """
  room = np.zeros(len(lengths), np.int64)
  rows: list[list[int]] = []
  for i in np.argsort(-np.asarray(lengths), kind='stable').tolist():
    length = int(lengths[i])
    assert length <= capacity, (length, capacity)
    fits = room[: len(rows)] >= length
    row = int(fits.argmax()) if fits.any() else len(rows)
    if row == len(rows):
      rows.append([])
      room[row] = capacity
    rows[row].append(i)
    room[row] -= length
  return [sorted(row) for row in rows]


def _row_lengths(longest: int, most: int) -> Iterator[int]:
  """Row lengths to try, ascending.

  The bucket of the longest rollout, and its doubles up to most; where that bucket is beyond most
  (a row has to hold a rollout, whatever micro_tokens allows), eighths of an octave up to it.
  """
  T = bucket_length(longest)
  if most < T:
    step = max(MIN_LENGTH, 1 << (longest.bit_length() - 1)) // 8
    yield from range(-(-longest // step) * step, T + 1, step)
    return
  if most >= LEAST_ROW:
    T = max(T, LEAST_ROW)
  while most >= T:
    yield T
    T *= 2


def pack(
  lengths: np.ndarray, *, micro_tokens: int, multiple: int
) -> tuple[list[list[int]], int, int]:
  """(rows of indices, rows b of a micro-batch, row length T) for rollouts of lengths i64[n].

  The shortest rows, and then the largest micro-batch, of which FILL is real tokens; the fullest
  where none reaches it. b is `multiple` times the most that micro_tokens allows, or a half, a
  quarter, ... of that; only where `multiple` rows are already more is micro_tokens exceeded.
  """
  total, best, found = int(np.sum(lengths)), -1.0, None
  for T in _row_lengths(int(np.max(lengths, initial=1)), micro_tokens // multiple):
    rows = first_fit_decreasing(lengths, T) or [[]]
    part = rows_per_micro_batch(T, micro_tokens, multiple) // multiple
    while part:
      b = part * multiple
      part //= 2
      fill = total / (-(-len(rows) // b) * b * T)
      if fill > best:
        best, found = fill, (rows, b, T)
      if fill >= FILL:
        return rows, b, T
  assert found is not None
  return found


def packed_layout(
  lengths: np.ndarray,
  valid: np.ndarray,
  width: int,
  *,
  micro_tokens: int,
  multiple: int = 1,
) -> Layout:
  """The layout of rollouts with lengths i32[B] (prompt and completion) in [B,width], packed.

  Rollouts that are not valid bool[B] are left out. Micro-batches are filled up with empty ones to a
  power of two, which costs nothing: nobody computes them.
  """
  lengths = np.asarray(lengths, np.int64)
  chosen = np.flatnonzero(valid)
  rows, b, T = pack(lengths[chosen], micro_tokens=micro_tokens, multiple=multiple)
  M = 1 << (-(-len(rows) // b) - 1).bit_length()
  source = np.full((M * b, T), -1, np.int64)
  for row, members in zip(source, rows, strict=False):
    begin = 0
    for i in chosen[members].tolist():
      end = begin + int(lengths[i])
      row[begin:end] = np.arange(end - begin) + i * width
      begin = end
  return Layout(source.reshape(M, b, T), (len(lengths), width), True)


def plain_layout(B: int, width: int, *, micro_tokens: int, multiple: int = 1) -> Layout:
  """One rollout a row, in order, rows as long as the rollouts' padding; b depends on width only.

  Rows are filled up to M*b with empty ones.
  """
  b = min(rows_per_micro_batch(width, micro_tokens, multiple), B + -B % multiple)
  rows = B + -B % b
  source = np.arange(rows * width).reshape(rows, width)
  source[B:] = -1
  return Layout(source.reshape(-1, b, width), (B, width), False)
