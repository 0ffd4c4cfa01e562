"""How many problems, samples and seeds a comparison needs, before it is paid for. Runs no model.

  python main.py --config=configs/power.py
  python main.py --config=configs/power.py --config.stores=base=runs/base,rl=runs/rl \
    --config.power.problems='(30,500)' --config.power.n='(1024,)' --config.power.seed_sd=0.01

Two stores make the pilot where there are some (docs/samples.md has the formats); else two Betas of
solve rates do.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'power'
  return base.with_presets(config, arg)
