"""Counts compilations by the name of the jitted function: what jax hands to the compiler."""

import contextlib

import jax.monitoring

_EVENT = '/jax/core/compile/backend_compile_duration'


@contextlib.contextmanager
def compilations():
  """Yields a list that gets the name of every function compiled inside."""
  names: list[str] = []

  def listen(event: str, _: float, *, fun_name: str = '', **__) -> None:
    if event == _EVENT:
      names.append(fun_name.removeprefix('jit(').removesuffix(')'))

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield names
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
