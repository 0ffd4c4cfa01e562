"""Paths: the verifier accepts exactly the enumerated paths, found here by a second way."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import base, families, quickstart
from rlvr_jax import config as config_lib
from rlvr_jax.tasks import load, paths
from rlvr_jax.tasks.paths import ALPHABET, CELLS, corpus, make_problems, solutions, verify
from rlvr_jax.tasks.problem import check_unique
from rlvr_jax.tasks.registry import load_verifier, verifier_name, verifier_version

PROBLEMS = make_problems(60, seed=3)
TINY = make_problems(12, seed=1, size=3, walls=2, longest=6, nearest=1, fewest=1)


def walks(prompt, text, size, longest):
  """The rule again, on points and by the prompt's letters alone."""
  ends, blocked = prompt.rstrip(':').split('#')
  points = {CELLS[y * size + x]: (x, y) for x in range(size) for y in range(size)}
  letters = {point: letter for letter, point in points.items()}
  way = [points[ends[0]]]
  for move in text:
    dx, dy = {'R': (1, 0), 'L': (-1, 0), 'D': (0, 1), 'U': (0, -1)}[move]
    way.append((way[-1][0] + dx, way[-1][1] + dy))
  names = [letters.get(point) for point in way]
  return (
    0 < len(text) <= longest
    and None not in names
    and len(set(names)) == len(names)
    and not set(names) & set(blocked)
    and names[-1] == ends[1]
  )


@pytest.mark.parametrize('one', TINY, ids=lambda p: p.id)
def test_all_strings_of_moves_up_to_a_length(one):
  every = [''.join(m) for n in range(8) for m in itertools.product('UDLR', repeat=n)]
  accepted = {text for text in every if verify(one, text).verdict == 'correct'}
  assert accepted == {text for text in every if walks(one.prompt, text, 3, 6)}
  assert accepted == set(solutions(one))
  assert len(accepted) == len(solutions(one)) > 0


@settings(deadline=None)
@given(st.integers(0, len(PROBLEMS) - 1), st.data())
def test_one_edit_of_a_path_is_correct_only_if_it_is_another(index, data):
  one = PROBLEMS[index]
  text = data.draw(st.sampled_from(solutions(one)))
  at = data.draw(st.integers(0, len(text)))
  new = data.draw(st.sampled_from([*'UDLR', 'u', ' ', '\n', '', 'a', 'Ｕ']))  # noqa: RUF001
  edited = text[:at] + new + text[at + data.draw(st.integers(0, 1)) :]
  right = verify(one, edited).verdict == 'correct'
  assert right == (edited in solutions(one))
  assert right == (set(edited) <= set('UDLR') and walks(one.prompt, edited, 5, 8))


@pytest.mark.parametrize(
  ('text', 'verdict', 'reason'),
  [
    ('RRDD', 'correct', ''),
    ('RRDLDR', 'correct', ''),
    ('DDRR', 'wrong', 'move 1 enters d, a wall'),
    ('RRR', 'wrong', 'leaves the board'),
    ('RLRRDD', 'wrong', 'enters a again'),
    ('RRD', 'wrong', 'ends at f'),
    ('RRDDUDU', 'wrong', 'more than 6'),
    ('', 'unparsed', ''),
    ('RRDD ', 'unparsed', ''),
    ('rrdd', 'unparsed', ''),
  ],
)
def test_what_counts_as_a_path(text, verdict, reason):
  one = paths._problem(3, 0, 8, [3], 6)
  assert one.prompt == 'ai#d:'
  found = verify(one, text)
  assert (found.verdict, found.reward) == (verdict, float(verdict == 'correct'))
  assert reason in found.reason


def test_problems_are_what_they_say_and_splits_are_disjoint():
  whole = make_problems(300, seed=5, walls=6)
  assert make_problems(300, seed=5, walls=6) == whole
  assert make_problems(120, seed=5, walls=6, skip=180) == whole[180:]
  assert make_problems(100, seed=6, walls=6) != whole[:100]
  check_unique(whole)
  for one in whole:
    found = solutions(one)
    assert len(found) >= 2
    assert min(map(len, found)) >= 4
    assert max(map(len, found)) <= 8
    assert len(one.answer['walls']) == 6
    assert set(f'{one.prompt}{"".join(found)}') <= set(ALPHABET)
  assert len(set(ALPHABET)) == len(ALPHABET)


@pytest.mark.parametrize('noise', [0.0, 0.5, 1.0])
def test_corpus_is_paths_and_the_asked_share_of_blind_ones(noise):
  problems = make_problems(400, seed=2)
  pairs = corpus(problems, seed=1, noise=noise)
  assert pairs == corpus(problems, seed=1, noise=noise)
  assert [prompt for prompt, _ in pairs] == [p.prompt for p in problems]
  verdicts = [verify(p, text) for p, (_, text) in zip(problems, pairs, strict=True)]
  misses = sum(v.verdict == 'wrong' for v in verdicts) / len(verdicts)
  assert (misses == 0) if noise == 0 else (0.75 * noise < misses < noise)
  # the blind ones end at the goal, and only walls are in their way
  assert all(v.reason.endswith('a wall') for v in verdicts if v.verdict != 'correct')


@pytest.mark.parametrize(
  ('params', 'message'),
  [
    ({'size': 7}, r'task.params.size=7 must be between 3 and 6'),
    ({'nearest': 9}, r'task.params.nearest=9 must be between 1 and 8'),
    ({'walls': 24}, r'task.params.walls=24 must be between 0 and 23'),
    ({'size': 3, 'walls': 5, 'longest': 4}, r'50 problems were asked for, .* give about \d+; ask'),
  ],
)
def test_parameters_that_do_not_fit(params, message):
  with pytest.raises(ValueError, match=message):
    make_problems(50, seed=0, **params)


def test_the_family_is_found_by_its_name():
  config = config_lib.load_file('configs/families.py:paths')
  config_lib.resolve(config)
  train, held_out = load.load_problems({**config.task, 'params': {'problems': 20, 'seed': 1}})
  assert (len(train), len(held_out)) == (20, 200)
  assert load.family(config.task) is paths
  assert load.solutions_of(config.task) is solutions
  name = verifier_name(train[0])
  verify_by_name = load_verifier(name, verifier_version(name))
  assert verify_by_name(train[0], solutions(train[0])[0]).verdict == 'correct'


def test_solutions_are_known_only_where_they_are_all_there_is_to_it():
  task = config_lib.load_file('configs/quickstart.py').task
  assert load.solutions_of(task)
  assert load.solutions_of({**task, 'name': 'countdown_cot'}) is None
  assert load.solutions_of({**task, 'name': 'shapes'}) is None
  assert load.solutions_of({**task, 'environment': 'retry'}) is None


def test_countdown_of_the_families_is_the_quickstarts():
  """All that differs from the defaults in the groups that train it, on a config of its own."""
  made, quick, plain = base.get_config(), quickstart.get_config(), base.get_config()
  families.use(made, 'countdown')
  made, quick, plain = (config_lib.flatten(config) for config in (made, quick, plain))
  groups = ('task', 'model', 'distill', 'optimizer', 'train', 'sampling', 'verifier')
  changed = {key for key in quick if quick[key] != plain[key] and key.startswith(groups)}
  assert changed <= set(families.FAMILIES['countdown']) | {'task.name'}
  assert {key: made[key] for key in quick if key.startswith(groups)} == {
    key: quick[key] for key in quick if key.startswith(groups)
  }


def test_a_family_that_is_not_there():
  with pytest.raises(ValueError, match="family 'mazes' is none of countdown, paths"):
    families.use(base.get_config(), 'mazes')
