"""job=study: base -> RL arms -> boundary report, each stage resumable.

1. The base: config.model.name, or a model trained from scratch on the task's corpus (base/).
2. The arms: RL (or fine-tuning) from the base with the arm's own values (arms/NAME/).
3. Samples: n of every held-out problem from every model, into samples/.
4. The report: report.html, results.json, problems.csv, problems.parquet.
"""

import json
import logging
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax import metrics as metrics_lib
from rlvr_jax.eval import preflight
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval import sample as sample_lib
from rlvr_jax.eval.claim_settings import register, settings_of
from rlvr_jax.eval.publish import publish
from rlvr_jax.eval.results import MOST_DRAWN, ModelResult
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.solve import solve_probabilities
from rlvr_jax.models.load import load_model
from rlvr_jax.rl.distill import SFT_NOT_IDENTITY, distill
from rlvr_jax.rl.report import gap_of, panels_of
from rlvr_jax.rl.train import NOT_IDENTITY, train
from rlvr_jax.tasks import countdown
from rlvr_jax.tasks.load import content_hash, environment_of
from rlvr_jax.tasks.problem import Problem

log = logging.getLogger(__name__)


def arm_config(
  config: config_lib.Config, job: str, values: Mapping[str, Any], **fixed: Any
) -> config_lib.Config:
  """The study's config as one stage's: job, fixed dotted keys, then the arm's own values."""
  stage = config.copy_and_resolve_references()
  kept = {'job': job, 'train.export': True, 'distill.export': True}  # later stages load the model
  kept |= {'sampling.first': 0, 'sampling.stop_after': 0}  # learning takes whole groups
  kept['train.report'] = 0  # the study has its own
  for key, value in {**fixed, **values, **kept}.items():
    config_lib.set_key(stage, key, value, 'study.arms')
  config_lib.check(stage)
  return stage


def arms_of(config: config_lib.Config) -> dict[str, dict[str, Any]]:
  """The arms to run, in order; ValueError names one that study.arms does not have."""
  known = config.study.arms
  for name in config.study.run_arms:
    if name == 'base' or (name in known and known[name].get('job', 'train') != 'train'):
      raise ValueError(f'study.arms: {name!r} must be an RL arm (job train) and not be named base')
    if name not in known:
      raise ValueError(
        f'study.run_arms names {name!r}, but study.arms has {", ".join(known) or "none"}'
      )
  return {name: dict(known[name].items()) for name in config.study.run_arms}


def study(config: config_lib.Config, workdir: pathlib.Path) -> None:
  """Runs what is missing of the study in workdir and writes its report.

  Stages that are done are not run again; a stage that was killed goes on from its last checkpoint,
  sampling from the store. SIGTERM or Ctrl-C saves and ends the study there, with exit code 130.
  """
  arms = arms_of(config)
  stages = {name: arm_config(config, 'train', values) for name, values in arms.items()}
  problems = sample_lib.evaluation_problems(config)
  meter = metrics_lib.Meter(_read_meter(workdir))
  say_price(config, workdir, problems, list(stages))
  if config.dry_run:
    return

  paths = {'base': pathlib.Path(config.model.name)}
  if not config.model.name:
    paths['base'] = run_stage(
      arm_config(config, 'distill', {}), workdir / 'base', f'1/3 base model ({config.task.name})'
    )
  for name, stage in stages.items():
    config_lib.set_key(stage, 'model.name', str(paths['base']), 'study')
    paths[name] = run_stage(stage, workdir / 'arms' / name, f'2/3 training arm {name}')
    _write_meter(workdir, meter)

  print(f'3/3 sampling {", ".join(paths)}', file=sys.stderr)
  store = SampleStore(workdir / 'samples')
  models = []
  for name, path in paths.items():
    drawn, exact = sample_model(config, workdir, name, path, problems)
    stage = stages.get(name)
    models.append(
      sample_lib.measured(
        drawn,
        'base' if name == 'base' else 'rl',
        algorithm=stage.train.algorithm if stage else None,
        seed=stage.seed if stage else None,
        step=stage.train.iterations if stage else None,
        exact=exact,
      )
    )
    _write_meter(workdir, meter)
  write(config, workdir, store, models, problems, stages, meter.seconds)


def run_stage(stage: config_lib.Config, folder: pathlib.Path, what: str) -> pathlib.Path:
  """Trains (or resumes, or skips) one stage in its folder; the path of its model."""
  model = folder / 'model'
  finished = folder / 'finished.json'
  # what decides the model: not how it is measured afterwards, nor where its start model lies
  unseen = SFT_NOT_IDENTITY if stage.job == 'distill' else NOT_IDENTITY
  decides = tuple(key for key in unseen if key != 'train.iterations')
  identity = config_lib.identity(stage, exclude=('model.name', *decides))
  if finished.exists() and model.exists():
    changed = config_lib.differences(json.loads(finished.read_text()), identity)
    if changed:
      raise ValueError(
        f'{folder} holds a finished stage of another config ({"; ".join(changed)}); give the old '
        'values, or another --workdir'
      )
    return model
  print(what, file=sys.stderr)
  config_lib.prepare_workdir(folder)
  config_lib.save(stage, folder)
  {'train': train, 'distill': distill}[stage.job](stage, folder)
  if not model.exists():
    print('stopped before the stage was done; the same command goes on from there', file=sys.stderr)
    sys.exit(130)
  finished.write_text(json.dumps(identity))
  return model


def say_price(
  config: config_lib.Config, workdir: pathlib.Path, problems: list[Problem], arms: list[str]
) -> None:
  """Says what the study will do and, as far as that can be told before it runs, what it will cost.

  Where there is a base already, a pilot of its samples (they are kept) gives the price of sampling
  all models, as if the trained ones wrote as much.
  """
  names = ['base', *arms]
  most = len(names) * len(problems) * config.evaluate.n
  base = pathlib.Path(config.model.name) if config.model.name else workdir / 'base' / 'model'
  trained = [workdir / 'arms' / name / 'finished.json' for name in arms]
  sample_lib.print_settings(
    config,
    None,
    problems,
    workdir / 'samples',
    [('study', f'{", ".join(names)}: trained, then sampled, {most:,} samples at most')],
  )
  not_included = f'training of {", ".join(arms) or "no arm"}, loading and compilation'
  if not config.model.name and not (base.parent / 'finished.json').exists():
    limit = most * config.sampling.max_tokens
    print(
      f'price: not known before there is a base; at most {limit:,} tokens. Its own sampling begins '
      f'with a pilot that says more. Not included: training of the base, {not_included}',
      file=sys.stderr,
    )
  elif config.dry_run or not all(path.exists() for path in trained):
    _, found, _ = _draw(config, workdir, 'base', base, problems, pilot_only=True)
    if found is not None:
      print(f'price of sampling all {len(names)}, as if each wrote like base:', file=sys.stderr)
      print('\n'.join(preflight.describe(found, times=len(names))), file=sys.stderr)
    print(f'not included: {not_included}', file=sys.stderr)
  if config.dry_run:
    print('dry_run: ends here; what the pilot drew is stored', file=sys.stderr)


def sample_model(
  config: config_lib.Config,
  workdir: pathlib.Path,
  name: str,
  path: pathlib.Path,
  problems: list[Problem],
) -> tuple[sample_lib.Samples, dict[str, float] | None]:
  """Tops up one model's samples; its exact solve probabilities where they can be enumerated."""
  drawn, _, (model_config, params, tokenizer) = _draw(config, workdir, name, path, problems)
  e = config.evaluate
  truncating = e.top_p < 1 or e.top_k or not e.temperature
  other = config.task.name != 'countdown' or config.task.module or environment_of(config.task)
  if other or truncating:
    return drawn, None
  chances = solve_probabilities(
    params,
    model_config,
    tokenizer,
    run_lib.encode_prompts(
      problems, config.task.template, tokenizer, config.sampling.prompt_capacity
    ),
    [countdown.solutions(p) for p in problems],
    temperature=e.temperature,
    max_tokens=config.sampling.max_tokens,
  )
  return drawn, {p.id: float(chance) for p, chance in zip(problems, chances, strict=True)}


def _draw(config, workdir, name, path, problems, *, pilot_only: bool = False):
  """(samples, price, what load_model gave) of one of the study's models."""
  register(workdir, settings_of(config))  # before the first draw
  loaded = load_model(path, dtype=config.model.compute_dtype)
  with sample_lib.exit_when_stopped():
    drawn, found = sample_lib.draw(
      config,
      workdir,
      problems,
      content_hash(config.task),
      loaded=loaded,
      weights=sample_lib.weights_of(config, path),
      name=name,
      show_settings=False,
      pilot_only=pilot_only,
    )
  return drawn, found, loaded


def write(
  config: config_lib.Config,
  workdir: pathlib.Path,
  store: SampleStore,
  models: list[ModelResult],
  problems: list[Problem],
  stages: Mapping[str, config_lib.Config],
  seconds: float,
) -> None:
  """Analyses the samples and writes the report beside them."""
  first_arm = next(iter(stages), None)
  rows = {
    name: metrics_lib.read_metrics(workdir / 'arms' / name / 'metrics.jsonl') for name in stages
  }
  shown = {name: rows[name] for name in shown_arms(stages)}
  publish(
    config,
    workdir,
    store,
    models,
    problems,
    headline=('base', first_arm) if first_arm else ('base',),
    title=config.study.title or f'{config.name}: base against RL on {problems[0].task}',
    seconds=seconds,
    sampler_learner_gap=gap_of(rows),
    training=shown,
    panels=panels_of(shown),
    texts=list(config.study.texts.items()),
  )


def shown_arms(stages: Mapping[str, config_lib.Config]) -> list[str]:
  """The arms whose training is drawn: all, or one of each algorithm where they are many."""
  if len(stages) <= MOST_DRAWN:
    return list(stages)
  first: dict[str, str] = {}
  for name, stage in stages.items():
    first.setdefault(stage.train.algorithm, name)
  return list(first.values())


def _read_meter(workdir: pathlib.Path) -> dict[str, float]:
  path = workdir / 'seconds.json'
  return json.loads(path.read_text()) if path.exists() else {}


def _write_meter(workdir: pathlib.Path, meter: metrics_lib.Meter) -> None:
  (workdir / 'seconds.json').write_text(json.dumps(meter.state()))
