"""Phases add up, traces cover their window, compiled programs are kept."""

import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rlvr_jax import profiling


def test_phases_add_up_and_start_anew_after_pop():
  phases = profiling.Phases()
  for _ in range(2):
    with phases('sample'):
      time.sleep(0.02)
  with pytest.raises(RuntimeError), phases('update'):
    raise RuntimeError
  row = phases.pop()
  assert row['machine/device_gb/sample'] == row['machine/device_gb/update'] >= 0
  assert 0.05 < row['machine/host_gb'] < 64
  assert 0.04 <= row['seconds/sample'] < 2
  assert 0 <= row['seconds/update'] < 0.1
  assert phases.pop() == {}


@pytest.mark.parametrize(('start', 'stop', 'expected'), [(1, 3, True), (-1, -1, False)])
def test_trace_window(tmp_path, start, stop, expected):
  """The file that xprof and TensorBoard read has the window's phases, once an iteration."""
  phases = profiling.Phases()
  with profiling.TraceWindow(tmp_path, start, stop) as window:
    for i in range(3):
      window.at(i)
      with phases(f'phase {i}'):
        jax.block_until_ready(jnp.ones(3) + i)
  traces = list(tmp_path.rglob('profile/*/*.xplane.pb'))
  assert len(traces) == expected
  for trace in traces:
    planes = jax.profiler.ProfileData.from_file(str(trace)).planes
    names = [event.name for plane in planes for line in plane.lines for event in line.events]
    assert [names.count(f'phase {i}') for i in range(3)] == [0, 1, 1]


def test_memory_of_a_device_counts_its_share_of_what_is_alive():
  before = profiling.device_gb()['device_gb']
  held = jnp.ones((1 << 20, 8))
  assert profiling.device_gb()['device_gb'] - before == pytest.approx(held.nbytes / 2**30)
  mesh = jax.make_mesh((4,), ('x',), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
  split = jax.device_put(
    np.zeros((1 << 20, 8), np.float32), NamedSharding(mesh, PartitionSpec('x'))
  )
  found = profiling.device_gb()['device_gb'] - before
  assert found == pytest.approx((held.nbytes + split.nbytes / 4) / 2**30)


def test_trace_window_refuses_an_empty_one(tmp_path):
  with pytest.raises(ValueError, match=r'profile.stop=2 must be above profile.start=2'):
    profiling.TraceWindow(tmp_path, 2, 2)


def test_compiled_programs_are_kept(tmp_path):
  code = """
import sys
from rlvr_jax import profiling
assert str(profiling.enable_compile_cache(sys.argv[1])) == sys.argv[1]
import jax
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((8, 8)))
"""
  subprocess.run([sys.executable, '-c', code, str(tmp_path)], check=True, timeout=120)
  assert any(tmp_path.iterdir())


def test_compile_cache_follows_the_environment(tmp_path, monkeypatch):
  before = {
    name: getattr(jax.config, name)
    for name in ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')
  }
  try:
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert profiling.enable_compile_cache() == tmp_path / 'rlvr_jax' / f'xla-{jax.__version__}'
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'mine'))
    assert profiling.enable_compile_cache() == tmp_path / 'mine'
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def test_compilations_are_named_once_each():
  def tripled(x):
    return x * 3.5

  run = jax.jit(tripled)
  with profiling.compilations() as names:
    run(np.float32(1))
    run(np.float32(2))
  assert names.count('tripled') == 1
  with profiling.compilations() as names:
    run(np.float32(3))
  assert names == []
