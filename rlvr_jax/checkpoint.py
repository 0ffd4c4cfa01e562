"""Checkpoints: asynchronous, atomic, the last few and the best kept, refused for other configs.

A checkpoint holds the device state (a pytree of arrays, restored onto the shardings of the tree
asked for) and the host state (JSON). A kill at any moment leaves the last committed one whole.
Directories may lie in an object store (gs://), where orbax marks what is committed by a file.
"""

import ctypes
import json
import logging
import math
import os
import pathlib
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from rlvr_jax import config as config_lib
from rlvr_jax import hosts, paths
from rlvr_jax.graceful import GracefulExit as GracefulExit
from rlvr_jax.sharding import path_name

PyTree = Any
log = logging.getLogger(__name__)
BEST = 'best.json'


class Checkpointer:
  """Saves and restores (state, host_state) under a directory, one subdirectory a step.

  identity (config.identity) is written beside each checkpoint; restoring one with another identity
  is refused. Kept are the last `keep`, those of keep_steps, every keep_every-th step (0: none), and
  the one that mark_best named, if any, in best.json beside the directory. Use as a context manager,
  or call close(): it waits for the last save.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    keep: int = 2,
    keep_every: int = 0,
    keep_steps: Sequence[int] = (),
    identity: Mapping[str, Any] | None = None,
  ):
    self._directory = config_lib.prepare_workdir(directory)
    self._identity = dict(identity or {})
    self._kept = _LastAndBest(keep, frozenset(keep_steps), keep_every)
    self._manager = self._open()
    best = read_best(self._directory.parent)
    if best is not None and best['step'] in self._manager.all_steps():
      self._kept.best = best

  def _open(self) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._kept,
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
      ),
      item_names=('state', 'host', 'identity'),
      item_handlers={
        'state': ocp.StandardCheckpointHandler(),
        'host': ocp.JsonCheckpointHandler(),
        'identity': ocp.JsonCheckpointHandler(),
      },
    )

  def __enter__(self) -> 'Checkpointer':
    return self

  def __exit__(self, kind: type[BaseException] | None, error: Any, *_) -> None:
    if error is not None and hosts.count() > 1:
      hosts.tell_of(error)  # closing would wait for the others, who wait for this one
      return
    self.close()

  def save(self, step: int, state: PyTree, host_state: Mapping[str, Any]) -> None:
    """Starts saving; state may be donated and host_state changed as soon as this returns.

    host_state is JSON. It waits for the save before, and raises its OSError if that one failed.
    """
    self.wait()
    host = json.dumps(dict(host_state))
    record = {
      'host': host,
      'crc32': zlib.crc32(host.encode()),
      'names': [path_name(path) for path, _ in jax.tree.leaves_with_path(state)],
      'sums': checksums(state),
    }
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        host=ocp.args.JsonSave(record),
        identity=ocp.args.JsonSave(self._identity),
      ),
    )

  def latest(self) -> int | None:
    """The last committed step, or None."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """The committed steps, in order."""
    return sorted(self._manager.all_steps())

  def stays(self, step: int) -> bool:
    """Whether keep_steps or keep_every keep this step for good."""
    return self._kept.stays(step)

  def is_best(self, metric: str, value: float) -> bool:
    """Whether value is above that of the best checkpoint so far; NaN never is."""
    best = self._kept.best
    if best is None or best['metric'] != metric:
      return not math.isnan(value)
    return value > best['value']

  def mark_best(self, step: int, metric: str, value: float) -> None:
    """Keeps this step's checkpoint from now on, in place of the best one before; see best.json.

    It waits until the checkpoint is committed, so that best.json never names one that is not there.
    """
    self.wait()
    assert step in self._manager.all_steps(), f'step {step} is not saved'
    self._kept.best = {'step': step, 'metric': metric, 'value': value}
    if jax.process_index() == 0:
      paths.write_whole(self._directory.parent / BEST, json.dumps(self._kept.best) + '\n')

  def restore(
    self, abstract_state: PyTree, step: int | None = None
  ) -> tuple[PyTree, dict[str, Any]]:
    """The state at `step` (default: the last one) on abstract_state's shapes, dtypes, shardings.

    A checkpoint that cannot be read, or whose checksums do not agree, is passed over with a warning
    for the one before it, unless `step` was given; it is then renamed to STEP.damaged. Raises
    FileNotFoundError if there is none, ValueError if the config differs or none can be read.
    """
    target = jax.tree.map(_with_sharding, abstract_state)
    steps = sorted(self._manager.all_steps(), reverse=True) if step is None else [step]
    failed: dict[int, str] = {}
    for candidate in steps:
      found, changed, why = None, [], ''
      try:
        saved = self._read_json(candidate, 'identity')
        changed = config_lib.differences(saved, self._identity)
        found = None if changed else self._read(candidate, target)
      except (MemoryError, jax.errors.JaxRuntimeError):
        raise  # the machine's trouble, not the checkpoint's
      except Exception as error:  # damage surfaces as anything, plain Exception included
        why = _first_line(error)
      # what one process cannot read is of no use to the others
      why = next(filter(None, hosts.exchange(why, 'the checkpoint')), '')
      if not why and found is not None and named_sums(found[0]) != found[1]:
        why = 'ValueError: the checksums of its arrays do not agree'
      if why:
        failed[candidate] = why
        log.warning('checkpoint %d cannot be read: %s', candidate, why)
        continue
      if found is None:
        raise ValueError(
          f'the checkpoint at step {candidate} in {self._directory} is of another config '
          f'({"; ".join(changed)}); give the old values, or another --workdir'
        )
      self._set_aside(failed)
      return found[0], found[2]
    if failed:
      causes = '; '.join(f'step {number}: {why}' for number, why in failed.items())
      raise ValueError(
        f'no checkpoint in {self._directory} can be read ({causes}); restore a copy of it, or '
        'start afresh in another --workdir'
      )
    raise FileNotFoundError(f'no checkpoint in {self._directory}')

  def _read(self, step: int, target: PyTree) -> tuple[PyTree, dict[str, int], dict[str, Any]]:
    """State, the checksums it should have by path, and checked host state of one step."""
    record = self._read_json(step, 'host')
    if zlib.crc32(record['host'].encode()) != record['crc32']:
      raise ValueError('the checksum of its host state does not agree')
    args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    state = self._manager.restore(step, args=args)['state']
    sums = dict(zip(record['names'], record['sums'], strict=True))
    return state, sums, json.loads(record['host'])

  def _read_json(self, step: int, item: str) -> dict[str, Any]:
    args = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
    return self._manager.restore(step, args=args)[item]

  def _set_aside(self, steps: Iterable[int]) -> None:
    """Renames damaged steps, so that a later save of the same step does not meet them."""
    for step in steps:
      if jax.process_index() == 0:
        (self._directory / str(step)).rename(self._directory / f'{step}.damaged')
      if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f'checkpoint {step} set aside')
    self._manager.reload()

  def wait(self) -> None:
    """Returns when the last save is committed. Raises OSError if it failed, as on a full disk."""
    try:
      self._manager.wait_until_finished()
      self._manager.check_for_errors()
    except (OSError, ValueError) as error:  # tensorstore's write errors are ValueErrors
      raise OSError(
        f'a checkpoint could not be written to {self._directory}, what was committed before is '
        f'whole (last: step {self.latest()}); make room there. {_first_line(error)}'
      ) from error
    _return_memory()

  def close(self) -> None:
    """Waits and lets go of the directory."""
    self.wait()
    self._manager.close()


class _LastAndBest:
  """The checkpoints that stay when another is saved (orbax's PreservationPolicy)."""

  def __init__(self, keep: int, steps: frozenset[int] = frozenset(), every: int = 0):
    self.keep = keep
    self.steps = steps
    self.every = every
    self.best: dict[str, Any] | None = None

  def stays(self, step: int) -> bool:
    return step in self.steps or (self.every > 0 and step > 0 and step % self.every == 0)

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    del context
    best = None if self.best is None else self.best['step']
    first = len(checkpoints) - self.keep
    return [
      i >= first or one.step == best or self.stays(one.step) for i, one in enumerate(checkpoints)
    ]


def read_best(workdir: pathlib.Path) -> dict[str, Any] | None:
  """{'step', 'metric', 'value'} of a run's best checkpoint; None where none was marked."""
  path = workdir / BEST
  return json.loads(path.read_text()) if path.is_file() else None


def saved_steps(directory: str | os.PathLike) -> list[int]:
  """The committed steps of a directory of checkpoints, in order; nothing is opened."""
  folders = paths.path_of(directory).iterdir()
  return sorted(int(path.name) for path in folders if path.name.isdigit() and path.is_dir())


def saved_sums(directory: str | os.PathLike, step: int) -> dict[str, int]:
  """The checksum of each leaf of a checkpoint's state by its path ('params/layers/q').

  ValueError if it cannot be read.
  """
  path = paths.path_of(directory) / str(step) / 'host'
  try:
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
      record = reader.restore(path)
    return dict(zip(record['names'], record['sums'], strict=True))
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise _unreadable(directory, step, _first_line(error)) from error


def saved_shapes(directory: str | os.PathLike, step: int) -> Any:
  """The tree of jax.ShapeDtypeStruct of a checkpoint's state, as nested dicts and lists."""
  handler: Any = ocp.StandardCheckpointHandler()  # its own annotations know another Path only
  tree = handler.metadata(paths.path_of(directory) / str(step) / 'state').tree
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def read_part(directory: str | os.PathLike, step: int, target: PyTree) -> PyTree:
  """Some of a checkpoint's state, on the shardings of target; no more than that is read.

  target: nested dicts of ShapeDtypeStruct in the stored shapes and dtypes. ValueError if what is
  stored is damaged.
  """
  target = jax.tree.map(_with_sharding, target)
  sums = saved_sums(directory, step)
  try:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      found = reader.restore(
        paths.absolute(paths.path_of(directory)) / str(step) / 'state',
        args=ocp.args.PyTreeRestore(
          item=target,
          restore_args=ocp.checkpoint_utils.construct_restore_args(target),
          partial_restore=True,
        ),
      )
  except (OSError, ValueError) as error:
    raise _unreadable(directory, step, _first_line(error)) from error
  for path, leaf in jax.tree.leaves_with_path(found):
    name = path_name(path)
    if int(_word_sum(leaf)) != sums[name]:
      raise _unreadable(directory, step, f'the checksum of {name} does not agree')
  return found


def _unreadable(directory: str | os.PathLike, step: int, why: str) -> ValueError:
  return ValueError(
    f'the checkpoint at step {step} in {directory} cannot be read ({why}); name another step, or '
    'restore a copy of it'
  )


def _return_memory() -> None:
  """Gives freed memory back: glibc would keep what compressing took, nearly the state's size."""
  if sys.platform == 'linux':
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # musl has none
    if trim:
      trim(0)


def checksums(state: PyTree) -> list[int]:
  """The sum of each leaf's words modulo 2^32: exact, so the same under every sharding."""
  return [int(_word_sum(leaf)) for leaf in jax.tree.leaves(state)]


def named_sums(state: PyTree) -> dict[str, int]:
  """checksums by the path of a leaf ('params/layers/q')."""
  names = [path_name(path) for path, _ in jax.tree.leaves_with_path(state)]
  return dict(zip(names, checksums(state), strict=True))


@jax.jit
def _word_sum(x: jax.Array) -> jax.Array:
  # words of the leaf's own width: a view in bytes would be written out, at four times its size
  x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
  words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
  return jax.lax.bitcast_convert_type(x, words).sum(dtype=jnp.uint32)


def _with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
  """leaf's shape and dtype on its sharding; one without goes to the first device."""
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _first_line(error: Exception) -> str:
  text = str(error).strip().splitlines()
  return f'{type(error).__name__}: {text[0][:300] if text else "(no message)"}'
