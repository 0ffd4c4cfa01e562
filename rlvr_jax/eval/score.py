"""job=score: saved completions judged anew, in their order, and a table of what flipped.

Rows are streamed; verdicts go through the workdir's journal, so a run that was killed goes on with
the same command. The output appears under its name when it is whole. The input is not touched.
"""

import collections
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlvr_jax.config import Config
from rlvr_jax.eval import flips
from rlvr_jax.eval.score_input import Item, is_store, items_of_file, items_of_store
from rlvr_jax.tasks.pool import VerifierPool, pool_of
from rlvr_jax.tasks.problem import Verdict
from rlvr_jax.tasks.registry import verifier_name, verifier_version

_AHEAD = 2048  # rows whose verdicts are waited for
_NEW = ('verdict', 'extracted', 'reason', 'verifier')


def score(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
  """Writes config.output and OUTPUT.flips.json from config.input; returns what the latter holds.

  Raises ValueError with file and line for rows that cannot be judged.
  """
  if not config.input or not config.output:
    raise ValueError(
      f'job=score needs what and whereto: --config.input={config.input or "rows.jsonl"} '
      f'--config.output={config.output or "scored.jsonl"}'
    )
  given, out = (pathlib.Path(path).expanduser() for path in (config.input, config.output))
  task, score_group = config.task.to_dict(), config.score.to_dict()
  if is_store(given):
    items = items_of_store(given, score_group, task)
  else:
    items = items_of_file(given, score_group['fields'], task['verifier'])
  tally = flips.Tally(config.score.examples)
  with pool_of(config.verifier, workdir) as pool:
    write_scored(judged(items, pool), out, tally)
  summary = {
    'input': config.input,
    'output': config.output,
    'verifier': verifier_version(task['verifier'] or 'math'),
    **tally.summary(),
  }
  beside = out.with_name(f'{out.name.removesuffix(".jsonl")}.flips.json')
  beside.write_text(json.dumps(summary, indent=1) + '\n')
  show(summary)
  print(f'{out} and {beside}', file=sys.stderr)
  return summary


def judged(items: Iterable[Item], pool: VerifierPool) -> Iterator[tuple[Item, list[Verdict]]]:
  """Each item with its verdicts, in their order, while the next are read and judged."""
  waiting: collections.deque[tuple[Item, list[Future[Verdict]]]] = collections.deque()
  for item in items:
    waiting.append((item, [pool.submit(item.problem, text) for text in item.completions]))
    while len(waiting) > _AHEAD or (waiting and all(one.done() for one in waiting[0][1])):
      yield _finished(*waiting.popleft())
  while waiting:
    yield _finished(*waiting.popleft())


def _finished(item: Item, futures: list[Future[Verdict]]) -> tuple[Item, list[Verdict]]:
  return item, [future.result() for future in futures]


def write_scored(
  scored: Iterable[tuple[Item, list[Verdict]]], out: pathlib.Path, tally: flips.Tally
) -> None:
  """Writes the rows with their verdicts as JSON lines; what they had under these names is old_."""
  out.parent.mkdir(parents=True, exist_ok=True)
  partial = out.with_name(f'.{out.name}.{os.getpid()}.tmp')
  try:
    with partial.open('wb') as file:
      for item, verdicts in scored:
        file.write(_line(_scored_row(item, verdicts)))
        _tally(tally, item, verdicts)
    partial.replace(out)
  finally:
    partial.unlink(missing_ok=True)


def _scored_row(item: Item, verdicts: list[Verdict]) -> dict[str, Any]:
  row = {(f'old_{key}' if key in _NEW else key): value for key, value in item.row.items()}
  new: dict[str, Any] = {name: [getattr(v, name) for v in verdicts] for name in _NEW[:3]}
  if not item.several:
    new = {name: values[0] for name, values in new.items()}
  return {**row, **new, 'verifier': verifier_version(verifier_name(item.problem))}


def _line(row: dict[str, Any]) -> bytes:
  try:
    return json.dumps(row, ensure_ascii=False).encode() + b'\n'
  except UnicodeEncodeError:  # half a surrogate pair, which only an escape can hold
    return json.dumps(row).encode() + b'\n'


def _tally(tally: flips.Tally, item: Item, verdicts: list[Verdict]) -> None:
  tally.rows += 1
  for i, (verdict, before) in enumerate(zip(verdicts, item.before, strict=True)):
    name = item.problem.id
    if 'sample' in item.row:
      name = f'{name}/{item.row.get("visit", 0)}/{item.row["sample"]}'
    elif item.several:
      name = f'{name}/{i}'
    shown = {'where': item.where, 'gold': item.problem.answer, 'prediction': item.completions[i]}
    counted = item.problem.id if item.counted else None
    tally.add(name, before, verdict, shown, problem=counted)


def show(summary: dict[str, Any]) -> None:
  """Prints the tables of a summary."""
  console = Console()
  table = Table(title=f'{summary["completions"]} completions of {summary["problems"]} problems')
  for column in ('', 'before', 'now'):
    table.add_column(column, justify='left' if not column else 'right')
  for line in flips.lines(summary):
    table.add_row(*map(Text, line))
  console.print(table)
  if not summary.get('flips'):
    return
  table = Table(title='what flipped')  # cells are Text: brackets in them are no markup
  for column in ('before', 'now', 'count', 'id', 'gold', 'extracted', 'reason'):
    table.add_column(column, overflow='fold')
  for flip in summary['flips']:
    head = [flip['from'], flip['to'], str(flip['count'])]
    for example in flip['examples'] or [{}]:
      cells = (str(example.get(key, ''))[:60] for key in ('id', 'gold', 'extracted', 'reason'))
      table.add_row(*map(Text, (*head, *cells)))
      head = ['', '', '']
  console.print(table)
