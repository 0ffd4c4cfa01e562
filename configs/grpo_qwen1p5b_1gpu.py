"""GRPO of all weights of Qwen2.5-1.5B on one GPU of 80 GB; SimpleRL-Zoo's recipe, smaller.

  python main.py --config=configs/grpo_qwen1p5b_1gpu.py --config.task.path=simplerl/train.jsonl

Learning rate, KL, clip, temperature and prompt are SimpleRL-Zoo's (configs/grpo_qwen7b.py); 128
prompts x 8 completions of at most 4096 tokens in 4 optimizer steps are ours, to fit an hour's
attention and the memory (docs/memory.md). Weights and moments float32, computation bfloat16.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'train'
  config.model.name = 'Qwen/Qwen2.5-1.5B'
  config.model.compute_dtype = 'bfloat16'
  config.task.update({'name': 'jsonl', 'path': 'simplerl/train.jsonl', 'template': 'qwen-boxed'})
  config.task.params.update({'task': 'simplerl'})
  config.task.verifier = 'math'
  config.task.holdout = 128
  config.optimizer.learning_rate = 5e-7
  config.optimizer.weight_decay = 0.01
  config.train.update({'iterations': 200, 'prompts': 128, 'group': 8, 'minibatch': 32})
  config.train.update({'micro_tokens': 32_768, 'kl_coef': 1e-4, 'kl_kind': 'k3_st'})
  config.train.update({'eval_every': 10, 'eval_problems': 128, 'eval_samples': 4})
  config.train.checkpoint_every = 20
  config.sampling.update({'slots': 512, 'bank_rows': 128, 'prompt_capacity': 1024, 'chunk': 64})
  config.sampling.update({'max_tokens': 4096, 'memory_gb': 40.0, 'release': True})
  config.verifier.workers = 8
  config.smoke_values.update(
    {
      'train.iterations': 1,
      'train.prompts': 4,
      'train.group': 2,
      'train.minibatch': 2,
      'train.eval_problems': 2,
      'sampling.max_tokens': 64,
    }
  )
  return base.with_presets(config, arg)
