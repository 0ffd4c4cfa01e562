"""The claims ledger: five claims of arXiv 2504.13837, each with a rule made before the numbers.

A row says what is estimated, by which rule and margin it is judged, what came out with its
interval, and the verdict: supported or contradicted where the interval leaves no doubt by the rule,
else undecided with what is needed. Nothing but the measured numbers and the rule decides.

  C1 sharpens   D(1) > 0 and D(k_max) < -sharpen
  C2 shrinks    net loss of covered problems > shrink, and pass@k_max falls over checkpoints
  C3 paths      what RL writes correctly the base can draw (reach), and it solves what RL solves
  C4 expands    D(k) > expand for distillation at every k up to k_max at once
  C5 alike      between-algorithm / between-seed variance <= alike, and far from the limit
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlvr_jax.eval import bands, claim_rules, coverage, pass_at_k
from rlvr_jax.eval.claim_rules import Triple
from rlvr_jax.eval.claim_settings import Registration, Settings
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.intervals import difference_interval, mean_interval

if TYPE_CHECKING:  # results asks for the ledger
  from rlvr_jax.eval.results import ModelResult, Study

SEEDS = 3  # of every algorithm, before anything is said of algorithms
POINTS = 3  # of a run (its start among them), before a slope is taken
OWN_TAIL = 0.025  # a completion less likely than all but so many of the base's own is out of range


@dataclasses.dataclass(frozen=True)
class Reach:
  """Correct completions of a trained model under its base at the base's sampling settings.

  Of each of N completions: problem_ids; drawable bool[N], no token lies outside what top-p and
  top-k leave; own_rank f64[N], the share of the base's own correct completions of like length that
  are less likely (NaN where there are none). truncates: whether top-p < 1 or top-k > 0; if not,
  everything is drawable by construction and says nothing. The rows of eval/reach.py have these
  columns.
  """

  problem_ids: Sequence[str]
  drawable: np.ndarray
  own_rank: np.ndarray
  truncates: bool


def read_reach(
  path: str | os.PathLike, model: str, author: str, *, truncates: bool
) -> Reach | None:
  """The rows of a reach.parquet of the author's completions under the model; None without any."""
  pair = (pc.field('model') == model) & (pc.field('author') == author)
  rows = pq.read_table(path, columns=['problem_id', 'drawable', 'own_rank'], filters=pair)
  if not len(rows):
    return None
  return Reach(
    rows['problem_id'].to_pylist(),
    np.array(rows['drawable'].to_pylist(), bool),
    np.array([np.nan if x is None else x for x in rows['own_rank'].to_pylist()], np.float64),
    truncates,
  )


@dataclasses.dataclass(frozen=True)
class Inputs:
  """What the ledger needs beside the models of a study; what is empty is looked for there.

  distilled: names of distilled models (default: those of that role). checkpoints: step -> counts of
  the headline run, its start as 0 (default: the study's models of its algorithm and seed, the base
  as 0). algorithms: algorithm -> names of its models, one a seed (default: the trained models by
  algorithm, at their last step).
  """

  settings: Settings | None = None
  registration: Registration | None = None
  reach: Reach | None = None
  distilled: tuple[str, ...] = ()
  checkpoints: Mapping[int, Counts] = dataclasses.field(default_factory=dict)
  algorithms: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the ledger. value, low, high: the number that decides most (None: not measured).

  numbers: all that was measured, triples as [value, low, high]. needed: empty unless undecided.
  """

  key: str
  claim: str
  estimand: str
  rule: str
  margin: float
  verdict: str
  result: str
  value: float | None = None
  low: float | None = None
  high: float | None = None
  numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  needed: str = ''
  note: str = ''


TEXTS = {
  'C1': (
    'RLVR sharpens: better at one try, worse at many',
    'D(k) = pass@k after RL minus that of the base, paired by problem, at k = 1 and k_max = {k}',
    'D(1) > 0 and D({k}) < -{sharpen:g}, both with their intervals',
  ),
  'C2': (
    'RLVR shrinks the set of solvable problems',
    'share of problems covered by the base only less that by the trained model only, and slope of '
    'pass@{k} over the checkpoints of the run',
    'net loss > {shrink:g} and slope < 0, both with their intervals',
  ),
  'C3': (
    'Its reasoning paths exist in the base',
    "share of the trained model's correct completions that the base can draw at its sampling "
    'settings, and share of the problems it covers that the base covers too',
    'every share > {reach:g} with its interval; where nothing is truncated, drawable says nothing '
    "and completions must lie in the range of the base's own",
  ),
  'C4': (
    'Distillation expands the boundary',
    'D(k) = pass@k of the distilled model minus that of the base, at every k from 1 to {k}',
    'simultaneous band of D(k) > {expand:g} at every k',
  ),
  'C5': (
    'Algorithms are alike and far from the limit',
    'variance of pass@1 between algorithms over that between seeds; gap between pass@{k} of the '
    'base and pass@1 after training',
    'variance ratio <= {alike:g} and every gap > {gap:g}, with their intervals',
  ),
}
MARGINS = {'C1': 'sharpen', 'C2': 'shrink', 'C3': 'reach', 'C4': 'expand', 'C5': 'alike'}


def ledger(study: 'Study', inputs: Inputs | None = None) -> list[dict[str, Any]]:
  """The five rows, as JSON values."""
  inputs = inputs or Inputs()
  settings, digest = settings_in_use(study, inputs)
  why = claim_rules.unmatched(study, settings)
  note = inputs.registration.note if inputs.registration else ''
  rows = []
  for key, judge in JUDGES.items():
    row = _row(key, settings, needed=why) if why else judge(study, settings, inputs)
    row = dataclasses.replace(row, note='; '.join(filter(None, (row.note, note))))
    rows.append({**dataclasses.asdict(row), 'k': settings.k, 'settings_hash': digest})
  return rows


def settings_in_use(study: 'Study', inputs: Inputs) -> tuple[Settings, str]:
  """(settings, their hash as it was written down); k = 0 left k to the study's headline."""
  given = inputs.settings or Settings(k=study.headline_k, level=study.level)
  return dataclasses.replace(given, k=given.k or study.headline_k), given.hash


def registered(study: 'Study') -> dict[str, Any]:
  """The settings the rows were judged by, their hash, and when they were written down."""
  settings, digest = settings_in_use(study, study.claims)
  found = study.claims.registration
  return {
    'settings': dataclasses.asdict(settings),
    'hash': digest,
    'registered': found.registered if found else None,
    'before_sampling': found.before_sampling if found else None,
    'changed': list(found.changed) if found else [],
  }


def _row(
  key: str,
  settings: Settings,
  verdict: str = 'undecided',
  result: str = 'not measured',
  main: Triple | None = None,
  **more: Any,
) -> Row:
  claim, estimand, rule = (text.format(**dataclasses.asdict(settings)) for text in TEXTS[key])
  margin = getattr(settings, MARGINS[key])
  value, low, high = main or (None, None, None)
  return Row(key, claim, estimand, rule, margin, verdict, result, value, low, high, **more)


def sharpens(study: 'Study', settings: Settings, inputs: Inputs) -> Row:
  """C1: D(1) > 0 and D(k_max) < -sharpen."""
  trained = claim_rules.headline_models(study, inputs.algorithms)
  if not trained:
    return _row('C1', settings, needed='a base and a model trained from it by RL')
  base = study.model(study.headline[0]).counts
  at = {}
  for k in (1, settings.k):
    d = claim_rules.differences(base, [m.counts for m in trained], k)
    at[k] = claim_rules.over_seeds(d, difference_interval, **_options(study, settings))
  first, last = at[1], at[settings.k]
  verdict, needed = claim_rules.judge(
    ('D(1)', first, 0.0, 'above'),
    (f'D({settings.k})', last, -settings.sharpen, 'below'),
    problems=len(base),
  )
  cross = study.comparisons.get((study.headline[0], study.headline[-1]))
  numbers = {'difference_1': first, 'difference_k': last, 'seeds': len(trained)}
  text = f'D(1) = {_points(first)}; D({settings.k}) = {_points(last)} points'
  if cross is not None:
    found = cross.crossover
    numbers['crossover'] = dataclasses.asdict(found)
    text += (
      f'; no crossover up to k = {found.n}'
      if found.value is None
      else f'; k* = {found.value:.1f} ({found.low:.1f} to '
      f'{"beyond " if found.high_beyond else ""}{found.high:.1f})'
    )
  return _row('C1', settings, verdict, text, last, numbers=numbers, needed=needed,
              note=_seed_note(trained))  # fmt: skip


def shrinks(study: 'Study', settings: Settings, inputs: Inputs) -> Row:
  """C2: net loss of covered problems, and the slope of pass@k_max over checkpoints."""
  trained = claim_rules.headline_models(study, inputs.algorithms)
  if not trained:
    return _row('C2', settings, needed='a base and a model trained from it by RL')
  base = study.model(study.headline[0]).counts
  pairs = [align(base, m.counts) for m in trained]
  try:
    for a, b in pairs:
      coverage.check_same_n(a, b)
  except ValueError as error:
    return _row('C2', settings, needed=str(error))
  loss = np.stack([(a.c > 0).astype(float) - (b.c > 0) for a, b in pairs])
  net = claim_rules.over_seeds(loss, difference_interval, **_options(study, settings))
  only_base = float((loss > 0).sum(axis=1).mean())
  only_rl = float((loss < 0).sum(axis=1).mean())
  text = (
    f'with n = {base.smallest_n} samples {only_base:.3g} problems are covered by the base only and '
    f'{only_rl:.3g} by the trained model only, of {len(base)}: net loss {_points(net)} points'
  )
  numbers: dict[str, Any] = {'base_only': only_base, 'rl_only': only_rl, 'net_loss': net}
  conditions = [('net loss', net, settings.shrink, 'above')]
  points = inputs.checkpoints or claim_rules.checkpoints_of(study)
  missing = ''
  if len(points) >= POINTS:
    slope = claim_rules.slope(points, settings.k, **_options(study, settings))
    numbers |= {'slope_over_run': slope, 'steps': sorted(points)}
    conditions.append(('slope over the run', slope, 0.0, 'below'))
    text += (
      f'; over steps {min(points)} to {max(points)} pass@{settings.k} changes by '
      f'{_points(slope)} points on a straight line'
    )
  else:
    missing = f'pass@{settings.k} at {POINTS} or more points of the run, its start among them'
  verdict, needed = claim_rules.judge(*conditions, problems=len(base), missing=missing)
  return _row('C2', settings, verdict, text, net, numbers=numbers, needed=needed,
              note=_seed_note(trained))  # fmt: skip


def paths(study: 'Study', settings: Settings, inputs: Inputs) -> Row:
  """C3: reach of the trained model's correct completions under the base."""
  trained = claim_rules.headline_models(study, inputs.algorithms)
  if not trained:
    return _row('C3', settings, needed='a base and a model trained from it by RL')
  name = study.headline[-1]
  own = next((m for m in trained if m.name == name), trained[0])
  base, rl = align(study.model(study.headline[0]).counts, own.counts)
  options = _options(study, settings)
  numbers: dict[str, Any] = {}
  conditions, parts, missing = [], [], []
  if (rl.c > 0).any():
    kept = mean_interval((base.c > 0)[rl.c > 0].astype(float), **options).at(0)
    numbers['covered_by_base'] = kept
    conditions.append(('problems the base covers too', kept, settings.reach, 'above'))
    parts.append(f'the base covers {_share(kept)} of the problems that {own.name} covers')
  else:
    missing.append(f'problems that {own.name} solves')
  reach, main = inputs.reach, None
  if reach is None or not len(reach.problem_ids):
    missing.append(f"reach of {own.name}'s correct completions under the base (job=perplexity)")
  else:
    drawable = claim_rules.by_problem(reach.problem_ids, np.asarray(reach.drawable, float))
    numbers['drawable'] = main = mean_interval(drawable, **options).at(0)
    parts.append(f'the base can draw {_share(main)} of its correct completions')
    if reach.truncates:
      conditions.append(('drawable completions', main, settings.reach, 'above'))
    else:
      parts[-1] += ' (by construction: nothing is truncated)'
      rank = np.asarray(reach.own_rank, float)
      known = np.isfinite(rank)
      if known.any():
        ids = [p for p, there in zip(reach.problem_ids, known, strict=True) if there]
        shares = claim_rules.by_problem(ids, (rank[known] >= OWN_TAIL).astype(float))
        numbers['in_range'] = main = mean_interval(shares, **options).at(0)
        conditions.append(("completions in the base's range", main, settings.reach, 'above'))
        parts.append(f"{_share(main)} of them lie in the range of the base's own")
      else:
        missing.append("correct completions of the base of like length, to rank RL's among")
  verdict, needed = claim_rules.judge(*conditions, problems=len(base), missing='; '.join(missing))
  return _row('C3', settings, verdict, '; '.join(parts) or 'not measured', main,
              numbers=numbers, needed=needed, note=_seed_note([own]))  # fmt: skip


def expands(study: 'Study', settings: Settings, inputs: Inputs) -> Row:
  """C4: the whole band of D(k) of every distilled model lies above the margin."""
  names = inputs.distilled or tuple(m.name for m in study.models if m.role == 'distilled')
  if not names:
    return _row('C4', settings, needed='a model distilled from a stronger teacher, from this base')
  base = study.model(study.headline[0]).counts
  ks = np.union1d(study.ks[study.ks <= settings.k], [1, settings.k]).astype(np.int64)
  numbers, parts, verdicts, lowest = {}, [], [], None
  for name in names:
    a, b = align(base, study.model(name).counts)
    d = pass_at_k.estimate(b.n, b.c, ks) - pass_at_k.estimate(a.n, a.c, ks)
    band = bands.simultaneous_difference(d, **_options(study, settings))
    above, below = band.low > settings.expand, band.high <= settings.expand
    verdicts.append('supported' if above.all() else 'contradicted' if below.any() else 'undecided')
    worst = int(np.argmin(band.high) if below.any() else np.argmin(band.low))
    numbers[name] = {'least': band.at(worst), 'at_k': int(ks[worst]), 'above': int(above.sum())}
    parts.append(
      f'{name}: D(k) > {settings.expand:g} is shown at {int(above.sum())} of {len(ks)} k; least '
      f'certain at k = {ks[worst]}: {_points(band.at(worst))} points'
    )
    if lowest is None or band.at(worst)[1] < lowest[1]:
      lowest = band.at(worst)
  verdict = claim_rules.together(verdicts)
  needed = ''
  if verdict == 'undecided':
    needed = 'more problems, or harder ones: the two are not told apart where both are near 1'
  return _row('C4', settings, verdict, '; '.join(parts), lowest, numbers=numbers, needed=needed)


def alike(study: 'Study', settings: Settings, inputs: Inputs) -> Row:
  """C5: variance of pass@1 between algorithms against seeds, and the gap to the base's pass@k."""
  groups, ambiguous = claim_rules.final_models(study, inputs.algorithms)
  enough = {name: found for name, found in groups.items() if len(found) >= SEEDS}
  if len(enough) < 2:
    have = ', '.join(f'{name} {len(found)}' for name, found in groups.items()) or 'none'
    needed = f'at least two algorithms with {SEEDS} training seeds each (here: {have})'
    if ambiguous:
      needed += (
        f'; {", ".join(ambiguous)}: several models share algorithm and seed, name one a seed'
      )
    return _row('C5', settings, needed=needed)
  base = study.model(study.headline[0]).counts
  means = {
    name: np.array([align(base, m.counts)[1].rates.mean() for m in found])
    for name, found in enough.items()
  }
  ratio, parts = claim_rules.variance_ratio(list(means.values()), settings.level)
  gaps = {}
  for name, found in enough.items():
    d = np.stack([claim_rules.gap(base, m.counts, settings.k) for m in found])
    gaps[name] = claim_rules.over_seeds(d, difference_interval, **_options(study, settings))
  nearest = min(gaps, key=lambda name: gaps[name][0])
  verdict, needed = claim_rules.judge(
    ('variance ratio', ratio, settings.alike, 'below'),
    *((f'gap of {name}', gap, settings.gap, 'above') for name, gap in gaps.items()),
    problems=len(base),
    more='seeds or algorithms',
  )
  text = (
    f'between-algorithm SD {100 * parts["between_sd"]:.2f} points, between-seed SD '
    f'{100 * parts["seed_sd"]:.2f} points, variance ratio {ratio[0]:.2f} ({ratio[1]:.2f} to '
    f'{ratio[2]:.2f}); smallest gap to pass@{settings.k} of the base: {_points(gaps[nearest])} '
    f'points ({nearest})'
  )
  numbers = {
    'variance_ratio': ratio,
    **parts,
    'gaps': gaps,
    'seeds': {name: len(found) for name, found in enough.items()},
    'left_out': sorted((set(groups) | set(ambiguous)) - set(enough)),
  }
  return _row('C5', settings, verdict, text, ratio, numbers=numbers, needed=needed)


JUDGES = {'C1': sharpens, 'C2': shrinks, 'C3': paths, 'C4': expands, 'C5': alike}


def _options(study: 'Study', settings: Settings) -> dict[str, Any]:
  return {'level': settings.level, 'resamples': study.resamples, 'seed': study.seed}


def _seed_note(trained: 'Sequence[ModelResult]') -> str:
  seeds = len(trained)
  return (
    f'over {seeds} training seeds'
    if seeds >= SEEDS
    else f'of this trained model; nothing is said of its algorithm without {SEEDS} training seeds'
  )


def _points(triple: Triple) -> str:
  value, low, high = (f'{100 * x:+.1f}'.replace('-', '\N{MINUS SIGN}') for x in triple)
  return f'{value} ({low} to {high})'


def _share(triple: Triple) -> str:
  value, low, high = (f'{100 * x:.1f}%' for x in triple)
  return f'{value} ({low} to {high})'
