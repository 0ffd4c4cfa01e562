"""What completions say: canonical forms, their numbers in a batch; rewards that say nothing."""

import dataclasses
import itertools

import jax
import loops
import numpy as np
import pytest

from rlvr_jax.eval.run import Scored
from rlvr_jax.rl import collect, forms, parts, prepare, rewards
from rlvr_jax.rl.algorithms import ALGORITHMS, choose
from rlvr_jax.rl.collect import Group
from rlvr_jax.sampling.types import Completion, Item
from rlvr_jax.tasks import canonical, countdown, countdown_cot
from rlvr_jax.tasks.canonical import RIGHT, form_of
from rlvr_jax.tasks.problem import Problem, Verdict


@pytest.fixture(autouse=True)
def quick():
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


NUMBERS = (101, 1_009, 10_007)  # so far apart that equal values mean equal calculations


def countdown_problem(target):
  return Problem('p', 'countdown', '', {'numbers': list(NUMBERS), 'target': target})


def test_countdowns_form_is_the_calculation():
  """Of all 162 expressions: two have one form exactly where algebra says they are the same."""
  found = dict(countdown.expressions(NUMBERS))
  form = {text: countdown.canonical(countdown_problem(0), text) for text in found}
  assert len(set(form.values())) == len(set(found.values())) == 26
  assert len({(form[text], value) for text, value in found.items()}) == 26
  assert countdown.canonical(countdown_problem(0), '3*(7-2)') == '+(+7-2)*3'
  assert countdown.canonical(countdown_problem(0), '3*') == '3*'


def test_a_written_out_way_has_the_form_of_its_expression():
  problem = countdown_problem(0)
  by_value = {v: countdown.canonical(problem, t) for t, v in countdown.expressions(NUMBERS)}
  for text, value in itertools.islice(countdown_cot.attempts(NUMBERS), 200):
    assert countdown_cot.canonical(problem, text) == by_value[value], text
  assert countdown_cot.canonical(problem, 'no') == 'no'


def test_forms_by_verifier():
  math = Problem('m', 'math', '', '1/2')
  right, wrong = Verdict('correct', 1.0, '0.5'), Verdict('wrong', 0.0, ' 2')
  assert form_of(math, 'so 0.5', right, 'answer') == RIGHT
  assert form_of(math, 'so  1/2', dataclasses.replace(right, extracted='1/2'), 'answer') == RIGHT
  assert form_of(math, 'so 2', wrong, 'answer') == '2'
  assert form_of(math, 'so  1/2\n', right, 'completion') == 'so 1/2'
  problem = countdown_problem(8)
  for text in ('(101+1009)*10007', '10007*(1009+101)'):
    verdict = countdown.verify(problem, text)
    assert form_of(problem, text, verdict, 'answer') == '+(+1009+101)*10007'
  assert form_of(problem, 'x', countdown.verify(problem, 'x'), 'answer') == ''


def test_a_users_file_may_say_what_is_the_same(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(
    'def verify(problem, completion):\n  return True\n\n'
    'def canonical(problem, text):\n  return problem.answer + text.lower()\n'
  )
  problem = Problem('p', 'mine', '', 'a', {'verifier': f'{file}:verify'})
  assert form_of(problem, 'BC', Verdict('correct', 1.0), 'answer') == 'abc'
  assert form_of(problem, 'BC', Verdict('correct', 1.0, 'D'), 'answer') == 'ad'
  file.write_text(
    'def verify(problem, completion):\n  return True\n\ndef canonical(problem, text):\n  return 3\n'
  )
  canonical._canonical.cache_clear()
  with pytest.raises(ValueError, match='gave a int for'):
    form_of(problem, 'BC', Verdict('correct', 1.0), 'answer')


TEXTS = (
  (
    '101+1009+10007',
    '1009+101+10007',
    '101*1009+10007',
    '(101+1009)+10007',
    'no',
    '101+1009*10007',
  ),
  ('101-1009-10007', '101*1009*10007', '10007*101*1009', '101-(1009+10007)', '+', '=', 'x'),
)


def groups():
  """Two groups of countdown completions, all with the right answer's value or none."""
  result = []
  for index, texts in enumerate(TEXTS):
    problem = problems()[index]
    scored = [
      Scored(
        Completion(
          Item(index, problem.uid, 0, sample, (1, 2)),
          np.full(2 + sample % 3, 3, np.int32),
          np.full(2 + sample % 3, -0.5, np.float32),
          False,
        ),
        text,
        countdown.verify(problem, text),
      )
      for sample, text in enumerate(texts)
    ]
    result.append(Group(index, 0, scored))
  return result


def problems():
  return [
    Problem(str(target), 'countdown', '', {'numbers': list(NUMBERS), 'target': target})
    for target in (sum(NUMBERS), 101 * 1_009 * 10_007)
  ]


def test_numbers_of_forms_follow_their_first_appearance_in_each_group():
  rollouts = collect.assemble(loops.config(), groups())
  assert not rollouts.forms.any()
  found = forms.with_forms(rollouts, groups(), problems(), 'answer').forms
  assert found.tolist() == [0, 0, 1, 0, 2, 3, 0, 1, 1, 0, 2, 2, 2]
  found = forms.with_forms(rollouts, groups(), problems(), 'completion').forms
  assert found.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6]


def run(row, config, rollouts):
  """Advantages [B,T] of a row; log-probs and values are made up."""
  shape = rollouts.tokens.shape
  return prepare.prepare(
    config,
    row,
    rollouts,
    score=lambda r: (r.sampler_logprobs, np.ones(shape, np.float32)),
    score_reference=None,
    score_values=lambda _: np.zeros(shape, np.float32) if row.critic else None,
    several_steps=False,
    greedy=np.ones(2, np.float32) if row.greedy_rollout else None,
  ).advantages


def test_a_greedy_answer_earns_what_the_same_text_earns_as_a_sample():
  """Overlong or truncated alike: against itself every completion of ReMax has the advantage 0."""
  row = choose('remax', overlong_share=0.9)
  config = loops.config(**{'train.algorithm': 'remax', 'reward.truncated_score': -0.5})
  config.sampling.max_tokens = 4
  rollouts = collect.assemble(config, groups())
  B = len(rollouts.rewards)
  rollouts = rollouts.replace(group=np.arange(B, dtype=np.int32), truncated=np.arange(B) % 3 == 2)
  greedy = prepare.greedy_rewards(config, row, rollouts)
  assert set(greedy) - set(rollouts.rewards)  # what they earn has changed
  found = prepare.prepare(
    config,
    row,
    rollouts,
    score=lambda r: (r.sampler_logprobs, r.sampler_logprobs),
    score_reference=None,
    score_values=None,
    several_steps=False,
    greedy=greedy,
  )
  assert not found.advantages.any()


def test_the_random_control_works_with_every_row():
  """The coin decides, whatever the verdicts: those who win it gain, to say the least."""
  config = loops.config(**{'reward.control': 'random', 'seed': 1})
  some = groups()
  rollouts = forms.with_forms(collect.assemble(config, some), some, problems(), 'answer')
  coins = rollouts.rewards
  verdicts = np.concatenate([group.correct for group in some])
  assert np.isin(coins, (0, 1)).all()
  assert (coins != verdicts).any()
  for name, row in ALGORITHMS.items():
    if name == 'sft':
      continue
    with jax.disable_jit():  # each op compiles once for all rows
      found = run(row, config, rollouts)
    mask = rollouts.completion_mask
    assert np.isfinite(found).all(), name
    assert not found[~mask].any(), name
    if name in ('passk_best', 'remax'):  # of one winner; against a made-up greedy reward
      continue
    mean = found.sum(axis=1) / mask.sum(axis=1)
    assert mean[coins == 1].mean() > mean[coins == 0].mean(), name


COUNTING = ('unlikeliness', 'distinct', 'distinct_loo', 'f_grpo', 'maxrl', 'rare_wrong')


def test_rows_that_count_right_answers_take_no_others():
  config = loops.config()
  rollouts = collect.assemble(config, groups())
  odd = rollouts.replace(rewards=np.where(rollouts.rewards > 0, 1, 0.25).astype(np.float32))
  signed = rollouts.replace(rewards=2 * rollouts.rewards - 1)
  names = {name for name in ALGORITHMS if choose(name).asks_right and name != 'sft'}
  assert names >= set(COUNTING) | {'pkpo', 'pkpo_loo', 'passk_training', 'psr', 'nsr', 'rft'}
  rows = {name: choose(name) for name in names}
  rows['bernoulli'] = choose('grpo', scale='bernoulli_std')
  for name, row in rows.items():
    with pytest.raises(ValueError, match=r"reward of 0.25 does not.*parts to {'exact': 1.0}"):
      rewards.check_binary(row, odd.rewards)
    rewards.check_binary(row, rollouts.rewards)
    if name in ('maxrl', 'bernoulli'):
      with pytest.raises(ValueError, match=r'a reward of -1 .* takes rewards of 1 and 0;'):
        rewards.check_binary(row, signed.rewards)
    else:
      rewards.check_binary(row, signed.rewards)
  for name in ('grpo', 'batch_exploration', 'adaptive_entropy'):
    rewards.check_binary(choose(name), odd.rewards)
  with pytest.raises(ValueError, match='counts right answers'):
    run(choose('maxrl'), config, odd)


def test_a_group_of_one_has_nothing_to_compare():
  alone = loops.config(**{'train.group': 1, 'train.algorithm': 'reinforce'})
  for name in COUNTING:
    with pytest.raises(ValueError, match=r'compares the completions of a group, .*group=1; sample'):
      parts.check_fits(alone, choose(name))
  parts.check_fits(alone, choose('reinforce'))
