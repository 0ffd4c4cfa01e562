"""Perplexity and reach: what every model makes of every author's completions (docs/perplexity.md).

  python main.py --config=configs/perplexity.py --config.stores=runs/base,runs/rl
  python main.py --config=configs/perplexity.py --config.stores=runs/mine,gold=answers.jsonl \
    --config.perplexity.models=base=smollm2-135m,rl=runs/x@step:300

Without perplexity.models, the models that drew the stores. A store is read with its run's own
problems and template, or with those of task.*. The same command goes on after a kill.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'perplexity'
  config.task.name = 'jsonl'
  config.evaluate.update({'temperature': 0.6, 'top_p': 0.95})
  config.smoke_values.update({'perplexity.problems': 2, 'perplexity.samples': 4})
  return base.with_presets(config, arg)
