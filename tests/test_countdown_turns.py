"""Countdown in conversations: what is said is true, and the corpus is what is said."""

import re

import pytest

from rlvr_jax.models.characters import EOS, char_tokenizer
from rlvr_jax.tasks import countdown, load
from rlvr_jax.tasks import countdown_turns as turns
from rlvr_jax.tasks.registry import verifier_name


@pytest.fixture(scope='module')
def problems():
  return turns.make_problems(60, seed=1)


def test_problems_are_countdowns(problems):
  plain = countdown.make_problems(60, seed=1)
  assert [(p.id, p.prompt, p.answer) for p in problems] == [
    (p.id, p.prompt, p.answer) for p in plain
  ]
  assert {verifier_name(p) for p in problems} == {'countdown'}
  task = {'name': 'countdown_turns', 'params': {}, 'limit': 0, 'holdout': 3, 'verifier': ''}
  assert len(load.load_problems(task)[1]) == 3


def test_what_is_said_is_the_value(problems):
  for problem in problems[:10]:
    target = problem.answer['target']
    for text, value in countdown.expressions(tuple(problem.answer['numbers'])):
      said, state, reward = turns.value(problem, None, text)
      again, _ = turns.again(problem, None, text)
      assert state is None
      if value == target:
        assert (said, again, reward) == (None, None, 0)
      else:
        assert (said, again) == (f'={value}?', '?')
        assert reward == pytest.approx(1 / (1 + abs(value - target)))


def test_what_is_no_answer_has_its_own_signs(problems):
  problem = problems[0]
  a, b, c = problem.answer['numbers']
  other = next(n for n in range(1, 99) if n not in (a, b, c))
  for text, said in (
    (f'{a}+{b}*{other}', '!?'),
    (f'{a}+{b}', '??'),
    ('', '??'),
    (f'0{a}+{b}+{c}', '??'),
    (f'{a}+{b}+{"9" * 5000}', '!?'),
  ):
    assert turns.value(problem, None, text) == (said, None, 0)
    assert turns.again(problem, None, text) == ('?', None)


def test_the_corpus_is_conversations(problems):
  """Every answer in it is what the environment says, all of it can be read, and noise is noise."""
  tokenizer = char_tokenizer(turns.ALPHABET)
  hits, lengths, blank = 0, set(), 0
  pairs = turns.corpus(problems * 20, seed=2, noise=0.3)
  for problem, (prompt, completion) in zip(problems * 20, pairs, strict=True):
    ids = tokenizer.encode(prompt + completion, special=False)
    assert tokenizer.decode(ids, skip_special=False) == prompt + completion
    rest = prompt.removeprefix(str(problem.prompt))
    tries = [piece for piece in re.split(r'(?<=\?)(?!\?)', rest) if piece]
    lengths.add(len(tries))
    said = [piece.split(EOS) for piece in tries]
    kinds = {reply == '?' for _, reply in said}
    assert len(kinds) <= 1
    blank += kinds == {True}
    for text, reply in said:
      respond = turns.again if reply == '?' else turns.value
      assert respond(problem, None, text)[0] == reply
    verdict = countdown.verify(problem, completion).verdict
    assert verdict in ('correct', 'wrong')
    hits += verdict == 'correct'
  assert lengths == {0, 1, 2, 3}
  assert 0.65 < hits / len(pairs) < 0.85  # of 30% any some hit
  assert 0.3 < blank / len(pairs) < 0.45  # half of the three quarters that have an answer
  again = turns.corpus(problems * 20, seed=2, noise=0.3)
  assert again == pairs
