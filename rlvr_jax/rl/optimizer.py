"""AdamW with clipping and a schedule, from optax."""

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
  param_dtype: str = 'float32',
) -> optax.GradientTransformation:
  """AdamW (Loshchilov & Hutter 2019) after clipping to a global norm (0: no clipping).

  Weight decay spares norms and biases. moment_dtype is that of the first moment; all arithmetic and
  the second moment are float32 (float64 for such params). A learning rate under 1e-5 is refused for
  bfloat16 params: the update would round away.
  """
  if param_dtype == 'bfloat16' and learning_rate < 1e-5:
    raise ValueError(
      f"optimizer.learning_rate={learning_rate} with model.dtype='bfloat16': most weights would "
      "not move at all (bfloat16 keeps 8 bits); use model.dtype='float32' with "
      "model.compute_dtype='bfloat16'"
    )

  def decayed(params):
    def one(path, leaf):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      return not name.endswith(('norm', '_bias'))

    return jax.tree_util.tree_map_with_path(one, params)

  rate = make_schedule(
    learning_rate, kind=schedule, warmup_steps=warmup_steps, total_steps=total_steps
  )
  adamw = optax.adamw(
    rate,
    b1=b1,
    b2=b2,
    eps=eps,
    weight_decay=weight_decay,
    mu_dtype=jnp.dtype(moment_dtype),
    mask=decayed,
  )
  if clip_norm:
    return in_float32(optax.chain(optax.clip_by_global_norm(clip_norm), adamw))
  return in_float32(adamw)
