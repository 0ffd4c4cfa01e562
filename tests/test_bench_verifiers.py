"""The verifiers' benchmark asks about what it says it asks about."""

import pytest

from bench import _verifiers_math as bench
from bench import verifiers


def test_half_of_the_numbers_are_right_and_none_is_asked_twice():
  cases = bench._numbers()
  assert len({(problem.answer, text) for problem, text in cases}) == len(cases) == bench.NUMBERS
  asked = cases[:400]
  assert [bench._strict(*case) for case in asked] == [i % 2 == 0 for i in range(len(asked))]


def test_it_says_what_it_needs(monkeypatch):
  monkeypatch.delenv('RLVR_DATA_DIR', raising=False)
  monkeypatch.setenv('BENCH_PARTS', 'math')
  with pytest.raises(ValueError, match=r"RLVR_DATA_DIR='': set it to the directory"):
    verifiers.main()
