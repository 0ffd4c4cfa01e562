"""job=cot: a blind page goes out, verdict files come back, and what does not fit is refused."""

import json
import pathlib
import re

import numpy as np
import pytest

from configs import cot as cot_config
from rlvr_jax import config as config_lib
from rlvr_jax.eval import cot_job, report, results
from rlvr_jax.eval.samples import SampleStore
from tests.test_eval_samples import make_row

SOLVED = {'base': (0, 1, 5, 12, 3, 0), 'rl': (0, 0, 16, 16, 9, 2)}
N = 16


@pytest.fixture
def run(tmp_path):
  """A run of six problems; completions ending in '!' are the ones with sound reasoning."""
  folder = tmp_path / 'run'
  lines = [{'id': f'p{i}', 'question': f'What is $1+{i}$?', 'answer': str(1 + i)} for i in range(6)]
  problems = tmp_path / 'problems.jsonl'
  problems.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  store = SampleStore(folder / 'samples')
  for model, solved in SOLVED.items():
    with store.writer(model, 'jsonl', {'temperature': 1.0}, prompt_hash='h') as writer:
      for i, c in enumerate(solved):
        for sample in range(N):
          right = sample < c
          text = f'</script><b>{model[0]}{sample}</b> \\boxed{{{1 + i}}}' + '!' * (sample % 2)
          writer.append(
            make_row(
              f'p{i}',
              sample,
              task='jsonl',
              text=text,
              verdict='correct' if right else 'wrong',
              reward=float(right),
            )
          )
  config = config_lib.resolve(cot_config.get_config(), {'task.path': str(problems)})
  (folder / 'config.json').write_text(config.to_json())
  return folder


def job(run, workdir, **changes):
  config = config_lib.resolve(cot_config.get_config(), {'input': str(run), **changes})
  return cot_job.cot_job(config, config_lib.prepare_workdir(workdir))


def picks(workdir):
  return [json.loads(line) for line in (workdir / 'picks.jsonl').read_text().splitlines()]


def verdicts(workdir, name, label):
  key = json.loads((workdir / 'key.json').read_text())
  path = workdir / f'{name}.json'
  path.write_text(
    json.dumps({
      'page': key['page'], 'reader': name,
      'verdicts': {one['id']: label(one) for one in picks(workdir)},
    })
  )  # fmt: skip
  return str(path)


def sound(one):
  return 'valid' if one['completion'].endswith('!') else 'invalid'


def test_the_page_is_blind_shuffled_and_safe(run, tmp_path, capsys):
  work = tmp_path / 'cot'
  assert job(run, work) is None
  assert 'completions to read' in capsys.readouterr().err
  shown = picks(work)
  key = json.loads((work / 'key.json').read_text())['key']
  assert {one['id'] for one in shown} == set(key)
  assert all(set(one) == {'id', 'prompt', 'reference', 'completion'} for one in shown)
  owners = [key[one['id']][0] for one in shown]
  assert set(owners) == {'base', 'rl'}
  assert owners != sorted(owners)
  for one in shown:
    model, problem, sample = key[one['id']]
    assert one['completion'].startswith(f'</script><b>{model[0]}{sample}</b>')
    assert one['reference'] == str(1 + int(problem[1:]))
    assert sample < SOLVED[model][int(problem[1:])]  # correct ones only
  page = (work / 'reading.html').read_text()
  assert page.count('</script>') == 2  # what models write ends nothing
  assert not re.search(r'https?://(?!www\.w3\.org/1998/Math/MathML)|url\(|@import', page)
  before = (work / 'reading.html').read_bytes()
  job(run, work)
  assert (work / 'reading.html').read_bytes() == before


def test_readers_bring_the_planted_truth_back(run, tmp_path):
  work = tmp_path / 'cot'
  job(run, work, **{'cot.completions': 16})
  found = job(run, work, **{'cot.completions': 16, 'cot.readers': verdicts(work, 'anna', sound)})
  assert found == json.loads((work / 'cot.json').read_text())
  for model, solved in SOLVED.items():
    entry = found['models'][model]
    good = np.array([c // 2 for c in solved])  # odd samples below c
    value, upper, low, high = entry['cot_pass_at_k']['1']
    assert value == pytest.approx(np.mean(good / N))
    assert upper == pytest.approx(value)
    assert low < value < high
    assert entry['cot_pass_at_k']['16'][0] == pytest.approx(np.mean(good > 0))
    assert entry['validity'][0] == pytest.approx(good.sum() / sum(solved))
    assert entry['pass_at_k']['1'] == pytest.approx(np.mean(solved) / N)


def test_two_readers_have_a_kappa_and_unsure_is_told_apart(run, tmp_path):
  work = tmp_path / 'cot'
  job(run, work)
  anna = verdicts(work, 'anna', sound)
  ben = verdicts(work, 'ben', lambda one: 'unsure' if one['id'] == '0001' else sound(one))
  found = job(run, work, **{'cot.readers': f'{anna},{ben}'})
  assert found['readers'] == ['anna', 'ben']
  assert 0.8 < found['kappa'][0] < 1
  assert found['labels']['unsure'] == 1
  entries = found['models'].values()
  as_invalid = sum(entry['cot_pass_at_k']['1'][0] for entry in entries)
  as_valid = sum(entry['if_unsure_valid']['cot_pass_at_k']['1'][0] for entry in entries)
  assert as_valid > as_invalid


def test_a_judge_counts_only_beside_readers(run, tmp_path):
  work = tmp_path / 'cot'
  job(run, work)
  judge = verdicts(work, 'judge', sound)
  with pytest.raises(ValueError, match='only when calibrated against readers'):
    job(run, work, **{'cot.judge': judge})
  found = job(run, work, **{'cot.judge': judge, 'cot.readers': verdicts(work, 'anna', sound)})
  assert found['judge']['hits'] == found['judge']['valid'] > 0
  for entry in found['models'].values():
    read, judged = (e['cot_pass_at_k']['1'] for e in (entry, entry['judge']))
    assert judged[0] == pytest.approx(read[0])
    assert judged[3] - judged[2] >= read[3] - read[2]


def test_the_runs_report_shows_what_readers_found(run, tmp_path):
  work = tmp_path / 'cot'
  job(run, work)
  anna, judge = verdicts(work, 'anna', sound), verdicts(work, 'judge', sound)
  found = job(run, work, **{'cot.judge': judge, 'cot.readers': f'{anna},{anna}'})
  store = SampleStore(run / 'samples')
  models = [results.ModelResult(m, m, store.counts(m, 'jsonl')) for m in SOLVED]
  study = results.analyse(models, resamples=20)
  document = report.write_study(tmp_path / 'out', study, title='x', wall_seconds=1.0, cot=found)
  assert document['cot']['models'].keys() == SOLVED.keys()
  page = (tmp_path / 'out' / 'report.html').read_text()
  assert 'Validity of reasoning' in page
  assert 'Cohen&#39;s kappa of the two readers is 1.00' in page
  assert 'judge, corrected' in page


def test_what_does_not_fit_is_named(run, tmp_path):
  work = tmp_path / 'cot'
  with pytest.raises(ValueError, match=r'--config\.input'):
    job('', work)
  job(run, work)
  with pytest.raises(ValueError, match='another design'):
    job(run, work, seed=5)
  path = pathlib.Path(verdicts(work, 'anna', sound))
  good = json.loads(path.read_text())
  for change, message in (
    ({'page': 'x'}, 'has verdicts of page x'),
    ({'verdicts': {'0001': 'fine'}}, "'0001' is judged 'fine'"),
    ({'verdicts': {'9999': 'valid'}}, '9999'),
    ({'verdicts': {}}, 'holds no verdict'),
  ):
    path.write_text(json.dumps({**good, **change}))
    with pytest.raises(ValueError, match=message):
      job(run, work, **{'cot.readers': str(path)})
  path.write_text('[]')
  with pytest.raises(ValueError, match='is no file of verdicts'):
    job(run, work, **{'cot.readers': str(path)})
  with pytest.raises(ValueError, match=r'cot\.task'):
    job(run, tmp_path / 'other', **{'cot.task': 'chess'})
