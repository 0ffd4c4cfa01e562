"""Two verifiers, two boundaries: the same completions judged twice, and the problems it decides."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rlvr_jax.config import Config
from rlvr_jax.eval import findings, flips, results, shards
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.figures import Plot, drawn, log_k, split_line, style, to_svg
from rlvr_jax.eval.flips import UnderTwo, read_scored, under_two
from rlvr_jax.eval.results import Study, model_band
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.score import judged, write_scored
from rlvr_jax.eval.score_input import Item
from rlvr_jax.eval.tables import Linked, Table, behind
from rlvr_jax.tasks.pool import pool_of
from rlvr_jax.tasks.problem import Problem

MOST_LISTED = 200  # problems in the table of flips


@dataclasses.dataclass(frozen=True)
class TwoVerifiers:
  """Two studies of the same samples, under two verifiers named as the report calls them.

  compared: by model, pass@k under both with the paired difference (second minus first).
  """

  names: tuple[str, str]
  first: Study
  second: Study
  compared: Mapping[str, UnderTwo]


def two_verifiers(
  first: Study, second: Study, names: tuple[str, str] = ('strict', 'paper')
) -> TwoVerifiers:
  """Pairs the studies model by model.

  ValueError unless both hold the same models, headline and problems.
  """
  ours, others = ([model.name for model in study.models] for study in (first, second))
  if ours != others or first.headline != second.headline:
    raise ValueError(
      f'the studies under {names[0]} and {names[1]} are of different models: {ours} with headline '
      f'{first.headline}, {others} with {second.headline}'
    )
  ks = [k for k in first.ks.tolist() if k <= second.ks[-1]]
  compared = {
    name: under_two(first.model(name).counts, second.model(name).counts, ks=ks, level=first.level)
    for name in ours
  }
  return TwoVerifiers(names, first, second, compared)


def rescored(study: Study, files: Mapping[str, str | pathlib.Path]) -> Study:
  """The study under the verdicts that job=score gave its samples: a .jsonl by model name.

  Exact solve probabilities and early-stopped coverage belong to the first verifier and are left
  out. ValueError if a file is missing or holds other samples than the study counts.
  """
  missing = [model.name for model in study.models if model.name not in files]
  if missing:
    raise ValueError(f'no re-scored file for {", ".join(missing)}; there are {", ".join(files)}')
  models = []
  for model in study.models:
    path, counts = files[model.name], model.counts
    before, after = read_scored(path, samples=_drawn_samples(counts))
    if _numbers(before) != _numbers(counts):
      raise ValueError(
        f'{path} was not made from the samples that the study counts for {model.name}: '
        f'{len(before)} problems with {int(before.n.sum())} samples and {int(before.c.sum())} '
        f'correct there, {len(counts)}, {int(counts.n.sum())} and {int(counts.c.sum())} here; '
        'score the store again with --config.job=score'
      )
    after = dataclasses.replace(after.select(counts.problem_ids), coupling=counts.coupling)
    models.append(dataclasses.replace(model, counts=after, exact=None, reached=None))
  n = min(model.counts.smallest_n for model in models)
  return results.analyse(
    models,
    headline=study.headline,
    headline_k=min(study.headline_k, max(1, n // 4)),
    ks=[k for k in study.ks.tolist() if k <= n],
    level=study.level,
    resamples=study.resamples,
    seed=study.seed,
  )


def _drawn_samples(counts: Counts) -> int:
  """Samples of the problem with most of them, those without a verdict included."""
  if not counts.verdicts:
    return int(counts.n.max())
  return int(np.sum(list(counts.verdicts.values()), axis=0).max())


def _numbers(counts: Counts) -> dict[str, tuple[int, int]]:
  rows = zip(counts.problem_ids, counts.n.tolist(), counts.c.tolist(), strict=True)
  return {problem: (n, c) for problem, n, c in rows}


def rejudge(
  config: Config,
  workdir: pathlib.Path,
  store: SampleStore,
  models: Sequence[str],
  problems: Sequence[Problem],
  verifier: str,
) -> dict[str, pathlib.Path]:
  """Judges the stored samples of the models anew; WORKDIR/rescored/VERIFIER/MODEL.jsonl by model.

  Verdicts go through the workdir's journal, so that a second call costs no judging.
  """
  folder = workdir / 'rescored' / verifier.replace('/', '_').replace(':', '_')
  found = {}
  known = {p.id: dataclasses.replace(p, meta={**p.meta, 'verifier': verifier}) for p in problems}
  with pool_of(config.verifier, workdir) as pool:
    for model in models:
      path = folder / f'{model}.jsonl'
      items = _items(store.root / model / problems[0].task, known)
      write_scored(judged(items, pool), path, flips.Tally(0))
      found[model] = path
  return found


def _items(folder: pathlib.Path, problems: Mapping[str, Problem]) -> Iterator[Item]:
  columns = ['problem_id', 'visit', 'sample', 'text', 'verdict', 'extracted', 'reason']
  for path in shards.shard_paths(folder):
    for row in shards.read_shard(path, columns).to_pylist():
      problem = problems.get(row['problem_id'])
      if problem is not None and not row['visit']:
        text = row.pop('text')
        yield Item(row, str(path), problem, (text,), (row['verdict'],))


@drawn
def two_curves(two: TwoVerifiers) -> Plot:
  """pass@k of the headline models under each verifier, side by side on one scale."""
  figure = Figure(figsize=(7.2, 3.9), layout='constrained')
  panels = figure.subplots(1, 2, sharey=True)
  for axes, study, name in zip(panels, (two.first, two.second), two.names, strict=True):
    n = int(study.ks[-1])
    for one in study.headline:
      look, band = style(study, one), model_band(study, study.model(one))
      axes.fill_between(study.ks, band.low, band.high, color=look['color'], alpha=0.15, linewidth=0)
      split_line(axes, study.ks, band.value, n / 4, color=look['color'], label=one)
    log_k(axes, n)
    axes.set_title(f'judged by {name}', fontsize=11)
  panels[0].set_ylim(0, 1.02)
  panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  panels[0].set_ylabel('problems solved in k tries')
  panels[0].legend(loc='best')
  return Plot(
    'two_verifiers',
    'The same completions under two verifiers',
    'Nothing was sampled anew: only the verdicts differ.',
    to_svg(figure),
  )


def two_tables(two: TwoVerifiers) -> list[Table]:
  """pass@k under both with paired differences; what is said of the pair; problems that flip."""
  made = [_values(two)]
  made += [_pair(two)] if two.first.paired else []
  return [*made, _flips(two)]


def _values(two: TwoVerifiers) -> Table:
  rows = []
  for name, found in two.compared.items():
    last = int(found.ks[-1])
    for k in sorted({1, two.first.headline_k, last}):
      at = int(np.flatnonzero(found.ks == k)[0])
      value, low, high = found.difference[at]
      shown = (f'{findings.percent(v[at][0])} ({findings.ranged(*v[at][1:])})'
               for v in (found.before, found.after))  # fmt: skip
      points = f'{findings.points(value)} ({findings.points(low)} to {findings.points(high)})'
      rows.append([name, k, *shown, points])
  a, b = two.names
  return Table(
    'pass@k under both',
    ['model', 'k', a, b, f'{b} minus {a}, points'],
    rows,
    'Differences are paired: the same samples of the same problems.',
  )


def _pair(two: TwoVerifiers) -> Table:
  rows = []
  for name, study in zip(two.names, (two.first, two.second), strict=True):
    comparison = study.comparison
    cross, n = comparison.crossover, comparison.crossover.n
    where = f'none up to {n}' if cross.value is None else findings.number(cross.value)
    sizes = comparison.sets[0].sizes() if comparison.sets else {}
    last = study.ks[-1]
    value, low, high = comparison.difference_at(int(last))
    points = f'{findings.points(value)} ({findings.points(low)} to {findings.points(high)})'
    rows.append([name, where, *map(sizes.get, ('both', 'base_only', 'rl_only', 'neither')), points])
  a, b = two.first.pair
  return Table(
    'The headline pair under both',
    ['verifier', 'crossover k', 'both', f'{a} only', f'{b} only', 'neither',
     f'{b} minus {a} at pass@n, points'],
    rows,
  )  # fmt: skip


def flipped(two: TwoVerifiers) -> list[tuple[str, str, int, int, int]]:
  """(problem, model, n, correct under the first, under the second) where a verifier decides.

  Problems that only one verifier calls solved come first, then by the change of their number.
  """
  found = []
  for model in two.first.models:
    one = model.counts
    other = two.second.model(model.name).counts.select(one.problem_ids)
    rows = zip(one.problem_ids, one.n.tolist(), one.c.tolist(), other.c.tolist(), strict=True)
    found += [(problem, model.name, n, c, d) for problem, n, c, d in rows if c != d]
  return sorted(found, key=lambda row: ((row[3] > 0) == (row[4] > 0), -abs(row[3] - row[4])))


def _flips(two: TwoVerifiers) -> Table:
  found = flipped(two)
  a, b = two.names
  decided = sum((c > 0) != (d > 0) for *_, c, d in found)
  left = f' The first {MOST_LISTED} are listed.' if len(found) > MOST_LISTED else ''
  return Table(
    'Problems that flip',
    [
      'problem',
      'model',
      'samples',
      f'correct, {a}',
      f'correct, {b}',
      'solved by one verifier only',
    ],
    [
      [Linked(problem, behind(id=problem)), model, n, c, d, (c > 0) != (d > 0)]
      for problem, model, n, c, d in found[:MOST_LISTED]
    ],
    f'{len(found)} counts differ, and in {decided} of them one verifier alone calls the problem '
    f'solved.{left}',
    sortable=True,
  )


def entry(two: TwoVerifiers) -> dict[str, Any]:
  """Both boundaries for results.json."""
  both = zip(two.names, (two.first, two.second), strict=True)
  return {
    'verifiers': list(two.names),
    'models': {name: found.table() for name, found in two.compared.items()},
    'flips': [list(row) for row in flipped(two)],
    'coverage': {
      name: study.comparison.sets[0].sizes() if study.paired and study.comparison.sets else None
      for name, study in both
    },
  }
