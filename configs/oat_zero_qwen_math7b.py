"""Dr. GRPO of Qwen2.5-Math-7B, by Oat-Zero's recipe (Liu et al. 2025, arXiv 2503.20783; README).

  python main.py --config=configs/oat_zero_qwen_math7b.py --config.task.path=math/train.jsonl

128 prompts x 8 completions, optimizer steps of 128 completions (16 prompts), constant learning rate
1e-6, no KL, losses divided by the 3000 tokens of the cap, advantages not by their deviation,
temperature 1; MATH's 12K training problems (levels 3 to 5: filter them into the file). The prompt
is the 7B model's ("qwen25-math-cot", figure 22). The model has 4096 positions.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'train'
  config.model.name = 'Qwen/Qwen2.5-Math-7B'
  config.model.compute_dtype = 'bfloat16'
  config.task.update({'name': 'jsonl', 'path': 'math/train.jsonl', 'template': 'qwen25-math-cot'})
  config.task.params.update({'task': 'math'})
  config.task.verifier = 'math'
  config.task.holdout = 128
  config.mesh.update({'data': 1, 'fsdp': -1, 'tensor': 1})
  config.optimizer.learning_rate = 1e-6
  config.train.algorithm = 'dr_grpo'
  config.train.update({'iterations': 64, 'prompts': 128, 'group': 8, 'minibatch': 16})  # 64: ours
  config.train.update({'micro_tokens': 32_768, 'checkpoint_every': 8})
  config.train.update({'eval_every': 8, 'eval_problems': 128, 'eval_samples': 4})
  config.sampling.update({'slots': 1024, 'bank_rows': 128, 'prompt_capacity': 1024, 'chunk': 64})
  config.sampling.max_tokens = 3000
  config.sampling.release = True
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
    }
  )
  return base.with_presets(config, arg)
