"""Which completions an iteration learns from: draws, dynamic sampling, baselines, rewards.

The order of problems is a function of (seed, epoch), so that a cursor is all there is to resume;
with dynamic sampling so are the groups that were drawn and not yet learnt from.
"""

import collections
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rlvr_jax import graceful, hosts
from rlvr_jax.config import Config
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.run import Scored
from rlvr_jax.eval.turns import Rules, rules_of
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.profiling import Phases
from rlvr_jax.rl import curriculum, parts, replay, rollout
from rlvr_jax.rl import solved as solved_lib
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.draws import Group as Group
from rlvr_jax.rl.draws import batch_of as batch_of
from rlvr_jax.rl.draws import draw_order as draw_order
from rlvr_jax.rl.draws import from_base
from rlvr_jax.rl.selection import select_groups
from rlvr_jax.rl.solved import Solved
from rlvr_jax.rl.types import Rollouts
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.types import Completion, Item, Sampling
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem

log = logging.getLogger(__name__)
CONTROL_KEY = 0xC0  # keeps the coin of reward.control=random apart from other uses of the seed


@dataclasses.dataclass(frozen=True)
class Source:
  """Where completions come from: problems with their prompts, and who draws and judges them.

  rules: of conversations, if completions are answered. base: inside of it the engine draws from the
  start model (rl/mixing.py), where train.base_share asks for that.
  """

  config: Config
  engine: Engine
  pool: VerifierPool
  tokenizer: Tokenizer
  problems: Sequence[Problem]
  encoded: Sequence[tuple[int, ...]]
  phases: Phases
  rules: Rules | None = None
  base: Callable[[], contextlib.AbstractContextManager] | None = None

  def draw(
    self, items: Sequence[Item], sampling: Sampling, stream: str, *, rewarded: bool = False
  ) -> list[Scored]:
    """The items' judged completions, in the order of finishing; rewarded: with their parts.

    Verdicts are made while sampling goes on; the phase 'verify' is what is waited for after it.
    Raises graceful.Abandoned where there is no time for the rest of training's. Of several
    processes each draws and judges its share, and all get all completions.
    """
    items = share(items)
    ended = time.perf_counter()

    def drawn() -> Iterator[Completion]:
      nonlocal ended
      for completion in run_lib.draw(
        self.engine,
        items,
        sampling,
        self.rules,
        tokenizer=self.tokenizer,
        pool=self.pool,
        stream=stream,
      ):
        if stream == 'train':
          graceful.check()
        yield completion
      ended = time.perf_counter()

    judged = run_lib.score(
      drawn(),
      sampling.stop_ids,
      problems=self.problems,
      tokenizer=self.tokenizer,
      pool=self.pool,
    )
    names = parts.from_files(self.config) if rewarded else ()
    if names:
      asked = parts.FileParts(names, self.problems, self.pool)
      for scored in judged:
        asked.add(scored)
      found = asked.all()
    else:
      found = list(judged)
    self.phases.add('verify', time.perf_counter() - ended)
    return self._of_all(found)

  def _of_all(self, found: list[Scored]) -> list[Scored]:
    """The completions of all processes, whose verdicts this one's pool learns."""
    if hosts.count() == 1:
      return found
    bare = [dataclasses.replace(s, completion=with_prompt(s.completion, ())) for s in found]
    with self.phases('exchange'):
      everyone = hosts.exchange((bare, self.pool.news()), 'the drawn completions')
    for number, (_, news) in enumerate(everyone):
      if number != hosts.index():
        self.pool.learn(news)
    return [self._with_prompt(scored) for part, _ in everyone for scored in part]

  def _with_prompt(self, scored: Scored) -> Scored:
    one = scored.completion
    return dataclasses.replace(scored, completion=with_prompt(one, self.encoded[one.item.problem]))

  def item(self, index: int, visit: int, sample: int) -> Item:
    """One completion of a problem to be drawn."""
    return Item(index, self.problems[index].uid, visit, sample, self.encoded[index])


def with_prompt(one: Completion, prompt: Sequence[int]) -> Completion:
  """The completion with these prompt ids; () to be sent, since every process has the prompts."""
  return dataclasses.replace(one, item=dataclasses.replace(one.item, prompt_ids=prompt))


def share(items: Sequence[Item]) -> Sequence[Item]:
  """This process's share of items: whole draws of problems, single items where those are few."""
  if hosts.count() == 1:
    return items
  draws = dict.fromkeys((item.problem, item.visit) for item in items)
  if len(draws) < hosts.count():
    return [items[i] for i in hosts.mine(len(items))]
  own = {draw for i, draw in enumerate(draws) if i in hosts.mine(len(draws))}
  return [item for item in items if (item.problem, item.visit) in own]


def open_source(
  config: Config,
  engine: Engine,
  pool: VerifierPool,
  tokenizer: Tokenizer,
  problems: Sequence[Problem],
  encoded: Sequence[tuple[int, ...]],
) -> Source:
  """The source of a config, with the conversations that its task asks for."""
  rules = rules_of(config.task, problems, tokenizer, config.sampling.prompt_capacity)
  return Source(config, engine, pool, tokenizer, problems, encoded, Phases(), rules)


@dataclasses.dataclass
class Collected:
  """groups to learn from, in draw order; what the next iteration begins with; and the cost."""

  groups: list[Group]
  queue: list[Group]
  cursor: int
  drawn: list[Group]  # in this iteration, learnt from or not; without what is replayed
  dropped: int  # groups without a signal
  past: 'Past'


@dataclasses.dataclass(frozen=True)
class Past:
  """What an iteration knows of those before it: rates of problems, and stored successes."""

  solved: Solved
  stored: Sequence[Group] = ()


def train_sampling(config: Config, stop_ids: Sequence[int]) -> Sampling:
  """The Sampling of training's rollouts."""
  s = config.sampling
  return Sampling(s.temperature, s.top_p, s.top_k, tuple(stop_ids), s.max_tokens, s.extras)


def draw_groups(source: Source, draws: Sequence[tuple[int, int]]) -> list[Group]:
  """`train.group` completions of each (problem index, visit), in this order whoever ends first.

  The last of them, if train.base_share asks for that, from the start model, in a second pass.
  """
  size, config = source.config.train.group, source.config
  own = size - from_base(config)
  groups = {draw: Group(*draw, []) for draw in draws}
  sampling = train_sampling(config, source.tokenizer.eos_ids)

  def take(samples: range) -> None:
    items = [source.item(*draw, sample) for draw in draws for sample in samples]
    for scored in source.draw(items, sampling, 'train', rewarded=True):
      item = scored.completion.item
      groups[item.problem, item.visit].scored.append(scored)

  if own:
    take(range(own))
  if own < size:
    assert source.base is not None
    with source.base():
      take(range(own, size))
  for group in groups.values():
    group.scored.sort(key=lambda s: s.completion.item.sample)
  return list(groups.values())


def _draw_batch(source: Source, cursor: int, past: Past) -> tuple[list[Group], int, Past]:
  """A batch of `train.prompts` groups, the cursor after it, and what is known after it."""
  config, t = source.config, source.config.train
  draws, cursor = curriculum.next_draws(
    t.curriculum,
    past.solved,
    cursor=cursor,
    size=t.prompts,
    seed=config.seed,
    band=t.curriculum_band,
    explore=t.explore,
  )
  groups = draw_groups(source, draws)
  solved = solved_lib.after(config, past.solved, groups)
  return groups, cursor, Past(solved, replay.remember(config, past.stored, groups, solved))


def collect(
  source: Source,
  algorithm: Algorithm,
  cursor: int,
  queue: Sequence[Group],
  past: Past | None = None,
) -> Collected:
  """The groups of an iteration: `train.prompts` of them.

  Without dynamic sampling the next ones in order. With it, those with a signal in draw order:
  further batches are drawn until there are enough or train.most_draws were, surplus goes into the
  next iteration's queue (Yu et al. 2025, section 3.2, without throwing surplus away). past: of a
  run's iterations before; None: there were none.
  """
  t, config = source.config.train, source.config
  past = past or Past(solved_lib.nothing(len(source.problems)))
  judged, drawn = list(queue), []
  taken = select_groups([], (0.0, 1.0), t.prompts)
  for _ in range(t.most_draws):
    if algorithm.band is not None:
      metrics = [_signal(config, group) for group in judged]
      taken = select_groups(metrics, algorithm.band, t.prompts)
      if len(taken.taken) == t.prompts:
        break
    new, cursor, past = _draw_batch(source, cursor, past)
    drawn += new
    joined = [replay.join(config, group, past.stored) for group in new]
    judged += joined
    if algorithm.band is None:
      return Collected(joined, [], cursor, drawn, 0, past)
  else:
    metrics = [_signal(source.config, group) for group in judged]
    assert algorithm.band is not None
    taken = select_groups(metrics, algorithm.band, t.prompts)
  if not taken.taken:
    raise RuntimeError(
      f'dynamic sampling: none of {len(judged)} groups in {t.most_draws} batches has a mean '
      f'accuracy in {algorithm.band} that is not constant; take easier (or harder) problems, a '
      'larger train.group, a wider train.band or more train.most_draws'
    )
  if len(taken.taken) < t.prompts:
    log.warning(
      'dynamic sampling found %d of %d groups in %d batches (train.most_draws); learning from '
      'those',
      len(taken.taken),
      t.prompts,
      t.most_draws,
    )
  groups, carried = ([judged[i] for i in which] for which in (taken.taken, taken.carried))
  return Collected(groups, carried, cursor, drawn, len(taken.dropped), past)


def is_success(config: Config, group: Group) -> np.ndarray:
  """bool[G] which completions are right, or are taken for it (reward.control)."""
  return _signal(config, group) > 0.5


def _signal(config: Config, group: Group) -> np.ndarray:
  """What dynamic sampling judges: whether answers are right, or the reward that stands for it."""
  if config.reward.control == 'none':
    return group.correct.astype(np.float64)
  return correct_of(config, group)


def greedy_rollouts(source: Source, groups: Sequence[Group]) -> tuple[Rollouts, int]:
  """One greedy completion of each group's problem [P] (ReMax's baseline is what they earn).

  And how many tokens they have.
  """
  items = [source.item(group.index, group.visit, 0) for group in groups]
  sampling = dataclasses.replace(
    train_sampling(source.config, source.tokenizer.eos_ids), temperature=0.0
  )
  found = {}
  for scored in source.draw(items, sampling, 'probe', rewarded=True):
    item = scored.completion.item
    found[item.problem, item.visit] = Group(item.problem, item.visit, [scored])
  alone = [found[group.index, group.visit] for group in groups]
  tokens = sum(group.scored[0].completion.drawn for group in found.values())
  return assemble(source.config, alone), tokens


def _parsed(group: Group) -> np.ndarray:
  return np.array([s.verdict.verdict in ('correct', 'wrong') for s in group.scored], np.float32)


def _coin(group: Group, seed: int) -> np.ndarray:
  samples = [s.completion.item.sample for s in group.scored]
  uid = group.scored[0].completion.item.uid
  flips = np.random.default_rng([seed, CONTROL_KEY, uid, group.visit]).integers(
    2, size=max(samples) + 1
  )
  return flips[samples].astype(np.float32)


def _majority(group: Group) -> np.ndarray:
  answers = [s.verdict.extracted if s.verdict.extracted else None for s in group.scored]
  votes = collections.Counter(answer for answer in answers if answer is not None)
  winner = votes.most_common(1)[0][0] if votes else None  # the first among equals
  return np.array([winner is not None and a == winner for a in answers], np.float32)


# what learning is rewarded for in place of the verifier's reward (docs/algorithms.md)
CONTROLS: dict[str, Callable[[Group, int], np.ndarray]] = {
  'none': lambda group, _: np.array([s.verdict.reward for s in group.scored], np.float32),
  'random': _coin,
  'format': lambda group, _: _parsed(group),
  'inverted': lambda group, _: 1 - group.correct.astype(np.float32),
  'majority': lambda group, _: _majority(group),
}


def correct_of(config: Config, group: Group) -> np.ndarray:
  """f32[G] the verifier's rewards of the group's completions, or what reward.control says."""
  return CONTROLS[config.reward.control](group, config.seed)


def rewards_of(config: Config, group: Group) -> np.ndarray:
  """f32[G] what the group's completions are rewarded with: the sum of reward.parts."""
  return parts.total(config, group.scored, correct_of(config, group))


def part_metrics(config: Config, groups: Sequence[Group]) -> dict[str, float]:
  """Means of the reward's parts over groups, raw and weighted."""
  return parts.metrics(config, ((group.scored, correct_of(config, group)) for group in groups))


def assemble(config: Config, groups: Sequence[Group]) -> Rollouts:
  """Groups as padded rollouts; a group's place in the batch is its number."""
  scored = [s for group in groups for s in group.scored]
  completions = [s.completion for s in scored]
  return rollout.assemble(
    [c.item.prompt_ids for c in completions],
    [c.tokens for c in completions],
    sampler_logprobs=[c.logprobs for c in completions],
    rewards=np.concatenate([rewards_of(config, group) for group in groups]).tolist(),
    group=[i for i, group in enumerate(groups) for _ in group.scored],
    truncated=[c.truncated for c in completions],
    sampled=[c.turns.sampled if c.turns else None for c in completions],
    turn_rewards=_turn_rewards(config, groups),
  )


def _turn_rewards(config: Config, groups: Sequence[Group]) -> list[list[float]] | None:
  found = [parts.by_turn(config, group.scored, correct_of(config, group)) for group in groups]
  return [rewards for group in found for rewards in group or ()] if any(found) else None
