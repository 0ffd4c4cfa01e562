"""make bench BENCH=sampling_gpu: the sampler against what one GPU can do, measured in the same run.

B1 bandwidth, B2 roofline, B5 gain of sharing prompts, B8 HF's generate with a static cache. Random
weights of the shapes of Qwen2.5-1.5B and 7B in bfloat16; no file is needed. Ends within 8 minutes:
what would begin too late is left out and named. BENCH_PARTS chooses parts by name: kernels, large,
small, sharing, most, hf. Without a GPU there are no gates. BENCH_TINY=1 runs the same code on tiny
shapes on any device, to try the code and not the device.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import _schedule
from bench._engine import items_of, random_prompts
from bench._kernels import kernel_gates
from bench._measure import at_least, best_of, chosen
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import Params, init_params, unstack
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.types import Sampling

BUDGET = 480  # seconds of everything
PAGE = 64
Gates = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Scale:
  """Shapes and sizes of the run; lengths in tokens."""

  small: tuple[str, ModelConfig]
  large: tuple[str, ModelConfig]
  few: int  # slots well below the batch at which weights cost nothing
  many: int
  most: int
  prompt: int
  prompts: tuple[int, int]  # lengths at which sharing is measured
  short: int  # completion of the bandwidth case
  long: int  # completion of the roofline case: the mean suffix is half of it
  law: _schedule.LengthLaw
  samples: int  # a prompt, of 32, against HF
  copy: int  # elements copied to measure bandwidth
  side: int  # of the square product to measure FLOP/s
  expected: dict[str, float]  # seconds that each case is thought to take


def _qwen(V: int, D: int, F: int, L: int, N: int, K: int, H: int, *, tied: bool) -> ModelConfig:
  return ModelConfig(
    'qwen2', V, D, F, L, N, K, H, rope_theta=1e6, qkv_bias=True, tie_embeddings=tied
  )


REAL = Scale(
  small=('Qwen2.5-1.5B', _qwen(151_936, 1536, 8960, 28, 12, 2, 128, tied=True)),
  large=('Qwen2.5-7B', _qwen(152_064, 3584, 18_944, 28, 28, 4, 128, tied=False)),
  few=64,
  many=256,
  most=1024,
  prompt=512,
  prompts=(512, 2048),
  short=512,
  long=2048,
  law=_schedule.LengthLaw(median=75, sigma=0.6, runaway=0.02, cap=1024),
  samples=32,
  copy=1 << 30,
  side=8192,
  expected={'kernels': 40, 'large': 150, 'small': 60, 'sharing': 60, 'most': 110, 'hf': 180},
)
TINY = Scale(
  small=('tiny', _qwen(512, 32, 64, 2, 4, 2, 8, tied=True)),
  large=('tiny untied', _qwen(512, 64, 128, 2, 4, 2, 16, tied=False)),
  few=4,
  many=8,
  most=16,
  prompt=16,
  prompts=(16, 32),
  short=8,
  long=16,
  law=_schedule.LengthLaw(median=3, sigma=0.6, runaway=0.1, cap=16),
  samples=2,
  copy=1 << 16,
  side=64,
  expected=dict.fromkeys(('kernels', 'large', 'small', 'sharing', 'most', 'hf'), 0.0),
)


@dataclasses.dataclass
class Device:
  """What the device was measured to do."""

  bandwidth: float  # bytes/s read and written by a copy
  flops: float  # FLOP/s of a bfloat16 matrix product


def measure(scale: Scale) -> Device:
  """Copy bandwidth and matmul rate, the best of a few."""
  x = jnp.ones(scale.copy, jnp.bfloat16)
  copy = jax.jit(lambda a: a + 1)  # a plain copy could be elided
  seconds = best_of(lambda: copy(x), 10)
  a = jnp.ones((scale.side, scale.side), jnp.bfloat16)
  product = jax.jit(lambda a: a @ a)
  rate = 2 * scale.side**3 / best_of(lambda: product(a), 10)
  device = Device(2 * x.nbytes / seconds, rate)
  print(f'copy {device.bandwidth / 1e9:.0f} GB/s, matmul {rate / 1e12:.1f} TFLOP/s', flush=True)
  return device


def make_params(config: ModelConfig) -> Params:
  """Random bfloat16 params in the sampler's form."""
  make = functools.partial(init_params, config=config, dtype='bfloat16')
  # two programs: in one, every slice would draw the whole stack again
  return jax.jit(unstack)(jax.jit(make)(jax.random.key(0)))


def matmul_params(config: ModelConfig, params: Params) -> int:
  """Parameters that a decode step multiplies with: all but an embedding that is only looked up."""
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  return count if config.tie_embeddings else count - params['embed'].size


def kv_bytes(config: ModelConfig) -> int:
  """Bytes of keys and values a token."""
  return 2 * config.num_layers * config.num_kv_heads * config.head_dim * 2


@dataclasses.dataclass
class Steps:
  """Decode steps as they were run."""

  seconds: float  # a step
  slots: int
  suffix: float  # mean live suffix tokens a slot
  prompt_tokens: int  # of the resident prompts, each once

  def bytes(self, config: ModelConfig, params: Params) -> float:
    """Bytes that one step has to move."""
    tokens = self.slots * self.suffix + self.prompt_tokens
    return 2 * matmul_params(config, params) + kv_bytes(config) * tokens

  def flops(self, config: ModelConfig, params: Params, prompt: int) -> tuple[float, float]:
    """FLOPs of one step: of the weights, of attention."""
    heads = 4 * config.num_layers * config.num_heads * config.head_dim
    return (
      2.0 * matmul_params(config, params) * self.slots,
      float(heads * self.slots * (prompt + self.suffix)),
    )


def run_steps(
  params: Params,
  config: ModelConfig,
  *,
  slots: int,
  prompts: int,
  prompt: int,
  length: int,
  difference: bool = False,
) -> Steps:
  """Decodes `length` tokens in every slot at once; prefill is over when the clock starts.

  difference: of the second half of the steps alone, a run of half the length taken off.
  """
  engine = Engine(
    params,
    config,
    slots=slots,
    bank_rows=prompts,
    prompt_capacity=prompt,
    completion_capacity=length,
    steps=32,
    page=PAGE,
    pages=slots * -(-length // PAGE),
  )
  given = random_prompts(prompts, prompt, config.vocab_size)
  samples = slots // prompts

  def seconds(visit: int, tokens: int) -> float:
    items = items_of(given, samples, visit=visit, limits=np.full(slots, tokens))
    begin = time.perf_counter()
    done = list(engine.run(items, Sampling(max_tokens=length)))
    if sum(len(c.tokens) for c in done) != slots * tokens:
      raise RuntimeError('completions of another length than was asked for')
    return time.perf_counter() - begin

  seconds(0, 2)  # compiles, and leaves the prompts resident
  # what a run costs beside its steps is in both, and the difference is of the steps between
  skipped = length // 2 if difference else 0
  before = seconds(1, skipped) if skipped else 0.0
  taken = seconds(2, length) - before
  engine.free()
  return Steps(
    taken / (length - skipped), slots, (skipped + length + 1) / 2, prompts * (prompt - 1)
  )


def roofline(
  steps: Steps, config: ModelConfig, params: Params, prompt: int, device: Device
) -> float:
  """Seconds a step can take at least: products or weights, then attention."""
  weights = 2 * matmul_params(config, params)
  cache = steps.bytes(config, params) - weights
  product, attention = steps.flops(config, params, prompt)
  return max(weights / device.bandwidth, product / device.flops) + max(
    cache / device.bandwidth, attention / device.flops
  )


def decode_gates(
  name: str, config: ModelConfig, params: Params, scale: Scale, device: Device
) -> Gates:
  """B1 at few slots, B2 at many."""
  few = run_steps(
    params, config, slots=scale.few, prompts=1, prompt=scale.prompt, length=scale.short
  )
  ratio = few.bytes(config, params) / few.seconds / device.bandwidth
  return [
    at_least(
      f'B1 bandwidth, {name}',
      ratio,
      0.5,
      'of a copy',
      f'S={few.slots}, mean suffix {few.suffix:.0f}, prompt {scale.prompt}: '
      f'{1e3 * few.seconds:.2f} ms a step, {few.slots / few.seconds:.0f} tokens/s; a copy reads '
      f'and writes {device.bandwidth / 1e9:.0f} GB/s',
    ),
    roofline_gate(name, config, params, scale, device, scale.many),
  ]


def roofline_gate(
  name: str, config: ModelConfig, params: Params, scale: Scale, device: Device, slots: int
) -> dict[str, Any]:
  """B2 at so many slots."""
  steps = run_steps(params, config, slots=slots, prompts=4, prompt=scale.prompt, length=scale.long)
  least = roofline(steps, config, params, scale.prompt, device)
  return at_least(
    f'B2 roofline, {name}, S={slots}',
    least / steps.seconds,
    0.35,
    'of the roofline',
    f'mean suffix {steps.suffix:.0f}, 4 prompts of {scale.prompt}: {1e3 * steps.seconds:.2f} ms a '
    f'step, {slots / steps.seconds:.0f} tokens/s; at least {1e3 * least:.2f} ms with the measured '
    f'{device.bandwidth / 1e9:.0f} GB/s and {device.flops / 1e12:.0f} TFLOP/s',
  )


def sharing_gates(name: str, config: ModelConfig, params: Params, scale: Scale) -> Gates:
  """B5: the same slots over one prompt and over a prompt each."""
  gates = []
  for prompt in scale.prompts:
    shared, apart = (
      run_steps(
        params,
        config,
        slots=scale.many,
        prompts=n,
        prompt=prompt,
        length=scale.short // 2,
        difference=True,
      )
      for n in (1, scale.many)
    )
    gain = apart.seconds / shared.seconds
    possible = apart.bytes(config, params) / shared.bytes(config, params)
    gates.append(
      at_least(
        f'B5 gain of sharing a prompt of {prompt}, {name}',
        gain / possible,
        0.7,
        "of the roofline's gain",
        f'S={scale.many}: {1e3 * apart.seconds:.2f} ms a step with a prompt each, '
        f'{1e3 * shared.seconds:.2f} ms with one: {gain:.2f} x, bytes allow {possible:.2f} x',
      )
    )
  return gates


def hf_gates(name: str, config: ModelConfig, scale: Scale) -> Gates:
  """B8: long-tailed lengths against HF's generate with a static cache on the same device."""
  if importlib.util.find_spec('torch') is None:
    print('skipped: HF generate: torch is not installed', flush=True)
    return []
  torch: Any = importlib.import_module('torch')
  tiny = scale is TINY
  if not tiny and not torch.cuda.is_available():
    print(f'skipped: HF generate: torch {torch.__version__} sees no GPU', flush=True)
    return []
  from bench._peers import Static, timed
  from bench._peers_hf import HFPeer

  stacked = jax.jit(functools.partial(init_params, config=config, dtype='bfloat16'))(
    jax.random.key(0)
  )
  peer = HFPeer(
    stacked,
    config,
    device='cpu' if tiny else 'cuda',
    dtype='bfloat16',
    cache=None if tiny else 'static',
  )
  params = jax.jit(unstack)(stacked)
  del stacked
  width = scale.prompt // 8
  given = random_prompts(32, width, config.vocab_size)
  lengths = scale.law.draw(len(given) * scale.samples, seed=0)
  rows = [prompt for prompt in given for _ in range(scale.samples)]
  engine = Engine(
    params,
    config,
    slots=scale.many,
    bank_rows=len(given),
    prompt_capacity=width,
    completion_capacity=scale.law.cap,
    steps=32,
    page=PAGE,
    pages=scale.many * -(-scale.law.cap // PAGE),
  )
  sampling = Sampling(max_tokens=scale.law.cap)

  def ours(limits: np.ndarray) -> int:
    engine.load(params)
    items = items_of(given, scale.samples, limits=limits)
    return sum(len(c.tokens) for c in engine.run(items, sampling))

  ours(np.full(len(rows), 2))
  mine = timed(lambda: ours(lengths))
  static = Static(peer, scale.many)
  static.warm_up(rows, lengths)
  theirs = timed(lambda: static.run(rows, lengths))
  return [
    at_least(
      f'B8 delivered tokens/s against HF generate, {name}',
      mine.per_second / theirs.per_second,
      3.0,
      'x',
      f'{scale.law}; 32 prompts of {width} x {scale.samples}, S={scale.many} and batches of '
      f'{scale.many}; {mine.per_second:.0f} and {theirs.per_second:.0f} tokens/s; {peer.versions}, '
      f'{"its own" if tiny else "static"} cache',
    )
  ]


def main() -> Gates:
  """The gates that this device can hold; none without a GPU."""
  tiny = os.environ.get('BENCH_TINY', '') == '1'
  device = jax.devices()[0]
  versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'jaxlib'))
  platform = getattr(device.client, 'platform_version', '').splitlines()[:1]
  print(f'{device.device_kind} ({jax.default_backend()}), {versions}', *platform, flush=True)
  if jax.default_backend() != 'gpu' and not tiny:
    print('no GPU: no gates (BENCH_TINY=1 tries the code on tiny shapes)', flush=True)
    return []
  scale = TINY if tiny else REAL
  begin = time.perf_counter()
  limits = measure(scale)
  gates: Gates = []

  parts = chosen(os.environ.get('BENCH_PARTS', ''), scale.expected)

  def case(key: str, what: str, run: Callable[[], Gates]) -> None:
    if key not in parts:
      return
    left = BUDGET - (time.perf_counter() - begin)
    if left < scale.expected[key]:
      print(f'left out: {what}: {left:.0f} s are left of {BUDGET}', flush=True)
      return
    gates.extend(found := run())
    for gate in found:
      print(f'{gate["gate"]}: {gate["value"]} {gate["unit"]}: {gate["how"]}', flush=True)
    print(f'{what}: done after {time.perf_counter() - begin:.0f} s', flush=True)

  part = functools.partial
  case('kernels', 'the kernels', part(kernel_gates, limits.bandwidth, tiny=tiny))
  name, config = scale.large
  if 'large' in parts:
    params = make_params(config)
    case('large', name, part(decode_gates, name, config, params, scale, limits))
    del params
  name, config = scale.small
  params = make_params(config)
  case('small', name, part(decode_gates, name, config, params, scale, limits))
  case('sharing', f'{name}, sharing', part(sharing_gates, name, config, params, scale))
  case(
    'most',
    f'{name}, S={scale.most}',
    lambda params=params: [roofline_gate(name, config, params, scale, limits, scale.most)],
  )
  del params
  case('hf', f'{name} against HF', part(hf_gates, name, config, scale))
  return gates
