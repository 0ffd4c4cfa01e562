"""The host side of the sampler: prompts into the bank, items into the queue, completions out.

The host runs one chunk ahead of what it has read: while a chunk decodes, the tokens of the one
before are gathered into completions.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.rules import DECODE_RULES, KV_PATHS
from rlvr_jax.models.transformer import Params, unstack
from rlvr_jax.sampling import chunk as chunk_lib
from rlvr_jax.sampling import state as state_lib
from rlvr_jax.sampling.draw import Options
from rlvr_jax.sampling.types import Completion, Item, Sampling
from rlvr_jax.sharding import path_name, shardings

STREAMS = {'train': 0, 'eval': 1, 'probe': 2}
MIN_BUCKET = 16  # tokens: the smallest prefill program
MAX_STOPS = 8


class Programs(NamedTuple):
  """The engine's jitted functions; each takes and gives the state, donated."""

  prefill: Any
  run_chunk: Any
  enqueue: Any


def _programs(layout: Any = None, replicated: NamedSharding | None = None) -> Programs:
  # an output layout left to the compiler may differ from the input's: a recompilation, and no
  # donation; so over a mesh it is pinned
  def jit(f: Callable, out: Any, *static: str) -> Any:
    shardings = {} if layout is None else {'out_shardings': out}
    return jax.jit(f, donate_argnames=('state',), static_argnames=static, **shardings)

  return Programs(
    jit(state_lib.prefill, layout, 'config'),
    jit(chunk_lib.run_chunk, (layout, replicated), 'config', 'steps'),
    jit(state_lib.enqueue, layout),
  )


PROGRAMS = _programs()  # of every engine without a mesh
_sample_keys = jax.jit(state_lib.sample_keys)


def _rewrite(old: Params, params: Params) -> Params:
  # casting to the old dtype and writing over the old leaves keeps one sampler copy alive
  return jax.tree.map(lambda o, n: jnp.copy(n.astype(o.dtype)), old, unstack(params))


def _copied(params: Params) -> Params:
  # leaves that are not stacked would otherwise be the learner's own buffers, which it donates
  return jax.tree.map(jnp.copy, unstack(params))


def hand_over(old: Params | None, params: Params, mesh: Mesh | None = None) -> Params:
  """The learner's params in the sampler's form (per-layer list), re-laid for decoding.

  The old sampler params, if given, are donated and their memory is written over (their dtype and
  layout stay); the learner's are left alone. mesh is that of a first hand-over.
  """
  if old is not None:
    layout = jax.tree.map(lambda leaf: leaf.sharding, old)
    rewrite = jax.jit(_rewrite, donate_argnames=('old',), keep_unused=True, out_shardings=layout)
    return rewrite(old, params)
  if mesh is None:
    return jax.jit(_copied)(params)
  target = decode_shardings(jax.eval_shape(unstack, params), mesh)
  return jax.jit(_copied, out_shardings=target)(params)


def decode_shardings(params: Any, mesh: Mesh) -> Any:
  """Shardings of sampler params; kv weights are replicated where `tensor` does not divide them."""
  kv_heads = params['layers'][0]['k'].shape[1]
  replicate = KV_PATHS if kv_heads % mesh.shape['tensor'] else None
  return shardings(params, DECODE_RULES, mesh, replicate=replicate)


def _state_shardings(state: Any, mesh: Mesh) -> Any:
  """Slots over (data, fsdp), kv heads over tensor where it divides them, the rest replicated."""
  parts = mesh.shape['data'] * mesh.shape['fsdp']

  def one(path: tuple, leaf: Any) -> NamedSharding:
    name = path_name(path)
    is_suffix = 'suffix' in name
    slot_axis = ('data', 'fsdp') if is_suffix or name.startswith('slots/') else None
    if slot_axis and leaf.shape[0] % parts:
      raise ValueError(
        f'sampling.slots={leaf.shape[0]} is not a multiple of mesh.data * mesh.fsdp = {parts}; '
        'choose slots that the mesh divides'
      )
    spec: list[Any] = [slot_axis] if leaf.ndim else []
    if 'bank_k' in name or 'bank_v' in name or is_suffix:
      divides = leaf.shape[1] % mesh.shape['tensor'] == 0
      spec.append('tensor' if divides else None)
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(one, state)


def bucket(length: int, capacity: int) -> int:
  """The prefill size for a prompt: a function of its own length, never of its company."""
  return min(capacity, max(MIN_BUCKET, 1 << (length - 1).bit_length()))


class Engine:
  """Draws completions for a stream of items (docs/design.md).

  slots: completions decoded at once; bank_rows: prompts resident at once; prompt_capacity and
  completion_capacity: tokens; steps: decode steps a chunk; seed enters every key. params are in the
  sampler's form (`hand_over`), or None until `load`. Not thread-safe; one `run` at a time.
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
  ):
    for name, value in (('slots', slots), ('bank_rows', bank_rows), ('chunk', steps)):
      if value < 1:
        raise ValueError(f'sampling.{name}={value} must be at least 1')
    self.params: Params | None = params
    self.config, self.mesh = config, mesh
    self.slots, self.bank_rows, self.steps = slots, bank_rows, steps
    self.prompt_capacity, self.completion_capacity = prompt_capacity, completion_capacity
    # twice what a chunk can consume at most (one token each), since the host reads a chunk late
    self.queue_capacity = 2 * slots * steps
    self._seed = jax.random.key(seed)
    self._programs = PROGRAMS
    self._current: object | None = None  # the run whose items are in the state
    self._state: state_lib.State | None = None
    self._forget_prompts()

  def load(self, params: Params) -> None:
    """Takes new sampler params; prompts computed with the old ones are forgotten."""
    self.params = params
    self._forget_prompts()

  def free(self) -> None:
    """Gives the cache's memory and the params back; `load` takes params again."""
    self._state, self.params, self._current = None, None, None
    self._forget_prompts()

  def _forget_prompts(self) -> None:
    # prompt -> bank row, least recently used first, and how many items still need the row
    self._rows: collections.OrderedDict[tuple[int, ...], int] = collections.OrderedDict()
    self._users = [0] * self.bank_rows

  def _allocate(self, forced: bool) -> None:
    assert self.params is not None
    dtype = str(self.params['embed'].dtype)
    if self._state is not None:
      same = self._state.cache.suffix_k[0].dtype == dtype
      if same and (self._state.slots.forced is not None) == forced:
        return
    make = functools.partial(
      state_lib.init_state,
      self.config,
      slots=self.slots,
      bank_rows=self.bank_rows,
      queue=self.queue_capacity,
      prompt=self.prompt_capacity,
      completion=self.completion_capacity,
      dtype=dtype,
      forced=forced,
    )
    self._state = None
    self._forget_prompts()
    if self.mesh is None:
      self._state = jax.jit(make)()
    else:
      layout = _state_shardings(jax.eval_shape(make), self.mesh)
      self._programs = _programs(layout, NamedSharding(self.mesh, PartitionSpec()))
      self._state = jax.jit(make, out_shardings=layout)()

  def _check(self, items: Iterable[Item], sampling: Sampling) -> None:
    V = self.config.vocab_size
    for prompt, item in {item.prompt_ids: item for item in items}.items():
      if not 1 <= len(prompt) <= self.prompt_capacity:
        raise ValueError(
          f'prompt of problem {item.problem} has {len(prompt)} tokens, but the cache holds prompts '
          f'of 1 to sampling.prompt_capacity={self.prompt_capacity}; raise it or drop the problem'
        )
      if not 0 <= min(prompt) <= max(prompt) < V:
        raise ValueError(
          f'prompt of problem {item.problem} has token ids from {min(prompt)} to {max(prompt)}, '
          f"but the model's vocabulary has {V}: tokenizer and model do not belong together"
        )
    for item in items:
      if item.forced is None:
        continue
      if len(item.forced) > sampling.max_tokens:
        raise ValueError(
          f'{len(item.forced)} forced tokens for problem {item.problem}, but '
          f'sampling.max_tokens={sampling.max_tokens}'
        )
      if not all(0 <= token < V for token in item.forced):
        raise ValueError(
          f'forced tokens {item.forced} for problem {item.problem} leave the vocabulary of {V}'
        )

  def _resident(self, prompt: tuple[int, ...]) -> int | None:
    """The prompt's bank row, prefilled if need be; None while every row is in use."""
    row = self._rows.get(prompt)
    if row is None:
      if len(self._rows) < self.bank_rows:
        row = len(self._rows)
      else:
        old = next((p for p, r in self._rows.items() if self._users[r] == 0), None)
        if old is None:
          return None
        row = self._rows.pop(old)
      padded = np.zeros(bucket(len(prompt), self.prompt_capacity), np.int32)
      padded[: len(prompt)] = prompt
      self._state = self._programs.prefill(
        self.params,
        self._state,
        padded,
        np.int32(len(prompt)),
        np.int32(row),
        config=self.config,
      )
      self._rows[prompt] = row
    self._rows.move_to_end(prompt)
    return row

  def _feed(self, waiting: collections.deque, room: int, live: dict, origin: tuple) -> None:
    """Moves waiting (ident, item) pairs whose prompt is or becomes resident into the queue."""
    batch: list[tuple[int, int, Item]] = []
    while waiting and len(batch) < room:
      ident, item = waiting[0]
      row = self._resident(item.prompt_ids)
      if row is None:
        break
      waiting.popleft()
      self._users[row] += 1
      live[ident] = item, row
      batch.append((ident, row, item))
    size = self.slots * self.steps
    for i in range(0, len(batch), size):
      self._push(batch[i : i + size], size, origin)

  def _push(self, batch: list[tuple[int, int, Item]], size: int, origin: tuple) -> None:
    assert self._state is not None
    stream, model_uid = origin

    def column(values: Iterable[int], dtype: Any) -> np.ndarray:
      out = np.zeros(size, dtype)
      out[: len(batch)] = np.fromiter(values, dtype, len(batch))
      return out

    keys = _sample_keys(
      self._seed,
      stream,
      column((item.visit for _, _, item in batch), np.uint32),
      model_uid,
      column((item.uid for _, _, item in batch), np.uint32),
      column((item.sample for _, _, item in batch), np.uint32),
    )
    forced = None
    if self._state.slots.forced is not None:
      forced = np.full((size, self.completion_capacity), -1, np.int32)
      for i, (_, _, item) in enumerate(batch):
        if item.forced is not None:
          forced[i, : len(item.forced)] = item.forced
    self._state = self._programs.enqueue(
      self._state,
      np.int32(len(batch)),
      column((ident for ident, _, _ in batch), np.int32),
      column((row for _, row, _ in batch), np.int32),
      column((item.start for _, _, item in batch), np.int32),
      keys,
      forced,
    )

  def run(
    self,
    items: Iterable[Item],
    sampling: Sampling,
    *,
    stream: str = 'eval',
    model_uid: int = 0,
  ) -> Iterator[Completion]:
    """Yields completions in order of finishing; stream (STREAMS) and model_uid enter every key.

    Raises ValueError at the call for a prompt that does not fit and for settings out of range.
    Abandoning the iterator early leaves the engine usable (its state is rebuilt); so does a second
    run begun before the first has ended, which ends the first.
    """
    check_sampling(sampling, self.completion_capacity)
    if stream not in STREAMS:
      raise ValueError(f'stream {stream!r} is none of {", ".join(STREAMS)}')
    if self.params is None:
      raise ValueError('the engine has no params: they were freed or never loaded; call load first')
    todo = list(items)
    self._check(todo, sampling)
    return self._run(todo, sampling, (np.uint32(STREAMS[stream]), np.uint32(model_uid)))

  def _run(self, items: list[Item], sampling: Sampling, origin: tuple) -> Iterator[Completion]:
    if self._current is not None:
      self._state = None
    current = self._current = object()
    self._allocate(any(item.forced is not None for item in items))
    options = Options(
      jnp.float32(sampling.temperature), jnp.float32(sampling.top_p), jnp.int32(sampling.top_k)
    )
    stops = np.full(MAX_STOPS, -1, np.int32)
    stops[: len(sampling.stop_ids)] = sampling.stop_ids
    finished = False
    try:
      for completion in self._loop(items, origin, options, stops, np.int32(sampling.max_tokens)):
        yield completion
        if self._current is not current:
          raise RuntimeError('this run was ended: the engine began another one, or was freed')
      finished = True
    finally:
      if self._current is current:
        self._current = None
        if not finished:
          self._state = None

  def _loop(self, items, origin, options, stops, limit) -> Iterator[Completion]:
    waiting = collections.deque(enumerate(items))
    live: dict[int, tuple[Item, int]] = {}
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    unread: collections.deque[chunk_lib.Emitted] = collections.deque()
    while waiting or live:
      self._feed(waiting, self.queue_capacity - len(live), live, origin)
      self._state, emitted = self._programs.run_chunk(
        self.params, self._state, options, stops, limit, config=self.config, steps=self.steps
      )
      unread.append(emitted)
      if len(unread) > 1:  # the device decodes the chunk just sent while we read the one before
        yield from self._read(jax.device_get(unread.popleft()), live, parts, stops)

  def _read(self, emitted, live, parts, stops) -> Iterator[Completion]:
    for ident, tokens, logprobs, done, stopped in gather(emitted, stops):
      if not done:
        parts.setdefault(ident, []).append((tokens, logprobs))
        continue
      item, row = live.pop(ident)
      self._users[row] -= 1
      if ident in parts:
        begun = (*parts.pop(ident), (tokens, logprobs))
        tokens, logprobs = (np.concatenate(x) for x in zip(*begun, strict=True))
      yield Completion(item, tokens, logprobs, not stopped)


def check_sampling(sampling: Sampling, capacity: int) -> None:
  """ValueError naming the key and value of a sampling setting that is out of range."""
  s = sampling
  ranges = (
    ('temperature', s.temperature, s.temperature >= 0, 'at least 0 (0 is greedy)'),
    ('top_p', s.top_p, 0 < s.top_p <= 1, 'in (0, 1] (1 is off)'),
    ('top_k', s.top_k, s.top_k >= 0, 'at least 0 (0 is off)'),
    (
      'max_tokens',
      s.max_tokens,
      1 <= s.max_tokens <= capacity,
      f'between 1 and the completion capacity {capacity}',
    ),
    ('stop_ids', s.stop_ids, len(s.stop_ids) <= MAX_STOPS, f'at most {MAX_STOPS} ids'),
  )
  for name, value, good, rule in ranges:
    if not good:
      raise ValueError(f'sampling.{name}={value} must be {rule}')


def gather(
  emitted: chunk_lib.Emitted, stops: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray, bool, bool]]:
  """Runs of one item within a slot: (ident, tokens, logprobs, done, ended by one of `stops`).

  emitted holds arrays [n,S] on the host; the runs are views of copies of them.
  """
  ident, token, logprob, done = (np.swapaxes(x, 0, 1).reshape(-1) for x in emitted)
  steps = emitted.ident.shape[0]
  # a run ends where the item ends, where the id changes and at the end of the slot's row
  last = done | np.append(ident[1:] != ident[:-1], True)
  last[steps - 1 :: steps] = True
  ends = np.flatnonzero(last) + 1
  begins = np.append(0, ends[:-1])
  busy = ident[begins] != state_lib.IDLE
  begins, ends = begins[busy], ends[busy]
  columns = ident[begins], begins, ends, done[ends - 1], np.isin(token[ends - 1], stops)
  for i, a, b, over, stopped in zip(*(x.tolist() for x in columns), strict=True):
    yield i, token[a:b], logprob[a:b], over, stopped
