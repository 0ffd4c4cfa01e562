"""make bench BENCH=sampling: what the sampler costs beside what it must cost, as ratios of one run.

BENCH_PARTS chooses parts by name (a list with commas; all if unset):

  core       B6, B7, B9, B11, B12, B17, and what must not grow with k or capacity: minutes
  occupancy  B3, B4: 16,384 completions of up to 16k forced tokens, on a minute model
  natural    B8 with natural stops: beside what the matmul rate allows and HF transformers
  forced     B8 with forced long-tailed lengths: beside HF transformers and tunix

natural and forced need RLVR_DATA (a JSONL file of GSM8K), Qwen2.5-Coder-0.5B as GGUF in the models
directory and, for the peers, `pip install '.[bench]'`: half an hour each on two idle cores.
"""

from collections.abc import Callable
from typing import Any

from bench._measure import run_parts

Gates = list[dict[str, Any]]


def core() -> Gates:
  """Costs, memory, programs, unbiasedness."""
  from bench import _loop, _memory, _scaling, _unbiased
  from bench._draw import draw_cost

  return [
    *draw_cost(),
    _loop.loop_overhead(),
    _memory.memory(),
    _scaling.prefill(),
    _scaling.per_token(),
    _scaling.capacity(),
    *_scaling.agreement_and_compiles(),
    *_unbiased.unbiased_gates(),
  ]


def occupancy() -> Gates:
  """Slots and cache under the long-tailed law."""
  from bench import _occupancy

  return _occupancy.occupancy_gates()


def natural() -> Gates:
  """Delivered tokens a second on real prompts."""
  from bench import _peers

  return _peers.natural_gates()


def forced() -> Gates:
  """Delivered tokens a second under forced lengths."""
  from bench import _peers

  return _peers.forced_gates()


PARTS: dict[str, Callable[[], Gates]] = {
  'core': core,
  'occupancy': occupancy,
  'natural': natural,
  'forced': forced,
}


def main() -> Gates:
  """The gates of the chosen parts."""
  return run_parts(PARTS)
