"""job=perplexity: rows equal scores of their own, parts are kept, mistakes are named."""

import json
import math
import re

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import sampling_runs as runs
from test_sample import job_config, quick

from configs import perplexity as perplexity_config
from rlvr_jax import config as config_lib
from rlvr_jax.eval import figures_perplexity, perplexity_job, sample, surprise
from rlvr_jax.eval.authors import Written, find_authors, listing
from rlvr_jax.eval.likelihood import Settings, token_scores
from rlvr_jax.eval.perplexity_job import perplexity
from rlvr_jax.eval.perplexity_rows import completion_ids
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.models.characters import char_tokenizer
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.hf import save_safetensors
from rlvr_jax.models.load import load_model
from rlvr_jax.models.transformer import init_params

_ = quick  # one device of the eight, as in test_sample
ROWS = [{'question': f'a+{a}?', 'answer': a} for a in ('b', 'c', 'jjjj')]


def save_model(directory, seed, alphabet=runs.ALPHABET):
  """Random, but not flat: its nucleus at 0.9 leaves tokens out."""
  tokenizer = char_tokenizer(alphabet)
  config = ModelConfig('llama', tokenizer.vocab_size, 16, 16, 1, 2, 1, 8)
  params = init_params(jax.random.key(seed), config)
  params['embed'] = 0.4 * jax.random.normal(jax.random.key(seed), params['embed'].shape)
  save_safetensors(directory, params, config, tokenizer)
  return directory


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Two models with a store each (n = 12, T = 0.9, top_p = 0.9), and a file of answers."""
  root = tmp_path_factory.mktemp('perplexity')
  (root / 'three.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in ROWS))
  for seed, name in enumerate(('one', 'two')):
    model = save_model(root / f'model_{name}', seed)
    settings = {'evaluate.temperature': 0.9, 'evaluate.top_p': 0.9, 'evaluate.n': 12}
    config = job_config(model, root / 'three.jsonl', **settings, **{'evaluate.name': name})
    workdir = config_lib.prepare_workdir(root / name)
    config_lib.save(config, workdir)
    sample.evaluate(config, workdir)
  lines = [{'id': '0', 'answer': 'ab'}, {'id': '2', 'answer': ['jjjj', 'j']}]
  (root / 'gold.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return root


def job(made, workdir, *, drawn=False, **changes):
  """What the job returns. Its figures take most of the time: drawn only where they are seen."""
  config = perplexity_config.get_config()
  keys = {'stores': f'{made}/one,{made}/two,{made}/gold.jsonl', 'perplexity.samples': 12}
  keys |= {'sampling.prompt_capacity': 16, 'sampling.max_tokens': 6, 'perplexity.calibration': 3}
  config = config_lib.resolve(config, keys | {k.replace('__', '.'): v for k, v in changes.items()})
  with pytest.MonkeyPatch.context() as patch:
    if not drawn:
      patch.setattr(figures_perplexity, 'plots', lambda table, document: [])
    return perplexity(config, config_lib.prepare_workdir(workdir))


@pytest.fixture(scope='module')
def done(made, quick):
  return made / 'work', job(made, made / 'work', drawn=True)


def test_every_row_is_the_score_of_its_completion(made, done):
  workdir, document = done
  rows = pq.read_table(workdir / 'perplexity.parquet').to_pylist()
  assert len(rows) == 2 * (36 + 36 + 3)
  assert list(document['models']) == ['one', 'two']
  assert document['models']['two']['settings'] == {
    'jsonl': {'temperature': 0.9, 'top_p': 0.9, 'top_k': 0, 'max_tokens': 6}
  }
  prompts = {str(i): f'a+{row["answer"]}?' for i, row in enumerate(ROWS)}
  stored = {
    name: {
      (r['problem_id'], r['sample']): r
      for r in SampleStore(made / name / 'samples').read(name, 'jsonl').to_pylist()
    }
    for name in ('one', 'two')
  }
  gold = {('0', 0): 'ab', ('2', 0): 'jjjj', ('2', 1): 'j'}
  for name in ('one', 'two'):
    config, params, tokenizer = load_model(made / f'model_{name}')
    mine = [r for r in rows if r['model'] == name]
    asked = []
    for r in mine:
      key = r['problem_id'], r['sample']
      if r['author'] == 'gold':
        ids = [*tokenizer.encode(gold[key], special=False), *tokenizer.eos_ids]
      else:
        ids = stored[r['author']][key]['tokens']
      asked.append((tokenizer.encode(prompts[r['problem_id']]), ids))
    for i, got in token_scores(params, config, asked, Settings(0.9, 0.9)):
      r = mine[i]
      assert r['tokens'] == len(asked[i][1])
      assert r['logprob'] == pytest.approx(float(np.sum(got.logprobs, dtype=float)), abs=1e-4)
      if r['first_outside'] < 0 and not r['edge']:
        assert r['reach'] == pytest.approx(float(np.sum(got.drawn, dtype=float)), abs=1e-4)
      else:
        assert np.isneginf(got.drawn).any()
      if r['author'] == name:
        recorded = stored[name][r['problem_id'], r['sample']]['logprob_sum_sampled']
        assert r['tempered'] == pytest.approx(recorded, abs=1e-4)
        assert r['first_outside'] < 0  # what a model drew, it can draw
      assert not r['reencoded'] or r['author'] == 'gold'
  outside = [r for r in rows if r['first_outside'] >= 0]
  assert outside
  assert all(r['reach'] == -math.inf and r['outside_mass'] >= 0.9 for r in outside)


def test_what_is_written(done):
  workdir, document = done
  assert document == json.loads((workdir / 'perplexity.json').read_text())
  assert document['checks']['own_outside'] == 0
  assert document['checks']['gap_largest'] < 1e-4
  pairs = {(one['model'], one['author']) for one in document['perplexity']}
  assert pairs == {(m, a) for m in ('one', 'two') for a in ('one', 'two', 'gold')}
  reached = pq.read_table(workdir / 'reach.parquet')
  assert set(reached['verdict'].to_pylist()) == {'correct'}
  assert {'drawable', 'own_rank', 'log10_probability'} <= set(reached.column_names)
  assert document['importance']
  assert all(r['samples'] == 12 for r in document['importance'])
  lines = (workdir / 'perplexity_problems.csv').read_text().splitlines()
  assert len(lines) == 1 + 2 * (3 + 3 + 2)
  page = (workdir / 'perplexity.html').read_text()
  assert page.count('<svg') >= 4
  assert 'class="surprise"' in page
  assert not re.search(r'(src|href|url)\W{1,2}https?:', page)  # nothing is fetched


def test_what_is_scored_is_not_scored_again(made, done, monkeypatch):
  workdir, document = done
  scored = []
  real = perplexity_job.score_block

  def counting(model, author, block, *args, **options):
    scored.extend(block)
    return real(model, author, block, *args, **options)

  monkeypatch.setattr(perplexity_job, 'score_block', counting)
  page = (workdir / 'perplexity.html').read_text()
  assert job(made, workdir, drawn=True) == document
  assert (workdir / 'perplexity.html').read_text() == page
  assert not scored
  # half of one part lost: only that is scored anew, and the result is the same
  (part,) = (workdir / 'perplexity' / 'two' / 'one' / 'jsonl').glob('part-*')
  table = pq.read_table(part)
  pq.write_table(table[:10], part)
  assert job(made, workdir) == document
  assert len(scored) == len(table) - 10


def test_other_settings_are_refused(made, done):
  workdir, _ = done
  with pytest.raises(ValueError, match=r'was scored otherwise .*shown: 2, now 1'):
    job(made, workdir, perplexity__shown=1)
  with pytest.raises(ValueError, match='drawn with another prompt template'):
    job(made, made / 'w2', task__path=str(made / 'three.jsonl'), task__template='qwen-boxed')


def test_models_by_name_and_reach_left_out(made, tmp_path):
  models = f'judge={made}/model_two'
  document = job(
    made, tmp_path, stores=f'{made}/one', perplexity__models=models, perplexity__reach=False
  )
  assert list(document['models']) == ['judge']
  assert document['reach'] == document['importance'] == []
  assert not (tmp_path / 'reach.parquet').exists()
  mine = document['perplexity'][0]
  theirs = job(made, tmp_path / 'b', stores=f'{made}/one', perplexity__models=models)
  assert mine['value'] == pytest.approx(theirs['perplexity'][0]['value'], rel=1e-5)
  # no store of its own: the evaluate group's settings
  assert theirs['models']['judge']['settings']['jsonl']['top_p'] == 0.95


def test_mistakes_are_named(made, tmp_path):
  with pytest.raises(ValueError, match='needs completions'):
    job(made, tmp_path, stores='')
  with pytest.raises(ValueError, match='holds no samples'):
    job(made, tmp_path, stores=str(made / 'model_one'))
  with pytest.raises(ValueError, match="both called 'one'"):
    job(made, tmp_path, stores=f'{made}/one,{made}/one')
  with pytest.raises(ValueError, match=r"perplexity\.pair='one,gold'"):
    job(made, tmp_path, perplexity__pair='one,gold')
  with pytest.raises(ValueError, match='nobody has completions of'):
    job(made, tmp_path, perplexity__problem_ids=('7',))
  (tmp_path / 'bad.jsonl').write_text('{"id": "9", "answer": "x"}\n')
  with pytest.raises(ValueError, match='not among the 3 problems'):
    job(made, tmp_path, stores=f'{made}/one,{tmp_path}/bad.jsonl')


def test_another_tokenizer_reads_the_text_anew():
  tokenizer = char_tokenizer('abc')
  own = np.array([2, 3, 1], np.int32)
  assert completion_ids(tokenizer, Written('p', 0, 'ab', 'correct', 'eos', own), '') == (
    [2, 3, 1],
    False,
  )
  foreign = Written('p', 0, 'ab', 'correct', 'eos', np.array([700, 9], np.int32))
  assert completion_ids(tokenizer, foreign, '') == ([2, 3, 1], True)
  cut = Written('p', 0, 'ab', 'wrong', 'length', np.array([2, 3], np.int32))
  assert completion_ids(tokenizer, cut, '') == ([2, 3], False)
  # the author's stop token is none of this model's: it gets one of its own
  other_stop = Written('p', 0, 'ab', 'correct', 'eos', np.array([2, 3, 0], np.int32))
  assert completion_ids(tokenizer, other_stop, '') == ([2, 3, 1], False)
  talk = Written('p', 0, 'ba', 'correct', 'eos', own, np.array([True, False, True]))
  with pytest.raises(ValueError, match='conversation'):
    completion_ids(tokenizer, talk, 'here')


def test_listing_leaves_out_draws_of_training(made):
  author, *_ = find_authors(f'mine={made}/one/samples/one/jsonl')
  assert (author.name, author.task, author.run) == ('mine', 'jsonl', made / 'one')
  assert len(listing(author)) == 36


def test_surprise_is_escaped_and_whole():
  pieces = ['<b>', ' & ', '', 'é']
  html = surprise.spans(pieces, [0.01, 0.5, 3.0, 9.0], [True, True, False, True])
  assert '&lt;b&gt;' in html
  assert '<b>' not in html
  assert html.count('<span') == 4
  assert 'class="s3 out" title="p = 0.0498, 3.00 nats, cannot be drawn here"' in html
  decode = lambda ids: bytes(ids).decode('utf-8', 'replace')  # noqa: E731
  text = 'aé€😀b'
  tokens = list(text.encode())
  assert ''.join(surprise.pieces_of(tokens, decode)) == text
  assert surprise.pieces_of(tokens, decode)[:3] == ['a', '', 'é']
  assert surprise.pieces_of([0x61, 0xF0], decode) == ['a', '\ufffd']
