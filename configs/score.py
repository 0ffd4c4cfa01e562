"""Saved completions judged anew, ours or another tool's, and what changes by it. No model is run.

  python main.py --config=configs/score.py --config.input=rows.jsonl --config.output=scored.jsonl
  python main.py --config=configs/score.py --config.input=runs/mine --config.output=paper.jsonl \
    --config.task.verifier=paper

A line of the input holds a gold answer (or tests) and a completion, a list of them, or both under
other names (score.fields). A run or a store is read with its run's own problems, or with those of
task.name and task.path.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'score'
  config.task.update({'name': 'jsonl', 'verifier': 'math'})
  return base.with_presets(config, arg)
