"""Training that goes on: ten times the quickstart, over three task families, with seeds.

  python main.py --config=configs/study_scaling.py --workdir=runs/study_scaling

After ProRL (arXiv 2505.24864): one base, trained from scratch on countdown, paths and paths on a
larger board; from it GRPO over all three for 500 iterations: plain, held to the base by a KL term,
and with that term's reference and the optimizer reset every 100 iterations; three seeds each.
Checkpoints and ends are measured on held-out problems of all. The report has pass@1 and pass@k over
the iterations, with intervals over problems and seeds, and says whether any setting ever passes the
base. docs/training_loop.md says more.
"""

from typing import Any

from configs import base, families, quickstart

SEEDS = (1, 2, 3)
ITERATIONS = 500  # the quickstart has 50
RESET_EVERY = 100
MEASURE = (50, 100, 200, 350)
FAR = {
  'problems': 4000, 'size': 6, 'walls': 14, 'longest': 12, 'nearest': 8, 'fewest': 1, 'seed': 1,
}  # fmt: skip
MIXTURE = {
  **{name: {'params': families.FAMILIES[name]['task.params']} for name in ('countdown', 'paths')},
  'far': {'name': 'paths', 'params': FAR},
}
# of the KL term: the straight-through estimate, whose gradient is that of the reverse KL
KL = {'train.kl_in': 'loss', 'train.kl_kind': 'k3_st', 'train.kl_coef': 0.05}
SETTINGS: dict[str, dict[str, Any]] = {
  'plain': {'label': 'GRPO'},
  'kl': {**KL, 'label': 'KL to the base'},
  'resets': {**KL, 'train.reset_every': RESET_EVERY, 'label': 'KL, reset every 100'},
}
TEXTS = {
  'What was done': (
    'A small model (Qwen2 architecture) was trained from scratch on answers to three families of '
    'problems, "combine three numbers to reach a target" and paths over a small and a larger '
    'board; a share distill.noise of them is wrong. GRPO then went on over all three, in three '
    'settings of three seeds: plain; with a KL term that holds the policy to the base; and with '
    'that term, whose reference becomes the policy itself every hundred iterations, while the '
    'optimizer begins anew (ProRL, arXiv 2505.24864). All problems are held out; of all families '
    'every correct completion is known, so that pass@k is exact.'
  ),
}


def get_config(arg: str = ''):
  config = quickstart.get_config()
  families.use(config, 'paths')  # the sizes, which are those of countdown too
  config.task.name = 'mixed'
  config.task.params = base.dotted(MIXTURE)
  config.task.holdout = 300
  # pass@k is exact: the draws are a check on it
  config.evaluate.update({'n': 128, 'headline_k': 32, 'problems': 300})
  config.sampling.update({'prompt_capacity': 24, 'max_tokens': 16})
  config.distill.update({'steps': 1000, 'noise': 0.4, 'eval_every': 0, 'checkpoint_every': 500})
  config.train.iterations = ITERATIONS
  config.train.update({'eval_every': 0, 'checkpoint_every': 50, 'keep': 2})
  config.train.store_rollouts = False
  for group in (config.study.texts, config.study.arms):
    for name in list(group):
      del group[name]
  arms = _arms(MEASURE)
  config.study.arms.update(base.dotted(arms))
  config.study.run_arms = tuple(arms)
  config.study.headline = 'plain-1'
  config.study.title = 'Ten times the iterations: does longer training pass the base?'
  config.study.texts.update(TEXTS)

  for key in list(config.smoke_values):  # the quickstart's
    del config.smoke_values[key]
  small = {name: arm for name, arm in _arms((2,)).items() if not name.endswith('-3')}
  for name, arm in small.items():
    if name.startswith('resets'):
      arm['train.reset_every'] = 2
  config.smoke_values.update(
    {
      'study.arms': base.dotted(small),
      'study.run_arms': tuple(small),
      'task.holdout': 24,
      'distill.steps': 60,
      'distill.batch': 128,
      'train.iterations': 4,
      'train.prompts': 8,
      'train.group': 8,
      'train.checkpoint_every': 2,
      'evaluate.problems': 24,
      'evaluate.n': 32,
      'evaluate.headline_k': 8,
      'evaluate.bootstrap': 500,
      'sampling.slots': 256,
      'sampling.bank_rows': 64,
    }
  )
  return base.with_presets(config, arg)


def _arms(measure: tuple[int, ...]) -> dict[str, dict[str, Any]]:
  return {
    f'{name}-{seed}': {
      **families.RL, **values, 'seed': seed, 'measure': measure, 'part': 'dynamics',
    }
    for name, values in SETTINGS.items()
    for seed in SEEDS
  }  # fmt: skip
