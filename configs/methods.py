"""The methods of the boundary benchmark: what each sets on top of GRPO's plain run.

A method is a dict of dotted keys, the words of a study's arm (docs/studies.md), and `label`.
Another one comes by --config.benchmark.add=my_method.py (docs/how_to.md).
"""

from typing import Any


def row(name: str, label: str, **cells: Any) -> dict[str, Any]:
  """A row of docs/algorithms.md, with cells of train."""
  values = {f'train.{key}': value for key, value in cells.items()}
  return {'train.algorithm': name, **values, 'label': label}


BASELINES = {
  'ppo': row('ppo', 'critic, GAE'),
  'grpo': row('grpo', 'the reference'),
  'reinforce_pp': row('reinforce_pp', 'whitened over the batch'),
  'rloo': row('rloo', 'leave-one-out baseline'),
  'remax': row('remax', 'greedy baseline'),
  'dapo': row('dapo', 'clip higher, dynamic sampling'),
}
METHODS = {
  **BASELINES,
  # at the base's side
  'grpo_kl': row('grpo', 'KL to the base, 0.1', kl_in='loss', kl_kind='k3_st', kl_coef=0.1),
  'base_mix': row('tis', 'a quarter of each group by the base', base_share=0.25),
  # pass@k as the objective
  'pkpo': row('pkpo_loo', 'gradient of pass@8', pass_k=8),
  'passk_training': row('passk_training', 'pass@4 as the reward', pass_k=4),
  # right and wrong apart
  'nsr': row('nsr', 'learns from wrong ones alone'),
  'w_reinforce': row('w_reinforce', 'right ones count a tenth'),
  # rare answers, hard problems
  'unlikeliness': row('unlikeliness', 'likely right ones count less'),
  'distinct': row('distinct', 'right ones share credit by their form'),
  'f_grpo': row('f_grpo', 'problems weighted by (1 - solve rate)^0.5'),
  'exploration': row('batch_exploration', 'repeated answers cost'),
  'replay': row('tis', 'rare successes replayed', replay=1024),
  'curriculum': row('grpo', 'problems solved now and then', curriculum='band'),
  # entropy
  'entropy': row('grpo', 'entropy bonus, 0.01', entropy_coef=0.01),
  'adaptive_entropy': row('adaptive_entropy', 'entropy kept at 0.8 nats', entropy_target=0.8),
  'clip_cov': row('clip_cov', 'tokens of high covariance left out'),
  'kl_cov': row('kl_cov', 'tokens of high covariance held'),
  # other baselines
  'rft': row('rft', 'fine-tuning on right samples'),
  'random': {'reward.control': 'random', **row('grpo', 'control: a coin as the verifier')},
}
TIMED = (
  *BASELINES, 'grpo_kl', 'base_mix', 'pkpo', 'passk_training', 'w_reinforce', 'unlikeliness',
  'distinct', 'f_grpo', 'rft', 'random',
)  # fmt: skip
