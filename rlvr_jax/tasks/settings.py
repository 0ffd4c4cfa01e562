"""What the config says to verifiers that run programs: set once in a worker process, then read."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Settings:
  """Keys of the config's verifier group; limits are those of one run of a program."""

  limit_s: float = 10.0
  memory_mb: int = 4096
  sandbox: str = 'landlock+seccomp'
  allow_unsafe: bool = False


SETTINGS = Settings()


def use(values: dict[str, Any]) -> None:
  """Takes the values over, in this process."""
  for key, value in values.items():
    assert hasattr(SETTINGS, key), key
    setattr(SETTINGS, key, value)
