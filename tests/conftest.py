"""Every test runs on the CPU with 8 simulated devices; `strict` forbids implicit promotion."""

import os
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('HF_HUB_OFFLINE', '1')
# what loading learns of golds stays with these tests, away from the home of whoever runs them
if 'RLVR_DATA_CACHE' not in os.environ:
  _CACHE = tempfile.TemporaryDirectory(prefix='rlvr_jax_data')
  os.environ['RLVR_DATA_CACHE'] = _CACHE.name
# set before anything imports jax, also in subprocesses that tests start
_FLAG = '--xla_force_host_platform_device_count=8'
if _FLAG not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_FLAG}'.strip()

import pytest  # noqa: E402


@pytest.fixture
def strict():
  """Implicit dtype promotion is an error inside (optax calls have to be left out)."""
  import jax

  with jax.numpy_dtype_promotion('strict'):
    yield
