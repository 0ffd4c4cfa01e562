"""Golds that do not verify themselves, and golds that junk passes for, are refused by name."""

import json
import pathlib

import pytest

from rlvr_jax.tasks import load, self_check
from rlvr_jax.tasks.problem import Problem

LOOSE = str(pathlib.Path(__file__).parent / 'fixtures' / 'tasks' / 'loose_verifiers.py')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('RLVR_DATA_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


def problems(verifier, *golds, **meta):
  meta = {'verifier': verifier, **meta}
  return [Problem(f'p{i}', 'ours', 'Q', gold, meta) for i, gold in enumerate(golds)]


def test_what_fails_is_named_and_costs_once(cache, monkeypatch):
  group = problems(f'{LOOSE}:stubborn', '7', '12', '3')
  found = self_check.failures(group)
  assert list(found) == ['p1']
  assert found['p1'].startswith("its own gold '12' is wrong")
  (path,) = (cache / 'self_check').iterdir()
  assert sorted(json.loads(path.read_text()).values())[:2] == ['', '']

  class NoPool:
    def __init__(self, *_, **__):
      raise AssertionError('asked again')

  monkeypatch.setattr(self_check, 'VerifierPool', NoPool)
  assert self_check.failures(group) == found
  with pytest.raises(AssertionError, match='asked again'):
    self_check.failures([*group, *problems(f'{LOOSE}:stubborn', '99')])
  with pytest.raises(AssertionError, match='asked again'):  # another verifier has its own record
    self_check.failures(problems(f'{LOOSE}:anything', '7'))


def test_junk_that_passes_is_named():
  found = self_check.failures(problems(f'{LOOSE}:anything', '7', 'x'))
  assert list(found) == ['p1']
  assert found['p1'] == "the junk 'I do not know.' is correct for the gold 'x'"


def test_the_strict_verifier_refuses_an_empty_gold_and_passes_usual_ones():
  usual = ['72', '\\frac{1}{2}', '(3, \\frac{\\pi}{2})', '\\text{Saturday}', '1,234', '[0,1)', 'B']
  assert self_check.failures(problems('math', *usual)) == {}
  (why,) = self_check.failures(problems('math', '$ $')).values()
  assert 'error' in why
  assert 'not a non-empty text' in why


def test_modes():
  group = problems(f'{LOOSE}:stubborn', '7', '12', '345')
  checked = self_check.checked
  assert checked(group) == group  # auto: a verifier of the user's is not asked
  assert checked(group, mode='off') == group
  with pytest.raises(
    ValueError,
    match=r"2 of 3 golds of ours fail the self-check: 'p1': its own gold '12' is wrong .*'p2'.*"
    r"task\.self_check='drop', keep them by task\.allow=\('p1', 'p2'\)",
  ):
    checked(group, mode='refuse')
  with pytest.raises(ValueError, match='1 of 3 golds'):
    checked(group, mode='refuse', allow=('p1',))
  assert checked(group, mode='refuse', allow=('p1', 'p2')) == group
  assert checked(group, mode='drop') == group[:1]
  assert checked(group, mode='drop', allow=('p2',)) == [group[0], group[2]]
  with pytest.raises(ValueError, match=r"task\.self_check='on' must be one of auto, refuse"):
    checked(group, mode='on')


def test_a_time_out_is_asked_again():
  group = problems(f'{LOOSE}:endless', '7')
  found = self_check.failures(group, workers=1, limit_s=0.3)
  assert 'timeout' in found['p0']
  (path,) = (self_check.cache_dir() / 'self_check').iterdir()
  assert json.loads(path.read_text()) == {}


def test_programs_are_asked_with_their_solution():
  (problem,) = problems('code', {'kind': 'stdin'}, solution='print(1)')
  assert self_check.probes(problem) == ('```python\nprint(1)\n```', ('```python\npass\n```',))
  (problem,) = problems('code', {'kind': 'stdin'})
  assert self_check.probes(problem)[0] is None


def test_loading_refuses_a_gold_that_fails(tmp_path):
  (tmp_path / 'x.jsonl').write_text('{"problem": "Q", "answer": "12"}\n')
  task = {
    'name': 'jsonl', 'path': str(tmp_path / 'x.jsonl'), 'params': {}, 'limit': 0, 'holdout': 0,
    'fields': {}, 'verifier': f'{LOOSE}:stubborn', 'self_check': 'refuse',
  }  # fmt: skip
  with pytest.raises(ValueError, match='1 of 1 golds of jsonl fail'):
    load.load_problems(task)
  assert len(load.load_problems(task | {'allow': ('0',)})[0]) == 1
