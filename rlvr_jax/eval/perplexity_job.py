"""job=perplexity: every author's completions under every model; what is scored is not scored again.

Rows go into WORKDIR/perplexity/<model>/<author>/<task>/part-NNNNN.parquet as they are scored; then
perplexity.parquet, reach.parquet, perplexity.json, perplexity_problems.csv and perplexity.html are
made of all of them (perplexity_results.py).
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax import hosts
from rlvr_jax.config import Config
from rlvr_jax.eval import authors as authors_lib
from rlvr_jax.eval import likelihood, perplexity_results
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.authors import Author, Listing
from rlvr_jax.eval.perplexity_rows import (
  Scoring,
  done_keys,
  fitting,
  part_metadata,
  read_parts,
  score_block,
  write_part,
)
from rlvr_jax.eval.sample import store_name, weights_of
from rlvr_jax.metrics import Progress
from rlvr_jax.models.load import full_name
from rlvr_jax.sampling.local import local_mesh
from rlvr_jax.tasks.load import load_problems
from rlvr_jax.tasks.problem import Problem

BLOCK = 2048  # completions read at once


@dataclasses.dataclass(frozen=True)
class Asked:
  """Of one author, the chosen completions by index into its listing."""

  author: Author
  listing: Listing
  chosen: np.ndarray


def perplexity(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
  """Runs the job: see the module. Returns what perplexity.json holds.

  Of several processes each scores its share of the completions, and the first writes the results
  (the others return nothing).
  """
  if not config.stores:
    raise ValueError(
      'job=perplexity needs completions: --config.stores=runs/x,reference.jsonl (runs, stores and '
      'files of reference answers, NAME=PATH to name one)'
    )
  found = authors_lib.find_authors(config.stores)
  models = models_of(config, found)
  found = with_task(found)
  problems, templates = problems_of(config, found)
  asked, plan = select(config, found, problems, [name for name, _ in models])
  mesh = local_mesh(run_lib.make_mesh(config))
  described = {}
  for name, path in models:
    model = open_model(config, name, path, found, templates, mesh)
    described[name] = describe(model)
    check_prompts(model, found, templates)
    for one in asked:
      task = one.author.task
      score_author(config, workdir, model, one, problems[task], templates[task], mesh)
  hosts.barrier('the scored completions')
  if not hosts.is_first():
    return {}
  table = read_parts(workdir, [name for name, _ in models], found)
  names = {author.name: str(author.path) for author in found}
  return perplexity_results.write(workdir, table, described, names, plan)


def models_of(config: Config, authors: Sequence[Author]) -> list[tuple[str, str]]:
  """(name, path) of every model; perplexity.models, or the models that sampled the stores.

  A model that is named as an author is its author: then its sampling settings are the store's.
  """
  named = authors_lib.split_names(config.perplexity.models)
  if named:
    return [(name or store_name(full_name(path)), path) for name, path in named]
  found: dict[str, str] = {}
  for author in authors:
    if not author.is_file:
      found.setdefault(author.name, sampled_by(author))
  if not found:
    raise ValueError(
      'no store says which models to score with: name them with '
      '--config.perplexity.models=base=PATH,rl=runs/x@step:300'
    )
  return list(found.items())


def sampled_by(author: Author) -> str:
  """The model that drew a store, by its run's config.json. ValueError if that does not say."""
  record, run = authors_lib.config_of(author), author.run
  stored = author.path.parent.name
  if record is not None:
    job, name = record['job'], record['model']['name']
    if job in ('sample', 'evaluate') and name:
      return name
    if job == 'study' and stored == 'base':
      return name or str(run / 'base' / 'model')
    if job == 'study' and (run / 'arms' / stored / 'model').is_dir():
      return str(run / 'arms' / stored / 'model')
    if job == 'train' and stored == 'start' and name:
      return name
    if job == 'train' and stored.startswith('step-'):
      return str(run)
  raise ValueError(
    f'which model drew {author.path} is not said there; name it with '
    f'--config.perplexity.models={author.name}=PATH (and the others likewise)'
  )


def with_task(authors: Sequence[Author]) -> list[Author]:
  """Authors whose files are of the task of the stores."""
  tasks = list(dict.fromkeys(author.task for author in authors if not author.is_file))
  if len(tasks) > 1 and any(author.is_file for author in authors):
    raise ValueError(
      f'the stores hold {", ".join(tasks)}: which of them a file of answers belongs to is not '
      'known; give the stores of one task at a time'
    )
  task = tasks[0] if tasks else 'reference'
  return [dataclasses.replace(a, task=task) if a.is_file else a for a in authors]


def problems_of(
  config: Config, authors: Sequence[Author]
) -> tuple[dict[str, dict[str, Problem]], dict[str, str]]:
  """Problems by id and the prompt template, of each task: the config's, else the stores' runs'."""
  problems: dict[str, dict[str, Problem]] = {}
  templates: dict[str, str] = {}
  for task in dict.fromkeys(author.task for author in authors):
    group = {**config.task}
    if group['name'] == 'jsonl' and not group['path']:
      records = (authors_lib.config_of(a) for a in authors if a.task == task)
      record = next((r for r in records if r is not None), None)
      if record is None:
        raise ValueError(
          f'which problems {task!r} has is not said beside its samples; give them with '
          '--config.task.name, --config.task.path and --config.task.template'
        )
      group = {**group, **record['task']}
    group['self_check'] = 'off'  # nothing is judged here
    train, held_out = load_problems(group)
    problems[task] = {p.id: p for p in [*held_out, *train]}
    templates[task] = group['template']
  return problems, templates


def select(
  config: Config,
  authors: Sequence[Author],
  problems: Mapping[str, Mapping[str, Problem]],
  models: Sequence[str],
) -> tuple[list[Asked], dict[str, Any]]:
  """What of each author is scored, and the plan that perplexity_results needs.

  The plan: samples; targets {task: {(model, other): {set: problem ids}}} to estimate; most {author:
  draws} that may be used for it.
  """
  p = config.perplexity
  listings = [authors_lib.listing(author) for author in authors]
  asked, targets, most = [], {}, {}
  for task in problems:
    group = [(a, x) for a, x in zip(authors, listings, strict=True) if a.task == task]
    there = {str(name) for _, x in group for name in x.problem_id}
    known = [name for name in problems[task] if name in there]
    strangers = sorted(there - set(known))
    if strangers:
      raise ValueError(
        f'{len(strangers)} problems of {task} that have completions are not among the '
        f'{len(problems[task])} problems given, e.g. {strangers[:3]}; give those that were sampled'
      )
    wanted = (
      known[: p.problems or None] if not p.problem_ids else [str(name) for name in p.problem_ids]
    )
    if missing := sorted(set(wanted) - set(known)):
      raise ValueError(f'perplexity.problem_ids: nobody has completions of {missing[:3]}')
    targets[task] = importance_targets(config, group, wanted, models) if p.reach else {}
    for author, x in group:
      whole = {
        problem
        for (_, other), sets in targets[task].items()
        if other == author.name
        for ids in sets.values()
        for problem in ids
      }
      # of a store that was stopped early, the draws that every problem has in any case
      draws = min(p.importance, int(author.settings.get('first') or p.importance))
      most[author.name] = min(draws, most.get(author.name, draws))
      chosen = authors_lib.choose(
        x, problems=wanted, samples=p.samples, correct=p.correct, all_of=whole, most=draws
      )
      asked.append(Asked(author, x, chosen))
  return asked, {'samples': p.samples, 'targets': targets, 'most': most}


def importance_targets(
  config: Config,
  group: Sequence[tuple[Author, Listing]],
  wanted: Sequence[str],
  models: Sequence[str],
) -> dict[tuple[str, str], dict[str, list[str]]]:
  """(model, other) -> {'only_other': problems that only the other solves, 'both': to calibrate}.

  Of the first two authors that are models themselves, or perplexity.pair.
  """
  names = [a.name for a, _ in group if not a.is_file and a.name in models]
  pair = [n.strip() for n in config.perplexity.pair.split(',') if n.strip()] or names[:2]
  if len(pair) != 2 or not set(pair) <= set(names):
    if config.perplexity.pair:
      raise ValueError(
        f'perplexity.pair={config.perplexity.pair!r}: two of {", ".join(names) or "(none)"}, which '
        'are both models and authors'
      )
    return {}
  solved = {
    a.name: {str(n) for n, v in zip(x.problem_id, x.verdict, strict=True) if v == 'correct'}
    for a, x in group
  }
  found = {}
  for model, other in (pair, pair[::-1]):
    only = [n for n in wanted if n in solved[other] and n not in solved[model]]
    both = [n for n in wanted if n in solved[other] and n in solved[model]]
    found[model, other] = {'only_other': only, 'both': both[: config.perplexity.calibration]}
  return found


def open_model(
  config: Config,
  name: str,
  path: str,
  authors: Sequence[Author],
  tasks: Mapping[str, str],
  mesh: Any,
) -> Scoring:
  """Loads a model; its settings of a task are those of its own store, else the evaluate group's.

  Without a store of its own it may write as much as the longest-winded author may.
  """
  e = config.evaluate
  own = {a.task: a.settings for a in authors if a.name == name and not a.is_file}
  given = {'temperature': e.temperature, 'top_p': e.top_p, 'top_k': e.top_k}
  stored = [a.settings['max_tokens'] for a in authors if not a.is_file]
  given['max_tokens'] = max(stored, default=config.sampling.max_tokens)
  settings: dict[str, likelihood.Settings | None] = {}
  limits = {}
  for task in tasks:
    s = own.get(task, given)
    limits[task] = int(s['max_tokens'])
    settings[task] = None
    if config.perplexity.reach:
      settings[task] = likelihood.Settings(
        float(s['temperature']), float(s['top_p']), int(s['top_k'])
      )
  hosts.say(f'perplexity: loading {name} ({path})')
  dtype = config.model.compute_dtype
  model_config, params, tokenizer = likelihood.load(
    path, dtype=dtype, mesh=mesh, attention_impl=config.model.attention_impl
  )
  weights = weights_of(config, path)
  return Scoring(name, path, weights, model_config, params, tokenizer, settings, limits)


def describe(model: Scoring) -> dict[str, Any]:
  """A model in perplexity.json."""
  return {
    'path': model.path,
    'weights': model.weights,
    'settings': {
      task: {**(dataclasses.asdict(s) if s else {}), 'max_tokens': model.max_tokens[task]}
      for task, s in model.settings.items()
    },
  }


def check_prompts(model: Scoring, authors: Sequence[Author], templates: Mapping[str, str]) -> None:
  """ValueError if a model's own samples were drawn after other prompts than are scored after."""
  for author in authors:
    if author.name != model.name or author.is_file:
      continue
    now = run_lib.template_hash(templates[author.task], model.tokenizer)
    if now != author.prompt_hash:
      raise ValueError(
        f'{author.path} was drawn with another prompt template than {templates[author.task]!r} '
        f'(hash {author.prompt_hash}, not {now}); give it with --config.task.template'
      )


def score_author(
  config: Config,
  workdir: pathlib.Path,
  model: Scoring,
  asked: Asked,
  problems: Mapping[str, Problem],
  template: str,
  mesh: Any,
) -> None:
  """Scores what of the author is not yet scored under the model, a block at a time."""
  author = asked.author
  folder = workdir / 'perplexity' / model.name / author.name / author.task
  p = config.perplexity
  sizes: dict[str, Any] = {'shown': p.shown, 'micro_tokens': p.micro_tokens, 'mesh': mesh}
  sizes['chunk'] = min(config.model.logprob_chunk, likelihood.CHUNK)
  metadata = part_metadata(model, author, template, p.shown)
  done = done_keys(folder, metadata)
  x = asked.listing
  own = [asked.chosen[i].item() for i in hosts.mine(len(asked.chosen))]
  missing = [i for i in own if (str(x.problem_id[i]), int(x.sample[i])) not in done]
  what = f'{author.name} under {model.name}'
  known = len(own) - len(missing)
  with Progress(
    len(own), what, start=known, plain_every_s=5.0, enabled=hosts.is_first()
  ) as progress:
    if not missing:
      progress.note(f'{what}: all {known:,} completions are scored')
      return
    names = sorted({str(x.problem_id[i]) for i in missing})
    encoded = run_lib.encode_prompts(
      [problems[name] for name in names], template, model.tokenizer, model.config.max_positions
    )
    prompts = dict(zip(names, encoded, strict=True))
    scored = known
    for begin in range(0, len(missing), BLOCK):
      block = list(authors_lib.read(author, x, missing[begin : begin + BLOCK]))
      block, long = fitting(model, author, block, prompts)
      if long:
        progress.note(
          f'{what}: {long} completions exceed the {model.config.max_positions} positions'
        )
      rows, written = [], time.monotonic()
      for row in score_block(model, author, block, prompts, **sizes):
        rows.append(row)
        scored += 1
        progress.update(scored, {})
        if time.monotonic() - written > config.evaluate.flush_s:
          write_part(folder, rows, metadata)
          rows, written = [], time.monotonic()
      write_part(folder, rows, metadata)
