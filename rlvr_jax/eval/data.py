"""job=data: prepares a task's problems and shows them; data.json, data.txt, data.html in workdir.

Rows and splits, golds that fail the self-check, a rendered prompt, images, the lengths of prompts,
duplicates between train and test (or a second task), and a memorisation probe of a model.
"""

import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlvr_jax.config import Config
from rlvr_jax.tasks import images, prompts, self_check
from rlvr_jax.tasks import overlap as overlap_lib
from rlvr_jax.tasks.datasets import table
from rlvr_jax.tasks.datasets.load import prepared_splits
from rlvr_jax.tasks.load import load_problems
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_name, verifier_version

_EXAMPLES = 10  # pairs that are shown of many


def data(config: Config, workdir: pathlib.Path) -> None:
  """Runs the job: see the module."""
  console = Console(record=True, width=110)
  task = {**config.task, 'self_check': 'off'}
  splits = _named_splits(task)
  tokenizer = _tokenizer(config) if config.model.name else None
  found: dict[str, Any] = {'task': config.task.name, 'split': config.task.split}
  found |= _about(console, config, splits)
  found['self_check'] = _check(console, config, splits)
  found['prompt'] = _prompt(console, config, splits, tokenizer)
  if images_of := _images(console, splits):
    found['images'] = images_of
  found['lengths'] = _lengths(console, config, splits, tokenizer)
  found['duplicates'] = _duplicates(console, config, splits)
  if config.data.probe:
    found['memorised'] = _memorised(console, config, workdir, splits)
  (workdir / 'data.json').write_text(json.dumps(found, indent=2, ensure_ascii=False) + '\n')
  (workdir / 'data.txt').write_text(console.export_text(clear=False))
  (workdir / 'data.html').write_text(console.export_html())
  console.print(f'written: data.json, data.txt and data.html in {workdir}')


def _named_splits(task: Mapping[str, Any]) -> dict[str, list[Problem]]:
  train, held_out = load_problems(task)
  name, split = task['name'], task['split']
  if name in table.BENCHMARKS and not split and held_out and not task['holdout']:
    return {'train': train, 'test': held_out}
  if name in table.BENCHMARKS:
    only = split or next(one for one in ('train', 'test') if one in table.find(name).splits)
  else:
    only = 'all'
  return {only: train} | ({'held out': held_out} if held_out else {})


def _tokenizer(config: Config) -> Any:
  from rlvr_jax.models.load import load_tokenizer  # jax: only where a model is named

  return load_tokenizer(config.model.name)


def _about(
  console: Console, config: Config, splits: Mapping[str, Sequence[Problem]]
) -> dict[str, Any]:
  """Rows of each split, and for a benchmark what the table says of it."""
  name = config.task.name
  facts: dict[str, Any] = {'rows': {split: len(problems) for split, problems in splits.items()}}
  prepared = {}
  if name in table.BENCHMARKS:
    facts |= table.describe(name)
    prepared = prepared_splits(name, path=config.task.path, split=config.task.split)
    facts['prepared'] = {
      one.split: {
        'folder': str(one.folder),
        'left_out': one.left_out,
        'files': [{'path': str(f.path), 'sha256': f.sha256, 'known': f.known} for f in one.files],
      }
      for one in prepared.values()
    }
    console.rule(f'{name}: {facts["about"]}')
    console.print(
      f'licence {facts["licence"]}; released {facts["released"]}; verifier {facts["verifier"]}; '
      f'kind {facts["kind"]}'
    )
    for source in facts['sources']:
      console.print(Text(f'{source["split"]}: {source["home"]}', style='dim'), soft_wrap=True)
  else:
    console.rule(name)
  shown = Table('split', 'problems', 'left out', 'files', 'checksum')
  for split, problems in splits.items():
    one = prepared.get(split)
    shown.add_row(
      split,
      f'{len(problems):,}',
      ', '.join(f'{n:,} {why}' for why, n in one.left_out.items()) if one else '',
      '\n'.join(f.path.name for f in one.files) if one else str(config.task.path),
      '\n'.join('known' if f.known else f'unknown: {f.sha256[:12]}' for f in one.files)
      if one
      else '',
    )
  console.print(shown)
  return facts


def _check(
  console: Console, config: Config, splits: Mapping[str, Sequence[Problem]]
) -> dict[str, Any]:
  """Golds that do not verify, or that junk passes for."""
  mode = config.task.self_check
  result: dict[str, Any] = {}
  for split, problems in splits.items():
    names = sorted({verifier_name(problem) for problem in problems})
    asked = [n for n in names if mode != 'off' and (mode != 'auto' or n in self_check.AUTOMATIC)]
    group = [problem for problem in problems if verifier_name(problem) in asked]
    failing = self_check.failures(
      group,
      workers=config.verifier.workers,
      limit_s=config.verifier.limit_s,
      memory_mb=config.verifier.memory_mb,
    )
    result[split] = {
      'verifiers': [verifier_version(name) for name in asked],
      'asked': len(group),
      'failing': failing,
    }
    if not group:
      console.print(
        f'{split}: golds not asked (verifier {", ".join(names)}); task.self_check=refuse asks them'
      )
    else:
      console.print(f'{split}: {len(failing)} of {len(group):,} golds fail the self-check')
    for identity, why in failing.items():
      console.print(Text(f'  {identity}: {why}', style='red'))
  return result


def _prompt(
  console: Console, config: Config, splits: Mapping[str, Sequence[Problem]], tokenizer: Any
) -> dict[str, Any]:
  """The first problem as a model gets it, and the paper's templates for such problems."""
  problem = next(iter(splits.values()))[0]
  template = config.task.template
  name = config.task.name
  families = {}
  if name in table.BENCHMARKS:
    kind = table.find(name).kind
    families = {f: kinds[kind] for f, kinds in prompts.PAPER.items() if kind in kinds}
    listed = ', '.join(f'{t} ({f})' for f, t in families.items())
    console.print(f'templates of the paper for {kind}: {listed}')
  if template in prompts.CHATS and tokenizer is None:
    console.print(f'template {template} needs model.name to be shown')
    return {'template': template, 'paper': families, 'text': None}
  text = prompts.render(problem, template, tokenizer.hf if tokenizer else None)
  console.rule(f'prompt of {problem.id}, template {template}')
  console.print(Text(text))
  console.rule('its gold')
  gold = json.dumps(problem.answer, ensure_ascii=False)
  console.print(Text(gold if len(gold) < 500 else f'{gold[:500]} ... {len(gold):,} characters'))
  return {'template': template, 'paper': families, 'id': problem.id, 'text': text}


def _images(console: Console, splits: Mapping[str, Sequence[Problem]]) -> dict[str, Any]:
  """Sizes of each split's images, and those that cannot be taken; {} where there are none."""
  result: dict[str, Any] = {}
  for split, problems in splits.items():
    sizes: list[tuple[int, int]] = []
    wrong: dict[str, str] = {}
    for problem in problems:
      try:
        sizes += images.sizes(problem)
      except ValueError as error:
        wrong[problem.id] = str(error)
    if not sizes and not wrong:
      continue
    result[split] = {'images': len(sizes), 'refused': wrong}
    if not result.keys() - {split}:
      console.rule('images')
    if sizes:
      counts = sorted(width * height for width, height in sizes)
      result[split] |= {
        'pixels': {'least': counts[0], 'median': counts[len(counts) // 2], 'most': counts[-1]},
      }
      said = ', '.join(f'{name} {value:,}' for name, value in result[split]['pixels'].items())
      console.print(f'{split}: {len(sizes):,} images; pixels: {said}')
    if wrong:
      few = '\n  '.join(list(wrong.values())[:_EXAMPLES])
      console.print(Text(f'{split}: the images of {len(wrong):,} problems are refused\n  {few}'))
  return result


def _lengths(
  console: Console, config: Config, splits: Mapping[str, Sequence[Problem]], tokenizer: Any
) -> dict[str, Any]:
  """Lengths of the rendered prompts: tokens with a tokenizer, else characters of the problems."""
  template = config.task.template
  unit = 'tokens' if tokenizer else 'characters'
  result: dict[str, Any] = {'unit': unit}
  for split, problems in splits.items():
    if tokenizer is None:
      lengths = np.array([len(overlap_lib.text_of(problem)) for problem in problems])
    else:
      special = not prompts.writes_bos(template)
      lengths = np.array(
        [
          len(tokenizer.encode(prompts.render(p, template, tokenizer.hf), special=special))
          for p in problems
        ]
      )
    edges = np.unique(np.geomspace(lengths.min(), lengths.max() + 1, 13).round().astype(int))
    counts, edges = np.histogram(lengths, edges) if len(edges) > 1 else ([len(lengths)], edges)
    quantiles = {q: int(np.quantile(lengths, q)) for q in (0.0, 0.5, 0.9, 0.99, 1.0)}
    result[split] = {
      'quantiles': {str(q): value for q, value in quantiles.items()},
      'edges': [int(edge) for edge in edges],
      'counts': [int(count) for count in counts],
    }
    console.rule(f'{unit} of a prompt, {split}')
    console.print(
      f'median {quantiles[0.5]:,}, 90% {quantiles[0.9]:,}, 99% {quantiles[0.99]:,}, longest '
      f'{quantiles[1.0]:,}'
    )
    for low, count in zip(edges, counts, strict=False):
      bar = '#' * round(60 * count / max(counts))
      console.print(f'{int(low):>7,} {int(count):>6,} {bar}')
  return result


def _duplicates(
  console: Console, config: Config, splits: Mapping[str, Sequence[Problem]]
) -> dict[str, Any]:
  """Repeats within each split; what train has of test, or each split of a second task."""
  d = config.data
  result: dict[str, Any] = {'within': {}, 'ngram': d.ngram, 'across': []}
  console.rule('duplicates')
  for split, problems in splits.items():
    pairs = overlap_lib.repeats(problems)
    result['within'][split] = pairs
    console.print(f'{split}: {len(pairs)} problems repeat an earlier one {_few(pairs)}')
  names = list(splits)
  compared = [(a, splits[a], b, splits[b]) for a, b in itertools.pairwise(names)]
  if d.against:
    other = {
      **config.task,
      'name': d.against,
      'path': d.against_path,
      'split': d.against_split,
      'params': {},
      'where': '',
      'self_check': 'off',
    }
    for b, against in _named_splits(other).items():
      compared += [(a, splits[a], f'{d.against} {b}', against) for a in splits]
  for first, left, second, right in compared:
    found = overlap_lib.overlap(left, right, d.ngram)
    result['across'].append(
      {
        'first': first,
        'second': second,
        'same': found.same,
        'near': [vars(pair) for pair in found.near],
        'sharing': len(found.shared),
        'too_short': found.too_short,
      }
    )
    console.print(
      f'{first} and {second}: {len(found.same)} of {len(right):,} are the same; {len(found.near)} '
      f'share half or more of their {d.ngram}-word runs, {len(found.shared)} at least one '
      f'({found.too_short} are shorter than that)'
    )
    if found.same:
      console.print(Text(f'  the same: {_few(found.same)}'))
    for pair in found.near[:_EXAMPLES]:
      console.print(Text(f'  {pair.share:.0%}: {pair.first} and {pair.second}'))
  return result


def _memorised(
  console: Console,
  config: Config,
  workdir: pathlib.Path,
  splits: Mapping[str, Sequence[Problem]],
) -> dict[str, Any]:
  """The probe on the first problems of each split; see memorised.py."""
  if not config.model.name:
    raise ValueError(
      f'data.probe={config.data.probe} needs a model: --config.model.name=..., or set data.probe=0'
    )
  from rlvr_jax.eval import memorised  # jax

  released = table.find(config.task.name).released if config.task.name in table.BENCHMARKS else ''
  result: dict[str, Any] = {'released': released}
  shown = Table('split', 'released', 'problems', 'rest exact', 'rest matched', 'gold', 'by chance')
  for split, problems in splits.items():
    found = memorised.probe(config, workdir, problems[: config.data.probe])
    result[split] = found
    dates = sorted({str(row['date']) for row in found['rows'] if row['date']})
    shown.add_row(
      split,
      f'{dates[0]} to {dates[-1]}' if dates else released,
      f'{found["problems"]:,}',
      *(f'{found[key]:.1%}' for key in ('rest_rate', 'matched', 'gold_rate', 'gold_by_chance')),
    )
  console.rule(f'memorised by {config.model.name}: the first {config.data.shown:.0%} of a question')
  console.print(shown)
  return result


def _few(pairs: Sequence[Sequence[str]]) -> str:
  if not pairs:
    return ''
  text = ', '.join(' = '.join(pair) for pair in pairs[:_EXAMPLES])
  return f'({text}{" ..." if len(pairs) > _EXAMPLES else ""})'
