"""Every config of configs/ loads without jax, resolves with and without smoke, refuses typos."""

import pathlib
import subprocess
import sys

import pytest

from rlvr_jax import command_line
from rlvr_jax import config as config_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent
# the others hold groups of configs/base.py
FILES = sorted(
  path.name for path in (ROOT / 'configs').glob('*.py') if 'def get_config' in path.read_text()
)


@pytest.mark.parametrize('file', FILES)
def test_config_resolves(file):
  config = config_lib.load_file(str(ROOT / 'configs' / file))
  config_lib.resolve(config)
  config_lib.resolve(config, {'smoke': True})


@pytest.mark.parametrize('file', FILES)
def test_misspelt_override_names_the_nearest_key(file):
  path = ROOT / 'configs' / file
  with pytest.raises(ValueError, match=r"the nearest is 'sampling\.temperature'"):
    command_line.check_flags(['main.py', f'--config={path}', '--config.sampling.temprature=1'])


def test_configs_load_without_jax():
  code = f"""
import sys
for name in ('jax', 'flax', 'numpy', 'transformers'):
  sys.modules[name] = None
from rlvr_jax import config
for file in {FILES!r}:
  config.load_file('configs/' + file)
"""
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, timeout=60)
