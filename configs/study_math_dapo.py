"""DAPO-32B's panel of arXiv 2504.13837 on AIME24, from released checkpoints.

  python main.py --config=configs/study_math_dapo.py --config.mesh.tensor=4 --workdir=runs/dapo

Qwen2.5-32B and DAPO-Qwen-32B with the old DAPO prompt ('abel', no chat tokens), 1,024 samples of at
most 20,480 tokens, as its prompt says. The released evaluation stops at the word 'Answer:' and so
cuts off what the prompt asks for; here nothing is cut. The argument may name another benchmark, as
study_math_oat.py. Four GPUs of 80 GB. Hub ids: unverified, see study_math_simplerl.py.
"""

from configs import base
from configs.study_math_simplerl import MATHS, choose, released

BASE = 'Qwen/Qwen2.5-32B'  # not reachable from the build machine
DAPO = 'BytedTsinghua-SIA/DAPO-Qwen-32B'  # not reachable from the build machine


def get_config(arg: str = ''):
  (task,), arg = choose(arg, (MATHS, 'aime24'))
  config = released(
    BASE,
    {'dapo': {'path': DAPO, 'role': 'rl', 'algorithm': 'dapo'}},
    task=task,
    template='abel',
    n=MATHS[task],
    max_tokens=20_480,
  )
  config.study.title = f'DAPO-32B on {task}'
  return base.with_presets(config, arg)
