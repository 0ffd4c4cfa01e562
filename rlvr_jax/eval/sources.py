"""One model's samples for a comparison, whoever drew them: our stores and other tools' files."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax.eval import foreign, shards
from rlvr_jax.eval.counts import Counts, Reached
from rlvr_jax.eval.importers import Draw, Draws
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.tasks.load import FAMILIES, content_hash, load_problems
from rlvr_jax.tasks.problem import VERDICTS, Problem

Judge = Callable[[Draws, pathlib.Path], Draws]


@dataclasses.dataclass(frozen=True)
class Source:
  """Samples of one model on the problems of one task.

  kind names the format of the files. settings: how they were drawn, as far as that is known.
  verifier: name and version of who judged, '' if not known; prompt_hash of the template, and data
  of the problems' content, '' likewise. problems: with prompt and answer, as far as they are known.
  folder: of a store of ours; rows: of another tool's samples; neither where there are counts only,
  or it is not known which samples are correct.
  content stands for the rows.
  draws: i64[P] by counts.problem_ids, rows of each problem, errors included. n_asked: up to which
  sample index the rows of an early-stopped store go. digests stand for the content of problems that
  were sampled one by one.
  """

  name: str
  path: str
  kind: str
  task: str
  counts: Counts
  draws: np.ndarray
  settings: Mapping[str, Any]
  problems: Mapping[str, Problem]
  content: str
  folder: pathlib.Path | None = None
  rows: Sequence[Draw] | None = None
  verifier: str = ''
  prompt_hash: str = ''
  data: str = ''
  rule: tuple[int, int] | None = None
  reached: Callable[[int], Reached] | None = None
  n_asked: int = 0
  digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()


def split_name(given: str) -> tuple[str, pathlib.Path]:
  """NAME=PATH or PATH -> (name or '', path)."""
  name, equals, rest = given.partition('=')
  if equals and not pathlib.Path(given).expanduser().exists() and '/' not in name:
    if not name.strip() or not rest.strip():
      raise ValueError(f'stores: {given!r} is not NAME=PATH')
    return name.strip(), pathlib.Path(rest.strip()).expanduser()
  return '', pathlib.Path(given.strip()).expanduser()


def open_source(
  given: str,
  *,
  task: str = '',
  samples: int = 0,
  fields: Mapping[str, str] | None = None,
  metric: str = '',
  ragged: bool = False,
  judge: Judge | None = None,
) -> Source:
  """The samples at NAME=PATH or PATH.

  task: of a store that holds several. samples: only the first so many of each problem, 0: all.
  ragged: problems may have different numbers of draws. judge: gives another tool's completions
  other verdicts. ValueError says what is damaged, mixed,
  incomplete or not known, and the way out.
  """
  name, path = split_name(given)
  if not path.exists():
    raise ValueError(f'stores: {given!r}: there is no {path}')
  found = find_store(path, task)
  if found:
    if judge:
      raise ValueError(
        f'{path} is a sample store: judge it anew with --config=configs/score.py, whose output may '
        'be given here; compare.verifier is for files of other tools'
      )
    return of_store(name or found[1], *found, samples=samples, ragged=ragged)
  draws = foreign.read_draws(path, fields=fields or {}, metric=metric)
  draws = judge(draws, path) if judge else draws
  plain = path.name.removesuffix('.gz')
  name = name or (plain.rpartition('.')[0] if path.is_file() else plain)
  return of_draws(name, path, draws, samples=samples, ragged=ragged)


def find_store(path: pathlib.Path, task: str) -> tuple[pathlib.Path, str, str] | None:
  """(root, model, task) of one of our stores; None if the path is none of ours.

  The path is a run, its samples/, a model in there or one task of a model. ValueError if it leaves
  a choice.
  """
  if path.is_file() and path.suffix == '.parquet' and path.name.startswith('part-'):
    path = path.parent
  if not path.is_dir():
    return None
  path = path.resolve()
  if _is_task(path):
    return path.parent.parent, path.parent.name, path.name
  tasks = sorted(inner.name for inner in path.iterdir() if inner.is_dir() and _is_task(inner))
  if tasks:
    return path.parent, path.name, _only('task', task, tasks, path)
  root = path / 'samples' if (path / 'samples').is_dir() else path
  every = SampleStore(root).models()
  models = {m: [t for t in tasks if _is_task(root / m / t)] for m, tasks in every.items()}
  models = {m: tasks for m, tasks in models.items() if tasks}
  if not models:
    return None
  model = _only('model', '', list(models), root)
  return root, model, _only('task', task, models[model], root / model)


def _is_task(path: pathlib.Path) -> bool:
  paths = shards.shard_paths(path)
  return any(shards.is_ours(path) for path in paths)


def _only(what: str, wanted: str, found: Sequence[str], root: pathlib.Path) -> str:
  if wanted in found or (len(found) == 1 and not wanted):
    return wanted or found[0]
  if what == 'task':
    raise ValueError(
      f'{root} holds the tasks {", ".join(found)}; name one with --config.compare.task=...'
    )
  raise ValueError(f'{root} holds the models {", ".join(found)}; name one by its path: {root}/NAME')


def of_store(
  name: str, root: pathlib.Path, model: str, task: str, *, samples: int, ragged: bool
) -> Source:
  """A model's task in one of our stores."""
  store, folder = SampleStore(root), root / model / task
  settings = store.settings(model, task)
  verifier, prompt_hash = settings.pop('verifier'), settings.pop('prompt_hash')
  first = settings.get('first')
  extent = store.extent(model, task)
  rule = (int(first), int(settings['stop_after'])) if first is not None else None
  asked = samples or first or None
  counts = store.counts(model, task, samples=asked)
  draws = counts.n + counts.verdicts['error']
  missing = sorted(set(extent) - set(counts.problem_ids))
  if missing:
    raise ValueError(f'{folder}: {len(missing)} problems lack first draws, e.g. {missing[0]!r}')
  gaps = [
    problem
    for problem, drawn in zip(counts.problem_ids, draws, strict=True)
    if drawn != min(extent[problem][1], asked or extent[problem][1])
  ]
  if gaps and not ragged:
    raise ValueError(
      f'{folder}: {len(gaps)} problems lack draws within those they have, e.g. {gaps[0]!r}: '
      'sampling was not finished, or a shard is gone. What is missing is no random part, so pass@k '
      'would be wrong: sample it to the end, or leave the last draws out with '
      '--config.compare.samples=...'
    )
  check_ragged(folder, counts.problem_ids, draws, asked, ragged)
  problems, note = _problems_of(root, task, str(settings.get('data', '')))
  remembered = folder / 'problems.json'
  return Source(
    name=name,
    path=str(folder),
    kind='sample store',
    task=task,
    counts=counts,
    draws=draws,
    settings=settings,
    problems={p: problems[p] for p in counts.problem_ids if p in problems},
    content=_store_content(folder),
    folder=folder,
    verifier=verifier,
    prompt_hash=prompt_hash,
    data=str(settings.get('data', '')),
    rule=rule,
    reached=(lambda n: store.reached(model, task, n=n)) if rule else None,
    n_asked=max(last for _, last in extent.values()),
    digests=_object(remembered) if remembered.is_file() else {},
    notes=(note,) if note else (),
  )


def _object(path: pathlib.Path) -> dict[str, Any]:
  """The JSON object of a file of a run; ValueError if it is damaged."""
  try:
    content = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(
      f'{path} is torn or corrupt ({error}); take it from a copy of the run'
    ) from error
  if not isinstance(content, dict):
    raise ValueError(f'{path} is corrupt: a {type(content).__name__}, where an object is expected')
  return content


def _store_content(folder: pathlib.Path) -> str:
  """Stands for the bytes of a store's shards: two stores with equal ones are copies."""
  digest = hashlib.sha256()
  for path in shards.shard_paths(folder):
    with path.open('rb') as file:
      digest.update(hashlib.file_digest(file, 'sha256').digest())
  return digest.hexdigest()


def _problems_of(root: pathlib.Path, task: str, data: str) -> tuple[dict[str, Problem], str]:
  """The problems that a run was made with; a note where they are not to be had here."""
  record = root.parent / 'config.json'
  if not record.is_file():
    return {}, 'prompts are not shown: there is no config.json beside the samples'
  group = _object(record).get('task', {})
  at_hand = group.get('name') in FAMILIES or pathlib.Path(group.get('path') or '.').is_file()
  if group.get('module') or not at_hand:  # neither run a file of the user's nor fetch anything
    return {}, f'prompts are not shown: the problems of {group.get("name")!r} are not at hand'
  try:
    if data and content_hash(group) != data:
      return {}, 'prompts are not shown: the problems have changed since they were sampled'
    train, held_out = load_problems({**group, 'self_check': 'off'})
  except (KeyError, ValueError, OSError) as error:
    return {}, f'prompts are not shown: {error}'
  found = {p.id: dataclasses.replace(p, task=task) for p in [*train, *held_out]}
  return found, ''


def check_ragged(
  where: object,
  problem_ids: Sequence[str],
  draws: np.ndarray,
  asked: int | None,
  allowed: bool,
) -> None:
  """ValueError if some problems have fewer draws than others, or than asked for."""
  most = int(draws.max()) if asked is None else asked
  short = np.flatnonzero(draws < most)
  if not len(short) or allowed:
    return
  examples = ', '.join(f'{problem_ids[i]!r} ({draws[i]})' for i in short[:5])
  raise ValueError(
    f'{where}: {len(short)} of {len(problem_ids)} problems have fewer than {most} draws, e.g. '
    f'{examples}. If that depends on what was drawn, pass@k is wrong: draw the rest, take the '
    f'first {int(draws.min())} of each with --config.compare.samples={int(draws.min())}, or say '
    'that it does not with --config.compare.allow=ragged'
  )


def of_draws(name: str, path: pathlib.Path, draws: Draws, *, samples: int, ragged: bool) -> Source:
  """Another tool's samples."""
  if any(row.verdict == '' for row in draws.rows) and not draws.counted:
    raise ValueError(
      f'{path}: several repeats of a problem but one verdict, which is of the first only: '
      f'{draws.kind} scored no other. Score them all (a metric that gives a list), or judge the '
      'completions anew: --config.compare.verifier=math'
    )
  settings = dict(draws.settings)
  verifier = str(settings.pop('verifier', ''))
  task = str(settings.pop('task', ''))
  first = settings.get('first')
  if first is not None and (draws.counted or not samples or samples > int(first)):
    raise ValueError(
      f'{path}: the samples were stopped early (stop_after={settings.get("stop_after")}): beyond '
      f'the first {first} their number depends on what they gave, so pass@k from all of them would '
      f'be wrong. Ask for the first with --config.compare.samples={first}'
    )
  if samples and draws.counted:
    raise ValueError(
      f'{path} is a table of counts, so the first {samples} draws are not known; leave '
      'compare.samples at 0, or give the samples themselves'
    )
  if samples and draws.unordered:
    raise ValueError(
      f'{path} says how many of the repeats are right, but not which, so the first {samples} are '
      'not known; leave compare.samples at 0, or judge the completions: '
      '--config.compare.verifier=math'
    )
  rows = [row for row in draws.rows if not samples or row.sample < samples]
  if not rows:
    raise ValueError(f'{path}: no sample is left of {len(draws.rows):,}')
  counts, drawn, last = _counts(path, rows, draws)
  if not samples:
    check_stopped(path, counts, ragged)
  if not draws.counted and (last != drawn).any() and not ragged:
    where = counts.problem_ids[int(np.flatnonzero(last != drawn)[0])]
    raise ValueError(
      f'{path}: the samples of some problems are not numbered 0, 1, 2, ..., e.g. those of '
      f'{where!r}: rows are missing. If that depends on what was drawn, pass@k is wrong; mend it, '
      'or say that it does not with --config.compare.allow=ragged'
    )
  check_ragged(path, counts.problem_ids, drawn, samples or None, ragged)
  known = {*draws.prompts, *draws.answers}
  hashed = str(settings.pop('prompt_hash', ''))
  return Source(
    name=name,
    path=str(path),
    kind=draws.kind,
    task=task,
    counts=counts,
    draws=drawn,
    settings=settings,
    problems={
      p: Problem(p, task, draws.prompts.get(p, ''), draws.answers.get(p))
      for p in counts.problem_ids
      if p in known
    },
    content=_digest(rows),
    rows=None if draws.counted or draws.unordered else rows,
    verifier=verifier,
    prompt_hash=hashed,
  )


def _counts(
  path: pathlib.Path, rows: Sequence[Draw], draws: Draws
) -> tuple[Counts, np.ndarray, np.ndarray]:
  """Counts, rows of each problem, and its largest sample number plus 1."""
  ids = sorted({row.problem for row in rows})
  place = {problem: i for i, problem in enumerate(ids)}
  where = np.array([place[row.problem] for row in rows], np.int64)
  coupling = str(draws.settings.get('coupling', 'independent'))
  if draws.counted:
    n, c = np.zeros((2, len(ids)), np.int64)
    n[where], c[where] = [row.n for row in rows], [row.c for row in rows]
    return Counts(tuple(ids), n, c, truncated=None, coupling=coupling), n, n
  names = np.array([row.verdict for row in rows], dtype=object)
  drawn = np.bincount(where, minlength=len(ids))
  verdicts = {name: np.bincount(where[names == name], minlength=len(ids)) for name in VERDICTS}
  shards.check_errors(path, ids, verdicts['error'], len(rows), 0.01)
  last = np.zeros(len(ids), np.int64)
  np.maximum.at(last, where, np.array([row.sample + 1 for row in rows], np.int64))
  counts = Counts(
    tuple(ids),
    drawn - verdicts['error'],
    verdicts['correct'],
    verdicts=verdicts,
    # of some rows only they would be too few: then not known
    tokens=0 if any(row.length is None for row in rows) else sum(row.length or 0 for row in rows),
    truncated=sum(row.finish == 'length' for row in rows)
    if all(row.finish for row in rows)
    else None,
    coupling=coupling,
  )
  return counts, drawn, last


def check_stopped(path: object, counts: Counts, allowed: bool) -> None:
  """ValueError for numbers that look like draws that end at a number of correct ones.

  The mark: of the problems with neither the fewest nor the most draws (3 at least), all have one
  and the same number of correct ones, and those with the fewest have no fewer.
  """
  n, c = counts.n, counts.c
  between, fewest = (n > n.min()) & (n < n.max()), n == n.min()
  if allowed or between.sum() < 3:
    return
  found = np.unique(c[between])
  if len(found) == 1 and found[0] >= 1 and (c[fewest] >= found[0]).all():
    raise ValueError(
      f'{path} looks stopped early: {int(between.sum())} problems with from {int(n.min()) + 1} to '
      f'{int(n.max()) - 1} draws have exactly {int(found[0])} correct ones. Then how many draws a '
      'problem has depends on what they gave, and pass@k would be wrong. Take the draws that every '
      f'problem has with --config.compare.samples={int(n.min())}, or say that it is a coincidence '
      'with --config.compare.allow=ragged'
    )


def _digest(rows: Sequence[Draw]) -> str:
  digest = hashlib.sha256()
  for row in sorted(rows, key=lambda row: (row.problem, row.sample)):
    fields = [row.problem, row.sample, row.verdict, row.text, row.n, row.c]
    digest.update(json.dumps(fields).encode())
  return digest.hexdigest()
