"""Prepares a benchmark or any other task and shows it: rows, golds, prompt, lengths, duplicates.

  python main.py --config=configs/data.py --config.task.name=math500
  python main.py --config=configs/data.py --config.task.name=math --config.data.against=math500

With --config.model.name lengths are tokens; --config.data.probe=100 asks it to go on from 60% of
100 questions. docs/datasets.md lists the benchmarks; --config.task.path takes a file or folder that
you have in place of a download.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'data'
  config.task.update({'name': 'gsm8k', 'path': ''})
  config.evaluate.n = 1
  config.evaluate.headline_k = 1
  config.sampling.update({'slots': 32, 'bank_rows': 16, 'prompt_capacity': 512, 'chunk': 16})
  config.sampling.max_tokens = 192
  config.smoke_values.update({'task.limit': 8, 'data.probe': 0})
  return base.with_presets(config, arg)
