"""Longer training: pass@1 and pass@k over the steps of runs of one setting with several seeds.

The question of ProRL (arXiv 2505.24864): does training that goes on pass the base at large k? A
setting's value on a problem is the mean over its seeds; intervals cover the choice of problems and
of seeds (algorithms.seeds_interval), and differences from the base are paired by problem. Where
every model's exact chances are known, pass@k is exact and problems and seeds are all that varies.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from rlvr_jax.eval import figures, pass_at_k
from rlvr_jax.eval.algorithms import seeds_difference, seeds_interval
from rlvr_jax.eval.counts import align
from rlvr_jax.eval.figures import Plot
from rlvr_jax.eval.findings import percent, signed
from rlvr_jax.eval.intervals import Band
from rlvr_jax.eval.report import Section
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.study_parts import Part, axes_of, look, points_text, run_of, triple
from rlvr_jax.eval.tables import Table

TITLE = 'Longer training, over seeds'
EXACT_KS = (1, 16, 256, 1024)  # where chances are known, k is not bound by the draws
CEILING = 0.99  # a base that solves more has nothing to be passed at


@dataclasses.dataclass(frozen=True)
class Point:
  """A setting at a step: pass@k and its difference from the base, at each of the chosen k."""

  step: int
  band: Band
  change: Band


@dataclasses.dataclass(frozen=True)
class Longer:
  """ks: 1, the headline k and n, or EXACT_KS. settings: label -> its points, ascending by step.

  family: whose problems these are, '' for all.
  """

  family: str
  ks: tuple[int, ...]
  exact: bool
  base: Band
  seeds: dict[str, tuple[int | None, ...]]
  settings: dict[str, tuple[Point, ...]]


def results(
  part: Part, evaluate: Mapping[str, Any], seed: int = 0, families: Mapping[str, str] | None = None
) -> list[Longer]:
  """The settings of a part (study_parts, dynamics) that have several runs: over all problems, and
  over those of each family where there are several (problem id -> its name).

  Runs with one label are seeds of a setting. Of their steps those count that all of them have.
  evaluate: a config's group (confidence, bootstrap). Empty where no setting has several runs.
  """
  base, *trained = part.models
  runs: dict[str, dict[str, dict[int, ModelResult]]] = {}
  for model in trained:
    if model.step is not None and model.label:
      runs.setdefault(model.label, {}).setdefault(run_of(model), {})[model.step] = model
  runs = {label: own for label, own in runs.items() if len(own) > 1}
  if not runs:
    return []
  chosen = [m for own in runs.values() for one in own.values() for m in one.values()]
  known = all(model.exact is not None for model in (base, *chosen))
  ks = np.array(EXACT_KS if known else [int(part.ks[i]) for i in part.points])
  options = {'level': evaluate['confidence'], 'resamples': evaluate['bootstrap'], 'seed': seed}
  own_family = np.array([(families or {}).get(p, '') for p in base.counts.problem_ids])
  names = sorted(set(own_family.tolist()))
  groups = {'': np.ones(len(own_family), bool)}
  groups |= {name: own_family == name for name in names if len(names) > 1}
  values = {model.name: _values(base, model, ks, known) for model in (base, *chosen)}
  seeds = {
    label: tuple(next(iter(one.values())).seed for one in own.values())
    for label, own in runs.items()
  }
  found = []
  for name, which in groups.items():
    part_of = {model: value[which] for model, value in values.items()}
    settings = {
      label: _points(list(own.values()), part_of, part_of[base.name], options)
      for label, own in runs.items()
    }
    start = seeds_interval(part_of[base.name][None], **options)
    found.append(Longer(name, tuple(map(int, ks)), known, start, seeds, settings))
  return found


def _points(
  runs: Sequence[Mapping[int, ModelResult]],
  values: Mapping[str, np.ndarray],  # model -> f64[P, K]
  start: np.ndarray,
  options: Any,
) -> tuple[Point, ...]:
  """A setting at each step that all of its runs have."""
  found = []
  for step in sorted(set.intersection(*(set(run) for run in runs))):
    each = np.stack([values[run[step].name] for run in runs])
    band = seeds_interval(each, **options)
    found.append(Point(step, band, seeds_difference(each - start[None], **options)))
  return tuple(found)


def _values(base: ModelResult, model: ModelResult, ks: np.ndarray, known: bool) -> np.ndarray:
  """pass@k of the base's problems, f64[P, K]."""
  if known:
    assert model.exact is not None
    rates = np.array([model.exact[problem] for problem in base.counts.problem_ids])
    return pass_at_k.exact(rates, ks)
  counts = align(base.counts, model.counts)[1]
  return pass_at_k.estimate(counts.n, counts.c, ks)


def finding(found: Longer) -> list[str]:
  """For each k, which settings are ever shown to lie above the base, and which end below it."""
  return [_finding(found, i, k) for i, k in enumerate(found.ks)]


def _finding(found: Longer, i: int, k: int) -> str:
  where = f'{found.family}, ' if found.family else ''
  above = {
    label: [point.step for point in points if point.change.low[i] > 0]
    for label, points in found.settings.items()
  }
  passed = [
    f'{label} (step{"s" if len(steps) > 1 else ""} {", ".join(map(str, steps))})'
    for label, steps in above.items()
    if steps
  ]
  below = [
    f'{label} ({signed(100 * float(points[-1].change.value[i]), 1)})'
    for label, points in found.settings.items()
    if points and points[-1].change.high[i] < 0
  ]
  base = float(found.base.value[i])
  text = f'{where}pass@{k}: '
  if passed:
    text += f'shown to be above the base: {"; ".join(passed)}. '
  elif base > CEILING:
    text += f'the base solves {percent(base)}, so that nothing can pass it here. '
  else:
    text += 'no setting is shown to pass the base. '
  if below:
    return text + f'Below it at the end, in points: {"; ".join(below)}.'
  return text + 'None is shown to end below it.'


def entry(found: Sequence[Longer]) -> dict[str, Any]:
  """results.json["longer"]; `groups` has all problems first, then each family."""
  first = found[0]
  return {
    'ks': list(first.ks),
    'exact': first.exact,
    'seeds': {label: list(seeds) for label, seeds in first.seeds.items()},
    'finding': [text for one in found for text in finding(one)],
    'groups': [
      {
        'family': one.family,
        'base': {str(k): list(one.base.at(i)) for i, k in enumerate(one.ks)},
        'settings': {
          label: [
            {
              'step': point.step,
              'pass_at_k': {str(k): list(point.band.at(i)) for i, k in enumerate(one.ks)},
              'difference': {str(k): list(point.change.at(i)) for i, k in enumerate(one.ks)},
            }
            for point in points
          ]
          for label, points in one.settings.items()
        },
      }
      for one in found
    ],
  }


def section(found: Sequence[Longer]) -> Section:
  """The report's section."""
  count = sum(len(points) for one in found for points in one.settings.values())
  kind = 'exact' if found[0].exact else 'estimated from samples'
  text = (
    f'Means over training seeds; pass@k is {kind}. Intervals cover the choice of problems and of '
    f'seeds. "Shown" is said where the interval of the difference excludes 0; {count} differences '
    'are looked at for each k, and nothing is corrected for that.'
  )
  said = [text for one in found for text in finding(one)]
  return Section(TITLE, [text, *said], [figure(one) for one in found], [_table(found)])


def _table(found: Sequence[Longer]) -> Table:
  ks = found[0].ks
  places = range(len(ks))
  rows = []
  for one in found:
    shown = one.family or 'all'
    rows.append([shown, 'base', 0, *(triple(one.base, i) for i in places), *[None] * len(ks)])
    for label, points in one.settings.items():
      for point in points:
        values = (triple(point.band, i) for i in places)
        changes = (points_text(point.change, i) for i in places)
        rows.append([shown, label, point.step, *values, *changes])
  return Table(
    TITLE,
    [
      'problems', 'setting', 'step', *(f'pass@{k}' for k in ks), *(f'points at k = {k}' for k in ks)
    ],
    rows,
    'Points: difference from the base, paired by problem.',
    sortable=True,
  )  # fmt: skip


@figures.drawn
def figure(found: Longer) -> Plot:
  """pass@1 and pass@k at the last k over the steps of each setting, the base as step 0."""
  shown = [0, len(found.ks) - 1]
  picture, panels = axes_of(len(shown), (3.4 * len(shown), 3.6))
  for axes, i in zip(panels, shown, strict=True):
    base = found.base
    axes.axhline(base.value[i], color='#666666', linewidth=1, linestyle=':')
    for place, (label, points) in enumerate(found.settings.items()):
      line = [base, *(point.band for point in points)]
      steps = [0, *(point.step for point in points)]
      low, value, high = ([getattr(b, end)[i] for b in line] for end in ('low', 'value', 'high'))
      style = look(place)
      axes.fill_between(steps, low, high, color=style['color'], alpha=0.12, linewidth=0)
      axes.plot(steps, value, linewidth=2, markersize=5, label=label, **style)
    axes.set_title(f'pass@{found.ks[i]}', fontsize=11)
    axes.set_xlabel('step')
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  handles, names = panels[0].get_legend_handles_labels()
  picture.legend(handles, names, loc='outside lower center', ncols=1, fontsize=9)
  name = f'longer_{found.family}' if found.family else 'longer'
  return Plot(
    name,
    f'{TITLE}: {found.family or "all problems"}',
    'Left: one try. Right: the last k. Bands: intervals over problems and seeds; dotted: the base.',
    figures.to_svg(picture),
  )
