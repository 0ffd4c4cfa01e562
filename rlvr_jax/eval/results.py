"""results.json: every number of a study, in one finite JSON document (docs/design.md)."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax.eval import algorithms, coverage, exact, further, pass_at_k
from rlvr_jax.eval import claims as claims_lib
from rlvr_jax.eval.compare import Comparison, compare_counts
from rlvr_jax.eval.counts import Counts, Reached
from rlvr_jax.eval.intervals import RESAMPLES, mean_interval, zero_upper_bound

SCHEMA_VERSION = 1
MOST_DRAWN = 8  # models in one figure
NOTHING_MORE = claims_lib.Inputs()


@dataclasses.dataclass(frozen=True)
class ModelResult:
  """One measured model. name is its name in the store and the report; role what it is compared as.

  role: base | rl | distilled | instruct | teacher. algorithm, seed and step say how it came about
  (None for a base).
  exact: solve probability per problem id, where it is known. settings: how it was sampled.
  reached: coverage at n where draws were stopped early; counts are then of the first draws only.
  part: the question of a study that the model belongs to (stages.PARTS); '' is the main one. label:
  what differs from the others of its part; start: the model it was trained from.
  """

  name: str
  role: str
  counts: Counts
  algorithm: str | None = None
  seed: int | None = None
  step: int | None = None
  exact: Mapping[str, float] | None = None
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  reached: Reached | None = None
  part: str = ''
  label: str = ''
  start: str = ''

  def exact_rates(self) -> np.ndarray | None:
    """Exact solve probabilities in the order of the counts, f64[P]; None if they are not known."""
    if self.exact is None:
      return None
    missing = [problem for problem in self.counts.problem_ids if problem not in self.exact]
    if missing:
      raise ValueError(
        f'model {self.name!r}: no exact solve probability for {len(missing)} problems, '
        f'among them {missing[:5]}'
      )
    return np.array([self.exact[problem] for problem in self.counts.problem_ids], np.float64)


@dataclasses.dataclass(frozen=True)
class Study:
  """The models of a study with every comparison against the first of the headline pair.

  headline is (base, trained), or a single name where nothing is compared. claims: what the ledger
  is given beside the models.
  """

  models: tuple[ModelResult, ...]
  headline: tuple[str, ...]
  headline_k: int
  ks: np.ndarray
  comparisons: Mapping[tuple[str, str], Comparison]
  level: float
  resamples: int
  seed: int
  claims: claims_lib.Inputs = NOTHING_MORE

  def model(self, name: str) -> ModelResult:
    """The model of that name."""
    return next(model for model in self.models if model.name == name)

  @property
  def paired(self) -> bool:
    """Whether there is a headline pair to compare."""
    return len(self.headline) == 2

  @property
  def pair(self) -> tuple[str, str]:
    """The names of the headline pair."""
    a, b = self.headline
    return a, b

  @property
  def comparison(self) -> Comparison:
    """The headline pair's comparison."""
    return self.comparisons[self.pair]

  def few(self) -> 'Study':
    """The study as figures and wide tables show it: past MOST_DRAWN models the headline alone."""
    if len(self.models) <= MOST_DRAWN:
      return self
    models = tuple(model for model in self.models if model.name in self.headline)
    kept = {pair: found for pair, found in self.comparisons.items() if pair == self.headline}
    return dataclasses.replace(self, models=models, comparisons=kept)

  def algorithms(self) -> list[algorithms.Algorithm]:
    """The trained models by algorithm, where any was trained with several seeds; else none."""
    trained = [
      model
      for model in self.models
      if model.algorithm is not None and model.part in ('', 'algorithms')
    ]
    rows = [
      (
        model.name,
        str(model.algorithm),
        model.seed,
        pass_at_k.estimate(model.counts.n, model.counts.c, self.ks),
      )
      for model in trained
    ]
    found = algorithms.gather(
      rows, self.ks, level=self.level, resamples=self.resamples, seed=self.seed
    )
    return found if any(len(set(one.seeds)) > 1 for one in found) else []

  @property
  def problem_ids(self) -> tuple[str, ...]:
    """The problems, in the order of the first headline model."""
    return self.model(self.headline[0]).counts.problem_ids


def analyse(
  models: Sequence[ModelResult],
  *,
  headline: Sequence[str] = ('base', 'rl'),
  headline_k: int | None = None,
  ks: Sequence[int] | None = None,
  pairs: Sequence[tuple[str, str]] | None = None,
  level: float = 0.95,
  resamples: int = RESAMPLES,
  seed: int = 0,
  claims: claims_lib.Inputs | None = None,
) -> Study:
  """Compares the models: all numbers that the results, figures and tables are drawn from.

  headline is (base, trained), or (name,) to measure without comparing. pairs defaults to (headline
  base, every other model) if there is a pair. ks defaults to a log grid up to the smallest
  n of any problem, headline_k to the largest power of two not above n / 4; a larger headline_k is
  refused, since beyond it the estimate rests on too few samples.
  """
  names = [model.name for model in models]
  if len(set(names)) != len(names):
    raise ValueError(f'model names repeat: {names}')
  headline = tuple(headline)
  unknown = sorted(set(headline) - set(names))
  if unknown:
    raise ValueError(f'headline={headline} names {unknown}, but the models are {names}')
  if len(headline) not in (1, 2):
    raise ValueError(f'headline={headline} must name one model, or a base and a trained one')
  n = min(model.counts.smallest_n for model in models)
  quiet = pass_at_k.headline_k(n)
  headline_k = quiet if headline_k is None else headline_k
  if headline_k > max(1, n / 4):
    raise ValueError(
      f'headline_k={headline_k} is above n/4 = {n / 4:g}; draw {4 * headline_k} samples a problem '
      f'or take headline_k={quiet}'
    )
  grid = pass_at_k.k_grid(n) if ks is None else np.asarray(ks, np.int64)
  grid = np.unique(np.concatenate([grid, [1, headline_k, n]]))
  if len(headline) == 1:
    pairs = pairs or []
  else:
    others = [(headline[0], name) for name in names if name not in headline]
    pairs = [(headline[0], headline[1]), *(others if pairs is None else pairs)]
  counts = {model.name: model.counts for model in models}
  options = {'level': level, 'resamples': resamples, 'seed': seed}
  comparisons = {
    (a, b): compare_counts(counts[a], counts[b], ks=grid, headline_k=headline_k, **options)
    for a, b in dict.fromkeys(pairs)
  }
  return Study(
    tuple(models), headline, headline_k, grid, comparisons, level, resamples, seed,
    claims or NOTHING_MORE,
  )  # fmt: skip


def model_band(study: Study, model: ModelResult):
  """Band of the model's mean pass@k over study.ks."""
  values = pass_at_k.estimate(model.counts.n, model.counts.c, study.ks)
  return mean_interval(
    values, level=study.level, resamples=study.resamples, seed=study.seed
  )  # fmt: skip


def exact_curve(model: ModelResult, ks) -> dict[int, float] | None:
  """Exact mean pass@k by k; None where the solve probabilities are not known."""
  rates = model.exact_rates()
  if rates is None:
    return None
  values = pass_at_k.exact(rates, ks).mean(axis=0)
  return {int(k): float(value) for k, value in zip(ks, values, strict=True)}


def headline_points(study: Study) -> list[int]:
  """Powers of two up to n, the headline k and n: the rows of the printed tables.

  Of a grid that lacks some of the powers, all its points.
  """
  n = int(study.ks[-1])
  powers = {2**i for i in range(n.bit_length()) if 2**i <= n}
  grid = {int(k) for k in study.ks}
  return sorted({*(powers if powers <= grid else grid), study.headline_k, n})


def model_entry(study: Study, model: ModelResult) -> dict[str, Any]:
  counts, band = model.counts, model_band(study, model)
  entry: dict[str, Any] = {
    'role': model.role,
    'algorithm': model.algorithm,
    'seed': model.seed,
    'step': model.step,
    'part': model.part,
    'label': model.label,
    'start': model.start,
    'n': counts.smallest_n,
    'problems': len(counts),
    'pass_at_k': {str(k): list(band.at(i)) for i, k in enumerate(study.ks)},
    'interval_methods': {str(k): band.method[i] for i, k in enumerate(study.ks)},
    'samples': int(counts.n.sum()),
    'tokens': counts.tokens,
    'observed_tokens': counts.observed,
    'truncated': counts.truncated,
    'verdicts': {name: int(values.sum()) for name, values in counts.verdicts.items()},
    'never_solved': int((counts.c == 0).sum()),
    'zero_of_n_upper_bound': float(zero_upper_bound(counts.smallest_n, study.level)),
    'accuracy_histogram': coverage.accuracy_histogram(counts).tolist(),
    'settings': dict(model.settings),
  }
  if model.reached is not None:
    entry['coverage_at_n'] = reached_entry(study, model.reached)
  rates = model.exact_rates()
  if rates is not None:
    rows = exact.sampled_vs_exact(counts.n, counts.c, rates, headline_points(study))
    largest = max(abs(row.z) for row in rows)
    entry['exact'] = {
      'pass_at_k': {str(k): v for k, v in (exact_curve(model, study.ks) or {}).items()},
      'largest_z': largest if math.isfinite(largest) else None,
      'sampled_vs_exact': [
        {**dataclasses.asdict(row), 'z': row.z if math.isfinite(row.z) else None} for row in rows
      ],
    }
  return entry


def reached_entry(study: Study, reached: Reached) -> dict[str, Any]:
  """Coverage at n of draws that were stopped early: all that they say beyond the first ones."""
  options: Any = {'level': study.level, 'resamples': study.resamples, 'seed': study.seed}
  shares = {
    t: mean_interval(reached.covered(t), **options) for t in coverage.thresholds_of(reached)
  }
  return {
    'n': reached.n,
    'first': reached.first,
    'stop_after': reached.most,
    'share': {str(t): list(band.at(0)) for t, band in shares.items()},
    'problems': {str(t): int(reached.covered(t).sum()) for t in shares},
    'samples': int(reached.drawn.sum()),
    'tokens': reached.tokens,
    'zero_of_n_upper_bound': float(zero_upper_bound(reached.n, study.level)),
  }


def stopped_sets(study: Study, a: str, b: str) -> list[coverage.CoverageSets]:
  """Coverage sets at n where both models' draws were stopped early, else none."""
  first, second = study.model(a).reached, study.model(b).reached
  return coverage.reached_sets(first, second) if first and second else []


def crossover_triple(comparison: Comparison) -> list[float | None]:
  """[value or None, low, high]; an end beyond n is given as n (the comparison says so)."""
  found = comparison.crossover
  return [found.value, found.low, found.high]


def comparison_entry(study: Study, a: str, b: str, comparison: Comparison) -> dict[str, Any]:
  found = comparison.sets[0] if comparison.sets else None
  entry: dict[str, Any] = {
    'a': a,
    'b': b,
    'coverage': found.sizes() if found else None,
    'crossover_k': crossover_triple(comparison),
    'crossover': dataclasses.asdict(comparison.crossover),
    'difference': {
      str(k): list(comparison.difference.at(i)) for i, k in enumerate(comparison.ks)
    },
    'coverage_by_threshold': [
      {'threshold': sets.threshold, **sets.sizes(), 'mcnemar_p': sets.mcnemar_p}
      for sets in comparison.sets
    ],
    'coverage_without_deciding': [
      {'threshold': sets.threshold, **sets.sizes(), 'mcnemar_p': sets.mcnemar_p}
      for sets in comparison.sets_without_deciding
    ],
    'deciding_problems': int(comparison.deciding.sum()),
    'base_only_problems': list(found.base_only) if found else [],
    'rl_only_problems': list(found.rl_only) if found else [],
    'why_no_coverage': comparison.why_no_sets or None,
  }  # fmt: skip
  stopped = stopped_sets(study, a, b)
  if stopped:
    entry['coverage_at_n'] = [
      {'threshold': sets.threshold, **sets.sizes(), 'mcnemar_p': sets.mcnemar_p} for sets in stopped
    ]
  if comparison.tests is not None:
    entry['problems_better'] = int(comparison.tests.better.sum())
    entry['problems_worse'] = int(comparison.tests.worse.sum())
    entry['false_discovery_rate'] = comparison.tests.false_discovery_rate
  first, second = study.model(a), study.model(b).exact
  rates = first.exact_rates()
  if rates is not None and second is not None:
    ids = first.counts.problem_ids
    tries = sorted({study.headline_k, int(study.ks[-1]), 16 * int(study.ks[-1]), 10**6})
    others = np.array([second[problem] for problem in ids])
    entry['exact_coverage'] = [
      {'tries': sets.threshold, **sets.sizes(), 'base_only_problems': list(sets.base_only)}
      for sets in exact.exact_coverage(ids, rates, others, tries)
    ]
  return entry


def _algorithm_entry(found: algorithms.Algorithm) -> dict[str, Any]:
  return {
    'algorithm': found.name,
    'models': list(found.models),
    'seeds': list(found.seeds),
    'pass_at_k': {str(k): list(found.band.at(i)) for i, k in enumerate(found.ks)},
    'seed_sd': {str(k): float(found.spread[i]) for i, k in enumerate(found.ks)},
  }


def build_results(
  study: Study,
  *,
  wall_seconds: float,
  sampler_learner_gap: Mapping[str, float] | None = None,
  extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """The document of results.json. extra adds top-level keys of the caller's own.

  A NaN or infinite number anywhere raises ValueError naming its key.
  """
  entries = [
    comparison_entry(study, *pair, comparison) for pair, comparison in study.comparisons.items()
  ]
  models = {model.name: model_entry(study, model) for model in study.models}
  document: dict[str, Any] = {
    'schema_version': SCHEMA_VERSION,
    'wall_seconds': float(wall_seconds),
    'claims': claims_lib.ledger(study, study.claims),
    'claims_registered': claims_lib.registered(study),
    'headline': {
      'a': study.headline[0],
      'b': study.headline[1] if study.paired else None,
      'k': study.headline_k,
    },
    'level': study.level,
    'resamples': study.resamples,
    'models': models,
    'comparisons': entries,
    'algorithms': [_algorithm_entry(found) for found in study.algorithms()],
    'coverage': entries[0]['coverage'] if study.paired else None,
    'crossover_k': entries[0]['crossover_k'] if study.paired else None,
    'accuracy_histogram': {
      'bins': list(coverage.BINS),
      **{name: entry['accuracy_histogram'] for name, entry in models.items()},
    },
    'sampler_learner_gap': dict(sampler_learner_gap) if sampler_learner_gap else None,
    **further.numbers(study),
  }
  taken = sorted(set(extra or {}) & set(document))
  if taken:
    raise ValueError(f'extra results may not replace {taken}; choose other keys')
  document.update(extra or {})
  return finite(document)


def finite(value: Any, where: str = '') -> Any:
  """The value as plain JSON types. ValueError names the key of a number that is not finite."""
  if isinstance(value, Mapping):
    return {str(key): finite(item, f'{where}.{key}'.lstrip('.')) for key, item in value.items()}
  if isinstance(value, np.ndarray):
    value = value.tolist()
  if isinstance(value, list | tuple):
    return [finite(item, f'{where}[{index}]') for index, item in enumerate(value)]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    raise ValueError(f'results: {where} is {value}, and results.json holds finite numbers only')
  return value


def write_json(path: str | os.PathLike, document: Mapping[str, Any]) -> None:
  """Writes the document to a temporary file and renames it."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + '\n')
  temporary.replace(path)
