"""The claims ledger as the report shows it: first, and whatever the ledger says."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlvr_jax.eval import findings, tables

# What of the browser shows the problems behind a claim, by its key.
_BEHIND = {
  'C1': {'sort': 'change'},
  'C2': {'set': 'base_only'},
  'C3': {'set': 'rl_only'},
}


@dataclasses.dataclass(frozen=True)
class Claim:
  """One row: verdict is supported, contradicted or undecided; lines are (name, text) pairs."""

  claim: str
  verdict: str
  result: str
  lines: tuple[tuple[str, str], ...]
  query: str = ''


def shown(document: Mapping[str, Any]) -> list[Claim]:
  """Rows of document['claims'], as eval/claims.py makes them; none where there are none."""
  paired = document['headline']['b'] is not None
  made = []
  for row in document.get('claims') or ():
    key = row.get('key', '')
    lines = (
      ('needed', row.get('needed')),
      ('measured as', row.get('estimand')),
      ('rule', row.get('rule')),
      ('margin', _number(row.get('margin'))),
      ('note', row.get('note')),
    )
    view = {**_BEHIND[key], 'k': row['k']} if paired and key in _BEHIND and 'k' in row else {}
    made.append(
      Claim(
        claim=f'{key} {row["claim"]}'.strip(),
        verdict=str(row['verdict']),
        result=str(row.get('result') or _result(row)),
        lines=tuple((name, str(text)) for name, text in lines if text not in (None, '')),
        query=tables.behind(**view) if view else '',
      )
    )
  return made


def registered(document: Mapping[str, Any]) -> str:
  """When rules and margins were written down, in a sentence; empty where that is not known."""
  found = document.get('claims_registered')
  if not found:
    return ''
  when = 'not written down before sampling'
  if found['registered']:
    when = f'written down {found["registered"]}, '
    when += 'before the first sample' if found['before_sampling'] else 'after sampling began'
  changed = '; '.join(found['changed'])
  later = f'; changed after sampling began: {changed}' if changed else ''
  return f'Rules and margins (hash {found["hash"]}): {when}{later}.'


def _result(row: Mapping[str, Any]) -> str:
  if row.get('value') is None:
    return 'not measured here'
  value, low, high = (_number(row.get(key)) for key in ('value', 'low', 'high'))
  return f'{value} ({low} to {high})' if low and high else value


def _number(value: Any) -> str:
  if isinstance(value, float):
    return findings.signed(value, 3)
  return '' if value is None else str(value)
