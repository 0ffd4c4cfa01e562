"""Compiler flags by platform that let devices compute while they exchange; set before jax starts.

XLA and libtpu end the process at a flag that they do not know. So flags are set only for versions
with which they were tried (tests/test_platform_flags.py), never where the user has set the same
one, and not at all with RLVR_PLATFORM_FLAGS=0. Nothing here imports jax.
"""

import importlib.metadata
import importlib.util
import os
import pathlib
import re
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

OFF = 'RLVR_PLATFORM_FLAGS'


class Flags(NamedTuple):
  """What one platform is given."""

  variable: str  # of the environment
  package: str  # that reads it
  since: tuple[int, ...]  # versions of it that know the flags, both included
  until: tuple[int, ...]
  flags: Mapping[str, str]


PLATFORMS = {
  # gathers of weights and sums of gradients run beside the products of other layers
  'gpu': Flags(
    'XLA_FLAGS', 'jaxlib', (0, 10), (0, 12), {'xla_gpu_enable_latency_hiding_scheduler': 'true'}
  ),
  'tpu': Flags(
    'LIBTPU_INIT_ARGS',
    'libtpu',
    (0, 0, 42),
    (0, 0, 52),
    {
      'xla_enable_async_all_gather': 'true',
      'xla_tpu_enable_async_collective_fusion': 'true',
      'xla_tpu_enable_async_collective_fusion_fuse_all_gather': 'true',
      'xla_tpu_enable_async_collective_fusion_multiple_steps': 'true',
      'xla_tpu_overlap_compute_collective_tc': 'true',
    },
  ),
}


def apply(environ: MutableMapping[str, str] = os.environ) -> str:
  """Sets the flags of the platform that jax will take; a sentence for the log, '' for nothing."""
  platform = platform_of(environ)
  if platform not in PLATFORMS or environ.get(OFF) == '0':
    return ''
  asked = PLATFORMS[platform]
  version = _version(asked.package)
  if version is None:
    return ''
  if not asked.since <= version[: len(asked.since)] <= asked.until:
    return (
      f'no flags for overlapped exchange: {asked.package} {".".join(map(str, version))} is none of '
      f'those they were tried with (docs/meshes.md)'
    )
  given = environ.get(asked.variable, '')
  more = missing(given, asked.flags)
  if not more:
    return ''
  environ[asked.variable] = f'{given} {more}'.strip()
  return f'{asked.variable} has {more} ({OFF}=0 leaves it alone)'


def missing(given: str, flags: Mapping[str, str]) -> str:
  """Those flags that a variable's text does not set, as text to add to it."""
  named = set(re.findall(r'--(\w+)', given))
  return ' '.join(f'--{name}={value}' for name, value in flags.items() if name not in named)


def platform_of(environ: Mapping[str, str]) -> str:
  """'tpu', 'gpu' (only where there are several, or several processes) or ''; asked of no driver."""
  chosen = environ.get('JAX_PLATFORMS', '').split(',')[0]
  if chosen in ('', 'tpu') and importlib.util.find_spec('libtpu') is not None and _tpus():
    return 'tpu'
  plugin = any(importlib.util.find_spec(f'jax_cuda{n}_plugin') for n in (12, 13))
  several = len(_gpus()) > 1 or int(environ.get('SLURM_NTASKS', '1') or 1) > 1
  if chosen in ('', 'gpu', 'cuda') and plugin and _gpus() and several:
    return 'gpu'
  return ''


def _tpus(dev: pathlib.Path = pathlib.Path('/dev')) -> bool:
  return any(dev.glob('accel[0-9]*')) or any(dev.glob('vfio/[0-9]*'))


def _gpus(dev: pathlib.Path = pathlib.Path('/dev')) -> list[pathlib.Path]:
  return list(dev.glob('nvidia[0-9]*'))


def _version(package: str) -> tuple[int, ...] | None:
  try:
    text = importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None
  return tuple(int(n) for n in re.findall(r'\d+', text)[:3])
