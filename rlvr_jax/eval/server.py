"""Any OpenAI-compatible server (vLLM, SGLang, llama.cpp, ...) as sampler, teacher or judge. No jax.

  server = connect('http://localhost:8000/v1#Qwen/Qwen2.5-7B')
  answers = ask(server, Asked('1+1=', n=4, seed=7, max_tokens=16))        # /completions
  answers = ask(server, Asked([{'role': 'user', 'content': 'Is it so?'}]))  # /chat/completions
  for key, answers in ask_all(server, ((i, Asked(text)) for i, text in enumerate(texts))): ...

The key, if the server wants one, is read from an environment variable at each request; it is in no
message, file or representation of these objects.
"""

import dataclasses
import http.client
import json
import logging
import os
import queue
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rlvr_jax.eval.wire import Answer as Answer
from rlvr_jax.eval.wire import Asked as Asked
from rlvr_jax.eval.wire import Passing, Refused, answers_of, body_of
from rlvr_jax.eval.wire import ServerError as ServerError

log = logging.getLogger(__name__)
Key = TypeVar('Key')

_MOST_WAIT_S = 60.0
_AGAIN = (408, 409, 425, 429)  # statuses, beside all from 500 on, that may pass


@dataclasses.dataclass(frozen=True)
class Limits:
  """How a server is asked: the group `server` of a config (configs/base.py), with its defaults."""

  key_env: str = 'OPENAI_API_KEY'
  concurrency: int = 16
  n: int = 1
  logprobs: bool = True
  timeout_s: float = 600.0
  retries: int = 6
  backoff_s: float = 1.0


@dataclasses.dataclass(frozen=True)
class Server:
  """Where to ask whom: url without a slash at its end (http://host:port/v1), name of the model."""

  url: str
  name: str
  limits: Limits = Limits()


def connect(model: str, limits: Limits | None = None) -> Server:
  """The server of a name http://host:port/v1#NAME; #NAME may be left out where it has one model.

  Asks it once for its models. ValueError for a name it does not have or a url that cannot be one,
  ServerError where nobody answers.
  """
  limits = limits or Limits()
  url, _, name = model.partition('#')
  parts = urllib.parse.urlsplit(url)
  try:
    port_ok = parts.port is None or parts.port > 0
  except ValueError:
    port_ok = False
  if parts.username or parts.password:
    raise ValueError(
      'model.name holds a user or password, which would be stored with the run; put the key into '
      f'the environment variable {limits.key_env} (server.key_env) instead'
    )
  if parts.scheme not in ('http', 'https') or not parts.hostname or not port_ok or parts.query:
    raise ValueError(f'model={model!r} is no server: write http://host:port/v1#NAME')
  if not url.isascii() or not url.isprintable() or ' ' in url:
    raise ValueError(f'model={model!r} is no server: its address holds characters that none has')
  key_of(limits)
  server = Server(url.rstrip('/'), name, limits)
  there = models(server)
  if not name and there is not None and len(there) == 1:
    return dataclasses.replace(server, name=there[0])
  if not name or (there and name not in there):
    known = ', '.join(there) if there else 'it does not say which'
    raise ValueError(
      f'{model!r}: the model is to be named after a #, as {url}#NAME; the server has: {known}'
    )
  return server


def models(server: Server) -> list[str] | None:
  """The names of the server's models; None where it has no such list."""
  with _Line(server) as line:
    try:
      content = line.insist('GET', '/models', None)
    except Refused as error:
      if error.status == 404:
        return None
      raise
  data = content.get('data')
  if not isinstance(data, list):
    return None
  return [str(one['id']) for one in data if isinstance(one, dict) and 'id' in one]


def ask(server: Server, asked: Asked) -> list[Answer]:
  """The answers to one request, asked.n of them."""
  with _Line(server) as line:
    return line.ask(asked)


def ask_all(
  server: Server,
  requests: Iterable[tuple[Key, Asked]],
  stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Key, list[Answer]]]:
  """(key, answers) of every request in the order of finishing, `concurrency` of them at once.

  A request is taken from the iterable only when it can be sent. Ends early once stopped() is true.
  The first request that fails for good raises its ServerError.
  """
  todo: queue.Queue[tuple[Key, Asked] | None] = queue.Queue()
  done: queue.Queue[tuple[Key, list[Answer] | Exception]] = queue.Queue()
  leaving = threading.Event()

  def work() -> None:
    with _Line(server, leaving) as line:
      while (one := todo.get()) is not None:
        try:
          done.put((one[0], line.ask(one[1])))
        except Exception as error:  # handed over to the thread that asked
          done.put((one[0], error))

  for _ in range(server.limits.concurrency):
    threading.Thread(target=work, daemon=True).start()
  source, flying = iter(requests), 0
  try:
    while not stopped():
      while flying < server.limits.concurrency and (one := next(source, None)) is not None:
        todo.put(one)
        flying += 1
      if not flying:
        return
      try:
        key, found = done.get(timeout=0.2)
      except queue.Empty:
        continue
      flying -= 1
      if isinstance(found, Exception):
        raise found
      yield key, found
  finally:
    leaving.set()
    for _ in range(server.limits.concurrency):
      todo.put(None)


class _Line:
  """One connection, kept open between requests; a context manager."""

  def __init__(self, server: Server, leaving: threading.Event | None = None):
    self._server = server
    self._parts = urllib.parse.urlsplit(server.url)
    self._leaving = leaving or threading.Event()
    self._open: http.client.HTTPConnection | None = None

  def __enter__(self) -> '_Line':
    return self

  def __exit__(self, *_: object) -> None:
    self._close()

  def _close(self) -> None:
    if self._open is not None:
      self._open.close()
      self._open = None

  def ask(self, asked: Asked) -> list[Answer]:
    """The answers to one request."""
    server = self._server
    path, body = body_of(asked, server.name, logprobs=server.limits.logprobs)
    return self.insist('POST', path, body, lambda content: answers_of(content, asked))

  def insist(
    self,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    read: Callable[[dict[str, Any]], Any] = lambda content: content,
  ) -> Any:
    """read(content) of the answer, after as many tries as the limits give; ServerError after."""
    limits = self._server.limits
    for attempt in range(limits.retries + 1):
      try:
        return read(self._once(method, path, body))
      except Passing as failure:
        self._close()
        where = f'{self._server.url}{path}'
        if attempt == limits.retries:
          raise ServerError(
            f'{where} failed {attempt + 1} times, at last: {failure}. What was drawn is kept; the '
            'same command goes on once the server answers (server.retries, server.timeout_s)'
          ) from failure
        wait = limits.backoff_s * 2**attempt if failure.wait_s is None else failure.wait_s
        wait = min(wait, _MOST_WAIT_S)
        log.warning('%s: %s; again in %.1f s', where, failure, wait)
        if self._leaving.wait(wait):
          raise ServerError(f'{where}: given up, the run is ending') from failure
    raise AssertionError('the loop returns or raises')

  def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    key = key_of(self._server.limits)
    headers = {'Content-Type': 'application/json', 'Accept': 'application/json'}
    if key:
      headers['Authorization'] = f'Bearer {key}'
    data = None if body is None else json.dumps(body).encode()
    try:
      status, wait, raw = self._send(method, path, data, headers)
    except TimeoutError as error:
      raise Passing(f'no answer within {self._server.limits.timeout_s:g} s') from error
    except (OSError, http.client.HTTPException) as error:
      raise Passing(hide(f'{type(error).__name__}: {error}', key)) from error
    if status != 200:
      self._refuse(status, hide(_said(raw), key), bool(key), wait)
    try:
      content = json.loads(raw)
    except (ValueError, RecursionError) as error:
      raise Passing(f'the answer is not JSON ({hide(_said(raw), key)!r})') from error
    if not isinstance(content, dict):
      raise Passing(f'the answer is a {type(content).__name__}, not an object')
    return content

  def _send(
    self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]
  ) -> tuple[int, float | None, bytes]:
    for fresh in (self._open is None, True):
      if self._open is None:
        kind = http.client.HTTPConnection
        if self._parts.scheme == 'https':
          kind = http.client.HTTPSConnection
        host, port = self._parts.hostname or '', self._parts.port
        self._open = kind(host, port, timeout=self._server.limits.timeout_s)
      try:
        self._open.request(method, self._parts.path + path, body=data, headers=dict(headers))
        response = self._open.getresponse()
        raw = response.read()
      except (http.client.RemoteDisconnected, ConnectionError, socket.gaierror):
        self._close()
        if fresh:
          raise
        continue  # the server had closed a connection that lay idle
      waits = response.getheader('Retry-After') or ''
      told = waits.isascii() and waits.isdecimal()
      return response.status, float(waits) if told else None, raw
    raise AssertionError('the second round returns or raises')

  def _refuse(self, status: int, said: str, with_key: bool, wait: float | None) -> None:
    if status in _AGAIN or status >= 500:
      raise Passing(f'status {status}: {said}', wait)
    if status in (401, 403):
      name = self._server.limits.key_env
      has = 'is not accepted' if with_key else 'is not set'
      said = f'the key in the environment variable {name} {has} ({said})'
    if 300 <= status < 400:
      said = f'it sends elsewhere, which is not followed; give the final address ({said})'
    if status == 404:
      said += '; is the address right up to /v1, and the name after #?'
    raise Refused(f'{self._server.url}: status {status}: {said}', status)


def key_of(limits: Limits) -> str:
  """The key, '' where there is none; ValueError for one that no header can hold, not showing it."""
  key = os.environ.get(limits.key_env, '').strip()  # files of keys end with a newline
  if not (key.isascii() and key.isprintable()) or ' ' in key:
    raise ValueError(
      f'the environment variable {limits.key_env} (server.key_env) holds spaces, line ends or '
      'other characters that are in no key; set it anew'
    )
  return key


def hide(text: str, key: str) -> str:
  """The text without the key, should somebody have put it there."""
  return text.replace(key, '***') if key else text


def _said(raw: bytes) -> str:
  """What an error's body says, in few words."""
  text = raw.decode(errors='replace')
  try:
    content = json.loads(text)
  except (ValueError, RecursionError):
    return text.strip()[:200]
  if isinstance(content, dict):
    inner = content.get('error', content.get('message', content.get('detail', content)))
    text = str(inner.get('message', inner)) if isinstance(inner, dict) else str(inner)
  return text[:300]
