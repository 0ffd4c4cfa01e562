"""rlvr_jax.sample and job=sample are one thing; what is handed over works or is refused."""

import json
import signal
import subprocess
import sys

import jax
import pytest
import sampling_runs as runs

import rlvr_jax
from configs import base, quickstart
from configs import sample as sample_config
from rlvr_jax import config as config_lib
from rlvr_jax import graceful, study
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval import sample as sample_lib
from rlvr_jax.eval.fill import Stopped
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.models.load import load_model
from rlvr_jax.tasks import countdown
from rlvr_jax.tasks.problem import Problem

SIZES = {'slots': 16, 'bank_rows': 4, 'page': 16, 'prompt_capacity': 16, 'chunk': 4}
ROWS = [{'question': f'a+{a}?', 'answer': a} for a in ('ab', 'c', 'jjjj')]
VERIFIER = f'{runs.CHECK}:check'


@pytest.fixture(scope='module', autouse=True)
def quick():
  """One device of the eight, and programs that compile fast."""
  jax.config.update('jax_disable_most_optimizations', True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_lib, 'make_mesh', lambda config: None)
    yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return runs.save_tiny_model(tmp_path_factory.mktemp('models') / 'tiny')


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp('problems') / 'three.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in ROWS))
  return path


def sample(model, problems, k=8, **options):
  options = {'max_tokens': 6, 'verifier': VERIFIER, 'workers': 1, 'show': False, **options}
  return rlvr_jax.sample(model, problems, k, **SIZES, **options)


def job_config(model, path, **changes):
  keys = {f'sampling.{key}': value for key, value in SIZES.items()}
  keys |= {'model.name': str(model), 'task.path': str(path), 'task.verifier': VERIFIER}
  keys |= {'sampling.max_tokens': 6, 'evaluate.n': 8, 'verifier.workers': 1}
  return config_lib.resolve(sample_config.get_config(), keys | changes)


def test_importing_the_package_imports_no_jax():
  code = "import sys, rlvr_jax; assert 'sample' in dir(rlvr_jax); assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, '-c', code], cwd=runs.ROOT, check=True, timeout=60)
  with pytest.raises(AttributeError, match="no attribute 'smaple'"):
    _ = rlvr_jax.smaple  # type: ignore[attr-defined]


def test_python_and_the_command_line_have_the_same_defaults(monkeypatch, tmp_path, path):
  """Every key that sampling reads, in sample() and in configs/sample.py."""
  seen = []
  monkeypatch.setattr(sample_lib, 'draw', lambda config, *_, **__: (seen.append(config), None))
  rlvr_jax.sample('smollm2-135m', str(path), workdir=tmp_path)
  here, there = config_lib.flatten(seen[0]), config_lib.flatten(sample_config.get_config())
  assert here == {key: there[key] for key in here}
  learning = {'temperature', 'top_p', 'top_k', 'release'}  # keys of training's sampling alone
  assert set(seen[0].sampling) == set(base.get_config().sampling) - learning


def test_both_doors_lead_to_one_store(model, path, tmp_path, capsys):
  drawn = sample(model, path, workdir=tmp_path)
  table = drawn.table()
  ids = [(row['problem_id'], row['sample']) for row in table.to_pylist()]
  assert ids == [(str(p), s) for p in range(3) for s in range(8)]
  assert len(drawn) == 24
  assert 'tiny on jsonl: 24 samples of 3 problems (' in repr(drawn)
  before = sorted(tmp_path.rglob('part-*'))
  sample_lib.evaluate(job_config(model, path), tmp_path)  # nothing is left to draw
  text = capsys.readouterr().err
  assert 'all 24 samples are stored, nothing to draw' in text
  assert f'store     {tmp_path}/samples/tiny/jsonl' in text
  assert sorted(tmp_path.rglob('part-*')) == before
  sample_lib.evaluate(job_config(model, path, **{'evaluate.n': 12}), tmp_path)  # tops up
  more = sample(model, path, k=12, workdir=tmp_path)
  assert [r for r in more.table().to_pylist() if r['sample'] < 8] == table.to_pylist()
  assert len(more) == 36
  fewer = sample(model, path, k=5, workdir=tmp_path)
  assert (len(fewer), fewer.counts().n.tolist()) == (15, [5, 5, 5])
  ((value, low, high),) = more.pass_at_k(4).values()
  assert 0 <= low < value < high <= 1


def test_two_models_draw_independently_unless_coupled(model, path, tmp_path):
  """Of the same weights, so that nothing but the name in the store can be the cause."""

  def tokens(name, coupling):
    drawn = sample(model, path, name=name, coupling=coupling, workdir=tmp_path / coupling)
    assert drawn.counts().coupling == coupling
    return drawn.table(['tokens'])['tokens'].to_pylist()

  base, rl = (tokens(name, 'independent') for name in ('base', 'rl'))
  assert sum(a == b for a, b in zip(base, rl, strict=True)) < len(base) / 4
  assert tokens('base', 'common') == tokens('rl', 'common')


def test_extras_are_stored_on_request_and_change_no_draw(model, path, tmp_path):
  plain = sample(model, path, k=4, top_p=0.9, workdir=tmp_path).table().to_pylist()
  more = sample(model, path, k=8, top_p=0.9, extras=True, workdir=tmp_path)
  rows = more.table().to_pylist()
  before = {(row['problem_id'], row['sample']): row for row in plain}
  fresh = sample(model, path, k=8, top_p=0.9, extras=True, workdir=tmp_path / 'fresh')
  for row, again in zip(rows, fresh.table().to_pylist(), strict=True):
    extras = {name: again.pop(name) for name in ('entropies', 'truncated_logprobs')}
    assert all(len(values) == row['length'] for values in extras.values())
    # what is left of a distribution makes each of its tokens likelier
    assert sum(extras['truncated_logprobs']) >= row['logprob_sum_sampled'] - 1e-5
    asked = row['sample'] >= 4
    assert {name: row.pop(name) for name in extras} == (extras if asked else dict.fromkeys(extras))
    assert row == again
    assert asked or row == before[row['problem_id'], row['sample']]


def test_lists_of_rows_may_grow_but_not_change(model, tmp_path):
  drawn = sample(model, ROWS[:2], k=4, workdir=tmp_path)
  problems = [
    Problem(str(i), 'prompts', row['question'], row['answer']) for i, row in enumerate(ROWS)
  ]
  grown = sample(model, problems, k=4, workdir=tmp_path)
  assert grown.table().to_pylist()[:8] == drawn.table().to_pylist()
  assert len(grown) == 12
  changed = [{**ROWS[0], 'answer': 'b'}, *ROWS[1:]]
  with pytest.raises(ValueError, match=r"1 problems are not what they were .* e\.g\. '0'"):
    sample(model, changed, k=4, workdir=tmp_path)


def test_prompts_alone_are_sampled_and_not_counted(model, tmp_path):
  drawn = sample(model, ['abc', 'de'], k=4, workdir=tmp_path, verifier='')
  assert set(drawn.table(['verdict'])['verdict'].to_pylist()) == {'unparsed'}
  with pytest.raises(ValueError, match='drawn without a verifier, so none can be counted'):
    drawn.counts()


def test_a_loaded_model_needs_a_name_and_keeps_its_weights(model, path, tmp_path):
  loaded = load_model(model)
  with pytest.raises(ValueError, match='a loaded model needs a name='):
    sample(loaded, path, workdir=tmp_path)
  first = sample(loaded, path, k=4, name='tiny', workdir=tmp_path)
  by_path = sample(model, path, k=4, workdir=tmp_path / 'by_path')
  assert first.table().to_pylist() == by_path.table().to_pylist()
  config, params, tokenizer = loaded
  other = config, jax.tree.map(lambda x: 2 * x, params), tokenizer
  with pytest.raises(ValueError, match='differ in weights'):
    sample(other, path, k=8, name='tiny', workdir=tmp_path)


def test_a_verifier_may_be_a_function_of_a_file(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(runs.ROOT / 'tests' / 'data')
  import plain_check

  assert sample_lib._verifier_name(plain_check.check) == VERIFIER
  with pytest.raises(ValueError, match='cannot be imported by the worker processes'):
    sample_lib._verifier_name(lambda problem, completion: True)


@pytest.mark.parametrize(
  ('problems', 'options', 'message'),
  [
    ([], {}, r'problems=\[\]: there is nothing to sample'),
    (['a', {'question': 'b'}], {}, 'problems: dict, str; give a path, or a list of'),
    (['a', 'a'], {}, 'duplicate id'),
    ([{'qestion': 'a', 'answer': '1'}], {}, r'problems\[0\]: no prompt column'),
    ([{'question': 'a'}], {}, r'problems\[0\]: no answer column'),
    (
      [Problem('1', 's', 'a', '1'), Problem('2', 't', 'a', '1')],
      {},
      'problems of several tasks, s, t',
    ),
    ('nowhere.jsonl', {}, 'nowhere.jsonl.: there is no such file'),
    (ROWS, {'temperature': -1.0}, r'evaluate\.temperature=-1\.0: must be a number and not below'),
    (ROWS, {'k': 4, 'first': 8, 'stop_after': 1}, r'sampling\.first=8 is above the n=4 draws'),
    (ROWS, {'stop_after': 1}, r'sampling\.stop_after=1 needs sampling\.first'),
    (ROWS, {'verifier': 'no.py:f'}, 'there is no file'),
    (ROWS, {'model': 'nowhere'}, "model='nowhere' is neither a directory"),
  ],
)
def test_what_does_not_fit_is_refused_before_anything_is_drawn(
  model, tmp_path, problems, options, message
):
  options = {'workdir': tmp_path / 'run', **options}
  with pytest.raises(ValueError, match=message):
    sample(options.pop('model', model), problems, **options)
  assert not list(tmp_path.rglob('part-*'))


def test_a_command_that_is_stopped_says_so_and_exits_with_130(capsys, monkeypatch):
  monkeypatch.setattr(graceful._state, 'asked_by', signal.SIGINT)
  with pytest.raises(SystemExit) as ended, sample_lib.exit_when_stopped():
    raise Stopped('kept 3 of 4 samples; the same command goes on')
  assert ended.value.code == 130
  said = capsys.readouterr().err
  assert said.startswith('kept 3 of 4 samples; the same command goes on\nto go on: cd ')


def test_a_dry_run_ends_after_the_pilot(model, path, tmp_path, capsys):
  sample_lib.evaluate(job_config(model, path, dry_run=True), tmp_path)
  text = capsys.readouterr().err
  assert 'settings:\n  model ' in text
  assert 'still to come:\n  samples  20\n' in text
  assert 'dry_run: ends here' in text
  assert not (tmp_path / 'report.html').exists()
  assert len(sample(model, path, k=2, workdir=tmp_path)) == 6


def test_an_early_stopped_evaluation_reports_what_it_may(model, path, tmp_path, capsys):
  changes = {'sampling.first': 8, 'sampling.stop_after': 2, 'evaluate.n': 40, 'job': 'evaluate'}
  config = job_config(
    model, path, **changes, **{'evaluate.headline_k': 2, 'evaluate.bootstrap': 50}
  )
  sample_lib.evaluate(config, tmp_path)
  text = capsys.readouterr().err
  found = json.loads((tmp_path / 'results.json').read_text())['models']['tiny']
  drawn = sample(model, path, k=40, first=8, stop_after=2, workdir=tmp_path)
  reached = drawn.reached()
  assert len(drawn) == reached.drawn.sum() < 3 * 40  # some problem stopped
  assert max(int(k) for k in found['pass_at_k']) == found['n'] == 8
  assert found['coverage_at_n']['problems'] == {
    str(t): int(reached.covered(t).sum()) for t in (1, 2)
  }
  assert f'{reached.covered().sum()} of 3 problems solved within n=40' in text
  assert 'pass@k to k=8 only' in text
  page = (tmp_path / 'report.html').read_text()
  assert 'Coverage at n = 40' in page
  assert drawn.counts().n.tolist() == [8, 8, 8]
  with pytest.raises(ValueError, match='was stopped early'):
    drawn.counts(9)
  with pytest.raises(ValueError, match=r'must lie between 1 and 8'):
    drawn.pass_at_k(16)


@pytest.fixture
def study_config():
  """The quickstart's study with next to nothing in it."""
  return lambda **changes: config_lib.resolve(
    quickstart.get_config(),
    {'task.holdout': 4, 'task.params.problems': 10, 'evaluate.problems': 4, 'evaluate.n': 60}
    | {'evaluate.headline_k': 2, 'sampling.slots': 8, 'sampling.bank_rows': 4, 'sampling.page': 16}
    | {'dry_run': True}
    | changes,
  )


def test_the_price_of_a_study_without_a_base_is_not_made_up(study_config, tmp_path, capsys):
  study.study(study_config(), tmp_path)
  text = capsys.readouterr().err
  assert 'study     base, rl, rl_slow: trained, then sampled, 720 samples at most' in text
  assert f'not known before there is a base; at most {720 * 12:,} tokens' in text
  assert 'Not included: training of the base, training of rl, rl_slow' in text
  assert 'dry_run: ends here' in text
  assert not list(tmp_path.iterdir())


def test_a_study_with_a_base_is_priced_by_a_pilot_of_it(study_config, tmp_path, capsys):
  """Early stopping is the samples' alone: the arms' configs are sound without it."""
  base_model = runs.save_tiny_model(tmp_path / 'base', countdown.ALPHABET)
  changes = {'model.name': str(base_model), 'sampling.first': 8, 'sampling.stop_after': 1}
  study.study(study_config(**changes), tmp_path / 'run')
  text = capsys.readouterr().err
  assert 'stopping  after the first 8, once 1 of the draws are correct' in text
  assert 'pilot: 8 of the 240 samples to draw' in text
  assert 'price of sampling all 3, as if each wrote like base:' in text
  assert '  samples  72 to 696: how early problems stop' in text
  assert 'not included: training of rl, rl_slow, loading and compilation' in text
  rows = SampleStore(tmp_path / 'run' / 'samples').read('base', 'countdown')
  assert len(rows) == 8
