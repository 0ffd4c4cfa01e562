"""Configs without surprises: dotted keys, smoke values, checks, fingerprints and their record.

Only ml_collections is imported, so that a laptop without jax can read and check every config.
A dotted key names a leaf, as 'train.group'. Groups listed in FREE_GROUPS hold keys of the user's.
"""

import ast
import contextlib
import datetime
import difflib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from rlvr_jax import checks, paths
from rlvr_jax.config_keys import ADDED, OPEN, RULES

# An ml_collections.ConfigDict: its attributes are data, which a type checker cannot see.
Config = Any

FREE_GROUPS = (
  'smoke_values', 'full_values', 'study.arms', 'study.models', 'study.texts', 'task.params',
  'reward.parts', 'benchmark.families', 'benchmark.common', 'benchmark.methods',
)  # fmt: skip
JOBS = {
  'train': 'rlvr_jax.layouts:train',
  'distill': 'rlvr_jax.layouts:distill',
  'evaluate': 'rlvr_jax.eval.sample:evaluate',
  'sample': 'rlvr_jax.eval.sample:evaluate',
  'study': 'rlvr_jax.study:study',
  'benchmark': 'rlvr_jax.benchmark:benchmark',
  'data': 'rlvr_jax.eval.data:data',
  'export': 'rlvr_jax.export:export',
  'score': 'rlvr_jax.eval.score:score',
  'cot': 'rlvr_jax.eval.cot_job:cot_job',
  'perplexity': 'rlvr_jax.eval.perplexity_job:perplexity',
  'compare': 'rlvr_jax.eval.compare_stores:compare',
  'power': 'rlvr_jax.eval.power_job:power_job',
  'plan': 'rlvr_jax.plan:plan',
}
SERVED = 'rlvr_jax.eval.served:evaluate'  # of the jobs sample and evaluate, where a server draws
WITHOUT_JAX = ('score', 'compare', 'power')
# Jobs whose dry_run goes as far as the preflight: a pilot, and what the rest will cost.
SAMPLING_JOBS = ('sample', 'evaluate', 'study', 'benchmark')
PACKAGES = (
  'rlvr_jax',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'transformers',
  'tokenizers',
  'safetensors',
  'gguf',
  'numpy',
  'scipy',
  'pyarrow',
  'math-verify',
  'reasoning-gym',
  'ml_collections',
  'matplotlib',
)
# Keys that change where or how a run is watched, and none of its numbers.
UNSEEN_BY_RESULTS = (
  'name', 'dry_run', 'smoke', 'smoke_values', 'full', 'full_values', 'benchmark',
  'profile', 'metrics', 'watch', 'hosts',
  'verifier.workers', 'verifier.sandbox', 'verifier.allow_unsafe',
  'train.checkpoint_every', 'train.keep', 'train.store_rollouts', 'train.export',
  'train.keep_best', 'distill.export', 'distill.checkpoint_every', 'sampling.extras',
  'run', 'to', 'to_dtype', 'adapter', 'data', 'input', 'output', 'score', 'cot', 'claims',
  'evaluate.second_verifier', 'stores', 'perplexity',
  'compare', 'power', 'plan', 'server', 'evaluate.guesses',
  # these two end the draws of measured problems, never those of training
  'sampling.first', 'sampling.stop_after',
  'train.keep_steps', 'train.keep_every',
  # how devices share what is computed: order of summation aside, as a restart on others does
  'mesh', 'sampling.tensor',
)  # fmt: skip
# Keys that older identities hold and that count no more.
ONCE_SEEN = ('mesh.',)


def flatten(config: Config, prefix: str = '') -> dict[str, Any]:
  """Dotted key -> leaf value, in the config's own order; free groups stay whole, as dicts."""
  flat = {}
  for key in config:
    value, path = config[key], f'{prefix}{key}'
    if path in FREE_GROUPS:
      flat[path] = value.to_dict() if isinstance(value, ConfigDict) else value
    elif isinstance(value, ConfigDict):
      flat |= flatten(value, f'{path}.')
    else:
      flat[path] = value
  return flat


def set_key(config: Config, key: str, value: Any, source: str) -> None:
  """Sets config's leaf `key`, keeping its type (an int becomes a float, a list a tuple).

  A free group takes a dict, which replaces it. source says in a message who gave the value.
  Raises ValueError for an unknown key, naming the nearest one and its value, and for a value of
  another type, naming key, given and expected.
  """
  *groups, leaf = key.split('.')
  node = config
  for group in groups:
    node = node.get(group) if isinstance(node, ConfigDict) else None
  if not isinstance(node, ConfigDict) or leaf not in node:
    raise ValueError(_unknown_key(config, key, source))
  if key in FREE_GROUPS and isinstance(value, Mapping | ConfigDict):
    with node.unlocked():
      node[leaf] = dotted(value)
    return
  if '.'.join(groups) in FREE_GROUPS and not isinstance(node[leaf], ConfigDict):
    node[leaf] = value
    return
  with node.unlocked():
    now = node[leaf]
    kind = OPEN[key] if now is None else node.get_type(leaf)
    node[leaf] = _fit(key, value, now, kind, source)


def dotted(values: Any) -> Config:
  """A group whose keys (and those of its groups) are dotted keys of the config.

  values: a mapping or a ConfigDict.
  """
  inner = {k: dotted(v) if isinstance(v, Mapping | ConfigDict) else v for k, v in values.items()}
  return ConfigDict(inner, allow_dotted_keys=True)


def _unknown_key(config: Config, key: str, source: str) -> str:
  """A message for a key that does not exist."""
  flat = flatten(config)
  near = difflib.get_close_matches(key, list(flat), n=1, cutoff=0.0)[0]
  same_leaf = [k for k in flat if k.rsplit('.', 1)[-1] == key.rsplit('.', 1)[-1]]
  if len(same_leaf) == 1:
    near = same_leaf[0]
  return f'{source}: there is no key {key!r}; the nearest is {near!r} (now {flat[near]!r})'


def _fit(key: str, value: Any, now: Any, kind: type, source: str) -> Any:
  """value as a `kind`, where nothing is lost by it."""
  if isinstance(now, ConfigDict):
    hint = '; who judges is task.verifier' if key == 'verifier' else ''
    raise ValueError(
      f'{source}: {key!r} is a group, not a value; set one of its keys: {", ".join(now)}{hint}'
    )
  if value is None and now is None:  # a key that may be left open, as the cells of train
    return None
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if kind is tuple and isinstance(value, list):
    return tuple(value)
  if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
    return value
  raise ValueError(
    f'{source}: {key}={value!r} is of type {type(value).__name__}; '
    f'expected {kind.__name__}, as in {key}={now!r}'
  )


def resolve(config: Config, overrides: Mapping[str, Any] | None = None) -> Config:
  """The config that a job runs with: a locked copy with full and smoke values, and checked.

  overrides are the user's explicit dotted keys (config_flags has applied them once already; they
  win over those too, which is why they are applied again). Raises ValueError, see set_key
  and check.
  """
  overrides = dict(overrides or {})
  config = ConfigDict(config).copy_and_resolve_references()
  for key, value in overrides.items():
    set_key(config, key, value, 'override')
  for name in ('full', 'smoke'):
    if config[name]:
      for key, value in config[f'{name}_values'].to_dict().items():
        if key not in overrides:
          set_key(config, key, value, f'{name}_values')
  check(config)
  return config.lock()


def check(config: Config) -> None:
  """Refuses values that no device could run: ValueError names key, value and the way out."""
  if config.job not in JOBS:
    raise ValueError(f'job={config.job!r} does not exist; the jobs are {", ".join(sorted(JOBS))}')
  check_values(config)
  if list(config.mesh.values()).count(-1) > 1:
    raise ValueError(f'mesh={dict(config.mesh)}: only one axis can be -1 (the rest of the devices)')
  if config.job in ('train', 'study', 'distill', 'plan', 'benchmark'):
    _check_train(config)
  checks.check(config)
  if config.job in SAMPLING_JOBS:
    check_stopping(config.evaluate.n, config.sampling.first, config.sampling.stop_after)
  if config.job in ('evaluate', 'study', 'benchmark'):
    _check_evaluate(config)


def entry(config: Config) -> tuple[str, str, bool]:
  """(module, function, whether it needs jax) of the config's job."""
  served = config.job in ('sample', 'evaluate') and is_served(config.model.name)
  module, function = (SERVED if served else JOBS[config.job]).split(':')
  return module, function, not served and config.job not in WITHOUT_JAX


def is_served(name: str) -> bool:
  """Whether a model's name is that of a server: http://host:port/v1#NAME."""
  return name.startswith(('http://', 'https://'))


def check_values(config: Config) -> None:
  """Refuses each value of a config, or of a part of one, that is out of range by itself."""
  for key, value in flatten(config).items():
    holds, way_out = RULES.get(key, (None, ''))
    if holds is not None and not holds(value):
      raise ValueError(f'{key}={value!r}: {way_out}')


def check_stopping(n: int, first: int, stop_after: int) -> None:
  """Relations of early stopping: n draws of a problem, the first of them in any case."""
  if not first and not stop_after:
    return
  if not first:
    raise ValueError(
      f'sampling.stop_after={stop_after} needs sampling.first: how many draws every problem gets '
      'in any case, and so the largest k of its pass@k; or set sampling.stop_after=0'
    )
  if not stop_after:
    raise ValueError(
      f'sampling.first={first} does nothing by itself: set sampling.stop_after to the number of '
      'correct draws after which a problem is left, or sampling.first=0'
    )
  if first > n:
    raise ValueError(
      f'sampling.first={first} is above the n={n} draws of a problem (evaluate.n, or k of '
      'rlvr_jax.sample); raise n or lower sampling.first'
    )
  if stop_after > n:
    raise ValueError(
      f'sampling.stop_after={stop_after} correct draws are never reached with n={n}; lower it, or '
      'set sampling.first=0 and sampling.stop_after=0'
    )


def _check_train(config: Config) -> None:
  """Relations between keys of the learner."""
  train, sampling = config.train, config.sampling
  minibatch = train.minibatch or train.prompts
  if train.prompts % minibatch:
    raise ValueError(
      f'train.minibatch={minibatch} does not divide train.prompts={train.prompts}; choose a '
      'divisor, or 0 for one optimizer step an iteration'
    )
  if train.group == 1 and train.algorithm == 'grpo':
    raise ValueError('train.group=1: grpo compares completions of one prompt; use at least 2')
  if config.job not in ('study', 'benchmark') and (sampling.first or sampling.stop_after):
    raise ValueError(
      f'sampling.first={sampling.first}, sampling.stop_after={sampling.stop_after}: early stopping '
      f'would bend the groups that job={config.job} learns from; it is for the jobs '
      f'{", ".join(SAMPLING_JOBS)}. Set both to 0'
    )
  if sampling.top_p < 1 or sampling.top_k:
    raise ValueError(
      f'sampling.top_p={sampling.top_p}, sampling.top_k={sampling.top_k}: learning needs '
      'top_p=1 and top_k=0, else the log-probs are not those of what was drawn; evaluation has '
      'evaluate.top_p and evaluate.top_k'
    )
  if sampling.temperature <= 0:
    raise ValueError(
      f'sampling.temperature={sampling.temperature}: greedy completions have no log-probs to learn '
      'from; set it above 0 (evaluation has evaluate.temperature)'
    )
  if train.micro_tokens < sampling.prompt_capacity + sampling.max_tokens:
    raise ValueError(
      f'train.micro_tokens={train.micro_tokens} cannot hold one rollout of sampling.'
      f'prompt_capacity={sampling.prompt_capacity} + sampling.max_tokens={sampling.max_tokens}; '
      'raise it, or shorten the other two'
    )


def _check_evaluate(config: Config) -> None:
  """Relations between keys of the evaluation."""
  n, ks, headline = config.evaluate.n, config.evaluate.ks, config.evaluate.headline_k
  first, key = config.sampling.first, 'evaluate.n'
  if first:  # with early stopping pass@k is that of the draws every problem has
    n, key = first, 'sampling.first'
  if any(not isinstance(k, int) or k < 1 for k in ks):
    raise ValueError(f'evaluate.ks={ks}: each k is a positive integer; () takes a grid up to n')
  if max(ks, default=0) > n:
    raise ValueError(
      f'evaluate.ks={ks} asks for pass@{max(ks)} with {key}={n} samples; '
      f'raise {key} or drop the larger k'
    )
  if config.claims.k > n:
    raise ValueError(
      f'claims.k={config.claims.k} is above {key}={n}: no claim could be judged at that k; raise '
      f'{key} or lower claims.k'
    )
  if headline > max(1, n // 4):
    raise ValueError(
      f'evaluate.headline_k={headline} is above n/4 = {n // 4}: its estimate would be mostly '
      f'sampling error; raise {key} or lower evaluate.headline_k'
    )


def identity(config: Config, exclude: Iterable[str] = ()) -> dict[str, Any]:
  """The keys that decide a run's numbers, as JSON values; keys or groups in exclude are left out.

  It goes into checkpoints, so that one of another config can be refused with its differing keys.
  Of keys that came later (config_keys.ADDED) the value that stands for their absence is left out.
  """
  unseen = (*UNSEEN_BY_RESULTS, *exclude)
  kept = {
    key: value
    for key, value in flatten(config).items()
    if not any(key == name or key.startswith(f'{name}.') for name in unseen)
  }
  kept = json.loads(json.dumps(kept))
  return {key: value for key, value in kept.items() if key not in ADDED or value != ADDED[key]}


def fingerprint(config: Config, exclude: Iterable[str] = ()) -> str:
  """First 16 hex digits of the sha256 of identity(config, exclude), whatever the key order."""
  text = json.dumps(identity(config, exclude), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
  """'key: before -> now' for each key in which two identities differ."""
  absent = '(absent)'
  return [
    f'{key}: {before.get(key, absent)!r} -> {now.get(key, absent)!r}'
    for key in dict.fromkeys([*before, *now])
    if before.get(key, absent) != now.get(key, absent) and not key.startswith(ONCE_SEEN)
  ]


def versions(argv: Sequence[str] | None = None) -> dict[str, Any]:
  """What ran: python, platform, installed packages, git commit (None outside git), command."""
  found: dict[str, Any] = {'python': platform.python_version(), 'platform': platform.platform()}
  for name in PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = None
  started = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  return {**found, 'git': _git_commit(), 'command': list(argv or sys.argv), 'started': started}


def _git_commit() -> str | None:
  """The commit of this checkout, '+' added if files differ from it; None where there is none."""
  root = pathlib.Path(__file__).resolve().parent.parent
  if not (root / '.git').exists():
    return None
  try:
    sha = _git(root, 'rev-parse', 'HEAD')
    return sha + ('+' if _git(root, 'status', '--porcelain', '-uno') else '')
  except (OSError, subprocess.SubprocessError):  # no git program, or no commit yet
    return None


def _git(root: pathlib.Path, *words: str) -> str:
  command = ['git', '-C', str(root), *words]
  return subprocess.run(
    command, check=True, capture_output=True, text=True, timeout=20
  ).stdout.strip()


def prepare_workdir(workdir: str | os.PathLike) -> pathlib.Path:
  """Makes workdir and writes to it once. Raises OSError naming it if that cannot be done."""
  path = paths.path_of(workdir)
  path = path if paths.is_remote(path) else path.expanduser()
  probe = path / f'.probe-{platform.node()}-{os.getpid()}'
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe.write_text('probe')
    probe.unlink()
  except OSError as error:
    raise OSError(
      f'workdir={str(path)!r} cannot be written ({error.strerror}); '
      'give a writable place by --workdir=PATH'
    ) from error
  return paths.absolute(path)


def save(config: Config, workdir: str | os.PathLike, argv: Sequence[str] | None = None) -> None:
  """Writes workdir/config.json and versions.json; versions of earlier starts are kept in it."""
  workdir = paths.path_of(workdir)
  nested = json.loads(config.to_json())
  paths.write_whole(workdir / 'config.json', json.dumps(nested, indent=2) + '\n')
  record, path = versions(argv), workdir / 'versions.json'
  if path.exists():
    before = json.loads(path.read_text())
    record['earlier_starts'] = [*before.pop('earlier_starts', []), before]
  paths.write_whole(path, json.dumps(record, indent=2) + '\n')


@contextlib.contextmanager
def recorded(config: Config, workdir: pathlib.Path, *, write: bool = True) -> Iterator[None]:
  """save(config, workdir) for what runs inside; if it is refused (ValueError) the record that was
  there before, of the run that is there, comes back. write False: another process does it."""
  if not write:
    yield
    return
  files = [workdir / name for name in ('config.json', 'versions.json')]
  before = {path: path.read_bytes() for path in files if path.exists()}
  save(config, workdir)
  try:
    yield
  except ValueError:
    for path, content in before.items():
      paths.write_whole(path, content)
    raise


def load_file(path: str) -> Config:
  """get_config of the Python file at path; text after a ':' is given to it as its argument.

  Raises OSError if there is no such file, ValueError if it has no get_config.
  """
  file, colon, argument = path.partition(':')
  if not pathlib.Path(file).is_file():
    raise OSError(f'--config={file}: no such file; the configs that come along are in configs/')
  spec = importlib.util.spec_from_file_location(f'config_{pathlib.Path(file).stem}', file)
  if spec is None or spec.loader is None:
    raise ValueError(f'--config={file} is not a Python file')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise ValueError(f'--config={file} defines no get_config()')
  return module.get_config(argument) if colon else module.get_config()


def parse_literal(text: str) -> Any:
  """The Python value that text writes (a number, tuple, True ...), else text itself."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
