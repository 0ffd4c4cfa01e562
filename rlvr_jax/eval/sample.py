"""job=sample | evaluate, and the same from Python:

import rlvr_jax

drawn = rlvr_jax.sample('Qwen/Qwen2.5-0.5B', 'gsm8k/test.jsonl', k=1024, workdir='runs/mine')
drawn.pass_at_k(1, 256)  # {1: (value, low, high), 256: ...}
drawn.table()  # a pyarrow.Table, one row a completion
"""

import dataclasses
import hashlib
import inspect
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
from ml_collections import ConfigDict

from rlvr_jax import config as config_lib
from rlvr_jax import hosts
from rlvr_jax.checkpoint import checksums
from rlvr_jax.config import Config
from rlvr_jax.eval import preflight, served
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.claim_settings import register, settings_of
from rlvr_jax.eval.drawn import (
  Samples,
  evaluation_problems,
  exit_when_stopped,
  store_name,
)
from rlvr_jax.eval.fill import Subject, sample_into_store
from rlvr_jax.eval.publish import publish_drawn
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.stopping import Rule
from rlvr_jax.eval.turns import rules_of
from rlvr_jax.graceful import GracefulExit, Stopped
from rlvr_jax.metrics import Meter
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.load import fingerprint, full_name, load_model
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.models.transformer import Params
from rlvr_jax.sampling.local import hand_over_locally
from rlvr_jax.sampling.types import Sampling
from rlvr_jax.sharding import path_name
from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.given import Given, check_remembered, gather
from rlvr_jax.tasks.load import content_hash, environment_of
from rlvr_jax.tasks.pool import pool_of
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_name

Loaded = tuple[ModelConfig, Params, Tokenizer]  # what models.load.load_model gives


def sample(
  model: str | os.PathLike[str] | Loaded,
  problems: Given,
  k: int = 1024,
  temperature: float = 0.6,
  *,
  top_p: float = 1.0,
  top_k: int = 0,
  max_tokens: int = 1024,
  extras: bool = False,
  first: int = 0,
  stop_after: int = 0,
  workdir: str | os.PathLike[str] = 'runs/sample',
  name: str = '',
  task: str = '',
  fields: Mapping[str, str] | None = None,
  template: str = 'raw',
  verifier: str | Callable[..., Any] = '',
  environment: str = '',
  turns: int = 4,
  seed: int = 0,
  coupling: str = 'independent',
  dtype: str = 'float32',
  attention_impl: str = 'auto',
  min_pixels: int = 0,
  max_pixels: int = 0,
  slots: int = 64,
  bank_rows: int = 64,
  page: int = 64,
  pages: int = 0,
  memory_gb: float = 0.0,
  prompt_capacity: int = 512,
  chunk: int = 32,
  decode_impl: str = 'auto',
  mesh: tuple[int, int, int] | Literal['auto'] = (1, -1, 1),
  tensor: int = 0,
  workers: int = 2,
  limit_s: float = 10.0,
  memory_mb: int = 4096,
  flush_s: float = 60.0,
  dry_run: bool = False,
  show: bool = True,
) -> Samples:
  """Draws k completions of each problem into a store, judged; what is there is not drawn again.

  The same as job=sample of main.py (configs/sample.py has these defaults), by the same code: a
  pilot of 1%, its price, then the rest with a progress line on stderr. Called again, it goes on
  where it ended, however that was; with a larger k it draws what is missing.

  Args:
    model: a directory, .gguf file, run (runs/x@step:300) or hub id; http://host:port/v1#NAME for a
      server (eval.server); or (config, params, tokenizer) as load_model gives them, which then
      needs a `name`.
    problems: the path of a JSONL file, or a list of Problems, of dicts like its lines, or of
      prompts (which nobody judges unless a verifier is named); see tasks.given.gather.
    k: draws of each problem, at most if stop_after is set: then none after the `first` once
      stop_after are correct, counted in index order (eval.stopping).
    extras: also stores, of each token, the entropy of its distribution and its log-prob in what
      top_p and top_k left (columns entropies, truncated_logprobs); it changes no draw.
    workdir: the store is its folder samples/, the verdicts' journal lies beside it.
    name, task: the model's and the problems' names in the store.
    verifier: 'math', 'none', ..., 'file.py:function', or a function of an importable file.
    environment, turns: what answers completions, and how many a conversation has at most.
    mesh: devices on (data, fsdp, tensor), or 'auto' (docs/meshes.md).
    tensor: devices that share the weights; 0: as mesh has them.
    attention_impl: attention of prompts: 'auto', 'einsum' or 'cudnn' (GPU, bfloat16).
    min_pixels, max_pixels: of an image after resizing, for models that see; 0: the model's own.
    decode_impl: attention of the sampler: 'auto', or a name in models.decode.
    memory_gb: decides slots, bank_rows and pages, up to those given (configs/base.py).
    dry_run: ends after the pilot, once it has said what the rest would cost.
    show: says all this on stderr.

  Raises ValueError for what does not fit, before anything is drawn, and for samples of other
  settings in the store. Ctrl-C raises KeyboardInterrupt once what was drawn is stored.
  """
  if isinstance(model, tuple) and not name:
    raise ValueError('a loaded model needs a name=: its samples are stored under it')
  given = gather(problems, task=task, fields=fields, verifier=_verifier_name(verifier))
  given = prompts.with_prefix(given, template)
  data, auto = 'by problem', mesh == 'auto'
  sizes = (1, -1, 1) if auto else mesh
  path = '' if isinstance(model, tuple) else os.fspath(model)
  if isinstance(problems, str | os.PathLike):
    data = content_hash({'name': 'jsonl', 'path': os.fspath(problems), 'fields': fields or {}})
  config = ConfigDict(
    {
      'job': 'sample',
      'seed': seed,
      'dry_run': dry_run,
      'model': {
        'name': path,
        'compute_dtype': dtype,
        'attention_impl': attention_impl,
        'min_pixels': min_pixels,
        'max_pixels': max_pixels,
      },
      'server': dataclasses.asdict(served.Limits()),
      'mesh': dict(zip(('data', 'fsdp', 'tensor', 'auto'), (*sizes, auto), strict=True)),
      'task': {'template': template, 'environment': environment, 'turns': turns},
      'sampling': {
        'max_tokens': max_tokens,
        'extras': extras,
        'slots': slots,
        'bank_rows': bank_rows,
        'page': page,
        'pages': pages,
        'memory_gb': memory_gb,
        'prompt_capacity': prompt_capacity,
        'chunk': chunk,
        'decode_impl': decode_impl,
        'tensor': tensor,
        'coupling': coupling,
        'first': first,
        'stop_after': stop_after,
      },
      'evaluate': {
        'n': k,
        'name': name,
        'temperature': float(temperature),
        'top_p': float(top_p),
        'top_k': top_k,
        'flush_s': float(flush_s),
      },
      'verifier': {
        'workers': workers,
        'limit_s': float(limit_s),
        'memory_mb': memory_mb,
        'sandbox': 'landlock+seccomp',
        'allow_unsafe': False,
      },
    }
  )  # fmt: skip
  config_lib.check_values(config)
  folder = config_lib.prepare_workdir(workdir)
  if isinstance(model, tuple):
    weights = f'{params_hash(model[1])} loaded'
    drawn, _ = draw(config, folder, given, data, loaded=model, weights=weights, show=show)
  else:
    drawn, _ = draw(config, folder, given, data, show=show)
  return drawn


def draw(
  config: Config,
  workdir: pathlib.Path,
  problems: Sequence[Problem],
  data: str,
  *,
  loaded: Loaded | None = None,
  weights: str = '',
  name: str = '',
  show: bool = True,
  show_settings: bool = True,
  pilot_only: bool = False,
) -> tuple[Samples, preflight.Price | None]:
  """Tops up the samples of a config's model on the problems; see fill.sample_into_store.

  data stands for the content of the problems, 'by problem' for a list that is remembered one by
  one beside its samples; loaded is config.model.name where that is loaded already, and weights
  stands for its content. name is that in the store (evaluate.name, or from model.name). Of several
  processes each draws its share of the problems; when this returns, the store holds all.
  """
  if loaded is None and config_lib.is_served(config.model.name):
    return served.draw(config, workdir, problems, data, name=name, show=show), None
  rule = Rule(config.evaluate.n, config.sampling.first, config.sampling.stop_after)
  show = show and hosts.is_first()
  name = name or config.evaluate.name or store_name(full_name(config.model.name))
  store = SampleStore(workdir / 'samples')
  if loaded is None:
    m = config.model
    loaded = load_model(m.name, dtype=m.compute_dtype, attention_impl=m.attention_impl)
    weights = weights_of(config, config.model.name)
  model_config, params, tokenizer = loaded
  mesh = run_lib.sampling_mesh(config, model_config)
  if show and show_settings:
    print_settings(config, model_config, problems, store.root / name / problems[0].task)
  capacity = config.sampling.prompt_capacity
  sees = run_lib.sees(config, model_config)
  encoded = run_lib.encode_prompts(problems, config.task.template, tokenizer, capacity, sees)
  if data == 'by problem':
    check_remembered(store.root / name / problems[0].task / 'problems.json', list(problems))
  sampler_params = hand_over_locally(None, params, mesh)
  del params, loaded  # the sampler has its own copy
  engine = run_lib.make_engine(config, sampler_params, model_config, mesh)
  own = hosts.mine(len(problems))
  subject = Subject(
    name,
    engine,
    tokenizer,
    [problems[i] for i in own],
    [encoded[i] for i in own],
    config.task.template,
    weights,
    data,
    rules_of(config.task, problems, tokenizer, capacity),
    (sees.min_pixels, sees.max_pixels) if sees and any(p.images for p in problems) else None,
  )

  def fill() -> preflight.Price | None:
    with pool_of(config.verifier, workdir) as pool:
      return sample_into_store(
        store,
        subject,
        rule,
        eval_sampling(config, tokenizer.eos_ids),
        pool,
        seed=config.seed,
        coupling=config.sampling.coupling,
        flush_s=config.evaluate.flush_s,
        pilot_only=pilot_only or config.dry_run,
        show=show,
      )

  return Samples(store, name, tuple(problems), rule), _fill_together(fill, len(own))


def _fill_together(fill: Callable[[], preflight.Price | None], own: int) -> Any:
  """What `fill` returns in the first process, when all have filled in their shares.

  Raises Stopped in all where one was stopped.
  """
  if hosts.count() == 1:
    return fill()
  found, stopped = None, ''
  with GracefulExit() as asked:  # also of a process that waits for the others
    try:
      found = fill() if own else None
    except Stopped as error:
      if hosts.lost():
        raise RuntimeError(hosts.lost()) from error
      stopped = str(error)
    if asked.requested:
      stopped = stopped or 'this share of the samples is stored; the same command goes on'
    stops = hosts.exchange(stopped, 'the filled store')
  if any(stops):
    raise Stopped(next(filter(None, stops)))
  return hosts.from_first(found)


def evaluate(config: Config, workdir: pathlib.Path) -> None:
  """job=evaluate | sample: n completions of each problem into the store, then pass@k.

  job=sample stops at the store; job=evaluate writes results.json and report.html beside it.
  """
  if not config.model.name:
    raise ValueError("model.name='' names no model to measure: give a directory, .gguf or hub id")
  meter = Meter()
  problems = evaluation_problems(config)
  hosts.of_first(lambda: register(workdir, settings_of(config)))
  with exit_when_stopped():
    drawn, _ = draw(config, workdir, problems, content_hash(config.task))
  if not hosts.is_first():
    return
  if config.dry_run:
    print('dry_run: ends here; what the pilot drew is stored', file=sys.stderr)
  elif config.job == 'sample':
    print(drawn, file=sys.stderr)
  if config.dry_run or config.job == 'sample':
    return
  publish_drawn(config, workdir, drawn, problems, seconds=meter.seconds)


def weights_of(config: Config, path: str | os.PathLike[str]) -> str:
  """Stands for what a model at this path computes under a config, in the store's settings."""
  return f'{fingerprint(path)[:16]} {config.model.compute_dtype}'


def print_settings(
  config: Config,
  model_config: ModelConfig | None,
  problems: Sequence[Problem],
  place: pathlib.Path,
  more: Sequence[tuple[str, str]] = (),
) -> None:
  """Says on stderr what a run will do; more: further (name, text), said first."""
  s, e = config.sampling, config.evaluate
  model = config.model.name or e.name or 'trained from scratch'
  if model_config is not None:
    model += f' ({model_config.architecture}, {model_config.num_layers} layers'
    model += f', {config.model.compute_dtype})'
  rows = [
    *more,
    ('model', model),
    (
      'problems',
      f'{len(problems):,} of {problems[0].task}, template {config.task.template}, verifier '
      f'{", ".join(dict.fromkeys(map(verifier_name, problems)))}',
    ),
    (
      'draws',
      f'{e.n:,} of each, temperature {e.temperature:g}, top_p {e.top_p:g}, top_k {e.top_k}, at '
      f'most {s.max_tokens:,} tokens, seed {config.seed}, {s.coupling}',
    ),
  ]
  if name := environment_of(config.task):
    rows.append(('turns', f'at most {config.task.turns}, answered by {name}'))
  if s.stop_after:
    rows.append(
      ('stopping', f'after the first {s.first:,}, once {s.stop_after} of the draws are correct')
    )
  sizes = ('slots', 'bank_rows', 'page', 'pages', 'memory_gb', 'chunk')
  rows += [
    ('engine', ', '.join([*(f'{key} {s[key]:g}' for key in sizes if s[key]), s.decode_impl])),
    ('store', str(place)),
  ]
  print('\n'.join(['settings:', *preflight.table(rows)]), file=sys.stderr)


def params_hash(params: Params) -> str:
  """16 hex digits that stand for the values of a parameter tree."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  kinds = [(path_name(path), leaf.shape, str(leaf.dtype)) for path, leaf in leaves]
  return hashlib.sha256(repr((kinds, checksums(params))).encode()).hexdigest()[:16]


def _verifier_name(verifier: str | Callable[..., Any]) -> str:
  """'file.py:function' of a function that worker processes can import; names as they are."""
  if isinstance(verifier, str):
    return verifier
  file = inspect.getsourcefile(verifier) or ''
  if not file.endswith('.py') or verifier.__qualname__ != verifier.__name__:
    raise ValueError(
      f'verifier={verifier!r} cannot be imported by the worker processes: put it into a file of '
      "its own, at module level, and give 'file.py:function'"
    )
  return f'{file}:{verifier.__name__}'


def eval_sampling(config: Config, stop_ids: tuple[int, ...]) -> Sampling:
  """The Sampling of a config's evaluate group."""
  e = config.evaluate
  s = config.sampling
  return Sampling(e.temperature, e.top_p, e.top_k, tuple(stop_ids), s.max_tokens, s.extras)
