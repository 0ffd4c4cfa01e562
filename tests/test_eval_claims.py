"""Each claim is supported, contradicted or undecided where a study is planted so."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from configs import base as base_config
from rlvr_jax import config as config_lib
from rlvr_jax.eval import claim_rules, claims, claims_shown, results
from rlvr_jax.eval.claim_settings import Settings, register, settings_of
from rlvr_jax.eval.counts import Counts

N, K = 256, 64


def counts(c, n=N):
  c = np.asarray(c, np.int64)
  return Counts(tuple(f'p{i:04d}' for i in range(len(c))), np.full(len(c), n), c)


def model(name, c, role='rl', **more):
  if role == 'rl':
    more = {'algorithm': 'grpo', 'seed': 1, 'step': 100} | more
  return results.ModelResult(name, role, counts(c), **more)


def study(*models, headline=('base', 'rl'), **inputs):
  inputs = {'settings': Settings(k=K)} | inputs
  return results.analyse(
    models, headline=headline, headline_k=K, ks=(1, 4, 16, K), resamples=200, pairs=[],
    claims=claims.Inputs(**inputs),
  )  # fmt: skip


def row(key, found):
  rows = claims.ledger(found, found.claims)
  assert [r['key'] for r in rows] == ['C1', 'C2', 'C3', 'C4', 'C5']
  one = next(r for r in rows if r['key'] == key)
  assert one['verdict'] in ('supported', 'contradicted', 'undecided')
  assert bool(one['needed']) == (one['verdict'] == 'undecided')
  json.dumps(one, allow_nan=False)
  return one


# 400 problems that the base solves now and then; RL takes 300 up and never solves the rest again
BASE = np.full(400, 8)
SHARPENED = np.array([200] * 300 + [0] * 100)
BETTER = np.full(400, 200)
HALFWAY = np.array([100] * 350 + [0] * 50)


def test_every_study_has_five_rows_and_says_what_it_lacks():
  alone = study(model('base', BASE, 'base'), headline=('base',))
  rows = claims.ledger(alone, alone.claims)
  assert len(rows) == 5
  assert {r['verdict'] for r in rows} == {'undecided'}
  assert all(r['needed'] for r in rows)
  document = results.build_results(
    study(model('base', BASE, 'base'), model('rl', SHARPENED)), wall_seconds=1.0
  )
  assert [r['key'] for r in document['claims']] == ['C1', 'C2', 'C3', 'C4', 'C5']
  assert document['claims_registered']['hash'] == Settings(k=K).hash
  shown = claims_shown.shown(document)
  assert [claim.verdict for claim in shown] == [r['verdict'] for r in document['claims']]
  assert shown[0].verdict == 'supported'
  assert Settings(k=K).hash in claims_shown.registered(document)


def test_sharpening():
  base = model('base', BASE, 'base')
  found = row('C1', study(base, model('rl', SHARPENED)))
  assert found['verdict'] == 'supported'
  assert found['numbers']['difference_1'][0] > 0.5
  assert found['high'] < -0.01
  assert '3 training seeds' in found['note']
  # better everywhere: at k_max nothing is lost, and the interval says so
  assert row('C1', study(base, model('rl', BETTER)))['verdict'] == 'contradicted'
  # worse at one try contradicts too
  assert row('C1', study(base, model('rl', BASE // 4)))['verdict'] == 'contradicted'
  # twelve problems decide nothing, and the row says how many would
  few = row('C1', study(model('base', BASE[:12], 'base'), model('rl', [200] * 10 + [0, 0])))
  assert few['verdict'] == 'undecided'
  assert 'problems (80% power' in few['needed']


def test_a_margin_decides():
  base, rl = model('base', BASE, 'base'), model('rl', SHARPENED)
  assert (
    row('C1', study(base, rl, settings=Settings(k=K, sharpen=0.5)))['verdict'] == 'contradicted'
  )
  assert row('C1', study(base, rl, settings=Settings(k=K, sharpen=0.15)))['verdict'] == 'undecided'


def test_shrinking():
  base, rl = model('base', BASE, 'base'), model('rl', SHARPENED)
  without = row('C2', study(base, rl))
  assert without['verdict'] == 'undecided'
  assert 'points of the run' in without['needed']
  assert (without['numbers']['base_only'], without['numbers']['rl_only']) == (100, 0)
  half = model('half', HALFWAY, step=50)
  found = row('C2', study(base, half, rl))
  assert found['verdict'] == 'supported'
  assert found['numbers']['steps'] == [0, 50, 100]
  assert found['numbers']['slope_over_run'][2] < 0
  # no problem is lost and some are found
  weak = model('base', np.array([8] * 300 + [0] * 100), 'base')
  gained = row('C2', study(weak, model('half', HALFWAY, step=50), model('rl', BETTER)))
  assert gained['verdict'] == 'contradicted'
  # a loss at the end that is no trend over the run: given points may say so
  points = {0: counts(SHARPENED), 50: counts(HALFWAY), 100: counts(BETTER)}
  assert row('C2', study(base, rl, checkpoints=points))['verdict'] == 'contradicted'
  uneven = dataclasses.replace(rl, counts=counts(SHARPENED, 2 * N))
  assert 'top up' in row('C2', study(base, uneven))['needed']


def reach(drawable, rank=np.nan, *, truncates=True, problems=200):
  """Five completions of each of many problems, a share of them drawable."""
  ids = [f'p{i // 5:04d}' for i in range(5 * problems)]
  flags = np.arange(5 * problems) % 100 < 100 * drawable
  return claims.Reach(ids, flags, np.full(5 * problems, rank), truncates)


def test_paths():
  base, rl = model('base', BASE, 'base'), model('rl', SHARPENED)
  assert 'job=perplexity' in row('C3', study(base, rl))['needed']
  assert row('C3', study(base, rl, reach=reach(0.99)))['verdict'] == 'supported'
  assert row('C3', study(base, rl, reach=reach(0.4)))['verdict'] == 'contradicted'
  near = study(base, rl, reach=reach(0.9, problems=20))
  assert row('C3', near)['verdict'] == 'undecided'
  # drawable, but RL solves what the base never did
  blind = model('base', np.array([8] * 100 + [0] * 300), 'base')
  assert row('C3', study(blind, rl, reach=reach(1.0)))['verdict'] == 'contradicted'


def test_drawable_by_construction_is_no_evidence():
  base, rl = model('base', BASE, 'base'), model('rl', SHARPENED)
  vacuous = row('C3', study(base, rl, reach=reach(1.0, truncates=False)))
  assert vacuous['verdict'] == 'undecided'
  assert 'like length' in vacuous['needed']
  assert 'by construction' in vacuous['result']
  ranked = study(base, rl, reach=reach(1.0, 0.5, truncates=False))
  assert row('C3', ranked)['verdict'] == 'supported'
  odd = study(base, rl, reach=reach(1.0, 0.0, truncates=False))
  assert row('C3', odd)['verdict'] == 'contradicted'


def test_reach_is_read_from_its_file(tmp_path):
  rows = {
    'model': ['base', 'base', 'rl'], 'author': ['rl', 'rl', 'rl'],
    'problem_id': ['a', 'b', 'c'], 'drawable': [True, False, True], 'own_rank': [0.5, None, 1.0],
  }  # fmt: skip
  pq.write_table(pa.table(rows), tmp_path / 'reach.parquet')
  found = claims.read_reach(tmp_path / 'reach.parquet', 'base', 'rl', truncates=True)
  assert list(found.problem_ids) == ['a', 'b']
  assert found.drawable.tolist() == [True, False]
  assert np.isnan(found.own_rank[1])
  assert claims.read_reach(tmp_path / 'reach.parquet', 'x', 'rl', truncates=True) is None


def test_distillation():
  base, rl = model('base', np.full(400, 1), 'base'), model('rl', SHARPENED)
  assert 'distilled' in row('C4', study(base, rl))['needed']
  student = model('student', np.full(400, 200), 'distilled')
  found = row('C4', study(base, rl, student))
  assert found['verdict'] == 'supported'
  assert found['low'] > 0
  worse = model('student', SHARPENED, 'distilled')
  strong = model('base', BASE, 'base')
  lost = row('C4', study(strong, rl, worse))
  assert lost['verdict'] == 'contradicted'
  assert lost['numbers']['student']['at_k'] == K
  # both solve everything at k_max: nothing is shown there
  even = model('student', np.full(400, 256), 'distilled')
  assert (
    row('C4', study(model('base', np.full(400, 200), 'base'), rl, even))['verdict'] == 'undecided'
  )
  assert row('C4', study(strong, rl, distilled=('rl',)))['verdict'] == 'contradicted'


def arms(means, spread):
  """Three seeds of each algorithm: correct samples of 256 at every problem."""
  made = []
  for a, mean in enumerate(means):
    for s, shift in enumerate((-spread, 0, spread)):
      c = np.full(400, mean + shift)
      made.append(model(f'a{a}-{s}', c, algorithm=f'a{a}', seed=s))
  return made


def test_algorithms():
  base = model('base', BASE, 'base')
  many = study(base, *arms([100] * 10, 10), headline=('base', 'a0-0'))
  found = row('C5', many)
  assert found['verdict'] == 'supported'
  assert found['numbers']['between_sd'] == 0
  assert found['numbers']['gaps']['a0'][1] > 0.1
  apart = study(base, *arms([40, 80, 120, 160], 2), headline=('base', 'a0-0'))
  assert row('C5', apart)['verdict'] == 'contradicted'
  assert (
    row('C5', study(base, *arms([98, 102], 6), headline=('base', 'a0-0')))['verdict'] == 'undecided'
  )
  # alike, but no gap is left
  full = study(base, *arms([245] * 10, 3), headline=('base', 'a0-0'))
  assert row('C5', full)['verdict'] == 'contradicted'


def test_one_seed_or_an_unclear_one_says_nothing_of_algorithms():
  base = model('base', BASE, 'base')
  one = row('C5', study(base, model('rl', SHARPENED)))
  assert one['verdict'] == 'undecided'
  assert '3 training seeds' in one['needed']
  twice = row('C5', study(base, model('rl', SHARPENED), model('rl_slow', HALFWAY)))
  assert 'grpo: several models share algorithm and seed' in twice['needed']
  named = study(
    base, *arms([100] * 10, 10), model('rl', SHARPENED, algorithm='a0', seed=0),
    algorithms={f'a{i}': [f'a{i}-{s}' for s in range(3)] for i in range(10)},
  )  # fmt: skip
  assert row('C5', named)['verdict'] == 'supported'


def test_three_seeds_widen_the_interval_over_problems():
  base = model('base', BASE, 'base')
  one = row('C1', study(base, model('rl', SHARPENED)))
  seeds = [
    model(name, np.where(SHARPENED > 0, SHARPENED + shift, 0), seed=s)
    for s, (name, shift) in enumerate([('rl', 0), ('rl-2', 20), ('rl-3', -20)])
  ]
  three = row('C1', study(base, *seeds))
  assert three['numbers']['seeds'] == 3
  assert 'over 3 training seeds' in three['note']
  first, more = one['numbers']['difference_1'], three['numbers']['difference_1']
  assert more[2] - more[1] > first[2] - first[1]


def test_samples_of_other_settings_do_not_count():
  settings = {'temperature': 1.0, 'verifier': 'paper:3'}
  base = dataclasses.replace(model('base', BASE, 'base'), settings=settings)
  rl = dataclasses.replace(model('rl', SHARPENED), settings=settings)
  for wanted, text in [
    (Settings(k=K, temperature=0.6), 'temperature 0.6'),
    (Settings(k=K, verifier='math'), 'verdicts of math'),
    (Settings(k=2 * N), '512 samples a problem'),
  ]:
    found = row('C1', study(base, rl, settings=wanted))
    assert found['verdict'] == 'undecided'
    assert text in found['needed']
  right = Settings(k=K, temperature=1.0, verifier='paper')
  assert row('C1', study(base, rl, settings=right))['verdict'] == 'supported'


def test_variance_ratio_is_that_of_the_textbook():
  groups = [np.array([0.1, 0.14, 0.12]), np.array([0.2, 0.22, 0.18]), np.array([0.15, 0.1, 0.2])]
  (value, low, high), parts = claim_rules.variance_ratio(groups)
  f, p = stats.f_oneway(*groups)
  assert (parts['f'], parts['p']) == pytest.approx((f, p))
  assert value == pytest.approx((f - 1) / 3)
  assert low < value < high
  with pytest.raises(ValueError, match='no independent runs'):
    claim_rules.variance_ratio([np.ones(3), np.ones(3)])


def test_variance_ratio_covers():
  rng = np.random.default_rng(0)
  held = 0
  for _ in range(600):
    means = rng.normal(0, 1.0, 6)
    groups = [m + rng.normal(0, 1.0, 3) for m in means]
    (_, low, high), _ = claim_rules.variance_ratio(groups)
    held += low <= 1.0 <= high
  assert held / 600 >= 0.93


def test_slope_is_the_least_squares_line():
  rng = np.random.default_rng(1)
  points = {s: counts(rng.integers(0, N, 50)) for s in (0, 10, 40)}
  value, low, high = claim_rules.slope(points, 1, level=0.95, resamples=300)
  means = [points[s].rates.mean() for s in (0, 10, 40)]
  assert value == pytest.approx(40 * np.polyfit([0, 10, 40], means, 1)[0])
  assert low < value < high


def test_settings_are_written_once_before_sampling(tmp_path):
  first = register(tmp_path, Settings(k=64))
  assert (first.before_sampling, first.changed, first.note) == (True, (), '')
  assert json.loads((tmp_path / 'claims.json').read_text())['hash'] == Settings(k=64).hash
  # while nothing is sampled one may still think again
  again = register(tmp_path, Settings(k=32))
  assert again.changed == ()
  shard = tmp_path / 'samples' / 'base' / 'sums' / 'part-00000.parquet'
  shard.parent.mkdir(parents=True)
  shard.write_bytes(b'x')
  assert register(tmp_path, Settings(k=32)).note == ''
  late = register(tmp_path, Settings(k=16, gap=0.2))
  assert late.changed == ('k: 32 -> 16', 'gap: 0.1 -> 0.2')
  assert 'changed after sampling began (k: 32 -> 16' in late.note
  record = json.loads((tmp_path / 'claims.json').read_text())
  assert record['hash'] == Settings(k=32).hash
  assert [change['hash'] for change in record['changes']] == [Settings(k=16, gap=0.2).hash]
  register(tmp_path, Settings(k=16, gap=0.2))
  assert len(json.loads((tmp_path / 'claims.json').read_text())['changes']) == 1
  (tmp_path / 'claims.json').write_text('[]')
  with pytest.raises(ValueError, match='no record of claims'):
    register(tmp_path, Settings(k=16))


def test_a_change_is_said_in_every_row(tmp_path):
  (tmp_path / 'samples' / 'm' / 't').mkdir(parents=True)
  (tmp_path / 'samples' / 'm' / 't' / 'part-00000.parquet').write_bytes(b'x')
  registration = register(tmp_path, Settings(k=K))
  assert registration.note == 'written down after sampling began'
  found = study(model('base', BASE, 'base'), model('rl', SHARPENED), registration=registration)
  assert all('after sampling began' in r['note'] for r in claims.ledger(found, found.claims))


def test_the_config_decides_the_settings():
  config = base_config.get_config()
  config.evaluate.headline_k = 16
  config.evaluate.temperature = 0.6
  found = settings_of(config)
  assert (found.k, found.temperature, found.sharpen) == (16, 0.6, 0.01)
  config.claims.update({'k': 8, 'temperature': 1.0, 'verifier': 'math', 'gap': 0.2})
  assert settings_of(config) == Settings(k=8, temperature=1.0, verifier='math', gap=0.2)
  assert settings_of(config).hash != found.hash
  config.job = 'evaluate'
  config.claims.k = 10_000
  with pytest.raises(ValueError, match=r'claims\.k=10000 is above evaluate\.n'):
    config_lib.check(config)
