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
  assert P * family.row('grpo').lost[0] == pytest.approx(20, abs=1)
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


def test_a_page_of_some_families_says_that_it_is_not_complete(planted, tmp_path):
  base, methods = planted
  family = leaderboard.score('toy', base, methods, RULES)
  labels = dict.fromkeys(methods, 'what it is')
  found = leaderboard_page.write(
    tmp_path, [family], RULES, title='T', labels=labels, seconds=60, provenance={},
    missing=['paths'], reports=False,
  )  # fmt: skip
  assert not found['complete']
  assert found['finding'].startswith('Not complete: paths is still to be measured. good beats')
  html = (tmp_path / 'leaderboard.html').read_text()
  assert 'Not complete: paths' in html
  assert 'report.html' not in html


def test_what_can_be_shown_is_said(planted):
  base, methods = planted
  family = leaderboard.score('toy', base, methods, RULES)
  bound, most = leaderboard.power(family, RULES)
  assert -RULES.margin < bound < 0
  everything = Counts(IDS, np.full(P, N), np.full(P, N))
  for lost, keeps in ((most - 1, True), (most, False)):
    c = np.where(np.arange(P) < lost, 0, N)
    own = [Trained(s, Counts(IDS, np.full(P, N), c), 1) for s in (1, 2, 3)]
    made = leaderboard.score('x', everything, {'grpo': own}, RULES)
    assert made.row('grpo').keeps == keeps
    assert P * made.row('grpo').lost[0] == pytest.approx(lost)
    assert made.row('grpo').gained[0] == 0


def test_who_wins_in_one_family_only_is_named(planted):
  base, methods = planted
  other = {**methods, 'good': methods['timid'], 'timid': methods['good']}
  families = [leaderboard.score(n, base, m, RULES) for n, m in (('a', methods), ('b', other))]
  said = leaderboard.sentence(families, RULES)
  assert said.startswith('None of the methods')
  assert 'in each of a and b. In a alone: good. In b alone: timid.' in said


def test_areas_are_paired_with_the_reference_and_the_base(planted):
  base, methods = planted
  family = leaderboard.score('toy', base, methods, RULES)
  good, grpo = family.row('good'), family.row('grpo')
  assert good.area_gain is not None
  assert good.area_gain[0] == pytest.approx(good.area[0] - grpo.area[0], abs=1e-12)
  assert good.area_change[0] == pytest.approx(good.area[0] - family.area[0], abs=1e-12)
  assert grpo.area_gain is None
  alone = seeds_difference(
    np.stack(
      [
        pass_at_k.estimate(a.counts.n, a.counts.c, pass_at_k.k_grid(256))
        - pass_at_k.estimate(b.counts.n, b.counts.c, pass_at_k.k_grid(256))
        for a, b in zip(methods['good'], methods['grpo'], strict=True)
      ]
    )
    @ leaderboard.area_weights(pass_at_k.k_grid(256))[:, None],
    resamples=400,
  )
  np.testing.assert_allclose(good.area_gain, alone.at(0), atol=1e-12)


def test_controls_are_in_the_table_and_not_in_the_figure(planted):
  base, methods = planted
  family = leaderboard.score('toy', base, methods, RULES)
  plot = leaderboard_page.plane(family, RULES, list(methods), ['greedy'])
  assert plot is not None
  assert 'Controls (greedy) are in the table' in plot.caption
  whole = leaderboard_page.plane(family, RULES, list(methods))
  assert whole is not None
  assert len(plot.svg) < len(whole.svg)


def test_a_training_that_ended_early_is_marked(planted):
  base, methods = planted
  rules = Rules(k=256, margin=0.02, resamples=400, tokens=1_002)
  family = leaderboard.score('toy', base, methods, rules)
  assert all(row.short for row in family.rows)  # seed 1 sampled 1,001
  cells = leaderboard_page._cells(family.row('good'), {'good': 'best'}, P)
  assert cells[-1] == 'best; ended before the budget of tokens'
  assert cells[1] == cells[2] == 'yes'
  assert leaderboard_page._cells(family.row('greedy'), {}, P)[2] == 'loses'
