"""mesh.auto: the meshes of learner and sampler chosen for the model and the devices there are."""

import logging
from collections.abc import Sequence
from typing import Any

import jax

from rlvr_jax import config as config_lib
from rlvr_jax import mesh_choice
from rlvr_jax.config import Config
from rlvr_jax.eval import run as run_lib
from rlvr_jax.mesh_choice import Need
from rlvr_jax.models.config import ModelConfig, VisionConfig
from rlvr_jax.models.load import load_config
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.learner import optimizer_of, start_state
from rlvr_jax.rl.scratch import from_scratch
from rlvr_jax.rl.trained import trained_of

log = logging.getLogger(__name__)


def settled(
  config: Config,
  algorithm: Algorithm,
  *,
  model: ModelConfig | None = None,
  devices: Sequence[Any] | None = None,
  memory: int = 0,
) -> Config:
  """config with numbers in place of mesh.auto, and the reasons logged; else config as it is.

  model, devices, and memory in bytes of each device: where they are not those at hand. ValueError
  where no mesh fits.
  """
  if not config.mesh.auto:
    return config
  devices = jax.devices() if devices is None else devices
  memory = memory or mesh_choice.device_memory(devices)
  if model is None:
    name = config.model.name
    model = load_config(name) if name else from_scratch(config)[0]
  kept, need = learner_need(config, algorithm, model, len(devices))
  size = int(mesh_choice.USABLE * memory)

  def sampler(fsdp: int, tensor: int) -> tuple[int, str]:
    left = size - kept // (fsdp * tensor)
    return run_lib.choose_tensor(config, model, devices, left)

  def share(fsdp: int, tensor: int) -> int:
    try:
      return sampler(fsdp, tensor)[0]
    except ValueError:  # the last resort; if it comes to that, it is raised below
      return len(devices) + 1

  choice = mesh_choice.choose(len(devices), memory, need, share)
  tensor, why = sampler(choice.fsdp, choice.tensor)
  c = choice
  log.info('mesh.data=%d mesh.fsdp=%d mesh.tensor=%d: %s', c.data, c.fsdp, c.tensor, c.reason)
  log.info('sampling.tensor=%d: %s', tensor, why)
  changed = config.copy_and_resolve_references()
  values = {'data': choice.data, 'fsdp': choice.fsdp, 'tensor': choice.tensor, 'auto': False}
  for key, value in values.items():
    config_lib.set_key(changed, f'mesh.{key}', value, 'mesh.auto')
  config_lib.set_key(changed, 'sampling.tensor', tensor, 'mesh.auto')
  return changed


def learner_need(
  config: Config, algorithm: Algorithm, model: ModelConfig, devices: int = 1
) -> tuple[int, Need]:
  """(bytes that stay while the sampler runs, what a step needs), over all devices.

  devices: how many there are, each of which has the embeddings of the images of all.
  """
  m, parts = config.model, trained_of(config)
  trains = 'float32' if config.lora.rank else m.dtype
  adam = optimizer_of(config, 1e-6, 1, trains)

  def start():
    params = init_params(jax.random.key(0), model, m.dtype)
    factors = parts.start(model, config.seed)
    return start_state(adam, adam if algorithm.critic else None, params, parts, factors)

  state = jax.eval_shape(start)
  kept = _bytes(state)
  numbers = sum(leaf.size for leaf in jax.tree.leaves(parts.take(state)))
  compute = _bytes(state.params, m.compute_dtype)
  if algorithm.reference and not config.lora.rank:
    kept += compute
  step = kept + numbers * (4 + _size(m.compute_dtype))  # the sum of gradients, and one's own
  if m.dtype != m.compute_dtype:
    step += compute
  longest = config.sampling.prompt_capacity + config.sampling.max_tokens
  D, F, N, K, H = (
    model.embed_dim,
    model.mlp_dim,
    model.num_heads * model.head_dim,
    model.num_kv_heads,
    model.head_dim,
  )
  layer = sum(leaf.size // leaf.shape[0] for leaf in state.params['layers'].values())
  inner = 3 * (N + K * H + F)  # projections, before and after what is done to them
  rollouts = (config.train.minibatch or config.train.prompts) * config.train.group
  size = _size(m.compute_dtype)
  vision = run_lib.sees(config, model)
  pictures = 0
  if vision is not None:  # one a device, of as many patches as a prompt has room for
    tokens = min(config.sampling.prompt_capacity, vision.max_pixels // _token_pixels(vision))
    patches = tokens * vision.unit
    pictures = patches * vision.embed_dim * size * (vision.num_layers + 16)
    pictures += 2 * devices * tokens * D * size
  return kept, Need(
    state=step,
    # of a layer weights and gradients, activations and theirs; logits, exponentials, slopes
    inner=2 * layer * size
    + 2 * longest * inner * size
    + 12 * min(m.logprob_chunk, longest) * model.vocab_size,
    row=longest * D * size * (model.num_layers + 8) + pictures,
    most_rows=config.distill.batch if config.job == 'distill' else rollouts,
    fsdp=(D,) if vision is None else (D, vision.embed_dim),
    tensor=(model.num_heads, F, model.vocab_size) + (() if vision is None else (vision.num_heads,)),
  )


def _token_pixels(vision: VisionConfig) -> int:
  return (vision.patch * vision.merge) ** 2


def _bytes(tree: Any, dtype: str = '') -> int:
  return sum(x.size * (_size(dtype) if dtype else x.dtype.itemsize) for x in jax.tree.leaves(tree))


def _size(dtype: str) -> int:
  return {'float32': 4, 'bfloat16': 2}[dtype]
