"""How much of pass@k is reasoning: correct completions for people to read, and what they found.

  python main.py --config=configs/cot.py --config.input=runs/mine --workdir=runs/mine/cot
  python main.py --config=configs/cot.py --config.input=runs/mine --workdir=runs/mine/cot \
    --config.cot.readers=anna.json,ben.json

The first writes reading.html, one page that needs no network: completions of all models, shuffled
and without names, each to be called valid, invalid or unsure. What the page saves goes into the
second, which writes cot.json. docs/report.md says how the numbers are made.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'cot'
  config.task.update({'name': 'jsonl'})
  return base.with_presets(config, arg)
