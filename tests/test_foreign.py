"""Every format of samples gives the counts that were put in, and what is damaged is named."""

import gzip
import json
import pathlib
import shutil

import foreign_files as files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr_jax.eval import rejudge, sources
from rlvr_jax.tasks.pool import VerifierPool

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOUND = files.verdicts(0)
C = FOUND.sum(axis=1)


def by_id(source):
  return dict(zip(source.counts.problem_ids, source.counts.c.tolist(), strict=True))


def expected(prefix: str = 'p'):
  return {f'{prefix}{p}': int(c) for p, c in enumerate(C)}


def parquet(path, rows):
  pq.write_table(pa.Table.from_pylist(rows), path)
  return path


def write(kind, folder):
  """(path, kind in words, prefix of ids) of FOUND written in one format."""
  rows = files.schema_rows(FOUND)
  if kind == 'jsonl':
    return files.jsonl(folder / 'x.jsonl', rows), 'documented schema', 'p'
  if kind == 'gzip':
    path = files.jsonl(folder / 'x.jsonl', rows)
    packed = folder / 'x.jsonl.gz'
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed, 'documented schema', 'p'
  if kind == 'parquet':
    return parquet(folder / 'x.parquet', rows), 'documented schema', 'p'
  if kind == 'verdicts':
    named = [{'id': r['problem_id'], 'verdict': 'correct' if r['correct'] else 'unparsed'}
             for r in rows]  # fmt: skip
    return files.jsonl(folder / 'x.jsonl', named), 'documented schema', 'p'
  if kind == 'rewards':
    named = [{'problem_id': r['problem_id'], 'reward': 1.0 if r['correct'] else 0.1} for r in rows]
    return parquet(folder / 'x.parquet', named), 'documented schema', 'p'
  if kind == 'lists':
    named = [{'idx': f'p{p}', 'correct': row.tolist()} for p, row in enumerate(FOUND)]
    return files.jsonl(folder / 'x.jsonl', named), 'documented schema', 'p'
  if kind == 'csv':
    return files.counts_csv(folder / 'x.csv', FOUND), 'table of counts', 'p'
  if kind == 'counts':
    named = [{'problem_id': f'p{p}', 'n': files.N, 'c': int(c)} for p, c in enumerate(C)]
    return parquet(folder / 'x.parquet', named), 'table of counts', 'p'
  if kind == 'lm-eval':
    path = folder / 'samples_x_2026-01-01T00-00-00.jsonl'
    return files.jsonl(path, files.lm_eval_rows(FOUND)), 'lm-evaluation-harness', ''
  if kind == 'pass@1':
    named = [{**r, 'metrics': ['pass@1'], 'pass@1': float(np.mean(r['exact_match']))}
             for r in files.lm_eval_rows(FOUND)]  # fmt: skip
    return files.jsonl(folder / 'x.jsonl', named), 'lm-evaluation-harness', ''
  if kind == 'evalplus':
    path = folder / 'x_eval_results.json'
    path.write_text(json.dumps(files.evalplus_results(FOUND | files.verdicts(1), FOUND)))
    return path, 'evalplus', 'HumanEval/'
  return files.our_store(folder, 'base', FOUND), 'sample store', 'p'


KINDS = ('jsonl', 'gzip', 'parquet', 'verdicts', 'rewards', 'lists', 'csv', 'counts', 'lm-eval',
         'pass@1', 'evalplus', 'ours')  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_every_format_gives_the_counts_that_went_in(tmp_path, kind):
  path, words, prefix = write(kind, tmp_path)
  source = sources.open_source(f'base={path}')
  assert words in source.kind
  assert source.name == 'base'
  assert by_id(source) == expected(prefix)
  assert (source.counts.n == files.N).all()
  assert (source.draws == files.N).all()


def test_texts_prompts_answers_and_settings_come_along(tmp_path):
  source = sources.open_source(str(files.jsonl(tmp_path / 'x.jsonl', files.lm_eval_rows(FOUND))))
  assert source.name == 'x'
  assert source.settings == {'temperature': 0.6, 'max_tokens': 64}
  assert source.verifier == 'lm-evaluation-harness exact_match,take_all'
  assert source.problems['3'].prompt == 'Q: What is 3?\nA:'
  assert source.problems['3'].answer == '3'
  assert source.rows is not None
  row = source.rows[7 * files.N + 5]
  right = bool(FOUND[7, 5])
  assert (row.problem, row.sample, row.length) == ('7', 5, None)
  assert row.text == files.text_of(right, 7, 5)
  assert row.verdict == ('correct' if right else 'wrong')
  rows = files.schema_rows(FOUND, temperature=0.6, verifier='v', prompt='P', answer='A')
  source = sources.open_source(str(files.jsonl(tmp_path / 'y.jsonl', rows)))
  assert source.settings == {'temperature': 0.6}
  assert source.verifier == 'v'
  assert source.problems['p3'].prompt == 'P'
  assert source.counts.tokens == FOUND.size / files.N * sum(5 + s for s in range(files.N))


def test_evalplus_has_two_verdicts_and_an_older_form(tmp_path):
  base, plus = FOUND | files.verdicts(1), FOUND
  path = tmp_path / 'x.json'
  path.write_text(json.dumps(files.evalplus_results(base, plus)))
  source = sources.open_source(str(path), metric='base')
  assert by_id(source) == {f'HumanEval/{p}': int(c) for p, c in enumerate(base.sum(axis=1))}
  old = {
    f'HumanEval/{p}': {
      'nfiles': files.N,
      'base': [['pass' if x else 'fail', []] for x in base[p]],
      'plus': [['pass' if x else 'timeout', []] for x in plus[p]],
    }
    for p in range(files.PROBLEMS)
  }
  path.write_text(json.dumps({'eval': old}))
  source = sources.open_source(str(path))
  assert by_id(source) == expected('HumanEval/')
  assert source.counts.verdicts['timeout'].sum() == (base & ~plus).sum()


def test_columns_may_be_named_and_samples_cut(tmp_path):
  rows = [{'who': r['problem_id'], 'ok': r['correct'], 'sample': r['sample']}
          for r in files.schema_rows(FOUND)]  # fmt: skip
  path = str(files.jsonl(tmp_path / 'x.jsonl', rows))
  source = sources.open_source(path, fields={'id': 'who', 'verdict': 'ok'}, samples=8)
  assert by_id(source) == {f'p{p}': int(c) for p, c in enumerate(FOUND[:, :8].sum(axis=1))}


def test_files_of_a_folder_are_counted_on(tmp_path):
  """Two logs of lm-evaluation-harness are more repeats; copies of one are refused."""
  for i, part in enumerate(np.split(FOUND, 2, axis=1)):
    files.jsonl(tmp_path / f'samples_x_{i}.jsonl', files.lm_eval_rows(part))
  (tmp_path / 'results_x_0.json').write_text('{"results": {}}')
  assert by_id(sources.open_source(str(tmp_path))) == expected('')
  files.jsonl(tmp_path / 'samples_x_1.jsonl', files.lm_eval_rows(FOUND[:, : files.N // 2]))
  with pytest.raises(ValueError, match='the same samples as another file'):
    sources.open_source(str(tmp_path))
  apart = tmp_path / 'apart'
  for kind in ('jsonl', 'csv'):
    shutil.rmtree(apart, ignore_errors=True)
    apart.mkdir()
    for name, found in (('a', FOUND[:9]), ('b', files.verdicts(7)[:9])):
      if kind == 'csv':
        files.counts_csv(apart / f'{name}.csv', found)
      else:
        files.jsonl(apart / f'{name}.jsonl', files.schema_rows(found))
    with pytest.raises(ValueError, match="sample 0 of problem 'p0' is in several of 2 files"):
      sources.open_source(str(apart))
  files.counts_csv(tmp_path / 'z.csv', FOUND)
  with pytest.raises(ValueError, match='several kinds: samples_x_0'):
    sources.open_source(str(tmp_path))


def change(rows, at, **values):
  return [{**row, **values} if i == at else row for i, row in enumerate(rows)]


BAD = {
  'nothing known': (lambda r: [{'a': 1}], r"x.jsonl:1: a row with 'a'; needed are columns"),
  'no verdict': (
    lambda r: [{'task_id': 'HumanEval/0', 'solution': 'x'}],
    'judged by --config=configs/score.py',
  ),
  'no row': (lambda r: [], 'holds no row'),
  'a number twice': (lambda r: [*r, r[40]], r"sample 8 of problem 'p1' is also at .*x.jsonl:41"),
  'another verdict': (lambda r: change(r, 9, correct='maybe'), r"x.jsonl:10: correct='maybe'"),
  'contradiction': (
    lambda r: change(r, 9, verdict='correct', correct=False),
    "correct=False contradicts verdict='correct'",
  ),
  'no id': (lambda r: change(r, 9, problem_id=None), 'problem_id=None names no problem'),
  'verifiers': (
    lambda r: [{**row, 'verifier': f'v{i // 100}'} for i, row in enumerate(r)],
    r"several verifier versions, verifier='v1' after verifier='v0'",
  ),
  'settings': (
    lambda r: [{**row, 'temperature': 0.6 + i // 100} for i, row in enumerate(r)],
    'several settings, temperature=1.6 after temperature=0.6',
  ),
  'prompts': (
    lambda r: [{**row, 'prompt': f'Q{i // 10}'} for i, row in enumerate(r)],
    "problem 'p0' has another prompt than in an earlier row",
  ),
  'some numbered': (lambda r: change(r, 9, sample=None), 'some rows have a sample number'),
  'a gap': (lambda r: r[:40] + r[41:], "not numbered 0, 1, 2, ..., e.g. those of 'p1'"),
  'ragged': (
    lambda r: [row for row in r if row['problem_id'] != 'p3' or row['sample'] < 20],
    r"1 of 24 problems have fewer than 32 draws, e.g. 'p3' \(20\)",
  ),
  'joined to itself': (
    lambda r: [{k: v for k, v in row.items() if k != 'sample'} for row in r + r],
    'its second half repeats the first',
  ),
  'stopped and said so': (
    lambda r: [{**row, 'first': 8, 'stop_after': 2} for row in r],
    'stopped early .* Ask for the first with --config.compare.samples=8',
  ),
  'errors': (
    lambda r: [{'problem_id': f'p{i % 9}', 'verdict': 'error' if i < 9 else 'wrong'}
               for i in range(90)],
    'are verifier errors',
  ),
}  # fmt: skip


@pytest.mark.parametrize('bad', BAD)
def test_a_bad_file_is_named(tmp_path, bad):
  make, message = BAD[bad]
  path = files.jsonl(tmp_path / 'x.jsonl', make(files.schema_rows(FOUND)))
  with pytest.raises(ValueError, match=message):
    sources.open_source(str(path))


def test_ragged_samples_pass_where_that_is_allowed(tmp_path):
  rows = [r for r in files.schema_rows(FOUND) if r['problem_id'] != 'p3' or r['sample'] < 20]
  path = str(files.jsonl(tmp_path / 'x.jsonl', rows))
  assert sources.open_source(path, ragged=True).counts.smallest_n == 20
  assert (sources.open_source(path, samples=20).counts.n == 20).all()


def test_a_torn_file_is_named(tmp_path):
  whole = files.jsonl(tmp_path / 'x.jsonl', files.schema_rows(FOUND))
  content = whole.read_bytes()
  whole.write_bytes(content[:-20])
  with pytest.raises(ValueError, match=r'x.jsonl:768: not JSON'):
    sources.open_source(str(whole))
  packed = tmp_path / 'y.jsonl.gz'
  packed.write_bytes(gzip.compress(content)[:-30])
  with pytest.raises(ValueError, match='is damaged'):
    sources.open_source(str(packed))
  table = parquet(tmp_path / 'z.parquet', files.schema_rows(FOUND))
  table.write_bytes(table.read_bytes()[:-7])
  with pytest.raises(ValueError, match=r'z.parquet is torn or corrupt'):
    sources.open_source(str(table))
  csv = files.counts_csv(tmp_path / 'c.csv', FOUND)
  csv.write_text(csv.read_text()[:-6] + '\n')
  with pytest.raises(ValueError, match=r'c.csv: row 23'):
    sources.open_source(str(csv))
  (tmp_path / 'e.json').write_text(json.dumps(files.evalplus_results(FOUND, FOUND))[:-50])
  with pytest.raises(ValueError, match='the file is cut short'):
    sources.open_source(str(tmp_path / 'e.json'))
  (tmp_path / 'e.json').write_text('{"eval": {"a": [], "a": []}}')
  with pytest.raises(ValueError, match="'a' stands in it twice"):
    sources.open_source(str(tmp_path / 'e.json'))


def test_counts_that_cannot_be_are_named(tmp_path):
  path = tmp_path / 'x.csv'
  for rows, message in {
    'p0,4,5': 'c is from 0 to n',
    'p0,4,1\np0,4,2': "problem 'p0' stands in .* twice",
    'p0,4.5,1': "n='4.5' is no whole number",
    '\n'.join(f'p{i},{n},1' for i, n in enumerate((8, 8, 3, 4, 6, 2))): 'looks stopped early',
  }.items():
    path.write_text(f'problem_id,n,c\n{rows}\n')
    with pytest.raises(ValueError, match=message):
      sources.open_source(str(path))


LM_BAD = {
  'one verdict for many': (
    lambda rows: [{**row, 'exact_match': 1.0} for row in rows],
    {},
    'several repeats of a problem but one verdict',
  ),
  'filters': (
    lambda rows: [{**row, 'filter': f} for row in rows for f in ('strict', 'flexible')],
    {},
    "several filters, strict, flexible; choose one with --config.compare.metric='exact_match,fl",
  ),
  'which metric': (
    lambda rows: [{**row, 'metrics': ['bleu', 'rouge'], 'bleu': 1, 'rouge': 1} for row in rows],
    {},
    'which of the metrics bleu, rouge',
  ),
  'joined': (lambda rows: rows + rows[:1], {}, 'doc_id 0 is also at'),
  'a share': (
    lambda rows: [{**row, 'exact_match': [0.5] * files.N} for row in rows],
    {},
    'exact_match=0.5 is neither 0 nor 1',
  ),
  'lengths': (
    lambda rows: [{**row, 'exact_match': [1.0]} for row in rows],
    {},
    '32 repeats but 1 values of exact_match',
  ),
  'no such': (lambda rows: rows, {'metric': 'acc'}, "no metric 'acc'; the line has exact_match"),
}


@pytest.mark.parametrize('bad', LM_BAD)
def test_a_log_of_lm_eval_that_does_not_say_enough_is_named(tmp_path, bad):
  make, options, message = LM_BAD[bad]
  path = files.jsonl(tmp_path / 'x.jsonl', make(files.lm_eval_rows(FOUND)))
  with pytest.raises(ValueError, match=message):
    sources.open_source(str(path), **options)


def test_completions_may_be_judged_anew(tmp_path):
  rows = [{**row, 'exact_match': 0.0} for row in files.lm_eval_rows(FOUND)]
  path = files.jsonl(tmp_path / 'x.jsonl', rows)  # 32 repeats with one verdict
  with VerifierPool(1) as pool:

    def judge(draws, where):
      return rejudge.rejudged(draws, f'{ROOT}/tests/data/plain_check.py:starts', pool, where)

    source = sources.open_source(str(path), judge=judge)
    assert by_id(source) == expected('')
    assert 'plain_check.py' in source.verifier
    counts = str(files.counts_csv(tmp_path / 'c.csv', FOUND))
    with pytest.raises(ValueError, match='needs completions, not counts'):
      sources.open_source(counts, judge=judge)
    lacking = files.jsonl(tmp_path / 'y.jsonl', files.schema_rows(FOUND))
    with pytest.raises(ValueError, match='needs a reference answer'):
      sources.open_source(str(lacking), judge=judge)
    with pytest.raises(ValueError, match=r'judge it anew with --config=configs/score.py'):
      sources.open_source(str(files.our_store(tmp_path, 'base', FOUND)), judge=judge)


def test_one_filter_of_a_log_is_chosen(tmp_path):
  rows = [
    {**row, 'filter': f, 'exact_match': [1.0] * files.N if f == 'flexible' else row['exact_match']}
    for row in files.lm_eval_rows(FOUND)
    for f in ('strict', 'flexible')
  ]
  path = str(files.jsonl(tmp_path / 'x.jsonl', rows))
  assert by_id(sources.open_source(path, metric='exact_match,strict')) == expected('')
  assert set(by_id(sources.open_source(path, metric=',flexible')).values()) == {files.N}
