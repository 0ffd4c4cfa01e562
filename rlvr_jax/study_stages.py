"""Running one stage of a study: its config, its training or sampling, its record, its seconds."""

import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax import graceful, hosts, watch
from rlvr_jax import metrics as metrics_lib
from rlvr_jax import stages as stages_lib
from rlvr_jax.eval import sample as sample_lib
from rlvr_jax.eval.tables import Table
from rlvr_jax.layouts import distill, train
from rlvr_jax.models.load import fingerprint
from rlvr_jax.rl import teacher_data
from rlvr_jax.rl.distill import SFT_NOT_IDENTITY
from rlvr_jax.rl.identity import rules_of
from rlvr_jax.rl.train import NOT_IDENTITY
from rlvr_jax.stages import BASE, SCRATCH, Stage
from rlvr_jax.tasks.load import content_hash, load_problems

# of a sampling arm these decide the samples
_SAMPLE_GROUPS = ('evaluate', 'task', 'sampling', 'seed', 'model.compute_dtype')


def stage_config(
  config: config_lib.Config, workdir: pathlib.Path, stages: Sequence[Stage], stage: Stage
) -> config_lib.Config:
  """The study's config as one stage's: its job, its start, then the arm's own values."""
  found = config.copy_and_resolve_references()
  kept: dict[str, Any] = {'job': stage.job, 'model.name': ''}
  kept |= {'train.export': True, 'distill.export': True}  # later stages load the model
  kept |= {'sampling.first': 0, 'sampling.stop_after': 0}  # learning takes whole groups
  kept['train.report'] = 0  # the study has its own
  if stage.job != 'sample':
    kept['train.keep_steps'] = stages_lib.kept_steps(stages, stage.name)
  kept['model.name'] = stages_lib.path_of(config, workdir, stage.start)
  for key, value in {**stage.values, **kept}.items():
    value = stages_lib.resolved(workdir, stages, value)
    config_lib.set_key(found, key, value, f'study.arms[{stage.name!r}]')
  config_lib.check(found)
  return found


def identity(
  config: config_lib.Config, stage: Stage, staged: config_lib.Config, start: str
) -> dict[str, Any]:
  """What decides what a stage leaves: its keys, what it starts from, what it learns from.

  Not how it is measured afterwards, nor where its start model lies. start: a fingerprint.
  """
  if stage.job == 'sample':
    found = config_lib.identity(staged)
    found = {k: v for k, v in found.items() if k.startswith(_SAMPLE_GROUPS)}
  else:
    unseen = SFT_NOT_IDENTITY if stage.job == 'distill' else NOT_IDENTITY
    decides = tuple(key for key in unseen if key not in ('train.iterations', 'train.tokens'))
    found = config_lib.identity(staged, exclude=('model.name', *decides))
  for key, value in stage.values.items():
    if stages_lib.is_ref(value):
      found[key] = value  # as it is written: the workdir may move
  if str(stage.start) != (SCRATCH if stage.name == BASE else BASE):
    found['from'] = str(stage.start)
  if start:
    found['content of start'] = start
  if stage.job == 'train':
    found |= rules_of(staged)
  if stage.job == 'distill' and staged.distill.source:
    found['content of distill.source'] = teacher_data.content(staged.distill.source)
  del config
  return json.loads(json.dumps(found))


def run(
  config: config_lib.Config,
  workdir: pathlib.Path,
  stages: Sequence[Stage],
  stage: Stage,
  staged: config_lib.Config,
  where: str,
) -> None:
  """Runs (or resumes, or skips) one stage in its folder. Ends the program where it was stopped.

  ValueError for a finished stage of another config.
  """
  folder = stages_lib.folder_of(workdir, stage.name)
  made, finished = folder / ('samples' if stage.job == 'sample' else 'model'), 'finished.json'
  _check_start(stages, stage, workdir)
  start = fingerprint(staged.model.name)[:16] if staged.model.name else ''
  now = identity(config, stage, staged, start)
  if hosts.from_first((folder / finished).exists() and made.exists()):
    before = json.loads((folder / finished).read_text())
    # written since: an older record does not say
    asked = {k: v for k, v in now.items() if not k.startswith('content of') or k in before}
    changed = config_lib.differences(before, asked)
    if changed:
      raise ValueError(
        f'{folder} holds a finished stage of another config ({"; ".join(changed)}); give the old '
        'values, or another --workdir'
      )
    _check_kept(stages, stage, folder)
    return
  doing = {'train': 'training arm', 'distill': 'fine-tuning', 'sample': 'sampling for'}[stage.job]
  hosts.say(f'{where}: {doing} {stage.name}')
  config_lib.prepare_workdir(folder)
  if hosts.is_first():
    config_lib.save(staged, folder)
  {'train': train, 'distill': distill, 'sample': sample_training}[stage.job](staged, folder)
  if not hosts.from_first(made.exists()):
    hosts.say(f'stopped in the middle of {stage.name}; {graceful.resume_line()}')
    sys.exit(graceful.exit_code())
  if hosts.is_first():
    (folder / finished).write_text(json.dumps(now))


def _check_start(stages: Sequence[Stage], stage: Stage, workdir: pathlib.Path) -> None:
  """ValueError where the checkpoint that a stage starts from was not kept."""
  start = stage.start
  if start.step is None or start.name not in {s.name for s in stages}:
    return
  _check_step(stages_lib.folder_of(workdir, start.name), start.name, start.step)


def _check_kept(stages: Sequence[Stage], stage: Stage, folder: pathlib.Path) -> None:
  for step in stages_lib.kept_steps(stages, stage.name):
    _check_step(folder, stage.name, step)


def _check_step(folder: pathlib.Path, name: str, step: int) -> None:
  if not (folder / 'checkpoints' / str(step)).is_dir():
    raise ValueError(
      f'{name} was trained before its checkpoint at step {step} was asked for, and did not keep '
      f'it; delete {folder} to train it again (to the same weights), or leave that step out'
    )


def sample_training(staged: config_lib.Config, folder: pathlib.Path) -> None:
  """job=sample of an arm: evaluate.n completions of each training problem, into the arm's store.

  evaluate.problems: of so many, from the first; 0: all.
  """
  problems = load_problems(staged.task)[0]
  wanted = staged.evaluate.problems
  if wanted > len(problems):
    raise ValueError(
      f'evaluate.problems={wanted}: a sampling arm asks training problems, of which there are '
      f'{len(problems)}; lower it'
    )
  with sample_lib.exit_when_stopped():
    sample_lib.draw(
      staged,
      folder,
      problems[: wanted or None],
      content_hash(staged.task),
      name='teacher',
      show_settings=False,
    )


def described(stages: Sequence[Stage]) -> list[dict[str, Any]]:
  """The table of stages, for results.json."""
  return [
    {
      'name': stage.name,
      'job': stage.job,
      'from': str(stage.start),
      'measured': [*stage.measure, *(['end'] if stage.final else [])],
      'values': {k: json.loads(json.dumps(v, default=dict)) for k, v in stage.values.items()},
    }
    for stage in stages
  ]


class Clock:
  """Seconds of a study by stage, over all its starts, in WORKDIR/seconds.json."""

  def __init__(self, workdir: pathlib.Path):
    self._path = workdir / 'seconds.json'
    before = json.loads(self._path.read_text()) if self._path.exists() else {}
    self._meter = metrics_lib.Meter(before)
    self.stages: dict[str, float] = dict(before.get('stages', {}))

  @property
  def seconds(self) -> float:
    """Of the whole study."""
    return self._meter.seconds

  @contextlib.contextmanager
  def stage(self, name: str) -> Iterator[None]:
    """Adds the time inside to the stage, also where it ends by an exception."""
    begun = time.monotonic()
    watch.note(stage=name)
    try:
      yield
    finally:
      self.stages[name] = self.stages.get(name, 0.0) + time.monotonic() - begun
      self.write()

  def write(self) -> None:
    """Saves what is known now."""
    if not hosts.is_first():
      return
    part = self._path.with_suffix('.part')
    part.write_text(json.dumps({**self._meter.state(), 'stages': self.stages}))
    part.replace(self._path)

  def table(self) -> Table:
    """Minutes of each stage, as the report shows them."""
    rows = [(name, round(seconds / 60, 2)) for name, seconds in self.stages.items()]
    return Table(
      'Minutes of each stage',
      ('stage', 'minutes'),
      rows,
      'Wall-clock time over all starts, loading and compilation included.',
      sortable=True,
    )
