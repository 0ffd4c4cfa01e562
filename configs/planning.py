"""Keys of jobs that say beforehand what is needed: power (problems, samples), plan (devices)."""

from typing import Any


def planning() -> dict[str, Any]:
  """The groups power and plan of configs/base.py."""
  return {
    'power': {
      'problems': (30, 100, 500),
      'n': (64, 256, 1024),  # samples of each
      'ks': (1, 128),  # of pass@k
      'seeds': (1, 3),  # trained models
      'seed_sd': 0.0,  # of pass@k over training seeds; above 0, at least 2 seeds
      'chance': 0.8,  # that the interval excludes zero: the power
      # without stores: Betas of solve rates, and how alike the models order problems (0 to 1)
      'base': (0.25, 0.75),
      'trained': (0.3, 0.6),
      'agreement': 0.9,
    },
    'plan': {  # docs/plan.md
      # v5e:8x8, v5e-64, v5p:2x2x2, v5p-16 ...: compiled without such devices (needs the tpu extra);
      # h100, h100x8 ...: by arithmetic; '': the devices of this machine
      'topology': '',
      'compile': True,  # False: by arithmetic for TPUs too
      'json': '',  # file for the plan; '': WORKDIR/plan.json
      'prompt_tokens': 0,  # mean length for the time; 0: a quarter of sampling.prompt_capacity
      'completion_tokens': 0,  # mean length for the time; 0: a quarter of sampling.max_tokens
      'images': 1,  # in a prompt, of models that see
      'image_tokens': 0,  # mean of one, for the time; 0: half of the mean prompt
      'hbm_gb': 0.0,  # GiB on a device that may be used; 0: all that it has
    },
  }
