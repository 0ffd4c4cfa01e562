"""Further numbers of results.json: bands, reliability, support, and curves beyond n.

Bands and extrapolation are of the headline models: they cost seconds each.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from rlvr_jax.eval import bands, coverage, extrapolate, pass_at_k, reliability, support
from rlvr_jax.eval.counts import align
from rlvr_jax.eval.intervals import Band, mean_interval

if TYPE_CHECKING:  # results asks for these numbers
  from rlvr_jax.eval.results import ModelResult, Study

MOST_RESAMPLES = 2000  # enough for the 2.5th percentile; all these numbers are many
MOST_REFITS = 100


def numbers(study: 'Study') -> dict[str, Any]:
  """Keys of the document: bands, reliability, support, extrapolated; triple: [value, low, high].

  bands: {model or 'b - a': {k: triple}}, holding at all k at once. reliability: {model:
  {measure: {k or tau: triple}}}. support: of the headline pair by threshold, [] where efforts
  differ. extrapolated: {models: {name: ...}, crossover}, everything in it beyond n by a fitted
  model.
  """
  shown = [study.model(name) for name in study.headline]
  return {
    'bands': _bands(study, shown),
    'reliability': {model.name: model_reliability(study, model) for model in study.few().models},
    'support': _support(study),
    'extrapolated': _extrapolated(study, shown),
  }


def _triples(keys, band: Band) -> dict[str, list[float]]:
  return {str(key): list(band.at(i)) for i, key in enumerate(keys)}


def _bands(study: 'Study', shown: 'list[ModelResult]') -> dict[str, Any]:
  options = _options(study)
  curves = {
    model.name: pass_at_k.estimate(model.counts.n, model.counts.c, study.ks) for model in shown
  }
  found = {
    name: _triples(study.ks, bands.simultaneous_mean(values, **options))
    for name, values in curves.items()
  }
  if study.paired:
    a, b = align(*(model.counts for model in shown))
    d = pass_at_k.estimate(b.n, b.c, study.ks) - pass_at_k.estimate(a.n, a.c, study.ks)
    name = f'{study.headline[1]} - {study.headline[0]}'
    found[name] = _triples(study.ks, bands.simultaneous_difference(d, **options))
  return found


def model_reliability(study: 'Study', model: 'ModelResult') -> dict[str, Any]:
  """cover_at {tau}, cover_at_posterior {tau}, and at powers of two k: pass_power_k, g_pass_at_k
  (tau = 1/2) and mg_pass_at_k, each {k: triple}.
  """
  counts = model.counts
  ks = [2**i for i in range(1, study.headline_k.bit_length()) if 2**i <= counts.smallest_n]
  fit = extrapolate.fit(counts.n, counts.c)
  measures: dict[str, tuple[Any, np.ndarray]] = {
    'cover_at': (reliability.TAUS, reliability.covers(counts)),
    'cover_at_posterior': (reliability.TAUS[:-1], reliability.cover_chances(counts, fit)),
  }
  if ks:
    measures['pass_power_k'] = ks, reliability.pass_power_k(counts.n, counts.c, ks)
    columns = [reliability.g_pass_at_k(counts.n, counts.c, k, 0.5) for k in ks]
    measures['g_pass_at_k'] = ks, np.stack(columns, axis=1)
    columns = [reliability.mg_pass_at_k(counts.n, counts.c, k) for k in ks]
    measures['mg_pass_at_k'] = ks, np.stack(columns, axis=1)
  together = np.concatenate([values for _, values in measures.values()], axis=1)
  band = mean_interval(together, **_options(study))
  found, first = {}, 0
  for name, (keys, _) in measures.items():
    found[name] = {str(key): list(band.at(first + i)) for i, key in enumerate(keys)}
    first += len(keys)
  return found


def _options(study: 'Study') -> dict[str, Any]:
  most = min(study.resamples, MOST_RESAMPLES)
  return {'level': study.level, 'resamples': most, 'seed': study.seed}


def _support(study: 'Study') -> list[dict[str, Any]]:
  if not study.paired:
    return []
  a, b = (study.model(name).counts for name in study.headline)
  try:
    coverage.check_same_n(a, b)
  except ValueError:  # the comparison says why_no_coverage
    return []
  return [dataclasses.asdict(one) for one in support.support(a, b, **_options(study))]


def _extrapolated(study: 'Study', shown: 'list[ModelResult]') -> dict[str, Any]:
  refits = min(MOST_REFITS, study.resamples)
  options: Any = {'level': study.level, 'refits': refits, 'seed': study.seed}
  crossing = None
  if study.paired:
    a, b = (model.counts for model in shown)
    *curves, far = extrapolate.extrapolate_pair(a, b, **options)
    crossing = dataclasses.asdict(far)
  else:
    curves = [extrapolate.extrapolate(model.counts, **options) for model in shown]
  models = {model.name: _curve(found) for model, found in zip(shown, curves, strict=True)}
  return {'models': models, 'crossover': crossing}


def _curve(found: extrapolate.Extrapolation) -> dict[str, Any]:
  ends = zip(found.value, found.low, found.high, strict=True)
  return {
    'n': found.n,
    'fit': dataclasses.asdict(found.fit),
    'pass_at_k': {
      str(k): [float(x) for x in triple] for k, triple in zip(found.ks, ends, strict=True)
    },
    'raw': {
      str(k): float(raw) for k, raw in zip(found.ks, found.raw, strict=True) if np.isfinite(raw)
    },
    'beyond_n': found.ks[found.beyond].tolist(),
  }
