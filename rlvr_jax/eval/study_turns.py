"""Conversations of a study: the boundary over episodes, beside single completions at equal cost.

A conversation costs the tokens that the model wrote, and to read what it was told. Both are shown:
pass@k of k conversations stands where their tokens are, beside pass@k' of as many tokens of single
completions.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rlvr_jax.eval import efficiency, figures
from rlvr_jax.eval.figures import COLOURS, MARKERS, Plot
from rlvr_jax.eval.figures_entropy import _counted_tokens
from rlvr_jax.eval.findings import percent, signed
from rlvr_jax.eval.report import Section
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.study_parts import TEXTS, Part, table
from rlvr_jax.eval.tables import Table

COSTS = {'written': False, 'written and read': True}  # -> whether observations count
POINTS = 3  # budgets at which two models are compared


def is_conversation(model: ModelResult) -> bool:
  """Whether its samples were answered by an environment."""
  return bool(model.settings.get('environment'))


def weights_of(model: ModelResult) -> str:
  """'turn' of 'turn+value', the same weights asked in conversations."""
  return model.name.partition('+')[0]


def _way(model: ModelResult) -> str:
  return str(model.settings.get('environment'))


def section(
  part: Part,
  *,
  talkers: Collection[str] = (),
  level: float = 0.95,
  resamples: int = 10_000,
  seed: int = 0,
) -> tuple[Section, dict[str, Any]]:
  """(section, its numbers) of models of which some were asked in conversations.

  talkers: those that were trained in conversations; a model in conversation is compared with
  single completions of its own weights and of all that were not.
  """
  title, text = TEXTS[part.name]
  options: dict[str, Any] = {'level': level, 'resamples': resamples, 'seed': seed}
  costs = {
    model.name: [efficiency.mean_tokens(model.counts, observed=read) for read in COSTS.values()]
    for model in part.models
  }
  pairs = [
    compared(one, other, **options)
    for one in part.models
    if is_conversation(one)
    for other in part.models
    if not is_conversation(other) and (other.name not in talkers or other.name == weights_of(one))
  ]
  entry = {
    'mean_tokens': {
      name: {'written': written, 'read': both - written} for name, (written, both) in costs.items()
    },
    'at_equal_tokens': [found for pair in pairs for found in pair],
  }
  tables = [cost_table(part, costs), tokens_table(entry['at_equal_tokens']), table(part)]
  return Section(title, [text], [tokens_figure(part, level=level, seed=seed)], tables), entry


def compared(
  talk: ModelResult, single: ModelResult, *, level: float, resamples: int, seed: int
) -> list[dict[str, Any]]:
  """Differences of a model in conversation to one in single completions, at equal budgets.

  From one conversation to all draws of the one that has fewer tokens, for either way to count; []
  where they have no budget in common.
  """
  found = []
  for cost, read in COSTS.items():
    a, b = single.counts, talk.counts
    each = [efficiency.mean_tokens(one, observed=read) for one in (a, b)]
    if max(each) > min(cost * one.smallest_n for cost, one in zip(each, (a, b), strict=True)):
      continue
    made = efficiency.difference_at_tokens(
      a, b, points=POINTS, observed=read, level=level, resamples=resamples, seed=seed
    )
    found += [
      {
        'conversation': talk.name,
        'single': single.name,
        'cost': cost,
        'tokens': float(budget),
        'k': [float(made.k_b[i]), float(made.k_a[i])],
        'difference': list(made.difference.at(i)),
      }
      for i, budget in enumerate(made.budgets)
    ]
  return found


def cost_table(part: Part, costs: dict[str, list[float]]) -> Table:
  """Tokens of each model's completion or conversation, and how often it is right."""
  rows = []
  for model in part.models:
    written, both = costs[model.name]
    asked = 'conversation' if is_conversation(model) else 'single'
    value, low, high = (percent(x) for x in part.bands[model.name].at(0))
    rows.append(
      [
        model.name,
        asked,
        round(written, 1),
        round(both - written, 1),
        f'{value} ({low} to {high})',
      ]
    )
  columns = ['model', 'asked', 'tokens written', 'tokens told', 'right']
  return Table('Cost of one try', columns, rows, 'A try is a completion or a whole conversation.')


def tokens_table(entries: list[dict[str, Any]]) -> Table:
  """The differences at equal tokens: a row a pair, a column a budget."""
  cells: dict[tuple[str, str], dict[str, list[str]]] = {}
  for one in entries:
    value, low, high = (signed(100 * x, 1) for x in one['difference'])
    by_cost = cells.setdefault((one['conversation'], one['single']), {})
    shown = f'{value} ({low} to {high}) at {one["tokens"]:,.0f}'
    by_cost.setdefault(one['cost'], []).append(shown)
  nothing = [None] * POINTS
  rows = [
    [*pair, *(cell for cost in COSTS for cell in by_cost.get(cost, nothing))]
    for pair, by_cost in cells.items()
  ]
  budgets = ('a conversation', 'between', 'all')
  columns = [f'{cost}: {budget}' for cost in COSTS for budget in budgets]
  return Table(
    'Conversations minus single completions at equal tokens',
    ['conversation', 'single', *columns],
    rows,
    "Points by which pass@k of conversations exceeds pass@k' of single completions, where both "
    'take the tokens of each problem that are said behind: those written, or with those told. From '
    'one conversation to all draws of the one that has fewer tokens. Paired by problem.',
  )


@figures.drawn
def tokens_figure(part: Part, *, level: float = 0.95, seed: int = 0) -> Plot:
  """pass@k of every model against the tokens written, and against those written and told."""
  figure = Figure(figsize=(9.6, 5.6), layout='constrained')
  panels = figure.subplots(1, len(COSTS), sharey=True)
  weights = list(dict.fromkeys(weights_of(model) for model in part.models))
  ways = list(dict.fromkeys(map(_way, filter(is_conversation, part.models))))
  for axes, (cost, read) in zip(panels, COSTS.items(), strict=True):
    seen = []
    for model in part.models:
      place = weights.index(weights_of(model))
      curve = efficiency.token_curve(model.counts, part.ks, observed=read, level=level, seed=seed)
      seen.append(curve.tokens)
      talk = is_conversation(model)
      look: dict[str, Any] = {
        'color': COLOURS[place % len(COLOURS)],
        'marker': MARKERS[place % len(MARKERS)],
        'linestyle': ('-', '--', '-.')[ways.index(_way(model)) % 3] if talk else ':',
      }
      if talk:
        low, high = curve.band.low, curve.band.high
        axes.fill_between(curve.tokens, low, high, color=look['color'], alpha=0.10, linewidth=0)
      axes.plot(
        curve.tokens, curve.band.value, linewidth=1.8, markersize=4, markevery=4,
        label=model.name, **look,
      )  # fmt: skip
    _counted_tokens(axes, np.concatenate(seen))
    axes.set_xlabel(f'tokens {cost}, a problem')
    axes.set_ylim(0, 1.02)
  panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  panels[0].set_ylabel('problems solved')
  handles, labels = panels[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', ncols=5, fontsize=9, handlelength=3)
  return Plot(
    'turns_tokens',
    'The boundary over conversations, by what they cost',
    'Dotted: single completions; the other lines: conversations of the same weights (colour), a '
    'line style for each environment. Left: tokens that the model wrote. Right: with those that it '
    'was told. Bands: intervals over the choice of problems.',
    figures.to_svg(figure),
  )
