"""The programs of an iteration as a run makes them, on described arrays: nothing is allocated.

The same functions build them (rl/learner.py, rl/update.py, sampling/engine.py, layout.py) that a
run calls; only the arrays are shapes with a layout, so that a compiler for devices that are not
there can take them.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

from rlvr_jax import memory, sharding
from rlvr_jax.config import Config
from rlvr_jax.eval import run as run_lib
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl import learner
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.critic import CriticRows
from rlvr_jax.rl.frozen import copies
from rlvr_jax.rl.train import algorithm_of
from rlvr_jax.rl.trained import trained_of
from rlvr_jax.rl.types import TrainState
from rlvr_jax.rl.update import Rows, rows_sharding, state_shardings
from rlvr_jax.sampling import layout
from rlvr_jax.sampling.check import MAX_STOPS
from rlvr_jax.sampling.draw import Options


@dataclasses.dataclass(frozen=True)
class Program:
  """A jitted function and what it is called with; phase: when it runs."""

  name: str
  phase: str
  function: Any
  args: tuple
  static: dict[str, Any]
  uses: tuple[str, ...]  # what of Described.held is among its arguments, or is its result

  def lower(self) -> Any:
    """Traced and lowered for the devices its arguments are described on."""
    return self.function.lower(*self.args, **self.static)


@dataclasses.dataclass(frozen=True)
class Described:
  """An iteration: programs in the order in which they run, and the arrays that outlive them.

  held: name -> tree of described arrays: params, optimizer, adapters, critic, reference, compute
  copy, sampler params, sampler state; what a config does not have is not in it.
  shape: (micro-batches of an optimizer step at most, their rows, tokens of a row).
  """

  model: ModelConfig
  mesh: Mesh | None
  sampler_mesh: Mesh | None
  programs: tuple[Program, ...]
  held: dict[str, Any]
  shape: tuple[int, ...]
  decode_impl: str


def bytes_on_device(tree: Any) -> int:
  """Bytes of a tree of described arrays on one device, without the padding of its tiles."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def describe(config: Config, model: ModelConfig, devices: Sequence[Any]) -> Described:
  """The programs of job=train on such devices; ValueError as a run would raise it."""
  mesh = sharding.make_mesh(*(config.mesh[axis] for axis in sharding.AXES), devices=devices)
  place = _Place(None if mesh.size == 1 else mesh, devices[0])
  run_lib.check_context(config, model)
  algorithm = algorithm_of(config)
  state, update, score, critic = _learner(config, model, algorithm, place)
  params = jax.eval_shape(trained_of(config).params, state)
  params = _attached(state, params, place)
  computed = _cast(params, config.model.compute_dtype)
  step, whole = _rows(config, algorithm, place)
  scalar = place.whole(jax.ShapeDtypeStruct((), jnp.float32))
  held = {'params': state.params, 'optimizer': state.opt_state}
  if state.lora is not None:
    held['adapters'] = state.lora
  if state.critic is not None:
    held |= {'critic params': state.critic.params, 'critic optimizer': state.critic.opt_state}
  if _copies(config):
    held['compute copy'] = computed
  if copies(config, algorithm):
    held['reference'] = _cast(state.params, config.model.compute_dtype)

  sampler = _Place(sharding.sampler_mesh(place.mesh, config.sampling.tensor), devices[0])
  sampler_params, hand_over = _hand_over(config, computed, sampler)
  engine = run_lib.make_engine(config, None, model, place.mesh)
  chunk, prefill, sampler_state = _sampler(config, engine, sampler_params, sampler)
  held |= {'sampler params': sampler_params, 'sampler state': sampler_state}
  programs = [hand_over, prefill, chunk]
  trained = ('params', 'adapters')
  programs.append(Program('score', 'score', score, (params, whole, scalar), {}, trained))
  if critic is not None and state.critic is not None:
    values = (state.critic.params, whole)
    programs.append(Program('values', 'score', critic.values, values, {}, ('critic params',)))
  donated = (state.replace(critic=None), step, scalar)
  programs.append(Program('step', 'learn', update, donated, {}, (*trained, 'optimizer')))
  if critic is not None:
    more = CriticRows(step, step.advantages, step.advantages)
    args = (state.critic, more, scalar)
    uses = ('critic params', 'critic optimizer')
    programs.append(Program('critic step', 'learn', critic.update, args, {}, uses))
  return Described(
    model=model,
    mesh=place.mesh,
    sampler_mesh=sampler.mesh,
    programs=tuple(programs),
    held=held,
    shape=step.tokens.shape,
    decode_impl=str(engine.decode_impl),
  )


def _copies(config: Config) -> bool:
  return config.model.dtype != config.model.compute_dtype


class _Place:
  """Gives shapes their layout: over the mesh, or on the one device."""

  def __init__(self, mesh: Mesh | None, device: Any):
    self.mesh = mesh
    self._device = SingleDeviceSharding(device)

  def by(self, tree: Any, shardings: Any) -> Any:
    """tree laid out by a tree of shardings (one for all: a sharding); ignored on one device."""
    if self.mesh is None:
      return jax.tree.map(lambda x: _like(x, self._device), tree)
    if not isinstance(shardings, jax.sharding.Sharding):
      return jax.tree.map(_like, tree, shardings)
    return jax.tree.map(lambda x: _like(x, shardings), tree)

  def whole(self, tree: Any) -> Any:
    """tree as the host gives it: uncommitted scalars and tables, whole on every device."""
    if self.mesh is None:
      return self.by(tree, None)
    return self.by(tree, jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec()))


def _like(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _cast(tree: Any, dtype: str) -> Any:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(dtype), sharding=x.sharding), tree
  )


def _attached(state: TrainState, params: Any, place: _Place) -> Any:
  """Layouts of what Trained.params gives: those of the state's own leaves."""
  own = dict(state.params)
  if state.lora is not None:
    own['layers'] = {**state.params['layers'], **state.lora['layers']}
  return place.by(params, jax.tree.map(lambda x: x.sharding, own))


def _learner(
  config: Config, model: ModelConfig, algorithm: Algorithm, place: _Place
) -> tuple[TrainState, Any, Any, learner.Critic | None]:
  """State, update, score and critic as learner.open_learner makes them."""
  steps = learner.total_steps(config)
  parts = trained_of(config)
  mesh = place.mesh
  optimizer, update, score = learner.build(config, model, algorithm, total_steps=steps, mesh=mesh)
  critic = learner.critic_parts(config, model, algorithm, total_steps=steps, mesh=mesh)

  def start() -> TrainState:
    params = init_params(jax.random.key(0), model, config.model.dtype)
    factors = parts.start(model, config.seed)
    parts.check(params, factors)
    own = critic.optimizer if critic else None
    return learner.start_state(optimizer, own, params, parts, factors)

  state = jax.eval_shape(start)
  shardings = None if mesh is None else state_shardings(state, model, mesh)
  return place.by(state, shardings), update, score, critic


def _rows(config: Config, algorithm: Algorithm, place: _Place) -> tuple[Rows, Rows]:
  """Rows of an optimizer step and of scoring, were every completion as long as it may be."""
  t, s = config.train, config.sampling
  split = memory.Split() if place.mesh is None else memory.Split(*place.mesh.shape.values())
  b, T = memory.micro_batch(config, split)
  b *= split.rows
  each = T // (s.prompt_capacity + s.max_tokens) if t.packing else 1  # rollouts in a row
  scored = algorithm.scored_first or t.epochs > 1 or (t.minibatch or t.prompts) < t.prompts

  def rows(count: int, scoring: bool) -> Rows:
    M = 1 << (-(-count // (b * each)) - 1).bit_length()

    def array(dtype: Any) -> Any:
      return jax.ShapeDtypeStruct((M, b, T), dtype)

    found = Rows(
      tokens=array(jnp.int32),
      completion_mask=array(bool),
      advantages=array(jnp.float32),
      sampler_logprobs=array(jnp.float32),
      old_logprobs=array(jnp.float32) if scored and not scoring else None,
      ref_logprobs=array(jnp.float32) if algorithm.reference and not scoring else None,
      positions=array(jnp.int32) if t.packing else None,
      segments=array(jnp.int32) if t.packing else None,
      rollout=array(jnp.int32) if t.packing else None,
    )
    return place.by(found, None if place.mesh is None else rows_sharding(place.mesh))

  one_step = (t.minibatch or t.prompts) * t.group
  return rows(one_step, False), rows(t.prompts * t.group, True)


def _hand_over(config: Config, computed: Any, place: _Place) -> tuple[Any, Program]:
  """Sampler params, and the program that makes them; over old ones where those are kept."""
  if place.mesh is None:
    shapes = jax.eval_shape(layout.hand_over_program(None, computed), computed)
    sampler = place.by(shapes, None)
  else:
    sampler = place.by(*layout.sampler_shardings(computed, place.mesh))
  old = None if config.sampling.release else sampler
  function = layout.hand_over_program(old, computed, place.mesh)
  args = (computed,) if old is None else (old, computed)
  uses = ('compute copy' if _copies(config) else 'params', 'sampler params')
  return sampler, Program('hand-over', 'hand_over', function, args, {}, uses)


def _sampler(
  config: Config, engine: Any, params: Any, place: _Place
) -> tuple[Program, Program, Any]:
  """The decode chunk, the prefill of the longest prompts, and the engine's state."""
  make, shardings = engine.new_state(config.model.compute_dtype, False)
  state = place.by(jax.eval_shape(make), shardings)
  programs = layout.PROGRAMS
  if place.mesh is not None:
    programs = layout.programs_over(place.mesh, shardings)
  f32: Any = jax.ShapeDtypeStruct((), jnp.float32)
  i32: Any = jax.ShapeDtypeStruct((), jnp.int32)
  options = place.whole(Options(f32, f32, i32))
  stops = place.whole(jax.ShapeDtypeStruct((MAX_STOPS,), jnp.int32))
  static = {'config': engine.config, 'impl': engine.decode_impl}
  extras = {'steps': engine.steps, 'extras': config.sampling.extras}
  uses = ('sampler params', 'sampler state')
  given = (params, state, options, stops)
  chunk = Program('chunk', 'sample', programs.run_chunk, given, static | extras, uses)
  tokens = jax.ShapeDtypeStruct((engine.shards, engine.prompt_capacity), jnp.int32)
  number = jax.ShapeDtypeStruct((engine.shards,), jnp.int32)
  given = (params, state, *place.whole((tokens, number, number)))
  prefill = Program('prefill', 'sample', programs.prefill, given, static, uses)
  return chunk, prefill, state
