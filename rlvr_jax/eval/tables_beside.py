"""Tables of what stands beside our numbers: printed values of the paper, and what readers found."""

from collections.abc import Mapping
from typing import Any

from rlvr_jax.eval import findings, published
from rlvr_jax.eval.published import Reference, Sets
from rlvr_jax.eval.results import Study
from rlvr_jax.eval.tables import Table, interval


def printed_table(printed: Reference, study: Study, document: Mapping[str, Any]) -> Table:
  """Our models under the printed ones, at the two k that were printed."""
  rows: list[list[Any]] = [
    [name, 'printed, one run', *(findings.percent(value) for value in values)]
    for name, values in printed.rows.items()
  ]
  for model in study.models:
    curve = document['models'][model.name]['pass_at_k']
    values = (curve.get(str(k)) for k in (1, published.K))
    rows.append([model.name, 'here', *(None if v is None else interval(v) for v in values)])
  return Table(
    f'{printed.benchmark}: printed and ours',
    ['model', 'where', 'pass@1', f'pass@{published.K}'],
    rows,
    f'Printed: Tables 2 and 3 of {published.SOURCE}, {published.K} samples a problem, without '
    'intervals.',
    sortable=True,
  )


def printed_coverage_table(printed: Sets, study: Study) -> Table | None:
  """Shares of problems that one model alone solves, printed and ours."""
  if not study.paired or not study.comparison.sets:
    return None
  found, total = study.comparison.sets[0], len(study.comparison.problem_ids)
  a, b = study.pair
  ours = [len(found.base_only) / total, len(found.rl_only) / total]
  rows: list[list[Any]] = [
    [published.SOURCE, findings.percent(printed.base_only), findings.percent(printed.rl_only)],
    [f'here: {a}, {b}', *map(findings.percent, ours)],
  ]
  note = ''
  if printed.base:
    only = [
      sorted({*x} - {*y}) for x, y in ((printed.base, printed.rl), (printed.rl, printed.base))
    ]
    lists = [', '.join(map(str, one)) or 'none' for one in only]
    note = f' Printed problems (from 0): base only {lists[0]}; RL only {lists[1]}.'
  return Table(
    f'{printed.benchmark}: problems solved by one side only',
    ['source', 'base only', 'RL only'],
    rows,
    'Printed without intervals, of other models than ours.' + note,
  )


def cot_table(cot: Mapping[str, Any]) -> Table:
  """cot_pass@k beside pass@k, by model and by who judged."""
  rows = []
  for model, by_readers in cot['models'].items():
    for who, entry in (('readers', by_readers), ('judge, corrected', by_readers.get('judge'))):
      if entry is None:
        continue
      for k, (value, upper, low, high) in entry['cot_pass_at_k'].items():
        more = f' to {findings.percent(upper)}' if upper - value > 5e-4 else ''
        shown = f'{findings.percent(value)}{more} ({findings.ranged(low, high)})'
        plain = findings.percent(by_readers['pass_at_k'][k])
        rows.append([model, who, int(k), shown, plain, interval(entry['validity'])])
  return Table(
    'cot_pass@k',
    ['model', 'judged by', 'k', 'cot_pass@k', 'pass@k', 'valid, of correct completions'],
    rows,
    'Where k reaches beyond what was read of a problem, the value is a range.',
    sortable=True,
  )
