"""Machines: the interpreter's laws, the verifier beside a second reading, all right programs."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.config_keys import PARTS
from rlvr_jax.tasks import load, machines
from rlvr_jax.tasks.machines import (
  ALPHABET,
  LETTERS,
  NAMED,
  PRIMITIVES,
  SPLITS,
  STEPS,
  corpus,
  make_problems,
  parse,
  run,
  solutions,
  verify,
)
from rlvr_jax.tasks.problem import check_unique

PROBLEMS = make_problems(60, seed=3, held=50)
BODIES = st.text(alphabet=PRIMITIVES, max_size=12)
WORDS = st.text(alphabet='abcxyz', max_size=6)
DEQUE = {
  '~': lambda w: [*reversed(w)],
  '-': lambda w: w[1:],
  '+': lambda w: w[:1] + w,
  '<': lambda w: w[1:] + w[:1],
  '>': lambda w: w[-1:] + w[:-1],
}


def by_lists(body, word):
  letters = list(word)
  for primitive in body:
    letters = DEQUE[primitive](letters)
  return ''.join(letters)


@given(BODIES, BODIES, WORDS)
def test_the_interpreter_runs_one_primitive_after_another(first, second, word):
  middle = run(first, word)
  assert middle is not None
  assert run(first + second, word) == run(second, middle) == by_lists(first + second, word)
  for nothing in ('~~', '<>', '><', '+-'):
    assert run(first + nothing, word) == middle


@given(st.text(alphabet=PRIMITIVES, max_size=3 * STEPS), WORDS)
def test_it_gives_up_after_its_steps_and_words_stay_short(body, word):
  after = run(body, word)
  assert (after is None) == (len(body) > STEPS)
  assert after is None or len(after) <= len(word) + STEPS


def test_the_named_operations_differ_and_need_their_room():
  shorter = {machines._effect(body) for body in ('', *PRIMITIVES)}
  effects = {machines._effect(body) for body in NAMED.values()}
  assert len(effects) == len(NAMED)
  assert not effects & shorter
  assert {len(body) for body in NAMED.values()} == {machines.ROOM}


def passes(one, program):
  """(tests passed, tests) by the prompt's letters and NAMED alone; None for what is no program."""
  if not re.fullmatch(r'([a-f][-~+<>]+)+', program):
    return None
  letters = re.findall('[a-f]', program)
  if letters != sorted(set(letters)):
    return None
  bodies = dict(zip(letters, re.split('[a-f]', program)[1:], strict=True))
  wanted = {}
  for group, names in re.findall('([a-f]+)([A-Z]+)', one.prompt):
    wanted |= dict.fromkeys(group, names)
  found = []
  for letter, names in wanted.items():
    for tail in ('', 'x', 'xyz', 'xyxy'):
      word = letter + tail
      right = word
      for name in names:
        right = by_lists(NAMED[name], right)
      found.append(by_lists(bodies.get(letter, ''), word) == right)
  small = len(bodies) <= len(wanted) and all(
    len(body) <= 2 * len(wanted.get(letter, NAMED)) for letter, body in bodies.items()
  )
  return sum(found) + small, len(found) + 1


def check(one, program):
  verdict, found = verify(one, program), passes(one, program)
  if found is None:
    assert (verdict.verdict, verdict.reward) == ('unparsed', 0.0)
    return
  assert verdict.reward == pytest.approx(found[0] / found[1])
  assert (verdict.verdict == 'correct') == (found[0] == found[1]) == (verdict.reward == 1)
  assert (verdict.verdict == 'correct') == (program in solutions(one))


@settings(deadline=None)
@given(st.integers(0, len(PROBLEMS) - 1), st.data())
def test_the_share_of_tests_of_programs_near_and_far(index, data):
  one = PROBLEMS[index]
  for _ in range(5):
    text = data.draw(st.sampled_from(solutions(one)))
    at = data.draw(st.integers(0, len(text)))
    new = data.draw(st.sampled_from([*LETTERS, *PRIMITIVES, '', ' ', 'R', '\n', '~~', 'ａ-']))  # noqa: RUF001
    check(one, text[:at] + new + text[at + data.draw(st.integers(0, 2)) :])
  cases = data.draw(
    st.lists(st.tuples(st.sampled_from(LETTERS), st.sampled_from(PRIMITIVES * 2)), max_size=6)
  )
  check(one, ''.join(letter + body for letter, body in sorted(cases)))


def test_every_right_program_of_a_small_problem():
  """All programs over two letters, with bodies longer than there is room for."""
  bodies = [''.join(b) for n in range(1, 4) for b in itertools.product(PRIMITIVES, repeat=n)]
  for one in (machines._problem('bR', 'easy'), machines._problem('aEbT', 'easy')):
    single = [x + body for x in 'ab' for body in bodies]
    pairs = [f'a{f}b{g}' for f in bodies[:30] for g in bodies]
    pairs += [f'a{f}b{g}' for f in bodies for g in bodies[:30]]
    accepted = {text for text in (*single, *pairs) if verify(one, text).verdict == 'correct'}
    assert accepted == set(solutions(one))


def test_partial_work_earns_its_share():
  one = machines._problem('aRcTLdF', 'hard')
  assert one.prompt == 'aRcTLdF:'
  assert verify(one, 'a~-c<<>-d--').verdict == 'correct'
  shares = [verify(one, text).reward for text in ('a~-', 'a~-c<<>-', 'a~-c<<>-d--')]
  assert shares == sorted(shares)
  assert len(set(shares)) == 3
  # one case more than there is room for is one test less
  assert verify(one, 'a~-b~~c<<>-d--').reward == pytest.approx(12 / 13)
  assert verify(one, 'c<<>-a~-d--').verdict == 'unparsed'
  assert 'exact' in PARTS
  assert parse('a~-a--') is None


def test_splits_are_what_they_say_and_the_held_out_ones_are_the_same_for_all():
  every = {t: make_problems(60, seed=5, held=50, train=t) for t in ('easy', 'hard', 'ladder')}
  for problems in every.values():
    assert problems[:50] == every['easy'][:50]
    check_unique(problems)
  held = every['easy'][:50]
  assert [p.meta['split'] for p in held] == [split for split in SPLITS for _ in range(10)]
  for one in held:
    names = list(machines.asked(one).values())
    split = one.meta['split']
    if split == 'easy':
      assert sum(map(len, names)) <= 2
    elif split == 'exploratory':
      assert len(names) > 4
    else:
      assert len(names) == 4
      assert (max(map(len, names)) == 2) == (split == 'compositional')
    grouped = len(re.findall('[a-f]', str(one.prompt))) > len(re.findall('[A-Z]', str(one.prompt)))
    assert grouped == (split == 'transformative')
    assert set(one.prompt) <= set(ALPHABET)
    assert max(map(len, solutions(one))) < 24
  hard = make_problems(70, seed=5, held=50, train='ladder')[50:][1::2]
  assert hard == make_problems(60, seed=5, held=50, train='hard')[50:]


@pytest.mark.parametrize('noise', [0.0, 0.4])
def test_corpus_is_right_programs_and_the_asked_share_of_any(noise):
  problems = make_problems(300, seed=2, held=0)
  pairs = corpus(problems, seed=1, noise=noise)
  assert pairs == corpus(problems, seed=1, noise=noise)
  verdicts = [verify(p, text).verdict for p, (_, text) in zip(problems, pairs, strict=True)]
  assert set(verdicts) <= {'correct', 'wrong'}
  misses = verdicts.count('wrong') / len(verdicts)
  assert (misses == 0) if noise == 0 else (0.8 * noise < misses < 1.2 * noise)


@pytest.mark.parametrize(
  ('params', 'message'),
  [
    ({'train': 'harder'}, "task.params.train='harder' is none of hard, easy"),
    ({'cases': 6}, r'task.params.cases=6 must be between 3 and 5'),
    ({'held': 7}, r'task.params.held=7 must be a multiple of 5'),
    ({'held': 0}, r'900 problems were asked for, but there are about 78\d of train=.easy'),
  ],
)
def test_parameters_that_do_not_fit(params, message):
  with pytest.raises(ValueError, match=message):
    make_problems(900, seed=0, **params)


def test_the_family_is_found_by_its_name():
  task = {'name': 'machines', 'module': '', 'environment': ''}
  assert load.family(task) is machines
  assert load.solutions_of(task) is solutions


def test_problems_can_be_left_out():
  found = [p.id for p in machines.make_problems(230, seed=1, held=200, train='hard')]
  out = (found[3], found[210])
  fewer = [p.id for p in machines.make_problems(228, seed=1, held=200, train='hard', without=out)]
  assert not set(out) & set(fewer)
  assert set(found[:200]) - set(out) <= set(fewer[:200])


def test_every_letter_asked_for_needs_its_case():
  """D and then F does nothing: a problem that asked for it would be solved without its case."""
  assert machines.run('++--', 'axyz') == 'axyz'
  rest = {'problems': 300, 'held': 200, 'seed': 2}
  found = machines.make_problems(rest.pop('problems') + 200, **rest)
  assert not [p for p in found if any(names == 'DF' for names in machines.asked(p).values())]
  for problem in found[::17]:
    [first, *_] = machines.solutions(problem)
    cases = machines.parse(first)
    assert cases is not None
    for letter in cases:
      fewer = ''.join(x + body for x, body in cases.items() if x != letter)
      assert machines.verify(problem, fewer).verdict != 'correct'
