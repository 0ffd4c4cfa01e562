"""The tables of the report, and per-problem numbers as CSV and Parquet."""

import dataclasses
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rlvr_jax.eval import coverage, findings
from rlvr_jax.eval.intervals import beta_interval
from rlvr_jax.eval.results import Study, headline_points


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of the report. rows hold what is shown; sortable gives it clickable column heads.

  A cell is text, a number, or None (shown as a dash). caption is plain text under the title.
  """

  title: str
  columns: Sequence[str]
  rows: Sequence[Sequence[Any]]
  caption: str = ''
  sortable: bool = False

  @property
  def numbers(self) -> list[bool]:
    """Whether a column holds numbers, dashes among them or not, and is set to the right."""
    plain = [
      [cell.value if isinstance(cell, Linked) else cell for cell in row] for row in self.rows
    ]
    cells = [[row[i] for row in plain if row[i] is not None] for i in range(len(self.columns))]
    return [bool(c) and all(isinstance(x, int | float) for x in c) for c in cells]


@dataclasses.dataclass(frozen=True)
class Linked:
  """A cell that leads to the problems behind it: query is a view of the report's browser."""

  value: Any
  query: str


def behind(**view: Any) -> str:
  """The address within the report of a view of its problems (templates/browser.js).

  set: both | base_only | rl_only | neither, at min correct samples; bin: 'model:bin', verdict:
  'model:verdict', by the model's place among those shown; test: better | worse; deciding: 0 | 1;
  k, sort ('c:model', 'pass:model', 'change', 'p', ...), down: 0 | 1; id: one problem.
  """
  return f'problems?{urllib.parse.urlencode(view)}'


def show(cell: Any) -> str:
  """A cell as text: whole numbers with separators, others to 4 significant digits."""
  if isinstance(cell, Linked):
    return show(cell.value)
  if cell is None:
    return '\N{EN DASH}'
  if isinstance(cell, bool):
    return 'yes' if cell else 'no'
  if isinstance(cell, int):
    return f'{cell:,}'
  if isinstance(cell, float):
    return f'{cell:.4g}'
  return str(cell)


def interval(triple: Sequence[float]) -> str:
  value, low, high = triple
  return f'{findings.percent(value)} ({findings.ranged(low, high)})'


def pass_at_k_table(study: Study, document: Mapping[str, Any]) -> Table:
  """pass@k with intervals at the powers of two."""
  models = document['models']
  n = int(study.ks[-1])
  rows = []
  for k in headline_points(study):
    mark = ' (headline)' if k == study.headline_k else ' (above n/4)' if k > n / 4 else ''
    rows.append(
      [
        f'{k}{mark}',
        *(
          Linked(
            interval(models[m.name]['pass_at_k'][str(k)]),
            behind(k=k, sort=f'pass:{place}', down=1),
          )
          for place, m in enumerate(study.models)
        ),
      ]
    )
  return Table('pass@k', ['k', *(model.name for model in study.models)], rows)


def algorithm_table(study: Study, document: Mapping[str, Any]) -> Table | None:
  """One line an algorithm: pass@1, at the headline k and at n, over seeds and problems."""
  if not document['algorithms']:
    return None
  n = int(study.ks[-1])
  ks = sorted({1, study.headline_k, n})
  base = document['models'][study.headline[0]]['pass_at_k']
  rows: list[list[Any]] = [[study.headline[0], None, *(interval(base[str(k)]) for k in ks), None]]
  for entry in document['algorithms']:
    shown = (interval(entry['pass_at_k'][str(k)]) for k in ks)
    deviation = findings.percent(entry['seed_sd'][str(study.headline_k)])
    rows.append([entry['algorithm'], len(entry['seeds']), *shown, deviation])
  return Table(
    'Means over training seeds',
    ['algorithm', 'seeds', *(f'pass@{k}' for k in ks), f'SD over seeds, pass@{study.headline_k}'],
    rows,
    'Intervals cover the choice of problems and the chance in training '
    "(t over the seeds' means and the interval over problems, combined by MOVER); differences "
    f'between lines smaller than them are not findings. k = {n} is all the draws there are.',
    sortable=True,
  )


def comparison_table(document: Mapping[str, Any]) -> Table | None:
  """Every model against the base: differences, crossover, coverage."""
  if not document['comparisons']:
    return None
  k = str(document['headline']['k'])
  rows = []
  for entry in document['comparisons']:
    sets = entry['coverage'] or {}
    cross = entry['crossover']
    if cross['value'] is None:
      where = f'none up to {cross["n"]}'
    else:
      high = f'beyond {cross["n"]}' if cross['high_beyond'] else findings.number(cross['high'])
      low = f'beyond {cross["n"]}' if cross['low_beyond'] else findings.number(cross['low'])
      where = f'{findings.number(cross["value"])} ({low} to {high})'
    cells: list[Any] = [
      f'{findings.points(v)} ({findings.points(low)} to {findings.points(high)})'
      for v, low, high in (entry['difference']['1'], entry['difference'][k])
    ]
    names = ('base_only', 'rl_only')
    found = [*map(sets.get, names), entry.get('problems_better'), entry.get('problems_worse')]
    if (entry['a'], entry['b']) == (document['headline']['a'], document['headline']['b']):
      views = [behind(k=at, sort='change') for at in (1, k)]
      cells = [Linked(cell, view) for cell, view in zip(cells, views, strict=True)]
      views = [behind(set=name) for name in names]
      views += [behind(test=test, sort='p', k=1) for test in ('better', 'worse')]
      found = [
        None if cell is None else Linked(cell, view)
        for cell, view in zip(found, views, strict=True)
      ]
    rows.append([f'{entry["b"]} against {entry["a"]}', *cells, where, *found])
  return Table(
    'Every model against its base',
    [
      'models', 'pass@1, points', f'pass@{k}, points', 'crossover k', 'base only', 'trained only',
      'rate up', 'rate down',
    ],
    rows,
    'Differences are paired by problem, with intervals over problems. Then problems covered by one '
    'model only, and problems whose solve rate differs by the per-problem tests.',
  )  # fmt: skip


def coverage_table(study: Study) -> Table | None:
  """Coverage of the headline pair with exact tests, with and without the deciding problems."""
  if not study.paired or not study.comparison.sets:
    return None
  comparison = study.comparison
  a, b = study.pair
  rows = []
  for what, several in (
    ('all problems', comparison.sets),
    ('without deciding problems', comparison.sets_without_deciding),
  ):
    for sets in several:
      p = findings.p_value(sets.mcnemar_p)
      view: dict[str, Any] = {'min': sets.threshold}
      view |= {'deciding': 0} if several is comparison.sets_without_deciding else {}
      counted = [Linked(size, behind(set=name, **view)) for name, size in sets.sizes().items()]
      rows.append([f'≥ {sets.threshold}', what, *counted, p])
  return Table(
    'Coverage with exact paired tests',
    ['correct samples', 'problems counted', 'both', f'{a} only', f'{b} only', 'neither', 'McNemar'],
    rows,
    f'Deciding problems have one to three correct samples in either model: '
    f'{int(comparison.deciding.sum())} of {len(comparison.problem_ids)}.',
  )


def reached_table(study: Study, document: Mapping[str, Any]) -> Table | None:
  """Coverage at n of models whose draws were stopped early; None if there are none."""
  models = {m.name: document['models'][m.name].get('coverage_at_n') for m in study.models}
  known = {name: entry for name, entry in models.items() if entry}
  if not known:
    return None
  rows = []
  for threshold in next(iter(known.values()))['share']:
    cells = [
      f'{entry["problems"][threshold]} = {interval(entry["share"][threshold])}'
      for entry in known.values()
    ]
    rows.append([f'≥ {threshold}', *cells])
  entry = next(iter(known.values()))
  kept = ', '.join(f'{e["samples"]:,} samples of {name}' for name, e in known.items())
  return Table(
    f'Coverage at n = {entry["n"]:,}',
    ['correct samples', *known],
    rows,
    f'Every problem had {entry["first"]} draws, and no more once {entry["stop_after"]} of them, '
    f'counted in order, were correct: {kept}. Coverage up to that threshold is exactly that of '
    f'n = {entry["n"]:,} draws; pass@k is given for the first {entry["first"]} only.',
  )


def exact_tables(document: Mapping[str, Any]) -> list[Table]:
  """Sampled against exact pass@k of every model whose solve probabilities are known."""
  rows = [
    [
      name,
      row['k'],
      findings.percent(row['sampled']),
      findings.percent(row['exact']),
      findings.signed(100 * (row['sampled'] - row['exact']), 2),
      f'{100 * row["sd"]:.2f}',
      None if row['z'] is None else findings.signed(row['z'], 2),
    ]
    for name, entry in document['models'].items()
    if 'exact' in entry
    for row in entry['exact']['sampled_vs_exact']
  ]
  if not rows:
    return []
  return [
    Table(
      'Sampled against exact',
      ['model', 'k', 'sampled', 'exact', 'difference, points', 'SD of sampling, points', 'in SDs'],
      rows,
      'The instrument measured against enumeration: the same problems, so the only spread is that '
      'of drawing samples. Differences beyond 4 SDs would be a fault.',
    )
  ]


def histogram_table(study: Study, document: Mapping[str, Any]) -> Table:
  """Problems per accuracy bin of every model shown, each leading to them."""
  rows = [
    [
      name,
      *(
        Linked(
          document['models'][model.name]['accuracy_histogram'][at], behind(bin=f'{place}:{at}')
        )
        for place, model in enumerate(study.models)
      ),
    ]
    for at, name in enumerate(coverage.BINS)
  ]
  return Table(
    'Problems by the share of their samples that are correct',
    ['share correct', *(model.name for model in study.models)],
    rows,
  )


def verdict_table(document: Mapping[str, Any], browsed: Sequence[str] = ()) -> Table:
  """Where every sample went: verdicts, truncation, tokens. browsed: the browser's models."""
  models = document['models']
  names = list(dict.fromkeys(name for entry in models.values() for name in entry['verdicts']))

  def leading(cell: int | None, name: str, **view: str) -> Any:
    if not cell or name not in browsed:
      return cell
    place = list(browsed).index(name)
    return Linked(cell, behind(**{key: f'{place}:{value}' for key, value in view.items()}))

  rows = [
    [
      name,
      *(
        entry['verdicts'].get(verdict)
        if verdict in ('correct', 'wrong')
        else leading(entry['verdicts'].get(verdict), name, verdict=verdict)
        for verdict in names
      ),
      entry['truncated'],  # None where no finish is known
      entry['tokens'] or None,  # where no length is known
      leading(entry['never_solved'], name, bin='0'),
      f'{100 * entry["zero_of_n_upper_bound"]:.2g}%',
    ]
    for name, entry in models.items()
  ]
  return Table(
    'What became of every sample',
    ['model', *names, 'cut at the length limit', 'tokens sampled', 'problems never solved',
     'solve rate still possible there'],
    rows,
    'Time-outs count as not correct and errors are left out of n; neither is ever a silent zero.',
  )  # fmt: skip


def settings_table(study: Study) -> Table | None:
  """How each model was sampled and judged."""
  keys = list(dict.fromkeys(key for model in study.models for key in model.settings))
  if not keys:
    return None
  rows = [[key, *(model.settings.get(key) for model in study.models)] for key in keys]
  return Table('Sampling settings', ['setting', *(model.name for model in study.models)], rows)


def coverage_set(study: Study) -> dict[str, str]:
  """The set of every problem of the headline pair: both, NAME only, neither."""
  if not study.paired or not study.comparison.sets:
    return {}
  a, b = study.pair
  names = {'both': 'both', 'base_only': f'{a} only', 'rl_only': f'{b} only', 'neither': 'neither'}
  found = study.comparison.sets[0]
  return {problem: text for key, text in names.items() for problem in getattr(found, key)}


def problem_columns(study: Study) -> pa.Table:
  """One row a problem: n, c, rate and Jeffreys interval of every model, tests of the headline pair.

  Columns: problem_id; <model>.{n, c, rate, low, high[, exact]}; coverage; fisher_p, fisher_adjusted
  (where the samples are independent).
  """
  ids = study.problem_ids
  columns: dict[str, Any] = {'problem_id': list(ids)}
  for model in study.models:
    counts = model.counts.select(ids)
    low, high = beta_interval(counts.n, counts.c, study.level)
    numbers = {'n': counts.n, 'c': counts.c, 'rate': counts.rates, 'low': low, 'high': high}
    if model.exact is not None:
      numbers['exact'] = np.array([model.exact[problem] for problem in ids], np.float64)
    columns.update({f'{model.name}.{key}': values for key, values in numbers.items()})
  sets = coverage_set(study)
  if sets:
    columns['coverage'] = [sets[problem] for problem in ids]
  tests = study.comparison.tests if study.paired else None
  if tests is not None:
    columns['fisher_p'] = tests.p
    columns['fisher_adjusted'] = tests.adjusted
  return pa.table(columns)
