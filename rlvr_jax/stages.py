"""The table of a study: its stages, what each starts from, and which models are measured.

An arm of study.arms is a set of dotted keys, and of these words:

  job      train (RL) | distill (fine-tuning) | sample (completions of training problems, to learn
           from)
  from     base (the default) | scratch | ARM | ARM@step:N | base@step:N; base@10% is a tenth of its
           steps, base@0% what its training began with
  measure  steps whose checkpoints are measured too, as 30 or '20%'; the end always is, unless
           `final` is False
  role     rl | distilled | teacher | base, as it is compared; by default what the job makes of it
  part     which question of the study it belongs to (PARTS)
  label    what differs, as figures call it
  method   what its seeds are pooled under; by default train.algorithm

A value 'arm:NAME' stands for what that arm leaves: its model, or of a sampling arm its store. As
the path of study.models it is a stage's model once more, asked in another way ('arm:base' too; left
out where that arm does not run). Nothing here needs jax.
"""

import dataclasses
import difflib
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlvr_jax.config import Config

JOBS = ('train', 'distill', 'sample')
ROLES = ('base', 'rl', 'distilled', 'instruct', 'teacher')
# algorithms: seeds of it are pooled; the others stand for themselves
PARTS = (
  'algorithms', 'dynamics', 'kl', 'group', 'control', 'distillation', 'prior', 'temperature',
  'turns', 'staged',
)  # fmt: skip
WORDS = ('job', 'from', 'measure', 'final', 'role', 'part', 'label', 'method')
MODEL_WORDS = ('path', 'role', 'template', 'algorithm', 'seed', 'step', 'part', 'label')
BASE, SCRATCH = 'base', 'scratch'
_STEP = re.compile(r'(?P<name>[^@]+)@(step:(?P<step>\d+)|(?P<share>\d+(\.\d+)?)%)')
_SHARE = re.compile(r'(\d+(\.\d+)?)%')
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._+-]*')


@dataclasses.dataclass(frozen=True)
class Start:
  """What a stage starts from: the end of a stage (step None), one of its checkpoints, or nothing.

  name: 'base', an arm, or 'scratch'. share: '10%' until the stage's steps are known (`table`).
  """

  name: str
  step: int | None = None
  share: str = ''

  def __str__(self) -> str:
    return self.name if self.step is None else f'{self.name}@step:{self.step}'


@dataclasses.dataclass(frozen=True)
class Stage:
  """One row of the table; values: dotted keys on top of the study's config. See the module."""

  name: str
  job: str
  start: Start
  values: Mapping[str, Any]
  measure: tuple[Any, ...] = ()  # of int, once the table is made
  final: bool = True
  role: str = 'rl'
  part: str = ''
  label: str = ''
  method: str = ''

  @property
  def needs(self) -> list[str]:
    """The arms that have to be there before it, each once."""
    found = [self.start.name, *(value[4:] for value in self.values.values() if is_ref(value))]
    return [name for name in dict.fromkeys(found) if name not in (BASE, SCRATCH)]


@dataclasses.dataclass(frozen=True)
class Measured:
  """A model that is sampled. start: what it was trained from, '' for a model that was given.

  reference: the stage or checkpoint it is, or a path. values: dotted keys of its own evaluation.
  """

  name: str
  reference: Start | str
  role: str
  values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  algorithm: str | None = None
  seed: int | None = None
  step: int | None = None
  part: str = ''
  label: str = ''
  start: str = ''


def is_ref(value: Any) -> bool:
  """Whether a value stands for what an arm leaves."""
  return isinstance(value, str) and value.startswith('arm:')


def table(config: Config) -> list[Stage]:
  """The stages to run, in order: the base where it is made here, then study.run_arms.

  Arms that another one needs run before it; where run_arms does not name them, they are not
  measured. ValueError for what is not in the table, or goes round in a circle.
  """
  arms = {name: _stage(name, dict(values.items())) for name, values in config.study.arms.items()}
  asked = list(config.study.run_arms)
  for name in asked:
    _known(name, arms, 'study.run_arms')
  order: list[str] = []
  for name in asked:
    _visit(name, arms, order, ())
  stages = [
    arms[name] if name in asked else dataclasses.replace(arms[name], final=False, measure=())
    for name in order
  ]
  if not config.model.name:
    stages.insert(0, _base_stage(config))
  stages = _in_steps(config, stages)
  _check_steps(config, stages)
  return stages


def _in_steps(config: Config, stages: Sequence[Stage]) -> list[Stage]:
  """The stages with shares of a stage's steps as steps."""
  lengths = {stage.name: length_of(config, stage) for stage in stages}
  found = []
  for stage in stages:
    start = stage.start
    if start.share:
      if start.name not in lengths:
        raise ValueError(
          f'study.arms[{stage.name!r}]: from={start.name}@{start.share}: how many steps '
          f'model.name={config.model.name!r} was trained for is not known; write base@step:N'
        )
      start = Start(start.name, _at(start.share, lengths[start.name]))
    measure = tuple(sorted({_at(one, lengths[stage.name]) for one in stage.measure}))
    found.append(dataclasses.replace(stage, start=start, measure=measure))
  return found


def _at(given: Any, length: int) -> int:
  """30 or '20%' as a step, at least 1."""
  if isinstance(given, int):
    return given
  match = _SHARE.fullmatch(str(given))
  if match is None:
    raise ValueError(f"study: measure: {given!r} is neither a step nor a share as '20%'")
  return max(1, round(length * float(match[1]) / 100))


def _base_stage(config: Config) -> Stage:
  steps = tuple(config.study.measure_base)
  return Stage(BASE, 'distill', Start(SCRATCH), {}, measure=steps, role='base')


def _stage(name: str, given: Mapping[str, Any]) -> Stage:
  what = f'study.arms[{name!r}]'
  if name in (BASE, SCRATCH) or not _NAME.fullmatch(name):
    raise ValueError(
      f'{what}: an arm is not named {BASE} or {SCRATCH}, and of letters, digits and ._-+ only'
    )
  words = {key: value for key, value in given.items() if '.' not in key and key != 'seed'}
  unknown = sorted(set(words) - set(WORDS))
  if unknown:
    near = difflib.get_close_matches(unknown[0], WORDS, n=1)
    raise ValueError(
      f'{what}: {unknown[0]!r} is neither a dotted key, nor seed, nor one of {", ".join(WORDS)}'
      + (f'; did you mean {near[0]!r}?' if near else '')
    )
  job = str(words.get('job', 'train'))
  if job not in JOBS:
    raise ValueError(f'{what}: job={job!r} is none of {", ".join(JOBS)}')
  role = str(words.get('role', 'distilled' if job == 'distill' else 'rl'))
  part = str(words.get('part', ''))
  _one_of(what, 'role', role, ROLES)
  _one_of(what, 'part', part, ('', *PARTS))
  if job == 'sample' and 'from' not in words:
    raise ValueError(f"{what}: job='sample' needs 'from', the model that is sampled")
  return Stage(
    name,
    job,
    parse_start(str(words.get('from', BASE)), f"{what}['from']"),
    {key: value for key, value in given.items() if key not in words},
    tuple(words.get('measure', ())),
    bool(words.get('final', True)) and job != 'sample',
    role,
    part,
    str(words.get('label', '')),
    str(words.get('method', '')),
  )


def parse_start(text: str, what: str) -> Start:
  """'ARM' or 'ARM@step:N' as a Start. ValueError, beginning with what, for anything else."""
  match = _STEP.fullmatch(text)
  if match:
    share, step = match['share'], match['step']
    if float(step or share) == 0 and match['name'] != BASE:
      raise ValueError(f'{what}={text!r}: step 0 of an arm is what it starts from; name that')
    if float(step or share) == 0:
      return Start(SCRATCH)
    if share and float(share) >= 100:
      return Start(match['name'])
    return Start(match['name'], share=f'{share}%') if share else Start(match['name'], int(step))
  if '@' in text or not _NAME.fullmatch(text):
    raise ValueError(f'{what}={text!r}: write base, scratch, ARM, ARM@step:N or ARM@10%')
  return Start(text)


def _visit(name: str, arms: Mapping[str, Stage], order: list[str], path: tuple[str, ...]) -> None:
  """Appends name after all that it needs."""
  if name in path:
    raise ValueError(f'study.arms: {" -> ".join([*path, name])} goes round in a circle')
  if name in order:
    return
  for other in arms[name].needs:
    _known(other, arms, f'study.arms[{name!r}]')
    _visit(other, arms, order, (*path, name))
  order.append(name)


def _known(name: str, arms: Iterable[str], what: str) -> None:
  if name not in arms:
    raise ValueError(f'{what} names {name!r}, but study.arms has {", ".join(arms) or "none"}')


def _one_of(what: str, key: str, value: str, known: Sequence[str]) -> None:
  if value not in known:
    raise ValueError(f'{what}: {key}={value!r} is none of {", ".join(filter(None, known))}')


def length_of(config: Config, stage: Stage) -> int:
  """Iterations of RL, or optimizer steps of fine-tuning: where its last checkpoint is."""
  key = 'distill.steps' if stage.job == 'distill' else 'train.iterations'
  group, leaf = key.split('.')
  return int(stage.values.get(key, config[group][leaf]))


def kept_steps(stages: Sequence[Stage], name: str) -> tuple[int, ...]:
  """The checkpoints of a stage that measuring or another stage will ask for, ascending."""
  own = next(stage for stage in stages if stage.name == name)
  wanted = {s.start.step for s in stages if s.start.name == name and s.start.step is not None}
  return tuple(sorted(wanted | set(own.measure)))


def _check_steps(config: Config, stages: Sequence[Stage]) -> None:
  by_name = {stage.name: stage for stage in stages}
  for stage in stages:
    start = by_name.get(stage.start.name)
    if start is not None and start.job == 'sample':
      raise ValueError(
        f'study.arms[{stage.name!r}]: from={stage.start.name!r} is a sampling arm, which leaves no '
        f"model; start from {start.start}, and learn from its samples by 'distill.source': "
        f"'arm:{start.name}'"
      )
    if stage.start.name == SCRATCH and stage.name != BASE and config.model.name:
      raise ValueError(
        f'study.arms[{stage.name!r}]: there is nothing to make a model from scratch of where '
        f'model.name={config.model.name!r} is given; start from base'
      )
    if stage.job == 'sample':
      continue
    last = length_of(config, stage)
    late = [step for step in kept_steps(stages, stage.name) if not 0 < step <= last]
    if late:
      raise ValueError(
        f'study: step {late[0]} of {stage.name} is asked for, which has the steps 1 to {last}'
      )


def measured(config: Config, stages: Sequence[Stage]) -> list[Measured]:
  """The models to sample, the base first: ends and checkpoints of stages, then study.models."""
  found = []
  if config.model.name:
    if config.study.measure_base:
      raise ValueError(
        f'study.measure_base={config.study.measure_base}: the base is model.name='
        f'{config.model.name!r}, which is not trained here; name its checkpoints in study.models'
      )
    found.append(Measured(BASE, config.model.name, 'base'))
  for stage in stages:
    found += _measured_of(config, stage)
  running = {BASE, *(stage.name for stage in stages)}
  left_out = {f'arm:{name}' for name in config.study.arms} - {f'arm:{name}' for name in running}
  for name, given in config.study.models.items():
    values = {'path': given} if isinstance(given, str) else dict(given.items())
    if values.get('path') not in left_out:
      found.append(_given_model(name, values, stages))
  names = [one.name for one in found]
  repeated = sorted({name for name in names if names.count(name) > 1})
  if repeated:
    raise ValueError(f'study: {", ".join(repeated)} names an arm and one of study.models')
  by_name = {one.name: one for one in found}
  for key in ('swept', 'matched', 'perplexity'):
    for name in config.study[key]:
      _known(name, by_name, f'study.{key}')
  found += [
    dataclasses.replace(
      by_name[name],
      name=f'{name}@T:{temperature:g}',
      values={**by_name[name].values, 'evaluate.temperature': float(temperature)},
      part='temperature',
      label=f'T = {temperature:g}',
    )
    for name in config.study.swept
    for temperature in config.study.temperatures
    if temperature != config.evaluate.temperature
  ]
  return found


def _measured_of(config: Config, stage: Stage) -> list[Measured]:
  """The checkpoints of a stage that are measured, ascending, and its end."""
  last = length_of(config, stage)
  trained: dict[str, Any] = {
    'algorithm': None,
    'seed': int(stage.values.get('seed', config.seed)),
    'start': '' if stage.start.name == SCRATCH else str(stage.start),
    'label': stage.label,
  }
  if stage.job == 'train':
    row = str(stage.values.get('train.algorithm', config.train.algorithm))
    trained['algorithm'] = stage.method or row
  steps = sorted(set(stage.measure) - ({last} if stage.final else set()))
  found = [
    Measured(
      f'{stage.name}@step:{step}',
      Start(stage.name, step),
      stage.role,
      step=step,
      part='prior' if stage.name == BASE else 'dynamics',
      **trained,
    )
    for step in steps
  ]
  if not stage.final:
    return found
  if stage.name == BASE:
    trained['seed'] = last = None
    return [Measured(BASE, Start(BASE), 'base', **trained), *found]
  if stage.job == 'train' and stage.values.get('train.tokens', config.train.tokens):
    last = None  # it ends by what it has sampled
  end = Measured(stage.name, Start(stage.name), stage.role, step=last, part=stage.part, **trained)
  return [*found, end]


def _given_model(name: str, given: Mapping[str, Any], stages: Sequence[Stage]) -> Measured:
  """A row of study.models."""
  what = f'study.models[{name!r}]'
  words = {key: value for key, value in given.items() if '.' not in key}
  unknown = sorted(set(words) - set(MODEL_WORDS))
  if unknown or not words.get('path'):
    raise ValueError(
      f'{what}: give path, and any of {", ".join(MODEL_WORDS[1:])} and dotted keys'
      + (f'; {unknown[0]!r} is none of them' if unknown else '')
    )
  if not _NAME.fullmatch(name):
    raise ValueError(f'{what}: a name is of letters, digits and ._-+')
  role, part = str(words.get('role', 'rl')), str(words.get('part', ''))
  _one_of(what, 'role', role, ROLES)
  _one_of(what, 'part', part, ('', *PARTS))
  values = {key: value for key, value in given.items() if key not in words}
  if words.get('template'):
    values['task.template'] = str(words['template'])
  reference, start = str(words['path']), ''
  if is_ref(reference):
    start = reference[4:]
    _known(start, [stage.name for stage in stages], f'{what}: path')
  return Measured(
    name,
    Start(start) if start else reference,
    role,
    values,
    words.get('algorithm'),
    words.get('seed'),
    words.get('step'),
    part,
    str(words.get('label', '')),
    start,
  )


def folder_of(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Where a stage lives."""
  return workdir / BASE if name == BASE else workdir / 'arms' / name


def path_of(config: Config, workdir: pathlib.Path, start: Start) -> str:
  """A Start as model.name: a directory or a run's checkpoint; '' from scratch."""
  if start.name == SCRATCH:
    return ''
  if start.name == BASE and config.model.name:
    return config.model.name if start.step is None else f'{config.model.name}@step:{start.step}'
  folder = folder_of(workdir, start.name)
  return str(folder / 'model') if start.step is None else f'{folder}@step:{start.step}'


def resolved(workdir: pathlib.Path, stages: Sequence[Stage], value: Any) -> Any:
  """'arm:NAME' as the path of what the arm leaves; any other value as it is."""
  if not is_ref(value):
    return value
  stage = next(stage for stage in stages if stage.name == value[4:])
  return str(folder_of(workdir, stage.name) / ('samples' if stage.job == 'sample' else 'model'))
