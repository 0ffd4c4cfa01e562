"""Which studies a benchmark of training methods is made of. Nothing here needs jax.

A family (benchmark.families) is a task with its base: dotted keys. A method (benchmark.methods) is
what its arms set on top of that and of benchmark.common: dotted keys, the words of an arm
(stages.py), and `label`, what it is in a few words. benchmark.add names Python files with METHODS,
and perhaps FAMILIES, of the same form: they run too.
"""

import difflib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax import stages
from rlvr_jax.config import Config
from rlvr_jax.tasks import user_file

# what is the same for every method of a family, by key or group of keys
FIXED = (
  'train.tokens', 'task.', 'model.', 'distill.', 'evaluate.', 'benchmark.', 'study.', 'seed',
  'from', 'job', 'measure', 'final', 'role', 'part', 'method',
)  # fmt: skip
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_+]*')  # a hyphen parts it from the seed


def added(config: Config, table: str) -> dict[str, Any]:
  """What the files of benchmark.add have under METHODS or FAMILIES."""
  found: dict[str, Any] = {}
  for name in filter(None, (one.strip() for one in config.benchmark.add.split(','))):
    what = f'benchmark.add={name!r}'
    if not name.endswith('.py'):
      raise ValueError(f'{what} is not a Python file: give path/to/file.py')
    module = user_file.load(pathlib.Path(name).expanduser(), what)
    values = getattr(module, table, {})
    if table == 'METHODS' and not values:
      raise ValueError(f"{what}: METHODS is missing or empty; write METHODS = {{'mine': {{...}}}}")
    if not isinstance(values, Mapping):
      raise ValueError(f'{what}: {table} is a {type(values).__name__}, not a dict')
    own = {str(key): dict(value) for key, value in values.items()}
    for key in sorted(set(own) & (set(found) | set(config.benchmark[table.lower()]))):
      raise ValueError(f'{what}: {table}[{key!r}] is there already; give yours another name')
    found |= own
  return found


def methods(config: Config) -> dict[str, dict[str, Any]]:
  """The methods that run, by name, in their order; ValueError for what is not in the table."""
  known = {name: dict(value.items()) for name, value in config.benchmark.methods.items()}
  new = added(config, 'METHODS')
  asked = [*config.benchmark.run_methods, *new]
  found = _chosen(known | new, asked, 'benchmark.run_methods', 'benchmark.methods')
  for name, given in found.items():
    for key in given:
      if key in FIXED or key.startswith(tuple(one for one in FIXED if one.endswith('.'))):
        raise ValueError(
          f'benchmark.methods[{name!r}]: {key} is the same for all methods of a family; a method '
          'sets what its training does (train.*, reward.*, optimizer.*, sampling.*)'
        )
  reference = config.benchmark.reference
  if reference not in found:
    raise ValueError(
      f'benchmark.reference={reference!r} is none of the methods that run; add it to '
      'benchmark.run_methods'
    )
  return found


def families(config: Config) -> dict[str, dict[str, Any]]:
  """The families that run, by name."""
  known = {name: dict(value.items()) for name, value in config.benchmark.families.items()}
  new = added(config, 'FAMILIES')
  asked = [*config.benchmark.run_families, *new]
  return _chosen(known | new, asked, 'benchmark.run_families', 'benchmark.families')


def _chosen(known: Mapping[str, dict], asked: list[str], what: str, table: str) -> dict[str, dict]:
  for name in asked:
    if name not in known:
      near = difflib.get_close_matches(name, known, n=1)
      raise ValueError(
        f'{what} names {name!r}, but {table} has {", ".join(known) or "none"}'
        + (f'; did you mean {near[0]!r}?' if near else '')
      )
    if not _NAME.fullmatch(name):
      raise ValueError(f'{table}[{name!r}]: a name is of letters, digits, _ and +')
  if not asked:
    raise ValueError(f'{what} is empty; name some of {", ".join(known)}')
  return {name: known[name] for name in asked}


def arm(method: str, seed: int) -> str:
  """The name of a method's arm."""
  return f'{method}-{seed}'


def study_of(config: Config, family: str) -> Config:
  """The study of a family: its task and base, an arm for every method and seed.

  ValueError, naming family or method, for keys and values that do not fit.
  """
  b = config.benchmark
  found = config.copy_and_resolve_references()
  for key, value in families(config)[family].items():
    config_lib.set_key(found, key, value, f'benchmark.families[{family!r}]')
  arms, common = {}, dict(b.common.items())
  for method, given in methods(config).items():
    for seed in range(1, b.seeds + 1):
      own = {'seed': seed, 'part': 'algorithms', 'method': method}
      arms[arm(method, seed)] = {'train.tokens': b.tokens, **common, **given, **own}
  config_lib.set_key(found, 'study.arms', arms, 'benchmark.methods')
  given = {
    'job': 'study',
    'name': family,
    'study.run_arms': tuple(arms),
    'study.headline': arm(b.reference, 1),
    'study.title': f'{family}: the models of the benchmark',
  }
  for key, value in given.items():
    config_lib.set_key(found, key, value, 'benchmark')
  config_lib.check(found)
  stages.measured(found, stages.table(found))  # refuses what is wrong with an arm
  return found


def labels(config: Config) -> dict[str, str]:
  """What each method is, in a few words."""
  return {name: str(given.get('label', '')) for name, given in methods(config).items()}


def controls(config: Config) -> list[str]:
  """The methods whose reward is none (reward.control)."""
  return [name for name, given in methods(config).items() if given.get('reward.control')]
