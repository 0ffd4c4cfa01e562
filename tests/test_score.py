"""job=score: every row gets its verdict, what was there stays, and what flipped is told."""

import json
import pathlib

import numpy as np
import pytest

from configs import score as score_config
from rlvr_jax import config as config_lib
from rlvr_jax.eval import flips
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.score import score
from tests.test_eval_samples import make_row

# A verifier that says which completions it was asked about.
ASKED = """
import pathlib

def exact(problem, completion):
  path = pathlib.Path(__file__).with_suffix('.asked')
  with open(path, 'a', encoding='utf-8', errors='surrogatepass') as file:
    file.write(completion + '\\n')
  return completion.strip().endswith(str(problem.answer))
"""


@pytest.fixture
def verifier(tmp_path) -> pathlib.Path:
  path = tmp_path / 'asking.py'
  path.write_text(ASKED)
  return path


def asked(verifier: pathlib.Path) -> list[str]:
  return verifier.with_suffix('.asked').read_text().split('\n')[:-1]


def run(tmp_path, given, verifier, **changes) -> tuple[list[dict], dict]:
  """(scored rows, summary)."""
  config = score_config.get_config()
  values = {
    'input': str(given),
    'output': str(tmp_path / 'out' / 'scored.jsonl'),
    'task.verifier': verifier if ':' in str(verifier) else f'{verifier}:exact',
    'verifier.workers': 1,
    **changes,
  }
  config = config_lib.resolve(config, values)
  summary = score(config, config_lib.prepare_workdir(tmp_path / 'work'))
  lines = pathlib.Path(config.output).read_text().splitlines()
  assert summary == json.loads((tmp_path / 'out' / 'scored.flips.json').read_text())
  return [json.loads(line) for line in lines], summary


def write_rows(path: pathlib.Path, rows) -> pathlib.Path:
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def test_rows_keep_their_order_and_all_they_had(tmp_path, verifier):
  rows = [
    {'id': f'p{i % 7}', 'gold': str(i % 7), 'prediction': f'so it is {i % 9}', 'note': 'π', 'n': i}
    for i in range(60)
  ]
  path = write_rows(tmp_path / 'rows.jsonl', rows)
  before = path.read_bytes()
  scored, summary = run(tmp_path, path, verifier)
  assert path.read_bytes() == before
  assert [{key: row[key] for key in rows[0]} for row in scored] == rows
  for row in scored:
    right = row['prediction'].endswith(row['gold'])
    assert row['verdict'] == ('correct' if right else 'wrong')
    assert row['verifier'].startswith('asking.py:exact:')
    assert {'extracted', 'reason'} <= set(row)
  assert summary['rows'] == 60
  assert summary['verdicts'] == {'wrong': 53, 'correct': 7}
  assert 'flips' not in summary  # there was no verdict to flip
  assert summary['now']['pass_at_1'][0] == pytest.approx(
    np.mean([np.mean([r['verdict'] == 'correct' for r in scored if r['id'] == f'p{i}'])
             for i in range(7)])
  )  # fmt: skip


def test_a_second_run_asks_for_nothing_again(tmp_path, verifier):
  rows = [{'gold': '1', 'prediction': f'{i} 1'} for i in range(20)]
  path = write_rows(tmp_path / 'rows.jsonl', rows[:12])
  run(tmp_path, path, verifier)
  write_rows(path, rows)
  scored, _ = run(tmp_path, path, verifier)
  assert len(scored) == 20
  assert sorted(asked(verifier)) == sorted(row['prediction'] for row in rows)


def test_another_tools_lists_and_names(tmp_path, verifier):
  """The form of the paper's own files: lists of completions and of verdicts in each row."""
  rows = [
    {'idx': 0, 'gt': '5', 'code': ['it is 5', 'it is 6'], 'score': [False, False]},
    {'idx': 1, 'gt': '7', 'code': ['7', '7'], 'score': [True, False]},
  ]
  path = write_rows(tmp_path / 'rows.jsonl', rows)
  fields = {'score.fields.prediction': 'code', 'score.fields.verdict': 'score'}
  scored, summary = run(tmp_path, path, verifier, **fields)
  assert [row['verdict'] for row in scored] == [['correct', 'wrong'], ['correct', 'correct']]
  assert summary['completions'] == 4
  assert [(f['from'], f['to'], f['count']) for f in summary['flips']] == [('wrong', 'correct', 2)]
  assert summary['flipped'] == ['0/0', '1/1']
  assert summary['before']['pass_at_1'][0] == 0.25
  assert summary['now']['pass_at_1'][0] == 0.75
  assert summary['solved'] == {
    'by_both': 1, 'only_before': [], 'only_now': ['0'], 'by_neither': 0,
  }  # fmt: skip
  example = summary['flips'][0]['examples'][0]
  assert (example['gold'], example['prediction']) == ('5', 'it is 5')
  assert example['where'].endswith('rows.jsonl:1')


def test_verdicts_of_before_are_kept_under_another_name(tmp_path, verifier):
  rows = [
    {'id': 'a', 'gold': '5', 'prediction': '5', 'verdict': 'wrong', 'extracted': 'e'},
    {'id': 'b', 'gold': '5', 'prediction': '\ud800', 'verdict': 'timeout', 'extracted': ''},
    {'id': 'c', 'gold': '5', 'prediction': '5', 'verdict': None},
  ]
  scored, summary = run(tmp_path, write_rows(tmp_path / 'r.jsonl', rows), verifier)
  assert [row['old_verdict'] for row in scored] == ['wrong', 'timeout', None]
  assert scored[0]['old_extracted'] == 'e'
  assert scored[1]['prediction'] == '\ud800'
  assert summary['verdicts_before'] == {'wrong': 1, 'timeout': 1}
  assert {(f['from'], f['to']) for f in summary['flips']} == {
    ('wrong', 'correct'), ('timeout', 'wrong'),
  }  # fmt: skip


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'prediction': '5'}, r'r\.jsonl:2: no gold \(gold, .*the line has prediction; name the right'),
    ({'gold': '5', 'txt': '5'}, r'r\.jsonl:2: no prediction .*score\.fields\.prediction'),
    ({'gold': '', 'prediction': '5'}, r'r\.jsonl:2: the gold answer is empty'),
    ({'gold': '5', 'prediction': 5}, r"r\.jsonl:2: 'prediction' is neither a text nor a list"),
    ({'gold': '5', 'prediction': '5', 'correct': 0.3}, r"r\.jsonl:2: 'correct' is 0\.3, which is"),
    ({'gold': '5', 'prediction': ['5'], 'correct': [1, 0]}, r'1 completions but 2 verdicts'),
  ],
)
def test_what_cannot_be_judged_is_named_with_file_and_line(tmp_path, verifier, row, message):
  path = write_rows(tmp_path / 'r.jsonl', [{'gold': '5', 'prediction': '5'}, row])
  with pytest.raises(ValueError, match=message):
    run(tmp_path, path, verifier)
  assert list((tmp_path / 'out').iterdir()) == []  # no half of an output


def test_input_and_output_are_asked_for_and_kept_apart(tmp_path):
  path = write_rows(tmp_path / 'r.jsonl', [{'gold': '5', 'prediction': '5'}])
  config = score_config.get_config()
  with pytest.raises(ValueError, match=r'job=score needs .* --config\.output=scored\.jsonl'):
    score(config_lib.resolve(config, {'input': str(path)}), tmp_path)
  with pytest.raises(ValueError, match='no such file or directory'):
    config_lib.resolve(config, {'input': str(tmp_path / 'absent'), 'output': 'x'})
  for out in (path, path.parent):
    with pytest.raises(ValueError, match=r'output=.* must be a new \.jsonl file'):
      config_lib.resolve(config, {'input': str(path), 'output': str(out)})
  with pytest.raises(ValueError, match='must be a new'):
    config_lib.resolve(config, {'input': str(tmp_path), 'output': str(tmp_path / 'new.jsonl')})


@pytest.fixture
def stored(tmp_path) -> pathlib.Path:
  """A run's directory: problems, config.json and samples, of which 'wrong' and 'correct' lie."""
  problems = tmp_path / 'problems.jsonl'
  write_rows(problems, [{'id': f'p{i}', 'question': '?', 'answer': str(i)} for i in range(3)])
  store = SampleStore(tmp_path / 'run' / 'samples')
  rows = [
    make_row(f'p{i}', s, text=f'so {s}', verdict='correct' if i == 1 else 'wrong')
    for i in range(3)
    for s in range(4)
  ]
  with store.writer('base', 'sums', {'first': 2, 'stop_after': 1}, prompt_hash='h') as writer:
    writer.extend(rows)
  task = score_config.get_config().task.to_dict() | {'path': str(problems)}
  (tmp_path / 'run' / 'config.json').write_text(json.dumps({'task': task}))
  return tmp_path / 'run'


def test_a_store_is_judged_anew_with_its_own_problems(tmp_path, verifier, stored):
  shard = stored / 'samples' / 'base' / 'sums' / 'part-00000.parquet'
  before = shard.read_bytes()
  for given in (stored, stored / 'samples', shard.parent):
    scored, summary = run(tmp_path, given, verifier)
    assert [(row['problem_id'], row['sample']) for row in scored] == [
      (f'p{i}', s) for i in range(3) for s in range(4)
    ]
    assert {row['verdict'] for row in scored if row['problem_id'] == f'p{row["sample"]}'} == {
      'correct'
    }
    assert {row['old_verdict'] for row in scored} == {'correct', 'wrong'}
  assert shard.read_bytes() == before
  # stopped early: pass@k from the first two draws, in which p2 has no correct one
  assert [row['k'] for row in summary['pass_at_k']] == [1, 2]
  assert summary['completions'] == 12
  assert summary['solved'] == {
    'by_both': 1, 'only_before': [], 'only_now': ['p0'], 'by_neither': 1,
  }  # fmt: skip
  counts = flips.read_scored(tmp_path / 'out' / 'scored.jsonl', samples=2)
  both = flips.under_two(*counts)
  assert both.sets.rl_only == ('p0',)
  assert both.after[1, 0] - both.before[1, 0] == pytest.approx(both.difference[1, 0])
  assert both.table() == summary['pass_at_k']


def test_a_store_of_other_problems_is_refused(tmp_path, verifier, stored):
  other = write_rows(tmp_path / 'o.jsonl', [{'id': 'q', 'question': '?', 'answer': '1'}])
  with pytest.raises(ValueError, match=r"problem 'p0' is not among the 1 problems of the config"):
    run(tmp_path, stored, verifier, **{'task.path': str(other)})
  with pytest.raises(ValueError, match=r"score\.model='rl': the store .* holds base; name one"):
    run(tmp_path, stored, verifier, **{'score.model': 'rl'})
  (stored / 'config.json').unlink()
  with pytest.raises(ValueError, match=r'no config\.json that says which problems were sampled'):
    run(tmp_path, stored, verifier)


def test_coverage_under_two_verifiers_from_the_counts():
  then = flips.Counts(('a', 'b', 'c'), np.array([8, 8, 8]), np.array([0, 2, 0]))
  now = flips.Counts(('c', 'b', 'a'), np.array([8, 8, 8]), np.array([1, 2, 0]))
  both = flips.under_two(then, now, ks=[1, 8])
  assert both.ks.tolist() == [1, 8]
  assert both.before[:, 0] == pytest.approx([2 / 24, 1 / 3])
  assert both.after[:, 0] == pytest.approx([3 / 24, 2 / 3])
  assert both.sets.rl_only == ('c',)
  assert both.sets.base_only == ()
  assert (both.difference[:, 1] <= both.difference[:, 0]).all()
