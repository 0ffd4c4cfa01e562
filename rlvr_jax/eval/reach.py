"""Reach: could a model, as it is sampled, have drawn this completion, and how likely is that?

Low perplexity does not say so: PPL 1.1 over 500 tokens is a probability of 10^-20.7, and under
top-p a single token outside the nucleus makes it 0. Statistics on the rows of perplexity.parquet
(perplexity.SCHEMA), whose `reach` is the total log-probability at the model's sampling settings.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from rlvr_jax.eval import perplexity
from rlvr_jax.eval.intervals import clopper_pearson, mean_interval

LEAST_EFFECTIVE = 10.0  # effective samples below which an importance estimate is refused
LIKE_LENGTH = 1.25  # completions of like length: within this factor
LEAST_PEERS = 5  # own correct completions of like length that a rank on the same problem needs


@dataclasses.dataclass(frozen=True)
class Importance:
  """A solve rate of model m from another's samples, by self-normalised weights p_m / p_other.

  value, low, high are None where it is refused, and `refused` says why. effective: (sum w)^2 / sum
  w^2. mean_weight estimates how much of m's probability the other can draw at all (at most 1):
  what is missing from 1 was not looked at, so value is the rate among what the other can draw.
  at_least: the plain (not self-normalised) mean of w * correct, whose expectation is never above
  the solve rate. correct, samples: of the other.
  """

  value: float | None
  low: float | None
  high: float | None
  effective: float
  mean_weight: float
  at_least: float
  correct: int
  samples: int
  refused: str = ''


def importance(
  log_m: np.ndarray, log_other: np.ndarray, correct: np.ndarray, *, level: float = 0.95
) -> Importance:
  """From all of one problem's samples of the other model: log-probs f64[n] and correct bool[n].

  log_m and log_other are of the same tokens, each at its model's own sampling settings (-inf in
  log_m where m cannot draw them). The interval is the wider, at either end, of the delta method's
  and of Clopper-Pearson's with `effective` trials. Refused under LEAST_EFFECTIVE. ValueError if the
  other could not have drawn one of its samples (those must be left out, see `estimates`).
  """
  log_m, log_other = np.asarray(log_m, np.float64), np.asarray(log_other, np.float64)
  right = np.asarray(correct, np.float64)
  if not len(log_m):
    raise ValueError('an importance estimate needs samples')
  if not np.isfinite(log_other).all():
    raise ValueError('a sample has no finite log-probability under the model that drew it')
  log_w = log_m - log_other
  top = float(np.max(log_w))
  n, c = len(right), int(right.sum())
  if not np.isfinite(top):
    why = 'the model can draw none of the samples'
    return Importance(None, None, None, 0.0, 0.0, 0.0, c, n, why)
  w = np.exp(log_w - top)  # against overflow
  total = float(w.sum())
  effective = total**2 / float((w**2).sum())
  scale = float(np.exp(min(top, 700.0)))  # beyond, only a wrong log-prob could be: kept finite
  mean_weight, at_least = scale * total / n, scale * float((w * right).sum()) / n
  if effective < LEAST_EFFECTIVE:
    why = f'{effective:.1f} effective samples of {n}, fewer than {LEAST_EFFECTIVE:g}'
    return Importance(None, None, None, effective, mean_weight, at_least, c, n, why)
  value = float((w * right).sum()) / total
  error = float(np.sqrt((w**2 * (right - value) ** 2).sum())) / total
  half = float(stats.norm.ppf((1 + level) / 2)) * error
  low, high = clopper_pearson(min(max(value, 0.0), 1.0) * effective, effective, level)
  return Importance(
    value,
    max(0.0, min(float(low), value - half)),
    min(1.0, max(float(high), value + half)),
    effective,
    mean_weight,
    at_least,
    c,
    n,
  )


def total_probability(reach: np.ndarray, keys: Sequence[bytes]) -> float:
  """The chance that one draw is among these completions, each distinct token sequence counted once.

  reach: log-probabilities f64[n] at the sampling settings. Of correct completions it is a lower
  bound of the model's solve rate, exact where they are all there are.
  """
  distinct = dict(zip(keys, np.asarray(reach, np.float64).tolist(), strict=True))
  return float(np.exp(list(distinct.values())).sum()) if distinct else 0.0


def drawable(rows: pa.Table) -> np.ndarray:
  """bool[n]: every token is inside what top-k and top-p leave, and the model may write so many."""
  inside = rows['first_outside'].to_numpy() < 0
  return inside & ~np.array(rows['too_long'].to_pylist(), bool)


def correct_rows(table: pa.Table) -> pa.Table:
  """The rows of reach.parquet: the correct completions, and what reach adds to their columns.

  drawable; log10_probability at the sampling settings; own_rank: the share of the model's own
  correct completions of like length (own_peers of them) that are less likely than this one by their
  tempered log-prob, ties half; of the same problem where there are LEAST_PEERS, else of all
  problems (own_scope: problem | all | '' where the model has none, and the rank is null).
  """
  rows = table.filter(pc.field('verdict') == 'correct')
  rank, peers, scope = _own_ranks(rows)
  added: dict[str, Any] = {
    'drawable': pa.array(drawable(rows), pa.bool_()),
    'log10_probability': pa.array(rows['reach'].to_numpy() / np.log(10), pa.float64()),
    'own_rank': pa.array(rank, pa.float64()),
    'own_peers': pa.array(peers, pa.int32()),
    'own_scope': pa.array(scope, pa.string()),
  }
  kept = [n for n in rows.column_names if n not in ('surprise', 'pieces', 'allowed', 'key')]
  rows = rows.select(kept)
  for name, values in added.items():
    rows = rows.append_column(name, values)
  return rows


def _own_ranks(rows: pa.Table) -> tuple[list[float | None], list[int], list[str]]:
  columns = ('model', 'author', 'task', 'problem_id', 'tokens', 'tempered')
  data = [rows[name].to_pylist() for name in columns]
  own: dict[tuple[str, str], list[tuple[str, int, float]]] = {}
  for model, author, task, problem, tokens, value in zip(*data, strict=True):
    if model == author:
      own.setdefault((model, task), []).append((problem, tokens, value))
  arrays = {
    key: (
      np.array([p for p, _, _ in found], object),
      np.array([t for _, t, _ in found], np.float64),
      np.array([v for _, _, v in found], np.float64),
    )
    for key, found in own.items()
  }
  rank: list[float | None] = []
  peers: list[int] = []
  scope: list[str] = []
  for model, _, task, problem, tokens, value in zip(*data, strict=True):
    problems, lengths, values = arrays.get(
      (model, task), (np.empty(0, object), np.empty(0), np.empty(0))
    )
    like = (lengths <= tokens * LIKE_LENGTH) & (lengths * LIKE_LENGTH >= tokens)
    same = like & (problems == problem)
    where, name = (same, 'problem') if same.sum() >= LEAST_PEERS else (like, 'all')
    count = int(where.sum())
    peers.append(count)
    scope.append(name if count else '')
    below = float((values[where] < value).sum() + 0.5 * (values[where] == value).sum())
    rank.append(below / count if count else None)
  return rank, peers, scope


@dataclasses.dataclass(frozen=True)
class ReachSummary:
  """Correct completions of one author under one model.

  drawable: mean over problems of the share that the model could have drawn, with its interval.
  inside: share of all tokens inside. log10_median: of the total probability at the sampling
  temperature, before top-k and top-p. at_edge: completions that have a token outside by less than
  floats are exact, which counts as inside. perplexity_median: for contrast, at T = 1.
  """

  model: str
  author: str
  problems: int
  completions: int
  drawable: tuple[float, float, float]
  inside: float
  log10_median: float
  at_edge: int
  perplexity_median: float


def summarise(
  table: pa.Table, model: str, author: str, *, level: float = 0.95
) -> ReachSummary | None:
  """The ReachSummary of a pair; None without a correct completion."""
  rows = perplexity.part(table, model, author, verdict='correct')
  if not len(rows):
    return None
  can = drawable(rows).astype(np.float64)
  names = np.array(rows['problem_id'].to_pylist(), object)
  shares = np.array([can[names == name].mean() for name in dict.fromkeys(names)])
  tokens = rows['tokens'].to_numpy()
  edge = np.array(rows['edge'].to_pylist(), bool)
  return ReachSummary(
    model,
    author,
    len(shares),
    len(rows),
    mean_interval(shares, level=level).at(0),
    float(rows['inside'].to_numpy().sum() / tokens.sum()),
    float(np.median(rows['tempered'].to_numpy()) / np.log(10)),
    int(edge.sum()),
    float(np.median(perplexity.perplexity(rows['logprob'].to_numpy(), tokens))),
  )


def known_probability(table: pa.Table, model: str, task: str) -> dict[str, float]:
  """Problem id -> chance that one draw of the model is a correct completion of anybody's scored.

  A lower bound of its solve rate, that needs no sample of its own; see total_probability.
  """
  rows = table.filter(
    (pc.field('verdict') == 'correct') & (pc.field('model') == model) & (pc.field('task') == task)
  )
  reach = np.where(np.array(rows['too_long'].to_pylist(), bool), -np.inf, rows['reach'].to_numpy())
  found: dict[str, tuple[list[float], list[bytes]]] = {}
  columns = zip(rows['problem_id'].to_pylist(), reach, rows['key'].to_pylist(), strict=True)
  for problem, value, key in columns:
    values, keys = found.setdefault(problem, ([], []))
    values.append(float(value))
    keys.append(key)
  return {p: total_probability(np.array(v), k) for p, (v, k) in sorted(found.items())}


def estimates(
  table: pa.Table,
  model: str,
  other: str,
  problems: Sequence[str],
  *,
  most: int = 0,
  level: float = 0.95,
) -> dict[str, Importance]:
  """Problem id -> the importance estimate of the model's solve rate from the other's samples.

  The other's completions must all have been scored under both models (draws below `most`, if it is
  set, of problems all_of in authors.choose). One that the other's own settings put outside, which
  only rounding does, is left out. Where one model had to read the text by another tokenizer the
  estimate is refused: its probability is that of one way to write it, not of the text.
  """
  under_m = _logs(perplexity.part(table, model, other), most)
  under_other = _logs(perplexity.part(table, other, other), most)
  found = {}
  for problem in problems:
    keys = sorted(under_m.get(problem, {}).keys() & under_other.get(problem, {}).keys())
    pairs = [(under_m[problem][k], under_other[problem][k]) for k in keys]
    pairs = [(m, o) for m, o in pairs if np.isfinite(o[0])]
    if pairs:
      log_m, right, other_words = (np.array(x) for x in zip(*(m for m, _ in pairs), strict=True))
      log_other = np.array([o[0] for _, o in pairs])
      estimate = importance(log_m, log_other, right, level=level)
      if other_words.any():
        why = 'the models have different tokenizers'
        estimate = dataclasses.replace(estimate, value=None, low=None, high=None, refused=why)
      found[problem] = estimate
  return found


def _logs(rows: pa.Table, most: int) -> Mapping[str, dict[int, tuple[float, bool, bool]]]:
  found: dict[str, dict[int, tuple[float, bool, bool]]] = {}
  names = ('problem_id', 'sample', 'reach', 'verdict', 'too_long', 'reencoded')
  for problem, sample, reach, verdict, long, reencoded in zip(
    *(rows[name].to_pylist() for name in names), strict=True
  ):
    if not most or sample < most:
      value = -np.inf if long else reach
      found.setdefault(problem, {})[sample] = (value, verdict == 'correct', reencoded)
  return found
