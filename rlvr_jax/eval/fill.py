"""Fill a store: what is missing, a pilot and its price, then the rest until every draw is there."""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from rlvr_jax import hosts
from rlvr_jax.eval import preflight, stopping, turns
from rlvr_jax.eval.ledger import Ledger
from rlvr_jax.eval.run import (
  draw,
  model_uid,
  sampling_settings,
  score,
  store_row,
  template_hash,
)
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.graceful import GracefulExit, Stopped
from rlvr_jax.metrics import Progress, format_seconds
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.shapes import shape_of
from rlvr_jax.sampling.types import Completion, Item, Sampling
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import same_verifiers, verifiers_of

SHOWN_EVERY_S = 1.0


@dataclasses.dataclass(frozen=True)
class Subject:
  """Whom to ask what: a model's name in the store, its engine and tokenizer, and its prompts.

  encoded: token ids of the problems' prompts by `template`. weights stands for the model's content
  (load.fingerprint), data for the problems' (tasks.load): samples of other weights, or of other
  problems under the same ids, are refused, never mixed. rules: of conversations, if completions are
  answered. pixels: least and most of an image as the model sees it, where problems have images.
  """

  name: str
  engine: Engine
  tokenizer: Tokenizer
  problems: Sequence[Problem]
  encoded: Sequence[tuple[int, ...]]
  template: str
  weights: str
  data: str
  rules: turns.Rules | None = None
  pixels: tuple[int, int] | None = None

  @property
  def task(self) -> str:
    """The task of all the problems."""
    return self.problems[0].task


def sample_into_store(
  store: SampleStore,
  subject: Subject,
  rule: stopping.Rule,
  sampling: Sampling,
  pool: VerifierPool,
  *,
  seed: int,
  coupling: str,
  flush_s: float = 60.0,
  pilot_only: bool = False,
  show: bool = True,
) -> preflight.Price | None:
  """Tops the store up to the draws that `rule` asks for, after a pilot of 1% of them.

  Returns the price of what follows the pilot, None if there is nothing left to price. pilot_only
  ends there (the pilot's samples are stored like any others). SIGTERM or Ctrl-C raises Stopped
  once what was drawn is stored. StoreError, before the bulk is drawn, if there is no room for it.
  """
  store.check_writable()
  check_verifier(store, subject)
  settings = sampling_settings(
    sampling, seed=seed, coupling=coupling, stream='eval', rules=subject.rules
  )
  settings |= {'weights': subject.weights, 'data': subject.data}
  if subject.pixels:
    settings['pixels'] = list(subject.pixels)
  ledger = Ledger(
    store,
    subject.name,
    subject.task,
    [problem.id for problem in subject.problems],
    rule,
    settings,
    prompt_hash=template_hash(subject.template, subject.tokenizer),
    flush_s=flush_s,
  )
  what = f'sampling {subject.name}'
  if hosts.count() > 1:
    what += f' (1 of {hosts.count()} shares)'
  with (
    GracefulExit() as asked,
    Progress(ledger.total, what, start=ledger.known, plain_every_s=5.0, enabled=show) as progress,
    ledger,
  ):
    filling = _Filling(store, subject, ledger, sampling, pool, progress, asked, seed, coupling)
    if not ledger.open:
      progress.note(f'{what}: all {ledger.stored:,} samples are stored, nothing to draw')
      return None
    filling.warm_up()
    found = filling.pilot()
    if found is not None:
      store.check_writable(int(found.disk))
      if pilot_only:
        return found
    filling.draw(stopping.order(rule, ledger.draws))
    ledger.flush()
    progress.note(filling.summary())
    return found


def check_verifier(store: SampleStore, subject: Subject) -> None:
  """ValueError if the store holds verdicts of another version of the problems' verifier."""
  version = verifiers_of(subject.problems)
  if subject.task in store.models().get(subject.name, ()):
    before = store.settings(subject.name, subject.task)['verifier']
    if not same_verifiers(before, version):
      raise ValueError(
        f'{store.root / subject.name} holds verdicts of {before!r}, but the verifier is now '
        f'{version!r}; sample into another --workdir'
      )


class _Filling:
  """One run of draws into a ledger, shown as it goes."""

  def __init__(
    self,
    store: SampleStore,
    subject: Subject,
    ledger: Ledger,
    sampling: Sampling,
    pool: VerifierPool,
    progress: Progress,
    asked: GracefulExit,
    seed: int,
    coupling: str,
  ):
    self.subject, self.ledger, self.sampling, self.pool = subject, ledger, sampling, pool
    self.store = store
    self.progress, self.asked, self.seed = progress, asked, seed
    self.model_uid = model_uid(subject.name, coupling)
    self.pace = preflight.Pace(subject.engine.stats)
    self.begun = time.monotonic()
    self.shown = 0.0
    self.issued = 0
    self.outgrown = 0  # conversations

  def warm_up(self) -> None:
    """Compiles the programs and imports the verifier: what follows is timed at its own pace."""
    subject = self.subject
    verdict = self.pool.submit(subject.problems[0], '')
    # one token of a prompt of each size that is a program of its own; it is no draw of the run
    capacity, vision = subject.engine.prompt_capacity, subject.engine.config.vision
    sizes = {shape_of(ids, capacity, vision): place for place, ids in enumerate(subject.encoded)}
    items = [
      Item(place, subject.problems[place].uid, 0, 0, subject.encoded[place], limit=1)
      for place in sizes.values()
    ]
    for _ in subject.engine.run(items, self.sampling, stream='eval', model_uid=self.model_uid):
      pass
    verdict.result()
    self.pace = preflight.Pace(subject.engine.stats)

  def pilot(self) -> preflight.Price | None:
    """Draws the pilot and says what the rest will cost; None if there is no rest."""
    _, missing = self.ledger.missing
    pairs = preflight.choose(
      self.ledger.draws, preflight.pilot_size(missing, self.subject.engine.slots)
    )
    self.progress.note(f'pilot: {len(pairs)} of the {missing:,} samples to draw')
    before = self.pool.journal_bytes
    lengths = self.draw(pairs)
    seconds = self.pace.seconds
    self.ledger.flush()
    fewest, most = self.ledger.missing
    if not self.ledger.open:
      return None
    written = self.ledger.bytes_written + self.pool.journal_bytes - before
    found = preflight.price(
      preflight.Pilot(
        np.array(lengths),
        self.sampling.max_tokens,
        self.subject.engine.slots,
        seconds,
        self.pace.steps,
        written / len(lengths),
      ),
      fewest,
      most,
    )
    found = preflight.of_all(found, hosts.count())
    free = self.store.free_bytes()
    self.progress.note('\n'.join(['still to come:', *preflight.describe(found, free=free)]))
    return found

  def draw(self, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Draws, judges and books the (problem, sample) pairs while wanted; their lengths."""
    subject = self.subject
    lengths: list[int] = []
    self.issued = 0
    with contextlib.closing(
      score(
        self._completions(pairs),
        self.sampling.stop_ids,
        problems=subject.problems,
        tokenizer=subject.tokenizer,
        pool=self.pool,
      )
    ) as scored:
      for one in scored:
        place = one.completion.item.problem
        self.ledger.take(
          place,
          store_row(
            one,
            subject.problems[place],
            seed=self.seed,
            temperature=self.sampling.temperature,
          ),
        )
        lengths.append(one.completion.drawn)
        self.outgrown += one.completion.turns is not None and one.completion.turns.outgrown
        self._show()
        if self.asked.requested or hosts.lost():
          raise Stopped(
            f'kept {self.ledger.known:,} of {self.ledger.total:,} samples; the same command goes on'
          )
        if self.ledger.rule.stop_after and not self.ledger.open:
          break  # what is still being drawn is beyond the end of its problem
    self.ledger.discarded.unfinished += self.issued - len(lengths)
    return lengths

  def _completions(self, pairs: Iterable[tuple[int, int]]) -> Iterator[Completion]:
    subject = self.subject

    def items() -> Iterator[Item]:
      for place, sample in pairs:
        self.issued += 1
        yield Item(place, subject.problems[place].uid, 0, sample, subject.encoded[place])

    drawn: Any = draw(
      subject.engine,
      items(),
      self.sampling,
      subject.rules,
      tokenizer=subject.tokenizer,
      pool=self.pool,
      stream='eval',
      model_uid=self.model_uid,
    )
    with contextlib.closing(drawn):
      for completion in drawn:
        self.pace.look()
        yield completion

  def _show(self) -> None:
    ledger, now = self.ledger, time.monotonic()
    if now - self.shown < SHOWN_EVERY_S and ledger.open:
      return
    self.shown = now
    values = self.pace.rates()
    if ledger.rule.stop_after:
      values['solved'] = ledger.solved
    elif ledger.judged:
      values['avg@n'] = ledger.correct / ledger.judged
    self.progress.update(ledger.known, values, total=ledger.total)

  def summary(self) -> str:
    """What was drawn and what it cost, in a line or two."""
    ledger = self.ledger
    rates = self.pace.rates(overall=True)
    took = format_seconds(time.monotonic() - self.begun)
    lines = [
      f'{ledger.stored:,} samples of {len(ledger.draws)} problems are stored; {ledger.tokens:,} '
      f'tokens in {took}: {rates["tokens/s"]:,.0f} tokens/s, occupancy {rates["occupancy"]:.2f}'
    ]
    if self.outgrown:
      lines.append(
        f'{self.outgrown:,} conversations outgrew sampling.prompt_capacity='
        f'{self.subject.engine.prompt_capacity} and were ended there, truncated'
      )
    if ledger.rule.stop_after:
      early = sum(one.end < ledger.rule.n for one in ledger.draws)
      away = ledger.discarded
      lines.append(
        f'{early} of {len(ledger.draws)} problems stopped before {ledger.rule.n}; beyond their '
        f'ends {away.completions:,} samples of {away.tokens:,} tokens were drawn and discarded, '
        f'{away.unfinished:,} left unfinished'
      )
    return '\n'.join(lines)
