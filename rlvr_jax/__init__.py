"""rlvr_jax: what reinforcement learning with verifiable rewards does to a language model.

`rlvr_jax.sample(model, problems, k=1024)` draws completions into a store (docs/how_to.md). It is
looked up at its first use, so that importing the package imports no jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from rlvr_jax.eval.sample import sample as sample

__version__ = '0.1.0'
__all__ = ['__version__', 'sample']


def __getattr__(name: str) -> Any:
  if name == 'sample':
    return importlib.import_module('rlvr_jax.eval.sample').sample
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return [*globals(), 'sample']
