"""Leaving a loop where nothing is lost, when a signal asks for it. Nothing here imports jax."""

import logging
import math
import os
import shlex
import signal
import sys
import threading
import time
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
    self._due = math.inf  # time.monotonic
    self._grace = grace
    self._before: dict[int, Any] = {}

  def __enter__(self) -> 'GracefulExit':
    _state.entered.append(self)
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._before[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_) -> None:
    _state.entered.remove(self)
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before.clear()

  def _handle(self, number: int, _frame: Any) -> None:
    if self.requested:
      raise KeyboardInterrupt
    self.requested = True
    self._due = time.monotonic() + self._grace
    _state.asked_by = number
    what = 'finishing this iteration'
    if self._grace < math.inf:
      what += f' (or giving it up after {self._grace:g} s)'
    log.warning('%s: %s, then saving; once more stops at once', signal.Signals(number).name, what)

  @property
  def due(self) -> bool:
    """Whether the end was asked for and the time of grace is over."""
    return time.monotonic() >= self._due


class _State:
  """Those entered now, and the last signal that asked for the end of one."""

  def __init__(self):
    self.entered: list[GracefulExit] = []
    self.asked_by = 0


_state = _State()


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
