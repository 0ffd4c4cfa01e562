"""The work of an iteration by arithmetic: how often each program runs, operations, bytes, messages.

Operations are those that the programs do: what rematerialisation does twice is counted twice.
"""

import dataclasses
import math
from collections.abc import Mapping

from rlvr_jax import memory, plan_vision
from rlvr_jax.config import Config
from rlvr_jax.memory import Split
from rlvr_jax.models import attention
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.plan_roofline import Work
from rlvr_jax.rl.packing import FILL
from rlvr_jax.rl.train import algorithm_of
from rlvr_jax.sampling.budget import Budget, weight_bytes

SIZE = {'float32': 4, 'bfloat16': 2}
# halves of an attention (a product with keys or with values): forward; with a block remade before
# its backward pass, and the scores again within it
FORWARD, WITH_REMAT, WITHOUT = 2, 9, 7


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Mean tokens of a prompt and of a completion, and where they come from."""

  prompt: int
  completion: int
  assumed: bool
  image: int = 0  # tokens of an image of the prompt; 0: it has none

  @property
  def total(self) -> int:
    """Of a rollout."""
    return self.prompt + self.completion


@dataclasses.dataclass(frozen=True)
class Turns:
  """How often, on each device, an iteration does what."""

  completions: int  # on all devices
  prefills: int
  decode_steps: int
  live: float  # slots that decode at once, on a shard
  scored: int  # micro-batches that are scored, for all models that score
  steps: int  # optimizer steps
  micro_batches: int  # in all of them


def lengths_of(config: Config, model: ModelConfig) -> Lengths:
  """plan.prompt_tokens and plan.completion_tokens, or a quarter of the capacities."""
  p, s = config.plan, config.sampling
  for key, value, most in (
    ('prompt_tokens', p.prompt_tokens, s.prompt_capacity),
    ('completion_tokens', p.completion_tokens, s.max_tokens),
  ):
    if value > most:
      raise ValueError(f'plan.{key}={value} is above the longest that is sampled, {most}')
  prompt = p.prompt_tokens or math.ceil(s.prompt_capacity / 4)
  vision = plan_vision.vision_of(config, model)
  given = p.prompt_tokens and p.completion_tokens and (vision is None or p.image_tokens)
  return Lengths(
    prompt,
    p.completion_tokens or math.ceil(s.max_tokens / 4),
    not given,
    0 if vision is None else plan_vision.mean_tokens(config, vision, prompt),
  )


def turns_of(config: Config, split: Split, budget: Budget, lengths: Lengths) -> Turns:
  """Counts for rollouts of the mean length, packed FILL full; a batch drawn once."""
  t, algorithm = config.train, algorithm_of(config)
  completions = t.prompts * t.group
  shards = split.sampler(config.sampling.tensor).rows
  tokens = _micro_tokens(config, split, lengths)
  per_step = (t.minibatch or t.prompts) * t.group
  steps = t.epochs * -(-t.prompts // (t.minibatch or t.prompts))
  scorers = int(algorithm.scored_first or steps > 1) + int(algorithm.reference)
  slots = budget.slots / shards
  held = budget.pages / shards * budget.page
  live = min(slots, held / lengths.completion, completions / shards)
  return Turns(
    completions=completions,
    prefills=-(-t.prompts // shards),
    decode_steps=math.ceil(completions / shards * lengths.completion / live),
    live=live,
    scored=scorers * math.ceil(completions * lengths.total / tokens),
    steps=steps,
    micro_batches=steps * math.ceil(per_step * lengths.total / tokens),
  )


def _micro_tokens(config: Config, split: Split, lengths: Lengths) -> float:
  """Real tokens of a micro-batch, over all devices."""
  rows, T = memory.micro_batch(config, split)
  return rows * split.rows * (T * FILL if config.train.packing else lengths.total)


def _counts(model: ModelConfig) -> tuple[int, int, int]:
  """Weights of all blocks, of their down projections, of the head."""
  c = model
  attend = c.embed_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
  down = c.embed_dim * c.mlp_dim
  return c.num_layers * (attend + 3 * down), c.num_layers * down, c.vocab_size * c.embed_dim


def _half_attention(model: ModelConfig, rows: int, T: int) -> float:
  """Operations of one product with all keys that a row's bands see."""
  pairs = rows * T * T
  if attention.BLOCK < T:
    pairs *= (attention.BANDS + 1) / (2 * attention.BANDS)
  return 2.0 * model.num_layers * model.num_heads * model.head_dim * pairs


def micro_batch_work(config: Config, model: ModelConfig, split: Split, *, learn: bool) -> Work:
  """A micro-batch's forward pass, or forward and backward, on one device."""
  rows, T = memory.micro_batch(config, split)
  tokens, size = rows * T, SIZE[config.model.compute_dtype]
  blocks, down, head = _counts(model)
  remat = config.model.remat != 'none'
  passes, halves, heads = 1.0, FORWARD, 1
  remade = 0
  if learn:
    passes = 2.0 if config.lora.rank else 3.0  # frozen weights have no gradient
    halves, heads = (WITH_REMAT if remat else WITHOUT), (3 if config.lora.rank else 4)
    if config.model.remat == 'block':
      remade = blocks - down  # what only the next layer needs is not made again
  products = 2.0 * tokens * (passes * blocks + remade + heads * head)
  flops = (products + halves * _half_attention(model, rows, T)) / split.tensor
  weights = blocks * size / split.tensor
  gathers, reduces = (3, 5) if learn else (1, 2)
  scatters = 0 if config.lora.rank or not learn else 1
  sent: dict[str, float] = {}
  if split.fsdp > 1:
    sent['fsdp'] = (gathers + scatters) * weights * (split.fsdp - 1) / split.fsdp
  if split.tensor > 1:
    each = model.num_layers * tokens * model.embed_dim * size
    sent['tensor'] = reduces * each * 2 * (split.tensor - 1) / split.tensor
  if split.data > 1 and scatters:
    sent['data'] = 2 * weights / split.fsdp * (split.data - 1) / split.data
  return Work(flops, micro_batch_traffic(config, model, split, learn=learn), sent)


def micro_batch_traffic(config: Config, model: ModelConfig, split: Split, *, learn: bool) -> float:
  """Bytes of HBM: gathered weights, the gradient's sum, what a layer makes written and read."""
  rows, T = memory.micro_batch(config, split)
  c, size = model, SIZE[config.model.compute_dtype]
  blocks, _, head = _counts(model)
  weights = (blocks + head) * size / split.tensor
  wide = (2 * c.num_heads + 2 * c.num_kv_heads) * c.head_dim + 3 * c.mlp_dim
  layer = rows * T * (4 * c.embed_dim + wide / split.tensor) * size
  if not learn:
    return weights + 2 * c.num_layers * layer
  summed = 3 * 4.0 * memory.trained_count(config, model, split)
  return 3 * weights + 2 * 4 * c.num_layers * layer + summed


def tower_work(
  config: Config, model: ModelConfig, split: Split, *, learn: bool, lengths: Lengths | None = None
) -> Work:
  """What images add to micro_batch_work: the largest ones, or those of the mean lengths."""
  vision = plan_vision.vision_of(config, model)
  if vision is None:
    return Work()
  each = rollouts = 0
  if lengths is not None:
    each = lengths.image
    rollouts = math.ceil(_micro_tokens(config, split, lengths) / lengths.total)
  seen = memory.seen(config, vision, split, learn=learn, each=each, rollouts=rollouts)
  trained = learn and plan_vision.trains(config, model)
  return plan_vision.tower_work(
    config, model, seen, split.rows, split.fsdp, split.tensor, trained=trained
  )


def optimizer_traffic(config: Config, model: ModelConfig, split: Split) -> float:
  """Bytes of HBM of one optimizer step: weights and moments read and written, gradients read."""
  o = config.optimizer
  moments = SIZE[o.moment_dtype] + SIZE[o.second_moment_dtype]
  each = 2 * (SIZE['float32' if config.lora.rank else config.model.dtype] + moments) + 4
  return each * memory.trained_count(config, model, split)


def decode_step_work(
  config: Config, model: ModelConfig, split: Split, budget: Budget, turns: Turns, lengths: Lengths
) -> Work:
  """A decode step: weights once, keys and values of what lives, one token a slot."""
  size = SIZE[config.model.compute_dtype]
  blocks, _, head = _counts(model)
  heads = split.tensor if model.num_kv_heads % split.tensor == 0 else 1
  live, group = turns.live, max(1, config.train.group)
  # completions that live are half written on average; a prompt is read once for its group
  held = live * lengths.completion / 2 + math.ceil(live / group) * lengths.prompt
  attend = 4.0 * model.num_layers * model.num_heads * model.head_dim
  flops = live * (2.0 * (blocks + head) + attend * (lengths.prompt + lengths.completion / 2))
  sent: dict[str, float] = {}
  if split.tensor > 1:
    each = 2 * model.num_layers * live * model.embed_dim * size
    sent['tensor'] = each * 2 * (split.tensor - 1) / split.tensor
  weights = (blocks + head) * size / split.tensor
  return Work(flops / split.tensor, weights + held * budget.token / heads, sent)


def prefill_work(config: Config, model: ModelConfig, split: Split, lengths: Lengths) -> Work:
  """One prompt a shard."""
  size = SIZE[config.model.compute_dtype]
  blocks, _, _ = _counts(model)
  sent: dict[str, float] = {}
  if split.tensor > 1:
    each = 2 * model.num_layers * lengths.prompt * model.embed_dim * size
    sent['tensor'] = each * 2 * (split.tensor - 1) / split.tensor
  flops = 2.0 * blocks * lengths.prompt + 2 * _half_attention(model, 1, lengths.prompt)
  own = Work(flops / split.tensor, blocks * size / split.tensor, sent)
  vision = plan_vision.vision_of(config, model)
  if vision is None:
    return own
  seen = plan_vision.in_prefill(config, vision, lengths.image)
  return own.plus(plan_vision.tower_work(config, model, seen, 1, 1, 1, trained=False))


def hand_over_work(config: Config, model: ModelConfig, split: Split) -> Work:
  """The learner's weights read, cast and written as the sampler has them."""
  whole = weight_bytes(model, config.model.compute_dtype)
  mine = weight_bytes(
    model, config.model.compute_dtype, split.sampler(config.sampling.tensor).tensor
  )
  held = min(mine, whole / split.weights)  # of it, what lies on the device already
  sent: Mapping[str, float] = {'fsdp': mine - held} if mine > held else {}
  return Work(0.0, weight_bytes(model, config.model.dtype) / split.weights + 2 * mine, sent)
