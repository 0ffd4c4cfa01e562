"""DAPO of Qwen2.5-32B (Yu et al. 2025, arXiv 2503.14476, and run_dapo_qwen2.5_32b.sh of verl).

  python main.py --config=configs/dapo_qwen32b.py --config.task.path=dapo/math17k.jsonl

512 prompts x 16 completions, 16 optimizer steps of 32 prompts each, learning rate 1e-6 after a
warm-up, weight decay 0.1, no KL, clip 0.2/0.28 with dual clip 10, dynamic sampling, a punishment
that grows over the last 4096 of 20480 tokens, temperature 1. task.path: DAPO-Math-17k, integer
answers; the prompt ("abel") asks for a last line "Answer: ...".

It fits 32 chips of TPU v5p (v5p-64; docs/plan.md), where sampling.memory_gb is what the sampler's
weights and cache take of a chip's 95 GiB.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'train'
  config.model.name = 'Qwen/Qwen2.5-32B'
  config.model.compute_dtype = 'bfloat16'
  config.task.update({'name': 'jsonl', 'path': 'dapo/math17k.jsonl', 'template': 'abel'})
  config.task.params.update({'task': 'dapo'})
  config.task.verifier = 'math'
  config.task.holdout = 128
  config.mesh.update({'data': 1, 'fsdp': -1, 'tensor': 4})
  config.sampling.tensor = 8  # devices that share the sampler's weights
  config.optimizer.learning_rate = 1e-6
  # the paper's 20 rollout steps (its script: 10), each of 16 optimizer steps
  config.optimizer.warmup_steps = 320
  config.optimizer.weight_decay = 0.1
  # clip_high 0.28, dual_clip 10, the band and overlong_share 4096/20480 are the row's own
  config.train.algorithm = 'dapo'
  config.train.overlong_factor = 0.5  # of rewards in 0..1; theirs are -1 and 1, its factor 1
  config.train.update({'iterations': 300, 'prompts': 512, 'group': 16, 'minibatch': 32})
  config.train.update({'micro_tokens': 24_576, 'most_draws': 10})
  config.train.update({'eval_every': 10, 'eval_problems': 128, 'eval_samples': 4})
  config.train.checkpoint_every = 10
  config.sampling.update({'slots': 2048, 'bank_rows': 512, 'prompt_capacity': 2048, 'chunk': 64})
  config.sampling.update({'max_tokens': 20_480, 'memory_gb': 64.0, 'release': True})
  config.verifier.workers = 16
  config.smoke_values.update(
    {
      'train.iterations': 1,
      'train.prompts': 4,
      'train.group': 2,
      'train.minibatch': 2,
      'train.eval_problems': 2,
      'sampling.slots': 16,
      'sampling.bank_rows': 8,
      'sampling.max_tokens': 64,
      'sampling.memory_gb': 0.0,
      'sampling.tensor': 0,
      'mesh.tensor': 1,
    }
  )
  return base.with_presets(config, arg)
