"""Where the time goes: seconds per phase, a profiler window, compilations and their cache."""

import collections
import contextlib
import os
import pathlib
import time
from collections.abc import Iterator

import jax
import jax.monitoring

_COMPILED = '/jax/core/compile/backend_compile_duration'


class Phases:
  """Seconds per named phase of an iteration: `with phases('sample'): ...`.

  It measures the host's clock; a phase that only dispatches work ends before the device does, so
  block on the phase's results inside it. Phases may nest; the outer one counts both.
  """

  def __init__(self):
    self._seconds: dict[str, float] = collections.defaultdict(float)

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """Adds the time inside to phase `name`, and names it in profiler traces."""
    start = time.perf_counter()
    try:
      with jax.profiler.TraceAnnotation(name):
        yield
    finally:
      self._seconds[name] += time.perf_counter() - start

  def add(self, name: str, seconds: float) -> None:
    """Adds seconds that were measured elsewhere."""
    self._seconds[name] += seconds

  def pop(self) -> dict[str, float]:
    """{'seconds/NAME': seconds} since the last pop, which starts anew."""
    row = {f'seconds/{name}': seconds for name, seconds in self._seconds.items()}
    self._seconds.clear()
    return row


class TraceWindow:
  """A profiler trace of iterations [start, stop), in workdir/profile; none if start is below 0.

  Use as a context manager round the loop and call at(i) at the beginning of iteration i.
  """

  def __init__(self, workdir: str | os.PathLike, start: int, stop: int):
    if start >= 0 and stop <= start:
      raise ValueError(f'profile.stop={stop} must be above profile.start={start}')
    self._directory = pathlib.Path(workdir) / 'profile'
    self._start, self._stop = start, stop
    self._running = False

  def __enter__(self) -> 'TraceWindow':
    return self

  def __exit__(self, *_) -> None:
    if self._running:
      jax.profiler.stop_trace()
      self._running = False

  def at(self, iteration: int) -> None:
    """Starts or stops the trace when it is time; a run resumed in the window traces the rest."""
    inside = self._start <= iteration < self._stop and self._start >= 0
    if inside and not self._running:
      jax.profiler.start_trace(str(self._directory))
    if self._running and not inside:
      jax.profiler.stop_trace()
    self._running = inside


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
  """Yields a list that gets the name of every function compiled inside, as often as it is."""
  names: list[str] = []

  def listen(event: str, duration_secs: float, **about: str | int) -> None:
    del duration_secs
    if event == _COMPILED:
      names.append(str(about.get('fun_name', '')).removeprefix('jit(').removesuffix(')'))

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield names
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def enable_compile_cache(directory: str | os.PathLike | None = None) -> pathlib.Path:
  """Keeps compiled programs on disk, so that the next start compiles nothing; returns where.

  directory defaults to $JAX_COMPILATION_CACHE_DIR, else rlvr_jax/xla-<jax version> under the
  user's cache directory. Programs that compile in under half a second are not kept.
  """
  home = pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser()
  chosen = directory or os.environ.get('JAX_COMPILATION_CACHE_DIR')
  path = pathlib.Path(chosen) if chosen else home / 'rlvr_jax' / f'xla-{jax.__version__}'
  jax.config.update('jax_compilation_cache_dir', str(path))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  return path
