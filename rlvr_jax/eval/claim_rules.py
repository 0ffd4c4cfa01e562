"""How a claim is judged: intervals against thresholds, over seeds, checkpoints and algorithms."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from rlvr_jax.eval import pass_at_k
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.intervals import Band, difference_interval

if TYPE_CHECKING:
  from rlvr_jax.eval.claim_settings import Settings
  from rlvr_jax.eval.results import ModelResult, Study

Triple = tuple[float, float, float]  # value, low, high
Condition = tuple[str, Triple, float, str]  # name, triple, threshold, 'above' or 'below' it
POWER = 0.8
FAR = 100  # more problems than so many times those at hand are not worth a number


def together(verdicts: Sequence[str]) -> str:
  """All supported: supported; one contradicted: contradicted; else undecided."""
  if 'contradicted' in verdicts:
    return 'contradicted'
  return 'supported' if verdicts and set(verdicts) == {'supported'} else 'undecided'


def met(triple: Triple, threshold: float, side: str) -> str:
  """Whether the whole interval lies on the wished side of the threshold, or on the other."""
  _, low, high = triple
  above, below = low > threshold, high <= threshold
  if side == 'below':
    above, below = high < threshold, low >= threshold
  return 'supported' if above else 'contradicted' if below else 'undecided'


def judge(
  *conditions: Condition, problems: int, missing: str = '', more: str = 'problems'
) -> tuple[str, str]:
  """(verdict, what is needed) of a claim that asks for all conditions at once.

  missing: what could not be measured; without it a claim may be contradicted, never supported.
  """
  verdicts = [met(triple, threshold, side) for _, triple, threshold, side in conditions]
  verdict = together([*verdicts, *(['undecided'] if missing else [])])
  if verdict != 'undecided':
    return verdict, ''
  needs = [missing] if missing else []
  for (name, triple, threshold, _), one in zip(conditions, verdicts, strict=True):
    if one == 'undecided':
      needs.append(f'{name}: {_more(triple, threshold, problems, more)}')
  return verdict, '; '.join(needs)


def _more(triple: Triple, threshold: float, problems: int, more: str) -> str:
  """How many problems would tell the value from the threshold with a chance of 80%."""
  value, low, high = triple
  if more != 'problems':
    return f'more {more}'
  wide = (high - low) / (2 * stats.norm.ppf(0.975))
  wanted = abs(value - threshold) / (stats.norm.ppf(0.975) + stats.norm.ppf(POWER))
  times = (wide / wanted) ** 2 if wanted > 0 else np.inf
  if times > FAR:
    return f'more than {FAR} times the problems, the value being so near to {threshold:g}'
  count = max(int(np.ceil(times * problems)), problems + 1)
  return f'about {count:,} problems (80% power, if the value stays)'


def unmatched(study: 'Study', settings: 'Settings') -> str:
  """What keeps the samples from being those that the claims were written for; '' if nothing.

  A model sampled once more at another temperature (part 'temperature') is no party to them.
  """
  reasons = []
  for model in study.models:
    if model.part == 'temperature':
      continue
    temperature, verifier = model.settings.get('temperature'), model.settings.get('verifier')
    wanted = settings.temperature
    if wanted is not None and temperature is not None and abs(temperature - wanted) > 1e-6:
      reasons.append(f'samples of {model.name} at temperature {wanted:g} (there: {temperature:g})')
    name = settings.verifier.rpartition('/')[2]
    if name and verifier is not None and name.partition(':')[0] not in str(verifier):
      reasons.append(f'verdicts of {settings.verifier} for {model.name} (there: {verifier})')
    if model.counts.smallest_n < settings.k:
      reasons.append(
        f'{settings.k} samples a problem of {model.name} (there: {model.counts.smallest_n})'
      )
  shown = '; '.join(reasons[:3])
  return shown + (f'; and {len(reasons) - 3} more' if len(reasons) > 3 else '')


def final_models(
  study: 'Study', named: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list['ModelResult']], list[str]]:
  """({algorithm: its models, one a seed, at the last step}, algorithms where that is ambiguous)."""
  if named:
    return {key: [study.model(name) for name in names] for key, names in named.items()}, []
  groups: dict[str, dict[Any, list[ModelResult]]] = {}
  for model in study.models:
    if model.role == 'rl' and model.algorithm is not None:
      groups.setdefault(model.algorithm, {}).setdefault(model.seed, []).append(model)
  found, ambiguous = {}, []
  for algorithm, seeds in groups.items():
    last = []
    for models in seeds.values():
      step = max(model.step or 0 for model in models)
      ends = [model for model in models if (model.step or 0) == step]
      last += ends if len(ends) == 1 else [None]
    if None in last:
      ambiguous.append(algorithm)
    else:
      found[algorithm] = last
  return found, ambiguous


def headline_models(study: 'Study', named: Mapping[str, Sequence[str]]) -> list['ModelResult']:
  """The trained model of the headline with its other seeds; alone where they are not clear."""
  if not study.paired:
    return []
  model = study.model(study.headline[1])
  if model.role == 'distilled':
    model = next((m for m in study.models if m.role == 'rl'), None)
  if model is None or model.role != 'rl':
    return []
  groups, _ = final_models(study, named)
  for models in groups.values():
    if any(one.name == model.name for one in models):
      return models
  return [model]


def checkpoints_of(study: 'Study') -> dict[int, Counts]:
  """Step -> counts of the headline's run, the base as step 0, as far as the study has them."""
  trained = headline_models(study, {})
  if not trained:
    return {}
  own = next((m for m in trained if m.name == study.headline[-1]), trained[0])
  points = {0: study.model(study.headline[0]).counts}
  for model in study.models:
    same = (model.role, model.algorithm, model.seed) == (own.role, own.algorithm, own.seed)
    if same and model.step and model.algorithm is not None:
      if model.step in points:
        return {}  # two models claim the step: whose run it is, the caller must say
      points[model.step] = model.counts
  return points


def differences(base: Counts, trained: Sequence[Counts], k: int) -> np.ndarray:
  """pass@k of each trained model minus that of the base, by problem: f64[S, P]."""
  rows = []
  for counts in trained:
    a, b = align(base, counts)
    rows.append((pass_at_k.estimate(b.n, b.c, [k]) - pass_at_k.estimate(a.n, a.c, [k]))[:, 0])
  return np.stack(rows)


def gap(base: Counts, trained: Counts, k: int) -> np.ndarray:
  """pass@k of the base minus pass@1 of the trained model, by problem: f64[P]."""
  a, b = align(base, trained)
  return pass_at_k.estimate(a.n, a.c, [k])[:, 0] - b.rates


def over_seeds(
  values: np.ndarray, interval: Callable[..., Band], *, level: float, **options: Any
) -> Triple:
  """Mean over seeds and problems of f64[S, P] with an interval over both, as algorithms.gather."""
  count = len(values)
  value, low, high = interval(values.mean(axis=0), level=level, **options).at(0)
  if count < 2:
    return value, low, high
  means = values.mean(axis=1)
  half = float(stats.t.ppf((1 + level) / 2, count - 1) * means.std(ddof=1) / np.sqrt(count))
  return (
    value,
    value - float(np.hypot(value - low, half)),
    value + float(np.hypot(high - value, half)),
  )


def slope(points: Mapping[int, Counts], k: int, *, level: float, **options: Any) -> Triple:
  """Change of pass@k over the run on the least-squares line through its points, over problems.

  A line is fitted to each problem's estimates over steps; the mean of their slopes times the length
  of the run has the interval of a paired difference, to which it is scaled.
  """
  steps = np.array(sorted(points), np.float64)
  first = points[int(steps[0])]
  curves = []
  for step in steps:
    _, counts = align(first, points[int(step)])
    curves.append(pass_at_k.estimate(counts.n, counts.c, [k])[:, 0])
  centred = steps - steps.mean()
  weight = centred / (centred**2).sum() * (steps[-1] - steps[0])
  most = weight[weight > 0].sum()  # of a curve in [0, 1]
  changes = weight @ np.array(curves) / most
  found = difference_interval(changes, level=level, **options).at(0)
  value, low, high = (float(most * x) for x in found)
  return value, low, high


def by_problem(problem_ids: Sequence[str], values: np.ndarray) -> np.ndarray:
  """Means of values f64[N] over each problem's entries: f64[problems]."""
  _, where = np.unique(np.asarray(problem_ids, dtype=str), return_inverse=True)
  return np.bincount(where, values) / np.bincount(where)


def variance_ratio(
  groups: Sequence[np.ndarray], level: float = 0.95
) -> tuple[Triple, dict[str, float]]:
  """Between-algorithm over between-seed variance with its interval, and both SDs.

  One-way random effects over f64[seeds] of each algorithm: (F - 1) / n0 with F the ratio of mean
  squares, ends by the F distribution (exact for equal seeds and normal errors; n0 else is the usual
  effective number of seeds). ValueError if all seeds of all algorithms agree.
  """
  sizes = np.array([len(group) for group in groups], np.float64)
  total, count = sizes.sum(), len(groups)
  means = np.array([group.mean() for group in groups])
  grand = (sizes * means).sum() / total
  between = float((sizes * (means - grand) ** 2).sum() / (count - 1))
  within = float(sum(((group - group.mean()) ** 2).sum() for group in groups) / (total - count))
  if within <= 0:
    raise ValueError(
      'all training seeds of every algorithm have the same pass@1: they are no independent runs'
    )
  n0 = (total - (sizes**2).sum() / total) / (count - 1)
  freedom = (count - 1, total - count)
  tail = (1 - level) / 2
  ratio = between / within
  value = max(0.0, (ratio - 1) / n0)
  low = max(0.0, (ratio / stats.f.ppf(1 - tail, *freedom) - 1) / n0)
  high = max(0.0, (ratio / stats.f.ppf(tail, *freedom) - 1) / n0)
  sds = {
    'between_sd': float(np.sqrt(max(0.0, (between - within) / n0))),
    'seed_sd': float(np.sqrt(within)),
    'f': float(ratio),
    'p': float(stats.f.sf(ratio, *freedom)),
  }
  return (float(value), float(low), float(high)), sds
