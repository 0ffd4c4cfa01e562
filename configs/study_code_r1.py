"""Figure 3 of arXiv 2504.13837 from released checkpoints: Code-R1-Zero on programs.

  python main.py --config=configs/study_code_r1.py:livecodebench --workdir=runs/code_r1

Qwen2.5-7B-Instruct-1M and CodeR1-Zero, 128 samples of each problem at temperature 0.6, top-p 0.95,
with the prompt of the benchmark for both. The argument: livecodebench (the default; v5, 279
problems), humaneval_plus or mbpp_plus. Programs run in the sandbox (docs/sandbox.md). Hub ids:
unverified, see study_math_simplerl.py; Code-R1 has released two, trained on 2K and on 12K problems.
"""

from configs import base
from configs.study_math_simplerl import choose, released

BASE = 'Qwen/Qwen2.5-7B-Instruct-1M'  # not reachable from the build machine
CODE_R1 = 'ganler/CodeR1-Zero-Qwen2.5-7B-12k-832'  # not reachable from the build machine
TEMPLATES = {
  'livecodebench': 'livecodebench', 'humaneval_plus': 'evalplus', 'mbpp_plus': 'evalplus',
}  # fmt: skip


def get_config(arg: str = ''):
  (task,), arg = choose(arg, (TEMPLATES, 'livecodebench'))
  config = released(
    BASE,
    {'code_r1': {'path': CODE_R1, 'role': 'rl', 'algorithm': 'grpo'}},
    task=task,
    template=TEMPLATES[task],
    n=128,
  )
  config.sampling.prompt_capacity = 4096
  config.study.title = f'Code-R1 on {task}: figure 3'
  return base.with_presets(config, arg)
