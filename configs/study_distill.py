"""Figure 7 of arXiv 2504.13837 from released checkpoints: base, instruct, RL and distilled curves.

  python main.py --config=configs/study_distill.py:minerva --workdir=runs/distill_minerva

Qwen2.5-Math-7B, its Instruct model, Oat-Zero (RL from the base) and DeepSeek-R1-Distill-Qwen-7B
(fine-tuned from the base on a stronger teacher's completions). The argument: minerva (the default)
or another benchmark, as in study_math_oat.py. The first three know 4,096 positions, so that they
end at 3,072 tokens; the distilled model gets 16,384, which the report says beside it. Each is asked
with the prompt it was trained on. A 7B family of the general kind, study_distill.py:general, sets
Qwen2.5-7B, its Instruct model and SimpleRL-Zoo beside R1-Distill.

To distil a student here instead, see docs/studies.md. Hub ids: unverified, as those of
study_math_simplerl.py.
"""

from configs import base
from configs.study_math_simplerl import MATHS, PAIRS, choose, released

# none of these could be reached from the build machine
MATH_BASE = 'Qwen/Qwen2.5-Math-7B'
MATH_INSTRUCT = 'Qwen/Qwen2.5-Math-7B-Instruct'
OAT_ZERO = 'sail/Qwen2.5-Math-7B-Oat-Zero'
INSTRUCT = 'Qwen/Qwen2.5-7B-Instruct'
R1_DISTILL = 'deepseek-ai/DeepSeek-R1-Distill-Qwen-7B'


def get_config(arg: str = ''):
  general, arg = base.take(arg, 'general')
  (task,), arg = choose(arg, (MATHS, 'minerva'))
  distilled = {
    'path': R1_DISTILL, 'role': 'distilled', 'template': 'chat', 'sampling.max_tokens': 16_384,
  }  # fmt: skip
  base_id, instruct, rl = MATH_BASE, MATH_INSTRUCT, {'path': OAT_ZERO, 'algorithm': 'dr_grpo'}
  if general:
    base_id, simplerl = PAIRS['7b']
    instruct, rl = INSTRUCT, {'path': simplerl, 'algorithm': 'grpo'}
  config = released(
    base_id,
    {
      'instruct': {'path': instruct, 'role': 'instruct', 'template': 'chat'},
      'rl': {**rl, 'role': 'rl'},
      'distilled': distilled,
    },
    task=task,
    template='qwen-boxed' if general else 'qwen25-math-cot',
    n=MATHS[task],
    max_tokens=16_384 if general else 3072,
  )
  config.study.title = f'Base, instruct, RL and distilled on {task}: figure 7'
  return base.with_presets(config, arg)
