"""Rows of our documented schema (docs/samples.md), one a completion, and of counts, as draws."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlvr_jax.eval import columns, importers
from rlvr_jax.eval.importers import Draw, Draws

Rows = Iterator[tuple[str, dict[str, Any]]]  # (where it is, as messages say it; the row)

# columns that are lists where the verdicts are one
_OF_EACH = (
  'sample', 'verdict', 'correct', 'length', 'finish', 'finish_reason', 'extracted', 'reason',
  'reward',
)  # fmt: skip


def counted(path: pathlib.Path, rows: Rows, identity: str) -> Draws:
  """A table of counts: problem, n, c; one row a problem."""
  counts: dict[str, tuple[int, int]] = {}
  settings = columns.Settings(path)
  prompts, answers = {}, {}
  for where, row in rows:
    problem = columns.identity(row, identity, where)
    n, c = columns.whole(row, 'n', where), columns.whole(row, 'c', where)
    if problem in counts:
      raise ValueError(f'{where}: problem {problem!r} stands in {path} twice; delete the copy')
    if not n or c > n:
      raise ValueError(f'{where}: n={n}, c={c} of problem {problem!r}; c is from 0 to n, n from 1')
    counts[problem] = n, c
    settings.take(row, where)
    columns.take_beside(row, problem, where, prompts, answers)
  drawn = [Draw(problem, 0, '', n=n, c=c) for problem, (n, c) in counts.items()]
  return Draws(
    'table of counts (problem_id, n, c)', drawn, settings.done(), prompts, answers, counted=True
  )


def sampled(path: pathlib.Path, rows: Rows, identity: str, verdict: str, text: str) -> Draws:
  """Rows of our documented schema; one with a list of verdicts is that many completions."""
  settings, numbers = columns.Settings(path), _Numbers()
  drawn = []
  prompts, answers = {}, {}
  for where, row in rows:
    problem = columns.identity(row, identity, where)
    for one in _completions(row, verdict, text, where):
      sample = numbers.of(one, problem, where)
      name = columns.verdict_of(one.get(verdict), verdict, where)
      columns.check_agreeing(one, name, verdict, where)
      drawn.append(_draw(one, problem, sample, name, text, where))
    settings.take(row, where)
    columns.take_beside(row, problem, where, prompts, answers)
  _check_halves(path, drawn, numbers.given)
  return Draws(
    'samples of the documented schema', drawn, settings.done(), prompts, answers,
    numbered=numbers.given,
  )  # fmt: skip


def _completions(
  row: dict[str, Any], verdict: str, text: str, where: str
) -> Sequence[dict[str, Any]]:
  """The row itself, or one for each of its verdicts, where that is a list as others then are."""
  values = row.get(verdict)
  if not isinstance(values, list):
    return [row]
  if not values:
    raise ValueError(f'{where}: {verdict}=[] holds no verdict: the problem would be lost unseen')
  names = [name for name in dict.fromkeys((verdict, text, *_OF_EACH)) if row.get(name) is not None]
  for name in names:
    if not isinstance(row[name], list) or len(row[name]) != len(values):
      raise ValueError(
        f'{where}: {len(values)} verdicts in {verdict!r}, but {name}={columns.shown(row[name])} is '
        'no list of as many'
      )
  return [{**row, **{name: row[name][i] for name in names}} for i in range(len(values))]


class _Numbers:
  """The sample numbers of a file, its own or counted on. given: they are its own."""

  def __init__(self):
    self.given = False
    self._next: dict[str, int] = {}
    self._seen: dict[tuple[str, int], str] = {}

  def of(self, row: Mapping[str, Any], problem: str, where: str) -> int:
    """The number of a completion; ValueError for one that was there, or where only some have."""
    given = columns.known(row, 'sample') is not None
    if self._next and self.given != given:
      raise ValueError(f'{where}: some rows have a sample number and some have none')
    self.given = given
    sample = columns.whole(row, 'sample', where) if given else self._next.get(problem, 0)
    self._next[problem] = sample + 1
    if given and (problem, sample) in self._seen:
      raise ValueError(
        f'{where}: sample {sample} of problem {problem!r} is also at '
        f'{self._seen[problem, sample]}; were two files joined? Delete the rows that are copies'
      )
    if given:
      self._seen[problem, sample] = where
    return sample


def _draw(
  row: Mapping[str, Any], problem: str, sample: int, verdict: str, text: str, where: str
) -> Draw:
  completion = row.get(text) if text else None
  if completion is not None and not isinstance(completion, str):
    raise ValueError(f'{where}: the completion is {columns.shown(completion)}, no text')
  length = columns.known(row, 'length')
  reward = columns.number(row.get('reward'))
  return Draw(
    problem,
    sample,
    verdict,
    text=completion,
    length=None if length is None else columns.whole(row, 'length', where),
    finish=columns.finish_of(row.get('finish') or row.get('finish_reason') or ''),
    extracted=str(row.get('extracted') or ''),
    reason=str(row.get('reason') or ''),
    reward=float(verdict == 'correct') if reward is None else reward,
  )


def _check_halves(path: pathlib.Path, drawn: list[Draw], numbered: bool) -> None:
  """ValueError if the file is one file twice, which no sample number shows.

  Without texts the verdicts tell: that those of so many problems fall alike twice is no chance.
  """
  half, rest = divmod(len(drawn), 2)
  if numbered or rest or half < 2:
    return
  first, second = drawn[:half], drawn[half:]
  same = all(
    (a.problem, a.text, a.verdict) == (b.problem, b.text, b.verdict)
    for a, b in zip(first, second, strict=True)
  )
  if not same:
    return
  told = all(row.text for row in drawn) and len({row.text for row in first}) > 1
  right = {row.problem for row in first if row.verdict == 'correct'}
  mixed = right & {row.problem for row in first if row.verdict != 'correct'}
  if told or len(mixed) >= importers.NO_CHANCE:
    raise ValueError(
      f'{path}: its second half repeats the first, completion by completion; was the file joined '
      'to itself? Delete one half, or number the rows with a column sample'
    )
