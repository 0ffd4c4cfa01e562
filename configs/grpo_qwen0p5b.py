"""GRPO on a real 0.5B model and GSM8K-format problems; runs on a CPU with about 16 GB, slowly.

  python main.py --config=configs/grpo_qwen0p5b.py --config.task.path=gsm8k/train.jsonl

Three iterations of 1 problem x 4 completions of at most 256 tokens, float32: a real run of every
part, not a recipe. On a GPU raise train.prompts, train.group and sampling.max_tokens.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'train'
  config.model.name = 'qwen2.5-coder-0.5b'
  config.task.update({'name': 'jsonl', 'path': 'gsm8k/train.jsonl', 'template': 'qwen-boxed'})
  config.task.params.update({'task': 'gsm8k'})
  config.task.verifier = 'math'
  config.task.limit = 512
  config.task.holdout = 16
  config.model.logprob_chunk = 512
  config.optimizer.learning_rate = 1e-6
  config.optimizer.moment_dtype = 'bfloat16'
  config.train.update({'iterations': 3, 'prompts': 1, 'group': 4, 'micro_tokens': 4096})
  config.train.update({'eval_every': 0, 'checkpoint_every': 1, 'keep': 1, 'export': False})
  config.sampling.update({'slots': 8, 'bank_rows': 4, 'prompt_capacity': 256, 'chunk': 16})
  config.sampling.max_tokens = 256
  config.sampling.release = True
  config.smoke_values.update(
    {'train.iterations': 1, 'train.prompts': 2, 'train.group': 2, 'sampling.max_tokens': 16}
  )
  return base.with_presets(config, arg)
