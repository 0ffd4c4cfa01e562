"""Exact solve probabilities where every correct completion of a problem can be written down."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.models.transformer import Params

BATCH = 512  # completions scored at once


@functools.partial(jax.jit, static_argnames='config')
def _score(params: Params, tokens: Any, temperature: jax.Array, *, config: ModelConfig):
  return sequence_logprobs(params, tokens, config=config, temperature=temperature)[0]


def completion_logprobs(
  params: Params,
  config: ModelConfig,
  rows: Sequence[tuple[Sequence[int], Sequence[int]]],
  *,
  temperature: float,
) -> np.ndarray:
  """log p(completion | prompt) of each (prompt ids, completion ids), f64[N].

  By the learner's forward: token log-probs are float32 under softmax(logits / temperature), their
  sums float64.
  """
  longest = max(len(p) + len(c) for p, c in rows)
  T = -(-longest // 16) * 16

  sums = np.zeros(len(rows))
  for begin in range(0, len(rows), BATCH):
    batch = rows[begin : begin + BATCH]
    tokens = np.zeros((BATCH, T), np.int32)
    mask = np.zeros((BATCH, T), bool)
    for i, (prompt, completion) in enumerate(batch):
      end = len(prompt) + len(completion)
      tokens[i, :end] = [*prompt, *completion]
      mask[i, len(prompt) : end] = True
    logprobs = np.asarray(
      _score(params, tokens, jnp.float32(temperature), config=config), np.float64
    )
    sums[begin : begin + len(batch)] = np.where(mask, logprobs, 0.0).sum(axis=1)[: len(batch)]
  return sums


def solve_probabilities(
  params: Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  prompts: Sequence[Sequence[int]],
  solutions: Sequence[Sequence[str]],
  *,
  temperature: float,
  max_tokens: int,
) -> np.ndarray:
  """The chance that one completion solves each problem, f64[P]: a sum over its correct completions.

  prompts: token ids; solutions: every text the verifier accepts, which the stop token must end
  within max_tokens; a model with several stop tokens may end them by any. One token sequence a text
  is counted, the tokenizer's: exact where each text has one, as with single characters. For
  sampling without truncation (top-p 1, top-k 0) at `temperature` > 0.
  """
  rows, owner = [], []
  for i, (prompt, texts) in enumerate(zip(prompts, solutions, strict=True)):
    for text in texts:
      ids = tokenizer.encode(text, special=False)
      if len(ids) >= max_tokens:
        raise ValueError(
          f'{text!r} and its stop token are {len(ids) + 1} tokens, more than '
          f'sampling.max_tokens={max_tokens}; raise it, or the exact chance cannot be compared'
        )
      rows.extend((prompt, [*ids, stop]) for stop in tokenizer.eos_ids)
      owner.extend(i for _ in tokenizer.eos_ids)
  if not rows:
    return np.zeros(len(prompts))
  probability = np.exp(completion_logprobs(params, config, rows, temperature=temperature))
  return np.bincount(owner, probability, minlength=len(prompts))
