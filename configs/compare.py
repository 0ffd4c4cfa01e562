"""A boundary report from samples that are there, ours or another tool's. No model is run.

  python main.py --config=configs/compare.py --config.stores=base=runs/base,rl=runs/rl
  python main.py --config=configs/compare.py --config.stores=base.jsonl,rl.jsonl --workdir=runs/both

A store is a run or one model of it (runs/x/samples/NAME), a Parquet, JSONL or CSV file of samples
or of counts, a sample log of lm-evaluation-harness or results of evalplus: docs/samples.md. The
first one is the base. What may not be compared is refused and named; compare.allow lets it pass.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'compare'
  config.evaluate.headline_k = 0
  return base.with_presets(config, arg)
