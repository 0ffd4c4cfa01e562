"""pass@1 of a real model on HumanEval+, greedy, as EvalPlus asks and judges.

  python main.py --config=configs/eval_code.py --config.task.path=humaneval_plus
  python main.py --config=configs/eval_code.py --config.task.name=mbpp_plus
  python main.py --config=configs/eval_code.py:pass10   # 20 samples at T = 0.6, 40 problems

task.path is the file or a folder with it; '' fetches it from its public home. Programs run in the
sandbox of docs/sandbox.md; humaneval in place of humaneval_plus judges by the original tests alone.
The default model is Qwen2.5-Coder-0.5B-Instruct as GGUF, looked for in $RLVR_MODELS (else
~/.cache/rlvr_jax/models); --config.model.name takes any directory, .gguf file or hub id.
"""

from configs import base


def get_config(arg: str = ''):
  pass10, arg = base.take(arg, 'pass10')
  config = base.get_config()
  config.job = 'evaluate'
  config.model.name = 'qwen2.5-coder-0.5b'
  config.task.update({'name': 'humaneval_plus', 'template': 'evalplus'})
  config.evaluate.update({'n': 1, 'ks': (1,), 'headline_k': 1, 'temperature': 0.0})
  if pass10:
    config.evaluate.update({'n': 20, 'ks': (1, 5, 10), 'headline_k': 5, 'problems': 40})
    config.evaluate.update({'temperature': 0.6, 'top_p': 0.95})
  config.sampling.update({'slots': 32, 'bank_rows': 32, 'prompt_capacity': 768, 'chunk': 16})
  config.sampling.max_tokens = 768
  config.smoke_values.update({'evaluate.problems': 2, 'sampling.max_tokens': 64})
  return base.with_presets(config, arg)
