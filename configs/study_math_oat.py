"""Figure 2, Oat-Zero's panels, from released checkpoints: Qwen2.5-Math-7B and Oat-Zero.

  python main.py --config=configs/study_math_oat.py:math500 --workdir=runs/oat_math500

The argument: aime24 (the default), amc23, math500, minerva, olympiadbench or gsm8k. The prompt is
that of figure 22 (qwen25-math-cot); the released code gave qwen-boxed instead
(--config.task.template=qwen-boxed). Qwen2.5-Math-7B was trained on 4,096 positions: 1,024 of them
are kept for the prompt, so completions end at 3,072 tokens. The paper writes 16,384; its released
code ends prompt and completion together at 4,096. Hub ids: unverified, see study_math_simplerl.py.
"""

from configs import base
from configs.study_math_simplerl import MATHS, choose, released

BASE = 'Qwen/Qwen2.5-Math-7B'  # not reachable from the build machine
OAT_ZERO = 'sail/Qwen2.5-Math-7B-Oat-Zero'  # not reachable from the build machine


def get_config(arg: str = ''):
  (task,), arg = choose(arg, (MATHS, 'aime24'))
  config = released(
    BASE,
    {'oat_zero': {'path': OAT_ZERO, 'role': 'rl', 'algorithm': 'dr_grpo'}},
    task=task,
    template='qwen25-math-cot',
    n=MATHS[task],
    max_tokens=3072,
  )
  config.study.title = f'Oat-Zero on {task}: figure 2'
  return base.with_presets(config, arg)
