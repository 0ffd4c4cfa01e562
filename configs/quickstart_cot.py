"""The quickstart's family with worked solutions: a larger model that writes its attempts down.

  python main.py --config=configs/quickstart_cot.py --workdir=runs/quickstart_cot

A completion is a chain of attempts ('3*7=21,21+5=26'), the last of which is judged. Correct
completions cannot be enumerated, so that the report has no exact curve; all else is the
quickstart's. Longer: about 60 tokens a completion and a model four times as large.
"""

from configs import base, quickstart


def get_config(arg: str = ''):
  config = quickstart.get_config()
  config.task.name = 'countdown_cot'
  config.model.init.update({'embed_dim': 160, 'mlp_dim': 448, 'num_layers': 4, 'head_dim': 40})
  config.distill.update({'steps': 1500, 'batch': 128, 'learning_rate': 1e-3, 'noise': 0.2})
  config.train.update({'iterations': 100, 'prompts': 32})
  config.sampling.update({'slots': 256, 'max_tokens': 72})
  config.evaluate.update({'n': 256, 'headline_k': 64})
  config.study.run_arms = ('rl',)
  for heading in list(config.study.texts):  # they speak of bare answers
    del config.study.texts[heading]
  return base.with_presets(config, arg)
