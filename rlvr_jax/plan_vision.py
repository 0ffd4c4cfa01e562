"""What images add to a plan: how many a micro-batch has, their bytes, the tower's work.

Rows of windows are those of rl/pictures.py and sampling/shapes.py. Bytes are of images as large as
a prompt can hold, times are of images of the mean size.
"""

import dataclasses
import functools
import math
import re
from typing import Any

import jax

from rlvr_jax.config import Config
from rlvr_jax.eval import run as run_lib
from rlvr_jax.models import attention
from rlvr_jax.models.config import ModelConfig, VisionConfig
from rlvr_jax.models.images import bucket_windows, window_count
from rlvr_jax.models.rules import VISION_RULES
from rlvr_jax.models.transformer import init_params
from rlvr_jax.plan_roofline import Work
from rlvr_jax.rl.trained import trained_of
from rlvr_jax.sharding import path_name

_SIZE = {'float32': 4, 'bfloat16': 2}
MARKS = 2  # tokens of a prompt that stand around an image


@dataclasses.dataclass(frozen=True)
class Seen:
  """Images as a program of a device gets them: rows of windows, and patches of a row.

  tokens: of one image; images: how many different ones all devices have at once.
  """

  rows: int
  windows: int
  patches: int
  tokens: int
  images: int

  @property
  def all_patches(self) -> int:
    """Places for patches on a device, filled or not."""
    return self.rows * self.patches


def vision_of(config: Config, model: ModelConfig) -> VisionConfig | None:
  """The model's tower where the plan's prompts have images; None without."""
  return run_lib.sees(config, model) if config.plan.images else None


def largest_tokens(config: Config, vision: VisionConfig) -> int:
  """Tokens of an image of a prompt, were all of its room theirs; ValueError where it has none."""
  count, capacity = config.plan.images, config.sampling.prompt_capacity
  room = capacity // count - MARKS
  pixels = (vision.patch * vision.merge) ** 2
  if room < vision.min_pixels // pixels:
    raise ValueError(
      f'sampling.prompt_capacity={capacity} has no room for plan.images={count} of at least '
      f'{vision.min_pixels // pixels} tokens (model.min_pixels={vision.min_pixels}); raise it'
    )
  return min(room, vision.max_pixels // pixels)


def mean_tokens(config: Config, vision: VisionConfig, prompt: int) -> int:
  """plan.image_tokens, or half of the mean prompt, within what images may have."""
  most = largest_tokens(config, vision)
  if config.plan.image_tokens > most:
    raise ValueError(
      f'plan.image_tokens={config.plan.image_tokens} is above the largest image of a prompt, {most}'
    )
  if config.plan.image_tokens:
    return config.plan.image_tokens
  least = vision.min_pixels // (vision.patch * vision.merge) ** 2
  return min(most, max(least, prompt // 2 // config.plan.images))


def _windows(tokens: int, vision: VisionConfig) -> tuple[int, int]:
  """(windows, tokens) of the nearly square image of at most so many tokens."""
  rows = math.isqrt(tokens)
  columns = tokens // rows
  return window_count((1, rows * vision.merge, columns * vision.merge), vision), rows * columns


def in_micro_batch(
  config: Config, vision: VisionConfig, *, each: int, rollouts: int, tokens: int, multiple: int,
  prompts: int,
) -> Seen:  # fmt: skip
  """Images of `each` tokens of a micro-batch that has so many tokens in all.

  rollouts: whose images it has, at most; prompts: of the step, which bounds the different images.
  """
  windows, each = _windows(each, vision)
  count = max(1, min(config.plan.images * min(rollouts, prompts), tokens // each))
  bucket = bucket_windows(windows)
  most = -(-count // multiple)
  rows = 1 << (most - 1).bit_length()
  return Seen(rows, bucket, bucket * vision.window_patches, each, count)


def in_prefill(config: Config, vision: VisionConfig, each: int) -> Seen:
  """Images of `each` tokens of one prompt: a row of windows."""
  windows, each = _windows(each, vision)
  bucket = bucket_windows(config.plan.images * windows)
  return Seen(1, bucket, bucket * vision.window_patches, each, config.plan.images)


@functools.cache
def _tower(model: ModelConfig) -> Any:
  return jax.eval_shape(lambda: init_params(jax.random.key(0), model))['vision']


def numbers_on_device(tree: Any, data: int, fsdp: int, tensor: int) -> int:
  """Numbers of the learner's params (or part of them) on one of so many devices.

  Of the decoder an even share; of the tower what its rules say: its mlp is not split over tensor.
  """
  sizes = {'data': data, 'fsdp': fsdp, 'tensor': tensor}
  decoder, tower = 0, 0
  for path, leaf in jax.tree.leaves_with_path(tree):
    name = path_name(path)
    if not name.startswith('vision/'):
      decoder += leaf.size
      continue
    spec = next(spec for pattern, spec in VISION_RULES if re.search(pattern, name))
    tower += leaf.size // math.prod(sizes[axis] for axis in spec if axis is not None)
  return decoder // (fsdp * tensor) + tower


def trains(config: Config, model: ModelConfig) -> bool:
  """Whether any of the tower trains."""
  parts = trained_of(config)
  if model.vision is None or parts.adapter is not None:
    return False
  return bool(jax.tree.leaves(parts.kept_of({'vision': _tower(model)})))


def rows_bytes(vision: VisionConfig, seen: Seen, tokens: int) -> int:
  """Of what a micro-batch has beside tokens, on one device: vision.Images."""
  patch = vision.patch_values + 4 * 2
  return seen.all_patches * patch + 4 * seen.rows * seen.windows + 4 * 4 * tokens


def forward_bytes(
  vision: VisionConfig, seen: Seen, *, parts: int, tensor: int, size: int, embed_dim: int
) -> dict[str, int]:
  """Bytes of the tower's forward pass on one device: a layer, its scores, the embeddings of all.

  parts: that rows of windows are split into, whose embeddings every device gets.
  """
  c, patches = vision, seen.all_patches
  block = math.gcd(seen.patches, attention.BLOCK)
  heads = c.num_heads // tensor
  whole = 2 * 4 * seen.rows * block * seen.patches * heads if c.full_layers else 0
  within = 2 * 4 * patches * c.window_patches * heads
  embeddings = parts * patches // c.unit * embed_dim * size
  return {
    'tower layer': patches * (4 * c.embed_dim + 6 * c.embed_dim // tensor + 3 * c.mlp_dim) * size,
    'tower scores': max(whole, within if len(c.full_layers) < c.num_layers else 0),
    'image embeddings': embeddings,
  }


def learn_bytes(
  vision: VisionConfig, seen: Seen, *, parts: int, tensor: int, size: int, embed_dim: int,
  remat: str, trained: bool,
) -> dict[str, int]:  # fmt: skip
  """The same of forward and backward pass, with what remat keeps; frozen towers have no latter."""
  found = forward_bytes(vision, seen, parts=parts, tensor=tensor, size=size, embed_dim=embed_dim)
  if not trained:
    return found
  c = vision
  inner = 4 * c.embed_dim + 6 * c.embed_dim // tensor + 3 * c.mlp_dim
  products = c.embed_dim + 4 * c.embed_dim // tensor + 3 * c.mlp_dim
  kept = c.embed_dim + {'block': 0, 'dots': products, 'none': inner}[remat]
  doubled = {part: 2 * bytes_ for part, bytes_ in found.items()}
  return doubled | {'tower inputs': c.num_layers * seen.all_patches * kept * size}


def tower_flops(
  vision: VisionConfig, seen: Seen, *, tensor: int, trained: bool, remat: str
) -> float:
  """Operations of the tower on one device: forward, and where it trains backward and remade."""
  c, S = vision, seen.patches
  split = (c.num_layers * 4 * c.embed_dim**2) / tensor  # attention's products
  down = c.num_layers * c.embed_dim * c.mlp_dim
  merged = (c.unit * c.embed_dim) ** 2 / tensor + c.unit * c.embed_dim * c.out_dim / tensor
  per_patch = split + 3 * down
  full = len(c.full_layers)
  block = math.gcd(S, attention.BLOCK)
  # operations of one product of all queries with keys
  whole = 2.0 * full * c.embed_dim / tensor * S
  within = 2.0 * (c.num_layers - full) * c.embed_dim / tensor * c.window_patches
  once = c.patch_values * c.embed_dim
  if not trained:
    each = 2.0 * (per_patch + once + merged / c.unit) + 2 * (whole + within)
    return each * seen.all_patches
  passes = 4 if remat == 'block' else 3
  remade = 1 if remat != 'none' else 0
  inside = 1 if block < S else 0  # a block's scores are made again once more
  each = 2.0 * (passes * per_patch - (down if remat == 'block' else 0))
  each += 2.0 * (2 * once + 3 * merged / c.unit)  # pixels have no gradient
  each += (6 + 2 * remade + inside) * whole + (6 + 2 * remade) * within
  return each * seen.all_patches


def tower_work(
  config: Config, model: ModelConfig, seen: Seen, parts: int, fsdp: int, tensor: int, *,
  trained: bool,
) -> Work:  # fmt: skip
  """The tower's operations, bytes of HBM and messages, on one device."""
  c = model.vision
  assert c is not None
  size, patches = _SIZE[config.model.compute_dtype], seen.all_patches
  remat = config.model.remat
  flops = tower_flops(c, seen, tensor=tensor, trained=trained, remat=remat)
  # of the weights gathered over fsdp; those of the mlp are not split over tensor
  attend, mlp = 4 * c.embed_dim**2, 3 * c.embed_dim * c.mlp_dim
  merger = c.unit * c.embed_dim * (c.unit * c.embed_dim + c.out_dim)
  weights = size * (c.num_layers * (attend / tensor + mlp) + merger / tensor)
  layer = patches * (4 * c.embed_dim + 6 * c.embed_dim / tensor + 3 * c.mlp_dim) * size
  passes = 4 if trained and remat == 'block' else 3 if trained else 1
  traffic = passes * (weights + 2 * c.num_layers * layer)
  sent: dict[str, float] = {}
  if fsdp > 1:
    gathers = (2 if remat == 'none' else 3) + 1 if trained else 1
    sent['fsdp'] = gathers * weights * (fsdp - 1) / fsdp
  if parts > 1:  # every device gets all embeddings, and gives their gradients
    embeddings = parts * patches // c.unit * model.embed_dim * size
    axes = 'fsdp' if parts == fsdp else 'data+fsdp'
    count = 3 if trained else 1
    sent[axes] = sent.get(axes, 0.0) + count * embeddings * (parts - 1) / parts
  if tensor > 1:
    each = 2 * (tensor - 1) / tensor * size * patches * c.embed_dim
    sums = c.num_layers + 1
    sent['tensor'] = each * sums * (3 if trained else 1)
  return Work(flops, traffic, sent)
