"""job=cot: a random sample of correct completions for people to read, and what they found.

1. Without readers: picks completions of a run's store by eval/cot.py, and writes reading.html (a
   page that needs nothing else, model-blind and shuffled), picks.jsonl (the same for a program) and
   key.json (which is which; readers should not open it).
2. With cot.readers, the files that the page gave back: cot.json, with cot_pass@k, the share of
   valid reasoning, kappa of two readers, and a judge's corrected estimate with cot.judge.
"""

import dataclasses
import hashlib
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np

from rlvr_jax.config import Config
from rlvr_jax.eval import cot, pass_at_k, results, shards
from rlvr_jax.eval.browse import thumbnails
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.findings import percent, ranged
from rlvr_jax.eval.page import asset, embedded_json, write_text
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.score_input import problems_of_run
from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.problem import Problem


def cot_job(config: Config, workdir: pathlib.Path) -> dict[str, Any] | None:
  """Runs the job; the estimates once there are readers, else None.

  Raises ValueError for a store that cannot be read so, and for verdicts of another page.
  """
  if not config.input:
    raise ValueError(
      'job=cot reads the correct completions of a run: give it with --config.input=runs/mine'
    )
  store, task = _store(pathlib.Path(config.input).expanduser(), config.cot.task)
  models = _listed(config.cot.models) or [m for m, tasks in store.models().items() if task in tasks]
  counts = {model: _counts(store, model, task) for model in models}
  made = _page(config, workdir, store, task, counts)
  readers = [read_verdicts(path, made['page'], made['ids']) for path in _listed(config.cot.readers)]
  judge = read_verdicts(config.cot.judge, made['page'], made['ids']) if config.cot.judge else None
  if not readers:
    if judge is not None:
      raise ValueError(
        "cot.judge's verdicts are used only when calibrated against readers; have a share of the "
        f'completions read ({workdir / "reading.html"}) and give --config.cot.readers'
      )
    print(
      f'{len(made["ids"])} completions to read: {workdir / "reading.html"} (picks.jsonl has the '
      'same for a program); then give what the page saves as --config.cot.readers',
      file=sys.stderr,
    )
    return None
  found = estimates(
    made, counts, readers, judge, level=config.evaluate.confidence, seed=config.seed
  )
  results.write_json(workdir / 'cot.json', found)
  show(found)
  return found


def _listed(text: str) -> list[str]:
  return [one.strip() for one in text.split(',') if one.strip()]


def _store(path: pathlib.Path, task: str) -> tuple[SampleStore, str]:
  store = SampleStore(path / 'samples' if (path / 'samples').is_dir() else path)
  tasks = sorted({one for several in store.models().values() for one in several})
  if task in tasks or (len(tasks) == 1 and not task):
    return store, task or tasks[0]
  raise ValueError(
    f'cot.task={task!r}: the store {store.root} holds {", ".join(tasks) or "no samples"}; name one '
    'of them with --config.cot.task=...'
  )


def _counts(store: SampleStore, model: str, task: str) -> Counts:
  return store.counts(model, task, samples=store.settings(model, task).get('first'))


def _page(
  config: Config,
  workdir: pathlib.Path,
  store: SampleStore,
  task: str,
  counts: Mapping[str, Counts],
) -> dict[str, Any]:
  """The key of the page in workdir, which is made if there is none."""
  path = workdir / 'key.json'
  c = config.cot
  design = {
    'task': task,
    'models': list(counts),
    'problems': c.problems,
    'completions': c.completions,
    'seed': config.seed,
    'samples': {model: [int(one.n.sum()), int(one.c.sum())] for model, one in counts.items()},
  }
  if path.exists():
    made = json.loads(path.read_text())
    if made['design'] != design:
      raise ValueError(
        f'{path} is of a page with another design ({made["design"]}, now {design}); its readers '
        'would read for nothing: give another --workdir'
      )
    return made
  rows, strata = pick(store, task, counts, c.problems, c.completions, config.seed)
  problems = {p.id: p for p in problems_of_run(store.root, task, config.task.to_dict())}
  chosen = {row['id']: [row[k] for k in ('model', 'problem_id', 'sample')] for row in rows}
  page = hashlib.sha256(json.dumps([design, chosen]).encode()).hexdigest()[:12]
  shown = [_shown(row, problems[row['problem_id']], config.task.template) for row in rows]
  write_page(workdir / 'reading.html', page, shown)
  write_text(
    workdir / 'picks.jsonl', ''.join(json.dumps(one, ensure_ascii=False) + '\n' for one in shown)
  )
  made = {
    'page': page,
    'design': design,
    'ids': list(chosen),
    'key': chosen,
    'strata': {
      model: [dataclasses.asdict(one) for one in several] for model, several in strata.items()
    },
  }
  results.write_json(path, made)
  return made


def pick(
  store: SampleStore,
  task: str,
  counts: Mapping[str, Counts],
  per_stratum: int,
  per_problem: int,
  seed: int,
) -> tuple[list[dict[str, Any]], dict[str, list[cot.Stratum]]]:
  """(completions in the order of reading, strata by model): seeded, shuffled over all models.

  A row has id (which tells nothing), model, problem_id, sample and text.
  """
  rows, strata = [], {}
  for place, (model, one) in enumerate(counts.items()):
    strata[model] = cot.choose(one, per_stratum=per_stratum, seed=seed * 1000 + place)
    wanted = [p for stratum in strata[model] if stratum.high for p in stratum.picked]
    most = store.settings(model, task).get('first')
    correct = _correct_samples(store, model, task, wanted, most)
    rng = np.random.default_rng([seed, place, 1])
    taken = {
      (problem, sample)
      for problem in wanted
      for sample in cot.choose_completions(correct[problem], per_problem, rng)
    }
    rows += _texts(store, model, task, taken)
  order = np.random.default_rng([seed, 2]).permutation(len(rows))
  return [{'id': f'{at + 1:04d}', **rows[row]} for at, row in enumerate(order)], strata


def _correct_samples(store, model, task, wanted, most: int | None) -> dict[str, list[int]]:
  found: dict[str, list[int]] = {problem: [] for problem in wanted}
  table = store.read(model, task, columns=['problem_id', 'visit', 'sample', 'verdict'])
  columns = (table[name].to_pylist() for name in table.column_names)
  for problem, visit, sample, verdict in zip(*columns, strict=True):
    if verdict == 'correct' and not visit and problem in found and (most is None or sample < most):
      found[problem].append(sample)
  return found


def _texts(store: SampleStore, model: str, task: str, taken: set) -> list[dict[str, Any]]:
  rows = []
  for path in shards.shard_paths(store.root / model / task):
    keys = shards.read_shard(path, ['problem_id', 'visit', 'sample'])
    columns = (keys[name].to_pylist() for name in keys.column_names)
    mine = [
      at
      for at, (problem, visit, sample) in enumerate(zip(*columns, strict=True))
      if not visit and (problem, sample) in taken
    ]
    if mine:
      table = shards.read_shard(path, ['problem_id', 'sample', 'text']).take(mine)
      rows += [{'model': model, **row} for row in table.to_pylist()]
  return sorted(rows, key=lambda row: (row['problem_id'], row['sample']))


def _shown(row: Mapping[str, Any], problem: Problem, template: str) -> dict[str, Any]:
  """What a reader sees of a completion: nothing that tells the model."""
  prompt = problem.prompt
  if not isinstance(prompt, str):
    prompt = '\n\n'.join(message['content'] for message in prompt)
  elif template not in prompts.CHATS:
    prompt = prompts.render(problem, template)
  answer = problem.answer if isinstance(problem.answer, str) else json.dumps(problem.answer)
  shown = {'id': row['id'], 'prompt': prompt, 'reference': answer, 'completion': row['text']}
  return shown | ({'images': thumbnails(problem)} if problem.images else {})


def write_page(path: pathlib.Path, page: str, shown: Sequence[Mapping[str, Any]]) -> None:
  """The reading page: one completion at a time, three buttons, verdicts saved to a file."""
  template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    asset('reading.html.j2', inside=False)
  )
  write_text(
    path,
    template.render(
      style=asset('report.css') + asset('reading.css'),
      script=asset('math.js') + asset('reading.js'),
      data=embedded_json({'page': page, 'items': list(shown)}),
      total=len(shown),
    ),
  )


def read_verdicts(
  path: str | pathlib.Path, page: str, ids: Sequence[str]
) -> tuple[str, dict[str, str]]:
  """(reader, label by completion) of a file that the page saved. ValueError says what is wrong."""
  path = pathlib.Path(path).expanduser()
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    of, reader, verdicts = found['page'], str(found['reader']), dict(found['verdicts'])
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'{path} is no file of verdicts: {{"page", "reader", "verdicts": {{id: label}}}} ({error})'
    ) from error
  if of != page:
    raise ValueError(f'{path} has verdicts of page {of}, and this one is {page}')
  known = set(ids)
  for one, label in verdicts.items():
    if one not in known or label not in cot.LABELS:
      raise ValueError(
        f'{path}: {one!r} is judged {label!r}; ids are those of the page, labels are '
        f'{", ".join(cot.LABELS)}'
      )
  if not verdicts:
    raise ValueError(f'{path} holds no verdict')
  return reader or path.stem, verdicts


def estimates(
  made: Mapping[str, Any],
  counts: Mapping[str, Counts],
  readers: Sequence[tuple[str, Mapping[str, str]]],
  judge: tuple[str, Mapping[str, str]] | None,
  *,
  level: float = 0.95,
  seed: int = 0,
) -> dict[str, Any]:
  """What readers (one or two) and perhaps a judge say, as the document of cot.json.

  Two readers' label of a completion is the one they share, else unsure. Unsure counts as not valid;
  'if_unsure_valid' is the estimate where it counts as valid.
  """
  if len(readers) > 2:
    raise ValueError(f'cot.readers={[name for name, _ in readers]}: one reader, or two')
  label = consensus([verdicts for _, verdicts in readers])
  document: dict[str, Any] = {
    'page': made['page'],
    'readers': [name for name, _ in readers],
    'completions': len(made['ids']),
    'read': len(label),
    'labels': {name: list(label.values()).count(name) for name in cot.LABELS},
    'level': level,
    'kappa': None,
    'models': {},
  }
  if len(readers) == 2:
    first, second = (verdicts for _, verdicts in readers)
    both = [one for one in made['ids'] if one in first and one in second]
    document['kappa'] = cot.kappa([first[one] for one in both], [second[one] for one in both])
    document['read_by_both'] = len(both)
  calibration = None
  if judge is not None:
    calibration = cot.calibrate(judge[1], label, level=level, seed=seed)
    document['judge'] = {'name': judge[0], **dataclasses.asdict(calibration)}
  for model, one in counts.items():
    strata = [cot.Stratum(**stratum) for stratum in made['strata'][model]]
    document['models'][model] = _of_model(made, model, one, strata, label, level)
    if judge is not None and calibration is not None:
      found = cot.judged_estimate(
        strata,
        _by_problem(made, model, one, {k: v == 'valid' for k, v in judge[1].items()}),
        one,
        _ks(one),
        calibration,
        level=level,
        seed=seed,
      )
      document['models'][model]['judge'] = _entry(found)
  return document


def consensus(readers: Sequence[Mapping[str, str]]) -> dict[str, str]:
  """The label of every completion that each reader judged: theirs where they agree, else unsure."""
  shared = set.intersection(*(set(verdicts) for verdicts in readers))
  return {
    one: label if all(verdicts[one] == label for verdicts in readers) else 'unsure'
    for one, label in readers[0].items()
    if one in shared
  }


def _of_model(made, model, counts, strata, label, level) -> dict[str, Any]:
  entries = []
  for as_valid in (('valid',), ('valid', 'unsure')):
    valid = {one: text in as_valid for one, text in label.items()}
    read = {
      problem: cot.Read(problem, n, c, tuple(map(float, found)))
      for problem, (n, c, found) in _by_problem(made, model, counts, valid).items()
    }
    entries.append(_entry(cot.estimate(strata, read, counts, _ks(counts), level=level)))
  entry, other = entries
  values = pass_at_k.estimate(counts.n, counts.c, _ks(counts)).mean(axis=0)
  entry['pass_at_k'] = dict(zip(entry['cot_pass_at_k'], values.tolist(), strict=True))
  entry['if_unsure_valid'] = other
  return entry


def _by_problem(made, model, counts, valid) -> dict[str, tuple[int, int, list[bool]]]:
  row = {problem: at for at, problem in enumerate(counts.problem_ids)}
  found: dict[str, tuple[int, int, list[bool]]] = {}
  for one, (whose, problem, _) in made['key'].items():
    if whose == model and one in valid:
      at = row[problem]
      nothing: tuple[int, int, list[bool]] = (int(counts.n[at]), int(counts.c[at]), [])
      found.setdefault(problem, nothing)[2].append(valid[one])
  return found


def _ks(counts: Counts) -> list[int]:
  n = counts.smallest_n
  return sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n})


def _entry(found: cot.Estimate) -> dict[str, Any]:
  ends = zip(found.value, found.upper, found.low, found.high, strict=True)
  return {
    'cot_pass_at_k': {
      str(k): [float(v), float(u), float(low), float(high)]
      for k, (v, u, low, high) in zip(found.ks, ends, strict=True)
    },
    'validity': list(found.validity),
    'problems': found.problems,
    'completions': found.completions,
  }


def show(found: Mapping[str, Any]) -> None:
  """Prints the estimates."""
  print(f'{found["read"]} completions read by {", ".join(found["readers"])}: {found["labels"]}')
  if found['kappa']:
    value, low, high = found['kappa']
    print(f'kappa {value:.2f} [{low:.2f}, {high:.2f}]')
  for model, entry in found['models'].items():
    value, low, high = entry['validity']
    print(
      f'{model}: reasoning valid in {percent(value)} ({ranged(low, high)}) of correct completions'
    )
    for k, (value, upper, low, high) in entry['cot_pass_at_k'].items():
      more = f' to {percent(upper)}' if upper - value > 5e-4 else ''
      print(
        f'  cot_pass@{k} {percent(value)}{more} ({ranged(low, high)}); '
        f'pass@{k} {percent(entry["pass_at_k"][k])}'
      )
