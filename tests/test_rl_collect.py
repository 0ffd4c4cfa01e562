"""Dynamic sampling, its queue on disk, and what stands for the verdict."""

import dataclasses
import json
from types import SimpleNamespace

import loops
import numpy as np
import pytest

from rlvr_jax.eval.run import Scored
from rlvr_jax.profiling import Phases
from rlvr_jax.rl import collect as collect_lib
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.collect import Group, Source, batch_of, collect
from rlvr_jax.rl.host_json import from_json, to_json
from rlvr_jax.sampling.types import Completion, Item
from rlvr_jax.tasks.problem import Verdict

PROBLEMS, PROMPTS, SIZE = 10, 3, 4


def rate(index: int, visit: int) -> int:
  """How many of a draw's SIZE completions are right: none, all or some."""
  return (index + 2 * visit) % 5 if index % 3 else 0


def scored(index: int, visit: int, sample: int, right: bool) -> Scored:
  item = Item(index, 100 + index, visit, sample, (1, 2))
  tokens = np.array([index + 3, sample + 3, 1], np.int32)
  completion = Completion(item, tokens, -tokens.astype(np.float32) / 7, False)
  verdict = Verdict('correct' if right else 'wrong', float(right), str(sample % 2))
  return Scored(completion, f'{index} {sample}', verdict)


def group(index: int, visit: int) -> Group:
  right = rate(index, visit)
  return Group(index, visit, [scored(index, visit, s, s < right) for s in range(SIZE)])


@pytest.fixture
def source(monkeypatch):
  """A source whose draws are made up by `group`."""
  config = loops.config(**{'train.prompts': PROMPTS, 'train.group': SIZE, 'train.most_draws': 6})
  problems = [SimpleNamespace(uid=100 + i) for i in range(PROBLEMS)]
  monkeypatch.setattr(collect_lib, 'draw_groups', lambda _, draws: [group(*draw) for draw in draws])
  tools: list = [config, None, None, None]
  return Source(*tools, problems, [(1, 2)] * PROBLEMS, Phases())


def keys(groups):
  return [(g.index, g.visit) for g in groups]


def test_without_a_band_groups_are_the_next_in_order(source):
  found = collect(source, choose('grpo'), 4, [])
  assert keys(found.groups) == keys(found.drawn) == batch_of(4, PROMPTS, 0, PROBLEMS)
  assert (found.cursor, found.queue, found.dropped) == (4 + PROMPTS, [], 0)


def test_every_draw_is_learnt_from_dropped_or_carried_once_and_in_order(source):
  """Over many iterations, each group with a signal is learnt from once, in draw order."""
  row = choose('dapo')
  cursor, queue, used, dropped = 0, [], [], 0
  for _ in range(8):
    found = collect(source, row, cursor, queue)
    assert len(found.groups) == PROMPTS
    used += keys(found.groups)
    dropped += found.dropped
    cursor, queue = found.cursor, found.queue
  draws = batch_of(0, cursor, 0, PROBLEMS)
  with_signal = [draw for draw in draws if 0 < rate(*draw) < SIZE]
  assert used == with_signal[: len(used)]
  assert len(used) + dropped + len(queue) == cursor
  assert any(keys(queue))


def test_a_queue_survives_its_way_through_json(source):
  queue = [group(1, 0), group(4, 2)]
  again = from_json(source, json.loads(json.dumps(to_json(queue))))
  assert keys(again) == keys(queue)
  for one, other in zip(queue, again, strict=True):
    for a, b in zip(one.scored, other.scored, strict=True):
      assert (a.text, a.verdict, a.completion.item) == (b.text, b.verdict, b.completion.item)
      assert a.completion.truncated == b.completion.truncated
      np.testing.assert_array_equal(a.completion.tokens, b.completion.tokens, strict=True)
      np.testing.assert_array_equal(a.completion.logprobs, b.completion.logprobs, strict=True)


def test_too_few_groups_with_a_signal_are_learnt_from_and_none_is_an_error(source, monkeypatch):
  few = dataclasses.replace(choose('dapo'), band=(0.25, 0.25))
  found = collect(source, few, 0, [])
  assert 0 < len(found.groups) < PROMPTS
  assert {rate(*key) for key in keys(found.groups)} == {1}
  assert found.cursor == 6 * PROMPTS
  with pytest.raises(RuntimeError, match=r'none of 18 groups in 6 batches .* train.most_draws'):
    collect(source, dataclasses.replace(few, band=(0.3, 0.4)), 0, [])


def test_controls():
  half = Group(2, 1, [scored(2, 1, s, s < 2) for s in range(6)])
  half.scored[5] = dataclasses.replace(half.scored[5], verdict=Verdict('unparsed', 0.0))

  def rewards(control, seed=0):
    reward = SimpleNamespace(control=control, parts={'correct': 1.0})
    config = SimpleNamespace(reward=reward, seed=seed)
    return collect_lib.rewards_of(config, half).tolist()

  assert rewards('none') == [1, 1, 0, 0, 0, 0]
  assert rewards('inverted') == [0, 0, 1, 1, 1, 1]
  assert rewards('format') == [1, 1, 1, 1, 1, 0]
  assert rewards('majority') == [1, 0, 1, 0, 1, 0]  # '0' was said three times, '1' twice
  coins = [rewards('random', seed) for seed in range(200)]
  assert coins[0] == rewards('random')
  assert abs(np.mean(coins) - 0.5) < 4 * 0.5 / np.sqrt(1200)
  assert np.std(np.mean(coins, axis=1)) > 0.1  # a coin a completion, not one for all
