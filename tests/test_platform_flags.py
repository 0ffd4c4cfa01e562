"""Flags are added for the platform, once, and only those the installed compiler knows."""

import os
import subprocess
import sys

import pytest

from rlvr_jax import platform_flags
from rlvr_jax.platform_flags import PLATFORMS, apply, missing, platform_of


def jax_starts(variable: str, flags: str) -> subprocess.CompletedProcess:
  env = dict(os.environ, JAX_PLATFORMS='cpu') | {variable: flags}
  code = 'import jax; print(jax.jit(lambda x: x + 1)(1.0))'
  return subprocess.run(
    [sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=120
  )


def test_this_jaxlib_knows_the_flags_for_gpus():
  """An unknown flag would end every run: jaxlib for the CPU reads those of GPUs too."""
  known = jax_starts('XLA_FLAGS', missing('', PLATFORMS['gpu'].flags))
  assert (known.returncode, known.stdout.strip()) == (0, '2.0'), known.stderr[-500:]
  unknown = jax_starts('XLA_FLAGS', '--xla_gpu_no_such_flag=true')
  assert unknown.returncode != 0
  assert 'xla_gpu_no_such_flag' in unknown.stderr


def pretend(monkeypatch, platform, version):
  monkeypatch.setattr(platform_flags, 'platform_of', lambda environ: platform)
  monkeypatch.setattr(platform_flags, '_version', lambda package: version)


@pytest.mark.parametrize(('platform', 'version'), [('gpu', (0, 12, 0)), ('tpu', (0, 0, 42))])
def test_flags_are_added_beside_the_users_own(monkeypatch, platform, version):
  pretend(monkeypatch, platform, version)
  variable, _, _, _, flags = PLATFORMS[platform]
  name = next(iter(flags))
  environ = {variable: f'--{name}=false --xla_dump_to=/tmp/x'}
  said = apply(environ)
  words = environ[variable].split()
  assert words[:2] == [f'--{name}=false', '--xla_dump_to=/tmp/x']
  assert set(words[2:]) == {f'--{n}={v}' for n, v in flags.items() if n != name}
  assert bool(said) == (len(flags) > 1)
  before = dict(environ)
  assert apply(environ) == ''
  assert environ == before


def test_flags_are_left_out(monkeypatch):
  pretend(monkeypatch, 'tpu', (0, 0, 42))
  environ = {'RLVR_PLATFORM_FLAGS': '0'}
  assert apply(environ) == ''
  assert list(environ) == ['RLVR_PLATFORM_FLAGS']
  for version in ((0, 0, 41), (0, 0, 99), (1, 0, 0)):
    pretend(monkeypatch, 'tpu', version)
    environ = {}
    assert 'none of those they were tried with' in apply(environ)
    assert not environ
  pretend(monkeypatch, 'tpu', None)
  assert apply({}) == ''
  pretend(monkeypatch, '', (0, 12, 0))
  environ = {}
  assert apply(environ) == ''
  assert not environ


def test_the_platform_is_that_of_the_machine(monkeypatch):
  found = {'tpu': False, 'gpu': 0, 'packages': ()}
  monkeypatch.setattr(platform_flags, '_tpus', lambda: found['tpu'])
  monkeypatch.setattr(platform_flags, '_gpus', lambda: list(range(found['gpu'])))
  monkeypatch.setattr(
    platform_flags.importlib.util, 'find_spec', lambda name: name in found['packages'] or None
  )
  assert platform_of({}) == ''
  found |= {'tpu': True}
  assert platform_of({}) == ''  # nothing installed that could use it
  found |= {'packages': ('libtpu',)}
  assert platform_of({}) == 'tpu'
  assert platform_of({'JAX_PLATFORMS': 'cpu'}) == ''
  found |= {'tpu': False, 'gpu': 1, 'packages': ('jax_cuda13_plugin',)}
  assert platform_of({}) == ''  # nothing to exchange
  assert platform_of({'SLURM_NTASKS': '4'}) == 'gpu'
  found |= {'gpu': 8}
  assert platform_of({'JAX_PLATFORMS': 'cuda,cpu'}) == 'gpu'
