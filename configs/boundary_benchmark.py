"""Which training keeps what the base can solve: methods at one budget of tokens, one leaderboard.

  python main.py --config=configs/boundary_benchmark.py --workdir=runs/boundary

Two families of small tasks; in each one base, trained from scratch, and every method from it with
five seeds, all with the same number of sampled tokens. Base and models are sampled 1024 times on
200 held-out problems. leaderboard.html says which methods beat GRPO at one try and are not
inferior to the base at 1024. Killed, the same command goes on. docs/boundary_benchmark.md.

Another method: --config.benchmark.add=my_method.py. All methods and families: --config.full.
"""

from configs import base, quickstart
from configs.families import FAMILIES
from configs.methods import METHODS, TIMED

COMMON = {
  'train.iterations': 400,  # at most: train.tokens ends it
  'train.eval_every': 0,
  'train.checkpoint_every': 200,
  'train.keep': 1,
  'train.store_rollouts': False,
  'optimizer.schedule': 'constant',
  'optimizer.warmup_steps': 0,
  'optimizer.learning_rate': 3e-4,
  'critic.learning_rate': 1e-3,
}

# rewards of 1 and 0, which methods that count right answers ask for; by its verifier a program of
# this family gets the share of tests that it passes
BINARY = {'machines': {'reward.parts': {'exact': 1.0}}}
HERE = {name: {**keys, **BINARY.get(name, {})} for name, keys in FAMILIES.items()}

SMOKE = {  # on top of a family
  'model.init.num_layers': 2,
  'distill.steps': 150,
  'distill.batch': 128,
  'train.prompts': 16,
  'train.micro_tokens': 128,  # one row: most batches then have one shape, compiled once
  'task.holdout': 24,
  'sampling.slots': 256,
  'sampling.bank_rows': 64,
}
# fewer problems, which every model's run makes anew, and such that so small a base solves some
EASY = {
  'countdown': {'problems': 1000},
  'paths': {'problems': 1000, 'size': 4, 'walls': 4, 'longest': 6, 'nearest': 2},
}


def _smoke(name):
  params = {**HERE[name]['task.params'], **EASY.get(name, {})}
  return {**HERE[name], **SMOKE, 'task.params': params}


def get_config(arg: str = ''):
  config = quickstart.get_config()
  config.job = 'benchmark'
  config.study.title = 'Training methods and the reasoning boundary'
  for group in (config.study.texts, config.study.arms):
    for name in list(group):
      del group[name]
  config.study.run_arms = ()
  config.evaluate.update({'n': 1024, 'headline_k': 256, 'problems': 200})

  config.benchmark.families.update(base.dotted(HERE))
  config.benchmark.methods.update(base.dotted(METHODS))
  config.benchmark.common.update(base.dotted(COMMON))
  config.benchmark.run_families = ('countdown', 'paths')
  config.benchmark.run_methods = TIMED
  config.full_values.update(
    {'benchmark.run_families': tuple(FAMILIES), 'benchmark.run_methods': tuple(METHODS)}
  )
  for key in list(config.smoke_values):  # the quickstart's
    del config.smoke_values[key]
  config.smoke_values.update(
    {
      'benchmark.families': base.dotted({name: _smoke(name) for name in HERE}),
      'benchmark.run_families': ('countdown', 'paths'),
      'benchmark.seeds': 2,
      'benchmark.tokens': 4_000,
      'benchmark.k': 64,
      'evaluate.n': 64,
      'evaluate.headline_k': 16,
      'evaluate.problems': 24,
    }
  )
  return base.with_presets(config, arg)
