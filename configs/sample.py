"""Many completions of every problem, judged and stored: `rlvr_jax.sample` from the command line.

  python main.py --config=configs/sample.py --config.model.name=DIR_OR_GGUF_OR_HUB_ID \
    --config.task.path=problems.jsonl --config.evaluate.n=1024 --workdir=runs/mine

--config.dry_run ends after a pilot of 1% with the price of the rest. The same command goes on after
a kill, and with a larger evaluate.n draws what is missing. With --config.sampling.first=64
--config.sampling.stop_after=3 a problem gets no more than 64 draws once 3 of them are correct.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'sample'
  config.model.name = 'smollm2-135m'
  config.task.update({'name': 'jsonl', 'path': 'problems.jsonl'})
  config.evaluate.update({'n': 1024, 'temperature': 0.6})
  config.smoke_values.update({'evaluate.n': 8, 'task.limit': 2, 'sampling.max_tokens': 32})
  return base.with_presets(config, arg)
