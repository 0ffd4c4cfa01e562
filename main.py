"""python main.py --config=configs/quickstart.py [--workdir=DIR] [--config.KEY=VALUE ...]

Runs the config's job. A mistake in what was given ends with exit code 2 and one message.
"""

import importlib
import pathlib
import sys
import traceback
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from rlvr_jax import checks, command_line, hosts, metrics, platform_flags, watch
from rlvr_jax import config as config_lib

config_flags.register_flag_parser_for_type(ConfigDict, command_line.DictParser())
_CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment.', lock_config=True)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run lives; default runs/<config name>.')
_DEBUG = flags.DEFINE_bool('debug', False, 'Show tracebacks of mistakes too.')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f'{argv[1]!r} is no flag; overrides look like --config.train.group=8')
  config = _CONFIG.value
  flag = flags.FLAGS['config']
  file = pathlib.Path(config_flags.get_config_filename(flag).partition(':')[0])
  with config.unlocked():
    config.name = config.name or file.stem
  config = config_lib.resolve(config, config_flags.get_override_values(flag))
  logging.set_verbosity(logging.INFO)
  needs_jax = config_lib.entry(config)[2]
  if needs_jax and (said := platform_flags.apply()):  # before anything imports jax
    logging.info('%s', said)
  if needs_jax or config.hosts.count > 1:
    hosts.start(config)
  if not hosts.is_first():
    logging.set_verbosity(logging.WARNING)  # the others have the same to say
  with hosts.together(exit_code):
    run(config)


def run(config: config_lib.Config) -> None:
  """The config's job in its workdir."""
  checks.check_remote(config, _WORKDIR.value or '')
  workdir = config_lib.prepare_workdir(_WORKDIR.value or pathlib.Path('runs') / config.name)
  hosts.check_shared(workdir)
  found = config_lib.versions()
  hosts.say(f'{config.name}: {config.job} in {workdir}')
  hosts.say('  '.join(f'{k} {found[k]}' for k in ('python', 'jax', 'flax', 'rlvr_jax')))
  module, function, needs_jax = config_lib.entry(config)
  if needs_jax:
    from rlvr_jax import profiling  # jax from here on: what could be refused without it has been

    if config.job != 'plan':  # programs for described devices cannot be loaded again
      profiling.enable_compile_cache()
  metrics.quiet_libraries()
  job = getattr(importlib.import_module(module), function)
  w = config.watch
  with config_lib.recorded(config, workdir, write=hosts.is_first()):
    if config.dry_run and config.job not in config_lib.SAMPLING_JOBS:
      hosts.say('dry_run: the config is sound; nothing was computed')
      return
    with watch.Watch(
      workdir, hang_seconds=w.hang_seconds, leave=w.hang_exit, process=hosts.index()
    ):
      job(config, workdir)


def parse_flags(argv: list[str]) -> list[str]:
  """absl's parse, after our own look at the config flags, whose messages name the nearest key."""
  if any(word.lstrip('-').startswith('help') for word in argv):
    return app.parse_flags_with_usage(argv)
  command_line.check_flags(argv)
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    raise ValueError(str(error)) from error


def is_users(error: Exception) -> bool:
  """Whether error speaks of what the user gave: any OSError, and a ValueError raised by us."""
  file = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
  ours = file.is_relative_to(pathlib.Path(__file__).parent) and 'site-packages' not in file.parts
  # jax cuts its own frames out of a traceback, and says so in a note.
  raised_by_us = ours and not hasattr(error, '__notes__')
  return isinstance(error, OSError) or (
    isinstance(error, ValueError | RuntimeError) and raised_by_us
  )


def exit_code(error: Exception) -> int:
  """That of a program which ends with the error."""
  return 2 if is_users(error) and '--debug' not in sys.argv else 1


if __name__ == '__main__':
  try:
    app.run(main, flags_parser=parse_flags)
  except Exception as error:
    if exit_code(error) == 1:
      raise
    print(f'error: {error}\n(--debug shows where it was found)', file=sys.stderr)
    sys.exit(2)
