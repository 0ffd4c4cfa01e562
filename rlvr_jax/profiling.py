"""Where time and memory go: both per phase, a profiler window, compilations and their cache."""

import collections
import contextlib
import math
import os
import pathlib
import resource
import sys
import time
from collections.abc import Iterator

import jax
import jax.monitoring

from rlvr_jax import paths, watch

_COMPILED = '/jax/core/compile/backend_compile_duration'


class Phases:
  """Seconds and memory per named phase of an iteration: `with phases('sample'): ...`.

  It measures the host's clock; a phase that only dispatches work ends before the device does, so
  block on the phase's results inside it. Phases may nest; the outer one counts both.
  """

  def __init__(self):
    self._seconds: dict[str, float] = collections.defaultdict(float)
    self._memory: dict[str, dict[str, float]] = {}

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """Adds the time inside to phase `name`, and names it in profiler traces."""
    start = time.perf_counter()
    try:
      with jax.profiler.TraceAnnotation(name), watch.phase(name):
        yield
    finally:
      self._seconds[name] += time.perf_counter() - start
      self._memory[name] = device_gb()

  def add(self, name: str, seconds: float) -> None:
    """Adds seconds that were measured elsewhere."""
    self._seconds[name] += seconds

  def pop(self) -> dict[str, float]:
    """{'seconds/NAME': seconds} since the last pop, which starts anew, and the memory.

    machine/KIND/NAME: device_gb at the end of the phase; machine/host_gb: of this process now.
    """
    row = {f'seconds/{name}': seconds for name, seconds in self._seconds.items()}
    for name, found in self._memory.items():
      row |= {f'machine/{kind}/{name}': value for kind, value in found.items()}
    self._seconds.clear()
    self._memory.clear()
    return row | {'machine/host_gb': host_gb()} if row else {}


def device_gb() -> dict[str, float]:
  """GiB on this process's first device: device_gb now, device_peak_gb the most since the start.

  What the device itself says of its memory; where it says nothing (CPU), the bytes of the arrays
  that are alive, without a peak.
  """
  device = jax.local_devices()[0]
  stats = device.memory_stats()
  if stats:
    names = {'device_gb': 'bytes_in_use', 'device_peak_gb': 'peak_bytes_in_use'}
    return {name: stats[key] / 2**30 for name, key in names.items() if key in stats}
  total = 0
  for x in jax.live_arrays():
    if device in x.sharding.device_set:
      total += math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
  return {'device_gb': total / 2**30}


def host_gb() -> float:
  """GiB of main memory that this process has; where there is no /proc, the most it ever had."""
  try:
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize() / 2**30
  except OSError:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == 'darwin' else 2**20)


class TraceWindow:
  """A profiler trace of iterations [start, stop), in workdir/profile; none if start is below 0.

  Use as a context manager round the loop and call at(i) at the beginning of iteration i.
  """

  def __init__(self, workdir: str | os.PathLike, start: int, stop: int):
    if start >= 0 and stop <= start:
      raise ValueError(f'profile.stop={stop} must be above profile.start={start}')
    self._directory = paths.path_of(workdir) / 'profile'
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
  user's cache directory. Programs that compile in under a tenth of a second are not kept.
  """
  home = pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser()
  chosen = directory or os.environ.get('JAX_COMPILATION_CACHE_DIR')
  path = pathlib.Path(chosen) if chosen else home / 'rlvr_jax' / f'xla-{jax.__version__}'
  jax.config.update('jax_compilation_cache_dir', str(path))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
  return path
