"""python -m bench._cold_start MODEL: one start, from the process to the first sampled token; JSON.

The engine is that of configs/sample.py's sizes, the prompt a question of GSM8K's length, the item
one token long.
"""

import json
import sys
import time

_CORE = '/jax/core/compile/'
STEPS = {
  f'{_CORE}jaxpr_trace_duration': 'tracing',
  f'{_CORE}jaxpr_to_mlir_module_duration': 'lowering',
  f'{_CORE}backend_compile_duration': 'compiling',  # or reading from the cache
}


def main() -> None:
  """Prints [seconds, CPU seconds] of each stage, and what tracing, lowering, compiling took."""
  stages: dict[str, list[float]] = {}
  last = [time.time() - time.process_time(), 0.0]  # imports so far are mostly CPU time

  def done(name: str) -> None:
    now = [time.time(), time.process_time()]
    stages[name] = [b - a for a, b in zip(last, now, strict=True)]
    last[:] = now

  import jax
  import jax.monitoring

  from configs import sample
  from rlvr_jax import config as config_lib
  from rlvr_jax import profiling
  from rlvr_jax.eval import run as run_lib
  from rlvr_jax.models.load import load_model
  from rlvr_jax.sampling.layout import hand_over
  from rlvr_jax.sampling.types import Item, Sampling

  profiling.enable_compile_cache()
  spent = dict.fromkeys(STEPS.values(), 0.0)

  def listen(event: str, duration_secs: float, **about: str | int) -> None:
    del about
    if event in STEPS:
      spent[STEPS[event]] += duration_secs

  jax.monitoring.register_event_duration_secs_listener(listen)
  jax.devices()
  done('imports')
  config = config_lib.resolve(sample.get_config(), {'model.name': sys.argv[1]})
  model_config, params, tokenizer = load_model(sys.argv[1])
  jax.block_until_ready(params)
  done('weights')
  sampler = hand_over(None, params)
  jax.block_until_ready(sampler)
  done('hand-over')
  engine = run_lib.make_engine(config, sampler, model_config)
  text = 'A baker sells 14 rolls each morning and 9 each afternoon. How many in 6 days?\n' * 4
  item = Item(0, 1, 0, 0, tuple(tokenizer.encode(text)))
  next(iter(engine.run([item], Sampling(max_tokens=1))))
  done('first token')
  before = dict(spent)
  next(iter(engine.run([item], Sampling(max_tokens=1))))
  done('another token')  # nothing left to compile: what the work itself takes
  print(json.dumps({'stages': stages, 'spent': before}))


if __name__ == '__main__':
  main()
