"""What is measured of a study's models: samples, exact chances, matched entropy, reach."""

import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax import stages as stages_lib
from rlvr_jax import study_stages
from rlvr_jax.eval import preflight
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval import sample as sample_lib
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.solve import solve_probabilities
from rlvr_jax.eval.stopping import Rule
from rlvr_jax.models.load import load_model
from rlvr_jax.rl import learner
from rlvr_jax.stages import Measured, Start
from rlvr_jax.tasks import countdown
from rlvr_jax.tasks.load import content_hash, environment_of
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_name, verifier_version

MARKS = 'measured'  # WORKDIR/measured/NAME.json: what was asked, and exact chances


def config_of(config: config_lib.Config, workdir: pathlib.Path, one: Measured) -> config_lib.Config:
  """The study's config with a model's own name and values."""
  found = config.copy_and_resolve_references()
  for key, value in {**one.values, 'model.name': path_of(config, workdir, one)}.items():
    config_lib.set_key(found, key, value, f'study: {one.name}')
  return found


def path_of(config: config_lib.Config, workdir: pathlib.Path, one: Measured) -> str:
  """A measured model as model.name; '' from scratch."""
  if isinstance(one.reference, Start):
    return stages_lib.path_of(config, workdir, one.reference)
  return one.reference


def sampled(config: config_lib.Config, workdir: pathlib.Path, one: Measured) -> ModelResult:
  """Tops up one model's samples; its exact solve probabilities where they can be enumerated.

  A model whose samples are all there, as they are asked for now, is not loaded.
  """
  own = config_of(config, workdir, one)
  problems = sample_lib.evaluation_problems(own)
  asked = _asked(own, one, problems)
  mark = workdir / MARKS / f'{one.name}.json'
  if (before := _read(mark)) is not None and before['asked'] == asked and not asked['stop_after']:
    rule = Rule(own.evaluate.n, 0, 0)
    drawn = sample_lib.Samples(SampleStore(workdir / 'samples'), one.name, tuple(problems), rule)
    if _whole(drawn):
      print(
        f'{one.name}: all {own.evaluate.n * len(problems):,} samples are there', file=sys.stderr
      )
      return _result(one, drawn, before['exact'])
  drawn, exact = _draw_all(own, workdir, one, problems, asked['weights'])
  mark.parent.mkdir(exist_ok=True)
  mark.write_text(json.dumps({'asked': asked, 'exact': exact}))
  return _result(one, drawn, exact)


def _result(
  one: Measured, drawn: sample_lib.Samples, exact: dict[str, float] | None
) -> ModelResult:
  return sample_lib.measured(
    drawn,
    one.role,
    algorithm=one.algorithm,
    seed=one.seed,
    step=one.step,
    exact=exact,
    part=one.part,
    label=one.label,
    start=one.start,
  )


def _asked(own: config_lib.Config, one: Measured, problems: Sequence[Problem]) -> dict[str, Any]:
  """All that a model's samples depend on."""
  s, e = own.sampling, own.evaluate
  weights = 'from scratch'
  if own.model.name:
    weights = sample_lib.weights_of(own, own.model.name)
  elif one.reference != Start(stages_lib.SCRATCH):
    raise ValueError(f'study: {one.name} names no model')
  found = {
    'weights': weights,
    'init': own.model.init.to_dict() if not own.model.name else {},
    'problems': [p.id for p in problems],
    'data': content_hash(own.task),
    'template': own.task.template,
    'turns': [own.task.environment, own.task.turns],
    'verifier': verifier_version(verifier_name(problems[0])),
    'seed': own.seed,
    'n': e.n,
    'first': s.first,
    'stop_after': s.stop_after,
    'sampling': [e.temperature, e.top_p, e.top_k, s.max_tokens, s.coupling, s.extras],
  }
  return json.loads(json.dumps(found))


def _read(path: pathlib.Path) -> dict[str, Any] | None:
  """What an earlier start wrote; None where there is nothing whole."""
  try:
    found = json.loads(path.read_text())
  except (FileNotFoundError, json.JSONDecodeError):
    return None
  return found if {'asked', 'exact'} <= set(found) else None


def _whole(drawn: sample_lib.Samples) -> bool:
  """Whether the store holds every draw of every problem."""
  there = drawn.store.done(drawn.model, drawn.task)
  n = drawn.rule.n
  return all((p.id, 0, sample) in there for p in drawn.problems for sample in range(n))


def _draw_all(own, workdir: pathlib.Path, one: Measured, problems: list[Problem], weights: str):
  """(samples, exact chances or None) of a model that has to be loaded."""
  loaded = load(own)
  drawn, _ = _draw(own, workdir, one.name, problems, loaded, weights)
  model_config, params, tokenizer = loaded
  e = own.evaluate
  truncating = e.top_p < 1 or e.top_k or not e.temperature
  other = own.task.name != 'countdown' or own.task.module or environment_of(own.task)
  if other or truncating:
    return drawn, None
  chances = solve_probabilities(
    params,
    model_config,
    tokenizer,
    run_lib.encode_prompts(problems, own.task.template, tokenizer, own.sampling.prompt_capacity),
    [countdown.solutions(p) for p in problems],
    temperature=e.temperature,
    max_tokens=own.sampling.max_tokens,
  )
  return drawn, {p.id: float(chance) for p, chance in zip(problems, chances, strict=True)}


def load(own: config_lib.Config) -> sample_lib.Loaded:
  """The model of a measured model's config; without a name, the one that training begins with."""
  if own.model.name:
    return load_model(own.model.name, dtype=own.model.compute_dtype)
  return learner.open_model(own, None)


def _draw(own, workdir, name, problems, loaded, weights, *, pilot_only: bool = False):
  with sample_lib.exit_when_stopped():
    return sample_lib.draw(
      own,
      workdir,
      problems,
      content_hash(own.task),
      loaded=loaded,
      weights=weights,
      name=name,
      show_settings=False,
      pilot_only=pilot_only,
    )


def pilot(
  config: config_lib.Config, workdir: pathlib.Path, one: Measured, problems: Sequence[Problem]
) -> preflight.Price | None:
  """The price of a model's samples, from 1% of them, which are kept; None where all are there."""
  own = config_of(config, workdir, one)
  weights = sample_lib.weights_of(own, own.model.name)
  _, found = _draw(own, workdir, one.name, problems, load(own), weights, pilot_only=True)
  return found


def matched_models(
  config: config_lib.Config,
  workdir: pathlib.Path,
  subjects: Sequence[Measured],
  clock: study_stages.Clock,
) -> tuple[list[ModelResult], dict[str, Any]]:
  """study.matched at the temperature of the base's entropy: models NAME@entropy, and the searches.

  WORKDIR/entropy.json keeps what was found. A model whose entropy does not reach the base's between
  the ends of the search is left out, and the search says so.
  """
  del config, workdir, subjects, clock
  return [], {}


def perplexity(
  config: config_lib.Config, workdir: pathlib.Path, subjects: Sequence[Measured]
) -> dict[str, Any] | None:
  """Every model of study.perplexity on every one's completions; None where none is asked for."""
  del config, workdir, subjects
  return None


def _names(subjects: Sequence[Measured], wanted: Sequence[str]) -> Iterator[Measured]:
  by_name = {one.name: one for one in subjects}
  for name in wanted:
    yield by_name[name]
