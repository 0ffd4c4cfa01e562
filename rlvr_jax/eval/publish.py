"""From measured models to results.json and report.html: what evaluate and study have in common."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax.eval import (
  beside,
  browse,
  claims,
  figures_tree,
  report,
  results,
  sources,
  two_verifiers,
)  # fmt: skip
from rlvr_jax.eval.claim_settings import register, settings_of
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.drawn import Samples, measured
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_name


def publish(
  config: config_lib.Config,
  workdir: pathlib.Path,
  store: SampleStore | None,
  models: Sequence[ModelResult],
  problems: Sequence[Problem],
  *,
  headline: Sequence[str],
  title: str,
  seconds: float,
  pairs: Sequence[tuple[str, str]] | None = None,
  claim_inputs: claims.Inputs | None = None,
  **more: Any,
) -> dict[str, Any]:
  """Analyses the samples of the models, writes the report and its data into workdir, prints pass@k.

  headline: (base, trained) or (name,); pairs: what else is compared, by default the base with every
  other; claim_inputs: what the claims ledger cannot find itself, its settings left open being the
  config's; more: further arguments of report.write_study. store None shows no completions, where
  only their counts are known.
  """
  e = config.evaluate
  analysed = results.analyse(
    models,
    headline=headline,
    headline_k=e.headline_k or None,
    ks=tuple(e.ks) or None,
    pairs=pairs,
    level=e.confidence,
    resamples=e.bootstrap,
    seed=config.seed,
    claims=_claim_inputs(config, workdir, models, headline, claim_inputs or claims.Inputs()),
  )
  task = problems[0].task
  by_id = {p.id: p for p in problems if p.images}
  found = beside.all_of(analysed, store, task, _guesses(config))
  more['extra'] = {**(more.get('extra') or {}), **{one.key: one.entry for one in found}}
  own = more.get('more_sections', ())
  more['more_sections'] = [*own, *(one.section for one in found)]
  document = report.write_study(
    workdir,
    analysed,
    title=title,
    wall_seconds=seconds,
    task=task,
    trees=figures_tree.tree_figure(analysed, store, task) if store else None,
    two=_second_verdicts(config, workdir, store, analysed, problems) if store else None,
    cot=_read_reasoning(workdir),
    samples=browse.pick_samples(
      store,
      analysed.few(),
      task,
      {p.id: _shown_prompt(p, config.task.template) for p in problems},
      answers={
        p.id: json.dumps(p.answer, ensure_ascii=False) for p in problems if p.answer is not None
      },
      pictures=(lambda i: browse.thumbnails(by_id[i]) if i in by_id else ()) if by_id else None,
    )
    if store
    else (),
    provenance=provenance(config),
    **more,
  )
  _print_summary(document, analysed.headline_k)
  print(f'report: {workdir / "report.html"}  ({seconds:.0f} s in all)', file=sys.stderr)
  return document


def _read_reasoning(workdir: pathlib.Path) -> dict[str, Any] | None:
  """What job=cot found in WORKDIR/cot, if it was run there."""
  path = workdir / 'cot' / 'cot.json'
  return json.loads(path.read_text()) if path.exists() else None


def publish_drawn(
  config: config_lib.Config,
  workdir: pathlib.Path,
  drawn: Samples,
  problems: Sequence[Problem],
  *,
  seconds: float,
) -> dict[str, Any]:
  """The report of one model's samples."""
  return publish(
    config,
    workdir,
    drawn.store,
    [measured(drawn, 'base')],
    problems,
    headline=(drawn.model,),
    title=f'{drawn.model} on {drawn.task}',
    seconds=seconds,
  )


def _guesses(config: config_lib.Config) -> tuple[str, Counts] | None:
  """(name, counts) of evaluate.guesses."""
  if not config.evaluate.guesses:
    return None
  try:
    source = sources.open_source(config.evaluate.guesses)
  except ValueError as error:
    raise ValueError(f'evaluate.guesses: {error}') from error
  return source.name, source.counts


def _second_verdicts(
  config: config_lib.Config, workdir: pathlib.Path, store: SampleStore, study, problems
) -> two_verifiers.TwoVerifiers | None:
  """The samples under evaluate.second_verifier, if there is one."""
  second = config.evaluate.second_verifier
  if not second:
    return None
  names = [model.name for model in study.models]
  files = two_verifiers.rejudge(config, workdir, store, names, problems, second)
  first = verifier_name(problems[0])
  named = 'strict' if first == 'math' else first
  return two_verifiers.two_verifiers(
    study, two_verifiers.rescored(study, files), names=(named, second)
  )


def _claim_inputs(
  config: config_lib.Config,
  workdir: pathlib.Path,
  models: Sequence[ModelResult],
  headline: Sequence[str],
  given: claims.Inputs,
) -> claims.Inputs:
  """The given inputs; what they leave open from the config, claims.json and reach.parquet."""
  settings = given.settings or settings_of(config)
  found: dict[str, Any] = {'settings': settings}
  if given.registration is None:
    found['registration'] = register(workdir, settings, sampled=True)
  path = workdir / 'reach.parquet'
  if given.reach is None and path.exists() and len(headline) == 2:
    base = next(model for model in models if model.name == headline[0])
    truncates = base.settings.get('top_p', 1.0) < 1 or bool(base.settings.get('top_k', 0))
    found['reach'] = claims.read_reach(path, *headline, truncates=truncates)
  return dataclasses.replace(given, **found)


def _shown_prompt(problem: Problem, template: str) -> str:
  if template in prompts.CHATS or not isinstance(problem.prompt, str):
    return problem.prompt if isinstance(problem.prompt, str) else json.dumps(problem.prompt)
  return prompts.render(problem, template)


def provenance(config: config_lib.Config) -> dict[str, Any]:
  """How a report was made: the command, versions and the config."""
  versions = config_lib.versions()
  command = versions.pop('command')
  return {
    'Command': ' '.join(['python', *command]),
    'Versions': {k: v for k, v in versions.items() if v is not None},
    'Config': {k: v for k, v in config_lib.flatten(config).items() if v not in ('', {}, None)},
  }


def _print_summary(document: Mapping[str, Any], k: int) -> None:
  for name, entry in document['models'].items():
    shown = [1, k] if k > 1 else [1]
    # another model's n may be smaller, and then the curves end there
    shown += [entry['n']] if entry['n'] > k and str(entry['n']) in entry['pass_at_k'] else []
    values = (
      f'pass@{i} {value:.3f} [{low:.3f}, {high:.3f}]'
      for i, (value, low, high) in ((i, entry['pass_at_k'][str(i)]) for i in shown)
    )
    print(f'{name:>12}: ' + '   '.join(values), file=sys.stderr)
    if stopped := entry.get('coverage_at_n'):
      value, low, high = stopped['share']['1']
      print(
        f'{"":>12}  {stopped["problems"]["1"]} of {entry["problems"]} problems solved within '
        f'n={stopped["n"]:,}: {value:.3f} [{low:.3f}, {high:.3f}] (stopped early: pass@k to '
        f'k={stopped["first"]} only)',
        file=sys.stderr,
      )
