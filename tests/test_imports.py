"""Imports run one way, and what promises to work without jax does.

ground <- models <- sampling <- eval <- rl <- study, plan; tasks stands beside models.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'rlvr_jax'
GROUND = (
  'config',
  'config_keys',
  'checks',
  'command_line',
  'sharding',
  'mesh_choice',
  'platform_flags',
  'checkpoint',
  'metrics',
  'profiling',
  'graceful',
  'paths',
  'watch',
  'hosts',
  'hosts_find',
  'hosts_watch',
)
ALLOWED = {
  'ground': {'ground'},
  'tasks': {'ground', 'tasks'},
  'models': {'ground', 'models'},
  'sampling': {'ground', 'models', 'sampling'},
  'eval': {'ground', 'models', 'tasks', 'sampling', 'eval'},
  'rl': {'ground', 'models', 'tasks', 'sampling', 'eval', 'rl'},
  'top': {'ground', 'models', 'tasks', 'sampling', 'eval', 'rl', 'top'},
  'front': {'ground', 'eval'},  # the package itself: what it offers, looked up when asked for
}
# Modules of eval that run a model; all the others are statistics and reports, without jax.
EVAL_WITH_JAX = {
  'run',
  'fill',
  'sample',
  'solve',
  'memorised',
  'turns',
  'likelihood',
  'perplexity_job',
  'perplexity_rows',
  'entropy',
}
FILES = sorted(PACKAGE.rglob('*.py'))


def room_of(module: str) -> str:
  """The room of 'rlvr_jax.models.hf' is models."""
  parts = module.split('.')[1:]
  if not parts or parts[0] in GROUND:
    return 'ground'
  return parts[0] if parts[0] in ALLOWED else 'top'


def module_of(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported(path: pathlib.Path) -> set[str]:
  """Every module that the file names in an import, inside functions too."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


@pytest.mark.parametrize('path', FILES, ids=module_of)
def test_imports_run_one_way(path):
  room = 'front' if path == PACKAGE / '__init__.py' else room_of(module_of(path))
  for name in imported(path):
    top = name.split('.')[0]
    if top == 'rlvr_jax' and name != 'rlvr_jax.__version__':
      assert room_of(name) in ALLOWED[room], f'{room} must not import {name}'
    assert top not in ('configs', 'main', 'tests', 'bench'), f'the package imports {name}'
    assert room != 'tasks' or top not in ('jax', 'jaxlib', 'flax', 'optax'), f'tasks: {name}'


def test_no_import_cycles_between_modules():
  """At module level: a cycle would make the import order matter."""
  modules = {module_of(path): path for path in FILES}
  edges = {
    name: {
      other
      for statement in ast.parse(path.read_text()).body
      if isinstance(statement, ast.ImportFrom)
      for alias in statement.names
      for other in (f'{statement.module}.{alias.name}', str(statement.module))
      if other in modules and other != name and other.count('.')
    }
    for name, path in modules.items()
  }
  while edges:
    leaves = {name for name, others in edges.items() if not others & edges.keys()}
    assert leaves, f'modules in a cycle: {sorted(edges)}'
    edges = {name: others for name, others in edges.items() if name not in leaves}


def test_statistics_reports_and_tasks_import_without_jax():
  free = [
    module_of(path)
    for path in FILES
    if room_of(module_of(path)) == 'tasks'
    or (room_of(module_of(path)) == 'eval' and path.stem not in EVAL_WITH_JAX)
  ]
  free += ['rlvr_jax', 'rlvr_jax.config', 'rlvr_jax.metrics', 'rlvr_jax.watch', 'rlvr_jax.paths']
  free += ['rlvr_jax.hosts']
  code = f"""
import importlib, sys

class Absent:
  def find_spec(self, name, path=None, target=None):
    if name in ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'tensorflow'):
      raise ModuleNotFoundError(f'{{name}} is blocked')

sys.meta_path.insert(0, Absent())
for name in {free!r}:
  importlib.import_module(name)
"""
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, timeout=120)
