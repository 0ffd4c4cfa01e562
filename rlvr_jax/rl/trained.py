"""What of a state trains: all params, all but frozen subtrees, or adapters over frozen params.

Gradients and optimizer state are made for what `take` gives and for nothing else. Frozen leaves are
None in it, which is an empty subtree to jax and optax.
"""

import dataclasses
import re
from typing import Any

import jax

from rlvr_jax.config import Config
from rlvr_jax.models import lora
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.lora import Adapter
from rlvr_jax.models.transformer import Params
from rlvr_jax.rl.types import TrainState
from rlvr_jax.sharding import path_name


@dataclasses.dataclass(frozen=True)
class Trained:
  """adapter: its factors (TrainState.lora) train, params do not. frozen: regexes on leaves' paths.

  Paths are as 'embed', 'layers/q', 'final_norm'; with an adapter 'layers/q_a'. A path is frozen if
  a regex is found in it. Layers are stacked, so that a leaf is frozen in all of them or in none.
  """

  adapter: Adapter | None = None
  frozen: tuple[str, ...] = ()

  def take(self, state: TrainState) -> Any:
    """The tree that trains; frozen leaves are None."""
    return self.kept_of(state.params if self.adapter is None else state.lora)

  def kept_of(self, tree: Any) -> Any:
    """A tree of params or factors (or their shapes) with None for its frozen leaves."""

    def one(path: tuple, leaf: Any) -> Any:
      return None if self._is_frozen(path) else leaf

    return jax.tree_util.tree_map_with_path(one, tree)

  def put(self, state: TrainState, trained: Any) -> TrainState:
    """state with what trains replaced by `trained`, a tree like that of `take`."""
    tree = _filled(state.params if self.adapter is None else state.lora, trained)
    return state.replace(params=tree) if self.adapter is None else state.replace(lora=tree)

  def params(self, state: TrainState) -> Params:
    """What the forward pass takes."""
    if self.adapter is None:
      return state.params
    return lora.attach(state.params, state.lora, self.adapter)

  def start(self, config: ModelConfig, seed: int) -> Any:
    """TrainState.lora before the first step; None without an adapter."""
    if self.adapter is None:
      return None
    return lora.init_lora(jax.random.key(seed), config, self.adapter)

  def saved(self, state: TrainState) -> TrainState:
    """What a checkpoint holds: params that an adapter leaves as they were are not in it."""
    return state if self.adapter is None else state.replace(params=None)

  def restored(self, state: TrainState, saved: TrainState) -> TrainState:
    """The whole state from what a checkpoint held; state is that of the start."""
    return saved if self.adapter is None else saved.replace(params=state.params)

  def check(self, params: Params, factors: Any) -> None:
    """ValueError for a regex that freezes nothing, and where nothing is left to train."""
    tree = params if self.adapter is None else factors
    names = [path_name(path) for path, _ in jax.tree.leaves_with_path(tree)]
    for pattern in self.frozen:
      if not any(re.search(pattern, name) for name in names):
        raise ValueError(f'train.frozen: {pattern!r} is in none of {", ".join(names)}')
    if all(any(re.search(p, name) for p in self.frozen) for name in names):
      raise ValueError(f'train.frozen={self.frozen} leaves nothing to train of {", ".join(names)}')

  def _is_frozen(self, path: tuple) -> bool:
    name = path_name(path)
    return any(re.search(pattern, name) for pattern in self.frozen)


def trained_of(config: Config) -> Trained:
  """What trains by a config's groups lora and train."""
  group = config.lora
  adapter = None
  if group.rank:
    adapter = Adapter(group.rank, group.alpha, tuple(group.targets))
  return Trained(adapter, tuple(config.train.frozen))


def _filled(tree: Any, sparse: Any) -> Any:
  """sparse with tree's leaves where it has None, so that both have one structure."""
  return jax.tree.map(
    lambda own, other: own if other is None else other, tree, sparse, is_leaf=lambda x: x is None
  )
