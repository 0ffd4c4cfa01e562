"""A run's checkpoint (or any other model) as a Hugging Face directory.

python main.py --config=configs/export.py --config.run=runs/x@step:300 --config.to=exported/x300
"""

from configs import base


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'export'
  return base.with_presets(config, arg)
