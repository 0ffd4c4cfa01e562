"""Figures of perplexity and reach, as `Plot`s: violins per problem and pair (Fig. 6), reach.

Plain functions of arrays; they need no store and no model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from rlvr_jax.eval import perplexity
from rlvr_jax.eval.figures import COLOURS, MARKERS, Plot, _axes, drawn, to_svg

MOST_PROBLEMS = 4  # violins of so many problems are drawn one by one
HATCHES = ('', '///', '...', 'xxx', '\\\\\\')
GRID = 200  # points of a violin's density


def plots(table: pa.Table, document: Mapping[str, Any]) -> list[Plot]:
  """The figures of job=perplexity, from its rows and what perplexity.json holds."""
  samples = document['samples']
  groups = {
    pair: perplexity.by_problem(table, *pair, samples=samples) for pair in perplexity.pairs(table)
  }
  ids = sorted({problem for found in groups.values() for problem in found})
  drawn = [
    violin_figure(
      {pair: found[problem] for pair, found in groups.items() if problem in found},
      name=f'perplexity problem {i + 1}',
      title=f'Perplexity on problem {problem}',
    )
    for i, problem in enumerate(ids[:MOST_PROBLEMS])
  ]
  if ids:
    together = {
      pair: np.concatenate(list(found.values())) for pair, found in groups.items() if found
    }
    drawn.append(
      violin_figure(together, name='perplexity', title=f'Perplexity, {len(ids)} problems together')
    )
  if len(document['models']) > 2:
    drawn.append(evolution_figure(table, list(document['models']), samples=samples))
  if document['reach']:
    drawn.append(reach_figure(document['reach']))
  if document['importance']:
    drawn.append(importance_figure(document['importance']))
  return drawn


@drawn
def violin_figure(values: Mapping[tuple[str, str], np.ndarray], *, name: str, title: str) -> Plot:
  """A violin with quartiles for each (model, author), of perplexities f64[n] each; log scale.

  Authors have colours and hatches; under each stands PPL_model(Y_author). Single points are drawn
  where a pair has too few for a density.
  """
  figure, axes = _axes((6.0, 4.4))
  authors = list(dict.fromkeys(author for _, author in values))
  rng = np.random.default_rng(0)  # of the dots' sideways places only
  for place, ((_, author), ppl) in enumerate(values.items()):
    look = authors.index(author)
    logs = np.log10(np.asarray(ppl, np.float64))
    if len(logs) >= 5 and logs.std() > 1e-6:
      grid, width = _density(logs)
      axes.fill_betweenx(
        10**grid, place - 0.4 * width, place + 0.4 * width,
        facecolor=COLOURS[look % len(COLOURS)], alpha=0.45, edgecolor=COLOURS[look % len(COLOURS)],
        linewidth=1.0, hatch=HATCHES[look % len(HATCHES)],
      )  # fmt: skip
      low, middle, high = 10 ** np.quantile(logs, [0.25, 0.5, 0.75])
      axes.plot([place, place], [low, high], color='#222222', linewidth=4, solid_capstyle='butt')
      axes.plot(place, middle, 'o', color='white', markersize=5, markeredgecolor='#222222')
    if len(logs) <= 64:
      aside = rng.uniform(-0.12, 0.12, len(logs))
      size = 3.5 if len(logs) >= 5 else 9
      axes.plot(place + aside, ppl, '.', color='#222222', markersize=size, alpha=0.6)
  axes.set_yscale('log')
  every = np.concatenate([np.asarray(v, np.float64) for v in values.values()])
  low, high = float(every.min()), float(every.max())
  axes.set_ylim(low / (high / low) ** 0.06 / 1.01, high * (high / low) ** 0.06 * 1.01)
  _plain_log(axes)
  axes.set_xticks(
    range(len(values)), [f'{m} of\n{a}' for m, a in values], fontsize=9,
    rotation=0 if len(values) <= 5 else 45,
  )  # fmt: skip
  axes.set_xlim(-0.6, len(values) - 0.4)
  axes.grid(axis='x', visible=False)
  axes.set_ylabel('perplexity of a completion')
  return Plot(
    name,
    title,
    'PPL of a completion under a model, exp of the mean surprise of its tokens at temperature 1: '
    '"m of a" is model m reading what a wrote. Dot and bar: median and quartiles; logarithmic. Low '
    'perplexity does not mean that the model could have drawn it.',
    to_svg(figure),
  )


def _density(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(grid, density scaled to 1 at its top) of values, Scott's rule, cut at their ends."""
  from scipy.stats import gaussian_kde

  grid = np.linspace(logs.min(), logs.max(), GRID)
  width = gaussian_kde(logs)(grid)
  return grid, width / width.max()


def _plain_log(axes: Any) -> None:
  """Numbers, not powers, on a log axis that spans little."""
  low, high = axes.get_ylim()
  decades = np.log10(high / low)
  steps = (1, 2, 5) if decades < 2.5 else (1,)
  if decades < 0.7:
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
  else:
    ticks = np.array([s * 10.0**e for e in range(-1, 12) for s in steps])
  axes.yaxis.set_major_locator(FixedLocator(ticks[(ticks >= low) & (ticks <= high)].tolist()))
  axes.yaxis.set_minor_locator(NullLocator())
  axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f'{v:g}'))


@drawn
def evolution_figure(table: pa.Table, models: Sequence[str], *, samples: int = 0) -> Plot:
  """PPL of each author's completions under each model in turn (checkpoints, in their order)."""
  figure, axes = _axes((6.0, 4.2))
  for place, author in enumerate(dict.fromkeys(author for _, author in perplexity.pairs(table))):
    found = perplexity.evolution(table, models, author, samples=samples)
    xs = np.array([models.index(one.model) for one in found])
    value = np.array([one.value for one in found])
    low = np.array([one.value if one.low is None else one.low for one in found])
    high = np.array([one.value if one.high is None else one.high for one in found])
    colour = COLOURS[place % len(COLOURS)]
    marker = MARKERS[place % len(MARKERS)]
    axes.errorbar(
      xs + 0.04 * place, value, [value - low, high - value], color=colour, marker=marker,
      capsize=3, linewidth=1.8, label=f'of {author}',
    )  # fmt: skip
  axes.set_yscale('log')
  _plain_log(axes)
  axes.set_xticks(range(len(models)), models, rotation=30 if len(models) > 4 else 0, fontsize=9)
  axes.set_ylabel('perplexity')
  axes.legend(loc='best')
  return Plot(
    'perplexity evolution',
    'Perplexity over models',
    'Geometric mean over problems with its t-interval, of each author under each model, in the '
    'order in which the models were given.',
    to_svg(figure),
  )


@drawn
def reach_figure(rows: Sequence[Mapping[str, Any]]) -> Plot:
  """The share of each author's correct completions that each model could have drawn, intervals.

  rows: reach.ReachSummary as dicts.
  """
  figure, axes = _axes((6.0, 0.5 * len(rows) + 1.4))
  places = np.arange(len(rows))[::-1]
  authors = list(dict.fromkeys(row['author'] for row in rows))
  for place, row in zip(places, rows, strict=True):
    value, low, high = row['drawable']
    look = authors.index(row['author'])
    colour = COLOURS[look % len(COLOURS)]
    axes.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.5)
    axes.plot(value, place, MARKERS[look % len(MARKERS)], color=colour, markersize=8)
  axes.set_yticks(places, [f'{r["model"]} of {r["author"]}' for r in rows])
  axes.set_ylim(-0.6, len(rows) - 0.4)
  axes.set_xlim(-0.02, 1.02)
  axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f'{100 * v:.0f}%'))
  axes.set_xlabel('correct completions that could have been drawn')
  axes.grid(axis='y', visible=False)
  return Plot(
    'reach',
    'Reach: what a model, as it is sampled, could have written',
    "A completion can be drawn if every token lies inside what the model's own temperature, top-k "
    'and top-p leave. Mean over problems with its interval. That it can be drawn does not say that '
    'it ever is: probabilities are in the table.',
    to_svg(figure),
  )


@drawn
def importance_figure(rows: Sequence[Mapping[str, Any]]) -> Plot | None:
  """Solve rates estimated from the other model's samples, with intervals, by problem."""
  given = [row for row in rows if row['value'] is not None]
  refused = len(rows) - len(given)
  figure, axes = _axes((6.0, 0.28 * min(len(given), 40) + 1.6))
  given = sorted(given, key=lambda row: row['value'])[:40]
  places = np.arange(len(given))
  models = list(dict.fromkeys(row['model'] for row in rows))
  floor = min([1e-6, *(row['value'] / 3 for row in given if row['value'] > 0)])
  for place, row in zip(places, given, strict=True):
    look = models.index(row['model'])
    ends = [max(row['low'], floor), max(row['high'], floor)]
    axes.plot(ends, [place, place], color=COLOURS[look], linewidth=2.4, alpha=0.5)
    axes.plot(max(row['value'], floor), place, MARKERS[look], color=COLOURS[look], markersize=6)
  for look, model in enumerate(models):
    axes.plot([], [], MARKERS[look], color=COLOURS[look], label=f'solve rate of {model}')
  axes.set_xscale('log')
  axes.set_yticks(places, [row['problem_id'][:24] for row in given], fontsize=8)
  axes.set_xlabel("solve rate, from the other model's samples")
  axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1.0), ncols=2)
  return Plot(
    'importance',
    'Solve rates by importance weights',
    f'Problems that only the other model solved, and some that both did. {refused} of {len(rows)} '
    'estimates were refused: fewer than 10 effective samples. Logarithmic.',
    to_svg(figure),
  )
