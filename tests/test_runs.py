"""A run's checkpoint is a model by name: the weights it had then, its tokenizer, clear refusals."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import Mesh, PartitionSpec

from rlvr_jax import checkpoint, sharding
from rlvr_jax.models import load, runs
from rlvr_jax.models.characters import char_tokenizer
from rlvr_jax.models.rules import TRAIN_RULES
from rlvr_jax.rl.optimizer import make_optimizer
from rlvr_jax.rl.types import TrainState

TOKENIZER = char_tokenizer('0123456789+-*=, ')


@pytest.fixture(scope='module', autouse=True)
def quick():
  """Programs that compile fast: what they compute is the same to rounding."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def state_of(params, step: int) -> TrainState:
  params = jax.tree.map(lambda x: x + step, params)
  optimizer = make_optimizer(1e-3)
  return TrainState(jnp.int32(step), params, jax.jit(optimizer.init)(params))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A directory as training leaves it, with checkpoints 2, 4 and 6, of which 4 is the best."""
  workdir = tmp_path_factory.mktemp('runs') / 'x'
  config, params = tiny.make()
  config = dataclasses.replace(config, eos_ids=TOKENIZER.eos_ids)
  with checkpoint.Checkpointer(workdir / 'checkpoints', keep=2) as saver:
    for step in (2, 4):
      saver.save(step, state_of(params, step), {})
    saver.mark_best(4, 'eval/pass@4', 0.5)
    saver.save(6, state_of(params, 6), {})
    assert not saver.is_best('eval/pass@4', 0.5)
    assert not saver.is_best('eval/pass@4', float('nan'))
    assert saver.is_best('eval/pass@4', 0.51)
  runs.write_form(workdir, config, TOKENIZER, dtype='float32', temperature=1.0, top_p=1.0)
  return workdir


@pytest.mark.parametrize(
  ('suffix', 'step'), [('', 6), ('@latest', 6), ('@step:4', 4), ('@best', 4)]
)
def test_a_checkpoint_loads_bit_for_bit_with_config_and_tokenizer(run, suffix, step):
  config, params, tokenizer = load.load_model(f'{run}{suffix}')
  expected_config, expected = tiny.make()
  assert config == dataclasses.replace(expected_config, eos_ids=TOKENIZER.eos_ids)
  assert load.load_config(f'{run}{suffix}') == config
  assert load.full_name(f'{run}{suffix}') == f'{run}@step:{step}'
  assert jax.tree.structure(params) == jax.tree.structure(expected)
  for found, leaf in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(found, leaf + step)
  text = '3*7=21,21+5=26'
  assert tokenizer.encode(text) == TOKENIZER.encode(text)
  assert tokenizer.eos_ids == load.load_tokenizer(str(run)).eos_ids == TOKENIZER.eos_ids


def test_another_dtype_and_a_mesh(run):
  mesh = sharding.make_mesh(2, 2, 2)
  seen = []

  def placed(config):
    seen.append(config)
    shapes = jax.eval_shape(lambda: tiny.make()[1])
    return sharding.shardings(shapes, TRAIN_RULES, mesh)

  _, params, _ = load.load_model(f'{run}@step:4', dtype='bfloat16', shardings=placed)
  assert seen[0].vocab_size == 400
  q = params['layers']['q']
  assert q.dtype == jnp.bfloat16
  assert isinstance(mesh, Mesh)
  assert q.sharding.spec == PartitionSpec(None, 'fsdp', 'tensor', None)
  expected = (tiny.make()[1]['layers']['q'] + 4).astype(jnp.bfloat16)
  np.testing.assert_array_equal(np.asarray(q), np.asarray(expected))


def test_fingerprints_tell_checkpoints_apart(run):
  found = [load.fingerprint(f'{run}{which}') for which in ('@step:4', '@best', '@step:6', '')]
  assert found[0] == found[1] != found[2] == found[3]


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('{run}@step:5', r'no checkpoint at step 5; \S+x has @step:4, @step:6$'),
    ('{run}@step', r"'step' is no checkpoint; write \S+x@step:300, \S+x@best or"),
    ('{parent}/y@step:4', r'there is no run \S+/y; runs in \S+: x$'),
    ('{parent}/y@best', r'there is no run \S+/y; runs in \S+: x$'),
  ],
)
def test_what_is_not_there_is_said_with_what_is(run, name, message):
  with pytest.raises(ValueError, match=message):
    load.load_model(name.format(run=run, parent=run.parent))


def test_a_study_names_its_runs_and_an_empty_run_says_so(tmp_path):
  (tmp_path / 'study' / 'arms' / 'rl' / 'checkpoints').mkdir(parents=True)
  (tmp_path / 'study' / 'versions.json').write_text('{}')
  with pytest.raises(ValueError, match=r'no checkpoints of its own; name one of \S+/study/arms/rl'):
    load.resolve(tmp_path / 'study')
  with pytest.raises(ValueError, match='rl has no checkpoint yet'):
    load.resolve(tmp_path / 'study' / 'arms' / 'rl')


def copied(run, tmp_path):
  """The run with files of its own to damage."""
  new = tmp_path / 'x'
  for path in sorted(run.rglob('*')):
    target = new / path.relative_to(run)
    if path.is_file():
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
  return new


def test_another_architecture_and_no_best_and_no_form(run, tmp_path):
  new = copied(run, tmp_path)
  (new / 'best.json').unlink()
  with pytest.raises(ValueError, match=r'marked none as the best; train with train\.keep_best'):
    load.resolve(f'{new}@best')
  path = new / 'architecture' / 'config.json'
  content = json.loads(path.read_text())
  path.write_text(json.dumps(content | {'intermediate_size': 128}))
  with pytest.raises(
    ValueError, match=r'another architecture than .*gate is \(2, 32, 64\), expect'
  ):
    load.load_model(f'{new}@step:6')
  (new / 'architecture' / 'run.json').unlink()
  with pytest.raises(ValueError, match=r'no architecture/run\.json'):
    load.load_model(new)


def test_damage_is_found(run, tmp_path):
  new = copied(run, tmp_path)
  files = [p for p in (new / 'checkpoints' / '6' / 'state').rglob('*') if p.is_file()]
  path = max(files, key=lambda p: p.stat().st_size)
  raw = bytearray(path.read_bytes())
  for place in range(len(raw) // 2, len(raw) // 2 + 64):
    raw[place] ^= 4
  path.write_bytes(raw)
  with pytest.raises(ValueError, match=r'step 6 in \S+ cannot be read'):
    load.load_model(new)
  load.load_model(f'{new}@step:4')


def test_the_best_is_kept_beside_the_last_and_survives_a_restart(tmp_path):
  tree = {'w': jnp.arange(4.0)}
  folder = tmp_path / 'run' / 'checkpoints'
  with checkpoint.Checkpointer(folder, keep=1) as saver:
    for step in (1, 2, 3):
      saver.save(step, tree, {})
      if step == 1:
        saver.mark_best(1, 'eval/pass@1', 0.25)
  assert checkpoint.saved_steps(folder) == [1, 3]
  with checkpoint.Checkpointer(folder, keep=1) as saver:
    assert not saver.is_best('eval/pass@1', 0.25)
    saver.save(4, tree, {})
    saver.mark_best(4, 'eval/pass@1', 0.5)
    saver.save(5, tree, {})
  assert checkpoint.saved_steps(folder) == [4, 5]
  assert json.loads((tmp_path / 'run' / 'best.json').read_text()) == {
    'step': 4, 'metric': 'eval/pass@1', 'value': 0.5,
  }  # fmt: skip
