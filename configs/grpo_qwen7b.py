"""GRPO of Qwen2.5-7B by SimpleRL-Zoo's recipe (README and train_grpo_math_tune_ray.sh of its repo).

  python main.py --config=configs/grpo_qwen7b.py --config.task.path=simplerl/train.jsonl
  python main.py --config=configs/grpo_qwen7b.py:1gpu --config.task.path=simplerl/train.jsonl

1024 prompts x 8 completions, 4 optimizer steps of 256 prompts each, learning rate 5e-7, KL 1e-4 in
the loss (its k3, whose gradient is biased; ours is k2's through k3_st), clip 0.2, temperature 1,
8192 tokens, prompt "qwen-boxed". Its entropy bonus of 1e-3 is left out. task.path: the 8K GSM8K and
MATH problems as JSONL with question and answer.

:1gpu is the same on one GPU of 80 GB: adapters of rank 32 over frozen bfloat16 weights, an eighth
of the prompts, 10 times the learning rate (all three ours; docs/memory.md has the bytes).

As it is, it fits 64 chips of TPU v5e (16 GB each) and 8 of v5p (docs/plan.md). Where there is room,
raise sampling.memory_gb: --config.job=plan --config.plan.topology=v5p-16 says how far.
"""

from configs import base


def get_config(arg: str = ''):
  one_gpu, arg = base.take(arg, '1gpu')
  config = base.get_config()
  config.job = 'train'
  config.model.name = 'Qwen/Qwen2.5-7B'
  config.model.compute_dtype = 'bfloat16'
  config.task.update({'name': 'jsonl', 'path': 'simplerl/train.jsonl', 'template': 'qwen-boxed'})
  config.task.params.update({'task': 'simplerl'})
  config.task.verifier = 'math'
  config.task.holdout = 128
  config.mesh.update({'data': 1, 'fsdp': -1, 'tensor': 2})
  config.sampling.tensor = 4  # devices that share the sampler's weights: one has no room for them
  config.optimizer.learning_rate = 5e-7
  config.optimizer.weight_decay = 0.01
  config.train.update({'iterations': 120, 'prompts': 1024, 'group': 8, 'minibatch': 256})
  config.train.update({'micro_tokens': 32_768, 'kl_coef': 1e-4, 'kl_kind': 'k3_st'})
  config.train.update({'eval_every': 10, 'eval_problems': 128, 'eval_samples': 4})
  config.train.checkpoint_every = 10
  config.sampling.update({'slots': 1024, 'bank_rows': 256, 'prompt_capacity': 1024, 'chunk': 64})
  config.sampling.update({'max_tokens': 8192, 'memory_gb': 12.0, 'release': True})
  config.verifier.workers = 16
  if one_gpu:
    base.low_rank(config, rank=32, learning_rate=5e-6)
    config.mesh.tensor, config.sampling.tensor = 1, 0
    config.train.update({'prompts': 128, 'minibatch': 32, 'micro_tokens': 16_384})
    config.sampling.update({'slots': 128, 'bank_rows': 64, 'memory_gb': 48.0})
  config.smoke_values.update(
    {
      'train.iterations': 1,
      'train.prompts': 8,
      'train.group': 2,
      'train.minibatch': 4,
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
