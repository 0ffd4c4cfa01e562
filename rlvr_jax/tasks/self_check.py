"""Does every gold verify itself, and does junk not? Asked at load, once for each problem.

What was found is kept under the data cache by verifier version and problem, so that it costs once.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlvr_jax.tasks.datasets.sources import cache_dir
from rlvr_jax.tasks.journal import problem_digest
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_name, verifier_version

log = logging.getLogger(__name__)

MODES = ('auto', 'refuse', 'drop', 'off')
AUTOMATIC = (
  'math',
  'vision',
)  # verifiers that 'auto' asks: others are slow, or are wrong by design
RULES = 'golds-1'  # of this file; a change asks everything anew

_MATH_JUNK = (
  'I do not know.',
  'The answer is \\boxed{9182736455463}.',
  'The answer is \\boxed{\\text{zxqv}}.',
)
_CODE_JUNK = ('```python\npass\n```',)
_SHOWN = 8


def failures(
  problems: Sequence[Problem], *, workers: int = 2, limit_s: float = 10.0, memory_mb: int = 4096
) -> dict[str, str]:
  """id -> why, for the problems whose gold is not judged correct or for which junk is.

  A program's gold is its canonical solution (meta['solution']; without one only junk is tried).
  """
  found: dict[str, str] = {}
  for name in dict.fromkeys(verifier_name(problem) for problem in problems):
    group = [problem for problem in problems if verifier_name(problem) == name]
    version = verifier_version(name)
    path = _path(group[0].task, version)
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    digests = {problem.id: problem_digest(problem).hex()[:24] for problem in group}
    fresh = [problem for problem in group if digests[problem.id] not in known]
    if fresh:
      with VerifierPool(workers, limit_s=limit_s, memory_mb=memory_mb) as pool:
        judged, passing = _judge(fresh, pool)
      known |= {digests[identity]: why for identity, why in judged.items()}
      _write(path, known)
      found |= passing
    found |= {p.id: why for p in group if (why := known.get(digests[p.id], ''))}
  return {problem.id: found[problem.id] for problem in problems if problem.id in found}


def checked(
  problems: list[Problem], *, mode: str = 'auto', allow: Sequence[str] = ()
) -> list[Problem]:
  """The problems, those left out whose gold fails if mode is 'drop'; `allow` names ids to keep.

  mode 'refuse' raises ValueError listing the failing ones; 'auto' does where the verifier is one
  of AUTOMATIC and asks nothing of others; 'off' asks nothing.
  """
  if mode not in MODES:
    raise ValueError(f'task.self_check={mode!r} must be one of {", ".join(MODES)}')
  asked = problems
  if mode == 'auto':
    asked = [problem for problem in problems if verifier_name(problem) in AUTOMATIC]
  if mode == 'off' or not asked:
    return problems
  kept = {str(identity) for identity in allow}
  failing = {i: why for i, why in failures(asked).items() if i not in kept}
  if mode == 'drop':
    return [problem for problem in problems if problem.id not in failing]
  if failing:
    shown = '; '.join(f'{i!r}: {why}' for i, why in list(failing.items())[:_SHOWN])
    more = f'; and {len(failing) - _SHOWN} more' if len(failing) > _SHOWN else ''
    raise ValueError(
      f'{len(failing)} of {len(asked)} golds of {asked[0].task} fail the self-check: {shown}{more}'
      f". Leave them out by task.self_check='drop', keep them by task.allow={tuple(failing)[:3]}"
      f"{' ...' if len(failing) > 3 else ''}, or ask nothing by task.self_check='off'"
    )
  return problems


def probes(problem: Problem) -> tuple[str | None, tuple[str, ...]]:
  """A completion that must be correct (None: there is none), and those that must not be."""
  if verifier_name(problem) == 'code':
    solution = problem.meta.get('solution')
    return (f'```python\n{solution}\n```' if solution else None), _CODE_JUNK
  gold = str(problem.answer)
  junk = tuple(text for text in _MATH_JUNK if gold not in text)
  if options := problem.meta.get('options'):
    place = (int(problem.meta['option']) + 1) % len(options)
    if str(options[place]) != str(options[int(problem.meta['option'])]):
      junk += (f'The answer is \\boxed{{{chr(ord("A") + place)}}}.',)
  return f'The answer is \\boxed{{{gold}}}.', junk


def _judge(
  problems: Sequence[Problem], pool: VerifierPool
) -> tuple[dict[str, str], dict[str, str]]:
  """(id -> why or '', id -> why of what may be other another time: time-outs and errors)."""
  jobs = []
  for problem in problems:
    gold, junk = probes(problem)
    jobs += [(problem, text, True) for text in (gold,) if text is not None]
    jobs += [(problem, text, False) for text in junk]
  verdicts = pool.verify([(problem, text) for problem, text, _ in jobs])
  settled: dict[str, str] = {problem.id: '' for problem in problems}
  passing: dict[str, str] = {}
  for (problem, text, good), verdict in zip(jobs, verdicts, strict=True):
    if verdict.verdict in ('timeout', 'error'):
      settled.pop(problem.id, None)
      if good:
        passing[problem.id] = f'its own gold {_short(problem)}: {verdict.verdict}, {verdict.reason}'
    elif good and verdict.verdict != 'correct':
      _note(
        settled, problem, f'its own gold {_short(problem)} is {verdict.verdict} ({verdict.reason})'
      )
    elif not good and verdict.verdict == 'correct':
      _note(settled, problem, f"the junk '{text}' is correct for the gold {_short(problem)}")
  return settled, passing


def _note(settled: dict[str, str], problem: Problem, why: str) -> None:
  if not settled.get(problem.id, 'lost'):
    settled[problem.id] = why


def _short(problem: Problem) -> str:
  if verifier_name(problem) == 'code':
    return 'solution'
  text = str(problem.answer)  # as it stands: repr would double every backslash
  return f"'{text if len(text) <= 80 else text[:77] + '...'}'"


def _path(task: str, version: str) -> Path:
  digest = hashlib.sha256(f'{RULES}\n{version}'.encode()).hexdigest()[:16]
  return cache_dir() / 'self_check' / f'{task}-{digest}.json'


def _write(path: Path, known: Mapping[str, str]) -> None:
  partial = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(known))
    partial.replace(path)
  except OSError as error:  # what was found holds; it only has to be found again
    log.warning('self-check: %s cannot be written (%s); the next load asks again', path, error)
