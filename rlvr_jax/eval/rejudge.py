"""Another tool's completions judged by a verifier of ours, before they are counted."""

import dataclasses
import pathlib

from rlvr_jax.eval.importers import Draws
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_version


def rejudged(draws: Draws, verifier: str, pool: VerifierPool, path: pathlib.Path) -> Draws:
  """The draws with the verdicts of `verifier` on their texts and answers.

  ValueError if there are counts only, a completion or a reference answer is missing, or the
  verifier is none.
  """
  if verifier == 'none':
    raise ValueError(
      "compare.verifier='none' judges nothing, so every sample would count as wrong; name a "
      "verifier, or leave compare.verifier at '' to keep the file's verdicts"
    )
  if draws.counted:
    raise ValueError(f'{path}: compare.verifier={verifier!r} needs completions, not counts of them')
  without = next((row for row in draws.rows if row.text is None), None)
  if without is not None:
    raise ValueError(
      f'{path}: compare.verifier={verifier!r} needs the text of every completion, and sample '
      f'{without.sample} of problem {without.problem!r} has none'
    )
  missing = sorted({row.problem for row in draws.rows} - {*draws.answers})
  if missing:
    raise ValueError(
      f'{path}: compare.verifier={verifier!r} needs a reference answer (a column answer), and '
      f'{len(missing)} problems have none, e.g. {missing[0]!r}'
    )
  problems = {
    name: Problem(name, 'samples', draws.prompts.get(name, ''), answer, {'verifier': verifier})
    for name, answer in draws.answers.items()
  }
  verdicts = pool.verify([(problems[row.problem], row.text or '') for row in draws.rows])
  rows = [
    dataclasses.replace(
      row,
      verdict=verdict.verdict,
      reward=verdict.reward,
      extracted=verdict.extracted,
      reason=verdict.reason,
    )
    for row, verdict in zip(draws.rows, verdicts, strict=True)
  ]
  settings = {**draws.settings, 'verifier': verifier_version(verifier)}
  return dataclasses.replace(draws, rows=rows, settings=settings, unordered=False)
