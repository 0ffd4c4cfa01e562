"""The leaderboard as people see it: one page of tables and figures, and its results.json."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rlvr_jax.eval import figures, leaderboard
from rlvr_jax.eval.figures import COLOURS, MARKERS, Plot
from rlvr_jax.eval.findings import signed
from rlvr_jax.eval.leaderboard import Family, Row, Rules, Triple
from rlvr_jax.eval.report import Section, write_report
from rlvr_jax.eval.results import write_json
from rlvr_jax.eval.tables import Table, interval


def write(
  workdir: pathlib.Path,
  families: Sequence[Family],
  rules: Rules,
  *,
  title: str,
  labels: Mapping[str, str],
  seconds: float,
  provenance: Mapping[str, Any],
  texts: Sequence[tuple[str, str]] = (),
  missing: Sequence[str] = (),
  reports: bool = True,
  controls: Sequence[str] = (),
) -> dict[str, Any]:
  """Writes leaderboard.html and results.json into workdir; returns the latter.

  labels: what each method is, in a few words. texts: (heading, paragraphs) said first. missing:
  families still to be measured. reports: whether each family has its own. controls: methods in the
  tables, not in the figures: they fall so far that nothing else could be seen.
  """
  found = {
    **leaderboard.document(families, rules, missing),
    'labels': dict(labels),
    'seconds': seconds,
  }
  write_json(workdir / 'results.json', found)
  write_report(
    workdir / 'leaderboard.html',
    title=title,
    subtitle=(
      f'{len(labels)} methods, {len(families[0].rows[0].seeds)} training seeds each, '
      f'{" and ".join(f"{f.problems} problems of {f.name}" for f in families)}, '
      f'n = {families[0].n:,} samples a problem, {rules.level:.0%} intervals; '
      f'{seconds / 3600:.1f} h in all'
    ),
    sections=[
      Section(
        'What was found',
        [found['finding'], _caveat(families, rules)],
        tables=[_standings(families, rules)],
      ),
      *(Section(heading, text.split('\n\n')) for heading, text in texts),
      *(_family(family, rules, labels, reports, controls) for family in families),
    ],
    provenance=provenance,
    closing=[Section('Methods and limits', _limits(rules))],
  )
  return found


def _caveat(families: Sequence[Family], rules: Rules) -> str:
  seeds = len(families[0].rows[0].seeds)
  if seeds == 1:
    return 'One training seed: these are models, not methods; another seed may differ.'
  chance = 1 - rules.level
  few = ' Two seeds say little of how seeds differ.' if seeds == 2 else ''
  return (
    f'Intervals cover the choice of problems and of {seeds} training seeds.{few} Each method is '
    'held to the rule by itself, in each family, and nothing is corrected for their number: of '
    f'methods that are no better than the reference one in {2 / chance:.0f} would beat it by '
    f'chance, and of methods that lose just the margin one in {1 / chance:.0f} would keep.'
  )


def _standings(families: Sequence[Family], rules: Rules) -> Table | None:
  rows = [
    [
      one.method,
      ', '.join(one.beats) or 'nowhere',
      ', '.join(one.keeps) or 'nowhere',
      'yes' if one.wins else 'no',
    ]
    for one in leaderboard.standings(families, rules)
  ]
  if not rows:
    return None
  return Table(
    'Over the families that discriminate',
    ['method', f'beats {rules.reference} at pass@1', f'keeps pass@{rules.k:,}', 'both, everywhere'],
    rows,
  )


def _family(
  family: Family, rules: Rules, labels: Mapping[str, str], reports: bool, controls: Sequence[str]
) -> Section:
  n = family.n
  telling = (
    f'{rules.reference} is shown to be inferior to the base at k = {rules.k:,}: the family tells '
    'methods apart that keep the boundary from those that do not.'
    if family.discriminates
    else f'Cannot discriminate: {rules.reference} is not shown to be inferior to the base at '
    f'k = {rules.k:,}. No method is ranked by this family.'
  )
  scores = map(interval, (family.first, family.last, family.area))
  base = ['base', *(None,) * 5, *scores, *(None,) * 5, 'what all start from']
  rows = [base, *(_cells(row, labels, family.problems) for row in family.rows)]
  table = Table(
    f'Scores on {family.name}',
    [
      'method', 'beats', 'keeps', f'pass@1, points against {rules.reference}',
      f'pass@{rules.k:,}, points against base', 'one-sided bound', 'pass@1', f'pass@{rules.k:,}',
      'area', f'area, points against {rules.reference}', 'area, points against base', 'lost',
      'gained', 'tokens', 'what it is',
    ],
    rows,
    f'Area: mean of pass@k over log k from 1 to {rules.k:,}. Lost and gained: of {family.problems} '
    f'problems, those that only the base, only the method solved in {n:,} draws (mean over seeds, '
    f'interval). Tokens: sampled while training. Beats: above {rules.reference} at pass@1, the '
    'interval above 0; "worse" where it lies below 0. Keeps: the one-sided '
    f'{rules.level:.0%} bound is above -{100 * rules.margin:g} points; "loses" where the interval '
    'against the base lies below 0, "not shown" where it is neither.',
    sortable=True,
  )  # fmt: skip
  said = [telling, _power(family, rules)]
  if reports:
    said.append(
      f'The models, their curves and completions: {family.name}/report.html beside this page.'
    )
  return Section(
    family.name.capitalize(), said, [plane(family, rules, list(labels), controls)], [table]
  )


def _power(family: Family, rules: Rules) -> str:
  bound, most = leaderboard.power(family, rules)
  if bound <= -rules.margin:
    return (
      f'With {family.problems} problems and {len(family.rows[0].seeds)} seeds nothing can be shown '
      f'to keep: a method that loses no problem has a bound of {signed(100 * bound, 1)} points.'
    )
  return (
    f'What {family.problems} problems can show: a method that loses none of them has a bound of '
    f'{signed(100 * bound, 1)} points, and one that loses the same {most} in every seed is no '
    'longer shown to keep.'
  )


def _cells(row: Row, labels: Mapping[str, str], problems: int) -> list[Any]:
  return [
    row.method,
    None if row.gain is None else _verdict(row.beats, row.gain, 'worse'),
    _verdict(row.keeps, row.change, 'loses'),
    _points(row.gain),
    _points(row.change),
    signed(100 * row.bound, 1),
    *map(interval, (row.first, row.last, row.area)),
    _points(row.area_gain),
    _points(row.area_change),
    _problems(row.lost, problems),
    _problems(row.gained, problems),
    round(row.tokens),
    labels.get(row.method, '') + ('; ended before the budget of tokens' if row.short else ''),
  ]


def _verdict(shown: bool, difference: Triple, opposite: str) -> str:
  return 'yes' if shown else opposite if difference[2] < 0 else 'not shown'


def _problems(share: Triple, count: int) -> str:
  value, low, high = (count * x for x in share)
  return f'{value:.1f} ({low:.1f} to {high:.1f})'


def _points(triple: Triple | None) -> str | None:
  if triple is None:
    return None
  value, low, high = (signed(100 * x, 1) for x in triple)
  return f'{value} ({low} to {high})'


@figures.drawn
def plane(family: Family, rules: Rules, order: Sequence[str], controls: Sequence[str] = ()) -> Plot:
  """Each method by what it gains at pass@1 over the reference and changes at pass@k.

  order: the methods; the place of one that is shown gives its colour and marker.
  """
  shown = [name for name in order if name not in controls]
  count = len(shown)
  figure = Figure(figsize=(6.4, 4.6 + 0.2 * -(-count // 3)), layout='constrained')
  axes = figure.subplots()
  axes.axvline(0, color='#666666', linewidth=1)
  axes.axhline(0, color='#666666', linewidth=1)
  axes.axhline(-100 * rules.margin, color='#D55E00', linewidth=1, linestyle='--')
  for place, row in enumerate(family.row(name) for name in shown):
    x, y = (_ends(row.gain or (0.0, 0.0, 0.0)), _ends(row.change))
    axes.errorbar(
      x[0], y[0], xerr=x[1], yerr=y[1], color=COLOURS[place % len(COLOURS)],
      marker=MARKERS[(place + place // len(COLOURS)) % len(MARKERS)], markersize=7, capsize=2,
      elinewidth=1, linestyle='none', label=row.method,
    )  # fmt: skip
  signs = FuncFormatter(lambda v, _: f'{v:+g}')
  axes.xaxis.set_major_formatter(signs)
  axes.yaxis.set_major_formatter(signs)
  axes.set_xlabel(f'pass@1 against {rules.reference}, points')
  axes.set_ylabel(f'pass@{rules.k:,} against the base, points')
  axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=9)
  left_out = f' Controls ({", ".join(controls)}) are in the table.' if controls else ''
  return Plot(
    f'plane_{family.name}',
    f'{family.name.capitalize()}: one try against many',
    f'Up and to the right is better. Dashed: the margin of {100 * rules.margin:g} points. Bars: '
    f'{rules.level:.0%} intervals over problems and seeds.{left_out}',
    figures.to_svg(figure),
  )


def _ends(triple: Triple) -> tuple[float, np.ndarray]:
  """(value, distances of the ends f64[2, 1]) in points."""
  value, low, high = (100 * x for x in triple)
  return value, np.array([[value - low], [high - value]])


def _limits(rules: Rules) -> list[str]:
  return [
    'Every method starts from the same base of a family and samples the same number of tokens in '
    'training (its last iteration may pass the budget; where one ended before it, its row says '
    'so). Learning rate and batch are the same for all unless the method itself sets them: a '
    'method may do better at others.',
    'pass@k is the unbiased estimate of each problem. Intervals combine the one over problems '
    "(bootstrap, or Clopper-Pearson and MOVER near the ends) with Student's t over the seeds' "
    'means. Differences are paired by problem, and between methods by seed.',
    f'Non-inferiority: the lower end of the two-sided {2 * rules.level - 1:.0%} interval of '
    f'pass@{rules.k:,} less that of the base lies above -{100 * rules.margin:g} points. The margin '
    'is fixed in the config.',
    'Where the base solves everything in so many tries, nothing can be gained: such a family asks '
    'what is kept, not what is won.',
    'One base a family: what is said holds for that base. The bases are small models trained from '
    'scratch; nothing here says how a method does on a large one.',
  ]
