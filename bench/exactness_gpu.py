"""make bench BENCH=exactness_gpu: the exactness contract and the two log-probs on one GPU.

Random weights of eight layers of Qwen2.5-0.5B, in bfloat16 and float32; no file is needed. The same
tokens and log-prob bits in another order, with chunks of another length and with fewer rows of the
bank than prompts; how many completions another number of slots changes; and the sampler's log-probs
against those of the learner's own program. Without a GPU there are no gates; BENCH_TINY=1 runs the
same code on tiny shapes.
"""

import dataclasses
import functools
import importlib.metadata
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import _schedule
from bench._engine import items_of, random_prompts
from bench._measure import at_most
from bench._memory import QWEN_0P5B
from bench.sampling_gpu import PAGE, TINY
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import Params, init_params, unstack
from rlvr_jax.rl.rollout import assemble, layout_of, micro_batches
from rlvr_jax.rl.update import make_score
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.types import Completion, Item, Sampling

Completions = Mapping[tuple[int, int], Completion]


@dataclasses.dataclass(frozen=True)
class Scale:
  """Shapes of the run; lengths in tokens."""

  config: ModelConfig
  slots: int
  prompts: int
  samples: int
  prompt: int
  law: _schedule.LengthLaw  # of completions
  micro_tokens: int


REAL_SCALE = Scale(
  dataclasses.replace(QWEN_0P5B, num_layers=8),  # all 24 took minutes to compile
  slots=64,
  prompts=16,
  samples=16,
  prompt=256,
  law=_schedule.LengthLaw(median=120, sigma=0.6, runaway=0.02, cap=512),
  micro_tokens=8192,
)
TINY_SCALE = Scale(
  TINY.small[1], slots=4, prompts=4, samples=4, prompt=16, law=TINY.law, micro_tokens=256
)
# random logits are nearly equal: a low temperature makes some tokens likely and others not
TEMPERATURE = 0.25
# nats; in float32 only the order of sums differs, bfloat16 rounds hidden states to 8 bits
LARGEST = {'float32': 1e-3, 'bfloat16': 1.0}
MEAN = {'float32': 1e-4, 'bfloat16': 0.05}


def make_items(scale: Scale) -> list[Item]:
  """Prompts of one length, so that prefill is one program; completions of the law's lengths."""
  prompts = random_prompts(scale.prompts, scale.prompt, scale.config.vocab_size)
  limits = scale.law.draw(scale.prompts * scale.samples, seed=0)
  return items_of(prompts, scale.samples, limits=limits)


def sampled(
  scale: Scale,
  params: Params,
  items: list[Item],
  *,
  slots: int = 0,
  bank_rows: int = 0,
  steps: int = 32,
) -> Completions:
  """{(problem, sample): completion} by an engine; what is 0 is the scale's."""
  slots = slots or scale.slots
  engine = Engine(
    params,
    scale.config,
    slots=slots,
    bank_rows=bank_rows or scale.prompts,
    steps=steps,
    prompt_capacity=scale.prompt,
    completion_capacity=scale.law.cap,
    page=PAGE,
    pages=slots * -(-scale.law.cap // PAGE),
  )
  sampling = Sampling(temperature=TEMPERATURE, max_tokens=scale.law.cap)
  begin = time.perf_counter()
  found = {(c.item.problem, c.item.sample): c for c in engine.run(items, sampling)}
  engine.free()
  print(f'{slots} slots: {time.perf_counter() - begin:.0f} s with compiling', flush=True)
  return found


def differing(first: Completions, second: Completions, *, bits: bool) -> int:
  """Completions with another token or, with bits, another bit in their log-probs."""
  if first.keys() != second.keys():
    raise RuntimeError('the two runs completed other items')
  return sum(
    not np.array_equal(a.tokens, second[key].tokens)
    or (bits and a.logprobs.tobytes() != second[key].logprobs.tobytes())
    for key, a in first.items()
  )


def learner_gaps(scale: Scale, stacked: Params, found: Completions, dtype: str) -> np.ndarray:
  """|sampler's - learner's| log-prob of every sampled token, nats."""
  order = list(found.values())
  rollouts = assemble(
    [c.item.prompt_ids for c in order],
    [c.tokens for c in order],
    sampler_logprobs=[c.logprobs for c in order],
  )
  layout = layout_of(rollouts, micro_tokens=scale.micro_tokens)
  score = make_score(scale.config, compute_dtype=dtype)
  rows = micro_batches(rollouts, None, layout)
  logprobs = layout.restore(jax.device_get(score(stacked, rows, jnp.float32(TEMPERATURE))[0]))
  return np.abs(logprobs - rollouts.sampler_logprobs)[rollouts.completion_mask]


def gates_of(scale: Scale, dtype: str) -> list[dict[str, Any]]:
  """The gates of one dtype."""
  make = functools.partial(init_params, config=scale.config, dtype=dtype)
  stacked = jax.jit(make)(jax.random.key(0))
  params = jax.jit(unstack)(stacked)
  items = make_items(scale)
  first = sampled(scale, params, items)
  shuffled = [items[i] for i in np.random.default_rng(1).permutation(len(items))]
  again = sampled(scale, params, shuffled, steps=8, bank_rows=scale.prompts // 2)
  more = differing(first, sampled(scale, params, shuffled, slots=2 * scale.slots), bits=False)
  gaps = learner_gaps(scale, stacked, first, dtype)
  tokens = f'{len(gaps)} tokens in {len(items)} completions of {scale.prompts} prompts'
  return [
    at_most(
      f'completions that order, chunk and eviction change, {dtype}',
      differing(first, again, bits=True),
      0,
      f'of {len(items)}',
      f'{tokens}, {scale.slots} slots: shuffled, chunks of 8 steps instead of 32, half the rows '
      'of the bank; tokens and bits of log-probs. '
      f'{2 * scale.slots} slots change the tokens of {more}',
    ),
    at_most(
      f'sampler against learner, mean, {dtype}', gaps.mean(), MEAN[dtype], 'nats', f'{tokens}'
    ),
    at_most(
      f'sampler against learner, largest, {dtype}',
      gaps.max(),
      LARGEST[dtype],
      'nats',
      f'the same; 99.9% of the tokens are within {np.quantile(gaps, 0.999):.2g}',
    ),
  ]


def main() -> list[dict[str, Any]]:
  """The gates of both dtypes; none without a GPU."""
  tiny = os.environ.get('BENCH_TINY', '') == '1'
  print(f'{jax.devices()[0].device_kind}, jax {importlib.metadata.version("jax")}', flush=True)
  if jax.default_backend() != 'gpu' and not tiny:
    print('no GPU: no gates (BENCH_TINY=1 tries the code on tiny shapes)', flush=True)
    return []
  gates = []
  for dtype in ('bfloat16', 'float32'):
    begin = time.perf_counter()
    gates += (found := gates_of(TINY_SCALE if tiny else REAL_SCALE, dtype))
    for gate in found:
      print(f'{gate["gate"]}: {gate["value"]} {gate["unit"]}: {gate["how"]}', flush=True)
    print(f'{dtype}: {time.perf_counter() - begin:.0f} s', flush=True)
  return gates
