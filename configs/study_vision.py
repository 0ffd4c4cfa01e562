"""Figure 4 of arXiv 2504.13837: Qwen2.5-VL-7B and what EasyR1's recipe makes of it, by pass@k.

  python main.py --config=configs/grpo_qwen_vl7b.py --workdir=runs/grpo_qwen_vl7b
  python main.py --config=configs/study_vision.py:mathvista --workdir=runs/vision_mathvista

The argument: mathvista (the default) or mathvision, of both the free-form problems alone, 460 and
114, as the paper took them. 128 samples of each problem at temperature 0.6, top-p 0.95, with the
prompt of the RL training for both. The paper's own RL model was not released under a name that we
know: the RL model is that of grpo_qwen_vl7b.py's run, --config.study.models.easyr1.path names
another. task.path: the benchmark's files with their images, where they are not to be fetched.
Nothing of this could be run where it was written.
"""

from configs import base
from configs.study_math_simplerl import choose, released

BASE = 'Qwen/Qwen2.5-VL-7B-Instruct'  # not reachable from the build machine
BENCHMARKS = ('mathvista', 'mathvision')


def get_config(arg: str = ''):
  (task,), arg = choose(arg, (BENCHMARKS, 'mathvista'))
  config = released(
    BASE,
    {'easyr1': {'path': 'runs/grpo_qwen_vl7b', 'role': 'rl', 'algorithm': 'grpo'}},
    task=task,
    template='easyr1',
    n=128,
  )
  config.model.update({'min_pixels': 262_144, 'max_pixels': 4_194_304})  # as in training
  config.sampling.prompt_capacity = 8192  # the largest image is 5,350 tokens
  config.train.micro_tokens = 65_536
  config.study.title = f"EasyR1's recipe on {task}: figure 4"
  return base.with_presets(config, arg)
