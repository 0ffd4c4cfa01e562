"""What a run makes of its machine: floating-point operations, and their share of the peak.

Operations are those of the model on real tokens: not of padding, nor of activations that are
computed again. A product of [m,k] and [k,n] is 2mkn. MFU: Chowdhery et al. 2022 (PaLM), appendix B,
here with causal attention counted as what it needs, half of the square.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rlvr_jax.models.config import ModelConfig
from rlvr_jax.rl.collect import Collected
from rlvr_jax.rl.learner import Learner
from rlvr_jax.rl.types import Rollouts

# (part of device_kind in lower case, dense bfloat16 FLOP/s of one chip), the first that fits;
# vendors' data sheets
PEAKS = (
  ('h100 pcie', 756e12),
  ('h100 nvl', 835e12),
  ('h100', 989e12),
  ('h200', 989e12),
  ('gh200', 989e12),
  ('a100', 312e12),
  ('tpu v5 lite', 197e12),
  ('tpu v5e', 197e12),
  ('tpu v5p', 459e12),
  ('tpu v5', 459e12),
  ('tpu v6 lite', 918e12),
  ('tpu v6e', 918e12),
  ('tpu v4', 275e12),
)


def peak_flops(kind: str, given: float = 0.0) -> float | None:
  """Peak FLOP/s of a device of this kind (jax's device_kind); None where it is not known.

  given: metrics.peak_flops, which wins if it is not 0.
  """
  if given:
    return given
  return next((peak for name, peak in PEAKS if name in kind.lower()), None)


class PerToken(NamedTuple):
  """Operations of a forward pass: of weights for each token, and for each key it attends to."""

  weights: float
  key: float

  def forward(self, lengths: np.ndarray) -> float:
    """Of whole sequences i64[n] in tokens: token t attends to t + 1 keys."""
    n = np.asarray(lengths, np.float64)
    return float(np.sum(n * self.weights + n * (n + 1) / 2 * self.key))

  def decode(self, prompts: np.ndarray, lengths: np.ndarray) -> float:
    """Of tokens i64[n] that follow prompts i64[n], one forward pass each."""
    return self.forward(np.asarray(prompts) + np.asarray(lengths)) - self.forward(prompts)


def per_token(config: ModelConfig) -> PerToken:
  """Of a model's decoder. The head counts, the look-up of embeddings and images do not."""
  c = config
  attention = c.embed_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
  layer = attention + 3 * c.embed_dim * c.mlp_dim
  weights = 2.0 * (c.num_layers * layer + c.embed_dim * c.vocab_size)
  return PerToken(weights, 4.0 * c.num_layers * c.num_heads * c.head_dim)


def learn_flops(
  one: PerToken, lengths: np.ndarray, *, epochs: int, scored: int, adapters: bool
) -> float:
  """Of an iteration's learning from sequences i64[n].

  A step is a forward pass and twice that backward, once where only adapters train (the weights get
  no gradient). scored: further forward passes over the batch: old and reference log-probs, values.
  """
  step = 2 if adapters else 3
  return (step * epochs + scored) * one.forward(lengths)


def sample_flops(
  one: PerToken, prompts: np.ndarray, lengths: np.ndarray, firsts: Sequence[int]
) -> float:
  """Of sampling: each distinct prompt once, then every token.

  prompts, lengths: i64[n] tokens of each completion's prompt and of itself; firsts: where in them
  another prompt begins.
  """
  return one.forward(np.asarray(prompts)[list(firsts)]) + one.decode(prompts, lengths)


def rates(
  flops: Mapping[str, float],
  row: Mapping[str, Any],
  *,
  kind: str,
  devices: int,
  peak: float,
) -> dict[str, float]:
  """machine/tflops/PHASE (TFLOP/s on each device) and, where the peak is known, machine/mfu/PHASE.

  flops: of each phase; row: its seconds/PHASE; kind: jax's device_kind; peak: metrics.peak_flops.
  """
  found = {}
  best = peak_flops(kind, peak)
  for phase, count in flops.items():
    seconds = row.get(f'seconds/{phase}', 0.0)
    if seconds > 0:
      rate = count / seconds / devices
      found[f'machine/tflops/{phase}'] = rate / 1e12
      if best is not None:
        found[f'machine/mfu/{phase}'] = rate / best
  return found


def of_iteration(
  learn: Learner, rollouts: Rollouts, collected: Collected, row: Mapping[str, Any]
) -> dict[str, float]:
  """The rates of an iteration, from its metrics' seconds; greedy baselines are not counted."""
  config, algorithm, one = learn.run, learn.algorithm, per_token(learn.config)
  drawn = [s.completion for group in collected.drawn for s in group.scored]
  sizes = np.cumsum([0, *(len(group.scored) for group in collected.drawn)])[:-1]
  valid = np.asarray(rollouts.valid)
  lengths = (rollouts.prompt_lengths + rollouts.completion_lengths)[valid]
  t = config.train
  scored = int(row['steps'] > 1 or algorithm.scored_first) + int(algorithm.reference)
  learning = learn_flops(
    one, lengths, epochs=t.epochs, scored=scored, adapters=bool(config.lora.rank)
  )
  if algorithm.critic:
    learning += learn_flops(one, lengths, epochs=t.epochs, scored=1, adapters=False)
  flops = {'learn': learning}
  if drawn:
    flops['sample'] = sample_flops(
      one,
      np.array([len(c.item.prompt_ids) for c in drawn]),
      np.array([len(c.tokens) for c in drawn]),
      [int(i) for i in sizes],
    )
  devices = jax.devices()
  return rates(
    flops,
    row,
    kind=devices[0].device_kind,
    devices=len(devices),
    peak=config.metrics.peak_flops,
  )
