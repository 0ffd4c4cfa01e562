"""A small OpenAI-compatible server in a thread, which fails as it is told to."""

import contextlib
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

MODEL = 'stub/one'
ALPHABET = 'abcde'


def completion(prompt: str, seed: int, index: int, most: int) -> tuple[str, str]:
  """(text, finish reason): a function of prompt, seed and place in the request."""
  digest = hashlib.sha256(f'{prompt}/{seed}/{index}'.encode()).digest()
  length = 1 + digest[0] % 6
  text = ''.join(ALPHABET[byte % len(ALPHABET)] for byte in digest[1 : 1 + length])
  return (text[:most], 'length') if length >= most else (text, 'stop')


class Stub:
  """What the server was asked, and what goes wrong.

  trouble(number, path, body): None to answer well, or (status, body bytes, headers), or the seconds
  to sleep first; number counts requests from 1.
  """

  def __init__(self, trouble: Callable[[int, str, dict], Any] | None = None):
    self.trouble = trouble or (lambda number, path, body: None)
    self.bodies: list[dict[str, Any]] = []
    self.keys: list[str] = []
    self.paths: list[str] = []
    self.most_at_once = 0
    self.url = ''
    self.logprobs = self.usage = True
    self.delay_s = 0.0
    self.lock = threading.Lock()
    self.now = 0

  @property
  def model(self) -> str:
    """What model.name is set to."""
    return f'{self.url}#{MODEL}'

  def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """A whole answer."""
    chat = path.endswith('/chat/completions')
    prompt = json.dumps(body['messages']) if chat else body['prompt']
    choices, used = [], 0
    for index in range(body['n']):
      text, why = completion(prompt, body.get('seed', 0), index, body['max_tokens'])
      tokens = len(text) + (why == 'stop')
      used += tokens
      one: dict[str, Any] = {'index': index, 'finish_reason': why}
      one |= {'message': {'role': 'assistant', 'content': text}} if chat else {'text': text}
      if self.logprobs and body.get('logprobs'):
        values = [-0.5] * tokens
        listed = {'content': [{'token': 'x', 'logprob': v} for v in values]}
        one['logprobs'] = listed if chat else {'token_logprobs': values, 'tokens': ['x'] * tokens}
      choices.append(one)
    found: dict[str, Any] = {'object': 'completion', 'choices': choices[::-1]}
    if self.usage:
      found['usage'] = {'prompt_tokens': 3, 'completion_tokens': used}
    return found


@contextlib.contextmanager
def serve(stub: Stub) -> Iterator[Stub]:
  """The stub at a port of its own while entered."""

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
      pass

    def reply(self, status, content, headers=()):
      self.send_response(status)
      self.send_header('Content-Length', str(len(content)))
      for name, value in dict(headers).items():
        self.send_header(name, value)
      self.end_headers()
      with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client gave up
        self.wfile.write(content)

    def do_GET(self):
      if self.path == '/v1/models':
        listed = {'data': [{'id': MODEL}]}
        self.reply(200, json.dumps(listed).encode())
      else:
        self.reply(404, b'{"detail": "Not Found"}')

    def do_POST(self):
      body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
      with stub.lock:
        stub.bodies.append(body)
        stub.paths.append(self.path)
        stub.keys.append(self.headers.get('Authorization', ''))
        number = len(stub.bodies)
        stub.now += 1
        stub.most_at_once = max(stub.most_at_once, stub.now)
      try:
        trouble = stub.trouble(number, self.path, body)
        if isinstance(trouble, int | float):
          time.sleep(trouble)
          trouble = None
        time.sleep(stub.delay_s)
        if trouble is None:
          trouble = 200, json.dumps(stub.answer(self.path, body)).encode(), {}
        self.reply(*trouble)
      finally:
        with stub.lock:
          stub.now -= 1

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  server.daemon_threads = True
  server.handle_error = lambda *_: None
  thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
  thread.start()
  stub.url = f'http://127.0.0.1:{server.server_port}/v1'
  try:
    yield stub
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
