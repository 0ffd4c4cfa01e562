"""The paper's comparison of algorithms (arXiv 2504.13837, section 4.3): Qwen2.5-7B on Omni-MATH.

  python main.py --config=configs/rlvr_omnimath_qwen7b.py:rloo

The argument's first word is the algorithm: ppo, grpo, reinforce_pp, rloo, remax or dapo (or any
other row of docs/algorithms.md); without one, grpo.

Stated: base model, no KL term, 128 prompts x 8 completions of at most 8192 tokens at temperature 1,
2000 training and 821 test problems of Omni-MATH-Rule (its split is not published: a seeded one of
ours, docs/datasets.md), figure 27's prompt without a chat template; measured at temperature 0.6,
top_p 0.95 from n = 256 completions (of 16384 tokens: --config.sampling.max_tokens=16384 when
measuring). Tables 2 and 3 have 150, 300 and 450 steps of GRPO, so that 150 is taken for all.
Nothing else is stated; what is set to a value of ours says so below.
"""

from configs import base


def get_config(arg: str = ''):
  algorithm, _, rest = arg.partition(',')
  if not algorithm or algorithm in base.presets() or '=' in algorithm:
    algorithm, rest = 'grpo', arg
  config = base.get_config()
  config.job = 'train'
  config.model.name = 'Qwen/Qwen2.5-7B'
  config.model.compute_dtype = 'bfloat16'
  config.task.update({'name': 'omni_math_rule', 'template': 'deepseek-r1'})
  config.mesh.update({'data': 1, 'fsdp': -1, 'tensor': 1})

  config.train.algorithm = algorithm
  config.train.kl_coef = 0.0
  config.train.update({'iterations': 150, 'prompts': 128, 'group': 8})
  config.train.minibatch = 0  # ours: one optimizer step an iteration, so that no clip is active
  config.train.epochs = 1  # ours
  config.train.aggregation = 'token_mean'  # ours, also what verl does
  if algorithm != 'dapo':
    config.train.update({'clip_low': 0.2, 'clip_high': 0.2})  # ours; dapo's row has its own
    config.train.dual_clip = 3.0  # ours, verl's default
  config.optimizer.learning_rate = 1e-6  # ours, constant and without warm-up
  config.optimizer.weight_decay = 0.01  # ours, verl's default
  config.optimizer.clip_norm = 1.0  # ours
  config.critic.learning_rate = 1e-5  # ours, verl's default; of ppo alone
  config.seed = 0  # not stated, nor how many; what is said of an algorithm needs at least 3

  config.train.micro_tokens = 32_768
  config.train.update({'eval_every': 10, 'eval_problems': 128, 'eval_samples': 4})
  config.train.update({'checkpoint_every': 50, 'keep': 9})  # 150, 300, 450 all stay
  config.sampling.update({'slots': 1024, 'bank_rows': 128, 'prompt_capacity': 1024, 'chunk': 64})
  config.sampling.max_tokens = 8192
  config.sampling.release = True
  config.evaluate.update({'n': 256, 'headline_k': 64, 'temperature': 0.6, 'top_p': 0.95})
  config.verifier.workers = 16
  config.smoke_values.update(
    {
      'train.iterations': 1,
      'train.prompts': 4,
      'train.group': 2,
      'train.eval_problems': 2,
      'task.holdout': 8,
      'sampling.slots': 16,
      'sampling.bank_rows': 8,
      'sampling.max_tokens': 64,
    }
  )
  return base.with_presets(config, rest)
