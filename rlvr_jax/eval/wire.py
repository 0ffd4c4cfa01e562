"""Requests and answers of OpenAI-compatible servers, as JSON. Nothing is sent here."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax.eval import columns

_MOST_LOGPROB = 0.01  # of a token, with room for rounding
_FINISHES = {
  'stop': 'eos', 'eos': 'eos', 'end_turn': 'eos', 'stop_sequence': 'eos', 'tool_calls': 'eos',
  'function_call': 'eos', 'length': 'length', 'max_tokens': 'length', 'content_filter': 'refused',
}  # fmt: skip


class ServerError(OSError):
  """The server did not answer as it should, also after the last try; the message says how."""


class Passing(Exception):
  """A failure that may pass; wait_s: what the server asks to wait, None if it does not say."""

  def __init__(self, text: str, wait_s: float | None = None):
    super().__init__(text)
    self.wait_s = wait_s


class Refused(ServerError):
  """An answer with a status that will not pass by asking again."""

  def __init__(self, text: str, status: int):
    super().__init__(text)
    self.status = status


@dataclasses.dataclass(frozen=True)
class Asked:
  """One request: text to go on from, or chat messages to answer, n times.

  prefix: the beginning of the assistant's answer to messages (vLLM's continue_final_message).
  seed None leaves the choice to the server; top_k 0 is off.
  """

  prompt: str | Sequence[Mapping[str, str]]
  n: int = 1
  seed: int | None = None
  temperature: float = 1.0
  top_p: float = 1.0
  top_k: int = 0
  max_tokens: int = 1024
  prefix: str = ''


@dataclasses.dataclass(frozen=True)
class Answer:
  """One completion. finish: eos | length | refused (the server's filter cut it).

  length: its tokens as the server counts them. logprob_sum: natural log, over them, of what the
  server reports (vLLM: of the distribution at temperature 1); None where it reports none.
  """

  text: str
  finish: str
  length: int
  logprob_sum: float | None


def body_of(asked: Asked, model: str, *, logprobs: bool) -> tuple[str, dict[str, Any]]:
  """(path, body) of a request."""
  body: dict[str, Any] = {
    'model': model,
    'n': asked.n,
    'temperature': asked.temperature,
    'top_p': asked.top_p,
    'max_tokens': asked.max_tokens,
  }
  if asked.seed is not None:
    body['seed'] = asked.seed
  if asked.top_k:
    body['top_k'] = asked.top_k  # not of OpenAI's own; vLLM, SGLang and llama.cpp know it
  if isinstance(asked.prompt, str):
    if logprobs:
      body['logprobs'] = 1
    return '/completions', {**body, 'prompt': asked.prompt}
  messages = [dict(message) for message in asked.prompt]
  if asked.prefix:
    messages.append({'role': 'assistant', 'content': asked.prefix})
    body |= {'continue_final_message': True, 'add_generation_prompt': False}
  if logprobs:
    body['logprobs'] = True
  return '/chat/completions', {**body, 'messages': messages}


def answers_of(content: Mapping[str, Any], asked: Asked) -> list[Answer]:
  """The answers in a server's content; what it lacks may pass, except what it never tells."""
  choices = content.get('choices')
  if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
    raise Passing(f'the answer has no list of choices but {sorted(content)}')
  if len(choices) != asked.n:
    raise Passing(
      f'{len(choices)} completions in place of {asked.n} (a server that gives one at a time needs '
      'server.n=1)'
    )
  usage = content.get('usage')
  used = usage.get('completion_tokens') if isinstance(usage, dict) else None
  places = [one.get('index') or 0 for one in choices]
  if not all(isinstance(place, int) for place in places):
    raise Passing(f'choices with the indices {places!r}')
  ordered = sorted(choices, key=lambda one: one.get('index') or 0)
  return [_answer(one, used if asked.n == 1 else None, asked) for one in ordered]


def _answer(choice: Mapping[str, Any], used: Any, asked: Asked) -> Answer:
  reason = choice.get('finish_reason')
  finish = _FINISHES.get(str(reason))
  if finish is None:
    raise Passing(f'finish_reason={reason!r} is none of {", ".join(_FINISHES)}')
  message = choice.get('message')
  text = message.get('content') if isinstance(message, dict) else choice.get('text')
  if isinstance(message, dict):
    thought = message.get('reasoning_content') or message.get('reasoning')
    if thought:  # what the server's parser had taken out
      text = f'<think>\n{thought}\n</think>\n\n{text or ""}'
    text = text or ''
  if not isinstance(text, str):
    raise Passing(f'a choice without text: {sorted(choice)}')
  logprobs = _logprobs(choice.get('logprobs'))
  if text and not logprobs:
    logprobs = None  # none told of a text that has tokens
  length = _length(used if logprobs is None else len(logprobs), text, asked)
  total = None if logprobs is None else math.fsum(logprobs)
  return Answer(columns.whole_text(text), finish, length, total)


def _length(told: Any, text: str, asked: Asked) -> int:
  """The tokens of a completion; Refused if they are not told, or more than may be."""
  if isinstance(told, float) and told.is_integer():
    told = int(told)
  if not isinstance(told, int) or isinstance(told, bool) or told < bool(text):
    way = ': set server.n=1 (with server.n above 1 it must give log-probs)' if asked.n > 1 else ''
    raise Refused(
      'the server tells neither log-probs nor usage.completion_tokens of each completion, so its '
      f'length is not known{way}',
      200,
    )
  if told > asked.max_tokens + 1:  # some count the end of the text too
    raise Refused(
      f'the server gave {told:,} tokens where max_tokens={asked.max_tokens:,} was asked: it does '
      'not keep to the limit (sampling.max_tokens), so its samples are not what the store says',
      200,
    )
  return told


def _logprobs(given: Any) -> list[float] | None:
  """The log-prob of each token, from either form; None where one is missing."""
  if not isinstance(given, dict):
    return None
  values = given.get('token_logprobs')
  if values is None and isinstance(given.get('content'), list):
    values = [one.get('logprob') if isinstance(one, dict) else None for one in given['content']]
  if not isinstance(values, list):
    return None
  told = [
    float(value)
    for value in values
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
  ]
  if told and max(told) > _MOST_LOGPROB:
    raise Refused(
      f'the server gives a log-prob of {max(told):g}, which is no log of a probability; leave them '
      'out with --config.server.logprobs=False',
      200,
    )
  return told if len(told) == len(values) else None
