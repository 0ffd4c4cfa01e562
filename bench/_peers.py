"""B8: delivered tokens a second, beside peers on the same weights in the same run.

Two cases: real prompts that stop by themselves, and forced long-tailed lengths on a slice of the
layers. Delivered tokens are those of completions; what a batch pads is not counted.
"""

import dataclasses
import importlib.util
import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench import _schedule
from bench._engine import items_of
from bench._gemm import GemmLimit, product_flops
from bench._measure import at_least
from bench._peers_hf import HFPeer
from bench._peers_tunix import TunixPeer
from rlvr_jax.models import load
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.transformer import Params
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Sampling
from rlvr_jax.tasks.jsonl import load_jsonl
from rlvr_jax.tasks.prompts import render

MODEL = 'qwen2.5-coder-0.5b'
TEMPERATURE = 0.6
PROBLEMS, SAMPLES, CAP = 4, 32, 256  # the natural case
NATURAL_SLOTS, NATURAL_BATCHES = (16, 32), (SAMPLES, PROBLEMS * SAMPLES)
LAYERS, FORCED_PROMPT, FORCED_SAMPLES = 6, 60, 64  # the forced case: PROBLEMS x FORCED_SAMPLES
FORCED_SLOTS, FORCED_BATCHES = 32, (8, 16)
PAGE = 64


@dataclasses.dataclass
class Rate:
  """What one sampler delivered in one go."""

  tokens: int
  wall: float  # seconds
  cpu: float  # seconds of this process, all threads

  @property
  def per_second(self) -> float:
    return self.tokens / self.wall

  @property
  def per_cpu_second(self) -> float:
    return self.tokens / self.cpu


def timed(run: Callable[[], int]) -> Rate:
  """Times a call that returns how many tokens it delivered."""
  wall, cpu = time.perf_counter(), time.process_time()
  tokens = run()
  return Rate(tokens, time.perf_counter() - wall, time.process_time() - cpu)


@dataclasses.dataclass
class Subject:
  """The model and the prompts that all samplers get."""

  config: ModelConfig
  stacked: Params
  params: Params  # the sampler's form of the same
  prompts: list[tuple[int, ...]]
  stop_ids: tuple[int, ...]


def load_subject(data: str) -> Subject:
  """The real model and the first problems of a JSONL file in GSM8K's format."""
  config, stacked, tokenizer = load.load_model(MODEL)
  problems = load_jsonl(data, task='gsm8k', limit=PROBLEMS)
  prompts = [tuple(tokenizer.encode(render(p, 'qwen-boxed'), special=False)) for p in problems]
  return Subject(config, stacked, hand_over(None, stacked), prompts, tokenizer.eos_ids)


def missing(data: str) -> str:
  """Why the peers cannot run here, '' if they can."""
  if not data:
    return 'RLVR_DATA is not set; set it to a JSONL file of GSM8K (question, answer a line)'
  if not os.path.isfile(data):
    return f'RLVR_DATA={data!r} is no file; set it to a JSONL file of GSM8K'
  if not (load.models_dir() / f'{MODEL}.gguf').is_file():
    return f'{MODEL}.gguf is not in {load.models_dir()}; put it there or set RLVR_MODELS'
  return ''


def installed(package: str) -> bool:
  """Whether a peer's package can be imported; says so by name if not."""
  found = importlib.util.find_spec(package) is not None
  if not found:
    print(f"skipped: {package} is not installed (pip install -e '.[bench]')", flush=True)
  return found


class Ours:
  """The engine over some params; every run prefills anew."""

  def __init__(self, params: Params, config: ModelConfig, *, slots: int, prompt: int, cap: int):
    self.lengths: list[list[int]] = []  # of the last run, a list a prompt
    self._cap, self._params = cap, params
    self._engine = Engine(
      params,
      config,
      slots=slots,
      bank_rows=PROBLEMS,
      prompt_capacity=prompt,
      completion_capacity=cap,
      steps=32,
      page=PAGE,
    )
    self._visit = 0

  def run(
    self,
    prompts: Sequence[tuple[int, ...]],
    samples: int,
    stop_ids: tuple[int, ...] = (),
    lengths: np.ndarray | None = None,
  ) -> int:
    """Delivered tokens of `samples` completions a prompt."""
    self._engine.load(self._params)  # forgets the prompts
    self._visit += 1
    items = items_of(prompts, samples, visit=self._visit, limits=lengths)
    sampling = Sampling(TEMPERATURE, stop_ids=stop_ids, max_tokens=self._cap)
    done = list(self._engine.run(items, sampling))
    self.lengths = [
      [len(c.tokens) for c in done if c.item.problem == p] for p in range(len(prompts))
    ]
    return sum(map(sum, self.lengths))

  def warm_up(self, prompts: Sequence[tuple[int, ...]]) -> None:
    """Compiles every program that a run needs: one of two tokens a prompt."""
    self.run(prompts, 1, lengths=np.full(len(prompts), 2))


def note(name: str, rate: Rate, more: str = '') -> None:
  """A line on the screen: these runs take minutes."""
  print(
    f'{name}: {rate.tokens} tokens in {rate.wall:.0f} s, {rate.per_second:.1f} tokens/s{more}',
    flush=True,
  )


def natural(
  subject: Subject, hf: Any, slots: Sequence[int], batches: Sequence[int]
) -> list[dict[str, Any]]:
  """Real prompts, natural stops: each of ours in turn with each of HF's batch sizes.

  hf is None where there is none. The limit is measured right before and after each run of ours:
  the products that its completions need (_gemm.product_flops), at the rate of one decode step's.
  """
  rows = [prompt for prompt in subject.prompts for _ in range(SAMPLES)]
  width = max(map(len, subject.prompts))
  ours: dict[int, Rate] = {}
  shares: dict[int, tuple[float, float]] = {}  # of what all products allow, and weights alone
  theirs: dict[int, Rate] = {}

  def one_of_ours(S: int) -> None:
    sampler = Ours(subject.params, subject.config, slots=S, prompt=width, cap=CAP)
    sampler.warm_up(subject.prompts)
    limit = GemmLimit(subject.params, S)
    before = limit.measure()
    rate = timed(lambda: sampler.run(subject.prompts, SAMPLES, subject.stop_ids))
    step = (before + limit.measure()) / 2
    lengths = [len(prompt) for prompt in subject.prompts], sampler.lengths
    weights, products = product_flops(subject.params, subject.config, *lengths)
    alone = rate.per_second * step / S
    ours[S], shares[S] = rate, (alone * products / weights, alone)
    allowed = ', '.join(f'{rate.per_second / share:.1f}' for share in shares[S])
    note(f'ours, S={S}', rate, f'; all products allow, those with weights alone: {allowed}')

  def one_of_theirs(batch: int) -> None:
    def run() -> int:
      done = 0
      for i in range(0, len(rows), batch):
        part = rows[i : i + batch]
        out = hf.generate(
          part, max_tokens=CAP, stop_ids=subject.stop_ids, temperature=TEMPERATURE, seed=i
        )
        done += sum(map(len, out))
      return done

    hf.generate(rows[:batch], max_tokens=2, temperature=TEMPERATURE)
    theirs[batch] = timed(run)
    note(f'HF generate, batch {batch}', theirs[batch])

  for S, B in itertools.zip_longest(slots, batches if hf else ()):
    if S is not None:
      one_of_ours(S)
    if B is not None:
      one_of_theirs(B)
  S = max(ours, key=lambda size: ours[size].per_second)
  R = max(shares, key=lambda size: shares[size][0])
  case = (
    f'{MODEL} float32, {PROBLEMS} GSM8K prompts x {SAMPLES}, T={TEMPERATURE}, natural stops, cap '
    f'{CAP}; '
  )
  gates = [
    at_least(
      'B8 delivered tokens/s against the matmul limit',
      shares[R][0],
      0.8,
      'of the limit',
      f'{case}S={R}: {ours[R].per_second:.1f} tokens/s; the limit is all products that are needed '
      "at the rate of one step's products with the weights, measured just before and after; of it, "
      'and of those with the weights alone: '
      + ', '.join(f'S={size} {all_:.2f} {alone:.2f}' for size, (all_, alone) in shares.items()),
    )
  ]
  if theirs:
    B = max(theirs, key=lambda size: theirs[size].per_second)
    gates.append(
      at_least(
        'B8 delivered tokens/s against HF generate',
        ours[S].per_second / theirs[B].per_second,
        1.5,
        'x',
        f'{case}one run each in turns; ours '
        + ', '.join(f'S={size} {r.per_second:.1f}' for size, r in ours.items())
        + '; HF '
        + ', '.join(f'batch {size} {r.per_second:.1f}' for size, r in theirs.items())
        + f' tokens/s ({hf.versions}, {hf.threads} threads); by CPU seconds '
        f'{ours[S].per_cpu_second / theirs[B].per_cpu_second:.2f} x',
      )
    )
  return gates


def layer_slice(subject: Subject, layers: int) -> Subject:
  """The first layers of the model, with its embedding and head."""
  return dataclasses.replace(
    subject,
    config=dataclasses.replace(subject.config, num_layers=layers),
    stacked={
      **subject.stacked,
      'layers': {n: a[:layers] for n, a in subject.stacked['layers'].items()},
    },
    params={**subject.params, 'layers': subject.params['layers'][:layers]},
  )


class Static:
  """A peer that decodes batches until their slowest is done."""

  def __init__(self, peer: Any, batch: int):
    self._peer, self.batch = peer, batch

  def parts(self, prompts: Sequence[tuple[int, ...]], lengths: np.ndarray):
    """(prompts, tokens to decode) of each batch."""
    for i in range(0, len(prompts), self.batch):
      yield prompts[i : i + self.batch], int(lengths[i : i + self.batch].max())

  def run(self, prompts: Sequence[tuple[int, ...]], lengths: np.ndarray) -> int:
    """Delivered tokens: of each completion its own length."""
    for part, longest in self.parts(prompts, lengths):
      out = self._peer.generate(part, max_tokens=longest, temperature=TEMPERATURE)
      if {len(row) for row in out} != {longest}:
        raise RuntimeError(f'a peer returned other lengths than {longest}, which were forced')
    return int(lengths.sum())

  def warm_up(self, prompts: Sequence[tuple[int, ...]], lengths: np.ndarray) -> None:
    """Compiles what the run needs."""
    if not hasattr(self._peer, 'warm_up'):
      self._peer.generate(prompts[: self.batch], max_tokens=2)
      return
    seen = set()
    for part, longest in self.parts(prompts, lengths):
      if (len(part), longest) not in seen:
        self._peer.warm_up(part, longest)
        seen.add((len(part), longest))


def forced(
  subject: Subject, peers: dict[str, Any], slots: int, batches: Sequence[int]
) -> list[dict[str, Any]]:
  """Forced long-tailed lengths: each peer at each batch size, between two runs of ours."""
  law = _schedule.SHORT_TAIL
  prompts = [prompt[:FORCED_PROMPT] for prompt in subject.prompts]
  lengths = law.draw(len(prompts) * FORCED_SAMPLES, seed=0)
  rows = [prompt for prompt in prompts for _ in range(FORCED_SAMPLES)]
  sampler = Ours(subject.params, subject.config, slots=slots, prompt=FORCED_PROMPT, cap=law.cap)
  sampler.warm_up(prompts)

  def ours() -> Rate:
    rate = timed(lambda: sampler.run(prompts, FORCED_SAMPLES, lengths=lengths))
    note(f'ours, S={slots}', rate)
    return rate

  gates = []
  before = ours()
  for name, peer in peers.items():
    ratios: dict[int, tuple[float, float, Rate]] = {}
    for batch in batches:
      static = Static(peer, batch)
      static.warm_up(rows, lengths)
      rate = timed(lambda static=static: static.run(rows, lengths))
      note(f'{name}, batch {batch}', rate)
      after = ours()
      mine = (before.per_second + after.per_second) / 2
      cpu = (before.per_cpu_second + after.per_cpu_second) / 2 / rate.per_cpu_second
      ratios[batch] = mine / rate.per_second, cpu, rate
      before = after
    best = min(ratios, key=lambda b: ratios[b][0])
    ratio, cpu, rate = ratios[best]
    gates.append(
      at_least(
        f'B8 delivered tokens/s against {name}, long-tailed lengths',
        ratio,
        3.0,
        'x',
        f'the first {LAYERS} layers of {MODEL}, float32; {law}; {len(prompts)} prompts of '
        f'{FORCED_PROMPT} x {FORCED_SAMPLES}, ours S={slots}, {name} at its best batch of '
        f'{tuple(batches)}: {best} ({rate.per_second:.1f} tokens/s, {peer.versions}); ours just '
        f'before and after each; by CPU seconds {cpu:.2f} x; steps '
        f'{_schedule.ideal_steps(lengths, slots)[0]} ideal, '
        f'{_schedule.static_steps(lengths, best)} static',
      )
    )
  return gates


def the_subject() -> Subject | None:
  """The model and GSM8K's prompts; None, with a printed line, where they are missing."""
  data = os.environ.get('RLVR_DATA', '')
  if reason := missing(data):
    print(f'skipped: {reason}', flush=True)
    return None
  return load_subject(data)


def _hf(subject: Subject) -> Any:
  threads = len(os.sched_getaffinity(0))
  return HFPeer(subject.stacked, subject.config, threads=threads) if installed('torch') else None


def natural_gates() -> list[dict[str, Any]]:
  """Real prompts and natural stops, beside HF transformers if torch is installed."""
  subject = the_subject()
  if subject is None:
    return []
  return natural(subject, _hf(subject), NATURAL_SLOTS, NATURAL_BATCHES)


def forced_gates() -> list[dict[str, Any]]:
  """Forced lengths, beside those of HF transformers and tunix that are installed."""
  subject = the_subject()
  if subject is None:
    return []
  subject = layer_slice(subject, LAYERS)
  peers: dict[str, Any] = {}
  if hf := _hf(subject):
    peers['HF generate'] = hf
  if installed('tunix'):
    size = FORCED_PROMPT + _schedule.SHORT_TAIL.cap
    peers["tunix's Sampler"] = TunixPeer(subject.params, subject.config, cache_size=size)
  return forced(subject, peers, FORCED_SLOTS, FORCED_BATCHES) if peers else []
