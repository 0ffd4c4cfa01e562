"""A server's completions go into our store, judged; a restart asks for what is missing only."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import stub_server
from stub_server import MODEL, Stub, serve

from configs import base
from configs import sample as sample_config
from rlvr_jax import config as config_lib
from rlvr_jax.eval import served, shards
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.server import Limits, ServerError
from rlvr_jax.graceful import Stopped

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHECK = ROOT / 'tests' / 'data' / 'plain_check.py'
ANSWERS = ('a', 'b', 'cd')
NAME = 'one'  # of the model in the store


@pytest.fixture
def stub():
  with serve(Stub()) as running:
    yield running


@pytest.fixture
def path(tmp_path):
  path = tmp_path / 'problems.jsonl'
  rows = [{'id': f'p{i}', 'question': f'write {a}', 'answer': a} for i, a in enumerate(ANSWERS)]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def values(stub, path, **changes):
  return {
    'model.name': stub.model,
    'task.path': str(path),
    'task.verifier': f'{CHECK}:check',
    'task.self_check': 'off',
    'evaluate.n': 8,
    'sampling.max_tokens': 5,
    'verifier.workers': 1,
    'server.backoff_s': 0.01,
    'server.retries': 1,
    'server.concurrency': 4,
    **{key.replace('__', '.'): value for key, value in changes.items()},
  }


def draw(stub, path, workdir, **changes):
  config = config_lib.resolve(sample_config.get_config(), values(stub, path, **changes))
  problems = served.evaluation_problems(config)
  return served.draw(config, workdir, problems, 'data', show=False)


def rows(workdir):
  table = SampleStore(workdir / 'samples').read(NAME, 'jsonl')
  found = [
    {key: None if value != value else value for key, value in row.items()}  # NaN is not itself
    for row in table.to_pylist()
  ]
  return sorted(found, key=lambda row: (row['problem_id'], row['sample']))


def test_what_the_server_wrote_is_stored_and_judged(stub, path, tmp_path):
  drawn = draw(stub, path, tmp_path)
  assert drawn.model == NAME
  found = rows(tmp_path)
  assert [(r['problem_id'], r['sample']) for r in found] == [
    (f'p{p}', s) for p in range(len(ANSWERS)) for s in range(8)
  ]
  seeds = {body['seed'] for body in stub.bodies}
  assert len(seeds) == len(stub.bodies) == 24
  asked = {(b['prompt'], b['seed']): b for b in stub.bodies}
  for prompt, seed in asked:
    text, why = stub_server.completion(prompt, seed, 0, 5)
    matching = [r for r in found if r['text'] == text]
    assert matching, text
    row = matching[0]
    assert row['finish'] == {'stop': 'eos', 'length': 'length'}[why]
    assert row['length'] == len(text) + (why == 'stop')
    assert row['logprob_sum'] == -0.5 * row['length']
    assert row['logprob_sum_sampled'] is None  # the temperature is not 1
    assert row['tokens'] == []
  for row in found:
    right = ANSWERS[int(row['problem_id'][1])] in row['text']
    assert row['verdict'] == ('correct' if right else 'wrong')
  settings = drawn.store.settings(NAME, 'jsonl')
  assert settings['temperature'] == 0.6
  assert settings['weights'] == f'served {MODEL}'
  assert str(stub.url) not in json.dumps(settings)
  assert drawn.counts().n.tolist() == [8, 8, 8]


def test_topping_up_asks_for_what_is_missing_only(stub, path, tmp_path):
  draw(stub, path, tmp_path, evaluate__n=4)
  assert len(stub.bodies) == 12
  draw(stub, path, tmp_path, evaluate__n=4)
  assert len(stub.bodies) == 12
  draw(stub, path, tmp_path, evaluate__n=8)
  assert len(stub.bodies) == 24
  other = tmp_path / 'other'
  draw(stub, path, other)
  assert rows(tmp_path) == rows(other)


def test_several_completions_of_a_request(stub, path, tmp_path):
  draw(stub, path, tmp_path, server__n=4, evaluate__n=6)
  assert sorted(body['n'] for body in stub.bodies) == [2, 2, 2, 4, 4, 4]
  assert len(rows(tmp_path)) == 18
  first = {(r['problem_id'], r['sample']): r['text'] for r in rows(tmp_path)}
  draw(stub, path, tmp_path, server__n=4, evaluate__n=8)
  assert [body['n'] for body in stub.bodies[6:]] == [4, 4, 4]
  now = {(r['problem_id'], r['sample']): r['text'] for r in rows(tmp_path)}
  assert len(now) == 24
  assert first.items() <= now.items()


@pytest.mark.parametrize('template', ['chat', 'qwen-boxed', 'evalplus'])
def test_the_template_decides_between_chat_and_text(stub, path, tmp_path, template):
  draw(stub, path, tmp_path, task__template=template, evaluate__n=1, server__n=1)
  body = stub.bodies[0]
  if template == 'qwen-boxed':
    assert body['prompt'].startswith('<|im_start|>system')
    assert set(stub.paths) == {'/v1/completions'}
  else:
    assert set(stub.paths) == {'/v1/chat/completions'}
    assert body['messages'][0]['role'] == 'user'
    assert (body['messages'][-1]['role'] == 'assistant') == (template == 'evalplus')


def test_early_stopping_keeps_what_the_rule_says(stub, path, tmp_path):
  drawn = draw(stub, path, tmp_path, evaluate__n=24, sampling__first=4, sampling__stop_after=2)
  whole = tmp_path / 'whole'
  draw(stub, path, whole, evaluate__n=24)
  every = rows(whole)
  for p in range(len(ANSWERS)):
    mine = [r for r in every if r['problem_id'] == f'p{p}']
    right = np.cumsum([r['verdict'] == 'correct' for r in mine])
    ends = [t for t in range(4, 25) if right[t - 1] >= 2]
    kept = [r['text'] for r in rows(tmp_path) if r['problem_id'] == f'p{p}']
    assert kept == [r['text'] for r in mine[: ends[0] if ends else 24]]
  assert drawn.counts().n.tolist() == [4, 4, 4]


def test_a_server_that_fails_for_good_loses_nothing(stub, path, tmp_path):
  stub.trouble = lambda number, path, body: (500, b'broken', {}) if number > 10 else None
  with pytest.raises(ServerError, match='the same command goes on'):
    draw(stub, path, tmp_path)
  before = len(rows(tmp_path))
  assert 4 <= before <= 10
  stub.trouble = lambda number, path, body: None
  asked = len(stub.bodies)
  draw(stub, path, tmp_path)
  assert len(rows(tmp_path)) == 24
  assert len(stub.bodies) - asked == 24 - before


def test_troubles_in_between_change_no_row(stub, path, tmp_path):
  whole = tmp_path / 'whole'
  draw(stub, path, whole)

  def trouble(number, path, body):
    return {0: (500, b'', {}), 1: (200, b'<html>', {}), 4: 0.3}.get(number % 7)

  stub.trouble, stub.bodies[:] = trouble, []
  draw(stub, path, tmp_path, server__retries=40, server__timeout_s=0.1)
  assert rows(tmp_path) == rows(whole)


def test_no_logprobs_are_stored_as_none_and_a_refusal_is_an_error(stub, path, tmp_path):
  stub.logprobs = False
  draw(stub, path, tmp_path, evaluate__n=2)
  assert {row['logprob_sum'] for row in rows(tmp_path)} == {None}
  assert {row['logprob_sum_sampled'] for row in rows(tmp_path)} == {None}
  refusal = {'choices': [{'text': '', 'index': 0, 'finish_reason': 'content_filter'}],
             'usage': {'completion_tokens': 0}}  # fmt: skip
  stub.trouble = lambda number, path, body: (200, json.dumps(refusal).encode(), {})
  other = tmp_path / 'other'
  draw(stub, path, other, evaluate__n=2)
  assert {(r['verdict'], r['reason']) for r in rows(other)} == {
    ('error', "refused by the server's content filter")
  }


def test_other_settings_another_model_or_verifier_are_refused(stub, path, tmp_path):
  draw(stub, path, tmp_path, evaluate__n=2)
  for changes, message in (
    ({'evaluate__temperature': 1.0}, 'temperature: 0.6 against 1.0'),
    ({'task__template': 'qwen-boxed'}, 'prompt_hash'),
    ({'task__verifier': 'none'}, 'but the verifier is now'),
  ):
    with pytest.raises(ValueError, match=message):
      draw(stub, path, tmp_path, **changes)
  for key, value in (('job', 'train'), ('task.environment', 'retry'), ('sampling.extras', True)):
    with pytest.raises(ValueError, match='server'):
      config_lib.resolve(sample_config.get_config(), values(stub, path) | {key: value})


def test_a_dry_run_asks_one_request(stub, path, tmp_path):
  draw(stub, path, tmp_path, dry_run=True, server__n=2)
  assert len(stub.bodies) == 1
  assert len(rows(tmp_path)) == 2


def answers(**more):
  """A trouble: one and the same answer to everything."""
  choice = {'index': 0, 'finish_reason': 'stop', 'text': 'a', **more}
  content = {'choices': [choice], 'usage': {'completion_tokens': 1}}
  return lambda number, path, body: (200, json.dumps(content).encode(), {})


def test_a_server_that_does_not_do_what_was_asked_is_told(stub, path, tmp_path, monkeypatch):
  noted = []
  monkeypatch.setattr(served.Progress, 'note', lambda self, text: noted.append(text))
  draw(stub, path, tmp_path / 'well')
  assert not any('warning' in text for text in noted)
  stub.trouble = answers()
  draw(stub, path, tmp_path / 'one', evaluate__n=3)
  assert any('all completions of a problem are the same text, of 3 problems' in t for t in noted)
  noted.clear()
  draw(stub, path, tmp_path / 'greedy', evaluate__n=3, evaluate__temperature=0.0)
  assert not any('the same text' in text for text in noted), 'as they should be at temperature 0'
  stub.trouble = answers(finish_reason='length')
  draw(stub, path, tmp_path / 'cut', evaluate__n=2)
  assert any('cut 6 completions before sampling.max_tokens=5' in text for text in noted)


def test_half_a_character_loses_no_sample(stub, path, tmp_path):
  stub.trouble = answers(text='a\ud83d')
  drawn = draw(stub, path, tmp_path)
  assert set(drawn.table(['text'])['text'].to_pylist()) == {'a\ufffd'}


def test_a_signal_stores_what_there_is(stub, path, tmp_path):
  def trouble(number, path, body):
    if number == 8:
      os.kill(os.getpid(), signal.SIGTERM)

  stub.trouble, stub.delay_s = trouble, 0.05
  with pytest.raises(Stopped, match=r'kept \d+ of 24 samples; the same command goes on'):
    draw(stub, path, tmp_path)
  assert 0 < len(rows(tmp_path)) < 24


def test_the_configs_group_has_the_defaults_of_the_code():
  group = base.get_config().server.to_dict()
  assert Limits(**group) == Limits()


def command(stub, path, workdir, **changes):
  given = [f'--config.{k}={v}' for k, v in values(stub, path, **changes).items()]
  return [sys.executable, 'main.py', '--config=configs/sample.py', f'--workdir={workdir}', *given]


@pytest.mark.check
def test_kill_9_and_the_same_command_end_with_the_same_rows(stub, path, tmp_path):
  """The whole program; it imports no jax (see -X importtime), and the key is in no file of it."""
  environment = {**os.environ, 'OPENAI_API_KEY': 'sk-very-secret'}
  changes = {'evaluate__n': 40, 'evaluate__flush_s': 0.1}
  whole = tmp_path / 'whole'
  draw(stub, path, whole, evaluate__n=40)
  stub.delay_s = 0.05
  words = command(stub, path, tmp_path / 'killed', **changes)
  running = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
  folder = tmp_path / 'killed' / 'samples' / NAME / 'jsonl'
  deadline = time.monotonic() + 60
  while len(shards.shard_paths(folder)) < 2 and time.monotonic() < deadline:
    assert running.poll() is None
    time.sleep(0.01)
  running.kill()
  running.wait()
  before = len(rows(tmp_path / 'killed'))
  assert 0 < before < 120
  stub.delay_s, asked = 0.0, len(stub.bodies)
  words = [words[0], '-X', 'importtime', *words[1:]]
  done = subprocess.run(
    words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
  )
  assert len(stub.bodies) - asked == 120 - before
  assert set(stub.keys[-5:]) == {'Bearer sk-very-secret'}
  assert rows(tmp_path / 'killed') == rows(whole)
  assert '120 samples of 3 problems are stored' in done.stderr
  assert not any(line.split('|')[-1].strip() == 'jax' for line in done.stderr.splitlines())
  for file in (tmp_path / 'killed').rglob('*'):
    assert not file.is_file() or b'sk-very-secret' not in file.read_bytes()


def test_evaluate_writes_the_report(stub, path, tmp_path):
  changes = {'job': 'evaluate', 'evaluate__headline_k': 2, 'evaluate__bootstrap': 200}
  config = config_lib.resolve(sample_config.get_config(), values(stub, path, **changes))
  assert config_lib.entry(config) == ('rlvr_jax.eval.served', 'evaluate', False)
  served.evaluate(config, tmp_path)
  document = json.loads((tmp_path / 'results.json').read_text())
  assert document['models'][NAME]['n'] == 8
  assert (tmp_path / 'report.html').exists()
