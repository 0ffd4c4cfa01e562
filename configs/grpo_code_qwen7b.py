"""GRPO of Qwen2.5-7B-Instruct-1M on programs, by Code-R1's recipe (main_grpo.sh of its repo).

  python main.py --config=configs/grpo_code_qwen7b.py

16 prompts x 16 completions in one optimizer step, KL 1e-3 in the loss (its k3; ours k3_st), clip
0.2, temperature 1, prompts of 2048 and completions of 4096 tokens, 832 steps over 12K LeetCode and
TACO problems. As given it runs on one GPU of 80 GB: adapters of rank 32 over frozen bfloat16
weights at 10 times the learning rate (ours); :full trains all weights at Code-R1's 5e-7.

Tests run in the sandbox of docs/sandbox.md; task.path takes Code-R1's file where it is at hand.
"""

from configs import base


def get_config(arg: str = ''):
  full, arg = base.take(arg, 'full')
  config = base.get_config()
  config.job = 'train'
  config.model.name = 'Qwen/Qwen2.5-7B-Instruct-1M'
  config.model.compute_dtype = 'bfloat16'
  config.task.update({'name': 'code_r1_12k', 'template': 'chat'})
  config.task.holdout = 128
  config.optimizer.learning_rate = 5e-7
  config.optimizer.weight_decay = 0.01  # not stated; verl's default
  config.train.update({'iterations': 832, 'prompts': 16, 'group': 16, 'micro_tokens': 24_576})
  config.train.update({'kl_coef': 1e-3, 'kl_kind': 'k3_st'})
  config.train.update({'eval_every': 32, 'eval_problems': 128, 'eval_samples': 4})
  config.train.checkpoint_every = 32
  config.sampling.update({'slots': 256, 'bank_rows': 32, 'prompt_capacity': 2048, 'chunk': 64})
  config.sampling.max_tokens = 4096
  config.sampling.release = True
  config.verifier.update({'workers': 16, 'limit_s': 30.0})
  if not full:
    base.low_rank(config, rank=32, learning_rate=5e-6)
    config.train.micro_tokens = 12_288
    config.sampling.memory_gb = 48.0
  config.smoke_values.update(
    {
      'train.iterations': 1,
      'train.prompts': 2,
      'train.group': 2,
      'train.eval_problems': 2,
      'sampling.max_tokens': 64,
    }
  )
  return base.with_presets(config, arg)
