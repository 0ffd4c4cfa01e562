"""Credit per turn: against loops over turns, whatever the order, and for one turn plain GRPO."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import base
from rlvr_jax import config as config_lib
from rlvr_jax.eval.run import Scored
from rlvr_jax.rl import collect, parts
from rlvr_jax.rl.advantages import advantages_of
from rlvr_jax.rl.algorithms import Algorithm, choose
from rlvr_jax.rl.prepare import Shaping, _advantages
from rlvr_jax.rl.returns import turn_of, turn_returns
from rlvr_jax.rl.rollout import assemble
from rlvr_jax.sampling.types import Completion, Item, Turns
from rlvr_jax.tasks.problem import Verdict

MOST = 4
ROWS = 15


@dataclasses.dataclass(frozen=True)
class Talk:
  """A conversation: tokens of each turn, tokens said to it, rewards of its turns, its group."""

  turns: tuple[int, ...]
  gaps: tuple[int, ...]
  rewards: tuple[float, ...]
  group: int

  def sampled(self):
    pieces = itertools.zip_longest(self.turns, self.gaps[: len(self.turns) - 1], fillvalue=0)
    return np.concatenate([[True] * own + [False] * said for own, said in pieces]).astype(bool)


@st.composite
def talks(draw, groups=3):
  """Some conversations of 1 to MOST turns in groups; rewards are halves."""
  found = []
  for group in range(groups):
    for _ in range(draw(st.integers(1, 5))):
      n = draw(st.integers(1, MOST))
      sizes = st.lists(st.integers(1, 3), min_size=n, max_size=n).map(tuple)
      values = st.sampled_from([-0.5, 0.0, 0.5, 1.0])
      rewards = draw(st.lists(values, min_size=n, max_size=n))
      found.append(Talk(draw(sizes), draw(sizes), tuple(rewards), group))
  return found


def batch(found, prompt=2):
  """Rollouts of conversations, as training assembles them; ROWS of them, of one shape."""
  fill = [Talk((MOST * 3,), (1,), (0.5,), 0)] * (ROWS - len(found))
  valid = np.arange(ROWS) < len(found)
  found = [*found, *fill]
  sampled = [talk.sampled() for talk in found]
  rollouts = assemble(
    [(7,) * prompt for _ in found],
    [np.ones(len(own), np.int32) for own in sampled],
    rewards=[sum(talk.rewards) for talk in found],
    group=[talk.group for talk in found],
    sampled=sampled,
    turn_rewards=[talk.rewards for talk in found],
  )
  wide = MOST * 6 + prompt - rollouts.tokens.shape[1]
  more = {
    name: np.pad(getattr(rollouts, name), ((0, 0), (0, max(wide, 0))))
    for name in ('completion_mask', 'turn_rewards')
  }
  return rollouts.replace(valid=valid, **more)


@functools.partial(jax.jit, static_argnums=0)
def _jitted(row: Algorithm, *arrays):
  return advantages_of(row, *arrays, groups=3, turns=MOST).advantages


def advantages(row: Algorithm, rollouts):
  names = ('turn_rewards', 'completion_mask', 'group', 'valid')
  return np.asarray(_jitted(row, *(getattr(rollouts, name) for name in names)))


def oracle(found, row, pooled):
  """The same by loops in float64: a list of each turn's advantage for every conversation."""
  back = []
  for talk in found:
    own = [0.0] * len(talk.rewards)
    for k in reversed(range(len(own))):
      own[k] = talk.rewards[k] + (row.turn_gamma * own[k + 1] if k + 1 < len(own) else 0.0)
    back.append(own)
  result = []
  for talk, own in zip(found, back, strict=True):
    mine = []
    for k, value in enumerate(own):
      others = [
        one
        for other, its in zip(found, back, strict=True)
        if other.group == talk.group
        for place, one in enumerate(its)
        if pooled or place == k
      ]
      mean = sum(others) / len(others)
      spread = 1.0
      if row.scale == 'group_std' and len(others) > 1:
        spread = np.std(others, ddof=1) + row.eps
      flat = max(others) == min(others)
      mine.append(0.0 if flat else (value - mean) / spread)
    result.append(mine)
  return result


@settings(max_examples=40, deadline=None)
@given(talks(), st.sampled_from([('grpo', 'turn'), ('dr_grpo', 'turn'), ('grpo', 'turn_pooled')]))
def test_advantages_are_those_of_loops_over_turns(found, which):
  name, kind = which
  row = choose(name, turn_credit=kind, turn_gamma=0.5)
  rollouts, pooled = batch(found), kind == 'turn_pooled'
  got = advantages(row, rollouts)
  assert not got[~(rollouts.completion_mask & rollouts.valid[:, None])].any()
  for i, (talk, wanted) in enumerate(zip(found, oracle(found, row, pooled), strict=True)):
    tokens = np.repeat(wanted, talk.turns)
    np.testing.assert_allclose(got[i][rollouts.completion_mask[i]], tokens, rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(talks(), st.randoms(use_true_random=False))
def test_the_order_of_a_batch_changes_nothing(found, rng):
  row = choose('grpo', turn_credit='turn', turn_gamma=0.5)
  order = list(range(len(found)))
  rng.shuffle(order)
  whole, again = advantages(row, batch(found)), advantages(row, batch([found[i] for i in order]))
  np.testing.assert_allclose(whole[order], again[: len(order)], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('grpo', 'turn'),
    ('grpo', 'turn_pooled'),
    ('rloo', 'turn'),
    ('opo', 'turn'),
    ('lite_ppo', 'turn'),
  ],
)
def test_one_turn_is_the_episode_to_the_bit(name, kind):
  rng = np.random.default_rng(3)
  found = [
    Talk((int(rng.integers(1, 6)),), (1,), (float(rng.choice([0.0, 0.3, 1.0])),), i // 5)
    for i in range(15)
  ]
  rollouts = batch(found)
  plain = advantages(choose(name), rollouts)
  turns = advantages(choose(name, turn_credit=kind, turn_gamma=0.5), rollouts)
  assert plain.any()
  np.testing.assert_array_equal(plain, turns)


def test_what_only_some_reached_is_compared_among_them():
  """Solved at once, at the second turn, never: credit per episode praises both of the first two
  alike; per turn the second answer is praised against those that were asked for one, only."""
  found = [
    Talk((2,), (1,), (1.0,), 0),
    Talk((2, 2), (1, 1), (0.0, 1.0), 0),
    Talk((2, 2), (1, 1), (0.0, 0.0), 0),
  ]
  rollouts = batch(found)
  mask = rollouts.completion_mask

  def per_turn(row):
    got = advantages(row, rollouts)
    return [got[i][mask[i]][::2].tolist() for i in range(3)]

  plain, kept = choose('dr_grpo'), choose('dr_grpo', turn_credit='turn')
  third = pytest.approx(1 / 3, abs=1e-6)
  minus = pytest.approx(-2 / 3, abs=1e-6)
  assert per_turn(plain) == [[third], [third, third], [minus, minus]]
  assert per_turn(kept) == [[third], [third, pytest.approx(0.5)], [minus, pytest.approx(-0.5)]]
  # a discount makes the first turn of the second worth half
  half = per_turn(choose('dr_grpo', turn_credit='turn', turn_gamma=0.5))
  assert half[0] == [pytest.approx(0.5)]
  assert half[1] == [pytest.approx(0.0, abs=1e-6), pytest.approx(0.5)]


def test_the_only_one_to_reach_a_turn_has_nothing_to_be_compared_with():
  found = [Talk((1, 3), (2, 1), (0.0, 1.0), 0), Talk((2,), (1,), (1.0,), 0)]
  got = advantages(choose('grpo', turn_credit='turn'), batch(found))
  assert not got.any()
  alone = advantages(choose('rloo', turn_credit='turn'), batch(found))
  assert alone[0][batch(found).completion_mask[0]].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_turns_are_the_runs_under_the_mask():
  mask = jnp.array([[0, 1, 1, 0, 1, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1, 1]], bool)
  rewards = jnp.array([[9, 1, 2, 9, 4, 9, 9, 8, 0], [9, 0, 0, 0, 0, 0, 0, 0, 3]], jnp.float32)
  assert turn_of(mask)[0][mask[0]].tolist() == [0, 0, 1, 2, 2]
  found, lengths = turn_returns(rewards, mask, 4, 0.5)
  assert lengths.tolist() == [[2, 1, 2, 0], [8, 0, 0, 0]]
  assert found.tolist() == [[3 + 0.5 * (4 + 0.5 * 8), 8, 8, 0], [3, 0, 0, 0]]


# --- rewards of the environment, from the conversation to the token


def scored(rewards, verdict, own):
  """A conversation of one token a turn, with one token between turns."""
  sampled = np.arange(2 * len(rewards) + 1) % 2 == 0
  turns = Turns(sampled, 2 * len(rewards), len(rewards) + 1, rewards=tuple(rewards))
  tokens = np.ones(len(sampled), np.int32)
  item = Item(0, 1, 0, own, (5, 5))
  completion = Completion(item, tokens, np.zeros(len(tokens), np.float32), False, turns=turns)
  return Scored(completion, '', Verdict(verdict, float(verdict == 'correct')))


def config_of(**weights):
  return config_lib.resolve(base.get_config(), {'reward.parts': weights})


def test_an_environments_reward_lies_on_its_turn():
  config = config_of(correct=1.0, environment=0.5, turns=-0.125)
  group = collect.Group(
    0, 0, [scored([0.5, 0.25], 'correct', 0), scored([], 'wrong', 1), scored([1.0], 'wrong', 2)]
  )
  rollouts = collect.assemble(config, [group])
  assert rollouts.rewards.tolist() == [1 + 0.375 - 0.375, -0.125, 0.5 - 0.25]
  assert rollouts.turn_rewards is not None
  assert rollouts.turn_rewards[:, 2:7].tolist() == [
    [0.25, 0, 0.125, 0, 0.625],
    [-0.125, 0, 0, 0, 0],
    [0.5, 0, -0.25, 0, 0],
  ]
  np.testing.assert_array_equal(rollouts.turn_rewards.sum(axis=1), rollouts.rewards)
  metrics = parts.metrics(config, [(group.scored, np.zeros(3))])
  assert metrics['reward/part/environment'] == pytest.approx(1.75 / 3)
  assert collect.assemble(config_of(correct=1.0), [group]).turn_rewards is None


@pytest.mark.parametrize(('kind', 'scale'), [('episode', 1.0), ('turn', 1.0), ('turn', 0.0)])
def test_a_step_takes_rewards_as_the_row_says(kind, scale):
  """Per episode all of it counts at every token; per turn what comes from the turn on. A truncated
  conversation loses its last turn's reward where credit is per turn, else all."""
  config = config_of(correct=1.0, environment=0.5)
  group = collect.Group(0, 0, [scored([0.5, 0.0], 'correct', 0), scored([0.0, 1.0], 'wrong', 1)])
  rollouts = collect.assemble(config, [group]).replace(truncated=np.array([True, False]))
  row = choose('reinforce', turn_credit=kind)
  none = (None,) * 4
  shaping = Shaping(64, scale, None)
  got = _advantages(row, 1, shaping, MOST, jax.tree.map(jnp.asarray, rollouts), *none)
  tokens = [np.asarray(got.advantages)[i][rollouts.completion_mask[i]].tolist() for i in range(2)]
  if kind == 'episode':
    assert tokens == [[1.25] * 3, [0.5] * 3]
  else:
    assert tokens == [[0.25 + scale, scale, scale], [0.5, 0.5, 0.0]]


def test_what_does_not_fit_is_refused():
  for name, cells, why in (
    ('grpo', {'turn_credit': 'turns'}, "train.turn_credit='turns': known are episode"),
    ('grpo', {'turn_gamma': 0.5}, "does nothing with train.turn_credit='episode'"),
    ('grpo', {'turn_credit': 'turn', 'turn_gamma': 1.5}, 'must lie in 0..1'),
    ('pkpo', {'turn_credit': 'turn'}, "takes train.credit='identity'"),
    ('ppo', {'turn_credit': 'turn'}, "train.per_token='broadcast'"),
    ('remax', {'turn_credit': 'turn'}, 'no greedy baseline'),
  ):
    with pytest.raises(ValueError, match=why):
      choose(name, **cells)
