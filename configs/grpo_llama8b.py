"""GRPO of LLaMA-3.1-8B by SimpleRL-Zoo's recipe, the one of configs/grpo_qwen7b.py.

  python main.py --config=configs/grpo_llama8b.py --config.task.path=simplerl/train.jsonl

SimpleRL-Zoo gives this model its easier problems and a plainer prompt of its own; the prompt here
is "qwen-boxed", with which the paper's released code evaluates SimpleRL-Zoo's models.
"""

from configs import base, grpo_qwen7b


def get_config(arg: str = ''):
  config = grpo_qwen7b.get_config()
  config.model.name = 'meta-llama/Llama-3.1-8B'
  return base.with_presets(config, arg)
