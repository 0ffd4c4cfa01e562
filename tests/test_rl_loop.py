"""What changes the loop over iterations: budgets of tokens, and runs interrupted in them."""

import itertools
import os
import pathlib
import signal

import jax
import loops
import numpy as np
import pytest

from rlvr_jax import stages
from rlvr_jax.eval.run import Scored
from rlvr_jax.metrics import read_metrics
from rlvr_jax.rl import budget, collect, distinct, learner, rollout
from rlvr_jax.rl import train as train_lib
from rlvr_jax.rl.algorithms import ALGORITHMS, choose
from rlvr_jax.rl.collect import Group
from rlvr_jax.rl.distill import distill
from rlvr_jax.rl.train import train
from rlvr_jax.sampling.types import Completion, Item
from rlvr_jax.tasks.problem import Verdict

SHORT = {
  'train.eval_every': 0,
  'train.export': False,
  'train.report': 0,
  'train.checkpoint_every': 2,
}


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
  """One device of the eight, and programs that are compiled once for all runs."""
  directory = tmp_path_factory.mktemp('compiled')
  with loops.quick(directory):
    yield directory


@pytest.fixture(scope='module')
def rl(cache, tmp_path_factory):
  """What the configs have in common: a start model that solves some problems, not all."""
  workdir = tmp_path_factory.mktemp('base') / 'run'
  distill(loops.config(), workdir)
  return {'model.name': str(workdir / 'model'), **SHORT}


def sampled(workdir):
  return [row['tokens/sampled'] for row in loops.rows(workdir)]


@pytest.mark.check
def test_a_run_ends_after_the_iteration_that_reaches_its_tokens(rl, tmp_path):
  """And is the longer run up to there; with more tokens it goes on as if it had not ended."""
  train(loops.config(**rl, **{'train.iterations': 5}), tmp_path / 'long')
  rows = loops.rows(tmp_path / 'long')
  totals = sampled(tmp_path / 'long')
  assert totals == list(itertools.accumulate(row['tokens/drawn'] for row in rows))
  limit = int(totals[1]) + 1  # reached by the third iteration, not by the second
  full = rl | {'train.export': True, 'train.eval_every': 2, 'train.report': 4}
  budgeted = full | {'train.iterations': 5, 'train.tokens': limit}
  train(loops.config(**budgeted), tmp_path / 'run')
  *own, end = loops.rows(tmp_path / 'run')
  assert [row['loss'] for row in own] == [row['loss'] for row in rows[:3]]
  assert end['step'] == 3  # the duties of the last iteration: a look, the model, the report
  assert 'eval/pass@1' in end
  assert (tmp_path / 'run' / 'model' / 'model.safetensors').exists()
  assert '"step": 3' in (tmp_path / 'run' / 'results.json').read_text()
  before = (tmp_path / 'run' / 'metrics.jsonl').read_text()
  train(loops.config(**budgeted), tmp_path / 'run')  # it has ended
  assert (tmp_path / 'run' / 'metrics.jsonl').read_text() == before
  train(loops.config(**(budgeted | {'train.tokens': 0})), tmp_path / 'run')
  whole = [row for row in loops.rows(tmp_path / 'run') if 'loss' in row]
  for key in ('loss', 'tokens/sampled'):
    assert [row[key] for row in whole] == [row[key] for row in rows]


@pytest.mark.check
def test_dropped_groups_and_greedy_baselines_count(rl, tmp_path):
  changes = {'train.iterations': 2, 'train.prompts': 3, 'train.most_draws': 6}
  train(loops.config(**rl, **changes, **{'train.algorithm': 'dapo'}), tmp_path / 'dapo')
  rows = read_metrics(tmp_path / 'dapo' / 'metrics.jsonl')
  assert rows[-1]['tokens/sampled'] == sum(row['tokens/drawn'] for row in rows)
  assert sum(row['tokens/drawn'] for row in rows) > sum(row['tokens'] for row in rows)
  train(loops.config(**rl, **changes, **{'train.algorithm': 'remax'}), tmp_path / 'remax')
  rows = read_metrics(tmp_path / 'remax' / 'metrics.jsonl')
  greedy = rows[-1]['tokens/sampled'] - sum(row['tokens/drawn'] for row in rows)
  assert 2 * 3 <= greedy <= 2 * 3 * 12  # a completion of each problem, up to max_tokens


@pytest.mark.check
def test_a_kill_does_not_change_when_the_tokens_are_spent(rl, cache, tmp_path):
  changes = rl | {'train.iterations': 9, 'train.export': True, 'train.eval_every': 4}
  changes['train.tokens'] = 1000
  train(loops.config(**changes), tmp_path / 'whole')
  end = loops.rows(tmp_path / 'whole')[-1]['step']
  assert 3 < end < 9
  assert loops.killed_in_iteration(tmp_path / 'run', 3, cache, **changes) == -signal.SIGKILL
  train(loops.config(**changes), tmp_path / 'run')
  loops.assert_same_run(tmp_path / 'run', tmp_path / 'whole')


def test_a_budget_goes_with_a_constant_rate_only():
  config = loops.config(**{'train.tokens': 5, 'optimizer.schedule': 'cosine'})
  with pytest.raises(ValueError, match=r"train.tokens=5 .*set optimizer.schedule='constant'"):
    train(config, pathlib.Path('unused'))


def test_a_checkpoint_that_did_not_count_is_not_taken_for_one_that_did():
  budget.check_known(0, {'tokens': None, 'iteration': 3})
  with pytest.raises(ValueError, match=r'train.tokens=7: the checkpoint of iteration 3 was made'):
    budget.check_known(7, {'tokens': None, 'iteration': 3})


@pytest.mark.parametrize(
  ('limit', 'count', 'spent'), [(0, 10**9, False), (5, 4, False), (5, 5, True), (5, None, False)]
)
def test_tokens_are_spent_from_the_limit_on(limit, count, spent):
  assert budget.is_spent(limit, count) is spent


def test_an_arm_that_ends_by_its_tokens_has_no_known_last_step():
  config = loops.config(**{'job': 'study', 'model.name': 'given'})
  arm = stages.Stage('rl', 'train', stages.Start('base'), {'train.tokens': 5})
  assert [one.step for one in stages.measured(config, [arm])] == [None, None]
  arm = stages.Stage('rl', 'train', stages.Start('base'), {})
  assert [one.step for one in stages.measured(config, [arm])] == [None, 4]


def scored(tokens, verdict, *, item=None, logprobs=None, truncated=False):
  item = item or Item(0, 1, 0, 0, (5, 6))
  logprobs = np.full(len(tokens), -1.0, np.float32) if logprobs is None else logprobs
  completion = Completion(item, np.array(tokens, np.int32), logprobs, truncated)
  return Scored(completion, str(tokens), Verdict(verdict, float(verdict == 'correct')))


def test_right_answers_are_learnt_from_once():
  tokens = [np.array(t) for t in ([1, 2], [3], [1, 2], [3], [1, 2, 3])]
  right = np.array([True, False, True, True, True])
  assert distinct.first_right(right, tokens).tolist() == [True, False, False, True, True]
  assert not distinct.first_right(np.zeros(5, bool), tokens).any()


def test_rft_is_fine_tuning_on_what_was_right(rl):
  """The step of the row 'rft' is that of distillation on the kept pairs, to rounding."""
  config = loops.config(**rl, **{'train.algorithm': 'rft', 'train.packing': False})
  row = train_lib.algorithm_of(config)
  prompts = [(5, 6), (7, 8, 9)]
  drawn = [
    [([1, 2, 0], 'correct'), ([1, 2, 0], 'correct'), ([3, 0], 'wrong'), ([4, 0], 'correct')],
    [([3, 3, 3], 'wrong'), ([2, 2, 0], 'correct'), ([2, 0], 'unparsed'), ([2, 2, 0], 'correct')],
  ]
  groups = [
    Group(i, 0, [scored(t, v, item=Item(i, i, 0, s, prompts[i])) for s, (t, v) in enumerate(own)])
    for i, own in enumerate(drawn)
  ]
  groups[0].scored.append(scored([6, 6], 'correct', item=Item(0, 0, 0, 4, (5, 6)), truncated=True))
  rollouts = distinct.kept(config, row, collect.assemble(config, groups), groups)
  assert rollouts.valid.tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0]
  learn = loops.open_tiny(config)
  learnt = learn.steps(learn.prepare(rollouts, iteration=0), iteration=0)
  assert learnt['tokens'] == 3 + 2 + 3

  pairs = rollout.assemble(
    [prompts[0], prompts[0], prompts[1]],
    [np.array(t, np.int32) for t in ([1, 2, 0], [4, 0], [2, 2, 0])],
  )
  other = learner.open_learner(config, ALGORITHMS['sft'], total_steps=4)
  taught = other.one_step(pairs, np.ones(3, np.float32))
  assert learnt['loss'] == pytest.approx(taught['loss'], rel=1e-5)
  for a, b in zip(*(jax.tree.leaves(one.state.params) for one in (learn, other)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_an_iteration_without_a_right_answer_teaches_rft_nothing(rl):
  config = loops.config(**rl, **{'train.algorithm': 'rft', 'optimizer.weight_decay': 0.0})
  groups = [Group(0, 0, [scored([1, 0], 'wrong'), scored([2, 0], 'unparsed')])]
  learn = loops.open_tiny(config)
  before = jax.tree.map(np.asarray, learn.state.params)
  rollouts = distinct.kept(config, learn.algorithm, collect.assemble(config, groups), groups)
  row = learn.steps(learn.prepare(rollouts, iteration=0), iteration=0)
  assert row['skipped'] == 0
  assert row['grad_norm'] == 0
  for a, b in zip(*map(jax.tree.leaves, (before, learn.state.params)), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('change', [{'baseline': 'group_mean'}, {'whiten': True}])
def test_what_would_leave_rft_nothing_is_refused(change):
  with pytest.raises(ValueError, match=r"train.learn_from='distinct_correct' leaves right answers"):
    choose('rft', **change)


EVERYTHING = {
  'train.algorithm': 'rloo',
  'train.offpolicy': 'seq_tis',
  'train.offpolicy_high': 5.0,
  'train.base_share': 0.25,
  'train.replay': 16,
  'train.replay_rate': 0.5,
  'train.curriculum': 'band',
  'train.iterations': 6,
}
BUDGET = {'train.iterations': 9, 'train.tokens': 1000}


def test_a_run_with_everything_that_is_ended_and_resumed_is_the_same(rl, tmp_path, monkeypatch):
  """Terminated in its third iteration: rates, stored successes, queue come from the checkpoint."""
  changes = rl | EVERYTHING | BUDGET | {'train.export': True}
  train(loops.config(**changes), tmp_path / 'whole')
  rows = loops.rows(tmp_path / 'whole')
  assert rows[-2]['tokens/sampled'] < 1000 <= rows[-1]['tokens/sampled']
  assert 3 < len(rows) < 9
  assert sum(row['replay/joined'] for row in rows) > 0
  assert all(0 <= row['base/pass@1'] <= 1 for row in rows)
  assert all(row['samples/drawn'] == 4 * 8 for row in rows)
  assert all('gap/max' not in row and row['behaviour/max'] > 0 for row in rows)
  steps = learner.Learner.steps

  def wrapped(self, *args, iteration, **kwargs):
    if iteration == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return steps(self, *args, iteration=iteration, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(learner.Learner, 'steps', wrapped)
    train(loops.config(**changes), tmp_path / 'run')
  assert len(loops.rows(tmp_path / 'run')) == 3
  train(loops.config(**changes), tmp_path / 'run')
  loops.assert_same_run(tmp_path / 'run', tmp_path / 'whole')


PARTS = {
  'rft': {'train.algorithm': 'rft'},
  'replay': {k: EVERYTHING[k] for k in EVERYTHING if 'curric' not in k and 'share' not in k},
  'curriculum': {'train.curriculum': 'easy_to_hard', 'train.explore': 0.5},
  'base': {'train.old_policy': 'sampler', 'train.base_share': 0.5, 'train.kl_coef': 0.01},
  'dapo': EVERYTHING | {'train.algorithm': 'dapo', 'train.prompts': 3},
  'adapters': EVERYTHING | {'lora.rank': 2, 'train.export': True},
}


@pytest.mark.check
@pytest.mark.parametrize('name', PARTS)
def test_a_kill_changes_nothing_whatever_the_loop_keeps(name, rl, cache, tmp_path):
  """Kill -9 in the middle of the fourth iteration (last save: the second)."""
  changes = rl | {'train.export': True} | PARTS[name]
  train(loops.config(**changes), tmp_path / 'whole')
  assert loops.killed_in_iteration(tmp_path / 'run', 3, cache, **changes) == -signal.SIGKILL
  train(loops.config(**changes), tmp_path / 'run')
  loops.assert_same_run(tmp_path / 'run', tmp_path / 'whole')


@pytest.mark.check
def test_the_start_model_is_the_one_that_the_run_began_with(rl, tmp_path, monkeypatch):
  """Whatever the policy has become: a group's last completions are those of a policy that stood."""
  found = {}
  draw_groups = collect.draw_groups

  def noted(source, draws):
    groups = draw_groups(source, draws)
    for group in groups:
      found[run, group.index, group.visit] = [s.completion for s in group.scored]
    return groups

  monkeypatch.setattr(collect, 'draw_groups', noted)
  changes = rl | {'train.algorithm': 'rloo', 'train.offpolicy': 'tis', 'train.base_share': 0.5}
  changes['train.iterations'] = 3
  for run, rate in (('moves', 1e-2), ('stands', 0.0)):
    train(loops.config(**changes, **{'optimizer.learning_rate': rate}), tmp_path / run)
  same = {'policy': [], 'base': []}
  for (run, *draw), completions in found.items():
    if run == 'stands':
      for i, (a, b) in enumerate(zip(found['moves', *draw], completions, strict=True)):
        same['base' if i >= 4 else 'policy'].append(
          a.tokens.tolist() == b.tokens.tolist() and np.array_equal(a.logprobs, b.logprobs)
        )
  assert all(same['base'])
  assert not all(same['policy'])
