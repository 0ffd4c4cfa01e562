"""job=plan: predicted bytes are those of a run, advice makes a plan fit, devices are described."""

import importlib.util
import json
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import loops
import numpy as np
import pytest

from rlvr_jax import config as config_lib
from rlvr_jax import (
  memory,
  plan,
  plan_advice,
  plan_compiled,
  plan_roofline,
  plan_table,
  plan_text,
  plan_vision,
  plan_work,
)
from rlvr_jax.eval import run as run_lib
from rlvr_jax.memory import Split
from rlvr_jax.models import images, processor
from rlvr_jax.rl import learner
from rlvr_jax.rl.rollout import assemble
from rlvr_jax.sampling import shapes
from rlvr_jax.sampling.types import Item, Sampling

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEVEN = 'configs/grpo_qwen7b.py'
VL = 'configs/grpo_qwen_vl7b.py'
# a model of a size that counts against what stands beside it
WIDE = {
  'model.init.embed_dim': 64,
  'model.init.mlp_dim': 192,
  'model.init.num_layers': 2,
  'model.init.num_heads': 4,
  'model.init.num_kv_heads': 2,
  'model.init.head_dim': 16,
}


def of(path, **overrides):
  values = {key.replace('__', '.'): value for key, value in overrides.items()}
  return config_lib.resolve(config_lib.load_file(str(ROOT / path)), {'job': 'plan'} | values)


@pytest.fixture(scope='module')
def quick():
  """Programs that compile fast: what they need is predicted from the same ones."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def live_bytes() -> int:
  """Bytes of all arrays on the first device, each buffer once."""
  first, seen = jax.devices()[0], {}
  for array in jax.live_arrays():
    for shard in array.addressable_shards:
      if shard.device == first:
        seen[shard.data.unsafe_buffer_pointer()] = shard.data.nbytes
  return sum(seen.values())


def temporaries(function, *args, **static) -> int:
  return function.lower(*args, **static).compile().memory_analysis().temp_size_in_bytes


def on_devices(fsdp, monkeypatch) -> None:
  """Only so many of the devices are there."""
  devices = jax.devices()[:fsdp]
  monkeypatch.setattr(jax, 'devices', lambda: devices)
  make_mesh = run_lib.sharding.make_mesh
  monkeypatch.setattr(
    run_lib.sharding,
    'make_mesh',
    lambda *sizes, devices=devices: make_mesh(*sizes, devices=devices),
  )


@pytest.mark.parametrize('fsdp', [1, pytest.param(4, marks=pytest.mark.check)])
def test_predicted_bytes_are_those_of_live_arrays_and_programs(fsdp, quick, monkeypatch):
  on_devices(fsdp, monkeypatch)
  config = loops.config(**WIDE, **{'train.kl_coef': 0.1, 'train.micro_tokens': 512})
  predicted = plan.make(config)
  found = predicted['phases']

  before = live_bytes()
  learn = loops.open_tiny(config)
  engine = run_lib.make_engine(config, None, learn.config, learn.mesh)
  learn.refresh(engine)
  s = config.sampling
  items = [Item(0, 1, 0, n, (1, 2, 3)) for n in range(4)]
  list(engine.run(items, Sampling(1.0, 1.0, 0, (), s.max_tokens), stream='train'))
  held = live_bytes() - before
  within(found['sample']['all'] - found['sample']['temporaries'], held)

  longest = s.prompt_capacity + s.max_tokens
  B = config.train.prompts * config.train.group
  rollouts = assemble([(1,) * s.prompt_capacity] * B, [np.ones(s.max_tokens, np.int32)] * B)
  assert rollouts.tokens.shape[1] >= longest
  zeros = np.zeros(rollouts.tokens.shape, np.float32)
  layout = learn._layout(rollouts)
  rows = learn._place(
    learner.micro_batches(rollouts, np.ones(B, np.float32), layout, ref_logprobs=zeros)
  )
  rows = jax.device_put(rows)
  needed = temporaries(learn.update, learn.state, rows, jnp.float32(1))
  within(found['learn']['all'], live_bytes() - before + needed)
  within(found['learn']['gradients'] + found['learn']['temporaries'], needed)
  scored = temporaries(learn.score, learn.params, rows, jnp.float32(1))
  within(found['score']['temporaries'], scored)
  assert predicted['bytes_per_device'] == max(parts['all'] for parts in found.values())

  for name, learning in (('score', False), ('step', True)):
    turn = predicted['programs'][name]['flops']['turn']
    split = Split(**predicted['mesh'])
    by_hand = plan_work.micro_batch_work(config, learn.config, split, learn=learning).flops
    within(by_hand, turn)


SEEING = {
  'model.init.architecture': 'qwen2_5_vl',
  'model.init.vision.embed_dim': 32,
  'model.init.vision.mlp_dim': 48,
  'model.init.vision.num_layers': 4,
  'model.init.vision.full_layers': (1,),
  'task.name': 'shapes',
  'task.params': {'problems': 10},
  'sampling.prompt_capacity': 48,
  'sampling.max_tokens': 16,
}


def pictured(vision, tokens, count):
  """Prompts of one image each, as large as it may be."""
  rows = math.isqrt(tokens)
  side = vision.patch * vision.merge
  shape = rows * side, tokens // rows * side, 3
  rng = np.random.default_rng(0)
  found = []
  for _ in range(count):
    image = processor.from_pixels(rng.integers(0, 256, shape, np.uint8), vision)
    ids = images.expand([vision.start_id, vision.image_id, vision.end_id], [image], vision)
    found.append(images.Pictured(ids, [image]))
  return found


@pytest.mark.check
@pytest.mark.parametrize(('fsdp', 'frozen'), [(1, ()), (1, ('^vision/',)), (4, ())])
def test_predicted_bytes_of_a_model_that_sees(fsdp, frozen, quick, monkeypatch):
  on_devices(fsdp, monkeypatch)
  changes = {'train.micro_tokens': 1024, 'train.frozen': frozen}
  config = loops.config(**{**WIDE, **SEEING, **changes})
  predicted = plan.make(config)
  found = predicted['phases']

  before = live_bytes()
  learn = loops.open_tiny(config)
  vision = run_lib.sees(config, learn.config)
  assert vision is not None
  prompts = pictured(vision, plan_vision.largest_tokens(config, vision), config.train.prompts)
  engine = run_lib.make_engine(config, None, learn.config, learn.mesh)
  learn.refresh(engine)
  s = config.sampling
  items = [Item(0, 1, 0, n, prompts[0]) for n in range(4)]
  list(engine.run(items, Sampling(1.0, 1.0, 0, (), s.max_tokens), stream='train'))
  held = live_bytes() - before
  kept = found['sample']['all'] - found['sample']['temporaries']
  within(kept - found['sample']['rows and results'], held)

  shape = shapes.shape_of(prompts[0], s.prompt_capacity, vision)
  shape = s.prompt_capacity, shape[1]
  given = shapes.images_for([prompts[0]] * engine.shards, shape, vision)
  tokens = np.zeros((engine.shards, s.prompt_capacity), np.int32)
  number = np.ones(engine.shards, np.int32)
  arguments = engine.params, engine._state, tokens, number, number, *given
  static = {'config': learn.config, 'impl': engine.decode_impl}
  needed = temporaries(engine._programs.prefill, *arguments, **static)
  within(predicted['programs']['prefill']['temporaries'], needed)

  G = config.train.group
  rollouts = assemble(prompts * G, [np.ones(s.max_tokens, np.int32)] * len(prompts) * G)
  rows = learn._place(learn.rows(rollouts, np.ones(len(prompts) * G, np.float32)))
  rows = jax.device_put(rows)
  needed = temporaries(learn.update, learn.state, rows, jnp.float32(1))
  within(found['learn']['all'], live_bytes() - before + needed)
  within(found['learn']['gradients'] + found['learn']['temporaries'], needed)
  scored = temporaries(learn.score, learn.params, rows, jnp.float32(1))
  within(found['score']['temporaries'], scored)

  for name, learning in (('score', False), ('step', True)):
    turn = predicted['programs'][name]['flops']['turn']
    split = Split(**predicted['mesh'])
    by_hand = plan_work.micro_batch_work(config, learn.config, split, learn=learning)
    tower = plan_work.tower_work(config, learn.config, split, learn=learning)
    within(by_hand.flops + tower.flops, turn)
  mean = plan_work.lengths_of(config, learn.config)
  smaller = plan_work.tower_work(config, learn.config, split, learn=True, lengths=mean)
  assert smaller.flops < tower.flops


@pytest.mark.check
@pytest.mark.parametrize('fsdp', [1, 4])
def test_operations_of_the_tower_are_what_images_add(fsdp, quick, monkeypatch):
  on_devices(fsdp, monkeypatch)
  turns = {}
  for count in (0, 1):
    changes = {'train.micro_tokens': 1024, 'plan.images': count}
    config = loops.config(**{**WIDE, **SEEING, **changes})
    programs = plan.make(config)['programs']
    turns[count] = {name: programs[name]['flops']['turn'] for name in ('score', 'step')}
    calls = programs['prefill']['flops']
    turns[count]['prefill'] = calls['call'] + calls['turn']
  model, split = plan.model_of(config), Split(1, fsdp, 1)
  for name, learning in (('score', False), ('step', True)):
    tower = plan_work.tower_work(config, model, split, learn=learning)
    within(tower.flops, turns[1][name] - turns[0][name])
  assert model.vision is not None
  seen = plan_vision.in_prefill(
    config, model.vision, plan_vision.largest_tokens(config, model.vision)
  )
  tower = plan_vision.tower_work(config, model, seen, 1, 1, 1, trained=False)
  within(tower.flops, turns[1]['prefill'] - turns[0]['prefill'])


def within(predicted: float, measured: float) -> None:
  assert measured > 0
  assert abs(predicted - measured) < 0.1 * measured, (predicted, measured)


CASES = {
  'cache': (SEVEN, 'v5e:8x8', {'sampling__slots': 2048, 'sampling__memory_gb': 15.0},
            'sampling.memory_gb'),
  'whole cache': (SEVEN, 'v5p-16', {'sampling__memory_gb': 0.0, 'sampling__slots': 4096,
                                    'mesh__tensor': 1}, 'sampling.memory_gb'),
  'rows': (SEVEN, 'v5e:8x8', {'train__micro_tokens': 1_000_000}, 'train.micro_tokens'),
  'remat': (SEVEN, 'v5e:8x8', {'model__remat': 'none'}, 'model.remat'),
  'weights': (SEVEN, 'v5e:8x8', {'sampling__tensor': 1}, 'sampling.tensor'),
  'scores': (SEVEN, 'v5e:8x8', {'mesh__tensor': 1, 'model__logprob_chunk': 256,
                                'plan__hbm_gb': 14.0}, 'mesh.tensor'),
  'chosen': (SEVEN, 'v5e:8x8', {'mesh__auto': True, 'plan__hbm_gb': 12.0}, 'sampling.memory_gb'),
  'released': (SEVEN, 'v5e:8x8', {'sampling__release': False}, 'sampling.release'),
  'one GPU': (SEVEN, 'h100', {'mesh__tensor': 1, 'sampling__tensor': 0,
                              'sampling__memory_gb': 40.0}, 'lora.rank'),
  'replicas': (SEVEN, 'v5e:8x8', {'mesh__data': 16}, 'mesh.data'),
  'thirty-two': ('configs/dapo_qwen32b.py', 'v5p-64', {'sampling__memory_gb': 90.0},
                 'sampling.memory_gb'),
  'images': (VL, 'v5e:8x8', {'train__micro_tokens': 1_000_000}, 'train.micro_tokens'),
  'seeing': (VL, 'v5e:8x8', {'mesh__tensor': 1}, 'mesh.tensor'),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_a_number_that_makes_it_not_fit_is_named_with_one_that_does(case):
  path, topology, changes, key = CASES[case]
  plain = {'plan__topology': topology, 'plan__compile': False}
  config = of(path, **plain, **changes)
  report = plan.make(config)
  assert not report['fits'], {p: v['all'] / 2**30 for p, v in report['phases'].items()}
  assert next(iter(report['advised'])) == key, report['advice']
  for name, value in report['advised'].items():
    assert f'--config.{name}={value}' in report['advice'][-1]
  dotted = {key.replace('__', '.'): value for key, value in (plain | changes).items()}
  better = config_lib.resolve(
    config_lib.load_file(str(ROOT / path)), {'job': 'plan'} | dotted | report['advised']
  )
  again = plan.make(better)
  assert again['fits'], (report['advice'], again['advice'])
  assert again['advised'] == {}


def test_copies_of_the_cache_shrink_with_it():
  config = of(SEVEN, plan__topology='v5e:8x8', sampling__memory_gb=12.0)
  model, hbm = plan.model_of(config), plan_roofline.HARDWARE['v5e'].hbm
  split = plan_advice.split_of(config, 64)
  own = memory.phases(config, model, split, kernel=False)
  found = {name: sum(parts.values()) for name, parts in own.items()}
  found['sample'] += own['sample']['cache']  # as a compiler does that changes its layout
  said = plan_advice.advise(config, model, 64, hbm, found, config, kernel=False)
  assert said is not None
  assert dict(said.changes).keys() == {'sampling.memory_gb'}
  better = of(SEVEN, **{key.replace('.', '__'): value for key, value in said.changes})
  held = memory.phases(better, model, split, kernel=False)['sample']
  assert sum(held.values()) + held['cache'] <= hbm


def test_too_few_devices_are_told_how_many_would_do():
  config = of('configs/dapo_qwen32b.py', plan__topology='v5e-8', plan__compile=False)
  report = plan.make(config)
  assert not report['fits']
  if report['advised']:  # adapters, or shorter completions: it says that they change the run
    assert any(
      word in report['advice'][0] for word in ('changes what is learnt', 'changes the task')
    )
  else:
    assert 'of them would do' in report['advice'][0]


def test_unused_memory_is_spoken_of():
  report = plan.make(of(SEVEN, plan__topology='v5p-16', plan__compile=False))
  assert report['fits']
  assert 'There is room: --config.sampling.memory_gb=' in report['advice'][0]


def test_a_plan_is_printed_and_written(tmp_path, capsys):
  out = tmp_path / 'deep' / 'out.json'
  values = {'plan__topology': 'h100x64', 'plan__json': str(out), 'plan__hbm_gb': 10.0}
  plan.plan(of(SEVEN, **values), tmp_path)
  printed = capsys.readouterr().out
  assert 'BY ARITHMETIC' in printed
  assert 'it DOES NOT FIT' in printed
  found = json.loads(out.read_text())
  assert found['topology'] == 'h100x64'
  assert found['fits'] is False
  assert found['bytes_per_device'] > found['hbm_per_device'] == 10 * 2**30
  assert found['how'] == 'arithmetic'
  for key in ('phases', 'flops', 'collectives', 'seconds', 'advice', 'versions'):
    assert found[key], key
  assert set(found['seconds']) == set(plan.PHASES)
  assert (
    abs(found['iteration_seconds'] - sum(p['seconds'] for p in found['seconds'].values())) < 1e-6
  )


def test_the_table_of_the_page_is_what_the_command_writes():
  found = plan_text.table(plan_table.rows(plan_table.SHOWN))
  page = (ROOT / 'docs' / 'plan.md').read_text()
  assert found in page, 'python -m rlvr_jax.plan_table, into docs/plan.md'


def test_without_libtpu_the_message_says_how_to_get_it(monkeypatch):
  def absent(*args, **kwargs):
    raise RuntimeError('JAX TPU support not installed; cannot generate TPU topology.')

  monkeypatch.setattr(plan_compiled.topologies, 'get_topology_desc', absent)
  with pytest.raises(ValueError, match=r"pip install -e '\.\[tpu\]'"):
    plan.make(of(SEVEN, plan__topology='v5e:8x8'))


def test_topologies_by_shape_by_slice_and_by_count():
  of_name = plan_roofline.topology_of
  assert of_name('v5e:8x8') == of_name('v5e-64')
  assert of_name('v5p-16') == plan_roofline.Topology('v5p', 8, 'v5p:2x2x2')
  assert of_name('v5p-64').chips == 32
  assert (of_name('h100').chips, of_name('h100x64').chips) == (1, 64)
  for wrong in ('v5e', 'v9:2x2', 'h100x0', 'b200', ''):
    with pytest.raises(ValueError, match=r'plan\.topology'):
      of_name(wrong)
  for chips, (name, shape) in ((1, item) for item in plan_roofline.SLICES.items()):
    for size in shape.split('x'):
      chips *= int(size)
    cores = 2 if name.startswith('v5p') else 1
    assert chips * cores == int(name.partition('-')[2])


def test_a_mesh_that_does_not_divide_the_devices_is_refused():
  with pytest.raises(ValueError, match=r'mesh\.tensor=2 does not divide 3 devices'):
    plan.make(of(SEVEN, plan__topology='h100x3'))


@pytest.mark.parametrize(
  ('message', 'size'),
  [
    ('Ran out of memory in memory space hbm. Used 88.25G of 15.75G hbm. Exceeded', 88.25 * 2**30),
    ('the total memory required for HLO temporaries (447.03G) exceeds available HBM (15.75G).',
     447.03 * 2**30),
    ('Used 512.5M of 1.00G hbm', 512.5 * 2**20),
    ('INVALID_ARGUMENT: something else', None),
  ],
)  # fmt: skip
def test_a_compiler_that_gives_up_says_what_it_needs(message, size):
  assert plan_compiled.asked_for(message) == (None if size is None else int(size))


def test_the_time_is_the_largest_of_three_and_nodes_are_slower():
  work = plan_roofline.Work(989e12, 3350e9 / 2, {'tensor': 45e9, 'fsdp': 50e9})
  mesh = {'data': 1, 'fsdp': 8, 'tensor': 8}
  topology = plan_roofline.topology_of('h100x64')
  found = plan_roofline.seconds(work, topology, mesh)
  assert found == {'compute': 1.0, 'hbm': 0.5, 'network': 1.1, 'seconds': 1.1}
  alone = plan_roofline.seconds(work, plan_roofline.topology_of('h100x8'), {'fsdp': 4, 'tensor': 2})
  assert alone['network'] == pytest.approx(95e9 / 450e9)


@pytest.mark.check
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed (the tpu extra)'
)
def test_a_slice_of_tpus_compiles_and_advice_holds(tmp_path):
  """In processes of their own: libtpu, once loaded, stays."""
  shape = {
    'architecture': 'qwen2', 'embed_dim': 1024, 'mlp_dim': 2816, 'num_layers': 8, 'num_heads': 8,
    'num_kv_heads': 4, 'head_dim': 128, 'vocab_size': 32_768,
  }  # fmt: skip
  words = [f'--config.model.init.{key}={value}' for key, value in shape.items()]
  base = [
    sys.executable, 'main.py', '--config=configs/quickstart.py', '--config.job=plan',
    '--config.plan.topology=v5e:2x2', '--config.model.compute_dtype=bfloat16', *words,
    f'--workdir={tmp_path}', '--config.sampling.prompt_capacity=1024',
    '--config.sampling.max_tokens=1024', '--config.sampling.bank_rows=16',
    '--config.train.micro_tokens=4096',
  ]  # fmt: skip

  def made(**changes):
    words = [f'--config.{key}={value}' for key, value in changes.items()]
    subprocess.run(
      [*base, *words], cwd=ROOT, capture_output=True, text=True, timeout=1500, check=True
    )
    return json.loads((tmp_path / 'plan.json').read_text())

  failing = {'sampling.slots': 4096}
  report = made(**failing)
  assert report['how'] == 'compiled'
  assert not report['fits']
  assert report['hbm_per_device'] == int(15.75 * 2**30)
  again = made(**failing, **report['advised'])
  assert again['fits'], (report['advice'], again['advice'])
