"""job=distill: a student learns from texts or from a teacher, by RL's forward and update.

distill.method=sft: cross-entropy on (prompt, completion) pairs, packed, from the task's own corpus,
a file, or a store of a teacher's samples (rl/teacher_data.py). logits: on the same pairs the
teacher's whole distribution (forward KL). on_policy: reverse KL at the student's own samples
(rl/distill_losses.py).
"""

import contextlib
import dataclasses
import logging
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlvr_jax import config as config_lib
from rlvr_jax import graceful, hosts, profiling, watch
from rlvr_jax import metrics as metrics_lib
from rlvr_jax.checkpoint import Checkpointer, GracefulExit
from rlvr_jax.eval import run as run_lib
from rlvr_jax.models.config import ModelConfig
from rlvr_jax.models.load import load_tokenizer
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.models.transformer import Params
from rlvr_jax.rl import ends, learner, observe, rollout, skips, teacher_data
from rlvr_jax.rl.algorithms import ALGORITHMS
from rlvr_jax.rl.collect import Source, batch_of, open_source, share, train_sampling, with_prompt
from rlvr_jax.rl.distill_losses import check_tokenizers, make_logit_update, reverse_kl_advantages
from rlvr_jax.rl.identity import identity_of
from rlvr_jax.rl.teacher_data import Pair
from rlvr_jax.rl.train import NOT_IDENTITY
from rlvr_jax.rl.types import Rollouts
from rlvr_jax.rl.update import make_score
from rlvr_jax.tasks.load import family, load_problems
from rlvr_jax.tasks.pool import pool_of
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.prompts import writes_bos

log = logging.getLogger(__name__)
# here the learning rate, the steps (the schedule's length) and the data decide the numbers
SFT_NOT_IDENTITY = (
  *(key for key in NOT_IDENTITY if key != 'distill'),
  'train', 'distill.export', 'distill.checkpoint_every',
)  # fmt: skip


def pair_source(
  config: config_lib.Config,
  problems: Sequence[Problem],
  held_out: Sequence[Problem] = (),
  tokenizer: Tokenizer | None = None,
) -> Callable[[int], list[Pair]]:
  """The pairs of step i: a function of (seed, i), so that a resumed run needs no other state."""
  d = config.distill
  if d.source:
    taught = teacher_data.read(
      d.source,
      problems,
      held_out,
      template=config.task.template,
      tokenizer=tokenizer.hf if tokenizer else None,
      author=d.author,
      correct_only=d.correct_only,
      most=d.most,
    )
    log.info('%s: %s', d.source, taught.describe())
    pairs = taught.pairs
    return lambda i: [pairs[j] for j, _ in batch_of(i * d.batch, d.batch, config.seed, len(pairs))]
  own = family(config.task)
  if own is None or not hasattr(own, 'corpus'):
    raise ValueError(
      f"distill.source='': task.name={config.task.name!r} has no corpus of its own; name a JSONL "
      'file of {"prompt": ..., "completion": ...}, or a store of a teacher\'s samples'
    )

  def draw(i: int) -> list[Pair]:
    rng = random.Random(f'distill {config.seed} {i}')
    chosen = rng.choices(problems, k=d.batch)
    pairs: list[Pair] = own.corpus(chosen, seed=rng.getrandbits(32), noise=d.noise)
    if not any(problem.images for problem in chosen):
      return pairs
    return [(problem, text) for problem, (_, text) in zip(chosen, pairs, strict=True)]

  return draw


def encode_pairs(
  pairs: list[Pair],
  tokenizer: Tokenizer,
  *,
  mask_prompt: bool,
  special: bool = False,
  encode: Callable[[Problem], Sequence[int]] | None = None,
) -> Rollouts:
  """Pairs as rollouts: completion tokens and EOS carry loss, prompt tokens only if not masked.

  encode: of prompts that are problems, since they have images.
  """
  eos = tokenizer.eos_ids[0]
  prompts: list[Sequence[int]] = []
  for prompt, _ in pairs:
    if isinstance(prompt, str):
      prompts.append(tokenizer.encode(prompt, special=special))
    else:
      assert encode is not None
      prompts.append(encode(prompt))
  completions = [
    np.array([*tokenizer.encode(text, special=False), eos], np.int32) for _, text in pairs
  ]
  rollouts = rollout.assemble(prompts, completions)
  if mask_prompt:
    return rollouts
  index = np.arange(rollouts.tokens.shape[1])[None]
  ends = (rollouts.prompt_lengths + rollouts.completion_lengths)[:, None]
  return rollouts.replace(completion_mask=(index >= 1) & (index < ends))


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A model whose distributions are learnt: score is that of update.make_score for it."""

  config: ModelConfig
  params: Params
  score: Callable


def open_teacher(config: config_lib.Config, learn: learner.Learner) -> Teacher:
  """distill.teacher on the student's mesh, in the compute dtype. ValueError: another tokenizer."""
  name, m = config.distill.teacher, config.model
  check_tokenizers(learn.tokenizer, load_tokenizer(name), name)
  model_config, params = learner.open_frozen(name, m.compute_dtype, learn.mesh)
  score = make_score(
    model_config, compute_dtype=m.compute_dtype, chunk=m.logprob_chunk, mesh=learn.mesh
  )
  return Teacher(model_config, params, score)


# (metrics, what was learnt from, advantages) of a step
Step = Callable[[int], tuple[dict[str, Any], Rollouts, np.ndarray]]


def pairs_step(
  config: config_lib.Config, learn: learner.Learner, draw: Callable[[int], list[Pair]]
) -> Step:
  """Steps on pairs: cross-entropy, or with distill.method=logits the teacher's distributions."""
  d, m = config.distill, config.model
  template, capacity = config.task.template, config.sampling.prompt_capacity
  special = not writes_bos(template)

  vision, known = run_lib.sees(config, learn.config), {}

  def encode(problem: Problem) -> Sequence[int]:
    key = problem.task, problem.id  # each is drawn again and again, and images are read and hashed
    if key not in known:
      found = run_lib.encode_prompts([problem], template, learn.tokenizer, capacity, vision)
      known[key] = found[0]
    return known[key]

  def rollouts_of(step: int) -> tuple[Rollouts, np.ndarray]:
    rollouts = encode_pairs(
      draw(step), learn.tokenizer, mask_prompt=d.mask_prompt, special=special, encode=encode
    )
    return rollouts, np.ones(len(rollouts.rewards), np.float32)

  def sft(step: int):
    rollouts, ones = rollouts_of(step)
    return learn.one_step(rollouts, ones), rollouts, ones

  if d.method == 'sft':
    return sft
  teacher = open_teacher(config, learn)
  trains = 'float32' if config.lora.rank else m.dtype
  update = make_logit_update(
    learn.config,
    teacher.config,
    learner.optimizer_of(config, d.learning_rate, d.steps, trains),
    vocabulary=learn.tokenizer.vocab_size,
    compute_dtype=m.compute_dtype,
    remat=m.remat,
    chunk=m.logprob_chunk,
    mesh=learn.mesh,
    trained=learn.trained,
  )

  def logits(step: int):
    rollouts, ones = rollouts_of(step)
    learn.state, metrics = update(learn.state, learn.placed(rollouts), teacher.params)
    row = {key: float(value) for key, value in jax.device_get(metrics).items()}
    return row | {'skipped/trailing': row['skipped'], 'steps': 1.0}, rollouts, ones

  return logits


def on_policy_step(config: config_lib.Config, learn: learner.Learner, source: Source) -> Step:
  """Steps on the student's own samples: distill.batch problems, a completion of each."""
  d = config.distill
  teacher = open_teacher(config, learn)
  sampling = train_sampling(config, learn.tokenizer.eos_ids)

  def step_on(step: int):
    learn.refresh(source.engine)
    draws = batch_of(step * d.batch, d.batch, config.seed, len(source.problems))
    items = [source.item(index, visit, 0) for index, visit in draws]
    place = {(item.problem, item.visit): i for i, item in enumerate(items)}
    engine = source.engine
    own = [with_prompt(one, ()) for one in engine.run(share(items), sampling, stream='train')]
    drawn = sorted(
      (one for part in hosts.exchange(own, 'the drawn completions') for one in part),
      key=lambda one: place[one.item.problem, one.item.visit],
    )
    rollouts = rollout.assemble(
      [source.encoded[one.item.problem] for one in drawn],
      [one.tokens for one in drawn],
      sampler_logprobs=[one.logprobs for one in drawn],
      truncated=[one.truncated for one in drawn],
    )
    mine, _ = learn.logprobs(learn.params, rollouts)
    its, _ = learn.logprobs(teacher.params, rollouts, teacher.score)
    mask = rollouts.completion_mask
    advantages = reverse_kl_advantages(mine, its, mask)
    row = learn.one_step(rollouts, advantages)
    row['kl_teacher'] = float(-advantages[mask].mean())
    row['truncated'] = float(rollouts.truncated.mean())
    return row, rollouts, advantages

  return step_on


def distill(config: config_lib.Config, workdir: pathlib.Path) -> None:
  """Fine-tunes (or trains from scratch) config.model; leaves checkpoints, metrics.jsonl, model/."""
  assert not config.mesh.auto, 'rlvr_jax.layouts.distill chooses the mesh'
  d = config.distill
  problems, heldout = load_problems(config.task)
  on_policy = d.method == 'on_policy'
  algorithm = ALGORITHMS['reinforce' if on_policy else 'sft']
  learn = learner.open_learner(
    config,
    algorithm,
    total_steps=d.steps,
    learning_rate=d.learning_rate,
  )
  draw = None if on_policy else pair_source(config, problems, heldout, learn.tokenizer)
  looks = heldout[: config.train.eval_problems] if d.eval_every else []
  template, capacity = config.task.template, config.sampling.prompt_capacity
  sees = run_lib.sees(config, learn.config)
  looks_encoded = run_lib.encode_prompts(looks, template, learn.tokenizer, capacity, sees)
  engine = run_lib.make_engine(config, None, learn.config, learn.mesh)

  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(
      Checkpointer(
        workdir / 'checkpoints',
        keep=config.train.keep,
        keep_every=config.train.keep_every,
        keep_steps=config.train.keep_steps,
        identity=identity_of(config, SFT_NOT_IDENTITY),
      )
    )
    start, host = 0, {'skipped_in_row': 0, 'meter': {}}
    if checkpoints.latest() is not None:
      host = learn.restore(checkpoints)
      start = host['iteration']
      log.info('resumed at step %d', start)
    ends.write_form(workdir, learn)
    meter = metrics_lib.Meter(host['meter'])
    writer = stack.enter_context(
      metrics_lib.MetricsWriter(
        workdir,
        enabled=hosts.is_first(),
        tensorboard=config.metrics.tensorboard,
        wandb=config.metrics.wandb,
        resume_step=start - 1,
      )
    )
    pool = stack.enter_context(pool_of(config.verifier, workdir))
    held_out = open_source(config, engine, pool, learn.tokenizer, looks, looks_encoded)
    if draw is None:
      encoded = run_lib.encode_prompts(problems, template, learn.tokenizer, capacity, sees)
      own = open_source(config, engine, pool, learn.tokenizer, problems, encoded)
      take_step = on_policy_step(config, learn, own)
    else:
      take_step = pairs_step(config, learn, draw)
    exit_asked = stack.enter_context(GracefulExit())
    progress = stack.enter_context(
      metrics_lib.Progress(
        d.steps, 'fine-tuning', start=start, plain_every_s=5.0, enabled=hosts.is_first()
      )
    )
    phases = profiling.Phases()
    for step in range(start, d.steps):
      watch.note(iteration=step)
      row: dict[str, Any] = {}
      last = step + 1 == d.steps
      if looks and (step % d.eval_every == 0 or last):
        with phases('look'):
          learn.refresh(engine)
          row |= observe.look(held_out)
        progress.note(f'step {step}: held-out pass@1 {row["eval/pass@1"]:.3f}')
      with phases('learn'):
        found, rollouts, advantages = take_step(step)
        row |= found
      row |= phases.pop() | {'seconds': meter.seconds}
      host['skipped_in_row'] = skips.count_skips(
        row, host['skipped_in_row'], workdir, step, rollouts, advantages
      )
      writer.write(step, row)
      progress.update(step + 1, {'loss': row['loss']})
      stuck = host['skipped_in_row'] >= skips.MOST_SKIPS
      due = (step + 1) % d.checkpoint_every == 0 or checkpoints.stays(step + 1)
      leaving = hosts.anyone(exit_asked.requested)
      if last or due or leaving or stuck:
        host |= {'iteration': step + 1, 'meter': meter.state()}
        writer.flush()
        learn.save(checkpoints, step + 1, host)
      if stuck:
        checkpoints.wait()
        raise RuntimeError(skips.stuck_message(workdir, step))
      if leaving and not last:
        checkpoints.wait()
        progress.note(f'saved at step {step + 1}; {graceful.resume_line()}')
        return
    engine.free()
    checkpoints.wait()
  if d.export:
    ends.export(workdir / 'model', learn)
