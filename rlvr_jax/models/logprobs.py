"""The head: logits in chunks of tokens, log-probs and entropy; [B,T,V] never exists at once."""

import jax
import jax.numpy as jnp

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.layers import wide
from rlvr_jax.models.transformer import Params, forward


def logits(params: Params, hidden: jax.Array) -> jax.Array:
  """Logits f32[...,V] for hidden [...,D], accumulated in float32 (or float64)."""
  dtype = wide(hidden.dtype)
  head = params['head'] if 'head' in params else params['embed']
  precision = jax.lax.Precision.HIGHEST if hidden.dtype == dtype else jax.lax.Precision.DEFAULT
  return jnp.einsum(
    '...D,VD->...V', hidden, head, precision=precision, preferred_element_type=dtype
  )


def token_logprobs(
  params: Params,
  hidden: jax.Array,
  targets: jax.Array,
  *,
  temperature: jax.Array | float = 1.0,
  chunk: int = 1024,
) -> tuple[jax.Array, jax.Array]:
  """log softmax(logits / temperature)[target] and the entropy of that distribution (nats).

  hidden [N,D], targets i32[N] -> f32[N], f32[N]. Logits live for `chunk` tokens at a time and are
  recomputed in the backward pass.
  """
  N, D = hidden.shape
  chunk = max(1, min(chunk, N))
  padding = -N % chunk
  hidden = jnp.pad(hidden, ((0, padding), (0, 0))).reshape(-1, chunk, D)
  targets = jnp.pad(targets, (0, padding)).reshape(-1, chunk)

  @jax.checkpoint
  def one(h: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    z = logits(params, h)
    z = z / jnp.asarray(temperature, z.dtype)
    log_z = jax.nn.logsumexp(z, axis=-1)
    # a sum over a mask instead of a gather: the same program works over a sharded vocabulary
    here = jax.lax.broadcasted_iota(y.dtype, z.shape, 1) == y[:, None]
    picked = jnp.sum(jnp.where(here, z, 0.0), axis=-1)
    log_p = z - log_z[:, None]
    return picked - log_z, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

  if hidden.shape[0] == 1:
    logprobs, entropy = one(hidden[0], targets[0])
    return logprobs[:N], entropy[:N]
  logprobs, entropy = jax.lax.map(lambda pair: one(*pair), (hidden, targets))
  return logprobs.reshape(-1)[:N], entropy.reshape(-1)[:N]


def sequence_logprobs(
  params: Params,
  tokens: jax.Array,
  *,
  config: ModelConfig,
  positions: jax.Array | None = None,
  segments: jax.Array | None = None,
  temperature: jax.Array | float = 1.0,
  remat: bool = False,
  chunk: int = 1024,
) -> tuple[jax.Array, jax.Array]:
  """log p(tokens[:, t] | tokens[:, :t]) and the entropy there, f32[B,T] each (nats).

  The project's alignment: an entry describes the token at its own index; column 0, and the first
  token of every further segment, is 0 and has to be masked by the caller like prompt and padding.
  """
  B, T = tokens.shape
  if positions is None:
    positions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  hidden, _ = forward(params, tokens, positions, config=config, segments=segments, remat=remat)
  predicted = token_logprobs(
    params,
    hidden[:, :-1].reshape(B * (T - 1), hidden.shape[-1]),
    tokens[:, 1:].reshape(-1),
    temperature=temperature,
    chunk=chunk,
  )
  follows = jnp.ones((B, T - 1), bool)
  if segments is not None:
    follows = segments[:, 1:] == segments[:, :-1]

  def align(x: jax.Array) -> jax.Array:
    return jnp.pad(jnp.where(follows, x.reshape(B, T - 1), 0.0), ((0, 0), (1, 0)))

  return align(predicted[0]), align(predicted[1])
