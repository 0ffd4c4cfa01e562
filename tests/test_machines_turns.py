"""Machines in conversations: what is said is true, and the corpus is what is said."""

import re

import pytest

from rlvr_jax.models.characters import EOS, char_tokenizer
from rlvr_jax.tasks import load, machines
from rlvr_jax.tasks import machines_turns as turns
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.registry import verifier_name


@pytest.fixture(scope='module')
def problems():
  return turns.make_problems(60, seed=1, held=0)


def test_problems_are_those_of_machines(problems):
  plain = machines.make_problems(60, seed=1, held=0)
  assert [(p.id, p.prompt, p.answer) for p in problems] == [
    (p.id, p.prompt, p.answer) for p in plain
  ]
  assert [p.meta['split'] for p in problems] == [p.meta['split'] for p in plain]
  assert {verifier_name(p) for p in problems} == {'machines'}
  task = {
    'name': 'machines_turns',
    'params': {'problems': 20, 'held': 5},
    'limit': 0,
    'holdout': 5,
    'verifier': '',
  }
  held = load.load_problems(task)[1]
  assert [p.meta['split'] for p in held] == list(machines.SPLITS)
  solutions = load.solutions_of(task)
  assert solutions is not None
  assert all(turns.case(held[0], None, text)[0] is None for text in solutions(held[0])[:5])


def test_the_first_case_that_fails_is_named():
  problem = Problem('aRcT', turns.TASK, 'aRcT:', {'cases': [['a', 'R'], ['c', 'T']]})
  for program, said, passed in (
    ('a~-c<<', None, 9),
    ('a~-', 'c?', 7),
    ('c<<', 'a?', 5),
    ('a~-c<-', 'c?', None),
    ('a--c<-', 'a?', None),
    ('a~-b<c<<', '!?', 8),
    ('a~-c<<<>', '!?', None),
    ('c<<a~-', '??', 0),
    ('', '??', 0),
  ):
    answer, state, reward = turns.case(problem, 7, program)
    assert (answer, state) == (said, 7), program
    assert reward == (0 if said is None else machines.verify(problem, program).reward)
    if passed is not None and said is not None:
      assert reward == pytest.approx(passed / 9)


def test_the_corpus_is_conversations(problems):
  """Half of it has answers, each is what the environment says; the end is that of machines."""
  tokenizer = char_tokenizer(turns.ALPHABET)
  many = problems * 20
  pairs = turns.corpus(many, seed=2, noise=0.3)
  ends = machines.corpus(many, seed=2, noise=0.3)
  lengths = []
  for problem, (prompt, completion), (_, end) in zip(many, pairs, ends, strict=True):
    assert completion == end
    ids = tokenizer.encode(prompt + completion, special=False)
    assert tokenizer.decode(ids, skip_special=False) == prompt + completion
    rest = prompt.removeprefix(str(problem.prompt))
    tries = [piece for piece in re.split(r'(?<=\?)(?!\?)', rest) if piece]
    lengths.append(len(tries))
    for piece in tries:
      text, said = piece.split(EOS)
      assert turns.case(problem, None, text)[0] == said
  assert set(lengths) == {0, 1, 2}
  assert 0.45 < lengths.count(0) / len(pairs) < 0.55
  assert turns.corpus(many, seed=2, noise=0.3) == pairs
  silent = turns.make_problems(60, seed=1, held=0, talk=0.0)
  assert [p for p, _ in turns.corpus(silent, seed=2, noise=0.3)] == [p.prompt for p in silent]
