"""The mesh that is chosen: it fits, the first that fits, and says why; layouts of its two parts."""

import contextlib
import dataclasses
import functools
import importlib
import itertools
import pathlib
import types

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
from rlvr_jax import layouts, memory, plan, plan_advice
from rlvr_jax.eval import run as run_lib
from rlvr_jax.layouts import settled
from rlvr_jax.mesh_choice import (
  GIB,
  USABLE,
  WEIGHTS_SHARE,
  Limits,
  Priced,
  choose,
  choose_tensor,
  divisors,
)
from rlvr_jax.models.known import KNOWN
from rlvr_jax.plan_roofline import topology_of
from rlvr_jax.rl.update import state_shardings
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.sharding import make_mesh, row_parts, sampler_mesh

ROOT = pathlib.Path(__file__).resolve().parent.parent


def priced(limits, sizes):
  """limits' layouts with sizes drawn for them; some hold no sampler, some crowd out its cache."""
  found = {}
  for layout, (size, crowded) in zip(limits.layouts(), sizes, strict=False):
    found[layout] = Priced({'sample': {'cache': size}, 'learn': {'rows': 0}}, crowded)
  return found


@given(
  st.sampled_from([1, 2, 4, 6, 8, 16, 64]),
  st.sampled_from([1, 2, 4, 8]),
  st.sampled_from([0, 1, 2, 4]),
  st.integers(1, 100),
  st.lists(st.tuples(st.integers(0, 120), st.booleans()), min_size=1, max_size=200),
  st.integers(1, 512),
)
def test_the_most_wanted_layout_that_fits_is_chosen(devices, own, asked, memory, sizes, rollouts):
  own = min(own, devices)
  limits = Limits(devices, own, rollouts, 128, (3584,), (28, 18944, 152064), asked)
  prices = priced(limits, sizes)

  def price(layout):
    if layout not in prices:
      raise ValueError('sampling.memory_gb=1 is too little')
    return prices[layout]

  fitting = [
    (t, prices[d, f, t, s].crowded, s, f)
    for d, f, t in itertools.product(divisors(devices), repeat=3)
    for s in ([asked] if asked else divisors(own))
    if d * f * t == devices
    and d * f <= rollouts
    and all(size % n == 0 for size in (28, 18944, 152064) for n in (t, s))
    and 3584 % f == 0
    and devices % s == 0
    and 128 % (devices // s) == 0
    and (d, f, t, s) in prices
    and prices[d, f, t, s].size <= int(USABLE * memory)
  ]
  if not fitting:
    with pytest.raises(ValueError, match=r'mesh\.auto: '):
      choose(memory, limits, price)
    return
  choice = choose(memory, limits, price)
  c = choice.layout
  assert (c.tensor, prices[c].crowded, c.sampler, c.fsdp) == min(fitting)
  assert c.data * c.fsdp * c.tensor == devices
  assert choice.reason.startswith(f'{devices} devices of ')


def described(topology):
  """Devices of a topology, four to a host where they are TPUs, eight where GPUs."""
  of_host, platform = (4, 'tpu') if topology.name else (8, 'gpu')
  return [
    types.SimpleNamespace(process_index=i // of_host, platform=platform)
    for i in range(topology.chips)
  ]


def chosen(module, topology, **changes):
  """(mesh.data, fsdp, tensor, sampling.tensor) that a config gets for a described slice."""
  free = {'mesh.auto': True, 'sampling.tensor': 0}
  config = config_lib.resolve(module.get_config(), free | changes)
  found = settle(config, topology_of(topology))
  m = found.mesh
  return m.data, m.fsdp, m.tensor, found.sampling.tensor


def settle(config, topology):
  model = KNOWN[config.model.name]
  return settled(config, model=model, devices=described(topology), hbm=topology.hardware.hbm)


def test_published_models_on_published_slices():
  """The table of docs/meshes.md."""
  # 14 GiB of weights in 16 of HBM: scores of 28 heads leave no room without tensor
  assert chosen(grpo_qwen7b, 'v5e-64') == (1, 32, 2, 4)
  assert chosen(grpo_qwen7b, 'v5p-16') == (2, 4, 1, 2)
  assert chosen(dapo_qwen32b, 'v5p-64') == (1, 32, 1, 2)
  # a small model is copied, not split
  assert chosen(grpo_qwen7b, 'h100x8', **{'model.name': 'Qwen/Qwen2.5-1.5B'}) == (8, 1, 1, 1)
  with pytest.raises(ValueError, match=r'mesh\.auto: no mesh of 4 devices fits: .*lora\.rank'):
    chosen(dapo_qwen32b, 'v5e-4', **{'sampling.memory_gb': 0.0})
  with pytest.raises(ValueError, match=r'no mesh of 4 devices holds the sampler: .*memory_gb=8'):
    chosen(dapo_qwen32b, 'v5e-4', **{'sampling.memory_gb': 8.0})
  # sixteen rollouts in a step leave most of the devices without a row, were it not for tensor
  few = {'train.prompts': 2, 'train.group': 8, 'train.minibatch': 0}
  assert chosen(grpo_qwen7b, 'v5e-64', **few)[:3] == (1, 16, 4)


RECIPES = sorted(
  f'configs/{path.name}'
  for path in (ROOT / 'configs').glob('*.py')
  if 'def get_config' in path.read_text()
  and (config := config_lib.load_file(str(path))).job in ('train', 'distill')
  and config.model.name in KNOWN
)
ALWAYS = ('configs/grpo_qwen7b.py', 'configs/grpo_qwen1p5b_1gpu.py')
TOPOLOGIES = ('v5e:8x8', 'v5p-16', 'v5p-64', 'h100', 'h100x8', 'h100x64')


@pytest.mark.parametrize(
  'path',
  [
    pytest.param(p, marks=[] if p in ALWAYS else pytest.mark.check, id=p.removeprefix('configs/'))
    for p in RECIPES
  ],
)
def test_what_is_chosen_fits_by_the_plans_own_bytes_or_nothing_does(path):
  for name in TOPOLOGIES:
    topology = topology_of(name)
    config = config_lib.resolve(
      config_lib.load_file(str(ROOT / path)), {'mesh.auto': True, 'sampling.tensor': 0}
    )
    model, usable = KNOWN[config.model.name], int(USABLE * topology.hardware.hbm)
    found = None
    with contextlib.suppress(ValueError):
      found = settle(config, topology)
    if found is None:
      assert all(size > usable for size in sizes_of_all(config, model, topology)), name
      continue
    split = plan_advice.split_of(found, topology.chips)
    phases = memory.phases(found, model, split, kernel=not topology.name)
    assert max(sum(parts.values()) for parts in phases.values()) <= usable, name


def sizes_of_all(config, model, topology):
  """Bytes of the largest phase on every mesh that job=plan takes for sound."""
  axes, own = divisors(topology.chips), divisors(min(topology.chips, 4 if topology.name else 8))
  for fsdp, tensor, sampler in itertools.product(axes, axes, own):
    changed = config.copy_and_resolve_references()
    if topology.chips % (fsdp * tensor):
      continue
    with changed.unlocked():
      changed.mesh.update({'data': -1, 'fsdp': fsdp, 'tensor': tensor, 'auto': False})
      changed.sampling.tensor = sampler
    try:
      split = plan_advice._valid(changed, model, topology.chips)
      phases = memory.phases(changed, model, split, kernel=not topology.name)
    except ValueError:
      continue
    if split.rows <= memory.step_rollouts(config):
      yield max(sum(parts.values()) for parts in phases.values())


def test_the_recipes_are_there():
  assert {'configs/grpo_qwen7b.py', 'configs/dapo_qwen32b.py'} <= set(RECIPES)


def test_scores_of_attention_decide():
  """Where rows are long and heads many: 4 arrays, float32, of 1024 queries x T keys x heads."""
  config = config_lib.resolve(
    grpo_qwen7b.get_config(),
    {'mesh.auto': True, 'sampling.tensor': 0, 'sampling.memory_gb': 0.0, 'sampling.slots': 64},
  )
  model = KNOWN[config.model.name]
  devices = described(topology_of('v5e-64'))

  def learn(layout):
    split = memory.Split(*layout[:3])
    return memory.phases(config, model, split, kernel=False)['learn']

  T = memory.micro_batch(config, memory.Split(1, 64, 1))[1]
  scores = 16 * 1024 * T * model.num_heads
  assert learn((1, 64, 1))['scores'] == scores
  # room for all of it but half of the scores
  whole = sum(learn((1, 64, 1)).values())
  hbm = int((whole - scores / 2) / USABLE)
  found = settled(config, model=model, devices=devices, hbm=hbm)
  assert found.mesh.tensor == 2
  roomy = settled(config, model=model, devices=devices, hbm=int(whole / USABLE) + 8)
  assert roomy.mesh.tensor == 1
  # a kernel of a GPU keeps no scores
  for device in devices:
    device.platform = 'gpu'
  assert settled(config, model=model, devices=devices, hbm=hbm).mesh.tensor == 1


def test_a_plan_of_what_is_chosen_fits():
  given = {'job': 'plan', 'plan.topology': 'v5e:8x8', 'plan.compile': False, 'mesh.auto': True}
  report = plan.make(config_lib.resolve(grpo_qwen7b.get_config(), given))
  assert report['fits']
  assert report['mesh'] == {'data': 1, 'fsdp': 32, 'tensor': 2}
  assert report['bytes_per_device'] <= USABLE * report['hbm_per_device']


def test_a_tower_is_divided_too():
  model = dataclasses.replace(KNOWN['Qwen/Qwen2.5-VL-7B-Instruct'], num_heads=32)
  config = config_lib.resolve(grpo_qwen7b.get_config(), {'sampling.tensor': 0})
  limits = layouts.limits_of(config, model, described(topology_of('h100x64')))
  assert model.vision is not None
  assert model.vision.num_heads == 16
  assert max(layout.tensor for layout in limits.layouts()) == 16
  blind = dataclasses.replace(model, vision=None, mrope=None)
  limits = layouts.limits_of(config, blind, described(topology_of('h100x64')))
  assert max(layout.tensor for layout in limits.layouts()) == 32


def test_fine_tuning_is_priced_by_its_own_rows():
  """A step of its pairs, no reference."""
  values = {'mesh.auto': True, 'sampling.tensor': 0, 'sampling.memory_gb': 0.0}
  config = config_lib.resolve(
    grpo_qwen7b.get_config(),
    values | {'job': 'distill', 'distill.batch': 16, 'sampling.slots': 256},
  )
  found = settle(config, topology_of('v5e-64'))
  assert found.mesh.data * found.mesh.fsdp <= 16
  split = plan_advice.split_of(found, 64)
  assert 'reference' not in memory.phases(found, KNOWN[config.model.name], split)['learn']


def test_samplers_share_weights_as_little_as_they_can():
  parts, reason = choose_tensor(8, 10 * GIB, 14 * GIB, (28, 18944))
  assert parts == 4  # 14 / 2 is over 0.6 of 10
  assert 14 / 2 > WEIGHTS_SHARE * 10 > 14 / 4
  assert '14.00 GiB, 3.50 GiB on each' in reason
  with pytest.raises(ValueError, match='leave no room for a cache'):
    choose_tensor(8, 10 * GIB, 140 * GIB, (28, 18944))


def test_what_is_asked_for_is_not_chosen():
  config = config_lib.resolve(quickstart.get_config(), {'job': 'train'})
  assert settled(config) is config
  asked = config_lib.resolve(
    quickstart.get_config(), {'job': 'train', 'mesh.auto': True, 'sampling.tensor': 4}
  )
  assert settled(asked).sampling.tensor == 4
  assert asked.mesh.auto  # the run's own config is as it was
  # no part of what a run is known by
  names = [config_lib.fingerprint(c) for c in (asked, config)]
  assert names[0] == names[1]


def test_the_choice_is_made_and_logged_here(caplog):
  config = config_lib.resolve(quickstart.get_config(), {'job': 'train', 'mesh.auto': True})
  with caplog.at_level('INFO'):
    found = settled(config)
  assert (found.mesh.data, found.mesh.fsdp, found.mesh.tensor) == (8, 1, 1)
  assert found.sampling.tensor == 1
  assert 'mesh.data=8 mesh.fsdp=1 mesh.tensor=1 sampling.tensor=1: 8 devices of' in caplog.text
  mesh = run_lib.sampling_mesh(config, tiny.CONFIG)
  assert (row_parts(mesh), mesh.shape['tensor']) == (8, 1)


def test_jobs_that_learn_choose_first(monkeypatch, tmp_path):
  seen = []
  monkeypatch.setattr(layouts.train_lib, 'train', lambda config, workdir: seen.append(config))
  monkeypatch.setattr(layouts.distill_lib, 'distill', lambda config, workdir: seen.append(config))
  for job in ('train', 'distill'):
    config = config_lib.resolve(quickstart.get_config(), {'job': job, 'mesh.auto': True})
    module, function, _ = config_lib.entry(config)
    getattr(importlib.import_module(module), function)(config, tmp_path)
  assert [(c.mesh.auto, c.mesh.data) for c in seen] == [(False, 8)] * 2


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
    layouts.train(loops.config(**{'model.init.vocab_size': 32}, **short, **layout), tmp_path)
  (row,) = loops.rows(tmp_path)
  assert row['gap/max'] < 1e-4
  assert row['skipped'] == 0
  assert ('mesh.data=8 mesh.fsdp=1 mesh.tensor=1 ' in caplog.text) == ('mesh.auto' in layout)
