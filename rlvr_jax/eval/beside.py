"""What stands beside every comparison: its cost in tokens, lucky guesses, what more would show."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rlvr_jax.eval import efficiency, figures_entropy, guess, pass_at_k, planner
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.figures import Plot
from rlvr_jax.eval.findings import percent, signed
from rlvr_jax.eval.report import Section
from rlvr_jax.eval.results import MOST_DRAWN, ModelResult, Study
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.tables import Table

LARGER = (1, 4, 16)  # times the problems and the samples of this study, in the plan
CAP_COLUMNS = ('problem_id', 'visit', 'sample', 'verdict', 'length', 'finish')


@dataclasses.dataclass(frozen=True)
class Beside:
  """A section of the report, and the same numbers as results.json[key]."""

  key: str
  section: Section
  entry: Any


def cost(study: Study, store: SampleStore | None, task: str) -> Beside | None:
  """pass@k against tokens, differences at equal tokens, and caps on the length (EVALUATION 4).

  None where no model's lengths are known. Caps need the completions, so a store, and models whose
  draws were not stopped early.
  """
  models = [m for m in _few(study) if _tokens(m.counts) is not None]
  if not models:
    return None
  options: Any = {'level': study.level, 'seed': study.seed}
  curves = {m.name: efficiency.token_curve(m.counts, study.ks, **options) for m in models}
  entry: dict[str, Any] = {
    'mean_tokens': {name: curve.mean_tokens for name, curve in curves.items()}
  }
  plots: list[Plot | None] = [figures_entropy.tokens_figure(curves)]
  tables = []
  names = [m.name for m in models]
  if study.paired and set(study.headline) <= set(names):
    budgets = _at_budgets(study)
    if budgets is not None:
      entry['at_equal_tokens'] = budgets[0]
      tables.append(budgets[1])
  capped = [m for m in models if m.name in study.headline and m.reached is None]
  capped = [m for m in capped if not m.counts.observed]  # a conversation has several lengths
  if store is not None and capped:
    plot, found = _caps(study, store, task, capped)
    plots.append(plot)
    entry['caps'] = found
  text = (
    'k completions of a model that writes more cost more. Here the same samples stand against the '
    'tokens they took, prompts and observations not counted.'
  )
  return Beside('cost', Section('Cost in tokens', [text], plots, tables), entry)


def _few(study: Study) -> Sequence[ModelResult]:
  """The models whose cost is drawn."""
  main = [m for m in study.models if not m.part or m.name in study.headline]
  if len(main) <= MOST_DRAWN:
    return main
  return [study.model(name) for name in study.headline]


def _tokens(counts: Counts) -> float | None:
  return efficiency.mean_tokens(counts) if counts.tokens else None


def _at_budgets(study: Study) -> tuple[list[dict[str, Any]], Table] | None:
  """The headline's difference at equal tokens; None where no budget is common to both."""
  a, b = (study.model(name).counts for name in study.headline)
  cost_a, cost_b = efficiency.mean_tokens(a), efficiency.mean_tokens(b)
  if max(cost_a, cost_b) > min(cost_a * a.smallest_n, cost_b * b.smallest_n):
    return None  # one completion of one takes more than all of the other
  found = efficiency.difference_at_tokens(
    a, b, points=7, level=study.level, resamples=study.resamples, seed=study.seed
  )
  numbers, rows = [], []
  for i, budget in enumerate(found.budgets):
    value, low, high = found.difference.at(i)
    ks = float(found.k_a[i]), float(found.k_b[i])
    numbers.append({'tokens': float(budget), 'k': ks, 'difference': [value, low, high]})
    points = [signed(100 * x, 1) for x in (value, low, high)]
    rows.append(
      [
        round(float(budget)),
        *(round(k, 1) for k in ks),
        f'{points[0]} ({points[1]} to {points[2]})',
      ]
    )
  names = study.headline
  return numbers, Table(
    'Difference at equal tokens',
    ['tokens a problem', f'k of {names[0]}', f'k of {names[1]}', f'{names[1]} minus {names[0]}'],
    rows,
    'Points of pass@k where both models may write as much of each problem. k between whole numbers '
    'is interpolated.',
  )


def _caps(study: Study, store: SampleStore, task: str, models: Sequence[ModelResult]):
  """(figure, entry) of pass@1 and the headline under caps on the length."""
  curves, caps, found = {}, {}, {}
  for model in models:
    rows = _counted(store.read(model.name, task, CAP_COLUMNS), model.counts)
    caps[model.name] = efficiency.cap_grid(rows)
    by_cap = efficiency.capped_counts(rows, caps[model.name], coupling=model.counts.coupling)
    ks = sorted({1, min(study.headline_k, model.counts.smallest_n)})
    curves[model.name] = efficiency.cap_curves(by_cap, ks, level=study.level, seed=study.seed)
    found[model.name] = {
      'caps': caps[model.name],
      'pass_at_k': {
        str(k): [list(band.at(i)) for i in range(len(caps[model.name]))]
        for k, band in curves[model.name].items()
      },
    }
  return figures_entropy.caps_figure(curves, caps), found


def _counted(rows: pa.Table, counts: Counts) -> pa.Table:
  """The rows that the counts were made of: the first draws, of visit 0."""
  errors = counts.verdicts.get('error')
  most = int((counts.n + (0 if errors is None else errors)).max())
  return rows.filter((pc.field('visit') == 0) & (pc.field('sample') < most))


def guesses(study: Study, found: Counts, name: str) -> Beside:
  """Curves with lucky guesses taken out, and without the problems that can be guessed (App. D.2).

  found: counts of answers without reasoning to the same problems. ValueError where they are of
  others.
  """
  missing = set(study.problem_ids) - set(found.problem_ids)
  if missing:
    raise ValueError(
      f'evaluate.guesses: {name} has no samples of {len(missing)} of the problems, e.g. '
      f'{min(missing)!r}; guesses are needed of every problem that is compared'
    )
  found = found.select(study.problem_ids)
  options: Any = {'level': study.level, 'resamples': study.resamples, 'seed': study.seed}
  ks = sorted({1, study.headline_k, int(study.ks[-1])})
  out = guess.guessable(found)
  entry: dict[str, Any] = {'from': name, 'guessable': list(out), 'models': {}}
  rows = []
  for model in _few(study):
    counts = model.counts.select(study.problem_ids)
    table = guess.corrected_pass_at_k(counts, found, ks, **options)
    without: list[float | None] = [None] * len(ks)
    if len(out) < len(counts):
      kept = guess.drop_guessable(counts, found).counts
      without = pass_at_k.estimate(kept.n, kept.c, ks).mean(axis=0).tolist()
    entry['models'][model.name] = {
      str(k): {
        'measured': list(table.measured.at(i)),
        'guessing': list(table.guessing.at(i)),
        'beyond': list(table.corrected.at(i)),
        'cautious': list(table.cautious.at(i)),
        'without_guessable': without[i],
        'undecidable': float(table.undecidable[i]),
      }
      for i, k in enumerate(ks)
    }
    for i, k in enumerate(ks):
      bands = (table.measured, table.guessing, table.corrected, table.cautious)
      shown = [_interval(band.at(i)) for band in bands]
      rest = without[i]
      rows.append([model.name, k, *shown, None if rest is None else percent(rest)])
  text = (
    f'Guesses are answers without reasoning ({name}). Of {len(study.problem_ids)} problems '
    f'{len(out)} were guessed at least once. Beyond guessing: what is left of pass@k when k '
    'guesses at the measured rate are taken out; cautious: at the upper end of each rate.'
  )
  columns = ['model', 'k', 'pass@k', 'by guessing', 'beyond', 'cautious', 'without guessable']
  table = Table('pass@k beyond guessing', columns, rows, sortable=True)
  return Beside('guesses', Section('Lucky guesses', [text], [], [table]), entry)


def _interval(triple: tuple[float, float, float]) -> str:
  value, low, high = (percent(x) for x in triple)
  return f'{value} ({low} to {high})'


def plan(study: Study) -> Beside | None:
  """The difference that this study, and larger ones, can show between the headline models.

  None without a pair. A pilot is the pair's own counts; training seeds are not in it.
  """
  if not study.paired:
    return None
  a, b = (study.model(name).counts for name in study.headline)
  ks = sorted({1, study.headline_k})
  pilot = planner.pilot_of_counts(a, b, ks)
  size, n = len(a), min(a.smallest_n, b.smallest_n)
  found = planner.plan(
    pilot,
    [size * times for times in LARGER],
    [n, 4 * n],
    ks,
    level=study.level,
  )
  rows = [[one.problems, one.n, one.k, round(100 * one.detectable, 1)] for one in found]
  table = Table(
    'Differences that a study of this kind can show',
    ['problems', 'samples of each', 'k', 'points'],
    rows,
    f'The smallest true difference of pass@k that {study.level:.0%} intervals tell from zero with '
    '80% power, for problems like these and one trained model. '
    'More seeds: configs/power.py.',
  )
  entry = [dataclasses.asdict(one) for one in found]
  return Beside('power', Section('What more would show', [], [], [table]), entry)


def all_of(
  study: Study, store: SampleStore | None, task: str, found: tuple[str, Counts] | None
) -> list[Beside]:
  """Every one that the study's samples allow; found: (name, counts) of guesses, where given."""
  made = [
    cost(study, store, task),
    guesses(study, found[1], found[0]) if found else None,
    plan(study),
  ]
  return [one for one in made if one is not None]
