"""What every statistic starts from: how many completions count a problem, how many solve it."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Counts:
  """Samples and successes of one model on P problems.

  n, c: i64[P], completions that count (every verdict but error) and the correct ones among them.
  verdicts: per verdict name i64[P], errors included; empty when only (n, c) is known. tokens:
  sampled tokens in all, 0 if not known; observed: those said to the model in conversations, beside
  them; truncated: completions without EOS, None if not known.
  coupling is 'common' when the samples share their random numbers with another model's, which rules
  out tests that need independence.
  """

  problem_ids: tuple[str, ...]
  n: np.ndarray
  c: np.ndarray
  verdicts: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  tokens: int = 0
  observed: int = 0
  truncated: int | None = 0
  coupling: str = 'independent'

  def __post_init__(self):
    object.__setattr__(self, 'problem_ids', tuple(self.problem_ids))
    object.__setattr__(self, 'n', np.asarray(self.n, np.int64))
    object.__setattr__(self, 'c', np.asarray(self.c, np.int64))
    size = len(self.problem_ids)
    if not size:
      raise ValueError('no problems: counts need at least one problem')
    if self.n.shape != (size,) or self.c.shape != (size,):
      raise ValueError(
        f'n{self.n.shape} and c{self.c.shape} must have one entry for each of {size} problem ids'
      )
    if len(set(self.problem_ids)) != size:
      raise ValueError('problem ids repeat; each problem may stand once in the counts')
    for problem, n, c in zip(self.problem_ids, self.n, self.c, strict=True):
      if n < 1:
        raise ValueError(f'problem {problem!r} has no sample that counts (n={n}); sample it again')
      if not 0 <= c <= n:
        raise ValueError(f'problem {problem!r}: c={c} is not between 0 and n={n}')

  def __len__(self) -> int:
    return len(self.problem_ids)

  @property
  def smallest_n(self) -> int:
    """The largest k at which every problem still has an unbiased pass@k."""
    return int(self.n.min())

  @property
  def rates(self) -> np.ndarray:
    """c / n, f64[P]."""
    return self.c / self.n

  def select(self, problem_ids: Sequence[str]) -> 'Counts':
    """The same counts for these problems, in this order.

    tokens and truncated cannot be split: where problems are left out neither is known.
    """
    row = {problem: index for index, problem in enumerate(self.problem_ids)}
    missing = [problem for problem in problem_ids if problem not in row]
    if missing:
      raise ValueError(f'{len(missing)} problems have no samples, among them {missing[:5]}')
    rows = np.array([row[problem] for problem in problem_ids], np.int64)
    return dataclasses.replace(
      self,
      problem_ids=tuple(problem_ids),
      n=self.n[rows],
      c=self.c[rows],
      tokens=self.tokens if len(rows) == len(self) else 0,
      observed=self.observed if len(rows) == len(self) else 0,
      truncated=self.truncated if len(rows) == len(self) else None,
      verdicts={name: np.asarray(values)[rows] for name, values in self.verdicts.items()},
    )


@dataclasses.dataclass(frozen=True)
class Reached:
  """How far each of P problems of a store that was stopped early got within n draws.

  most: correct draws after which a problem was left. c: i64[P], correct draws up to `most`, exactly
  as n draws of each would have given them; drawn: i64[P], draws that were kept. Coverage at n is
  exact for every threshold up to `most`; solve rates are not to be had from these numbers.
  """

  problem_ids: tuple[str, ...]
  n: int
  first: int
  most: int
  c: np.ndarray
  drawn: np.ndarray
  tokens: int = 0

  def covered(self, threshold: int = 1) -> np.ndarray:
    """bool[P]: at least `threshold` of n draws are correct. ValueError above `most`."""
    if not 1 <= threshold <= self.most:
      raise ValueError(
        f'coverage at {threshold} correct draws: problems were left after {self.most} '
        f'(sampling.stop_after), so it is known for 1 to {self.most} only'
      )
    return self.c >= threshold

  def select(self, problem_ids: Sequence[str]) -> 'Reached':
    """The same for these problems, in this order; tokens are not split."""
    row = {problem: index for index, problem in enumerate(self.problem_ids)}
    rows = np.array([row[problem] for problem in problem_ids], np.int64)
    return dataclasses.replace(
      self, problem_ids=tuple(problem_ids), c=self.c[rows], drawn=self.drawn[rows]
    )


def align(a: Counts, b: Counts) -> tuple[Counts, Counts]:
  """b in the order of a's problems. ValueError unless both hold the same problems."""
  only_a = sorted(set(a.problem_ids) - set(b.problem_ids))
  only_b = sorted(set(b.problem_ids) - set(a.problem_ids))
  if only_a or only_b:
    raise ValueError(
      f'the two models were sampled on different problems: {len(only_a)} only in the first '
      f'{only_a[:3]}, {len(only_b)} only in the second {only_b[:3]}; sample the missing ones or '
      'select the problems both have'
    )
  return a, b.select(a.problem_ids)
