"""Leaving a loop where nothing is lost, when a signal asks for it. Nothing here imports jax."""

import logging
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
  """A signal asked for the end; what had been drawn is stored, and the same call goes on."""


class Abandoned(Exception):
  """A signal asked for the end, and what is being drawn would take longer than there is time."""


class GracefulExit:
  """While entered, SIGINT and SIGTERM set `requested`, which loops poll at iteration boundaries.

  A second signal raises KeyboardInterrupt at once. Outside the main thread it does nothing.
  grace: seconds after which `check` raises Abandoned, so that an iteration need not be finished.
  """

  def __init__(self, grace: float = math.inf):
    self.requested = False
    self._signalled = False  # here; others of a run may be asked instead
    self._due = math.inf  # time.monotonic
    self._grace = grace
    self._before: dict[int, Any] = {}

  def __enter__(self) -> 'GracefulExit':
    _state.entered.append(self)
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._before[number] = signal.signal(number, self._handle)
    if _state.asked_elsewhere:
      self.ask(*_state.asked_elsewhere)
    return self

  def __exit__(self, *_) -> None:
    _state.entered.remove(self)
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before.clear()

  def _handle(self, number: int, _frame: Any) -> None:
    if self._signalled:
      raise KeyboardInterrupt
    self._signalled = True
    if _state.tell:
      _state.tell(number)
    self.ask(number, f'{signal.Signals(number).name}, which once more stops at once')

  def ask(self, number: int, why: str) -> None:
    """Asks for the end as the signal does."""
    if self.requested:
      return
    self.requested = True
    self._due = time.monotonic() + self._grace
    _state.asked_by = number
    what = 'finishing this iteration'
    if self._grace < math.inf:
      what += f' (or giving it up after {self._grace:g} s)'
    log.warning('%s: %s, then saving', why, what)

  @property
  def due(self) -> bool:
    """Whether the end was asked for and the time of grace is over."""
    return time.monotonic() >= self._due


class _State:
  """Those entered now, the last signal that asked for the end of one, and who else hears of it."""

  def __init__(self):
    self.entered: list[GracefulExit] = []
    self.asked_by = 0
    self.tell: Callable[[int], None] | None = None
    self.asked_elsewhere: tuple[int, str] | None = None


_state = _State()


def tell(whom: Callable[[int], None] | None) -> None:
  """Who hears of signals too, by their numbers: the other processes of a run (hosts.py)."""
  _state.tell = whom


def ask(number: int, why: str) -> None:
  """Asks for the end of what is entered now or later, as a signal of this number would."""
  _state.asked_elsewhere = number, why
  for one in list(_state.entered):
    one.ask(number, why)


def check() -> None:
  """Raises Abandoned where a signal asked for the end longer ago than the grace of its time."""
  if any(one.due for one in _state.entered):
    raise Abandoned


def exit_code() -> int:
  """That of a program which saved and left: 0 when SIGTERM asked for it, else 130 as by Ctrl-C."""
  return 0 if _state.asked_by == signal.SIGTERM else 130


def resume_line() -> str:
  """The command that goes on where this one ended: itself."""
  words = [sys.executable, *sys.argv]
  return f'to go on: cd {shlex.quote(os.getcwd())} && {shlex.join(words)}'
