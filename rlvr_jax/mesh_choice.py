"""Which mesh for a model on some devices: of what fits the best by a rule, and the reason in words.

tensor exchanges activations in every layer and for every token, fsdp weights once a layer and
micro-batch, data gradients once a micro-batch. So of what fits the least tensor is taken, with it
the mesh beside which the fewest devices share the sampler's weights, then the least fsdp; data
takes the rest. What fits is not decided here: the bytes of a layout are the caller's.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

GIB = 1 << 30
USABLE = 0.9  # of a device's memory; the compiler and fragments need the rest
# of what there is for the sampler, the most that its weights may take; its cache has the rest
WEIGHTS_SHARE = 0.6
WAYS_OUT = {
  'hand_over': 'fewer sampling.slots, or sampling.release while learning',
  'sample': 'less sampling.memory_gb, or fewer sampling.slots where that is 0',
  'score': 'less train.micro_tokens or model.logprob_chunk',
  'learn': 'less train.micro_tokens, optimizer.moment_dtype=bfloat16',
}


class Layout(NamedTuple):
  """Sizes of the learner's axes; sampler: devices that share the sampler's weights."""

  data: int
  fsdp: int
  tensor: int
  sampler: int

  def __str__(self) -> str:
    return f'fsdp={self.fsdp} tensor={self.tensor} sampling.tensor={self.sampler}'


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a run's layouts must divide."""

  devices: int
  own: int  # devices of a process, which alone may share the sampler's weights
  most_rows: int  # rollouts of an optimizer step: more data x fsdp would have nothing to do
  slots: int  # of the sampler, over all devices
  fsdp: tuple[int, ...]  # sizes that fsdp must divide
  tensor: tuple[int, ...]  # and tensor, and the sampler's
  sampler: int = 0  # as it is asked for; 0: any

  def layouts(self) -> list[Layout]:
    """All that divide."""
    samplers = [self.sampler] if self.sampler else divisors(self.own)
    return [
      Layout(self.devices // (fsdp * tensor), fsdp, tensor, sampler)
      for tensor in divisors(self.devices)
      for fsdp in divisors(self.devices // tensor)
      for sampler in samplers
      if not any(size % parts for size in self.tensor for parts in (tensor, sampler))
      and not any(size % fsdp for size in self.fsdp)
      and self.devices // tensor <= self.most_rows
      and self.devices % sampler == 0
      and self.slots % (self.devices // sampler) == 0
    ]


@dataclasses.dataclass(frozen=True)
class Priced:
  """Bytes on a device by phase and part; crowded: the sampler's weights leave its cache little."""

  phases: Mapping[str, Mapping[str, int]]
  crowded: bool = False

  @property
  def largest(self) -> str:
    """The phase that takes most."""
    return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

  @property
  def size(self) -> int:
    """Its bytes."""
    return sum(self.phases[self.largest].values())

  def text(self) -> str:
    """Both, and the part that takes most of it."""
    parts = self.phases[self.largest]
    part = max(parts, key=lambda name: parts[name])
    return f'{_gib(self.size)} in {self.largest} ({_gib(parts[part])} of it {part})'


@dataclasses.dataclass(frozen=True)
class Choice:
  """A layout, and why."""

  layout: Layout
  reason: str


def divisors(n: int) -> list[int]:
  """Ascending."""
  return [i for i in range(1, n + 1) if n % i == 0]


def choose(memory: int, limits: Limits, price: Callable[[Layout], Priced]) -> Choice:
  """The layout of learner and sampler on devices of `memory` bytes each.

  price: bytes of a layout; ValueError of it where it holds no sampler. ValueError, with what would
  be needed, where no layout fits.
  """
  priced, refused = {}, ''
  for layout in limits.layouts():
    try:
      priced[layout] = price(layout)
    except ValueError as error:
      refused = str(error)
  fitting = {layout for layout, one in priced.items() if one.size <= int(USABLE * memory)}
  if not fitting:
    raise ValueError(_refusal(memory, limits, priced, refused))

  def wanted(layout: Layout) -> tuple:
    # weights may not crowd out the cache, but that is no reason for more tensor in the learner
    crowded = priced[layout].crowded
    return layout.tensor, crowded, layout.sampler, layout.fsdp

  best = min(fitting, key=wanted)
  reason = f'{limits.devices} devices of {_gib(memory)}: at most {priced[best].text()} on each'
  better = [layout for layout in priced if wanted(layout) < wanted(best)]
  if better:
    before = max(better, key=wanted)
    reason += f'; {before} would need {priced[before].text()}'
  elif best.tensor > 1:
    reason += f'; a step has {limits.most_rows} rollouts, so tensor takes the rest'
  return Choice(best, reason)


def _refusal(memory: int, limits: Limits, priced: Mapping[Layout, Priced], refused: str) -> str:
  if not priced and refused:
    return f'mesh.auto: no mesh of {limits.devices} devices holds the sampler: {refused}'
  if not priced:
    asked = f', sampling.tensor is {limits.sampler}' if limits.sampler else ''
    return (
      f'mesh.auto: {limits.devices} devices cannot share this run: an optimizer step has '
      f'{limits.most_rows} rollouts, the sampler {limits.slots} slots{asked}, fsdp must divide '
      f'{limits.fsdp} and tensor {limits.tensor}; take another number of devices, more rollouts in '
      'a step, other sampling.slots or sampling.tensor=0, or give mesh.data, mesh.fsdp, mesh.tensor'
    )
  least = min(priced, key=lambda layout: priced[layout].size)
  one = priced[least]
  return (
    f'mesh.auto: no mesh of {limits.devices} devices fits: the least, {least}, needs {one.text()} '
    f'on each of {_gib(memory)}, of which {_gib(USABLE * memory)} may be used: take more or larger '
    f'devices, {WAYS_OUT[one.largest]}, adapters (lora.rank), or shorter completions '
    '(sampling.max_tokens); --config.job=plan says how far'
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
