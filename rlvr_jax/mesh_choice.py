"""Which mesh for a model on some devices: arithmetic over bytes, with the reason in words.

tensor exchanges activations in every layer and for every token, fsdp weights once a layer and
micro-batch, data gradients once a micro-batch. So of what fits the least tensor is taken, with it
the mesh beside which the fewest devices share the sampler's weights, then the least fsdp; data
takes the rest.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

GIB = 1 << 30
USABLE = 0.9  # of a device's memory; the compiler and fragments need the rest
# of what the learner leaves, the most that the sampler's weights may take; its cache has the rest
WEIGHTS_SHARE = 0.6


@dataclasses.dataclass(frozen=True)
class Need:
  """What a learner needs, in bytes, by the axes that split it; and what the axes must divide."""

  state: int  # split by fsdp and tensor: weights, moments, gradients, a critic, a reference
  inner: int  # split by tensor: a layer gathered over fsdp, what is computed in it, logits
  row: int  # split by neither: the inputs of all layers, of one row of the longest rollout
  most_rows: int  # rollouts of an optimizer step: more data x fsdp would have nothing to do
  fsdp: tuple[int, ...]  # sizes that fsdp must divide
  tensor: tuple[int, ...]  # and tensor

  def on_device(self, fsdp: int, tensor: int) -> int:
    """Bytes on one device."""
    return self.state // (fsdp * tensor) + self.inner // tensor + self.row


@dataclasses.dataclass(frozen=True)
class Choice:
  """Sizes of the axes, and why."""

  data: int
  fsdp: int
  tensor: int
  reason: str


def divisors(n: int) -> list[int]:
  """Ascending."""
  return [i for i in range(1, n + 1) if n % i == 0]


def choose(
  devices: int, memory: int, need: Need, share: Callable[[int, int], int] = lambda fsdp, tensor: 1
) -> Choice:
  """The learner's mesh on so many devices of `memory` bytes each.

  share(fsdp, tensor): how many devices share the sampler's weights beside such a learner; fewer of
  them come before less fsdp, for they exchange something at every token. ValueError, with what
  would be needed, where no mesh fits.
  """
  usable = int(USABLE * memory)
  possible = [
    (tensor, fsdp)
    for tensor in divisors(devices)
    for fsdp in divisors(devices // tensor)
    if not any(size % tensor for size in need.tensor)
    and not any(size % fsdp for size in need.fsdp)
    and devices // tensor <= need.most_rows
  ]
  sizes = {(tensor, fsdp): need.on_device(fsdp, tensor) for tensor, fsdp in possible}
  fitting = [shape for shape in possible if sizes[shape] <= usable]
  if not fitting:
    raise ValueError(_refusal(devices, memory, need, sizes))
  tensor = fitting[0][0]
  shares = {fsdp: share(fsdp, tensor) for t, fsdp in fitting if t == tensor}
  fsdp = min(shares, key=lambda fsdp: (shares[fsdp], fsdp))
  reason = (
    f'{devices} devices of {_gib(memory)}: weights, moments and gradients are {_gib(need.state)}, '
    f'with activations {_gib(sizes[tensor, fsdp])} on each'
  )
  before = possible[possible.index((tensor, fsdp)) - 1] if (tensor, fsdp) != possible[0] else None
  if before is not None and before in fitting:
    reason += (
      f'; with fsdp={before[1]} the sampler had to share its weights {shares[before[1]]} ways, '
      f'not {shares[fsdp]}'
    )
  elif before is not None:
    reason += f'; fsdp={before[1]}, tensor={before[0]} would need {_gib(sizes[before])}'
  elif tensor > 1:
    reason += f'; a step has {need.most_rows} rollouts, so tensor takes the rest'
  return Choice(devices // (fsdp * tensor), fsdp, tensor, reason)


def _refusal(devices: int, memory: int, need: Need, sizes: Mapping[tuple[int, int], int]) -> str:
  if not sizes:
    return (
      f'mesh.auto: {devices} devices cannot share this run: an optimizer step has '
      f'{need.most_rows} rollouts, fsdp must divide {need.fsdp} and tensor {need.tensor}; take '
      'fewer devices, more rollouts in a step, or give mesh.data, mesh.fsdp and mesh.tensor'
    )
  tensor, fsdp = min(sizes, key=lambda shape: sizes[shape])
  return (
    f'mesh.auto: no mesh of {devices} devices fits: the least, fsdp={fsdp} and tensor={tensor}, '
    f'needs {_gib(sizes[tensor, fsdp])} on each of {_gib(memory)}, of which '
    f'{_gib(USABLE * memory)} may be used. Weights, moments and gradients are {_gib(need.state)} '
    f'in all, the inputs of the layers {_gib(need.row)} a row: take more or larger devices, '
    'optimizer.moment_dtype=bfloat16, adapters (lora.rank), or shorter completions '
    '(sampling.max_tokens)'
  )


def choose_tensor(devices: int, left: int, weights: int, tensor: Sequence[int]) -> tuple[int, str]:
  """How many devices share the sampler's weights, and why.

  devices: of one process, which alone may share. left: bytes that the learner leaves on each.
  weights: bytes of all. tensor: sizes that it must divide. ValueError where none fits.
  """
  for parts in divisors(devices):
    if any(size % parts for size in tensor):
      continue
    if weights // parts <= WEIGHTS_SHARE * left:
      return parts, (
        f'the weights are {_gib(weights)}, {_gib(weights // parts)} on each device, of '
        f'{_gib(left)} that are left; the cache gets what remains'
      )
  raise ValueError(
    f"mesh.auto: the sampler's weights, {_gib(weights)}, shared by {devices} devices of a process "
    f'or by divisors of it, leave no room for a cache in {_gib(left)} each; take more or larger '
    'devices, or model.compute_dtype=bfloat16'
  )


def device_memory(devices: Sequence[Any]) -> int:
  """Bytes that jax may use on one device; of a CPU its share of the machine's memory."""
  stats = devices[0].memory_stats()
  if stats and 'bytes_limit' in stats:
    return int(stats['bytes_limit'])
  own = sum(device.process_index == devices[0].process_index for device in devices)
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // own


def _gib(size: float) -> str:
  return f'{size / GIB:.2f} GiB'
