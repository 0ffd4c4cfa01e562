"""The figures of the report, as self-contained SVG.

Colours are those of Okabe and Ito, told apart by colour-blind readers; line and marker styles
differ as well. Figures are narrow with large type, so that they can be read on a phone.
"""

import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from rlvr_jax.eval import coverage, exact, published
from rlvr_jax.eval.findings import signed
from rlvr_jax.eval.published import Reference
from rlvr_jax.eval.results import ModelResult, Study, exact_curve, model_band

COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
LINES = '-', '--', ':', '-.'  # when the colours are used up
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
SET_COLOURS = {
  'both': '#56B4E9', 'base_only': '#0072B2', 'rl_only': '#D55E00', 'neither': '#D9D9D9',
}  # fmt: skip
STYLE: Any = {
  'font.size': 11,
  'font.family': 'DejaVu Sans',
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'grid.color': '#E4E4E4',
  'grid.linewidth': 0.8,
  'axes.axisbelow': True,
  'axes.edgecolor': '#666666',
  'legend.frameon': False,
  'legend.fontsize': 10,
  'svg.hashsalt': 'rlvr_jax',  # the same numbers give the same bytes
  'svg.fonttype': 'path',
}
SIZE = (6.0, 4.0)  # inches
NORMAL_95 = 1.959964
BEYOND_N = 16  # exact curves are drawn up to this multiple of n


@dataclasses.dataclass(frozen=True)
class Plot:
  """A finished figure: SVG bytes, the title over it, the text under it, and a description."""

  name: str
  title: str
  caption: str
  svg: bytes


def drawn(draw: Callable[..., Plot | None]) -> Callable[..., Any]:
  """Draws under the report's style without touching matplotlib's global state."""

  @functools.wraps(draw)
  def wrapped(*args, **kwargs):
    with matplotlib.rc_context(STYLE):
      return draw(*args, **kwargs)

  return wrapped


def to_svg(figure: Figure) -> bytes:
  buffer = io.BytesIO()
  figure.savefig(buffer, format='svg', metadata={'Date': None})
  return buffer.getvalue()


def _axes(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
  figure = Figure(figsize=size, layout='constrained')
  return figure, figure.subplots()


def label(model: ModelResult) -> str:
  """How a model is called in figures: its name, and how it was trained."""
  return f'{model.name} ({model.algorithm})' if model.algorithm else model.name


def style(study: Study, name: str) -> dict[str, Any]:
  """Colour and marker of a model: the headline pair always has the first two."""
  order = [*study.headline, *(m.name for m in study.models if m.name not in study.headline)]
  place = order.index(name)
  return {'color': COLOURS[place % len(COLOURS)], 'marker': MARKERS[place % len(MARKERS)]}


def log_k(axes: Axes, last: float) -> None:
  axes.set_xscale('log', base=2)
  step = 1 if last <= 64 else 2 if last <= 2**15 else 3
  ticks = [2**i for i in range(0, int(np.log2(last)) + 1, step)]
  axes.xaxis.set_major_locator(FixedLocator(ticks))
  axes.xaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f'{k:,.0f}'))
  axes.set_xlabel('k (tries per problem)')
  axes.set_xlim(0.9, last * 1.1)


def split_line(axes: Axes, x, y, limit: float, **options) -> None:
  """A line that is solid up to `limit` and dotted beyond it."""
  name = options.pop('label', None)
  quiet = x <= limit
  axes.plot(x[quiet], y[quiet], linewidth=2.2, label=name, **options)
  from_last = np.flatnonzero(quiet)[-1] if quiet.any() else 0
  axes.plot(x[from_last:], y[from_last:], linestyle=':', linewidth=2.2, **options)


@drawn
def pass_at_k_figure(study: Study, printed: Reference | None = None) -> Plot:
  """pass@k of every model with bands; dotted above n/4, with the sampling error as inner band.

  printed: values of the paper on the same benchmark, drawn as open markers.
  """
  figure, axes = _axes((6.0, 4.4))
  n = int(study.ks[-1])
  has_exact = any(model.exact is not None for model in study.models)
  for model in study.models:
    look = style(study, model.name)
    band = model_band(study, model)
    axes.fill_between(study.ks, band.low, band.high, color=look['color'], alpha=0.13, linewidth=0)
    late = study.ks >= study.headline_k
    rates = exact.posterior_rates(model.counts.n, model.counts.c)
    error = NORMAL_95 * exact.sampling_sd(model.counts.n, rates, study.ks[late])
    axes.fill_between(
      study.ks[late],
      np.clip(band.value[late] - error, 0, 1),
      np.clip(band.value[late] + error, 0, 1),
      color=look['color'],
      alpha=0.3,
      linewidth=0,
    )
    split_line(axes, study.ks, band.value, n / 4, color=look['color'], label=label(model))
    at = int((study.ks == study.headline_k).argmax())
    axes.plot(study.headline_k, band.value[at], markersize=8, linestyle='', **look)
    curve = exact_curve(model, _exact_ks(n))
    if curve is not None:
      xs, ys = list(curve), list(curve.values())
      axes.plot(xs, ys, color='#222222', linewidth=1.1, dashes=(4, 2))
  if has_exact:
    axes.plot([], [], color='#222222', linewidth=1.1, dashes=(4, 2), label='exact (enumerated)')
  if printed is not None:
    _draw_printed(axes, printed)
  axes.axvline(study.headline_k, color='#888888', linewidth=0.9)
  axes.annotate(
    f'k = {study.headline_k}',
    (study.headline_k, 1.0),
    (0, 3),
    xycoords=('data', 'axes fraction'),
    textcoords='offset points',
    ha='center',
  )
  last = n * (BEYOND_N if has_exact else 1)
  log_k(axes, last if printed is None else max(last, published.K))
  axes.set_ylim(0, 1.02)
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  axes.set_ylabel('problems solved in k tries')
  axes.legend(loc='best')
  return Plot(
    'pass_at_k',
    f'pass@k, with {study.level:.0%} intervals',
    f'Unbiased estimates from n = {n} samples a problem. Wide bands: interval over the choice of '
    f'problems; the marked headline is k = {study.headline_k}. Above n/4 the line is dotted, and '
    'the darker inner band is the sampling error with these problems held fixed.'
    + (
      f' Dashed: exact pass@k from enumerated solve probabilities, up to {BEYOND_N} n.'
      if has_exact
      else ''
    )
    + (f' Open markers: printed in {published.SOURCE} for its models.' if printed else ''),
    to_svg(figure),
  )


def _draw_printed(axes: Axes, printed: Reference) -> None:
  ks = [1, published.K]
  options: Any = {'linestyle': '', 'markerfacecolor': 'none', 'markeredgewidth': 1.6}
  axes.plot(
    ks, printed.rows[published.BASE], marker='D', markersize=9, color='#000000',
    label=f'{published.BASE}, printed', **options,
  )  # fmt: skip
  for place, name in enumerate(published.ALGORITHMS):
    text = f'{len(published.ALGORITHMS)} algorithms, printed' if not place else None
    axes.plot(
      ks, printed.rows[name], marker='^', markersize=8, color='#CC79A7', label=text, **options
    )


def _exact_ks(n: int) -> np.ndarray:
  return np.unique(np.round(np.geomspace(1, n * BEYOND_N, 80)).astype(np.int64))


@drawn
def difference_figure(study: Study) -> Plot | None:
  """pass@k minus the base's, paired by problem, with its band; None if nothing is compared."""
  if not study.paired:
    return None
  figure, axes = _axes()
  n = int(study.ks[-1])
  for (a, b), comparison in study.comparisons.items():
    look, band = style(study, b), comparison.difference
    axes.fill_between(
      comparison.ks, band.low, band.high, color=look['color'], alpha=0.15, linewidth=0
    )
    split_line(axes, comparison.ks, band.value, n / 4, color=look['color'], label=f'{b} minus {a}')
  axes.axhline(0, color='#444444', linewidth=1)
  found = study.comparison.crossover
  if found.value is not None and found.value > 1:
    look = style(study, study.headline[1])
    axes.plot([found.low, found.high], [0, 0], color=look['color'], linewidth=5, alpha=0.5)
    axes.plot(found.value, 0, markersize=9, markeredgecolor='white', **look)
  log_k(axes, n)
  axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: signed(100 * v, 0)))
  axes.set_ylabel('difference, points')
  axes.legend(loc='best')
  return Plot(
    'difference',
    'Difference in pass@k, paired by problem',
    'Above zero the trained model solves more. The marker on the zero line is the crossover of the '
    'headline pair, the bar its interval (it ends at n where it may lie beyond).',
    to_svg(figure),
  )


@drawn
def histogram_figure(study: Study) -> Plot:
  """Problems per accuracy bin, the headline models side by side."""
  figure, axes = _axes()
  places = np.arange(len(coverage.BINS))
  for side, name in enumerate(study.headline):
    heights = coverage.accuracy_histogram(study.model(name).counts)
    bars = axes.bar(
      places + (side - 0.5) * 0.42 * study.paired,
      heights,
      0.4 if study.paired else 0.7,
      color=style(study, name)['color'],
      label=label(study.model(name)),
      hatch='' if side == 0 else '///',
      edgecolor='white',
      linewidth=0.5,
    )
    axes.bar_label(bars, fontsize=7.5, labels=[str(h) if h else '' for h in heights])
  axes.set_xticks(places, coverage.BINS, rotation=45, ha='right', fontsize=9)
  axes.set_xlabel('share of the samples that are correct')
  axes.set_ylabel('problems')
  axes.grid(axis='x', visible=False)
  axes.legend(loc='best')
  return Plot(
    'accuracy_histogram',
    'How often each problem is solved',
    'Problems by the share of their samples that are correct. Training that sharpens moves '
    'problems to both ends: solved always, or never.',
    to_svg(figure),
  )


@drawn
def scatter_figure(study: Study) -> Plot | None:
  """Solve rate of every problem in both headline models; None if nothing is compared."""
  if not study.paired:
    return None
  figure, axes = _axes((5.2, 4.8))
  a, b = (study.model(name) for name in study.pair)
  second = b.counts.select(a.counts.problem_ids)
  spots, sizes = np.unique(
    np.stack([a.counts.rates, second.rates], axis=1), axis=0, return_counts=True
  )
  floor = 1 / max(a.counts.smallest_n, second.smallest_n)
  axes.plot([0, 1], [0, 1], color='#888888', linewidth=1)
  axes.scatter(
    spots[:, 0],
    spots[:, 1],
    s=22 * np.sqrt(sizes) + 8,
    color=COLOURS[1],
    alpha=0.55,
    edgecolor='white',
    linewidth=0.4,
    clip_on=False,
    zorder=3,
  )
  ticks = [0.0, *(t for t in (1e-4, 1e-3, 1e-2, 1e-1) if t >= floor), 1.0]
  axes.set_xscale('symlog', linthresh=floor, linscale=0.4)
  axes.set_yscale('symlog', linthresh=floor, linscale=0.4)
  for axis, name in ((axes.xaxis, label(a)), (axes.yaxis, label(b))):
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: f'{100 * v:g}%'))
    axis.set_label_text(f'solve rate, {name}')
  axes.set_xlim(-floor * 0.3, 1.08)
  axes.set_ylim(-floor * 0.3, 1.08)
  return Plot(
    'solve_rates',
    'Every problem, before and after',
    'One dot a problem (larger where several fall together); logarithmic, zero at the edge. Below '
    'the diagonal the trained model solves the problem less often; on the lower edge, never.',
    to_svg(figure),
  )


@drawn
def coverage_figure(study: Study) -> Plot | None:
  """Coverage sets of the headline pair at each threshold; None without such sets."""
  sets = study.comparison.sets if study.paired else ()
  if not sets:
    return None
  figure, axes = _axes((6.0, 0.62 * len(sets) + 1.5))
  a, b = study.pair
  names = {'both': 'both', 'base_only': f'{a} only', 'rl_only': f'{b} only', 'neither': 'neither'}
  places = np.arange(len(sets))[::-1]
  start = np.zeros(len(sets))
  total = len(study.comparison.problem_ids)
  for key, name in names.items():
    widths = np.array([found.sizes()[key] for found in sets], float)
    bars = axes.barh(
      places, widths, 0.7, left=start, color=SET_COLOURS[key], label=name, edgecolor='white'
    )
    texts = [f'{width:.0f}' if width >= 0.03 * total else '' for width in widths]
    dark = key in ('base_only', 'rl_only')
    axes.bar_label(
      bars, texts, label_type='center', color='white' if dark else 'black', fontsize=10
    )
    start += widths
  axes.set_yticks(places, [f'≥ {found.threshold} correct' for found in sets])
  axes.set_xlabel('problems')
  axes.set_xlim(0, total)
  axes.grid(axis='y', visible=False)
  axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.1)
  return Plot(
    'coverage',
    'Coverage: which model reaches which problems',
    'A problem is covered if at least so many of its samples are correct. Counts over one are less '
    'at the mercy of a single lucky sample.',
    to_svg(figure),
  )


@dataclasses.dataclass(frozen=True)
class Panel:
  """One training curve to draw: the metric's key in the rows, its title, and its scale."""

  key: str
  title: str
  percent: bool = False
  log: bool = False


def training_figures(
  runs: Mapping[str, Sequence[Mapping[str, Any]]], panels: Sequence[Panel], *, x: str = 'step'
) -> list[Plot]:
  """Training curves: one small figure a metric, one line a run.

  runs: rows of metrics (as in metrics.jsonl) by run name; rows without a panel's key are skipped.
  ValueError names a key that no row of any run has, with the keys there are.
  """
  known = sorted({key for rows in runs.values() for row in rows for key in row})
  missing = [panel.key for panel in panels if panel.key not in known]
  if missing or x not in known:
    raise ValueError(f'no metric {missing or x!r} in the rows; there are {known}')
  return [_training_figure(runs, panel, x) for panel in panels]


@drawn
def _training_figure(runs, panel: Panel, x: str) -> Plot:
  many = len(runs) > 3  # then the legend stands above the axes, four names a line
  figure, axes = _axes((5.0, 3.0 + 0.2 * many * -(-len(runs) // 4)))
  for place, (name, rows) in enumerate(runs.items()):
    pairs = [(row[x], row[panel.key]) for row in rows if _is_number(row.get(panel.key))]
    if pairs:
      xs, ys = np.array(pairs, float).T
      if panel.log:  # zero has no place there: the line is broken
        ys = np.where(ys > 0, ys, np.nan)
      turn, colour = divmod(place + 1, len(COLOURS))
      line = LINES[turn % len(LINES)]
      axes.plot(xs, ys, color=COLOURS[colour], linestyle=line, linewidth=1.7, label=name)
  axes.set_xlabel(x)
  if panel.log:
    axes.set_yscale('log')
  if panel.percent:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  if many:
    place = {'loc': 'lower center', 'bbox_to_anchor': (0.5, 1.0), 'ncols': 4}
    axes.legend(**place, fontsize=8, handlelength=2.6, columnspacing=1.0)
  elif len(runs) > 1:
    axes.legend(loc='best')
  return Plot(f'training {panel.key}', panel.title, '', to_svg(figure))


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and bool(np.isfinite(value))
