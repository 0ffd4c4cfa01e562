"""The temperature part of a study: sweep, matched entropy, envelope (Fig. 16, 17)."""

from collections.abc import Mapping
from typing import Any

from rlvr_jax.eval import figures_entropy, temperature
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.figures import Plot
from rlvr_jax.eval.findings import percent, signed
from rlvr_jax.eval.report import Section
from rlvr_jax.eval.study_parts import TEXTS, Part, curves_figure, table
from rlvr_jax.eval.tables import Table
from rlvr_jax.eval.temperature import Entropy, Match


def section(
  part: Part, searches: Mapping[str, Any], *, level: float = 0.95, seed: int = 0
) -> tuple[Section, dict[str, Any]]:
  """(section, its numbers). searches: results.json["entropy"] of study.matched."""
  title, text = TEXTS[part.name]
  sweeps = sweeps_of(part)
  plots: list[Plot | None] = [curves_figure(part)]
  if sweeps:
    plots.append(figures_entropy.temperature_figure(sweeps, level=level))
  plots += [entropy_plot(name, found) for name, found in searches.items()]
  shown, entry = envelope_table(part, sweeps, level=level, seed=seed)
  return Section(title, [text], plots, [table(part), *shown]), entry


def sweeps_of(part: Part) -> dict[str, dict[float, Counts]]:
  """Model -> {temperature: counts}, of those that were sampled at several."""
  found: dict[str, dict[float, Counts]] = {}
  for model in part.models:
    name = model.name.partition('@T:')[0]
    if '@entropy' not in name and 'temperature' in model.settings:
      found.setdefault(name, {})[float(model.settings['temperature'])] = model.counts
  return {name: by for name, by in found.items() if len(by) > 1}


def entropy_plot(name: str, search: Mapping[str, Any]) -> Plot:
  """One model's search for the base's entropy, as eval/temperature.py left it."""
  points = [(t, _entropy(value, error)) for t, value, error in search['points']]
  low, high = search['between']
  match = Match(
    search['temperature'], low, high, search['reason'], _entropy(*search['target']),
    tuple(points),
  )  # fmt: skip
  return figures_entropy.entropy_figure({name: sorted(points, key=lambda one: one[0])}, match)


def _entropy(value: float, error: float) -> Entropy:
  """As it was written down; how many completions it took was not."""
  return Entropy(value, error, 0, 0)


def envelope_table(
  part: Part, sweeps: Mapping[str, Mapping[float, Counts]], *, level: float, seed: int
) -> tuple[list[Table], dict[str, Any]]:
  """pass@k at temperatures chosen on half of the problems, on the other half; against the base.

  Models that were not sampled at several temperatures have none.
  """
  ks = [int(part.ks[i]) for i in part.points]
  made = {name: temperature.envelope(by, ks, seed=seed, level=level) for name, by in sweeps.items()}
  if not made:
    return [], {}
  base = part.models[0].name
  rows, entry = [], {}
  for name, found in made.items():
    change = None
    if base in made and name != base:
      change = temperature.envelope_difference(made[base], found, level=level, seed=seed)
    entry[name] = {
      str(k): {
        'temperature': float(found.chosen[i]),
        'pass_at_k': list(found.band.at(i)),
        'difference': list(change.at(i)) if change else None,
      }
      for i, k in enumerate(ks)
    }
    for i, k in enumerate(ks):
      value, low, high = (percent(x) for x in found.band.at(i))
      moved = [signed(100 * x, 1) for x in change.at(i)] if change else None
      rows.append(
        [name, k, f'{found.chosen[i]:g}', f'{value} ({low} to {high})',
         f'{moved[0]} ({moved[1]} to {moved[2]})' if moved else None]
      )  # fmt: skip
  caption = (
    'Each k at the temperature that is best for it on one half of the problems, measured on the '
    'other half; differences to the base, at its own best, are paired by problem.'
  )
  columns = ['model', 'k', 'temperature', 'pass@k', f'points to {base}']
  return [Table('At the best temperature of each', columns, rows, caption)], entry
