"""Bytes, operations and messages of each program, by compiling it for the described devices."""

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies

from rlvr_jax import plan_hlo
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.plan_programs import Described, Program, bytes_on_device
from rlvr_jax.plan_roofline import Topology, Work
from rlvr_jax.sampling.budget import GIB

MISSING = (
  'plan.topology={!r} is compiled by libtpu, which needs no TPU but has to be installed: '
  "`pip install -e '.[tpu]'`. Or take --config.plan.compile=False for a plan by arithmetic"
)
_UNITS = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
_SIZE = r'([\d.]+)([KMGT]?)i?B?'
_USED = re.compile(rf'Used {_SIZE} of {_SIZE} (?:hbm|memory)', re.IGNORECASE)
_TEMPORARIES = re.compile(rf'temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)')


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A program on one device: bytes as the compiler gives them.

  fits: whether the compiler made it; where not, `temporaries` is what its message asks for beside
  the arguments, and the rest is 0. fixed: work done once a call; turn: by each turn of its loop
  over micro-batches or decode steps.
  """

  name: str
  phase: str
  uses: tuple[str, ...]
  fits: bool
  arguments: int
  results: int  # that are not written over arguments
  temporaries: int
  code: int
  fixed: Work
  turn: Work
  seconds: float  # of compiling
  said: str = ''  # the compiler's message where it does not fit

  @property
  def total(self) -> int:
    """Bytes while it runs, its code left out."""
    return self.arguments + self.results + self.temporaries


def devices_of(topology: Topology) -> list[Any]:
  """The topology's devices as libtpu describes them; ValueError where there is no libtpu."""
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # no question to a cloud's metadata server
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  # a plan takes no TPU, so that several may be made at once, and beside a run
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  # hosts have four chips by default, of which a single one has to be told that it is alone
  host: dict[str, Any] = {'chips_per_host_bounds': (1, 1, 1)} if topology.chips == 1 else {}
  try:
    described = topologies.get_topology_desc(platform='tpu', topology_name=topology.name, **host)
    return list(described.devices)
  except (RuntimeError, ValueError, jax.errors.JaxRuntimeError) as error:
    text = str(error).splitlines()[0]
    if 'not installed' in text or 'libtpu.so' in text:
      raise ValueError(MISSING.format(topology.name)) from error
    raise ValueError(f'plan.topology={topology.name!r}: libtpu says: {text}') from error


def compile_all(described: Described, *, say: Any = None) -> list[Compiled]:
  """Every program, in order; say(text) is told of each when it is done."""
  found = []
  for program in described.programs:
    mesh = described.sampler_mesh if program.phase == 'sample' else described.mesh
    sizes = {} if mesh is None else dict(mesh.shape)
    one = compile_one(program, sizes, shares_of(described.model))
    if say is not None:
      state = 'compiled' if one.fits else 'does not fit, says the compiler'
      say(f'{one.name}: {state}, {one.total / GIB:.2f} GiB while it runs, {one.seconds:.0f} s')
    found.append(one)
  return found


def shares_of(model: ModelConfig) -> dict[str, float]:
  """plan_hlo.cost's shares: of the tower's layers some attend to whole images."""
  tower = model.vision
  return {} if tower is None else {'vision': len(tower.full_layers) / tower.num_layers}


def compile_one(
  program: Program, mesh: Mapping[str, int], shares: Mapping[str, float] | None = None
) -> Compiled:
  """One program; an error other than of memory is raised as it is."""
  start = time.perf_counter()
  lowered = program.lower()
  try:
    executable = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    used = asked_for(str(error))
    if used is None:
      raise
    took = time.perf_counter() - start
    arguments = bytes_on_device(program.args)
    rest = max(0, used - arguments)
    text = str(error).splitlines()[0]
    none = Work()
    return Compiled(
      program.name,
      program.phase,
      program.uses,
      False,
      arguments,
      0,
      rest,
      0,
      none,
      none,
      took,
      text,
    )
  memory = executable.memory_analysis()
  took = time.perf_counter() - start
  fixed, turn = work_of(executable.as_text() or '', mesh, shares)
  if program.phase in ('score', 'learn') and not turn.flops:  # one micro-batch needs no loop
    fixed, turn = Work(), fixed
  return Compiled(
    name=program.name,
    phase=program.phase,
    uses=program.uses,
    fits=True,
    arguments=memory.argument_size_in_bytes,
    results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    code=memory.generated_code_size_in_bytes,
    fixed=fixed,
    turn=turn,
    seconds=took,
  )


def asked_for(message: str) -> int | None:
  """Bytes of HBM that a compiler's message says are needed; None where it says none."""
  for pattern in (_USED, _TEMPORARIES):
    if found := pattern.search(message):
      return int(float(found[1]) * _UNITS[found[2].upper()])
  return None


def work_of(
  text: str, mesh: Mapping[str, int], shares: Mapping[str, float] | None = None
) -> tuple[Work, Work]:
  """(once a call, each turn of its outer loop) of a program's HLO; HBM traffic is not counted."""
  module = plan_hlo.parse(text)
  none, one = (plan_hlo.cost(module, mesh, outer=turns, shares=shares) for turns in (0.0, 1.0))

  def sent(cost: plan_hlo.Cost) -> dict[str, float]:
    by_axes: dict[str, float] = {}
    for moved, size in cost.sent.items():
      by_axes[moved.axes] = by_axes.get(moved.axes, 0.0) + size
    by_axes.pop('self', None)
    return by_axes

  fixed, all_of = Work(none.flops, 0.0, sent(none)), sent(one)
  turn = {axes: size - fixed.sent.get(axes, 0.0) for axes, size in all_of.items()}
  return fixed, Work(one.flops - none.flops, 0.0, {a: s for a, s in turn.items() if s > 0})
