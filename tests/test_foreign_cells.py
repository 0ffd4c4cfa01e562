"""Cells and files of other tools that are not what they seem: right numbers, or a refusal."""

import csv
import gzip
import json

import foreign_files as files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr_jax.eval import columns, rejudge, sources
from rlvr_jax.eval.importers import Draw, Draws

FOUND = files.verdicts(0)
C = {f'p{p}': int(c) for p, c in enumerate(FOUND.sum(axis=1))}
ROWS = files.schema_rows(FOUND)
COUNTS = 'problem_id,n,c\n' + ''.join(f'{p},{files.N},{c}\n' for p, c in C.items())


def by_id(path, **options):
  source = sources.open_source(str(path), **options)
  return dict(zip(source.counts.problem_ids, source.counts.c.tolist(), strict=True))


def written(path, content):
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return path


def changed(at, **values):
  return [{**row, **values} if i == at else row for i, row in enumerate(ROWS)]


LINES = ''.join(json.dumps(row) + '\n' for row in ROWS)


@pytest.mark.parametrize(
  ('name', 'content'),
  {
    'x.jsonl': '\ufeff' + LINES,
    'y.jsonl': LINES.replace('\n', '\r\n'),
    'x.json': '\ufeff' + json.dumps(ROWS),
    'x.csv': '\ufeff' + COUNTS,
    'y.csv': COUNTS.replace('\n', '\r\n'),
    'z.csv': '\n# of a spreadsheet\n\n' + COUNTS + '\n',
  }.items(),
)
def test_marks_of_other_systems_change_nothing(tmp_path, name, content):
  assert by_id(written(tmp_path / name, content)) == C


def test_a_csv_means_what_its_cells_say(tmp_path):
  """Texts that look like verdicts stay texts; empty cells are not known; long ones are read."""
  path = tmp_path / 'x.csv'
  with path.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['problem_id', 'correct', 'text', 'length', 'temperature'])
    writer.writerow(['true', 'TRUE', 'True', '', '0.6'])
    writer.writerow(['true', 'false', 'a "quoted"\n, text', '7', '0.60'])
    writer.writerow(['True', '1', 'x' * 200_000, '3', '0.6'])
    writer.writerow(['True', '0', '', '', '0.6'])
  source = sources.open_source(str(path))
  assert source.counts.problem_ids == ('True', 'true')
  assert source.counts.c.tolist() == [1, 1]
  assert source.settings == {'temperature': 0.6}
  assert source.rows is not None
  assert [row.text for row in source.rows] == ['True', 'a "quoted"\n, text', 'x' * 200_000, '']
  assert [row.length for row in source.rows] == [None, 7, 3, None]


GZ = gzip.compress(COUNTS.encode())
BAD_FILES = {
  'cut in a quote': ('x.csv', 'problem_id,correct,text\np0,1,"a\np0,0,b\n', 'no CSV after row 0'),
  'cut in a number': ('x.csv', COUNTS[:-2], r"the last line 'p23,32,\d' has no end"),
  'a column twice': ('x.csv', 'problem_id,c,c,n\np0,1,2,3\n', "several columns 'c'; leave one"),
  'semicolons': ('x.csv', COUNTS.replace(',', ';'), 'to be parted by commas'),
  'another encoding': ('x.csv', COUNTS.encode('utf-16'), 'save it as UTF-8'),
  'a damaged csv.gz': ('x.csv.gz', GZ[:12] + b'\xff\xff' + GZ[14:], 'x.csv.gz: the file is dam'),
  'a damaged json.gz': (
    'x.json.gz',
    (lambda z: z[:12] + b'\xff\xff' + z[14:])(gzip.compress(json.dumps(ROWS).encode())),
    'x.json.gz: the file is damaged',
  ),
}


@pytest.mark.parametrize('bad', BAD_FILES)
def test_a_file_that_is_not_whole_is_named(tmp_path, bad):
  name, content, message = BAD_FILES[bad]
  with pytest.raises(ValueError, match=message):
    sources.open_source(str(written(tmp_path / name, content)))


def test_a_parquet_column_twice_is_named(tmp_path):
  table = pa.Table.from_pylist(ROWS)
  twice = pa.Table.from_arrays(
    [table['problem_id'], table['correct'], table['correct']], ['problem_id', 'correct', 'correct']
  )
  pq.write_table(twice, tmp_path / 'x.parquet')
  with pytest.raises(ValueError, match=r"x.parquet has several columns 'correct'"):
    sources.open_source(str(tmp_path / 'x.parquet'))


@pytest.mark.parametrize(
  'values',
  [{'correct': 'TRUE'}, {'correct': '1'}, {'correct': 1.0}, {'correct': 'correct'},
   {'correct': True, 'text': '\ud800'}, {'correct': True, 'text': 'x' * 10**6}],
)  # fmt: skip
def test_a_verdict_may_be_written_in_many_ways(tmp_path, values):
  assert not FOUND[0, 9]
  path = files.jsonl(tmp_path / 'x.jsonl', changed(9, **values))
  assert by_id(path) == {**C, 'p0': C['p0'] + 1}
  source = sources.open_source(str(path))
  assert source.rows is not None
  assert source.rows[9].text == values.get('text', ROWS[9]['text']).replace('\ud800', '\ufffd')


BAD_CELLS = [
  *({'correct': v} for v in (0.5, 2, -1, float('nan'), float('inf'), 10**400, 'yes', [], {}, '')),
  *({'problem_id': v} for v in (float('nan'), True, '\ud800', '', None, [1])),
  *({'sample': v} for v in (10**400, 10**12, -1, 1.5, True, float('nan'))),
  *({'length': v} for v in (10**12, -1, 1.5, 'x', [3])),
  *({'text': v} for v in (3, ['a'], {})),
  *({'temperature': v} for v in ('hot', -1, float('nan'), {}, 0.6)),  # 0.6: the others do not say
  *({'coupling': v} for v in ('foo', 'common')),
  *({'first': v, 'stop_after': 1} for v in ('x', 0)),
]


@pytest.mark.parametrize('values', BAD_CELLS, ids=lambda v: str(v)[:24])
def test_a_cell_that_cannot_be_is_named_with_its_place(tmp_path, values):
  path = files.jsonl(tmp_path / 'x.jsonl', changed(9, **values))
  with pytest.raises(ValueError, match=r'x.jsonl(:10)?: ') as told:
    sources.open_source(str(path))
  assert next(iter(values)) in str(told.value)
  assert len(str(told.value)) < 400


def test_settings_are_one_for_a_file_and_texts_stay_texts(tmp_path):
  def of(*pairs):
    rows = [{**row, **dict(pairs[i * len(pairs) // len(ROWS)])} for i, row in enumerate(ROWS)]
    return str(files.jsonl(tmp_path / 'x.jsonl', rows))

  with pytest.raises(ValueError, match=r"verifier='1.1' after verifier='1.10'"):
    sources.open_source(of({'verifier': '1.10'}, {'verifier': '1.1'}))
  with pytest.raises(ValueError, match="prompt_hash='12' after prompt_hash='0012'"):
    sources.open_source(of({'prompt_hash': '0012'}, {'prompt_hash': '12'}))
  with pytest.raises(ValueError, match="verifier='v' in 384 of 768 rows, and the others do not"):
    sources.open_source(of({'verifier': 'v'}, {'verifier': None}))
  with pytest.raises(ValueError, match='need both columns, first and stop_after'):
    sources.open_source(of({'stop_after': 1}))
  one = {'verifier': '1.10', 'top_k': -1, 'temperature': '1.0', 'seed': 3}
  source = sources.open_source(of(one, {**one, 'top_k': 0, 'temperature': 1, 'seed': 4}))
  assert source.verifier == '1.10'
  assert source.settings == {'top_k': 0, 'temperature': 1, 'seed': 'several'}


def lists(**more):
  return [
    {'idx': f'p{p}', 'correct': row.tolist(), **{k: [v] * len(row) for k, v in more.items()}}
    for p, row in enumerate(FOUND)
  ]


def test_lists_belong_to_their_verdicts(tmp_path):
  path = files.jsonl(tmp_path / 'x.jsonl', lists(length=7, finish='length', text='t'))
  assert by_id(path) == C
  assert sources.open_source(str(path)).counts.tokens == 7 * FOUND.size
  numbered = [{**row, 'sample': list(range(files.N))[::-1]} for row in lists()]
  first = by_id(files.jsonl(path, numbered), samples=8)
  assert first == {f'p{p}': int(row[-8:].sum()) for p, row in enumerate(FOUND)}
  for rows, message in {
    'one text for many': ([{**row, 'text': 'x'} for row in lists()], "text='x' is no list of as"),
    'one number for many': ([{**row, 'sample': 0} for row in lists()], 'sample=0 is no list of'),
    'none': ([{**lists()[0], 'correct': []}, *lists()[1:]], 'holds no verdict'),
    'a number twice': ([{**row, 'sample': [0] * files.N} for row in lists()], 'is also at'),
    'twice': (lists() * 2, 'its second half repeats the first'),
    'contradiction': (lists(verdict='wrong'), "verdict='wrong' contradicts correct=True"),
  }.values():
    with pytest.raises(ValueError, match=message):
      sources.open_source(str(files.jsonl(path, rows)))


def test_a_named_column_may_be_one_of_several(tmp_path):
  """Files whose columns are called otherwise are compared; no column is guessed for a typo."""
  other = [{'q': row['problem_id'], 'correct': row['correct']} for row in ROWS]
  for rows in (ROWS, other):
    path = files.jsonl(tmp_path / 'x.jsonl', rows)
    assert by_id(path, fields={'id': 'q, problem_id'}) == C
  with pytest.raises(
    ValueError, match=r"x.jsonl:1: compare.fields.id='qq': there is no such column"
  ):
    by_id(path, fields={'id': 'qq'})


def test_a_folder_is_read_whole_or_not_at_all(tmp_path):
  files.jsonl(tmp_path / 'results_1.jsonl', ROWS)
  assert by_id(tmp_path) == C, 'only the summaries of lm-evaluation-harness are passed over'
  (tmp_path / 'results_2.json').write_text('{"results": {}, "configs": {}}')
  assert by_id(tmp_path) == C
  (tmp_path / 'y.jsonl.part').write_text('')
  with pytest.raises(
    ValueError, match=r'y.jsonl.part looks like a file that is still being written'
  ):
    by_id(tmp_path)
  (tmp_path / 'outer' / 'inner').mkdir(parents=True)
  with pytest.raises(ValueError, match='but the folders inner, of which one may be given'):
    by_id(tmp_path / 'outer')


def test_logs_of_two_tasks_are_not_one(tmp_path):
  """Both number their documents 0, 1, 2, ...: their hashes tell, where prompts are not logged."""
  for task in ('a', 'b'):
    rows = [{**row, 'arguments': None, 'prompt_hash': None, 'doc_hash': f'{task}{row["doc_id"]}'}
            for row in files.lm_eval_rows(files.verdicts(ord(task)))]  # fmt: skip
    files.jsonl(tmp_path / f'samples_{task}_1.jsonl', rows)
  with pytest.raises(ValueError, match=r"samples_b_1.jsonl: problem '0' has another prompt"):
    by_id(tmp_path)


def shares():
  return [{**row, 'metrics': ['pass@1'], 'pass@1': float(np.mean(row['exact_match']))}
          for row in files.lm_eval_rows(FOUND)]  # fmt: skip


def test_a_share_of_the_repeats_says_how_many_but_not_which(tmp_path):
  path = files.jsonl(tmp_path / 'x.jsonl', shares())
  source = sources.open_source(str(path))
  assert source.counts.c.sum() == FOUND.sum()
  assert source.rows is None, 'no store is made of verdicts whose order is not known'
  with pytest.raises(ValueError, match='but not which, so the first 8 are not known'):
    sources.open_source(str(path), samples=8)
  for value in (1.5, -1.0, 0.501, None, 'x', float('nan'), {}):
    with pytest.raises(ValueError, match=r'x.jsonl:1: pass@1=.* is no share of 32 repeats'):
      by_id(files.jsonl(path, [{**row, 'pass@1': value} for row in shares()]))


def test_repeats_of_a_share_may_be_judged_anew(tmp_path, monkeypatch):
  class Pool:
    def verify(self, asked):
      verdict = Draw('', 0, 'correct', reward=1.0)
      return [verdict for _ in asked]

  monkeypatch.setattr(rejudge, 'verifier_version', lambda name: f'{name}-1')

  def judge(draws: Draws, where):
    return rejudge.rejudged(draws, 'mine', Pool(), where)  # pyright: ignore[reportArgumentType]

  def unjudged(draws: Draws, where):
    return rejudge.rejudged(draws, 'none', Pool(), where)  # pyright: ignore[reportArgumentType]

  source = sources.open_source(
    str(files.jsonl(tmp_path / 'x.jsonl', shares())), judge=judge, samples=8
  )
  assert (source.counts.c == 8).all()
  assert source.verifier == 'mine-1'
  with pytest.raises(ValueError, match='judges nothing, so every sample would count as wrong'):
    sources.open_source(str(tmp_path / 'x.jsonl'), judge=unjudged)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'doc_id': None}, 'doc_id=None names no problem'),
    ({'doc_id': [3]}, 'names no problem'),
    (
      {'arguments': {'gen_args_0': {'arg_0': 'x', 'arg_1': {'temperature': 1.0}}}},
      'several settings, temperature=1 after 0.6',
    ),
  ],
)
def test_a_line_of_lm_eval_that_cannot_be_is_named(tmp_path, values, message):
  rows = [{**row, **values} if p == 3 else row for p, row in enumerate(files.lm_eval_rows(FOUND))]
  with pytest.raises(ValueError, match=rf'x.jsonl:4: .*{message}'):
    by_id(files.jsonl(tmp_path / 'x.jsonl', rows))


def test_repeats_need_no_texts(tmp_path):
  rows = [{k: v for k, v in row.items() if k != 'resps'} for row in files.lm_eval_rows(FOUND)]
  assert list(by_id(files.jsonl(tmp_path / 'x.jsonl', rows)).values()) == [
    int(FOUND[int(p)].sum()) for p in sorted(map(str, range(files.PROBLEMS)))
  ]


@pytest.mark.parametrize(
  ('entry', 'message'),
  [
    ([{'base_status': ['pass'], 'plus_status': 'pass'}], 'sample 0: base_status'),
    ([{'base_status': None, 'plus_status': 'pass'}], 'sample 0: base_status=None'),
    ([{'base_status': 'pass', 'plus_status': 'pass', 'solution': 3}], 'completion is 3, no text'),
    (['pass'], 'base_status=None'),
    ({'base': [None], 'plus': [['pass', []]]}, r'\[None\] is no list of'),
    ({'base': [[]], 'plus': []}, r'\[\[\]\] is no list of'),
    ({'base': [['pass', []]], 'plus': 3}, '3 is no list of'),
  ],
)
def test_an_entry_of_evalplus_that_cannot_be_is_named(tmp_path, entry, message):
  path = written(tmp_path / 'e.json', json.dumps({'eval': {'HumanEval/0': entry}}))
  with pytest.raises(ValueError, match=rf'e.json: .*HumanEval/0.*{message}'):
    sources.open_source(str(path))


def test_a_broken_pair_of_surrogates_is_replaced_and_a_whole_one_kept():
  assert columns.whole_text('a\U0001f600b') == 'a\U0001f600b'
  assert columns.whole_text('a\ud83d\ude00b\ud83d') == 'a\U0001f600b\ufffd'


def damage_metadata(path, raw):
  table = pq.read_table(path)
  pq.write_table(table.replace_schema_metadata({b'rlvr_jax.samples': raw} if raw else None), path)


@pytest.mark.parametrize('raw', [b'{', b'[]', b'{}', b'{"format": 1}', b'{"format": 1, "x": 2}'])
def test_damaged_metadata_of_a_shard_are_named(tmp_path, raw):
  folder = files.our_store(tmp_path, 'base', FOUND)
  damage_metadata(folder / 'part-00000.parquet', raw)
  with pytest.raises(ValueError, match=r'part-00000.parquet has damaged metadata'):
    sources.open_source(str(folder))


def test_a_store_in_part_without_metadata_is_not_taken_for_anothers(tmp_path):
  folder = files.our_store(tmp_path, 'base', FOUND)
  damage_metadata(folder / 'part-00000.parquet', b'')
  with pytest.raises(ValueError, match=r'part-00000.* is not a shard .* \(its metadata is missing'):
    sources.open_source(str(folder))


@pytest.mark.parametrize('content', ['{', '[]'])
def test_damaged_records_beside_a_store_are_named(tmp_path, content):
  folder = files.our_store(tmp_path, 'base', FOUND)
  for path in (folder / 'problems.json', tmp_path / 'config.json'):
    path.write_text(content)
    with pytest.raises(ValueError, match=rf'{path.name} is .*corrupt'):
      sources.open_source(str(folder))
    path.unlink()


def test_what_only_some_rows_say_is_not_counted(tmp_path):
  """No completion that was cut and no tokens, where a file does not say: not known, not zero."""

  def counts(rows):
    return sources.open_source(str(files.jsonl(tmp_path / 'x.jsonl', rows))).counts

  told = counts(
    [{**row, 'finish': 'max_tokens' if i % 4 else 'stop'} for i, row in enumerate(ROWS)]
  )
  assert told.truncated == len(ROWS) * 3 // 4
  assert told.tokens == sum(row['length'] for row in ROWS)
  some = counts(changed(9, length=None, finish='stop'))
  assert (some.tokens, some.truncated) == (0, None)
  assert sources.open_source(str(written(tmp_path / 'x.csv', COUNTS))).counts.truncated is None
