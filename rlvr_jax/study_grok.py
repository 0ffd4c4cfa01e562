"""The staged-reward question of a study (eval/grok.py): its runs, and what the base draws.

Arms of part 'staged' are its runs; the first arm that samples the base has its draws on the
problems that they train on.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax import config as config_lib
from rlvr_jax import hosts, study_measures
from rlvr_jax import metrics as metrics_lib
from rlvr_jax import stages as stages_lib
from rlvr_jax.eval import grok, study_turns
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.solve import solve_probabilities
from rlvr_jax.stages import Stage
from rlvr_jax.tasks.load import load_problems, solutions_of
from rlvr_jax.tasks.problem import Problem


def measure(
  config: config_lib.Config,
  workdir: pathlib.Path,
  stages: Sequence[Stage],
  configs: Mapping[str, config_lib.Config],
  models: Sequence[ModelResult],
  problems: Sequence[Problem],
) -> dict[str, Any] | None:
  """results.json["staged"]; None where no stage has that part. All processes take part."""
  if not any(stage.part == grok.PART for stage in stages):
    return None
  splits = {p.id: str(p.meta.get('split', '')) for p in problems}
  if grok.TRAINED not in splits.values():
    raise ValueError(
      f"study.arms: part={grok.PART!r} needs held-out problems with meta['split'], "
      f'{grok.TRAINED!r} among them, as those of task.name=machines'
    )
  zero = zero_set(workdir, stages, configs)
  base = next(model for model in models if model.role == 'base' and not model.part)
  runs = [
    _run(config, workdir, stages, configs, model) for model in models if model.part == grok.PART
  ]
  return grok.analyse(base, runs, splits, zero, config.evaluate.confidence)


def _run(
  config: config_lib.Config,
  workdir: pathlib.Path,
  stages: Sequence[Stage],
  configs: Mapping[str, config_lib.Config],
  model: ModelResult,
) -> grok.Run:
  """A model with the course of its arm; without its looks where these asked in another way."""
  arm = _arm_of(model, stages)
  rates, looks = _course(config, workdir, stages, arm)
  talks = bool(configs.get(arm, config).task.environment)
  same = talks == study_turns.is_conversation(model)
  return grok.Run(model, len(rates), rates[-1] if rates else None, looks if same else ())


def _arm_of(model: ModelResult, stages: Sequence[Stage]) -> str:
  """Its arm; of one of study.models the arm whose model it is."""
  return model.name if any(stage.name == model.name for stage in stages) else model.start


def _course(
  config: config_lib.Config, workdir: pathlib.Path, stages: Sequence[Stage], name: str
) -> tuple[list[float], tuple[tuple[int, float], ...]]:
  """(rates, looks) of an arm after those of the RL arms that it goes on from."""
  by_name = {stage.name: stage for stage in stages}
  parts, length = [], None
  while name in by_name and by_name[name].job == 'train':
    stage = by_name[name]
    rows = metrics_lib.read_metrics(stages_lib.folder_of(workdir, name) / 'metrics.jsonl')
    parts.append((rows, length or stages_lib.length_of(config, stage)))
    name, length = stage.start.name, stage.start.step
  return grok.spliced(parts[::-1])


def zero_set(
  workdir: pathlib.Path, stages: Sequence[Stage], configs: Mapping[str, config_lib.Config]
) -> grok.ZeroSet | None:
  """The draws of the first arm that samples the base, with the base's exact chances.

  None where no arm does.
  """
  found = [s for s in stages if s.job == 'sample' and s.start.name == stages_lib.BASE]
  if not found:
    return None
  stage, own = found[0], configs[found[0].name]
  problems = load_problems(own.task)[0][: own.evaluate.problems or None]
  ids = [problem.id for problem in problems]
  store = SampleStore(stages_lib.folder_of(workdir, stage.name) / 'samples')
  counts = store.counts('teacher', problems[0].task, problem_ids=ids, samples=own.evaluate.n)
  counts = counts.select(ids)
  solutions = solutions_of(own.task)
  exact = None
  if solutions is not None:
    texts = [solutions(problem) for problem in problems]
    exact = np.array(hosts.of_first(lambda: _chances(own, problems, texts)))
  return grok.ZeroSet(stage.name, tuple(ids), counts.n, counts.c, exact)


def _chances(
  own: config_lib.Config, problems: Sequence[Problem], texts: Sequence[Sequence[str]]
) -> list[float]:
  model_config, params, tokenizer = study_measures.load(own)
  found = solve_probabilities(
    params,
    model_config,
    tokenizer,
    run_lib.encode_prompts(problems, own.task.template, tokenizer, own.sampling.prompt_capacity),
    texts,
    temperature=own.evaluate.temperature,
    max_tokens=own.sampling.max_tokens,
  )
  return found.tolist()
