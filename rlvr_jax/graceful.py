"""Leaving a loop where nothing is lost, when a signal asks for it. Nothing here imports jax."""

import logging
import signal
import threading
from typing import Any

log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
  """A signal asked for the end; what had been drawn is stored, and the same call goes on."""


class GracefulExit:
  """While entered, SIGINT and SIGTERM set `requested`, which loops poll at iteration boundaries.

  A second signal raises KeyboardInterrupt at once. Outside the main thread it does nothing.
  """

  def __init__(self):
    self.requested = False
    self._before: dict[int, Any] = {}

  def __enter__(self) -> 'GracefulExit':
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._before[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before.clear()

  def _handle(self, number: int, _frame: Any) -> None:
    if self.requested:
      raise KeyboardInterrupt
    self.requested = True
    log.warning(
      '%s: finishing this iteration, then saving; once more stops at once',
      signal.Signals(number).name,
    )
