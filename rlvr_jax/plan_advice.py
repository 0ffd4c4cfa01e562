"""The first thing to change where a plan does not fit: keys with values that do, by arithmetic."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlvr_jax import memory, plan_vision
from rlvr_jax.config import Config, set_key
from rlvr_jax.memory import Split
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.rl import packing
from rlvr_jax.sampling.budget import GIB

MOST_CHIPS = 4096
MOST_GIB = 4096
WELL_USED = 0.8  # share of HBM below which room for the sampler is spoken of
COPY = 0.5  # of the cache, from which on a compiler's temporaries are taken to be copies of it
SPARE = 0.95  # of what is free that an advised sampling.memory_gb takes


@dataclasses.dataclass(frozen=True)
class Advice:
  """Values of keys with which every phase fits; bytes: of the largest phase then.

  changes is empty where nothing that keeps the model and its lengths is enough: then chips is how
  many devices of this kind would be.
  """

  phase: str
  part: str
  changes: tuple[tuple[str, Any], ...]
  why: tuple[str, ...]
  bytes: int
  chips: int

  def text(self) -> str:
    """For people."""
    if not self.changes:
      return (
        f'{self.phase} does not fit, mostly for its {self.part}: no change of layout or precision '
        f'is enough on these devices; {self.chips} of them would do ({self.bytes / GIB:.2f} GiB)'
      )
    keys = ' '.join(f'--config.{key}={value}' for key, value in self.changes)
    return (
      f'{self.phase} does not fit, mostly for its {self.part}: {keys} ({"; ".join(self.why)}). '
      f'Then the largest phase takes {self.bytes / GIB:.2f} GiB by arithmetic'
    )


@dataclasses.dataclass(frozen=True)
class More:
  """What was found above arithmetic: bytes by phase, or in sampling so many copies of the cache."""

  fixed: Mapping[str, int]
  copies: float

  def of(self, phase: str, held: Mapping[str, int]) -> int:
    """Bytes beside what a phase holds by arithmetic."""
    if phase == 'sample' and self.copies:
      return int(self.copies * held['cache'])
    return self.fixed[phase]


def _more(own: memory.Phases, found: Mapping[str, int]) -> More:
  fixed = {name: max(0, found[name] - sum(own[name].values())) for name in found}
  cache = own['sample']['cache']
  # a compiler that writes the cache in another layout holds it twice
  return More(fixed, fixed['sample'] / cache if fixed['sample'] > COPY * cache else 0.0)


def split_of(config: Config, chips: int) -> Split:
  """The mesh of a config over so many devices; ValueError where it does not divide them."""
  sizes = [config.mesh[axis] for axis in Split._fields]
  known = math.prod(size for size in sizes if size != -1)
  if -1 in sizes and chips % known == 0:
    sizes[sizes.index(-1)] = chips // known
  if math.prod(sizes) != chips:
    given = ', '.join(f'mesh.{a}={config.mesh[a]}' for a in Split._fields)
    raise ValueError(
      f'{given} does not divide {chips} devices; set one axis to -1 to take the rest'
    )
  return Split(*sizes)


def least_sampler(config: Config, model: ModelConfig, split: Split) -> Config:
  """The config, or where its sampling.memory_gb holds no completion the same with one that does."""
  memory_gb, changed = config.sampling.memory_gb, config
  while True:
    try:
      memory.phases(changed, model, split)
      return changed
    except ValueError as error:
      ours = str(error).startswith('sampling.memory_gb')
      if not ours or not memory_gb or memory_gb > MOST_GIB:
        raise
      memory_gb = math.floor(memory_gb * 2 + 1) / 2
      changed = _with(config, [('sampling.memory_gb', memory_gb)])


def advise(
  config: Config,
  model: ModelConfig,
  chips: int,
  hbm: int,
  found: Mapping[str, int],
  priced: Config,
  *,
  kernel: bool,
  chosen: bool = False,
) -> Advice | None:
  """What to change; None where every phase fits.

  found: bytes of each phase. Arithmetic says by how much a change lowers them; where what was found
  is more than arithmetic has (a compiler's temporaries), the difference stays. priced: the config
  that was planned, see least_sampler. chosen: the mesh is that of mesh.auto.
  """
  if max(found.values()) <= hbm:
    return None
  split = split_of(config, chips)
  own = memory.phases(priced, model, split, kernel=kernel)
  more = _more(own, found)
  phase = max(found, key=lambda name: found[name])
  parts = own[phase] | {'temporaries of the compiler': more.of(phase, own[phase])}
  part = max(parts, key=lambda name: parts[name])

  def largest(candidate: Config, chips: int) -> int | None:
    """Bytes of the largest phase; None where the values do not go together."""
    try:
      own = _valid(candidate, model, chips)
      each = memory.phases(candidate, model, own, kernel=kernel)
    except ValueError:
      return None
    return max(sum(held.values()) + more.of(name, held) for name, held in each.items())

  changes = _changes(config, model, chips, hbm, phase, more, largest)
  if changes:
    keys = tuple((key, value) for key, value, _ in changes)
    size = largest(_with(config, keys), chips)
    assert size is not None
    keys += tuple(_beside(config, dict(keys), chosen))
    return Advice(phase, part, keys, tuple(why for *_, why in changes), size, chips)
  size = None
  while chips < MOST_CHIPS:
    chips *= 2
    size = largest(config, chips)
    if size is not None and size <= hbm:
      break
  return Advice(phase, part, (), (), size or found[phase], chips)


Change = tuple[str, Any, str]


def _beside(config: Config, changes: Mapping[str, Any], chosen: bool) -> Iterator[tuple[str, Any]]:
  """What has to be given beside a change of layout, so that it is what was meant."""
  if not any(key.startswith('mesh.') or key == 'sampling.tensor' for key in changes):
    return
  if config.mesh.fsdp != -1:
    yield 'mesh.fsdp', -1
  if chosen:
    yield 'mesh.auto', False
    for key in ('mesh.data', 'mesh.tensor', 'sampling.tensor'):
      if key not in changes:
        group, leaf = key.split('.')
        yield key, config[group][leaf]


def _changes(
  config: Config,
  model: ModelConfig,
  chips: int,
  hbm: int,
  phase: str,
  more: More,
  largest: Any,
) -> list[Change]:
  """The first candidate that is enough; else as few as are, in the order of what they cost."""

  def fits(changes: Sequence[Change]) -> bool:
    size = largest(_with(config, [(key, value) for key, value, _ in changes]), chips)
    return size is not None and size <= hbm

  taken: list[Change] = []
  changed = config
  while True:
    candidates = list(_candidates(changed, model, chips, hbm, phase, more))
    # of one key the last value is the strongest
    enough = next((c for c in candidates if fits([*taken, c])), None)
    if enough is not None:
      taken.append(enough)
      break
    used = {key for key, *_ in taken}
    now = largest(changed, chips)
    step = next(
      (
        c
        for c in candidates
        if c[0] not in used
        and (size := largest(_with(changed, [c[:2]]), chips)) is not None
        and (now is None or size < now)
      ),
      None,
    )
    if step is None:
      return []
    taken.append(step)
    changed = _with(config, [(key, value) for key, value, _ in taken])
  for one in list(taken[:-1]):
    rest = [c for c in taken if c is not one]
    if fits(rest):
      taken = rest
  return taken


def _candidates(
  config: Config,
  model: ModelConfig,
  chips: int,
  hbm: int,
  phase: str,
  more: More,
) -> Iterator[Change]:
  """Changes that may help, the cheapest first; each is checked before it is advised."""
  t, s, o = config.train, config.sampling, config.optimizer
  split = split_of(config, chips)
  learning = phase in ('score', 'learn')
  if not s.release and phase != 'sample':
    yield 'sampling.release', True, "the sampler's weights and cache are given back while learning"
  if not learning:
    yield from _smaller_cache(config, model, split, hbm, more)
  if config.model.remat != 'block' and learning:
    yield 'model.remat', 'block', "only a layer's input is kept for the backward pass"
  tokens, least = t.micro_tokens, packing.bucket_length(s.prompt_capacity + s.max_tokens)
  while learning and tokens > least:
    tokens = max(tokens // 2, least)
    yield 'train.micro_tokens', tokens, 'fewer rows at once, the same result'
  if learning and config.model.logprob_chunk > 256:
    yield 'model.logprob_chunk', 256, 'fewer logits at once'
  if split.data > 1:
    yield 'mesh.data', 1, 'weights and moments are split over all devices'
  if not learning:
    for tensor in _doubles(split.sampler(s.tensor).tensor, chips):
      yield 'sampling.tensor', tensor, "more devices share the sampler's weights and heads"
  for tensor in _doubles(split.tensor, chips):
    yield 'mesh.tensor', tensor, 'weights, heads and vocabulary are split further'
  if o.moment_dtype != 'bfloat16':
    yield 'optimizer.moment_dtype', 'bfloat16', "half of the first moment's bytes"
  if o.second_moment_dtype != 'bfloat16':
    yield 'optimizer.second_moment_dtype', 'bfloat16', "half of the second moment's bytes"
  if not config.lora.rank:
    yield 'lora.rank', 32, 'adapters train in place of the weights, which changes what is learnt'
  elif config.model.dtype != 'bfloat16':
    yield 'model.dtype', 'bfloat16', 'the weights below the adapters do not train'
  if (vision := plan_vision.vision_of(config, model)) is not None:
    token = (vision.patch * vision.merge) ** 2
    tokens = plan_vision.largest_tokens(config, vision) // 2
    while tokens * token >= vision.min_pixels:
      yield 'model.max_pixels', tokens * token, 'smaller images, which changes the task'
      tokens //= 2
  if t.prompts and s.max_tokens > 1024:
    yield 'sampling.max_tokens', s.max_tokens // 2, 'shorter completions, which changes the task'


def _doubles(size: int, most: int) -> Iterator[int]:
  while size * 2 <= most:
    size *= 2
    yield size


def _smaller_cache(
  config: Config, model: ModelConfig, split: Split, hbm: int, more: More
) -> Iterator[Change]:
  """A cache of what is left on a device beside everything else."""
  try:
    held = memory.phases(config, model, split)['sample']
  except ValueError:  # not even one slot fits what the config gives the sampler
    held = memory.phases(_with(config, [('sampling.memory_gb', 0.0)]), model, split)['sample']
  sampler = ('sampler weights', 'cache', 'sampler workspace')
  others = sum(size for part, size in held.items() if part not in sampler)
  left = hbm - others - (0 if more.copies else more.fixed['sample'])
  for share in (1, 0.75, 0.5, 0.375, 0.25) if more.copies else (1,):
    memory_gb = math.floor(left * share * SPARE / GIB * 2) / 2
    if memory_gb > 0:
      why = 'the cache takes what is left; fewer completions at once'
      yield 'sampling.memory_gb', memory_gb, why


def room(
  config: Config, model: ModelConfig, split: Split, hbm: int, found: Mapping[str, int]
) -> str | None:
  """What a device's unused memory would do for the sampler, where its budget holds it back."""
  sampling = config.sampling
  if not sampling.memory_gb or found['sample'] > WELL_USED * hbm:
    return None
  own = memory.phases(config, model, split)
  more = _more({'sample': own['sample']}, {'sample': found['sample']})
  for key, value, _ in _smaller_cache(config, model, split, hbm, more):
    pair = config, _with(config, [(key, value)])
    now, then = (memory.sampler_budget(c, model, split) for c in pair)
    if then.pages * then.page > now.pages * now.page:
      return (
        f'There is room: --config.{key}={value} would decode {then.slots:,} completions at once, '
        f'with {then.pages * then.page // then.slots:,} tokens each on average, in place of '
        f'{now.slots:,} with {now.pages * now.page // now.slots:,}'
      )
  return None


def _with(config: Config, changes: Sequence[tuple[str, Any]]) -> Config:
  changed = config.copy_and_resolve_references()
  for key, value in changes:
    set_key(changed, key, value, 'advice')
    if key in ('mesh.data', 'mesh.tensor'):
      set_key(changed, 'mesh.fsdp', -1, 'advice')
    if key == 'sampling.memory_gb' and value:
      set_key(changed, 'sampling.pages', 0, 'advice')
  return changed.lock()


def _valid(config: Config, model: ModelConfig, chips: int) -> Split:
  """The mesh, where heads, slots and vocabulary can be split by it; else ValueError."""
  split = split_of(config, chips)
  for what, size in (
    ('query heads', model.num_heads),
    ('mlp', model.mlp_dim),
    ('vocabulary', model.vocab_size),
  ):
    if size % split.tensor:
      raise ValueError(f'mesh.tensor={split.tensor} does not divide the {size} {what}')
  sampler = split.sampler(config.sampling.tensor)
  sizes = model.num_heads, model.mlp_dim, model.vocab_size
  if config.sampling.slots % sampler.rows or any(size % sampler.tensor for size in sizes):
    raise ValueError(f"the sampler's layout {sampler} does not divide its slots or weights")
  if model.embed_dim % split.fsdp:
    raise ValueError(f'mesh.fsdp={split.fsdp} does not divide embed_dim={model.embed_dim}')
  tower = model.vision
  if tower is not None and (tower.embed_dim % split.fsdp or tower.num_heads % split.tensor):
    raise ValueError(f"{split} does not divide the tower's embed_dim or heads")
  return split
