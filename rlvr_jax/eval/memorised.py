"""Does a model know a benchmark by heart? It goes on, greedily, from the first part of a question.

A model that writes the rest of a question word for word has read it; one that also states the gold
without having seen the whole question knows the answer.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from rlvr_jax.config import Config
from rlvr_jax.eval.sample import Samples, draw
from rlvr_jax.tasks.overlap import text_of
from rlvr_jax.tasks.pool import pool_of
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_name


def probe(config: Config, workdir: pathlib.Path, problems: Sequence[Problem]) -> dict[str, Any]:
  """Rates over the problems, and one row a problem; the completions stay in the workdir's store.

  rest_rate: completions that begin with the rest of the question, blanks aside. matched: mean
  share of the rest that they write before they differ. gold_rate: those judged correct;
  gold_by_chance the same against the next problem's gold: what numbers that are in the air give.
  """
  cut = [cut_question(text_of(problem), config.data.shown) for problem in problems]
  judged = [verifier_name(problem) for problem in problems]
  asked = [
    Problem(
      f'{config.data.shown:g} of {problem.id}',
      f'{problem.task}_probe',
      shown,
      problem.answer if judge != 'code' else None,
      {'verifier': judge if judge != 'code' else 'none'},  # no program is written here
    )
    for problem, (shown, _), judge in zip(problems, cut, judged, strict=True)
  ]
  drawn, _ = draw(_greedy(config), workdir, asked, 'by problem')
  return _rates(config, workdir, drawn, problems, asked, [rest for _, rest in cut])


def cut_question(text: str, share: float) -> tuple[str, str]:
  """(what is shown, the rest), cut at the end of a word near that share of the characters."""
  text = text.strip()
  ends = [match.end() for match in re.finditer(r'\S+', text)]
  at = min(ends[:-1] or ends, key=lambda end: abs(end - share * len(text)))
  return text[:at], text[at:]


def matched(completion: str, rest: str) -> float:
  """The share of the rest that the completion writes before they differ, blanks aside."""
  wanted, written = ' '.join(rest.split()), ' '.join(completion.split())
  if not wanted:
    return 0.0
  same = next((i for i, (a, b) in enumerate(zip(wanted, written, strict=False)) if a != b), None)
  return (min(len(wanted), len(written)) if same is None else same) / len(wanted)


def _greedy(config: Config) -> Config:
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.job = 'sample'
    config.task.template = 'raw'
    config.evaluate.update({'n': 1, 'temperature': 0.0, 'top_p': 1.0, 'top_k': 0})
    config.sampling.update({'first': 0, 'stop_after': 0})
  return config


def _rates(
  config: Config,
  workdir: pathlib.Path,
  drawn: Samples,
  problems: Sequence[Problem],
  asked: Sequence[Problem],
  rests: Sequence[str],
) -> dict[str, Any]:
  table = drawn.table(['text', 'verdict', 'extracted'])
  texts = table['text'].to_pylist()
  others = [
    dataclasses.replace(problem, answer=asked[(i + 1) % len(asked)].answer)
    for i, problem in enumerate(asked)
  ]
  with pool_of(config.verifier, workdir) as pool:
    by_chance = pool.verify(list(zip(others, texts, strict=True)))
  rows = [
    {
      'id': problem.id,
      'date': problem.meta.get('date', ''),
      'rest': rest.strip(),
      'completion': text,
      'matched': matched(text, rest),
      'gold': verdict == 'correct',
      'gold_by_chance': other.verdict == 'correct',
    }
    for problem, rest, text, verdict, other in zip(
      problems, rests, texts, table['verdict'].to_pylist(), by_chance, strict=True
    )
  ]
  return {
    'model': config.model.name,
    'shown': config.data.shown,
    'problems': len(rows),
    'rest_rate': sum(row['matched'] == 1 for row in rows) / len(rows),
    'matched': sum(row['matched'] for row in rows) / len(rows),
    'gold_rate': sum(row['gold'] for row in rows) / len(rows),
    'gold_by_chance': sum(row['gold_by_chance'] for row in rows) / len(rows),
    'rows': rows,
  }
