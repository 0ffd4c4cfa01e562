"""The report stands alone, escapes what models write, and says what its numbers say."""

import dataclasses
import html.parser
import json
import pathlib
import re
import subprocess
import sys

import markupsafe
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from rlvr_jax.eval import browse, claims_shown, figures, findings, report, results, tables
from rlvr_jax.eval.counts import Counts, Reached
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.tasks import shapes
from rlvr_jax.tasks.problem import Image, Problem

HOSTILE = '<script>alert("x")</script> & </pre>'
PROBLEMS, N = 40, 64
IDS = [f'p{i:02d}' for i in range(PROBLEMS)]


def solve_rates():
  rng = np.random.default_rng(0)
  base = rng.beta(0.6, 3.0, PROBLEMS)
  trained = np.where(np.arange(PROBLEMS) % 2, np.minimum(0.97, base * 5), base * 1e-3)
  return {'base': base, 'rl': trained}


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  store = SampleStore(tmp_path_factory.mktemp('study') / 'samples')
  rng = np.random.default_rng(1)
  for model, rates in solve_rates().items():
    with store.writer(model, 'sums', {'temperature': 1.0, 'top_k': 0}, prompt_hash='h') as writer:
      for problem, rate in zip(IDS, rates, strict=True):
        for sample in range(N):
          right = rng.uniform() < rate
          row = {
            'task': 'sums', 'problem_id': problem, 'visit': 0, 'sample': sample, 'seed': 1,
            'tokens': [1, 2], 'text': '3+4' if right else HOSTILE, 'length': 2, 'finish': 'eos',
            'logprob_sum_sampled': -1.0, 'verdict': 'correct' if right else 'wrong',
            'reward': float(right), 'verifier': 'exact-1',
          }  # fmt: skip
          writer.append(row)
  return store


@pytest.fixture(scope='module')
def study(store):
  models = [
    results.ModelResult(
      name, name, store.counts(name, 'sums'), algorithm=None if name == 'base' else 'GRPO',
      seed=0, exact=dict(zip(IDS, rates, strict=True)), settings=store.settings(name, 'sums'),
    )
    for name, rates in solve_rates().items()
  ]  # fmt: skip
  return results.analyse(models, resamples=300)


@pytest.fixture(scope='module')
def written(store, study, tmp_path_factory):
  folder = tmp_path_factory.mktemp('out')
  rows = [{'step': i, 'reward/mean': i / 10, 'loss': float('nan')} for i in range(5)]
  document = report.write_study(
    folder,
    study,
    title='A <b>study</b>',
    wall_seconds=12.5,
    sampler_learner_gap={'max': 1e-5, 'mean': 1e-6},
    extra={'arms': ['rl']},
    training={'rl': rows},
    panels=[figures.Panel('reward/mean', 'reward')],
    texts=[('Why', 'One.\n\nTwo & three.')],
    samples=browse.pick_samples(store, study, 'sums', dict.fromkeys(IDS, HOSTILE), problems=8),
    provenance={'Commands': ['make quickstart'], 'Versions': {'numpy': '2'}, 'Config': 'a = 1'},
  )
  return folder, document


def test_a_pair_that_was_stopped_early_shows_its_coverage(study, tmp_path):
  models = []
  for model in study.models:
    c = model.counts.c
    drawn = np.where(c >= 3, 32, 500)
    reached = Reached(model.counts.problem_ids, 500, N, 3, np.minimum(c, 3), drawn, 12_345)
    models.append(dataclasses.replace(model, exact=None, reached=reached))
  stopped = results.analyse(models, resamples=50)
  document = report.write_study(tmp_path, stopped, title='Stopped', wall_seconds=1.0)
  sets = document['comparisons'][0]['coverage_at_n']
  assert [entry['threshold'] for entry in sets] == [1, 2, 3]
  counts = document['comparisons'][0]['coverage_by_threshold']
  assert [e['base_only'] for e in sets] == [e['base_only'] for e in counts if e['threshold'] <= 3]
  for name in ('base', 'rl'):
    entry = document['models'][name]['coverage_at_n']
    value, low, high = entry['share']['1']
    assert low < value < high
    assert value == entry['problems']['1'] / PROBLEMS
  page = (tmp_path / 'report.html').read_text()
  assert 'Within 500 draws, base solves' in page
  assert f'Every problem had {N} draws, and no more once 3 of them' in page


class Checker(html.parser.HTMLParser):
  """Collects tags, checks their nesting, and every address; those within the page fetch nothing."""

  VOID = ('meta', 'img', 'input', 'br', 'link')

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.addresses, self.ids, self.data = [], [], [], set(), {}

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.addresses += [value for name, value in attrs if name in ('src', 'href', 'action')]
    self.ids |= {value for name, value in attrs if name == 'id'}
    self.last = dict(attrs).get('id')
    assert not any(name.startswith('on') for name, _ in attrs)
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_data(self, data):
    if self.open and self.open[-1] == 'script' and self.last:
      self.data[self.last] = self.data.get(self.last, '') + data

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_the_report_is_one_file_that_fetches_nothing(written):
  page = (written[0] / 'report.html').read_text()
  checker = Checker()
  checker.feed(page)
  assert checker.open == []
  inside = [one for one in checker.addresses if one.startswith('#')]
  assert {one[1:].partition('?')[0] for one in inside} <= checker.ids
  fetched = [one for one in checker.addresses if not one.startswith('#')]
  assert all(address.startswith('data:image/svg+xml;base64,') for address in fetched)
  assert len(fetched) == 6
  assert 'link' not in checker.tags
  assert not re.search(r'url\(|@import|https?://(?!www\.w3\.org/1998/Math/MathML)', page)
  assert "default-src 'none'" in page


def test_what_models_write_is_escaped(written):
  page = (written[0] / 'report.html').read_text()
  assert page.count('<script>') == 1  # our own
  assert page.count('</script>') == 3  # and two that hold data
  assert '<script>alert' not in page
  assert r'\u003cscript>alert(\"x\")\u003c/script> & \u003c/pre>' in page
  assert '<b>study</b>' not in page


def embedded(folder):
  checker = Checker()
  checker.feed((folder / 'report.html').read_text())
  return json.loads(checker.data['counts']), json.loads(checker.data['texts'])


def test_the_browser_has_the_counts_of_every_problem_and_the_texts_that_were_picked(written, study):
  counts, texts = embedded(written[0])
  assert (counts['models'], counts['pair'], counts['k']) == (['base', 'rl'], [0, 1], 16)
  assert [row[0] for row in counts['problems']] == IDS
  for place, name in enumerate(('base', 'rl')):
    one = study.model(name).counts
    assert [row[1][place] for row in counts['problems']] == one.n.tolist()
    assert [row[2][place] for row in counts['problems']] == one.c.tolist()
  assert len(texts) == 8
  prompt, answer, rows = next(iter(texts.values()))
  assert (prompt, answer) == (HOSTILE, '')
  assert {row[2] for row in rows} <= {'correct', 'wrong'}
  assert {row[7] for row in rows} <= {'3+4', HOSTILE}


def test_what_is_embedded_is_capped_and_says_so(store, study):
  picked = browse.pick_samples(store, study, 'sums', dict.fromkeys(IDS, 'p' * 1000), problems=40)
  whole, cut = browse.embed(study, picked), browse.embed(study, picked, 10_000)
  assert 'completions of 40' in whole.note
  kept = json.loads(cut.texts)
  assert 0 < len(kept) < 10
  assert len(cut.texts) <= 10_000
  assert list(kept) == [one.problem_id for one in picked[: len(kept)]]  # the most telling ones
  assert f'completions of {len(kept)}:' in cut.note
  assert cut.counts == whole.counts


def test_every_count_leads_to_the_problems_behind_it(written):
  page = (written[0] / 'report.html').read_text()
  sizes = written[1]['coverage']
  for name, size in sizes.items():
    assert f'<a href="#problems?set={name}&amp;min=1">{size}</a>' in page
  assert '<a href="#problems?bin=1%3A0">' in page
  assert '<a href="#problems?k=16&amp;sort=pass%3A1&amp;down=1">' in page
  assert '<a href="#problems?test=worse&amp;sort=p&amp;k=1">' in page


def test_claims_stand_first_with_all_the_ledger_says(written, tmp_path):
  page = (written[0] / 'report.html').read_text()
  assert page.index('id="claims"') < page.index('id="findings"') < page.index('id="pass-k"')
  for row in written[1]['claims']:
    for text in (row['claim'], row['result'], row['rule'], row['needed'], row['verdict']):
      assert html_escaped(text) in page
  assert written[1]['claims_registered']['hash'] in page
  assert '<a href="#problems?set=base_only&amp;k=16">' in page


def html_escaped(text):
  return str(markupsafe.escape(text))


CLAIM = {
  'claim': 'It <i>sharpens</i>', 'estimand': 'D(1)', 'rule': 'D(1) > 0', 'margin': 0.01,
  'value': 0.25, 'low': 0.125, 'high': 0.375, 'verdict': 'supported', 'needed': '',
}  # fmt: skip


def test_a_ledger_of_fewer_words_is_shown_too_and_none_without_one(tmp_path):
  document = {'headline': {'a': 'base', 'b': 'rl'}}
  assert claims_shown.shown(document) == []
  assert claims_shown.registered(document) == ''
  rows = [CLAIM, {**CLAIM, 'verdict': 'undecided', 'value': None, 'needed': '120 more problems'}]
  made = claims_shown.shown({**document, 'claims': rows})
  report.write_report(tmp_path / 'report.html', title='Claims', claims=made)
  page = (tmp_path / 'report.html').read_text()
  assert '+0.250 (+0.125 to +0.375)' in page
  assert 'not measured here' in page
  assert '120 more problems' in page
  assert 'It &lt;i&gt;sharpens&lt;/i&gt;' in page


def test_every_part_a_reader_looks_for_is_there(written):
  page = (written[0] / 'report.html').read_text()
  for part in (
    'Findings', 'pass@k', 'Why', 'Training', 'Coverage', 'Accuracy', 'Sampled against exact',
    'Problems by the share', 'What became of every sample', 'Sampling settings', 'Problems',
    'How it was made', 'make quickstart', 'Methods and limits', 'say nothing of the algorithm',
  ):  # fmt: skip
    assert part in page, part


def test_results_json_keeps_the_contract(written, study):
  folder, document = written
  loaded = json.loads((folder / 'results.json').read_text(), parse_constant=pytest.fail)
  assert loaded == document
  assert loaded['wall_seconds'] == 12.5
  assert loaded['arms'] == ['rl']
  for name in ('base', 'rl'):
    entry = loaded['models'][name]
    assert (entry['n'], entry['problems'], entry['role']) == (N, PROBLEMS, name)
    for k in ('1', '16', '64'):
      value, low, high = entry['pass_at_k'][k]
      assert 0 <= low <= value <= high <= 1
      assert low < high
    assert entry['exact']['largest_z'] < 4
  assert set(loaded['coverage']) == {'both', 'base_only', 'rl_only', 'neither'}
  assert sum(loaded['coverage'].values()) == PROBLEMS
  assert loaded['comparisons'][0]['coverage'] == loaded['coverage']
  assert loaded['comparisons'][0]['crossover_k'] == loaded['crossover_k']
  assert len(loaded['crossover_k']) == 3
  assert sum(loaded['accuracy_histogram']['rl']) == PROBLEMS
  assert len(loaded['accuracy_histogram']['bins']) == 12
  assert loaded['sampler_learner_gap'] == {'max': 1e-5, 'mean': 1e-6}


def test_csv_and_parquet_hold_the_counts(written, study):
  folder = written[0]
  from_csv = pyarrow.csv.read_csv(folder / 'problems.csv').to_pydict()
  assert from_csv['problem_id'] == IDS
  assert from_csv['rl.c'] == study.model('rl').counts.c.tolist()
  assert pq.read_table(folder / 'problems.parquet').to_pydict()['base.n'] == [N] * PROBLEMS


def test_completions_show_lost_and_gained_problems_with_a_correct_sample(store, study):
  shown = browse.pick_samples(store, study, 'sums', {}, problems=6, per_model=2)
  assert len(shown) == 6
  assert shown[0].problem_id in study.comparison.sets[0].base_only
  counts = study.model('base').counts
  for problem in shown:
    mine = [sample for sample in problem.completions if sample.model == 'base']
    assert len(mine) == 2
    solved = counts.c[counts.problem_ids.index(problem.problem_id)] > 0
    assert (mine[0].verdict == 'correct') == solved


def test_images_stand_beside_completions_within_the_size(store, study):
  drawn = {
    name: Problem(name, 'sums', '', '1', images=made.images)
    for name, made in zip(IDS, shapes.make_problems(len(IDS), seed=1), strict=True)
  }
  torn = Image('torn.png', data=b'\x89PNG')
  drawn |= {IDS[0]: Problem(IDS[0], 'sums', '', '1', images=(torn, *drawn[IDS[0]].images))}
  shown = browse.pick_samples(
    store, study, 'sums', {}, problems=len(IDS), pictures=lambda i: browse.thumbnails(drawn[i])
  )
  by_id = {one.problem_id: one.images for one in shown}
  why, image = by_id[IDS[0]]
  assert why.startswith(f"problem sums/{IDS[0]}, image 'torn.png': its header is damaged")
  assert image.startswith('data:image/png;base64,')
  whole = json.loads(browse.embed(study, shown).texts)
  assert [whole[name][3] for name in IDS] == [list(by_id[name]) for name in IDS]
  small = browse.embed(study, shown, most_bytes=6000)
  assert 0 < len(json.loads(small.texts)) < len(IDS)
  assert len(small.texts) < 6000
  plain = browse.embed(study, browse.pick_samples(store, study, 'sums', {}, problems=2))
  assert all(len(entry) == 3 for entry in json.loads(plain.texts).values())


def test_long_completions_are_cut_and_say_so():
  text = browse.shorten('a' * 5000 + 'b' * 5000, 100)
  assert text.startswith('a' * 50 + '\n[... 9,900 characters')
  assert text.endswith('b' * 50)


def pair(base, rl, n=256):
  ids, total = tuple(f'p{i}' for i in range(len(base))), np.full(len(base), n)
  models = [
    results.ModelResult(name, name, Counts(ids, total, np.array(c)))
    for name, c in (('base', base), ('rl', rl))
  ]
  study = results.analyse(models, resamples=200)
  return study, findings.findings(study, results.build_results(study, wall_seconds=1.0))


def test_findings_support_what_is_clear():
  _, made = pair([5] * 60 + [0] * 20, [250] * 30 + [0] * 50)
  by_title = {finding.title: finding for finding in made}
  assert by_title['rl solves more than base with one try'].status == 'supported'
  assert by_title['rl solves less than base with 64 tries'].status == 'supported'
  assert by_title['base reaches problems that rl does not'].status == 'supported'
  assert by_title['Solve rates rise on 30 problems and fall on 0'].status == 'supported'
  cross = next(finding for finding in made if finding.title.startswith('From k'))
  assert cross.status == 'supported'


def test_findings_leave_open_what_is_not_decided():
  same = [0, 1, 3, 10, 40, 100, 200, 256] * 4
  _, made = pair(same, same)
  assert {finding.status for finding in made} <= {'undecided', 'limit'}
  assert any('zero of 256 leaves a solve rate of up to 1.2%' in f.text for f in made)


def test_one_discordant_problem_near_saturation_decides_no_crossover():
  base = [40] * 50 + [256] * 49 + [8]
  rl = [120] * 50 + [256] * 49 + [0]
  study, made = pair(base, rl)
  assert study.comparison.crossover.value is not None
  cross = next(finding for finding in made if finding.title.startswith('From k'))
  assert cross.status == 'undecided'


def test_a_wrong_instrument_is_called_a_fault():
  counts = Counts(tuple(IDS), np.full(PROBLEMS, N), np.full(PROBLEMS, 20))
  model = results.ModelResult('base', 'base', counts, exact=dict.fromkeys(IDS, 0.9))
  study = results.analyse([model], headline=('base',), resamples=100)
  made = findings.findings(study, results.build_results(study, wall_seconds=1.0))
  assert 'fault' in {finding.status for finding in made}


def test_one_model_is_measured_without_comparing(store, tmp_path):
  model = results.ModelResult('base', 'base', store.counts('base', 'sums'))
  study = results.analyse([model], headline=('base',), resamples=100)
  shown = browse.pick_samples(store, study, 'sums', {}, problems=3)
  document = report.write_study(tmp_path, study, title='One', wall_seconds=1, samples=shown)
  assert document['comparisons'] == []
  assert document['coverage'] is None
  page = (tmp_path / 'report.html').read_text()
  assert 'base solves' in page
  assert 'Coverage' not in page


def test_figures_are_the_same_bytes_each_time(study):
  assert figures.pass_at_k_figure(study).svg == figures.pass_at_k_figure(study).svg


def test_bad_requests_are_named():
  counts = Counts(('a', 'b'), np.array([8, 8]), np.array([1, 2]))
  model = results.ModelResult('base', 'base', counts)
  with pytest.raises(ValueError, match=r"names \['rl'\], but the models are \['base'\]"):
    results.analyse([model])
  with pytest.raises(ValueError, match='headline_k=4 is above n/4'):
    results.analyse([model], headline=('base',), headline_k=4)
  with pytest.raises(ValueError, match='repeat'):
    results.analyse([model, model], headline=('base',))
  with pytest.raises(ValueError, match=r'no exact solve probability for 1 problems.*b'):
    results.ModelResult('base', 'base', counts, exact={'a': 0.5}).exact_rates()
  rows = [{'step': 1, 'reward': 0.5}]
  with pytest.raises(ValueError, match=r"no metric \['entropy'\].*'reward'"):
    figures.training_figures({'rl': rows}, [figures.Panel('entropy', 'Entropy')])
  with pytest.raises(ValueError, match=r'a\.b\[1\] is nan'):
    results.finite({'a': {'b': [1.0, float('nan')]}})


@pytest.mark.parametrize(
  ('cell', 'text'), [(12345, '12,345'), (0.123456, '0.1235'), (True, 'yes'), ('x', 'x')]
)
def test_cells_are_shown_plainly(cell, text):
  assert tables.show(cell) == text


BLOCK_JAX = """
import sys
class Blocked:
  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] in ('jax', 'jaxlib', 'flax'):
      raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, Blocked())
"""

WITHOUT_JAX = (
  BLOCK_JAX
  + """
import pathlib, numpy as np
from rlvr_jax.eval import (browse, compare, counts, coverage, crossover, exact, figures, findings,
  intervals, pass_at_k, report, results, samples, shards, tables)
c = lambda k: counts.Counts(('a', 'b', 'c'), np.full(3, 16), np.array(k))
solved = {'base': [1, 2, 3], 'rl': [9, 0, 9]}
models = [results.ModelResult(name, name, c(k)) for name, k in solved.items()]
study = results.analyse(models, resamples=50)
report.write_study(pathlib.Path(sys.argv[1]), study, title='t', wall_seconds=1.0)
assert not {'jax', 'jaxlib', 'flax'} & set(sys.modules)
"""
)


def test_statistics_and_report_need_no_jax(tmp_path):
  subprocess.run(
    [sys.executable, '-W', 'error', '-c', WITHOUT_JAX, str(tmp_path)],
    check=True,
    cwd=pathlib.Path(__file__).parent.parent,
    timeout=120,
  )
  assert (tmp_path / 'report.html').stat().st_size > 50_000


def test_columns_of_numbers_are_set_to_the_right():
  table = tables.Table(
    't', ['a', 'b', 'c', 'd'], [['x', 1, None, None], ['y', tables.Linked(2.5, ''), 'z', None]]
  )
  assert table.numbers == [False, True, False, False]
  assert tables.Table('t', ['a'], []).numbers == [False]
