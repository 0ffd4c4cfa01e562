"""Conversations: a completion, what the environment says to it, the next completion, ...

An observation ends an item of the engine. The conversation so far is the prompt of the next item,
whose positions go on (Item.start), so that every token's key and distribution are those of one long
completion, whatever else is being drawn. `converse` stands where the engine's `run` would: it takes
the same items and yields one Completion for each conversation, laid end to end.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.sampling.check import MAX_STOPS
from rlvr_jax.sampling.types import Completion, Item, Sampling, Turns
from rlvr_jax.tasks import environments, prompts
from rlvr_jax.tasks.load import environment_of
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import verifier_version

EXTRAS = ('entropies', 'truncated_logprobs')
Run = Callable[[Iterator[Item | None], Sampling], Iterator[Completion]]


@dataclasses.dataclass(frozen=True)
class Rules:
  """How conversations about some problems go.

  jobs: the problems as the environment's calls have them. most: completions in a conversation.
  frame: text before and after an observation. stops, at_end: of the environment. capacity: tokens
  of a prompt. version: of the environment.
  """

  jobs: Sequence[Problem]
  most: int
  frame: tuple[str, str]
  stops: tuple[str, ...]
  at_end: bool
  capacity: int
  version: str

  def settings(self) -> dict[str, Any]:
    """What a draw depends on beside the sampling settings."""
    return {'environment': self.version, 'turns': self.most}


def rules_of(
  task: Mapping[str, Any], problems: Sequence[Problem], tokenizer: Tokenizer, capacity: int
) -> Rules | None:
  """The rules by a config's task group, None where completions are not answered.

  Raises ValueError for an environment that is not known, a template that cannot go on, and problems
  with images, whose prompts do not grow.
  """
  name = environment_of(task)
  if not name:
    return None
  if seen := [problem.id for problem in problems if problem.images]:
    raise ValueError(
      f'task.environment={name!r}: {len(seen)} problems have images, e.g. {seen[0]!r}, and are '
      "answered once; set task.environment=''"
    )
  found = environments.find(name)
  hf: Any = tokenizer.hf
  return Rules(
    jobs=[environments.job_of(problem, name) for problem in problems],
    most=task['turns'],
    frame=('', '') if found.inline else prompts.frame(task['template'], hf),
    stops=found.stops,
    at_end=found.at_end,
    capacity=capacity,
    version=verifier_version(f'environment:{name}'),
  )


def converse(
  run: Run,
  items: Iterable[Item],
  sampling: Sampling,
  rules: Rules,
  *,
  tokenizer: Tokenizer,
  pool: VerifierPool,
) -> Generator[Completion]:
  """The items' conversations, in the order of ending. run(items, sampling) draws completions.

  sampling.max_tokens counts the model's tokens of a whole conversation. A conversation ends
  truncated when they are used up, when its last allowed completion asks for an observation, and
  when the next prompt would be longer than rules.capacity (Turns.outgrown).
  """
  desk = _Desk(items, sampling, rules, tokenizer, pool)
  drawn: Any = run(desk.feed(), desk.sampling)
  with contextlib.closing(drawn):
    for completion in drawn:
      desk.take(completion)
      while desk.ended:
        yield desk.ended.popleft()
  while desk.ended:
    yield desk.ended.popleft()


@dataclasses.dataclass(eq=False)
class _Talk:
  """A conversation that goes on: its first item, and what was written after that one's prompt."""

  item: Item
  pieces: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
  used: int = 0  # tokens that the model wrote
  length: int = 0  # of all tokens after the first prompt
  last: int = 0  # where the last completion begins
  count: int = 0
  state: Any = None
  rewards: list[float] = dataclasses.field(default_factory=list)  # of the turns before the last

  def add(self, tokens: np.ndarray, sampled: bool, **values: np.ndarray | None) -> None:
    """Appends tokens; values of the model's, f32 each, are 0 on others."""
    given = {name: x for name, x in values.items() if x is not None}
    self.pieces.append({'tokens': tokens, 'sampled': np.full(len(tokens), sampled), **given})
    self.length += len(tokens)

  def all_of(self, name: str) -> np.ndarray | None:
    """The values of a name over all tokens; None if no completion has them."""
    if not any(name in piece for piece in self.pieces):
      return None
    nothing = [np.zeros(len(piece['tokens']), np.float32) for piece in self.pieces]
    return np.concatenate([p.get(name, zero) for p, zero in zip(self.pieces, nothing, strict=True)])

  def end(self, truncated: bool, *, outgrown: bool = False, failed: str = '') -> Completion:
    """The whole of it."""
    tokens, sampled, logprobs = (self.all_of(name) for name in ('tokens', 'sampled', 'logprobs'))
    assert tokens is not None
    assert sampled is not None
    assert logprobs is not None
    turns = Turns(sampled, self.last, self.count, outgrown, failed, tuple(self.rewards))
    extras = {name: self.all_of(name) for name in EXTRAS}
    return Completion(self.item, tokens, logprobs, truncated, **extras, turns=turns)


class _Desk:
  """The conversations in hand: what goes into the engine next, what the pool is asked."""

  def __init__(
    self,
    items: Iterable[Item],
    sampling: Sampling,
    rules: Rules,
    tokenizer: Tokenizer,
    pool: VerifierPool,
  ):
    self._items, self._rules, self._tokenizer, self._pool = iter(items), rules, tokenizer, pool
    self._eos, self._limit = frozenset(sampling.stop_ids), sampling.max_tokens
    self._talks: dict[tuple[int, int, int], _Talk] = {}  # those with an item in the engine
    self._asked: list[tuple[_Talk, Future[Verdict]]] = []
    self._ready: collections.deque[Item] = collections.deque()
    self.ended: collections.deque[Completion] = collections.deque()
    # a text that is one token stops the engine at once; others are found afterwards
    encoded = [tuple(tokenizer.encode(text, special=False)) for text in rules.stops]
    single = tuple(ids[0] for ids in encoded if len(ids) == 1)
    most = max(MAX_STOPS, len(sampling.stop_ids))
    stop_ids = tuple(dict.fromkeys((*sampling.stop_ids, *single)))[:most]
    self.sampling = dataclasses.replace(sampling, stop_ids=stop_ids)

  def feed(self) -> Iterator[Item | None]:
    """Items for the engine: of conversations that go on, then new ones; None while it must wait."""
    while True:
      self._listen()
      if self._ready:
        item = self._ready.popleft()
        self._talks[_key(item)].count += 1
        yield item
      elif (item := next(self._items, None)) is not None:
        assert _key(item) not in self._talks, _key(item)
        self._talks[_key(item)] = _Talk(item, count=1)
        yield item
      elif self._talks_in_engine():
        yield None
      elif self._asked:
        self._asked[0][1].result()  # nothing to decode meanwhile
      else:
        return

  def _talks_in_engine(self) -> bool:
    return len(self._talks) > len(self._asked)

  def take(self, completion: Completion) -> None:
    """Takes a completion: its conversation ends, or the environment is asked."""
    rules, talk = self._rules, self._talks[_key(completion.item)]
    size, why = self._cut(completion)
    text = self._text(completion.tokens[: size - (why == 'end')])
    if why == 'stop':  # its last token may hold more than the end of the stop text
      text = text[: self._stop_end(text)]
    values = {name: getattr(completion, name) for name in ('logprobs', *EXTRAS)}
    talk.last = talk.length
    talk.add(
      completion.tokens[:size], True, **{k: v if v is None else v[:size] for k, v in values.items()}
    )
    talk.used += size
    answered = why == 'stop' or (why == 'end' and rules.at_end)
    limit = min(talk.item.limit or self._limit, self._limit)
    if answered and talk.count < rules.most and talk.used < limit:
      call = environments.call_text(talk.state, text)
      self._asked.append((talk, self._pool.submit(rules.jobs[talk.item.problem], call)))
    else:
      self._end(talk, why == 'limit' or (why == 'stop' and answered))

  def _cut(self, completion: Completion) -> tuple[int, str]:
    """Tokens of it that count, and what ended them: a 'stop' text, the 'end' token, the 'limit'."""
    tokens = completion.tokens
    if self._stop_end(self._text(tokens)):
      low, high = 1, len(tokens)  # the fewest tokens whose text holds a stop text
      while low < high:
        middle = (low + high) // 2
        low, high = (
          (low, middle) if self._stop_end(self._text(tokens[:middle])) else (middle + 1, high)
        )
      return low, 'stop'
    return len(tokens), 'end' if int(tokens[-1]) in self._eos else 'limit'

  def _stop_end(self, text: str) -> int:
    """Where the stop text ends that is complete first; 0 without one."""
    stops = self._rules.stops
    return min((text.index(stop) + len(stop) for stop in stops if stop in text), default=0)

  def _text(self, tokens: np.ndarray) -> str:
    return self._tokenizer.decode(tokens, skip_special=False)

  def _listen(self) -> None:
    """Goes on with every conversation that has been answered."""
    still = []
    for talk, future in self._asked:
      if future.done():
        self._go_on(talk, future.result())
      else:
        still.append((talk, future))
    self._asked = still

  def _go_on(self, talk: _Talk, reply: Verdict) -> None:
    if reply.verdict == 'error':
      self._end(talk, False, failed=reply.reason or 'the environment failed')
      return
    observation: str | None = environments.TIMEOUT
    reward = 0.0
    if reply.verdict != 'timeout':
      observation, talk.state, reward = environments.reply_of(reply)
    if observation is None:
      self._end(talk, False)
      return
    observed = self._observed(talk, observation)
    begun = talk.item.prompt_ids
    if len(begun) + talk.length + len(observed) > self._rules.capacity:
      self._end(talk, True, outgrown=True)
      return
    talk.add(observed, False)
    talk.rewards.append(reward)
    limit = min(talk.item.limit or self._limit, self._limit)
    tokens = talk.all_of('tokens')
    assert tokens is not None
    self._ready.append(
      dataclasses.replace(
        talk.item,
        prompt_ids=(*begun, *tokens.tolist()),
        start=talk.item.start + talk.length,
        limit=limit - talk.used,
      )
    )

  def _observed(self, talk: _Talk, observation: str) -> np.ndarray:
    before, after = self._rules.frame
    final = talk.pieces[-1]['tokens'][-1:]
    if int(final[0]) in self._eos:  # the frame of a chat template writes the stop token itself
      before = before.removeprefix(self._text(final))
    ids = self._tokenizer.encode(before + observation + after, special=False)
    return np.array(ids, np.int32)

  def _end(self, talk: _Talk, truncated: bool, **more: Any) -> None:
    del self._talks[_key(talk.item)]
    self.ended.append(talk.end(truncated, **more))


def _key(item: Item) -> tuple[int, int, int]:
  return item.problem, item.visit, item.sample
