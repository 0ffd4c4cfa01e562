"""The host side of the sampler: prompts into the bank, items into the queue, completions out.

The host runs one chunk ahead of what it has read: while a chunk decodes, the tokens of the one
before are gathered into completions.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rlvr_jax import watch
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.decode import AUTO, IMPLEMENTATIONS
from rlvr_jax.models.transformer import Params
from rlvr_jax.sampling import chunk as chunk_lib
from rlvr_jax.sampling import layout, state
from rlvr_jax.sampling.bank import Bank, Place, Prompt, place
from rlvr_jax.sampling.check import MAX_STOPS, check_items, check_sampling
from rlvr_jax.sampling.draw import Options
from rlvr_jax.sampling.shapes import MIN_BUCKET, images_for, shape_of
from rlvr_jax.sampling.types import Completion, Item, Sampling, Stats
from rlvr_jax.sharding import row_parts

STREAMS = {'train': 0, 'eval': 1, 'probe': 2}
_sample_keys = jax.jit(state.sample_keys)


class Engine:
  """Draws completions for a stream of items (docs/design.md).

  slots: completions decoded at once; bank_rows: prompts resident at once, in every shard;
  prompt_capacity and completion_capacity: tokens; steps: decode steps a chunk; seed enters every
  key; page: tokens in a page of the completions' cache; pages: how many there are, 0 for so many
  that every slot can be at its longest (with fewer, the youngest item is sent back to the queue
  when they run out, and begins again later); decode_impl: a name in models.decode, or 'auto'.
  params are in the sampler's form
  (`layout.hand_over`), or None until `load`. Not thread-safe; one `run` at a time.
  """

  def __init__(
    self,
    params: Params | None,
    config: ModelConfig,
    *,
    slots: int,
    bank_rows: int,
    prompt_capacity: int,
    completion_capacity: int,
    mesh: Mesh | None = None,
    steps: int = 32,
    seed: int = 0,
    page: int = 64,
    pages: int = 0,
    decode_impl: str = AUTO,
  ):
    for name, value in (('slots', slots), ('bank_rows', bank_rows), ('chunk', steps)):
      if value < 1:
        raise ValueError(f'sampling.{name}={value} must be at least 1')
    self.shards = row_parts(mesh)
    if slots % self.shards:
      raise ValueError(
        f'sampling.slots={slots} is not a multiple of mesh.data * mesh.fsdp = {self.shards}; '
        'choose slots that the mesh divides'
      )
    self.params: Params | None = params
    self.config, self.mesh = config, mesh
    self.slots, self.bank_rows, self.steps = slots, bank_rows, steps
    self.prompt_capacity, self.completion_capacity = prompt_capacity, completion_capacity
    self.page = page_size(page, completion_capacity)
    self.slot_pages = -(-completion_capacity // self.page)
    self.pages = check_pages(pages, self.slot_pages, self.shards) or slots * self.slot_pages
    dtype = None if params is None else str(params['embed'].dtype)
    self.decode_impl = layout.choose_impl(decode_impl, config, mesh, self.page, dtype)
    self.stats = Stats()
    # twice what a chunk can consume at most (one token each), since the host reads a chunk late
    self._own_slots = slots // self.shards
    self._queue_capacity = 2 * self._own_slots * steps
    self._seed = jax.random.key(seed)
    self._programs = layout.PROGRAMS
    self._current: object | None = None  # the run whose items are in the state
    self._state: state.State | None = None
    self._forget_prompts()
    if dtype is not None:
      self._check_sizes(dtype)

  def load(self, params: Params) -> None:
    """Takes new sampler params; prompts computed with the old ones are forgotten."""
    self.params = params
    self._forget_prompts()

  def free(self) -> None:
    """Gives the cache's memory and the params back; `load` takes params again."""
    self._state, self.params, self._current = None, None, None
    self._forget_prompts()

  def _forget_prompts(self) -> None:
    self._banks = [Bank(self.bank_rows) for _ in range(self.shards)]

  def _allocate(self, forced: bool) -> None:
    assert self.params is not None
    dtype = str(self.params['embed'].dtype)
    if self._state is not None:
      same = self._state.cache.dtype == dtype
      if same and (self._state.slots.item.forced is not None) == forced:
        return
    self._check_sizes(dtype)
    self._state = None
    self._forget_prompts()
    make, target = self.new_state(dtype, forced)
    if self.mesh is None:
      self._state = jax.jit(make)()
    else:
      self._programs = layout.programs_over(self.mesh, target)
      self._state = jax.jit(make, out_shardings=target)()

  def new_state(self, dtype: str, forced: bool) -> tuple[Callable[[], state.State], Any]:
    """What makes an idle state, and its shardings over the mesh (None without one)."""
    make = functools.partial(
      state.init_state,
      self.config,
      shards=self.shards,
      queue=self._queue_capacity,
      completion=self.completion_capacity,
      dtype=dtype,
      forced=forced,
      impl=self.decode_impl,
      **self._sizes(),
    )
    if self.mesh is None:
      return make, None
    heads = self.config.num_kv_heads, IMPLEMENTATIONS[self.decode_impl].heads_axis
    return make, layout.state_shardings(jax.eval_shape(make), self.mesh, *heads)

  def _sizes(self) -> dict[str, int]:
    """Capacities of one shard, as init_state takes them."""
    return {
      'slots': self._own_slots,
      'bank_rows': self.bank_rows,
      'prompt': IMPLEMENTATIONS[self.decode_impl].bank_capacity(self.prompt_capacity, self.page),
      'pages': self.pages // self.shards,
      'page': self.page,
      'slot_pages': self.slot_pages,
    }

  def _check_sizes(self, dtype: str) -> None:
    tensor = 1 if self.mesh is None else self.mesh.shape['tensor']
    with layout.on(self.mesh):
      IMPLEMENTATIONS[self.decode_impl].check_sizes(self.config, tensor, dtype, **self._sizes())

  def run(
    self,
    items: Iterable[Item | None],
    sampling: Sampling,
    *,
    stream: str = 'eval',
    model_uid: int = 0,
  ) -> Iterator[Completion]:
    """Yields completions in order of finishing; stream (STREAMS) and model_uid enter every key.

    items may be an iterator: it is asked between chunks, a little ahead of what can start, so that
    it may decide late; None from it means that there is none yet. Raises ValueError for an item
    that does not fit (at the call for a sequence, else when it comes up) and for settings out of
    range. Abandoning the iterator early leaves the engine usable (its state is rebuilt); so does a
    second run begun before the first has ended, which ends the first.
    """
    check_sampling(sampling, self.completion_capacity)
    if stream not in STREAMS:
      raise ValueError(f'stream {stream!r} is none of {", ".join(STREAMS)}')
    if self.params is None:
      raise ValueError('the engine has no params: they were freed or never loaded; call load first')
    forced = False
    if isinstance(items, Sequence):
      listed = [item for item in items if item is not None]
      self._check(listed, sampling)
      forced = any(item.forced is not None for item in listed)
      checked = iter(listed)
    else:
      checked = self._checked(items, sampling)
    return self._run(checked, sampling, forced, (np.uint32(STREAMS[stream]), np.uint32(model_uid)))

  def _check(self, items: Iterable[Item], sampling: Sampling) -> None:
    V = self.config.vocab_size
    check_items(
      items, sampling, vocabulary=V, capacity=self.prompt_capacity, vision=self.config.vision
    )

  def _checked(self, items: Iterable[Item | None], sampling: Sampling) -> Iterator[Item | None]:
    for item in items:
      if item is not None:
        self._check([item], sampling)
        if item.forced is not None:
          raise ValueError('items with forced tokens have to come as a list, not as an iterator')
      yield item

  def _run(
    self, items: Iterator[Item | None], sampling: Sampling, forced: bool, origin: tuple
  ) -> Iterator[Completion]:
    if self._current is not None:
      self._state = None
    current = self._current = object()
    self._allocate(forced)
    finished = False
    try:
      for completion in _Run(self, items, sampling, origin).completions():
        self.stats.tokens += len(completion.tokens)
        yield completion
        if self._current is not current:
          raise RuntimeError('this run was ended: the engine began another one, or was freed')
      finished = True
    finally:
      if self._current is current:
        self._current = None
        if not finished:
          self._state = None

  def _prefill(self, new: Sequence[tuple[Place, Prompt]]) -> None:
    """Computes prompts into their rows, one a shard and call."""
    waiting = collections.deque(new)
    while waiting:
      shape = shape_of(waiting[0][1], self.prompt_capacity, self.config.vision)
      size = shape[0]
      tokens = np.zeros((self.shards, size), np.int32)
      length = np.ones(self.shards, np.int32)
      row = np.full(self.shards, self.bank_rows, np.int32)  # beyond the last: nothing to write
      prompts: list[Prompt] = [(0,)] * self.shards
      for _ in range(len(waiting)):
        where, prompt = waiting.popleft()
        taken = row[where.shard] < self.bank_rows
        if taken or shape_of(prompt, self.prompt_capacity, self.config.vision) != shape:
          waiting.append((where, prompt))
          continue
        tokens[where.shard, : len(prompt)] = prompt
        length[where.shard], row[where.shard] = len(prompt), where.row
        prompts[where.shard] = prompt
        self.stats.prompts += 1
        self.stats.prefill_tokens += size
      given = (tokens, length, row, *images_for(prompts, shape, self.config.vision))
      self._state = self._programs.prefill(
        self.params, self._state, *given, config=self.config, impl=self.decode_impl
      )

  def _decode(self, options: Options, stops: np.ndarray, extras: bool) -> chunk_lib.Emitted:
    static = {'config': self.config, 'steps': self.steps, 'impl': self.decode_impl}
    self._state, emitted = self._programs.run_chunk(
      self.params, self._state, options, stops, extras=extras, **static
    )
    return emitted


class _Run:
  """One run of an engine: the items outstanding and the parts of their completions."""

  def __init__(
    self, engine: Engine, items: Iterator[Item | None], sampling: Sampling, origin: tuple
  ):
    self._engine, self._items, self._sampling, self._origin = engine, items, sampling, origin
    self._ahead: list[Item] = []  # an item that no shard could take yet
    self._idents = itertools.count()
    self._live: dict[int, tuple[Item, Place]] = {}
    self._loads = [0] * engine.shards
    self._parts: dict[int, list[tuple[np.ndarray, ...]]] = {}
    self._most_finished = 0  # in a chunk so far: how far ahead the queue has to reach
    self._exhausted = False

  def completions(self) -> Iterator[Completion]:
    s = self._sampling
    options = Options(jnp.float32(s.temperature), jnp.float32(s.top_p), jnp.int32(s.top_k))
    stops = np.full(MAX_STOPS, -1, np.int32)
    stops[: len(s.stop_ids)] = s.stop_ids
    unread: collections.deque[chunk_lib.Emitted] = collections.deque()
    self._feed()
    while self._live or not self._exhausted:
      watch.tick()
      unread.append(self._engine._decode(options, stops, s.extras))
      if len(unread) > 1:  # the device decodes the chunk just sent while we read the one before
        yield from self._read(jax.device_get(unread.popleft()), stops)
      self._feed()
    for emitted in unread:  # nothing is live: only their counters are left
      self._count(jax.device_get(emitted).counters)

  def _next_item(self) -> Item | None:
    """The next item; None if there is none, or none yet."""
    if self._ahead:
      return self._ahead.pop()
    try:
      return next(self._items)
    except StopIteration:
      self._exhausted = True
      return None

  def _feed(self) -> None:
    """Moves items into the shards' queues, as many as two chunks may start."""
    engine = self._engine
    own = engine._own_slots
    most = min(own + max(own, 3 * self._most_finished), engine._queue_capacity)
    batches: list[list[tuple[int, int, Item]]] = [[] for _ in range(engine.shards)]
    new: list[tuple[Place, Prompt]] = []
    while min(self._loads) < most and (item := self._next_item()) is not None:
      where = place(item.prompt_ids, engine._banks, self._loads, most, own // 2)
      if where is None:
        self._ahead.append(item)
        break
      if where.new:
        new.append((where, item.prompt_ids))
      ident = next(self._idents)
      engine._banks[where.shard].users[where.row] += 1
      self._loads[where.shard] += 1
      self._live[ident] = item, where
      batches[where.shard].append((ident, where.row, item))
    engine._prefill(new)
    size = own * engine.steps
    for i in range(0, max(map(len, batches)), size):
      self._push([batch[i : i + size] for batch in batches], size)

  def _push(self, batches: list[list[tuple[int, int, Item]]], size: int) -> None:
    engine = self._engine
    assert engine._state is not None
    stream, model_uid = self._origin
    shards = engine.shards

    def column(values: Any, dtype: Any) -> Any:
      out = np.zeros((shards, size), dtype)
      for shard, batch in zip(out, batches, strict=True):
        shard[: len(batch)] = np.fromiter((values(*entry) for entry in batch), dtype, len(batch))
      return out.reshape(-1)

    longest = self._sampling.max_tokens
    keys = _sample_keys(
      engine._seed,
      stream,
      column(lambda ident, row, item: item.visit, np.uint32),
      model_uid,
      column(lambda ident, row, item: item.uid, np.uint32),
      column(lambda ident, row, item: item.sample, np.uint32),
    )
    entries = state.Entry(
      ident=column(lambda ident, row, item: ident, np.int32),
      row=column(lambda ident, row, item: row, np.int32),
      start=column(lambda ident, row, item: item.start, np.int32),
      limit=column(lambda ident, row, item: min(item.limit or longest, longest), np.int32),
      key=keys,
      forced=self._forced(batches, size) if engine._state.slots.item.forced is not None else None,
    )
    count = np.array([len(batch) for batch in batches], np.int32)
    engine._state = engine._programs.enqueue(engine._state, count, entries)

  def _forced(self, batches: list[list[tuple[int, int, Item]]], size: int) -> Any:
    out = np.full((len(batches), size, self._engine.completion_capacity), -1, np.int32)
    for shard, batch in zip(out, batches, strict=True):
      for row, (_, _, item) in zip(shard, batch, strict=False):
        if item.forced is not None:
          row[: len(item.forced)] = item.forced
    return out.reshape(-1, out.shape[-1])

  def _read(self, emitted: chunk_lib.Emitted, stops: np.ndarray) -> Iterator[Completion]:
    self._count(emitted.counters)
    finished = 0
    for ident, values, first, done, stopped in gather(emitted, stops):
      if first:
        self._parts.pop(ident, None)  # of an item that was sent back to the queue
      if not done:
        self._parts.setdefault(ident, []).append(values)
        continue
      finished += 1
      item, where = self._live.pop(ident)
      self._engine._banks[where.shard].users[where.row] -= 1
      self._loads[where.shard] -= 1
      if ident in self._parts:
        begun = (*self._parts.pop(ident), values)
        values = tuple(np.concatenate(x) for x in zip(*begun, strict=True))
      tokens, logprobs, *extras = values
      known = dict(zip(('entropies', 'truncated_logprobs'), extras, strict=False))
      yield Completion(item, tokens, logprobs, not stopped, **known)
    self._most_finished = max(self._most_finished, finished // self._engine.shards)

  def _count(self, counters: Any) -> None:
    """counters i32[n,shards*len(COUNTERS)] of a chunk into the engine's stats."""
    stats, shards = self._engine.stats, self._engine.shards
    table = counters.astype(np.int64).reshape(-1, shards, len(chunk_lib.COUNTERS)).sum(0)
    total = dict(zip(chunk_lib.COUNTERS, table.sum(0).tolist(), strict=True))
    stats.steps += int(table[:, 0].max())
    stats.slot_steps += total['steps'] * self._engine._own_slots
    stats.live_steps += total['live_steps']
    stats.evicted += total['evicted']
    stats.kv_live += total['kv_live']
    stats.kv_read += total['kv_read']


def page_size(page: int, completion_capacity: int) -> int:
  """The page in use: a power of two, no longer than the longest completion needs."""
  if page < MIN_BUCKET or page & (page - 1):
    raise ValueError(f'sampling.page={page} must be a power of two, at least {MIN_BUCKET} tokens')
  return min(page, max(MIN_BUCKET, 1 << (completion_capacity - 1).bit_length()))


def check_pages(pages: int, slot_pages: int, shards: int) -> int:
  """pages, or ValueError if they cannot hold one completion of full length in every shard."""
  if pages and (pages % shards or pages < slot_pages * shards):
    raise ValueError(
      f'sampling.pages={pages} must be a multiple of the {shards} shards, and at least '
      f'{slot_pages * shards}, so that each can hold one completion of full length'
    )
  return pages


class Piece(NamedTuple):
  """Successive tokens of one item within a slot and a chunk."""

  ident: int
  values: tuple[np.ndarray, ...]  # tokens, log-probs; with extras entropies, truncated log-probs
  first: bool  # the item's first
  done: bool  # the item's last
  stopped: bool  # the last is a stop token


def gather(emitted: chunk_lib.Emitted, stops: np.ndarray) -> Iterator[Piece]:
  """Pieces of what was emitted, arrays [n,S] on the host, in the order of their first step.

  Their values are views of copies of them.
  """

  def flat(x: Any) -> np.ndarray:
    return np.swapaxes(x, 0, 1).reshape(-1)

  ident, first, done = map(flat, (emitted.ident, emitted.first, emitted.done))
  extras = emitted.entropy, emitted.truncated_logprob
  values = [flat(x) for x in (emitted.token, emitted.logprob, *extras) if x is not None]
  steps = emitted.ident.shape[0]
  # a piece ends where the item ends, another (or the same anew) begins, or the slot's row ends
  last = done | np.append((ident[1:] != ident[:-1]) | first[1:], True)
  last[steps - 1 :: steps] = True
  ends = np.flatnonzero(last) + 1
  begins = np.append(0, ends[:-1])
  busy = ident[begins] != state.IDLE
  begins, ends = begins[busy], ends[busy]
  order = np.argsort(begins % steps, kind='stable')
  begins, ends = begins[order], ends[order]
  stopped = np.isin(values[0][ends - 1], stops)
  columns = ident[begins], begins, ends, first[begins], done[ends - 1], stopped
  for i, a, b, *flags in zip(*(x.tolist() for x in columns), strict=True):
    yield Piece(i, tuple(x[a:b] for x in values), *flags)
