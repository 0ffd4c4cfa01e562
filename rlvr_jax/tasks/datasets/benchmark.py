"""What the table says of a benchmark (table.py, maths.py, code.py)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from rlvr_jax.tasks.datasets.rows import RowFunction
from rlvr_jax.tasks.problem import Problem

KINDS = ('math', 'vision', 'function', 'contest', 'code')  # what prompts.PAPER is looked up by
RAW = 'https://raw.githubusercontent.com'
# the repository of agentica's rllm, whose copies of several sets are small and public
RLLM = f'{RAW}/agentica-project/rllm/874daa4acb7f451dc2a4b2b6e8ce28f5aa88d1f5/rllm/data'


@dataclasses.dataclass(frozen=True)
class Source:
  """A file of one split. home: a URL, or 'hub:org/name@revision/path' of a Hugging Face data set.

  names: file names or patterns in a folder given by path, the first that is there; sha256 '' where
  nobody here has seen the file. copies: the checksums of other files with the same rows.
  """

  split: str
  home: str
  names: tuple[str, ...]
  sha256: str = ''
  copies: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """kind decides the template (prompts.PAPER); released: when its problems could be read first.

  filters: task.params that choose among its rows -> the meta they compare with; window: the dates
  (from, before) taken unless params say otherwise. rows: problems in each split, where we or its
  authors counted them. divide: makes the splits of a file that holds several. usual: values of its
  filters unless params say otherwise. repeating: its file holds problems many times, each counts
  once.
  """

  about: str
  kind: str
  sources: tuple[Source, ...]
  row: RowFunction
  licence: str
  released: str
  rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
  filters: Mapping[str, str] = dataclasses.field(default_factory=dict)
  window: tuple[str, str] = ('', '')
  divide: Callable[[list[Problem]], dict[str, list[Problem]]] | None = None
  usual: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  repeating: bool = False

  @property
  def verifier(self) -> str:
    """The verifier of its problems (registry.py)."""
    return self.kind if self.kind in ('math', 'vision') else 'code'

  @property
  def splits(self) -> tuple[str, ...]:
    """Its splits, in order."""
    if self.divide is not None:
      return tuple(self.divide([]))
    return tuple(dict.fromkeys(source.split for source in self.sources))
