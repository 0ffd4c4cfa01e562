"""Perplexity of completions under models: PPL_m(Y|x) = exp(-1/T sum_t log P_m(y_t | x, y_<t)).

arXiv 2504.13837, section 4.1 and Figure 6. Statistics on the rows of perplexity.parquet (columns
below); what scored them is likelihood.py. T counts the tokens of the completion under the model's
own tokenizer, its stop token included, at temperature 1.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

# perplexity.parquet: a row a completion and model
SCHEMA = pa.schema(
  [
    pa.field('model', pa.string(), nullable=False),
    pa.field('author', pa.string(), nullable=False),
    pa.field('task', pa.string(), nullable=False),
    pa.field('problem_id', pa.string(), nullable=False),
    pa.field('sample', pa.int32(), nullable=False),
    pa.field('verdict', pa.string(), nullable=False),
    pa.field('finish', pa.string(), nullable=False),
    pa.field('tokens', pa.int32(), nullable=False),  # scored, under the model's tokenizer
    pa.field('bytes', pa.int32(), nullable=False),  # of the text in UTF-8
    pa.field('reencoded', pa.bool_(), nullable=False),  # the text, by another tokenizer
    pa.field('logprob', pa.float64(), nullable=False),  # sum over the tokens at T = 1, nats
    pa.field(
      'entropy', pa.float64(), nullable=False
    ),  # mean of the model's along the tokens, T = 1
    # at the model's sampling settings; -inf where it cannot be drawn
    pa.field('reach', pa.float64(), nullable=False),
    pa.field('tempered', pa.float64(), nullable=False),  # the same before top-k and top-p
    pa.field('inside', pa.int32(), nullable=False),  # tokens that top-k and top-p leave
    pa.field('first_outside', pa.int32(), nullable=False),  # index of a token, -1: none
    pa.field('outside_text', pa.string(), nullable=False),
    pa.field('outside_rank', pa.int32(), nullable=False),  # tokens that are likelier there
    pa.field('outside_mass', pa.float64(), nullable=False),  # their mass
    pa.field('edge', pa.bool_(), nullable=False),  # outside by less than floats are exact
    pa.field('too_long', pa.bool_(), nullable=False),  # beyond the model's max_tokens
    pa.field('key', pa.binary(), nullable=False),  # 16 bytes that stand for the tokens scored
    pa.field('sampler_gap', pa.float64()),  # own completions: recorded minus scored log-prob, nats
    # of completions that are shown: each token's -log P at T = 1, its text, whether it is inside
    pa.field('surprise', pa.list_(pa.float32())),
    pa.field('pieces', pa.list_(pa.string())),
    pa.field('allowed', pa.list_(pa.bool_())),
  ]
)


@dataclasses.dataclass(frozen=True)
class Summary:
  """PPL of one author's completions under one model, over problems.

  value is the geometric mean over problems of each problem's geometric mean, low and high its
  t-interval over problems (None with one problem). median, lower, upper: quartiles over all
  completions. bits_per_byte: all bits over all bytes, to compare models of different tokenizers.
  """

  model: str
  author: str
  problems: int
  completions: int
  value: float
  low: float | None
  high: float | None
  median: float
  lower: float
  upper: float
  bits_per_byte: float | None
  entropy: float


def perplexity(logprob: Any, tokens: Any) -> np.ndarray:
  """exp(-logprob / tokens), f64."""
  return np.exp(-np.asarray(logprob, np.float64) / np.asarray(tokens, np.float64))


def bits_per_byte(logprob: Any, size: Any) -> float | None:
  """-sum logprob / ln 2 over the sum of UTF-8 bytes; None where there are no bytes.

  The stop token's bits count, its text has no bytes: a completion's end is information too.
  """
  total = float(np.sum(np.asarray(size, np.float64)))
  if total <= 0:
    return None
  return float(-np.sum(np.asarray(logprob, np.float64)) / np.log(2) / total)


def pairs(table: pa.Table) -> list[tuple[str, str]]:
  """(model, author) of every row, each once, in order."""
  names = zip(table['model'].to_pylist(), table['author'].to_pylist(), strict=True)
  return list(dict.fromkeys(names))


def part(table: pa.Table, model: str, author: str, *, verdict: str = '') -> pa.Table:
  """The rows of one model and author, and of one verdict if it is given."""
  names = zip(
    table['model'].to_pylist(),
    table['author'].to_pylist(),
    table['verdict'].to_pylist(),
    strict=True,
  )
  keep = [m == model and a == author and (not verdict or v == verdict) for m, a, v in names]
  return table.filter(pa.array(keep, pa.bool_()))


def by_problem(
  table: pa.Table, model: str, author: str, *, samples: int = 0, verdict: str = ''
) -> dict[str, np.ndarray]:
  """problem id -> PPL_model of the author's completions, f64[n] by sample: the violins of Fig. 6.

  samples: only those with an index below it, as many as were scored whatever their verdict; rows
  beyond were scored because they are correct, and would bend the distribution. 0: all.
  """
  rows = part(table, model, author, verdict=verdict)
  values = perplexity(rows['logprob'].to_numpy(), rows['tokens'].to_numpy())
  found: dict[str, list[tuple[int, float]]] = {}
  columns = zip(rows['problem_id'].to_pylist(), rows['sample'].to_pylist(), values, strict=True)
  for problem, sample, value in columns:
    if not samples or sample < samples:
      found.setdefault(problem, []).append((sample, float(value)))
  return {p: np.array([v for _, v in sorted(found[p])]) for p in sorted(found)}


def summarise(
  table: pa.Table, model: str, author: str, *, samples: int = 0, level: float = 0.95
) -> Summary | None:
  """The Summary of a pair; None if nothing of it was scored. samples as in `by_problem`."""
  rows = part(table, model, author)
  if samples:
    rows = rows.filter(pa.array(rows['sample'].to_numpy() < samples))
  if not len(rows):
    return None
  logs = np.log(perplexity(rows['logprob'].to_numpy(), rows['tokens'].to_numpy()))
  names = np.array(rows['problem_id'].to_pylist(), object)
  means = np.array([logs[names == name].mean() for name in dict.fromkeys(names)])
  mean = float(means.mean())
  low = high = None
  if len(means) > 1:
    half = stats.t.ppf((1 + level) / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    low, high = max(1.0, float(np.exp(mean - half))), float(np.exp(mean + half))  # PPL >= 1
  lower, median, upper = (float(v) for v in np.exp(np.quantile(logs, [0.25, 0.5, 0.75])))
  weights = rows['tokens'].to_numpy()
  return Summary(
    model, author, len(means), len(rows), float(np.exp(mean)), low, high, median, lower, upper,
    bits_per_byte(rows['logprob'].to_numpy(), rows['bytes'].to_numpy()),
    float(np.average(rows['entropy'].to_numpy(), weights=weights)),
  )  # fmt: skip


def evolution(
  table: pa.Table, models: Sequence[str], author: str, *, samples: int = 0, level: float = 0.95
) -> list[Summary]:
  """PPL of one author's completions under each model in turn (checkpoints, in their order)."""
  found = (summarise(table, model, author, samples=samples, level=level) for model in models)
  return [one for one in found if one is not None]


def share_within(own: np.ndarray, others: np.ndarray, quantile: float = 0.95) -> float:
  """The share of `others` whose PPL is at most that quantile of the model's `own` completions.

  Above it a completion is odd to the model, though it may be drawn; below it, it may not be
  drawable at all: see reach.py.
  """
  if not len(own) or not len(others):
    raise ValueError(f'{len(own)} own and {len(others)} other perplexities: both must have some')
  return float(np.mean(np.asarray(others) <= np.quantile(own, quantile)))
