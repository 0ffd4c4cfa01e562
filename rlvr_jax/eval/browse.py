"""Which completions a reader of the report gets to see."""

import dataclasses
from collections.abc import Mapping, Sequence

from rlvr_jax.eval.results import Study
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.eval.tables import coverage_set

MAX_CHARS = 6000  # per completion in the report; the store holds the whole


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
  problems: int = 24,
  per_model: int = 3,
) -> list[ShownProblem]:
  """Completions of some problems: from each model a correct one if there is one, then the first.

  prompts and answers (what the verifier compares with) are by problem id.
  """
  ids = choose_problems(study, problems)
  wanted = set(ids)
  found: dict[tuple[str, str], list[Shown]] = {}
  columns = ['problem_id', 'sample', 'text', 'verdict', 'extracted', 'reason', 'reward', 'length']
  for model in study.models:
    table = store.read(model.name, task, columns=[*columns, 'finish'])
    keep = [problem in wanted for problem in table['problem_id'].to_pylist()]
    for row in table.filter(keep).to_pylist():
      problem, finish = row.pop('problem_id'), row.pop('finish')
      shown = Shown(model=model.name, truncated=finish == 'length', **row)
      found.setdefault((problem, model.name), []).append(shown)
  sets = coverage_set(study)
  chosen = []
  for problem in ids:
    completions = []
    for model in study.models:
      several = sorted(found.get((problem, model.name), []), key=lambda shown: shown.sample)
      first = next((shown for shown in several if shown.verdict == 'correct'), None)
      rest = [shown for shown in several if shown is not first]
      completions += ([first] if first else []) + rest[: per_model - (first is not None)]
    solved = []
    for model in study.models:
      counts = model.counts.select([problem])
      solved.append(f'{model.name} {counts.c[0]}/{counts.n[0]}')
    summary = ', '.join(solved) + (f' · solved by {sets[problem]}' if problem in sets else '')
    chosen.append(
      ShownProblem(
        problem_id=problem,
        prompt=shorten(prompts.get(problem, '')),
        answer=(answers or {}).get(problem, ''),
        summary=summary,
        completions=tuple(
          dataclasses.replace(shown, text=shorten(shown.text)) for shown in completions
        ),
      )
    )
  return chosen
