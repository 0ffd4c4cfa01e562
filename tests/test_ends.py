"""A run with adapters from end to end: it resumes to the bit, keeps its best, is a model."""

import json

import jax
import jax.numpy as jnp
import loops
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs import export as export_config
from rlvr_jax import checkpoint, export
from rlvr_jax import config as config_lib
from rlvr_jax.models import hf, load, lora, runs
from rlvr_jax.rl import learner
from rlvr_jax.rl.train import train


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
  """One device of the eight, and programs that are compiled once for all runs."""
  directory = tmp_path_factory.mktemp('compiled')
  with loops.quick(directory):
    yield


@pytest.fixture(scope='module')
def changes(tmp_path_factory):
  """A base of random weights, adapters of rank 2, and rewards that are coins: always a signal."""
  base = tmp_path_factory.mktemp('base') / 'model'
  config, params, tokenizer = learner.open_model(loops.config(), None)
  hf.save_safetensors(base, params, config, tokenizer)
  return {
    'model.name': str(base),
    'lora.rank': 2,
    'lora.alpha': 4.0,
    'reward.control': 'random',
    'train.kl_coef': 0.01,
    'train.eval_every': 1,
    'train.checkpoint_every': 2,
    'train.keep': 1,
    'train.keep_best': 'pass@2',
    'train.report': 0,
    'optimizer.learning_rate': 0.02,
  }


@pytest.fixture(scope='module')
def whole(changes, tmp_path_factory):
  """The uninterrupted run; its looks are told that iteration 1 was the best."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  run(changes, workdir)
  return workdir


def run(changes, workdir, **more):
  """Trains; held-out pass@2 is 0, 0.5, 0.25, 0.25, 0.5 after 0 to 4 iterations."""
  values = [0.0, 0.5, 0.25, 0.25, 0.5]
  looked = []

  def look(source):
    del source
    looked.append(None)
    return {'eval/pass@1': 0.0, 'eval/pass@2': values[start + len(looked) - 1]}

  steps = checkpoint.saved_steps(workdir / 'checkpoints') if workdir.exists() else []
  start = steps[-1] if steps else 0
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('rlvr_jax.rl.observe.look', look)
    train(loops.config(**changes | more), workdir)


def test_the_best_checkpoint_is_saved_where_none_was_due_and_stays(whole):
  assert checkpoint.saved_steps(whole / 'checkpoints') == [1, 4]
  assert json.loads((whole / 'best.json').read_text()) == {
    'step': 1, 'metric': 'eval/pass@2', 'value': 0.5,
  }  # fmt: skip
  assert load.full_name(f'{whole}@best') == f'{whole}@step:1'


def test_only_adapters_are_in_a_checkpoint_and_the_gap_is_rounding(whole, changes):
  stored = checkpoint.saved_shapes(whole / 'checkpoints', 4)
  assert stored['params'] is None
  assert set(stored['lora']['layers']) == {f'{t}_{side}' for t in lora.TARGETS for side in 'ab'}
  rows = loops.rows(whole)
  assert max(row['gap/max'] for row in rows if 'gap/max' in row) < 1e-4
  assert rows[0]['kl_ref'] == 0, 'the adapters did something before the first step'
  assert rows[3]['kl_ref'] > 0


@pytest.mark.check
def test_a_run_that_ended_early_goes_on_to_the_same_adapters(whole, changes, tmp_path):
  run(changes, tmp_path / 'run', **{'train.iterations': 2})
  run(changes, tmp_path / 'run')
  one, other = (runs.load_factors(runs.find(str(p))) for p in (whole, tmp_path / 'run'))
  jax.tree.map(np.testing.assert_array_equal, one, other)
  assert checkpoint.saved_steps(tmp_path / 'run' / 'checkpoints') == [1, 4]


def test_by_name_it_is_base_plus_adapters_in_both_dtypes(whole, changes):
  _, base, _ = load.load_model(changes['model.name'])
  factors = runs.load_factors(runs.find(str(whole)))
  adapter = lora.Adapter(2, 4.0)
  expected = lora.merge(lora.attach(base, factors, adapter))
  _, merged, _ = load.load_model(whole)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, expected)
  assert float(jnp.abs(merged['layers']['q'] - base['layers']['q']).max()) > 1e-3
  _, attached, _ = load.load_model(whole, dtype='bfloat16')
  assert 'q_a' in attached['layers']
  assert {leaf.dtype for leaf in jax.tree.leaves(attached)} == {jnp.dtype('bfloat16')}
  _, plain, _ = load.load_model(whole, dtype='bfloat16', merged=True)
  assert jax.tree.structure(plain) == jax.tree.structure(base)


def test_what_the_run_left_and_what_is_exported_are_that_model(whole, tmp_path):
  _, expected, _ = load.load_model(whole)
  for path in (whole / 'model', tmp_path / 'merged'):
    if not path.exists():
      export.write(f'{whole}@step:4', str(path))
    _, found, _ = load.load_model(path)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_the_adapter_in_pefts_format_added_by_its_rule_is_that_model(whole, changes, tmp_path):
  to = tmp_path / 'adapter'
  config = config_lib.resolve(
    export_config.get_config(), {'run': str(whole), 'to': str(to), 'adapter': True}
  )
  export.export(config, tmp_path)
  written = json.loads((to / 'adapter_config.json').read_text())
  assert written['base_model_name_or_path'] == changes['model.name']
  assert written['target_modules'] == [f'{t}_proj' for t in lora.TARGETS]
  tensors = load_file(to / 'adapter_model.safetensors')
  base = load_file(f'{changes["model.name"]}/model.safetensors')
  merged = load_file(whole / 'model' / 'model.safetensors')
  moved = 0
  for name, weight in base.items():
    key = f'base_model.model.{name.removesuffix(".weight")}'
    if f'{key}.lora_A.weight' in tensors:
      product = tensors.pop(f'{key}.lora_B.weight') @ tensors.pop(f'{key}.lora_A.weight')
      weight = weight + written['lora_alpha'] / written['r'] * product
      moved += 1
    np.testing.assert_allclose(merged[name], weight, rtol=0, atol=1e-6)
  assert not tensors
  assert moved == len(lora.TARGETS)


def test_a_base_that_changed_is_refused(whole, changes, tmp_path):
  record = json.loads((whole / 'architecture' / 'run.json').read_text())
  new = tmp_path / 'run'
  (new / 'architecture').mkdir(parents=True)
  (new / 'checkpoints').symlink_to(whole / 'checkpoints')
  for path in (whole / 'architecture').iterdir():
    (new / 'architecture' / path.name).write_bytes(path.read_bytes())
  record['lora']['base_fingerprint'] = '0' * 64
  (new / 'architecture' / 'run.json').write_text(json.dumps(record))
  with pytest.raises(ValueError, match=r'not the model any more that it was trained over'):
    load.load_model(new)
  with pytest.raises(ValueError, match=r'is no run that trained adapters'):
    export.write_adapter(changes['model.name'], str(tmp_path / 'to'))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'train.keep_best': 'pass@8'}, r'up to train\.eval_samples=2; raise that'),
    ({'train.keep_best': 'reward'}, "is no metric of held-out problems; write 'pass@1'"),
    ({'train.keep_best': 'pass@1', 'train.eval_every': 0}, 'needs looks at held-out problems'),
    ({'lora.rank': 4, 'model.name': ''}, 'adapts a model that is there'),
    ({'lora.targets': ('qkv',)}, 'some of q, k, v, o'),
    ({'train.frozen': ('(',)}, 'is no regular expression'),
  ],
)
def test_configs_that_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    loops.config(**change)
