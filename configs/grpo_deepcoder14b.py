"""GRPO+ of DeepSeek-R1-Distill-Qwen-14B on programs, by the model card of DeepCoder-14B-Preview.

  python main.py --config=configs/grpo_deepcoder14b.py

Stated: GRPO without KL and entropy terms, clip-higher, truncated completions left out of the loss,
a context of 16K and then 32K, 24K problems filtered by difficulty beforehand. From its repository's
scripts: learning rate 1e-6, losses averaged over a completion first, clip 0.2/0.28, temperature
0.6 with top_p 0.95 (ours: temperature 0.6 with top_p 1, so that log-probs are those of what was
drawn). Ours: 32 prompts x 8 completions, and adapters of rank 32 at 10 times the learning rate, so
that it runs on one GPU of 80 GB; :full trains all weights, 128 prompts x 16. The second stage goes
on from the first: --config.model.name=runs/grpo_deepcoder14b --config.sampling.max_tokens=32768
--config.train.micro_tokens=34816, in a workdir of its own.

Tests run in the sandbox of docs/sandbox.md.
"""

from configs import base


def get_config(arg: str = ''):
  full, arg = base.take(arg, 'full')
  config = base.get_config()
  config.job = 'train'
  config.model.name = 'deepseek-ai/DeepSeek-R1-Distill-Qwen-14B'
  config.model.compute_dtype = 'bfloat16'
  config.task.update({'name': 'deepcoder', 'template': 'deepcoder'})
  config.task.holdout = 128
  config.optimizer.learning_rate = 1e-6
  config.optimizer.weight_decay = 0.01  # not stated; verl's default
  config.train.update({'iterations': 200, 'prompts': 128, 'group': 16, 'micro_tokens': 18_432})
  config.train.update({'clip_high': 0.28, 'aggregation': 'seq_mean_token_mean'})
  config.train.overlong_filter = True
  config.train.update({'eval_every': 20, 'eval_problems': 64, 'eval_samples': 4})
  config.train.checkpoint_every = 20
  config.sampling.update({'slots': 512, 'bank_rows': 128, 'prompt_capacity': 2048, 'chunk': 64})
  config.sampling.update({'temperature': 0.6, 'max_tokens': 16_384, 'release': True})
  config.verifier.update({'workers': 16, 'limit_s': 30.0})
  if not full:
    base.low_rank(config, rank=32, learning_rate=1e-5)
    config.train.update({'prompts': 32, 'group': 8})
    config.model.logprob_chunk = 512
    config.sampling.update({'slots': 14, 'bank_rows': 3, 'memory_gb': 40.0})
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
