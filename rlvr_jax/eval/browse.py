"""What a reader of the report gets to see behind its numbers: problems, images, completions.

The report embeds the counts of every problem, and completions of as many as its size allows; the
page builds what is looked at (templates/browser.js).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rlvr_jax.eval import coverage, shards
from rlvr_jax.eval.intervals import beta_interval
from rlvr_jax.eval.page import embedded_json
from rlvr_jax.eval.results import Study, headline_points
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.tables import coverage_set
from rlvr_jax.tasks import images
from rlvr_jax.tasks.problem import Problem

MAX_CHARS = 6000  # per completion in the report; the store holds the whole
MAX_BYTES = 8_000_000  # of prompts, images and completions in one report
IMAGE_SIDE = 280  # pixels of an image in the report, at most
IMAGE_BYTES = 12_000  # of one, about
_SHOWN = ('text', 'verdict', 'extracted', 'reason', 'reward', 'length', 'finish')


@dataclasses.dataclass(frozen=True)
class Shown:
  """One completion in the report."""

  model: str
  sample: int
  text: str
  verdict: str
  extracted: str
  reason: str
  reward: float
  length: int
  truncated: bool


@dataclasses.dataclass(frozen=True)
class ShownProblem:
  """One problem with its prompt, the counts of the headline pair in words, and completions."""

  problem_id: str
  prompt: str
  answer: str
  summary: str
  completions: tuple[Shown, ...]
  images: tuple[str, ...] = ()  # data URIs, or why one cannot be shown


def thumbnails(problem: Problem) -> tuple[str, ...]:
  """The problem's images as small data URIs, as the model gets them; of one that cannot be read,
  what is wrong with it."""
  shown = []
  for place in range(len(problem.images)):
    try:
      shown.append(images.thumbnail(problem, place, side=IMAGE_SIDE, most_bytes=IMAGE_BYTES))
    except ValueError as error:  # a report is written all the same, and says it
      shown.append(str(error))
  return tuple(shown)


def shorten(text: str, limit: int = MAX_CHARS) -> str:
  """Head and tail of a long text, saying how much is left out."""
  if len(text) <= limit:
    return text
  half = limit // 2
  return f'{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}'


def choose_problems(study: Study, limit: int) -> list[str]:
  """Problems worth reading: in turn one lost, one gained, one changed most, one never solved."""
  ids = study.problem_ids
  rates = [study.model(name).counts.select(ids).rates for name in study.headline]
  change = dict(zip(ids, abs(rates[-1] - rates[0]), strict=True))
  easy = dict(zip(ids, rates[0], strict=True))
  groups: list[Sequence[str]] = [ids]
  if study.paired and study.comparison.sets:
    found = study.comparison.sets[0]
    groups = [found.base_only, found.rl_only, ids, found.neither]
  elif not study.paired:
    groups = [[p for p in ids if easy[p] > 0], [p for p in ids if not easy[p]]]
  queues = [
    sorted(group, key=lambda problem: (-change[problem], easy[problem])) for group in groups
  ]
  chosen: dict[str, None] = {}
  while len(chosen) < limit and any(queues):
    for queue in queues:
      while queue and queue[0] in chosen:
        queue.pop(0)
      if queue and len(chosen) < limit:
        chosen[queue.pop(0)] = None
  return list(chosen)


def pick_samples(
  store: SampleStore,
  study: Study,
  task: str,
  prompts: Mapping[str, str],
  *,
  answers: Mapping[str, str] | None = None,
  pictures: Callable[[str], tuple[str, ...]] | None = None,
  problems: int = 1000,
  per_model: int = 3,
) -> list[ShownProblem]:
  """Completions of some problems: from each model a correct one if there is one, then the first.

  prompts and answers (what the verifier compares with) are by problem id; pictures gives the images
  of one (thumbnails). Texts are read shard by shard, so that a store need not fit into memory.
  """
  ids = choose_problems(study, problems)
  found = {
    model.name: _first_rows(store, model.name, task, ids, per_model) for model in study.models
  }
  sets = coverage_set(study)
  chosen = []
  for problem in ids:
    solved = []
    for model in study.models:
      counts = model.counts.select([problem])
      solved.append(f'{model.name} {counts.c[0]}/{counts.n[0]}')
    summary = ', '.join(solved) + (f' · solved by {sets[problem]}' if problem in sets else '')
    shown = [
      Shown(model=model.name, truncated=row['finish'] == 'length', **_without(row, 'finish'))
      for model in study.models
      for row in found[model.name].get(problem, ())
    ]
    chosen.append(
      ShownProblem(
        problem_id=problem,
        prompt=shorten(prompts.get(problem, '')),
        answer=(answers or {}).get(problem, ''),
        summary=summary,
        completions=tuple(dataclasses.replace(one, text=shorten(one.text)) for one in shown),
        images=pictures(problem) if pictures else (),
      )
    )
  return chosen


def _without(row: Mapping[str, Any], key: str) -> dict[str, Any]:
  return {name: value for name, value in row.items() if name != key}


def _first_rows(
  store: SampleStore, model: str, task: str, ids: Sequence[str], per_model: int
) -> dict[str, list[dict[str, Any]]]:
  """Rows by problem: the first correct one if there is one, then the first ones drawn."""
  paths = shards.shard_paths(store.root / model / task)
  keys = [shards.read_shard(path, ['problem_id', 'visit', 'sample', 'verdict']) for path in paths]
  shard = np.repeat(np.arange(len(keys)), [len(table) for table in keys])
  row = np.concatenate([np.arange(len(table)) for table in keys])
  table = pa.concat_tables(keys)
  place = {problem: at for at, problem in enumerate(ids)}
  encoded = table['problem_id'].combine_chunks().dictionary_encode()
  names = [place.get(name, -1) for name in encoded.dictionary.to_pylist()]
  problem = np.array(names, np.int64)[encoded.indices.to_numpy()]
  sample = table['sample'].to_numpy()
  wrong = np.array([verdict != 'correct' for verdict in table['verdict'].to_pylist()], bool)
  kept = np.flatnonzero((problem >= 0) & (table['visit'].to_numpy() == 0))
  by_verdict = kept[np.lexsort([sample[kept], wrong[kept], problem[kept]])]
  by_sample = kept[np.lexsort([sample[kept], problem[kept]])]
  first = by_verdict[_rank(problem[by_verdict]) == 0]
  taken = dict.fromkeys(first[~wrong[first]].tolist())  # the first correct of each problem
  rank = _rank(problem[by_sample])
  room = np.full(len(ids), per_model) - np.bincount(problem[list(taken)], minlength=len(ids))
  for at in by_sample[rank < per_model].tolist():
    if at not in taken and room[problem[at]] > 0:
      taken[at] = None
      room[problem[at]] -= 1
  found: dict[str, list[dict[str, Any]]] = {}
  rows: dict[int, dict[str, Any]] = {}
  wanted = np.array(list(taken), np.int64)
  for number in np.unique(shard[wanted]).tolist():
    mine = wanted[shard[wanted] == number]
    columns = shards.read_shard(paths[number], list(_SHOWN)).take(row[mine]).to_pylist()
    rows |= dict(zip(mine.tolist(), columns, strict=True))
  for at in taken:
    found.setdefault(ids[int(problem[at])], []).append({**rows[at], 'sample': int(sample[at])})
  return found


def _rank(groups: np.ndarray) -> np.ndarray:
  """Place of each entry within its run of equal values, i64: [4, 4, 7] -> [0, 1, 0]."""
  starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])[: len(groups)])
  sizes = np.diff(np.append(starts, len(groups)))
  return np.arange(len(groups)) - np.repeat(starts, sizes)


@dataclasses.dataclass(frozen=True)
class Embedded:
  """What the page's browser works on: two JSON texts, safe inside a script element, and a note."""

  counts: str
  texts: str
  note: str


def embed(study: Study, samples: Sequence[ShownProblem], most_bytes: int = MAX_BYTES) -> Embedded:
  """Counts of every problem, and prompts and completions in their order up to most_bytes.

  Of the models those that figures show (study.few()).
  """
  study = study.few()
  models = [model.name for model in study.models]
  texts: dict[str, Any] = {}
  size = 0
  for problem in samples:
    rows = [
      [
        models.index(one.model), one.sample, one.verdict, one.length, int(one.truncated),
        one.extracted, one.reason, one.text,
      ]
      for one in problem.completions
      if one.model in models
    ]  # fmt: skip
    entry = [problem.prompt, problem.answer, rows, *([problem.images] if problem.images else [])]
    size += len(embedded_json(entry).encode()) + len(problem.problem_id) + 4
    if size > most_bytes:
      break
    texts[problem.problem_id] = entry
  with_rows = sum(bool(entry[2]) for entry in texts.values())
  total = len(study.problem_ids)
  note = (
    f'Counts of all {total:,} problems'
    + (f' and completions of {with_rows:,}' if with_rows else '')
    + ': from each model a correct one where there is one, then the first ones drawn. '
    f'The store holds them all; texts over {MAX_CHARS:,} characters are cut in their middle.'
  )
  return Embedded(embedded_json(_counts(study, models)), embedded_json(texts), note)


def _counts(study: Study, models: list[str]) -> dict[str, Any]:
  ids = list(study.problem_ids)
  counts = [model.counts.select(ids) for model in study.models]
  ends = [beta_interval(one.n, one.c, study.level) for one in counts]
  exact = [model.exact for model in study.models]
  tests = study.comparison.tests if study.paired else None
  names: dict[str, str] = {'solved': 'solved', 'unsolved': 'not solved'}
  if study.paired:
    a, b = study.pair
    names = {'both': 'both', 'base_only': f'{a} only', 'rl_only': f'{b} only', 'neither': 'neither'}
  problems = []
  for i, problem in enumerate(ids):
    odd = {
      str(m): found
      for m, one in enumerate(counts)
      if (found := {name: int(v[i]) for name, v in one.verdicts.items() if _odd(name) and v[i]})
    }
    problems.append(
      [
        problem,
        [int(one.n[i]) for one in counts],
        [int(one.c[i]) for one in counts],
        [_short(low[i]) for low, _ in ends],
        [_short(high[i]) for _, high in ends],
        [None if one is None else _short(one[problem]) for one in exact],
        None if tests is None else _short(tests.adjusted[i]),
        odd or 0,
      ]
    )
  return {
    'models': models,
    'pair': [models.index(name) for name in study.headline] if study.paired else None,
    'k': study.headline_k,
    'ks': headline_points(study),
    'order': list(names),
    'sets': names,
    'bins': list(coverage.BINS),
    'deciding': coverage.DECIDING_MAX,
    'exact': [one is not None for one in exact],
    'tested': tests is not None,
    'rate': 0.0 if tests is None else tests.false_discovery_rate,
    'problems': problems,
  }


def _odd(verdict: str) -> bool:
  return verdict not in ('correct', 'wrong')


def _short(value: float) -> float:
  return float(f'{value:.4g}')
