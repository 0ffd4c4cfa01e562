"""Task families for models from scratch: the quickstart's study on any of them.

  python main.py --config=configs/families.py:paths --workdir=runs/paths
  python main.py --config=configs/families.py:countdown,seed=1 --workdir=runs/countdown

FAMILIES has what makes a family's base and its GRPO on two cores in a minute or two, as dotted keys
on top of configs/base.py; `use(config, NAME)` sets them. docs/families.md has what was measured.
"""

from typing import Any

from configs import base, quickstart
from rlvr_jax import config as config_lib
from rlvr_jax.config import Config

MODEL = {
  'model.init.embed_dim': 96,
  'model.init.mlp_dim': 256,
  'model.init.num_layers': 3,
  'model.init.num_heads': 4,
  'model.init.num_kv_heads': 2,
  'model.init.head_dim': 24,
  'model.remat': 'none',
}
TRAINING = {
  'distill.batch': 256,
  'distill.learning_rate': 2e-3,
  'distill.eval_every': 100,
  'distill.checkpoint_every': 250,
  'optimizer.schedule': 'cosine',
  'optimizer.warmup_steps': 20,
  'train.iterations': 50,
  'train.prompts': 64,
  'train.group': 16,
  'train.micro_tokens': 65_536,
  'train.eval_every': 10,
  'train.eval_problems': 64,
  'train.eval_samples': 16,
  'train.checkpoint_every': 25,
  'sampling.slots': 1024,
  'sampling.bank_rows': 256,
  'sampling.chunk': 16,
  'task.holdout': 200,
  'verifier.workers': 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
  # three numbers and a target (tasks/countdown.py); the values of configs/quickstart.py
  'countdown': {
    **MODEL,
    **TRAINING,
    'task.name': 'countdown',
    'task.params': {'problems': 4000, 'largest': 13, 'target': 99, 'seed': 1},
    'distill.steps': 500,
    'distill.noise': 0.3,
    'sampling.prompt_capacity': 16,
    'sampling.max_tokens': 12,
  },
  # the way from one cell to another past walls (tasks/paths.py)
  'paths': {
    **MODEL,
    **TRAINING,
    'task.name': 'paths',
    'task.params': {
      'problems': 4000, 'size': 5, 'walls': 7, 'longest': 8, 'nearest': 4, 'fewest': 2, 'seed': 1,
    },
    'distill.steps': 500,
    'distill.noise': 0.5,
    'sampling.prompt_capacity': 16,
    'sampling.max_tokens': 12,
  },
  # programs of a tiny language (tasks/machines.py); the held-out problems are of five splits
  'machines': {
    **MODEL,
    **TRAINING,
    'task.name': 'machines',
    'task.params': {'problems': 600, 'train': 'easy', 'cases': 4, 'held': 200, 'seed': 1},
    'distill.steps': 300,
    'distill.noise': 0.3,
    'sampling.prompt_capacity': 16,
    'sampling.max_tokens': 24,
  },
}  # fmt: skip
# what GRPO's arm has beside the base's keys
RL = {
  'optimizer.schedule': 'constant',
  'optimizer.warmup_steps': 0,
  'optimizer.learning_rate': 3e-4,
}
TEXTS = {
  'What was done': (
    'A small model (Qwen2 architecture) was trained from scratch on {what}. GRPO with a true '
    'verifier then trained it further, once an arm (study.run_arms); rl_slow has a sixth of the '
    'learning rate of rl. Base and arms were sampled on problems that no training saw. Every '
    'correct completion is known, and the exact curves are drawn through the sampled ones.'
  ),
}
WHAT = {
  'countdown': (
    'answers to "combine three numbers with + - * to reach a target", a share of which '
    '(distill.noise) are expressions that miss it'
  ),
  'machines': (
    'programs of one or two cases for a tiny machine, a share of which (distill.noise) have '
    'a further case that nobody asked for'
  ),
  'paths': (
    'paths over a small board, a share of which (distill.noise) go to the goal as if there were '
    'no walls'
  ),
}


def use(config: Config, name: str) -> None:
  """Sets a family's keys. ValueError for a name that FAMILIES does not have."""
  if name not in FAMILIES:
    raise ValueError(f'family {name!r} is none of {", ".join(FAMILIES)}')
  for key, value in FAMILIES[name].items():
    config_lib.set_key(config, key, value, f'FAMILIES[{name!r}]')


def get_config(arg: str = ''):
  config = quickstart.get_config()
  chosen = [name for name in FAMILIES if base.take(arg, name)[0]] or ['paths']
  for name in chosen:
    arg = base.take(arg, name)[1]
  use(config, chosen[-1])
  for heading in list(config.study.texts):
    del config.study.texts[heading]
  config.study.texts.update(
    {heading: text.format(what=WHAT[chosen[-1]]) for heading, text in TEXTS.items()}
  )
  return base.with_presets(config, arg)
