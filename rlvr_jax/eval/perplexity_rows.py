"""Completions as rows of perplexity.parquet: scored under one model, and kept part by part."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlvr_jax.eval import likelihood, shards, surprise
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.authors import Author, Written
from rlvr_jax.eval.perplexity import SCHEMA
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.tokenizer import Tokenizer

EDGE = 1e-4  # mass by which a token may be outside and count as inside: what floats are exact to
FORMAT = 1
METADATA_KEY = b'rlvr_jax.perplexity'
Coded = tuple[Written, list[int], bool]  # a completion, its ids, whether it was encoded anew


@dataclasses.dataclass(frozen=True)
class Scoring:
  """A loaded model with what its rows depend on, by task; settings None: reach is not asked."""

  name: str
  path: str
  weights: str
  config: ModelConfig
  params: Any
  tokenizer: Tokenizer
  settings: Mapping[str, likelihood.Settings | None]
  max_tokens: Mapping[str, int]


def fitting(
  model: Scoring,
  author: Author,
  block: Sequence[Written],
  prompts: Mapping[str, tuple[int, ...]],
) -> tuple[list[Coded], int]:
  """The completions as tokens of the model, and how many its positions cannot hold (left out)."""
  coded = [(one, *completion_ids(model.tokenizer, one, str(author.path))) for one in block]
  coded = [found for found in coded if found[1]]  # cut before its first token: nothing to score
  most = model.config.max_positions
  kept = [found for found in coded if len(prompts[found[0].problem_id]) + len(found[1]) <= most]
  return kept, len(coded) - len(kept)


def score_block(
  model: Scoring,
  author: Author,
  block: Sequence[Coded],
  prompts: Mapping[str, tuple[int, ...]],
  *,
  shown: int,
  micro_tokens: int,
  chunk: int,
  mesh: Any,
) -> Iterator[dict[str, Any]]:
  """The rows (perplexity.SCHEMA) of some completions; tokens are kept of samples below `shown`."""
  rows = [(prompts[one.problem_id], ids) for one, ids, _ in block]
  settings = model.settings[author.task]
  scores = likelihood.token_scores(
    model.params,
    model.config,
    rows,
    settings,
    micro_tokens=micro_tokens,
    chunk=chunk,
    mesh=mesh,
  )
  for index, found in scores:
    one, ids, reencoded = block[index]
    kept = one.sample < shown
    yield _row(one, model, author, np.array(ids, np.int32), reencoded, found, shown=kept)


def completion_ids(tokenizer: Tokenizer, one: Written, where: str) -> tuple[list[int], bool]:
  """(ids of a completion under a tokenizer, whether its text had to be encoded anew).

  The stored tokens where the tokenizer reads them as the stored text. A completion that ended gets
  a stop token of this model, its own where that is one.
  """
  stops = tokenizer.eos_ids
  if one.finish == 'eos' and not stops:
    raise ValueError(
      f'{where}: the model has no stop token, so an ended completion cannot be scored'
    )
  if one.tokens is not None:
    ids = one.tokens.tolist()
    body = ids[:-1] if one.finish == 'eos' else ids
    fits = max(body, default=0) < tokenizer.vocab_size
    if fits and tokenizer.decode(body, skip_special=False) == one.text:
      if one.finish == 'eos':
        body = [*body, ids[-1] if ids[-1] in stops else stops[0]]
      return body, False
  if one.sampled is not None and not one.sampled.all():
    raise ValueError(
      f'{where}: {one.problem_id} is a conversation that the tokenizer reads as another text; '
      'score conversations with models of the tokenizer that drew them'
    )
  ids = tokenizer.encode(one.text, special=False)
  return [*ids, *stops[:1]] if one.finish == 'eos' else ids, True


def _row(
  one: Written,
  model: Scoring,
  author: Author,
  ids: np.ndarray,
  reencoded: bool,
  found: likelihood.TokenScores,
  *,
  shown: bool,
) -> dict[str, Any]:
  own = np.ones(len(ids), bool) if one.sampled is None or reencoded else one.sampled
  row: dict[str, Any] = {
    'model': model.name,
    'author': author.name,
    'task': author.task,
    'problem_id': one.problem_id,
    'sample': one.sample,
    'verdict': one.verdict,
    'finish': one.finish,
    'tokens': int(own.sum()),
    'bytes': len(one.text.encode('utf-8', 'replace')),
    'reencoded': reencoded,
    'logprob': float(found.logprobs[own].astype(np.float64).sum()),
    'entropy': float(found.entropies[own].astype(np.float64).mean()),
    'too_long': int(own.sum()) > model.max_tokens[author.task],
    'key': hashlib.blake2b(ids.tobytes(), digest_size=16).digest(),
  }
  allowed = own | True
  settings = model.settings[author.task]
  if settings is None:
    row |= {'reach': np.nan, 'tempered': np.nan, 'inside': -1, 'first_outside': -1}
    row |= {'outside_text': '', 'outside_rank': -1, 'outside_mass': np.nan, 'edge': False}
  else:
    reached, allowed = _reach(found, own, settings, ids, model.tokenizer)
    row |= reached
  if author.name == model.name and one.logprob is not None and not reencoded and settings:
    row['sampler_gap'] = one.logprob - row['tempered']
  if shown:
    row['surprise'] = (-found.logprobs).tolist()
    row['allowed'] = allowed.tolist()
    row['pieces'] = surprise.pieces_of(
      ids.tolist(), lambda x: model.tokenizer.decode(x, skip_special=False)
    )
  return row


def _reach(
  found: likelihood.TokenScores,
  own: np.ndarray,
  settings: likelihood.Settings,
  ids: np.ndarray,
  tokenizer: Tokenizer,
) -> tuple[dict[str, Any], np.ndarray]:
  """The columns of reach, and which tokens are inside, bool[length]."""
  assert found.tempered is not None
  assert found.drawn is not None
  assert found.likelier is not None
  assert found.ranks is not None
  drawn = found.drawn.astype(np.float64)
  outside = np.isneginf(drawn) & own
  edge = np.zeros(len(ids), bool)
  if not settings.top_k:  # with top-k the mass is not that of the whole vocabulary
    edge = outside & (found.likelier < settings.top_p + EDGE)
  # as the last token of the nucleus, which it is there: what is kept is the likelier and itself
  kept = np.log(found.likelier + np.exp(found.tempered.astype(np.float64)))
  drawn = np.where(edge, found.tempered - kept, drawn)
  outside &= ~edge
  first = int(outside.argmax()) if outside.any() else -1
  return {
    'reach': float(drawn[own].sum()),
    'tempered': float(found.tempered[own].astype(np.float64).sum()),
    'inside': int((own & ~outside).sum()),
    'first_outside': first,
    'outside_text': '' if first < 0 else tokenizer.decode([ids[first]], skip_special=False),
    'outside_rank': -1 if first < 0 else int(found.ranks[first]),
    'outside_mass': np.nan if first < 0 else float(found.likelier[first]),
    'edge': bool(edge.any()),
  }, ~outside


def part_metadata(model: Scoring, author: Author, template: str, shown: int) -> dict[str, Any]:
  """What the rows of a part depend on."""
  s = model.settings[author.task]
  return {
    'format': FORMAT,
    'weights': model.weights,
    'author': str(author.path) if author.is_file else author.settings.get('weights', ''),
    'content': hashlib.sha256(author.path.read_bytes()).hexdigest()[:16] if author.is_file else '',
    'template': run_lib.template_hash(template, model.tokenizer),
    'settings': dataclasses.asdict(s) if s else None,
    'max_tokens': model.max_tokens[author.task],
    'shown': shown,
  }


def done_keys(folder: pathlib.Path, metadata: Mapping[str, Any]) -> set[tuple[str, int]]:
  """(problem, sample) of what is scored; ValueError if it was scored otherwise."""
  done: set[tuple[str, int]] = set()
  for path in shards.shard_paths(folder):
    before = json.loads(pq.read_schema(path).metadata[METADATA_KEY])
    differing = [
      f'{k}: {before.get(k)!r}, now {v!r}' for k, v in metadata.items() if before.get(k) != v
    ]
    if differing:
      raise ValueError(
        f'{path} was scored otherwise ({"; ".join(differing)}); give the old values, delete '
        f'{folder}, or take another --workdir'
      )
    table = pq.ParquetFile(path).read(['problem_id', 'sample'])
    done |= set(zip(table['problem_id'].to_pylist(), table['sample'].to_pylist(), strict=True))
  return done


def write_part(
  folder: pathlib.Path, rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]
) -> None:
  """Rows as one part, whole or not at all."""
  if not rows:
    return
  folder.mkdir(parents=True, exist_ok=True)
  table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
  table = table.replace_schema_metadata({METADATA_KEY: json.dumps(dict(metadata)).encode()})
  temporary = folder / shards.temporary_name('part')
  try:
    with temporary.open('wb') as file:
      pq.write_table(table, file)
      file.flush()
      os.fsync(file.fileno())
    shards.publish(temporary, folder)
  except OSError as error:
    temporary.unlink(missing_ok=True)
    raise shards.store_error(f'cannot write {len(rows)} rows to', folder, error) from error


def read_parts(workdir: pathlib.Path, models: Sequence[str], authors: Sequence[Author]) -> pa.Table:
  """Every row scored, of these models and authors, by model, author, task, problem and sample."""
  tables = [
    pq.ParquetFile(path).read().replace_schema_metadata(None)
    for model in models
    for author in authors
    for path in shards.shard_paths(workdir / 'perplexity' / model / author.name / author.task)
  ]
  if not tables:
    return SCHEMA.empty_table()
  table = pa.concat_tables(tables)
  keys = ('task', 'problem_id', 'sample')
  columns = [table[name].to_pylist() for name in keys]
  rank = {(m, a.name): i for i, (m, a) in enumerate((m, a) for m in models for a in authors)}
  pairs = zip(table['model'].to_pylist(), table['author'].to_pylist(), strict=True)
  order = sorted(
    range(len(table)),
    key=lambda i, places=[rank[pair] for pair in pairs]: (places[i], *(c[i] for c in columns)),
  )
  return table.take(order)
