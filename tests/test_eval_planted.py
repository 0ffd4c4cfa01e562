"""Effects put into simulated samples come out again, and what was not put in does not."""

import numpy as np
import pytest

from rlvr_jax.eval import claims, compare, crossover, pass_at_k, results, support
from rlvr_jax.eval.claim_settings import Settings
from rlvr_jax.eval.counts import Counts

N = 1024


def counts(p, rng, n=N):
  return Counts(tuple(f'p{i:04d}' for i in range(len(p))), np.full(len(p), n), rng.binomial(n, p))


def study(base, rl):
  models = [
    results.ModelResult('base', 'base', base),
    results.ModelResult('rl', 'rl', rl, algorithm='grpo', seed=0, step=10),
  ]
  given = claims.Inputs(settings=Settings(k=256))
  return results.analyse(models, headline_k=256, resamples=400, claims=given)


def test_a_known_crossover_is_found():
  rng = np.random.default_rng(0)
  base = rng.beta(0.6, 8.0, 400)
  rl = np.where(rng.uniform(size=400) < 0.35, 0.0, np.minimum(1.0, 5 * base))
  ks = np.arange(1, N + 1)
  gap = pass_at_k.exact(rl, ks).mean(0) - pass_at_k.exact(base, ks).mean(0)
  truth = crossover.crossing_points(gap)[0]
  assert 2 < truth < 256
  found = study(counts(base, rng), counts(rl, rng))
  cross = found.comparison.crossover
  assert cross.low <= truth <= cross.high
  assert cross.value == pytest.approx(truth, rel=0.2)
  assert cross.share_no_crossing == 0
  verdicts = {row['key']: row['verdict'] for row in claims.ledger(found, found.claims)}
  assert verdicts['C1'] == 'supported'


def test_a_known_lost_set_is_found():
  rng = np.random.default_rng(1)
  base = rng.uniform(0.02, 0.6, 200)
  rl = np.minimum(1.0, 1.5 * base)
  lost = rng.choice(200, 30, replace=False)
  rl[lost] = 0.0
  a, b = counts(base, rng), counts(rl, rng)
  one = support.support(a, b, (1,), resamples=400)[0]
  assert one.sizes == {'both': 170, 'base_only': 30, 'rl_only': 0, 'neither': 0}
  sets = compare.compare_counts(a, b, resamples=100)
  assert sets.sets[0].base_only == tuple(f'p{i:04d}' for i in sorted(lost))
  assert sets.tests is not None
  assert sets.tests.worse[lost].all()
  assert one.net[2] < 0 < one.retention[1]
  assert one.retention_unchanged == pytest.approx(1.0, abs=0.01)


def test_nothing_is_found_where_nothing_is():
  """Base against itself: no claim of sharpening or shrinking, differences excluded as promised."""
  rng = np.random.default_rng(2)
  excluded, named, runs = 0, 0, 120
  for run in range(runs):
    p = rng.beta(0.5, 3.0, 100)
    a, b = counts(p, rng), counts(p, rng)
    found = compare.compare_counts(a, b, ks=(1, 256), headline_k=256, resamples=200)
    band = found.difference
    excluded += int(((band.low > 0) | (band.high < 0)).sum())
    assert found.tests is not None
    named += bool((found.tests.better | found.tests.worse).any())
    if run < 10:
      made = study(a, b)
      rows = claims.ledger(made, made.claims)
      assert all(row['verdict'] != 'supported' for row in rows)
  # with nothing to discover, false discoveries held at 5% are made in at most 5% of studies
  assert named / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
  assert excluded / (2 * runs) <= 0.09  # 5% promised; 0.04 is 2.8 SDs of a share of 240
