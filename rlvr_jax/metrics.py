"""What a run says while it runs: metric rows on disk, progress on the screen, seconds counted.

Nothing here imports jax; multi-host callers pass enabled=(process_index == 0).
"""

import hashlib
import importlib
import json
import logging
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich import console as rich_console
from rich import progress as rich_progress

from rlvr_jax import paths, watch

Row = dict[str, Any]
# keys of what another run of the same does not repeat: time, speed and memory
OF_THE_MACHINE = ('seconds', 'machine/')
PUT_S = 10.0  # between two writings of a whole metrics file, in object stores


class MetricsWriter:
  """One row a step: a JSON line in workdir/NAME.jsonl, flushed, and scalars for dashboards.

  resume_step is the step of the restored checkpoint: rows after it (and a torn last line) are
  dropped, for they will be written again. Without it the file starts empty. In an object store the
  file is written whole every PUT_S seconds, by flush() and at the end, and there is no
  TensorBoard. Use as a context manager or call close().
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    name: str = 'metrics',
    tensorboard: bool = True,
    wandb: bool = False,
    resume_step: int = -1,
    enabled: bool = True,
  ):
    self._last = resume_step
    self._file: TextIO | None = None
    self._lines: list[str] = []  # of a file in an object store
    self._put = 0.0
    self._board: Any = None
    self._wandb: Any = None
    self._path: pathlib.Path | None = None
    if not enabled:
      return
    if wandb:
      self._wandb = _start_wandb(paths.path_of(workdir), name)
    path = self._path = paths.path_of(workdir) / f'{name}.jsonl'
    kept = [_line(row) for row in read_metrics(path) if row['step'] <= resume_step]
    paths.write_whole(path, ''.join(kept))
    if paths.is_remote(path):
      self._lines = kept
      return
    self._file = path.open('a')
    if tensorboard:
      import tensorboardX  # a second of import, paid only by loops

      self._board = tensorboardX.SummaryWriter(
        str(pathlib.Path(workdir) / 'tensorboard' / name), purge_step=resume_step + 1
      )

  def __enter__(self) -> 'MetricsWriter':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Appends the row of `step`, which must be above the one before; values are scalars or text.

    Scalars of numpy and jax are accepted (a jax one waits for the device).
    """
    assert step > self._last, f'metrics of step {step} after those of step {self._last}'
    self._last = step
    if self._path is None:
      return
    row = {'step': int(step)} | {key: _plain(value) for key, value in values.items()}
    if self._file is None:
      self._lines.append(_line(row))
      if time.monotonic() - self._put > PUT_S:
        self.flush()
    else:
      self._append(_line(row))
    scalars = {k: v for k, v in row.items() if k != 'step' and not isinstance(v, str)}
    for key, value in scalars.items() if self._board else ():
      self._board.add_scalar(key.replace('@', '_at_'), value, step)  # tags take no '@'
    if self._wandb:
      self._wandb.log(scalars, step=step)

  def _append(self, line: str) -> None:
    assert self._file is not None
    assert self._path is not None
    try:
      self._file.write(line)
      self._file.flush()
    except OSError as error:
      raise paths.cannot_write(self._path, error) from error

  def flush(self) -> None:
    """What was written is there for others, and after a kill."""
    if self._path is not None and self._file is None:
      paths.write_whole(self._path, ''.join(self._lines))
      self._put = time.monotonic()

  def close(self) -> None:
    """Closes the files; the writer takes no more rows."""
    self.flush()
    if self._file:
      self._file.close()
    if self._board:
      self._board.close()
    if self._wandb:
      self._wandb.finish()


def _start_wandb(workdir: pathlib.Path, name: str) -> Any:
  """A Weights & Biases run with an id of its own workdir, so that a resumed run goes on in it."""
  try:
    wandb = importlib.import_module('wandb')  # an extra
  except ImportError as error:
    raise ValueError(
      "metrics.wandb=True needs the wandb package: pip install 'rlvr_jax[wandb]', or leave it off"
    ) from error
  run_id = hashlib.sha256(f'{workdir.resolve()}/{name}'.encode()).hexdigest()[:16]
  return wandb.init(
    project='rlvr_jax', name=f'{workdir.name}/{name}', id=run_id, resume='allow', dir=str(workdir)
  )


def read_metrics(path: str | os.PathLike) -> list[Row]:
  """The rows of a metrics file, [] if there is none; a torn last line is left out.

  Raises ValueError, naming file and line, for any other line that does not parse.
  """
  path = paths.path_of(path)
  if not path.exists():
    return []
  lines = path.read_text().split('\n')
  rows = []
  for number, line in enumerate(lines[:-1], start=1):
    try:
      row = json.loads(line)
    except ValueError as error:
      raise ValueError(f'{path}, line {number} is no JSON row ({error}); remove it') from error
    rows.append({key: _finite_or_not(value) for key, value in row.items()})
  return rows


def repeatable(row: Mapping[str, Any]) -> Row:
  """What another run of the same has to the bit: the row without OF_THE_MACHINE."""
  return {key: value for key, value in row.items() if not key.startswith(OF_THE_MACHINE)}


def _plain(value: Any) -> float | int | str | bool:
  """A Python scalar of a Python, numpy or jax one."""
  value = value.item() if hasattr(value, 'item') else value
  assert isinstance(value, (bool, int, float, str)), f'{value!r} is no scalar'
  return value


_NON_FINITE = {'nan': math.nan, 'inf': math.inf, '-inf': -math.inf}


def _finite_or_not(value: Any) -> Any:
  """The number that a non-finite one's name stands for; anything else as it is."""
  return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def _line(row: Row) -> str:
  """A strict JSON line; JSON has no NaN, so non-finite numbers are their names."""
  safe = {
    key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
    for key, value in row.items()
  }
  return json.dumps(safe, allow_nan=False) + '\n'


class Meter:
  """Wall-clock seconds of a run over all its starts; state() goes into the checkpoint."""

  def __init__(self, state: Mapping[str, float] | None = None):
    self._before = float((state or {}).get('seconds', 0.0))
    self._start = time.monotonic()

  @property
  def seconds(self) -> float:
    """Seconds since the first start, time between starts left out."""
    return self._before + time.monotonic() - self._start

  def state(self) -> dict[str, float]:
    """What a restored Meter is made from."""
    return {'seconds': self.seconds}


class Progress:
  """How far a loop is: a bar on a terminal, else one plain line now and then, with the ETA.

  The first unit (which compiles) does not count towards the ETA. Use as a context manager.
  """

  def __init__(
    self,
    total: int,
    what: str,
    *,
    start: int = 0,
    plain_every_s: float = 10.0,
    enabled: bool = True,
    stream: Any = None,
  ):
    self._total, self._what, self._done = total, what, start
    self._stream = stream or sys.stderr
    self._plain_every_s = plain_every_s
    self._enabled = enabled
    self._first: tuple[float, int] | None = None
    self._printed = -math.inf
    self._bar: rich_progress.Progress | None = None
    self._task = rich_progress.TaskID(0)

  def __enter__(self) -> 'Progress':
    if self._enabled and self._stream.isatty():
      self._bar = rich_progress.Progress(
        rich_progress.TextColumn('{task.description}'),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn('{task.fields[text]}'),
        console=rich_console.Console(file=self._stream),
      )
      self._bar.start()
      self._task = self._bar.add_task(self._what, total=self._total, completed=self._done, text='')
    return self

  def __exit__(self, *_) -> None:
    if self._bar:
      self._bar.stop()

  def update(
    self, done: int, values: Mapping[str, float] | None = None, *, total: int | None = None
  ) -> None:
    """Shows that `done` of the total (a new one if given) are done, with a few numbers beside."""
    watch.tick()
    self._done = done
    self._total = self._total if total is None else total
    now = time.monotonic()
    text = '  '.join([f'ETA {format_seconds(self._eta(now, done))}', *_short(values or {})])
    if self._bar:
      self._bar.update(self._task, completed=done, total=self._total, text=text)
    elif self._enabled and (now - self._printed >= self._plain_every_s or done >= self._total):
      self._printed = now
      print(f'{self._what} {done}/{self._total}  {text}', file=self._stream, flush=True)

  def note(self, text: str) -> None:
    """Prints a line of its own, above the bar if there is one."""
    watch.tick()
    if self._bar:
      self._bar.console.print(text, highlight=False, markup=False)
    elif self._enabled:
      print(text, file=self._stream, flush=True)

  def _eta(self, now: float, done: int) -> float | None:
    """Seconds to go at the mean rate since the first update; None while that is unknown."""
    if self._first is None:
      self._first = now, done
    since, first = self._first
    if done >= self._total:
      return 0.0
    if done <= first:
      return None
    return (now - since) / (done - first) * (self._total - done)


def _short(values: Mapping[str, float]) -> list[str]:
  return [
    f'{key} {value:,.0f}' if abs(value) >= 1000 else f'{key} {value:.4g}'
    for key, value in values.items()
  ]


def format_seconds(seconds: float | None) -> str:
  """'7s', '3m07s', '2h05m', '3d04h'; '?' for None."""
  if seconds is None:
    return '?'
  s = round(seconds)
  if s < 60:
    return f'{s}s'
  if s < 3600:
    return f'{s // 60}m{s % 60:02d}s'
  if s < 86_400:
    return f'{s // 3600}h{s % 3600 // 60:02d}m'
  return f'{s // 86_400}d{s % 86_400 // 3600:02d}h'


class _LibraryChatter(logging.Filter):
  """Drops the informational lines of storage libraries, which tell users nothing."""

  def filter(self, record: logging.LogRecord) -> bool:
    loud = record.levelno >= logging.WARNING
    return loud or not any(f'/{name}/' in record.pathname for name in ('orbax', 'etils'))


def quiet_libraries() -> None:
  """Keeps orbax's per-save and jax's platform information out of the log, not their warnings."""
  logging.getLogger('absl').addFilter(_LibraryChatter())
  logging.getLogger('jax').setLevel(logging.WARNING)
