"""B13 and the peer: a whole optimizer step beside plain matrix products and beside torch's.

The first layers of Qwen2.5-Coder-0.5B with the full head, float32, no layer computed twice; both
take the same micro-batches and the mean negative log-prob of the same tokens, accumulate gradients
and end with AdamW. Weights are the model's own if its file is there, else random: time is the same.
"""

import dataclasses
import importlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench._engine import random_params
from bench._measure import at_least, at_most, seconds
from bench._memory import QWEN_0P5B
from bench._peers import MODEL, installed
from bench._peers_hf import HFPeer
from rlvr_jax.models import load
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import Params
from rlvr_jax.rl.algorithms import choose
from rlvr_jax.rl.optimizer import make_optimizer
from rlvr_jax.rl.types import TrainState
from rlvr_jax.rl.update import Rows, make_update

LEARNING_RATE = 1e-5
SIDE = 2048  # of the square product that measures the rate


def subject(layers: int) -> tuple[str, ModelConfig, Params]:
  """(name, config, stacked params) of the first layers of the model."""
  if (load.models_dir() / f'{MODEL}.gguf').is_file():
    config, whole, _ = load.load_model(MODEL)
    params = {**whole, 'layers': {n: a[:layers] for n, a in whole['layers'].items()}}
    jax.block_until_ready(params)
    for leaf in whole['layers'].values():
      leaf.delete()
    return MODEL, dataclasses.replace(config, num_layers=layers), params
  config = dataclasses.replace(QWEN_0P5B, num_layers=layers)
  return f'random weights of the shapes of {MODEL}', config, random_params(config)


def flops(config: ModelConfig, params: Params, batch: tuple[int, int]) -> float:
  """Of forward and backward: weight products, and the half of attention that is causal."""
  B, T = batch
  c = config
  layers = sum(a.size for a in params['layers'].values())
  weights = layers * B * T + c.vocab_size * c.embed_dim * B * (T - 1)
  attention = c.num_layers * 2 * c.num_heads * c.head_dim * B * T * T // 2
  return 6.0 * (weights + attention)


def matmul_rate() -> float:
  """FLOP/s of a float32 product, the best of a few now."""
  a = jnp.ones((SIDE, SIDE), jnp.float32)
  product = jax.jit(lambda x: jnp.matmul(x, x, precision=jax.lax.Precision.HIGHEST))
  jax.block_until_ready(product(a))
  return 2 * SIDE**3 / min(seconds(lambda: product(a)) for _ in range(5))


class Ours:
  """The learner's own update on plain supervised rows."""

  def __init__(self, params: Params, config: ModelConfig, tokens: np.ndarray, micro: int):
    B, T = tokens.shape
    optimizer = make_optimizer(LEARNING_RATE, clip_norm=0.0)
    shape = B // micro, micro, T
    mask = np.ones(shape, bool)
    mask[..., 0] = False
    zero = jnp.zeros(shape, jnp.float32)
    self._rows = Rows(
      tokens=jnp.asarray(tokens.reshape(shape)),
      completion_mask=jnp.asarray(mask),
      advantages=zero,
      sampler_logprobs=zero,
      old_logprobs=None,
      ref_logprobs=None,
    )
    own = jax.tree.map(jnp.copy, params)  # the update donates its state
    self._state = TrainState(
      step=jnp.zeros((), jnp.int32), params=own, opt_state=optimizer.init(own)
    )
    # without remat a micro-batch's logits are kept, as torch keeps them
    self._update = make_update(
      config, choose('sft'), optimizer, longest=T, remat=False, chunk=micro * T
    )

  def step(self) -> float:
    """One optimizer step; the loss before it."""
    self._state, metrics = self._update(self._state, self._rows, jnp.float32(1))
    return float(jax.block_until_ready((self._state, metrics))[1]['loss'])


class Theirs:
  """The same in torch, on transformers' model class."""

  def __init__(self, params: Params, config: ModelConfig, tokens: np.ndarray, micro: int):
    self._torch: Any = importlib.import_module('torch')
    self._peer = HFPeer(params, config)
    torch = self._torch
    self._model = self._peer.model
    for parameter in self._model.parameters():
      parameter.requires_grad_(True)
    self._optimizer = torch.optim.AdamW(
      self._model.parameters(), lr=LEARNING_RATE, eps=1e-8, weight_decay=0.0, fused=True
    )
    self._rows = torch.from_numpy(tokens.astype(np.int64)).split(micro)
    self._count = tokens.shape[0] * (tokens.shape[1] - 1)
    self.how = f'{self._peer.versions}, {self._peer.threads} threads, fused AdamW'

  def step(self) -> float:
    """One optimizer step; the loss before it."""
    cross_entropy = self._torch.nn.functional.cross_entropy
    loss = 0.0
    for rows in self._rows:
      hidden = self._model.model(rows, use_cache=False).last_hidden_state[:, :-1]
      logits = self._model.lm_head(hidden).flatten(0, 1)
      part = cross_entropy(logits, rows[:, 1:].flatten(), reduction='sum') / self._count
      part.backward()
      loss += float(part.detach())
    self._optimizer.step()
    self._optimizer.zero_grad()
    return loss


@dataclasses.dataclass
class Turns:
  """Seconds and losses of one side, step by step."""

  walls: list[float] = dataclasses.field(default_factory=list)
  cpus: list[float] = dataclasses.field(default_factory=list)  # of all threads
  losses: list[float] = dataclasses.field(default_factory=list)

  def take(self, side: Ours | Theirs, name: str) -> None:
    """One more step."""
    begin = time.process_time()
    wall = seconds(lambda: self.losses.append(side.step()))
    self.walls.append(wall)
    self.cpus.append(time.process_time() - begin)
    print(
      f'{name}: step of {wall:.1f} s, {self.cpus[-1]:.1f} CPU seconds, loss {self.losses[-1]:.6f}',
      flush=True,
    )

  @property
  def best(self) -> float:
    """Seconds; the first step compiles and allocates."""
    return min(self.walls[1:])

  @property
  def least_cpu(self) -> float:
    return min(self.cpus[1:])


def step_gates(
  *, layers: int = 6, batch: tuple[int, int] = (8, 512), micro: int = 2, rounds: int = 3
) -> list[dict[str, Any]]:
  """B13, and the peer's gates if torch is there; sides in turns."""
  name, config, params = subject(layers)
  tokens = np.random.default_rng(0).integers(0, config.vocab_size, batch).astype(np.int32)
  ours, theirs = Ours(params, config, tokens, micro), None
  if installed('torch'):
    theirs = Theirs(params, config, tokens, micro)
  work = flops(config, params, batch)
  del params
  own, other, rates = Turns(), Turns(), []
  for _ in range(rounds):
    rates.append(matmul_rate())
    own.take(ours, 'ours')
    if theirs is not None:
      other.take(theirs, 'torch')
  case = (
    f'{name}, {layers} layers and the head, float32, {batch[0]} x {batch[1]} tokens in '
    f'micro-batches of {micro}, AdamW included: '
  )
  share = work / own.best / max(rates)
  gates = [
    at_least(
      'B13 share of the matmul rate',
      share,
      0.35,
      'of the measured rate',
      f'{case}{own.best:.1f} s a step, {work / 1e12:.2f} TFLOP (attention counted half); '
      f'{max(rates) / 1e9:.0f} GFLOP/s in a product of side {SIDE}; best of {rounds - 1}',
    )
  ]
  if theirs is None:
    return gates
  away = max(abs(a - b) for a, b in zip(own.losses, other.losses, strict=True))
  return [
    *gates,
    at_most(
      'a step against torch',
      own.best / other.best,
      1.1,
      "x torch's time",
      f'{case}{own.best:.1f} s against {other.best:.1f} s ({theirs.how}); best of {rounds - 1} '
      f'in turns; CPU seconds {own.least_cpu:.1f} against {other.least_cpu:.1f}',
    ),
    at_most(
      'losses against torch',
      away,
      1e-4,
      'nats',
      f'the largest difference over {rounds} steps: '
      + ', '.join(f'{a:.5f}' for a in own.losses)
      + '; torch '
      + ', '.join(f'{b:.5f}' for b in other.losses),
    ),
  ]
