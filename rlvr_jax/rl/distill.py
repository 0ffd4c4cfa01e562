"""job=distill: supervised fine-tuning on (prompt, completion) pairs, by RL's forward and update.

Pairs come from a JSONL file ({"prompt": ..., "completion": ...}) or from the task's own corpus.
"""

import contextlib
import json
import logging
import pathlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from rlvr_jax import config as config_lib
from rlvr_jax import metrics as metrics_lib
from rlvr_jax import profiling
from rlvr_jax.checkpoint import Checkpointer, GracefulExit
from rlvr_jax.eval import run as run_lib
from rlvr_jax.models.tokenizer import Tokenizer
from rlvr_jax.rl import ends, learner, observe, rollout, skips
from rlvr_jax.rl.algorithms import ALGORITHMS
from rlvr_jax.rl.collect import batch_of, open_source
from rlvr_jax.rl.train import NOT_IDENTITY
from rlvr_jax.rl.types import Rollouts
from rlvr_jax.tasks.load import family, load_problems
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.prompts import writes_bos

log = logging.getLogger(__name__)
Pair = tuple[str, str]
# here the learning rate, the steps (the schedule's length) and the data decide the numbers
SFT_NOT_IDENTITY = (
  *(key for key in NOT_IDENTITY if key != 'distill'),
  'train', 'distill.export', 'distill.checkpoint_every',
)  # fmt: skip


def read_pairs(path: str) -> list[Pair]:
  """(prompt, completion) of each line of a JSONL file; ValueError names file and line."""
  pairs = []
  file = pathlib.Path(path)
  if not file.is_file():
    raise ValueError(f'distill.source={path!r}: there is no such file')
  with file.open(encoding='utf-8') as lines:
    for number, line in enumerate(lines, 1):
      if not line.strip():
        continue
      try:
        row = json.loads(line)
        pair = row['prompt'], row['completion']
      except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
          f'{path}:{number}: expected {{"prompt": ..., "completion": ...}}, found {error!r}'
        ) from error
      if not all(isinstance(text, str) and text for text in pair):
        raise ValueError(f'{path}:{number}: prompt and completion must be non-empty text')
      pairs.append(pair)
  if not pairs:
    raise ValueError(f'distill.source={path!r} holds no pairs')
  return pairs


def pair_source(config: config_lib.Config, problems: list[Problem]) -> Callable[[int], list[Pair]]:
  """The pairs of step i: a function of (seed, i), so that a resumed run needs no other state."""
  size = config.distill.batch
  if config.distill.source:
    pairs = read_pairs(config.distill.source)
    return lambda i: [pairs[j] for j, _ in batch_of(i * size, size, config.seed, len(pairs))]
  own = family(config.task)
  if own is None or not hasattr(own, 'corpus'):
    raise ValueError(
      f"distill.source='': task.name={config.task.name!r} has no corpus of its own; name a JSONL "
      'file of {"prompt": ..., "completion": ...}'
    )

  def draw(i: int) -> list[Pair]:
    rng = random.Random(f'distill {config.seed} {i}')
    chosen = rng.choices(problems, k=size)
    return own.corpus(chosen, seed=rng.getrandbits(32), noise=config.distill.noise)

  return draw


def encode_pairs(
  pairs: list[Pair], tokenizer: Tokenizer, *, mask_prompt: bool, special: bool = False
) -> Rollouts:
  """Pairs as rollouts: completion tokens and EOS carry loss, prompt tokens only if not masked."""
  eos = tokenizer.eos_ids[0]
  prompts = [tokenizer.encode(prompt, special=special) for prompt, _ in pairs]
  completions = [
    np.array([*tokenizer.encode(text, special=False), eos], np.int32) for _, text in pairs
  ]
  rollouts = rollout.assemble(prompts, completions)
  if mask_prompt:
    return rollouts
  index = np.arange(rollouts.tokens.shape[1])[None]
  ends = (rollouts.prompt_lengths + rollouts.completion_lengths)[:, None]
  return rollouts.replace(completion_mask=(index >= 1) & (index < ends))


def distill(config: config_lib.Config, workdir: pathlib.Path) -> None:
  """Fine-tunes (or trains from scratch) config.model; leaves checkpoints, metrics.jsonl, model/."""
  d = config.distill
  problems, heldout = load_problems(config.task)
  draw = pair_source(config, problems)
  learn = learner.open_learner(
    config, ALGORITHMS['sft'], total_steps=d.steps, learning_rate=d.learning_rate
  )
  looks = heldout[: config.train.eval_problems] if d.eval_every else []
  template, capacity = config.task.template, config.sampling.prompt_capacity
  looks_encoded = run_lib.encode_prompts(looks, template, learn.tokenizer, capacity)
  engine = run_lib.make_engine(config, None, learn.config, learn.mesh)

  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(
      Checkpointer(
        workdir / 'checkpoints',
        keep=config.train.keep,
        identity=learner.identity(config, SFT_NOT_IDENTITY),
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
        tensorboard=config.metrics.tensorboard,
        wandb=config.metrics.wandb,
        resume_step=start - 1,
      )
    )
    pool = stack.enter_context(run_lib.make_pool(config, workdir))
    held_out = open_source(config, engine, pool, learn.tokenizer, looks, looks_encoded)
    exit_asked = stack.enter_context(GracefulExit())
    progress = stack.enter_context(
      metrics_lib.Progress(d.steps, 'fine-tuning', start=start, plain_every_s=5.0)
    )
    phases = profiling.Phases()
    for step in range(start, d.steps):
      row: dict[str, Any] = {}
      last = step + 1 == d.steps
      if looks and (step % d.eval_every == 0 or last):
        with phases('look'):
          learn.refresh(engine)
          row |= observe.look(held_out)
        progress.note(f'step {step}: held-out pass@1 {row["eval/pass@1"]:.3f}')
      with phases('learn'):
        rollouts = encode_pairs(
          draw(step), learn.tokenizer, mask_prompt=d.mask_prompt, special=not writes_bos(template)
        )
        ones = np.ones(len(rollouts.rewards), np.float32)
        row |= learn.one_step(rollouts, ones)
      row |= phases.pop() | {'seconds': meter.seconds}
      host['skipped_in_row'] = skips.count_skips(
        row, host['skipped_in_row'], workdir, step, rollouts, ones
      )
      writer.write(step, row)
      progress.update(step + 1, {'loss': row['loss']})
      stuck = host['skipped_in_row'] >= skips.MOST_SKIPS
      if last or (step + 1) % d.checkpoint_every == 0 or exit_asked.requested or stuck:
        host |= {'iteration': step + 1, 'meter': meter.state()}
        learn.save(checkpoints, step + 1, host)
      if stuck:
        checkpoints.wait()
        raise RuntimeError(skips.stuck_message(workdir, step))
      if exit_asked.requested and not last:
        checkpoints.wait()
        progress.note(f'saved at step {step + 1}; the same command goes on from there')
        return
    engine.free()
    checkpoints.wait()
  if d.export:
    ends.export(workdir / 'model', learn)
