"""Sample and score: completions of a model on problems, judged while sampling goes on, stored.

The same functions serve training's rollouts, looks at held-out problems and measured boundaries.
"""

import collections
import dataclasses
import hashlib
import logging
import math
import pathlib
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rlvr_jax import sharding
from rlvr_jax.checkpoint import GracefulExit
from rlvr_jax.config import Config
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.publish import publish
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.samples import Row, SampleStore
from rlvr_jax.metrics import Meter, Progress
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.load import fingerprint, load_model
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.models.transformer import Params
from rlvr_jax.sampling import budget
from rlvr_jax.sampling.engine import Engine, page_size
from rlvr_jax.sampling.layout import hand_over, shard_count
from rlvr_jax.sampling.types import Completion, Item, Sampling
from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.load import content_hash, load_problems
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import verifier_name, verifier_version

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Scored:
  """A completion, its text (stop token left out) and what the verifier says of it."""

  completion: Completion
  text: str
  verdict: Verdict


def encode_prompts(
  problems: Sequence[Problem], template: str, tokenizer: Tokenizer, capacity: int
) -> list[tuple[int, ...]]:
  """Token ids of each problem's prompt; ValueError naming those longer than `capacity` tokens."""
  hf: Any = tokenizer.hf  # its own return type covers every way of asking
  text = template != prompts.CHAT  # a chat template writes its own BOS
  encoded = [
    tuple(tokenizer.encode(prompts.render(p, template, hf), special=text)) for p in problems
  ]
  long = [(p.id, len(ids)) for p, ids in zip(problems, encoded, strict=True) if len(ids) > capacity]
  if long:
    worst = max(n for _, n in long)
    raise ValueError(
      f'{len(long)} of {len(problems)} prompts are longer than sampling.prompt_capacity={capacity} '
      f'tokens, e.g. problem {long[0][0]!r} with {long[0][1]}; raise it to {worst} or drop them'
    )
  return encoded


def model_uid(name: str, coupling: str) -> int:
  """The model's part of every key (docs/design.md): 0 under common random numbers."""
  if coupling == 'common':
    return 0
  return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], 'big')


def make_engine(
  config: Config, params: Params | None, model_config: ModelConfig, mesh=None
) -> Engine:
  """The engine of a config's sampling group; params None leaves them to `load`."""
  s = config.sampling
  check_context(config, model_config)
  capacities = engine_budget(config, model_config, mesh)
  log.info('sampler: %s', budget.describe(capacities, model_config, config.model.compute_dtype))
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
  )


def engine_budget(config: Config, model_config: ModelConfig, mesh=None) -> budget.Budget:
  """The sampler's capacities and bytes: those of the config, or what sampling.memory_gb holds."""
  s = config.sampling
  sizes: dict[str, Any] = {
    'slots': s.slots,
    'bank_rows': s.bank_rows,
    'prompt_capacity': s.prompt_capacity,
    'completion_capacity': s.max_tokens,
    'page': page_size(s.page, s.max_tokens),
    'dtype': config.model.compute_dtype,
    'shards': shard_count(mesh),
    'tensor': 1 if mesh is None else mesh.shape['tensor'],
  }
  if not s.memory_gb:
    return budget.price(model_config, pages=s.pages, **sizes)
  if s.pages:
    raise ValueError(
      f'sampling.memory_gb={s.memory_gb} decides the pages; leave sampling.pages={s.pages} at 0'
    )
  return budget.fit(model_config, int(s.memory_gb * budget.GIB), **sizes)


def make_pool(config: Config, workdir: pathlib.Path) -> VerifierPool:
  """The verifier pool of a config, with its journal in the workdir."""
  v = config.verifier
  return VerifierPool(
    v.workers, limit_s=v.limit_s, memory_mb=v.memory_mb, journal=workdir / 'verdicts.jsonl'
  )


def make_mesh(config: Config):
  """The mesh of a config; None on a single device, where there is nothing to lay out."""
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
  return None if mesh.size == 1 else mesh


def sample_and_score(
  engine: Engine,
  items: Iterable[Item],
  sampling: Sampling,
  *,
  problems: Sequence[Problem],
  tokenizer: Tokenizer,
  pool: VerifierPool,
  stream: str,
  model_uid: int = 0,
) -> Iterator[Scored]:
  """Draws the items and judges each completion as it comes; yields in order of finishing.

  Equal completions of a problem are decoded and sent to the pool once.
  """
  stops = set(sampling.stop_ids)
  judged: dict[tuple[int, bytes], tuple[str, Any]] = {}
  waiting: collections.deque[tuple[Completion, str, Any]] = collections.deque()
  for completion in engine.run(items, sampling, stream=stream, model_uid=model_uid):
    key = completion.item.problem, completion.tokens.tobytes()
    if key not in judged:
      tokens = completion.tokens
      written = tokens[:-1] if int(tokens[-1]) in stops else tokens
      # control tokens stay visible: to drop one would make another, perhaps correct, text of it
      text = tokenizer.decode(written, skip_special=False)
      judged[key] = text, pool.submit(problems[completion.item.problem], text)
    waiting.append((completion, *judged[key]))
    while waiting and waiting[0][2].done():
      first, text, verdict = waiting.popleft()
      yield Scored(first, text, verdict.result())
  for first, text, verdict in waiting:
    yield Scored(first, text, verdict.result())


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
  )


def sampling_settings(sampling: Sampling, *, seed: int, coupling: str, stream: str) -> dict:
  """What a draw depends on besides model and prompt, as stored with every shard."""
  settings = dataclasses.asdict(sampling)
  return settings | {'seed': seed, 'coupling': coupling, 'stream': stream}


def check_context(config: Config, model_config: ModelConfig) -> None:
  """ValueError if prompts and completions of the config can outgrow the model's positions."""
  asked = config.sampling.prompt_capacity + config.sampling.max_tokens
  if asked > model_config.max_positions:
    raise ValueError(
      f'sampling.prompt_capacity={config.sampling.prompt_capacity} and '
      f'sampling.max_tokens={config.sampling.max_tokens} make {asked} positions, but the model has '
      f'{model_config.max_positions}; lower one of them'
    )


def sample_into_store(
  store: SampleStore,
  engine: Engine,
  *,
  name: str,
  problems: Sequence[Problem],
  encoded: Sequence[tuple[int, ...]],
  n: int,
  sampling: Sampling,
  template: str,
  tokenizer: Tokenizer,
  pool: VerifierPool,
  seed: int,
  coupling: str,
  weights: str,
  data: str,
) -> None:
  """Tops the store up to n completions of each problem under model `name`.

  weights stands for the model's content (load.fingerprint), data for the problems' (tasks.load):
  samples of other weights, or of other problems under the same ids, are refused, never mixed.
  SIGTERM or Ctrl-C keeps what was drawn and ends with exit code 130.
  """
  task = problems[0].task
  store.check_writable()
  settings = sampling_settings(sampling, seed=seed, coupling=coupling, stream='eval')
  settings |= {'weights': weights, 'data': data}
  done = store.done(name, task)
  version = verifier_version(verifier_name(problems[0]))
  if done and store.settings(name, task)['verifier'] != version:
    raise ValueError(
      f'{store.root / name} holds verdicts of {store.settings(name, task)["verifier"]!r}, but the '
      f'verifier is now {version!r}; sample into another --workdir'
    )
  items = [
    Item(i, problem.uid, 0, sample, encoded[i])
    for i, problem in enumerate(problems)
    for sample in range(n)
    if (problem.id, 0, sample) not in done
  ]
  writer = store.writer(
    name, task, settings, prompt_hash=template_hash(template, tokenizer), rows_per_shard=65_536
  )
  correct, seen, shown = 0, 0, 0.0
  with (
    GracefulExit() as asked,
    writer,
    Progress(len(items), f'sampling {name}', plain_every_s=5.0) as progress,
  ):
    for scored in sample_and_score(
      engine,
      items,
      sampling,
      problems=problems,
      tokenizer=tokenizer,
      pool=pool,
      stream='eval',
      model_uid=model_uid(name, coupling),
    ):
      problem = problems[scored.completion.item.problem]
      writer.append(store_row(scored, problem, seed=seed, temperature=sampling.temperature))
      seen += 1
      correct += scored.verdict.verdict == 'correct'
      now = time.monotonic()
      if now - shown > 1 or seen == len(items):
        shown = now
        progress.update(seen, {'avg@n': correct / seen})
      if asked.requested:
        break
  if asked.requested:
    print(f'kept {seen} of {len(items)} samples; the same command goes on', file=sys.stderr)
    sys.exit(130)


def template_hash(template: str, tokenizer: Tokenizer) -> str:
  """A short hash of the prompt template's text, and of the chat template where it is used."""
  text = prompts.TEMPLATES.get(template) or str(tokenizer.hf.chat_template)
  return hashlib.sha256(f'{template}\n{text}'.encode()).hexdigest()[:16]


def store_name(name: str) -> str:
  """A model's name as a folder of the store."""
  return re.sub(r'[^A-Za-z0-9._=+@:-]+', '-', pathlib.Path(name).name).strip('-') or 'model'


def evaluation_problems(config: Config) -> list[Problem]:
  """The held-out problems to measure (all problems where the config holds none out)."""
  train, heldout = load_problems(config.task)
  problems = heldout or train
  wanted = config.evaluate.problems
  if wanted > len(problems):
    raise ValueError(
      f'evaluate.problems={wanted}, but there are {len(problems)}; lower it or raise task.holdout'
    )
  return problems[: wanted or None]


def eval_sampling(config: Config, stop_ids: tuple[int, ...]) -> Sampling:
  """The Sampling of a config's evaluate group."""
  e = config.evaluate
  return Sampling(e.temperature, e.top_p, e.top_k, tuple(stop_ids), config.sampling.max_tokens)


def wanted_counts(
  config: Config, store: SampleStore, name: str, problems: Sequence[Problem]
) -> Counts:
  """(n, c) of the asked problems and samples only; the store may hold more of both."""
  ids = [p.id for p in problems]
  return store.counts(name, problems[0].task, problem_ids=ids, samples=config.evaluate.n)


def evaluate(config: Config, workdir: pathlib.Path) -> None:
  """job=evaluate | sample: n completions of each problem into the store, then pass@k.

  job=sample stops at the store; job=evaluate writes results.json and report.html beside it.
  """
  if not config.model.name:
    raise ValueError("model.name='' names no model to measure: give a directory, .gguf or hub id")
  meter = Meter()
  problems = evaluation_problems(config)
  mesh = make_mesh(config)
  model_config, params, tokenizer = load_model(config.model.name, dtype=config.model.compute_dtype)
  encoded = encode_prompts(
    problems, config.task.template, tokenizer, config.sampling.prompt_capacity
  )
  name = config.evaluate.name or store_name(config.model.name)
  sampler_params = hand_over(None, params, mesh)
  del params  # the sampler has its own copy
  engine = make_engine(config, sampler_params, model_config, mesh)
  store = SampleStore(workdir / 'samples')
  with make_pool(config, workdir) as pool:
    sample_into_store(
      store,
      engine,
      name=name,
      problems=problems,
      encoded=encoded,
      n=config.evaluate.n,
      sampling=eval_sampling(config, tokenizer.eos_ids),
      template=config.task.template,
      tokenizer=tokenizer,
      pool=pool,
      seed=config.seed,
      coupling=config.sampling.coupling,
      weights=f'{fingerprint(config.model.name)[:16]} {config.model.compute_dtype}',
      data=content_hash(config.task),
    )
  if config.job == 'evaluate':
    task = problems[0].task
    measured = ModelResult(
      name,
      'base',
      wanted_counts(config, store, name, problems),
      settings=store.settings(name, task),
    )
    publish(
      config,
      workdir,
      store,
      [measured],
      problems,
      headline=(name,),
      title=f'{name} on {task}',
      seconds=meter.seconds,
    )
