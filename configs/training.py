"""Keys of RL's loop, algorithm and reward."""

from typing import Any

from ml_collections.config_dict import placeholder

from rlvr_jax.config import dotted
from rlvr_jax.config_keys import OPEN


def train() -> dict[str, Any]:
  return {
    'algorithm': 'grpo',  # a row of rl/algorithms.py; docs/algorithms.md has them all
    'iterations': 100,  # of sample + update
    'tokens': 0,  # sampled for training, after which the run ends; 0: iterations alone
    'prompts': 32,  # problems in an iteration
    'group': 16,  # completions of each problem
    'minibatch': 0,  # problems in an optimizer step; 0: all of the iteration's
    'micro_tokens': 16_384,  # tokens in a micro-batch: memory, never the result
    'packing': True,  # several rollouts in a row of the learner; False: one, padded
    'epochs': 1,  # passes over the rollouts of an iteration
    'frozen': (),  # regexes on paths of params ('embed', 'layers/q') that do not train
    # the start model writes this share of every group (rl/mixing.py); 0: none
    'base_share': 0.0,
    # right completions kept of rarely solved problems, for groups without one; 0: none
    'replay': 0,
    'replay_rate': 0.25,  # the running solve rate up to which a problem is rarely solved
    'curriculum': 'none',  # none | band | easy_to_hard: which problems are drawn (rl/curriculum.py)
    'curriculum_band': (0.1, 0.9),  # running solve rates; of easy_to_hard the upper one counts
    'explore': 0.25,  # share of problems that a curriculum takes from the ordinary order
    # iterations between resets of the KL reference to the policy, and of the optimizer; 0: never
    'reset_every': 0,
    'most_draws': 10,  # dynamic sampling: batches of `prompts` problems drawn for one iteration
    'eval_every': 10,  # iterations between held-out looks; 0: never
    'eval_problems': 64,  # held-out problems in a look
    'eval_samples': 4,  # completions of each
    'checkpoint_every': 10,  # iterations
    'keep': 2,  # checkpoints kept, the last ones
    'keep_every': 0,  # and every so many iterations (steps of fine-tuning) one more; 0: none
    'keep_steps': (),  # and these, of iterations or of fine-tuning's steps
    'keep_best': '',  # and the best by this metric of the looks, as 'pass@16'; best.json names it
    'store_rollouts': True,  # training's completions go into the sample store
    'report': 64,  # draws of each held-out problem from start and end model, for a report; 0: off
    'export': True,  # the trained model as a Hugging Face directory, WORKDIR/model
    **_cells(),
  }


def _cells() -> dict[str, Any]:
  """Cells of the algorithm's row (rl/algorithms.py says what each is); None: as in the row."""
  cells = {
    key.removeprefix('train.'): kind for key, kind in OPEN.items() if key.startswith('train.')
  }
  return {name: placeholder(kind) for name, kind in cells.items()}


def reward() -> dict[str, Any]:
  return {
    # what is added up, with weights: correct (the verifier's reward), exact, format, think_box,
    # length, length_share, truncated, turns, wrong, unparsed, timeout, error, or 'FILE.py:function'
    'parts': dotted({'correct': 1.0}),
    'control': 'none',  # none | random | format | inverted | majority: what stands for the verdict
    'truncated_scale': 1.0,  # factor of a truncated completion's reward
    'truncated_score': placeholder(float),  # what it gets instead
  }
