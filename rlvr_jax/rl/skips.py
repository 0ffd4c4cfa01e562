"""Optimizer steps that were skipped for a non-finite loss or gradient: counted, kept, told."""

import dataclasses
import io
import logging
import pathlib

import numpy as np

from rlvr_jax import hosts, paths
from rlvr_jax.rl.types import Rollouts

log = logging.getLogger(__name__)
MOST_SKIPS = 3  # non-finite steps in a row that stop a run
MOST_DUMPS = 20  # batches kept, the last ones: a long run may skip a step now and then


def count_skips(
  row: dict[str, float],
  in_row: int,
  workdir: pathlib.Path,
  iteration: int,
  rollouts: Rollouts,
  advantages: np.ndarray,
) -> int:
  """Non-finite steps in a row after this iteration; dumps the batch of one that was skipped."""
  if not row['skipped']:
    return 0
  path = dump_path(workdir, iteration)
  if hosts.is_first():
    path.parent.mkdir(parents=True, exist_ok=True)
    dump = io.BytesIO()
    fields = {f.name: getattr(rollouts, f.name) for f in dataclasses.fields(rollouts)}
    del fields['images']  # no numbers
    np.savez(dump, advantages=advantages, **{k: v for k, v in fields.items() if v is not None})
    paths.write_whole(path, dump.getvalue())
    for old in sorted(path.parent.glob('iteration-*.npz'))[:-MOST_DUMPS]:
      old.unlink()
  log.warning(
    'iteration %d: loss or gradient is not finite, the step was skipped; the batch is in %s',
    iteration,
    path,
  )
  trailing = int(row['skipped/trailing'])
  return in_row + trailing if row['skipped'] == row['steps'] else trailing


def dump_path(workdir: pathlib.Path, iteration: int) -> pathlib.Path:
  """Where the batch of a skipped step is kept."""
  return workdir / 'nonfinite' / f'iteration-{iteration:06d}.npz'


def stuck_message(workdir: pathlib.Path, iteration: int) -> str:
  """What a run says when it stops after MOST_SKIPS skipped steps in a row."""
  return (
    f'{MOST_SKIPS} optimizer steps in a row had a non-finite loss or gradient; the last batch is '
    f'in {dump_path(workdir, iteration)}, a checkpoint is saved; lower optimizer.learning_rate, or '
    'look at the batch'
  )
