"""Copies of weights, and which of them a run keeps frozen beside its state."""

import functools

import jax
import jax.numpy as jnp

from rlvr_jax.config import Config
from rlvr_jax.models.transformer import Params
from rlvr_jax.rl.algorithms import Algorithm


def copies(config: Config, algorithm: Algorithm) -> int:
  """Frozen copies of the weights, in the compute dtype, that a run keeps beside its state."""
  if config.lora.rank:
    return 0  # the weights below the adapters
  both = algorithm.reference and bool(config.train.base_share)
  apart = both and config.train.reset_every > 0
  return 2 if apart else int(algorithm.reference or bool(config.train.base_share))


@functools.partial(jax.jit, static_argnames='dtype')
def compute_copy(params: Params, dtype: str) -> Params:
  """A copy of params in the dtype."""
  return jax.tree.map(lambda x: jnp.copy(x.astype(dtype)), params)


def as_dtype(params: Params, dtype: str) -> Params:
  """params with a cast copy of each leaf that is not of that dtype."""
  return jax.tree.map(lambda x: x if x.dtype == dtype else compute_copy(x, dtype), params)
