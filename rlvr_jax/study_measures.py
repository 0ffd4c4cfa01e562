"""What is measured of a study's models: samples, exact chances, matched entropy, reach."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax import hosts, study_stages
from rlvr_jax import stages as stages_lib
from rlvr_jax.eval import entropy, perplexity_job, preflight
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval import sample as sample_lib
from rlvr_jax.eval.claim_settings import register, settings_of
from rlvr_jax.eval.drawn import measured
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.solve import solve_probabilities
from rlvr_jax.eval.stopping import Rule
from rlvr_jax.eval.temperature import Entropy, entropy_of, match_temperature
from rlvr_jax.models.load import load_model
from rlvr_jax.rl import learner
from rlvr_jax.sampling.local import hand_over_locally
from rlvr_jax.stages import Measured, Start
from rlvr_jax.tasks.load import content_hash, solutions_of
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifiers_of

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
  before = hosts.from_first(_read(mark))
  if before is not None and before['asked'] == asked and not asked['stop_after']:
    rule = Rule(own.evaluate.n, 0, 0)
    drawn = sample_lib.Samples(SampleStore(workdir / 'samples'), one.name, tuple(problems), rule)
    if hosts.of_first(lambda: _whole(drawn)):
      hosts.say(f'{one.name}: all {own.evaluate.n * len(problems):,} samples are there')
      return _result(one, drawn, before['exact'])
  hosts.of_first(lambda: register(workdir, settings_of(config)))  # before the first draw
  drawn, exact = _draw_all(own, workdir, one, problems, asked['weights'])
  if hosts.is_first():
    mark.parent.mkdir(exist_ok=True)
    mark.write_text(json.dumps({'asked': asked, 'exact': exact}))
  return _result(one, drawn, exact)


def _result(
  one: Measured, drawn: sample_lib.Samples, exact: dict[str, float] | None
) -> ModelResult:
  return measured(
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
    'verifier': verifiers_of(problems),
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
  solutions = solutions_of(own.task)
  if solutions is None or truncating:
    return drawn, None
  capacity = own.sampling.prompt_capacity
  chances = hosts.of_first(
    lambda: solve_probabilities(
      params,
      model_config,
      tokenizer,
      run_lib.encode_prompts(problems, own.task.template, tokenizer, capacity),
      [solutions(p) for p in problems],
      temperature=e.temperature,
      max_tokens=own.sampling.max_tokens,
    )
  )
  return drawn, {p.id: float(chance) for p, chance in zip(problems, chances, strict=True)}


def load(own: config_lib.Config) -> sample_lib.Loaded:
  """The model of a measured model's config; without a name, the one that training begins with."""
  if own.model.name:
    m = own.model
    return load_model(m.name, dtype=m.compute_dtype, attention_impl=m.attention_impl)
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
  hosts.of_first(lambda: register(workdir, settings_of(config)))  # before the first draw
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
  wanted = list(config.study.matched)
  if not wanted:
    return [], {}
  path = workdir / 'entropy.json'
  known: dict[str, Any] = hosts.of_first(
    lambda: json.loads(path.read_text()) if path.exists() else {}
  )
  by_name = {one.name: one for one in subjects}
  target: Any = None  # Entropy, once it is asked for
  found, models = {}, []
  for name in wanted:
    asked = _asked_match(config, workdir, by_name[stages_lib.BASE], by_name[name])
    if known.get(name, {}).get('asked') != asked:
      with clock.stage(f'entropy of {name}'):
        if target is None:
          base = by_name[stages_lib.BASE]
          target = hosts.of_first(lambda base=base: _entropy_of_base(config, workdir, base))
        search = functools.partial(_search, config, workdir, by_name[name], target)
        known[name] = {'asked': asked, **hosts.of_first(search)}
      if hosts.is_first():
        path.write_text(json.dumps(known))
    found[name] = {key: value for key, value in known[name].items() if key != 'asked'}
    temperature = known[name]['temperature']
    if temperature is None:
      hosts.say(f'{name}: no temperature tried gives it the entropy of the base')
      continue
    one = dataclasses.replace(
      by_name[name],
      name=f'{name}@entropy',
      values={**by_name[name].values, 'evaluate.temperature': temperature},
      part='temperature',
      label=f'T = {temperature:.2f}',
    )
    with clock.stage(f'sampling {one.name}'):
      models.append(sampled(config, workdir, one))
  return models, found


def _asked_match(config, workdir: pathlib.Path, base: Measured, one: Measured) -> dict[str, Any]:
  """All that a search depends on."""
  asked = [
    _asked(own, which, sample_lib.evaluation_problems(own))
    for which in (base, one)
    for own in [config_of(config, workdir, which)]
  ]
  return json.loads(json.dumps({'models': asked, 'match': config.study.match.to_dict()}))


def _measure(config: config_lib.Config, workdir: pathlib.Path, one: Measured):
  """(measure of a model's entropy, how many problems it asks)."""
  own = config_of(config, workdir, one)
  problems = sample_lib.evaluation_problems(own)[: config.study.match.problems or None]
  model_config, params, tokenizer = load(own)
  encoded = run_lib.encode_prompts(
    problems,
    own.task.template,
    tokenizer,
    own.sampling.prompt_capacity,
    run_lib.sees(own, model_config),
  )
  mesh = run_lib.sampling_mesh(own, model_config)
  engine = run_lib.make_engine(own, hand_over_locally(None, params, mesh), model_config, mesh)
  sampling = sample_lib.eval_sampling(own, tokenizer.eos_ids)
  uid = run_lib.model_uid(one.name, own.sampling.coupling)
  return entropy.measure_with(engine, problems, encoded, sampling, model_uid=uid), len(problems)


def _entropy_of_base(config: config_lib.Config, workdir: pathlib.Path, base: Measured) -> Entropy:
  measure, _ = _measure(config, workdir, base)
  own = config_of(config, workdir, base)
  return entropy_of(measure(own.evaluate.temperature, 8 * config.study.match.samples, 0))


def _search(
  config: config_lib.Config, workdir: pathlib.Path, one: Measured, target: Entropy
) -> dict[str, Any]:
  """The search for the temperature, as JSON."""
  measure, problems = _measure(config, workdir, one)
  m = config.study.match
  hosts.say(f'{one.name}: at which temperature is its entropy {target.value:.4f}?')
  found = match_temperature(
    measure,
    target,
    problems=problems,
    low=m.low,
    high=m.high,
    tolerance=m.tolerance,
    samples=m.samples,
  )
  return {
    'temperature': found.temperature,
    'between': [found.low, found.high],
    'reason': found.reason,
    'target': [target.value, target.error],
    'points': [[t, point.value, point.error] for t, point in found.points],
  }


def perplexity(
  config: config_lib.Config, workdir: pathlib.Path, subjects: Sequence[Measured]
) -> dict[str, Any]:
  """Every model of study.perplexity on every one's completions: job=perplexity in the workdir."""
  by_name = {one.name: one for one in subjects}
  chosen = [by_name[name] for name in config.study.perplexity]
  own = config.copy_and_resolve_references()
  task = sample_lib.evaluation_problems(config)[0].task
  stores = [f'{one.name}={workdir / "samples" / one.name / task}' for one in chosen]
  models = [f'{one.name}={path_of(config, workdir, one)}' for one in chosen]
  keys = {'job': 'perplexity', 'stores': ','.join(stores), 'perplexity.models': ','.join(models)}
  for key, value in keys.items():
    config_lib.set_key(own, key, value, 'study.perplexity')
  return perplexity_job.perplexity(own, workdir)
