"""job=train: sample, score, learn, iteration by iteration; resumable to the bit on one device.

1. Problems of the iteration: a function of (seed, epoch), no state but a cursor.
2. Completions: `group` of each, from the learner's own weights handed over to the sampler.
3. Verdicts and rewards while sampling goes on; advantages within each group.
4. One or more optimizer steps over the rollouts; metrics; now and then a look at held-out
   problems and a checkpoint.
"""

import contextlib
import functools
import logging
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from rlvr_jax import config as config_lib
from rlvr_jax import metrics as metrics_lib
from rlvr_jax import profiling
from rlvr_jax.checkpoint import Checkpointer, GracefulExit
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.samples import SampleStore, SampleWriter
from rlvr_jax.rl import learner, rollout
from rlvr_jax.rl.advantages import group_advantages
from rlvr_jax.rl.algorithms import Algorithm, choose
from rlvr_jax.rl.learner import Learner
from rlvr_jax.rl.types import Rollouts
from rlvr_jax.sampling.types import Item, Sampling
from rlvr_jax.tasks.load import load_problems
from rlvr_jax.tasks.problem import Problem

log = logging.getLogger(__name__)
# keys that may differ between a checkpoint and the run that resumes from it
NOT_IDENTITY = (
  'dry_run', 'metrics', 'profile', 'smoke', 'smoke_values', 'study', 'evaluate', 'distill',
  'verifier', 'train.iterations', 'train.keep', 'train.checkpoint_every', 'train.export',
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
  return choose(
    t.algorithm,
    scale='group_std' if t.std_normalise else 'none',
    eps=t.adv_eps,
    clip_low=t.clip_low,
    clip_high=t.clip_high,
    dual_clip=t.dual_clip,
    aggregation=t.aggregation,
    kl_coef=t.kl_coef,
    kl_kind=t.kl_kind,
  )


@functools.lru_cache(maxsize=4)
def draw_order(seed: int, epoch: int, count: int) -> np.ndarray:
  """The order of the problems in an epoch: a function of (seed, epoch)."""
  return np.random.default_rng([seed, epoch]).permutation(count)


def batch_of(cursor: int, size: int, seed: int, count: int) -> list[tuple[int, int]]:
  """(problem index, visit) of draws [cursor, cursor + size) of the endless shuffled order."""
  draws = []
  for position in range(cursor, cursor + size):
    epoch, place = divmod(position, count)
    draws.append((int(draw_order(seed, epoch, count)[place]), epoch))
  return draws


def train(config: config_lib.Config, workdir: pathlib.Path) -> None:
  """Trains config.model on config.task. Leaves checkpoints, metrics.jsonl, samples, model/.

  Resumes from the last checkpoint in the workdir. Raises ValueError for a config, model or data set
  that does not fit, before anything is sampled; RuntimeError, after saving, when three steps in a
  row had a non-finite loss or gradient.
  """
  algorithm = algorithm_of(config)
  problems, heldout = load_problems(config.task)
  if config.train.eval_every and not heldout:
    raise ValueError(
      'train.eval_every looks at held-out problems, but task.holdout=0; hold some out, or set '
      'train.eval_every=0'
    )
  learn = learner.open_learner(config, algorithm, total_steps=learner.total_steps(config))
  template, capacity = config.task.template, config.sampling.prompt_capacity
  encoded = run_lib.encode_prompts(problems, template, learn.tokenizer, capacity)
  looks = heldout[: config.train.eval_problems]
  looks_encoded = run_lib.encode_prompts(looks, template, learn.tokenizer, capacity)
  identity = learner.identity(config, not_identity(config))
  SampleStore(workdir / 'samples').check_writable()
  engine = run_lib.make_engine(config, None, learn.config, learn.mesh)

  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(
      Checkpointer(
        workdir / 'checkpoints',
        keep=config.train.keep,
        identity=identity,
      )
    )
    start, host = 0, {'skipped_in_row': 0, 'meter': {}}
    if checkpoints.latest() is not None:
      learn.state, host = checkpoints.restore(learn.state)
      start = host['iteration']
      log.info('resumed at iteration %d', start)
    meter = metrics_lib.Meter(host['meter'])
    writer = stack.enter_context(
      metrics_lib.MetricsWriter(
        workdir,
        tensorboard=config.metrics.tensorboard,
        wandb=config.metrics.wandb,
        resume_step=start if start == config.train.iterations else start - 1,
      )
    )
    pool = stack.enter_context(run_lib.make_pool(config, workdir))
    keep_rows = None
    if config.train.store_rollouts:
      keep_rows = stack.enter_context(RolloutWriter(config, learn, workdir, problems, identity))
    exit_asked = stack.enter_context(GracefulExit())
    trace = stack.enter_context(
      profiling.TraceWindow(workdir, config.profile.start, config.profile.stop)
    )
    progress = stack.enter_context(
      metrics_lib.Progress(config.train.iterations, 'training', start=start, plain_every_s=5.0)
    )
    phases = profiling.Phases()
    for iteration in range(start, config.train.iterations):
      trace.at(iteration)
      row: dict[str, Any] = {}
      with phases('hand_over'):
        learn.refresh(engine)

      if heldout and config.train.eval_every and iteration % config.train.eval_every == 0:
        with phases('look'):
          row['eval/pass@1'] = look(config, learn, engine, pool, looks, looks_encoded)
        progress.note(f'iteration {iteration}: held-out pass@1 {row["eval/pass@1"]:.3f}')

      draws = batch_of(
        iteration * config.train.prompts, config.train.prompts, config.seed, len(problems)
      )
      with phases('sample'):
        scored = rollouts_of(config, learn, engine, pool, problems, encoded, draws)
      if keep_rows:
        keep_rows.add(scored)
      if config.sampling.release:
        engine.free()

      with phases('learn'):
        rollouts = assemble(scored)
        advantages = np.asarray(
          group_advantages(
            jnp.asarray(rollouts.rewards),
            jnp.asarray(rollouts.group),
            jnp.asarray(rollouts.valid),
            groups=config.train.prompts,
            baseline_kind=algorithm.baseline,
            scale_kind=algorithm.scale,
            ddof=algorithm.ddof,
            eps=algorithm.eps,
          )
        )
        row |= learn.steps(rollouts, advantages, iteration=iteration)
      row |= rollout_metrics(rollouts, scored) | phases.pop() | {'seconds': meter.seconds}

      host['skipped_in_row'] = learner.count_skips(
        row, host['skipped_in_row'], workdir, iteration, rollouts, advantages
      )
      writer.write(iteration, row)
      progress.update(
        iteration + 1,
        {'reward': row['reward/mean'], 'entropy': row['entropy'], 'gap': row['gap/max']},
      )
      last = iteration + 1 == config.train.iterations
      due = (iteration + 1) % config.train.checkpoint_every == 0
      stuck = host['skipped_in_row'] >= learner.MOST_SKIPS
      if last or due or exit_asked.requested or stuck:
        host |= {'iteration': iteration + 1, 'meter': meter.state()}
        if keep_rows:
          keep_rows.writer.flush()  # first the rows: what a checkpoint has behind it is stored
        checkpoints.save(iteration + 1, learn.state, host)
        if config.sampling.release:
          checkpoints.wait()  # its copy of the state would stand beside the next phase
      if stuck:
        checkpoints.wait()
        raise RuntimeError(learner.stuck_message(workdir, iteration))
      if exit_asked.requested and not last:
        checkpoints.wait()
        progress.note(f'saved at iteration {iteration + 1}; the same command goes on from there')
        return
    if heldout and config.train.eval_every and start < config.train.iterations:
      learn.refresh(engine)
      final = look(config, learn, engine, pool, looks, looks_encoded)
      writer.write(config.train.iterations, {'eval/pass@1': final, 'seconds': meter.seconds})
    engine.free()
    checkpoints.wait()
  if config.train.export:
    learner.export(workdir / 'model', learn)


def look(
  config: config_lib.Config,
  learn: Learner,
  engine,
  pool,
  problems: list[Problem],
  encoded: list[tuple[int, ...]],
) -> float:
  """Mean correctness on held-out problems at training's temperature; the same draws every time."""
  items = [
    Item(i, problem.uid, 0, sample, encoded[i])
    for i, problem in enumerate(problems)
    for sample in range(config.train.eval_samples)
  ]
  scored = run_lib.sample_and_score(
    engine,
    items,
    train_sampling(config, learn),
    problems=problems,
    tokenizer=learn.tokenizer,
    pool=pool,
    stream='probe',
  )
  return float(np.mean([s.verdict.verdict == 'correct' for s in scored]))


def train_sampling(config: config_lib.Config, learn: Learner) -> Sampling:
  """The Sampling of training's rollouts."""
  s = config.sampling
  stop_ids = tuple(learn.tokenizer.eos_ids)
  return Sampling(s.temperature, s.top_p, s.top_k, stop_ids, s.max_tokens, s.extras)


def rollouts_of(
  config: config_lib.Config,
  learn: Learner,
  engine,
  pool,
  problems: list[Problem],
  encoded: list[tuple[int, ...]],
  draws: list[tuple[int, int]],
) -> list[run_lib.Scored]:
  """`group` completions of each drawn problem, in the order (draw, sample) whatever finished first.

  Item.problem is the index into problems; a draw's place in the batch is its group.
  """
  size = config.train.group
  items = [
    Item(index, problems[index].uid, visit, sample, encoded[index])
    for index, visit in draws
    for sample in range(size)
  ]
  place = {draw: group for group, draw in enumerate(draws)}
  scored = run_lib.sample_and_score(
    engine,
    items,
    train_sampling(config, learn),
    problems=problems,
    tokenizer=learn.tokenizer,
    pool=pool,
    stream='train',
  )

  def order(s: run_lib.Scored) -> tuple[int, int]:
    item = s.completion.item
    return place[item.problem, item.visit], item.sample

  return sorted(scored, key=order)


def assemble(scored: list[run_lib.Scored]) -> Rollouts:
  """Scored completions, sorted by group, as padded rollouts."""
  completions = [s.completion for s in scored]
  keys = [(c.item.problem, c.item.visit) for c in completions]
  group = {key: i for i, key in enumerate(dict.fromkeys(keys))}
  return rollout.assemble(
    [c.item.prompt_ids for c in completions],
    [c.tokens for c in completions],
    sampler_logprobs=[c.logprobs for c in completions],
    rewards=[s.verdict.reward for s in scored],
    group=[group[key] for key in keys],
    truncated=[c.truncated for c in completions],
  )


class RolloutWriter:
  """Training's completions into the store under 'train', each once.

  What a killed run stored after its last checkpoint is drawn again, the same, and left out.
  """

  def __init__(
    self,
    config: config_lib.Config,
    learn: Learner,
    workdir: pathlib.Path,
    problems: list[Problem],
    identity: dict[str, Any],
  ):
    store = SampleStore(workdir / 'samples')
    s = train_sampling(config, learn)
    self._problems, self._seed, self._temperature = problems, config.seed, s.temperature
    self._done = store.done('train', problems[0].task)
    self.writer: SampleWriter = store.writer(
      'train',
      problems[0].task,
      {
        **run_lib.sampling_settings(
          s, seed=config.seed, coupling=config.sampling.coupling, stream='train'
        ),
        'run': learner.hash_of(identity),  # rows of another run are refused, not taken for ours
      },
      prompt_hash=run_lib.template_hash(config.task.template, learn.tokenizer),
    )

  def __enter__(self) -> 'RolloutWriter':
    return self

  def __exit__(self, *_) -> None:
    self.writer.close()

  def add(self, scored: list[run_lib.Scored]) -> None:
    """Takes an iteration's completions."""
    for one in scored:
      item = one.completion.item
      problem = self._problems[item.problem]
      if (problem.id, item.visit, item.sample) not in self._done:
        self.writer.append(
          run_lib.store_row(one, problem, seed=self._seed, temperature=self._temperature)
        )


def rollout_metrics(rollouts: Rollouts, scored: list[run_lib.Scored]) -> dict[str, float]:
  """What a practitioner looks at first: rewards, verdicts, lengths, groups with a signal."""
  rewards = np.asarray(rollouts.rewards, np.float64)
  groups = np.asarray(rollouts.group)
  correct = np.array([s.verdict.verdict == 'correct' for s in scored])
  names = [s.verdict.verdict for s in scored]
  solved = [correct[groups == g] for g in np.unique(groups)]
  return {
    'reward/mean': float(rewards.mean()),
    'reward/std': float(rewards.std()),
    'pass@1': float(correct.mean()),
    'pass@group': float(np.mean([g.any() for g in solved])),
    'groups/with_signal': float(np.mean([bool(g.any() and not g.all()) for g in solved])),
    'length/mean': float(np.mean(rollouts.completion_lengths)),
    'length/max': float(np.max(rollouts.completion_lengths)),
    'truncated': float(np.mean(rollouts.truncated)),
    **{f'verdict/{name}': names.count(name) / len(names) for name in sorted(set(names))},
  }
