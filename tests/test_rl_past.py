"""What a run knows of its past: rates of problems, stored successes, the draws that follow."""

import collections
import json
from types import SimpleNamespace
from typing import Any

import loops
import numpy as np
import pytest

from rlvr_jax.eval.run import Scored
from rlvr_jax.profiling import Phases
from rlvr_jax.rl import collect as collect_lib
from rlvr_jax.rl import curriculum, replay
from rlvr_jax.rl import solved as solved_lib
from rlvr_jax.rl import train as train_lib
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.collect import Source, collect
from rlvr_jax.rl.draws import BASE, POLICY, REPLAY, Group, batch_of, from_base, origins
from rlvr_jax.rl.host_json import from_json, past_from_json, past_to_json, to_json
from rlvr_jax.rl.loop_checks import check_problems
from rlvr_jax.sampling.types import Completion, Item
from rlvr_jax.tasks.problem import Verdict

PROBLEMS, SIZE = 10, 4


def scored(index, visit, sample, right, *, text=None):
  tokens = np.array([index + 3, sample if text is None else text, visit], np.int32)
  item = Item(index, 100 + index, visit, sample, (1, 2))
  completion = Completion(item, tokens, -(tokens + 0.25).astype(np.float32) / 7, False)
  return Scored(completion, f'{index}', Verdict('correct' if right else 'wrong', float(right)))


def group(index, visit, right=0, **changes):
  """The last `right` completions are right."""
  return Group(
    index, visit, [scored(index, visit, s, s >= SIZE - right, **changes) for s in range(SIZE)]
  )


def config(**changes):
  return loops.config(**{'train.group': SIZE, 'train.prompts': 3, 'train.most_draws': 6} | changes)


REPLAYING = {'train.replay': 3, 'train.replay_rate': 0.3}
WEIGHED = {'train.algorithm': 'rloo', 'train.offpolicy': 'seq_tis'}


def test_rates_follow_the_last_draws_and_come_back_from_json():
  known = solved_lib.nothing(PROBLEMS)
  assert not known.seen.any()
  assert np.isnan(known.rate).all()
  known = solved_lib.after(config(), known, [group(2, 0, 1), group(5, 0, 4), group(2, 1, 3)])
  assert known.visits[[2, 5, 0]].tolist() == [2, 1, 0]
  assert known.rate[5] == 1
  assert known.rate[2] == (0.5 * 1 + 3) / (0.5 * 4 + 4)
  text = json.dumps(solved_lib.to_json(known))
  again = solved_lib.from_json(PROBLEMS, json.loads(text))
  for name in ('visits', 'tries', 'right'):
    np.testing.assert_array_equal(getattr(again, name), getattr(known, name))


def test_rates_are_the_policys_own():
  """The last quarter of the group is the start model's, and one is replayed."""
  mixed = config(**{'train.base_share': 0.25})
  one = group(2, 3, 1)  # the start model's alone is right
  assert origins(mixed, one).tolist() == [POLICY] * 3 + [BASE]
  assert solved_lib.after(mixed, solved_lib.nothing(PROBLEMS), [one]).rate[2] == 0
  one.scored[0] = scored(2, 1, 0, True)  # of visit 1
  assert origins(mixed, one).tolist() == [REPLAY, POLICY, POLICY, BASE]
  known = solved_lib.after(mixed, solved_lib.nothing(PROBLEMS), [one])
  assert (known.rate[2], known.tries[2]) == (0, 2)


def test_the_buffer_holds_the_newest_different_successes_of_rare_problems():
  replaying = config(**REPLAYING)
  known, stored = solved_lib.nothing(PROBLEMS), []
  draws = [group(0, 0, 1), group(1, 0, 4), group(2, 0, 1), group(3, 0), group(4, 0, 1)]
  for one in draws:
    known = solved_lib.after(replaying, known, [one])
    stored = replay.remember(replaying, stored, [one], known)
  assert [one.index for one in stored] == [0, 2, 4]  # 1 is solved often, 3 not at all
  assert all(one.correct.tolist() == [True] for one in stored)
  again = [group(0, 0, 1)]  # the same tokens
  stored = replay.remember(replaying, stored, again, known)
  assert [one.index for one in stored] == [2, 4, 0]
  stored = replay.remember(replaying, stored, [group(6, 0, 1)], known_of(known, 6, 0.25))
  assert [one.index for one in stored] == [4, 0, 6]  # three, the oldest is gone
  easy = known_of(known_of(known, 6, 0.25), 0, 0.9)
  assert [one.index for one in replay.remember(replaying, stored, [], easy)] == [4, 6]
  assert replay.remember(config(), [], draws, known) == []


def known_of(known, index, rate):
  tries, right = known.tries.copy(), known.right.copy()
  tries[index], right[index] = 4, 4 * rate
  return solved_lib.Solved(known.visits, tries, right)


def test_a_success_joins_a_group_without_one():
  replaying = config(**REPLAYING)
  stored = [group(7, 0, 1), group(2, 0, 1)]
  stored = [Group(one.index, one.visit, one.scored[-1:]) for one in stored]
  drawn = group(2, 5)
  joined = replay.join(replaying, drawn, stored)
  assert joined.correct.tolist() == [False, False, False, True]
  assert joined.scored[:3] == drawn.scored[:3]
  assert joined.scored[3] is stored[1].scored[0]  # with the log-probs it was drawn with
  assert origins(replaying, joined).tolist() == [POLICY] * 3 + [REPLAY]
  assert not drawn.correct.any()  # what was drawn is stored as it was
  assert replay.join(replaying, group(2, 5, 1), stored).correct.tolist() == [False] * 3 + [True]
  assert origins(replaying, replay.join(replaying, group(2, 5, 1), stored)).max() == POLICY
  nothing = group(3, 5)
  assert replay.join(replaying, nothing, stored) is nothing
  mixed = config(**REPLAYING, **WEIGHED, **{'train.base_share': 0.5})
  assert origins(mixed, replay.join(mixed, drawn, stored)).tolist() == [POLICY, REPLAY, BASE, BASE]


def test_every_stored_success_has_its_turn():
  replaying = config(**REPLAYING)
  stored = [Group(2, 0, [scored(2, 0, s, True, text=s)]) for s in range(3)]
  picks = [
    int(replay.join(replaying, group(2, visit), stored).scored[-1].completion.tokens[1])
    for visit in range(1, 40)
  ]
  assert collections.Counter(picks).keys() == {0, 1, 2}
  again = [
    int(replay.join(replaying, group(2, visit), stored).scored[-1].completion.tokens[1])
    for visit in range(1, 40)
  ]
  assert again == picks


def source_of(settings, monkeypatch, rate):
  """A source whose group of (index, visit) has rate(index, visit) right completions."""
  problems = [SimpleNamespace(uid=100 + i) for i in range(PROBLEMS)]
  monkeypatch.setattr(
    collect_lib,
    'draw_groups',
    lambda _, draws: [group(i, visit, rate(i, visit)) for i, visit in draws],
  )
  tools: list[Any] = [settings, None, None, None]
  made: list[Any] = [*tools, problems, [(1, 2)] * PROBLEMS, Phases()]
  return Source(*made)


def test_collecting_replays_what_was_solved_and_keeps_what_was_drawn(monkeypatch):
  settings = config(**(REPLAYING | WEIGHED | {'train.prompts': PROBLEMS, 'train.replay': 8}))
  source = source_of(settings, monkeypatch, lambda index, visit: int(visit == 0 and index < 2))
  first = collect(source, choose('rloo'), 0, [])
  assert not any((origins(settings, g) == REPLAY).any() for g in first.groups)
  second = collect(source, choose('rloo'), first.cursor, [], first.past)
  joined = [g.index for g in second.groups if (origins(settings, g) == REPLAY).any()]
  assert sorted(joined) == [0, 1]
  assert not any(g.correct.any() for g in second.drawn)
  assert replay.metrics(settings, second.groups, second.past.stored) == {
    'replay/joined': 2.0,
    'replay/stored': 2.0,
    'replay/problems': 2.0,
  }


def test_dynamic_sampling_takes_a_group_for_its_replayed_success(monkeypatch):
  """And its queue, and the past, come back from JSON as they were."""
  settings = config(**(REPLAYING | WEIGHED | {'train.prompts': 2, 'train.replay': 10}))
  source = source_of(settings, monkeypatch, lambda index, visit: int(visit == 0))
  row, found = choose('dapo'), None
  cursor, queue, past = 0, [], None
  for _ in range(9):
    found = collect(source, row, cursor, queue, past)
    cursor, queue, past = found.cursor, found.queue, found.past
    assert found.dropped == 0
  assert found is not None
  assert any((origins(settings, g) == REPLAY).any() for g in found.groups)
  text = json.dumps([past_to_json(settings, found.past), to_json(found.groups)])
  before, groups = json.loads(text)
  again = past_from_json(source, before)
  np.testing.assert_array_equal(again.solved.rate, found.past.solved.rate)
  for one, other in zip(
    [*again.stored, *from_json(source, groups)], [*found.past.stored, *found.groups], strict=True
  ):
    assert (one.index, one.visit) == (other.index, other.visit)
    for a, b in zip(one.scored, other.scored, strict=True):
      assert a.completion.item == b.completion.item
      np.testing.assert_array_equal(a.completion.logprobs, b.completion.logprobs)
      assert (a.text, a.verdict) == (b.text, b.verdict)
  assert past_to_json(config(), found.past) == {}


def known(rates):
  """Rates of the first problems, of which each was drawn once."""
  count = len(rates)
  visits, tries, right = np.zeros(PROBLEMS, np.int64), np.zeros(PROBLEMS), np.zeros(PROBLEMS)
  visits[:count], tries[:count], right[:count] = 1, 4, 4 * np.array(rates)
  return solved_lib.Solved(visits, tries, right)


def test_without_a_curriculum_draws_are_the_ordinary_ones():
  for cursor in (0, 7, 23):
    draws, after = curriculum.next_draws(
      'none', known([0.5]), cursor=cursor, size=4, seed=1, explore=0.3
    )
    assert draws == batch_of(cursor, 4, 1, PROBLEMS)
    assert after == cursor + 4


@pytest.mark.parametrize('kind', ['band', 'easy_to_hard'])
@pytest.mark.parametrize('rates', [[], [0, 0.5, 1, 0.25, 0.75], [0.5] * PROBLEMS, [1] * PROBLEMS])
def test_a_curriculum_draws_different_problems_some_of_them_in_order(kind, rates):
  settings = {'size': 6, 'seed': 1, 'band': (0.2, 0.8), 'explore': 0.3}
  for cursor in range(0, 40, 3):
    draws, after = curriculum.next_draws(kind, known(rates), cursor=cursor, **settings)
    assert (draws, after) == curriculum.next_draws(kind, known(rates), cursor=cursor, **settings)
    indices = [index for index, _ in draws]
    assert len(set(indices)) == 6
    assert all(visit == int(index < len(rates)) for index, visit in draws)
    wanted = {i for i, rate in enumerate(rates) if rate <= 0.8 and (kind != 'band' or rate >= 0.2)}
    chosen = min(4, len(wanted))  # the rest, at least 2 of 6, in the ordinary order
    assert set(indices[:chosen]) <= wanted
    walked = [index for index, _ in batch_of(cursor, after - cursor, 1, PROBLEMS)]
    assert indices[chosen:] == [i for i in dict.fromkeys(walked) if i not in indices[:chosen]]
    if kind == 'easy_to_hard' and wanted:
      order = [rates[i] for i in indices[:chosen]]
      assert order == sorted(order, reverse=True)
      assert min(order, default=1) >= sorted((rates[i] for i in wanted), reverse=True)[chosen - 1]


def test_easy_to_hard_goes_to_harder_ones_as_easier_ones_are_mastered(monkeypatch):
  """A learner that masters what it meets twice: mean rate of what is drawn falls to the hardest."""
  settings = config(**{'train.curriculum': 'easy_to_hard', 'train.explore': 0.1})
  drawn = []

  def rate(index, visit):
    drawn.append(index)
    return SIZE if visit > 2 else min(SIZE - 1, index % SIZE)

  source = source_of(settings, monkeypatch, rate)
  cursor, past = 0, None
  for _ in range(40):
    found = collect(source, choose('rloo'), cursor, [], past)
    cursor, past = found.cursor, found.past
    assert len({g.index for g in found.groups}) == 3
  assert past is not None
  assert past.solved.seen.all()
  counts = collections.Counter(drawn)
  assert min(counts.values()) > 3
  met = {index: drawn.index(index) for index in range(PROBLEMS)}
  assert max(met.values()) < 3 * 3 * PROBLEMS  # explored within a few passes


def test_every_problem_is_met_with_a_band_that_none_is_in(monkeypatch):
  settings = config(**{'train.curriculum': 'band', 'train.curriculum_band': (0.4, 0.6)})
  source = source_of(settings, monkeypatch, lambda index, _: 2 * (index == 4))
  cursor, past, counts, found = 0, None, collections.Counter(), None
  for _ in range(20):
    found = collect(source, choose('rloo'), cursor, [], past)
    cursor, past = found.cursor, found.past
    counts.update(g.index for g in found.groups)
  assert set(counts) == set(range(PROBLEMS))
  assert counts.most_common(1)[0][0] == 4
  assert counts[4] >= 15
  assert found is not None
  keys = [(g.index, g.visit) for g in found.drawn]
  assert all(visit == counts[index] - 1 for index, visit in keys)  # no draw is repeated


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'train.base_share': 0.5}, r"train.base_share=0.5: .*set train.offpolicy='seq_tis'"),
    (
      {'train.base_share': 0.5, 'train.offpolicy': 'rs'},
      r"train.offpolicy='rs' with .* would take them for its own",
    ),
    (
      {'train.base_share': 0.5, 'train.old_policy': 'sampler', 'train.algorithm': 'reinforce'},
      r"train.surrogate='reinforce' would take them",
    ),
    ({**WEIGHED, 'train.base_share': 0.05}, r'train.group=4 is no completion; set it to 0.25'),
    ({'train.algorithm': 'ppo', 'train.base_share': 0.5}, r"a critic's advantages"),
    ({'train.algorithm': 'ppo', 'train.replay': 5}, r"train.replay=5: a critic's advantages"),
    ({'train.replay': 5}, r"train.replay=5: .*set train.offpolicy='seq_tis'"),
    ({**WEIGHED, 'train.replay': 5, 'task.environment': 'retry'}, r"task.environment='retry'"),
    ({**WEIGHED, 'train.replay': 5, 'reward.control': 'random'}, r"reward.control='none' or"),
    (
      {**WEIGHED, 'train.replay': 5, 'train.base_share': 1.0},
      r"train.replay=5 goes by the policy's solve rates",
    ),
    (
      {**WEIGHED, 'train.replay': 5, 'train.base_share': 0.9},  # all four, in whole completions
      r'base_share=0.9 of train.group=4 the policy writes nothing',
    ),
    (
      {**WEIGHED, 'train.algorithm': 'unlikeliness', 'train.base_share': 0.5},
      r"train.base_share=0.5: train.credit='unlikely' ranks",
    ),
    (
      {'train.replay': 5, 'train.old_policy': 'sampler', 'train.kl_coef': 0.1},
      r"old_policy='sampler' does not weigh a KL term of train.kl_kind='k3_st'",
    ),
    (
      {**WEIGHED, 'train.curriculum': 'band', 'train.base_share': 1.0},
      r"train.curriculum='band' goes by",
    ),
    (
      {'train.curriculum': 'band', 'train.curriculum_band': (0.9, 0.1)},
      r'train.curriculum_band=\(0.9, 0.1\) must be two solve rates',
    ),
  ],
)
def test_what_cannot_go_together_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    train_lib.algorithm_of(config(**changes))


@pytest.mark.parametrize(
  'changes',
  [
    {**WEIGHED, 'train.base_share': 0.5, 'train.replay': 9},
    {'train.old_policy': 'sampler', 'train.base_share': 0.5},
    {'train.algorithm': 'icepop', 'train.replay': 9},
    {**WEIGHED, 'train.replay': 5, 'train.kl_coef': 0.1},
    {
      'train.replay': 5,
      'train.old_policy': 'sampler',
      'train.kl_coef': 0.1,
      'train.kl_kind': 'ratio_k3',
    },
    {'train.algorithm': 'rft', 'train.base_share': 1.0},
    {'train.algorithm': 'ppo', 'train.curriculum': 'band'},
  ],
)
def test_what_goes_together_is_taken(changes):
  train_lib.algorithm_of(config(**changes))


def test_shares_are_whole_completions():
  assert from_base(config(**{'train.base_share': 0.25})) == 1
  assert from_base(config(**{'train.base_share': 1.0})) == SIZE
  assert from_base(config()) == 0


def test_a_curriculum_has_enough_problems():
  settings = config(**{'train.curriculum': 'band'})
  check_problems(settings, 3)
  with pytest.raises(ValueError, match=r'train.prompts=3 different problems, but there are 2'):
    check_problems(settings, 2)
