"""DeepCoder's panel of arXiv 2504.13837 from released checkpoints: LiveCodeBench with long chains.

  python main.py --config=configs/study_deepcoder.py --config.mesh.tensor=2 --workdir=runs/deepcoder

DeepSeek-R1-Distill-Qwen-14B and DeepCoder-14B-Preview, 64 samples (where the paper's axis ends) of
at most 32,768 tokens, DeepCoder's prompt. Two GPUs of 80 GB. Hub ids: unverified, see
study_math_simplerl.py.
"""

from configs import base
from configs.study_math_simplerl import released

BASE = 'deepseek-ai/DeepSeek-R1-Distill-Qwen-14B'  # not reachable from the build machine
DEEPCODER = 'agentica-org/DeepCoder-14B-Preview'  # not reachable from the build machine


def get_config(arg: str = ''):
  config = released(
    BASE,
    {'deepcoder': {'path': DEEPCODER, 'role': 'rl', 'algorithm': 'grpo'}},
    task='livecodebench',
    template='deepcoder',
    n=64,
    max_tokens=32_768,
  )
  config.sampling.update({'prompt_capacity': 4096, 'slots': 128})
  config.train.micro_tokens = 81_920
  config.study.title = 'DeepCoder-14B on LiveCodeBench'
  return base.with_presets(config, arg)
