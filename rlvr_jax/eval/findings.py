"""What the numbers say, in sentences made from them, and what they do not say."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from rlvr_jax.eval.intervals import zero_upper_bound
from rlvr_jax.eval.results import Study, model_band

SEEDS_FOR_AN_ALGORITHM = 3
AGREEMENT_Z = 4.0  # a sampled curve further than this from the exact one is an instrument fault
SIGNIFICANT = 0.05
MINUS = '\N{MINUS SIGN}'


@dataclasses.dataclass(frozen=True)
class Finding:
  """One statement.

  status: measured, a number with its interval; supported, its interval or test excludes chance;
  undecided, it does not; limit, what must not be concluded; fault, the instrument contradicts
  itself.
  """

  status: Literal['measured', 'supported', 'undecided', 'limit', 'fault']
  title: str
  text: str


def percent(value: float) -> str:
  """0.1234 -> '12.3%'."""
  return f'{100 * value:.1f}%'


def points(value: float) -> str:
  """A signed difference in percentage points, with a real minus sign and no sign on zero."""
  return signed(100 * value, 1)


def signed(value: float, digits: int) -> str:
  """A number with its sign (a real minus), none where it rounds to zero."""
  rounded = round(value, digits)
  text = f'{rounded:+.{digits}f}' if rounded else f'{0:.{digits}f}'
  return text.replace('-', MINUS)


def ranged(low: float, high: float) -> str:
  """'12.3% to 15.6%'."""
  return f'{percent(low)} to {percent(high)}'


def p_value(p: float) -> str:
  """'p = 0.012', or 'p < 0.001'."""
  return 'p < 0.001' if p < 0.001 else f'p = {p:.3f}'


def number(k: float) -> str:
  """A crossover k: whole from 10 on, one decimal below."""
  return f'{k:.0f}' if k >= 10 else f'{k:.1f}'


def findings(study: Study, document: Mapping[str, Any]) -> list[Finding]:
  """What the headline models show, most asked for first; document is what build_results made."""
  ks = sorted({1, study.headline_k})
  if study.paired:
    made = [_at(study, k) for k in ks]
    made += [_crossover(study), *_coverage(study), *_problem_tests(study)]
  else:
    made = [_single(study, ks)]
  made += _reached(study, document)
  return made + _exact(study, document) + _seeds(study) + _unscored(study)


def _single(study: Study, ks: list[int]) -> Finding:
  (name,) = study.headline
  model = study.model(name)
  band = model_band(study, model)
  values = {k: band.at(int((study.ks == k).argmax())) for k in ks}
  n, unsolved = model.counts.smallest_n, int((model.counts.c == 0).sum())
  return Finding(
    'measured',
    f'{name} solves {percent(values[1][0])} at one try',
    '; '.join(
      f'pass@{k} is {percent(v)} ({ranged(low, high)})' for k, (v, low, high) in values.items()
    )
    + f'. {unsolved} of {len(model.counts)} problems were not solved in {n} samples, which leaves '
    f'each a solve rate of up to {100 * zero_upper_bound(n, study.level):.2g}%.',
  )


def _at(study: Study, k: int) -> Finding:
  a, b = study.pair
  index = int((study.ks == k).argmax())
  first = model_band(study, study.model(a)).at(index)
  second = model_band(study, study.model(b)).at(index)
  value, low, high = study.comparison.difference_at(k)
  where = 'one try' if k == 1 else f'{k} tries'
  if low > 0:
    status, title = 'supported', f'{b} solves more than {a} with {where}'
  elif high < 0:
    status, title = 'supported', f'{b} solves less than {a} with {where}'
  else:
    status, title = 'undecided', f'With {where}, no difference between {b} and {a} is shown'
  return Finding(
    status,
    title,
    f'pass@{k} is {percent(second[0])} ({ranged(*second[1:])}) for {b} and {percent(first[0])} '
    f'({ranged(*first[1:])}) for {a}; the paired difference is {points(value)} points '
    f'({points(low)} to {points(high)}).',
  )


def _crossover(study: Study) -> Finding:
  a, b = study.pair
  found = study.comparison.crossover
  low = f'beyond {found.n}' if found.low_beyond else number(found.low)
  high = f'beyond {found.n}' if found.high_beyond else number(found.high)
  spread = f'{study.level:.0%} interval over problems: {low} to {high}'
  never = (
    f' In {found.share_no_crossing:.0%} of the resampled problem sets there is no crossover up to '
    f'{found.n}.'
    if found.share_no_crossing
    else ''
  )
  band = study.comparison.difference
  above, below = band.low > 0, band.high < 0
  if found.value is None:
    return Finding(
      'supported' if above.all() else 'undecided',
      f'{b} stays above {a} up to k = {found.n}',
      f'The mean curves do not cross within the samples ({spread}).' + never,
    )
  if found.value == 1:
    return Finding(
      'supported' if below.all() else 'undecided',
      f'{b} is above {a} at no k',
      f'Its mean pass@k does not exceed that of {a} at any k up to {found.n} ({spread}).' + never,
    )
  ks = study.comparison.ks
  settled = above[ks < found.value].any() and below[ks > found.value].any()
  late = (
    f' The crossover lies above k = {study.headline_k}, where the estimate rests on few samples.'
    if found.value > study.headline_k
    else ''
  )
  doubt = (
    ''
    if settled
    else f' That {b} is above {a} before and below it after is not shown by the paired differences.'
  )
  return Finding(
    'supported' if settled else 'undecided',
    f'From k \N{ALMOST EQUAL TO} {number(found.value)} on, {b} is no longer above {a}',
    f'Crossover of the mean pass@k curves ({spread}).' + doubt + late + never,
  )


def _coverage(study: Study) -> list[Finding]:
  a, b = study.pair
  comparison = study.comparison
  if not comparison.sets:
    return [Finding('limit', 'Coverage is not compared', f'{comparison.why_no_sets}.')]
  found = comparison.sets[0]
  size, n = found.sizes(), study.model(a).counts.smallest_n
  if found.mcnemar_p < SIGNIFICANT:
    more, fewer = (a, b) if size['base_only'] > size['rl_only'] else (b, a)
    status, title = 'supported', f'{more} reaches problems that {fewer} does not'
  else:
    status, title = 'undecided', 'Which model covers more problems is not decided'
  text = (
    f'With {n} samples a problem, {size["both"]} of {len(comparison.problem_ids)} problems are '
    f'solved at least once by both, {size["base_only"]} only by {a}, {size["rl_only"]} only by '
    f'{b}, {size["neither"]} by neither (exact McNemar test, {p_value(found.mcnemar_p)}). '
  )
  if comparison.sets_without_deciding:
    rest = comparison.sets_without_deciding[0]
    count = int(comparison.deciding.sum())
    left = f'{count} problems' if count > 1 else 'one problem'
    text += (
      f'Without the {left} that one to three samples decide, '
      f'it is {len(rest.base_only)} against {len(rest.rl_only)} ({p_value(rest.mcnemar_p)}). '
    )
  bound = zero_upper_bound(n, study.level)
  text += (
    f'Not solved does not mean impossible: zero of {n} leaves a solve rate of up to '
    f'{100 * bound:.2g}%.'
  )
  return [Finding(status, title, text)]


def _reached(study: Study, document: Mapping[str, Any]) -> list[Finding]:
  entries = [(name, document['models'][name].get('coverage_at_n')) for name in study.headline]
  if not all(entry for _, entry in entries):
    return []
  n = entries[0][1]['n']
  texts = [
    f'{name} solves {entry["problems"]["1"]} of {len(study.problem_ids)} problems at least once '
    f'({ranged(*entry["share"]["1"][1:])})'
    for name, entry in entries
  ]
  text = f'Within {n:,} draws, {"; ".join(texts)}. '
  status = 'measured'
  if study.paired:
    sets = document['comparisons'][0]['coverage_at_n'][0]
    status = 'supported' if sets['mcnemar_p'] < SIGNIFICANT else 'undecided'
    text += (
      f'{sets["base_only"]} only by {study.headline[0]}, {sets["rl_only"]} only by '
      f'{study.headline[1]} (exact McNemar test, {p_value(sets["mcnemar_p"])}). '
    )
  text += (
    f'Draws were stopped early, which leaves coverage exact; problems never solved have a solve '
    f'rate of up to {100 * entries[0][1]["zero_of_n_upper_bound"]:.2g}%.'
  )
  return [Finding(status, f'Coverage at n = {n:,}', text)]


def _problem_tests(study: Study) -> list[Finding]:
  a, b = study.pair
  tests = study.comparison.tests
  if tests is None:
    text = 'The samples share their random numbers, which these tests do not allow.'
    return [Finding('limit', 'No problem-by-problem tests', text)]
  better, worse = int(tests.better.sum()), int(tests.worse.sum())
  return [
    Finding(
      'supported' if better or worse else 'undecided',
      f'Solve rates rise on {better} problems and fall on {worse}',
      f"Fisher's exact test of {b} against {a} on each of {len(tests.p)} problems, with the share "
      f'of false discoveries held at {tests.false_discovery_rate:.0%} (Benjamini-Hochberg).',
    )
  ]


def _exact(study: Study, document: Mapping[str, Any]) -> list[Finding]:
  documents = {
    name: entry['exact'] for name, entry in document['models'].items() if 'exact' in entry
  }
  if not documents:
    return []
  zs = [entry['largest_z'] for entry in documents.values()]
  agrees = all(z is not None and z < AGREEMENT_Z for z in zs)
  k = study.headline_k
  few = list(documents) if len(documents) <= 4 else [m for m in study.headline if m in documents]
  values = ', '.join(f'{percent(documents[name]["pass_at_k"][str(k)])} for {name}' for name in few)
  worst = 'infinitely many' if None in zs else f'{max(zs):.1f}'
  made = [
    Finding(
      'supported' if agrees else 'fault',
      'Sampled and exact curves agree' if agrees else 'Sampled and exact curves disagree',
      f'Solve probabilities are known exactly here. Exact pass@{k} is {values}. The sampled curves '
      f'of {len(documents)} models lie at most {worst} standard deviations of '
      'sampling away from the exact ones.',
    )
  ]
  lost = document['comparisons'][0].get('exact_coverage') if study.paired else None
  if lost:
    a, b = study.pair
    made.append(
      Finding(
        'measured',
        f'Exactly: {lost[0]["base_only"]} problems are lost and {lost[0]["rl_only"]} gained at '
        f'{lost[0]["tries"]:,} tries',
        'Counting a problem as within reach of T tries if its exact solve probability is at least '
        '1/T: '
        + '; '.join(
          f'T = {row["tries"]:,}: {row["base_only"]} only {a}, {row["rl_only"]} only {b}, '
          f'{row["both"]} both, {row["neither"]} neither'
          for row in lost
        )
        + '.',
      )
    )
  return made


def _seeds(study: Study) -> list[Finding]:
  trained = [model for model in study.models if model.role != 'base']
  if not trained:
    return []
  found = study.algorithms()
  if found and min(len(set(one.seeds)) for one in found) >= SEEDS_FOR_AN_ALGORITHM:
    return [
      Finding(
        'limit',
        'One setting of each algorithm',
        'Lines of the table of algorithms cover the choice of problems and the chance in training '
        f'({min(len(set(one.seeds)) for one in found)} seeds or more each); they say nothing of '
        'other learning rates, tasks or sizes. Everything below it is of single trained models.',
      )
    ]
  seeds = len({model.seed for model in trained})
  have = 'one training seed' if seeds == 1 else f'{seeds} training seeds over all settings'
  return [
    Finding(
      'limit',
      'This describes trained models, not an algorithm',
      f'The intervals cover the choice of problems, not the chance in training. With {have}, these '
      f'numbers say nothing of the algorithm: that needs at least {SEEDS_FOR_AN_ALGORITHM} '
      'training seeds of the same setting and an interval over seeds and problems together.',
    )
  ]


def _unscored(study: Study) -> list[Finding]:
  parts = []
  for model in study.models:
    verdicts = {name: int(values.sum()) for name, values in model.counts.verdicts.items()}
    timeouts, errors = verdicts.get('timeout', 0), verdicts.get('error', 0)
    if timeouts or errors:
      total = sum(verdicts.values())
      parts.append(f'{model.name} {timeouts} timed out and {errors} failed of {total:,}')
  if not parts:
    return []
  return [
    Finding(
      'limit',
      'Some completions have no verdict',
      f'{"; ".join(parts)}. Time-outs count as not correct and errors are left out of n; either '
      'can move pass@k at large k.',
    )
  ]
