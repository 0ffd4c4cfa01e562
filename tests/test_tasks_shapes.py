"""Small pictures: drawn by (seed, index) alone, each with one right answer that can be seen."""

import math

import numpy as np
import pytest
from dataset_files import task

from rlvr_jax.tasks import images, load, shapes
from rlvr_jax.tasks.registry import load_verifier, verifier_name, verifier_version

PROBLEMS = shapes.make_problems(60, seed=3)


def test_pictures_depend_on_seed_and_index_alone():
  assert shapes.make_problems(10, seed=3, skip=20) == PROBLEMS[20:30]
  shapes._picture.cache_clear()
  assert shapes.make_problems(60, seed=3) == PROBLEMS
  other = shapes.make_problems(60, seed=4)
  assert not {p.images[0].data for p in other} & {p.images[0].data for p in PROBLEMS}
  assert len({p.id for p in PROBLEMS}) == 60
  assert [p.meta['kind'] for p in PROBLEMS[:4]] == ['count', 'angle', 'point', 'count']
  for problem in PROBLEMS:
    assert images.pixels(problem).shape == (56, 56, 3)
    assert len(problem.images[0].data) < 2500


def dark(problem):
  """bool[H, W] where there is ink, by the colour of the paper in a corner of most pictures."""
  values = images.pixels(problem).astype(float).mean(-1)
  return values < (values.max() + values.min()) / 2


def pieces(mask):
  """Numbers of connected pieces: another way to count than the one that drew them."""
  left = {tuple(place) for place in np.argwhere(mask).tolist()}
  count = 0
  while left:
    count += 1
    stack = [left.pop()]
    while stack:
      y, x = stack.pop()
      for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
        if near in left:
          left.remove(near)
          stack.append(near)
  return count


def test_as_many_dots_as_the_answer_says():
  for problem in shapes.make_problems(40, seed=5, kinds='count', largest=9):
    assert pieces(dark(problem)) == int(problem.answer)


def test_the_angle_can_be_measured():
  """Between the two directions in which the ink is: half the plane at least is empty beside it."""
  for problem in shapes.make_problems(40, seed=6, kinds=('angle',), size=112):
    places = np.argwhere(dark(problem)).astype(float) + 0.5
    # the ends are the two places farthest apart from the vertex, which is near the middle
    best = min(
      abs(_spread(places, vertex) - int(problem.answer))
      for vertex in [(56 + dy, 56 + dx) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2)]
    )
    assert best < 6, problem.id


def _spread(places, vertex):
  away = places - np.array(vertex)
  far = np.hypot(*away.T) > 25
  angles = np.sort(np.degrees(np.arctan2(away[far][:, 0], away[far][:, 1])) % 360)
  gaps = np.sort(np.diff(np.append(angles, angles[0] + 360)))
  return min(gaps[-1], 360 - gaps[-1]) if gaps[-2] < 10 else gaps[-2]


def test_the_point_is_where_the_answer_says():
  for problem in shapes.make_problems(40, seed=7, kinds=('point',)):
    x, y = map(int, problem.answer.split(','))
    values = images.pixels(problem).astype(float).mean(-1)
    margin = 0.12 * 56
    unit = (56 - 2 * margin) / 3
    inked = {
      (i, j): values[round(56 - margin - j * unit - 0.5), round(margin + i * unit - 0.5)]
      for i in range(4)
      for j in range(4)
    }
    assert inked[x, y] <= min(inked.values()) + 1
    around = values[max(0, round(56 - margin - y * unit) - 4) :, :][:8]
    assert (around < values.max() - 60).sum() > 8


def test_answers_of_every_kind_occur_and_one_is_right():
  seen = {}
  for problem in shapes.make_problems(600, seed=1):
    seen.setdefault(problem.meta['kind'], set()).add(problem.answer)
    assert set(problem.prompt + problem.answer) <= set(shapes.ALPHABET)
    verdicts = [shapes.verify(problem, text).verdict for text in problem.meta['answers']]
    assert verdicts.count('correct') == 1
    assert verdicts.count('wrong') == len(verdicts) - 1
    assert [shapes.verify(problem, text).verdict for text in shapes.solutions(problem)] == [
      'correct'
    ]
  assert seen == {kind: set(shapes.answers(kind)) for kind in shapes.KINDS}


@pytest.mark.parametrize('text', ['', ' 3', '3 ', '03', 'three', '3,', '30,1', '3\n', '٣', '999'])
def test_other_text_is_no_answer(text):
  for problem in PROBLEMS[:3]:
    assert shapes.verify(problem, text).verdict == 'unparsed'


@pytest.mark.parametrize('noise', [0.0, 0.4, 1.0])
def test_the_corpus_is_one_pair_a_problem_in_order(noise):
  problems = shapes.make_problems(900, seed=2)
  pairs = shapes.corpus(problems, seed=1, noise=noise)
  assert pairs == shapes.corpus(problems, seed=1, noise=noise)
  assert [prompt for prompt, _ in pairs] == [p.prompt for p in problems]
  right = np.mean([text == p.answer for p, (_, text) in zip(problems, pairs, strict=True)])
  chance = np.mean([1 / len(p.meta['answers']) for p in problems])
  wanted = 1 - noise + noise * chance
  assert abs(right - wanted) < 4 * math.sqrt(0.25 / 900)
  assert all(text in p.meta['answers'] for p, (_, text) in zip(problems, pairs, strict=True))


def test_it_is_a_task_with_a_verifier_an_alphabet_and_a_hash():
  group = task('shapes', params={'problems': 5, 'seed': 1}, holdout=2)
  train, held_out = load.load_problems(group)
  assert (len(train), len(held_out)) == (5, 2)
  assert load.family(group) is shapes
  assert verifier_name(train[0]) == 'shapes'
  verify = load_verifier('shapes', verifier_version('shapes'))
  assert verify(train[0], train[0].answer).reward == 1.0
  known = load.content_hash(group)
  assert load.content_hash(group | {'params': {'problems': 9, 'seed': 1}}) == known
  assert load.content_hash(group | {'params': {'problems': 5, 'seed': 2}}) != known


@pytest.mark.parametrize(
  ('params', 'why'),
  [
    ({'kinds': ('counts',)}, r"kinds has \['counts'\]; known are count, angle, point"),
    ({'kinds': ()}, 'is empty'),
    ({'size': 50}, 'size=50 must be a multiple of 28'),
    ({'size': 4480}, 'between 28 and 448'),
    ({'largest': 17}, 'largest=17 must be between 2 and 16'),
    ({'grid': 1}, 'grid=1'),
    ({'step': 1}, 'step=1'),
  ],
)
def test_parameters_that_do_not_fit_are_named(params, why):
  with pytest.raises(ValueError, match=rf'task\.params\..*{why}'):
    shapes.make_problems(3, seed=1, **params)
