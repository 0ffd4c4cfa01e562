"""job=power: how small a difference of pass@k a study would show, before it is paid for. No jax."""

import dataclasses
import json
import pathlib
from typing import Any

from rich.console import Console
from rich.table import Table

from rlvr_jax.config import Config
from rlvr_jax.eval import agree, compare_stores, planner
from rlvr_jax.eval.counts import align


def power_job(config: Config, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Prints the table of power.* and writes it as WORKDIR/power.json.

  The pilot is config.stores (two of them, on the same problems) or, without any, two Betas of solve
  rates. ValueError for stores that are not a pair and for sizes that make no plan.
  """
  p = config.power
  pilot, said = _pilot(config, workdir)
  found = planner.plan(
    pilot,
    _positive('problems', p.problems),
    _positive('n', p.n),
    _positive('ks', p.ks),
    seeds=_positive('seeds', p.seeds),
    seed_sd=p.seed_sd,
    level=config.evaluate.confidence,
    power=p.chance,
  )
  if not found:
    raise ValueError(f'power.ks={tuple(p.ks)}: every k is above every n of power.n={tuple(p.n)}')
  table = Table(title=f'Smallest difference of pass@k shown with {p.chance:.0%} power ({said})')
  for column in ('k', 'problems', 'samples of each', 'seeds', 'completions', 'points'):
    table.add_column(column, justify='right')
  for one in found:
    completions = one.problems * one.n * (1 + one.seeds)
    table.add_row(
      str(one.k), f'{one.problems:,}', f'{one.n:,}', str(one.seeds), f'{completions:,}',
      f'{100 * one.detectable:.1f}',
    )  # fmt: skip
  Console().print(table)
  rows = [dataclasses.asdict(one) for one in found]
  document = {'pilot': said, 'chance': p.chance, 'seed_sd': p.seed_sd, 'plans': rows}
  (workdir / 'power.json').write_text(json.dumps(document, indent=1) + '\n')
  return rows


def _pilot(config: Config, workdir: pathlib.Path) -> tuple[planner.Pilot, str]:
  """(pilot, what it was made of)."""
  p = config.power
  given = [one.strip() for one in config.stores.split(',') if one.strip()]
  if not given:
    a, b = (_beta(key, p[key]) for key in ('base', 'trained'))
    pilot = planner.pilot_of_betas(a, b, agreement=p.agreement)
    return pilot, f'solve rates from Beta{a} and Beta{b}'
  if len(given) != 2:
    raise ValueError(f'stores={config.stores!r}: a pilot is two stores, of base and trained model')
  a, b = compare_stores.open_all(config, workdir)
  agree.check_copies([a, b])
  common = [problem for problem in a.counts.problem_ids if problem in set(b.counts.problem_ids)]
  if not common:
    raise ValueError(f'stores={config.stores!r}: the two have no problem in common')
  counts = align(a.counts.select(common), b.counts.select(common))
  smallest = min(one.smallest_n for one in counts)
  known = [k for k in p.ks if k <= smallest]  # beyond, the fitted rates say how problems differ
  said = f'from {a.name} and {b.name}'
  if len(common) < max(len(a.counts), len(b.counts)):
    said += f', on the {len(common)} problems that both have'
  return planner.pilot_of_counts(*counts, known), said


def _beta(key: str, given: Any) -> tuple[float, float]:
  values = tuple(float(x) for x in given)
  if len(values) != 2 or min(values) <= 0:
    raise ValueError(f'power.{key}={tuple(given)}: a Beta has two positive numbers, as (0.3, 0.7)')
  return values


def _positive(key: str, given: Any) -> list[int]:
  values = [int(x) for x in given]
  if not values or min(values) < 1:
    raise ValueError(f'power.{key}={tuple(given)}: one or more positive whole numbers')
  return values
