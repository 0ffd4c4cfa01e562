"""Plans by arithmetic for many configs and devices, one line each, as docs/plan.md has them.

python -m rlvr_jax.plan_table [CONFIG TOPOLOGY[,TOPOLOGY...] ...]
"""

import sys
from collections.abc import Sequence
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax import plan
from rlvr_jax.plan_text import table
from rlvr_jax.sampling.budget import GIB

SHOWN = (
  'configs/grpo_qwen1p5b_1gpu.py', 'h100,v5p-8,v6e-4',
  'configs/grpo_qwen3b_1gpu.py', 'h100,v5p-8,v6e-8',
  'configs/grpo_qwen7b.py:1gpu', 'h100,v5p-8',
  'configs/grpo_qwen7b.py', 'h100x8,h100x64,v5e-32,v5e-64,v5e-128',
  'configs/grpo_qwen7b.py', 'v5p-16,v5p-32,v5p-64,v6e-16,v6e-64',
  'configs/grpo_llama8b.py', 'h100x8,h100x64,v5e-64,v5p-16,v6e-64',
  'configs/grpo_deepcoder14b.py', 'h100',
  'configs/dapo_qwen32b.py', 'h100x64,v5e-256,v5p-32,v5p-64,v5p-128,v6e-64',
  'configs/grpo_qwen_vl7b.py:1gpu', 'h100',
  'configs/grpo_qwen_vl7b.py', 'h100x8,h100x64,v5e-64,v5p-16,v6e-64',
)  # fmt: skip


def line(path: str, topology: str) -> list[str]:
  """One plan's row."""
  given = {'job': 'plan', 'plan.topology': topology, 'plan.compile': False}
  report = plan.make(config_lib.resolve(config_lib.load_file(path), given))
  phase = max(report['phases'], key=lambda name: report['phases'][name]['all'])
  mesh, sampler = (' x '.join(map(str, report[key].values())) for key in ('mesh', 'sampler_mesh'))
  advised = ' '.join(f'{key}={value}' for key, value in report['advised'].items())
  return [
    path.removeprefix('configs/'),
    topology,
    mesh if mesh == sampler else f'{mesh}, sampler {sampler}',
    f'{report["bytes_per_device"] / GIB:.1f} of {report["hbm_per_device"] / GIB:.1f}, {phase}',
    'yes' if report['fits'] else f'no: {advised or report["advice"][-1]}',
    f'{report["iteration_seconds"]:,.0f}',
    f'{report["tokens_per_second"]:,.0f}',
  ]


def rows(pairs: Sequence[str]) -> list[list[str]]:
  """The table's rows for configs and topologies, alternating."""
  head = ['config', 'devices', 'data x fsdp x tensor', 'GiB, phase', 'fits', 's >=', 'tokens/s <=']
  paths: Any = zip(pairs[::2], pairs[1::2], strict=True)
  return [head, *(line(path, one) for path, many in paths for one in many.split(','))]


if __name__ == '__main__':
  print(table(rows(sys.argv[1:] or SHOWN)))
