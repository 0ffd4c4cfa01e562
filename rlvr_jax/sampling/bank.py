"""The host's side of the shards' banks: which prompts are resident, and who still needs them."""

import collections
import dataclasses

Prompt = tuple[int, ...]


class Bank:
  """The rows of one shard's bank: prompt -> row, least recently used first."""

  def __init__(self, rows: int):
    self._capacity = rows
    self._rows: collections.OrderedDict[Prompt, int] = collections.OrderedDict()
    self.users = [0] * rows  # items in slots and queue that need the row

  def find(self, prompt: Prompt) -> int | None:
    """The prompt's row, if it is resident."""
    row = self._rows.get(prompt)
    if row is not None:
      self._rows.move_to_end(prompt)
    return row

  def claim(self, prompt: Prompt) -> int | None:
    """A row for a prompt that has none, taken from one that nobody needs; None if all are."""
    if len(self._rows) < self._capacity:
      row = len(self._rows)
    else:
      old = next((p for p, r in self._rows.items() if self.users[r] == 0), None)
      if old is None:
        return None
      row = self._rows.pop(old)
    self._rows[prompt] = row
    return row


@dataclasses.dataclass(frozen=True)
class Place:
  """Where an item goes; new: its prompt has to be prefilled first."""

  shard: int
  row: int
  new: bool


def place(prompt: Prompt, banks: list[Bank], loads: list[int], most: int, slack: int):
  """The Place of an item with this prompt, or None while no shard can take it.

  loads: items of each shard not yet finished; a shard takes up to `most`. The emptiest shard gets
  it, or one up to `slack` items fuller that has the prompt already.
  """
  order = sorted((d for d in range(len(banks)) if loads[d] < most), key=loads.__getitem__)
  for shard in order:
    if loads[shard] > loads[order[0]] + slack:
      break
    row = banks[shard].find(prompt)
    if row is not None:
      return Place(shard, row, False)
  for shard in order:
    row = banks[shard].find(prompt)
    new = row is None
    row = banks[shard].claim(prompt) if row is None else row
    if row is not None:
      return Place(shard, row, new)
  return None
