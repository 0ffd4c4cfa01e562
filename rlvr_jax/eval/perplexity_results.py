"""What job=perplexity leaves: perplexity.parquet, reach.parquet, perplexity.json, a table, a page.

Everything is made of the scored rows (perplexity.SCHEMA); nothing here runs a model.
"""

import csv
import dataclasses
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlvr_jax.eval import figures_perplexity, perplexity, reach, surprise
from rlvr_jax.eval.figures import Plot
from rlvr_jax.eval.results import finite, write_json

SCHEMA_VERSION = 1
_TOKEN_COLUMNS = ('surprise', 'pieces', 'allowed')
Targets = Mapping[tuple[str, str], Mapping[str, Sequence[str]]]


def write(
  workdir: pathlib.Path,
  table: pa.Table,
  models: Mapping[str, Any],
  authors: Mapping[str, str],
  plan: Mapping[str, Any],
) -> dict[str, Any]:
  """Writes every file from the rows; returns what perplexity.json holds.

  models: what is said of each, by name. plan: samples (of each problem, for the distribution of
  PPL), targets {task: Targets}, most {author: draws that importance estimates may use}.
  """
  document = results(table, models, authors, plan)
  pq.write_table(table.drop_columns([*_TOKEN_COLUMNS, 'key']), workdir / 'perplexity.parquet')
  if has_reach(table):
    pq.write_table(reach.correct_rows(table), workdir / 'reach.parquet')
  write_json(workdir / 'perplexity.json', document)
  rows = problem_rows(table)
  if rows:
    with (workdir / 'perplexity_problems.csv').open('w', newline='', encoding='utf-8') as file:
      writer = csv.DictWriter(file, list(rows[0]))
      writer.writeheader()
      writer.writerows(rows)
  drawn = figures_perplexity.plots(table, document)
  (workdir / 'perplexity.html').write_text(page(table, document, drawn), encoding='utf-8')
  return document


def results(
  table: pa.Table, models: Mapping[str, Any], authors: Mapping[str, str], plan: Mapping[str, Any]
) -> dict[str, Any]:
  """perplexity.json: perplexity and reach of every pair, solve rates by importance, and checks."""
  pairs = perplexity.pairs(table)
  samples = plan['samples']
  measured = [perplexity.summarise(table, m, a, samples=samples) for m, a in pairs]
  reached = [reach.summarise(table, m, a) for m, a in pairs] if has_reach(table) else []
  tasks = list(dict.fromkeys(table['task'].to_pylist()))
  document = {
    'schema_version': SCHEMA_VERSION,
    'models': dict(models),
    'authors': dict(authors),
    'samples': samples,
    'perplexity': [dataclasses.asdict(one) for one in measured if one is not None],
    'within_own_range': within_own_range(table, pairs, samples),
    'reach': [dataclasses.asdict(one) for one in reached if one is not None],
    'known_probability': {
      task: {model: reach.known_probability(table, model, task) for model in models}
      for task in tasks
    }
    if has_reach(table)
    else {},
    'importance': [row for task in tasks for row in importance_rows(table, plan, task)],
    'checks': checks(table),
  }
  return finite(document)


def has_reach(table: pa.Table) -> bool:
  """Whether reach was asked for."""
  return bool(len(table)) and not np.isnan(table['tempered'].to_numpy()).all()


def within_own_range(
  table: pa.Table, pairs: Sequence[tuple[str, str]], samples: int
) -> list[dict[str, Any]]:
  """Of every other author, the share of completions no odder than 95% of the model's own."""
  found = []
  for model, author in pairs:
    if model == author or (model, model) not in pairs:
      continue
    own, others = (
      np.concatenate([*perplexity.by_problem(table, model, a, samples=samples).values()] or [[]])
      for a in (model, author)
    )
    if len(own) and len(others):
      share = perplexity.share_within(own, others)
      found.append({'model': model, 'author': author, 'share': share, 'completions': len(others)})
  return found


def importance_rows(table: pa.Table, plan: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
  """Every importance estimate of a task, with what the model's own samples are known to give."""
  rows = []
  of_task = table.filter(pc.field('task') == task)
  targets: Targets = plan['targets'].get(task, {})
  for (model, other), sets in targets.items():
    for kind, problems in sets.items():
      most = plan['most'][other]
      for problem, one in reach.estimates(of_task, model, other, problems, most=most).items():
        rows.append(
          {'task': task, 'model': model, 'other': other, 'set': kind, 'problem_id': problem}
          | dataclasses.asdict(one)
        )
  return rows


def checks(table: pa.Table) -> dict[str, Any]:
  """How far the scoring agrees with the sampling, on completions that their own model scored.

  outside: share of own completions with a token outside (0 if both agree; sampling never draws
  one). gap: largest and mean |recorded - scored| log-prob of a token, as mean over a completion.
  """
  own = table.filter(pc.field('model') == pc.field('author'))
  if not len(own):
    return {'own_completions': 0}
  # nulls, where nothing was recorded, are NaN
  gaps = np.abs(own['sampler_gap'].to_numpy()) / own['tokens'].to_numpy()
  gaps = gaps[~np.isnan(gaps)]
  outside = own['first_outside'].to_numpy() >= 0
  return {
    'own_completions': len(own),
    'own_outside': int(outside.sum()),
    'own_at_edge': sum(own['edge'].to_pylist()),
    'gap_largest': float(gaps.max()) if len(gaps) else None,
    'gap_mean': float(gaps.mean()) if len(gaps) else None,
  }


def problem_rows(table: pa.Table) -> list[dict[str, Any]]:
  """A row a (task, problem, model, author): PPL quartiles, and reach of the correct completions."""
  groups: dict[tuple[str, ...], list[int]] = {}
  names = ('task', 'problem_id', 'model', 'author')
  for i, key in enumerate(zip(*(table[name].to_pylist() for name in names), strict=True)):
    groups.setdefault(key, []).append(i)
  ppl = perplexity.perplexity(table['logprob'].to_numpy(), table['tokens'].to_numpy())
  right = np.array(table['verdict'].to_pylist(), object) == 'correct'
  can, best, asked = reach.drawable(table), table['reach'].to_numpy(), has_reach(table)
  rows = []
  for key, members in groups.items():
    index = np.array(members)
    correct = index[right[index]]
    low, middle, high = np.quantile(ppl[index], [0.25, 0.5, 0.75])
    row = dict(zip(names, key, strict=True)) | {'completions': len(index)}
    row |= {'ppl_lower': low, 'ppl_median': middle, 'ppl_upper': high, 'correct': len(correct)}
    if asked:
      top = float(best[correct].max(initial=-np.inf)) / np.log(10)
      row |= {'drawable': int(can[correct].sum())}
      row |= {'best_log10_probability': top if np.isfinite(top) else None}
    rows.append(row)
  return rows


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Perplexity and reach</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem;
color:#1A1A1A;background:#FFF}}svg{{max-width:100%;height:auto}}table{{border-collapse:collapse}}
td,th{{padding:.2rem .6rem;border-bottom:1px solid #DDD;text-align:right}}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){{text-align:left}}
figcaption{{color:#444;font-size:.9rem}}{css}</style>
<h1>Perplexity and reach</h1>
<p>Low perplexity does not say that a model would write a completion. Reach does: whether every
token lies inside what the model's sampler leaves, and how likely the whole is.</p>
{body}</html>
"""


def page(table: pa.Table, document: Mapping[str, Any], drawn: Sequence[Plot]) -> str:
  """One self-contained HTML page: tables, figures, and completions with their surprise."""
  parts = [
    _html_table(
      ('model', 'author', 'problems', 'completions', 'PPL', '95% interval', 'bits a byte'),
      [
        [
          one['model'], one['author'], one['problems'], one['completions'], f'{one["value"]:.3f}',
          '\N{EN DASH}' if one['low'] is None else f'{one["low"]:.3f} to {one["high"]:.3f}',
          '\N{EN DASH}' if one['bits_per_byte'] is None else f'{one["bits_per_byte"]:.3f}',
        ]
        for one in document['perplexity']
      ],
    ),
    _html_table(
      ('model', 'correct by', 'problems', 'completions', 'could be drawn', '95% interval',
       'tokens inside', 'median probability'),
      [
        [
          one['model'], one['author'], one['problems'], one['completions'],
          f'{one["drawable"][0]:.1%}', f'{one["drawable"][1]:.1%} to {one["drawable"][2]:.1%}',
          f'{one["inside"]:.2%}', f'10^{one["log10_median"]:.1f}',
        ]
        for one in document['reach']
      ],
    ),
  ]  # fmt: skip
  for plot in drawn:
    svg = plot.svg.decode().partition('<svg')
    parts.append(
      f'<figure><h2>{html.escape(plot.title)}</h2><svg{svg[2]}'
      f'<figcaption>{html.escape(plot.caption)}</figcaption></figure>'
    )
  parts.append(shown_completions(table))
  return _PAGE.format(css=surprise.CSS, body='\n'.join(parts))


def shown_completions(table: pa.Table, most: int = 60) -> str:
  """The completions whose tokens were kept, at most so many, as HTML."""
  rows = table.filter(pc.field('surprise').is_valid())[:most].to_pylist()
  if not rows:
    return ''
  parts = ['<h2>Token by token</h2>', surprise.legend()]
  for row in rows:
    ppl = float(perplexity.perplexity(row['logprob'], row['tokens']))
    head = (
      f'{row["author"]} under {row["model"]}: problem {row["problem_id"]}, sample {row["sample"]}, '
      f'{row["verdict"]}, PPL {ppl:.2f}'
    )
    body = surprise.spans(row['pieces'], row['surprise'], row['allowed'])
    parts.append(f'<details><summary>{html.escape(head)}</summary>{body}</details>')
  return '\n'.join(parts)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  if not rows:
    return ''
  cells = ''.join(f'<th>{html.escape(name)}</th>' for name in head)
  body = ''.join(
    '<tr>' + ''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row) + '</tr>' for row in rows
  )
  return f'<table><tr>{cells}</tr>{body}</table>'
