"""The questions of a study beside its headline: one section each, of the models that answer it.

Dynamics (Fig. 1 right, Fig. 18, Table 3 of arXiv 2504.13837), ablations of KL and group size (Fig.
15), the control, distillation (Fig. 7), prior strength and temperatures (Fig. 16, 17).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rlvr_jax.eval import claims, figures, pass_at_k
from rlvr_jax.eval.counts import align
from rlvr_jax.eval.figures import COLOURS, LINES, MARKERS, Plot
from rlvr_jax.eval.findings import percent, signed
from rlvr_jax.eval.intervals import Band, difference_interval, mean_interval
from rlvr_jax.eval.report import Section
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.tables import Table

ONE_SEED = 'One training seed each: these are models, not settings; another seed may differ.'
TEXTS = {
  'dynamics': (
    'While training goes on',
    'The same problems, from checkpoints of a run. Where pass@1 goes up and pass@k at large k goes '
    'down, training sharpens; the base is step 0.',
  ),
  'kl': ('Distance kept from the base', f'The KL term of the loss, by its coefficient. {ONE_SEED}'),
  'group': ('Group size', f'Completions of a problem in an iteration. {ONE_SEED}'),
  'control': (
    'Random rewards',
    'The same training with a coin in place of the verifier. What it gains is no reasoning that '
    'was rewarded; what it loses comes with updating at all.',
  ),
  'distillation': (
    'Distillation',
    'A student that learns from the correct completions of a stronger teacher, beside RL from the '
    'same base, and RL from the student.',
  ),
  'prior': (
    'How much the base brings along',
    'RL from checkpoints of the base: after none, some and all of its training. Each RL model is '
    'set against the checkpoint that it started from.',
  ),
  'turns': (
    'Conversations',
    'Models that are told that an answer is wrong, and perhaps why, and try again. A conversation '
    'is right if its last answer is, so that its pass@1 is the chance to be right within so many '
    f'tries in a row. {ONE_SEED}',
  ),
  'temperature': (
    'Temperature and entropy',
    'The same models at other temperatures; NAME@entropy is sampled where its entropy equals that '
    'of the base.',
  ),
}


@dataclasses.dataclass(frozen=True)
class Part:
  """The models of one question in their order, all with pass@k on the same grid.

  changes: model -> difference to `against[model]`, paired by problem.
  """

  name: str
  models: tuple[ModelResult, ...]
  ks: np.ndarray
  headline_k: int
  bands: Mapping[str, Band]
  against: Mapping[str, str]
  changes: Mapping[str, Band]

  @property
  def points(self) -> list[int]:
    """Indices of k = 1, the headline and n."""
    n = int(self.ks[-1])
    return [int(np.flatnonzero(self.ks == k)[0]) for k in sorted({1, self.headline_k, n})]


def members(models: Sequence[ModelResult], part: str) -> list[ModelResult]:
  """The models of a part; with those they are set against: the base, and the plain RL model.

  Of dynamics: the checkpoints, and the ends of their runs, by run and step.
  """
  own = [model for model in models if model.part == part]
  if not own:
    return []
  base = [model for model in models if model.role == 'base' and not model.part][:1]
  if part == 'dynamics':
    runs = {run_of(model) for model in own}
    ends = [model for model in models if model.name in runs]
    place = {model.name: i for i, model in enumerate(models)}
    whole = {model.name: model for model in [*own, *ends]}.values()
    first = {run: min(place[m.name] for m in whole if run_of(m) == run) for run in runs}
    return [*base, *sorted(whole, key=lambda m: (first[run_of(m)], m.step or 0))]
  like = {(m.algorithm, m.seed) for m in own if m.algorithm}
  main = [m for m in models if m.role == 'rl' and m.part in ('', 'algorithms')]
  main.sort(key=lambda m: (m.algorithm, m.seed) not in like)  # the same but for what is asked
  starts = {model.start for model in own}
  named = [m for m in models if m.name in starts and m.role != 'base' and m.part != part]
  return list({model.name: model for model in [*base, *named, *main[:1], *own]}.values())


def run_of(model: ModelResult) -> str:
  """'grpo-1' of its checkpoint 'grpo-1@step:10'."""
  return model.name.partition('@')[0]


def results(
  models: Sequence[ModelResult], evaluate: Mapping[str, Any], seed: int = 0
) -> list[Part]:
  """The parts that have models. evaluate: a config's group (headline_k, confidence, bootstrap)."""
  found = []
  for part in TEXTS:
    chosen = members(models, part)
    if chosen:
      found.append(_part(part, chosen, evaluate, seed))
  return found


def _part(name: str, models: Sequence[ModelResult], evaluate: Mapping[str, Any], seed: int) -> Part:
  n = min(model.counts.smallest_n for model in models)
  headline = min(int(evaluate['headline_k']) or pass_at_k.headline_k(n), n)
  ks = np.unique(np.concatenate([pass_at_k.k_grid(n, 24), [1, headline, n]]))
  options: Any = {
    'level': evaluate['confidence'],
    'resamples': evaluate['bootstrap'],
    'seed': seed,
  }
  there = {model.name: model for model in models}
  first = models[0]
  values = {model.name: pass_at_k.estimate(*_aligned(first, model), ks) for model in models}
  against = {model.name: _against(model, there, first.name) for model in models[1:]}
  return Part(
    name,
    tuple(models),
    ks,
    headline,
    {model: mean_interval(value, **options) for model, value in values.items()},
    against,
    {
      model: difference_interval(values[model] - values[other], **options)
      for model, other in against.items()
    },
  )


def _against(model: ModelResult, there: Mapping[str, ModelResult], first: str) -> str:
  """What a model is set against: what it started from, at its own temperature if that is there."""
  _, mark, setting = model.name.partition('@')
  alike = f'{model.start}@{setting}'
  if mark and model.part == 'temperature' and alike in there:
    return alike
  return model.start if model.start in there else first


def _aligned(first: ModelResult, model: ModelResult) -> tuple[np.ndarray, np.ndarray]:
  _, counts = align(first.counts, model.counts)
  return counts.n, counts.c


def entries(parts: Sequence[Part]) -> dict[str, Any]:
  """results.json["parts"]: the numbers of every part."""
  return {
    part.name: {
      'ks': [int(k) for k in part.ks],
      'headline_k': part.headline_k,
      'models': [
        {
          'name': model.name,
          'label': model.label,
          'step': model.step,
          'seed': model.seed,
          'start': model.start,
          'pass_at_k': {
            str(int(k)): list(part.bands[model.name].at(i)) for i, k in enumerate(part.ks)
          },
          'against': part.against.get(model.name),
          'difference': {
            str(int(k)): list(part.changes[model.name].at(i)) for i, k in enumerate(part.ks)
          }
          if model.name in part.changes
          else None,
        }
        for model in part.models
      ],
    }
    for part in parts
  }


def section(part: Part) -> Section:
  """The report's section of a part."""
  title, text = TEXTS[part.name]
  plots = [steps_figure(part)] if part.name == 'dynamics' else [curves_figure(part)]
  return Section(title, [text], plots, [table(part)])


def table(part: Part) -> Table:
  """pass@k of each model at 1, the headline and n, and what changed from what it is set against."""
  points = part.points
  names = [f'{int(part.ks[i])}' for i in points]
  rows = []
  for model in part.models:
    band, change = part.bands[model.name], part.changes.get(model.name)
    rows.append(
      [
        model.name,
        model.label,
        model.step,
        *(triple(band, i) for i in points),
        part.against.get(model.name),
        *(points_text(change, i) for i in points),
      ]
    )
  columns = ['model', 'what', 'step', *(f'pass@{k}' for k in names), 'against']
  return Table(
    TEXTS[part.name][0],
    [*columns, *(f'points at k = {k}' for k in names)],
    rows,
    'Differences are paired by problem. The last k is n itself: its estimate is mostly the luck of '
    'these draws.',
    sortable=True,
  )


def triple(band: Band, i: int) -> str:
  """'50.0% (40.1% to 59.9%)'."""
  value, low, high = band.at(i)
  return f'{percent(value)} ({percent(low)} to {percent(high)})'


def points_text(band: Band | None, i: int) -> str | None:
  """'+1.0 (-2.3 to +4.1)', in points."""
  if band is None:
    return None
  value, low, high = (100 * x for x in band.at(i))
  return f'{signed(value, 1)} ({signed(low, 1)} to {signed(high, 1)})'


def axes_of(count: int, size: tuple[float, float]) -> tuple[Figure, Any]:
  """A figure of so many panels side by side, size in inches."""
  figure = Figure(figsize=size, layout='constrained')
  return figure, figure.subplots(1, count, squeeze=False)[0]


def look(place: int) -> dict[str, Any]:
  """Colour, marker and line of the place-th line of a panel."""
  return {
    'color': COLOURS[place % len(COLOURS)],
    'marker': MARKERS[place % len(MARKERS)],
    'linestyle': LINES[place // len(COLOURS) % len(LINES)],
  }


@figures.drawn
def curves_figure(part: Part) -> Plot:
  """Mean pass@k of each model of a part, with its band."""
  names = [f'{m.name} ({m.label})' if m.label else m.name for m in part.models]
  columns = 2 if max(map(len, names)) <= 28 else 1  # long names would run out of the picture
  lines = -(-len(names) // columns)
  figure, (axes,) = axes_of(1, (6.0, 4.0 + 0.22 * max(0, lines - 3)))
  for place, model in enumerate(part.models):
    band, style = part.bands[model.name], look(place)
    axes.fill_between(part.ks, band.low, band.high, color=style['color'], alpha=0.12, linewidth=0)
    label = names[place]
    axes.plot(part.ks, band.value, linewidth=2, markevery=4, markersize=5, label=label, **style)
  figures.log_k(axes, int(part.ks[-1]))
  axes.set_ylim(0, 1.02)
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  axes.set_ylabel('problems solved in k tries')
  axes.legend(loc='upper left', bbox_to_anchor=(0, -0.16), ncols=columns, fontsize=9)
  return Plot(
    f'part_{part.name}',
    TEXTS[part.name][0],
    'Unbiased pass@k with intervals over the choice of problems.',
    figures.to_svg(figure),
  )


@figures.drawn
def steps_figure(part: Part) -> Plot:
  """pass@1 and pass@k at the headline k over the steps of each run, the base as step 0."""
  points = [int(np.flatnonzero(part.ks == k)[0]) for k in dict.fromkeys((1, part.headline_k))]
  figure, panels = axes_of(len(points), (3.4 * len(points), 3.6))
  runs: dict[str, list[ModelResult]] = {}
  for model in part.models[1:]:
    runs.setdefault(run_of(model), []).append(model)
  for axes, i in zip(panels, points, strict=True):
    for place, (run, own) in enumerate(runs.items()):
      line = [part.models[0], *own]
      steps = [0, *(model.step or 0 for model in own)]
      low, value, high = (
        [getattr(part.bands[model.name], end)[i] for model in line]
        for end in ('low', 'value', 'high')
      )
      style = look(place)
      axes.fill_between(steps, low, high, color=style['color'], alpha=0.12, linewidth=0)
      axes.plot(steps, value, linewidth=2, markersize=5, label=run, **style)
    axes.set_title(f'pass@{int(part.ks[i])}', fontsize=11)
    axes.set_xlabel('step')
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  panels[0].legend(loc='best', fontsize=9)
  return Plot(
    'dynamics',
    TEXTS['dynamics'][0],
    'Left: one try. Right: the headline k. Bands: intervals over the choice of problems.',
    figures.to_svg(figure),
  )


def said(models: Sequence[ModelResult]) -> list[tuple[str, str]]:
  """(heading, text) where models were asked in different ways: what a difference may come from."""
  keys = ('prompt_hash', 'max_tokens', 'top_p', 'top_k', 'environment', 'turns')
  found = {}
  for key in keys:
    values = {str(model.settings.get(key)) for model in models}
    if len(values) > 1:
      found[key] = sorted(values)
  if not found:
    return []
  listed = '; '.join(f'{key}: {", ".join(values)}' for key, values in found.items())
  return [
    (
      'Models were not asked alike',
      f'Their samples differ in {listed} (the settings table has each). A difference between such '
      'models is one of model and setting together.',
    )
  ]


def claim_inputs(models: Sequence[ModelResult], headline: Sequence[str]) -> claims.Inputs:
  """Which models the claims ledger takes: not those of ablations, controls and prior strength."""
  groups: dict[str, list[str]] = {}
  for model in models:
    if model.algorithm is not None and model.role == 'rl' and model.part in ('', 'algorithms'):
      groups.setdefault(model.algorithm, []).append(model.name)
  distilled = tuple(
    m.name for m in models if m.role == 'distilled' and m.part in ('', 'distillation')
  )
  checkpoints = {}
  if len(headline) == 2:
    base, trained = headline
    own = [m for m in models if run_of(m) == trained and m.step and '@T:' not in m.name]
    own = [m for m in own if m.start == base and '@entropy' not in m.name]
    if len(own) > 1:
      checkpoints = {0: next(m for m in models if m.name == base).counts}
      checkpoints |= {int(m.step or 0): m.counts for m in own}
  return claims.Inputs(distilled=distilled, checkpoints=checkpoints, algorithms=groups)
