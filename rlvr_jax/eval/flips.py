"""Two verifiers on the same completions: which verdicts differ, and which problems it decides."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax.eval import coverage, pass_at_k
from rlvr_jax.eval.counts import Counts, align
from rlvr_jax.eval.intervals import difference_interval, mean_interval
from rlvr_jax.tasks.problem import Verdict

_SHOWN = 400  # characters of a completion's end in an example


@dataclasses.dataclass(frozen=True)
class UnderTwo:
  """pass@k of the same samples under two verifiers, and which problems only one calls solved.

  ks: i64[K]. before, after: f64[K, 3], pass@k with the ends of its interval. difference: f64[K, 3],
  after minus before, paired. sets: problem ids; base is before, rl is after.
  """

  ks: np.ndarray
  before: np.ndarray
  after: np.ndarray
  difference: np.ndarray
  sets: coverage.CoverageSets

  def table(self) -> list[dict[str, Any]]:
    """A row a k, ready for JSON."""
    return [
      {'k': int(k), 'before': b.tolist(), 'after': a.tolist(), 'difference': d.tolist()}
      for k, b, a, d in zip(self.ks, self.before, self.after, self.difference, strict=True)
    ]


def under_two(
  before: Counts, after: Counts, *, ks: Sequence[int] | None = None, level: float = 0.95
) -> UnderTwo:
  """Compares two verifiers' counts of one set of samples; ks defaults to a log grid.

  ValueError if they are not of the same problems.
  """
  before, after = align(before, after)
  most = min(before.smallest_n, after.smallest_n)
  grid = pass_at_k.k_grid(most) if ks is None else pass_at_k.check_ks(ks, most)
  grid = np.asarray(grid, np.int64)
  values = [pass_at_k.estimate(counts.n, counts.c, grid) for counts in (before, after)]
  bands = [mean_interval(value, level=level) for value in values]
  bands.append(difference_interval(values[1] - values[0], level=level))
  first, second, third = (np.stack([b.value, b.low, b.high], axis=1) for b in bands)
  sets = coverage.split(before.problem_ids, before.c > 0, after.c > 0, 1)
  return UnderTwo(grid, first, second, third, sets)


class Tally:
  """What a stream of verdicts adds up to, beside the verdicts there were before."""

  def __init__(self, examples: int):
    self.verdicts: collections.Counter[str] = collections.Counter()
    self.before: collections.Counter[str] = collections.Counter()
    self.kinds: collections.Counter[tuple[str, str]] = collections.Counter()
    self.flipped: list[str] = []
    self.rows = self.completions = 0
    self._most = examples
    self._examples: dict[tuple[str, str], list[dict[str, Any]]] = {}
    # problem -> [counted, correct] by now, and before of those that had a verdict
    self._now: dict[str, list[int]] = {}
    self._then: dict[str, list[int]] = {}

  def add(
    self,
    name: str,
    before: str | None,
    new: Verdict,
    shown: Mapping[str, Any],
    *,
    problem: str | None,
  ) -> None:
    """One completion: its own name, the verdict it had and the one it got.

    shown: what an example of a flip says beside that. problem: whose pass@k counts it, if any.
    """
    self.completions += 1
    self.verdicts[new.verdict] += 1
    if problem is not None:
      _count(self._now, problem, new.verdict)
    if before is None:
      return
    self.before[before] += 1
    if problem is not None:
      _count(self._then, problem, before)
    if before == new.verdict:
      return
    kind = before, new.verdict
    self.kinds[kind] += 1
    self.flipped.append(name)
    examples = self._examples.setdefault(kind, [])
    if len(examples) < self._most:
      prediction = str(shown.get('prediction', ''))[-_SHOWN:]
      fresh = {'extracted': new.extracted, 'reason': new.reason}
      examples.append({'id': name, **shown, 'prediction': prediction, **fresh})

  def counts(self) -> tuple[Counts | None, Counts | None]:
    """(before, now) of the problems that have a counted verdict; None where there is none."""
    return _counts(self._then), _counts(self._now)

  def summary(self) -> dict[str, Any]:
    """All of it as JSON values."""
    then, now = self.counts()
    found: dict[str, Any] = {
      'rows': self.rows,
      'completions': self.completions,
      'problems': len(self._now),
      'verdicts': dict(self.verdicts.most_common()),
    }
    if now is not None:
      found['now'] = _share(now)
    if then is None:
      return found
    found['verdicts_before'] = dict(self.before.most_common())
    found['before'] = _share(then)
    found['flips'] = [
      {'from': a, 'to': b, 'count': count, 'examples': self._examples[a, b]}
      for (a, b), count in self.kinds.most_common()
    ]
    if now is not None and set(then.problem_ids) <= set(now.problem_ids):
      both = under_two(then, now.select(then.problem_ids))
      found['pass_at_k'] = both.table()
      found['solved'] = {
        'by_both': len(both.sets.both),
        'only_before': list(both.sets.base_only),
        'only_now': list(both.sets.rl_only),
        'by_neither': len(both.sets.neither),
      }
    return found | {'flipped': self.flipped}


def _count(where: dict[str, list[int]], problem: str, verdict: str) -> None:
  n, c = where.get(problem, (0, 0))
  # errors do not count: nobody judged
  where[problem] = [n + (verdict != 'error'), c + (verdict == 'correct')]


def _counts(found: Mapping[str, Sequence[int]]) -> Counts | None:
  kept = {problem: nc for problem, nc in found.items() if nc[0]}
  if not kept:
    return None
  n, c = zip(*kept.values(), strict=True)
  return Counts(tuple(kept), np.array(n), np.array(c))


def _share(counts: Counts) -> dict[str, Any]:
  """pass@1 and coverage with their intervals."""
  shares = {}
  for name, values in (('pass_at_1', counts.rates), ('coverage', counts.c > 0)):
    band = mean_interval(np.asarray(values, np.float64))
    shares[name] = list(band.at(0))
  return shares


def read_scored(path: str | pathlib.Path, *, samples: int | None = None) -> tuple[Counts, Counts]:
  """(before, after) of a file that job=score wrote from a store, for under_two.

  samples leaves out those from that index on (an early-stopped store counts its `first`).
  ValueError if the rows had no verdict before.
  """
  then: dict[str, list[int]] = {}
  now: dict[str, list[int]] = {}
  with open(path, encoding='utf-8') as file:
    for number, line in enumerate(file, 1):
      row = json.loads(line)
      if 'old_verdict' not in row or 'problem_id' not in row:
        raise ValueError(f'{path}:{number}: not a row of a store that job=score has judged anew')
      if samples is None or row['sample'] < samples:
        _count(then, row['problem_id'], row['old_verdict'])
        _count(now, row['problem_id'], row['verdict'])
  before, after = _counts(then), _counts(now)
  if before is None or after is None:
    raise ValueError(f'{path}: no verdict in it counts')
  return before, after


def lines(summary: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
  """(what, before, now) for the screen."""
  names = dict.fromkeys([*summary.get('verdicts_before', {}), *summary['verdicts']])
  before = summary.get('verdicts_before')
  for name in names:
    old = '' if before is None else str(before.get(name, 0))
    yield name, old, str(summary['verdicts'].get(name, 0))
  for key, title in (('pass_at_1', 'pass@1'), ('coverage', 'problems with a correct one')):
    before_it, now = (_shown(summary.get(when, {}).get(key)) for when in ('before', 'now'))
    yield title, before_it, now


def _shown(value: Sequence[float] | None) -> str:
  return '' if value is None else '{:.1%} [{:.1%}, {:.1%}]'.format(*value)
