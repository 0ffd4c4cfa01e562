"""Generation entropy: drawn of an engine at a temperature, or read from a store with extras.

The entropy of a token is that of the full distribution at the sampling temperature, over the whole
vocabulary, before top-k and top-p (which decide what is drawn, and so what is averaged over).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rlvr_jax.config import Config
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.sample import eval_sampling
from rlvr_jax.eval.temperature import Draws, Entropy, Measure, entropy_of
from rlvr_jax.models.load import load_model
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.tasks.problem import Problem


def draws_of(
  engine: Engine,
  problems: Sequence[Problem],
  encoded: Sequence[tuple[int, ...]],
  sampling: Sampling,
  samples: int,
  *,
  first: int = 0,
  model_uid: int = 0,
) -> Draws:
  """Entropies of `samples` completions of each problem, from sample `first` on, in no store.

  encoded: the prompts' token ids (run.encode_prompts). The draws are of the stream 'probe', so that
  they are none of those that are measured; another temperature of the same sample has the same
  random numbers.
  """
  items = [
    Item(place, problem.uid, 0, sample, encoded[place])
    for sample in range(first, first + samples)
    for place, problem in enumerate(problems)
  ]
  asked = dataclasses.replace(sampling, extras=True)
  rows = []
  for one in engine.run(items, asked, stream='probe', model_uid=model_uid):
    assert one.entropies is not None
    total = float(one.entropies.astype(np.float64).sum())
    rows.append((one.item.sample, one.item.problem, total, len(one.tokens)))
  rows.sort()  # by what was asked, not by the order of finishing
  _, problem, entropy, tokens = zip(*rows, strict=True)
  return Draws(np.array(problem), np.array(entropy), np.array(tokens))


def measure_with(
  engine: Engine,
  problems: Sequence[Problem],
  encoded: Sequence[tuple[int, ...]],
  sampling: Sampling,
  *,
  model_uid: int = 0,
) -> Measure:
  """What match_temperature and sweep ask of a model; of `sampling` only the temperature varies."""

  def measure(temperature: float, samples: int, first: int) -> Draws:
    at = dataclasses.replace(sampling, temperature=temperature)
    return draws_of(engine, problems, encoded, at, samples, first=first, model_uid=model_uid)

  return measure


def measure_model(config: Config, path: str, problems: Sequence[Problem], *, name: str) -> Measure:
  """measure_with of a model by its path: engine, template and top_p as a config evaluates it.

  name enters the keys of the draws (sampling.coupling=common leaves it out).
  """
  m = config.model
  model_config, params, tokenizer = load_model(
    path, dtype=m.compute_dtype, attention_impl=m.attention_impl
  )
  mesh = run_lib.sampling_mesh(config, model_config)
  capacity = config.sampling.prompt_capacity
  encoded = run_lib.encode_prompts(
    problems, config.task.template, tokenizer, capacity, run_lib.sees(config, model_config)
  )
  engine = run_lib.make_engine(config, hand_over(None, params, mesh), model_config, mesh)
  sampling = eval_sampling(config, tokenizer.eos_ids)
  uid = run_lib.model_uid(name, config.sampling.coupling)
  return measure_with(engine, problems, encoded, sampling, model_uid=uid)


def sweep(
  measure: Measure, temperatures: Sequence[float], samples: int
) -> list[tuple[float, Entropy]]:
  """(temperature, entropy) with so many completions of each problem at each."""
  return [(float(t), entropy_of(measure(float(t), samples, 0))) for t in temperatures]


def entropy_of_store(rows: pa.Table) -> Entropy:
  """Entropy of samples that were drawn with sampling.extras, at the temperature of their store.

  rows: problem_id, length, entropies (and, of conversations, sampled) of SampleStore.read.
  ValueError where a row has no entropies.
  """
  values: list[Any] = rows['entropies'].to_pylist()
  missing = sum(value is None for value in values)
  if missing or not values:
    raise ValueError(
      f'{missing} of {len(values)} samples have no entropies; sample with sampling.extras=True'
    )
  _, problem = np.unique(np.array(rows['problem_id'].to_pylist(), str), return_inverse=True)
  tokens = rows['length'].to_numpy().astype(np.int64)
  if 'sampled' in rows.column_names:  # observations are nobody's tokens, and have entropy 0
    own = rows['sampled'].to_pylist()
    tokens = np.array(
      [n if flags is None else sum(flags) for n, flags in zip(tokens, own, strict=True)], np.int64
    )
  entropy = np.array([np.sum(np.asarray(value, np.float64)) for value in values])
  return entropy_of(Draws(problem, entropy, tokens))
