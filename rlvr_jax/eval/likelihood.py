"""What a model makes of completions that are there: log-probs of tokens by the learner's forward.

At temperature 1 for perplexity, and on request at sampling settings for reach: what top-k and
top-p leave is decided by the sampler's own code (sampling/draw.py) with the tokens forced.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.load import load_model
from rlvr_jax.models.logprobs import logits, token_logprobs
from rlvr_jax.models.rules import KV_PATHS, TRAIN_RULES
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.models.transformer import Params, forward, init_params
from rlvr_jax.sampling.blocks import Blocks
from rlvr_jax.sampling.draw import Options, draw
from rlvr_jax.sharding import ROWS, row_parts, shardings

MIN_LENGTH = 16  # tokens of the shortest row
MICRO_TOKENS = 8192  # tokens in a batch of rows
CHUNK = 256  # tokens whose logits exist at once
Row = tuple[Sequence[int], Sequence[int]]  # prompt ids, completion ids


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a model draws: what is drawable, and how likely it is. top_p 1 and top_k 0 are off."""

  temperature: float = 1.0
  top_p: float = 1.0
  top_k: int = 0

  def __post_init__(self):
    if not self.temperature > 0:
      raise ValueError(
        f'temperature={self.temperature}: reach asks how likely a completion is to be drawn, and '
        'at temperature 0 a model draws one only; sample at a temperature above 0, or set '
        'perplexity.reach=False'
      )


@dataclasses.dataclass(frozen=True)
class TokenScores:
  """Of each token of a completion, f32[length]; the last four only with Settings.

  logprobs, entropies: of the distribution at temperature 1 (nats). tempered: the log-prob at the
  settings' temperature; drawn: in what top-k and top-p leave of that, -inf outside. likelier: the
  mass of strictly likelier tokens at that temperature, before top-k and top-p. ranks i32: how many
  those are.
  """

  logprobs: np.ndarray
  entropies: np.ndarray
  tempered: np.ndarray | None = None
  drawn: np.ndarray | None = None
  likelier: np.ndarray | None = None
  ranks: np.ndarray | None = None


def load(
  name: str, *, dtype: str, mesh: Mesh | None, attention_impl: str = 'auto'
) -> tuple[ModelConfig, Params, Tokenizer]:
  """A model laid out for scoring, over the mesh if there is one."""

  def placed(config: ModelConfig) -> Any:
    assert mesh is not None
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), config, dtype))
    replicate = KV_PATHS if config.num_kv_heads % mesh.shape['tensor'] else None
    return shardings(shapes, TRAIN_RULES, mesh, replicate=replicate)

  shardings_of = placed if mesh is not None else None
  return load_model(
    name, dtype=dtype, shardings=shardings_of, merged=True, attention_impl=attention_impl
  )


def row_length(longest: int) -> int:
  """Tokens T >= longest of a row: a power of two or 1.5 times one, so that programs stay few."""
  power = max(MIN_LENGTH, 1 << (longest - 1).bit_length())
  return power * 3 // 4 if MIN_LENGTH <= longest <= power * 3 // 4 else power


def token_scores(
  params: Params,
  config: ModelConfig,
  rows: Sequence[Row],
  settings: Settings | None = None,
  *,
  micro_tokens: int = MICRO_TOKENS,
  chunk: int = CHUNK,
  mesh: Mesh | None = None,
) -> Iterator[tuple[int, TokenScores]]:
  """(index of the row, its TokenScores), shortest rows first; every completion needs a token.

  A row longer than the model's positions is refused (ValueError); rows are never cut.
  """
  check_rows(rows, config)
  lengths = np.array([len(prompt) + len(completion) for prompt, completion in rows])
  order = np.argsort(lengths, kind='stable')
  begin = 0
  while begin < len(order):
    T = row_length(int(lengths[order[begin]]))
    left = int(np.searchsorted(lengths[order], T, side='right')) - begin
    b = batch_rows(T, left, micro_tokens, mesh)
    end = begin + min(b, left)
    members = order[begin:end].tolist()
    batch = [rows[i] for i in members]
    found = _score_batch(params, config, batch, settings, (b, T), chunk, mesh)
    yield from zip(members, found, strict=True)
    begin = end


def check_rows(rows: Sequence[Row], config: ModelConfig) -> None:
  """ValueError for rows that cannot be scored."""
  for number, (prompt, completion) in enumerate(rows):
    if not len(prompt) or not len(completion):
      raise ValueError(
        f'row {number} has {len(prompt)} prompt tokens and {len(completion)} completion tokens: a '
        'token is scored after others, so both need at least one'
      )
    if len(prompt) + len(completion) > config.max_positions:
      raise ValueError(
        f'row {number} has {len(prompt) + len(completion)} tokens, but the model has '
        f'{config.max_positions} positions; leave that completion out'
      )


def batch_rows(T: int, left: int, micro_tokens: int, mesh: Mesh | None) -> int:
  """Rows of a batch, of `left` of that length: what micro_tokens holds, or a power of two >= left.

  A multiple of the mesh's data parts, if that is more.
  """
  parts = row_parts(mesh)
  most = max(1, micro_tokens // T // parts)
  return parts * min(most, 1 << (-(-left // parts) - 1).bit_length())


def _score_batch(
  params: Params,
  config: ModelConfig,
  batch: Sequence[Row],
  settings: Settings | None,
  shape: tuple[int, int],
  chunk: int,
  mesh: Mesh | None,
) -> list[TokenScores]:
  b, T = shape
  chunk = min(chunk, b * T)
  tokens = np.zeros((b, T), np.int32)
  places = []
  for i, (prompt, completion) in enumerate(batch):
    end = len(prompt) + len(completion)
    tokens[i, : len(prompt)] = prompt
    tokens[i, len(prompt) : end] = completion
    places.append(i * T + np.arange(len(prompt), end, dtype=np.int32))
  flat = np.concatenate(places)
  asked = np.zeros(-(-b * T // chunk) * chunk, np.int32)  # of one size for all batches of a shape
  asked[: len(flat)] = flat
  s = settings or Settings()
  options = Options(jnp.float32(s.temperature), jnp.float32(s.top_p), jnp.int32(s.top_k))
  given: Any = tokens
  if mesh is not None:
    given = jax.device_put(tokens, NamedSharding(mesh, PartitionSpec(ROWS)))
  found = jax.device_get(
    _score(
      params, given, asked, np.int32(len(flat)), options,
      config=config, chunk=chunk, reach=settings is not None,
    )
  )  # fmt: skip
  ends = np.cumsum([len(p) for p in places])
  parts = [np.split(x[: len(flat)], ends[:-1]) for x in found]
  return [TokenScores(*values) for values in zip(*parts, strict=True)]


@functools.partial(jax.jit, static_argnames=('config', 'chunk', 'reach'))
def _score(
  params: Params,
  tokens: jax.Array,
  places: jax.Array,
  count: jax.Array,
  options: Options,
  *,
  config: ModelConfig,
  chunk: int,
  reach: bool,
) -> tuple[jax.Array, ...]:
  """Values of the first `count` tokens at places i32[n] of the flat [b*T]; n % chunk == 0."""
  b, T = tokens.shape
  positions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (b, T))
  hidden, _ = forward(params, tokens, positions, config=config)
  hidden, flat = hidden.reshape(b * T, -1), tokens.reshape(-1)

  def visit(i: jax.Array, out: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    place = lax.dynamic_slice_in_dim(places, i * chunk, chunk)
    h, target = hidden[jnp.maximum(place - 1, 0)], flat[place]
    values = token_logprobs(params, h, target, chunk=chunk)
    if reach:
      values += _reach(logits(params, h), target, options)
    return tuple(
      lax.dynamic_update_slice_in_dim(x, value, i * chunk, 0)
      for x, value in zip(out, values, strict=True)
    )

  kinds = [jnp.float32] * (5 if reach else 2) + [jnp.int32] * reach
  empty = tuple(jnp.zeros(places.shape, kind) for kind in kinds)
  return lax.fori_loop(0, -(-count // chunk), visit, empty)


def _reach(z: jax.Array, target: jax.Array, options: Options) -> tuple[jax.Array, ...]:
  """(tempered, drawn, likelier, ranks) [S], as TokenScores, of targets i32[S] under f32[S,V]."""
  keys = jax.random.split(jax.random.key(0), z.shape[0])  # nothing is drawn: all is forced
  active = jnp.ones(target.shape, bool)
  found = draw(z, keys, options, active, forced=target, truncated=True)
  assert found.truncated_logprob is not None
  own, most = jnp.take_along_axis(z, target[:, None], axis=1), jnp.max(z, axis=1, keepdims=True)

  def weight(z: jax.Array) -> jax.Array:
    return jnp.exp((z - most) / options.temperature)

  rows = Blocks(z)  # float32 summed number after number would be wrong by 3e-4
  above = rows.total(lambda z: jnp.where(z > own, weight(z), 0.0))
  ranks = jnp.sum(z > own, axis=1, dtype=jnp.int32)
  return found.logprob, found.truncated_logprob, above / rows.total(weight), ranks
