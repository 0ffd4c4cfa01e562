"""Ten algorithms on the quickstart's task, three seeds each, one table: pass@1 and pass@256.

  python main.py --config=configs/algorithms.py --workdir=runs/algorithms

One base model, then an RL arm for each (algorithm, seed) from it: the six of arXiv 2504.13837,
Dr.GRPO, GSPO, CISPO and PKPO, with the same data, steps and learning rate. All are sampled 1024
times on held-out problems. The report's first table has one line an algorithm, with intervals over
problems and seeds together. Killed, the same command goes on.

Another set: --config=configs/algorithms.py:names=(grpo,nsr),seeds=5
"""

import re

from configs import base, quickstart

NAMES = (
  'ppo', 'grpo', 'reinforce_pp', 'rloo', 'remax', 'dapo', 'dr_grpo', 'gspo', 'cispo', 'pkpo',
)  # fmt: skip
SEEDS = 3
TEXTS = {
  'What was done': (
    "A small base model was trained on the quickstart's task, and each algorithm trained it "
    'further by RL: the same problems in an order of its own seed, the same number of iterations, '
    'completions and optimizer steps, one learning rate, the other cells of its row of '
    'docs/algorithms.md as they are. One learning rate for all is a choice: an algorithm may do '
    'better at another.'
  ),
}


def get_config(arg: str = ''):
  names, seeds, arg = _arms(arg)
  config = quickstart.get_config()
  config.critic.learning_rate = 1e-3
  config.train.eval_every = 25
  config.evaluate.headline_k = 256
  rl = {
    'optimizer.schedule': 'constant',
    'optimizer.warmup_steps': 0,
    'optimizer.learning_rate': 3e-4,
  }
  for name in list(config.study.arms):
    del config.study.arms[name]
  arms = {
    f'{name}-{seed}': {**rl, 'train.algorithm': name, 'seed': seed}
    for name in names
    for seed in range(1, seeds + 1)
  }
  config.study.arms.update(base.dotted(arms))
  config.study.run_arms = tuple(arms)
  for heading in list(config.study.texts):
    del config.study.texts[heading]
  config.study.texts.update(TEXTS)
  config.study.title = 'Algorithms on one small task'
  return base.with_presets(config, arg)


def _arms(arg: str) -> tuple[tuple[str, ...], int, str]:
  """Names and seeds of the argument, and what is left of it."""
  names, seeds = NAMES, SEEDS
  if found := re.search(r'names=\(([^)]*)\),?', arg):
    names = tuple(word.strip() for word in found[1].split(',') if word.strip())
    arg = arg.replace(found[0], '')
  if found := re.search(r'seeds=(\d+),?', arg):
    seeds = int(found[1])
    arg = arg.replace(found[0], '')
  return names, seeds, arg.strip(', ')
