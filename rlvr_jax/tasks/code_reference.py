"""Expected outputs that are a reference program's: computed once, kept by content.

The reference runs in the same sandbox as what it is compared with, and under the same interpreter.
A file of the cache directory holds a line of JSON about the run and then what the child wrote, a
line an input (sandbox/program.py).
"""

import collections
import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from rlvr_jax.tasks.sandbox.confine import Limits
from rlvr_jax.tasks.sandbox.host import Sandbox

_SECONDS = 60.0  # of CPU for all inputs
_BYTES = 1 << 30
_MEMORY_BYTES = 1 << 28  # of outputs kept in this process


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Lines as the child writes them, one an input, and the seconds of CPU that all took."""

  lines: list[bytes]
  cpu_s: float


_kept: collections.OrderedDict[str, Outputs] = collections.OrderedDict()


def cache_directory() -> Path:
  """Where computed outputs are kept: $RLVR_CACHE, else ~/.cache/rlvr_jax."""
  return Path(os.environ.get('RLVR_CACHE') or Path.home() / '.cache' / 'rlvr_jax')


def reference_outputs(
  sandbox: Sandbox, reference: str, entry_point: str, inputs: list[Any], memory_mb: int
) -> Outputs:
  """The reference's outputs on all inputs. Raises ValueError if it fails on one."""
  job = json.dumps([reference, entry_point, inputs, sys.version])
  digest = hashlib.sha256(job.encode()).hexdigest()[:32]
  if digest not in _kept:
    path = cache_directory() / 'outputs' / f'{digest}.jsonl'
    if not path.exists():
      _write(path, _run(sandbox, reference, entry_point, inputs, memory_mb))
    _kept[digest] = _read(path)
    while len(_kept) > 1 and _size() > _MEMORY_BYTES:
      _kept.popitem(last=False)
  _kept.move_to_end(digest)
  return _kept[digest]


def _size() -> int:
  return sum(len(line) for outputs in _kept.values() for line in outputs.lines)


def _run(
  sandbox: Sandbox, reference: str, entry_point: str, inputs: list[Any], memory_mb: int
) -> Outputs:
  said: list[bytes] = []

  def take(line: bytes) -> bool:
    said.append(line)
    return line.startswith((b'{"loaded"', b'{"ok"'))

  limits = Limits(2 * _SECONDS, _SECONDS, memory_mb, _BYTES)
  outcome = sandbox.run_calls(reference, entry_point, inputs, limits, take)
  lines = [line for line in said if line.startswith(b'{"ok"')]
  if len(lines) != len(inputs):
    last = said[-1][:200].decode(errors='replace') if said else ''
    raise ValueError(
      f'the reference of {entry_point!r} fails at input {len(lines) + 1} of {len(inputs)}: '
      f'{outcome.why(limits)} {last}'
    )
  return Outputs(lines, outcome.cpu_s)


def _write(path: Path, outputs: Outputs) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  with partial.open('wb') as file:
    file.write(json.dumps({'cpu_s': outputs.cpu_s}).encode() + b'\n')
    file.writelines(line + b'\n' for line in outputs.lines)
  partial.replace(path)


def _read(path: Path) -> Outputs:
  with path.open('rb') as file:
    about, *lines = (line.rstrip(b'\n') for line in file)
  return Outputs(lines, json.loads(about)['cpu_s'])
