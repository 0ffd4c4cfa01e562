"""AdamW with clipping and a schedule, from optax; bfloat16 by stochastic rounding."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


def make_schedule(
  learning_rate: float, *, kind: str, warmup_steps: int, total_steps: int
) -> optax.Schedule:
  """Learning rate by optimizer step: linear warm-up, then constant, cosine or linear to 0."""
  decay = max(1, total_steps - warmup_steps)
  after = {
    'constant': lambda: optax.constant_schedule(learning_rate),
    'cosine': lambda: optax.cosine_decay_schedule(learning_rate, decay),
    'linear': lambda: optax.linear_schedule(learning_rate, 0.0, decay),
  }
  if kind not in after:
    raise ValueError(f'optimizer.schedule={kind!r}: known are {", ".join(after)}')
  if not warmup_steps:
    return after[kind]()
  warmup = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps - 1)
  return optax.join_schedules([warmup, after[kind]()], [warmup_steps])


def in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """`inner` on gradients and params of at least float32, whatever they come in.

  In bfloat16 a second moment would neither decay by 0.1% a step nor take in 0.1% of a square.
  """

  def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)

  def update(updates, state, params=None):
    return inner.update(wide(updates), state, wide(params))

  return optax.GradientTransformation(lambda params: inner.init(wide(params)), update)


def stochastic_round(key: jax.Array, x: jax.Array) -> jax.Array:
  """x as bfloat16, up or down with the odds that make its mean x; float32 in, at least.

  bfloat16 is the upper half of a float32: a uniform 16-bit number is added to the lower half before
  it is cut off (Zamirai et al. 2020, "Revisiting BFloat16 Training"). What is not finite stays.
  """
  x = x.astype(jnp.float32)
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
  cut = jax.lax.bitcast_convert_type((bits + noise) & jnp.uint32(0xFFFF0000), jnp.float32)
  return jnp.where(jnp.isfinite(x), cut, x).astype(jnp.bfloat16)


def _round_tree(key: jax.Array, tree: Any) -> Any:
  leaves, structure = jax.tree.flatten(tree)
  keys = jax.random.split(key, len(leaves))
  return jax.tree.unflatten(
    structure, [stochastic_round(k, x) for k, x in zip(keys, leaves, strict=True)]
  )


class Rounded(NamedTuple):
  """State of a transformation that rounds at random: how often it has, and the inner state."""

  step: jax.Array  # i32[]
  inner: Any


def rounded_params(inner: optax.GradientTransformation, seed: int) -> optax.GradientTransformation:
  """`inner` with updates that take bfloat16 params to a stochastically rounded sum.

  The draw is a function of (seed, step). Without it an update under half the spacing of bfloat16
  (1/256 of a weight) is lost each time; with it the mean of the weight moves as it should.
  """

  def init(params):
    return Rounded(jnp.zeros((), jnp.int32), inner.init(params))

  def update(updates, state, params=None):
    updates, inner_state = inner.update(updates, state.inner, params)
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    sums = jax.tree.map(lambda p, u: p.astype(jnp.float32) + u, params, updates)
    # exact: added to the param and rounded to the nearest, this difference gives the rounded sum
    updates = jax.tree.map(
      lambda r, p: r.astype(jnp.float32) - p.astype(jnp.float32), _round_tree(key, sums), params
    )
    return updates, Rounded(state.step + 1, inner_state)

  return optax.GradientTransformation(init, update)


def narrow_second_moment(
  adam: optax.GradientTransformation, seed: int
) -> optax.GradientTransformation:
  """scale_by_adam with its second moment kept in bfloat16, stochastically rounded.

  Rounded to the nearest it would neither decay by 0.1% a step nor take in 0.1% of a square.
  """

  def init(params):
    state: Any = adam.init(params)
    return state._replace(nu=jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.nu))

  def update(updates, state: Any, params=None):
    wide = state._replace(nu=jax.tree.map(lambda x: x.astype(jnp.float32), state.nu))
    found: Any
    updates, found = adam.update(updates, wide, params)
    key = jax.random.fold_in(jax.random.key(seed), state.count)
    return updates, found._replace(nu=_round_tree(key, found.nu))

  return optax.GradientTransformation(init, update)


def make_optimizer(
  learning_rate: float,
  *,
  schedule: str = 'constant',
  warmup_steps: int = 0,
  total_steps: int = 1,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  clip_norm: float = 1.0,
  moment_dtype: str = 'float32',
  second_moment_dtype: str = 'float32',
  param_dtype: str = 'float32',
  rounding: str = 'nearest',
  seed: int = 0,
) -> optax.GradientTransformation:
  """AdamW (Loshchilov & Hutter 2019) after clipping to a global norm (0: no clipping).

  Weight decay spares norms and biases. moment_dtype is that of the first moment; all arithmetic is
  float32 (float64 for such params). rounding: nearest | stochastic, of bfloat16 params; with the
  nearest a learning rate under 1e-5 is refused: the update would round away. seed is that of
  stochastic rounding.
  """
  if rounding not in ('nearest', 'stochastic'):
    raise ValueError(f'optimizer.rounding={rounding!r}: known are nearest, stochastic')
  stochastic = param_dtype == 'bfloat16' and rounding == 'stochastic'
  if param_dtype == 'bfloat16' and learning_rate < 1e-5 and not stochastic:
    raise ValueError(
      f"optimizer.learning_rate={learning_rate} with model.dtype='bfloat16': most weights would "
      "not move at all (bfloat16 keeps 8 bits); use optimizer.rounding='stochastic', or "
      "model.dtype='float32' with model.compute_dtype='bfloat16'"
    )

  def decayed(params):
    def one(path, leaf):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      return not name.endswith(('norm', '_bias'))

    return jax.tree_util.tree_map_with_path(one, params)

  rate = make_schedule(
    learning_rate, kind=schedule, warmup_steps=warmup_steps, total_steps=total_steps
  )
  adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=jnp.dtype(moment_dtype))
  if second_moment_dtype == 'bfloat16':
    adam = narrow_second_moment(adam, seed)
  chain = optax.chain(
    adam,
    optax.add_decayed_weights(weight_decay, decayed),
    optax.scale_by_learning_rate(rate),
  )
  if clip_norm:
    chain = optax.chain(optax.clip_by_global_norm(clip_norm), chain)
  optimizer = in_float32(chain)
  if stochastic:
    optimizer = rounded_params(optimizer, seed)
  return optimizer
