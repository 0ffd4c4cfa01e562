"""A command line's --config flags, read and refused before absl parses the same words.

Only ml_collections and absl are imported.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from rlvr_jax import config as config_lib


class DictParser(flags.ArgumentParser):
  """A free group given whole: --config.reward.parts="{'correct': 1.0, 'my.py:length': -0.01}"."""

  def parse(self, argument: Any) -> ConfigDict:
    """The literal dict as a group whose keys may have dots."""
    value = config_lib.parse_literal(argument) if isinstance(argument, str) else argument
    if not isinstance(value, dict | ConfigDict):
      raise ValueError(f"{argument!r} is no dict; write one as {{'correct': 1.0, 'format': 0.1}}")
    return config_lib.dotted(value)


def check_flags(argv: Sequence[str]) -> None:
  """Reads --config and --config.KEY=VALUE of a command line, and refuses bad ones clearly.

  It runs before config_flags parses the same words, whose own errors name no nearest key.
  Raises OSError for a missing file, ValueError for an unknown key or a value of another type.
  """
  words = list(argv)
  path = next((_value(words, i) for i, w in enumerate(words) if _flag(w) == 'config'), None)
  if not path:
    raise ValueError('no --config given; try --config=configs/quickstart.py')
  config = config_lib.load_file(path)
  for i, word in enumerate(words):
    name = _flag(word)
    if name.startswith('config.'):
      _check_override(config, name.removeprefix('config.'), word, _value(words, i))


def _flag(word: str) -> str:
  """'config.a' of '--config.a=1'; '' of a word that is no flag."""
  return word.lstrip('-').partition('=')[0] if word.startswith('-') else ''


def _value(words: Sequence[str], i: int) -> str | None:
  """The value given to the flag at words[i], in that word or the next; None if there is none."""
  _, equals, value = words[i].partition('=')
  if equals:
    return value
  return words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith('--') else None


def _has(config: config_lib.Config, key: str) -> bool:
  """Whether every part of a dotted key is there."""
  for part in key.split('.'):
    if not isinstance(config, ConfigDict) or part not in config:
      return False
    config = config[part]
  return True


def _check_override(config: config_lib.Config, key: str, word: str, text: str | None) -> None:
  """Refuses one override whose key or value does not fit."""
  flat = config_lib.flatten(config)
  source = word.partition('=')[0]
  free = [group for group in config_lib.FREE_GROUPS if key.startswith(f'{group}.')]
  if key not in flat and free and not _has(config, key):
    raise ValueError(
      f'{source}: a new key of {free[0]} cannot come from the command line; write it into a config '
      'file of your own'
    )
  if free and key not in flat:
    return
  if key not in flat:
    config_lib.set_key(config, key, text, source)
    raise AssertionError(f'{key} is no leaf')
  kind = type(flat[key])
  if text is None and kind is not bool:
    raise ValueError(f'{source} has no value; write {source}={flat[key]!r} or another')
  if kind in (int, float):
    config_lib.set_key(config, key, config_lib.parse_literal(text or ''), source)
  if kind is bool and text is not None and text.lower() not in ('true', 'false', '1', '0'):
    raise ValueError(f'{source}={text}: expected true or false')
