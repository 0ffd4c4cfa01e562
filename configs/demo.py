"""A report in seconds, from small bundled tables of counts: nothing is trained or fetched.

  python main.py --config=configs/demo.py

The tables are simulated with planted effects, see configs/demo/make.py.
"""

import pathlib

from configs import base

TABLES = pathlib.Path(__file__).resolve().parent / 'demo'
TEXT = """\
These data are simulated, by configs/demo/make.py: no model was trained or sampled. The table says \
how many of 512 draws of each of 200 problems were correct, and the effects are planted, so that \
you can see whether the report finds them.

Planted: "sharpened" raises every solve rate p to p^0.6 and loses 50 problems for good, so it is \
ahead at one try and behind at many; "distilled" has higher rates on almost every problem, and \
solves some that the base never does; "same" is the base itself, drawn anew."""


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'compare'
  names = ('base', 'sharpened', 'distilled', 'same')
  config.stores = ','.join(f'{name}={TABLES / name}.csv' for name in names)
  config.compare.roles = 'base,rl,distilled,rl'
  config.evaluate.headline_k = 0
  config.study.title = 'Demonstration on simulated data'
  config.study.texts.update({'These data are simulated': TEXT})
  return base.with_presets(config, arg)
