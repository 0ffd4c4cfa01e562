"""Figures of temperature, entropy and cost, as `Plot`s: plain functions of results.

Fig. 16 (pass@k at several temperatures), Fig. 17 (entropy matched), pass@k against tokens, caps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from rlvr_jax.eval import pass_at_k
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.efficiency import TokenCurve
from rlvr_jax.eval.figures import COLOURS, LINES, MARKERS, Plot, _axes, drawn, log_k, to_svg
from rlvr_jax.eval.intervals import Band, mean_interval
from rlvr_jax.eval.temperature import Entropy, Match


def _look(place: int) -> dict[str, Any]:
  return {'color': COLOURS[place % len(COLOURS)], 'marker': MARKERS[place % len(MARKERS)]}


def _band(axes: Any, x: np.ndarray, band: Band, place: int, label: str, line: str = '-') -> None:
  """A line with its interval as a band."""
  look = _look(place)
  axes.fill_between(x, band.low, band.high, color=look['color'], alpha=0.13, linewidth=0)
  axes.plot(x, band.value, linestyle=line, linewidth=2, markersize=4.5, label=label, **look)


def counted_tokens(axes: Any, x: np.ndarray) -> None:
  """A logarithmic axis of tokens: 200, 1k, 10k."""
  axes.set_xscale('log')
  wide = np.max(x) / np.min(x) > 60
  axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
  axes.xaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_major_formatter(
    FuncFormatter(lambda v, _: f'{v / 1000:g}k' if v >= 1000 else f'{v:g}')
  )


@drawn
def temperature_figure(
  models: Mapping[str, Mapping[float, Counts]], *, level: float = 0.95
) -> Plot:
  """pass@k of every model at every temperature it was sampled at (Fig. 16).

  models: name -> {temperature: counts}. One colour a model, one line style a temperature.
  """
  figure, axes = _axes((6.0, 4.6))
  temperatures = sorted({t for by in models.values() for t in by})
  most = 1
  for place, (name, by) in enumerate(models.items()):
    for t, counts in sorted(by.items()):
      ks = pass_at_k.k_grid(counts.smallest_n, 14)
      band = mean_interval(pass_at_k.estimate(counts.n, counts.c, ks), level=level)
      line = LINES[temperatures.index(t) % len(LINES)]
      _band(axes, ks, band, place, f'{name}, T = {t:g}', line)
      most = max(most, int(ks[-1]))
  log_k(axes, most)
  axes.set_ylim(0, 1.02)
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  axes.set_ylabel('problems solved in k tries')
  axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9, handlelength=3)
  return Plot(
    'temperatures',
    'pass@k at several temperatures',
    f'Unbiased estimates with {level:.0%} intervals over problems. Line styles are temperatures, '
    'colours models.',
    to_svg(figure),
  )


@drawn
def entropy_figure(
  curves: Mapping[str, Sequence[tuple[float, Entropy]]], match: Match | None = None
) -> Plot:
  """Mean entropy of generated tokens against temperature, with the match (Fig. 17).

  curves: model -> (temperature, entropy) as of entropy.sweep; match: of the last model.
  """
  figure, axes = _axes((6.0, 4.2))
  for place, (name, points) in enumerate(curves.items()):
    ts = np.array([t for t, _ in points])
    values = np.array([e.value for _, e in points])
    ends = np.array([e.interval() for _, e in points])
    look = _look(place)
    axes.errorbar(
      ts,
      values,
      np.abs(ends.T - values),
      capsize=3,
      linewidth=1.8,
      markersize=5,
      label=name,
      **look,
    )
  if match is not None:
    axes.axhline(match.target.value, color='#666666', linewidth=1, dashes=(4, 2), label='target')
    axes.axhspan(*match.target.interval(), color='#666666', alpha=0.15, linewidth=0)
    if match.temperature is not None:
      axes.axvspan(match.low, match.high, color=COLOURS[4], alpha=0.35, linewidth=0)
      axes.axvline(match.temperature, color='#222222', linewidth=1)
      axes.annotate(
        f'T = {match.temperature:.2f} ({match.low:.2f} to {match.high:.2f})',
        (match.temperature, 1.0),
        (0, 4),
        xycoords=('data', 'axes fraction'),
        textcoords='offset points',
        ha='center',
      )
  axes.set_ylim(bottom=0)
  axes.set_xlabel('sampling temperature')
  axes.set_ylabel('entropy, nats per token')
  axes.legend(loc='upper left')
  ended = {
    None: '',
    'matched': '',
    'budget': ' The search spent its completions before the bracket was as narrow as asked.',
    'not bracketed': ' The target is not reached within the temperatures searched.',
  }[match.reason if match else None]
  return Plot(
    'entropy',
    'Entropy of generated tokens, and the temperature that matches',
    'Mean over all generated tokens of the entropy of the full distribution at that temperature; '
    'bars are 95% intervals of drawing completions, with the problems held fixed. Shaded upright: '
    'temperatures that cannot be told from the match.' + ended,
    to_svg(figure),
  )


@drawn
def tokens_figure(curves: Mapping[str, TokenCurve]) -> Plot:
  """pass@k of every model against the tokens that its k completions take."""
  figure, axes = _axes((6.0, 4.4))
  for place, (name, curve) in enumerate(curves.items()):
    label = f'{name} ({curve.mean_tokens:,.0f} tokens each)'
    _band(axes, curve.tokens, curve.band, place, label)
  counted_tokens(axes, np.concatenate([curve.tokens for curve in curves.values()]))
  axes.set_xlabel('tokens written per problem')
  axes.set_ylim(0, 1.02)
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  axes.set_ylabel('problems solved')
  axes.legend(loc='best')
  return Plot(
    'tokens',
    'pass@k against the tokens it takes',
    "Each curve is pass@k, placed at k times the mean length of the model's completions: at one "
    'place on this axis both models wrote as much.',
    to_svg(figure),
  )


@drawn
def caps_figure(
  curves: Mapping[str, Mapping[int, Band]], caps: Mapping[str, Sequence[int]]
) -> Plot:
  """pass@k of every model as if completions had been cut at each cap.

  curves: model -> {k: Band over caps[model]} as of efficiency.cap_curves.
  """
  figure, axes = _axes((6.0, 4.4))
  for place, (name, by_k) in enumerate(curves.items()):
    for i, (k, band) in enumerate(sorted(by_k.items())):
      _band(axes, np.asarray(caps[name]), band, place, f'{name}, k = {k}', LINES[i % len(LINES)])
  counted_tokens(axes, np.concatenate([np.asarray(caps[name]) for name in curves]))
  axes.set_xlabel('cap on the length of a completion, tokens')
  axes.set_ylim(0, 1.02)
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  axes.set_ylabel('problems solved in k tries')
  axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9, handlelength=3)
  return Plot(
    'length_caps',
    'What a cap on the length costs',
    'The same completions judged again: one that is longer than the cap counts as not correct. '
    'Where a curve still rises at its right end, the cap that was sampled under cut answers off.',
    to_svg(figure),
  )
