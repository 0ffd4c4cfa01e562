"""The client of OpenAI-compatible servers: what it asks, how it tries again, what it refuses."""

import dataclasses
import json
import logging
import threading

import pytest
import stub_server
from stub_server import MODEL, Stub, serve

from rlvr_jax.eval import server as server_lib
from rlvr_jax.eval.server import Asked, Limits, ServerError

FAST = Limits(retries=2, backoff_s=0.01, timeout_s=5.0, concurrency=3)
KEY = 'sk-very-secret'


@pytest.fixture
def stub():
  with serve(Stub()) as running:
    yield running


def connect(stub, **changes):
  return server_lib.connect(stub.model, dataclasses.replace(FAST, **changes))


def test_text_goes_to_completions_and_messages_to_chat(stub):
  server = connect(stub)
  assert (server.url, server.name) == (stub.url, MODEL)
  asked = Asked('a+b?', n=3, seed=7, temperature=0.6, top_p=0.95, max_tokens=4)
  answers = server_lib.ask(server, asked)
  expected = [stub_server.completion('a+b?', 7, i, 4) for i in range(3)]
  assert [a.text for a in answers] == [text for text, _ in expected]
  assert [a.finish for a in answers] == [
    {'stop': 'eos', 'length': 'length'}[w] for _, w in expected
  ]
  assert [a.length for a in answers] == [len(t) + (w == 'stop') for t, w in expected]
  assert [a.logprob_sum for a in answers] == [-0.5 * a.length for a in answers]
  assert stub.paths == ['/v1/completions']
  assert stub.bodies[0] == {
    'model': MODEL, 'n': 3, 'temperature': 0.6, 'top_p': 0.95, 'max_tokens': 4, 'seed': 7,
    'logprobs': 1, 'prompt': 'a+b?',
  }  # fmt: skip
  messages = [{'role': 'user', 'content': 'a+b?'}]
  answers = server_lib.ask(server, Asked(messages, top_k=5, prefix='So'))
  assert stub.paths[1] == '/v1/chat/completions'
  body = stub.bodies[1]
  assert body['messages'] == [*messages, {'role': 'assistant', 'content': 'So'}]
  assert body['continue_final_message'] is True
  assert body['add_generation_prompt'] is False
  assert body['logprobs'] is True
  assert body['top_k'] == 5
  assert 'seed' not in body
  assert answers[0].logprob_sum == -0.5 * answers[0].length


def test_what_a_reasoning_parser_took_out_is_put_back():
  choice = {'index': 0, 'finish_reason': 'stop',
            'message': {'content': '7', 'reasoning_content': '3+4'}}  # fmt: skip
  content = {'choices': [choice], 'usage': {'completion_tokens': 9}}
  (answer,) = server_lib.answers_of(content, Asked('x'))
  assert answer.text == '<think>\n3+4\n</think>\n\n7'
  assert answer.length == 9
  choice['message'] = {'content': None}
  assert server_lib.answers_of(content, Asked('x'))[0].text == ''
  choice['finish_reason'] = 'content_filter'
  assert server_lib.answers_of(content, Asked('x'))[0].finish == 'refused'


TROUBLES = {
  'status 500': (500, b'{"error": {"message": "out of memory"}}', {}),
  'status 429': (429, b'slow down', {'Retry-After': '0'}),
  'not JSON': (200, b'{"choices": [', {}),
  'an object': (200, b'[1]', {}),
  'no list of choices': (200, b'{"id": 1}', {}),
  '0 completions in place of 2': (200, b'{"choices": []}', {}),
  'finish_reason=None': (200, b'{"choices": [{"text": "a"}, {"text": "b"}]}', {}),
  'a choice without text': (
    200,
    b'{"choices": [{"finish_reason": "stop"}, {"finish_reason": "stop"}]}',
    {},
  ),
}


@pytest.mark.parametrize('trouble', TROUBLES)
def test_what_may_pass_is_asked_again_and_then_told(stub, trouble, caplog):
  server = connect(stub)
  stub.trouble = lambda number, path, body: TROUBLES[trouble] if number < 3 else None
  with caplog.at_level(logging.WARNING):
    answers = server_lib.ask(server, Asked('x', n=2, seed=1))
  assert [a.text for a in answers] == [stub_server.completion('x', 1, i, 1024)[0] for i in (0, 1)]
  assert len(stub.bodies) == 3
  assert stub.bodies[0] == stub.bodies[2]
  assert caplog.text.count('again in') == 2
  stub.trouble = lambda number, path, body: TROUBLES[trouble]
  with pytest.raises(ServerError, match=f'failed 3 times, at last: .*{trouble}'):
    server_lib.ask(server, Asked('x', n=2))
  assert len(stub.bodies) == 6


def test_waits_double_or_are_the_servers(stub):
  waits = []

  class Clock(threading.Event):
    def wait(self, timeout=None):
      waits.append(timeout)
      return False

  server = connect(stub, retries=4, backoff_s=0.5)
  stub.trouble = lambda number, path, body: (
    (503, b'', {'Retry-After': '7'} if number == 3 else {}) if number < 5 else None
  )
  with server_lib._Line(server, Clock()) as line:
    line.ask(Asked('x'))
  assert waits == [0.5, 1.0, 7.0, 4.0]


def test_a_server_that_hangs_or_is_gone_is_told(stub):
  server = connect(stub, timeout_s=0.1, retries=1)
  stub.trouble = lambda number, path, body: 0.4
  with pytest.raises(ServerError, match=r'no answer within 0.1 s'):
    server_lib.ask(server, Asked('x'))
  stub.trouble = lambda number, path, body: 0.4 if number == 3 else None
  assert server_lib.ask(server, Asked('x'))
  gone = dataclasses.replace(server, url='http://127.0.0.1:9/v1')
  with pytest.raises(ServerError, match='ConnectionRefusedError'):
    server_lib.ask(gone, Asked('x'))


def test_a_mistake_of_the_users_is_not_asked_again(stub):
  server = connect(stub)
  stub.trouble = lambda number, path, body: (400, b'{"message": "max_tokens is too large"}', {})
  with pytest.raises(ServerError, match='status 400: max_tokens is too large'):
    server_lib.ask(server, Asked('x'))
  assert len(stub.bodies) == 1
  stub.trouble = lambda number, path, body: (302, b'', {'Location': 'http://elsewhere'})
  with pytest.raises(ServerError, match='it sends elsewhere'):
    server_lib.ask(server, Asked('x'))


def test_the_key_is_sent_and_nowhere_told(stub, monkeypatch, caplog):
  monkeypatch.setenv('STUB_KEY', KEY)
  server = connect(stub, key_env='STUB_KEY', retries=1)
  server_lib.ask(server, Asked('x'))
  assert stub.keys == [f'Bearer {KEY}']
  said = json.dumps({'error': {'message': f'bad key {KEY}'}}).encode()
  for status, words in (
    (401, 'in the environment variable STUB_KEY is not accepted'),
    (500, 'bad key'),
  ):
    stub.trouble = lambda number, path, body, status=status: (status, said, {})
    with pytest.raises(ServerError, match=words) as told:
      server_lib.ask(server, Asked('x'))
    for text in (str(told.value), caplog.text, repr(server), repr(told.value.__cause__)):
      assert KEY not in text
  monkeypatch.delenv('STUB_KEY')
  stub.trouble = lambda number, path, body: (401, b'{}', {})
  with pytest.raises(ServerError, match='STUB_KEY is not set'):
    server_lib.ask(server, Asked('x'))


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('http://user:pass@host/v1#m', 'holds a user or password'),
    ('http:///v1#m', 'is no server: write http://host:port/v1#NAME'),
    ('http://host:port/v1#m', 'is no server'),
    ('http://host/v1?key=1#m', 'is no server'),
  ],
)
def test_an_address_that_cannot_be_is_refused(name, message):
  with pytest.raises(ValueError, match=message):
    server_lib.connect(name, FAST)


def test_a_model_that_is_not_there_is_named_and_an_only_one_found(stub):
  with pytest.raises(ValueError, match=f'the server has: {MODEL}'):
    server_lib.connect(f'{stub.url}#other', FAST)
  assert server_lib.connect(stub.url, FAST).name == MODEL
  # a server without such a list is taken at its word
  elsewhere = f'{stub.url}/deeper'
  assert server_lib.connect(f'{elsewhere}#m', FAST).name == 'm'
  with pytest.raises(ValueError, match='to be named after a #'):
    server_lib.connect(elsewhere, FAST)


def test_lengths_need_usage_or_logprobs(stub):
  stub.logprobs = False
  server = connect(stub)
  (answer,) = server_lib.ask(server, Asked('x', seed=3))
  text, why = stub_server.completion('x', 3, 0, 1024)
  assert (answer.length, answer.logprob_sum) == (len(text) + (why == 'stop'), None)
  with pytest.raises(ServerError, match=r'set server.n=1'):
    server_lib.ask(server, Asked('x', n=2))
  stub.usage = False
  with pytest.raises(ServerError, match='neither log-probs nor usage'):
    server_lib.ask(server, Asked('x'))


def test_requests_fly_together_up_to_the_limit_and_are_taken_late(stub):
  server = connect(stub)
  stub.delay_s = 0.05
  taken = []

  def requests():
    for i in range(12):
      taken.append(i)
      yield i, Asked(f'{i}', seed=i)

  found = {}
  for key, answers in server_lib.ask_all(server, requests()):
    assert len(taken) <= len(found) + 1 + FAST.concurrency
    found[key] = answers[0].text
  assert found == {i: stub_server.completion(f'{i}', i, 0, 1024)[0] for i in range(12)}
  assert stub.most_at_once == FAST.concurrency


def test_the_first_failure_ends_all_and_so_does_stopping(stub):
  server = connect(stub, retries=0)
  stub.trouble = lambda number, path, body: (500, b'broken', {}) if body['prompt'] == '5' else None
  every = ((i, Asked(f'{i}')) for i in range(100))
  with pytest.raises(ServerError, match='status 500: broken'):
    for _ in server_lib.ask_all(server, every):
      pass
  assert len(stub.bodies) < 20
  done = []
  for key, _ in server_lib.ask_all(server, every, lambda: len(done) >= 4):
    done.append(key)
  assert len(done) == 4


def choice(**more):
  return {'index': 0, 'finish_reason': 'stop', 'text': 'abc', **more}


def logged(*values):
  return {'token_logprobs': list(values)}


def answer_of(*choices, used: float | None = 3, n=1):
  content = {'choices': list(choices), 'usage': {'completion_tokens': used}}
  return server_lib.answers_of(content, Asked('x', n=n, max_tokens=8))


def test_odd_answers_that_say_enough_are_read():
  assert answer_of(choice(text='a\ud83d'))[0].text == 'a\ufffd', (
    'half a character, no file holds it'
  )
  assert answer_of(choice(), used=3.0)[0].length == 3
  found = answer_of(choice(logprobs=logged()))[0]
  assert (found.length, found.logprob_sum) == (3, None), 'no log-probs are told of a text'
  assert answer_of(choice(text='', logprobs=logged()), used=None)[0].length == 0
  found = answer_of(choice(logprobs=logged(None, -1.0)))[0]
  assert (found.length, found.logprob_sum) == (3, None)


@pytest.mark.parametrize(
  ('choices', 'options', 'message'),
  [
    ([choice()], {'used': 0}, 'so its length is not known$'),
    ([choice()], {'used': -3}, 'so its length is not known$'),
    ([choice()], {'used': 10**12}, r'gave 1,000,000,000,000 tokens where max_tokens=8'),
    ([choice()], {'used': 10}, 'does not keep to the limit'),
    ([choice(logprobs=logged(*[-0.1] * 10))], {}, 'does not keep to the limit'),
    ([choice(logprobs=logged(0.5, -1.0))], {}, 'a log-prob of 0.5, which is no log'),
    ([choice()] * 2, {'n': 2}, 'length is not known: set server.n=1'),
  ],
)
def test_answers_that_cannot_be_end_the_run(choices, options, message):
  with pytest.raises(ServerError, match=message):
    answer_of(*choices, **options)


def test_answers_in_no_order_may_pass(stub):
  server = connect(stub, retries=1)
  content = {'choices': [choice(index='x'), choice()]}
  for said in (json.dumps(content).encode(), b'[' * 100_000):
    stub.trouble = lambda number, path, body, said=said: (200, said, {})
    with pytest.raises(ServerError, match='failed 2 times'):
      server_lib.ask(server, Asked('x', n=2))


def test_a_time_to_wait_that_is_no_number_is_not_kept_to(stub):
  server = connect(stub, retries=1)
  for said in ('\u00b2', 'Wed, 21 Oct 2026 07:28:00 GMT', '-1'):
    stub.trouble = lambda number, path, body, said=said: (429, b'', {'Retry-After': said})
    with pytest.raises(ServerError, match='failed 2 times, at last: status 429'):
      server_lib.ask(server, Asked('x'))


def test_a_key_is_sent_without_the_line_end_of_its_file(stub, monkeypatch):
  monkeypatch.setenv('STUB_KEY', f' {KEY}\n')
  server_lib.ask(connect(stub, key_env='STUB_KEY'), Asked('x'))
  assert stub.keys == [f'Bearer {KEY}']
  for key in (f'{KEY}\n{KEY}', f'{KEY} x', f'{KEY}\u20ac', f'{KEY}\x07'):
    monkeypatch.setenv('STUB_KEY', key)
    with pytest.raises(ValueError, match=r'STUB_KEY .* holds spaces, line ends or other') as told:
      connect(stub, key_env='STUB_KEY')
    assert KEY not in str(told.value)
    assert told.value.__cause__ is None


@pytest.mark.parametrize(
  'url', ['http://h\u00f6st/v1#m', 'http://host/v 1#m', 'http://host/v\n1#m']
)
def test_an_address_of_odd_characters_is_refused(url):
  with pytest.raises(ValueError, match=r'its address holds characters that none has|is no server'):
    server_lib.connect(url, FAST)
