"""Processes around every verifier: a hang, a crash or a memory hog costs one verdict.

  with VerifierPool(workers=2, limit_s=10.0, journal=workdir / 'verdicts.jsonl') as pool:
    verdicts = pool.verify([(problem, completion), ...])

Each worker process (worker.py) is fed by one thread here, which takes jobs from a shared queue in
batches of about 50 ms of work, reads one verdict at a time and watches the clock of the job in
hand. POSIX only when run (it waits on pipes); importing it is portable.
"""

import collections
import dataclasses
import logging
import os
import pathlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from rlvr_jax import hosts, paths
from rlvr_jax.tasks import wire
from rlvr_jax.tasks.journal import Journal, job_key, problem_digest
from rlvr_jax.tasks.problem import Problem, Verdict
from rlvr_jax.tasks.process import WorkerProcess
from rlvr_jax.tasks.registry import patience, runs_programs, verifier_name, verifier_version

log = logging.getLogger(__name__)

_BATCH_SECONDS = 0.05
_BATCH_JOBS = 512
_DIGESTS = 65_536  # problems whose digest is remembered
_START_SECONDS = 120.0
_QUIET_SECONDS = 10.0
_LOAD_SECONDS = 120.0  # importing a verifier; sympy takes 1-2 s, more on a busy machine


@dataclasses.dataclass(eq=False)
class _Job:
  key: bytes
  verifier: str
  version: str
  problem: Problem
  text: str
  future: Future[Verdict]
  alone: bool = False  # second try, in a process that has run nothing before
  quiet: bool = False  # second try, while no other job runs


class VerifierPool:
  """Judges completions in worker processes under limits; equal jobs are judged once.

  Args:
    workers: number of processes.
    limit_s: wall-clock seconds for one job; beyond it the verdict is 'timeout'. Importing a
      verifier does not count.
    memory_mb: address space of a worker in MiB (where the platform can limit it); 0 is no limit.
    journal: JSONL file of verdicts, read at the start and appended to; None keeps them in memory.
    settings: what else verifiers may want to know (settings.py).
    others: journals of other processes of the run; shared: there are such (news, learn).

  A job whose process dies, or that runs out of memory, is tried once more in a fresh process, so
  that what earlier jobs left behind cannot decide it; then its verdict is 'error'. A program that
  took too long is run once more while nothing else is, so that a busy machine cannot decide it.
  """

  def __init__(
    self,
    workers: int = 2,
    limit_s: float = 10.0,
    memory_mb: int = 4096,
    journal: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    others: Sequence[pathlib.Path] = (),
    shared: bool = False,
  ):
    if workers < 1:
      raise ValueError(f'workers={workers} must be at least 1')
    if not limit_s > 0:
      raise ValueError(f'limit_s={limit_s} must be a positive number of seconds')
    if memory_mb < 0:
      raise ValueError(f'memory_mb={memory_mb} must be at least 0 (0 is no limit)')
    self._limit_s, self._memory_mb, self._settings = limit_s, memory_mb, dict(settings or {})
    self._journal = Journal(journal, others, shared)
    self._queue: collections.deque[_Job] = collections.deque()
    self._quiet: collections.deque[tuple[float, _Job]] = collections.deque()  # since when
    self._running = 0  # batches in hand
    self._quiet_runs = False
    self._levels: set[str] = set()  # of sandboxes, said once each
    self._pending: dict[bytes, Future[Verdict]] = {}
    # by identity, with the problem, so that no other can take its place
    self._digests: dict[int, tuple[Problem, bytes]] = {}
    self._changed = threading.Condition()  # guards everything above and _closed
    self._closed = False
    self._processes: list[WorkerProcess | None] = [None] * workers
    self._threads = [
      threading.Thread(target=self._serve, args=(i,), name=f'verifier-{i}', daemon=True)
      for i in range(workers)
    ]
    for thread in self._threads:
      thread.start()

  def __enter__(self) -> 'VerifierPool':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  @property
  def journal_bytes(self) -> int:
    """Bytes that this pool has added to its journal."""
    return self._journal.bytes_written

  def news(self) -> list[tuple[bytes, Verdict]]:
    """The verdicts given since it was last asked, for other processes to learn."""
    with self._changed:
      found = self._journal.news or []
      self._journal.news = None if self._journal.news is None else []
    return found

  def learn(self, entries: Iterable[tuple[bytes, Verdict]]) -> None:
    """Takes the news of another process: what it judged is not judged here again."""
    with self._changed:
      self._journal.learn(entries)

  def verify(self, jobs: list[tuple[Problem, str]]) -> list[Verdict]:
    """Verdicts in the order of the jobs; they do not depend on that order.

    Raises ValueError for a verifier that cannot be found or loaded, and for a problem whose answer
    or meta is not made of JSON values.
    """
    given = self._submit_all(jobs)
    return [one if isinstance(one, Verdict) else one.result() for one in given]

  def submit(self, problem: Problem, text: str) -> 'Future[Verdict]':
    """The same for one job, without waiting. Equal jobs in hand share one future."""
    given = self._submit_all([(problem, text)])[0]
    if isinstance(given, Verdict):
      future: Future[Verdict] = Future()
      future.set_result(given)
      return future
    return given

  def close(self) -> None:
    """Ends the workers; jobs not yet judged are cancelled."""
    with self._changed:
      self._closed = True
      dropped = [*self._queue, *(job for _, job in self._quiet)]
      self._queue.clear()
      self._quiet.clear()
      self._changed.notify_all()
      processes = [process for process in self._processes if process is not None]
    for job in dropped:
      job.future.cancel()
    for process in processes:
      process.interrupt()
    for thread in self._threads:
      thread.join()
    self._journal.close()

  def _submit_all(self, jobs: list[tuple[Problem, str]]) -> list[Verdict | Future[Verdict]]:
    """For each job its verdict if it has been given before, else the future of it."""
    given: list[Verdict | Future[Verdict]] = []
    fresh: list[_Job] = []
    with self._changed:
      if self._closed:
        raise RuntimeError('this VerifierPool is closed')
      for problem, text in jobs:
        name = verifier_name(problem)
        version = verifier_version(name)
        known_as = self._digests.get(id(problem))
        if known_as is None:
          if len(self._digests) >= _DIGESTS:
            self._digests.clear()
          known_as = self._digests[id(problem)] = problem, problem_digest(problem)
        digest = known_as[1]
        key = job_key(version, digest, text)
        known = self._journal.get(key) or self._pending.get(key)
        if known is None:
          known = self._pending[key] = Future()
          fresh.append(_Job(key, name, version, problem, text, known))
        given.append(known)
      self._queue.extend(fresh)
      if fresh:
        self._changed.notify_all()
    return given

  # Below: what the worker threads run.

  def _serve(self, slot: int) -> None:
    job_seconds = _BATCH_SECONDS
    batch: list[_Job] = []
    while batch := self._take(job_seconds):
      try:
        job_seconds = self._run_batch(slot, batch, job_seconds)
      except Exception as error:  # whoever waits for these jobs must hear of it
        left = [job for job in batch if not job.future.done()]
        if self._closed:  # close() takes processes away, also one that was only starting
          self._requeue(left)
        else:
          self._fail(left, error)
        self._stop_process(slot)
      with self._changed:
        self._running -= 1
        self._quiet_runs = False
        self._changed.notify_all()
    self._stop_process(slot)

  def _take(self, job_seconds: float) -> list[_Job]:
    """Waits for jobs; empty when the pool closes. Whoever takes some gives up its turn after."""
    with self._changed:
      turn = self._turn()
      while not self._closed and turn == 'wait':
        self._changed.wait()
        turn = self._turn()
      if self._closed:
        return []
      self._running += 1
      if turn == 'quiet':
        self._quiet_runs = True
        return [self._quiet.popleft()[1]]
      share = -(-len(self._queue) // len(self._threads))
      size = max(1, min(int(_BATCH_SECONDS / job_seconds), _BATCH_JOBS, share))
      batch = [self._queue.popleft()]
      while len(batch) < size and not batch[0].alone and not self._queue[0].alone:
        batch.append(self._queue.popleft())
      return batch

  def _turn(self) -> str:
    """What a free slot may do now: 'queue', 'quiet' (a job that must run alone), or 'wait'.

    Jobs that must run alone wait until nothing else does, but not for ever: once the first of them
    has waited for _QUIET_SECONDS, no other work is begun before it.
    """
    if self._quiet_runs:
      return 'wait'
    due = self._quiet and time.monotonic() - self._quiet[0][0] > _QUIET_SECONDS
    if self._queue and not due:
      return 'queue'
    return 'quiet' if self._quiet and not self._running else 'wait'

  def _run_batch(self, slot: int, batch: list[_Job], job_seconds: float) -> float:
    """Runs jobs until all are done or the process is lost; the rest goes back to the queue.

    Returns the seconds a job took, smoothed: what the size of the next batch is made from.
    """
    process = self._process(slot, fresh=batch[0].alone)
    if process is None:
      self._requeue(batch)
      return job_seconds
    first_of_process = process.jobs == 0
    done = 0
    limits = [patience(job.verifier, self._limit_s) for job in batch]
    for event in process.run(_batch_message(batch), limits, _LOAD_SECONDS):
      if event.kind == 'verdicts':
        assert done + len(event.verdicts) <= len(batch)
        self._settle_or_repeat(batch[done : done + len(event.verdicts)], event.verdicts)
        done += len(event.verdicts)
        if done == len(batch):
          return 0.5 * job_seconds + 0.5 * max(event.seconds / len(batch), 1e-6)
        continue
      job, rest = batch[done], batch[done + 1 :]
      self._stop_process(slot)
      if event.kind == 'failed':
        self._give_up(batch[done:], job.verifier, event.why)
        rest = [other for other in rest if other.verifier != job.verifier]
      elif event.kind == 'died' and self._closed:
        rest = [job, *rest]
      elif event.kind == 'timeout' or job.alone or (first_of_process and done == 0):
        verdict = 'timeout' if event.kind == 'timeout' else 'error'
        self._settle_or_repeat([job], [Verdict(verdict, 0.0, '', event.why)])
      else:
        job.alone = True
        rest = [job, *rest]
      self._requeue(rest)
    return job_seconds

  def _settle_or_repeat(self, jobs: list[_Job], verdicts: list[Verdict]) -> None:
    """Settles the jobs, but for programs that took too long while others ran."""
    settled = []
    for job, verdict in zip(jobs, verdicts, strict=True):
      if verdict.verdict != 'timeout' or job.quiet or not runs_programs(job.verifier):
        settled.append((job, verdict))
        continue
      job.quiet = True
      with self._changed:
        dropped = self._closed
        if not dropped:
          self._quiet.append((time.monotonic(), job))
          self._changed.notify_all()
      if dropped:
        job.future.cancel()
    self._settle([job for job, _ in settled], [verdict for _, verdict in settled])

  def _settle(self, jobs: list[_Job], verdicts: list[Verdict]) -> None:
    with self._changed:
      # an error is the machine's or the verifier's trouble, not a judgement: it is tried again
      self._journal.add(
        (job.key, verdict)
        for job, verdict in zip(jobs, verdicts, strict=True)
        if verdict.verdict != 'error'
      )
      for job in jobs:
        del self._pending[job.key]
      levels = {verdict.sandbox for verdict in verdicts} - self._levels - {''}
      self._levels |= levels
    for level in levels:
      log.info('programs run under %s', level)
    for job, verdict in zip(jobs, verdicts, strict=True):
      if job.future.set_running_or_notify_cancel():
        job.future.set_result(verdict)

  def _fail(self, jobs: list[_Job], error: Exception) -> None:
    with self._changed:
      for job in jobs:
        self._pending.pop(job.key, None)
    for job in jobs:
      if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)

  def _give_up(self, jobs: list[_Job], verifier: str, why: str) -> None:
    """Fails the jobs, here and in the queue, of a verifier that cannot be loaded."""
    with self._changed:
      waiting = [*self._queue, *(job for _, job in self._quiet)]
      jobs = [job for job in [*jobs, *waiting] if job.verifier == verifier]
      others = [job for job in self._queue if job.verifier != verifier]
      self._queue.clear()
      self._queue.extend(others)
      later = [(since, job) for since, job in self._quiet if job.verifier != verifier]
      self._quiet.clear()
      self._quiet.extend(later)
    self._fail(jobs, ValueError(f'verifier={verifier!r} could not be loaded: {why}'))

  def _requeue(self, jobs: list[_Job]) -> None:
    with self._changed:
      if self._closed:
        dropped = jobs
      else:
        dropped = []
        self._queue.extendleft(reversed(jobs))
        self._changed.notify_all()
    for job in dropped:
      job.future.cancel()

  def _process(self, slot: int, fresh: bool) -> WorkerProcess | None:
    """The slot's live process, started if need be; None when the pool is closing."""
    process = self._processes[slot]
    if process is not None and fresh and process.jobs > 0:
      self._stop_process(slot)
      process = None
    if process is None:
      process = WorkerProcess(self._memory_mb, self._limit_s, _START_SECONDS, self._settings)
      with self._changed:
        if not self._closed:
          self._processes[slot] = process
          return process
      process.kill()
      return None
    return process

  def _stop_process(self, slot: int) -> None:
    with self._changed:
      process, self._processes[slot] = self._processes[slot], None
    if process is not None:
      process.kill()


def pool_of(group: Any, workdir: pathlib.Path) -> VerifierPool:
  """The pool of a config's group `verifier`, with its journal in the workdir.

  Each process of a run writes a journal of its own and knows what those of all say.
  """
  workdir = paths.local_of(workdir)
  own = workdir / (f'verdicts-{hosts.index()}.jsonl' if hosts.index() else 'verdicts.jsonl')
  others = {workdir / 'verdicts.jsonl', *workdir.glob('verdicts-*.jsonl')} - {own}
  return VerifierPool(
    group.workers,
    limit_s=group.limit_s,
    memory_mb=group.memory_mb,
    journal=own,
    settings={'sandbox': group.sandbox, 'allow_unsafe': group.allow_unsafe},
    others=sorted(others),
    shared=hosts.count() > 1,
  )


def _batch_message(batch: list[_Job]) -> dict[str, Any]:
  """Each problem once, however many of its completions are in the batch."""
  positions: dict[int, int] = {}
  problems, jobs = [], []
  for job in batch:
    position = positions.get(id(job.problem))
    if position is None:
      position = positions[id(job.problem)] = len(problems)
      problems.append(wire.problem_to_json(job.problem))
    jobs.append([position, job.verifier, job.version, job.text])
  return {'problems': problems, 'jobs': jobs}
