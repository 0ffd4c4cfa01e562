"""Sample and score: completions of a model on problems, judged while sampling goes on.

The same functions serve training's rollouts, looks at held-out problems and measured boundaries
(fill.py puts those into a store).
"""

import collections
import dataclasses
import functools
import hashlib
import logging
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from rlvr_jax import hosts, mesh_choice, sharding
from rlvr_jax.config import Config
from rlvr_jax.eval import turns
from rlvr_jax.eval.samples import Row
from rlvr_jax.models.config import ModelConfig, VisionConfig
from rlvr_jax.models.images import Pictured, expand
from rlvr_jax.models.processor import image_of, with_bounds
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.models.transformer import Params
from rlvr_jax.sampling import budget
from rlvr_jax.sampling.engine import Engine, page_size
from rlvr_jax.sampling.layout import choose_impl
from rlvr_jax.sampling.local import local_mesh
from rlvr_jax.sampling.types import Completion, Item, Sampling
from rlvr_jax.sharding import row_parts
from rlvr_jax.tasks import images as task_images
from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import verifier_name, verifier_version

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Scored:
  """A completion, its text (stop token left out) and what the verifier says of it.

  Of a conversation: all of its text, and what the verifier says of its last completion. parts:
  values of the reward parts that the pool computed (rl/parts.py).
  """

  completion: Completion
  text: str
  verdict: Verdict
  parts: Mapping[str, float] = dataclasses.field(default_factory=dict)


def encode_prompts(
  problems: Sequence[Problem],
  template: str,
  tokenizer: Tokenizer,
  capacity: int,
  vision: VisionConfig | None = None,
) -> list[tuple[int, ...]]:
  """Token ids of each problem's prompt, with its images (images.Pictured) where it has some.

  vision: of a model that sees. Images' headers are read, and pixels when they are needed.
  ValueError naming the problems whose prompts are longer than `capacity` tokens, an image that
  cannot be read, and images that the model does not see.
  """
  if vision is None and (seen := [p.id for p in problems if p.images]):
    raise ValueError(
      f'{len(seen)} of {len(problems)} problems have images, e.g. {seen[0]!r}, which are not '
      'seen here; name a model with a vision tower, and a job that samples or trains'
    )
  hf: Any = tokenizer.hf  # its own return type covers every way of asking
  text = not prompts.writes_bos(template)
  encoded = [
    tuple(tokenizer.encode(prompts.render(p, template, hf), special=text)) for p in problems
  ]
  if vision is not None:
    encoded = [
      _pictured(p, ids, vision) if p.images else ids
      for p, ids in zip(problems, encoded, strict=True)
    ]
  long = [(p.id, len(ids)) for p, ids in zip(problems, encoded, strict=True) if len(ids) > capacity]
  if long:
    worst = max(n for _, n in long)
    raise ValueError(
      f'{len(long)} of {len(problems)} prompts are longer than sampling.prompt_capacity={capacity} '
      f'tokens, e.g. problem {long[0][0]!r} with {long[0][1]}; raise it to {worst} or drop them'
    )
  return encoded


def sees(config: Config, model_config: ModelConfig) -> VisionConfig | None:
  """The model's vision with the config's bounds of pixels; None where it has none."""
  if model_config.vision is None:
    return None
  return with_bounds(model_config.vision, config.model.min_pixels, config.model.max_pixels)


def _pictured(problem: Problem, ids: tuple[int, ...], vision: VisionConfig) -> Pictured:
  found = [
    image_of(
      size,
      task_images.sha256(problem, place),
      functools.partial(task_images.pixels, problem, place),
      vision,
    )
    for place, size in enumerate(task_images.sizes(problem))
  ]
  return Pictured(expand(ids, found, vision), found)


def model_uid(name: str, coupling: str) -> int:
  """The model's part of every key (docs/design.md): 0 under common random numbers."""
  if coupling == 'common':
    return 0
  return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], 'big')


def make_engine(
  config: Config, params: Params | None, model_config: ModelConfig, mesh=None
) -> Engine:
  """The engine of a config's sampling group; params None leaves them to `load`.

  mesh: over all processes, of which the engine takes its own process's part.
  """
  s = config.sampling
  mesh = local_mesh(sharding.sampler_mesh(mesh, s.tensor))
  check_context(config, model_config)
  capacities = engine_budget(config, model_config, mesh)
  log.info('sampler: %s', budget.describe(capacities))
  return Engine(
    params,
    model_config,
    slots=capacities.slots,
    bank_rows=capacities.bank_rows,
    prompt_capacity=s.prompt_capacity,
    completion_capacity=s.max_tokens,
    mesh=mesh,
    steps=s.chunk,
    seed=config.seed,
    page=capacities.page,
    pages=capacities.pages,
    decode_impl=capacities.decode_impl,
  )


def engine_budget(config: Config, model_config: ModelConfig, mesh=None) -> budget.Budget:
  """The sampler's capacities and bytes: those of the config, or what sampling.memory_gb holds."""
  s = config.sampling
  page = page_size(s.page, s.max_tokens)
  impl = choose_impl(s.decode_impl, model_config, mesh, page, config.model.compute_dtype)
  tensor = 1 if mesh is None else mesh.shape['tensor']
  return budget_over(config, model_config, shards=row_parts(mesh), tensor=tensor, decode_impl=impl)


def budget_over(
  config: Config, model_config: ModelConfig, *, shards: int, tensor: int, decode_impl: str
) -> budget.Budget:
  """The same over so many shards of slots, heads and vocabulary split `tensor` ways."""
  s = config.sampling
  sizes: dict[str, Any] = {
    'slots': _own_share('slots', s.slots),
    'bank_rows': s.bank_rows,
    'prompt_capacity': s.prompt_capacity,
    'completion_capacity': s.max_tokens,
    'page': page_size(s.page, s.max_tokens),
    'dtype': config.model.compute_dtype,
    'shards': shards,
    'tensor': tensor,
    'decode_impl': decode_impl,
  }
  if not s.memory_gb:
    return budget.price(model_config, pages=_own_share('pages', s.pages), **sizes)
  if s.pages:
    raise ValueError(
      f'sampling.memory_gb={s.memory_gb} decides the pages; leave sampling.pages={s.pages} at 0'
    )
  return budget.fit(model_config, int(s.memory_gb * budget.GIB), **sizes)


def _own_share(key: str, total: int) -> int:
  """This process's share of what the sampler has over all of them."""
  if total % hosts.count():
    raise ValueError(
      f'sampling.{key}={total} is not a multiple of the {hosts.count()} processes, among '
      'which it is shared out'
    )
  return total // hosts.count()


def make_mesh(config: Config):
  """The mesh of a config; None on a single device, where there is nothing to lay out.

  mesh.auto, where nothing is learnt (rlvr_jax/layouts.py has what is): all devices on fsdp.
  """
  m = config.mesh
  shape = (1, -1, 1) if m.auto else (m.data, m.fsdp, m.tensor)
  mesh = sharding.make_mesh(*shape)
  return None if mesh.size == 1 else mesh


def sampling_mesh(config: Config, model_config: ModelConfig):
  """The mesh of a job that samples and does not learn; of a config, or chosen (mesh.auto)."""
  mesh, tensor = make_mesh(config), config.sampling.tensor
  if config.mesh.auto and mesh is not None:
    devices = list(mesh.devices.flat)
    left = int(mesh_choice.USABLE * mesh_choice.device_memory(devices))
    tensor, why = choose_tensor(config, model_config, devices, left)
    log.info('sampling.tensor=%d on %d devices: %s', tensor, mesh.size, why)
  return sharding.sampler_mesh(mesh, tensor)


def choose_tensor(
  config: Config, model_config: ModelConfig, devices: Sequence[Any], left: int
) -> tuple[int, str]:
  """sampling.tensor, or the least whose share of the weights fits into `left` bytes; and why."""
  if config.sampling.tensor:
    return config.sampling.tensor, 'as sampling.tensor says'
  own = sum(device.process_index == devices[0].process_index for device in devices)
  c = model_config
  weights, half = (budget.weight_bytes(c, config.model.compute_dtype, n) for n in (1, 2))
  tower = 2 * half - weights  # which every device has
  left, weights = left - tower, weights - tower
  return mesh_choice.choose_tensor(own, left, weights, (c.num_heads, c.mlp_dim, c.vocab_size))


def draw(
  engine: Engine,
  items: Iterable[Item],
  sampling: Sampling,
  rules: turns.Rules | None,
  *,
  tokenizer: Tokenizer,
  pool: VerifierPool,
  stream: str,
  model_uid: int = 0,
) -> Iterator[Completion]:
  """The items' completions in the order of finishing; with rules, their conversations."""

  def run(items: Iterable[Item | None], sampling: Sampling) -> Iterator[Completion]:
    return engine.run(items, sampling, stream=stream, model_uid=model_uid)

  if rules is None:
    return run(items, sampling)
  return turns.converse(run, items, sampling, rules, tokenizer=tokenizer, pool=pool)


def score(
  completions: Iterable[Completion],
  stop_ids: Sequence[int],
  *,
  problems: Sequence[Problem],
  tokenizer: Tokenizer,
  pool: VerifierPool,
) -> Generator[Scored]:
  """Judges completions while the next are drawn; yields in their order.

  Equal completions of a problem are decoded and sent to the pool once. A conversation is judged by
  its last completion; one whose environment failed is an error.
  """
  stops = set(stop_ids)
  judged: dict[tuple[int, bytes, int, str], tuple[str, Any]] = {}
  waiting: collections.deque[tuple[Completion, str, Any]] = collections.deque()
  for completion in completions:
    talk = completion.turns
    failed, last = (talk.failed, talk.last) if talk else ('', 0)
    key = completion.item.problem, completion.tokens.tobytes(), last, failed
    if key not in judged:
      tokens = completion.tokens
      written = tokens[:-1] if int(tokens[-1]) in stops else tokens
      # control tokens stay visible: to drop one would make another, perhaps correct, text of it
      text = answer = tokenizer.decode(written, skip_special=False)
      if last:
        answer = tokenizer.decode(written[last:], skip_special=False)
      if failed:
        judged[key] = text, _given(Verdict('error', 0.0, '', failed))
      else:
        judged[key] = text, pool.submit(problems[completion.item.problem], answer)
    waiting.append((completion, *judged[key]))
    while waiting and waiting[0][2].done():
      first, text, verdict = waiting.popleft()
      yield Scored(first, text, verdict.result())
  for first, text, verdict in waiting:
    yield Scored(first, text, verdict.result())


def _given(verdict: Verdict) -> 'Future[Verdict]':
  future: Future[Verdict] = Future()
  future.set_result(verdict)
  return future


def store_row(scored: Scored, problem: Problem, *, seed: int, temperature: float) -> Row:
  """The Parquet row of a scored completion."""
  completion = scored.completion
  total = math.fsum(completion.logprobs.tolist())
  return Row(
    task=problem.task,
    problem_id=problem.id,
    visit=completion.item.visit,
    sample=completion.item.sample,
    seed=seed,
    tokens=completion.tokens,
    text=scored.text,
    length=len(completion.tokens),
    finish='length' if completion.truncated else 'eos',
    logprob_sum=total if temperature in (0, 1) else None,
    logprob_sum_sampled=total,
    verdict=scored.verdict.verdict,
    reward=scored.verdict.reward,
    verifier=verifier_version(verifier_name(problem)),
    extracted=scored.verdict.extracted,
    reason=scored.verdict.reason,
    sandbox=scored.verdict.sandbox,
    entropies=completion.entropies,
    truncated_logprobs=completion.truncated_logprobs,
    sampled=completion.turns.sampled if completion.turns else None,
  )


def sampling_settings(
  sampling: Sampling, *, seed: int, coupling: str, stream: str, rules: turns.Rules | None = None
) -> dict:
  """What a draw depends on besides model and prompt, as stored with every shard."""
  settings = dataclasses.asdict(sampling)
  del settings['extras']  # of the same draws more is known
  settings |= {'seed': seed, 'coupling': coupling, 'stream': stream}
  return settings | (rules.settings() if rules else {})


def check_context(config: Config, model_config: ModelConfig) -> None:
  """ValueError if prompts and completions of the config can outgrow the model's positions."""
  asked = config.sampling.prompt_capacity + config.sampling.max_tokens
  if asked > model_config.max_positions:
    raise ValueError(
      f'sampling.prompt_capacity={config.sampling.prompt_capacity} and '
      f'sampling.max_tokens={config.sampling.max_tokens} make {asked} positions, but the model has '
      f'{model_config.max_positions}; lower one of them'
    )


def template_hash(template: str, tokenizer: Tokenizer) -> str:
  """A short hash of the prompt template's text, and of the chat template where it is used."""
  text = prompts.TEMPLATES.get(template) or str(tokenizer.hf.chat_template)
  if template in prompts.CHATS and template != prompts.CHAT:
    text += f'\n{prompts.CHATS[template]}'
  return hashlib.sha256(f'{template}\n{text}'.encode()).hexdigest()[:16]
