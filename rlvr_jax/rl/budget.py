"""train.tokens: a run that ends by what it has sampled, so that methods compare at equal cost.

Counted are the tokens that the model wrote for training: of every completion drawn, learnt from or
dropped by dynamic sampling, whichever model drew it, and of greedy baselines. Not counted are
prompts, observations, replayed completions (paid for when they were drawn), and looks at held-out
problems.
"""

import logging
from collections.abc import Iterable
from typing import Any

from rlvr_jax.config import Config
from rlvr_jax.rl.collect import Group

log = logging.getLogger(__name__)


def check(config: Config) -> None:
  """ValueError where a budget of tokens does not go with the schedule of the learning rate."""
  t, schedule = config.train, config.optimizer.schedule
  if t.tokens and schedule != 'constant':
    raise ValueError(
      f'train.tokens={t.tokens} ends the run at an iteration that is not known before, and '
      f'optimizer.schedule={schedule!r} is laid out over train.iterations={t.iterations}; set '
      "optimizer.schedule='constant' (warm-up stays), or train.tokens=0"
    )


def drawn_in(groups: Iterable[Group]) -> int:
  """Tokens that were sampled for these groups."""
  return sum(int(scored.completion.drawn) for group in groups for scored in group.scored)


def is_spent(limit: int, sampled: int | None) -> bool:
  """Whether `sampled` tokens reach the limit; 0: there is none."""
  return 0 < limit <= (sampled or 0)


def check_known(limit: int, host: dict[str, Any]) -> None:
  """ValueError where a limit is asked of a run whose checkpoint does not know what it sampled."""
  if limit and host['tokens'] is None:
    raise ValueError(
      f'train.tokens={limit}: the checkpoint of iteration {host["iteration"]} was made before '
      'sampled tokens were counted; set train.tokens=0, or begin in another --workdir'
    )


def say_end(limit: int, sampled: int | None, iteration: int) -> None:
  """Says in the log which of the two bounds ended a run that has both."""
  if not limit or sampled is None:
    return
  if is_spent(limit, sampled):
    log.info(
      'ended after iteration %d: sampled %d tokens, train.tokens=%d', iteration, sampled, limit
    )
  else:
    log.warning(
      'train.iterations=%d ended the run at %d sampled tokens, before train.tokens=%d; raise '
      'train.iterations to compare at equal cost',
      iteration,
      sampled,
      limit,
    )
