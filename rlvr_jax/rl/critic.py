"""PPO's critic: a transformer of its own with a value head, learnt beside the policy.

It starts from the policy's weights with a head of zeros, so that its first values are 0.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.layers import wide
from rlvr_jax.models.transformer import Params, forward
from rlvr_jax.models.vision import Images
from rlvr_jax.rl import losses
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.update import (
  Rows,
  denominators,
  descend,
  flatten,
  gradients,
  jitted,
  map_rows,
  state_shardings,
)


class CriticRows(flax.struct.PyTreeNode):
  """Rows with the values before the iteration's first step and what they should have been."""

  rows: Rows
  old_values: jax.Array  # f32[M,b,T]
  targets: jax.Array  # f32[M,b,T]

  @property
  def tokens(self) -> jax.Array:
    """i32[M,b,T]."""
    return self.rows.tokens

  @property
  def completion_mask(self) -> jax.Array:
    """bool[M,b,T]."""
    return self.rows.completion_mask


class CriticState(flax.struct.PyTreeNode):
  """Weights of the critic, {'backbone': as a policy's, 'value': [D]}, and its optimizer's state."""

  params: Any
  opt_state: Any


def start(params: Params, optimizer: optax.GradientTransformation) -> CriticState:
  """The critic before its first step, from the policy's params (copied)."""
  backbone = {name: leaf for name, leaf in params.items() if name != 'head'}
  backbone = jax.tree.map(jnp.copy, backbone)
  value = jnp.zeros(params['embed'].shape[1:], params['embed'].dtype)
  own = {'backbone': backbone, 'value': value}
  return CriticState(own, optimizer.init(own))


def sequence_values(
  params: Any,
  tokens: jax.Array,
  *,
  config: ModelConfig,
  positions: jax.Array | None = None,
  segments: jax.Array | None = None,
  remat: str | bool = 'none',
  mesh: Mesh | None = None,
  images: Images | None = None,
) -> jax.Array:
  """V f32[B,T]: at t the value of the state before tokens[:, t], as log-probs are aligned.

  Column 0, and the first token of every further segment, is 0 and has to be masked by the caller.
  """
  B, T = tokens.shape
  if positions is None:
    positions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  hidden, _ = forward(
    params['backbone'],
    tokens,
    positions,
    config=config,
    segments=segments,
    remat=remat,
    mesh=mesh,
    images=images,
  )
  dtype = wide(hidden.dtype)
  values = jnp.einsum(
    'BTD,D->BT', hidden.astype(dtype), params['value'].astype(dtype), precision='highest'
  )
  before = values[:, :-1]
  if segments is not None:
    before = jnp.where(segments[:, 1:] == segments[:, :-1], before, 0.0)
  return jnp.pad(before, ((0, 0), (1, 0)))


def critic_loss(
  values: jax.Array,
  old_values: jax.Array,
  targets: jax.Array,
  mask: jax.Array,
  rollout: jax.Array,
  rollouts: int,
  denominator: losses.Denominators,
  algorithm: Algorithm,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The value loss of flat tokens f[N] (a part of the batch's), and sums for metrics."""

  def clean(x: jax.Array) -> jax.Array:
    return jnp.where(mask, x, 0.0)

  values, old_values, targets = map(clean, (values, old_values, targets))
  per_token, cut = losses.value_loss(values, old_values, targets, algorithm.value_clip)
  loss = losses.reduce(per_token, mask, rollout, rollouts, algorithm.aggregation, denominator)
  metrics = {'clip_fraction': jnp.sum(cut & mask).astype(values.dtype)}
  return algorithm.value_coef * loss, metrics


def make_values(
  config: ModelConfig, *, compute_dtype: str, mesh: Mesh | None = None
) -> Callable[[Any, Rows], jax.Array]:
  """The jitted (critic params, rows) -> values f32[M,b,T], whole on every device."""

  def values(params: Any, rows: Rows) -> jax.Array:
    cast = jax.tree.map(lambda x: x.astype(compute_dtype), params)
    return map_rows(lambda micro: _values(cast, micro, config, remat=False, mesh=mesh), rows)

  whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
  return jax.jit(values) if whole is None else jax.jit(values, out_shardings=whole)


def _values(
  params: Any, rows: Rows, config: ModelConfig, *, remat: str | bool, mesh: Mesh | None
) -> jax.Array:
  return sequence_values(
    params,
    rows.tokens,
    config=config,
    positions=rows.positions,
    segments=rows.segments,
    remat=remat,
    mesh=mesh,
    images=rows.images,
  )


def make_critic_update(
  config: ModelConfig,
  algorithm: Algorithm,
  optimizer: optax.GradientTransformation,
  *,
  longest: int,
  compute_dtype: str,
  remat: str | bool,
  mesh: Mesh | None = None,
) -> Callable[[CriticState, CriticRows, jax.Array], tuple[CriticState, dict[str, jax.Array]]]:
  """The jitted step (state, rows, ignored) -> (state, metrics); state is donated.

  As rl/update.py: make_update, for the value loss. The third argument is the temperature, which
  values do not depend on.
  """

  def update(state: CriticState, rows: CriticRows, _: jax.Array):
    denominator = denominators(rows.rows, longest)

    def loss_fn(params: Any, micro: CriticRows):
      cast = jax.tree.map(lambda x: x.astype(compute_dtype), params)
      values = _values(cast, micro.rows, config, remat=remat, mesh=mesh)
      batch, rollouts = flatten(micro.rows, values, values)
      return critic_loss(
        batch.logprobs,
        micro.old_values.reshape(-1),
        micro.targets.reshape(-1),
        batch.mask,
        batch.rollout,
        rollouts,
        denominator,
        algorithm,
      )

    placed = None if mesh is None else state_shardings(state.params, config, mesh)
    loss, metrics, grads = gradients(loss_fn, state.params, rows, placed)
    counts = jnp.any(rows.rows.completion_mask)
    params, opt_state, norm, finite = descend(
      optimizer, loss, grads, state.params, state.opt_state, counts
    )
    found = {
      'critic/loss': loss,
      'critic/grad_norm': norm,
      'critic/clip_fraction': metrics['clip_fraction'] / denominator.tokens,
      'critic/skipped': jnp.where(finite, 0, 1),
    }
    return CriticState(params=params, opt_state=opt_state), found

  return jitted(update, mesh)
