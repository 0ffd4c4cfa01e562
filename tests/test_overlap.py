"""Duplicates: equal text whatever its blanks, and shared runs of words."""

import random

from rlvr_jax.tasks.overlap import overlap, repeats
from rlvr_jax.tasks.problem import Problem


def made(*texts, start=0):
  return [Problem(f'{i}', 'ours', text, '1') for i, text in enumerate(texts, start)]


def words(count, rng):
  return [f'w{rng.randrange(10**6)}' for _ in range(count)]


def test_same_and_near_and_shared():
  rng = random.Random(0)
  long = words(40, rng)
  train = made(' '.join(long), 'Find  x.', 'Unrelated words ' + ' '.join(words(30, rng)))
  changed = [*long[:35], *words(5, rng)]
  brief = [*words(30, rng), *long[:13]]
  test = made(
    '  ' + '\n'.join(long).upper(),  # same
    'find x.',  # same, though short
    ' '.join(changed),  # near: 23 of 28 runs of 13
    ' '.join(brief),  # one run
    ' '.join(words(30, rng)),
    'Find y.',
    start=10,
  )
  found = overlap(train, test, 13)
  assert found.same == (('0', '10'), ('1', '11'))
  assert [(p.first, p.second) for p in found.near] == [('0', '12')]
  assert found.near[0].share == 23 / 28
  assert [(p.second, p.share) for p in found.shared[1:]] == [('13', 1 / 31)]
  assert found.too_short == 2  # 'find x.' and 'Find y.'


def test_signs_count_in_equal_texts():
  found = overlap(made('Solve $x+1=2$'), made('Solve $x-1=2$'))
  assert found.same == ()


def test_against_a_slow_search():
  rng = random.Random(1)
  texts = [' '.join(rng.choice('abc') for _ in range(rng.randint(3, 9))) for _ in range(60)]
  first, second = made(*texts[:30]), made(*texts[30:], start=30)
  found = overlap(first, second, 4)

  def grams(text):
    tokens = text.split()
    return {tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)}

  known = {p.prompt for p in first}
  expected = {}
  for problem in second:
    mine = grams(problem.prompt)
    if problem.prompt not in known and mine:
      share = max(len(mine & grams(p.prompt)) / len(mine) for p in first)
      if share:
        expected[problem.id] = share
  assert {pair.second: pair.share for pair in found.shared} == expected
  assert {b for _, b in found.same} == {p.id for p in second if p.prompt in known}


def test_repeats_within_a_set_and_chats():
  chat = ({'role': 'system', 'content': 'S'}, {'role': 'user', 'content': 'Add  one.'})
  problems = [*made('Add one.', 'Other'), Problem('c', 'ours', chat, '1')]
  assert repeats(problems) == [('0', 'c')]
