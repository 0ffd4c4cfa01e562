"""The boundary report: one self-contained HTML file, and the same numbers as JSON, CSV, Parquet."""

import base64
import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import pyarrow.csv
import pyarrow.parquet as pq

from rlvr_jax.eval import (
  browse,
  claims_shown,
  figures,
  published,
  results,
  tables,
  tables_beside,
  two_verifiers,
)
from rlvr_jax.eval.browse import Embedded, ShownProblem
from rlvr_jax.eval.figures import Panel, Plot
from rlvr_jax.eval.findings import Finding, findings
from rlvr_jax.eval.page import TEMPLATES, asset, write_text
from rlvr_jax.eval.results import Study
from rlvr_jax.eval.tables import Table
from rlvr_jax.eval.two_verifiers import TwoVerifiers

SCRIPTS = ('math.js', 'report.js', 'browser.js')


@dataclasses.dataclass(frozen=True)
class Section:
  """A heading of the report with paragraphs, figures and tables under it, in this order."""

  title: str
  paragraphs: Sequence[str] = ()
  plots: Sequence[Plot | None] = ()
  tables: Sequence[Table | None] = ()


def write_report(
  path: str | os.PathLike,
  *,
  title: str,
  subtitle: str = '',
  claims: Sequence[claims_shown.Claim] = (),
  registered: str = '',
  findings: Sequence[Finding] = (),
  sections: Sequence[Section] = (),
  embedded: Embedded | None = None,
  provenance: Mapping[str, Any] | None = None,
  closing: Sequence[Section] = (),
) -> None:
  """Writes one HTML file that needs nothing else: figures inline, no script or style from outside.

  Claims stand first (registered: when their rules were written down), sections above the problems,
  provenance and closing below. provenance maps a heading to text, to a list of lines (commands), or
  to a mapping (versions). Everything is escaped.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['show'] = tables.show
  environment.filters['sort_key'] = _sort_key
  environment.filters['anchor'] = _anchor
  environment.filters['data_uri'] = lambda plot: (
    'data:image/svg+xml;base64,' + base64.b64encode(plot.svg).decode()
  )
  contents = [
    *(['Claims'] if claims else []),
    *(['Findings'] if findings else []),
    *(section.title for section in sections),
    *(['Problems'] if embedded else []),
    *(['How it was made'] if provenance else []),
    *(section.title for section in closing),
  ]
  html = environment.get_template('report.html.j2').render(
    title=title,
    subtitle=subtitle,
    contents=contents,
    claims=claims,
    registered=registered,
    findings=findings,
    sections=sections,
    embedded=embedded,
    provenance=_blocks(provenance or {}),
    closing=closing,
    style=asset('report.css'),
    script=''.join(asset(name) for name in SCRIPTS),
  )
  write_text(path, html)


def _plain(cell: Any) -> Any:
  return cell.value if isinstance(cell, tables.Linked) else cell


def _anchor(title: str) -> str:
  return re.sub(r'\W+', '-', title.lower()).strip('-')


def _sort_key(cell: Any) -> str:
  cell = _plain(cell)
  return '' if cell is None else repr(float(cell)) if isinstance(cell, int | float) else str(cell)


def _blocks(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
  blocks = []
  for name, value in provenance.items():
    if isinstance(value, Mapping):
      rows = [[str(key), str(item)] for key, item in value.items()]
      blocks.append({'name': name, 'rows': rows, 'text': ''})
    elif isinstance(value, str):
      blocks.append({'name': name, 'rows': [], 'text': value})
    else:
      blocks.append({'name': name, 'rows': [], 'text': '\n'.join(str(line) for line in value)})
  return blocks


def write_study(
  folder: str | os.PathLike,
  study: Study,
  *,
  title: str,
  wall_seconds: float,
  sampler_learner_gap: Mapping[str, float] | None = None,
  extra: Mapping[str, Any] | None = None,
  training: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
  panels: Sequence[Panel] = (),
  texts: Sequence[tuple[str, str]] = (),
  more_tables: Sequence[Table] = (),
  more_sections: Sequence[Section] = (),
  task: str = '',
  trees: Plot | None = None,
  two: TwoVerifiers | None = None,
  cot: Mapping[str, Any] | None = None,
  samples: Sequence[ShownProblem] = (),
  provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Writes report.html, results.json, problems.csv and problems.parquet; returns the results.

  training: rows of metrics by run name, drawn as the given panels. texts: (title, text) that the
  study wants said first, paragraphs divided by blank lines. extra: keys of results.json. task: the
  benchmark, beside whose curves stands what was printed of it. trees: figures_tree.tree_figure.
  two: the same samples under a second verifier. cot: the document of job=cot.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  extra = dict(extra or {}) | ({'two_verifiers': two_verifiers.entry(two)} if two else {})
  extra |= {'cot': cot} if cot else {}
  document = results.build_results(
    study, wall_seconds=wall_seconds, sampler_learner_gap=sampler_learner_gap, extra=extra
  )
  results.write_json(folder / 'results.json', document)
  columns = tables.problem_columns(study)
  pyarrow.csv.write_csv(columns, folder / 'problems.csv')
  pq.write_table(columns, folder / 'problems.parquet', compression='zstd')
  curves = figures.training_figures(training, panels) if training and panels else []
  first = study.model(study.headline[0]).counts
  write_report(
    folder / 'report.html',
    title=title,
    subtitle=(
      f'{len(first)} problems, n = {first.smallest_n} samples each, headline k = '
      f'{study.headline_k}, {study.level:.0%} intervals; {_duration(wall_seconds)} in all'
    ),
    claims=claims_shown.shown(document),
    registered=claims_shown.registered(document),
    findings=findings(study, document),
    sections=[
      *_first_sections(study, document, task, trees),
      *(Section(heading, text.split('\n\n')) for heading, text in texts),
      *_sections(study, document, task, curves),
      *([_two_section(two)] if two else []),
      *([_cot_section(cot)] if cot else []),
      *more_sections,
      _settings_section(study, document, more_tables),
    ],
    embedded=browse.embed(study, samples),
    provenance=provenance,
    closing=[Section('Methods and limits', _methods(study))],
  )
  return document


def _first_sections(study, document, task: str, trees: Plot | None) -> list[Section]:
  """What people look for first: the curves, the picture of two problems, the algorithms."""
  algorithms, few = tables.algorithm_table(study, document), study.few()
  printed = published.reference(task, study.problem_ids)
  curves = Section(
    'pass@k',
    [printed.reading(), *printed.notes] if printed else [],
    plots=[figures.pass_at_k_figure(few, printed), figures.difference_figure(few)],
    tables=[
      tables.pass_at_k_table(few, document),
      tables.comparison_table(document),
      tables_beside.printed_table(printed, few, document) if printed else None,
    ],
  )
  made = [
    curves,
    Section('Two problems', plots=[trees]),
    Section('Algorithms', tables=[algorithms]),
  ]
  return [section for section in made if _filled(section)]


def _sections(study, document, task: str, curves) -> list[Section]:
  printed = published.printed_sets(task, study.problem_ids)
  study = study.few()
  made = [
    Section('Training', plots=curves),
    Section(
      'Coverage',
      plots=[figures.coverage_figure(study)],
      tables=[
        tables.coverage_table(study),
        tables.reached_table(study, document),
        tables_beside.printed_coverage_table(printed, study) if printed else None,
      ],
    ),
    Section(
      'Accuracy',
      plots=[figures.histogram_figure(study), figures.scatter_figure(study)],
      tables=[tables.histogram_table(study, document)],
    ),
    Section('Calibration', tables=tables.exact_tables(document)),
  ]
  return [section for section in made if _filled(section)]


def _settings_section(study, document, more_tables) -> Section:
  browsed = [model.name for model in study.few().models]
  kept = [tables.verdict_table(document, browsed), tables.settings_table(study.few())]
  return Section('Samples and settings', tables=[*kept, *more_tables])


def _two_section(two: TwoVerifiers) -> Section:
  a, b = two.names
  text = (
    f'Every completion was judged by two verifiers, {a} and {b} (docs/verifiers.md says where '
    'their rules differ). A boundary at large k can hang on a handful of verdicts: what follows is '
    'what the choice of verifier alone changes.'
  )
  plots = [two_verifiers.two_curves(two)]
  return Section('Two verifiers, two boundaries', [text], plots, two_verifiers.two_tables(two))


def _cot_section(cot: Mapping[str, Any]) -> Section:
  labels = ', '.join(f'{count} {name}' for name, count in cot['labels'].items())
  text = (
    f'{cot["read"]} correct completions, a random sample of every stratum of problems by their '
    f'number of correct completions, were read without knowing the model by '
    f'{" and ".join(cot["readers"])}: {labels}. cot_pass@k counts a completion only if answer and '
    'reasoning are right; unsure counts as not valid.'
  )
  if cot['kappa']:
    value, low, high = cot['kappa']
    text += f" Cohen's kappa of the two readers is {value:.2f} ({low:.2f} to {high:.2f})."
  if 'judge' in cot:
    text += (
      f' A judge, {cot["judge"]["name"]}, agreed with readers on {cot["judge"]["hits"]} of '
      f'{cot["judge"]["valid"]} valid and {cot["judge"]["rejections"]} of '
      f'{cot["judge"]["invalid"]} invalid completions; its estimate is corrected for that.'
    )
  return Section('Validity of reasoning', [text], tables=[tables_beside.cot_table(cot)])


def _filled(section: Section) -> bool:
  return any([*section.paragraphs, *section.plots, *section.tables])


def _methods(study: Study) -> list[str]:
  compared = [
    'Differences are paired by problem: bootstrap where gains and losses both sum to 15, else the '
    'MOVER combination of the two parts.',
    'The crossover is the smallest k from which the mean difference is at or below zero for every '
    'larger k up to n, interpolated in log k; its interval comes from resampled problems, and a '
    'resample without crossing counts as beyond n.',
    'Coverage is compared by the exact McNemar test. Problem by problem, solve rates are compared '
    "by Fisher's exact test with the false-discovery rate held by Benjamini and Hochberg.",
  ]
  return [
    'pass@k is the unbiased estimate 1 - C(n-c, k) / C(n, k) of each problem, averaged over '
    'problems; n counts every completion whose verdict is not an error, c the correct ones.',
    f'Intervals ({study.level:.0%}) treat the problems as drawn from a population. A percentile '
    f'bootstrap over problems ({study.resamples:,} resamples) is used where both sums, of the '
    'per-problem values and of one minus them, reach 15; elsewhere Clopper-Pearson with fractional '
    'successes, since the bootstrap covers too rarely close to 0 and 1. Solve rates of single '
    'problems carry Jeffreys intervals.',
    *(compared if study.paired else []),
    'Limits: a problem that was not solved may still be solvable at a rate below the stated bound; '
    'a correct answer need not come from correct reasoning; verdicts are those of the verifier '
    'named in the settings; and the statements are about these problems, this prompt, these '
    'sampling settings and these models.',
  ]


def _duration(seconds: float) -> str:
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 5400:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'
