"""The learner's side of a run: the model on its mesh, the optimizer, the steps over rollouts.

Shared by RL (rl/train.py) and supervised fine-tuning (rl/distill.py).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from rlvr_jax import hosts
from rlvr_jax.checkpoint import Checkpointer
from rlvr_jax.config import Config
from rlvr_jax.eval import run as run_lib
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.load import load_model
from rlvr_jax.models.rules import KV_PATHS, TRAIN_RULES
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.models.transformer import Params, init_params
from rlvr_jax.rl import critic as critic_lib
from rlvr_jax.rl import entropy
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.critic import CriticRows
from rlvr_jax.rl.frozen import as_dtype, compute_copy
from rlvr_jax.rl.optimizer import make_optimizer
from rlvr_jax.rl.packing import Layout
from rlvr_jax.rl.prepare import Prepared, prepare, selected
from rlvr_jax.rl.rollout import layout_of, micro_batches
from rlvr_jax.rl.scratch import from_scratch
from rlvr_jax.rl.trained import Trained, trained_of
from rlvr_jax.rl.types import Rollouts, TrainState
from rlvr_jax.rl.update import Rows, make_score, make_update, rows_sharding, state_shardings
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.local import hand_over_locally
from rlvr_jax.sharding import row_parts, sampler_mesh, shardings


@dataclasses.dataclass
class Learner:
  """A model being trained. state changes (and its old arrays are donated) with every step.

  update, score: rl/update.py; critic_update, values: rl/critic.py, None without a critic.
  reference: params of the start model, None when no KL term is asked for or adapters train, whose
  start model is state.params. base: those of the start model where it writes completions
  (train.base_share), else None. multiple: rows of a micro-batch are a multiple of this (the mesh's
  data parts). trained: what of the state trains.
  """

  config: ModelConfig
  tokenizer: Tokenizer
  mesh: Mesh | None
  state: TrainState
  update: Callable
  score: Callable
  reference: Params | None
  run: Config
  multiple: int
  algorithm: Algorithm
  trained: Trained
  critic_update: Callable | None = None
  values: Callable | None = None
  base: Params | None = None
  optimizer: Any = None

  @property
  def params(self) -> Params:
    """What the forward pass takes now, adapters attached."""
    return self.trained.params(self.state)

  def save(self, checkpoints: Checkpointer, step: int, host: dict[str, Any]) -> None:
    """Saves the state, without what no step changes."""
    checkpoints.save(step, self._saved().fields(), host)

  def restore(self, checkpoints: Checkpointer) -> dict[str, Any]:
    """Takes the state of the last checkpoint; its host state. Raises as Checkpointer.restore."""
    found, host = checkpoints.restore(self._saved().fields())
    self.reference = found.pop('reference', self.reference)
    self.state = self.trained.restored(self.state, TrainState(**found))
    return host

  def _saved(self) -> TrainState:
    """What a checkpoint holds; a reference where it does not stay the start model."""
    moves = self.run.train.reset_every > 0
    return self.trained.saved(self.state).replace(reference=self.reference if moves else None)

  def refresh(self, engine: Engine, params: Params | None = None) -> None:
    """Hands the current params over to the engine, over its old copy, in the compute dtype.

    params: others of the same shapes, in their place.
    """
    # over several processes nothing is written over: the old copy goes before the new one is made
    old, engine.params = (engine.params if hosts.count() == 1 else None), None
    now = as_dtype(self.params if params is None else params, self.run.model.compute_dtype)
    own = sampler_mesh(self.mesh, self.run.sampling.tensor)
    engine.load(hand_over_locally(old, now, own))

  def _place(self, rows: Any) -> Any:
    if self.mesh is None:
      return rows
    return hosts.placed(rows, rows_sharding(self.mesh))

  def _layout(self, rollouts: Rollouts) -> Layout:
    t = self.run.train
    return layout_of(
      rollouts, micro_tokens=t.micro_tokens, multiple=self.multiple, packing=t.packing
    )

  def _cut(self, *batch: Any, **per_token: np.ndarray | None) -> Rows:
    sees = {'vision': self.config.vision, 'multiple': self.multiple}
    return micro_batches(*batch, **sees, **per_token)

  def logprobs(
    self, params: Params, rollouts: Rollouts, score: Callable | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Log-probs and entropy f32[B,T] of rollouts under params, at the sampling temperature.

    score: of another architecture's params (update.make_score).
    """
    layout = self._layout(rollouts)
    rows = self._place(self._cut(rollouts, None, layout))
    found = (score or self.score)(params, rows, jnp.float32(self.run.sampling.temperature))
    logprobs, entropy = jax.device_get(found)
    return layout.restore(logprobs), layout.restore(entropy)

  def critic_values(self, rollouts: Rollouts) -> np.ndarray:
    """The critic's values f32[B,T], aligned as log-probs are."""
    assert self.values is not None
    layout = self._layout(rollouts)
    rows = self._place(self._cut(rollouts, None, layout))
    return layout.restore(jax.device_get(self.values(self.state.critic.params, rows)))

  def prepare(
    self, rollouts: Rollouts, *, iteration: int, greedy: np.ndarray | None = None
  ) -> Prepared:
    """Scores and advantages of an iteration's rollouts, before its first step; rl/prepare.py."""
    reference = self.reference
    if self.algorithm.reference and self.trained.adapter is not None:
      reference = self.state.params
    return prepare(
      self.run,
      self.algorithm,
      rollouts,
      score=lambda r: self.logprobs(self.params, r),
      score_reference=None if reference is None else lambda r: self.logprobs(reference, r),
      score_values=None if self.values is None else self.critic_values,
      several_steps=len(self.minibatches(rollouts, iteration)) > 1,
      greedy=greedy,
    )

  def minibatches(self, rollouts: Rollouts, iteration: int) -> list[np.ndarray]:
    """Row indices of each optimizer step of an iteration, in order, all epochs.

    Groups stay whole; their order in each epoch is a function of (seed, iteration, epoch).
    """
    t = self.run.train
    groups = np.unique(rollouts.group)
    size = t.minibatch or len(groups)
    steps = []
    for epoch in range(t.epochs):
      order = groups
      if size < len(groups) or t.epochs > 1:
        order = np.random.default_rng([self.run.seed, iteration, epoch]).permutation(groups)
      for begin in range(0, len(order), size):
        chosen = np.isin(rollouts.group, order[begin : begin + size])
        steps.append(np.flatnonzero(chosen))
    return steps

  def steps(self, batch: Prepared, *, iteration: int) -> dict[str, float]:
    """All optimizer steps over an iteration's rollouts; metrics of the last, gap of the first."""
    temperature = jnp.float32(self.run.sampling.temperature)
    found: list[dict[str, jax.Array]] = []
    for number, index in enumerate(self.minibatches(batch.rollouts, iteration)):
      part = batch.part(index)
      layout = self._layout(part.rollouts)
      keep, penalised = selected(self.algorithm, part, self.run.seed, (iteration, number))
      rows = self._cut(
        part.rollouts,
        part.advantages,
        layout,
        old_logprobs=part.old,
        ref_logprobs=part.ref,
        keep=keep,
        penalised=penalised,
      )
      metrics = self._step(rows, temperature)
      if self.critic_update is not None:
        metrics |= self._critic_step(part, layout, temperature)
        metrics['skipped'] = jnp.maximum(metrics['skipped'], metrics.pop('critic/skipped'))
      found.append(metrics)
    return self._row(jax.device_get(found)) | batch.metrics

  def _step(self, rows: Rows, temperature: jax.Array) -> dict[str, jax.Array]:
    # without the critic: the update donates what it is given
    critic, state = self.state.critic, self.state.replace(critic=None)
    state, metrics = self.update(state, self._place(rows), temperature)
    self.state = state.replace(critic=critic)
    return dict(metrics)

  def _critic_step(
    self, part: Prepared, layout: Layout, temperature: jax.Array
  ) -> dict[str, jax.Array]:
    assert self.critic_update is not None
    assert part.values is not None
    assert part.targets is not None
    rows = self._cut(part.rollouts, None, layout)
    values, targets = (cast(jax.Array, layout.cut(x)) for x in (part.values, part.targets))
    critic, metrics = self.critic_update(
      self.state.critic, self._place(CriticRows(rows, values, targets)), temperature
    )
    self.state = self.state.replace(critic=critic)
    return metrics

  def _row(self, read: list[dict[str, Any]]) -> dict[str, float]:
    """One row of metrics from those of an iteration's steps."""
    first, last = read[0], read[-1]
    row = {k: float(v) for k, v in last.items()}
    row |= {k: float(first[k]) for k in first if k.startswith('gap/')}
    skipped = [bool(m['skipped']) for m in read]
    row['skipped'] = float(sum(skipped))
    row['skipped/trailing'] = float(len(skipped) if all(skipped) else skipped[::-1].index(False))
    row['steps'] = float(len(skipped))
    row['tokens'] = float(sum(m['tokens'] for m in read))
    return row

  def rows(self, rollouts: Rollouts, advantages: np.ndarray | None = None) -> Rows:
    """Rollouts in packed micro-batches, with advantages f32[B] or f32[B,T]."""
    return self._cut(rollouts, advantages, self._layout(rollouts))

  def placed(self, rollouts: Rollouts) -> Rows:
    """The same without advantages, on the mesh."""
    return self._place(self.rows(rollouts))

  def one_step(self, rollouts: Rollouts, advantages: np.ndarray) -> dict[str, float]:
    """One optimizer step over all the rollouts, at temperature 1; metrics. advantages: f32[B], or
    f32[B,T] where tokens of a rollout differ."""
    metrics = self._step(self.rows(rollouts, advantages), jnp.float32(1))
    row = {k: float(v) for k, v in jax.device_get(metrics).items()}
    return row | {'skipped/trailing': row['skipped'], 'steps': 1.0}


def total_steps(config: Config) -> int:
  """Optimizer steps of a whole training run."""
  t = config.train
  per_iteration = math.ceil(t.prompts / (t.minibatch or t.prompts)) * t.epochs
  return t.iterations * per_iteration


def open_frozen(name: str, dtype: str, mesh: Mesh | None) -> tuple[ModelConfig, Params]:
  """A model that only scores, laid out over the mesh as one that trains."""

  def placed(model_config: ModelConfig) -> Any:
    return None if mesh is None else _placed(model_config, dtype, mesh)

  model_config, params, _ = load_model(name, dtype=dtype, shardings=placed, merged=True)
  return model_config, params


def _placed(model_config: ModelConfig, dtype: str, mesh: Mesh) -> Any:
  """Shardings of a model's params by the training rules."""
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model_config, dtype))
  replicate = KV_PATHS if model_config.num_kv_heads % mesh.shape['tensor'] else None
  return shardings(shapes, TRAIN_RULES, mesh, replicate=replicate)


def open_model(config: Config, mesh: Mesh | None) -> tuple[ModelConfig, Params, Tokenizer]:
  """The model of a config: by name, or from scratch by model.init for a task with an alphabet."""

  def placed(model_config: ModelConfig) -> Any:
    return None if mesh is None else _placed(model_config, config.model.dtype, mesh)

  if config.model.name:
    m = config.model
    return load_model(
      m.name, dtype=m.dtype, shardings=placed, merged=True, attention_impl=m.attention_impl
    )
  model_config, tokenizer = from_scratch(config)
  make = jax.jit(
    lambda key: init_params(key, model_config, config.model.dtype),
    out_shardings=placed(model_config),
  )
  return model_config, make(jax.random.key(config.seed)), tokenizer


def optimizer_of(
  config: Config, learning_rate: float, total_steps: int, param_dtype: str
) -> optax.GradientTransformation:
  """The optimizer of a config's group, with a learning rate of one's own, for such params."""
  o = config.optimizer
  return make_optimizer(
    learning_rate,
    schedule=o.schedule,
    warmup_steps=o.warmup_steps,
    total_steps=total_steps,
    b1=o.b1,
    b2=o.b2,
    eps=o.eps,
    weight_decay=o.weight_decay,
    clip_norm=o.clip_norm,
    moment_dtype=o.moment_dtype,
    second_moment_dtype=o.second_moment_dtype,
    param_dtype=param_dtype,
    rounding=o.rounding,
    seed=config.seed,
  )


def build(
  config: Config,
  model_config: ModelConfig,
  algorithm: Algorithm,
  *,
  total_steps: int,
  learning_rate: float | None = None,
  mesh: Mesh | None = None,
) -> tuple[optax.GradientTransformation, Callable, Callable]:
  """(optimizer, update, score) of a config for a model, without its params."""
  m = config.model
  rate = config.optimizer.learning_rate if learning_rate is None else learning_rate
  trains = 'float32' if config.lora.rank else m.dtype  # adapters are float32
  optimizer = optimizer_of(config, rate, total_steps, trains)
  update = make_update(
    model_config,
    algorithm,
    optimizer,
    longest=config.sampling.max_tokens,
    compute_dtype=m.compute_dtype,
    remat=m.remat,
    chunk=m.logprob_chunk,
    mesh=mesh,
    trained=trained_of(config),
  )
  return (
    optimizer,
    update,
    make_score(model_config, compute_dtype=m.compute_dtype, chunk=m.logprob_chunk, mesh=mesh),
  )


def start_state(
  optimizer: optax.GradientTransformation,
  critic_optimizer: optax.GradientTransformation | None,
  params: Params,
  trained: Trained | None = None,
  factors: Any = None,
  entropy: Any = None,
) -> TrainState:
  """The state before the first step; factors: of adapters, from trained.start; entropy: from
  entropy.start."""
  critic = None
  if critic_optimizer is not None:
    critic = critic_lib.start(params, critic_optimizer)
  state = TrainState(jnp.zeros((), jnp.int32), params, None, critic, factors, entropy)
  return state.replace(opt_state=optimizer.init((trained or Trained()).take(state)))


class Critic(NamedTuple):
  """What a critic needs beside its state."""

  optimizer: optax.GradientTransformation
  update: Callable
  values: Callable


def critic_parts(
  config: Config,
  model_config: ModelConfig,
  algorithm: Algorithm,
  *,
  total_steps: int,
  mesh: Mesh | None,
) -> Critic | None:
  """The critic of a config's algorithm, if it has one."""
  if not algorithm.critic:
    return None
  m = config.model
  optimizer = optimizer_of(config, config.critic.learning_rate, total_steps, m.dtype)
  update = critic_lib.make_critic_update(
    model_config,
    algorithm,
    optimizer,
    longest=config.sampling.max_tokens,
    compute_dtype=m.compute_dtype,
    remat=m.remat,
    mesh=mesh,
  )
  values = critic_lib.make_values(model_config, compute_dtype=m.compute_dtype, mesh=mesh)
  return Critic(optimizer, update, values)


def open_learner(
  config: Config,
  algorithm: Algorithm,
  *,
  total_steps: int,
  learning_rate: float | None = None,
) -> Learner:
  """Everything that learns, on the config's mesh. ValueError names the key that does not fit."""
  mesh = run_lib.make_mesh(config)
  model_config, params, tokenizer = open_model(config, mesh)
  optimizer, update, score = build(
    config,
    model_config,
    algorithm,
    total_steps=total_steps,
    learning_rate=learning_rate,
    mesh=mesh,
  )
  critic = critic_parts(config, model_config, algorithm, total_steps=total_steps, mesh=mesh)
  parts = trained_of(config)

  def start(params: Params) -> TrainState:
    factors = parts.start(model_config, config.seed)
    parts.check(params, factors)
    own, control = critic.optimizer if critic else None, entropy.start(algorithm)
    return start_state(optimizer, own, params, parts, factors, control)

  if mesh is None:
    state = jax.jit(start, donate_argnums=0)(params)
  else:
    target = state_shardings(jax.eval_shape(start, params), model_config, mesh)
    state = jax.jit(start, out_shardings=target, donate_argnums=0)(params)
  del params
  frozen, shares = None, bool(config.train.base_share)
  if (algorithm.reference or shares) and parts.adapter is None:
    # a copy: the state's own arrays are donated with the first step
    frozen = compute_copy(state.params, config.model.compute_dtype)
  return Learner(
    config=model_config,
    tokenizer=tokenizer,
    mesh=mesh,
    state=state,
    update=update,
    score=score,
    reference=frozen if algorithm.reference else None,
    run=config,
    multiple=row_parts(mesh),
    algorithm=algorithm,
    trained=parts,
    critic_update=critic.update if critic else None,
    values=critic.values if critic else None,
    base=frozen if shares else None,
    optimizer=optimizer,
  )
