"""job=plan: what a run needs, before it is paid for; docs/plan.md.

1. The programs of an iteration are made for described devices and compiled (plan_programs.py,
   plan_compiled.py); for GPUs, and where plan.compile is off, arithmetic stands for the compiler
   (memory.py, plan_work.py).
2. Bytes on a device in each phase against its HBM; where they do not fit, what to change
   (plan_advice.py).
3. Operations, bytes sent by mesh axis, and the least time of an iteration (plan_roofline.py).
"""

import dataclasses
import json
import logging
import os
import pathlib
import sys
import types
from collections.abc import Mapping
from typing import Any

import jax

from rlvr_jax import config as config_lib
from rlvr_jax import layouts, memory, plan_text, plan_work
from rlvr_jax import plan_compiled as compiled_lib
from rlvr_jax.config import Config
from rlvr_jax.memory import Split
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.known import KNOWN
from rlvr_jax.models.load import load_config
from rlvr_jax.plan_advice import advise, least_sampler, room, split_of
from rlvr_jax.plan_compiled import Compiled
from rlvr_jax.plan_programs import Described, bytes_on_device, describe
from rlvr_jax.plan_roofline import NODE, Topology, Work, seconds, topology_of, topology_of_devices
from rlvr_jax.rl.scratch import from_scratch
from rlvr_jax.sampling.budget import GIB, weight_bytes

log = logging.getLogger(__name__)
HOST = {True: 4, False: NODE}  # devices of a host: of TPUs, of GPUs
PHASES = ('hand_over', 'sample', 'score', 'learn')


def plan(config: Config, workdir: pathlib.Path) -> None:
  """Prints the plan and writes it to plan.json. That it does not fit is a result, no error.

  Raises ValueError for a topology that is none, and where libtpu would be needed and is not there.
  """
  report = make(config, say=lambda text: print(text, file=sys.stderr, flush=True))
  print(plan_text.text(report))
  path = pathlib.Path(config.plan.json) if config.plan.json else workdir / 'plan.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(report, indent=2) + '\n')
  print(f'written: {path}', file=sys.stderr)


def make(config: Config, *, say: Any = None) -> dict[str, Any]:
  """The plan as JSON values; plan_text.text makes a page of it."""
  model = model_of(config)
  topology = topology_of(config.plan.topology) if config.plan.topology else None
  if topology is not None and (not topology.name or not config.plan.compile):
    return _by_arithmetic(config, model, topology)
  if topology is None:
    devices = jax.devices()
  else:
    _stay_on_cpu()
    devices = compiled_lib.devices_of(topology)
  given = config
  config = _settled(config, model, devices, _hbm(config, topology, devices))
  config = least_sampler(config, model, split_of(config, len(devices)))
  described = describe(config, model, devices)
  made = compiled_lib.compile_all(described, say=say)
  hbm = _hbm(config, topology, devices)
  kind = devices[0].device_kind
  name = config.plan.topology or f'{len(devices)} x {kind}'
  known = topology or topology_of_devices(kind, len(devices))
  return _refused(given, config, _compiled(given, config, described, made, hbm, known, name))


def model_of(config: Config) -> ModelConfig:
  """The shape of the config's model: known by name, made from scratch, or read from its files."""
  if not config.model.name:
    return from_scratch(config)[0]
  model = KNOWN.get(config.model.name) or load_config(config.model.name)
  return dataclasses.replace(model, attention_impl=config.model.attention_impl)


def _stay_on_cpu() -> None:
  """libtpu shall compile, not look for a TPU of this machine; what runs here runs on the CPU."""
  if not os.environ.get('JAX_PLATFORMS'):
    jax.config.update('jax_platforms', 'cpu')


def _hbm(config: Config, topology: Topology | None, devices: list[Any]) -> int:
  """Bytes that a device may use; of simulated ones their share of the machine's memory."""
  if config.plan.hbm_gb:
    return int(config.plan.hbm_gb * GIB)
  if topology is not None:
    return topology.hardware.hbm
  stats = devices[0].memory_stats()
  if stats and 'bytes_limit' in stats:
    return int(stats['bytes_limit'])
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // len(devices)


def _by_arithmetic(config: Config, model: ModelConfig, topology: Topology) -> dict[str, Any]:
  """A plan without a compiler."""
  hosts: list[Any] = [
    types.SimpleNamespace(
      process_index=i // HOST[bool(topology.name)], platform='tpu' if topology.name else 'gpu'
    )
    for i in range(topology.chips)
  ]
  hbm = int(config.plan.hbm_gb * GIB) or topology.hardware.hbm
  given, config = config, _settled(config, model, hosts, hbm)
  split = split_of(config, topology.chips)
  config = least_sampler(config, model, split)
  phases = memory.phases(config, model, split, kernel=not topology.name)
  lengths = plan_work.lengths_of(config, model)
  micro = {
    learn: plan_work.micro_batch_work(config, model, split, learn=learn).plus(
      plan_work.tower_work(config, model, split, learn=learn, lengths=lengths)
    )
    for learn in (False, True)
  }
  works = _works(config, model, split, {}, micro)
  name = topology.name or f'{topology.kind}x{topology.chips}'
  report = _report(given, config, model, split, phases, hbm, works, topology, 'arithmetic', name)
  impl = 'xla_paged' if topology.name else 'pallas_gpu'
  return _refused(given, config, report | {'decode_impl': impl})


def _settled(config: Config, model: ModelConfig, devices: list[Any], hbm: int) -> Config:
  """The config with the mesh that mesh.auto chooses, where it does."""
  try:
    return layouts.settled(config, model=model, devices=devices, hbm=hbm)
  except (
    ValueError
  ) as error:  # planned as its other keys say, so that the plan says what is too much
    log.warning('%s', error)
    changed = config.copy_and_resolve_references()
    config_lib.set_key(changed, 'mesh.auto', False, 'plan')
    return changed.lock()


def _refused(given: Config, planned: Config, report: dict[str, Any]) -> dict[str, Any]:
  """The report, where the sampler's budget had to be raised to be planned at all."""
  before, now = given.sampling.memory_gb, planned.sampling.memory_gb
  if before == now:
    return report
  said = f'sampling.memory_gb={before} holds no completion; planned with {now}'
  if report['fits']:
    said += f': --config.sampling.memory_gb={now} fits'
    report['advised'] = {'sampling.memory_gb': now}
  return report | {'fits': False, 'advice': [said, *report['advice']]}


def _compiled(
  given: Config,
  config: Config,
  described: Described,
  made: list[Compiled],
  hbm: int,
  topology: Topology | None,
  name: str,
) -> dict[str, Any]:
  """A plan of compiled programs."""
  split = Split(*described.mesh.shape.values()) if described.mesh is not None else Split()
  phases = _phases(config, described, made)
  by_name = {one.name: one for one in made}
  lengths = plan_work.lengths_of(config, described.model)
  micro = {}
  for learn, program in ((False, 'score'), (True, 'step')):
    one = plan_work.micro_batch_work(config, described.model, split, learn=learn)
    largest, mean = (
      plan_work.tower_work(config, described.model, split, learn=learn, lengths=own)
      for own in (None, lengths)
    )
    turn = by_name[program].turn
    if by_name[program].fits:  # compiled with the largest images; an iteration has mean ones
      sent = Work(sent=turn.sent).plus(largest.times(-1)).sent
      sent = {axes: max(0.0, size) for axes, size in sent.items()}
      one = Work(turn.flops - largest.flops, one.hbm, sent)
    micro[learn] = one.plus(mean)
  works = _works(config, described.model, split, by_name, micro)
  report = _report(
    given, config, described.model, split, phases, hbm, works, topology, 'compiled', name
  )
  programs = {
    one.name: {
      'phase': one.phase,
      'compiled': one.fits,
      'arguments': one.arguments,
      'results': one.results,
      'temporaries': one.temporaries,
      'code': one.code,
      'compile_seconds': round(one.seconds, 2),
      'flops': {'call': one.fixed.flops, 'turn': one.turn.flops},
      'sent': {'call': dict(one.fixed.sent), 'turn': dict(one.turn.sent)},
      **({'message': one.said} if one.said else {}),
    }
    for one in made
  }
  report['fits'] = report['fits'] and all(one.fits for one in made)
  micro_batches, rows, T = described.shape
  shape = {'micro_batches': micro_batches, 'rows': rows, 'tokens': T}
  return report | {
    'decode_impl': described.decode_impl,
    'programs': programs,
    'compile_seconds': round(sum(one.seconds for one in made), 1),
    'largest_step': shape,
  }


def _phases(
  config: Config, described: Described, made: list[Compiled]
) -> dict[str, dict[str, int]]:
  """Phase -> part -> bytes: what is held, and the program of the phase that takes most."""
  held = {name: bytes_on_device(tree) for name, tree in described.held.items()}
  code = sum(one.code for one in made)
  gradients = sum(
    memory.gradients(
      config,
      described.model,
      Split(*described.mesh.shape.values()) if described.mesh is not None else Split(),
    ).values()
  )
  found = {}
  for phase in PHASES:
    one = max((m for m in made if m.phase == phase), key=lambda m: m.total)
    parts = {}
    for name, size in held.items():
      if name in _absent(config, phase, one):
        continue
      parts[name] = size
    inside = sum(held.get(name, 0) for name in one.uses)
    rest = one.arguments + one.results + one.temporaries - inside
    temporaries = min(one.temporaries, max(rest, 0))
    parts['rows and results'] = max(0, rest - temporaries)
    if one.name == 'step':
      parts['gradients'] = min(gradients, temporaries)
      temporaries -= parts['gradients']
    found[phase] = parts | {'temporaries': temporaries, 'code': code}
  return found


def _absent(config: Config, phase: str, one: Compiled) -> set[str]:
  """What of Described.held is not there in a phase."""
  absent = {'compute copy'} - set(one.uses)
  if config.sampling.release:
    absent |= {'sampler state'} if phase == 'hand_over' else set()
    absent |= {'sampler params', 'sampler state'} if phase in ('score', 'learn') else set()
  return absent


def _works(
  config: Config,
  model: ModelConfig,
  split: Split,
  made: Mapping[str, Compiled],
  micro: Mapping[bool, Work],
) -> dict[str, Any]:
  """Counts, lengths and the work of each phase of an iteration on one device."""
  lengths = plan_work.lengths_of(config, model)
  budget, own = memory.sampler_budget(config, model, split), split.sampler(config.sampling.tensor)
  turns = plan_work.turns_of(config, split, budget, lengths)
  decode = plan_work.decode_step_work(config, model, own, budget, turns, lengths)
  if 'chunk' in made and made['chunk'].fits:
    decode = Work(decode.flops, decode.hbm, made['chunk'].turn.sent)
  prefill = plan_work.prefill_work(config, model, own, lengths)
  hand_over = plan_work.hand_over_work(config, model, split)
  if 'hand-over' in made and made['hand-over'].fits:
    hand_over = Work(0.0, hand_over.hbm, made['hand-over'].fixed.sent)
  step = Work(0.0, plan_work.optimizer_traffic(config, model, split))
  if 'step' in made:
    step = step.plus(made['step'].fixed)
  return {
    'lengths': lengths,
    'turns': turns,
    'sampler': own,
    'phases': {
      'hand_over': hand_over,
      'sample': decode.times(turns.decode_steps).plus(prefill.times(turns.prefills)),
      'score': micro[False].times(turns.scored),
      'learn': micro[True].times(turns.micro_batches).plus(step.times(turns.steps)),
    },
  }


def _report(
  given: Config,
  config: Config,
  model: ModelConfig,
  split: Split,
  phases: Mapping[str, Mapping[str, int]],
  hbm: int,
  works: Mapping[str, Any],
  topology: Topology | None,
  how: str,
  name: str,
) -> dict[str, Any]:
  """What compiled plans and those by arithmetic have in common."""
  totals = {phase: sum(parts.values()) for phase, parts in phases.items()}
  lengths, turns = works['lengths'], works['turns']
  chips = split.rows * split.tensor
  kernel = how == 'arithmetic' and not (topology and topology.name)
  auto = given.mesh.auto
  base = config if auto else given
  advice = advise(base, model, chips, hbm, totals, config, kernel=kernel, chosen=auto)
  said = room(config, model, split, hbm, totals) if advice is None else advice.text()
  report: dict[str, Any] = {
    'topology': name,
    'how': how,
    'fits': max(totals.values()) <= hbm,
    'bytes_per_device': max(totals.values()),
    'hbm_per_device': hbm,
    'model': config.model.name or 'from scratch',
    'config': config.name,
    'devices': chips,
    'mesh': split._asdict(),
    'sampler_mesh': split.sampler(config.sampling.tensor)._asdict(),
    'phases': {phase: dict(parts) | {'all': totals[phase]} for phase, parts in phases.items()},
    'flops': {phase: work.flops for phase, work in works['phases'].items()},
    'collectives': {phase: dict(work.sent) for phase, work in works['phases'].items()},
    'lengths': {
      'prompt': lengths.prompt,
      'completion': lengths.completion,
      'assumed': lengths.assumed,
    },
    'turns': {
      'completions': turns.completions,
      'decode_steps': turns.decode_steps,
      'live_slots': turns.live * split.sampler(config.sampling.tensor).rows,
      'scored_micro_batches': turns.scored,
      'steps': turns.steps,
      'micro_batches': turns.micro_batches,
    },
    'advice': [] if said is None else [said],
    'advised': {} if advice is None else dict(advice.changes),
    'weights_to_load': weight_bytes(model, config.model.dtype),
    'versions': _versions(),
  }
  if topology is not None:
    report |= _times(works, topology, split)
  return report


def _times(works: Mapping[str, Any], topology: Topology, split: Split) -> dict[str, Any]:
  """Seconds of each phase by the roofline, of the iteration, and rates."""
  by_phase = {
    phase: seconds(work, topology, (works['sampler'] if phase == 'sample' else split)._asdict())
    for phase, work in works['phases'].items()
  }
  turns, lengths = works['turns'], works['lengths']
  iteration = sum(one['seconds'] for one in by_phase.values())
  sampled = turns.completions * lengths.completion
  return {
    'seconds': by_phase,
    'iteration_seconds': iteration,
    'sampled_tokens_per_second': sampled / by_phase['sample']['seconds'],
    'tokens_per_second': sampled / iteration,
    'completions_per_second': turns.completions / iteration,
  }


def _versions() -> dict[str, Any]:
  found = config_lib.versions()
  try:
    import libtpu  # pyright: ignore[reportMissingImports]

    found['libtpu'] = getattr(libtpu, '__version__', 'unknown')
  except ImportError:
    found['libtpu'] = None
  return {name: found[name] for name in ('python', 'jax', 'jaxlib', 'libtpu', 'rlvr_jax', 'git')}
