"""The table: an algorithm is a row of choices among the core's small functions.

Formulas, papers and config lines: docs/algorithms.md.
"""

import dataclasses

from rlvr_jax.rl import kl
from rlvr_jax.tasks import user_file

CREDITS = (
  'identity', 'signed', 'pkpo', 'pkpo_loo', 'passk_train', 'best_gap', 'unlikely', 'distinct',
  'distinct_loo',
)  # fmt: skip
BASELINES = ('none', 'group_mean', 'loo', 'greedy', 'length_weighted', 'batch_mean')
SCALES = ('none', 'group_std', 'batch_std', 'bernoulli_std', 'solve_rate')
PER_TOKEN = ('broadcast', 'returns', 'gae')
TURN_CREDITS = ('episode', 'turn', 'turn_pooled')
RATIOS = ('token', 'seq_mean', 'seq_sum', 'seq_mean_token_grad')
SURROGATES = (
  'ppo_clip',
  'reinforce',
  'cispo',
  'sapo',
  'gmpo',
  'dppo_tv',
  'dppo_kl',
  'dro',
  'nll',
)
OFFPOLICY = ('none', 'tis', 'icepop', 'seq_tis', 'seq_mask', 'rs')
TOKEN_SELECT = ('none', 'clip_cov', 'kl_cov', 'top_entropy')
AGGREGATIONS = (
  'token_mean',
  'token_sum',
  'seq_mean_token_mean',
  'seq_mean_token_sum',
  'seq_mean_token_sum_norm',
)
STATISTICS = tuple(
  f'{level}_{kind}'
  for level in ('token', 'seq_sum', 'seq_mean', 'seq_max')
  for kind in ('k1', 'k2', 'k3')
)
FORMS = ('answer', 'completion')
REPEAT_OF = ('all', 'wrong')
KL_IN = ('none', 'reward', 'loss')
LEARN_FROM = ('all', 'distinct_correct')
INFINITY = float('inf')


@dataclasses.dataclass(frozen=True)
class Algorithm:
  """One row; hashable, so that a jitted update can close over it. The defaults are GRPO's.

  The properties say what else a loop has to do for the row.
  """

  # advantages, over the whole batch of an iteration: rl/credit.py, rl/advantages.py, rl/returns.py
  credit: str = 'identity'
  pass_k: int = 4  # the k of pass@k credits
  rank_coef: float = 0.25  # of credit 'unlikely': what the likeliest loses
  forms: str = 'answer'  # what makes completions the same: tasks/canonical.py
  baseline: str = 'group_mean'
  scale: str = 'group_std'
  ddof: int = 1
  eps: float = 1e-6
  per_token: str = 'broadcast'
  gamma: float = 1.0  # of returns and gae
  lam: float = 1.0  # of gae
  focal: float = 0.0  # advantages times (1 - share of right answers in the group)^focal
  repeat_coef: float = 0.0  # times the share of the group that has the form, itself left out
  repeat_of: str = 'all'  # who pays it: all | wrong
  turn_credit: str = 'episode'  # of conversations: what stands for the completion in a group
  turn_gamma: float = 1.0  # discount of a later turn, where turns have returns of their own
  whiten: bool = False
  positive: float = 1.0  # factor of positive advantages
  negative: float = 1.0  # factor of negative advantages
  # the loss of a token: rl/losses.py, rl/offpolicy.py, rl/selection.py
  ratio: str = 'token'
  old_policy: str = 'learner'  # what the ratio is against; sampler: no recomputation ("bypass")
  surrogate: str = 'ppo_clip'
  clip_low: float = 0.2
  clip_high: float = 0.2
  dual_clip: float = 3.0  # bound of ppo_clip where the advantage is negative; 0: none
  ratio_cap: float = 20.0  # of dppo's weight; 0: none
  tau_positive: float = 1.0  # of sapo
  tau_negative: float = 1.05
  dro_beta: float = 0.05
  offpolicy: str = 'none'
  offpolicy_low: float = 0.0
  offpolicy_high: float = 2.0
  offpolicy_stat: str = 'seq_mean_k3'  # of rs
  token_select: str = 'none'
  select_share: float = 2e-4  # of the batch's tokens
  select_low: float = 1.0  # bounds of clip_cov
  select_high: float = 5.0
  select_coef: float = 1.0  # of kl_cov's penalty
  aggregation: str = 'token_mean'
  kl_in: str = 'loss'
  kl_coef: float = 0.0  # 0: no reference model, no reference forward
  kl_kind: str = 'k3_st'
  entropy_coef: float = 0.0
  entropy_target: float = 0.0  # nats a token that the coefficient works towards; 0: it is fixed
  entropy_delta: float = 1e-4  # what a step adds to it or takes from it
  entropy_most: float = 5e-3  # its bound; the other is 0
  value_clip: float = 0.5  # of the critic
  value_coef: float = 1.0
  # what the loop does: rl/rewards.py, rl/selection.py
  band: tuple[float, float] | None = None  # dynamic sampling: mean accuracy of groups learnt from
  overlong_share: float = 0.0  # of the completion cap: where the soft punishment begins, from above
  overlong_factor: float = 1.0  # the punishment at the cap, its floor
  overlong_filter: bool = False  # truncated completions are left out of the loss
  learn_from: str = 'all'  # distinct_correct: of a group the right ones, each once (rl/distinct.py)

  @property
  def rewards_turns(self) -> bool:
    """An environment's reward lies on the turn it is for; else all of it on the last token."""
    return self.turn_credit != 'episode' or self.per_token != 'broadcast'

  @property
  def critic(self) -> bool:
    """A value function is learnt beside the policy (rl/losses.py: value_loss)."""
    return self.per_token == 'gae'

  @property
  def greedy_rollout(self) -> bool:
    """One more completion of each prompt, greedy; its reward is the baseline."""
    return self.baseline == 'greedy'

  @property
  def reference(self) -> bool:
    """The start model is kept and scores every batch."""
    return self.kl_coef > 0

  @property
  def scored_first(self) -> bool:
    """Log-probs (and entropies) of the whole batch are wanted before the step that uses them."""
    return self.token_select != 'none' or (self.reference and self.kl_in == 'reward')

  @property
  def wants_forms(self) -> bool:
    """Completions of a group are told apart by what they say (Rollouts.forms)."""
    return self.credit in ('distinct', 'distinct_loo') or self.repeat_coef > 0

  @property
  def compares(self) -> str:
    """The cell for which a group needs two completions at least; '' if none does."""
    cells = {
      'credit': self.credit in ('unlikely', 'distinct', 'distinct_loo'),
      'scale': self.scale == 'solve_rate',
      'focal': self.focal > 0,
      'repeat_coef': self.repeat_coef > 0,
    }
    return self._first_of(cells)

  @property
  def own_credit(self) -> bool:
    """The credit is a function in a user's file."""
    return user_file.split(self.credit) is not None

  @property
  def asks_right(self) -> str:
    """The cell that asks whether an answer is right; '' if none does."""
    cells = {
      'credit': self.credit not in ('identity', 'best_gap') and not self.own_credit,
      'scale': self.takes_rates,
      'focal': self.focal > 0,
      'repeat_of': self.repeat_coef > 0 and self.repeat_of == 'wrong',
    }
    return self._first_of(cells)

  @property
  def takes_rates(self) -> bool:
    """The mean of a group's rewards is taken for its share of right answers: they are 1 and 0."""
    return self.scale in ('bernoulli_std', 'solve_rate')

  def _first_of(self, cells: dict[str, bool]) -> str:
    return next((f'train.{x}={getattr(self, x)!r}' for x, used in cells.items() if used), '')


def _row(**cells) -> Algorithm:
  return Algorithm(**cells)


_PLAIN = {'baseline': 'none', 'scale': 'none'}
_CENTRED = {'baseline': 'group_mean', 'scale': 'none'}
_UNBOUNDED = {'clip_low': 1.0, 'clip_high': INFINITY, 'dual_clip': 0.0}

ALGORITHMS = {
  # the paper's six (arXiv 2504.13837), verl's conventions
  'ppo': _row(**_PLAIN, per_token='gae', whiten=True),
  'grpo': _row(),
  'reinforce_pp': _row(**_PLAIN, per_token='returns', whiten=True),
  'rloo': _row(baseline='loo', scale='none'),
  'remax': _row(baseline='greedy', scale='none', per_token='returns'),
  'dapo': _row(clip_high=0.28, dual_clip=10.0, band=(0.0, 1.0), overlong_share=0.2),
  # other baselines and scales
  'reinforce': _row(**_PLAIN, surrogate='reinforce'),
  'reinforce_pp_baseline': _row(**_CENTRED, whiten=True),
  'dr_grpo': _row(**_CENTRED, aggregation='seq_mean_token_sum_norm'),
  'lite_ppo': _row(scale='batch_std'),
  'opo': _row(baseline='length_weighted', scale='none'),
  # other ratios and surrogates
  'gspo': _row(
    ratio='seq_mean_token_grad',
    clip_low=3e-4,
    clip_high=4e-4,
    dual_clip=0.0,
    aggregation='seq_mean_token_mean',
  ),
  'cispo': _row(surrogate='cispo', clip_low=1.0, clip_high=4.0),
  'sapo': _row(surrogate='sapo', aggregation='seq_mean_token_mean'),
  'gmpo': _row(surrogate='gmpo', clip_low=0.4, clip_high=0.4, aggregation='seq_mean_token_mean'),
  'dppo': _row(surrogate='dppo_tv', clip_low=0.2, clip_high=0.2),
  'dppo_kl': _row(surrogate='dppo_kl', clip_low=0.05, clip_high=0.05),
  'dro': _row(**_CENTRED, surrogate='dro'),
  # what the sampler's own log-probs are for
  'tis': _row(offpolicy='tis', offpolicy_high=2.0),
  'icepop': _row(offpolicy='icepop', offpolicy_low=0.5, offpolicy_high=5.0),
  'bypass': _row(old_policy='sampler'),
  # not every token alike
  'clip_cov': _row(token_select='clip_cov'),
  'kl_cov': _row(token_select='kl_cov', **_UNBOUNDED),
  'top_entropy': _row(token_select='top_entropy', select_share=0.2, clip_high=0.28),
  # pass@k instead of pass@1
  'pkpo': _row(**_PLAIN, credit='pkpo'),
  'pkpo_loo': _row(**_PLAIN, credit='pkpo_loo'),
  'passk_training': _row(**_PLAIN, credit='passk_train'),
  'passk_best': _row(**_PLAIN, credit='best_gap'),
  # right and wrong apart
  'psr': _row(**_PLAIN, credit='signed', negative=0.0),
  'nsr': _row(**_PLAIN, credit='signed', positive=0.0),
  'w_reinforce': _row(**_PLAIN, credit='signed', positive=0.1),
  # rejection-sampling fine-tuning: cross-entropy on right answers, each once
  'rft': _row(**_PLAIN, credit='signed', surrogate='reinforce', learn_from='distinct_correct'),
  # for coverage: rare answers, hard problems, entropy
  'unlikeliness': _row(credit='unlikely'),
  'distinct': _row(**_CENTRED, credit='distinct'),
  'distinct_loo': _row(**_PLAIN, credit='distinct_loo'),
  'f_grpo': _row(focal=0.5),
  'maxrl': _row(scale='solve_rate'),
  'batch_exploration': _row(repeat_coef=0.1),
  'rare_wrong': _row(repeat_coef=0.1, repeat_of='wrong'),
  'adaptive_entropy': _row(entropy_target=0.2),
  # supervised fine-tuning: the same update with every completion token at weight 1
  'sft': _row(**_PLAIN, surrogate='nll'),
}


def choose(name: str, **overrides) -> Algorithm:
  """The row `name` with some cells replaced (None: the row's own); ValueError naming the key."""
  if name not in ALGORITHMS:
    raise ValueError(f'train.algorithm={name!r}: known are {", ".join(sorted(ALGORITHMS))}')
  cells = [field.name for field in dataclasses.fields(Algorithm)]
  unknown = sorted(set(overrides) - set(cells))
  if unknown:
    raise ValueError(f'an algorithm has no cell {", ".join(unknown)}: it has {", ".join(cells)}')
  given = {k: v for k, v in overrides.items() if v is not None}
  algorithm = dataclasses.replace(ALGORITHMS[name], **given)
  _check_values(algorithm)
  _check_advantages(algorithm, name)
  _check_loss(algorithm)
  return algorithm


def _check_values(row: Algorithm) -> None:
  known = {
    'credit': CREDITS,
    'baseline': BASELINES,
    'scale': SCALES,
    'per_token': PER_TOKEN,
    'turn_credit': TURN_CREDITS,
    'ratio': RATIOS,
    'old_policy': ('learner', 'sampler'),
    'surrogate': SURROGATES,
    'offpolicy': OFFPOLICY,
    'offpolicy_stat': STATISTICS,
    'token_select': TOKEN_SELECT,
    'aggregation': AGGREGATIONS,
    'kl_in': KL_IN,
    'learn_from': LEARN_FROM,
    'forms': FORMS,
    'repeat_of': REPEAT_OF,
  }
  for cell, values in known.items():
    value = getattr(row, cell)
    if cell == 'credit' and row.own_credit:
      user_file.find(*user_file.place(value, values, f'train.credit={value!r}'), 'train.credit')
    elif value not in values:
      raise ValueError(f'train.{cell}={value!r}: known are {", ".join(values)}')
  bounds = {
    'pass_k': (row.pass_k >= 1, 'must be at least 1'),
    'rank_coef': (0 <= row.rank_coef <= 1, 'must lie in 0..1'),
    'focal': (row.focal >= 0, 'must not be negative'),
    'repeat_coef': (row.repeat_coef >= 0, 'must not be negative'),
    'gamma': (0 <= row.gamma <= 1, 'must lie in 0..1'),
    'lam': (0 <= row.lam <= 1, 'must lie in 0..1'),
    'turn_gamma': (0 <= row.turn_gamma <= 1, 'must lie in 0..1'),
    'dual_clip': (row.dual_clip == 0 or row.dual_clip > 1, 'must be above 1, or 0 for none'),
    'clip_low': (0 <= row.clip_low <= 1, 'must lie in 0..1'),
    'clip_high': (row.clip_high >= 0, 'must not be negative'),
    'kl_coef': (row.kl_coef >= 0, 'must not be negative'),
    'entropy_target': (row.entropy_target >= 0, 'must not be negative'),
    'entropy_delta': (row.entropy_delta >= 0, 'must not be negative'),
    'entropy_coef': (
      not row.entropy_target or 0 <= row.entropy_coef <= row.entropy_most,
      f'starts outside 0..train.entropy_most={row.entropy_most}, between which '
      f'train.entropy_target={row.entropy_target} moves it',
    ),
    'select_share': (0 < row.select_share <= 1, 'is a share of the tokens: above 0, at most 1'),
    'overlong_share': (0 <= row.overlong_share <= 1, 'is a share of the cap: in 0..1'),
    'offpolicy_high': (row.offpolicy_high >= row.offpolicy_low, 'is below train.offpolicy_low'),
    'band': (row.band is None or row.band[0] <= row.band[1], 'has its upper bound below its lower'),
  }
  for cell, (fits, what) in bounds.items():
    if not fits:
      raise ValueError(f'train.{cell}={getattr(row, cell)} {what}')


def _check_advantages(row: Algorithm, name: str) -> None:
  if row.per_token != 'broadcast':
    _refuse(
      row.credit != 'identity',
      f'train.credit={row.credit!r} is of whole completions; it needs train.per_token='
      f"'broadcast', not {row.per_token!r}",
    )
    _refuse(
      row.scale != 'none' or row.baseline not in ('none', 'greedy'),
      f'train.per_token={row.per_token!r} takes train.scale=none and train.baseline none'
      f'{" or greedy" if row.per_token == "returns" else ""}',
    )
    _refuse(
      row.per_token == 'gae' and row.baseline != 'none',
      "train.per_token='gae' has the critic as its baseline; set train.baseline='none'",
    )
  _check_compared(row)
  if row.turn_credit != 'episode':
    _refuse(
      row.compares != ''
      or row.credit != 'identity'
      or row.per_token != 'broadcast'
      or row.greedy_rollout,
      f'train.turn_credit={row.turn_credit!r} compares the returns of turns within a group: it '
      "takes train.credit='identity', train.per_token='broadcast', no greedy baseline and no cell "
      'that compares whole completions',
    )
  _refuse(
    row.turn_gamma != 1 and row.turn_credit == 'episode',
    f"train.turn_gamma={row.turn_gamma} does nothing with train.turn_credit='episode'; take 'turn'",
  )
  without = ('identity', 'signed', 'unlikely', 'distinct', 'distinct_loo')
  if row.credit not in without and not row.own_credit:
    _refuse(
      row.baseline != 'none' or row.scale != 'none',
      f'train.credit={row.credit!r} has its baseline within; set train.baseline=none and '
      'train.scale=none',
    )
  _refuse(
    row.asks_right != ''
    and (row.overlong_share > 0 or (row.kl_in == 'reward' and row.kl_coef > 0)),
    f'{row.asks_right} asks whether an answer is right, which a reward with KL or an overlong '
    "punishment in it does not tell; use train.kl_in='loss' and train.overlong_share=0",
  )
  if row.scale != 'none' and row.baseline == 'none':
    raise ValueError(
      f'train.algorithm={name!r} has no baseline, so rewards cannot be divided by the deviation '
      'within a group; set train.std_normalise=False'
    )
  within = ('group_mean', 'loo', 'length_weighted')
  fits = {
    'batch_std': (*within, 'batch_mean'),
    'solve_rate': ('group_mean',),
  }.get(row.scale, within)
  _refuse(
    row.scale != 'none' and row.baseline not in fits,
    f'train.scale={row.scale!r} is 0 where all rewards are equal, and train.baseline='
    f'{row.baseline!r} leaves something to be divided by it; use one of {", ".join(fits)}',
  )


def _check_compared(row: Algorithm) -> None:
  """Cells that compare the completions of a group."""
  _refuse(
    row.per_token != 'broadcast' and row.compares != '',
    f"{row.compares} is of whole completions; it needs train.per_token='broadcast', not "
    f'{row.per_token!r}',
  )
  rare = row.credit in ('unlikely', 'distinct', 'distinct_loo')
  _refuse(
    rare and row.baseline == 'greedy',
    f"train.credit={row.credit!r} is worth less than a reward, and train.baseline='greedy' is a "
    'reward; use group_mean, loo or none',
  )
  _refuse(
    row.credit != 'identity' and row.scale == 'solve_rate',
    "train.scale='solve_rate' divides rewards by their mean; with "
    f'train.credit={row.credit!r} they are no rewards any more; use train.credit=identity, or '
    'another scale',
  )


def _check_loss(row: Algorithm) -> None:
  if row.learn_from != 'all':
    _refuse(
      row.baseline != 'none' or row.whiten or row.per_token != 'broadcast',
      f'train.learn_from={row.learn_from!r} leaves right answers alone, all worth the same: a '
      'baseline or whitening would make that 0; set train.baseline=none, train.scale=none, '
      'train.whiten=False and train.per_token=broadcast',
    )
  if row.kl_coef:
    _refuse(
      row.kl_in == 'none',
      f"train.kl_coef={row.kl_coef} with train.kl_in='none' does nothing; set it to 0, or kl_in "
      "to 'loss' or 'reward'",
    )
    kl.check_kind(row.kl_kind, row.kl_in)
  _refuse(
    row.surrogate in ('gmpo', 'sapo', 'dppo_tv', 'dppo_kl', 'dro') and row.ratio != 'token',
    f'train.surrogate={row.surrogate!r} takes the ratio of each token; set train.ratio=token',
  )
  _refuse(
    row.surrogate == 'gmpo' and row.aggregation != 'seq_mean_token_mean',
    "train.surrogate='gmpo' has one loss for a completion; set train.aggregation="
    'seq_mean_token_mean',
  )
  _refuse(
    row.surrogate == 'gmpo' and row.token_select != 'none',
    "train.surrogate='gmpo' has one loss for a completion, train.token_select chooses tokens; "
    'leave one of them out',
  )
  _refuse(
    row.offpolicy == 'rs' and row.offpolicy_stat.endswith('_k1') and row.offpolicy_low >= 0,
    f'train.offpolicy_stat={row.offpolicy_stat!r} has either sign and is about 0 on-policy: with '
    f'train.offpolicy_low={row.offpolicy_low} half of what was sampled would be left out; set that '
    'below 0, or take a statistic of k2 or k3',
  )
  _refuse(
    row.old_policy == 'sampler' and row.offpolicy != 'none',
    f"train.old_policy='sampler' has the sampler in its ratio already; train.offpolicy="
    f'{row.offpolicy!r} would correct for it twice',
  )


def _refuse(wrong: bool, message: str) -> None:
  if wrong:
    raise ValueError(message)
