"""The numbers that arXiv 2504.13837v2 printed, to stand beside ours on the same benchmark.

Source: Tables 2 and 3 (pass@1 and pass@256 of Qwen2.5-7B and what was trained from it with VeRL,
256 samples a problem), and the coverage tables and figures of that paper. All rows are single runs
and none has an interval. They are read as they stand: what a row says of base and RL is counted
here, not quoted.
"""

import dataclasses
from collections.abc import Sequence

SOURCE = 'arXiv 2504.13837v2'
BASE = 'Qwen2.5-7B'
ALGORITHMS = ('GRPO', 'PPO', 'ReMax', 'RLOO', 'REINFORCE++', 'DAPO')  # Table 2; GRPO is step 150
K = 256  # the larger k of the tables, and their samples a problem
# model -> (pass@1, pass@256) in percent, by benchmark
_COLUMNS = ('omni_train', 'omni_test', 'math500')
_ROWS = {
  BASE: ((9.9, 67.2), (10.2, 69.1), (34.5, 96.2)),
  'GRPO': ((26.1, 66.3), (25.1, 68.3), (74.4, 97.2)),
  'PPO': ((27.2, 65.8), (26.8, 69.2), (75.2, 97.2)),
  'ReMax': ((24.4, 65.5), (23.8, 67.5), (73.5, 96.6)),
  'RLOO': ((28.6, 66.4), (28.1, 69.2), (75.0, 97.4)),
  'REINFORCE++': ((28.2, 67.7), (28.0, 69.7), (75.4, 96.8)),
  'DAPO': ((31.4, 66.1), (26.5, 67.0), (75.6, 96.4)),
  'GRPO, step 300': ((33.6, 65.3), (27.1, 66.6), (75.4, 96.0)),
  'GRPO, step 450': ((42.5, 64.3), (28.3, 63.9), (76.3, 95.4)),
}
_NAMES = {
  'omni_train': 'Omni-MATH-Rule, 2000 training problems',
  'omni_test': 'Omni-MATH-Rule, 821 test problems',
  'math500': 'MATH500',
}
_PROBLEMS = {'omni_train': 2000, 'omni_test': 821, 'math500': 500}
# simulated: sampling noise alone of a difference at k = 256, 821 problems, n = 256 (points)
NOISE = 1.0


@dataclasses.dataclass(frozen=True)
class Reference:
  """Printed values of one benchmark. rows: model -> (pass@1, pass@256), shares, not percent."""

  benchmark: str
  rows: dict[str, tuple[float, float]]
  notes: tuple[str, ...]

  def at_or_above_base(self) -> int:
    """In how many of the six algorithms' rows pass@256 is at or above the base's."""
    return sum(self.rows[name][1] >= self.rows[BASE][1] for name in ALGORITHMS)

  def reading(self) -> str:
    """What the rows say, in a sentence made from them."""
    falls = [self.rows[name][1] for name in ('GRPO', 'GRPO, step 300', 'GRPO, step 450')]
    later = (
      f' Along one GRPO run pass@{K} falls from {_percent(falls[0])} (step 150) to '
      f'{_percent(falls[2])} (step 450).'
      if falls[2] < falls[0]
      else ''
    )
    return (
      f'At k = {K} the trained model is at or above the base in {self.at_or_above_base()} of '
      f'{len(ALGORITHMS)} rows.{later} Every row is one run without an interval; simulated, '
      f'sampling alone moves such a difference by about {NOISE:.0f} point (821 problems, '
      f'n = {K}), so differences between algorithms at k = {K} are within noise.'
    )


@dataclasses.dataclass(frozen=True)
class Sets:
  """Printed coverage of a benchmark: shares of problems only one side solved, and which.

  base, rl: indices (from 0, in the benchmark's order) that had a correct sample, where printed.
  """

  benchmark: str
  base_only: float
  rl_only: float
  base: tuple[int, ...] = ()
  rl: tuple[int, ...] = ()


COVERAGE = {
  'aime24': Sets(
    'AIME24',
    0.133,
    0.0,
    (0, 1, 4, 6, 7, 8, 9, 11, 12, *range(14, 20), *range(22, 30)),
    (0, 1, 6, 7, 8, 9, 12, 14, 15, 16, 18, *range(22, 30)),
  ),
  'math500': Sets('MATH500', 0.036, 0.010),
}


def reference(task: str, problem_ids: Sequence[str]) -> Reference | None:
  """The printed rows for a task of ours: None unless it is that very benchmark, whole.

  task is a benchmark's name as configs and stores have it. Another split of the same problems is
  said to be one.
  """
  column = _column(task, problem_ids)
  if column is None or len(problem_ids) != _PROBLEMS[column]:
    return None
  place = _COLUMNS.index(column)
  rows = {name: (a / 100, b / 100) for name, values in _ROWS.items() for a, b in [values[place]]}
  notes = ()
  if column != 'math500':
    notes = (
      'Which problems the paper split off for testing is not published: ours is another draw of '
      'the same sizes.',
    )
  return Reference(_NAMES[column], rows, notes)


def _column(task: str, problem_ids: Sequence[str]) -> str | None:
  if task == 'math500':
    return 'math500'
  if task != 'omni_math_rule':
    return None
  training = sum(problem.startswith('train') for problem in problem_ids)  # ids name their split
  return {0: 'omni_test', len(problem_ids): 'omni_train'}.get(training)


def printed_sets(task: str, problem_ids: Sequence[str]) -> Sets | None:
  """The printed coverage of a task of ours, if it is that very benchmark, whole."""
  sizes = {'aime24': 30, 'math500': 500}
  return COVERAGE[task] if sizes.get(task) == len(problem_ids) else None


def _percent(share: float) -> str:
  return f'{100 * share:.1f}%'
