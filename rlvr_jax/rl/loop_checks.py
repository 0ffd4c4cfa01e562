"""Relations between what changes the loop and the rest of a config, refused before any sampling."""

from rlvr_jax.config import Config
from rlvr_jax.rl import budget, resets
from rlvr_jax.rl.algorithms import Algorithm
from rlvr_jax.rl.draws import from_base

# off-policy cells that weigh with pi / behaviour; 'rs' leaves out and weighs the rest with 1
WEIGHTS = ('tis', 'seq_tis', 'icepop', 'seq_mask')
# surrogates that do not know the ratio, so that old_policy='sampler' is no correction in them
WITHOUT_RATIO = ('reinforce', 'nll', 'dro')


def check(config: Config, row: Algorithm) -> None:
  """ValueError names key, value and the way out."""
  budget.check(config)
  resets.check(config, row)
  t = config.train
  if t.base_share:
    _check_foreign(config, row, f'train.base_share={t.base_share}')
    _check_share(config)
  if t.replay:
    _check_foreign(config, row, f'train.replay={t.replay}')
    if config.reward.control != 'none':
      raise ValueError(
        f'train.replay={t.replay} replays right answers, and reward.control='
        f"{config.reward.control!r} rewards something else; set reward.control='none' or "
        'train.replay=0'
      )
  if (t.replay or t.curriculum != 'none') and from_base(config) == t.group:
    key = f'train.replay={t.replay}' if t.replay else f'train.curriculum={t.curriculum!r}'
    raise ValueError(
      f"{key} goes by the policy's solve rates, and with train.base_share={t.base_share} of "
      f'train.group={t.group} the policy writes nothing; lower train.base_share, or leave the '
      'other out'
    )
  if t.curriculum != 'none':
    low, high = _band(t.curriculum_band)
    if not 0 <= low <= high <= 1:
      raise ValueError(
        f'train.curriculum_band={t.curriculum_band} must be two solve rates, as (0.1, 0.9)'
      )


def check_problems(config: Config, count: int) -> None:
  """That an iteration of a curriculum does not ask for a problem twice."""
  t = config.train
  if t.curriculum != 'none' and t.prompts > count:
    raise ValueError(
      f'train.curriculum={t.curriculum!r} draws train.prompts={t.prompts} different problems, but '
      f'there are {count}; lower train.prompts'
    )


def _band(given: tuple) -> tuple[float, float]:
  return (float(given[0]), float(given[1])) if len(given) == 2 else (1.0, 0.0)


def corrects(row: Algorithm) -> bool:
  """Whether the loss weighs a completion that something else than the policy wrote."""
  if row.learn_from == 'distinct_correct':
    return True  # cross-entropy on right answers asks for no weight, whoever wrote them
  if row.old_policy == 'sampler':
    return row.surrogate not in WITHOUT_RATIO
  return row.offpolicy in WEIGHTS


def _check_foreign(config: Config, row: Algorithm, what: str) -> None:
  """Whether completions of another behaviour can be learnt from."""
  if row.critic:
    raise ValueError(
      f"{what}: a critic's advantages (train.algorithm={config.train.algorithm!r}) are those of "
      "the policy's own completions; take an algorithm without one, as rloo"
    )
  if config.task.environment:
    raise ValueError(
      f"{what}: a conversation's observations answer whoever wrote it (task.environment="
      f'{config.task.environment!r}), which the weights do not correct; leave one of them out'
    )
  _check_estimates(row, what)
  if not corrects(row):
    raise ValueError(
      f"{what}: these completions are not the policy's, and train.offpolicy={row.offpolicy!r} "
      f'with train.old_policy={row.old_policy!r} and train.surrogate={row.surrogate!r} would take '
      "them for its own; set train.offpolicy='seq_tis' (or one of "
      f"{', '.join(WEIGHTS)}), or train.old_policy='sampler' with a surrogate that has a ratio"
    )


def _check_estimates(row: Algorithm, what: str) -> None:
  """What is only right for the policy's own completions, or with the weight of the others'."""
  if row.credit == 'unlikely':
    raise ValueError(
      f"{what}: train.credit='unlikely' ranks completions by the log-probs they were drawn with, "
      "which are then not all the policy's; take another credit"
    )
  in_loss = row.reference and row.kl_in == 'loss'
  if in_loss and row.old_policy == 'sampler' and row.kl_kind != 'ratio_k3':
    raise ValueError(
      f"{what}: train.old_policy='sampler' does not weigh a KL term of train.kl_kind="
      f"{row.kl_kind!r} in the loss; set train.kl_kind='ratio_k3', train.kl_in='reward' or "
      "train.old_policy='learner' with train.offpolicy='seq_tis'"
    )


def _check_share(config: Config) -> None:
  t = config.train
  if not from_base(config):
    raise ValueError(
      f'train.base_share={t.base_share} of train.group={t.group} is no completion; set it to '
      f'{1 / t.group:g} or more, or to 0'
    )
