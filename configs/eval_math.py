"""pass@k of a real model on GSM8K-format problems, with intervals.

  python main.py --config=configs/eval_math.py --config.task.path=gsm8k/test.jsonl

The default model is Qwen2.5-Coder-0.5B-Instruct as GGUF, looked for in $RLVR_MODELS (else
~/.cache/rlvr_jax/models); --config.model.name takes any directory, .gguf file or hub id. Topping up
later (--config.evaluate.n=128) draws only the missing samples.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'evaluate'
  config.model.name = 'qwen2.5-coder-0.5b'
  config.task.update({'name': 'jsonl', 'path': 'gsm8k/test.jsonl', 'template': 'qwen-boxed'})
  config.task.params.update({'task': 'gsm8k'})
  config.task.verifier = 'math'
  config.evaluate.update({'n': 8, 'headline_k': 2, 'problems': 50})
  config.evaluate.update({'temperature': 0.6, 'top_p': 0.95})
  config.sampling.update({'slots': 32, 'bank_rows': 16, 'prompt_capacity': 320, 'chunk': 16})
  config.sampling.max_tokens = 320
  config.smoke_values.update(
    {'evaluate.problems': 2, 'evaluate.n': 4, 'evaluate.headline_k': 1, 'sampling.max_tokens': 32}
  )
  return base.with_presets(config, arg)
