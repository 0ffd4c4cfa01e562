"""What a run shows of itself: metrics of its rollouts, looks at held-out problems, stored rows."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax import hosts
from rlvr_jax.config import Config
from rlvr_jax.eval import pass_at_k
from rlvr_jax.eval import run as run_lib
from rlvr_jax.eval.run import Scored
from rlvr_jax.eval.samples import SampleStore, SampleWriter
from rlvr_jax.rl import replay
from rlvr_jax.rl.collect import Collected, Group, Source, part_metrics, train_sampling
from rlvr_jax.rl.draws import BASE, POLICY, origins
from rlvr_jax.rl.types import Rollouts
from rlvr_jax.tasks.mixed import FAMILY

SOLVED_BINS = (0.0, 0.25, 0.5, 0.75, 1.0)  # edges of the histogram of groups' solve rates


def look(source: Source) -> dict[str, float]:
  """Unbiased pass@k on the source's (held-out) problems at training's temperature.

  `train.eval_samples` draws of each, the same keys at every look; k: 1, 2, 4, ... up to them. Of a
  mixture also of each family.
  """
  config = source.config
  size = config.train.eval_samples
  items = [source.item(i, 0, sample) for i in range(len(source.problems)) for sample in range(size)]
  correct = np.zeros(len(source.problems), np.int64)
  for scored in source.draw(items, train_sampling(config, source.tokenizer.eos_ids), 'probe'):
    correct[scored.completion.item.problem] += scored.verdict.verdict == 'correct'
  ks = sorted({1 << i for i in range(size.bit_length())} | {size})
  ks = [k for k in ks if k <= size]
  values = pass_at_k.estimate(np.full(len(correct), size), correct, ks)
  row = {f'eval/pass@{k}': float(v) for k, v in zip(ks, values.mean(axis=0), strict=True)}
  labels = [problem.meta.get(FAMILY) for problem in source.problems]
  for label in dict.fromkeys(filter(None, labels)):
    own = values[[one == label for one in labels]].mean(axis=0)
    row |= {f'eval/{label}/pass@{k}': float(v) for k, v in zip(ks, own, strict=True)}
  return row


def rollout_metrics(config: Config, rollouts: Rollouts, collected: Collected) -> dict[str, float]:
  """What a practitioner looks at first: rewards, verdicts, lengths, groups with a signal."""
  rewards = np.asarray(rollouts.rewards, np.float64)
  scored = [s for group in collected.groups for s in group.scored]
  names = np.array([s.verdict.verdict for s in scored])
  rates = np.array([group.correct[_own(config, group)].mean() for group in collected.groups])
  right = np.concatenate([group.correct[_own(config, group)] for group in collected.groups])
  completions = [s.completion for group in collected.drawn for s in group.scored]
  used = len(scored)
  lengths = rollouts.completion_mask.sum(axis=1)  # tokens of the model
  row = {
    'reward/mean': float(rewards.mean()),
    'reward/std': float(rewards.std()),
    'pass@1': float(right.mean()),
    'pass@group': float((rates > 0).mean()),
    'groups/with_signal': float(((rates > 0) & (rates < 1)).mean()),
    **solved(rates),
    'length/mean': float(np.mean(lengths)),
    'length/max': float(np.max(lengths)),
    'truncated': float(np.mean(rollouts.truncated)),
    'tokens/drawn': float(sum(c.drawn for c in completions)),
    'samples/drawn': float(len(completions)),
    'samples/drawn_per_used': len(completions) / used,
    'groups/dropped': float(collected.dropped),
    'groups/queued': float(len(collected.queue)),
  }
  for name in sorted(set(names.tolist())):
    row[f'verdict/{name}'] = float((names == name).mean())
    row[f'reward/{name}'] = float(rewards[names == name].mean())
  row |= replay.metrics(config, collected.groups, collected.past.stored)
  if config.train.base_share:  # the start model's own solve rate
    other = [g.correct[origins(config, g) == BASE] for g in collected.groups]
    row['base/pass@1'] = float(np.concatenate(other).mean())
  return row | part_metrics(config, collected.groups) | turn_metrics(scored)


def _own(config: Config, group: Group) -> np.ndarray:
  """bool[G] the policy's own completions; all where it wrote none."""
  own = origins(config, group) == POLICY
  return own if own.any() else np.ones_like(own)


def turn_metrics(scored: Sequence[Scored]) -> dict[str, float]:
  """Of conversations: completions in them, tokens of observations, shares that ended early."""
  talks = [s.completion for s in scored if s.completion.turns]
  turns = [talk.turns for talk in talks if talk.turns]
  if not turns:
    return {}
  return {
    'turns/mean': float(np.mean([one.count for one in turns])),
    'turns/max': float(np.max([one.count for one in turns])),
    'turns/observed_tokens': float(np.mean([len(talk.tokens) - talk.drawn for talk in talks])),
    'turns/outgrown': float(np.mean([one.outgrown for one in turns])),
    'turns/failed': float(np.mean([bool(one.failed) for one in turns])),
  }


def solved(rates: np.ndarray) -> dict[str, float]:
  """Shares of groups by solve rate: none, up to a quarter, a half, three quarters, all."""
  row = {'solved/0': float((rates == 0).mean()), 'solved/1': float((rates == 1).mean())}
  for low, high in itertools.pairwise(SOLVED_BINS):
    inside = (rates > low) & (rates <= high) & (rates > 0) & (rates < 1)
    row[f'solved/to_{high:g}'] = float(inside.mean())
  return row


def named_gaps(config: Config, row: Mapping[str, float]) -> dict[str, float]:
  """The row, with gap/* as behaviour/* where others than the policy wrote some completions.

  What differs there is who wrote them, not how sampler and learner compute.
  """
  if not config.train.base_share and not config.train.replay:
    return dict(row)
  return {key.replace('gap/', 'behaviour/'): value for key, value in row.items()}


def speeds(row: Mapping[str, float]) -> dict[str, float]:
  """Tokens a second of an iteration's phases: those drawn by sampling and judging, those learnt."""
  found = {}
  for phase, tokens in (
    ('sample', row['tokens/drawn']),
    ('verify', row['tokens/drawn']),
    ('learn', row['tokens']),
  ):
    seconds = row.get(f'seconds/{phase}', 0.0)
    if seconds > 0:
      found[f'seconds/tokens_per_s/{phase}'] = tokens / seconds
  return found


class RolloutWriter:
  """Training's completions into the store under 'train', each once.

  What a killed run stored after its last checkpoint is drawn again, the same, and left out.
  """

  def __init__(self, source: Source, workdir: pathlib.Path, run: str):
    """run stands for the run's identity: rows of another are refused, not taken for ours."""
    config, tokenizer, problems = source.config, source.tokenizer, source.problems
    store = SampleStore(workdir / 'samples')
    sampling = train_sampling(config, tokenizer.eos_ids)
    self._problems, self._seed, self._temperature = problems, config.seed, sampling.temperature
    self._done = set(store.done('train', problems[0].task))
    self.writer: SampleWriter = store.writer(
      'train',
      problems[0].task,
      {
        **run_lib.sampling_settings(
          sampling,
          seed=config.seed,
          coupling=config.sampling.coupling,
          stream='train',
          rules=source.rules,
        ),
        'run': run,
      },
      prompt_hash=run_lib.template_hash(config.task.template, tokenizer),
    )

  def __enter__(self) -> 'RolloutWriter':
    return self

  def __exit__(self, *_) -> None:
    self.writer.close()

  def add(self, groups: Sequence[Group]) -> None:
    """Takes what an iteration drew; each process keeps its share."""
    own = (groups[i] for i in hosts.mine(len(groups)))
    for one in (s for group in own for s in group.scored):
      item = one.completion.item
      problem = self._problems[item.problem]
      if (problem.id, item.visit, item.sample) not in self._done:
        self.writer.append(
          run_lib.store_row(one, problem, seed=self._seed, temperature=self._temperature)
        )


def advantage_metrics(advantages: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
  """Mean, deviation, extremes of advantages [B,T] over tokens under the mask; share of zeros."""
  values = np.asarray(advantages, np.float64)[mask]
  if not values.size:
    return {}
  return {
    'advantage/mean': float(values.mean()),
    'advantage/std': float(values.std()),
    'advantage/min': float(values.min()),
    'advantage/max': float(values.max()),
    'advantage/zero': float((values == 0).mean()),
  }
