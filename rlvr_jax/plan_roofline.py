"""Devices by name, and the least time that work takes on them.

Peaks are the makers' (cloud.google.com/tpu/docs, NVIDIA's H100 datasheet, dense bfloat16); HBM of
TPUs is what their compiler says it may use. A time is a limit: the largest of operations, bytes of
memory and bytes sent, each at its peak and all of it overlapped.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from rlvr_jax.sampling.budget import GIB

NODE = 8  # GPUs that NVLink joins


@dataclasses.dataclass(frozen=True)
class Hardware:
  """One device."""

  flops: float  # bfloat16 operations a second
  bandwidth: float  # bytes of HBM a second
  hbm: int  # bytes that programs may use
  link: float  # bytes a second to a neighbour, one way: one link of a TPU, all of a GPU's NVLink
  across: float = 0.0  # the same between nodes of GPUs; 0: there are none


HARDWARE = {
  'v5e': Hardware(197e12, 819e9, int(15.75 * GIB), 45e9),
  'v5p': Hardware(459e12, 2765e9, int(95.74 * GIB), 90e9),
  'v6e': Hardware(918e12, 1640e9, int(31.25 * GIB), 90e9),
  'a100': Hardware(312e12, 2039e9, int(79.2 * GIB), 300e9, 25e9),
  'h100': Hardware(989e12, 3350e9, int(79.6 * GIB), 450e9, 50e9),
  'h200': Hardware(989e12, 4800e9, int(139.8 * GIB), 450e9, 50e9),
}
# chips of slices by the name their makers sell: v5p counts cores, two a chip
SLICES = {
  'v5e-1': '1x1', 'v5e-4': '2x2', 'v5e-8': '2x4', 'v5e-16': '4x4', 'v5e-32': '4x8',
  'v5e-64': '8x8', 'v5e-128': '8x16', 'v5e-256': '16x16',
  'v6e-1': '1x1', 'v6e-4': '2x2', 'v6e-8': '2x4', 'v6e-16': '4x4', 'v6e-32': '4x8',
  'v6e-64': '8x8', 'v6e-128': '8x16', 'v6e-256': '16x16',
  'v5p-8': '2x2x1', 'v5p-16': '2x2x2', 'v5p-32': '2x2x4', 'v5p-64': '2x4x4', 'v5p-128': '4x4x4',
  'v5p-256': '4x4x8',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Topology:
  """Described devices; name as libtpu takes it, '' of GPUs."""

  kind: str
  chips: int
  name: str

  @property
  def hardware(self) -> Hardware:
    """Of one of them."""
    return HARDWARE[self.kind]


def topology_of(text: str) -> Topology:
  """v5e:8x8, v5e-64, h100, h100x64; ValueError for another."""
  name = text.strip().lower()
  if name in SLICES:
    name = f'{name.partition("-")[0]}:{SLICES[name]}'
  tpu = re.fullmatch(r'(v\w+):(\d+(?:x\d+){1,2})', name)
  if tpu and tpu[1] in HARDWARE:
    return Topology(tpu[1], math.prod(int(n) for n in tpu[2].split('x')), name)
  gpu = re.fullmatch(r'([ah]\d00)(?:x(\d+))?', name)
  if gpu and gpu[1] in HARDWARE and int(gpu[2] or 1) > 0:
    return Topology(gpu[1], int(gpu[2] or 1), '')
  kinds = ', '.join(HARDWARE)
  raise ValueError(
    f'plan.topology={text!r}: known are the kinds {kinds}; TPUs as v5e:8x8, v5p:2x2x2 or by the '
    f'name of a slice ({", ".join(SLICES)}), GPUs as h100 or h100x64'
  )


def topology_of_devices(device_kind: str, chips: int) -> Topology | None:
  """Of devices that are there, by the name jax gives their kind; None for one not in HARDWARE."""
  names = {'TPU v5 lite': 'v5e', 'TPU v5': 'v5p', 'TPU v5p': 'v5p', 'TPU v6 lite': 'v6e'}
  gpu = re.search(r'\b([AH][12]00)\b', device_kind)
  kind = gpu[1].lower() if gpu else names.get(device_kind)
  return Topology(kind, chips, '') if kind in HARDWARE else None


@dataclasses.dataclass(frozen=True)
class Work:
  """On one device; sent: bytes by the mesh axes they cross ('fsdp', 'data+fsdp' ...)."""

  flops: float = 0.0
  hbm: float = 0.0
  sent: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def times(self, count: float) -> 'Work':
    """The work done so often."""
    sent = {axes: count * size for axes, size in self.sent.items()}
    return Work(count * self.flops, count * self.hbm, sent)

  def plus(self, other: 'Work') -> 'Work':
    """Both."""
    axes = dict.fromkeys([*self.sent, *other.sent])
    sent = {a: self.sent.get(a, 0.0) + other.sent.get(a, 0.0) for a in axes}
    return Work(self.flops + other.flops, self.hbm + other.hbm, sent)


def seconds(work: Work, topology: Topology, mesh: Mapping[str, int]) -> dict[str, float]:
  """Seconds of operations, HBM and network, each by itself, and the largest as 'seconds'."""
  hardware = topology.hardware
  found = {
    'compute': work.flops / hardware.flops,
    'hbm': work.hbm / hardware.bandwidth,
    'network': sum(
      size / _speed(axes, hardware, topology.chips, mesh) for axes, size in work.sent.items()
    ),
  }
  return found | {'seconds': max(found.values())}


def _speed(axes: str, hardware: Hardware, chips: int, mesh: Mapping[str, int]) -> float:
  """Bytes a second over these axes. Devices of the last axis (tensor) are neighbours."""
  inner = 1
  for axis in reversed(list(mesh)):
    inner *= mesh[axis]
    if axis == axes.partition('+')[0]:
      break
  leaves_node = bool(hardware.across) and chips > NODE and inner > NODE
  return hardware.across if leaves_node else hardware.link
