"""Cells of another tool's samples: what a value means, and what no value may be."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from rlvr_jax.tasks.problem import VERDICTS

# one value for all samples of a file, except of the seed
SETTINGS = (
  'temperature', 'top_p', 'top_k', 'max_tokens', 'seed', 'coupling', 'model', 'task', 'verifier',
  'prompt_hash', 'first', 'stop_after',
)  # fmt: skip
COUPLINGS = ('independent', 'common')
_LARGEST = 2**31 - 1  # what the sample store has room for
_SHARES = ('correct', 'is_correct', 'verdict')  # columns in which 0.5 would be no verdict


def identity(row: Mapping[str, Any], column: str, where: str) -> str:
  """The problem's id as text; ValueError for none, NaN, true, a list, or broken Unicode."""
  value = row.get(column)
  text = str(value)
  nothing = value is None or value == '' or value != value
  if nothing or isinstance(value, dict | list | bool | bytes) or text != whole_text(text):
    raise ValueError(f'{where}: {column}={value!r} names no problem')
  return text


def whole_text(text: str) -> str:
  """The text with U+FFFD for halves of surrogate pairs, which no file of UTF-8 can hold."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
  return text


def known(row: Mapping[str, Any], column: str) -> Any:
  """The cell, None where it is empty: a CSV has no other way to leave one out."""
  value = row.get(column)
  return None if value == '' else value


def whole(row: Mapping[str, Any], column: str, where: str) -> int:
  """The whole number from 0 on of a cell, also as text or 3.0; else ValueError."""
  value = row.get(column)
  found = None if isinstance(value, bool) else number(value)
  if found is None or found != int(found) or not 0 <= found <= _LARGEST:
    raise ValueError(f'{where}: {column}={shown(value)} is no whole number from 0 on')
  return int(found)


def number(value: Any) -> float | None:
  """The finite number that a cell holds, also as text; else None."""
  try:
    found = float(value)
  except (TypeError, ValueError, OverflowError):
    return None
  return found if math.isfinite(found) else None


def shown(value: Any) -> str:
  """A value in a message, cut where it is long."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def verdict_of(value: Any, column: str, where: str) -> str:
  """The verdict a cell stands for: its name, true or false, or a number (1 is correct)."""
  if isinstance(value, str):
    if value in VERDICTS:
      return value
    value = {'true': True, 'false': False}.get(value.lower(), value)
  found = number(value)
  if found is not None and (
    found in (0, 1) or column == 'reward' or (0 <= found <= 1 and column not in _SHARES)
  ):
    return 'correct' if found == 1 else 'wrong'
  numbers = '0 or 1' if column in _SHARES else 'a number up to 1 (1 is correct)'
  raise ValueError(
    f'{where}: {column}={shown(value)} is neither true, false, {numbers} nor one of '
    f'{", ".join(VERDICTS)}; name another column with --config.compare.fields.verdict=...'
  )


def finish_of(reason: Any) -> str:
  """Why a completion ended, as our stores say it: eos, length, or what the file has."""
  return {'stop': 'eos', 'max_tokens': 'length'}.get(str(reason), str(reason))


def check_agreeing(row: Mapping[str, Any], name: str, column: str, where: str) -> None:
  """ValueError where verdict and correct, both given, say different things of a completion."""
  for other in ('verdict', 'correct'):
    if other != column and known(row, other) is not None:
      said = verdict_of(row[other], other, where)
      if (said == 'correct') != (name == 'correct'):
        raise ValueError(f'{where}: {column}={row[column]!r} contradicts {other}={row[other]!r}')


def take_beside(
  row: Mapping[str, Any],
  problem: str,
  where: str,
  prompts: dict[str, str],
  answers: dict[str, str],
) -> None:
  """Notes a problem's prompt and answer; ValueError if it had another one before."""
  for column, before in (('prompt', prompts), ('answer', answers)):
    value = known(row, column)
    if value is not None:
      text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
      text = whole_text(text)
      if before.setdefault(problem, text) != text:
        raise ValueError(
          f'{where}: problem {problem!r} has another {column} than in an earlier row; its '
          'samples are not of one problem. Give the problems ids of their own, and tasks that '
          'share their ids as stores of their own'
        )


def setting(name: str, value: Any, where: str) -> Any:
  """A sampling setting as our stores say it; ValueError for what it cannot be."""
  found = None if isinstance(value, bool) else number(value)
  if name in ('top_k', 'max_tokens', 'first', 'stop_after'):
    least = -1 if name == 'top_k' else 1
    if found is None or found != int(found) or found < least:
      raise ValueError(f'{where}: {name}={shown(value)} is no whole number from {least} on')
    return max(0, int(found))  # top_k: -1 is vLLM's off, as 0 is
  if name in ('temperature', 'top_p'):
    if found is None or found < 0:
      raise ValueError(f'{where}: {name}={shown(value)} is no number from 0 on')
    return int(found) if found == int(found) else found
  if isinstance(value, dict | list | bytes) or value != value:
    raise ValueError(f'{where}: {name}={shown(value)} is no text')
  if name == 'coupling' and value not in COUPLINGS:
    raise ValueError(f'{where}: coupling={shown(value)} is none of {", ".join(COUPLINGS)}')
  if name == 'seed' and found is not None and found == int(found):
    return int(found)
  return whole_text(str(value))  # never a number: version 1.10 is not 1.1


class Settings:
  """The columns of SETTINGS, of which one store has one value each. found: what they say."""

  def __init__(self, path: pathlib.Path):
    self.found: dict[str, Any] = {}
    self._path = path
    self._told: dict[str, int] = {}
    self._rows = 0

  def take(self, row: Mapping[str, Any], where: str) -> None:
    """Notes a row's settings; ValueError if an earlier row had others (seeds may vary)."""
    self._rows += 1
    for name in SETTINGS:
      if known(row, name) is None:
        continue
      self._told[name] = self._told.get(name, 0) + 1
      value = setting(name, row[name], where)
      if self.found.setdefault(name, value) == value:
        continue
      if name == 'seed':
        self.found[name] = 'several'
        continue
      what = 'verdicts of several verifier versions' if name == 'verifier' else 'several settings'
      raise ValueError(
        f'{where}: {what}, {name}={value!r} after {name}={self.found[name]!r}. They are never '
        f'averaged: split {self._path.name} by {name}, and give each part as a store'
      )

  def done(self) -> dict[str, Any]:
    """What was found; ValueError for a setting that only some rows say."""
    for name, told in self._told.items():
      if told < self._rows and name != 'seed':
        raise ValueError(
          f'{self._path}: {name}={self.found[name]!r} in {told:,} of {self._rows:,} rows, and the '
          f'others do not say. Were files of two kinds joined? Fill the column {name}, leave it '
          'out, or split the file'
        )
    first, stop = (self.found.get(name) for name in ('first', 'stop_after'))
    if (first is None) != (stop is None):
      raise ValueError(
        f'{self._path}: draws that were stopped early need both columns, first and stop_after; '
        f'there are first={first}, stop_after={stop}'
      )
    return self.found
