"""What the claims are judged by, written down before the first sample is drawn.

claims.json of a work directory holds the settings, their hash and when they were written. Settings
that change once samples exist do not replace it: the change is recorded, and every row of the
ledger says so.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
from typing import Any

from rlvr_jax import paths

FILE = 'claims.json'


@dataclasses.dataclass(frozen=True)
class Settings:
  """Primary k, verifier and temperature, the level of intervals, and the rules' margins.

  k: the boundary, k_max; 0 leaves it to the draws (evaluate.headline_k = 0). verifier: '' for the
  task's own. temperature: None for whatever the samples have. Margins are shares: sharpen and
  shrink of problems lost (C1, C2), reach of completions and problems (C3), expand of problems
  (C4), gap between the base's pass@k_max and pass@1 after training (C5). alike: between-algorithm
  over between-seed variance (C5).
  """

  k: int
  verifier: str = ''
  temperature: float | None = None
  level: float = 0.95
  sharpen: float = 0.01
  shrink: float = 0.0
  reach: float = 0.9
  expand: float = 0.0
  alike: float = 1.0
  gap: float = 0.1

  @property
  def hash(self) -> str:
    """First 16 hex digits of the sha256 of the settings as JSON."""
    text = json.dumps(dataclasses.asdict(self), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def settings_of(config: Any) -> Settings:
  """The settings of a config's groups claims, evaluate and task."""
  c, e = config.claims, config.evaluate
  return Settings(
    k=int(c.k or e.headline_k),
    verifier=c.verifier or config.task.verifier,
    temperature=float(e.temperature if c.temperature is None else c.temperature),
    level=float(e.confidence),
    **{name: float(c[name]) for name in ('sharpen', 'shrink', 'reach', 'expand', 'alike', 'gap')},
  )


@dataclasses.dataclass(frozen=True)
class Registration:
  """What claims.json says of the settings in use.

  registered: when they were written (UTC, ISO 8601). before_sampling: whether no sample existed
  then. changed: 'key: before -> now' of what differs from the settings first written; empty if
  nothing does.
  """

  hash: str
  registered: str
  before_sampling: bool
  changed: tuple[str, ...] = ()

  @property
  def note(self) -> str:
    """What must be said beside a verdict; empty where the rules were fixed in time."""
    if self.changed:
      return f'changed after sampling began ({"; ".join(self.changed)})'
    return '' if self.before_sampling else 'written down after sampling began'


def register(
  workdir: str | os.PathLike, settings: Settings, *, sampled: bool | None = None
) -> Registration:
  """Writes claims.json unless it is there; says what it holds. To be called before sampling.

  sampled: whether samples exist, by default in workdir/samples. While there are none, other
  settings replace the file. Later they are appended to its `changes`, and the registration returned
  says so. ValueError for a file of that name that is something else.
  """
  workdir = paths.path_of(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / FILE
  if sampled is None:
    sampled = any((workdir / 'samples').glob('*/*/part-*.parquet'))
  record = _read(path) if path.exists() else None
  if record is None or (record['before_sampling'] and not sampled):
    if record is None or record['hash'] != settings.hash:
      record = {
        'hash': settings.hash,
        'registered': _now(),
        'before_sampling': not sampled,
        'settings': dataclasses.asdict(settings),
        'changes': [],
      }
      _write(path, record)
  elif settings.hash not in {record['hash'], *(change['hash'] for change in record['changes'])}:
    change = {
      'hash': settings.hash,
      'registered': _now(),
      'settings': dataclasses.asdict(settings),
    }
    record['changes'].append(change)
    _write(path, record)
  return _registration(record, settings)


def _registration(record: dict[str, Any], settings: Settings) -> Registration:
  before, now = record['settings'], dataclasses.asdict(settings)
  changed = tuple(
    f'{key}: {before.get(key)} -> {now[key]}' for key in now if before.get(key) != now[key]
  )
  return Registration(settings.hash, record['registered'], record['before_sampling'], changed)


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    record = json.loads(path.read_text())
    whole = {'hash', 'registered', 'before_sampling', 'settings', 'changes'} <= set(record)
  except (ValueError, TypeError) as error:
    raise ValueError(f'{path} is no record of claims ({error}); move it away') from error
  if not whole:
    raise ValueError(f'{path} is no record of claims; move it away')
  return record


def _write(path: pathlib.Path, record: dict[str, Any]) -> None:
  paths.write_whole(path, json.dumps(record, indent=1) + '\n')


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
