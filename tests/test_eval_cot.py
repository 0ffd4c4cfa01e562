"""Validity of reasoning: planted truth is found, intervals hold, a judge alone is refused."""

import fractions
import itertools
import math

import numpy as np
import pytest

from rlvr_jax.eval import cot, pass_at_k
from rlvr_jax.eval.counts import Counts


def truth(n, valid, k):
  """1 - C(n - valid, k) / C(n, k) as an exact fraction."""
  return 1 - fractions.Fraction(math.comb(n - valid, k), math.comb(n, k))


@pytest.mark.parametrize(('n', 'c', 'good', 'm'), [(8, 5, 2, 3), (10, 6, 3, 6), (9, 4, 0, 2)])
def test_mean_over_all_readings_is_exact_up_to_m_and_bounds_hold_beyond(n, c, good, m):
  labels = [1.0] * good + [0.0] * (c - good)
  ks = list(range(1, n + 1))
  readings = list(itertools.combinations(labels, m))
  ends = np.array([cot.failure(n, c, reading, ks) for reading in readings])
  most, least = 1 - ends.mean(axis=0)
  exact = np.array([float(truth(n, good, k)) for k in ks])
  both = [i for i, k in enumerate(ks) if min(k, c) <= m]
  np.testing.assert_allclose(most[both], exact[both], atol=1e-12)
  np.testing.assert_allclose(least[both], exact[both], atol=1e-12)
  assert (most <= exact + 1e-12).all()
  assert (least >= exact - 1e-12).all()
  if len(both) < len(ks):  # then something is left open, and said to be
    assert (most < least).any()


def test_all_valid_gives_pass_at_k_itself():
  counts = Counts(('a', 'b', 'c'), np.full(3, 16), np.array([0, 3, 9]))
  strata = cot.choose(counts, per_stratum=5, seed=0)
  read = {p: cot.Read(p, 16, c, (1.0,) * min(c, 4)) for p, c in (('b', 3), ('c', 9))}
  ks = [1, 2, 8, 16]
  found = cot.estimate(strata, read, counts, ks)
  expected = pass_at_k.estimate(counts.n, counts.c, ks).mean(axis=0)
  np.testing.assert_allclose(found.value, expected, atol=1e-12)
  np.testing.assert_allclose(found.upper, expected, atol=1e-12)
  assert (found.low < found.value).all()
  assert (found.high > found.value).all()
  assert found.validity[0] == 1.0


def population(problems, n, rng):
  """Counts, and the correct samples' validity by problem: low c is guessed more often."""
  rates = np.where(rng.uniform(size=problems) < 0.3, 0.0, rng.beta(0.5, 1.5, problems))
  c = rng.binomial(n, rates)
  share = np.clip(0.25 + 0.7 * rates + rng.normal(0, 0.1, problems), 0, 1)
  labels = [rng.uniform(size=size) < p for size, p in zip(c, share, strict=True)]
  ids = tuple(f'p{i}' for i in range(problems))
  return Counts(ids, np.full(problems, n), c), dict(zip(ids, labels, strict=True)), rates, share


def reading(counts, labels, per_stratum, most, seed):
  strata = cot.choose(counts, per_stratum=per_stratum, seed=seed)
  rng = np.random.default_rng([seed, 5])
  read = {}
  for stratum in strata:
    for problem in stratum.picked if stratum.high else ():
      chosen = cot.choose_completions(range(len(labels[problem])), most, rng)
      values = tuple(float(labels[problem][one]) for one in chosen)
      read[problem] = cot.Read(problem, int(counts.n[0]), len(labels[problem]), values)
  return strata, read


def test_picking_is_seeded_and_spreads_over_strata():
  counts, *_ = population(300, 64, np.random.default_rng(0))
  strata = cot.choose(counts, per_stratum=7, seed=3)
  assert strata == cot.choose(counts, per_stratum=7, seed=3)
  assert strata != cot.choose(counts, per_stratum=7, seed=4)
  assert sum(len(stratum.problems) for stratum in strata) == 300
  assert all(len(s.picked) == min(7, len(s.problems)) for s in strata if s.high)
  assert strata[0].picked == strata[0].problems  # c = 0 needs no reading
  row = dict(zip(counts.problem_ids, counts.c, strict=True))
  for stratum in strata:
    assert all(stratum.low <= row[problem] <= stratum.high for problem in stratum.problems)


def test_planted_truth_is_found_without_bias_where_it_is_identified():
  """Over many picks of one population the mean estimate is its true cot_pass@k, for k <= m."""
  counts, labels, *_ = population(120, 32, np.random.default_rng(1))
  ks = [1, 4, 16]
  exact = [
    np.mean([float(truth(32, int(labels[p].sum()), k)) for p in counts.problem_ids]) for k in ks
  ]
  found = [cot.estimate(*reading(counts, labels, 8, 4, seed), counts, ks) for seed in range(150)]
  value, upper = (
    np.mean([getattr(one, side) for one in found], axis=0) for side in ('value', 'upper')
  )
  error = 4 * np.std([one.value for one in found], axis=0) / np.sqrt(len(found))
  assert (abs(value - exact)[:2] < error[:2]).all()
  assert value[2] < exact[2] + error[2]
  assert upper[2] > exact[2] - error[2]
  all_valid = pass_at_k.estimate(counts.n, counts.c, ks).mean(axis=0)
  assert (value < all_valid - 2 * error).all()  # it is not pass@k that is estimated


def test_the_interval_holds_over_populations_and_readings():
  """At least 93 of 100, of the population's own cot_pass@k, in the mean over k."""
  n, ks, inside = 32, [1, 8], []
  _, _, rates, share = population(40_000, n, np.random.default_rng(4))
  exact = [np.mean(1 - (1 - rates * share) ** k) for k in ks]
  for seed in range(120):
    rng = np.random.default_rng([9, seed])
    counts, labels, *_ = population(80, n, rng)
    found = cot.estimate(*reading(counts, labels, 10, 4, seed), counts, ks)
    inside.append(
      [low <= e <= high for low, e, high in zip(found.low, exact, found.high, strict=True)]
    )
  assert (np.mean(inside, axis=0) >= 0.93).all()


def test_kappa_is_cohens_and_none_where_chance_says_all():
  first = ['valid'] * 25 + ['invalid'] * 25
  second = ['valid'] * 20 + ['invalid'] * 5 + ['valid'] * 10 + ['invalid'] * 15
  value, low, high = cot.kappa(first, second)
  assert value == pytest.approx(0.4)  # (0.7 - 0.5) / 0.5
  assert low < 0.4 < high
  assert cot.kappa(first, first)[0] == pytest.approx(1.0)
  assert cot.kappa(['valid'] * 5, ['valid'] * 5) is None
  with pytest.raises(ValueError, match='5 and 0 labels'):
    cot.kappa(['valid'] * 5, [])


def test_a_judge_is_refused_without_readers_or_without_skill():
  judge = {str(i): 'valid' if i % 2 else 'invalid' for i in range(60)}
  with pytest.raises(ValueError, match='only when calibrated against readers'):
    cot.calibrate(judge, {})
  with pytest.raises(ValueError, match='0 that they call invalid'):
    cot.calibrate(judge, dict.fromkeys(map(str, range(20)), 'valid'))
  blind = {str(i): 'valid' if i // 2 % 2 else 'invalid' for i in range(60)}
  with pytest.raises(ValueError, match='better than chance'):
    cot.calibrate(judge, blind)
  found = cot.calibrate(judge, {**judge, '0': 'valid', '1': 'unsure'})
  assert (found.hits, found.valid, found.rejections, found.invalid) == (29, 30, 29, 29)


def test_a_calibrated_judge_is_corrected_to_the_truth():
  """A judge that passes 30% of invalid reasoning is far off, and is not once corrected."""
  counts, labels, *_ = population(200, 32, np.random.default_rng(2))
  ks, se, sp = [1, 2], 0.9, 0.7
  exact = [
    np.mean([float(truth(32, int(labels[p].sum()), k)) for p in counts.problem_ids]) for k in ks
  ]
  raw, fixed, inside = [], [], []
  for seed in range(16):
    rng = np.random.default_rng([seed, 77])
    strata, read = reading(counts, labels, 25, 4, seed)
    judged = {
      p: (one.n, one.c, [rng.uniform() < (se if v else 1 - sp) for v in one.valid])
      for p, one in read.items()
    }
    calibration = cot.Calibration(int(rng.binomial(80, se)), 80, int(rng.binomial(80, sp)), 80)
    wrong = {p: cot.Read(p, n, c, tuple(map(float, v))) for p, (n, c, v) in judged.items()}
    raw.append(cot.estimate(strata, wrong, counts, ks).value)
    found = cot.judged_estimate(strata, judged, counts, ks, calibration, seed=seed, draws=40)
    fixed.append(found.value)
    inside.append([a <= e <= b for a, e, b in zip(found.low, exact, found.high, strict=True)])
  error = 4 * np.std(fixed, axis=0) / np.sqrt(len(fixed))
  assert (abs(np.mean(fixed, axis=0) - exact) < error + 0.005).all()
  assert (abs(np.mean(raw, axis=0) - exact) > abs(np.mean(fixed, axis=0) - exact)).all()
  assert np.mean(inside) >= 0.9


def test_what_does_not_fit_is_named():
  counts = Counts(('a', 'b'), np.full(2, 8), np.array([2, 8]))
  strata = cot.choose(counts, per_stratum=2, seed=0)
  read = {'a': cot.Read('a', 8, 2, (1.0, 0.0)), 'b': cot.Read('b', 8, 8, (1.0,))}
  assert cot.estimate(strata, read, counts, [1]).value[0] == pytest.approx((1 / 8 + 1) / 2)
  with pytest.raises(ValueError, match='nothing was read of the 1 problems'):
    cot.estimate(strata, {'a': read['a']}, counts, [1])
  with pytest.raises(ValueError, match='pick again'):
    cot.estimate(strata, {**read, 'a': cot.Read('a', 8, 3, (1.0,))}, counts, [1])
  with pytest.raises(ValueError, match='between 1 and n=8'):
    cot.estimate(strata, read, counts, [9])
  with pytest.raises(ValueError, match='1 <= m <= c'):
    cot.failure(8, 1, (1.0, 1.0), [1])
