"""job=benchmark: training methods at one budget of tokens, held against their base and GRPO.

For each family of tasks a study (study.py) in WORKDIR/FAMILY: the base, and every method with every
seed from it. Then one leaderboard over all (eval/leaderboard.py): leaderboard.html, results.json.
What is done is not done again: another method, seed or family only adds what it needs.
"""

import logging
import pathlib

import numpy as np

from rlvr_jax import benchmark_table as table
from rlvr_jax import config as config_lib
from rlvr_jax import hosts, stages, study, study_stages
from rlvr_jax import metrics as metrics_lib
from rlvr_jax.eval import leaderboard, leaderboard_page
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.leaderboard import Family, Rules, Trained
from rlvr_jax.eval.publish import provenance
from rlvr_jax.rl.train import algorithm_of
from rlvr_jax.stages import BASE

log = logging.getLogger(__name__)

TOKENS = 'tokens/sampled'  # so far, in metrics.jsonl


def benchmark(config: config_lib.Config, workdir: pathlib.Path) -> None:
  """Runs what is missing of the benchmark in workdir and writes its page.

  ValueError for a family or method that does not fit, before anything is computed.
  """
  b = config.benchmark
  rules = rules_of(config)
  studies = {name: table.study_of(config, name) for name in table.families(config)}
  for name, one in studies.items():
    check_arms(one, workdir / name)
  methods = list(table.methods(config))
  models = len(methods) * b.seeds
  hosts.say(
    f'{len(studies)} families ({", ".join(studies)}) x {len(methods)} methods '
    f'({", ".join(methods)}) x {b.seeds} seeds: {len(studies) * models} models of '
    f'{b.tokens:,} sampled tokens each, measured by {config.evaluate.n:,} samples a problem'
  )
  if config.dry_run:
    hosts.say('dry_run: the config is sound; nothing was computed')
    return
  families, seconds, done = [], 0.0, {}
  for name, one in studies.items():
    folder = config_lib.prepare_workdir(workdir / name)
    hosts.say(f'family {name}')
    with config_lib.recorded(one, folder, write=hosts.is_first()):
      done[name] = _measured(one, folder, name)
    seconds += done[name].clock.seconds
    if hosts.is_first():
      families.append(_scored(config, name, folder, done[name], rules))
      missing = [other for other in studies if other not in done]
      _write(config, workdir, families, rules, seconds, missing)  # what is known so far
  if hosts.is_first():
    for name in studies if b.reports else ():
      study.write(studies[name], workdir / name, done[name])
    hosts.say(leaderboard.sentence(families, rules))


def rules_of(config: config_lib.Config) -> Rules:
  """What is asked of a method. ValueError for what cannot be asked of so many samples."""
  b, e, s = config.benchmark, config.evaluate, config.sampling
  if b.k > e.n:
    raise ValueError(
      f'benchmark.k={b.k} is above evaluate.n={e.n}, the samples of a problem; raise '
      'evaluate.n or lower benchmark.k'
    )
  if s.first or s.stop_after:
    raise ValueError(
      f'sampling.first={s.first}, sampling.stop_after={s.stop_after}: a benchmark draws evaluate.n '
      'samples of every problem; set both to 0'
    )
  if e.confidence <= 0.5:
    raise ValueError(f'evaluate.confidence={e.confidence} must be above 0.5 for one-sided bounds')
  return Rules(b.k, b.margin, b.reference, e.confidence, e.bootstrap, config.seed, b.tokens)


def _measured(one: config_lib.Config, folder: pathlib.Path, name: str) -> study.Measurements:
  try:
    return study.measure(one, folder)
  except RuntimeError as error:
    raise RuntimeError(
      f'{error}\nfamily {name} of the benchmark ended there. What was done is kept; the same '
      'command tries that arm again, and --config.benchmark.run_methods without its method (or '
      '--config.benchmark.add without its file) goes on without it'
    ) from error


def check_arms(config: config_lib.Config, workdir: pathlib.Path) -> None:
  """Refuses what does not fit in any arm of a study, before the first one runs."""
  rows = stages.table(config)
  for stage in rows:
    staged = study_stages.stage_config(config, workdir, rows, stage)
    if stage.job == 'train':
      algorithm_of(staged)


def _scored(
  config: config_lib.Config,
  name: str,
  folder: pathlib.Path,
  measured: study.Measurements,
  rules: Rules,
) -> Family:
  there = {model.name: _judged(model.counts, config.evaluate.n) for model in measured.models}
  methods = {
    method: [
      Trained(
        seed,
        there[table.arm(method, seed)],
        sampled_tokens(stages.folder_of(folder, table.arm(method, seed))),
      )
      for seed in range(1, config.benchmark.seeds + 1)
    ]
    for method in table.methods(config)
  }
  return leaderboard.score(name, there[BASE], methods, rules)


def _judged(counts: Counts, n: int) -> Counts:
  """With samples whose verifier failed as wrong ones, so that k = n can be asked of all."""
  failed = int((n - counts.n).sum())
  if failed:
    log.warning('%d samples that the verifier failed on count as wrong', failed)
  return Counts(counts.problem_ids, np.full(len(counts), n), counts.c)


def sampled_tokens(folder: pathlib.Path) -> int:
  """Tokens that a run's training sampled, from its metrics. ValueError where it counted none."""
  counted = [
    int(row[TOKENS]) for row in metrics_lib.read_metrics(folder / 'metrics.jsonl') if TOKENS in row
  ]
  if not counted:
    raise ValueError(f'{folder}/metrics.jsonl has no {TOKENS}; delete the folder to train it again')
  return max(counted)


def _write(
  config: config_lib.Config,
  workdir: pathlib.Path,
  families: list[Family],
  rules: Rules,
  seconds: float,
  missing: list[str],
) -> None:
  leaderboard_page.write(
    workdir,
    families,
    rules,
    title=config.study.title or 'Training methods and the reasoning boundary',
    labels=table.labels(config),
    seconds=seconds,
    provenance=provenance(config),
    texts=list(config.study.texts.items()),
    missing=missing,
    reports=config.benchmark.reports,
    controls=table.controls(config),
  )
