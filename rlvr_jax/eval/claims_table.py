"""The claims ledger as a table of the report."""

from collections.abc import Mapping
from typing import Any

from rlvr_jax.eval.tables import Table


def claims_table(document: Mapping[str, Any]) -> Table:
  """The five rows of document['claims'], in their order."""
  rows = [
    [
      f'{row["key"]} {row["claim"]}',
      row['verdict'] + (f': {row["needed"]}' if row['needed'] else ''),
      row['result'] + (f' ({row["note"]})' if row['note'] else ''),
      row['estimand'],
      row['rule'],
    ]
    for row in document['claims']
  ]
  found = document['claims_registered']
  when = 'not written down before sampling'
  if found['registered']:
    when = f'written down {found["registered"]}'
    when += ', before the first sample' if found['before_sampling'] else ', after sampling began'
  if found['changed']:
    when += f'; changed after sampling began: {"; ".join(found["changed"])}'
  return Table(
    'Claims',
    ['claim', 'verdict', 'measured', 'estimand', 'rule'],
    rows,
    f'Rules and margins {found["hash"]}, {when}.',
  )
