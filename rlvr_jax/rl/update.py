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
from rlvr_jax.models.layers import wide
from rlvr_jax.models.logprobs import sequence_logprobs
from rlvr_jax.models.rules import KV_PATHS, TRAIN_RULES
from rlvr_jax.models.vision import Images
from rlvr_jax.rl import entropy as entropy_lib
from rlvr_jax.rl import losses
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.policy_loss import PER_TOKEN, Metrics, policy_loss
from rlvr_jax.rl.trained import Trained
from rlvr_jax.rl.types import TokenBatch, TrainState
from rlvr_jax.sharding import ROWS, shardings

# metrics that are sums over tokens until the end of the scan, then divided by the token count
_PER_TOKEN = ('entropy', *PER_TOKEN)


class Rows(flax.struct.PyTreeNode):
  """Rollouts in M micro-batches of b rows; per-token arrays by the project's alignment.

  old_logprobs None: the batch is on-policy and used once, so the policy before the step is the
  policy itself. ref_logprobs None: no KL term. positions, segments, rollout None: each row holds
  one rollout; else they are those of rl/packing.py. Micro-batches without a completion token at the
  end are not computed.
  """

  tokens: jax.Array  # i32[M,b,T]
  completion_mask: jax.Array  # bool[M,b,T]
  advantages: jax.Array  # f32[M,b,T]
  sampler_logprobs: jax.Array  # f32[M,b,T]
  old_logprobs: jax.Array | None = None  # f32[M,b,T]
  ref_logprobs: jax.Array | None = None  # f32[M,b,T]
  keep: jax.Array | None = None  # bool[M,b,T] rl/selection.py
  penalised: jax.Array | None = None  # bool[M,b,T] likewise
  positions: jax.Array | None = None  # i32[M,b,T] in the rollout
  segments: jax.Array | None = None  # i32[M,b,T] number of the rollout in its row
  rollout: jax.Array | None = None  # i32[M,b,T] number of it in its micro-batch, under b*T
  images: Images | None = None  # [M,...] each: of the micro-batch's rollouts (rl/pictures.py)


def state_shardings(state: Any, config: ModelConfig, mesh: Mesh) -> Any:
  """Shardings of a TrainState (or its shapes) by the training rules."""
  replicate = KV_PATHS if config.num_kv_heads % mesh.shape['tensor'] else None
  return shardings(state, TRAIN_RULES, mesh, replicate=replicate)


def rows_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over data and fsdp; every device sees every micro-batch."""
  return NamedSharding(mesh, PartitionSpec(None, ROWS))


def flatten(rows: Rows, logprobs: jax.Array, entropy: jax.Array) -> tuple[TokenBatch, int]:
  """[b,T] arrays of one micro-batch as flat tokens, and a bound of their rollout numbers."""
  b, T = rows.tokens.shape
  old, rollout, rollouts = rows.old_logprobs, rows.rollout, b * T
  if old is None:
    old = jax.lax.stop_gradient(logprobs)
  if rollout is None:
    rollout, rollouts = jnp.repeat(jnp.arange(b, dtype=jnp.int32), T), b

  def flat(x: Any) -> Any:
    return None if x is None else x.reshape(-1)

  batch = TokenBatch(
    logprobs=flat(logprobs),
    old_logprobs=flat(old),
    ref_logprobs=flat(rows.ref_logprobs),
    sampler_logprobs=flat(rows.sampler_logprobs),
    advantages=flat(rows.advantages),
    mask=flat(rows.completion_mask),
    rollout=flat(rollout),
    entropy=flat(entropy),
    keep=flat(rows.keep),
    penalised=flat(rows.penalised),
  )
  return batch, rollouts


def denominators(rows: Rows, longest: int) -> losses.Denominators:
  """The counts of all M micro-batches together."""
  M, b, T = rows.tokens.shape
  mask = rows.completion_mask
  found = losses.denominators(mask.reshape(-1, T), longest)
  if rows.rollout is None:
    return found
  count = jax.vmap(lambda m, rollout: jax.ops.segment_sum(m, rollout, b * T))
  tokens = count(mask.reshape(M, -1).astype(jnp.int32), rows.rollout.reshape(M, -1))
  sequences = jnp.maximum(jnp.sum(tokens > 0), 1).astype(found.sequences.dtype)
  return found._replace(sequences=sequences)


def rows_loss(
  params: Any,
  rows: Rows,
  denominator: losses.Denominators,
  temperature: jax.Array,
  *,
  config: ModelConfig,
  algorithm: Algorithm,
  compute_dtype: str,
  remat: str | bool,
  chunk: int,
  mesh: Mesh | None = None,
  entropy_coef: jax.Array | None = None,
) -> tuple[jax.Array, Metrics]:
  """The loss of one micro-batch [b,T], from params, with its metrics."""
  with jax.named_scope('logprobs'):
    logprobs, entropy = sequence_logprobs(
      _cast(params, compute_dtype),
      rows.tokens,
      config=config,
      positions=rows.positions,
      segments=rows.segments,
      temperature=temperature,
      remat=remat,
      chunk=chunk,
      mesh=mesh,
      images=rows.images,
    )
  with jax.named_scope('loss'):
    batch, rollouts = flatten(rows, logprobs, entropy)
    loss, metrics = policy_loss(batch, rollouts, denominator, algorithm, entropy_coef)
  mask = rows.completion_mask
  metrics['entropy'] = jnp.sum(jax.lax.stop_gradient(jnp.where(mask, entropy, 0.0)))
  return loss, metrics


def _cast(params: Any, dtype: str) -> Any:
  return jax.tree.map(lambda x: x.astype(dtype), params)


def _combine(a: Metrics, b: Metrics) -> Metrics:
  return {k: jnp.maximum(a[k], b[k]) if k.endswith('/max') else a[k] + b[k] for k in a}


def _used(rows: Any) -> jax.Array:
  """Micro-batches up to the last one with a completion token, i32[]."""
  count = jnp.arange(1, rows.tokens.shape[0] + 1, dtype=jnp.int32)
  return jnp.max(jnp.where(jnp.any(rows.completion_mask, axis=(1, 2)), count, 0))


def _micro_batch(rows: Any, i: jax.Array | int) -> Any:
  return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), rows)


def gradients(
  loss_fn: Callable, params: Any, rows: Any, placed: Any = None
) -> tuple[jax.Array, Metrics, Any]:
  """Loss, metrics and gradient summed over the micro-batches, one at a time.

  placed: shardings of params, which gradients and their sum are given too.
  """

  def laid(grads: Any) -> Any:
    return grads if placed is None else jax.lax.with_sharding_constraint(grads, placed)

  def grad_fn(params: Any, micro: Any) -> tuple[Any, Any]:
    found, grads = jax.value_and_grad(loss_fn, has_aux=True)(params, micro)
    return found, laid(grads)

  first = jax.tree.map(lambda x: x[0], rows)
  if rows.tokens.shape[0] == 1:
    (loss, metrics), grads = grad_fn(params, first)
    return loss, metrics, grads
  found, of_params = jax.eval_shape(grad_fn, params, first)
  # sums of many micro-batches are float32 at least
  of_params = jax.tree.map(lambda s: s.update(dtype=wide(s.dtype)), of_params)
  zero, zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (found, of_params))
  zero = zero, laid(zeros)

  def step(i, carry):
    (loss, metrics), grads = carry
    (more_loss, more_metrics), more_grads = grad_fn(params, _micro_batch(rows, i))
    grads = jax.tree.map(lambda a, b: a + b.astype(a.dtype), grads, more_grads)
    return (loss + more_loss, _combine(metrics, more_metrics)), grads

  (loss, metrics), grads = jax.lax.fori_loop(0, _used(rows), step, zero)
  return loss, metrics, grads


def map_rows(fn: Callable[[Rows], Any], rows: Rows) -> Any:
  """fn of each micro-batch, stacked to [M,...]; zeros for empty ones at the end."""
  M = rows.tokens.shape[0]
  if M == 1:
    return jax.tree.map(lambda x: x[None], fn(jax.tree.map(lambda x: x[0], rows)))
  shapes = jax.eval_shape(fn, jax.tree.map(lambda x: x[0], rows))
  zero = jax.tree.map(lambda s: jnp.zeros((M, *s.shape), s.dtype), shapes)

  def step(i, found):
    return jax.tree.map(
      lambda all_of, one: jax.lax.dynamic_update_index_in_dim(all_of, one, i, 0),
      found,
      fn(_micro_batch(rows, i)),
    )

  return jax.lax.fori_loop(0, _used(rows), step, zero)


@jax.named_scope('optimizer')
def descend(
  optimizer: optax.GradientTransformation,
  loss: jax.Array,
  grads: Any,
  params: Any,
  opt_state: Any,
  counts: jax.Array | bool = True,
) -> tuple[Any, Any, jax.Array, jax.Array]:
  """(params, optimizer state, gradient norm, whether it was finite) after one optimizer step.

  A non-finite loss or gradient leaves params and optimizer as they were, and so does counts
  bool[] = false: a batch without a token to learn from, after which momentum shall not move them.
  """
  norm = optax.tree.norm(grads)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  with jax.numpy_dtype_promotion('standard'):
    updates, new_state = optimizer.update(grads, opt_state, params)
    new_params = optax.apply_updates(params, updates)
  # a select fuses into the update and writes over the donated state; a cond would copy it
  kept = jax.tree.map(
    lambda new, old: jnp.where(finite & counts, new, old),
    (new_params, new_state),
    (params, opt_state),
  )
  return *kept, norm, finite


def make_update(
  config: ModelConfig,
  algorithm: Algorithm,
  optimizer: optax.GradientTransformation,
  *,
  longest: int,
  compute_dtype: str = 'float32',
  remat: str | bool = 'block',
  chunk: int = 1024,
  mesh: Mesh | None = None,
  trained: Trained | None = None,
) -> Callable[[TrainState, Rows, jax.Array], tuple[TrainState, Metrics]]:
  """The jitted step (state, rows, temperature) -> (state, metrics); state is donated.

  longest: the completion cap in tokens (seq_mean_token_sum_norm divides by it). Denominators are
  those of all M micro-batches together. A non-finite loss or gradient leaves params and optimizer
  as they were; metrics['skipped'] is then 1. So does a batch without a token under its masks, which
  is not counted as skipped. trained: what of the state trains, by default params.
  """
  parts = trained or Trained()

  def update(state: TrainState, rows: Rows, temperature: jax.Array):
    denominator = denominators(rows, longest)
    control = state.entropy
    bonus = entropy_lib.coefficient(algorithm, control)

    def loss_of(params, micro):
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
        mesh=mesh,
        entropy_coef=bonus,
      )

    placed = None if mesh is None else state_shardings(parts.take(state), config, mesh)
    counts = jnp.any(rows.completion_mask)
    state, metrics = stepped(parts, optimizer, state, loss_of, rows, placed, counts)
    tokens = denominator.tokens
    metrics = {k: v / tokens if k in _PER_TOKEN else v for k, v in metrics.items()}
    if bonus is not None:
      metrics['entropy/coef'] = bonus
      stepping = counts & (metrics['skipped'] == 0)
      new = entropy_lib.adapted(algorithm, control, metrics['entropy'], stepping)
      state = state.replace(entropy=new)
    return state, metrics | {'tokens': tokens}

  return jitted(update, mesh)


def stepped(
  parts: Trained,
  optimizer: optax.GradientTransformation,
  state: TrainState,
  loss_of: Callable[[Any, Any], tuple[jax.Array, Metrics]],
  rows: Any,
  placed: Any = None,
  counts: jax.Array | bool = True,
) -> tuple[TrainState, Metrics]:
  """The state after one optimizer step down loss_of(params, micro-batch), with its metrics.

  placed: see gradients, of what trains. counts: see descend.
  """

  def of_trained(tree: Any, micro: Any) -> tuple[jax.Array, Metrics]:
    return loss_of(parts.params(parts.put(state, tree)), micro)

  tree = parts.take(state)
  loss, metrics, grads = gradients(of_trained, tree, rows, placed)
  tree, opt_state, norm, finite = descend(optimizer, loss, grads, tree, state.opt_state, counts)
  state = parts.put(state, tree).replace(step=state.step + 1, opt_state=opt_state)
  return state, metrics | {
    'loss': loss,
    'grad_norm': norm,
    'skipped': jnp.where(finite, 0, 1),
  }


def jitted(update: Callable, mesh: Mesh | None) -> Any:
  """jit of update(state, rows, more): the state is donated and, on a mesh, kept where it lies, rows
  are split over data and fsdp; more stays as it is given. Its `lower` takes described arrays too.
  """
  return jax.jit(update, donate_argnums=0) if mesh is None else _OnMesh(update, mesh)


class _OnMesh:
  """A jitted update whose state's layout is that of the first state it is called with."""

  def __init__(self, update: Callable, mesh: Mesh):
    @functools.lru_cache(maxsize=1)
    def compiled(structure: Any, placed: tuple) -> Any:
      state = jax.tree.unflatten(structure, placed)
      return jax.jit(
        update,
        in_shardings=(state, rows_sharding(mesh), None),
        out_shardings=(state, None),
        donate_argnums=0,
      )

    self._compiled = compiled

  def _of(self, state: Any) -> Any:
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda x: x.sharding, state))
    return self._compiled(structure, tuple(leaves))

  def __call__(self, state: Any, rows: Any, more: Any) -> Any:
    return self._of(state)(state, rows, more)

  def lower(self, state: Any, rows: Any, more: Any) -> Any:
    """As jit's: arrays, or ShapeDtypeStructs with shardings."""
    return self._of(state).lower(state, rows, more)


def make_score(
  config: ModelConfig,
  *,
  compute_dtype: str = 'float32',
  chunk: int = 1024,
  mesh: Mesh | None = None,
) -> Callable[[Any, Rows, jax.Array], tuple[jax.Array, jax.Array]]:
  """The jitted (params, rows, temperature) -> log-probs and entropy (nats), f32[M,b,T] each.

  The learner's own program for old and reference log-probs, a micro-batch at a time; what it gives
  lies whole on every device. Layout.restore brings it back to rollouts.
  """

  def score(params: Any, rows: Rows, temperature: jax.Array) -> tuple[jax.Array, jax.Array]:
    cast = _cast(params, compute_dtype)

    def one(micro: Rows) -> tuple[jax.Array, jax.Array]:
      return sequence_logprobs(
        cast,
        micro.tokens,
        config=config,
        positions=micro.positions,
        segments=micro.segments,
        temperature=temperature,
        chunk=chunk,
        mesh=mesh,
        images=micro.images,
      )

    return map_rows(one, rows)

  if mesh is None:
    return jax.jit(score)
  return jax.jit(score, out_shardings=NamedSharding(mesh, PartitionSpec()))
