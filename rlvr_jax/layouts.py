"""Jobs that learn, with mesh.auto's meshes of learner and sampler chosen first.

What fits is decided by the arithmetic of memory.py, which job=plan prints too.
"""

import functools
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from rlvr_jax import config as config_lib
from rlvr_jax import memory, mesh_choice
from rlvr_jax.config import Config
from rlvr_jax.eval import run as run_lib
from rlvr_jax.mesh_choice import USABLE, WEIGHTS_SHARE, Layout, Limits, Priced
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.load import load_config
from rlvr_jax.rl import distill as distill_lib
from rlvr_jax.rl import train as train_lib
from rlvr_jax.rl.scratch import from_scratch
from rlvr_jax.sampling.budget import GIB

log = logging.getLogger(__name__)


def train(config: Config, workdir: pathlib.Path) -> None:
  """rl.train.train over the mesh that the config has or lets choose."""
  train_lib.train(settled(config), workdir)


def distill(config: Config, workdir: pathlib.Path) -> None:
  """rl.distill.distill, likewise."""
  distill_lib.distill(settled(config), workdir)


def settled(
  config: Config,
  *,
  model: ModelConfig | None = None,
  devices: Sequence[Any] | None = None,
  hbm: int = 0,
) -> Config:
  """config with numbers in place of mesh.auto, and the reasons logged; else config as it is.

  model, devices, and hbm in bytes of each device: where they are not those at hand. ValueError
  where no mesh fits.
  """
  if not config.mesh.auto:
    return config
  devices = jax.devices() if devices is None else devices
  hbm = hbm or mesh_choice.device_memory(devices)
  if model is None:
    name = config.model.name
    model = load_config(name) if name else from_scratch(config)[0]
  by_tensor = functools.cache(lambda tensor: _with_sampler(config, tensor))
  kernel = devices[0].platform == 'gpu'

  def price(layout: Layout) -> Priced:
    return _priced(by_tensor(layout.sampler), model, layout, hbm, kernel)

  choice = mesh_choice.choose(hbm, limits_of(config, model, devices), price)
  layout = choice.layout
  log.info(
    'mesh.data=%d mesh.fsdp=%d mesh.tensor=%d sampling.tensor=%d: %s', *layout, choice.reason
  )
  changed = config.copy_and_resolve_references()
  values = {'data': layout.data, 'fsdp': layout.fsdp, 'tensor': layout.tensor, 'auto': False}
  for key, value in values.items():
    config_lib.set_key(changed, f'mesh.{key}', value, 'mesh.auto')
  config_lib.set_key(changed, 'sampling.tensor', layout.sampler, 'mesh.auto')
  return changed


def limits_of(config: Config, model: ModelConfig, devices: Sequence[Any]) -> Limits:
  """What layouts of a run on these devices must divide; of models that see, their tower too."""
  tower = run_lib.sees(config, model)
  return Limits(
    devices=len(devices),
    own=sum(device.process_index == devices[0].process_index for device in devices),
    most_rows=memory.step_rollouts(config),
    slots=config.sampling.slots,
    fsdp=(model.embed_dim, *(() if tower is None else (tower.embed_dim,))),
    tensor=(
      model.num_heads,
      model.mlp_dim,
      model.vocab_size,
      *(() if tower is None else (tower.num_heads,)),
    ),
    sampler=config.sampling.tensor,
  )


def _with_sampler(config: Config, tensor: int) -> Config:
  changed = config.copy_and_resolve_references()
  config_lib.set_key(changed, 'sampling.tensor', tensor, 'mesh.auto')
  return changed.lock()


def _priced(config: Config, model: ModelConfig, layout: Layout, hbm: int, kernel: bool) -> Priced:
  """A layout's bytes; crowded where pages are fewer than asked for, most of the room weights."""
  split = memory.Split(*layout[:3])
  phases = memory.phases(config, model, split, kernel=kernel)
  budget = memory.sampler_budget(config, model, split)
  others = sum(phases['sample'].values()) - budget.total
  room = min(int(USABLE * hbm) - others, int(config.sampling.memory_gb * GIB) or hbm)
  crowded = budget.pages < budget.full_pages and budget.weights > WEIGHTS_SHARE * room
  return Priced(phases, crowded)
