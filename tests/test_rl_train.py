"""Training: what is interrupted, however, goes on to the same numbers; bad steps stop a run."""

import json
import os
import pathlib
import signal
import time

import bucket
import jax
import loops
import numpy as np
import pytest
from jax import monitoring

from rlvr_jax import config as config_lib
from rlvr_jax import watch
from rlvr_jax.checkpoint import Checkpointer
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.metrics import read_metrics
from rlvr_jax.models.characters import char_tokenizer
from rlvr_jax.rl import collect, learner, skips, teacher_data
from rlvr_jax.rl import train as train_lib
from rlvr_jax.rl.collect import batch_of, draw_order
from rlvr_jax.rl.distill import distill, encode_pairs, pair_source
from rlvr_jax.rl.identity import identity_of
from rlvr_jax.rl.train import train

COMPILED = '/jax/core/compile/backend_compile_duration'


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
  """One device of the eight, and programs that are compiled once for all runs."""
  directory = tmp_path_factory.mktemp('compiled')
  with loops.quick(directory):
    yield directory


def after_step(monkeypatch, do):
  """Calls do(iteration) after each iteration's optimizer steps."""
  steps = learner.Learner.steps

  def wrapped(self, *args, iteration, **kwargs):
    row = steps(self, *args, iteration=iteration, **kwargs)
    do(iteration)
    return row

  monkeypatch.setattr(learner.Learner, 'steps', wrapped)


@pytest.fixture(scope='module')
def base(cache, tmp_path_factory):
  """The run that fine-tunes a model from scratch: one that solves some problems, not all."""
  workdir = tmp_path_factory.mktemp('base') / 'run'
  distill(loops.config(), workdir)
  return workdir


@pytest.fixture(scope='module')
def rl(base):
  """What RL's configs have in common."""
  return {'model.name': str(base / 'model')}


@pytest.fixture(scope='module')
def whole(rl, tmp_path_factory):
  """The uninterrupted run, and how many programs each iteration compiled."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  count = [0]
  compiled = []

  def listen(event, _seconds, **_):
    count[0] += event == COMPILED

  def note(_iteration):
    compiled.append(count[0])
    count[0] = 0

  monitoring.register_event_duration_secs_listener(listen)
  with pytest.MonkeyPatch.context() as patch:
    after_step(patch, note)
    train(loops.config(**rl, **{'train.checkpoint_every': 1}), workdir)
  monitoring.unregister_event_duration_listener(listen)
  return workdir, compiled


def test_a_run_leaves_metrics_samples_and_a_model_that_moved(base, whole):
  workdir, _ = whole
  *rows, end = loops.rows(workdir)
  assert [row['step'] for row in rows] == [0, 1, 2, 3]
  assert end['step'] == 4  # after the last step, nothing but a look
  assert 'eval/pass@1' in end
  assert 'loss' not in end
  assert ['eval/pass@1' in row for row in rows] == [True, False, True, False]
  for row in rows:
    assert 0 < row['gap/max'] < 1e-4
    assert row['skipped'] == 0
    assert row['grad_norm'] > 0
    assert 0 < row['reward/mean'] < 1
    assert 0 < row['groups/with_signal'] <= 1
    assert row['tokens'] == row['length/mean'] * 32
  assert len(samples(workdir)) == 4 * 32
  before, after = loops.model(base), loops.model(workdir)
  assert any(np.any(before[name] != after[name]) for name in after)


def test_later_iterations_compile_nothing(whole):
  _, compiled = whole
  assert compiled[0] > 10
  # the second's count is of what the first does after its step: the first checkpoint
  assert compiled[2:] == [0, 0]


@pytest.mark.check
def test_two_iterations_and_two_more_are_four(rl, whole, tmp_path):
  train(loops.config(**rl, **{'train.iterations': 2}), tmp_path)
  assert loops.rows(tmp_path)[:2] == loops.rows(whole[0])[:2]
  train(loops.config(**rl), tmp_path)
  loops.assert_same_run(tmp_path, whole[0])


def test_a_termination_and_a_kill_change_nothing(rl, whole, cache, tmp_path, monkeypatch):
  """SIGTERM in the first iteration, kill -9 in the middle of the fourth (last save: the second)."""
  workdir = tmp_path / 'run'
  with monkeypatch.context() as patch:
    after_step(patch, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    train(loops.config(**rl), workdir)
  assert len(loops.rows(workdir)) == 1
  assert not (workdir / 'model').exists()
  assert Checkpointer(workdir / 'checkpoints').latest() == 1

  assert loops.killed_in_iteration(workdir, 3, cache, **rl) == -signal.SIGKILL
  assert len(loops.rows(workdir)) == 3
  train(loops.config(**rl), workdir)
  loops.assert_same_run(workdir, whole[0])
  assert len(set(samples(workdir))) == len(samples(workdir)) == 4 * 32  # each once
  assert sorted(samples(workdir)) == sorted(samples(whole[0]))


def samples(workdir):
  """What training's part of the store holds."""
  columns = ['problem_id', 'visit', 'sample', 'text', 'verdict']
  table = SampleStore(workdir / 'samples').read('train', 'countdown', columns)
  return [tuple(row.values()) for row in table.to_pylist()]


def test_a_second_visit_draws_new_tokens(rl, tmp_path):
  """Of a policy that does not move, so that nothing but the visit can be the cause."""
  still = {'optimizer.learning_rate': 0.0, 'train.eval_every': 0, 'train.export': False}
  train(loops.config(**rl, **still), tmp_path)
  found = {(p, visit, s): text for p, visit, s, text, _ in samples(tmp_path)}
  again = [(text, found[p, 0, s]) for (p, visit, s), text in found.items() if visit]
  assert len(again) == 4 * 32 - 10 * 8  # ten problems, eight samples of each
  assert np.mean([new == old for new, old in again]) < 0.2
  rows = loops.rows(tmp_path)
  assert all(row['skipped'] == 0 for row in rows)


def test_another_seed_is_another_run(rl, whole, tmp_path):
  train(loops.config(seed=1, **rl, **{'train.iterations': 1, 'train.eval_every': 0}), tmp_path)
  assert loops.rows(tmp_path)[0]['loss'] != loops.rows(whole[0])[0]['loss']


def test_three_bad_steps_in_a_row_stop_the_run(rl, tmp_path, monkeypatch):
  """With the batch on disk and a checkpoint of the untouched weights."""
  original = learner.prepare

  def infinite(*args, **kwargs):
    batch = original(*args, **kwargs)
    batch.advantages = np.full_like(batch.advantages, np.inf)
    return batch

  monkeypatch.setattr(learner, 'prepare', infinite)
  config = loops.config(**rl, **{'train.iterations': 9, 'train.eval_every': 0})
  with pytest.raises(RuntimeError, match=r'iteration-000002\.npz, a checkpoint is saved'):
    train(config, tmp_path)
  assert [row['skipped'] for row in loops.rows(tmp_path)] == [1, 1, 1]
  dump = np.load(skips.dump_path(tmp_path, 2))
  assert dump['tokens'].shape == dump['completion_mask'].shape
  assert np.isinf(dump['advantages']).any()
  assert all(dump[name].dtype != object for name in dump)

  learn = loops.open_tiny(config)
  start = jax.tree.map(np.asarray, learn.state)
  with Checkpointer(
    tmp_path / 'checkpoints',
    identity=identity_of(config, train_lib.NOT_IDENTITY),
  ) as checkpoints:
    host = learn.restore(checkpoints)
  state = learn.state
  assert host['iteration'] == 3
  assert int(state.step) == 3
  for a, b in zip(*map(jax.tree.leaves, (start.params, state.params)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_data_order_is_a_function_of_seed_and_epoch():
  count, size = 10, 4
  assert sorted(draw_order(0, 3, count)) == list(range(count))
  assert not np.array_equal(draw_order(0, 0, count), draw_order(0, 1, count))
  assert not np.array_equal(draw_order(0, 0, count), draw_order(1, 0, count))
  batches = [batch_of(i * size, size, 0, count) for i in range(10)]
  draws = [draw for batch in batches for draw in batch]
  assert draws == batch_of(0, 40, 0, count)
  # each problem once a pass, and the visit says which pass
  assert len(set(draws)) == 40
  assert {visit for _, visit in draws} == {0, 1, 2, 3}
  wide = batch_of(0, 25, 0, count)  # more prompts than problems
  assert len(set(wide)) == 25


def test_a_look_needs_problems_held_out():
  with pytest.raises(ValueError, match=r'task.holdout=0; hold some out'):
    train(loops.config(**{'task.holdout': 0}), pathlib.Path('unused'))


def test_fine_tuning_lowers_the_loss_and_knows_no_sampler(base):
  rows = loops.rows(base)
  first, last = (np.mean([row['loss'] for row in part]) for part in (rows[:5], rows[-5:]))
  assert last < 0.6 * first
  assert ['eval/pass@1' in row for row in rows[-2:]] == [False, True]
  assert not [key for key in rows[0] if key.startswith(('gap/', 'kl'))]


def test_fine_tuning_resumed_is_fine_tuning(cache, tmp_path, monkeypatch):
  """SIGTERM in the second step of six."""
  changes = {'distill.steps': 6, 'distill.eval_every': 3}
  distill(loops.config(**changes), tmp_path / 'whole')
  one_step = learner.Learner.one_step
  count = [0]

  def wrapped(self, *args):
    count[0] += 1
    if count[0] == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return one_step(self, *args)

  with monkeypatch.context() as patch:
    patch.setattr(learner.Learner, 'one_step', wrapped)
    distill(loops.config(**changes), tmp_path / 'run')
  assert len(loops.rows(tmp_path / 'run')) == 2
  distill(loops.config(**changes), tmp_path / 'run')
  loops.assert_same_run(tmp_path / 'run', tmp_path / 'whole')


@pytest.mark.parametrize('mask_prompt', [True, False])
def test_pairs_carry_loss_on_completion_and_stop_token(mask_prompt):
  tokenizer = char_tokenizer('0123456789+=')
  pairs = [('1+1=', '2'), ('5+7=', '12')]
  rollouts = encode_pairs(pairs, tokenizer, mask_prompt=mask_prompt)
  for i, (prompt, completion) in enumerate(pairs):
    learned = rollouts.tokens[i][rollouts.completion_mask[i]]
    assert learned[-1] == tokenizer.eos_ids[0]
    whole = completion if mask_prompt else prompt[1:] + completion  # nothing predicts the first
    assert tokenizer.decode(learned[:-1]) == whole


def test_pairs_of_a_file_come_in_a_shuffled_endless_order(tmp_path):
  file = tmp_path / 'pairs.jsonl'
  pairs = [(f'p{i}', f'c{i}') for i in range(5)]
  lines = (f'{{"prompt": "{p}", "completion": "{c}"}}\n' for p, c in pairs)
  file.write_text('\n'.join(lines))
  assert teacher_data.read(str(file), [], [], template='raw').pairs == pairs
  config = loops.config(**{'distill.source': str(file), 'distill.batch': 4})
  draw = pair_source(config, [])
  drawn = [pair for i in range(5) for pair in draw(i)]
  assert [sorted(drawn[i : i + 5]) for i in range(0, 20, 5)] == [pairs] * 4
  assert draw(3) == pair_source(config, [])(3)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"prompt": "a"}\n', r'pairs.jsonl:1: no completion .*; the row has prompt'),
    ('\n{"prompt": "a", "completion": ""}', r'pairs.jsonl:2: .* must be non-empty text'),
    ('{"prompt": 1, "completion": "b"}', r'pairs.jsonl:1: expected \{"prompt", "completion"\}'),
    ('[1]', r'pairs.jsonl:1: .*object'),
    ('{', r'pairs.jsonl:1: not JSON'),
    ('', r'leaves nothing to learn from'),
  ],
)
def test_a_file_that_holds_no_pairs_is_refused(tmp_path, text, message):
  (tmp_path / 'pairs.jsonl').write_text(text)
  with pytest.raises(ValueError, match=message):
    teacher_data.read(str(tmp_path / 'pairs.jsonl'), [], [], template='raw')


ROWS = {
  'dapo': {'train.minibatch': 1, 'train.epochs': 2, 'train.most_draws': 6},
  'ppo': {'train.kl_coef': 0.1, 'train.kl_in': 'reward', 'train.kl_kind': 'k1'},
  'remax': {'reward.control': 'random'},
  'clip_cov': {'train.select_share': 0.1, 'train.select_low': 0.0},
}


@pytest.mark.parametrize(
  'name',
  ['dapo', *(pytest.param(n, marks=pytest.mark.check) for n in ('ppo', 'remax', 'clip_cov'))],
)
def test_a_kill_changes_nothing_whatever_the_algorithm_keeps(name, rl, cache, tmp_path):
  """Kill -9 in the middle of the fourth iteration; DAPO's queue is then half full."""
  changes = rl | ROWS[name] | {'train.algorithm': name, 'train.prompts': 3, 'train.report': 0}
  train(loops.config(**changes), tmp_path / 'whole')
  assert loops.killed_in_iteration(tmp_path / 'run', 3, cache, **changes) == -signal.SIGKILL
  if name == 'dapo':
    config = loops.config(**changes)
    with Checkpointer(
      tmp_path / 'run' / 'checkpoints',
      identity=identity_of(config, train_lib.not_identity(config)),
    ) as checkpoints:
      host = loops.open_tiny(config).restore(checkpoints)
    assert host['iteration'] == 2
    assert host['queue']
  train(loops.config(**changes), tmp_path / 'run')
  loops.assert_same_run(tmp_path / 'run', tmp_path / 'whole')


def test_at_learning_rate_0_the_gap_stays_at_rounding(rl, tmp_path):
  changes = {'optimizer.learning_rate': 0.0, 'train.iterations': 20, 'train.report': 0}
  changes |= {'train.minibatch': 2, 'train.epochs': 2, 'train.eval_every': 0}
  train(loops.config(**rl, **changes), tmp_path)
  rows = loops.rows(tmp_path)
  assert len(rows) == 20
  for row in rows:
    assert row['gap/max'] < 1e-4
    assert row['kl_old'] < 1e-9
    assert row['clip_fraction'] == 0


def test_a_run_ends_with_a_report_against_its_start_model(whole):
  workdir, _ = whole
  document = json.loads((workdir / 'results.json').read_text())
  assert list(document['models']) == ['start', 'step-4']
  assert all(model['n'] == 64 for model in document['models'].values())
  assert 'before and after' in (workdir / 'report.html').read_text()


def test_rewards_by_verdict_and_speeds_are_in_the_log(whole):
  for row in read_metrics(whole[0] / 'metrics.jsonl')[:-1]:
    assert row['reward/correct'] == 1 if 'reward/correct' in row else row['pass@1'] == 0
    assert row['seconds/tokens_per_s/sample'] > 0
    assert row['seconds/tokens_per_s/learn'] > 0
    assert row['samples/drawn_per_used'] == 1
    assert sum(v for k, v in row.items() if k.startswith('solved/')) == pytest.approx(1)


SHORT = {'train.eval_every': 0, 'train.export': False, 'train.report': 0}


def test_a_run_that_hangs_names_where_and_one_that_does_not_leaves_nothing(
  rl, tmp_path, monkeypatch
):
  config = loops.config(**rl, **SHORT, **{'train.iterations': 2, 'metrics.peak_flops': 1e12})
  with watch.Watch(tmp_path / 'whole', hang_seconds=60):
    train(config, tmp_path / 'whole')
  assert not list((tmp_path / 'whole').glob('stacks-*'))
  assert json.loads((tmp_path / 'whole' / 'heartbeat.json').read_text())['iteration'] == 1
  for row in read_metrics(tmp_path / 'whole' / 'metrics.jsonl'):
    assert 0 < row['machine/mfu/learn'] < 1
    assert row['machine/tflops/sample'] > 0
    assert row['machine/device_gb/learn'] > 0
    assert 0.05 < row['machine/host_gb'] < 64

  original = collect.assemble

  def sleepy_assemble(*args):
    time.sleep(2.5)
    return original(*args)

  monkeypatch.setattr(collect, 'assemble', sleepy_assemble)
  workdir = tmp_path / 'hangs'
  # programs are compiled: nothing but the sleep takes so long
  with watch.Watch(workdir, hang_seconds=1.5):
    train(config, workdir)
  text = sorted(workdir.glob('stacks-*.txt'))[-1].read_text()
  assert 'in sleepy_assemble' in text
  assert 'phase learn' in text
  assert loops.rows(workdir) == loops.rows(tmp_path / 'whole')


def test_sampling_is_given_up_when_time_is_short_and_replayed(rl, tmp_path, monkeypatch):
  """SIGTERM in the second iteration's sampling: no step of it, and the same numbers later."""
  changes = rl | SHORT | {'train.iterations': 3, 'train.checkpoint_every': 100}
  changes['watch.grace_seconds'] = 1e-9
  train(loops.config(**changes), tmp_path / 'whole')
  draw = collect.Source.draw
  begun = []

  def terminated(self, *args, **kwargs):
    begun.append(1)
    if len(begun) == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return draw(self, *args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(collect.Source, 'draw', terminated)
    train(loops.config(**changes), tmp_path / 'run')
  assert len(loops.rows(tmp_path / 'run')) == 1  # the second was not finished
  with Checkpointer(tmp_path / 'run' / 'checkpoints') as checkpoints:
    assert checkpoints.steps() == [1]
  train(loops.config(**changes), tmp_path / 'run')
  assert loops.rows(tmp_path / 'run') == loops.rows(tmp_path / 'whole')


def test_a_run_in_an_object_store_is_the_same_run(rl, whole, tmp_path, monkeypatch):
  """Ended after two iterations, then gone on with."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  local = tmp_path / 'objects' / 'runs' / 'x'
  with bucket.at(tmp_path / 'objects'):
    workdir = config_lib.prepare_workdir('gs://runs/x')
    for iterations in (2, 4):
      train(loops.config(**rl, **{'train.report': 0, 'train.iterations': iterations}), workdir)
    assert samples(workdir) == samples(whole[0])
  loops.assert_same_run(local, whole[0])
