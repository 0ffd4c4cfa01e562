"""The mesh that is chosen: it fits, the first that fits, and says why; layouts of its two parts."""

import functools

import jax
import loops
import numpy as np
import pytest
import tiny
from exactness import assert_equal_up_to_boundaries, by_item
from hypothesis import given
from hypothesis import strategies as st

from configs import dapo_qwen32b, grpo_qwen7b, quickstart
from rlvr_jax import config as config_lib
from rlvr_jax.eval import run as run_lib
from rlvr_jax.mesh_choice import GIB, USABLE, WEIGHTS_SHARE, Need, choose, choose_tensor, divisors
from rlvr_jax.models.known import KNOWN
from rlvr_jax.rl import train as train_lib
from rlvr_jax.rl.layouts import learner_need, settled
from rlvr_jax.rl.train import algorithm_of
from rlvr_jax.rl.update import state_shardings
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.sharding import make_mesh, row_parts, sampler_mesh

HBM = {'v5e': 15.75 * GIB, 'v5p': 95.74 * GIB, 'h100': 79.6 * GIB}


@given(
  st.sampled_from([1, 2, 4, 6, 8, 16, 64]),
  st.integers(1, 10**12),
  st.builds(
    Need,
    state=st.integers(0, 10**13),
    inner=st.integers(0, 10**11),
    row=st.integers(0, 10**11),
    most_rows=st.integers(1, 512),
    fsdp=st.just((3584,)),
    tensor=st.just((28, 18944, 152064)),
  ),
)
def test_the_first_mesh_that_fits_is_chosen(devices, memory, need):
  fitting = [
    (t, f)
    for t in divisors(devices)
    for f in divisors(devices // t)
    if all(size % t == 0 for size in need.tensor)
    and all(size % f == 0 for size in need.fsdp)
    and devices // t <= need.most_rows
    and need.on_device(f, t) <= int(USABLE * memory)
  ]
  if not fitting:
    with pytest.raises(ValueError, match=r'mesh\.auto: '):
      choose(devices, memory, need)
    return
  choice = choose(devices, memory, need)
  assert (choice.tensor, choice.fsdp) == min(fitting)
  assert choice.data * choice.fsdp * choice.tensor == devices
  assert choice.reason.startswith(f'{devices} devices of ')
  # where more fsdp leaves the sampler more room, that comes first; tensor never grows for it
  most = max(f for t, f in fitting if t == choice.tensor)
  roomy = choose(devices, memory, need, lambda fsdp, tensor: 1 + (fsdp < most))
  assert (roomy.tensor, roomy.fsdp) == (choice.tensor, most)


def chosen(module, devices, hbm, **changes):
  """(mesh.data, fsdp, tensor, sampling.tensor) that a config gets for a described slice."""
  free = {'mesh.auto': True, 'sampling.tensor': 0, 'sampling.memory_gb': 0.0}
  config = config_lib.resolve(module.get_config(), free | changes)
  described = [type('Device', (), {'process_index': i // 4}) for i in range(devices)]
  found = settled(
    config, algorithm_of(config), model=KNOWN[config.model.name], devices=described, memory=int(hbm)
  )
  m = found.mesh
  return m.data, m.fsdp, m.tensor, found.sampling.tensor


def test_published_models_on_published_slices():
  # 15 GB of weights in 16 of HBM: two devices share the sampler's
  assert chosen(grpo_qwen7b, 64, HBM['v5e']) == (1, 64, 1, 2)
  assert chosen(grpo_qwen7b, 8, HBM['v5p']) == (4, 2, 1, 1)
  assert chosen(dapo_qwen32b, 32, HBM['v5p']) == (2, 16, 1, 2)
  # a small model is copied, not split
  assert chosen(grpo_qwen7b, 8, HBM['h100'], **{'model.name': 'Qwen/Qwen2.5-1.5B'}) == (8, 1, 1, 1)
  with pytest.raises(ValueError, match=r'mesh\.auto: no mesh of 4 devices fits: .*lora\.rank'):
    chosen(dapo_qwen32b, 4, HBM['v5e'])
  # sixteen rollouts in a step leave most of the devices without a row, were it not for tensor
  few = {'train.prompts': 2, 'train.group': 8, 'train.minibatch': 0}
  assert chosen(grpo_qwen7b, 64, HBM['v5e'], **few)[:3] == (1, 16, 4)


def test_a_need_is_what_the_state_holds():
  """Against bytes counted by hand: parameters and both moments in float32, gradients beside."""
  config = config_lib.resolve(grpo_qwen7b.get_config(), {})
  model = KNOWN[config.model.name]
  kept, need = learner_need(config, algorithm_of(config), model)
  c = model
  layer = c.embed_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
  layer += 3 * c.embed_dim * c.mlp_dim + 2 * c.embed_dim
  layer += (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
  numbers = 2 * c.vocab_size * c.embed_dim + c.num_layers * layer + c.embed_dim
  size = {'float32': 4, 'bfloat16': 2}
  o, m = config.optimizer, config.model
  each = size[m.dtype] + size[o.moment_dtype] + size[o.second_moment_dtype]
  each += size[m.compute_dtype] * algorithm_of(config).reference
  assert kept == pytest.approx(numbers * each, rel=1e-6)
  compute = size[m.compute_dtype]
  copy = compute if m.dtype != m.compute_dtype else 0
  assert need.state == pytest.approx(numbers * (each + 4 + compute + copy), rel=1e-6)


def test_samplers_share_weights_as_little_as_they_can():
  parts, reason = choose_tensor(8, 10 * GIB, 14 * GIB, (28, 18944))
  assert parts == 4  # 14 / 2 is over 0.6 of 10
  assert 14 / 2 > WEIGHTS_SHARE * 10 > 14 / 4
  assert '14.00 GiB, 3.50 GiB on each' in reason
  with pytest.raises(ValueError, match='leave no room for a cache'):
    choose_tensor(8, 10 * GIB, 140 * GIB, (28, 18944))


def test_what_is_asked_for_is_not_chosen():
  config = config_lib.resolve(quickstart.get_config(), {'job': 'train'})
  assert settled(config, algorithm_of(config)) is config
  asked = config_lib.resolve(
    quickstart.get_config(), {'job': 'train', 'mesh.auto': True, 'sampling.tensor': 4}
  )
  assert settled(asked, algorithm_of(asked)).sampling.tensor == 4
  assert asked.mesh.auto  # the run's own config is as it was
  # no part of what a run is known by
  names = [config_lib.fingerprint(c) for c in (asked, config)]
  assert names[0] == names[1]


def test_the_choice_is_made_and_logged_here(caplog):
  config = config_lib.resolve(quickstart.get_config(), {'job': 'train', 'mesh.auto': True})
  with caplog.at_level('INFO'):
    found = settled(config, algorithm_of(config))
  assert (found.mesh.data, found.mesh.fsdp, found.mesh.tensor) == (8, 1, 1)
  assert 'mesh.data=8 mesh.fsdp=1 mesh.tensor=1: 8 devices of' in caplog.text
  assert 'sampling.tensor=1: the weights are' in caplog.text
  mesh = run_lib.sampling_mesh(config, tiny.CONFIG)
  assert (row_parts(mesh), mesh.shape['tensor']) == (8, 1)


@pytest.mark.parametrize(
  ('shape', 'tensor', 'expected'),
  [
    ((1, 8, 1), 0, (1, 8, 1)),
    ((1, 8, 1), 1, (1, 8, 1)),
    ((1, 8, 1), 2, (4, 1, 2)),
    ((2, 1, 4), 1, (8, 1, 1)),
    ((2, 2, 2), 8, (1, 1, 8)),
  ],
  ids=str,
)
def test_a_samplers_mesh_has_the_learners_devices_in_their_order(shape, tensor, expected):
  mesh = make_mesh(*shape)
  own = sampler_mesh(mesh, tensor)
  assert own.devices.shape == expected
  assert list(own.devices.flat) == list(mesh.devices.flat)


def test_a_samplers_mesh_that_does_not_fit_is_refused():
  with pytest.raises(ValueError, match=r'sampling\.tensor=3 does not divide the 8 devices'):
    sampler_mesh(make_mesh(8, 1, 1), 3)
  with pytest.raises(ValueError, match=r'sampling\.tensor=2 on a single device'):
    sampler_mesh(None, 2)
  assert sampler_mesh(None, 1) is None


SAMPLING = Sampling(stop_ids=(7, 11, 200, 301), max_tokens=8)


@functools.cache
def drawn(shape, tensor):
  """Completions by weights that lie in the learner's layout and are handed over twice."""
  config, params = tiny.make()
  own = None
  if shape:
    mesh = make_mesh(*shape)
    params = jax.device_put(params, state_shardings(params, config, mesh))
    own = sampler_mesh(mesh, tensor)
  sampler = hand_over(None, params, own)
  if own is not None:
    assert sampler['embed'].sharding.mesh == own
    again = hand_over(sampler, params, own)
    assert sampler['embed'].is_deleted()
    assert not params['embed'].is_deleted()
    sampler = again
  engine = Engine(
    sampler, config, mesh=own, slots=8, bank_rows=4, steps=4, prompt_capacity=16,
    completion_capacity=8,
  )  # fmt: skip
  prompts = [tuple(np.random.default_rng(n).integers(0, 400, n).tolist()) for n in (1, 5, 16)]
  items = [Item(i, 50 + i, 0, s, p) for i, p in enumerate(prompts) for s in range(4)]
  return by_item(engine.run(items, SAMPLING))


@pytest.mark.check
@pytest.mark.parametrize(
  ('shape', 'tensor'), [((1, 8, 1), 2), ((1, 2, 4), 1), ((2, 4, 1), 4)], ids=str
)
def test_one_hand_over_takes_weights_to_another_layout(strict, shape, tensor):
  config, params = tiny.make()
  assert_equal_up_to_boundaries(drawn((), 0), drawn(shape, tensor), params, config, SAMPLING)


@pytest.mark.check
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
  'layout',
  [{'mesh.data': 1, 'mesh.fsdp': 8, 'sampling.tensor': 2}, {'mesh.auto': True}],
  ids=['given', 'chosen'],
)
def test_a_run_with_two_layouts(tmp_path, caplog, layout):
  """An iteration whose sampler and learner agree on log-probs, over eight devices."""
  short = {'train.iterations': 1, 'train.eval_every': 0, 'train.report': 0, 'train.export': False}
  with caplog.at_level('INFO'):
    train_lib.train(loops.config(**{'model.init.vocab_size': 32}, **short, **layout), tmp_path)
  (row,) = loops.rows(tmp_path)
  assert row['gap/max'] < 1e-4
  assert row['skipped'] == 0
  assert ('mesh.data=8 mesh.fsdp=1 mesh.tensor=1: ' in caplog.text) == ('mesh.auto' in layout)
