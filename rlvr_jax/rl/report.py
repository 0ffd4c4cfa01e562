"""The end of a training run: a small boundary report of what it started from and what it became.

`train.report` draws of each held-out problem (up to train.eval_problems) from both models go into
the run's sample store, under 'start' and 'step-N'; report.html and results.json stand beside it.
"""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlvr_jax import config as config_lib
from rlvr_jax import hosts
from rlvr_jax.config import Config
from rlvr_jax.eval import sample as sample_lib
from rlvr_jax.eval.drawn import measured
from rlvr_jax.eval.figures import Panel
from rlvr_jax.eval.publish import publish
from rlvr_jax.metrics import Meter, read_metrics
from rlvr_jax.models.transformer import Params
from rlvr_jax.rl import learner
from rlvr_jax.rl.learner import Learner
from rlvr_jax.tasks.load import content_hash
from rlvr_jax.tasks.problem import Problem

log = logging.getLogger(__name__)
PANELS = (
  Panel('reward/mean', 'training reward', percent=True),
  Panel('eval/pass@1', 'held-out pass@1', percent=True),
  Panel('entropy', 'entropy (nats per token)'),
  Panel('groups/with_signal', 'groups with a signal', percent=True),
  Panel('gap/max', 'sampler-learner gap, max', log=True),
  Panel('grad_norm', 'gradient norm', log=True),
)


def panels_of(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Panel]:
  """Those of PANELS that some row of some run has: without looks there is no held-out pass@1."""
  known = {key for rows in runs.values() for row in rows for key in row}
  return [panel for panel in PANELS if panel.key in known]


def write(
  config: Config,
  workdir: pathlib.Path,
  learn: Learner,
  heldout: list[Problem],
  *,
  seconds: float,
  iterations: int,
) -> None:
  """Samples both models (what is stored is not drawn again) and writes the report.

  iterations: how many the run had.
  """
  if not config.train.report:
    return
  if not heldout:
    log.warning('no boundary report: task.holdout=0 leaves no problems to measure on')
    return
  problems = heldout[: config.train.eval_problems or None]
  meter = Meter({'seconds': seconds}) if seconds else Meter()
  measuring = _measuring(config)
  found = []
  end = f'step-{int(learn.state.step)}'
  for name, role in (('start', 'base'), (end, 'rl')):
    params = learn.params if name == end else _start_params(config, learn)
    params = jax.tree.map(lambda x: x.astype(config.model.compute_dtype), params)
    hosts.say(f'boundary report: sampling {name}')
    with sample_lib.exit_when_stopped():
      drawn, _ = sample_lib.draw(
        measuring,
        workdir,
        problems,
        content_hash(config.task),
        loaded=(learn.config, params, learn.tokenizer),
        weights=f'{sample_lib.params_hash(params)} {config.model.compute_dtype}',
        name=name,
        show_settings=False,
      )
    del params
    trained: dict[str, Any] = {}
    if name == end:
      trained = {'algorithm': config.train.algorithm, 'seed': config.seed}
      trained['step'] = iterations
    if hosts.is_first():
      found.append(measured(drawn, role, **trained))
  if not hosts.is_first():
    return
  rows = read_metrics(workdir / 'metrics.jsonl')
  publish(
    measuring,
    workdir,
    drawn.store,
    found,
    problems,
    headline=('start', end),
    title=f'{config.name or config.train.algorithm}: {config.train.algorithm} on '
    f'{problems[0].task}, before and after',
    seconds=meter.seconds,
    sampler_learner_gap=gap_of({end: rows}),
    training={end: rows},
    panels=panels_of({end: rows}),
  )


def _measuring(config: Config) -> Config:
  """The run's config with an evaluation of train.report draws."""
  changed = config.copy_and_resolve_references()
  n = config.train.report
  keys = {
    'evaluate.n': n,
    'evaluate.ks': (),
    'evaluate.headline_k': max(1, n // 4),
    'evaluate.temperature': config.sampling.temperature,
    'evaluate.top_p': 1.0,
    'evaluate.top_k': 0,
    'sampling.first': 0,
    'sampling.stop_after': 0,
    'dry_run': False,
  }
  for key, value in keys.items():
    config_lib.set_key(changed, key, value, 'train.report')
  return changed


def _start_params(config: Config, learn: Learner) -> Params:
  """The model the run started from, loaded (or initialised) again."""
  _, params, _ = learner.open_model(config, learn.mesh)
  return params


def gap_of(training: dict[str, list[dict[str, Any]]]) -> dict[str, float] | None:
  """Largest and mean |sampler - learner| log-prob over all iterations of all runs (nats)."""
  rows = [row for run in training.values() for row in run if 'gap/max' in row]
  if not rows:
    return None
  return {
    'max': float(max(row['gap/max'] for row in rows)),
    'mean': float(np.mean([row['gap/mean'] for row in rows])),
  }
