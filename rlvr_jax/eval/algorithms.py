"""What may be said of an algorithm: its models over training seeds, with an interval over both.

A model is one draw of its algorithm. The mean over seeds has two parts of error: which problems,
and which seeds. Each has its interval (intervals.mean_interval of the seeds' mean per problem;
Student's t over the seeds' means), and the two are combined by MOVER (Zou and Donner 2008), as for
a sum of independent parts.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from rlvr_jax.eval.intervals import RESAMPLES, Band, difference_interval, mean_interval


@dataclasses.dataclass(frozen=True)
class Algorithm:
  """One algorithm's seeds and its mean pass@k over them and over problems."""

  name: str
  seeds: tuple[int | None, ...]
  models: tuple[str, ...]
  ks: np.ndarray
  band: Band
  spread: np.ndarray  # f64[K] standard deviation over seeds


def seeds_interval(
  values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Band:
  """Interval of the mean over seeds and problems: f64[S, P, K] in [0, 1] -> Band of K points.

  With one seed it is that of the problems alone.
  """
  values = np.asarray(values, np.float64)
  problems = mean_interval(values.mean(axis=0), level=level, resamples=resamples, seed=seed)
  return _with_seeds(problems, values.mean(axis=1), level, 0.0)


def seeds_difference(
  differences: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Band:
  """The same of paired differences f64[S, P, K] in [-1, 1], both of one seed and one problem."""
  differences = np.asarray(differences, np.float64)
  problems = difference_interval(
    differences.mean(axis=0), level=level, resamples=resamples, seed=seed
  )
  return _with_seeds(problems, differences.mean(axis=1), level, -1.0)


def _with_seeds(problems: Band, means: np.ndarray, level: float, lowest: float) -> Band:
  """A band over problems, widened by the spread of the seeds' means f64[S, K]."""
  count = len(means)
  if count < 2:
    return problems
  half = stats.t.ppf((1 + level) / 2, count - 1) * means.std(axis=0, ddof=1) / np.sqrt(count)
  low = problems.value - np.hypot(problems.value - problems.low, half)
  high = problems.value + np.hypot(problems.high - problems.value, half)
  method = tuple(f'{name} + t over {count} seeds' for name in problems.method)
  return Band(problems.value, np.maximum(low, lowest), np.minimum(high, 1.0), method)


def gather(
  models: Sequence[tuple[str, str, int | None, np.ndarray]],
  ks: np.ndarray,
  *,
  level: float = 0.95,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> list[Algorithm]:
  """The algorithms among (model, algorithm, training seed, pass@k f64[P, K]), in their order."""
  names = list(dict.fromkeys(algorithm for _, algorithm, _, _ in models))
  found = []
  for name in names:
    own = [model for model in models if model[1] == name]
    values = np.stack([values for *_, values in own])
    found.append(
      Algorithm(
        name,
        tuple(seed for _, _, seed, _ in own),
        tuple(model for model, *_ in own),
        np.asarray(ks),
        seeds_interval(values, level=level, resamples=resamples, seed=seed),
        values.mean(axis=1).std(axis=0, ddof=1) if len(own) > 1 else np.zeros(len(ks)),
      )
    )
  return found
