"""job=compare: what may not be compared is refused by name; what may gives the usual report."""

import json
import pathlib
import shutil
import subprocess
import sys

import foreign_files as files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr_jax import config as config_lib
from rlvr_jax.eval import compare_stores, pass_at_k
from rlvr_jax.eval.compare_stores import compare
from rlvr_jax.eval.samples import SampleStore

ROOT = pathlib.Path(__file__).resolve().parent.parent
A, B = files.verdicts(0), files.verdicts(1, 0.1)


def config(stores, **overrides):
  loaded = config_lib.load_file(str(ROOT / 'configs' / 'compare.py'))
  values = {'stores': stores, 'evaluate.bootstrap': 200, **overrides}
  return config_lib.resolve(loaded, {key.replace('__', '.'): v for key, v in values.items()})


def run(tmp_path, stores, **overrides):
  out = tmp_path / 'out'
  out.mkdir(exist_ok=True)
  return compare(config(stores, **overrides), out)


def warned(tmp_path, stores, **overrides):
  """What the report would say, without making it."""
  c = config(stores, **overrides)
  found = compare_stores.open_all(c, tmp_path)
  _, said, _ = compare_stores.check(
    found, compare_stores.words(c.compare.allow), common=c.compare.common
  )
  return [one.title for one in said]


def pair(tmp_path, a=None, b=None, **more):
  """base=...,rl=... of two files of the documented schema."""
  rows = [files.schema_rows(A, **more) if a is None else a,
          files.schema_rows(B, **more) if b is None else b]  # fmt: skip
  paths = [files.jsonl(tmp_path / f'{n}.jsonl', r) for n, r in zip('ab', rows, strict=True)]
  return f'base={paths[0]},rl={paths[1]}'


def test_a_report_of_other_tools_files_has_their_numbers(tmp_path):
  document = run(tmp_path, pair(tmp_path, temperature=0.6, verifier='v'))
  for name, found in (('base', A), ('rl', B)):
    n, c = np.full(len(found), files.N), found.sum(axis=1)
    for k in (1, 8, files.N):
      value = document['models'][name]['pass_at_k'][str(k)][0]
      assert value == pytest.approx(pass_at_k.estimate(n, c, [k]).mean(), abs=1e-12)
  assert document['headline'] == {'a': 'base', 'b': 'rl', 'k': 8}
  assert document['warnings'] == []
  assert [one['format'] for one in document['sources']] == ['samples of the documented schema'] * 2
  html = (tmp_path / 'out' / 'report.html').read_text()
  assert 'What was compared' in html
  assert 'The answer is' in html  # completions are there to be read
  assert 'To be read with care' not in html
  assert json.loads((tmp_path / 'out' / 'results.json').read_text()) == document


def test_the_base_may_be_any_and_roles_are_given(tmp_path):
  stores = pair(tmp_path, verifier='v', temperature=1)
  document = run(tmp_path, stores, compare__base='rl', compare__roles='distilled,base')
  assert document['headline']['a'] == 'rl'
  assert document['models']['rl']['role'] == 'base'
  assert document['models']['base']['role'] == 'distilled'
  with pytest.raises(ValueError, match=r"compare.base='x': the stores are base, rl"):
    run(tmp_path, stores, compare__base='x')
  with pytest.raises(ValueError, match='for each of the 2 stores'):
    run(tmp_path, stores, compare__roles='base')
  with pytest.raises(ValueError, match=r"'rl:grpo' is none of .* or rl:ALGORITHM:SEED"):
    run(tmp_path, stores, compare__roles='base,rl:grpo')
  with pytest.raises(ValueError, match=r"'base:grpo:1' is none of"):
    run(tmp_path, stores, compare__roles='base:grpo:1,rl')


def test_algorithms_and_seeds_of_other_peoples_models_are_compared(tmp_path):
  rng = np.random.default_rng(0)
  paths, roles = [], []
  for algorithm, seed in [('base', 0), *((a, s) for a in ('grpo', 'ppo') for s in (1, 2, 3))]:
    path = tmp_path / f'{algorithm}{seed}.csv'
    lines = [f'p{i},32,{rng.binomial(32, 0.3)}' for i in range(20)]
    path.write_text('\n'.join(['problem_id,n,c', *lines, '']))
    paths.append(str(path))
    roles.append('base' if algorithm == 'base' else f'rl:{algorithm}:{seed}')
  document = run(tmp_path, ','.join(paths), compare__roles=','.join(roles))
  alike = next(row for row in document['claims'] if row['key'] == 'C5')
  assert alike['numbers']['seeds'] == {'grpo': 3, 'ppo': 3}
  assert len(document['algorithms']) == 2


def test_our_own_stores_give_the_same_numbers(tmp_path):
  ours = [files.our_store(tmp_path / n, n, f) for n, f in (('base', A), ('rl', B))]
  document = run(tmp_path, f'{ours[0]},{ours[1]}')
  other = run(tmp_path, pair(tmp_path))
  assert document['models']['rl']['pass_at_k'] == other['models']['rl']['pass_at_k']
  assert document['comparisons'][0]['coverage'] == other['comparisons'][0]['coverage']
  assert document['warnings'] == []
  # a run, its store and a model in it are the same
  assert run(tmp_path, f'base={tmp_path / "base"},rl={ours[1].parent}')['models'].keys() == {
    'base', 'rl',
  }  # fmt: skip


def test_one_store_alone_is_measured(tmp_path):
  document = run(tmp_path, str(files.counts_csv(tmp_path / 'base.csv', A)))
  assert document['comparisons'] == []
  assert list(document['models']) == ['base']


def drop(rows, *problems):
  return [row for row in rows if row['problem_id'] not in problems]


REFUSED = {
  'no stores': (lambda t: '', {}, 'needs samples: --config.stores='),
  'no file': (lambda t: f'base={t}/none.jsonl', {}, 'there is no .*none.jsonl'),
  'a copy': (
    lambda t: pair(t, files.schema_rows(A), files.schema_rows(A)),
    {},
    'rl and base are the same samples',
  ),
  'a name twice': (
    lambda t: pair(t).replace('rl=', 'base='),
    {},
    'base names several of them',
  ),
  'a name that cannot be': (
    lambda t: pair(t).replace('base=', 'a b='),
    {},
    "store='a b' cannot name a folder",
  ),
  'verifiers': (
    lambda t: pair(t, files.schema_rows(A, verifier='v1'), files.schema_rows(B, verifier='v2')),
    {'allow': 'verifiers'},
    r"different verifiers: 'v1' \(base\), 'v2' \(rl\)",
  ),
  'prompts': (
    lambda t: pair(t, files.schema_rows(A, prompt='Say: x'), files.schema_rows(B, prompt='Say! x')),
    {'allow': 'prompts'},
    "prompts of base and rl differ in 24 of 24 problems, e.g. 'p0': 'Say: x' against 'Say! x'",
  ),
  'answers': (
    lambda t: pair(t, files.schema_rows(A, answer='1'), files.schema_rows(B, answer='2')),
    {'allow': 'prompts'},
    'reference answers of base and rl differ',
  ),
  'problems': (
    lambda t: pair(t, drop(files.schema_rows(A), 'p3'), drop(files.schema_rows(B), 'p5', 'p6')),
    {'common': True},
    "2 of base that not all have, 'p5', 'p6'; 1 of rl that not all have, 'p3'",
  ),
  'no problem in common': (
    lambda t: pair(t, b=[{**r, 'problem_id': f'x{r["problem_id"]}'} for r in files.schema_rows(B)]),
    {},
    'no problem in common',
  ),
  'ragged': (
    lambda t: pair(
      t, [r for r in files.schema_rows(A) if r['problem_id'] > 'p2' or r['sample'] < 9]
    ),
    {'allow': 'ragged'},
    'have fewer than 32 draws',
  ),
  'templates': (
    lambda t: ','.join(
      f'{n}={files.our_store(t / n, n, f, prompt_hash=n)}' for n, f in (('base', A), ('rl', B))
    ),
    {'allow': 'prompts'},
    r'the prompt templates differ \(hash: base base, rl rl\)',
  ),
  'contents': (
    lambda t: ','.join(
      f'{n}={files.our_store(t / n, n, f, {"data": n})}' for n, f in (('base', A), ('rl', B))
    ),
    {'allow': 'prompts'},
    'the problems were read from different contents',
  ),
}  # fmt: skip


@pytest.mark.parametrize('case', REFUSED)
def test_what_is_not_comparable_is_refused_unless_let_through(tmp_path, case):
  make, allowed, message = REFUSED[case]
  stores = make(tmp_path)
  with pytest.raises(ValueError, match=message):
    run(tmp_path, stores)
  allowed = {f'compare__{k}': v for k, v in allowed.items()}
  if allowed:
    assert {'Different verifiers', 'Different prompts', 'Different problem sets',
            'Ragged numbers of draws in base'} & {*warned(tmp_path, stores, **allowed)}  # fmt: skip
  if case in ('verifiers', 'ragged'):
    document = run(tmp_path, stores, **allowed)
    html = (tmp_path / 'out' / 'report.html').read_text()
    assert 'To be read with care' in html
    assert document['warnings'][0]['title'] in html


def test_an_unknown_word_to_allow_is_refused(tmp_path):
  with pytest.raises(ValueError, match='prompt is none of prompts, verifiers, ragged'):
    run(tmp_path, pair(tmp_path), compare__allow='prompt')


def test_common_problems_are_compared_and_the_rest_is_named(tmp_path):
  stores = pair(tmp_path, drop(files.schema_rows(A), 'p3'), drop(files.schema_rows(B), 'p5'))
  document = run(tmp_path, stores, compare__common=True)
  assert document['models']['base']['problems'] == files.PROBLEMS - 2
  text = next(w['text'] for w in document['warnings'] if 'problem sets' in w['title'])
  assert "'p3'" in text
  assert "'p5'" in text


def test_different_sampling_settings_are_shown_with_a_warning(tmp_path):
  stores = pair(
    tmp_path,
    files.schema_rows(A, temperature=0.6, top_p=0.95, max_tokens=64),
    files.schema_rows(B, temperature=1.0, top_p=0.95),
  )
  document = run(tmp_path, stores)
  (warning,) = (w for w in document['warnings'] if 'settings' in w['title'])
  assert 'different temperature:' in warning['text']
  assert 'Not known of every store: max_tokens' in warning['text']
  html = (tmp_path / 'out' / 'report.html').read_text()
  assert 'Settings that differ or are not known' in html


def test_coupled_stores_have_no_tests_of_independence(tmp_path):
  ours = [files.our_store(tmp_path / n, n, f, {'coupling': 'common'})
          for n, f in (('base', A), ('rl', B))]  # fmt: skip
  document = run(tmp_path, f'{ours[0]},{ours[1]}')
  assert 'Common random numbers' in [w['title'] for w in document['warnings']]
  assert 'problems_better' not in document['comparisons'][0]
  assert 'Common random numbers' in warned(tmp_path, pair(tmp_path, coupling='common'))


def stop_early(found, first, most):
  """Rows that early stopping keeps: none after the first `first` once `most` are correct."""
  kept = []
  for row in found:
    ends = [t for t in range(first, len(row) + 1) if row[:t].sum() >= most]
    kept.append(row[: ends[0] if ends else len(row)])
  return kept


def test_early_stopped_stores_count_their_first_draws_and_coverage_at_n(tmp_path):
  rule = {'first': 8, 'stop_after': 2}
  ours = [files.our_store(tmp_path / n, n, stop_early(f, 8, 2), rule)
          for n, f in (('base', A), ('rl', B))]  # fmt: skip
  document = run(tmp_path, f'{ours[0]},{ours[1]}')
  for name, found in (('base', A), ('rl', B)):
    entry = document['models'][name]
    assert entry['n'] == 8
    assert entry['pass_at_k']['1'][0] == pytest.approx(found[:, :8].mean(), abs=1e-12)
    assert entry['coverage_at_n']['problems']['1'] == (found.sum(axis=1) > 0).sum()
    assert f'{name} was stopped early' in [w['title'] for w in document['warnings']]
  whole = files.our_store(tmp_path / 'whole', 'whole', B)
  document = run(tmp_path, f'{ours[0]},{whole}')
  assert document['comparisons'][0]['coverage'] is None  # efforts differ: refused, not averaged
  assert 'equal efforts' in document['comparisons'][0]['why_no_coverage']
  document = run(tmp_path, f'{ours[0]},{whole}', compare__samples=8)
  assert document['comparisons'][0]['coverage'] is not None


def test_an_unfinished_or_damaged_store_of_ours_is_named(tmp_path):
  folder = files.our_store(tmp_path, 'base', A)
  shards = sorted(folder.glob('part-*.parquet'))
  hidden = tmp_path / 'hidden'
  shutil.move(shards[1], hidden)
  with pytest.raises(ValueError, match=r'lack draws within those they have|fewer than 32 draws'):
    run(tmp_path, str(folder))
  shutil.move(hidden, shards[1])
  assert run(tmp_path, str(folder))['models']['base']['n'] == files.N
  shutil.copy(shards[0], folder / 'part-00099.parquet')
  with pytest.raises(ValueError, match=r'stored more than once .* part-00000.parquet, part-00099'):
    run(tmp_path, str(folder))
  (folder / 'part-00099.parquet').write_bytes(shards[0].read_bytes()[:-50])
  with pytest.raises(ValueError, match=r'part-00099.parquet is torn or corrupt'):
    run(tmp_path, str(folder))
  (folder / 'part-00099.parquet').unlink()
  files.our_store(tmp_path, 'base', A[:1, :1], visit=1, verifier='exact-2')
  with pytest.raises(ValueError, match=r"several verifier versions: 'exact-1'"):
    run(tmp_path, str(folder))


def test_prompts_of_our_runs_are_shown_and_problems_compared(tmp_path):
  for name, found in (('base', A), ('rl', B)):
    folder = files.our_store(tmp_path / name, name, found)
    path = tmp_path / name / 'problems.jsonl'
    files.jsonl(path, [{'id': f'p{p}', 'question': f'What is <{p}>?', 'answer': str(p)}
                       for p in range(files.PROBLEMS)])  # fmt: skip
    task = {**config('').task.to_dict(), 'name': 'jsonl', 'path': str(path)}
    (tmp_path / name / 'config.json').write_text(json.dumps({'task': task}))
    digests = {f'p{p}': 'same' for p in range(files.PROBLEMS)}
    (folder / 'problems.json').write_text(json.dumps(digests))
  stores = f'{tmp_path / "base"},{tmp_path / "rl"}'
  document = run(tmp_path, stores)
  assert document['warnings'] == []
  assert [one['notes'] for one in document['sources']] == [[], []]
  report = (tmp_path / 'out' / 'report.html').read_text()
  assert r'What is \u003c' in report
  assert 'What is <' not in report
  (folder / 'problems.json').write_text(json.dumps({**digests, 'p3': 'another'}))
  with pytest.raises(ValueError, match=r"1 problems are not the same in base and rl, e.g. 'p3'"):
    run(tmp_path, stores)
  (folder / 'problems.json').unlink()
  files.jsonl(path, [{'id': 'p4', 'question': 'Which?', 'answer': '4'}])
  with pytest.raises(
    ValueError, match=r"prompts of base and rl differ in 1 of 1 problems, e.g. 'p4"
  ):
    run(tmp_path, stores)


def test_what_was_compared_is_kept_as_a_store(tmp_path):
  ours = files.our_store(tmp_path / 'mine', 'm', A)
  path = files.jsonl(tmp_path / 'b.jsonl', files.schema_rows(B, verifier='exact-1'))
  kept = SampleStore(tmp_path / 'out' / 'samples')
  for _ in range(2):  # the second time it is there
    document = run(tmp_path, f'base={ours},rl={path}')
    assert kept.models() == {'base': ['sums'], 'rl': ['sums']}
    for name, found in (('base', A), ('rl', B)):
      counts = kept.counts(name, 'sums')
      order = [int(problem[1:]) for problem in counts.problem_ids]
      assert counts.c.tolist() == found.sum(axis=1)[order].tolist()
  assert document['models']['rl']['tokens'] == kept.counts('rl', 'sums').tokens
  row = kept.read('rl', 'sums').to_pylist()[5]
  assert row['text'] == files.text_of(bool(B[0, 5]), 0, 5)
  assert (row['finish'], row['tokens'], row['logprob_sum']) == ('', [], None)
  assert np.isnan(row['logprob_sum_sampled'])
  files.jsonl(path, files.schema_rows(A | B, verifier='exact-1'))
  run(tmp_path, f'base={ours},rl={path}')
  assert kept.counts('rl', 'sums').c.sum() == (A | B).sum()
  files.our_store(tmp_path / 'out', 'third', B)
  with pytest.raises(ValueError, match='holds samples of its own'):
    run(tmp_path, f'base={ours},third={path}')
  in_place = tmp_path / 'out' / 'samples' / 'third'
  assert run(tmp_path, f'base={ours},third={in_place}')['models'].keys() == {'base', 'third'}


def test_our_stores_of_other_task_names_are_kept_under_one(tmp_path):
  first = files.our_store(tmp_path / 'a', 'a', A)
  second = files.our_store(tmp_path / 'b', 'b', B, task='totals')
  run(tmp_path, f'base={first},rl={second}')
  kept = SampleStore(tmp_path / 'out' / 'samples')
  assert kept.models() == {'base': ['sums'], 'rl': ['sums']}
  assert kept.counts('rl', 'sums').c.sum() == B.sum()


def test_anothers_shards_of_our_names_are_read_as_theirs(tmp_path):
  rows = files.schema_rows(A)
  pq.write_table(pa.Table.from_pylist(rows[:400]), tmp_path / 'part-00000.parquet')
  pq.write_table(pa.Table.from_pylist(rows[400:]), tmp_path / 'part-00001.parquet')
  document = run(tmp_path, f'base={tmp_path}')
  assert document['sources'][0]['format'] == 'samples of the documented schema'
  assert document['sources'][0]['samples'] == A.size


def test_a_run_with_several_models_asks_for_one(tmp_path):
  files.our_store(tmp_path, 'base', A)
  files.our_store(tmp_path, 'rl', B)
  with pytest.raises(ValueError, match='holds the models base, rl; name one by its path'):
    run(tmp_path, str(tmp_path))


BLOCKED = """
import socket, sys

class Absent:
  def find_spec(self, name, path=None, target=None):
    if name in ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'tensorflow'):
      raise ModuleNotFoundError(name + ' is blocked')

sys.meta_path.insert(0, Absent())
socket.socket.connect = None
sys.argv = ['main.py', *{words!r}]
import main
from absl import app
app.run(main.main, argv=sys.argv, flags_parser=main.parse_flags)
"""


def test_the_demonstration_finds_what_was_planted_without_jax_or_network(tmp_path):
  words = ['--config=configs/demo.py', f'--workdir={tmp_path}', '--config.evaluate.bootstrap=500']
  code = BLOCKED.format(words=words)
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
  )
  assert done.returncode == 0, done.stderr
  document = json.loads((tmp_path / 'results.json').read_text())
  by_model = {one['b']: one for one in document['comparisons']}
  k = str(document['headline']['k'])
  assert by_model['sharpened']['difference']['1'][1] > 0
  assert by_model['sharpened']['difference'][k][2] < 0
  assert by_model['sharpened']['crossover_k'][0] is not None
  assert by_model['distilled']['difference'][k][1] > 0
  for value, low, high in (by_model['same']['difference'][k], by_model['same']['difference']['1']):
    assert low < value < high
    assert low < 0 < high
  html = (tmp_path / 'report.html').read_text()
  assert 'simulated' in html
  assert 'no model was trained or sampled' in html


def test_the_demonstrations_tables_are_those_of_their_script():
  sys.path.insert(0, str(ROOT / 'configs' / 'demo'))
  try:
    import make
  finally:
    sys.path.pop(0)
  for name, text in make.tables().items():
    assert (ROOT / 'configs' / 'demo' / f'{name}.csv').read_text() == text
