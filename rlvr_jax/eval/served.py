"""job=sample | evaluate with a server as the model: its completions, judged, into our store.

What is there is not asked for again, so a run that was killed goes on with the same command, and a
larger evaluate.n draws the rest. No jax: the weights are the server's.
"""

import collections
import dataclasses
import hashlib
import itertools
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from rlvr_jax.config import Config
from rlvr_jax.eval import server as server_lib
from rlvr_jax.eval import stopping
from rlvr_jax.eval.drawn import (
  Samples,
  evaluation_problems,
  exit_when_stopped,
  store_name,
)
from rlvr_jax.eval.ledger import Ledger
from rlvr_jax.eval.publish import publish_drawn
from rlvr_jax.eval.samples import Row, SampleStore
from rlvr_jax.eval.server import Answer, Asked, Server
from rlvr_jax.eval.server import Limits as Limits
from rlvr_jax.eval.stopping import Rule
from rlvr_jax.graceful import GracefulExit, Stopped
from rlvr_jax.metrics import Meter, Progress, format_seconds
from rlvr_jax.tasks import prompts
from rlvr_jax.tasks.given import check_remembered
from rlvr_jax.tasks.load import content_hash
from rlvr_jax.tasks.pool import VerifierPool, pool_of
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.registry import (
  same_verifiers,
  verifier_name,
  verifier_version,
  verifiers_of,
)

_ALIKE = 3  # problems, and completions of each, of which all being one text is told

Block = tuple[int, int]  # (place of the problem, index of its first sample)
Judged = tuple[int, int, Answer, 'Future[Verdict] | None']  # None: refused, nothing to judge


def evaluate(config: Config, workdir: pathlib.Path) -> None:
  """Samples the server; job=evaluate writes results.json and report.html too."""
  meter = Meter()
  problems = evaluation_problems(config)
  with exit_when_stopped():
    drawn = draw(config, workdir, problems, content_hash(config.task))
  if config.dry_run:
    print('dry_run: ends here; what was drawn is stored', file=sys.stderr)
    return
  print(drawn, file=sys.stderr)
  if config.job == 'evaluate':
    publish_drawn(config, workdir, drawn, problems, seconds=meter.seconds)


def draw(
  config: Config,
  workdir: pathlib.Path,
  problems: Sequence[Problem],
  data: str,
  *,
  name: str = '',
  show: bool = True,
) -> Samples:
  """Tops up the store with the server's completions of the problems; see eval.sample.draw.

  Raises Stopped once what was drawn is stored, if a signal asked for it; ServerError where the
  server fails for good (what was drawn is stored too).
  """
  e, s = config.evaluate, config.sampling
  rule = Rule(e.n, s.first, s.stop_after)
  limits = Limits(**{key: config.server[key] for key in dataclasses.asdict(Limits())})
  template = config.task.template
  prompts.check_template(template)
  asked = [_prompt(problem, template) for problem in problems]
  server = server_lib.connect(config.model.name, limits)
  name = name or e.name or store_name(server.name)
  store, task = SampleStore(workdir / 'samples'), problems[0].task
  store.check_writable()
  _check_verifier(store, name, problems)
  if data == 'by problem':
    check_remembered(store.root / name / task / 'problems.json', list(problems))
  if show:
    print(
      f'settings: {server.name} at {server.url}, {len(problems):,} problems of {task}, template '
      f'{template}, verifier {verifier_name(problems[0])}; {e.n:,} draws of each, temperature '
      f'{e.temperature:g}, top_p {e.top_p:g}, top_k {e.top_k}, at most {s.max_tokens:,} tokens, '
      f'{limits.concurrency} requests at once of {limits.n}',
      file=sys.stderr,
    )
  ledger = Ledger(
    store,
    name,
    task,
    [problem.id for problem in problems],
    rule,
    settings_of(config, server, data),
    prompt_hash=template_hash(template),
    flush_s=e.flush_s,
  )
  what = f'sampling {name}'
  with (
    GracefulExit() as leaving,
    pool_of(config.verifier, workdir) as pool,
    Progress(ledger.total, what, start=ledger.known, plain_every_s=5.0, enabled=show) as progress,
    ledger,
  ):
    filling = _Filling(config, server, problems, asked, ledger, pool, progress, leaving)
    if not ledger.open:
      progress.note(f'{what}: all {ledger.stored:,} samples are stored, nothing to draw')
    else:
      filling.run()
  return Samples(store, name, tuple(problems), rule)


def _prompt(problem: Problem, template: str) -> tuple[str | list[dict[str, str]], str]:
  """(text or messages, beginning of the answer). ValueError for a problem with images."""
  if problem.images:
    raise ValueError(
      f'problem {problem.task}/{problem.id} has images, and a server is given text only; name a '
      'model that runs here (model.name without http://)'
    )
  if template in prompts.CHATS:
    return prompts.chat_messages(problem, template)
  return prompts.render(problem, template), ''


def template_hash(template: str) -> str:
  """Stands for the prompt's template, as far as it is ours: a chat's own is the server's."""
  text = prompts.TEMPLATES.get(template) or repr(prompts.CHATS[template])
  return hashlib.sha256(f'{template}\nserver\n{text}'.encode()).hexdigest()[:16]


def settings_of(config: Config, server: Server, data: str) -> dict[str, Any]:
  """What the store says of how these samples were drawn; not where the server stood."""
  e, s = config.evaluate, config.sampling
  return {
    'temperature': e.temperature,
    'top_p': e.top_p,
    'top_k': e.top_k,
    'max_tokens': s.max_tokens,
    'seed': config.seed,
    'coupling': s.coupling,
    'stream': 'eval',
    'weights': f'served {server.name}',
    'data': data,
  }


def _check_verifier(store: SampleStore, name: str, problems: Sequence[Problem]) -> None:
  version, task = verifiers_of(problems), problems[0].task
  if task in store.models().get(name, ()):
    before = store.settings(name, task)['verifier']
    if not same_verifiers(before, version):
      raise ValueError(
        f'{store.root / name} holds verdicts of {before!r}, but the verifier is now {version!r}; '
        'sample into another --workdir'
      )


def seed_of(seed: int, model: str, problem: Problem, sample: int, coupling: str) -> int:
  """The seed of a request, 31 bits: a function of what is drawn, so that a restart asks the same.

  Under common random numbers the model is left out.
  """
  who = '' if coupling == 'common' else model
  text = f'{seed}/{who}/{problem.task}/{problem.id}/{sample}'
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'big') >> 1


class _Filling:
  """One run of requests into a ledger, shown as it goes."""

  def __init__(
    self,
    config: Config,
    server: Server,
    problems: Sequence[Problem],
    prompts: Sequence[tuple[str | list[dict[str, str]], str]],
    ledger: Ledger,
    pool: VerifierPool,
    progress: Progress,
    leaving: GracefulExit,
  ):
    self.config, self.server, self.problems, self.prompts = config, server, problems, prompts
    self.ledger, self.pool, self.progress, self.leaving = ledger, pool, progress, leaving
    self.waiting: collections.deque[Judged] = collections.deque()
    self.told = True  # whether the server has given log-probs so far
    self.cut = 0  # completions that the server cut before sampling.max_tokens
    self.texts: dict[int, set[str]] = collections.defaultdict(set)  # two of each place at most
    self.answers = collections.Counter[int]()
    self.begun = time.monotonic()

  def run(self) -> None:
    """Asks until every draw is known, or one block of them in a dry run."""
    requests = self._requests()
    if self.config.dry_run:
      requests = itertools.islice(requests, 1)

    def stopped() -> bool:
      return self.leaving.requested

    try:
      for (place, begin), answers in server_lib.ask_all(self.server, requests, stopped):
        for sample, answer in enumerate(answers, begin):
          if self.ledger.draws[place].unknown(sample):
            self._judge(place, sample, answer)
        self._book(wait=False)
    except server_lib.ServerError:
      self._book(wait=True)  # what was drawn before is kept
      raise
    self._book(wait=True)
    self.ledger.flush()
    if self.leaving.requested:
      raise Stopped(
        f'kept {self.ledger.known:,} of {self.ledger.total:,} samples; the same command goes on'
      )
    self._warn()
    took = format_seconds(time.monotonic() - self.begun)
    self.progress.note(
      f'{self.ledger.stored:,} samples of {len(self.problems)} problems are stored; '
      f'{self.ledger.tokens:,} tokens in {took}'
    )

  def _requests(self) -> Iterator[tuple[Block, Asked]]:
    """Blocks of `server.n` samples that hold one that is wanted, each once."""
    e, size = self.config.evaluate, self.server.limits.n
    sent: set[Block] = set()
    for place, sample in stopping.order(self.ledger.rule, self.ledger.draws):
      begin = sample - sample % size
      if (place, begin) in sent:
        continue
      sent.add((place, begin))
      prompt, prefix = self.prompts[place]
      coupling = self.config.sampling.coupling
      yield (
        (place, begin),
        Asked(
          prompt,
          n=min(size, self.ledger.rule.n - begin),
          seed=seed_of(self.config.seed, self.server.name, self.problems[place], begin, coupling),
          temperature=e.temperature,
          top_p=e.top_p,
          top_k=e.top_k,
          max_tokens=self.config.sampling.max_tokens,
          prefix=prefix,
        ),
      )

  def _warn(self) -> None:
    """Notes what the samples show of a server that does not do what was asked."""
    if self.cut:
      self.progress.note(
        f'warning: the server cut {self.cut:,} completions before sampling.max_tokens='
        f'{self.config.sampling.max_tokens:,}: its context is too short for them (they are stored '
        "as cut, finish 'length')"
      )
    several = [place for place, number in self.answers.items() if number >= _ALIKE]
    if several and self.config.evaluate.temperature > 0:
      alike = [place for place in several if len(self.texts[place]) == 1]
      if len(alike) == len(several) >= _ALIKE:
        self.progress.note(
          f'warning: all completions of a problem are the same text, of {len(alike)} problems: '
          'does the server keep to temperature and seed, or does a cache answer for it?'
        )

  def _judge(self, place: int, sample: int, answer: Answer) -> None:
    self.cut += answer.finish == 'length' and answer.length < self.config.sampling.max_tokens - 1
    self.answers[place] += 1
    if len(self.texts[place]) < 2:
      self.texts[place].add(answer.text)
    if self.told and answer.logprob_sum is None:
      self.told = False
      self.progress.note('the server gives no log-probs; the samples are stored without')
    future = None
    if answer.finish != 'refused':
      future = self.pool.submit(self.problems[place], answer.text)
    self.waiting.append((place, sample, answer, future))

  def _book(self, *, wait: bool) -> None:
    """Stores what is judged, in the order of asking; with wait, all."""
    while self.waiting and (wait or self.waiting[0][3] is None or self.waiting[0][3].done()):
      place, sample, answer, future = self.waiting.popleft()
      if future is None:
        verdict = Verdict('error', 0.0, '', "refused by the server's content filter")
      else:
        verdict = future.result()
      self.ledger.take(place, self._row(place, sample, answer, verdict))
    ledger = self.ledger
    values: Mapping[str, float] = {}
    if ledger.judged:
      values = {'avg@n': ledger.correct / ledger.judged}
    self.progress.update(ledger.known, values, total=ledger.total)

  def _row(self, place: int, sample: int, answer: Answer, verdict: Verdict) -> Row:
    problem, e = self.problems[place], self.config.evaluate
    plain = e.temperature == 1 and e.top_p == 1 and not e.top_k
    total = answer.logprob_sum
    return Row(
      task=problem.task,
      problem_id=problem.id,
      visit=0,
      sample=sample,
      seed=self.config.seed,
      tokens=[],
      text=answer.text,
      length=answer.length,
      finish='length' if answer.finish == 'length' else 'eos',
      logprob_sum=total,
      logprob_sum_sampled=total if total is not None and plain else float('nan'),
      verdict=verdict.verdict,
      reward=verdict.reward,
      verifier=verifier_version(verifier_name(problem)),
      extracted=verdict.extracted,
      reason=verdict.reason,
      sandbox=verdict.sandbox,
    )
