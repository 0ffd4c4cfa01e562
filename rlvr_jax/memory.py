"""Bytes on one device in each phase of an iteration, by arithmetic, before anything is allocated.

  python -m rlvr_jax.memory configs/grpo_qwen7b.py:1gpu ... > docs/memory.md

What is counted is what the phases hold at once by their programs' construction; a compiler's
temporaries are counted as the arrays that a layer makes. Nothing here was measured.
"""

import functools
import math
import sys
from typing import Any, NamedTuple

import jax
import numpy as np

from rlvr_jax import config as config_lib
from rlvr_jax import hosts, plan_vision
from rlvr_jax.config import Config
from rlvr_jax.eval import run as run_lib
from rlvr_jax.models import attention, lora
from rlvr_jax.models.config import ModelConfig, VisionConfig
from rlvr_jax.models.known import KNOWN
from rlvr_jax.models.transformer import init_params
from rlvr_jax.rl import packing
from rlvr_jax.rl.algorithms import ALGORITHMS
from rlvr_jax.rl.frozen import copies
from rlvr_jax.rl.train import algorithm_of
from rlvr_jax.rl.trained import Trained, trained_of
from rlvr_jax.sampling.budget import GIB, Budget

CARD = 79.6 * GIB  # what a GPU sold as 80 GB has
MANY = 512  # rollouts by which a layout is chosen
_SIZE = {'float32': 4, 'bfloat16': 2}
Phases = dict[str, dict[str, int]]


class Split(NamedTuple):
  """Devices on each mesh axis."""

  data: int = 1
  fsdp: int = 1
  tensor: int = 1

  @property
  def rows(self) -> int:
    """Parts that rows and slots are split into."""
    return self.data * self.fsdp

  @property
  def weights(self) -> int:
    """Parts that the learner's weights are split into."""
    return self.fsdp * self.tensor

  def sampler(self, tensor: int) -> 'Split':
    """The same devices as the sampler has them; tensor: sampling.tensor."""
    size = self.rows * self.tensor
    if tensor in (0, self.tensor):
      return self
    if size % tensor:
      raise ValueError(f'sampling.tensor={tensor} does not divide the {size} devices')
    return Split(size // tensor, 1, tensor)


def phases(
  config: Config, model: ModelConfig, split: Split | None = None, *, kernel: bool = True
) -> Phases:
  """Phase -> what it holds -> bytes on one device; split None: the only one.

  hand_over: the sampler's weights are made. sample: they and the cache decode. score: log-probs of
  the batch before the first step. learn: one micro-batch's gradient is added to the sum. kernel:
  bfloat16 attention is that of a GPU's kernel, which keeps a mask and no scores.
  """
  split = split or Split()
  kept = _kept(config, model, split)
  sampler = _sampler(config, model, split)
  weights = {'sampler weights': sampler.pop('sampler weights')}
  held = {} if config.sampling.release else weights | sampler
  copy = {}
  if config.model.dtype != config.model.compute_dtype:
    copy = {'compute copy': _weights(model, config.model.compute_dtype, split)}
  activations = _activations(config, model, split, kernel)
  halves = {'scores': 2, 'mask': 1, 'a layer': 2, 'gathered layers': 1, 'logits': 1.5}
  forward = {k: int(v / halves[k]) for k, v in activations.items() if k in halves}
  gathered = {}
  if split != Split():  # a compiler copies what it gathered, layer by layer, when it has them all
    tensor = split.sampler(config.sampling.tensor).tensor
    size = model.num_layers * _layer_numbers(model) * _SIZE[config.model.compute_dtype]
    gathered = {'gathered layers': size // tensor}
  making = weights | copy | gathered
  return {
    'hand_over': kept | making | (sampler if not config.sampling.release else {}),
    'sample': kept | weights | sampler,
    'score': kept | held | copy | forward | _images(config, model, split, forward, learn=False),
    'learn': kept
    | held
    | copy
    | gradients(config, model, split)
    | activations
    | _images(config, model, split, activations, learn=True),
  }


def _count(tree: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def trained_count(config: Config, model: ModelConfig, split: Split | None = None) -> int:
  """Numbers that train, on one device; split None: all of them."""
  return _trained_numbers(trained_of(config), model, split or Split())


@functools.cache
def _trained_numbers(parts: Trained, model: ModelConfig, split: Split) -> int:
  key = jax.random.key(0)
  tree: Any = jax.eval_shape(lambda: init_params(key, model))
  if parts.adapter is not None:
    adapter = parts.adapter
    tree = jax.eval_shape(lambda: lora.init_lora(key, model, adapter))
  return plan_vision.numbers_on_device(parts.kept_of(tree), *split)


@functools.cache
def _weights(model: ModelConfig, dtype: str, split: Split) -> int:
  """Bytes of the learner's params on one device."""
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model))
  return _SIZE[dtype] * plan_vision.numbers_on_device(shapes, *split)


@functools.cache
def _layer_numbers(model: ModelConfig) -> int:
  """Weights of one layer."""
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model))
  return _count(shapes['layers']) // model.num_layers


def _moments_size(config: Config) -> int:
  """Bytes of both moments of one number."""
  return _SIZE[config.optimizer.moment_dtype] + _SIZE[config.optimizer.second_moment_dtype]


def _kept(config: Config, model: ModelConfig, split: Split) -> dict[str, int]:
  """What every phase has."""
  # fine-tuning has neither a reference nor a critic
  algorithm = ALGORITHMS['sft'] if config.job == 'distill' else algorithm_of(config)
  count = trained_count(config, model, split)
  own = _weights(model, config.model.dtype, split)
  found = {'weights': own}
  if config.lora.rank:
    found['adapters'] = 4 * count
  found['moments'] = count * _moments_size(config)
  if number := copies(config, algorithm):
    found['reference'] = number * _weights(model, config.model.compute_dtype, split)
  if algorithm.critic:
    numbers = own // _SIZE[config.model.dtype]
    found['critic'] = own + numbers * _moments_size(config)
  return found


def sampler_budget(config: Config, model: ModelConfig, split: Split) -> Budget:
  """The sampler's capacities, of several processes each one's own, and bytes on a device."""
  own = split.sampler(config.sampling.tensor)
  shards = own.rows // hosts.count()
  return run_lib.budget_over(
    config, model, shards=shards, tensor=own.tensor, decode_impl='xla_paged'
  )


def _sampler(config: Config, model: ModelConfig, split: Split) -> dict[str, int]:
  """The sampler's weights, cache and workspace."""
  budget = sampler_budget(config, model, split)
  weights = budget.weights
  if config.lora.rank and config.model.compute_dtype == 'bfloat16':
    weights += 2 * trained_count(config, model) // split.sampler(config.sampling.tensor).tensor
  found = {
    'sampler weights': weights,
    'cache': budget.bank + budget.pool,
    'sampler workspace': budget.workspace,
  }
  if vision := plan_vision.vision_of(config, model):  # beside it, for the chunk runs ahead
    each = plan_vision.largest_tokens(config, vision)
    seen = plan_vision.in_prefill(config, vision, each)
    size = _SIZE[config.model.compute_dtype]
    one = {'parts': 1, 'tensor': 1, 'size': size, 'embed_dim': model.embed_dim}
    parts = plan_vision.forward_bytes(vision, seen, **one)
    pixels = plan_vision.rows_bytes(vision, seen, config.sampling.prompt_capacity)
    found['prefill of images'] = sum(parts.values()) + pixels
  return found


def gradients(config: Config, model: ModelConfig, split: Split) -> dict[str, int]:
  """The sum over micro-batches, float32, and beside it one micro-batch's own."""
  count = trained_count(config, model, split)
  return {
    'gradient sum': 4 * count,
    'gradient': count * _SIZE[config.model.compute_dtype],
  }


def step_rollouts(config: Config) -> int:
  """Rollouts, or pairs of fine-tuning, in an optimizer step."""
  t = config.train
  if config.job == 'distill':
    return config.distill.batch
  return (t.minibatch or t.prompts) * t.group


def micro_batch(config: Config, split: Split) -> tuple[int, int]:
  """(rows on one device, tokens of a row) of a micro-batch of the longest rollouts.

  Rows as long as packing makes them of a batch whose rollouts are all at their longest, and no
  shorter than the bucket of one.
  """
  t, s = config.train, config.sampling
  longest = s.prompt_capacity + s.max_tokens
  T = packing.bucket_length(longest)
  if t.packing:
    count = min(step_rollouts(config), MANY)
    T = max(T, _packed_length(count, longest, t.micro_tokens, split.rows))
  return packing.rows_per_micro_batch(T, t.micro_tokens, split.rows) // split.rows, T


def seen(
  config: Config,
  vision: VisionConfig,
  split: Split,
  *,
  learn: bool,
  each: int = 0,
  rollouts: int = 0,
) -> plan_vision.Seen:
  """Images of a micro-batch; each: tokens of one (0: the largest), rollouts: those it has."""
  t = config.train
  rows, T = micro_batch(config, split)
  tokens = rows * split.rows * T
  each = each or plan_vision.largest_tokens(config, vision)
  prompts = (t.minibatch or t.prompts) if learn else t.prompts
  return plan_vision.in_micro_batch(
    config,
    vision,
    each=each,
    rollouts=rollouts or tokens,
    tokens=tokens,
    multiple=split.rows,
    prompts=prompts,
  )


def micro_batches(config: Config, split: Split, *, learn: bool) -> int:
  """Of an optimizer step, or of scoring, were every completion as long as it may be."""
  t, s = config.train, config.sampling
  b, T = micro_batch(config, split)
  each = T // (s.prompt_capacity + s.max_tokens) if t.packing else 1  # rollouts in a row
  count = ((t.minibatch or t.prompts) if learn else t.prompts) * t.group
  return 1 << (-(-count // (b * split.rows * each)) - 1).bit_length()


def _images(
  config: Config, model: ModelConfig, split: Split, decoder: dict[str, int], *, learn: bool
) -> dict[str, int]:
  """What images add to scoring or learning. The tower runs before and after the decoder, whose
  activations, by part, its own then lie where these lay."""
  vision = plan_vision.vision_of(config, model)
  if vision is None:
    return {}
  own = seen(config, vision, split, learn=learn)
  rows, T = micro_batch(config, split)
  size = _SIZE[config.model.compute_dtype]
  one = {'parts': split.rows, 'tensor': split.tensor, 'size': size, 'embed_dim': model.embed_dim}
  if learn:
    trained = plan_vision.trains(config, model)
    parts = plan_vision.learn_bytes(vision, own, **one, remat=config.model.remat, trained=trained)
  else:
    parts = plan_vision.forward_bytes(vision, own, **one)
  kept = {name: parts.pop(name) for name in ('tower inputs', 'image embeddings') if name in parts}
  pixels = micro_batches(config, split, learn=learn)
  pixels *= plan_vision.rows_bytes(vision, own, rows * T)
  beyond = max(0, sum(parts.values()) - sum(decoder.values()))
  return {'images': pixels} | kept | {'tower': beyond}


@functools.cache
def _packed_length(count: int, longest: int, micro_tokens: int, multiple: int) -> int:
  """Tokens of a row when so many rollouts of that length are packed."""
  return packing.pack(np.full(count, longest), micro_tokens=micro_tokens, multiple=multiple)[2]


def _activations(config: Config, model: ModelConfig, split: Split, kernel: bool) -> dict[str, int]:
  """Of a micro-batch's forward and backward pass: what config.model.remat keeps."""
  c, size = model, _SIZE[config.model.compute_dtype]
  rows, T = micro_batch(config, split)
  tokens = rows * T
  if kernel and size == 2 and config.model.attention_impl != 'einsum':
    found = {'mask': 3 * rows * T * T}  # of packed rows: bool, and as a bias in bfloat16
  else:  # of a block of queries, float32: scores, their softmax and the gradients of both
    block = min(attention.BLOCK, T)
    found = {'scores': 4 * 4 * rows * block * T * c.num_heads // split.tensor}
  if split.fsdp > 1:  # this layer and the next, gathered
    found['gathered layers'] = 2 * _layer_numbers(c) * size // split.tensor
  heads, kv_heads = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
  # norms and both outputs; q, rotated q and attended; k and v, rotated k; gate, up and product
  within = (3 * heads + 3 * kv_heads + 3 * c.mlp_dim) // split.tensor
  inner = 4 * c.embed_dim + within
  products = 2 * c.embed_dim + (heads + 2 * kv_heads + 2 * c.mlp_dim) // split.tensor
  layers = c.embed_dim + {'block': 0, 'dots': products, 'none': inner}[config.model.remat]
  chunk = min(config.model.logprob_chunk, tokens)
  return found | {
    'layer inputs': c.num_layers * tokens * layers * size,
    'a layer': 2 * tokens * inner * size,  # and the gradients of what is in it
    'logits': 3 * 4 * chunk * c.vocab_size // split.tensor,  # with probabilities and gradient, f32
  }


def table(config: Config, model: ModelConfig) -> str:
  """A Markdown table in GiB: a row a part, a column a phase."""
  found = phases(config, model)
  parts = list(dict.fromkeys(part for held in found.values() for part in held))
  rows = [
    ['', *found],
    ['---', *('---:' for _ in found)],
    *([part, *(_gib(held.get(part, 0)) for held in found.values())] for part in parts),
    ['**all**', *(f'**{_gib(sum(held.values()))}**' for held in found.values())],
  ]
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _gib(size: int) -> str:
  return f'{size / GIB:.2f}' if size else ''


HEADER = """# Bytes of one GPU of 80 GB

GiB in each phase of an iteration, by arithmetic (`python -m rlvr_jax.memory CONFIG ...`), nothing
of it measured; docs/plan.md holds the same arithmetic against compiled programs. A card sold as
80 GB has 79.6 GiB, of which every phase here leaves 5 GB or more; jax takes three quarters of it
unless `XLA_PYTHON_CLIENT_MEM_FRACTION=0.95` is set. A micro-batch has `train.micro_tokens` tokens,
in rows of the longest rollout; attention is cuDNN's, whose `mask` keeps packed rollouts apart. The
cache is what `sampling.memory_gb` leaves beside the sampler's weights. With `sampling.release` the
sampler's weights and cache are gone while the batch is scored and learnt from.
"""


def document(paths: list[str]) -> str:
  """The page for some config files; a ':' and the argument may follow each.

  ValueError for a model that models/known.py does not have.
  """
  parts = [HEADER]
  for path in paths:
    config = config_lib.resolve(config_lib.load_file(path))
    if config.model.name not in KNOWN:
      raise ValueError(
        f'{path}: model.name={config.model.name!r} is not in models/known.py; known are '
        f'{", ".join(KNOWN)}'
      )
    model = KNOWN[config.model.name]
    t, s = config.train, config.sampling
    what = f'adapters of rank {config.lora.rank}' if config.lora.rank else 'all weights'
    budget = run_lib.engine_budget(config, model)
    held = math.floor(budget.pages * budget.page / budget.slots)
    parts.append(
      f'## {path}\n\n{config.model.name}, {what} train; {t.prompts} x {t.group} completions of at '
      f'most {s.max_tokens:,} tokens,\n{budget.slots} at once with {held:,} tokens each on average '
      f'in the cache, micro-batches of {t.micro_tokens:,} tokens.\n\n{table(config, model)}\n'
    )
  return '\n'.join(parts)


if __name__ == '__main__':
  if not sys.argv[1:]:
    sys.exit('usage: python -m rlvr_jax.memory CONFIG[:ARG] ...')
  print(document(sys.argv[1:]), end='')
