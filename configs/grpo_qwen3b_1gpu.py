"""GRPO of all weights of Qwen2.5-3B on one GPU of 80 GB; as configs/grpo_qwen1p5b_1gpu.py.

  python main.py --config=configs/grpo_qwen3b_1gpu.py --config.task.path=simplerl/train.jsonl

What differs is memory: AdamW's first moment is kept in bfloat16, micro-batches are smaller, and
there is no KL term, whose reference would be one more copy of the weights (ours; the recipe's 1e-4
is --config.train.kl_coef=1e-4, and docs/memory.md says what it takes).
"""

from configs import base, grpo_qwen1p5b_1gpu


def get_config(arg: str = ''):
  config = grpo_qwen1p5b_1gpu.get_config()
  config.model.name = 'Qwen/Qwen2.5-3B'
  config.optimizer.moment_dtype = 'bfloat16'
  config.train.update({'kl_coef': 0.0, 'micro_tokens': 16_384})
  config.sampling.update({'slots': 384, 'memory_gb': 30.0})
  return base.with_presets(config, arg)
