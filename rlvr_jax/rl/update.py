"""One optimizer step: log-probs by the shared forward, the loss, gradients over micro-batches."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.rules import KV_PATHS, TRAIN_RULES
from rlvr_jax.rl import losses
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.policy_loss import PER_TOKEN, Metrics, policy_loss
from rlvr_jax.rl.types import TokenBatch, TrainState
from rlvr_jax.sharding import shardings

# metrics that are sums over tokens until the end of the scan, then divided by the token count
_PER_TOKEN = ('entropy', *PER_TOKEN)


class Rows(flax.struct.PyTreeNode):
  """Rollouts cut into M micro-batches of b rows; per-token arrays by the project's alignment.

  old_logprobs None: the batch is on-policy and used once, so the policy before the step is the
  policy itself. ref_logprobs None: no KL term.
  """

  tokens: jax.Array  # i32[M,b,T]
  completion_mask: jax.Array  # bool[M,b,T]
  advantages: jax.Array  # f32[M,b,T]
  sampler_logprobs: jax.Array  # f32[M,b,T]
  old_logprobs: jax.Array | None  # f32[M,b,T]
  ref_logprobs: jax.Array | None  # f32[M,b,T]


def state_shardings(state: Any, config: ModelConfig, mesh: Mesh) -> Any:
  """Shardings of a TrainState (or its shapes) by the training rules."""
  replicate = KV_PATHS if config.num_kv_heads % mesh.shape['tensor'] else None
  return shardings(state, TRAIN_RULES, mesh, replicate=replicate)


def rows_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over data and fsdp; every device sees every micro-batch."""
  return NamedSharding(mesh, PartitionSpec(None, ('data', 'fsdp')))


def _flatten(rows: Rows, logprobs: jax.Array, entropy: jax.Array) -> TokenBatch:
  """[b,T] arrays of one micro-batch as flat tokens."""
  b, T = rows.tokens.shape
  old = rows.old_logprobs
  if old is None:
    old = jax.lax.stop_gradient(logprobs)
  ref = None if rows.ref_logprobs is None else rows.ref_logprobs.reshape(-1)
  return TokenBatch(
    logprobs=logprobs.reshape(-1),
    old_logprobs=old.reshape(-1),
    ref_logprobs=ref,
    sampler_logprobs=rows.sampler_logprobs.reshape(-1),
    advantages=rows.advantages.reshape(-1),
    mask=rows.completion_mask.reshape(-1),
    rollout=jnp.repeat(jnp.arange(b, dtype=jnp.int32), T),
    entropy=entropy.reshape(-1),
  )


def rows_loss(
  params: Any,
  rows: Rows,
  denominator: losses.Denominators,
  temperature: jax.Array,
  *,
  config: ModelConfig,
  algorithm: Algorithm,
  compute_dtype: str,
  remat: bool,
  chunk: int,
) -> tuple[jax.Array, Metrics]:
  """The loss of one micro-batch [b,T], from params, with its metrics."""
  with jax.named_scope('logprobs'):
    logprobs, entropy = sequence_logprobs(
      _cast(params, compute_dtype),
      rows.tokens,
      config=config,
      temperature=temperature,
      remat=remat,
      chunk=chunk,
    )
  loss, metrics = policy_loss(
    _flatten(rows, logprobs, entropy), rows.tokens.shape[0], denominator, algorithm
  )
  mask = rows.completion_mask
  metrics['entropy'] = jnp.sum(jax.lax.stop_gradient(jnp.where(mask, entropy, 0.0)))
  return loss, metrics


def _cast(params: Any, dtype: str) -> Any:
  return jax.tree.map(lambda x: x.astype(dtype), params)


def _combine(a: Metrics, b: Metrics) -> Metrics:
  return {k: jnp.maximum(a[k], b[k]) if k.endswith('/max') else a[k] + b[k] for k in a}


def gradients(loss_fn: Callable, params: Any, rows: Rows) -> tuple[jax.Array, Metrics, Any]:
  """Loss, metrics and gradient summed over the M micro-batches, by a scan."""
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  first = jax.tree.map(lambda x: x[0], rows)
  if rows.tokens.shape[0] == 1:
    (loss, metrics), grads = grad_fn(params, first)
    return loss, metrics, grads
  shapes = jax.eval_shape(grad_fn, params, first)
  zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def step(carry, micro):
    (loss, metrics), grads = carry
    (more_loss, more_metrics), more_grads = grad_fn(params, micro)
    grads = jax.tree.map(jnp.add, grads, more_grads)
    return ((loss + more_loss, _combine(metrics, more_metrics)), grads), None

  ((loss, metrics), grads), _ = jax.lax.scan(step, zero, rows)
  return loss, metrics, grads


def make_update(
  config: ModelConfig,
  algorithm: Algorithm,
  optimizer: optax.GradientTransformation,
  *,
  longest: int,
  compute_dtype: str = 'float32',
  remat: bool = True,
  chunk: int = 1024,
  mesh: Mesh | None = None,
) -> Callable[[TrainState, Rows, jax.Array], tuple[TrainState, Metrics]]:
  """The jitted step (state, rows, temperature) -> (state, metrics); state is donated.

  longest: the completion cap in tokens (seq_mean_token_sum_norm divides by it). Denominators are
  those of all M micro-batches together. A non-finite loss or gradient leaves params and optimizer
  as they were; metrics['skipped'] is then 1.
  """

  def update(state: TrainState, rows: Rows, temperature: jax.Array):
    T = rows.tokens.shape[-1]
    denominator = losses.denominators(rows.completion_mask.reshape(-1, T), longest)

    def loss_fn(params, micro):
      return rows_loss(
        params,
        micro,
        denominator,
        temperature,
        config=config,
        algorithm=algorithm,
        compute_dtype=compute_dtype,
        remat=remat,
        chunk=chunk,
      )

    loss, metrics, grads = gradients(loss_fn, state.params, rows)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)

    with jax.numpy_dtype_promotion('standard'):
      updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
      params = optax.apply_updates(state.params, updates)
    # a select fuses into the update and writes over the donated state; a cond would copy it
    params, opt_state = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old),
      (params, opt_state),
      (state.params, state.opt_state),
    )
    tokens = denominator.tokens
    metrics = {k: v / tokens if k in _PER_TOKEN else v for k, v in metrics.items()}
    metrics |= {
      'loss': loss,
      'grad_norm': norm,
      'tokens': tokens,
      'skipped': jnp.where(finite, 0, 1),
    }
    return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

  if mesh is None:
    return jax.jit(update, donate_argnums=0)
  return _on_mesh(update, mesh)


def _on_mesh(update: Callable, mesh: Mesh) -> Callable:
  """jit with the state kept where it lies and rows over data and fsdp."""

  @functools.lru_cache(maxsize=1)
  def compiled(structure, placed):
    state = jax.tree.unflatten(structure, placed)
    return jax.jit(
      update,
      in_shardings=(state, rows_sharding(mesh), None),
      out_shardings=(state, None),
      donate_argnums=0,
    )

  def call(state: TrainState, rows: Rows, temperature: jax.Array):
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda x: x.sharding, state))
    return compiled(structure, tuple(leaves))(state, rows, temperature)

  return call


def make_score(
  config: ModelConfig, *, compute_dtype: str = 'float32', chunk: int = 1024
) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
  """The jitted (params, tokens i32[M,b,T], temperature) -> log-probs f32[M,b,T].

  The learner's own program for old and reference log-probs, a micro-batch at a time.
  """

  @jax.jit
  def score(params: Any, tokens: jax.Array, temperature: jax.Array) -> jax.Array:
    cast = _cast(params, compute_dtype)

    def one(rows: jax.Array) -> jax.Array:
      return sequence_logprobs(cast, rows, config=config, temperature=temperature, chunk=chunk)[0]

    return jax.lax.map(one, tokens)

  return score
