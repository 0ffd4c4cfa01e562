"""Longer training: pass@1 and pass@k over the steps of runs of one setting with several seeds.

The question of ProRL (arXiv 2505.24864): does training that goes on pass the base at large k? A
setting's value on a problem is the mean over its seeds; intervals cover the choice of problems and
of seeds (algorithms.seeds_interval), and differences from the base are paired by problem. Where
every model's exact chances are known, pass@k is exact and problems and seeds are all that varies.
"""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from rlvr_jax.eval import figures, pass_at_k
from rlvr_jax.eval.algorithms import seeds_difference, seeds_interval
from rlvr_jax.eval.counts import align
from rlvr_jax.eval.figures import Plot
from rlvr_jax.eval.findings import signed
from rlvr_jax.eval.intervals import Band
from rlvr_jax.eval.report import Section
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.study_parts import Part, axes_of, look, points_text, run_of, triple
from rlvr_jax.eval.tables import Table

TITLE = 'Longer training, over seeds'


@dataclasses.dataclass(frozen=True)
class Point:
  """A setting at a step: pass@k and its difference from the base, at each of the chosen k."""

  step: int
  band: Band
  change: Band


@dataclasses.dataclass(frozen=True)
class Longer:
  """ks: 1, the headline k and the last k. settings: label -> its points, ascending by step."""

  ks: tuple[int, ...]
  exact: bool
  base: Band
  seeds: dict[str, tuple[int | None, ...]]
  settings: dict[str, tuple[Point, ...]]


def results(part: Part, evaluate: dict[str, Any], seed: int = 0) -> Longer | None:
  """The settings of a part (study_parts, dynamics) that have several runs; None if there are none.

  Runs with one label are seeds of a setting. Of their steps those count that all of them have.
  evaluate: a config's group (confidence, bootstrap).
  """
  base, *trained = part.models
  runs: dict[str, dict[str, dict[int, ModelResult]]] = {}
  for model in trained:
    if model.step is not None and model.label:
      runs.setdefault(model.label, {}).setdefault(run_of(model), {})[model.step] = model
  runs = {label: own for label, own in runs.items() if len(own) > 1}
  if not runs:
    return None
  ks = np.array([int(part.ks[i]) for i in part.points])
  chosen = [m for own in runs.values() for one in own.values() for m in one.values()]
  known = all(model.exact is not None for model in (base, *chosen))
  start = _values(base, base, ks, known)
  options: Any = {
    'level': evaluate['confidence'],
    'resamples': evaluate['bootstrap'],
    'seed': seed,
  }
  settings = {}
  for label, own in runs.items():
    points = []
    for step in sorted(set.intersection(*(set(one) for one in own.values()))):
      values = np.stack([_values(base, one[step], ks, known) for one in own.values()])
      points.append(
        Point(
          step,
          seeds_interval(values, **options),
          seeds_difference(values - start[None], **options),
        )
      )
    settings[label] = tuple(points)
  seeds = {
    label: tuple(next(iter(one.values())).seed for one in own.values())
    for label, own in runs.items()
  }
  return Longer(tuple(map(int, ks)), known, seeds_interval(start[None], **options), seeds, settings)


def _values(base: ModelResult, model: ModelResult, ks: np.ndarray, known: bool) -> np.ndarray:
  """pass@k of the base's problems, f64[P, K]."""
  if known:
    assert model.exact is not None
    rates = np.array([model.exact[problem] for problem in base.counts.problem_ids])
    return pass_at_k.exact(rates, ks)
  counts = align(base.counts, model.counts)[1]
  return pass_at_k.estimate(counts.n, counts.c, ks)


def finding(found: Longer) -> list[str]:
  """For each k, which settings ever lie above the base, and which end below it."""
  texts = []
  for i, k in enumerate(found.ks):
    above = {
      label: [point.step for point in points if point.change.low[i] > 0]
      for label, points in found.settings.items()
    }
    below = [
      f'{label} ({signed(100 * float(points[-1].change.value[i]), 1)})'
      for label, points in found.settings.items()
      if points and points[-1].change.high[i] < 0
    ]
    passed = [
      f'{label} (step{"s" if len(steps) > 1 else ""} {", ".join(map(str, steps))})'
      for label, steps in above.items()
      if steps
    ]
    text = f'pass@{k}: '
    text += f'above the base: {"; ".join(passed)}. ' if passed else 'no setting passes the base. '
    text += f'Below it at the end, in points: {"; ".join(below)}.' if below else 'None ends below.'
    texts.append(text)
  return texts


def entry(found: Longer) -> dict[str, Any]:
  """results.json["longer"]."""
  return {
    'ks': list(found.ks),
    'exact': found.exact,
    'base': {str(k): list(found.base.at(i)) for i, k in enumerate(found.ks)},
    'finding': finding(found),
    'settings': {
      label: {
        'seeds': list(found.seeds[label]),
        'steps': [
          {
            'step': point.step,
            'pass_at_k': {str(k): list(point.band.at(i)) for i, k in enumerate(found.ks)},
            'difference': {str(k): list(point.change.at(i)) for i, k in enumerate(found.ks)},
          }
          for point in points
        ],
      }
      for label, points in found.settings.items()
    },
  }


def section(found: Longer) -> Section:
  """The report's section."""
  count = sum(len(points) for points in found.settings.values())
  kind = 'exact' if found.exact else 'estimated from samples'
  text = (
    f'Means over training seeds; pass@k is {kind}. Intervals cover the choice of problems and of '
    f'seeds. "Above" and "below" are said where the interval of the difference excludes 0; '
    f'{count} differences are looked at for each k, and nothing is corrected for that.'
  )
  return Section(TITLE, [text, *finding(found)], [figure(found)], [_table(found)])


def _table(found: Longer) -> Table:
  rows = [
    ['base', '', 0, *(triple(found.base, i) for i in range(len(found.ks))), *[None] * len(found.ks)]
  ]
  for label, points in found.settings.items():
    for point in points:
      rows.append(
        [
          label,
          len(found.seeds[label]),
          point.step,
          *(triple(point.band, i) for i in range(len(found.ks))),
          *(points_text(point.change, i) for i in range(len(found.ks))),
        ]
      )
  return Table(
    TITLE,
    [
      'setting', 'seeds', 'step',
      *(f'pass@{k}' for k in found.ks),
      *(f'points at k = {k}' for k in found.ks),
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
  return Plot(
    'longer',
    TITLE,
    'Left: one try. Right: the last k. Bands: intervals over problems and seeds; dotted: the base.',
    figures.to_svg(picture),
  )
