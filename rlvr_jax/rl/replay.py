"""Replay of rare successes (train.replay): right completions of problems that are rarely solved.

When a group of such a problem has no right completion, a stored one takes the place of a wrong one,
with the log-probs that it was drawn with, so that the row's correction for the sampler
(train.offpolicy, or train.old_policy='sampler') is the importance weight pi / behaviour. Replay of
successes in mixed groups is that of ExGRPO (Zhan et al. 2025, arXiv 2510.02245); rarely solved
problems alone, the newest completions, and the truncated weight are choices made here.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from rlvr_jax.config import Config
from rlvr_jax.rl.draws import POLICY, REPLAY, Group, origins
from rlvr_jax.rl.solved import Solved

KEY = 0x2E  # keeps the choice among stored completions apart from other uses of the seed


def remember(
  config: Config, stored: Sequence[Group], drawn: Iterable[Group], solved: Solved
) -> list[Group]:
  """The buffer after these draws: groups of one completion each, the oldest first.

  Kept are different right completions, the last train.replay of them, of problems whose running
  rate is at most train.replay_rate; solved: after these draws. One that is drawn again is as new.
  """
  limit, rate = config.train.replay, solved.rate
  found = {_key(one): one for one in stored}
  for group in drawn:
    for i in np.flatnonzero(group.correct & (origins(config, group) != REPLAY)):
      one = Group(group.index, group.visit, [group.scored[i]])
      found.pop(_key(one), None)
      found[_key(one)] = one
  rare = [one for one in found.values() if rate[one.index] <= config.train.replay_rate]
  return rare[-limit:] if limit else []


def _key(one: Group) -> tuple[int, bytes]:
  return one.index, one.scored[0].completion.tokens.tobytes()


def join(config: Config, group: Group, stored: Sequence[Group]) -> Group:
  """The group, or where nothing in it is right, and something is stored, one with a success in it.

  Which one: a function of (seed, problem, visit). It takes the place of the policy's last
  completion. The group that is given stays as it is.
  """
  fits = [one for one in stored if one.index == group.index]
  own = np.flatnonzero(origins(config, group) == POLICY)
  if group.correct.any() or not fits or not len(own):
    return group
  uid = group.scored[0].completion.item.uid
  pick = int(np.random.default_rng([config.seed, KEY, uid, group.visit]).integers(len(fits)))
  scored = list(group.scored)
  scored[own[-1]] = fits[pick].scored[0]
  return dataclasses.replace(group, scored=scored)


def metrics(config: Config, groups: Sequence[Group], stored: Sequence[Group]) -> dict[str, float]:
  """How much is stored, and how many of the groups learnt from have a replayed completion."""
  if not config.train.replay:
    return {}
  joined = sum((origins(config, group) == REPLAY).any() for group in groups)
  problems = len({one.index for one in stored})
  return {
    'replay/joined': float(joined),
    'replay/stored': float(len(stored)),
    'replay/problems': float(problems),
  }
