"""job=train: sample, score, learn, iteration by iteration; resumable to the bit on one device.

1. Completions: `group` of each of the iteration's problems, from the learner's own weights handed
   over to the sampler; verdicts while sampling goes on (rl/collect.py).
2. Scores, rewards and advantages over the whole batch (rl/prepare.py).
3. One or more optimizer steps (rl/learner.py); metrics; now and then a look at held-out problems
   and a checkpoint (rl/observe.py).
4. At the end a boundary report against the start model, and the model as a directory.
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from typing import Any

from rlvr_jax import config as config_lib
from rlvr_jax import graceful, hosts, profiling, watch
from rlvr_jax import metrics as metrics_lib
from rlvr_jax.checkpoint import Checkpointer, GracefulExit
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.samples import SampleStore
from rlvr_jax.rl import (
  budget,
  distinct,
  ends,
  forms,
  host_json,
  learner,
  loop_checks,
  mixing,
  observe,
  parts,
  prepare,
  report,
  resets,
  skips,
  utilisation,
)
from rlvr_jax.rl import collect as collect_lib
from rlvr_jax.rl.algorithms import Algorithm, choose
from rlvr_jax.rl.identity import hash_of, identity_of
from rlvr_jax.tasks.load import load_problems
from rlvr_jax.tasks.pool import pool_of

log = logging.getLogger(__name__)
# keys that may differ between a checkpoint and the run that resumes from it
NOT_IDENTITY = (
  'dry_run', 'metrics', 'profile', 'smoke', 'smoke_values', 'study', 'evaluate', 'distill',
  'verifier', 'train.iterations', 'train.tokens', 'train.keep', 'train.keep_best',
  'train.checkpoint_every', 'train.export', 'train.report',
)  # fmt: skip


def not_identity(config: config_lib.Config) -> tuple[str, ...]:
  """NOT_IDENTITY, less the length of the run where the schedule depends on it."""
  if config.optimizer.schedule == 'constant':
    return NOT_IDENTITY
  return tuple(key for key in NOT_IDENTITY if key != 'train.iterations')


def algorithm_of(config: config_lib.Config) -> Algorithm:
  """The row of the algorithm table with the config's cells."""
  t = config.train
  if t.algorithm == 'sft':
    raise ValueError("train.algorithm='sft' is no RL algorithm; fine-tuning is job='distill'")
  cells = {f.name: t[f.name] for f in dataclasses.fields(Algorithm)}
  row = choose(t.algorithm, **{k: v for k, v in cells.items() if v is not None})
  if config.reward.control == 'majority' and row.greedy_rollout:
    raise ValueError(
      f"reward.control='majority' with train.algorithm={t.algorithm!r}: its baseline is one greedy "
      'completion, of which there is no majority; take another algorithm'
    )
  parts.check_fits(config, row)
  loop_checks.check(config, row)
  return row


def train(config: config_lib.Config, workdir: pathlib.Path) -> None:
  """Trains config.model on config.task. Leaves checkpoints, metrics.jsonl, samples, model/, report.

  Resumes from the last checkpoint in the workdir. Raises ValueError for a config, model or data set
  that does not fit, before anything is sampled; RuntimeError, after saving, when three steps in a
  row had a non-finite loss or gradient.
  """
  assert not config.mesh.auto, 'rlvr_jax.layouts.train chooses the mesh'
  algorithm = algorithm_of(config)
  problems, heldout = load_problems(config.task)
  if config.train.eval_every and not heldout:
    raise ValueError(
      'train.eval_every looks at held-out problems, but task.holdout=0; hold some out, or set '
      'train.eval_every=0'
    )
  loop_checks.check_problems(config, len(problems))
  learn = learner.open_learner(config, algorithm, total_steps=learner.total_steps(config))
  template, capacity = config.task.template, config.sampling.prompt_capacity
  looks = heldout[: config.train.eval_problems]
  vision = run_lib.sees(config, learn.config)
  prompts, look_prompts = (
    run_lib.encode_prompts(some, template, learn.tokenizer, capacity, vision)
    for some in (problems, looks)
  )
  identity = identity_of(config, not_identity(config))
  SampleStore(workdir / 'samples').check_writable()
  engine = run_lib.make_engine(config, None, learn.config, learn.mesh)

  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(
      Checkpointer(
        workdir / 'checkpoints',
        keep=config.train.keep,
        keep_every=config.train.keep_every,
        keep_steps=config.train.keep_steps,
        identity=identity,
      )
    )
    host: dict[str, Any] = {'iteration': 0, 'skipped_in_row': 0, 'meter': {}, 'cursor': 0}
    host |= {'queue': [], 'tokens': 0, 'past': {}}
    if checkpoints.latest() is not None:
      host |= {'tokens': None} | learn.restore(checkpoints)
      log.info('resumed at iteration %d', host['iteration'])
    budget.check_known(config.train.tokens, host)
    start, most = host['iteration'], config.train.iterations
    finished = start == most or budget.is_spent(config.train.tokens, host['tokens'])
    ends.write_form(workdir, learn)
    meter = metrics_lib.Meter(host['meter'])
    writer = stack.enter_context(
      metrics_lib.MetricsWriter(
        workdir,
        enabled=hosts.is_first(),
        tensorboard=config.metrics.tensorboard,
        wandb=config.metrics.wandb,
        resume_step=start if finished else start - 1,
      )
    )
    pool = stack.enter_context(pool_of(config.verifier, workdir))
    tools = config, engine, pool, learn.tokenizer
    source = collect_lib.open_source(*tools, problems, prompts)
    base = functools.partial(mixing.drawing_base, learn, engine)
    source = dataclasses.replace(source, base=base)
    held_out = collect_lib.open_source(*tools, looks, look_prompts)
    phases = source.phases
    queue = host_json.from_json(source, host['queue'])
    past = host_json.past_from_json(source, host['past'])
    keep_rows = None
    if config.train.store_rollouts:
      keep_rows = stack.enter_context(observe.RolloutWriter(source, workdir, hash_of(identity)))
    exit_asked = stack.enter_context(GracefulExit(ends.grace(config)))
    trace = stack.enter_context(
      profiling.TraceWindow(workdir, config.profile.start, config.profile.stop)
    )
    progress = stack.enter_context(
      metrics_lib.Progress(
        most, 'training', start=start, plain_every_s=5.0, enabled=hosts.is_first()
      )
    )

    def save(step: int) -> None:
      host.update({'iteration': step, 'meter': meter.state(), 'queue': host_json.to_json(queue)})
      host['past'] = host_json.past_to_json(config, past)
      if keep_rows:
        keep_rows.writer.flush()  # first the rows: what a checkpoint has behind it is stored
      writer.flush()
      learn.save(checkpoints, step, host)

    for iteration in range(start, start if finished else most):
      trace.at(iteration)
      watch.note(iteration=iteration)
      row: dict[str, Any] = {}
      if resets.is_due(config.train.reset_every, iteration):
        resets.reset(learn)
      with phases('hand_over'):
        learn.refresh(engine)
      if looks and config.train.eval_every and iteration % config.train.eval_every == 0:
        with phases('look'):
          row |= observe.look(held_out)
        progress.note(f'iteration {iteration}: held-out pass@1 {row["eval/pass@1"]:.3f}')
        ends.keep_best(config, checkpoints, iteration, row, save)

      try:
        with phases('sample'):
          collected = collect_lib.collect(source, algorithm, host['cursor'], queue, past)
          greedy, more = None, 0
          if algorithm.greedy_rollout:
            answers, more = collect_lib.greedy_rollouts(source, collected.groups)
            greedy = prepare.greedy_rewards(config, algorithm, answers)
      except graceful.Abandoned:  # what was before the iteration is still whole
        ends.save_once(checkpoints, iteration, save)
        progress.note(f'gave iteration {iteration} up; {graceful.resume_line()}')
        return
      host['cursor'], queue, past = collected.cursor, collected.queue, collected.past
      if host['tokens'] is not None:
        host['tokens'] += budget.drawn_in(collected.drawn) + more
        row['tokens/sampled'] = float(host['tokens'])
      if keep_rows:
        keep_rows.add(collected.drawn)
      if config.sampling.release:
        engine.free()

      with phases('learn'):
        rollouts = collect_lib.assemble(config, collected.groups)
        if algorithm.wants_forms:
          rollouts = forms.with_forms(rollouts, collected.groups, problems, algorithm.forms)
        rollouts = distinct.kept(config, algorithm, rollouts, collected.groups)
        batch = learn.prepare(rollouts, iteration=iteration, greedy=greedy)
        row |= observe.named_gaps(config, learn.steps(batch, iteration=iteration))
      row |= observe.rollout_metrics(config, rollouts, collected) | phases.pop()
      row |= observe.speeds(row) | {'seconds': meter.seconds}
      row |= utilisation.of_iteration(learn, rollouts, collected, row)

      host['skipped_in_row'] = skips.count_skips(
        row, host['skipped_in_row'], workdir, iteration, rollouts, batch.advantages
      )
      writer.write(iteration, row)
      shown = {'reward': 'reward/mean', 'entropy': 'entropy', 'gap': 'gap/max'}
      progress.update(iteration + 1, {k: row[key] for k, key in shown.items() if key in row})
      last = iteration + 1 == most or budget.is_spent(config.train.tokens, host['tokens'])
      due = (iteration + 1) % config.train.checkpoint_every == 0
      due |= checkpoints.stays(iteration + 1)
      stuck = host['skipped_in_row'] >= skips.MOST_SKIPS
      leaving = hosts.anyone(exit_asked.requested)
      if last or due or leaving or stuck:
        save(iteration + 1)
        if config.sampling.release:
          checkpoints.wait()  # its copy of the state would stand beside the next phase
      if stuck:
        checkpoints.wait()
        raise RuntimeError(skips.stuck_message(workdir, iteration))
      if leaving and not last:
        checkpoints.wait()
        progress.note(f'saved at iteration {iteration + 1}; {graceful.resume_line()}')
        return
      if last:
        budget.say_end(config.train.tokens, host['tokens'], iteration + 1)
        break
    end = host['iteration']
    if looks and config.train.eval_every and not finished:
      learn.refresh(engine)
      row = observe.look(held_out) | {'seconds': meter.seconds}
      writer.write(end, row)
      ends.keep_best(config, checkpoints, end, row, save)
    engine.free()
    checkpoints.wait()
  if config.train.export:
    ends.export(workdir / 'model', learn)
  report.write(config, workdir, learn, heldout, seconds=meter.seconds, iterations=end)
