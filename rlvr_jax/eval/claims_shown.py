"""The claims ledger as the report shows it: first, and whatever the ledger says."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax.eval import findings, tables

# Where a claim's problems are found in the browser, by the claim's place in the ledger.
_BEHIND = {
  0: {'sort': 'change', 'min': 1},
  1: {'set': 'base_only'},
  2: {'set': 'rl_only'},
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
  """Rows of document['claims'] (claim, estimand, rule, margin, value, low, high, verdict, needed).

  Empty where the study makes no claims.
  """
  paired = document['headline']['b'] is not None
  made = []
  for place, row in enumerate(document.get('claims') or ()):
    lines = [
      ('measured as', row.get('estimand')),
      ('rule', row.get('rule')),
      ('margin', _number(row.get('margin'))),
      ('needed', row.get('needed')),
    ]
    made.append(
      Claim(
        claim=str(row['claim']),
        verdict=str(row['verdict']),
        result=_result(row),
        lines=tuple((name, str(text)) for name, text in lines if text not in (None, '')),
        query=tables.behind(**_BEHIND[place]) if paired and place in _BEHIND else '',
      )
    )
  return made


def _result(row: Mapping[str, Any]) -> str:
  ends: Sequence[Any] = [row.get(key) for key in ('value', 'low', 'high')]
  if ends[0] is None:
    return 'not measured here'
  value, low, high = map(_number, ends)
  return f'{value} ({low} to {high})' if low and high else str(value)


def _number(value: Any) -> str:
  if value is None:
    return ''
  if isinstance(value, bool | str):
    return str(value)
  return findings.signed(float(value), 3) if isinstance(value, float) else str(value)
