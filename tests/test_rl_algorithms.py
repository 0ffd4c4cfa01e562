"""The table: combinations that do not fit are refused, its documentation is whole."""

import dataclasses
import inspect
import pathlib
import re

import pytest

from rlvr_jax.rl import credit
from rlvr_jax.rl.algorithms import ALGORITHMS, Algorithm, choose

PAGE = (pathlib.Path(__file__).parent.parent / 'docs' / 'algorithms.md').read_text()


def test_every_row_fits_and_none_is_the_rows_own():
  for name, row in ALGORITHMS.items():
    assert choose(name) == row
    assert choose(name, scale=None, clip_high=None) == row
    hash(row)
  assert choose('dapo', clip_high=0.3).clip_high == 0.3


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    ('grpo', {'aggregation': 'mean'}, r"train.aggregation='mean': known are token_mean"),
    ('grpo', {'kl_coef': 0.1, 'kl_kind': 'k1'}, r"kl_kind='k1' regularises nothing .* use k2"),
    ('grpo', {'kl_coef': 0.1, 'kl_kind': 'k4'}, r"train.kl_kind='k4': known are k1, abs"),
    ('grpo', {'kl_coef': 0.1, 'kl_in': 'reward'}, r"kl_kind='k3_st' differs from k3 .* use k1"),
    ('grpo', {'kl_coef': 0.1, 'kl_in': 'none'}, r"train.kl_in='none' does nothing"),
    ('grpo', {'kl_in': 'both'}, r"train.kl_in='both': known are none, reward, loss"),
    ('grpo', {'kl_coef': -0.1}, r'train.kl_coef=-0.1 must not be negative'),
    ('grpo', {'dual_clip': 0.5}, r'train.dual_clip=0.5 must be above 1'),
    ('grpo', {'baseline': 'none'}, r'set train.std_normalise=False'),
    ('grpo', {'clip': 0.2}, r'no cell clip: it has credit'),
    ('grpo', {'baseline': 'greedy'}, r"train.scale='group_std' is 0 where all rewards are equal"),
    ('grpo', {'band': (0.9, 0.1)}, r'train.band=\(0.9, 0.1\) has its upper bound below'),
    ('grpo', {'token_select': 'kl_cov', 'select_share': 0.0}, r'train.select_share=0.0 is a share'),
    ('ppo', {'baseline': 'group_mean'}, r"train.per_token='gae' takes train.scale=none"),
    ('ppo', {'baseline': 'greedy'}, r"train.per_token='gae' has the critic as its baseline"),
    ('ppo', {'credit': 'pkpo'}, r"train.credit='pkpo' is of whole completions"),
    ('ppo', {'gamma': 1.1}, r'train.gamma=1.1 must lie in 0..1'),
    ('pkpo', {'baseline': 'loo'}, r"train.credit='pkpo' has its baseline within"),
    ('pkpo', {'overlong_share': 0.2}, r"train.credit='pkpo' asks whether an answer is right"),
    ('psr', {'kl_coef': 0.1, 'kl_in': 'reward', 'kl_kind': 'k1'}, r"train.kl_in='loss'"),
    ('gspo', {'surrogate': 'sapo'}, r"train.surrogate='sapo' takes the ratio of each token"),
    ('gmpo', {'aggregation': 'token_mean'}, r"train.surrogate='gmpo' has one loss for"),
    ('gmpo', {'token_select': 'clip_cov'}, r'chooses tokens; leave one of them out'),
    ('tis', {'old_policy': 'sampler'}, r'would correct for it twice'),
    ('icepop', {'offpolicy_high': 0.1}, r'train.offpolicy_high=0.1 is below train.offpolicy_low'),
    ('grpo', {'offpolicy': 'rs', 'offpolicy_stat': 'k1'}, r"offpolicy_stat='k1': known are token"),
    ('grpo', {'offpolicy': 'rs', 'offpolicy_stat': 'token_k1'}, r'offpolicy_low=0.0 half of what'),
    ('ppo2', {}, r"train.algorithm='ppo2': known are adaptive_entropy"),
    (
      'distinct',
      {'per_token': 'returns', 'baseline': 'none'},
      r"'distinct' is of whole completions",
    ),
    ('f_grpo', {'per_token': 'gae', 'scale': 'none', 'baseline': 'none'}, r'train.focal=0.5 is of'),
    ('distinct', {'baseline': 'greedy'}, r"train.credit='distinct' is worth less than a reward"),
    ('unlikeliness', {'scale': 'solve_rate'}, r"train.scale='solve_rate' divides rewards by"),
    ('maxrl', {'baseline': 'loo'}, r"baseline='loo' leaves something .* use one of group_mean$"),
    ('maxrl', {'overlong_share': 0.2}, r"train.scale='solve_rate' asks whether an answer is right"),
    ('f_grpo', {'overlong_share': 0.2}, r'train.focal=0.5 asks whether an answer is right'),
    ('f_grpo', {'focal': -1.0}, r'train.focal=-1.0 must not be negative'),
    ('unlikeliness', {'rank_coef': 1.5}, r'train.rank_coef=1.5 must lie in 0..1'),
    ('rare_wrong', {'repeat_of': 'right'}, r"train.repeat_of='right': known are all, wrong"),
    ('rare_wrong', {'overlong_share': 0.2}, r"train.repeat_of='wrong' asks whether an answer"),
    ('distinct', {'forms': 'text'}, r"train.forms='text': known are answer, completion"),
    ('adaptive_entropy', {'entropy_coef': 0.1}, r'train.entropy_coef=0.1 starts outside 0..train'),
    ('adaptive_entropy', {'entropy_target': -0.1}, r'train.entropy_target=-0.1 must not be neg'),
  ],
)
def test_a_row_that_does_not_fit_is_refused(name, change, message):
  with pytest.raises(ValueError, match=message):
    choose(name, **change)


def test_kl_belongs_in_the_reward_as_k1():
  row = choose('reinforce_pp', kl_in='reward', kl_coef=1e-3, kl_kind='k1')
  assert row.reference
  assert row.scored_first
  assert not choose('grpo').reference
  assert choose('grpo', kl_coef=0.1).reference


def test_what_a_loop_has_to_do_is_said_by_the_row():
  assert {name for name, row in ALGORITHMS.items() if row.critic} == {'ppo'}
  assert {name for name, row in ALGORITHMS.items() if row.greedy_rollout} == {'remax'}
  assert {name for name, row in ALGORITHMS.items() if row.band} == {'dapo'}
  first = {name for name, row in ALGORITHMS.items() if row.scored_first}
  assert first == {'clip_cov', 'kl_cov', 'top_entropy'}


def test_every_row_and_every_cell_is_documented():
  rows = set(re.findall(r'^\| `(\w+)` \|', PAGE, re.MULTILINE))
  assert set(ALGORITHMS) <= rows
  for field in dataclasses.fields(Algorithm):
    assert f'`{field.name}`' in PAGE, field.name


def test_the_example_of_a_new_variant_is_the_code_itself():
  """docs/algorithms.md shows how passk_best was added: the function as it stands."""
  body = inspect.getsource(credit._best_gap)
  assert f'```python\n{body}```' in PAGE
  assert len(PAGE.split('## Adding a variant')[1].splitlines()) < 80
