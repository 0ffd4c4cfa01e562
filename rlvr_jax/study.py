"""job=study: stages of a table -> samples of their models -> boundary report; each step resumable.

1. Stages (stages.py): the base, trained from scratch where model.name names none (base/), and the
   arms of study.run_arms, each from the base, another arm or a checkpoint (arms/NAME/).
2. Samples: n of every held-out problem from every model that is measured: the base, ends and
   checkpoints of arms, and those of study.models, which are only sampled (samples/).
3. What is measured beside that (study_measures.py).
4. The report: report.html, results.json, problems.csv, problems.parquet.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax import hosts, study_grok, study_measures, study_stages
from rlvr_jax import metrics as metrics_lib
from rlvr_jax import stages as stages_lib
from rlvr_jax.eval import grok, longer, preflight, study_parts, study_temperature, study_turns
from rlvr_jax.eval import sample as sample_lib
from rlvr_jax.eval.publish import publish
from rlvr_jax.eval.report import Section
from rlvr_jax.eval.results import MOST_DRAWN, ModelResult
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.rl.report import drawn_table, gap_of, panels_of
from rlvr_jax.stages import BASE, Measured, Stage
from rlvr_jax.tasks import mixed
from rlvr_jax.tasks.problem import Problem

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Measurements:
  """The models of a study that ran, and what its report needs beside them."""

  models: list[ModelResult]
  problems: list[Problem]
  headline: tuple[str, ...]
  configs: Mapping[str, config_lib.Config]
  clock: study_stages.Clock
  extra: Mapping[str, Any]


def study(config: config_lib.Config, workdir: pathlib.Path) -> None:
  """Runs what is missing of the study in workdir and writes its report.

  Stages that are done are not run again; a stage that was killed goes on from its last checkpoint,
  sampling from the store. SIGTERM or Ctrl-C saves and ends the study, with exit code 0 or 130.
  """
  if config.dry_run:
    _preflight(config, workdir)
    hosts.say('dry_run: ends here; what the pilot drew is stored')
    return
  measured = measure(config, workdir)
  if hosts.is_first():
    write(config, workdir, measured)


def _preflight(config: config_lib.Config, workdir: pathlib.Path):
  """Refuses what does not fit and says the price: (stages, their configs, models, problems)."""
  stages = stages_lib.table(config)
  subjects = stages_lib.measured(config, stages)
  configs = {s.name: study_stages.stage_config(config, workdir, stages, s) for s in stages}
  headline_of(config, subjects)
  problems = sample_lib.evaluation_problems(config)
  say_price(config, workdir, problems, stages, subjects)
  return stages, configs, subjects, problems


def measure(config: config_lib.Config, workdir: pathlib.Path) -> Measurements:
  """All of a study but its report."""
  stages, configs, subjects, problems = _preflight(config, workdir)
  clock = study_stages.Clock(workdir)
  for number, stage in enumerate(stages, 1):
    with clock.stage(stage.name):
      study_stages.run(
        config, workdir, stages, stage, configs[stage.name], f'stage {number}/{len(stages)}'
      )
  hosts.say(f'sampling {", ".join(one.name for one in subjects)}')
  models = []
  for one in subjects:
    with clock.stage(f'sampling {one.name}'):
      models.append(study_measures.sampled(config, workdir, one))
  matched, searches = study_measures.matched_models(config, workdir, subjects, clock)
  models += matched
  extra: dict[str, Any] = {'stages': study_stages.described(stages), 'entropy': searches}
  if config.study.perplexity:
    with clock.stage('perplexity and reach'):
      extra['perplexity'] = study_measures.perplexity(config, workdir, subjects)
  if staged := study_grok.measure(config, workdir, stages, configs, models, problems):
    extra['staged'] = staged
  clock.write()
  return Measurements(models, problems, headline_of(config, subjects), configs, clock, extra)


def headline_of(config: config_lib.Config, subjects: Sequence[Measured]) -> tuple[str, ...]:
  """(base, trained) whose comparison the report is about; the base alone where nothing is trained.

  ValueError where study.headline names no model, or there is no base.
  """
  names = [one.name for one in subjects]
  if BASE not in names:
    raise ValueError('study: there is no base; name one with model.name')
  wanted = config.study.headline
  if wanted and (wanted not in names or wanted == BASE):
    raise ValueError(f'study.headline={wanted!r} is none of {", ".join(names)}')
  main = [one.name for one in subjects if one.role == 'rl' and one.part in ('', 'algorithms')]
  others = [name for name in names if name != BASE]
  chosen = next(iter([wanted] * bool(wanted) + main + others), None)
  return (BASE, chosen) if chosen else (BASE,)


def say_price(
  config: config_lib.Config,
  workdir: pathlib.Path,
  problems: Sequence[Problem],
  stages: Sequence[Stage],
  subjects: Sequence[Measured],
) -> None:
  """Says what the study will do and, as far as that can be told before it runs, what it will cost.

  Where there is a base already, a pilot of its samples (they are kept) gives the price of sampling
  all models, as if the trained ones wrote as much.
  """
  names = [one.name for one in subjects]
  most = len(names) * len(problems) * config.evaluate.n
  shown = ', '.join(names) if len(names) <= 12 else f'{len(names)} models'
  arms = [stage.name for stage in stages if stage.name != BASE]
  if hosts.is_first():
    sample_lib.print_settings(
      config,
      None,
      problems,
      workdir / 'samples',
      [('study', f'{shown}: trained, then sampled, {most:,} samples at most')],
    )
  finished = (stages_lib.folder_of(workdir, s.name) / 'finished.json' for s in stages)
  done = hosts.from_first([path.exists() for path in finished])
  not_included = f'training of {", ".join(arms) or "no arm"}, loading and compilation'
  if not config.model.name and not done[0]:
    limit = most * config.sampling.max_tokens
    hosts.say(
      f'price: not known before there is a base; at most {limit:,} tokens. Its own sampling begins '
      f'with a pilot that says more. Not included: training of the base, {not_included}'
    )
  elif config.dry_run or not all(done):
    found = study_measures.pilot(config, workdir, subjects[0], problems)
    if found is not None:
      hosts.say(f'price of sampling all {len(names)}, as if each wrote like base:')
      hosts.say('\n'.join(preflight.describe(found, times=len(names))))
    hosts.say(f'not included: {not_included}')


def write(config: config_lib.Config, workdir: pathlib.Path, measured: Measurements) -> None:
  """Analyses the samples and writes the report beside them."""
  models, problems, headline = measured.models, measured.problems, measured.headline
  configs, clock, extra = measured.configs, measured.clock, measured.extra
  trained = {name: one for name, one in configs.items() if one.job == 'train'}
  rows = {
    name: metrics_lib.read_metrics(stages_lib.folder_of(workdir, name) / 'metrics.jsonl')
    for name in trained
  }
  shown = {name: rows[name] for name in shown_arms(trained)}
  names = {model.name for model in models}
  more = [
    (model.start, model.name)
    for model in models
    if model.start in names and (model.start, model.name) != headline
  ]
  others = [(BASE, model.name) for model in models if model.name not in headline]
  title = config.study.title or f'{config.name}: base against RL on {problems[0].task}'
  texts = [*config.study.texts.items(), *study_parts.said(models)]
  found = study_parts.results(models, config.evaluate)
  families = {p.id: str(p.meta[mixed.FAMILY]) for p in problems if mixed.FAMILY in p.meta}
  sections, numbers = sections_of(config, found, extra['entropy'], families)
  if 'staged' in extra:
    sections.insert(0, grok.section(extra['staged']))
  publish(
    config,
    workdir,
    SampleStore(workdir / 'samples'),
    models,
    problems,
    headline=headline,
    pairs=[*others, *more],
    claim_inputs=study_parts.claim_inputs(models, headline),
    title=title,
    seconds=clock.seconds,
    sampler_learner_gap=gap_of(rows),
    training=shown,
    panels=panels_of(shown),
    texts=texts,
    more_tables=[clock.table(), *([drawn_table(rows)] if rows else [])],
    more_sections=sections,
    extra={
      **extra,
      'parts': study_parts.entries(found),
      **numbers,
      'seconds': clock.stages,
    },
  )


def sections_of(
  config: config_lib.Config,
  parts: Sequence[study_parts.Part],
  searches: Mapping[str, Any],
  families: Mapping[str, str],
) -> tuple[list[Section], dict[str, Any]]:
  """(sections of the parts, keys of results.json: envelope, turns of conversations, longer of
  settings with checkpoints and seeds). families: of problem ids, in a mixture."""
  e, made, numbers = config.evaluate, [], {'envelope': {}}
  options: dict[str, Any] = {'level': e.confidence, 'seed': config.seed}
  for part in parts:
    if part.name == 'temperature':
      own, numbers['envelope'] = study_temperature.section(part, searches, **options)
    elif part.name == 'turns':
      own, numbers['turns'] = study_turns.section(
        part, talkers=talkers_of(config), resamples=e.bootstrap, **options
      )
    else:
      own = study_parts.section(part)
      if part.name == 'dynamics' and (found := longer.results(part, e, config.seed, families)):
        made.append(longer.section(found))
        numbers['longer'] = longer.entry(found)
    made.append(own)
  return made, numbers


def talkers_of(config: config_lib.Config) -> list[str]:
  """The arms that are trained in conversations."""
  return [
    name for name, arm in config.study.arms.items() if dict(arm.items()).get('task.environment')
  ]


def shown_arms(trained: Mapping[str, config_lib.Config]) -> list[str]:
  """The arms whose training is drawn: all, or one of each algorithm where they are many."""
  if len(trained) <= MOST_DRAWN:
    return list(trained)
  first: dict[str, str] = {}
  for name, stage in trained.items():
    first.setdefault(stage.train.algorithm, name)
  return list(first.values())
