"""python -m bench.run [name ...]: runs benchmarks, each bench/<name>.py, and prints their gates.

A benchmark has main() -> list of gates, {'gate', 'value', 'target', 'holds', 'unit', 'how'}:
value and target are numbers or text, holds is whether the target is met, how says in a sentence
what was measured. They are written to bench/out/<name>.json. Exit code 1 if one could not run.
"""

import importlib
import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = pathlib.Path(__file__).parent
KEYS = ('gate', 'value', 'target', 'holds', 'unit', 'how')


def names() -> list[str]:
  """The benchmarks there are."""
  files = (path.stem for path in HERE.glob('*.py'))
  return sorted(name for name in files if name != 'run' and not name.startswith('_'))


def check_gates(name: str, gates: Any) -> list[dict[str, Any]]:
  """gates as they are if they have the promised form, else ValueError."""
  for gate in gates:
    if set(gate) != set(KEYS) or not isinstance(gate['holds'], bool):
      raise ValueError(f'bench/{name}.py: a gate has the keys {KEYS} (holds a bool), got {gate}')
    if any(isinstance(v, float) and not math.isfinite(v) for v in gate.values()):
      raise ValueError(f'bench/{name}.py: gate {gate["gate"]!r} is not finite: {gate}')
  return gates


def run_one(name: str, out: pathlib.Path) -> list[dict[str, Any]]:
  """Runs one benchmark in this process and writes out/<name>.json."""
  gates = check_gates(name, importlib.import_module(f'bench.{name}').main())
  out.mkdir(parents=True, exist_ok=True)
  (out / f'{name}.json').write_text(json.dumps(gates, indent=2, allow_nan=False) + '\n')
  Console().print(as_table(name, gates))
  return gates


def as_table(name: str, gates: Sequence[dict[str, Any]]) -> Table:
  """The gates as a table for the screen."""
  table = Table(title=name, title_justify='left')
  for key in KEYS:
    table.add_column(key, overflow='fold')
  for gate in gates:
    cells = {**gate, 'holds': 'yes' if gate['holds'] else 'NO'}
    table.add_row(*(_cell(cells[key]) for key in KEYS))
  return table


def _cell(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def main(wanted: Sequence[str]) -> int:
  """Runs the wanted benchmarks, all if none is named; several run in a process each."""
  unknown = [name for name in wanted if name not in names()]
  if unknown:
    known = ', '.join(names()) or '(none yet)'
    print(f'no benchmark {", ".join(unknown)}; there are: {known}', file=sys.stderr)
    return 2
  if len(wanted) == 1:
    run_one(wanted[0], HERE / 'out')
    return 0
  failed = [
    name
    for name in wanted or names()
    if subprocess.run([sys.executable, '-m', 'bench.run', name], check=False).returncode
  ]
  if failed:
    print(f'could not run: {", ".join(failed)}', file=sys.stderr)
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
