"""Algorithms on Omni-MATH with seeds: figures 8 and 15, tables 2 and 3 of arXiv 2504.13837.

  python main.py --config=configs/study_algorithms.py --workdir=runs/study_algorithms

Qwen2.5-7B, six algorithms with three training seeds each by the recipe of rlvr_omnimath_qwen7b.py
(150 iterations), GRPO of seed 0 to 450 with checkpoints at 150 and 300, KL 1e-3 and groups of 4, 16
and 32 (one seed, marked), and three runs with a coin in place of the verifier. Every model is
sampled 256 times on the 821 test problems. The paper's checkpoints are not released, so that they
are trained here: a cluster's work. The same on a laptop: configs/study_quickstart.py, or
configs/algorithms.py.
"""

from configs import base, rlvr_omnimath_qwen7b

NAMES = ('ppo', 'grpo', 'reinforce_pp', 'rloo', 'remax', 'dapo')
SEEDS = (0, 1, 2)


def get_config(arg: str = ''):
  config = rlvr_omnimath_qwen7b.get_config('dapo')  # clips open; the other rows set them
  config.job = 'study'
  config.sampling.max_tokens = 16_384  # of measuring; training's 8,192 are the arms'
  for name in list(config.study.arms):
    del config.study.arms[name]
  arms = _arms()
  config.study.arms.update(base.dotted(arms))
  config.study.run_arms = tuple(arms)
  config.study.headline = 'grpo-0'
  config.study.title = 'Algorithms on Omni-MATH-Rule: figures 8 and 15, tables 2 and 3'
  config.smoke_values.update(
    {
      'train.iterations': 3,
      'evaluate.n': 4,
      'evaluate.headline_k': 1,
      'study.run_arms': ('grpo-0', 'grpo-long', 'random-0'),
      'study.headline': 'grpo-0',
    }
  )
  return base.with_presets(config, arg)


def _arms():
  arms = {
    f'{name}-{seed}': {**_row(name), 'seed': seed, 'part': 'algorithms'}
    for name in NAMES
    for seed in SEEDS
  }
  one = {**_row('grpo'), 'seed': 0}
  arms['grpo-long'] = {
    **one, 'train.iterations': 450, 'measure': (150, 300), 'part': 'dynamics', 'label': '450 steps'
  }  # fmt: skip
  arms['kl-0.001'] = {
    **one, 'train.kl_coef': 1e-3, 'train.kl_kind': 'k3_st', 'part': 'kl', 'label': 'KL 0.001'
  }  # fmt: skip
  for size in (4, 16, 32):
    label = f'groups of {size}'
    arms[f'group-{size}'] = {**one, 'train.group': size, 'part': 'group', 'label': label}
  for seed in SEEDS:
    arms[f'random-{seed}'] = {
      **one, 'seed': seed, 'reward.control': 'random', 'part': 'control', 'label': 'a coin'
    }  # fmt: skip
  return arms


def _row(name: str):
  """The recipe's cells that differ between algorithms, and training's length of completions."""
  values = {'train.algorithm': name, 'sampling.max_tokens': 8192}
  if name != 'dapo':  # its row has its own
    values |= {'train.clip_low': 0.2, 'train.clip_high': 0.2, 'train.dual_clip': 3.0}
  return values
