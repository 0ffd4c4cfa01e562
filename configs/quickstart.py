"""The paper in a box: base model, GRPO, boundary report; offline, on a laptop's CPU, in minutes.

  python main.py --config=configs/quickstart.py --workdir=runs/quickstart

A small Qwen2-architecture model is trained from scratch on a noisy corpus of answers to "combine
three numbers to reach a target", then by GRPO with a true verifier; base and RL are sampled 1024
times on held-out problems. Every correct answer can be enumerated, so the report draws the exact
pass@k through the sampled one.
"""

from configs import base

TEXTS = {
  'What was done': (
    'A small model (Qwen2 architecture) was trained from scratch on answers to "combine '
    'three numbers with + - * to reach a target"; a share of its corpus (distill.noise) are '
    'expressions that miss the target. GRPO with a true verifier then trained it further, once an '
    'arm (study.run_arms); rl_slow has a sixth of the learning rate of rl. Base and arms were '
    'sampled on problems that no training saw. The question is that of arXiv 2504.13837: does RL '
    'solve what the base cannot or find sooner what the base finds with more tries?\n\n'
    'A completion is a bare expression, so every correct one is known (at most 162 expressions a '
    "problem) and a model's exact chance of solving a problem is a finite sum of probabilities "
    'from the same forward pass. The exact curves are drawn through the sampled ones: where they '
    'agree, the instrument measures what it says.'
  ),
  'Why this task, and what makes the effect vanish': (
    'The task was chosen because the effect shows on it within minutes; that it shows here says '
    'nothing of how often it shows elsewhere. The base spreads its guesses over a small space of '
    'answers, so that many tries find almost everything; a policy that commits has something to '
    'lose. How much it loses depends on how hard it is pushed: compare the arms, which differ '
    'in the learning rate alone. By construction it vanishes as the learning rate, the number of '
    'iterations (--config.train.iterations) or the distance allowed from the base '
    '(--config.train.kl_coef) makes the trained model approach the base; and where the base has '
    'nothing to lose at large k, nothing can be lost.'
  ),
}


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'study'
  config.task.name = 'countdown'
  config.task.holdout = 200
  config.task.params.update({'problems': 4000, 'largest': 13, 'target': 99, 'seed': 1})
  config.model.init.update(
    {'embed_dim': 96, 'mlp_dim': 256, 'num_layers': 3, 'num_heads': 4, 'num_kv_heads': 2}
  )
  config.model.init.head_dim = 24
  config.model.remat = 'none'

  # the base: supervised on the task's corpus, of which 30% are expressions that miss the target
  config.distill.update(
    {'steps': 500, 'batch': 256, 'learning_rate': 2e-3, 'noise': 0.3, 'eval_every': 100}
  )
  config.distill.checkpoint_every = 250
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 20

  # RL: the study's arms override what differs
  config.train.update({'iterations': 50, 'prompts': 64, 'group': 16, 'micro_tokens': 65_536})
  config.train.update({'eval_every': 10, 'eval_problems': 64, 'eval_samples': 16})
  config.train.checkpoint_every = 25
  rl = {'optimizer.schedule': 'constant', 'optimizer.warmup_steps': 0}
  config.study.arms.update(
    base.dotted(
      {
        'rl': {**rl, 'optimizer.learning_rate': 3e-4},
        'rl_slow': {**rl, 'optimizer.learning_rate': 5e-5},
      }
    )
  )
  config.study.run_arms = ('rl', 'rl_slow')
  config.study.texts.update(TEXTS)

  config.sampling.update({'slots': 1024, 'bank_rows': 256, 'prompt_capacity': 16, 'chunk': 16})
  config.sampling.max_tokens = 12
  config.evaluate.update({'n': 1024, 'headline_k': 256, 'problems': 200})
  config.verifier.workers = 1

  config.smoke_values.update(
    {
      'distill.steps': 120,
      'distill.batch': 128,
      'distill.eval_every': 60,
      'train.iterations': 6,
      'train.prompts': 16,
      'train.eval_every': 3,
      'task.holdout': 24,
      'evaluate.problems': 24,
      'evaluate.n': 64,
      'evaluate.headline_k': 16,
      'sampling.bank_rows': 64,
      'sampling.slots': 256,
    }
  )
  return base.with_presets(config, arg)
