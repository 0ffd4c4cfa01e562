"""Replay, curricula, the start model's share, resets and budgets over several processes."""

import numpy as np
import pytest
from loops import TINY, model
from processes import Run

from rlvr_jax.metrics import read_metrics, repeatable

pytestmark = [pytest.mark.check, pytest.mark.timeout(1800)]

EVERYTHING = {
  **TINY,
  'job': 'train',
  'sampling.slots': 32,
  'train.algorithm': 'rloo',
  'train.offpolicy': 'seq_tis',
  'train.base_share': 0.25,
  'train.replay': 16,
  'train.replay_rate': 0.6,
  'train.curriculum': 'easy_to_hard',
  'train.kl_coef': 0.01,
  'train.reset_every': 2,
  'train.iterations': 9,
  'train.tokens': 1000,
  'train.eval_every': 0,
  'train.report': 0,
}


def test_two_processes_are_two_devices_to_the_bit(tmp_path):
  """The mesh is the same, and so is every sum; and the run has replayed something."""
  Run(tmp_path / 'base', 1, 1, **{**TINY, 'job': 'distill'}).check()
  changes = {**EVERYTHING, 'model.name': tmp_path / 'base' / 'model'}
  one = Run(tmp_path / 'one', 1, 2, **changes).check().workdir
  two = Run(tmp_path / 'two', 2, 1, **changes).check().workdir
  rows = [[repeatable(row) for row in read_metrics(x / 'metrics.jsonl')] for x in (one, two)]
  assert rows[0] == rows[1]
  assert sum(row['replay/joined'] for row in rows[0]) > 0
  assert rows[0][-1]['tokens/sampled'] >= 1000 > rows[0][-2]['tokens/sampled']
  mine, its = model(one), model(two)
  for name in mine:
    np.testing.assert_array_equal(mine[name], its[name], err_msg=name)
