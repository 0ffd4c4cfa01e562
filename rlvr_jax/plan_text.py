"""A plan as text: tables of bytes, work and time, and what to change."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax.sampling.budget import GIB


def text(report: Mapping[str, Any]) -> str:
  """The whole page, as Markdown."""
  parts = [_head(report), _bytes(report), _verdict(report)]
  if 'seconds' in report:
    parts.append(_times(report))
  if 'programs' in report:
    parts.append(_programs(report))
  return '\n\n'.join(parts)


def table(rows: Sequence[Sequence[str]]) -> str:
  """Markdown; the first row is the head, the first column a name."""
  lines = [rows[0], ['---', *('---:' for _ in rows[0][1:])], *rows[1:]]
  return '\n'.join(f'| {" | ".join(row)} |' for row in lines)


# the order of a table's rows; others follow
ORDER = (
  'params', 'weights', 'optimizer', 'moments', 'adapters', 'critic params', 'critic optimizer',
  'reference', 'compute copy', 'sampler params', 'sampler weights', 'sampler state', 'cache',
  'gradients', 'temporaries', 'rows and results', 'code',
)  # fmt: skip


def _unit(report: Mapping[str, Any]) -> tuple[str, int]:
  return ('GiB', GIB) if report['bytes_per_device'] >= GIB else ('MiB', GIB >> 10)


def _size(size: float, unit: int = GIB) -> str:
  return f'{size / unit:.2f}' if size else ''


def _head(report: Mapping[str, Any]) -> str:
  mesh = ', '.join(f'{axis} {size}' for axis, size in report['mesh'].items())
  if report['sampler_mesh'] != report['mesh']:
    own = ', '.join(f'{axis} {size}' for axis, size in report['sampler_mesh'].items() if size > 1)
    mesh += f"; the sampler's: {own}"
  how = 'compiled' if report['how'] == 'compiled' else 'BY ARITHMETIC, not compiled'
  return (
    f'# {report["model"]} on {report["topology"]} ({how})\n\n'
    f'{report["devices"]} devices, mesh {mesh}; decode {report["decode_impl"]}.'
  )


def _bytes(report: Mapping[str, Any]) -> str:
  phases = report['phases']
  label, unit = _unit(report)
  there = list(dict.fromkeys(part for parts in phases.values() for part in parts if part != 'all'))
  names = [name for name in ORDER if name in there] + [name for name in there if name not in ORDER]
  rows = [[f'{label} on a device', *phases]]
  rows += [[name, *(_size(p.get(name, 0), unit) for p in phases.values())] for name in names]
  rows += [['**all**', *(f'**{_size(p["all"], unit)}**' for p in phases.values())]]
  return table(rows)


def _verdict(report: Mapping[str, Any]) -> str:
  used, hbm = report['bytes_per_device'], report['hbm_per_device']
  line = f'{used / GIB:.2f} of {hbm / GIB:.2f} GiB on each device: '
  if report['fits']:
    room = f'{line}it fits, with {(hbm - used) / GIB:.2f} GiB to spare.'
    return '\n\n'.join([room, *report['advice']])
  return '\n\n'.join([f'{line}it DOES NOT FIT.', *report['advice']])


def _times(report: Mapping[str, Any]) -> str:
  rows = [['one iteration', *report['seconds']]]
  for name, label in (
    ('compute', 's at peak operations'),
    ('hbm', 's at peak HBM'),
    ('network', 's at peak network'),
    ('seconds', '**s at least**'),
  ):
    rows.append([label, *(f'{one[name]:.2f}' for one in report['seconds'].values())])
  rows.append(['TFLOP on a device', *(f'{n / 1e12:.1f}' for n in report['flops'].values())])
  axes = list(dict.fromkeys(a for sent in report['collectives'].values() for a in sent))
  for a in axes:
    sizes = [sent.get(a, 0.0) for sent in report['collectives'].values()]
    if max(sizes) >= 5e6:  # below a hundredth of a GB it would read 0.00
      rows.append([f'GB sent over {a}', *(f'{size / 1e9:.2f}' if size else '' for size in sizes)])
  lengths, turns = report['lengths'], report['turns']
  where = ' (a quarter of the longest, assumed: plan.completion_tokens)' * lengths['assumed']
  return (
    f'{table(rows)}\n\n'
    f'An iteration of {turns["completions"]:,} completions of {lengths["completion"]:,} tokens on '
    f'average{where} takes at least {report["iteration_seconds"]:.1f} s by the roofline: '
    f'{report["tokens_per_second"]:,.0f} tokens/s over all, '
    f'{report["sampled_tokens_per_second"]:,.0f} while sampling; {turns["steps"]} optimizer steps '
    f'of {turns["micro_batches"]} micro-batches in all, {turns["decode_steps"]:,} decode steps of '
    f'{turns["live_slots"]:,.0f} completions. It is a limit, not a forecast; the tail of the '
    'longest completions, the verifiers and loading come on top.'
  )


def _programs(report: Mapping[str, Any]) -> str:
  label, unit = _unit(report)
  rows = [['program', 'arguments', 'results', 'temporaries', 'code', 's to compile']]
  for name, one in report['programs'].items():
    sizes = [_size(one[key], unit) for key in ('arguments', 'results', 'temporaries', 'code')]
    rows.append([name, *sizes, f'{one["compile_seconds"]:.0f}'])
  return (
    f'{table(rows)}\n\n{label} on a device. Compiling took {report["compile_seconds"]:.0f} s here; '
    f'{report["weights_to_load"] / GIB:.1f} GiB of weights are to be loaded.'
  )
