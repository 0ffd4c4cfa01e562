"""The leaderboard's statistics: oracles, planted effects, and the page that shows them."""

import json

import numpy as np
import pytest
from scipy import stats

from rlvr_jax.eval import leaderboard, leaderboard_page, pass_at_k
from rlvr_jax.eval.algorithms import seeds_difference
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.intervals import difference_interval
from rlvr_jax.eval.leaderboard import Rules, Trained

N, P = 256, 300
RULES = Rules(k=256, margin=0.02, resamples=400)
IDS = tuple(f'p{i}' for i in range(P))


def drawn(rates, seed):
  return Counts(IDS, np.full(P, N), np.random.default_rng(seed).binomial(N, rates))


def seeds_of(rates, start, tokens=1000):
  return [Trained(s, drawn(rates, start + s), tokens + s) for s in (1, 2, 3)]


@pytest.fixture(scope='module')
def planted():
  """A base that solves everything; 'sharp' loses 20 problems, 'good' raises all, 'same' nothing."""
  base = np.random.default_rng(0).uniform(0.05, 0.15, P)
  sharp = np.where(np.arange(P) < 20, 0.0, 3 * base)
  return drawn(base, 99), {
    'grpo': seeds_of(sharp, 10),
    'good': seeds_of(4 * base, 20),
    'timid': seeds_of(1.2 * base, 30),
    'greedy': seeds_of(1.5 * sharp, 40),
  }


def test_a_difference_over_seeds_is_the_problems_interval_widened_by_t():
  rng = np.random.default_rng(3)
  d = np.clip(rng.normal(0.1, 0.3, (4, 60, 2)) + rng.normal(0, 0.1, (4, 1, 2)), -1, 1)
  band, alone = seeds_difference(d, resamples=300), difference_interval(d.mean(0), resamples=300)
  means = d.mean(axis=1)
  half = stats.t.ppf(0.975, 3) * means.std(axis=0, ddof=1) / 2
  np.testing.assert_allclose(band.value, d.mean(axis=(0, 1)))
  np.testing.assert_allclose(band.low, band.value - np.hypot(band.value - alone.low, half))
  np.testing.assert_allclose(band.high, band.value + np.hypot(alone.high - band.value, half))
  one = seeds_difference(d[:1], resamples=300)
  np.testing.assert_array_equal(one.low, difference_interval(d[0], resamples=300).low)


def test_area_weights_integrate_over_log_k():
  ks = pass_at_k.k_grid(1024)
  weights = leaderboard.area_weights(ks)
  assert weights.sum() == pytest.approx(1)
  assert weights @ np.log2(ks) == pytest.approx(5)  # the mean of a line is its middle
  fine = np.unique(np.round(np.geomspace(1, 1024, 400)).astype(int))
  curve = lambda k: 1 - 0.9 ** np.asarray(k, float)  # noqa: E731
  exact = np.trapezoid(curve(fine), np.log(fine)) / np.log(1024)
  assert weights @ curve(ks) == pytest.approx(exact, abs=2e-3)


def test_planted_methods_are_told_apart(planted):
  base, methods = planted
  family = leaderboard.score('toy', base, methods, RULES)
  assert family.discriminates
  told = {row.method: (row.beats, row.keeps) for row in family.rows}
  assert told == {
    'grpo': (False, False), 'good': (True, True), 'timid': (False, True), 'greedy': (True, False)
  }  # fmt: skip
  assert family.row('grpo').gain is None
  assert family.row('grpo').lost == pytest.approx(20, abs=1)
  assert family.row('good').tokens == pytest.approx(1002)
  assert family.rows[0].method == 'good'
  lines = leaderboard.standings([family], RULES)
  assert [one.method for one in lines if one.wins] == ['good']
  assert lines[0].method == 'good'
  said = leaderboard.sentence([family], RULES)
  assert said.startswith('good beats grpo at pass@1')
  assert 'cannot' not in said


def test_the_order_of_problems_does_not_matter(planted):
  base, methods = planted
  order = np.random.default_rng(1).permutation(P)
  moved = {
    name: [Trained(one.seed, one.counts.select([IDS[i] for i in order]), one.tokens) for one in own]
    for name, own in methods.items()
  }
  assert leaderboard.score('toy', base, methods, RULES) == leaderboard.score(
    'toy', base, moved, RULES
  )


def test_where_the_reference_loses_nothing_nothing_is_said(planted):
  base, methods = planted
  harmless = {'grpo': methods['timid'], 'good': methods['good']}
  family = leaderboard.score('mild', base, harmless, RULES)
  assert not family.discriminates
  assert leaderboard.standings([family], RULES) == []
  said = leaderboard.sentence([family], RULES)
  assert 'mild cannot discriminate' in said
  assert 'Nothing can be said' in said
  lost = {'grpo': methods['grpo'], 'good': methods['timid']}
  both = [family, leaderboard.score('toy', base, lost, RULES)]
  said = leaderboard.sentence(both, RULES)
  assert said.startswith('None of the methods')
  assert 'mild cannot discriminate' in said


def test_bounds_are_one_sided_and_the_margin_decides(planted):
  base, methods = planted
  row = leaderboard.score('toy', base, methods, RULES).row('grpo')
  assert row.change[1] < row.bound < row.change[0]
  wide = Rules(k=256, margin=-row.bound + 1e-6, resamples=400)
  assert leaderboard.score('toy', base, methods, wide).row('grpo').keeps
  tight = Rules(k=256, margin=-row.bound - 1e-6, resamples=400)
  assert not leaderboard.score('toy', base, methods, tight).row('grpo').keeps


def test_what_cannot_be_compared_is_refused(planted):
  base, methods = planted
  with pytest.raises(ValueError, match=r"benchmark.methods has no 'grpo'"):
    leaderboard.score('toy', base, {'good': methods['good']}, RULES)
  with pytest.raises(ValueError, match=r'good has the seeds \[1, 2\], grpo \[1, 2, 3\]'):
    leaderboard.score('toy', base, {**methods, 'good': methods['good'][:2]}, RULES)
  with pytest.raises(ValueError, match=r'benchmark.k=512 is above the 256 samples'):
    leaderboard.score('toy', base, methods, Rules(k=512, margin=0.02))


def test_the_page_has_every_number(planted, tmp_path):
  base, methods = planted
  family = leaderboard.score('toy', base, methods, RULES)
  labels = dict.fromkeys(methods, 'what it is')
  found = leaderboard_page.write(
    tmp_path, [family], RULES, title='T', labels=labels, seconds=7200, provenance={}
  )
  html = (tmp_path / 'leaderboard.html').read_text()
  assert json.loads((tmp_path / 'results.json').read_text()) == json.loads(json.dumps(found))
  assert {row['method'] for row in found['methods']} == set(methods)
  for text in ('good beats grpo', 'one-sided bound', '2.0 h in all', 'toy/report.html'):
    assert text in html
