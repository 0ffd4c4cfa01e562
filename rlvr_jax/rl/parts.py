"""Parts of a reward (reward.parts): a name -> its weight; the reward is their weighted sum.

'correct' is the verifier's reward, or what reward.control puts in its place. The others are the
functions below, or 'file.py:function' of the user's (tasks/parts.py), which the verifier pool runs.
None decides a verdict.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

import numpy as np

from rlvr_jax.config import Config
from rlvr_jax.eval.run import Scored
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.tasks import parts as file_parts
from rlvr_jax.tasks.formats import think_box
from rlvr_jax.tasks.load import environment_of
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import verifier_version

log = logging.getLogger(__name__)
DEFAULT = {'correct': 1.0}
ENVIRONMENT = 'environment'
EXACT = {'exact': 1.0}
FAILED = 'failed:'  # Scored.parts['failed:NAME'] is 1 where a part of a file gave no value


def _says(*names: str) -> Callable[[Scored, int], float]:
  return lambda scored, _: float(scored.verdict.verdict in names)


def _turns(scored: Scored, _: int) -> float:
  return float(scored.completion.turns.count if scored.completion.turns else 1)


def _environment(scored: Scored, _: int) -> float:
  return math.fsum(scored.completion.turns.rewards) if scored.completion.turns else 0.0


# of a completion and sampling.max_tokens; checks.py knows the same names
PARTS: dict[str, Callable[[Scored, int], float]] = {
  'exact': _says('correct'),  # where the verifier's reward may lie between 0 and 1
  'format': _says('correct', 'wrong'),  # an answer was found
  'think_box': lambda scored, _: float(think_box(scored.text)),  # EasyR1's format: <think>, a box
  'wrong': _says('wrong'),
  'unparsed': _says('unparsed'),
  'timeout': _says('timeout'),
  'error': _says('error'),
  'truncated': lambda scored, _: float(scored.completion.truncated),
  'length': lambda scored, _: float(scored.completion.drawn),  # tokens
  'length_share': lambda scored, limit: scored.completion.drawn / limit,
  'turns': _turns,  # completions of a conversation
  ENVIRONMENT: _environment,  # what the environment gave for those before the last
}


def weights_of(config: Config) -> dict[str, float]:
  """The parts of a config, in its order."""
  return {name: float(weight) for name, weight in config.reward.parts.items()}


def from_files(config: Config) -> tuple[str, ...]:
  """The parts that files of the user's define."""
  return tuple(name for name in weights_of(config) if name != 'correct' and name not in PARTS)


class FileParts:
  """The calls of file parts for some completions, made while others are drawn."""

  def __init__(self, names: Sequence[str], problems: Sequence[Problem], pool: VerifierPool):
    self._names, self._problems, self._pool = names, problems, pool
    self._jobs: dict[tuple[int, str], Problem] = {}
    self._waiting: list[tuple[Scored, list[Future[Verdict]]]] = []

  def add(self, scored: Scored) -> None:
    """Asks for a judged completion's parts."""
    completion = scored.completion
    text = file_parts.call_text(
      scored.text, scored.verdict, length=completion.drawn, truncated=bool(completion.truncated)
    )
    index, futures = completion.item.problem, []
    for name in self._names:
      job = self._jobs.get((index, name))
      if job is None:
        job = self._jobs[index, name] = file_parts.job_of(self._problems[index], name)
      futures.append(self._pool.submit(job, text))
    self._waiting.append((scored, futures))

  def all(self) -> list[Scored]:
    """Every completion with its parts, in the order they were added.

    A call that took too long or died is worth 0 and counted; RuntimeError if all of a part's did.
    """
    found = [
      dataclasses.replace(scored, parts=self._values([future.result() for future in futures]))
      for scored, futures in self._waiting
    ]
    for place, name in enumerate(self._names):
      bad = [i for i, scored in enumerate(found) if scored.parts[FAILED + name]]
      if bad:
        why = self._waiting[bad[0]][1][place].result().reason
        message = f'reward.parts[{name!r}] failed on {len(bad)} of {len(found)} completions: {why}'
        if len(bad) == len(found):
          raise RuntimeError(f'{message}; mend the function, or leave the part out')
        log.warning('%s; there it is worth 0', message)
    self._waiting = []
    return found

  def _values(self, replies: Iterable[Verdict]) -> dict[str, float]:
    values = {}
    for name, reply in zip(self._names, replies, strict=True):
      failed = reply.verdict in ('timeout', 'error')
      values[name] = 0.0 if failed else reply.reward
      values[FAILED + name] = float(failed)
    return values


def raw(config: Config, scored: Sequence[Scored], correct: np.ndarray) -> dict[str, np.ndarray]:
  """f64[G] the values of each part for a group; correct f32[G]: that part's."""
  limit, found = config.sampling.max_tokens, {}
  for name in weights_of(config):
    if name == 'correct':
      found[name] = np.asarray(correct, np.float64)
    elif name in PARTS:
      found[name] = np.array([PARTS[name](s, limit) for s in scored], np.float64)
    else:
      found[name] = np.array([s.parts[name] for s in scored], np.float64)
  return found


def total(config: Config, scored: Sequence[Scored], correct: np.ndarray) -> np.ndarray:
  """f32[G] the rewards of a group: the parts times their weights, summed in float64."""
  if weights_of(config) == DEFAULT:
    return correct
  values = raw(config, scored, correct)
  weighted = [weight * values[name] for name, weight in weights_of(config).items()]
  return np.sum(weighted, axis=0).astype(np.float32)


def by_turn(
  config: Config, scored: Sequence[Scored], correct: np.ndarray
) -> list[list[float]] | None:
  """Rewards of each completion's turns, which sum to its `total`; None without the environment's.

  A turn before the last has the environment's reward times its weight, the last one all the rest.
  """
  weight = weights_of(config).get(ENVIRONMENT, 0.0)
  if not weight:
    return None
  values = raw(config, scored, correct)
  rest = [w * values[name] for name, w in weights_of(config).items() if name != ENVIRONMENT]
  last = np.sum(rest, axis=0) if rest else np.zeros(len(scored))
  talks = [s.completion.turns for s in scored]
  earlier = [[weight * reward for reward in talk.rewards] if talk else [] for talk in talks]
  return [[*before, float(end)] for before, end in zip(earlier, last, strict=True)]


def metrics(
  config: Config, groups: Iterable[tuple[Sequence[Scored], np.ndarray]]
) -> dict[str, float]:
  """Means of each part over groups of (completions, their correct f32[G]), raw and weighted.

  And the shares of completions for which parts of files failed. Nothing with the default parts.
  """
  weights = weights_of(config)
  if weights == DEFAULT:
    return {}
  groups = list(groups)
  values = [raw(config, scored, correct) for scored, correct in groups]
  row: dict[str, float] = {}
  for name, weight in weights.items():
    mean = float(np.concatenate([one[name] for one in values]).mean())
    row |= {f'reward/part/{name}': mean, f'reward/part/{name}/weighted': weight * mean}
  for name in from_files(config):
    failed = [s.parts[FAILED + name] for scored, _ in groups for s in scored]
    row[f'reward/part/{name}/failed'] = float(np.mean(failed))
  return row


def check_fits(config: Config, row: Algorithm) -> None:
  """ValueError where an algorithm takes rewards for right or wrong, and parts blur that.

  And where it compares the completions of a group, which has but one.
  """
  weights = weights_of(config)
  if row.asks_right and weights not in (DEFAULT, EXACT):
    raise ValueError(
      f'{row.asks_right} asks whether an answer is right, which rewards of reward.parts={weights} '
      f'do not tell; set reward.parts to {DEFAULT} or {EXACT}, or take another algorithm'
    )
  _check_truncated(config, row)
  if row.credit == 'passk_train' and config.train.group <= row.pass_k:
    raise ValueError(
      f"train.credit='passk_train' with train.group={config.train.group} and train.pass_k="
      f'{row.pass_k}: the whole group counts as one attempt, so that nothing would be learnt; take '
      'a larger train.group or a smaller train.pass_k'
    )
  if row.compares and config.train.group < 2:
    raise ValueError(
      f'{row.compares} compares the completions of a group, and train.group={config.train.group}; '
      'sample two of each problem at least, or take another algorithm'
    )


def _check_truncated(config: Config, row: Algorithm) -> None:
  """That what a truncated completion gets is right or wrong, for a row that asks."""
  r = config.reward
  given = r.truncated_scale if r.truncated_score is None else r.truncated_score
  key = 'reward.truncated_scale' if r.truncated_score is None else 'reward.truncated_score'
  fits = given in (0, 1) or (given < 0 and not row.takes_rates)
  if row.asks_right and not fits:
    raise ValueError(
      f'{row.asks_right} asks whether an answer is right, which a reward with {key}={given} does '
      f'not tell; set {key}=0, or take another algorithm'
    )


def contents(config: Config) -> dict[str, str]:
  """What stands for the rules of a config's environment and of the parts that files define."""
  found = {f'content of reward.parts: {n}': file_parts.version(n) for n in from_files(config)}
  if name := environment_of(config.task):
    found['content of task.environment'] = verifier_version(f'environment:{name}')
  return found
