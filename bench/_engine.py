"""Engines, items and counters as the benchmarks need them."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import Params, init_params
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.types import Item

# four layers of a Qwen2: large enough that a decode step outweighs Python, small enough for CI
TINY = ModelConfig('qwen2', 512, 256, 768, 4, 8, 2, 32, qkv_bias=True)


_init = jax.jit(init_params, static_argnames=('config', 'dtype'))


def random_params(config: ModelConfig, seed: int = 0) -> Params:
  """Random float32 params in the learner's stacked form, by one compiled program."""
  return _init(jax.random.key(seed), config)


def counters(engine: Engine) -> dict[str, int]:
  """The engine's cumulative counters as they stand."""
  return dataclasses.asdict(engine.stats)


def since(before: dict[str, int], engine: Engine) -> dict[str, int]:
  """How far the counters have moved."""
  return {name: value - before[name] for name, value in counters(engine).items()}


def items_of(
  prompts: Sequence[tuple[int, ...]], samples: int, *, visit: int = 0, limits: Any = None
) -> list[Item]:
  """`samples` items a prompt, prompt by prompt; limits i64[P*samples] are their forced lengths."""
  pairs = [(p, s) for p in range(len(prompts)) for s in range(samples)]
  lengths = [None] * len(pairs) if limits is None else [int(n) for n in limits]
  return [
    Item(p, p, visit, s, prompts[p], limit=length)
    for (p, s), length in zip(pairs, lengths, strict=True)
  ]


def random_prompts(count: int, length: int, vocab: int, seed: int = 0) -> list[tuple[int, ...]]:
  """Prompts of token ids, no two alike."""
  rng = np.random.default_rng(seed)
  return [tuple(int(t) for t in row) for row in rng.integers(1, vocab, (count, length))]


def delivered(completions: Iterable[Any]) -> int:
  """Tokens of completions, every one of them run to its end."""
  return sum(len(c.tokens) for c in completions)
