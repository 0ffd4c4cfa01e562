"""make bench BENCH=learner: what an optimizer step costs beside what it must, as ratios of one run.

BENCH_PARTS chooses parts by name (a list with commas; all if unset):

  memory     B15: the gradient of head and log-probs at 16k tokens, compiled only: seconds
  padding    B14: real tokens in packed micro-batches under the long-tailed law: seconds
  hand_over  B16: learner to sampler beside a copy of as many bytes: a minute
  step       B13: the step beside plain matrix products, and beside torch's forward, backward and
             AdamW on the same batch if torch is installed (pip install '.[bench]'): ten minutes
"""

from collections.abc import Callable
from typing import Any

from bench._measure import run_parts

Gates = list[dict[str, Any]]


def memory() -> Gates:
  """Temporaries of the head's gradient."""
  from bench import _learner_memory

  return [_learner_memory.head_memory()]


def padding() -> Gates:
  """Real tokens among those computed."""
  from bench import _learner_memory

  return _learner_memory.padding()


def hand_over() -> Gates:
  """New weights to the sampler."""
  from bench import _learner_memory

  return [_learner_memory.hand_over_time()]


def step() -> Gates:
  """One optimizer step, ours and theirs."""
  from bench import _learner_step

  return _learner_step.step_gates()


PARTS: dict[str, Callable[[], Gates]] = {
  'memory': memory,
  'padding': padding,
  'hand_over': hand_over,
  'step': step,
}


def main() -> Gates:
  """The gates of the chosen parts."""
  return run_parts(PARTS)
