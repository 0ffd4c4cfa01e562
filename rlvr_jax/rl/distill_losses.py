"""What a student learns of a teacher: forward KL at given tokens, reverse KL at its own.

Forward KL (Hinton et al. 2015; arXiv 2306.13649 calls it supervised KD): KL(teacher || student) of
every completion token's distribution, over the whole vocabulary, on the teacher's (or anybody's)
completions. Reverse KL on the student's own samples (on-policy distillation, arXiv 2306.13649):
sampled at the tokens drawn, so that its gradient is that of policy gradients with the advantage
log p_teacher - log p_student of each token, and what comes after a token is not its credit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.layers import wide
from rlvr_jax.models.logprobs import logits
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.models.transformer import Params, forward
from rlvr_jax.rl.trained import Trained
from rlvr_jax.rl.types import TrainState
from rlvr_jax.rl.update import Rows, jitted, state_shardings, stepped


def check_tokenizers(student: Tokenizer, teacher: Tokenizer, name: str) -> None:
  """ValueError unless every token id means the same to both, stop tokens included."""
  mine, its = student.hf.get_vocab(), teacher.hf.get_vocab()
  if mine != its:
    differ = sorted(k for k in {*mine, *its} if mine.get(k) != its.get(k))
    raise ValueError(
      f'distill.teacher={name!r} has another tokenizer than the student: {len(differ)} tokens '
      f'differ, as {differ[0]!r} ({its.get(differ[0])} and {mine.get(differ[0])}), so that its '
      "probabilities are of other things; learn from its texts instead, with distill.method='sft'"
    )
  if student.eos_ids != teacher.eos_ids:
    raise ValueError(
      f'distill.teacher={name!r} stops at token ids {teacher.eos_ids}, the student at '
      f'{student.eos_ids}; learn from its texts instead, with distill.method=sft'
    )


def forward_kl(
  student: Params,
  hidden: jax.Array,
  teacher: Params,
  teacher_hidden: jax.Array,
  *,
  vocabulary: int,
  chunk: int,
) -> jax.Array:
  """KL(teacher || student) of each token's distribution (nats), f32[N], at temperature 1.

  hidden [N,D] and teacher_hidden [N,D'] predict the same tokens. `chunk` tokens have their logits
  at once, and again in the backward pass; nothing of size N * V exists. vocabulary: the first
  tokens of the heads that mean something; what padding some have beyond them is left out of both.
  No gradient flows to the teacher.
  """
  N = hidden.shape[0]
  size = min(chunk, N)
  pad = -N % size

  def cut(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, pad), (0, 0))).reshape(-1, size, x.shape[-1])

  def log_p(params: Params, h: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(logits(params, h)[:, :vocabulary], axis=-1)

  @jax.checkpoint
  def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    mine, its = pair
    target = jax.lax.stop_gradient(log_p(teacher, its)).astype(wide(mine.dtype))
    return jnp.sum(jnp.exp(target) * (target - log_p(student, mine)), axis=-1)

  return jax.lax.map(one, (cut(hidden), cut(teacher_hidden))).reshape(-1)[:N]


def logit_loss(
  student: Params,
  teacher: Params,
  rows: Rows,
  tokens: jax.Array,
  *,
  config: ModelConfig,
  teacher_config: ModelConfig,
  vocabulary: int,
  compute_dtype: str,
  remat: str | bool,
  chunk: int,
  mesh: Mesh | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sum of the forward KL over a micro-batch's [b,T] completion tokens, over `tokens` in all."""
  b, T = rows.tokens.shape
  positions = rows.positions
  if positions is None:
    positions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (b, T))

  def hidden(params: Params, model: ModelConfig, remat: str | bool) -> jax.Array:
    cast = jax.tree.map(lambda x: x.astype(compute_dtype), params)
    found, _ = forward(
      cast,
      rows.tokens,
      positions,
      config=model,
      segments=rows.segments,
      remat=remat,
      mesh=mesh,
      images=rows.images,
    )
    return found[:, :-1].reshape(b * (T - 1), -1)  # what predicts tokens 1 to T-1

  kl = forward_kl(
    jax.tree.map(lambda x: x.astype(compute_dtype), _heads(student)),
    hidden(student, config, remat),
    jax.tree.map(lambda x: x.astype(compute_dtype), _heads(teacher)),
    jax.lax.stop_gradient(hidden(teacher, teacher_config, 'none')),
    vocabulary=vocabulary,
    chunk=chunk,
  )
  mask = rows.completion_mask[:, 1:].reshape(-1)
  total = jnp.sum(jnp.where(mask, kl, 0.0))
  loss = total / tokens.astype(total.dtype)
  return loss, {'kl_teacher': jax.lax.stop_gradient(loss)}


def _heads(params: Params) -> Params:
  return {name: params[name] for name in ('head', 'embed') if name in params}


def make_logit_update(
  config: ModelConfig,
  teacher_config: ModelConfig,
  optimizer: optax.GradientTransformation,
  *,
  vocabulary: int,
  compute_dtype: str = 'float32',
  remat: str | bool = 'block',
  chunk: int = 1024,
  mesh: Mesh | None = None,
  trained: Trained | None = None,
) -> Callable[[TrainState, Rows, Params], tuple[TrainState, dict[str, jax.Array]]]:
  """The jitted step (state, rows, teacher) -> (state, metrics); state is donated.

  The mean forward KL over all completion tokens of the M micro-batches. A non-finite loss or
  gradient leaves params and optimizer as they were; metrics['skipped'] is then 1.
  """
  parts = trained or Trained()

  def update(state: TrainState, rows: Rows, teacher: Params):
    count = jnp.maximum(jnp.sum(rows.completion_mask), 1)

    def loss_of(params, micro):
      return logit_loss(
        params,
        teacher,
        micro,
        count,
        config=config,
        teacher_config=teacher_config,
        vocabulary=vocabulary,
        compute_dtype=compute_dtype,
        remat=remat,
        chunk=chunk,
        mesh=mesh,
      )

    placed = None if mesh is None else state_shardings(parts.take(state), config, mesh)
    state, metrics = stepped(parts, optimizer, state, loss_of, rows, placed)
    return state, metrics | {'tokens': count.astype(metrics['loss'].dtype)}

  return jitted(update, mesh)


def reverse_kl_advantages(student: np.ndarray, teacher: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """log p_teacher - log p_student of the tokens drawn, f32[B,T]; 0 outside the mask.

  With the surrogate -advantage * log p_student its expected gradient is that of the mean over the
  tokens of KL(student || teacher) at each, prefixes held fixed.
  """
  return np.where(mask, teacher - student, np.float32(0)).astype(np.float32)
