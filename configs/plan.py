"""How many problems, samples and seeds a comparison needs, before it is paid for. Runs no model.

  python main.py --config=configs/plan.py
  python main.py --config=configs/plan.py --config.stores=base=runs/base,rl=runs/rl \
    --config.plan.problems='(30,500)' --config.plan.n='(1024,)' --config.plan.seed_sd=0.01

Two stores make the pilot where there are some (docs/samples.md has the formats); else two Betas of
solve rates do.
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'plan'
  return base.with_presets(config, arg)
